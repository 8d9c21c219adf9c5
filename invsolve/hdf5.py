"""HDF5 files that somebody gives: opened to read, whose own data only, and no more of it than fits."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from invsolve.errors import InputError, UsageError, first_line, of_the_machine

SIGNATURE = b"\x89HDF\r\n\x1a\n"

LARGEST_CHUNK = 2**30
"""Bytes of one chunk of a data set, which is unpacked whole."""


@contextmanager
def opened(file: Path, install: str) -> Iterator[Any]:
    """An HDF5 file, opened to read; what its many ways of being damaged raise becomes one error.

    Raises
    ------
    InputError : damaged.
    UsageError : h5py is missing; ``install`` says how to get it.
    """
    try:
        import h5py
    except ImportError:
        raise UsageError(f"{file} is HDF5, which needs h5py", hint=f"install it with {install}") from None
    try:
        with h5py.File(file, "r") as h5:
            yield h5
    except (InputError, UsageError):
        raise
    except Exception as error:
        if of_the_machine(error):
            raise
        raise InputError(f"{file} is damaged: {first_line(error)}", hint="copy it again from the original") from None


def own_data(group: Any, name: str, file: Path) -> Any:
    """A data set that lies in this very file, in chunks of a size that can be unpacked.

    Links to other files and virtual data would read what nobody named.

    Raises
    ------
    InputError : it is none, or not there.
    """
    import h5py

    linked = isinstance(group.get(name, getlink=True), h5py.ExternalLink)
    data: Any = None if linked else group.get(name)
    own = isinstance(data, h5py.Dataset) and data.file.filename == group.file.filename
    if not own or data.is_virtual or data.external:
        raise InputError(f"{file}: {name} is no data set of its own", hint="copy its data into this file")
    if data.chunks and math.prod(data.chunks) * data.dtype.itemsize > LARGEST_CHUNK:
        raise InputError(
            f"{file}: {name} has chunks of shape {data.chunks}", hint=f"wanted chunks below {LARGEST_CHUNK >> 20} MiB"
        )
    _check_unpacked(data, name, file)
    return data


def _check_unpacked(data: Any, name: str, file: Path) -> None:
    """Refuse a data set whose chunks unpack to more than they say: gzip makes a thousand bytes of one, and the library
    unpacks what comes. Only chunks that could fill ``LARGEST_CHUNK`` are looked at.
    """
    if data.compression != "gzip":
        return
    size = math.prod(data.chunks) * data.dtype.itemsize
    for number in range(data.id.get_num_chunks()):
        chunk = data.id.get_chunk_info(number)
        if chunk.size * 1032 <= LARGEST_CHUNK:  # the most that deflate can make of it
            continue
        packed = data.id.read_direct_chunk(chunk.chunk_offset)[1]
        if len(zlib.decompressobj().decompress(packed, size + 64)) > size + 32:
            raise InputError(f"{file}: {name} unpacks to more than it says", hint="copy it again from the original")
