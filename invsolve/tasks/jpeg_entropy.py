"""JPEG's entropy decoding: from the bits of a scan to cosine coefficients (ITU-T T.81, annexes F.2 and G.2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

Codes = list[int]
"""Of every 16 bits, length of the Huffman code they start with times 256, plus what it stands for; 0 where there is none."""


class ScanError(ValueError):
    """Bits that are no JPEG scan."""


@dataclass
class Plane:
    """A component's coefficients, 64 for each block, block by block in rows, in the order of the file.

    Parameters
    ----------
    sampling : blocks across and down in one unit of an interleaved scan.
    size : blocks across and down, of whole units.
    own : the same of the component alone, which scans of one component hold.
    """

    sampling: tuple[int, int]
    size: tuple[int, int]
    own: tuple[int, int]
    values: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.values = [0] * (64 * self.size[0] * self.size[1])


class Scan(NamedTuple):
    """A scan's header: its planes with their codes of DC and AC coefficients, the coefficients and the bits it tells."""

    members: Sequence[tuple[Plane, Codes | None, Codes | None]]
    restart: int  # units between restart markers, 0 for none
    first: int
    last: int
    high: int  # bit told before, 0 for none
    low: int  # bit told now
    progressive: bool


def code_table(counts: bytes, symbols: bytes) -> Codes:
    """Huffman codes from the numbers of codes of each length, 1 to 16, and what they stand for (annex C)."""
    table = [0] * 65536
    code, taken = 0, 0
    for length, count in enumerate(counts, start=1):
        for symbol in symbols[taken : taken + count]:
            share = 1 << (16 - length)
            if code + share > 65536:
                raise ScanError("more Huffman codes than fit")
            table[code : code + share] = [(length << 8) + symbol] * share
            code += share
        taken += count
    if len(symbols) != taken:
        raise ScanError("a Huffman table that is cut off")
    return table


