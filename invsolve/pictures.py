"""Pictures as arrays: what comes in is checked once, at the border; what goes out is rounded once."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from invsolve.errors import InputError

UnitPicture = npt.NDArray[np.floating]
"""(H, W) grey or (H, W, 3) RGB in [0, 1]."""

Pixels = npt.NDArray[Any]
"""The same as a file holds it: grey levels, uint8 (0 to 255) or uint16 (0 to 65535), or floats in [0, 1]."""

Missing = npt.NDArray[np.bool_]
"""(H, W), True where a pixel is missing."""

VALUES_AT_ONCE = 2**22
"""Of large pictures so many are rounded at once: the copies would take as much again, three times."""

REACH = 4.0
"""How far from [0, 1] the values of a picture with strong noise may lie; grey levels lie further."""


def check_picture(picture: Any, *, where: Missing | None = None, colours: tuple[int, ...] = (0, 3)) -> UnitPicture:
    """``picture`` as float32, after checking that it is one of floats in [0, 1], up to noise.

    Parameters
    ----------
    picture : (H, W) or (H, W, C) array.
    where : (H, W), the pixels that count; what others hold may be anything. Default all.
    colours : the numbers of channels allowed, 0 for (H, W).

    Raises
    ------
    InputError : not an array, of another shape or type, not finite, or in grey levels instead of [0, 1].
    """
    wanted = " or ".join("(height, width)" if n == 0 else f"(height, width, {n})" for n in colours)
    if not isinstance(picture, np.ndarray):
        raise InputError(
            f"the picture is a {type(picture).__name__}",
            hint=f"wanted a numpy array {wanted}: np.asarray(picture) / 255",
        )
    if (
        0 in picture.shape
        or picture.ndim not in (2, 3)
        or (0 if picture.ndim == 2 else picture.shape[2]) not in colours
    ):
        raise InputError(f"picture has shape {picture.shape}", hint=f"wanted {wanted}")
    if picture.dtype.kind != "f":
        raise InputError(f"the picture holds {picture.dtype} values", hint="wanted floats in [0, 1]: picture / 255")
    counted = picture if where is None else picture[where]
    if not np.isfinite(counted).all():
        bad = int((~np.isfinite(counted)).sum())
        raise InputError(f"the picture has {bad} values that are NaN or infinite", hint="mark such pixels as missing")
    low, high = float(counted.min()), float(counted.max())
    if low < -REACH or high > 1 + REACH:
        raise InputError(f"the picture's values reach from {low:g} to {high:g}", hint="wanted [0, 1]: picture / 255")
    with np.errstate(all="ignore"):
        return picture.astype(np.float32)


def check_missing(missing: Any, shape: tuple[int, ...]) -> Missing:
    """``missing`` as booleans (H, W), after checking that it marks some pixels of a picture of ``shape``, not all.

    Raises
    ------
    InputError : not an array of True and False (or 1 and 0), of another size than the picture, or all alike.
    """
    if not isinstance(missing, np.ndarray):
        raise InputError(
            f"the mask is a {type(missing).__name__}", hint="wanted a numpy array (height, width), True where missing"
        )
    if missing.shape != shape[:2]:
        raise InputError(
            f"the mask is {' x '.join(map(str, missing.shape[::-1]))} pixels, the picture {shape[1]} x {shape[0]}",
            hint="make a mask of the picture's size",
        )
    if missing.dtype != np.bool_ and not (missing.dtype.kind in "iuf" and np.isin(missing, (0, 1)).all()):
        raise InputError(
            f"the mask holds {missing.dtype} values other than 0 and 1", hint="wanted True where missing: mask > 127"
        )
    marked = missing.astype(np.bool_, copy=False)
    hint = "white means missing; use --invert-mask if yours is the other way round"
    if not marked.any():
        raise InputError("the mask marks no pixel as missing", hint=hint)
    if marked.all():
        raise InputError("the mask marks every pixel as missing", hint=hint)
    return marked


def full_range(dtype: npt.DTypeLike) -> int:
    """White, in the numbers of a file: 255 or 65535 of grey levels, 1 of floats."""
    kind = np.dtype(dtype)
    return int(np.iinfo(kind).max) if kind.kind == "u" else 1


def to_pixels(picture: npt.NDArray[np.floating], dtype: npt.DTypeLike = np.uint8) -> Pixels:
    """Clip to [0, 1] and round to grey levels of ``dtype``; each value moves by at most half a level, and so does the luma of
    RGB. Floats are only clipped."""
    if picture.size > VALUES_AT_ONCE and len(picture) > 1:
        half = len(picture) // 2
        rounded = np.empty(picture.shape, dtype)
        rounded[:half], rounded[half:] = to_pixels(picture[:half], dtype), to_pixels(picture[half:], dtype)
        return rounded
    clipped = np.clip(picture, 0, 1)
    if np.dtype(dtype).kind == "f":
        return clipped.astype(dtype)
    return np.rint(clipped * full_range(dtype)).astype(dtype)


def to_unit(pixels: Pixels) -> npt.NDArray[np.float32]:
    """A file's numbers as float32 in [0, 1]; :func:`to_pixels` gives back grey levels as they were."""
    unit: npt.NDArray[np.float32] = np.divide(pixels, full_range(pixels.dtype), dtype=np.float32)
    return unit


def channels_last(image: Any) -> npt.NDArray[np.floating]:
    """(C, H, W) tensor -> (H, W, C) array."""
    return np.asarray(image.permute(1, 2, 0).numpy())
