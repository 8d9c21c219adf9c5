"""What the machine does to a command: streams that are closed, signals, limits on memory and files, texts of other editors."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from calling import call
from PIL import Image

from invsolve.cache import cache_folder, models_folder
from invsolve.cli import ct_files, ct_methods, free_memory
from invsolve.cli.console import exit_code_of, open_standard_streams
from invsolve.cli.ct_files import read_array
from invsolve.cli.files import read_photo
from invsolve.cli.free_memory import available_memory, left_of_groups
from invsolve.cli.memory import memory_size
from invsolve.cli.streams import check_open
from invsolve.ct import scan
from invsolve.errors import ExitCode, InputError, OutputError, Terminated, terminate
from invsolve.files import read_json
from invsolve.forward_models.geometry import Geometry
from invsolve.forward_models.projector import AstraProjector, SparseProjector
from invsolve.tasks.inpainting import inpainting_task
from invsolve.training.interrupt import deferred_interrupt

Patch = pytest.MonkeyPatch
Capture = pytest.CaptureFixture[str]
BOM = b"\xef\xbb\xbf"


@pytest.fixture
def picture(tmp_path: Path, monkeypatch: Patch) -> Path:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.arange(30 * 36, dtype=np.uint16).reshape(30, 36).astype(np.uint8)).save("p.png")
    return Path("p.png")


# -- streams ------------------------------------------------------------------------------------------------------------
@contextmanager
def closed(number: int) -> Iterator[None]:
    kept = os.dup(number)
    os.close(number)
    try:
        yield
    finally:
        os.dup2(kept, number)
        os.close(kept)


def test_a_picture_for_a_closed_stdout_is_refused_and_not_lost_without_a_word() -> None:
    check_open()
    with closed(1):
        open_standard_streams()
        os.fstat(1)  # something stands there, so that no file is opened in its place
        with pytest.raises(OutputError, match="stdout is closed"):
            check_open()


def test_names_that_stdout_cannot_show_are_escaped(tmp_path: Path, monkeypatch: Patch) -> None:
    with (tmp_path / "out").open("w", encoding="ascii") as out:
        monkeypatch.setattr("sys.stdout", out)
        open_standard_streams()
        out.write("é \udcff")
    assert (tmp_path / "out").read_text(encoding="ascii") == r"\xe9 \udcff"


ERRORS = {
    "full": (OSError(errno.ENOSPC, "No space left"), ExitCode.OUTPUT, "cannot write: No space left"),
    "closed": (OSError(errno.EBADF, "Bad file descriptor"), ExitCode.OUTPUT, "stdout is closed"),
    "handles": (OSError(errno.EMFILE, "Too many open files", "x"), ExitCode.FAILED, "ulimit -n"),
    "address space": (ImportError("libtorch.so: failed to map segment"), ExitCode.FAILED, "out of memory"),
    "terminated": (Terminated(signal.SIGTERM), ExitCode.TERMINATED, "interrupted"),
}


@pytest.mark.parametrize("which", ERRORS)
def test_what_the_machine_refuses_is_said_for_what_it_is(which: str, monkeypatch: Patch, capfd: Capture) -> None:
    monkeypatch.setattr("invsolve.cli.console.forget_stdout", lambda: None)
    error, code, said = ERRORS[which]
    assert exit_code_of(error) == code
    assert said in capfd.readouterr().err


def test_a_folder_that_is_gone(tmp_path: Path, monkeypatch: Patch, capfd: Capture) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    here.rmdir()
    assert exit_code_of(FileNotFoundError(errno.ENOENT, "No such file")) == ExitCode.BAD_INPUT
    assert "the folder that this runs in is no more" in capfd.readouterr().err


def test_stdin_is_one_picture(picture: Path, monkeypatch: Patch, capfd: Capture) -> None:
    assert call(monkeypatch, "denoise", picture, "-", "-o", "o") == ExitCode.USAGE
    assert "- among several pictures" in capfd.readouterr().err
    assert not Path("o").exists()


# -- signals ------------------------------------------------------------------------------------------------------------
@pytest.fixture
def usual() -> Iterator[None]:
    """Handlers as a program begins with, put back afterwards."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_request_to_end_ends_a_command_in_order(
    name: str, usual: None, tmp_path: Path, monkeypatch: Patch, capfd: Capture
) -> None:
    number, tidied = getattr(signal, name), []

    def work(*_: object) -> None:
        try:
            os.kill(os.getpid(), number)
            signal.pause()
        finally:
            tidied.append(name)

    monkeypatch.setattr("invsolve.cli.merge.merge_manifests", work)
    assert call(monkeypatch, "merge", tmp_path) == 128 + number
    assert tidied == [name]
    assert "interrupted" in capfd.readouterr().err


