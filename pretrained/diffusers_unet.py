"""Networks of the diffusers library (``UNet2DModel``) as denoisers, without its samplers.

The change of variables, with w the clean picture as the network was shown it and x = x0 + sigma z ours in [0, 1]:

======= ================ ========================= ============================== ==================================
process pictures w       asked with u              told                           E[w | u] from what it says, F
======= ================ ========================= ============================== ==================================
ddpm    2 x0 - 1         alpha (w + level z)       the step t with that level,    epsilon: (u - std F) / alpha
        (level = 2 sigma)                          between steps linear in        sample: F
                                                   log level                      v_prediction: alpha u - std F
ve      x0               x (level = sigma)         the level                      u + level^2 F (F is the score)
edm     2 x0 - 1         w + level z               log(level) / 4, and            c_skip u + c_out F
                         (level = 2 sigma)         c_in u in place of u
======= ================ ========================= ============================== ==================================

For ddpm alpha = 1 / sqrt(1 + level^2) and std = level alpha, whatever the betas: they only number the levels
(Ho et al. 2020; Song et al. 2021, appendix B). Every scheduler with those betas (DDIM, PNDM, Euler, ...) is another sampler
of the same network. ve is score_sde's (Song et al. 2021, appendix C), edm Karras et al. 2022, table 1, with diffusers' sign of
c_out for v_prediction. Of a network that also predicts variances (Nichol & Dhariwal 2021) the first half of the channels
counts. Sources: diffusers' schedulers ``scheduling_ddpm.py``, ``scheduling_sde_ve.py`` and ``scheduling_edm_euler.py``, and
the pipelines ``pipeline_ddpm.py`` and ``pipeline_score_sde_ve.py``, which say how pictures are scaled.

diffusers is imported here and nowhere else, once such a network is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from invsolve.errors import ModelError, first_line
from invsolve.models.foreign import Predicts, chain_prior, chain_sigmas, edm_prior, foreign_prior, known_steps
from invsolve.models.score_model import FunctionPrior
from invsolve.models.sde import ve
from invsolve.pretrained.foreign import (
    Ask,
    Window,
    check_null_class,
    check_window,
    known_fields,
    usable_classes,
)
from invsolve.typed import brief, first_misfit

LIBRARY = "diffusers"

Process = Literal["ddpm", "ve", "edm"]

PROCESSES: dict[str, Process] = {
    "ScoreSdeVeScheduler": "ve",
    **{f"EDM{name}Scheduler": "edm" for name in ("Euler", "DPMSolverMultistep")},
    **{
        f"{name}Scheduler": "ddpm"
        for name in (
            "DDPM", "DDIM", "DDPMParallel", "DDIMParallel", "PNDM", "DPMSolverMultistep", "DPMSolverSinglestep", "UniPCMultistep",
            "DEISMultistep", "EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "LMSDiscrete", "KDPM2Discrete",
            "KDPM2AncestralDiscrete",
        )
    },
}  # fmt: skip
"""What a network was trained for, by the scheduler that came with it."""

UNET_FIELDS: dict[str, Any] = {
    "sample_size": int | None,
    "in_channels": int,
    "out_channels": int,
    "center_input_sample": bool,
    "time_embedding_type": Literal["positional", "fourier", "learned"],
    "time_embedding_dim": int | None,
    "freq_shift": int,
    "flip_sin_to_cos": bool,
    "down_block_types": list[
        Literal["DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D", "SkipDownBlock2D", "AttnSkipDownBlock2D"]
    ],
    "mid_block_type": Literal["UNetMidBlock2D"] | None,
    "up_block_types": list[
        Literal["UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D", "SkipUpBlock2D", "AttnSkipUpBlock2D"]
    ],
    "block_out_channels": list[int],
    "layers_per_block": int,
    "mid_block_scale_factor": float,
    "downsample_padding": int,
    "downsample_type": Literal["conv", "resnet"],
    "upsample_type": Literal["conv", "resnet"],
    "dropout": float,
    "act_fn": Literal["silu", "swish", "mish", "gelu", "relu"],
    "attention_head_dim": int | None,
    "norm_num_groups": int,
    "attn_norm_num_groups": int | None,
    "norm_eps": float,
    "resnet_time_scale_shift": Literal["default", "scale_shift"],
    "add_attention": bool,
    "class_embed_type": None,
    "num_class_embeds": int | None,
    "num_train_timesteps": int | None,
}
"""The fields of a ``UNet2DModel`` that are known here; of classes only those that are told by number."""

SCHEDULER_FIELDS: dict[str, Any] = {
    "class": str,
    "prediction_type": Literal["epsilon", "sample", "v_prediction"],
    "num_train_timesteps": int,
    "beta_start": float,
    "beta_end": float,
    "beta_schedule": Literal["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"],
    "trained_betas": list[float] | None,
    "rescale_betas_zero_snr": bool,
    "sigma_min": float,
    "sigma_max": float,
    "sigma_data": float,
}
"""What of a scheduler's configuration says how a network was trained; the rest is about sampling."""

