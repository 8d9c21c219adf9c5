"""What is missing: by a mask's file, transparency, a painted colour, boxes, and all of them together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from invsolve.cli.files import Photo, read_photo
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


@pytest.mark.parametrize("colour", ["#ff00ff", "#f0f", "magenta", "rgb(255,0,255)"])
def test_a_painted_colour_also_after_jpeg(tmp_path: Path, colour: str) -> None:
    """All of the stroke; with the soft edge of a brush, two pixels more."""
    painted = photo().pixels.copy()
    painted[HOLE] = 255, 0, 255
    Image.fromarray(painted).save(tmp_path / "painted.png")
    found = MaskSources(colour=colour, grow=0).read(read_photo(tmp_path / "painted.png"))
    np.testing.assert_array_equal(found, HOLE)
    Image.fromarray(painted).save(tmp_path / "painted.jpg", quality=90)
    soft = MaskSources(colour=colour).read(read_photo(tmp_path / "painted.jpg"))
    assert bool(soft[HOLE].all())
    assert soft.sum() < 2.5 * HOLE.sum()


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