def test_nohup_is_respected(usual: None, monkeypatch: Patch) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert call(monkeypatch, "--version") == 0
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGTERM) is terminate
    with deferred_interrupt() as asked:  # training finishes its step first, all the same
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked()


# -- memory and files ---------------------------------------------------------------------------------------------------
def system(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="ascii")
    return root


def test_memory_is_what_the_container_leaves(tmp_path: Path) -> None:
    files = {"proc/meminfo": "MemTotal: 64000000 kB\nMemAvailable:   32000000 kB\n"}
    assert available_memory(system(tmp_path, files)) <= 32_000_000 * 1024
    two = files | {
        "proc/self/cgroup": "0::/job/step\n",
        "sys/fs/cgroup/job/memory.max": "2000000000\n", "sys/fs/cgroup/job/memory.current": "900000000\n",
        "sys/fs/cgroup/job/memory.stat": "anon 5\ninactive_file 300000000\n",
        "sys/fs/cgroup/job/step/memory.max": "max\n", "sys/fs/cgroup/job/step/memory.current": "1\n",
    }  # fmt: skip
    assert available_memory(system(tmp_path / "2", two)) == 1_400_000_000
    one = files | {
        "proc/self/cgroup": "5:memory:/docker/x\n0::/\n3:cpu,cpuacct:/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "1000000000\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "1200000000\n",
    }  # fmt: skip
    assert list(left_of_groups(system(tmp_path / "1", one))) == [-200_000_000]
    assert available_memory(tmp_path / "1") == 0


def test_memory_is_what_ulimit_leaves(tmp_path: Path, monkeypatch: Patch) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (5_000_000, 5_000_000))
    status = {"proc/meminfo": "MemAvailable: 32000000 kB\n", "proc/self/status": "VmSize:\t 1000 kB\n"}
    assert free_memory.left_of_address_space(system(tmp_path, status)) == 5_000_000 - 1_024_000


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.tif"])
def test_numbers_that_do_not_fit_into_memory_are_refused_before_they_are_read(
    name: str, tmp_path: Path, monkeypatch: Patch
) -> None:
    array = np.zeros((300, 400), np.float32)
    if name.endswith("npz"):
        np.savez_compressed(tmp_path / name, array)
        assert (tmp_path / name).stat().st_size < 2000
    elif name.endswith("npy"):
        np.save(tmp_path / name, array)
    else:
        Image.fromarray(array).save(tmp_path / name)
    assert read_array(tmp_path / name, "slice").shape == (300, 400)
    monkeypatch.setattr(ct_files, "available_memory", lambda: 1e6)
    with pytest.raises(InputError, match="holds 0 MB of numbers"):
        read_array(tmp_path / name, "slice")


def failing(error: BaseException) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def test_no_file_is_called_damaged_for_what_the_machine_lacks(picture: Path, monkeypatch: Patch) -> None:
    np.save("a.npy", np.zeros((3, 3)))
    handles = OSError(errno.EMFILE, "Too many open files")
    monkeypatch.setattr(Image, "open", failing(handles))
    monkeypatch.setattr(np, "load", failing(handles))
    with pytest.raises(OSError, match="Too many open files"):
        read_photo(picture)
    with pytest.raises(OSError, match="Too many open files"):
        read_array(Path("a.npy"), "slice")
    monkeypatch.setattr(Image, "open", failing(MemoryError()))
    with pytest.raises(InputError, match="does not fit into the memory"):
        read_photo(picture)


