"""The batches of a run: the same whoever cuts their crops, and nothing left of those who did."""

from __future__ import annotations

import multiprocessing
import os
import signal
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch

from invsolve.errors import SolveError
from invsolve.training.batches import Cropping, batch_at, batches, crop_at
from invsolve.training.presets import PRESETS

CPU = torch.device("cpu")
CONFIG = replace(PRESETS["tiny"], crop=16, crop_late=24, batch=6, steps=6, scale_odds=(1.0,))
PICTURES = [np.random.default_rng(k).integers(0, 256, (30, 40, 3), np.uint8) for k in range(5)]
CROPPING = Cropping(CONFIG, [PICTURES], labels=range(5))

forks = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="processes cannot be forked here"
)


@pytest.mark.parametrize("forked", [False, pytest.param(True, marks=forks)])
def test_batches_are_those_of_their_steps(forked: bool) -> None:
    with closing(batches(CROPPING, 2, CPU, forked=forked)) as coming:
        for step in range(2, 6):
            found = next(coming)
            wanted = batch_at(step, crop_at(step, CONFIG), CONFIG, [PICTURES], range(5))
            for name in ("x0", "sigma", "z", "labels"):
                assert torch.equal(getattr(found, name), getattr(wanted, name)), name
            assert (found.first, found.whole) == (wanted.first, wanted.whole)
    assert found.x0.shape[-1] == 24


@forks
def test_no_process_stays_behind() -> None:
    with closing(batches(CROPPING, 0, CPU, forked=True)) as coming:
        next(coming)
        assert multiprocessing.active_children()
    assert not multiprocessing.active_children()


@forks
def test_a_killed_process_ends_the_run() -> None:
    with closing(batches(CROPPING, 0, CPU, forked=True)) as coming:
        next(coming)
        for process in multiprocessing.active_children():
            os.kill(process.pid or 0, signal.SIGKILL)
        with pytest.raises(SolveError, match="cuts crops was ended"):
            for _ in range(8):
                next(coming)
