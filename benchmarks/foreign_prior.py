"""A network of diffusers, trained by diffusers' own scheduler for minutes, imported: does it solve, beside a prior of ours?

    pip install 'invsolve[diffusers]'
    python benchmarks/foreign_prior.py --train cifar10-train.npz --data cifar10-val.npz --folder runs/unet --seconds 240 \\
        --show runs/unet.png

A small ``UNet2DModel`` learns to predict the noise of a ``DDPMScheduler`` (1000 steps, linear betas), as diffusers'
training example does it, and is stored by ``save_pretrained``. ``invsolve models import`` then reads that
folder, once validated and once not. A prior of ours of about as many parameters is trained on the same pictures with as much time
of the same processor, and a shipped one stands beside them. All priors fill in the missing half of the same pictures' pixels,
take away noise and draw new ones. rms: the denoising error of all values at some noise levels, on pictures that no network was
trained on. A prior that is not validated differs in what the rule takes its error for, and in nothing else. Last, each prior is
held against the data's own mean and covariance (:mod:`second_moments`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cases import damaged, denoising_case, inpainting_case, random_pixels
from harness import Case, Report, arguments, measure, options_of, save_sheet
from second_moments import denoiser_bias, drawn_bias, gaussian_fit
from torch import Tensor

from invsolve import training
from invsolve.options import DENOISING, INPAINTING
from invsolve.pictures import channels_last, to_pixels
from invsolve.pretrained import NetworkPrior, load_prior
from invsolve.pretrained.imported import About
from invsolve.pretrained.importing import install, label_rounding, read_model, validated
from invsolve.tasks.generation import sample
from invsolve.training import export
from invsolve.training.presets import PRESETS, TrainingConfig
from invsolve.training.sources import load_pictures

WIDTHS = (24, 48, 64)
OWN_WIDTHS = (32, 64, 96)
"""Of our network, which then has about as many parameters."""
LEVELS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
VALIDATED = 32
NOISE = 0.1
"""Of the pictures to be denoised."""
DRAWN, DRAW_STEPS = 16, 18
"""New pictures, and the noise levels on the way to them."""
FIT_LEVELS = (0.5, 2.0, 8.0)
FIT_PICTURES, DIRECTIONS = 128, 32
"""Of the comparison with the data's second moments."""
FIRST = 100
"""Steps over which the learning rate rises."""
PROBE = 20
"""Steps by which the time of one is measured."""


def planes(pictures: Sequence[Any]) -> Tensor:
    """(N, C, H, W) uint8."""
    return torch.from_numpy(np.stack(pictures).transpose(0, 3, 1, 2).copy())