class Bits:
    """Bits of a scan, one after the other."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at, self.end = data + bytes(8), 0, 8 * len(data)

    def symbol(self, codes: Codes) -> int:
        """What the next Huffman code stands for."""
        at = self.at
        word = int.from_bytes(self.data[at >> 3 : (at >> 3) + 3], "big")
        found = codes[(word >> (8 - (at & 7))) & 0xFFFF]
        self.at = at + (found >> 8)
        if not found or self.at > self.end:
            raise ScanError("bits that are no code, or too few of them")
        return found & 255

    def number(self, count: int) -> int:
        """The next ``count`` bits, at most 16, as a number."""
        at = self.at
        self.at = at + count
        if self.at > self.end:
            raise ScanError("too few bits")
        word = int.from_bytes(self.data[at >> 3 : (at >> 3) + 3], "big")
        return (word >> (24 - (at & 7) - count)) & ((1 << count) - 1)

    def signed(self, count: int) -> int:
        """A number of ``count`` bits of which a leading 0 means negative (figure F.12)."""
        value = self.number(count)
        return value if not count or value >> (count - 1) else value - (1 << count) + 1


def decode_scan(parts: Sequence[bytes], scan: Scan) -> None:
    """Add what a scan tells to its planes.

    Parameters
    ----------
    parts : the bits between restart markers, without stuffing.
    scan : its header.

    Raises
    ------
    ScanError : too few bits, or bits that are no code.
    """
    decode = _progressive if scan.progressive else _sequential
    units = _units(scan.members)
    told = iter(parts)
    bits, state = Bits(next(told)), _State(len(scan.members))
    for number, unit in enumerate(units):
        if scan.restart and number and number % scan.restart == 0:
            bits, state = Bits(next(told, b"")), _State(len(scan.members))
        for member, block in unit:
            decode(bits, scan, member, 64 * block, state)


class _State:
    """What goes on from block to block: the last DC coefficient of each member, and how many blocks have nothing more."""

    def __init__(self, members: int) -> None:
        self.last, self.empty = [0] * members, 0


def _units(members: Sequence[tuple[Plane, Codes | None, Codes | None]]) -> Iterator[list[tuple[int, int]]]:
    """Units in a scan's order: (number of the member, block) of their blocks."""
    plane = members[0][0]
    if len(members) == 1:
        for row in range(plane.own[1]):
            for column in range(plane.own[0]):
                yield [(0, row * plane.size[0] + column)]
        return
    across, down = (plane.size[axis] // plane.sampling[axis] for axis in (0, 1))
    for row in range(down):
        for column in range(across):
            yield [
                (number, (row * v + y) * one.size[0] + column * h + x)
                for number, (one, _, _) in enumerate(members)
                for h, v in [one.sampling]
                for y in range(v)
                for x in range(h)
            ]


def _codes(codes: Codes | None) -> Codes:
    if codes is None:
        raise ScanError("a Huffman table that is not there")
    return codes


def _sequential(bits: Bits, scan: Scan, member: int, start: int, state: _State) -> None:
    """A whole block (F.2.2)."""
    plane, dc, ac = scan.members[member]
    values, codes = plane.values, _codes(ac)
    state.last[member] += bits.signed(bits.symbol(_codes(dc)))
    values[start] = state.last[member]
    k = 1
    while k < 64:
        symbol = bits.symbol(codes)
        run, size = symbol >> 4, symbol & 15
        if not size:
            if run != 15:
                return
            k += 16
            continue
        k += run
        if k > 63:
            raise ScanError("a block of more than 64 coefficients")
        values[start + k] = bits.signed(size)
        k += 1


def _progressive(bits: Bits, scan: Scan, member: int, start: int, state: _State) -> None:
    """A block's share of a progressive scan (G.1.2, G.2)."""
    plane, dc, ac = scan.members[member]
    if scan.first == 0:
        if scan.high:
            plane.values[start] |= bits.number(1) << scan.low
        else:
            state.last[member] += bits.signed(bits.symbol(_codes(dc)))
            plane.values[start] = state.last[member] << scan.low
    elif scan.high:
        _refine(bits, scan, plane.values, start, _codes(ac), state)
    else:
        _first_bits(bits, scan, plane.values, start, _codes(ac), state)


def _first_bits(bits: Bits, scan: Scan, values: list[int], start: int, codes: Codes, state: _State) -> None:
    """AC coefficients told for the first time (G.1.2.2)."""
    if state.empty:
        state.empty -= 1
        return
    k = scan.first
    while k <= scan.last:
        symbol = bits.symbol(codes)
        run, size = symbol >> 4, symbol & 15
        if not size:
            if run != 15:
                state.empty = (1 << run) + bits.number(run) - 1
                return
            k += 16
            continue
        k += run
        if k > scan.last:
            raise ScanError("more coefficients than the scan has")
        values[start + k] = bits.signed(size) << scan.low if size else 0
        k += 1


def _refine(bits: Bits, scan: Scan, values: list[int], start: int, codes: Codes, state: _State) -> None:
    """One more bit of AC coefficients, and those that it makes other than 0 (G.1.2.3)."""
    bit = 1 << scan.low

    def correct(at: int) -> None:
        if bits.number(1) and not abs(values[at]) & bit:
            values[at] += bit if values[at] > 0 else -bit

    k = start + scan.first
    end = start + scan.last + 1
    while k < end and not state.empty:
        symbol = bits.symbol(codes)
        run, size = symbol >> 4, symbol & 15
        fresh = 0
        if size:
            fresh = bit if bits.number(1) else -bit
        elif run != 15:
            state.empty = (1 << run) + bits.number(run)
            break
        while k < end:  # pass over ``run`` zeros, correcting what is not 0 on the way
            if values[k]:
                correct(k)
            elif run == 0:
                break
            else:
                run -= 1
            k += 1
        if fresh:
            if k >= end:
                raise ScanError("more coefficients than the scan has")
            values[k] = fresh
        k += 1
    if state.empty:
        while k < end:
            if values[k]:
                correct(k)
            k += 1
        state.empty -= 1
