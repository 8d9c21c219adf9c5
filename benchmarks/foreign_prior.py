"""A network of diffusers, trained by diffusers' own scheduler for minutes, imported: does it solve, beside a prior of ours?

    pip install 'invsolve[diffusers]'
    python benchmarks/foreign_prior.py --train cifar10-train.npz --data cifar10-val.npz --folder runs/unet --seconds 240 \\
        --show runs/unet.png

A small ``UNet2DModel`` learns to predict the noise of a ``DDPMScheduler`` (1000 steps, linear betas), as diffusers'
training example does it, and is stored by ``DDPMPipeline.save_pretrained``. ``invsolve models import`` then reads that
folder, once validated and once not. All priors fill in the missing half of the same pictures' pixels and draw new ones.
rms: the denoising error of all values at some noise levels, on pictures that neither network was trained on. A prior that is
not validated differs in what the rule takes its error for, and in nothing else.
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
from cases import damaged, inpainting_case, random_pixels
from harness import Case, Report, arguments, measure, options_of, save_sheet
from torch import Tensor

from invsolve.options import INPAINTING
from invsolve.pictures import channels_last, to_pixels
from invsolve.pretrained import NetworkPrior, load_prior
from invsolve.pretrained.imported import About
from invsolve.pretrained.importing import install, label_rounding, read_model, validated
from invsolve.tasks.generation import sample
from invsolve.training.sources import load_pictures

WIDTHS = (24, 48, 64)
LEVELS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
VALIDATED = 32
DRAWN, DRAW_STEPS = 8, 18
"""New pictures, and the noise levels on the way to them."""
FIRST = 100
"""Steps over which the learning rate rises."""


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


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, replace(INPAINTING, samples=8), model="cifar10")
    parser.add_argument("--train", help="training pictures, all of one size; not needed where --folder holds a network")
    parser.add_argument("--folder", type=Path, required=True, help="where the network is, or is stored")
    parser.add_argument("--seconds", type=float, default=240.0, help="of one core, to train for; default 240")
    parser.add_argument("--show", type=Path, metavar="FILE.png", help="pictures of the first results, and new ones")
    chosen = parser.parse_args(argv)
    facts = {}
    if not (chosen.folder / "model_index.json").exists():
        facts = train(planes(load_pictures(chosen.train)), chosen.folder, chosen.seconds)
        print("trained", json.dumps(facts), flush=True)
    held_out = [np.asarray(picture, np.uint8) for picture in load_pictures(chosen.data)]
    shown, others = held_out[: chosen.cases], held_out[chosen.cases :][: 2 * VALIDATED]
    examples, tests = planes(others[::2]).float() / 255, planes(others[1::2]).float() / 255
    foreign, unvalidated = imported(chosen.folder, examples, chosen.folder / "prior")
    priors = {chosen.model: load_prior(chosen.model, "cpu"), "foreign": foreign, "foreign, not validated": unvalidated}
    report, options = Report(chosen, foreign), options_of(chosen, INPAINTING)
    errors = {name: denoising_errors(prior, tests) for name, prior in priors.items() if prior is not unvalidated}
    for name, found in errors.items():
        print(f"{name:>22}: rms " + "  ".join(f"{sigma} {error:.4f}" for sigma, error in found.items()))
    rounding = [[float(f"{sigma:.3g}"), float(f"{effect:.2g}")] for sigma, effect in foreign.card.label_rounding]
    for name, prior in priors.items():
        report.add(name, measure(half_missing(shown), prior, options, baselines=name == chosen.model, quiet=True))
    drawn = {
        name: sample(prior, None if prior.size else tests.shape[-2:], samples=DRAWN, steps=DRAW_STEPS).samples[:, 0]
        for name, prior in priors.items()
        if prior is not unvalidated
    }
    moments = {name: {"mean": float(x.mean()), "std": float(x.std())} for name, x in drawn.items()}
    moments["data"] = {"mean": float(tests.mean()), "std": float(tests.std())}
    print("drawn pictures", json.dumps(moments))
    report.finish(training=facts, rms=errors, label_rounding=rounding, drawn=moments)
    if chosen.show:
        strips = [
            [a.case.truth, damaged(a.case), list(a.estimates.values())[-1], list(b.estimates.values())[-1]]
            for a, b in zip(report.tables[chosen.model].shown, report.tables["foreign"].shown, strict=True)
        ]
        rows = [[to_pixels(channels_last(picture)) for picture in x[:8].clamp(0, 1)] for x in drawn.values()]
        save_sheet(chosen.show, [*strips, *rows], gap=2, enlarge=3)


if __name__ == "__main__":
    main()
