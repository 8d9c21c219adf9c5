"""What a JPEG file holds before it becomes a picture: quantized cosine coefficients, and the steps they were rounded to.

ITU-T T.81. Sequential and progressive files with Huffman coding, 8 bits, of one or three components: what cameras and programs
write. Decoders give pixels, rounded, cut off and with colours spread over their neighbours; the coefficients are what was stored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from invsolve.errors import InputError
from invsolve.tasks.jpeg_entropy import Codes, Plane, Scan, ScanError, code_table, decode_scan

ZIGZAG = tuple(sorted(range(64), key=lambda n: (n // 8 + n % 8, (n // 8 if (n // 8 + n % 8) % 2 else n % 8))))
"""Place in the block, row by row, of every coefficient in the order of the file (figure A.6)."""

OTHER_FRAMES = {
    **dict.fromkeys((0xC3, 0xC7, 0xCB, 0xCF), "lossless"),
    **dict.fromkeys((0xC5, 0xC6, 0xCD, 0xCE), "hierarchical"),
    **dict.fromkeys((0xC9, 0xCA), "arithmetic-coded"),
}
LONELY = frozenset({0x01, 0xD8, *range(0xD0, 0xD8)})
"""Markers without a segment."""

AS_PIXELS = "save it as a PNG and say how it was compressed: --quality 75"


@dataclass(frozen=True)
class Component:
    """Y, Cb or Cr (or R, G, B).

    Parameters
    ----------
    sampling : (horizontal, vertical) blocks in a unit of the file; of all components those with most are at full resolution.
    steps : (8, 8) of the coefficients, vertical frequency first, for pixels from 0 to 255.
    coefficients : (rows, columns, 8, 8) whole numbers of steps, of whole units.
    """

    sampling: tuple[int, int]
    steps: npt.NDArray[np.int64]
    coefficients: npt.NDArray[np.int64]


@dataclass(frozen=True)
class JpegFile:
    """A file's content.

    Parameters
    ----------
    width, height : of the picture, as stored, before any rotation.
    components : one (grey) or three.
    rgb : whether the components are red, green and blue instead of luma and chroma.
    """

    width: int
    height: int
    components: tuple[Component, ...]
    rgb: bool = False

    @property
    def sampling(self) -> str:
        """``4:4:4``, ``4:2:2``, ``4:2:0``, another pair of factors, or ``grey``."""
        if len(self.components) == 1:
            return "grey"
        largest = [max(c.sampling[axis] for c in self.components) for axis in (0, 1)]
        factors = {(largest[0] // c.sampling[0], largest[1] // c.sampling[1]) for c in self.components[1:]}
        names = {(1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0", (1, 2): "4:4:0", (4, 1): "4:1:1"}
        return " and ".join(names.get(pair, f"{pair[0]} x {pair[1]}") for pair in sorted(factors))


@dataclass
class _Reading:
    """What the segments so far have said."""

    tables: dict[int, npt.NDArray[np.int64]] = field(default_factory=dict)
    codes: dict[tuple[int, int], Codes] = field(default_factory=dict)
    restart: int = 0
    adobe: int | None = None
    size: tuple[int, int] | None = None  # width, height
    progressive: bool = False
    planes: dict[int, Plane] = field(default_factory=dict)
    steps: dict[int, npt.NDArray[np.int64]] = field(default_factory=dict)
    table_of: dict[int, int] = field(default_factory=dict)


def read_jpeg(data: bytes, name: str = "the file") -> JpegFile:
    """The coefficients of a JPEG file.

    Raises
    ------
    InputError : no JPEG, of a kind that this does not know, or damaged.
    """
    if data[:2] != b"\xff\xd8":
        raise InputError(
            f"{name} is not a JPEG file",
            hint="give the JPEG itself; of a picture that was saved in another format after it, say the quality: --quality 75",
        )
    reading = _Reading()
    try:
        for marker, start, end in _segments(data):
            _take(reading, data, marker, start, end, name)
    except InputError:  # sound, but of another kind
        raise
    except (ScanError, IndexError, KeyError, ValueError) as error:
        raise InputError(f"{name} is damaged: {error}", hint="copy it again from the original") from None
    if reading.size is None or set(reading.steps) != set(reading.planes):
        raise InputError(f"{name} is damaged: no whole picture in it", hint="copy it again from the original")
    components = tuple(
        Component(plane.sampling, reading.steps[number], _blocks(plane)) for number, plane in reading.planes.items()
    )
    letters = [*reading.planes] == [ord(c) for c in "RGB"]
    rgb = len(components) == 3 and (reading.adobe == 0 or (reading.adobe is None and letters))
    return JpegFile(*reading.size, components, rgb)


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, and where its segment's content lies, up to the end of the picture."""
    at = 2
    while True:
        at = data.index(b"\xff", at)
        while data[at] == 0xFF:
            at += 1
        marker = data[at]
        at += 1
        if marker == 0xD9:
            return
        if marker == 0 or marker in LONELY:
            continue
        end = at + int.from_bytes(data[at : at + 2], "big")
        if end < at + 2 or end > len(data):
            raise ScanError("a segment reaches beyond its end")
        yield marker, at + 2, end
        at = end


