"""Stacks of sinograms on disk as ``dask.array``s: read slice by slice, never as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from invsolve.distributed.extra import require
from invsolve.errors import InputError, InvsolveError, first_line

if TYPE_CHECKING:
    import dask.array as da

Array = npt.NDArray[Any]

NAME, ANGLES = "sinogram", "angles"
"""What the data and the angles are called in a Zarr group or an HDF5 file."""

HDF5 = (".h5", ".hdf5", ".nxs")
ENDINGS = (".zarr", *HDF5, ".npy")

MANY_SLICES = 16
"""Slices of a chunk from which on reading a single one is a waste that is spoken of."""


class Sinograms(NamedTuple):
    """A stack on disk.

    Parameters
    ----------
    array : (slices, views, detectors), or with the last two the other way round; a chunk holds whole slices.
    angles : in degrees, one per view, where the file has them.
    notes : sentences on what is unfortunate about it, for a person.
    """

    array: da.Array
    angles: tuple[float, ...] | None
    notes: tuple[str, ...]


def open_sinograms(path: str | Path) -> Sinograms:
    """A Zarr array, a Zarr group or HDF5 file with an array ``sinogram``, or an ``.npy``, without reading its values.

    ``angles`` beside ``sinogram`` are read where they are there; their attribute ``units`` may be ``radians``. The path
    must lead to the same file on every worker.

    Raises
    ------
    InputError : no such file, of another kind, without such an array, not three-dimensional, or not of real numbers.
    ModelError : Dask, Zarr or h5py is not installed.
    """
    where = Path(path).absolute()
    require("dask.array", "zarr", *(["h5py"] if where.suffix.lower() in HDF5 else []))
    import dask.array as da

    if where.suffix.lower() not in ENDINGS:
        raise InputError(f"{path} is no volume this program can read", hint=f"give {', '.join(ENDINGS)}")
    stored = Stored.find(where)
    with stored.opened() as values:
        shape, chunks = tuple(values.shape), getattr(values, "chunks", None)
    if len(shape) != 3 or 0 in shape:
        raise InputError(f"{path}: the sinograms have shape {shape}", hint="wanted (slices, views, detectors)")
    if stored.dtype.kind not in "fiu":
        raise InputError(f"{path} holds {stored.dtype} values", hint="wanted real numbers")
    together = chunks[0] if chunks else 1
    notes = []
    if together > MANY_SLICES:
        notes.append(
            f"{together} slices lie in one chunk, all of which is read for each of them; chunks of one slice, "
            f"(1, {shape[1]}, {shape[2]}), are quicker"
        )
    array = da.from_array(stored, chunks=(min(together, MANY_SLICES), *shape[1:]), lock=False, inline_array=True)
    return Sinograms(array, stored.angles(), tuple(notes))


class Stored:
    """An array in a file, opened anew for each piece that is read: a few bytes to send, whatever it holds."""

    def __init__(self, path: Path, name: str | None, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.path, self.name, self.shape, self.dtype = path, name, shape, dtype
        self.ndim = len(shape)

    @classmethod
    def find(cls, path: Path) -> Stored:
        """Which array in the file it is."""
        with _reading(path):
            name = None if _is_array(path) else NAME
            found = cls(path, name, (), np.dtype(float))
            with found.opened() as values:
                return cls(path, name, tuple(values.shape), np.dtype(values.dtype))

    def __dask_tokenize__(self) -> tuple[str, str | None, int]:
        return str(self.path), self.name, self.path.stat().st_mtime_ns

    def __getitem__(self, index: Any) -> Array:
        with _reading(self.path), self.opened() as values:
            return np.asarray(values[index])

    @contextmanager
    def opened(self, name: str | None = None) -> Iterator[Any]:
        """The array, or another of its file, as h5py, Zarr or numpy has it."""
        wanted = name or self.name
        if self.path.suffix.lower() in HDF5:
            import h5py

            with h5py.File(self.path, "r") as file:
                yield _member(file, wanted, self.path)
        elif self.path.suffix.lower() == ".npy":
            yield np.load(self.path, mmap_mode="r", allow_pickle=False)
        else:
            import zarr

            opened = zarr.open(self.path, mode="r")
            yield opened if wanted is None else _member(opened, wanted, self.path)

    def angles(self) -> tuple[float, ...] | None:
        """In degrees; None where the file has none."""
        if self.name is None:
            return None
        with _reading(self.path):
            try:
                with self.opened(ANGLES) as values:
                    found = np.asarray(values[...], dtype=np.float64).ravel()
                    unit = values.attrs.get("units", "degrees")
            except KeyError:
                return None
        unit = unit.decode() if isinstance(unit, bytes) else str(unit)
        return tuple((np.rad2deg(found) if unit.lower().startswith("rad") else found).tolist())


def _is_array(path: Path) -> bool:
    """Whether the path is an array itself, not a group of them."""
    if path.suffix.lower() in HDF5:
        return False
    if path.suffix.lower() == ".npy":
        return True
    import zarr

    return isinstance(zarr.open(path, mode="r"), zarr.Array)


def _member(group: Any, name: str | None, path: Path) -> Any:
    """An array of a group; a KeyError where it has no such, an InputError where that is the sinogram."""
    if name in group and hasattr(group[name], "dtype"):
        return group[name]
    if name != NAME:
        raise KeyError(name)
    there = ", ".join(sorted(group)[:10]) or "nothing"
    raise InputError(f"{path} has no array {NAME!r}, but {there}", hint=f"call the sinograms {NAME!r}")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """What libraries say of a file that is missing or damaged, in one line."""
    try:
        yield
    except (InvsolveError, KeyError):
        raise
    except FileNotFoundError:
        raise InputError(
            f"no such file: {path}", hint="check the path; every worker must find the volume under it"
        ) from None
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"cannot read {path}: {first_line(error)}", hint="wanted Zarr, HDF5 or .npy") from None
