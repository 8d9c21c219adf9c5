"""Large pictures: boxes in any order, tiles without seams, memory that was foreseen, limits that are kept or refused."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from calling import call
from PIL import Image

from invsolve import inpaint, load_prior
from invsolve.cli.memory import memory_size
from invsolve.errors import InputError
from invsolve.models.score_model import FunctionPrior
from invsolve.options import INPAINTING
from invsolve.tasks.inpainting import inpainting_task, missing_pixels_task
from invsolve.tasks.memory import Allocations, Bytes, bytes_per_pixel, plan_memory
from invsolve.tasks.parts import hole_parts
from invsolve.tasks.regions import CONTEXT

ROOT = Path(__file__).resolve().parents[1]
Patch = pytest.MonkeyPatch


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """A smooth 400 x 600 RGB picture, uint8."""
    y, x = np.mgrid[:400, :600]
    return np.stack([128 + 90 * np.sin(x / (9 + k)) * np.cos(y / 13 - k) for k in range(3)], axis=2).astype(np.uint8)


@pytest.fixture(scope="module")
def missing() -> np.ndarray:
    """Spots, and a scratch that is cut."""
    y, x = np.mgrid[:400, :600]
    marked = abs(y - 0.66 * x) < 2
    marked[20:28, 400:410] = marked[350:356, 60:70] = marked[60:64, 550:556] = True
    return marked


@pytest.mark.parametrize("samples", [1, 3])
def test_missing_pixels_alone_are_the_same_samples(
    samples: int, picture: np.ndarray, missing: np.ndarray, small_prior: Path
) -> None:
    prior = load_prior(small_prior, "cpu")
    task = missing_pixels_task(picture, missing)
    assert len(task.ends) > 2
    holes = task.solve(prior, samples=samples, steps=2)
    whole = inpainting_task((picture / 255).astype(np.float32), missing).solve(prior, samples=samples, steps=2)
    assert holes.samples.shape == (samples, 1, 3, 1, missing.sum())
    assert torch.equal(holes.samples[:, 0, :, 0], whole.samples[:, 0][..., torch.from_numpy(missing)])
    assert torch.equal(holes.std[0, :, 0], whole.std[0][:, torch.from_numpy(missing)])


def test_tiles_and_batches_do_not_change_the_result(picture: np.ndarray, small_prior: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr("invsolve.models.precision.native_bfloat16", lambda device: False)
    missing = np.zeros((170, 190), bool)
    missing[40:120:4, 50:140:3] = missing[60:90, 60:100] = True
    task = missing_pixels_task(picture[:170, :190], missing)
    prior = load_prior(small_prior, "cpu")
    whole = task.solve(prior, samples=3, steps=3)
    prior.pixels_at_once = 10_000
    assert task.pixels > 2 * prior.pixels_at_once
    tiled = task.solve(prior, samples=3, steps=3, batch=1)
    torch.testing.assert_close(tiled.samples, whole.samples, atol=1e-4, rtol=0)


def test_a_hole_is_filled_alike_whatever_else_is_missing(picture: np.ndarray, small_prior: Path) -> None:
    """Its noise depends on the seed and on where it is."""
    near, both = np.zeros((2, *picture.shape[:2]), bool)
    near[100:108, 250:258] = both[100:108, 250:258] = True
    both[20:40, 20:60] = True  # wider, and filled before
    prior, unit = load_prior(small_prior, "cpu"), picture / np.float32(255)
    alone, beside, other = (
        inpaint(unit, marked, prior, steps=3, seed=seed) for marked, seed in ((near, 0), (both, 0), (near, 1))
    )
    assert torch.equal(alone.samples[..., 100:108, 250:258], beside.samples[..., 100:108, 250:258])
    assert not torch.allclose(alone.samples, other.samples)


def test_what_was_filled_before_counts_as_known() -> None:
    """The second box of a cut hole sees each sample as the first box left it: no seam."""
    y, x = np.mgrid[:400, :400]
    missing = abs(y - x) < 3
    parts = hole_parts(missing)
    assert len(parts) > 1
    seen: list[torch.Tensor] = []

    def bright(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return torch.full_like(x, 0.9)

    inpaint(np.full((400, 400, 3), 0.2, np.float32), missing, FunctionPrior(bright, channels=3), steps=1)
    first, second = parts[0].region, parts[1].region
    overlap = np.zeros(missing.shape, bool)
    overlap[first.slices] = True
    filled = (overlap & missing)[second.slices] & ~parts[1].own
    assert filled.any()
    assert len(seen) == len(parts)  # one call each
    start = seen[1][0].mean(dim=0)
    assert float(start[torch.from_numpy(filled)].mean()) > 0.7


def test_work_grows_with_the_holes() -> None:
    """Four times as many holes far from each other are four times the work, and the picture's size is none."""

    def spots(count: int, side: int) -> np.ndarray:
        marked = np.zeros((side, side), bool)
        for number in range(count):
            row, column = divmod(number, 4)
            marked[100 + 200 * row : 130 + 200 * row, 100 + 200 * column : 130 + 200 * column] = True
        return marked

    few, many, larger = (
        missing_pixels_task(np.zeros(m.shape, np.uint8), m) for m in (spots(4, 900), spots(16, 900), spots(4, 1800))
    )
    assert many.work == pytest.approx(4 * few.work)
    assert larger.work == few.work
    assert few.pixels == (30 + 2 * CONTEXT) ** 2