BETAS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr")

MOST_STEPS, MOST_LEVELS, MOST_LAYERS, LARGEST_WIDTH, MOST_CHANNELS, LARGEST_SIDE = 100_000, 10, 64, 8192, 64, 2**16
MOST_CLASSES = 2**20


@dataclass(frozen=True)
class DiffusersConfig:
    """A network and the diffusion it was trained for, as on a card.

    Parameters
    ----------
    unet : configuration of the ``UNet2DModel``, see :data:`UNET_FIELDS`.
    scheduler : "class", and those of :data:`SCHEDULER_FIELDS` that were stated; the others are the class' defaults.
    sigma_data, window, null_class : see :class:`invsolve.pretrained.foreign.ForeignConfig`.
    """

    unet: dict[str, Any]
    scheduler: dict[str, Any]
    sigma_data: float = 0.27
    window: Window | None = None
    null_class: int | None = None

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> DiffusersConfig:
        """Of a card's ``foreign``.

        Raises
        ------
        ValueError : unknown fields, or values no such network can have.
        """
        kinds = {
            "library": Literal["diffusers"],
            "unet": dict[str, Any],
            "scheduler": dict[str, Any],
            "sigma_data": float,
        }
        known = known_fields(fields, kinds)
        config = cls(**{name: value for name, value in known.items() if name != "library"})
        config.check()
        return config

    def to_dict(self) -> dict[str, Any]:
        return {"library": LIBRARY, **asdict(self)}

    def check(self) -> None:
        """Raise a ValueError for what is unknown or out of range: known before anything is built."""
        if wrong := first_misfit(self.unet, UNET_FIELDS):
            raise ValueError(f"the network's {wrong}")
        if wrong := first_misfit(self.scheduler, SCHEDULER_FIELDS):
            raise ValueError(f"the scheduler's {wrong}")
        if self.scheduler.get("class") not in PROCESSES:
            raise ValueError(f"the scheduler {brief(self.scheduler.get('class'))} is not known")
        if wrong := _out_of_range(self):
            raise ValueError(wrong)
        check_window(self.window)
        check_null_class(self.null_class, self.unet.get("num_class_embeds") or 0)

    @property
    def process(self) -> Process:
        return PROCESSES[self.scheduler["class"]]

    @property
    def channels(self) -> int:
        """Of a picture."""
        return self.unet.get("in_channels", 3)

    @property
    def size(self) -> int | None:
        """Side of the square pictures that the network was trained on; None where that is not said."""
        return self.unet.get("sample_size")

    @property
    def multiple(self) -> int:
        """Height and width are padded up to a multiple of this."""
        return 2 ** (len(self.unet.get("block_out_channels", ())) - 1)

    @property
    def classes(self) -> int:
        return usable_classes(self.unet.get("num_class_embeds") or 0, self.null_class)

    @property
    def sigmas(self) -> Tensor | None:
        return chain_sigmas(alphas_bar(self)) if self.process == "ddpm" else None

    def empty_network(self) -> nn.Module:
        return empty_unet(self)

    def say(self, network: nn.Module, u: Tensor, label: Tensor, classes: Tensor | None) -> Tensor:
        said: Tensor = network(u, label, class_labels=classes).sample
        return said[:, : self.channels].to(u.dtype)

    def prior(self, ask: Ask, *, rounded: bool) -> FunctionPrior:
        wrap = {"ddpm": _ddpm, "ve": _ve, "edm": _edm}
        return wrap[self.process](self, ask, rounded)


