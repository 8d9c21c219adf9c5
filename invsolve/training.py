"""Training a noise-conditional network: priors by denoising score matching at all noise levels, and, with another
:class:`Task`, classifiers (``invsolve.classifier``).

The loss is EDM's (Karras et al. 2022, eq. 8): ``E |D(x0 + sigma z, sigma) - x0|^2 / c_out(sigma)^2``, unit weight
for every level, with an explicit density p(sigma). Denoising score matching (Vincent 2011; NCSN eq. 6 with
lambda = sigma^2) is the same loss with weight ``1 / sigma^2``, and stays available as ``weighting="ncsn"``.

Crops, noise levels and noise are drawn from (seed, step), so a resumed run repeats an unbroken one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from invsolve.colours import Colours, from_rgb, to_rgb
from invsolve.data import Picture, center_crops, check_shrinkable, halve, numbered_crops, unit_scale
from invsolve.errors import InputError, SolveError
from invsolve.network import EDMDenoiser
from invsolve.objectives import likelihood_weight
from invsolve.optimizer import MuonAdamW
from invsolve.precision import autocast
from invsolve.presets import SigmaDensity, TrainingConfig

CHECKPOINT = "checkpoint.pt"


class TrainingInfo(NamedTuple):
    """What a progress display needs after each step."""

    step: int
    steps: int
    loss: float
    images_per_second: float
    seconds: float
    remaining: float  # estimated seconds to the end


def stratified_sigma(count: int, density: SigmaDensity, generator: torch.Generator) -> Tensor:
    """``count`` noise levels, one from each equal-probability stratum of p(sigma): less variance per batch."""
    u = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    return density.quantile(u)


def loss_weight(
    sigma: Tensor, sigma_data: float | Tensor, weighting: str, density: SigmaDensity | None = None
) -> Tensor:
    """Weight on |D - x0|^2: EDM's 1 / c_out^2, NCSN's 1 / sigma^2 (lambda = sigma^2 on the score), or the likelihood's.

    The last is Song et al. 2021b's lambda = g^2 for the given ``density`` of levels; NCSN's where that is log-uniform.
    """
    if weighting == "ncsn":
        return 1 / sigma**2
    if weighting == "likelihood":
        return likelihood_weight(sigma, (density or SigmaDensity()).density(sigma)) / (2 * sigma**4)
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


def denoising_loss(
    model: EDMDenoiser,
    x0: Tensor,
    sigma: Tensor,
    z: Tensor,
    weighting: str,
    density: SigmaDensity | None = None,
    channel_weights: Sequence[float] = (),
) -> Tensor:
    """Mean over pixels and batch of the weighted squared denoising error; all inputs (B, C, H, W), sigma (B,)."""
    denoised = model(x0 + sigma[:, None, None, None] * z, sigma)
    per_channel = (denoised - x0).square().mean(dim=(2, 3))
    weights = loss_weight(sigma[:, None], model.sigma_data.flatten(), weighting, density)
    if channel_weights:
        shares = per_channel.new_tensor(channel_weights)
        weights = weights * shares / shares.mean()
    return (weights * per_channel).mean()


def ema_decay(step: int, relative_width: float) -> float:
    """Power-function EMA of Karras et al. 2024 (eq. 3 and 128): its width stays a fixed share of the run so far."""
    # Solve relative_width = sqrt((g + 1) / ((g + 2)^2 (g + 3))) for the exponent g.
    t = relative_width**-2
    gamma = max(float(r.real) for r in np.roots([1, 7, 16 - t, 12 - t]) if abs(r.imag) < 1e-9)
    return float((1 - 1 / (step + 1)) ** (gamma + 1))


def learning_rate_factor(progress: float, step: int, decay_share: float, warmup: int) -> float:
    """Linear warm-up over ``warmup`` steps, constant, then linear to zero over the last ``decay_share``."""
    decay = min(1.0, max(0.0, (1 - progress) / decay_share)) if decay_share else 1.0
    return min(1.0, (step + 1) / warmup) * decay


def validation_sigmas(density: SigmaDensity, count: int = 13) -> list[float]:
    """Noise levels at which the card states the prior's error, log-spaced over the trained range."""
    return [float(s) for s in np.geomspace(density.low, density.high, count)]


