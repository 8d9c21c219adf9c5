"""What is missing: by a mask's file, transparency, a painted colour, boxes, and all of them together."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from invsolve.cli.console import percent
from invsolve.cli.files import Photo, read_photo
from invsolve.cli.main import main
from invsolve.cli.masks import MaskSources
from invsolve.errors import InputError, UsageError


def photo(alpha: np.ndarray | None = None) -> Photo:
    pixels = np.random.default_rng(0).integers(0, 200, (20, 30, 3)).astype(np.uint8)
    return Photo(pixels, alpha, None)


def where(shape: tuple[int, int] = (20, 30), **boxes: slice) -> np.ndarray:
    missing = np.zeros(shape, dtype=bool)
    missing[boxes["rows"], boxes["columns"]] = True
    return missing


HOLE = where(rows=slice(4, 9), columns=slice(10, 20))


def test_a_soft_mask_has_a_stated_threshold(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 30).astype(np.uint8) * np.ones((20, 1), np.uint8)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    file = str(tmp_path / "ramp.png")
    for threshold in (0.25, 0.5, 1.0):
        found = MaskSources(file, threshold=threshold).read(photo())
        np.testing.assert_array_equal(found, ramp >= 255 * threshold)
        np.testing.assert_array_equal(MaskSources(file, True, threshold).read(photo()), ramp < 255 * threshold)
    np.testing.assert_array_equal(MaskSources(file, threshold=0).read(photo()), ramp > 0)


def test_a_photograph_given_as_a_mask_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    greys = np.random.default_rng(0).integers(0, 256, (20, 30)).astype(np.uint8)
    soft = np.where(HOLE, 255, 0).astype(np.uint8)
    soft[3], soft[9] = 128, 128
    for name, pixels in (("photo.png", greys), ("mask.png", soft)):
        Image.fromarray(pixels).save(tmp_path / name)
        MaskSources(str(tmp_path / name)).read(photo())
    said = " ".join(capsys.readouterr().err.split())
    assert "is neither black nor white" in said
    assert "mask.png" not in said


def test_transparency(tmp_path: Path) -> None:
    alpha = np.where(HOLE, 0, 255).astype(np.uint8)
    alpha[0, :2] = 100, 200
    Image.fromarray(np.dstack([photo().pixels, alpha])).save(tmp_path / "erased.png")
    erased = read_photo(tmp_path / "erased.png")
    half = HOLE.copy()
    half[0, 0] = True
    np.testing.assert_array_equal(MaskSources("alpha").read(erased), half)
    at_all = half.copy()
    at_all[0, 1] = True
    np.testing.assert_array_equal(MaskSources("alpha", threshold=0).read(erased), at_all)
    np.testing.assert_array_equal(MaskSources("alpha", threshold=1).read(erased), HOLE)
    with pytest.raises(InputError, match="no transparency"):
        MaskSources("alpha").read(photo())


@pytest.mark.parametrize("colour", ["#ff00ff", "#f0f", "magenta", "rgb(255,0,255)", "FF00FF", "f0f"])
def test_a_painted_colour_also_after_jpeg(tmp_path: Path, colour: str) -> None:
    """All of the stroke, and what it has run into."""
    painted = photo().pixels.copy()
    painted[HOLE] = 255, 0, 255
    Image.fromarray(painted).save(tmp_path / "painted.png")
    found = MaskSources(colour=colour, grow=0).read(read_photo(tmp_path / "painted.png"))
    np.testing.assert_array_equal(found, HOLE)
    Image.fromarray(painted).save(tmp_path / "painted.jpg", quality=90)
    soft = MaskSources(colour=colour).read(read_photo(tmp_path / "painted.jpg"))
    assert bool(soft[HOLE].all()) and not soft[:, 0].any()


def test_no_rim_of_paint_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A JPEG keeps colours at half the resolution: what a stroke has run into would be filled from, and tint the hole."""
    rows, columns = np.mgrid[:80, :100] / 100
    clean = np.stack([90 + 60 * rows, 110 + 40 * columns, 60 + 50 * rows * columns], axis=2).astype(np.uint8)
    stroke, painted = np.zeros((80, 100), bool), clean.copy()
    stroke[30:37, 20:81] = True
    painted[stroke] = 255, 0, 255
    beyond = []
    for name, pixels in (("clean", clean), ("painted", painted)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.jpg", quality=90)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    smeared, plain = (read_photo(tmp_path / f"{name}.jpg").pixels.astype(int) for name in ("painted", "clean"))
    differs = np.abs(smeared - plain).max(axis=2)
    for grow in (2, None):
        found = MaskSources(colour="magenta", grow=grow).read(read_photo(tmp_path / "painted.jpg"))
        beyond.append(int(differs[~found].max()))
    assert bool(found[stroke].all())
    assert beyond[0] > 60 and beyond[1] < 25, beyond
    assert "the paint has run into what is around it" in capsys.readouterr().err
    # Where nothing has run, two pixels, as a soft brush wants; and a box beside it is no paint.
    sharp = MaskSources(colour="magenta", boxes=("0,0,4,4",)).read(read_photo(tmp_path / "painted.png"))
    away = ndimage.distance_transform_edt(~stroke)
    assert np.array_equal(sharp[8:], away[8:] <= 2) and sharp[:8].sum() == 16
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0.0%"), (3e-4, "0.03%"), (2e-9, "2e-07%"), (0.081, "8.1%"), (0.9996, "more than 99.9%"), (1.0, "100.0%")],
)
def test_a_little_is_not_called_nothing(share: float, text: str) -> None:
    assert percent(share) == text