@pytest.mark.parametrize(
    ("text", "size"), [("2GB", 2e9), ("1.5 GiB", 1.5 * 2**30), ("800m", 8e8), ("3k", 3e3), ("123456", 123456.0)]
)
def test_sizes(text: str, size: float) -> None:
    assert memory_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1GB", "0", "2XB", "1iB", "nan", "1e9"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="not a size"):
        memory_size(text)


def test_counting_memory_does_not_load_torchs_compiler() -> None:
    """Torch wraps what handles a mode's calls into one that does, which takes seconds."""
    assert not hasattr(Allocations.__torch_dispatch__, "__wrapped__")


def test_allocations_are_counted_until_they_are_freed() -> None:
    with Allocations() as counted:
        a = torch.zeros(1000)
        b = a.view(10, 100)
        assert counted.now == 4000
        c = b + 1
        assert counted.now == 8000
        del c
        d = a.double()
        assert counted.now == 12000
        del a, b, d
    assert (counted.now, counted.peak) == (0, 12000)


def test_the_plan_keeps_to_the_limit_or_says_what_it_takes(small_prior: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr("invsolve.tasks.memory.bytes_per_pixel", lambda prior, options: Bytes(call=500.0, step=300.0))
    missing = np.zeros((900, 900), bool)
    missing[100:800, 100:800] = True
    task, options = missing_pixels_task(np.zeros((900, 900), np.uint8), missing), replace(INPAINTING, samples=8).settled

    def planned(limit: float) -> tuple[int, int, bool]:
        found = plan_memory(
            task, load_prior(small_prior, "cpu"), options, limit=limit, held=1e8, values=1, writing=0.0, most=2**20, tiles=True
        )  # fmt: skip
        assert found.least <= found.needed
        return found.batch, found.call, found.needed <= limit

    assert planned(1e12) == (8, 2**20, True)
    assert planned(1e9)[0] < 8 and planned(1e9)[2]
    assert planned(6e8)[1] < 2**20 and planned(6e8)[2]
    assert planned(1e8) == (1, 2**18, False)


def test_a_network_call_takes_what_was_counted() -> None:
    """Of the shipped prior, in a process of its own: never more than the estimate, nor far less."""
    script = """
import torch
from invsolve import load_prior
from invsolve.options import INPAINTING
from invsolve.tasks.memory import bytes_per_pixel

def memory(name):
    return 1024 * int(next(line for line in open("/proc/self/status") if line.startswith(name)).split()[1])

prior = load_prior("photos", "cpu")
found = bytes_per_pixel(prior, INPAINTING.settled).call
x = torch.rand(1, 3, 512, 512)
prior.denoise(x[..., :64, :64], 0.02)  # what only the first call takes: weights in another order, threads, kernels
open("/proc/self/clear_refs", "w").write("5")
before = memory("VmRSS")
prior.denoise(x, 0.02)
print((memory("VmHWM") - before) / 512**2 / found)
"""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("only Linux says what a process took at most")
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 0.4 < float(done.stdout) < 1


def test_the_command_gives_the_rest_back_and_writes_every_picture(
    tmp_path: Path, picture: np.ndarray, missing: np.ndarray, small_prior: Path, monkeypatch: Patch
) -> None:
    picture, missing = picture[:150, 300:480], missing[:150, 300:480] | missing[:150, 400:580]
    Image.fromarray(picture).save(tmp_path / "p.png")
    Image.fromarray(missing).save(tmp_path / "m.png")
    fixed = ("--model", small_prior, "--device", "cpu", "--steps", 2, "--samples", 2, "--interval", "-q")
    given = (tmp_path / "p.png", "--mask", tmp_path / "m.png")
    assert call(monkeypatch, "inpaint", *given, *fixed, "-o", tmp_path / "a.png", "--memory", "8GB") == 0
    assert call(monkeypatch, "inpaint", *given, *fixed, "-o", tmp_path / "b.png", "--memory", "3GB") == 0
    for name in (".", ".sample-1.", ".mean.", ".low.", ".high."):
        made = np.asarray(Image.open(tmp_path / f"a{name}png"))
        assert (made[~missing] == picture[~missing]).all()
        assert (made[missing] != picture[missing]).any()
        assert np.abs(made.astype(int) - np.asarray(Image.open(tmp_path / f"b{name}png"))).max() <= 1
    std = np.asarray(Image.open(tmp_path / "a.std.png"))
    assert std.shape == missing.shape
    assert not std[~missing].any()
    assert std[missing].any()


@pytest.mark.parametrize("command", ["inpaint", "denoise", "colorize"])
def test_too_little_memory_is_refused_in_one_line(
    command: str, tmp_path: Path, picture: np.ndarray, missing: np.ndarray, small_prior: Path, monkeypatch: Patch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    Image.fromarray(picture).save(tmp_path / "p.png")
    Image.fromarray(missing).save(tmp_path / "m.png")
    mask = ("--mask", tmp_path / "m.png") if command == "inpaint" else ()
    model = ("--model", small_prior, "--device", "cpu", "--memory", "10MB")
    assert call(monkeypatch, command, tmp_path / "p.png", *mask, *model) == 2
    said = capfd.readouterr().err
    assert "error: this takes at least " in said and "GB of memory, 0.1 GB are allowed" in said
    assert "hint: --memory " in said
    assert "Traceback" not in said
    assert not list(tmp_path.glob("p.*.png"))


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the system does not say what a process took at most"
)
def test_the_shipped_estimate_covers_a_whole_run(tmp_path: Path) -> None:
    """A run of the command, in a process of its own, stays within the --memory that it was given."""
    y, x = np.mgrid[:1200, :1600]
    picture = np.stack([(128 + 90 * np.sin(x / (19 + k)) * np.cos(y / 23)).astype(np.uint8) for k in range(3)], axis=2)
    missing = np.zeros(picture.shape[:2], bool)
    missing[500:504, 300:340] = missing[700:706, 900:906] = True
    Image.fromarray(picture).save(tmp_path / "p.png")
    Image.fromarray(missing).save(tmp_path / "m.png")
    script = """
import sys
from invsolve.cli.main import main
try:
    main()
finally:
    # Not resource's ru_maxrss, which on Linux is at least that of the process which started this one.
    print(next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
    given = [
        "inpaint",
        "p.png",
        "--mask",
        "m.png",
        "--steps",
        "1",
        "--samples",
        "2",
        "--device",
        "cpu",
        "-v",
        "--memory",
        "1.4GB",
    ]
    path = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", script, *given], cwd=tmp_path, capture_output=True, text=True, check=True, env=path
    )  # fmt: skip
    assert float(done.stdout.split()[-1]) < 1.4e9
    assert "GB are allowed" in done.stderr


def test_a_picture_too_small_for_its_prior_is_still_refused() -> None:
    prior = FunctionPrior(lambda x, sigma: x, channels=3, size=64)
    with pytest.raises(InputError, match="64 x 64 only"):
        missing_pixels_task(np.zeros((40, 64, 3), np.uint8), np.eye(40, 64, dtype=bool)).solve(prior)


def test_bytes_per_pixel_of_a_rule_that_differentiates_are_more(small_prior: Path) -> None:
    prior = load_prior(small_prior, "cpu")
    plain, guided = (bytes_per_pixel(prior, replace(INPAINTING, rule=rule).settled) for rule in ("proximal", "dps"))
    assert plain.call == guided.call > 0
    assert guided.step > plain.step > 0