@torch.no_grad()
def validate(
    model: EDMDenoiser, pictures: Tensor, sigmas: Sequence[float], seed: int = 0, batch: int = 4
) -> dict[float, float]:
    """Mean squared denoising error per noise level on ``pictures`` (N, C, H, W) in the prior's units."""
    was_training = model.training
    model.eval()
    errors = {}
    device = next(model.parameters()).device
    for index, sigma in enumerate(sigmas):
        generator = torch.Generator().manual_seed(seed * 1000 + index)
        total = 0.0
        for start in range(0, len(pictures), batch):
            x0 = pictures[start : start + batch]
            noisy = x0 + sigma * torch.randn(x0.shape, generator=generator)
            with autocast(device):
                denoised = model(noisy.to(device), torch.full((len(x0),), sigma, device=device))
            total += float((denoised.cpu() - x0).square().mean(dim=(1, 2, 3)).sum())
        errors[sigma] = total / len(pictures)
    model.train(was_training)
    return errors


class Batch(NamedTuple):
    """One step's data, in the prior's units."""

    x0: Tensor  # (B, C, H, W)
    sigma: Tensor  # (B,)
    z: Tensor  # standard normal noise shaped as x0
    labels: Tensor  # (B,) int64, zeros where the pictures have none

    def to(self, device: torch.device) -> Batch:
        return Batch(*(t.to(device) for t in self))


M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Task(Generic[M]):
    """What is trained: how the network is made, and its loss on a batch."""

    build: Callable[[TrainingConfig], M]
    loss: Callable[[M, Batch, TrainingConfig], Tensor]


DENOISING: Task[EDMDenoiser] = Task(
    build=lambda config: EDMDenoiser(config.network),
    loss=lambda model, batch, config: denoising_loss(
        model, batch.x0, batch.sigma, batch.z, config.weighting, config.density, config.channel_weights
    ),
)


class TrainingState(NamedTuple, Generic[M]):
    """All that changes during training; a checkpoint holds just this and the configuration."""

    model: M
    ema: M
    optimizer: MuonAdamW
    step: int
    seconds: float


def initial_state(config: TrainingConfig, device: torch.device) -> TrainingState[EDMDenoiser]:
    """A prior before its first step."""
    return start(DENOISING, config, device)


def start(
    task: Task[M], config: TrainingConfig, device: torch.device, initial: Mapping[str, Tensor] | None = None
) -> TrainingState[M]:
    """Freshly initialised weights, or those of ``initial``."""
    torch.manual_seed(config.seed)
    model = task.build(config).to(device).to(memory_format=torch.channels_last)
    if initial is not None:
        model.load_state_dict(initial)
    ema = task.build(config).to(device).to(memory_format=torch.channels_last)
    ema.load_state_dict(model.state_dict())
    ema.requires_grad_(False)
    return TrainingState(model, ema, MuonAdamW(model, config.learning_rate, config.muon_rate), 0, 0.0)