def train(pictures: Tensor, folder: Path, seconds: float, batch: int = 16, rate: float = 1e-3) -> dict[str, float]:
    """Train for so many ``seconds`` of processor time on ``pictures`` (N, C, H, W) uint8 and store the averaged weights as a pipeline."""
    import diffusers
    from diffusers.training_utils import EMAModel

    torch.manual_seed(0)
    side = pictures.shape[-1]
    unet = diffusers.UNet2DModel(
        sample_size=side,
        block_out_channels=WIDTHS,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
    )
    scheduler = diffusers.DDPMScheduler()
    average = EMAModel(unet.parameters(), decay=0.995, use_ema_warmup=True, power=0.75)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=rate)
    generator = torch.Generator().manual_seed(0)
    started, step, losses = time.process_time(), 0, [1.0]
    while (done := (time.process_time() - started) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = rate * min((step + 1) / FIRST, 1.0, 3 * (1 - done))
        clean = pictures[torch.randint(len(pictures), (batch,), generator=generator)].float() / 127.5 - 1
        clean = torch.where(torch.rand(batch, 1, 1, 1, generator=generator) < 0.5, clean, clean.flip(-1))
        noise = torch.randn(clean.shape, generator=generator)
        t = torch.randint(scheduler.config.num_train_timesteps, (batch,), generator=generator)
        loss = (unet(scheduler.add_noise(clean, noise, t), t).sample - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        average.step(unet.parameters())
        losses.append(float(loss.detach()))
        step += 1
    average.copy_to(unet.parameters())
    diffusers.DDPMPipeline(unet.eval(), scheduler).save_pretrained(folder)
    return {
        "steps": step,
        "parameters": sum(p.numel() for p in unet.parameters()),
        "loss": float(np.mean(losses[-200:])),
    }


def imported(source: Path, pictures: Tensor, home: Path) -> tuple[NetworkPrior, NetworkPrior]:
    """The prior validated on ``pictures`` (N, C, H, W) in [0, 1], written to ``home`` and loaded; and without the figures."""
    cpu = torch.device("cpu")
    known = validated(read_model(source, About("foreign")), pictures, "held out", cpu, batch=16)
    card = replace(known.card, label_rounding=label_rounding(known.denoiser, pictures[:8], cpu))
    install(replace(known, card=card), home)
    prior = load_prior(home, "cpu")
    return prior, NetworkPrior(prior.network, replace(prior.card, validation_mse=[], error_spectrum={}), cpu)


def train_own(pictures: Sequence[Any], examples: Tensor, folder: Path, seconds: float) -> dict[str, float]:
    """Train a prior of ours for so many ``seconds`` of processor time and store it, validated on ``examples`` (N, C, H, W)."""
    preset, side = PRESETS["cifar10"], pictures[0].shape[0]
    config = replace(
        preset, network=replace(preset.network, widths=OWN_WIDTHS), batch=16, crop=side, crop_late=side, steps=PROBE
    )

    def timed(config: TrainingConfig) -> tuple[Any, float]:
        started = time.process_time()
        state = training.train(
            list(pictures), config, folder, device=torch.device("cpu"), checkpoint_every=1e9, resume=False
        )
        return state, time.process_time() - started

    state, took = timed(replace(config, steps=max(1, round(PROBE * seconds / timed(config)[1]))))
    export.export_prior(
        folder, config, state, examples, export.About("ours", "as the foreign network's", "as the data")
    )
    return {"steps": state.step, "parameters": sum(p.numel() for p in state.ema.parameters()), "seconds": took}


@torch.no_grad()
def denoising_errors(prior: NetworkPrior, pictures: Tensor) -> dict[str, float]:
    """Root mean square error by noise level, the same noise for every prior."""
    generator = torch.Generator().manual_seed(5)
    found = {}
    for sigma in LEVELS:
        x = pictures + sigma * torch.randn(pictures.shape, generator=generator)
        found[f"{sigma:g}"] = float((prior.denoise(x, sigma) - pictures).square().mean().sqrt())
    return found


def half_missing(pictures: Sequence[Any]) -> list[Case]:
    return [
        inpainting_case(f"picture {k}", truth, random_pixels(k, truth.shape[0])) for k, truth in enumerate(pictures)
    ]


def noisy(pictures: Sequence[Any]) -> list[Case]:
    return [denoising_case(f"picture {k}", truth, NOISE, k) for k, truth in enumerate(pictures)]


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, replace(INPAINTING, samples=8), model="cifar10")
    parser.add_argument("--train", required=True, help="training pictures, all of one size")
    parser.add_argument("--folder", type=Path, required=True, help="where the networks are, or are stored once trained")
    parser.add_argument("--seconds", type=float, default=240.0, help="of one core, to train each for; default 240")
    parser.add_argument("--show", type=Path, metavar="FILE.png", help="pictures of the first results, and new ones")
    chosen = parser.parse_args(argv)
    pictures = load_pictures(chosen.train)
    held_out = [np.asarray(picture, np.uint8) for picture in load_pictures(chosen.data)]
    shown, others = held_out[: chosen.cases], held_out[chosen.cases :]
    examples = planes(others[: 2 * VALIDATED : 2]).float() / 255
    tests = planes(others[1 : 2 * VALIDATED : 2]).float() / 255
    facts: dict[str, Any] = {}
    if not (chosen.folder / "model_index.json").exists():
        facts["foreign"] = train(planes(pictures), chosen.folder, chosen.seconds)
    if not (chosen.folder / "ours" / "card.json").exists():
        facts["ours"] = train_own(pictures, examples, chosen.folder / "ours", chosen.seconds)
    print("trained", json.dumps(facts), flush=True)
    foreign, unvalidated = imported(chosen.folder, examples, chosen.folder / "prior")
    priors = {
        chosen.model: load_prior(chosen.model, "cpu"),
        "ours, as long": load_prior(chosen.folder / "ours", "cpu"),
        "foreign": foreign,
    }
    report, options = Report(chosen, foreign), options_of(chosen, INPAINTING)
    errors = {name: denoising_errors(prior, tests) for name, prior in priors.items()}
    for name, found in errors.items():
        print(f"{name:>22}: rms " + "  ".join(f"{sigma} {error:.4f}" for sigma, error in found.items()))
    rounding = [[float(f"{sigma:.3g}"), float(f"{effect:.2g}")] for sigma, effect in foreign.card.label_rounding]
    for name, prior in {**priors, "foreign, not validated": unvalidated}.items():
        first = name == chosen.model
        report.add(name, measure(half_missing(shown), prior, options, baselines=first, quiet=True))
        denoised = measure(noisy(shown), prior, DENOISING.settled, baselines=first, quiet=True)
        report.add(f"{name}, noise {NOISE:g}", denoised)
    drawn = {
        name: sample(prior, None if prior.size else tests.shape[-2:], samples=DRAWN, steps=DRAW_STEPS).samples[:, 0]
        for name, prior in priors.items()
    }
    fit = gaussian_fit(planes(pictures[:: max(1, len(pictures) // 4000)]).float() / 255, DIRECTIONS)
    unseen = planes(others[-FIT_PICTURES:]).float() / 255
    moments: dict[str, Any] = {name: {"drawn": drawn_bias(x, fit)} for name, x in drawn.items()}
    for name, prior in priors.items():
        moments[name] |= {f"{sigma:g}": denoiser_bias(prior, unseen, fit, sigma) for sigma in FIT_LEVELS}
    moments["held-out pictures"] = {"drawn": drawn_bias(unseen[:DRAWN], fit)}
    for name, found in moments.items():
        print(f"{name:>22}: second moments {json.dumps(found)}")
    report.finish(training=facts, rms=errors, label_rounding=rounding, second_moments=moments)
    if chosen.show:
        tables = [report.tables[name] for name in priors]
        strips = [
            [results[0].case.truth, damaged(results[0].case), *(list(r.estimates.values())[-1] for r in results)]
            for results in zip(*(table.shown for table in tables), strict=True)
        ]
        rows = [[to_pixels(channels_last(picture)) for picture in x[:8].clamp(0, 1)] for x in drawn.values()]
        save_sheet(chosen.show, [*strips, *rows], gap=2, enlarge=3)


if __name__ == "__main__":
    main()
