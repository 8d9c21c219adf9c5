"""More of what ``hostile.py`` gives to whole commands: options of every command, texts of other editors, machines in trouble."""

from __future__ import annotations

import inspect
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
from fuzz_files import pixels, saved, sinogram
from PIL import Image

Prepare = Callable[[Path], object]
Around = Callable[[], AbstractContextManager[object]]
QUICK = ("--steps", "2", "--samples", "1", "--device", "cpu")


class Case(NamedTuple):
    """A command in a folder of its own; ``may`` are files that it may change, and beginnings of names that
    it may leave where it fails, ``around`` is how the machine is meanwhile, and
    ``silent`` says that nobody is there to read an error."""

    name: str
    prepare: Prepare
    command: Sequence[str]
    may: tuple[str, ...] = ()
    around: Around = nullcontext
    silent: bool = False


def crowd(folder: Path) -> None:
    """Files of every kind that the commands below name, and what is no file."""
    colour, marked = pixels(), np.zeros(pixels().shape[:2], np.uint8)
    marked[2:5, 3:6] = 255
    for name, array in (("p.png", colour), ("g.png", colour[..., 0]), ("m.png", marked), ("ones.png", marked // 255)):
        Image.fromarray(array).save(folder / name)
    np.save(folder / "s.npy", 10 * sinogram())
    np.save(folder / "n.npy", np.full((40, 40), 0.5, np.float32))
    for name in ("dir", "two"):
        (folder / name).mkdir()
    (folder / "two" / "a.png").write_bytes(saved("PNG"))
    (folder / "empty").write_bytes(b"")
    (folder / "loop").symlink_to("loop")
    (folder / "dangling").symlink_to("nowhere/x")
    os.mkfifo(folder / "fifo")


# -- every option of every command --------------------------------------------------------------------------------------
COMMANDS = (
    "inpaint p.png --mask m.png @", "colorize g.png @", "superres p.png @", "deblur p.png --sigma 1 @", "denoise p.png --sigma 0.1 @",
    "dejpeg p.png -Q 30 @", "ct s.npy --method fbp", "mri s.npy @", "solve empty", "merge dir", "likelihood p.png ~ --probes 1",
    "interpolate p.png p.png ~ -n 3 --tolerance 0.5", "sample ~ -n 1 --steps 2 --size 16x16", "stroke p.png ~ -n 1 --steps 2",
    "generate ~ -n 1 --steps 2", "describe x ~ --text-model dir", "train nope -o run", "verify -p nope", "check nope:nope",
    "evaluate p.png --truth p.png", "simulate inpaint p.png", "simulate ct n.npy --views 7", "simulate colorize p.png",
    "simulate superres p.png", "simulate deblur p.png --sigma 1", "simulate denoise p.png --sigma 0.1", "simulate dejpeg p.png",
    "simulate stroke p.png", "simulate mri n.npy", "models info nope", "models import nope", "models verify nope",
    "models remove nope", "man",
)  # fmt: skip
"""What every option is added to: ``@`` and ``~`` are a small prior, ``@`` with few steps."""

TEXTS = (
    "", "x", "nan", "-1", "1e308", "9" * 30, "1,2", "\n", "a" * 5000, os.fsdecode(b"\xff\xfe.png"), "dir", "fifo", "loop", "dangling",
    "empty", "/dev/zero", "/dev/full", "m.png", "s.npy", "-", "--", "[]", " 5", "１２",
)  # fmt: skip
NUMBERS = ("x", "", "nan", "-inf", "1e308", "-1", "0", "9" * 30, "1e-320", "9" * 12, "0.5")
ONCE = frozenset(["model", "device", "seed", "steps", "schedule", "rule", "sampler", "fit", "samples", "truth", "output", "quality", "format", "calibration", "diagnostics", "report", "memory", "budget", "shard", "batch", "size", "noise", "count"])  # fmt: skip
"""Options that many commands share, and that are tried at three of them."""

SHARING = ("denoise", "ct", "sample")
LEFT_OUT = frozenset({"help", "quiet", "verbose", "version", "config", "show_config"})


def options(priors: dict[str, str]) -> Iterator[Case]:
    import typer.main

    from invsolve.cli.app import app

    program: Any = typer.main.get_command(app)
    for line in COMMANDS:
        words = shlex.split(line.replace("@", f"~ {shlex.join(QUICK)}").replace("~", f"--model {priors['picture']}"))
        one, named = program, []
        while hasattr(one, "commands"):
            named.append(words[len(named)])
            one = one.commands[named[-1]]
        for parameter in one.params:
            if parameter.name in LEFT_OUT or getattr(parameter, "is_flag", False):
                continue
            if parameter.name in ONCE and named[0] not in SHARING:
                continue
            if parameter.param_type_name == "argument":
                rest = words[len(named) + 1 :]
                yield from (Case(f"{' '.join(named)} {text[:20]!r}", crowd, (*named, text, *rest)) for text in TEXTS)
                continue
            for text in NUMBERS if takes_number(one, parameter.name) else TEXTS:
                given = (*words, parameter.opts[-1], text)
                yield Case(f"{' '.join(named)} {parameter.opts[-1]} {text[:20]!r}", crowd, given)


def takes_number(command: Any, name: str) -> bool:
    """Whether an option is declared as a number."""
    annotation = inspect.signature(command.callback, eval_str=True).parameters[name].annotation
    wanted = get_args(annotation)[0] if get_args(annotation) else annotation
    return bool({int, float} & {wanted, *get_args(wanted)})


# -- texts --------------------------------------------------------------------------------------------------------------
BOM = b"\xef\xbb\xbf"


def changed_texts(content: str) -> dict[str, bytes]:
    """One text as other editors and programs write it, and as none does."""
    plain = content.encode()
    return {
        "as it is": plain, "BOM": BOM + plain, "CRLF": plain.replace(b"\n", b"\r\n"), "CR": plain.replace(b"\n", b"\r"),
        "UTF-16": content.encode("utf-16"), "Latin-1": plain + "# é".encode("latin-1"), "null": plain + b"\x00", "twice": plain * 2,
        "no end": plain.rstrip(b"\n"), "blank": b" \n\t\n", "only BOM": BOM, "upper": content.upper().encode(), "comma": plain.replace(b".", b","),
    }  # fmt: skip


GEOMETRY = "angles = { first = 0, last = 180.0, count = 20 }\ndetectors = 40\nshape = [40, 40]\n"
VALUES = (
    "-1",
    "0",
    "1.5",
    "nan",
    "inf",
    "1e308",
    '""',
    '"a\\u0000b"',
    '"x"',
    "[]",
    "[1, 2]",
    "{}",
    "true",
    "2020-01-01",
    "9" * 400,
)


def texts(priors: dict[str, str]) -> Iterator[Case]:
    angles = "\n".join(str(9.0 * view) for view in range(20)) + "\n"
    files = {
        "run.toml": ("window = '40.0,400'\nviews = 20\n", ("--config", "run.toml")), "g.toml": (GEOMETRY, ("--geometry", "g.toml")),
        "angles.txt": (angles, ("--angles", "angles.txt")), "c.json": ('{"version": 1.0}\n', ("--calibration", "c.json", "--method", "score")),
        "p.toml": ('prior = "x"\nseed = 1.0\n', ()),
    }  # fmt: skip
    for name, (content, given) in files.items():
        command = ("ct", "s.npy", "--method", "fbp", *given) if given else ("solve", name)
        for how, changed in changed_texts(content).items():

            def put(folder: Path, name: str = name, changed: bytes = changed) -> None:
                crowd(folder)
                (folder / name).write_bytes(changed)

            yield Case(f"{name}, {how}", put, command)
    model = ("--model", priors["picture"], *QUICK)
    for key in (
        "sigma",
        "samples",
        "output",
        "rule",
        "report",
        "force",
        "quality",
        "memory",
        "budget",
        "shard",
        "model",
    ):
        for value in VALUES:

            def put_value(folder: Path, text: str = f"{key} = {value}\n") -> None:
                crowd(folder)
                (folder / "run.toml").write_text(text, encoding="utf-8")

            rest = model[2:] if key == "model" else model
            given = rest[:2] + rest[4:] if key == "samples" else rest
            yield Case(
                f"{key} = {value[:20]}", put_value, ("denoise", "p.png", *given, "--config", "run.toml"), ("p.png",)
            )


# -- machines -----------------------------------------------------------------------------------------------------------
@contextmanager
def stream(number: int, to: str | None, flags: int = os.O_WRONLY) -> Iterator[None]:
    """Standard output, input or error closed, or somewhere else."""
    kept = os.dup(number)
    os.close(number)
    if to is not None:
        os.open(to, flags)  # the lowest free number: this one
    try:
        yield
    finally:
        if number:
            (sys.stdout if number == 1 else sys.stderr).flush()
        os.dup2(kept, number)
        os.close(kept)


@contextmanager
def few_files(more: int) -> Iterator[None]:
    import resource

    before, used = resource.getrlimit(resource.RLIMIT_NOFILE), len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextmanager
def no_folder() -> Iterator[None]:
    Path("gone").mkdir()
    os.chdir("gone")
    Path("../gone").rmdir()
    yield


@contextmanager
def ended(number: int, seconds: float = 0.6) -> Iterator[None]:
    """A signal after some time."""
    before = signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)
    timer = threading.Timer(seconds, os.kill, (os.getpid(), number))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        signal.signal(number, before)


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    before = os.environ.copy()
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def machines(priors: dict[str, str]) -> Iterator[Case]:
    model = ("--sigma", "0.1", "--model", priors["picture"], *QUICK)
    denoise, odd = ("denoise", "p.png", *model), os.fsdecode(b"\xff\xfe") + "é.png"

    def with_odd(folder: Path) -> None:
        crowd(folder)
        for place in (folder, folder / "dir"):
            (place / odd).write_bytes(saved("PNG"))

    bad: tuple[tuple[str, Around], ...] = (
        ("stdout closed", lambda: stream(1, None)), ("stdout full", lambda: stream(1, "/dev/full")), ("stdin closed", lambda: stream(0, None)),
        ("stdin a folder", lambda: stream(0, ".", os.O_RDONLY)), ("few files", lambda: few_files(0)), ("no folder", no_folder),
        ("no TMPDIR", lambda: environment(TMPDIR="/nowhere")), ("no cache", lambda: environment(INVSOLVE_CACHE="/dev/null", INVSOLVE_HOME="/proc/x")),
        ("device", lambda: environment(INVSOLVE_DEVICE="nope")), ("COLUMNS", lambda: environment(COLUMNS="0", LINES="-1")),
        ("SLURM", lambda: environment(SLURM_ARRAY_TASK_ID="x", SLURM_ARRAY_TASK_COUNT="-1")),
    )  # fmt: skip
    commands = (
        denoise, (*denoise, "-o", "-"), (*denoise, "--dry-run"), ("denoise", "-", *model), ("denoise", "-", "p.png", "-o", "o", *model),
        ("evaluate", "p.png", "--truth", "p.png", "--json"), ("models", "list"), ("man",), ("--version",), ("denoise", "--show-config"),
        ("ct", "s.npy", "--method", "fbp"), ("denoise", "p.png", "two/a.png", "-o", "o", *model),
    )  # fmt: skip
    for what, around in bad:
        for command in commands:
            yield Case(f"{what}: {' '.join(command[:2])}", crowd, command, ("o", "s.ct"), around)
    yield Case("stderr closed", crowd, denoise, (), lambda: stream(2, None), True)
    yield Case("stderr full", crowd, denoise, (), lambda: stream(2, "/dev/full"), True)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        for command in (
            ("denoise", "p.png", *model[:4], "--steps", "100000"),
            ("likelihood", "p.png", *model[2:4], "--probes", "1000"),
        ):
            yield Case(f"{number.name}: {command[0]}", crowd, command, (), lambda number=number: ended(number), True)
    for command in (
        ("denoise", odd, *model), ("denoise", odd, "--json", *model), ("denoise", odd, "--dry-run", *model), ("denoise", odd, "--report", "r.html", *model),
        ("denoise", "dir", "-o", "o", "--json", *model), ("evaluate", odd, "--truth", odd), ("evaluate", odd, "--truth", odd, "--csv", "x.csv", "--json"),
        (*denoise, "-o", odd), (*denoise, "-o", odd[:-4] + ".jpg"), (*denoise, "-o", odd[:-4] + ".tif"), ("simulate", "inpaint", odd), ("merge", odd),
        ("denoise", "--show-config", "-o", odd), ("inpaint", "p.png", "--mask", odd, *model[2:]), ("inpaint", "p.png", "--mask", "ones.png", *model[2:]),
    ):  # fmt: skip
        yield Case(f"name that is no text: {' '.join(command[:4])}", with_odd, command)
    for noise in ("1e-300", "1e-30", "1e30", "1e300"):
        for text in (
            f"inpaint p.png --mask m.png --noise {noise}",
            f"deblur p.png --sigma 1 --noise {noise}",
            f"denoise p.png --sigma {noise}",
        ):
            yield Case(text, crowd, (*shlex.split(text), *model[2:], "--json"))
        yield Case(
            f"ct --noise {noise}",
            crowd,
            ("ct", "s.npy", "--noise", noise, "--model", priors["slice"], *QUICK, "--json"),
        )

    def bomb(folder: Path) -> None:
        np.savez_compressed(folder / "s.npz", np.broadcast_to(np.zeros(20, np.float32), (2**20, 20)))

    yield Case("an archive of zeros", bomb, ("ct", "s.npz", "--method", "fbp"))