# -- texts of other editors, and masks of other programs ----------------------------------------------------------------
def test_a_mark_at_the_beginning_of_a_text_is_no_content(tmp_path: Path, monkeypatch: Patch, capfd: Capture) -> None:
    monkeypatch.chdir(tmp_path)
    rows = "\r\n".join(str(9 * view) for view in range(20)).encode()
    files = {
        "angles.txt": rows, "run.toml": b"views = 5\r\n", "a.json": b'{"x": 1}',
        "geometry.toml": b"angles = { first = 0, last = 180, count = 3 }\r\ndetectors = 9\r\nshape = [9, 9]\r\n",
    }  # fmt: skip
    for name, content in files.items():
        Path(name).write_bytes(BOM + content)
    assert read_json("a.json", "card") == {"x": 1}
    assert len(Geometry.read("geometry.toml").angles) == 3
    np.save("s.npy", np.full((20, 40), 5.0))
    given = ("ct", "s.npy", "--angles", "angles.txt", "--config", "run.toml", "--dry-run", "--method", "fbp")
    assert call(monkeypatch, *given) == 0
    assert "using 5 of 20 views" in capfd.readouterr().err


def test_a_null_character_in_a_configuration_is_no_bug(picture: Path, monkeypatch: Patch, capfd: Capture) -> None:
    Path("run.toml").write_text(f"output = {json.dumps(chr(0) + '.png')}\n", encoding="utf-8")
    assert call(monkeypatch, "denoise", picture, "--config", "run.toml") == ExitCode.USAGE
    assert "without null characters" in capfd.readouterr().err


def test_a_mask_of_zeros_and_ones_is_told_from_an_empty_one(picture: Path, monkeypatch: Patch, capfd: Capture) -> None:
    marked = np.zeros((30, 36), np.uint8)
    marked[3:6, 4:9] = 1
    Image.fromarray(marked).save("m.png")
    assert call(monkeypatch, "inpaint", picture, "--mask", "m.png") == ExitCode.BAD_INPUT
    said = capfd.readouterr().err
    assert "its brightest pixel is 1 of 255" in said
    assert "multiply it by 255" in said
    assert call(monkeypatch, "inpaint", picture, "--mask", "m.png", "--mask-threshold", 0, "--dry-run") == 0
    assert f"{15 / (30 * 36):.1%} of 36 x 30" in capfd.readouterr().out


# -- noise that no number of single precision holds ---------------------------------------------------------------------
def test_a_noise_next_to_nothing_counts_as_none(picture: Path) -> None:
    marked = np.zeros((30, 36), bool)
    marked[3:6, 4:9] = True
    grey = read_photo(picture).unit
    assert inpainting_task(grey, marked, noise=1e-300).problem["noise"] == 0
    assert inpainting_task(grey, marked, noise=1e-3).problem["noise"] == 1e-3
    lines = np.full((20, 40), 5.0)
    least = scan.interpret(lines, scan.Description(noise=1e-300))
    assert least.noise == 0
    assert any("below single precision" in note for note in least.notes)
    assert scan.interpret(lines, scan.Description(noise=1e-3)).noise == pytest.approx(1e-3)


def test_one_variable_moves_what_is_kept(tmp_path: Path, monkeypatch: Patch) -> None:
    for name in ("CACHE", "MODELS"):
        monkeypatch.setenv(f"INVSOLVE_{name}", "")
    monkeypatch.setenv("INVSOLVE_HOME", str(tmp_path))
    assert (cache_folder(), models_folder()) == (tmp_path / "cache", tmp_path / "models")
    monkeypatch.setenv("INVSOLVE_CACHE", "elsewhere")
    assert (cache_folder(), models_folder()) == (Path("elsewhere"), tmp_path / "models")