def _take(reading: _Reading, data: bytes, marker: int, start: int, end: int, name: str) -> None:
    """What one segment says."""
    body = data[start:end]
    if marker == 0xDB:
        _take_tables(reading, body)
    elif marker == 0xC4:
        _take_codes(reading, body)
    elif marker == 0xDD:
        reading.restart = int.from_bytes(body[:2], "big")
    elif marker == 0xEE and body[:5] == b"Adobe":
        reading.adobe = body[11]
    elif marker in OTHER_FRAMES:
        _refuse(f"{name} is a {OTHER_FRAMES[marker]} JPEG", "save it as a baseline JPEG without loss, with jpegtran")
    elif marker in (0xC0, 0xC1, 0xC2):
        _take_frame(reading, body, marker == 0xC2, name)
    elif marker == 0xDA:
        _take_scan(reading, body, data, end)


def _refuse(what: str, hint: str) -> NoReturn:
    raise InputError(what, hint=hint)


def _take_tables(reading: _Reading, body: bytes) -> None:
    at = 0
    while at < len(body):
        size, number = 1 + (body[at] >> 4), body[at] & 15
        values = np.frombuffer(body[at + 1 : at + 1 + 64 * size], dtype=">u1" if size == 1 else ">u2")
        if len(values) != 64 or not values.all():
            raise ScanError("a quantization table without 64 steps")
        table = np.zeros(64, np.int64)
        table[list(ZIGZAG)] = values
        reading.tables[number] = table.reshape(8, 8)
        at += 1 + 64 * size


def _take_codes(reading: _Reading, body: bytes) -> None:
    at = 0
    while at < len(body):
        counts = body[at + 1 : at + 17]
        values = body[at + 17 : at + 17 + sum(counts)]
        reading.codes[body[at] >> 4, body[at] & 15] = code_table(counts, values)
        at += 17 + sum(counts)


def _take_frame(reading: _Reading, body: bytes, progressive: bool, name: str) -> None:
    depth, height, width, count = body[0], int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big"), body[5]
    if depth != 8:
        _refuse(f"{name} has {depth} bits per channel", "convert it to 8 bits first")
    if count not in (1, 3):
        _refuse(f"{name} has {count} components, as CMYK has", f"convert it to RGB: {AS_PIXELS}")
    if not (height and width):
        raise ScanError("a side of 0 pixels")
    parts = [body[6 + 3 * n : 9 + 3 * n] for n in range(count)]
    sampling = {part[0]: (part[1] >> 4, part[1] & 15) for part in parts}
    if count == 1:  # a single component's blocks come one by one, whatever its factors
        sampling = dict.fromkeys(sampling, (1, 1))
    widest, tallest = (max(pair[axis] for pair in sampling.values()) for axis in (0, 1))
    if len(sampling) != count or any(not h or not v or widest % h or tallest % v for h, v in sampling.values()):
        _refuse(f"{name} has components of sizes {[*sampling.values()]}", f"unusual sampling; {AS_PIXELS}")
    reading.size, reading.progressive = (width, height), progressive
    reading.table_of = {part[0]: part[2] for part in parts}
    units = (ceil(width / (8 * widest)), ceil(height / (8 * tallest)))
    for number, (h, v) in sampling.items():
        own = (ceil(ceil(width * h / widest) / 8), ceil(ceil(height * v / tallest) / 8))
        reading.planes[number] = Plane((h, v), (units[0] * h, units[1] * v), own)


SCAN_END = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")
RESTART = re.compile(rb"\xff+[\xd0-\xd7]")


def _take_scan(reading: _Reading, body: bytes, data: bytes, start: int) -> None:
    """Decode what follows a scan's header."""
    count = body[0]
    members = [(body[1 + 2 * n], body[2 + 2 * n] >> 4, body[2 + 2 * n] & 15) for n in range(count)]
    first, last, bits = body[1 + 2 * count : 4 + 2 * count]
    for number, _, _ in members:  # tables hold from a component's first scan on
        reading.steps.setdefault(number, reading.tables[reading.table_of[number]])
    found = SCAN_END.search(data, start)
    raw = data[start : found.start() if found else len(data)]
    parts = [part.replace(b"\xff\x00", b"\xff") for part in RESTART.split(raw)]
    decode_scan(
        parts,
        Scan(
            [
                (reading.planes[number], reading.codes.get((0, dc)), reading.codes.get((1, ac)))
                for number, dc, ac in members
            ],
            reading.restart,
            first,
            last,
            bits >> 4,
            bits & 15,
            reading.progressive,
        ),
    )


def _blocks(plane: Plane) -> npt.NDArray[np.int64]:
    """(rows, columns, 8, 8) from the file's order."""
    found = np.zeros((plane.size[1] * plane.size[0], 64), np.int64)
    found[:, list(ZIGZAG)] = np.asarray(plane.values, np.int64).reshape(-1, 64)
    return found.reshape(plane.size[1], plane.size[0], 8, 8)
