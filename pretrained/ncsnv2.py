"""Checkpoints of NCSNv2 (Song & Ermon 2020).

Pictures p are in [0, 1]. Noise of any level is added to w = p, or to w = 2 p - 1 with ``data.rescaled``, and the network, which
wants [-1, 1], is shown 2 u - 1, or u; it is told no level, and says F = level times the score of u = w + level z:

    E[w | u] = u + level F

The levels of the training, a geometric progression, are in the file (``sigmas``). A checkpoint is a list of the model, the
optimizer, two counts and the exponential moving average, which is taken where there is one.

Source: the paper, 2006.09011, section 3.3; github.com/ermongroup/ncsnv2: ``models/ncsnv2.py``, ``models/ema.py``,
``runners/ncsn_runner.py``. Its ``adjust_padding`` for 28 x 28 pixels goes to dilated blocks, which ignore it, so that those
networks are as the others. Not known here: the first NCSN, and spectral norms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from invsolve.models.foreign import foreign_prior
from invsolve.models.refinenet import Activation, RefineNetConfig
from invsolve.models.score_model import FunctionPrior, per_image
from invsolve.models.sde import ve
from invsolve.pretrained.foreign import Ask
from invsolve.typed import first_misfit

MARK = "begin_conv.weight"
"""A tensor by which such files are known."""

PROCESS: dict[str, Any] = {"rescaled": bool, "sigma_min": float, "sigma_max": float}

STATED: dict[str, Any] = {"image_size": int, "rescaled": bool, "nonlinearity": Activation}
"""What ``--config`` may state, by the names of NCSNv2's own configuration."""


def check_process(process: Mapping[str, Any]) -> None:
    """Raise a ValueError for what no such network can have."""
    if wrong := first_misfit(process, PROCESS):
        raise ValueError(f"the process' {wrong}")
    if process.keys() != PROCESS.keys() or not 1e-6 < process["sigma_min"] < process["sigma_max"] < 1e6:
        raise ValueError(f"the process wants {sorted(PROCESS)}, the levels rising")


def sigmas(process: Mapping[str, Any]) -> None:
    """The network is told none, so there are no steps to be between."""


def prior(ask: Ask, process: Mapping[str, Any], channels: int, *, rounded: bool) -> FunctionPrior:
    """The change of variables above."""
    rescaled = process["rescaled"]
    center, unit = (0.5, 0.5) if rescaled else (0.0, 1.0)
    sde = ve(process["sigma_min"], process["sigma_max"], center=center, unit=unit)

    def data(u: Tensor, level: Tensor) -> Tensor:
        return u + per_image(level, u) * ask(u if rescaled else 2 * u - 1, level)

    ends: dict[str, Any] = {end: unit * process[end] for end in ("sigma_min", "sigma_max")}
    return foreign_prior(data, sde, "data", label=sde.std, channels=channels, **ends)


def averaged(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors of a whole checkpoint, a list by its places "0", "1", ...: of its model, averages in place of parameters.

    Raises
    ------
    ValueError : its averages do not fit its model.
    """
    model, last = checkpoint.get("0"), checkpoint.get("4")
    stored = model if isinstance(model, dict) else {}
    state = {name.removeprefix("module."): value for name, value in stored.items() if isinstance(name, str)}
    averages = last if isinstance(last, dict) else {}
    for name, mean in averages.items():
        if not isinstance(mean, Tensor) or mean.shape != getattr(state.get(name), "shape", None):
            raise ValueError("the checkpoint's averages do not fit its model")
    return state | averages


def read(
    state: Mapping[str, Tensor], stated: Mapping[str, Any]
) -> tuple[RefineNetConfig, dict[str, Any], dict[str, Tensor]]:
    """Network, process and tensors.

    Parameters
    ----------
    state : of a model, "sigmas" among it.
    stated : what the shapes do not say: image_size at least, see :data:`STATED`.

    Raises
    ------
    ValueError : no such network, or something is missing.
    """
    if wrong := first_misfit(stated, STATED):
        raise ValueError(f"--config: {wrong}")
    if "image_size" not in stated:
        raise ValueError("the weights do not say image_size: state it with --config FILE")
    levels = state.get("sigmas")
    if levels is None or levels.ndim != 1 or len(levels) < 2:
        raise ValueError("there are no sigmas, which NCSNv2 stores with its weights")
    process = {
        "rescaled": stated.get("rescaled", False),
        "sigma_min": float(f"{float(levels.min()):.7g}"),
        "sigma_max": float(f"{float(levels.max()):.7g}"),
    }
    check_process(process)
    width, channels = state[MARK].shape[:2]
    deep = "res5.0.conv1.weight" in state
    network = RefineNetConfig(
        size=stated["image_size"],
        channels=channels,
        width=width,
        depth="ncsnv2" if not deep else "deepest" if "res31.0.conv1.weight" in state else "deeper",
        activation=stated.get("nonlinearity", "elu"),
    )
    network.check()
    return network, process, {name: tensor for name, tensor in state.items() if name != "sigmas"}
