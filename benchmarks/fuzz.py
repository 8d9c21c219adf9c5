"""Damaged files of every kind that a command reads: each must be read, or refused in one line with a way out.

    python benchmarks/fuzz.py --files 1000
    python benchmarks/fuzz.py --files 1000 --kinds PNG DICOM --keep runs/fuzz

Small valid files are changed: bytes flipped, cut, doubled, left out, headers that lie; in texts whole words. Each is given to
what reads such files, in a process that reads many, with a limit on its memory. A line says of each kind how many were read,
refused with one line and a hint, and what must not be: any other exception, a message without a hint or of several lines, words
that a library wrote past us, more memory than allowed, a process that crashed or hung. What was found is kept with --keep.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fuzz_files import Kind, clear, kinds, put

from invsolve.atomic import make_folder, write_files

FINE = ("read", "refused")
WORDS = (
    b"-1",
    b"0",
    b"1e309",
    b"nan",
    b"inf",
    b"9" * 400,
    b"true",
    b'""',
    b'"../../x"',
    b"[]",
    b"{}",
    b"null",
    b'"\\u0000"',
)
"""What takes the place of a word in a text."""

NUMBERS = (b"\x00", b"\xff", b"\x7f", b"\x80", b"\x01", b"\x00\x00", b"\xff\xff", b"\x7f\xff", b"\xff\x7f")
NUMBERS += (
    b"\xff" * 4,
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\x00" * 4,
    b"\x80\x00\x00\x00",
    b"\xff" * 8,
    b"\x00" * 8,
)
"""What takes the place of a number in a header."""


def changed(content: bytes, rng: random.Random, text: bool) -> bytes:
    """One to four changes."""
    out = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        out = bytearray(_word(bytes(out), rng) if text and rng.random() < 0.6 else _bytes(out, rng))
    if content.startswith(b"\x89PNG") and rng.random() < 0.7:
        return with_checksums(bytes(out))
    return bytes(out)


def _bytes(out: bytearray, rng: random.Random) -> bytes:
    if not out:
        return bytes(out)
    place, length = rng.randrange(len(out)), rng.choice((1, 2, 4, 16, 64))
    head = rng.randrange(min(len(out), 256))
    way = rng.choice(("flip", "flip", "lie", "lie", "lie", "cut", "double", "drop", "zero", "tail"))
    if way == "flip":
        out[place] ^= 1 << rng.randrange(8)
    elif way == "lie":
        value, at = rng.choice(NUMBERS), rng.choice((head, place))
        out[at : at + len(value)] = value
    elif way == "cut":
        del out[place:]
    elif way == "double":
        out[place:place] = out[place : place + length]
    elif way == "drop":
        del out[place : place + length]
    elif way == "zero":
        out[place : place + length] = bytes(len(out[place : place + length]))
    else:
        out += rng.randbytes(length)
    return bytes(out)


def _word(content: bytes, rng: random.Random) -> bytes:
    """A word of a text replaced by another, or one line left out or doubled."""
    lines = content.split(b"\n")
    number = rng.randrange(len(lines))
    if rng.random() < 0.3:
        lines[number : number + 1] = rng.choice(([], [lines[number]] * 2, [b"[" * 5000], [lines[number][::-1]]))
    else:
        words = lines[number].split(b" ")
        words[rng.randrange(len(words))] = rng.choice(WORDS)
        lines[number] = b" ".join(words)
    return b"\n".join(lines)


def with_checksums(png: bytes) -> bytes:
    """The chunks of a PNG with the checksums that they should have: decoders look no further where they do not fit."""
    out, at = bytearray(png[:8]), 8
    while at + 12 <= len(png):
        length = int.from_bytes(png[at : at + 4], "big")
        body = png[at + 4 : at + 8 + length]
        out += png[at : at + 8 + length] + zlib.crc32(body).to_bytes(4, "big")
        at += 12 + length
    return bytes(out)


def make(kind: Kind, name: str, number: int, seed: int) -> tuple[str, bytes]:
    """The ``number``-th changed file of a kind: which of its files it was, and its content."""
    rng = random.Random(f"{seed} {name} {number}")
    which = sorted(kind.files)[number % len(kind.files)]
    return which, changed(kind.files[which], rng, kind.text)


def judge(kind: Kind, path: Path, limit: float, log: Path) -> tuple[str, str]:
    """How a file was answered, and with what."""
    from invsolve.errors import InvsolveError

    log.write_bytes(b"")
    before = reset_peak()
    try:
        kind.read(path)
        said = ("read", "")
    except InvsolveError as error:
        shown = f"{error.message} | {error.hint}"
        fine = error.hint and "\n" not in shown and len(error.message) < 600
        said = ("refused" if fine else "no line with a hint", shown)
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        said = ("exception", f"{type(error).__name__}: {error}")
    if (taken := reset_peak() - before) > limit:
        return "memory", f"{taken / 1e6:.0f} MB; {said}"
    if said[0] in FINE and log.stat().st_size:
        return "words of a library", log.read_text(errors="replace")[:300]
    return said


def reset_peak() -> float:
    """The largest memory in bytes since the last call (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return float(status.split("VmHWM:")[1].split()[0]) * 1024


def work(kind: Kind, name: str, numbers: Sequence[int], seed: int, folder: Path, limit: float, out: int) -> None:
    """In a process of its own: read one changed file after the other, and write how each was answered."""
    log = folder / "log"
    os.dup2(os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND), 2)
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + int(8 * limit),) * 2)
    reset_peak()
    for number in numbers:
        os.write(out, json.dumps([number]).encode() + b"\n")
        clear(folder / "file")
        path = put(kind, *make(kind, name, number, seed), folder / "file")
        os.write(out, json.dumps([number, *judge(kind, path, limit, log)]).encode() + b"\n")


