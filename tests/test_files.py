"""Files from elsewhere: colour tables, calibrations and posteriors are read whole, or refused with the reason."""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from invsolve.errors import InputError, ModelError
from invsolve.files import read_json, regular_file
from invsolve.posterior import Posterior
from invsolve.tasks.baselines import ColourTable
from invsolve.uncertainty.conformal import Calibration, LeftOut

HOSTILE: tuple[Any, ...] = (
    None, True, -1, 0, 10**9, 10**400, math.inf, math.nan, "", "x", [], {}, [[]], [[[]]], [1, 2], [{}], {"a": []},
)  # fmt: skip


def altered(value: Any, rng: random.Random) -> Iterator[Any]:
    """A JSON value with each of its parts replaced by hostile values, or left out; of long lists a few parts."""
    yield from HOSTILE
    if isinstance(value, dict):
        for key, inner in value.items():
            yield {k: v for k, v in value.items() if k != key}
            yield from ({**value, key: other} for other in altered(inner, rng))
        yield {**value, "surplus": 1}
    if isinstance(value, list) and value:
        place = rng.randrange(len(value))
        yield value[:-1]
        yield from ([*value[:place], other, *value[place + 1 :]] for other in altered(value[place], rng))


def altered_texts(text: str) -> Iterator[bytes]:
    rng = random.Random(0)
    yield from (json.dumps(value).encode() for value in altered(json.loads(text), rng))
    raw = text.encode()
    for _ in range(20):
        place = rng.randrange(len(raw))
        yield raw[:place]
        yield raw[:place] + bytes([rng.randrange(256)]) + raw[place + 1 :]
    yield b"[" * 100_000
    yield b"\xff\xfe"


def test_altered_colour_tables_are_refused_or_work(tmp_path: Path) -> None:
    file, rng = tmp_path / "table.json", np.random.default_rng(0)
    ColourTable.fit([rng.integers(0, 256, (9, 8, 3), np.uint8)], luma_bins=4, height_bins=2).save(file)
    refused = 0
    for content in altered_texts(file.read_text()):
        file.write_bytes(content)
        try:
            assert np.isfinite(ColourTable.load(file).colorize(np.full((5, 4), 0.5))).all()
        except InputError:
            refused += 1
    assert refused > 50


def test_altered_calibrations_are_refused_or_work(tmp_path: Path) -> None:
    file = tmp_path / "calibration.json"
    groups = [LeftOut("a", 0.8, 0.9, 1.4), LeftOut("b", 0.7, 0.9, 1.5)]
    Calibration("inpaint", "0" * 64, "proximal", "renoising", 50, 4, 0.9, 1.45, groups, {"noise": 0.1}).save(file)
    samples, refused = torch.rand(4, 1, 3, 5, 5), 0
    for content in altered_texts(file.read_text()):
        file.write_bytes(content)
        try:
            found = Calibration.load(file)
            assert 0 <= found.before <= 1
            assert found.warning({"noise": 0.1}) is None or found.problem != {"noise": 0.1}
            if found.samples == 4:
                assert bool(torch.isfinite(found.apply(samples).low).all())
        except InputError:
            refused += 1
    assert refused > 200


def test_altered_posteriors_are_refused_or_work(tmp_path: Path) -> None:
    file, rng = tmp_path / "run.npz", random.Random(0)
    Posterior(torch.rand(2, 1, 3, 4, 4), (0, 1), torch.rand(2, 1), {"steps": 3}, 6).save(file)
    content = file.read_bytes()
    with np.load(file) as archive:
        arrays = dict(archive)
    header, refused = json.loads(str(arrays["header"])), 0

    def versions() -> Iterator[Callable[[], object]]:
        for value in altered(header, rng):
            yield lambda value=value: np.savez(file, **{**arrays, "header": np.array(json.dumps(value))})
        for name in arrays:
            for other in (np.zeros(3), np.zeros((2, 1, 3, 4, 4), int), np.array("x"), np.zeros((0, 1, 3, 4, 4))):
                yield lambda name=name, other=other: np.savez(file, **{**arrays, name: other})
            rest = {key: value for key, value in arrays.items() if key != name}
            yield lambda rest=rest: np.savez(file, **rest)
        for _ in range(100):
            place = rng.randrange(len(content))
            yield lambda place=place: file.write_bytes(content[:place])
            flipped = content[:place] + bytes([rng.randrange(256)]) + content[place + 1 :]
            yield lambda flipped=flipped: file.write_bytes(flipped)

    for write in versions():
        write()
        try:
            Posterior.load(file)
        except InputError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    ("put", "message"),
    [
        (lambda path: None, "no such file"),
        (Path.mkdir, "is a folder"),
        (Path.touch, "is empty"),
        pytest.param(
            lambda path: os.mkfifo(path), "a pipe or a device",
            marks=pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX"),
        ),
        (lambda path: path.symlink_to(path), "cannot read"),
    ],
)  # fmt: skip
def test_what_is_no_file_is_refused(put: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    path = tmp_path / "given"
    put(path)
    for read in (lambda: regular_file(path, "table"), lambda: Posterior.load(path), lambda: Calibration.load(path)):
        with pytest.raises(InputError, match=message):
            read()
    with pytest.raises(ModelError, match=message):
        regular_file(path, "card", ModelError)


@pytest.mark.parametrize("path", ["x" * 100_000, "a\0b"])
def test_paths_no_file_can_have_are_refused(path: str) -> None:
    with pytest.raises(InputError, match="cannot read"):
        regular_file(path, "table")


def test_json_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "large.json").write_bytes(b" " * (2**24 + 1))
    with pytest.raises(InputError, match="larger than 16 MiB"):
        read_json(tmp_path / "large.json", "card")
