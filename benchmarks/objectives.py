"""Score-matching objectives, and energies: what a step and a call cost, and what is learned in equally many steps.

    python benchmarks/objectives.py
    python benchmarks/objectives.py --train cifar10-train.npz --val cifar10-val.npz --steps 300

Times are processor time; set OMP_NUM_THREADS=1. Without pictures: milliseconds of loss and gradient against dimension, for a
two-layer network of width 128 on d numbers and 32 samples. The exact trace takes d backward passes; the sliced objectives take
one per direction, whatever d.

With pictures: a small network is trained by every objective, and as an energy, on the same crops, noise levels and noise. Then
milliseconds of a step and of a call to the denoiser for a batch of pictures, how far the denoiser's Jacobian is from symmetric,
and the rms denoising error on the validation pictures.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from invsolve import training
from invsolve.models.network import EDMDenoiser, NetworkConfig
from invsolve.models.precision import autocast
from invsolve.training.batches import batch_at
from invsolve.training.checkpoint import initial_state
from invsolve.training.loop import gradient, in_prior_units
from invsolve.training.objectives import denoising, draw_directions, implicit, sliced
from invsolve.training.presets import PRESETS, SigmaDensity, TrainingConfig
from invsolve.training.sources import load_pictures
from invsolve.training.validation import prior_examples

LEVELS = (0.01, 0.03, 0.1, 0.3, 1.0, 4.0, 16.0)


def milliseconds(loss: Callable[[], object], repeats: int) -> float:
    """Processor time of the fastest of ``repeats``: what it costs, not what else the machine does."""
    times = []
    for _ in range(repeats):
        started = time.process_time()
        loss()
        times.append(1000 * (time.process_time() - started))
    return min(times)


def cost_by_dimension(dimensions: Sequence[int], repeats: int) -> None:
    table: dict[str, dict[int, float]] = {}
    for d in dimensions:
        generator = torch.Generator().manual_seed(0)
        x, z = (torch.randn(32, d, generator=generator) for _ in range(2))
        model = nn.Sequential(nn.Linear(d, 128), nn.SiLU(), nn.Linear(128, d))

        def directions(count: int, x: Tensor = x, generator: torch.Generator = generator) -> Tensor:
            return draw_directions(x, count, "rademacher", generator)

        objectives: dict[str, Callable[[], Tensor]] = {
            "denoising": lambda model=model, x=x, z=z: denoising(model, x, 0.3, z),  # type: ignore[misc]
            "sliced, 1 direction": lambda model=model, x=x, v=directions: sliced(model, x, v(1)),  # type: ignore[misc]
            "sliced, 4 directions": lambda model=model, x=x, v=directions: sliced(model, x, v(4)),  # type: ignore[misc]
            "implicit, exact trace": lambda model=model, x=x: implicit(model, x),  # type: ignore[misc]
        }
        for name, loss in objectives.items():

            def step(loss: Callable[[], Tensor] = loss, model: nn.Module = model) -> object:
                return torch.autograd.grad(loss().mean(), list(model.parameters()))

            cost = milliseconds(step, repeats if d < 1000 else 2)
            table.setdefault(name, {})[d] = round(cost, 3)
    print(f"{'ms per step, d =':>22} " + " ".join(f"{d:>9}" for d in dimensions))
    for name, row in table.items():
        print(f"{name:>22} " + " ".join(f"{row[d]:9.2f}" for d in dimensions))
    print(json.dumps(table))


def variants(steps: int, batch: int, seed: int) -> dict[str, TrainingConfig]:
    """A small network by every objective, and as an energy."""
    base = replace(
        PRESETS["tiny"],
        network=NetworkConfig(widths=(24, 48), encoder_blocks=(1, 1), decoder_blocks=(1,), sigma_data=0.25),
        density=SigmaDensity(low=0.005, high=20.0),
        steps=steps,
        batch=batch,
        seed=seed,
    )
    energy = replace(base, network=replace(base.network, energy=True))
    return {
        "dsm": base,
        "ssm-vr": replace(base, objective="ssm-vr"),
        "ssm": replace(base, objective="ssm"),
        "dsm, energy": energy,
        "ssm-vr, energy": replace(energy, objective="ssm-vr"),
    }


def cost(config: TrainingConfig, pictures: Sequence[training.sources.Picture], repeats: int) -> tuple[float, float]:
    """Milliseconds of loss and gradient of a step, and of a call to the denoiser with as many pictures."""
    model = initial_state(config, torch.device("cpu")).model
    batch = in_prior_units(batch_at(0, config.crop, config, [pictures]), 255.0, config)
    step = milliseconds(lambda: gradient(training.DENOISING, model, batch, config, 0), repeats)
    model.requires_grad_(False)

    @torch.no_grad()
    def call() -> None:
        with autocast(torch.device("cpu")):
            model(batch.x0, batch.sigma)

    return step, milliseconds(call, repeats)


def asymmetry(model: EDMDenoiser, x: Tensor, sigma: float) -> float:
    """``|J v - J' v| / |J v|`` for the Jacobian J of the denoiser at x (B, C, H, W), v random signs."""
    level = torch.full((len(x),), sigma)
    v = draw_directions(x, 1, "rademacher", torch.Generator().manual_seed(1))[0]
    leaf = x.clone().requires_grad_()
    w = torch.zeros_like(x, requires_grad=True)
    # J'w is linear in w, and the gradient of <J'w, v> by w is J v.
    (transposed,) = torch.autograd.grad(model(leaf, level), leaf, w, create_graph=True)
    (forwards,) = torch.autograd.grad((transposed * v).sum(), w)
    (backwards,) = torch.autograd.grad(model(leaf, level), leaf, v)
    return float((forwards - backwards).norm() / forwards.norm())


def learned(options: argparse.Namespace) -> None:
    pictures, held_out = load_pictures(options.train), load_pictures(options.val)
    table: dict[str, dict[str, object]] = {}
    for name, config in variants(options.steps, options.batch, options.seed).items():
        if options.only and name not in options.only:
            continue
        step, call = cost(config, pictures, options.repeats)
        with tempfile.TemporaryDirectory() as folder:
            state = training.train(pictures, config, Path(folder), device=torch.device("cpu"), resume=False)
        examples = prior_examples(config, held_out)
        errors = {s: round(e**0.5, 5) for s, e in training.validate(state.ema, examples, LEVELS, batch=50).items()}
        noisy = examples[:4] + 0.3 * torch.randn(examples[:4].shape, generator=torch.Generator().manual_seed(0))
        skew = asymmetry(state.ema, noisy, 0.3)
        table[name] = {"ms_per_step": round(step, 1), "ms_per_call": round(call, 1), "asymmetry": skew, "rms": errors}
        figures = "  ".join(f"{s:g}: {e:.4f}" for s, e in errors.items())
        print(
            f"{name:<15} step {step:6.1f} ms  call {call:6.1f} ms  asymmetry {skew:.1e}  rms error at sigma {figures}",
            flush=True,
        )
    print(json.dumps(table))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dimensions", type=int, nargs="+", default=[16, 64, 256, 1024])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--train", help="pictures of 32 x 32 or more, as for invsolve train")
    parser.add_argument("--val", help="pictures to validate on")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="names of variants")
    options = parser.parse_args(argv)
    if (options.train is None) != (options.val is None):
        parser.error("--train and --val go together")
    if options.train is None:
        cost_by_dimension(options.dimensions, options.repeats)
    else:
        learned(options)


if __name__ == "__main__":
    main()