def test_training_that_is_refused_leaves_no_folder(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    for output in ("new", "mine"):
        assert call(monkeypatch, "train", "nope", "-o", output, "--device", "cpu") == ExitCode.BAD_INPUT
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_simulations_take_their_options_from_a_file(picture: Path, monkeypatch: Patch) -> None:
    Path("run.toml").write_text("pixels = 0.5\n", encoding="utf-8")
    assert call(monkeypatch, "simulate", "inpaint", picture, "--config", "run.toml") == 0
    assert np.asarray(Image.open("p.mask.png")).mean() == pytest.approx(127.5, rel=0.1)


def test_a_truth_that_is_a_pipe_is_not_waited_for(tmp_path: Path, monkeypatch: Patch, capfd: Capture) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    np.save("s.npy", np.full((20, 40), 5.0))
    assert call(monkeypatch, "ct", "s.npy", "--method", "fbp", "--truth", "fifo") == ExitCode.BAD_INPUT
    assert "fifo is" in capfd.readouterr().err


@pytest.mark.parametrize("kind", ["pipe", "link", "dangling", "folder"])
def test_a_manifest_that_is_no_file_is_refused(kind: str, picture: Path, monkeypatch: Patch, capfd: Capture) -> None:
    Path("in").mkdir()
    picture.rename("in/p.png")
    Path("o").mkdir()
    Path("mine.jsonl").write_bytes(b"")
    manifest, targets = Path("o/manifest.jsonl"), {"link": "../mine.jsonl", "dangling": "../new.jsonl"}
    if kind in targets:
        manifest.symlink_to(targets[kind])
    elif kind == "folder":
        manifest.mkdir()
    else:
        os.mkfifo(manifest)
    assert call(monkeypatch, "inpaint", "in", "--scratches", "-o", "o") == ExitCode.BAD_INPUT
    assert "manifest.jsonl is a link, a folder or a pipe" in capfd.readouterr().err
    assert Path("mine.jsonl").read_bytes() == b""
    assert not Path("new.jsonl").exists()


def test_a_size_without_end_is_refused() -> None:
    for text in ("9" * 400, "0", "0.0GB", "1e9"):
        with pytest.raises(typer.BadParameter, match="is not a size"):
            memory_size(text)
    assert memory_size("1.5 GiB") == 1.5 * 2**30


def test_a_projector_that_does_not_fit_into_memory_is_not_stored(monkeypatch: Patch) -> None:
    known = scan.interpret(np.full((20, 40), 5.0), scan.Description(noise=0.1))
    where = torch.device("cpu")
    assert isinstance(ct_methods.Rays.of(known, where, cache=False).operator, SparseProjector)
    monkeypatch.setattr(ct_methods, "available_memory", lambda: 1e5)
    small = ct_methods.Rays.of(known, where, cache=False)
    assert isinstance(small.operator, AstraProjector)
    assert torch.isfinite(small.residual(torch.zeros(1, 40, 40))).all()


# -- two programs, one name ---------------------------------------------------------------------------------------------
def test_a_file_that_appears_during_the_work_is_not_overwritten_and_the_work_is_not_lost(
    picture: Path, monkeypatch: Patch, capfd: Capture
) -> None:
    made = Path("p.damaged.png")

    def scratches_meanwhile(height: int, width: int, *_: object, **__: object) -> np.ndarray:
        made.write_bytes(b"somebody else's")
        return np.eye(height, width, dtype=bool)

    monkeypatch.setattr("invsolve.cli.demo.scratches", scratches_meanwhile)
    assert call(monkeypatch, "simulate", "inpaint", picture) == ExitCode.OUTPUT
    said = capfd.readouterr().err
    assert "p.damaged.png was made by another program meanwhile" in said
    assert "p.damaged-2.png, p.mask-2.png" in said
    assert made.read_bytes() == b"somebody else's"
    assert Image.open("p.damaged-2.png").size == Image.open("p.mask-2.png").size == (36, 30)
    assert not Path("p.mask.png").exists()
    made.unlink()
    assert call(monkeypatch, "simulate", "inpaint", picture, "--force") == 0  # which asks for nothing else
    assert Image.open(made).size == (36, 30)
    assert not list(Path().glob("*.part"))


@pytest.mark.parametrize("option", [("--views", 10**12), ("--views", 10**5), ("--i0", 1e300)])
def test_a_scan_that_no_scanner_makes_is_refused_at_once(
    option: tuple[str, float], tmp_path: Path, monkeypatch: Patch, capfd: Capture
) -> None:
    np.save(tmp_path / "n.npy", np.full((40, 40), 0.5, np.float32))
    assert call(monkeypatch, "simulate", "ct", tmp_path / "n.npy", *option) == ExitCode.USAGE
    assert option[0] in capfd.readouterr().err