def save_checkpoint(folder: Path, config: TrainingConfig, state: TrainingState[M]) -> None:
    """Write the checkpoint so that an interruption leaves either the old or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "config": asdict(config),
        "model": state.model.state_dict(),
        "ema": state.ema.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "step": state.step,
        "seconds": state.seconds,
    }
    temporary = folder / (CHECKPOINT + ".part")
    torch.save(content, temporary)
    temporary.replace(folder / CHECKPOINT)


def _plain(value: Any) -> Any:
    """Tuples as lists, all the way down, so that a stored configuration compares equal."""
    if isinstance(value, dict):
        return {name: _plain(v) for name, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def _with_defaults(stored: dict[str, Any]) -> dict[str, Any]:
    """A stored configuration with the settings that came later at their defaults, so that old runs resume."""
    defaults = asdict(TrainingConfig())
    nested = {part: {**defaults[part], **stored.get(part, {})} for part in ("network", "augmentation")}
    return {**defaults, **stored, **nested}


def load_checkpoint(folder: Path, config: TrainingConfig, device: torch.device, task: Task[M]) -> TrainingState[M]:
    """Read a checkpoint back; only tensors and plain values are unpickled (``weights_only``)."""
    content: dict[str, Any] = torch.load(folder / CHECKPOINT, map_location=device, weights_only=True)
    wanted, stored = _plain(asdict(config)), _plain(_with_defaults(content["config"]))
    changed = [name for name in wanted if name != "steps" and wanted[name] != stored.get(name)]
    if changed:
        was, now = ({name: settings.get(name) for name in changed} for settings in (stored, wanted))
        raise InputError(
            f"{folder} holds the checkpoint of another run: it has {was}, this one {now}",
            hint="resume with the settings it was started with, choose another folder, or --fresh to start anew",
        )
    state = start(task, config, device)
    state.model.load_state_dict(content["model"])
    state.ema.load_state_dict(content["ema"])
    state.optimizer.load_state_dict(content["optimizer"])
    return state._replace(step=content["step"], seconds=content["seconds"])


def batch_at(
    step: int,
    crop: int,
    config: TrainingConfig,
    pyramid: Sequence[Sequence[Picture]],
    labels: Sequence[int] | None = None,
) -> Batch:
    """Crops in stored values, noise levels and noise of one step, all from (seed, step)."""
    rng = np.random.default_rng([config.seed, step])
    count = max(1, config.batch * config.crop**2 // crop**2)
    crops, numbers = numbered_crops(pyramid, config.scale_odds, crop, count, rng, config.augmentation)
    generator = torch.Generator().manual_seed(config.seed * 2**32 + step)
    sigma = stratified_sigma(count, config.density, generator)
    z = torch.randn(crops.shape, generator=generator)
    return Batch(crops, sigma, z, torch.tensor([0 if labels is None else int(labels[n]) for n in numbers]))


def train(
    pictures: Sequence[Picture],
    config: TrainingConfig,
    folder: Path,
    *,
    device: torch.device,
    time_limit: float | None = None,
    checkpoint_every: float = 120.0,
    resume: bool = True,
    on_step: Callable[[TrainingInfo], None] | None = None,
) -> TrainingState[EDMDenoiser]:
    """Train a prior; see :func:`fit`."""
    return fit(
        DENOISING,
        pictures,
        config,
        folder,
        device=device,
        time_limit=time_limit,
        checkpoint_every=checkpoint_every,
        resume=resume,
        on_step=on_step,
    )


def fit(
    task: Task[M],
    pictures: Sequence[Picture],
    config: TrainingConfig,
    folder: Path,
    *,
    device: torch.device,
    labels: Sequence[int] | None = None,
    initial: Mapping[str, Tensor] | None = None,
    time_limit: float | None = None,
    checkpoint_every: float = 120.0,
    resume: bool = True,
    on_step: Callable[[TrainingInfo], None] | None = None,
) -> TrainingState[M]:
    """Train until ``config.steps`` or ``time_limit`` seconds, whichever comes first; resumes from ``folder``.

    The learning rate falls to zero towards whichever end comes first; the time of earlier, resumed parts counts. A run
    limited by steps repeats itself bit for bit on the CPU with fixed threads, broken off or not; one limited by time
    cannot. Interrupting (Ctrl-C) saves a checkpoint. ``labels`` (N,) are the pictures' class numbers, for tasks that
    have any; ``initial`` the weights (a state dict) that a new run starts from instead of random ones.

    Raises
    ------
    SolveError : the loss became NaN or infinite; the last checkpoint is kept.
    """
    scale = unit_scale(pictures)
    if config.augmentation.framing[1]:
        for picture in pictures:
            check_shrinkable(picture, config.crop)  # now rather than in an hour
    pyramid = [pictures]
    while len(pyramid) < len(config.scale_odds):
        pyramid.append([halve(p) for p in pyramid[-1]])
    resumable = resume and (folder / CHECKPOINT).is_file()
    state = load_checkpoint(folder, config, device, task) if resumable else start(task, config, device, initial)
    model, ema, optimizer, first, seconds_before = state
    model.train()

    began = saved = time.monotonic()
    late = config.steps * 2 // 3
    warmup = min(200, max(1, config.steps // 20))
    step, average, images, consistent = first, float("nan"), 0, True

    def current() -> TrainingState[M]:
        return TrainingState(model, ema, optimizer, step, seconds_before + time.monotonic() - began)

    def progress() -> float:
        by_time = (seconds_before + time.monotonic() - began) / time_limit if time_limit else 0.0
        return max(step / config.steps, by_time)

    def prepare(index: int) -> Batch:
        # By steps only, never by the clock: a resumed run must see the same crops.
        return batch_at(index, config.crop if index < late else config.crop_late, config, pyramid, labels)

    at_start = progress()
    with ThreadPoolExecutor(1) as pool:
        upcoming = pool.submit(prepare, step)
        try:
            while step < config.steps and progress() < 1:
                batch = upcoming.result().to(device)
                batch = batch._replace(x0=from_rgb(batch.x0.float() / scale, config.colours))
                upcoming = pool.submit(prepare, step + 1)
                optimizer.scale_rates(learning_rate_factor(progress(), step, config.decay_share, warmup))
                torch.manual_seed(config.seed * 2**32 + step)  # dropout's, so that a resumed run repeats it too
                with autocast(device):
                    loss = task.loss(model, batch, config)
                optimizer.zero_grad()
                loss.backward()
                value = float(loss.detach())
                steepness = float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0))
                if not (math.isfinite(value) and math.isfinite(steepness)):
                    raise SolveError(
                        f"the loss became {value}, its gradient {steepness}, at step {step}",
                        hint="the last checkpoint is sound; look for broken pictures, or start with --fresh and another seed",
                    )
                consistent = False  # an interruption from here on must not be saved
                optimizer.step()
                with torch.no_grad():
                    decay = ema_decay(step, config.ema_relative_width)
                    torch._foreach_lerp_(list(ema.parameters()), list(model.parameters()), 1 - decay)
                step += 1
                consistent = True
                images += len(batch.x0)
                average = value if math.isnan(average) else 0.98 * average + 0.02 * value
                elapsed = time.monotonic() - began
                if on_step is not None:
                    done = max(progress() - at_start, 1e-9)
                    left = elapsed * max(0.0, 1 - progress()) / done
                    on_step(TrainingInfo(step, config.steps, average, images / elapsed, elapsed, left))
                if time.monotonic() - saved > checkpoint_every:
                    save_checkpoint(folder, config, current())
                    saved = time.monotonic()
        finally:
            upcoming.cancel()
            if step > first and consistent:
                save_checkpoint(folder, config, current())
    return current()


def validation_pictures(pictures: Sequence[Picture], size: int, framing: float = 0.0) -> Tensor:
    """Centre crops for :func:`validate`, at most ``size`` pixels and a multiple of 8, of the pictures of 32 and more.

    With a ``framing``, as much as that of the shorter side, shrunk to that size.
    """
    large = [p for p in pictures if min(p.shape[:2]) >= 32]
    if not large:
        raise InputError("no validation picture is at least 32 x 32 pixels", hint="give larger ones with --val")
    smallest = min(min(p.shape[:2]) for p in large)
    return center_crops(large, min(size, smallest // 8 * 8), unit_scale(large), framing)


def hold_out(pictures: Sequence[Picture], share: float = 0.03) -> tuple[list[Picture], list[Picture]]:
    """Split off every k-th picture for validation when no validation set is given."""
    if len(pictures) < 2:
        raise InputError(f"{len(pictures)} picture", hint="training and validation need at least 2")
    every = min(len(pictures), max(2, round(1 / share)))
    kept = [p for i, p in enumerate(pictures) if i % every]
    return kept, [p for i, p in enumerate(pictures) if i % every == 0]


def with_overrides(config: TrainingConfig, **changes: Any) -> TrainingConfig:
    """A copy of ``config`` with the given fields that are not None."""
    return replace(config, **{name: value for name, value in changes.items() if value is not None})


def denoising_picture(
    model: EDMDenoiser, pictures: Tensor, sigmas: Sequence[float] = (0.05, 0.2, 1.0), colours: Colours = "rgb"
) -> Image.Image:
    """A grid to look at: a row per picture; the clean one, then noisy and denoised at each level."""
    generator = torch.Generator().manual_seed(0)
    device = next(model.parameters()).device
    columns = [pictures]
    for sigma in sigmas:
        noisy = pictures + sigma * torch.randn(pictures.shape, generator=generator)
        with torch.no_grad(), autocast(device):
            level = torch.full((len(pictures),), sigma, device=device)
            columns += [noisy, model.eval()(noisy.to(device), level).cpu()]
    grid = torch.cat([torch.cat(list(column), dim=1) for column in columns], dim=2)
    grid = to_rgb(grid, colours).clamp(0, 1)
    array = (grid * 255).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(array.squeeze(2) if array.shape[2] == 1 else array)
