"""Scratches: drawn lines are found where they are, and nothing in a smooth picture; the command writes them to look at."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage.draw import line

from invsolve.cli.main import main
from invsolve.errors import ExitCode
from invsolve.tasks.scratches import find_scratches

SHAPE = (160, 200)


def smooth() -> np.ndarray:
    """Soft colours and grain."""
    rng = np.random.default_rng(0)
    picture = ndimage.gaussian_filter(rng.standard_normal((*SHAPE, 3)), (12, 12, 0))
    return 0.5 + 0.2 * picture / picture.std() * 0.7 + 0.02 * rng.standard_normal((*SHAPE, 3))


def scratched(width: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Two bright lines and a dark one."""
    lines = np.zeros((3, *SHAPE), dtype=bool)
    for plane, ends in zip(lines, ((10, 15, 150, 60), (30, 190, 140, 90), (20, 70, 25, 190)), strict=True):
        plane[line(*ends)] = True
    wide = np.array([ndimage.binary_dilation(plane, iterations=width // 2) for plane in lines])
    picture = smooth()
    picture[wide[0] | wide[1]] = 0.95
    picture[wide[2]] = 0.05
    return picture.clip(0, 1), wide.any(axis=0)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["invsolve", "inpaint", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize("width", [3, 5])
@pytest.mark.parametrize("grey", [False, True])
def test_lines_are_found_where_they_are(grey: bool, width: int) -> None:
    picture, truth = scratched(width)
    found = find_scratches(picture.mean(axis=2) if grey else picture)
    assert found[truth].mean() > 0.9
    assert ndimage.binary_dilation(truth, iterations=3)[found].mean() > 0.97


def test_a_smooth_picture_has_none_and_short_strokes_are_none() -> None:
    assert not find_scratches(smooth().clip(0, 1)).any()
    picture = smooth().clip(0, 1)
    picture[40:43, 50:70] = 1
    assert not find_scratches(picture).any()


def test_the_command_writes_them_and_fills_nothing(
    tmp_path: Path, small_prior: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, truth = scratched()
    Image.fromarray((255 * picture).astype(np.uint8)).save(tmp_path / "print.png")
    Image.fromarray(np.full((64, 64), 99, np.uint8)).save(tmp_path / "flat.png")
    assert run(monkeypatch, tmp_path / "print.png", "--scratches") == 0
    said = capsys.readouterr().err
    mask = np.asarray(Image.open(tmp_path / "print.scratches.png"))
    assert (mask[truth] == 255).mean() > 0.9
    assert Image.open(tmp_path / "print.scratches.shown.png").size == (200, 160)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "flat.png", "print.png", "print.scratches.png", "print.scratches.shown.png",
    ]  # fmt: skip
    printed = said.split("then: invsolve inpaint ")[1].split()
    assert run(monkeypatch, *printed, "--model", small_prior, "--steps", 2) == 0
    assert run(monkeypatch, tmp_path / "print.png", "--scratches") == ExitCode.OUTPUT
    assert run(monkeypatch, tmp_path / "print.png", "--scratches", "--box", "1,1,2,2") == ExitCode.USAGE


def test_a_picture_without_scratches_is_done_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    Image.fromarray((255 * scratched()[0]).astype(np.uint8)).save("in/print.png")
    Image.fromarray(np.full((64, 64), 99, np.uint8)).save("in/flat.png")
    assert run(monkeypatch, "in/flat.png", "--scratches") == 0
    assert "no scratch was found in in/flat.png, so no mask is written\n" in capsys.readouterr().err
    Path("in/flat.scratches.png").write_bytes(b"an older one")
    assert run(monkeypatch, "in/flat.png", "--scratches", "--force") == 0
    assert "in/flat.scratches.png is of another run" in capsys.readouterr().err
    assert Path("in/flat.scratches.png").read_bytes() == b"an older one"
    Path("in/flat.scratches.png").unlink()

    many = ("in", "--scratches", "-o", "masks")
    assert run(monkeypatch, *many) == 0
    assert "no scratch was found in in/flat.png" in capsys.readouterr().err
    assert sorted(path.name for path in Path("masks").glob("*.png")) == [
        "print.scratches.png", "print.scratches.shown.png",
    ]  # fmt: skip
    assert run(monkeypatch, *many) == 0
    assert "nothing to do: 2 pictures" in capsys.readouterr().err
    Image.fromarray((255 * scratched()[0]).astype(np.uint8)).save("in/flat.png")  # nothing was made of it: no loss
    assert run(monkeypatch, *many) == 0
    assert Path("masks/flat.scratches.png").is_file()
