"""Rings: bins of a wrong gain are found and corrected, and a scan without them stays as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from calling import call

from invsolve.ct.classical import classical
from invsolve.ct.description import Description
from invsolve.ct.rings import LEAST_VIEWS, find_rings
from invsolve.ct.scan import interpret
from invsolve.ct.simulation import project_slice
from invsolve.errors import ExitCode, UsageError
from invsolve.forward_models import Geometry, even_angles, projector

SIZE, BINS = 96, 141
AXIS = (BINS - 1) / 2


def slices() -> dict[str, np.ndarray]:
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    discs = np.where(((x - 7) / 38) ** 2 + ((y + 3) / 28) ** 2 < 1, 0.5, 0.0)
    discs[(x - 15) ** 2 + (y - 8) ** 2 < 40] += 0.3
    radius = np.hypot(x, y)
    return {
        "discs": discs,
        "shell": np.where(radius < 38, 0.5, 0.0) + np.where((radius < 30) & (radius > 22), 0.3, 0.0),
    }


def scan(views: int) -> Geometry:
    return Geometry(even_angles(views), BINS, (SIZE, SIZE))


def noisy(y: np.ndarray, share: float) -> np.ndarray:
    return (y + share * y.max() * np.random.default_rng(1).standard_normal(y.shape)).astype(np.float32)


def gains() -> np.ndarray:
    """Too much in every view, (detectors,), as a share of the largest value: one bin in seven, and up to 6 %."""
    random = np.random.default_rng(0)
    off = np.zeros(BINS)
    bins = random.choice(np.arange(20, BINS - 20), 14, replace=False)
    off[bins] = random.choice([-1, 1], 14) * random.uniform(0.02, 0.06, 14)
    return off


def error(y: np.ndarray, views: int, image: np.ndarray) -> float:
    """RMSE of filtered back-projection in HU."""
    made = classical("fbp", projector(scan(views), torch.device("cpu")), scan(views), torch.from_numpy(y)[None])
    return float(2000 * np.sqrt(((made[0].numpy() - image) ** 2).mean()))


def without(y: np.ndarray, way: str = "auto") -> np.ndarray:
    found = find_rings(y[None], np.ones((1, *y.shape), dtype=bool), AXIS, way)
    return (y - found.excess[0]).astype(np.float32)


@pytest.mark.parametrize("views", [23, 90])
def test_rings_are_removed(views: int) -> None:
    image = slices()["discs"]
    clean = noisy(project_slice(image, scan(views)), 0.003)
    ringed = (clean + gains() * clean.max()).astype(np.float32)
    floor, before = error(clean, views, image), error(ringed, views, image)
    for way in ("auto", "median"):
        left = error(without(ringed, way), views, image) - floor
        assert left < 0.5 * (before - floor), (way, left, before - floor)
    found = find_rings(ringed[None], np.ones((1, *ringed.shape), dtype=bool), AXIS)
    assert found.wrong[0][gains() != 0].mean() > 0.7
    assert found.wrong[0][gains() == 0].mean() < 0.15


@pytest.mark.parametrize("share", [0.0, 0.003, 0.01])
@pytest.mark.parametrize("views", [23, 90])
@pytest.mark.parametrize("name", ["discs", "shell"])
def test_a_scan_without_rings_becomes_no_worse(name: str, views: int, share: float) -> None:
    """The shell is round and on the axis: its own edges are rings, which must stay."""
    image = slices()[name]
    y = noisy(project_slice(image, scan(views)), share)
    assert error(without(y), views, image) < 1.002 * error(y, views, image)


def test_the_round_shell_is_what_a_correction_of_every_bin_damages() -> None:
    """So the test above can fail."""
    image = slices()["shell"]
    y = noisy(project_slice(image, scan(90)), 0.003)
    assert error(without(y, "median"), 90, image) > 1.05 * error(y, 90, image)


def test_few_views_and_missing_rays_say_nothing() -> None:
    y = noisy(project_slice(slices()["discs"], scan(LEAST_VIEWS)), 0)[None] + 50 * gains()
    seen = np.ones(y.shape, dtype=bool)
    assert find_rings(y, seen, AXIS).wrong.any()
    assert not find_rings(y[:, 1:], seen[:, 1:], AXIS).wrong.any()
    seen[:, 0] = False
    assert not find_rings(y, seen, AXIS).wrong.any()


@pytest.mark.parametrize("units", ["pixel", "counts"])
def test_a_scan_is_corrected_when_asked_and_warned_of_otherwise(units: str) -> None:
    lines = noisy(project_slice(slices()["discs"], scan(90)), 0.001)
    ringed = lines + gains() * lines.max()
    known = {"center": AXIS}
    if units == "counts":
        scale = 2 * 0.0192 * 1.5
        lines, ringed = (1e6 * np.exp(-scale * one) for one in (lines, ringed))
        known |= {"units": "counts", "i0": 1e6, "pixel_size": 1.5}
    wanted = interpret(lines.astype(np.float32), Description(**known))
    left = interpret(ringed.astype(np.float32), Description(**known))
    cleaned = interpret(ringed.astype(np.float32), Description(**known, rings="auto"))
    assert "--rings auto" in " ".join(left.notes)
    assert "rings" not in " ".join(wanted.notes)
    assert any("of the bins corrected" in note for note in cleaned.notes)
    before, after = (np.abs(one.sinogram - wanted.sinogram).mean() for one in (left, cleaned))
    assert after < 0.5 * before
    with pytest.raises(UsageError, match="--rings"):
        interpret(lines.astype(np.float32), Description(**known, rings="all"))


@pytest.mark.parametrize("units", ["pixel", "counts"])
def test_what_the_bins_are_off_counts_as_noise(units: str) -> None:
    """A prior takes what a correction leaves for the slice, if the noise says that there is nothing else."""
    white, share = 0.003, 0.01
    lines = noisy(project_slice(slices()["discs"], scan(60)), white)
    every = share * lines.max() * np.random.default_rng(2).standard_normal(BINS)
    known: dict[str, object] = {"center": AXIS}
    scale = 1.0
    if units == "counts":
        scale = 2 * 0.0192 * 1.5
        known |= {"units": "counts", "i0": 1e6, "pixel_size": 1.5}

    def level(y: np.ndarray, way: str) -> tuple[float, str]:
        stored = 1e6 * np.exp(-scale * y) if units == "counts" else y
        found = interpret(stored.astype(np.float32), Description(**known, rings=way))  # type: ignore[arg-type]
        return float(np.median(found.noise)), " ".join(found.notes)

    for way in ("off", "auto", "median"):
        noise, told = level(lines + every, way)
        assert 0.5 * every.std() < noise < 2 * every.std(), way
        assert "for what the bins are off" in told
        # The bins' errors of white noise are what chance leaves of it.
        alone, told = level(lines, way)
        assert alone < 1.3 * white * lines.max(), way
        assert way == "median" or "bins are off" not in told


def test_the_command_takes_them_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("INVSOLVE_CACHE", str(tmp_path / "cache"))
    y = noisy(project_slice(slices()["discs"], scan(40)), 0.003)
    np.save(tmp_path / "y.npy", (y + gains() * y.max()).astype(np.float32))
    np.save(tmp_path / "truth.npy", (2000 * slices()["discs"] - 1000).astype(np.float32))
    found = {}
    for way in ("off", "auto"):
        given = (
            "ct",
            tmp_path / "y.npy",
            "--method",
            "fbp",
            "--size",
            SIZE,
            "--rings",
            way,
            "-o",
            tmp_path / f"{way}.npy",
        )
        assert call(monkeypatch, *given) == ExitCode.OK
        made, truth = np.load(tmp_path / f"{way}.npy"), np.load(tmp_path / "truth.npy")
        found[way] = float(np.sqrt(((made - truth) ** 2).mean()))
        assert ("bins corrected" if way == "auto" else "--rings auto") in capfd.readouterr().err
    assert found["auto"] < 0.9 * found["off"]
    volume = ("ct", tmp_path / "y.npy", "--rings", "auto", "--workers", 1)
    assert call(monkeypatch, *volume) == ExitCode.USAGE
    assert "--rings of a volume" in capfd.readouterr().err


@pytest.mark.parametrize("views", [23, 60, 180])
def test_edges_of_a_body_are_no_rings(views: int) -> None:
    """At some bins of the example slice edges pass so often that the median over many views is not zero."""
    hu = np.load(Path(__file__).parents[1] / "examples" / "ct-slice.npy").astype(np.float32)
    image = ((hu + 1000) / 2000).reshape(128, 2, 128, 2).mean(axis=(1, 3))
    y = noisy(project_slice(image, Geometry(even_angles(views), 187, (128, 128))), 0.003)[None]
    assert not find_rings(y, np.ones(y.shape, dtype=bool), 93.0).wrong.any()