def test_a_colour_that_the_shell_took_for_a_comment(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["invsolve", "inpaint", "a.png", "--mask-color"])
    with pytest.raises(SystemExit):
        main()
    assert "hint: quote the colour, '#ff00ff'" in capfd.readouterr().err


def test_grey_pictures_have_greys_painted() -> None:
    grey = photo().pixels[..., 0].copy()
    grey[HOLE] = 255
    np.testing.assert_array_equal(MaskSources(colour="white", grow=0).read(Photo(grey, None, None)), HOLE)


def test_boxes_add_up_and_grow() -> None:
    one = MaskSources(boxes=("10,4,10,5",)).read(photo())
    np.testing.assert_array_equal(one, HOLE)
    two = MaskSources(boxes=("10,4,10,5", "0,0,1,1")).read(photo())
    assert two.sum() == one.sum() + 1 and two[0, 0]
    around = MaskSources(boxes=("5,5,1,1",), grow=2).read(photo())
    rows, columns = np.mgrid[:20, :30]
    np.testing.assert_array_equal(around, (rows - 5) ** 2 + (columns - 5) ** 2 <= 4)


def test_what_is_given_is_in_the_provenance() -> None:
    assert MaskSources("m.png", boxes=("1,2,3,4",), colour="red").about == "m.png, red, box 1,2,3,4"


@pytest.mark.parametrize(
    ("sources", "error", "message"),
    [
        (MaskSources(), UsageError, "nothing says what is missing"),
        (MaskSources("alpha", invert=True), UsageError, "--invert-mask without"),
        (MaskSources(colour="pinkish"), UsageError, "pinkish"),
        (MaskSources(colour="#ff00ff80"), UsageError, "#ff00ff80"),
        (MaskSources(colour="rgb(255,255,300)"), UsageError, "300"),
        (MaskSources(colour="#ff00ff"), InputError, "no pixel of the picture"),
        (MaskSources(boxes=("1,2,3",)), UsageError, "four whole numbers"),
        (MaskSources(boxes=("1,2,x,4",)), UsageError, "four whole numbers"),
        (MaskSources(boxes=("0,0,31,1",)), InputError, "leaves the picture"),
        (MaskSources(boxes=("0,0,0,1",)), InputError, "leaves the picture"),
        (MaskSources(boxes=("-1,0,3,1",)), InputError, "leaves the picture"),
    ],
)
def test_bad_input_is_told(sources: MaskSources, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sources.read(photo())