def _out_of_range(config: DiffusersConfig) -> str | None:
    """What is wrong with a configuration whose fields have their types; None if nothing is."""
    unet, scheduler = config.unet, config.scheduler
    widths, channels = unet.get("block_out_channels", []), unet.get("in_channels", 3)
    down, up = unet.get("down_block_types", []), unet.get("up_block_types", [])
    outputs = unet.get("out_channels", 3)
    small = {"layers_per_block": MOST_LAYERS, "downsample_padding": 2, "freq_shift": 1}
    large = ("time_embedding_dim", "attention_head_dim", "norm_num_groups", "attn_norm_num_groups")
    betas = [scheduler.get(name, 0.01) for name in ("beta_start", "beta_end")] + (scheduler.get("trained_betas") or [])
    checks = {
        "block_out_channels": 1 <= len(widths) <= MOST_LEVELS and all(1 <= width <= LARGEST_WIDTH for width in widths),
        "down_block_types and up_block_types": len(down) == len(up) == len(widths),
        f"in_channels {channels}, wanted 1 or 3": channels in (1, 3),
        f"out_channels {outputs}, wanted {channels} or twice as many": outputs in (channels, 2 * channels),
        "sample_size": config.size is None or 1 <= config.size <= LARGEST_SIDE,
        "dropout": 0 <= unet.get("dropout", 0) < 1,
        "norm_eps": 0 < unet.get("norm_eps", 1e-5) < 1,
        "mid_block_scale_factor": 0 < unet.get("mid_block_scale_factor", 1) < 1e6,
        "num_train_timesteps": all(
            1 <= (1 if (steps := one.get("num_train_timesteps")) is None else steps) <= MOST_STEPS
            for one in (unet, scheduler)
        ),
        "num_class_embeds": 1 <= (1 if (rows := unet.get("num_class_embeds")) is None else rows) <= MOST_CLASSES,
        "betas": all(0 < beta <= 1 for beta in betas) and len(betas) <= MOST_STEPS,
        "sigma_min and sigma_max": 0 < scheduler.get("sigma_min", 0.002) < scheduler.get("sigma_max", 1348.0) <= 1e5,
        "sigma_data": all(1e-6 <= value <= 1e6 for value in (config.sigma_data, scheduler.get("sigma_data", 0.5))),
        "prediction_type sample with EDM": config.process != "edm" or scheduler.get("prediction_type") != "sample",
        **{name: 0 <= unet.get(name, 0) <= most for name, most in small.items()},
        **{name: unet.get(name) is None or 1 <= unet[name] <= LARGEST_WIDTH for name in large},
    }
    return next((f"{name} is out of range" for name, sound in checks.items() if not sound), None)


def import_diffusers() -> Any:
    """The library.

    Raises
    ------
    ModelError : it is not installed.
    """
    try:
        import diffusers
    except ImportError as error:
        raise ModelError(
            f"this prior is a network of diffusers, which cannot be imported: {first_line(error)}",
            hint="pip install 'invsolve[diffusers]'",
        ) from None
    return diffusers


def empty_unet(config: DiffusersConfig) -> nn.Module:
    """The network with shapes but no values: nothing is allocated, however large a card says it is.

    Raises
    ------
    ValueError : diffusers cannot build it.
    """
    library = import_diffusers()
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            return library.UNet2DModel(**config.unet)
    except Exception as error:  # whatever else the library finds wrong with a configuration
        raise ValueError(f"diffusers cannot build this network: {first_line(error)}") from error


def alphas_bar(config: DiffusersConfig) -> Tensor:
    """(N,), alpha^2 of a ddpm chain's steps, falling; steps that hold next to nothing of the picture are left out.

    Raises
    ------
    ValueError : the betas make no falling chain.
    """
    stated = {name: config.scheduler[name] for name in BETAS if name in config.scheduler}
    try:
        chain: Tensor = import_diffusers().DDPMScheduler(**stated).alphas_cumprod.double()
    except (TypeError, RuntimeError, NotImplementedError) as error:
        raise ValueError(f"the scheduler's betas: {first_line(error)}") from error
    return known_steps(chain)


def _ddpm(config: DiffusersConfig, ask: Ask, rounded: bool) -> FunctionPrior:
    named: dict[str, Predicts] = {"epsilon": "noise", "sample": "data", "v_prediction": "v"}
    predicts = named[config.scheduler.get("prediction_type", "epsilon")]
    numbered = config.unet.get("time_embedding_type") == "learned"  # by number: it knows no others
    return chain_prior(
        (lambda u, label: ask(u, label.long())) if numbered else ask,
        alphas_bar(config),
        predicts,
        rounded=rounded or numbered,
        channels=config.channels,
    )


def _ve(config: DiffusersConfig, ask: Ask, rounded: bool) -> FunctionPrior:
    process = ve(config.scheduler.get("sigma_min", 0.01), config.scheduler.get("sigma_max", 1348.0))
    return foreign_prior(ask, process, "score", label=process.std, channels=config.channels)


def _edm(config: DiffusersConfig, ask: Ask, rounded: bool) -> FunctionPrior:
    stated = config.scheduler
    sign = -1.0 if stated.get("prediction_type", "epsilon") == "v_prediction" else 1.0
    ends = stated.get("sigma_min", 0.002), stated.get("sigma_max", 80.0)
    return edm_prior(ask, stated.get("sigma_data", 0.5), ends, sign=sign, channels=config.channels)