def answers(kind: Kind, name: str, chosen: argparse.Namespace, folder: Path) -> dict[int, tuple[str, str]]:
    """How every changed file of a kind was answered; a process that ends or hangs is followed by another."""
    found: dict[int, tuple[str, str]] = {}
    while left := [number for number in range(chosen.files) if number not in found]:
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            try:
                work(kind, name, left, chosen.seed, folder, chosen.megabytes * 1e6, writing)
            finally:
                os._exit(0)
        os.close(writing)
        os.set_blocking(reading, False)
        text, since, status = b"", time.monotonic(), None
        while status is None:
            done, code = os.waitpid(child, os.WNOHANG)
            status = code if done else None
            try:
                new = os.read(reading, 1 << 16)
            except BlockingIOError:
                new = b""
            text, since = text + new, time.monotonic() if new else since
            if time.monotonic() - since > chosen.seconds:
                os.kill(child, signal.SIGKILL)
                since = time.monotonic()
            if not new:
                time.sleep(0.002)
        while new := os.read(reading, 1 << 16):
            text += new
        os.close(reading)
        lines = [json.loads(line) for line in text.split(b"\n")[:-1]]
        found |= {line[0]: (line[1], line[2]) for line in lines if len(line) == 3}
        if lines and lines[-1][0] not in found:
            hung = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
            found[lines[-1][0]] = ("hang" if hung else "crash", f"status {status}")
        elif not lines:
            raise SystemExit(f"the process that reads {name} files does not start")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1000, help="changed files of each kind")
    parser.add_argument("--kinds", nargs="+", metavar="KIND", help="only these")
    parser.add_argument("--seconds", type=float, default=10, help="for a file, after which it hangs")
    parser.add_argument("--megabytes", type=float, default=500, help="that a file of some kilobytes may take")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="for the files that were answered badly")
    chosen = parser.parse_args(arguments)

    import torch

    from invsolve.cli.console import Verbosity, hide_warnings

    torch.set_num_threads(1)  # a process that has threads cannot be forked
    Verbosity.level = -1
    hide_warnings()
    total = Counter[str]()
    with tempfile.TemporaryDirectory() as scratch:
        make_folder(Path(scratch) / "seeds")
        every = kinds(Path(scratch) / "seeds")
        for name in chosen.kinds or every:
            started = time.monotonic()
            found = answers(every[name], name, chosen, Path(scratch))
            counts = Counter(answer for answer, _ in found.values())
            total += counts
            shown = (*FINE, *sorted(set(counts) - set(FINE)))
            said = ", ".join(f"{counts[answer]} {answer}" for answer in shown)
            print(f"{name}: {said} ({time.monotonic() - started:.1f} s)", flush=True)
            for number, (answer, what) in sorted(found.items()):
                if answer in FINE:
                    continue
                print(f"  {answer}, file {number}: {what}"[:400], flush=True)
                if chosen.keep:
                    make_folder(chosen.keep)
                    which, content = make(every[name], name, number, chosen.seed)
                    write_files({chosen.keep / f"{name}-{number}-{which.replace('/', '_')}": content})
    bad = sum(count for answer, count in total.items() if answer not in FINE)
    print(
        f"all: {sum(total.values())} files, {total['read']} read, {total['refused']} refused in one line, {bad} answered badly"
    )
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
