"""``invsolve train --compile``: the plain network's run, or the plain network and a reason."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch._dynamo

from invsolve.models.dropout import ChannelDropout
from invsolve.models.network import NetworkConfig
from invsolve.models.precision import full_precision
from invsolve.training.batches import batch_at
from invsolve.training.checkpoint import initial_state
from invsolve.training.compilation import compiled
from invsolve.training.loop import Execution, fit, in_prior_units
from invsolve.training.loss import DENOISING, Batch
from invsolve.training.presets import PRESETS, TrainingConfig

CPU = torch.device("cpu")
ONE_LEVEL = replace(
    PRESETS["tiny"],
    network=NetworkConfig(widths=(8,), encoder_blocks=(1,), decoder_blocks=(), dropout=0.3),
    steps=3,
    batch=2,
    crop=8,
    crop_late=8,
)
PICTURES = [np.random.default_rng(k).integers(0, 255, (20, 20, 3), np.uint8) for k in range(3)]


def batch(config: TrainingConfig) -> Batch:
    return in_prior_units(batch_at(0, config.crop, config, [PICTURES]), 255.0, config)


def losses(config: TrainingConfig, folder: Path, *, compile: bool) -> tuple[list[float], list[str]]:
    found: list[float] = []
    notes: list[str] = []
    with full_precision():
        fit(
            DENOISING,
            PICTURES,
            config,
            folder,
            device=CPU,
            execution=Execution(compile=compile),
            on_step=lambda info: found.append(info.loss),
            on_note=notes.append,
        )
    return found, notes


BACKENDS = [
    "aot_eager",  # all of torch.compile but the code it writes
    pytest.param(
        "inductor",
        marks=pytest.mark.skipif(
            "INVSOLVE_TEST_INDUCTOR" not in os.environ, reason="compiles for minutes; set INVSOLVE_TEST_INDUCTOR=1"
        ),
    ),
]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_compiled_run_is_the_plain_one(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of dropout too; the checkpoint knows nothing of it."""
    model = initial_state(ONE_LEVEL, CPU).model
    torch._dynamo.reset()
    reason = compiled(DENOISING, model, batch(ONE_LEVEL), ONE_LEVEL, backend)
    if reason:
        pytest.skip(f"torch.compile does not work here: {reason}")
    monkeypatch.setattr("invsolve.training.loop.compiled", partial(compiled, backend=backend))
    plain, _ = losses(ONE_LEVEL, tmp_path / "plain", compile=False)
    found, notes = losses(ONE_LEVEL, tmp_path / "compiled", compile=True)
    assert notes == []
    assert found == pytest.approx(plain, rel=1e-5)
    names = [
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["model"] for name in ("plain", "compiled")
    ]
    assert list(names[0]) == list(names[1])


def test_where_it_cannot_be_compiled_the_run_is_the_plain_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._inductor.config
    from torch._inductor.utils import fresh_cache

    torch._dynamo.reset()
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", (None, str(tmp_path / "no-compiler")))
    with fresh_cache():
        found, notes = losses(ONE_LEVEL, tmp_path / "a", compile=True)
    assert len(notes) == 1 and notes[0].startswith("not compiled: ") and "\n" not in notes[0]
    assert found == losses(ONE_LEVEL, tmp_path / "b", compile=False)[0]


@pytest.mark.parametrize(
    "config",
    [replace(ONE_LEVEL, objective="ssm-vr"), replace(ONE_LEVEL, network=replace(ONE_LEVEL.network, energy=True))],
)
def test_what_is_differentiated_twice_is_not_compiled(config: TrainingConfig) -> None:
    model = initial_state(config, CPU).model
    assert "differentiate twice" in compiled(DENOISING, model, batch(config), config)
    assert all("forward" not in vars(module) for module in model.modules() if isinstance(module, ChannelDropout))
