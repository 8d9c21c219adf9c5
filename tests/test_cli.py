"""The command line: good runs, bad input, exit codes, provenance, nothing overwritten."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from calling import Run, call
from PIL import Image
from typer.testing import CliRunner

from invsolve.cli.files import provenance
from invsolve.errors import ExitCode, Terminated

COMMAND = [sys.executable, "-m", "invsolve.cli.main"]


@pytest.fixture
def folder(tmp_path: Path, photo: np.ndarray) -> Path:
    Image.fromarray(photo).save(tmp_path / "photo.png")
    Image.fromarray(photo).convert("L").save(tmp_path / "grey.png")
    Image.fromarray(photo).save(tmp_path / "photo.jpg", quality=95)
    mask = np.zeros(photo.shape[:2], np.uint8)
    mask[10:13, 5:30] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    Image.fromarray(255 - mask).save(tmp_path / "black.png")
    return tmp_path


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_inpaint_writes_the_result_with_provenance(
    folder: Path, photo: np.ndarray, small_prior: Path, run: Run
) -> None:
    done = run(
        "inpaint", folder / "photo.png", "--mask", folder / "mask.png", "--model", small_prior, "--steps", 3, "--json"
    )
    assert done.returncode == 0, done.stderr
    result = Image.open(folder / "photo.inpaint.png")
    known = np.asarray(Image.open(folder / "mask.png")) < 128
    assert np.array_equal(np.asarray(result)[known], photo[known])
    facts = json.loads(result.text["invsolve"])  # type: ignore[attr-defined]
    assert facts["software"].startswith("invsolve ")
    assert "inpaint" in facts["command"]
    assert len(facts["model_sha256"]) == 64
    assert facts["seed"] == 0
    report = json.loads(done.stdout)
    assert report["output"] == str(folder / "photo.inpaint.png")
    assert report["network_calls"] == 3
    assert "photo.inpaint.png" in done.stderr
    assert "it is one sample" in done.stderr


def test_samples_mean_and_std_are_all_written(folder: Path, small_prior: Path, run: Run) -> None:
    arguments = ["inpaint", folder / "photo.png", "--mask", folder / "mask.png", "--model", small_prior, "--steps", 2]
    done = run(*arguments, "--samples", 3, "--truth", folder / "photo.png", "--json")
    assert done.returncode == 0, done.stderr
    names = {p.name for p in folder.glob("photo.inpaint*")}
    assert names == {f"photo.inpaint{part}.png" for part in ("", ".sample-1", ".sample-2", ".mean", ".std")}
    scores = json.loads(done.stdout)["scores"]
    assert set(scores) == {"biharmonic", "invsolve sample", "mean of 3"}
    assert all(set(figures) == {"psnr", "ssim"} for figures in scores.values())
    assert "one sample of 3" in done.stderr
    # Sample j is the run with seed j, by the same sampler: a single sample's default is another one.
    assert run(*arguments, "--seed", 2, "--sampler", "redrawing", "-o", folder / "again.png").returncode == 0
    again, sample = (np.asarray(Image.open(folder / name)) for name in ("again.png", "photo.inpaint.sample-2.png"))
    assert np.abs(again.astype(int) - sample).max() <= 1


@pytest.mark.parametrize(("name", "mode"), [("grey.png", "L"), ("photo.jpg", "RGB")])
def test_grey_and_jpeg_input(name: str, mode: str, folder: Path, small_prior: Path, run: Run) -> None:
    done = run(
        "inpaint", folder / name, "--mask", folder / "black.png", "--invert-mask", "--model", small_prior, "--steps", 2
    )
    assert done.returncode == 0, done.stderr
    result = Image.open(folder / f"{Path(name).stem}.inpaint.png")
    assert result.mode == mode
    known = np.asarray(Image.open(folder / "mask.png")) < 128
    assert np.array_equal(np.asarray(result)[known], np.asarray(Image.open(folder / name))[known])


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_kept(mode: str, folder: Path, photo: np.ndarray, small_prior: Path, run: Run) -> None:
    picture = Image.fromarray(photo).convert(mode)
    picture.putalpha(Image.fromarray(photo[..., 0]))
    picture.save(folder / "clear.png")
    done = run("inpaint", folder / "clear.png", "--mask", folder / "mask.png", "--model", small_prior, "--steps", 1)
    assert done.returncode == 0, done.stderr
    result = Image.open(folder / "clear.inpaint.png")
    assert result.mode == mode
    known = np.asarray(Image.open(folder / "mask.png")) < 128
    assert np.array_equal(np.asarray(result.getchannel("A"))[known], photo[..., 0][known])


def test_an_erased_hole_becomes_opaque_and_the_colour_profile_stays(
    folder: Path, photo: np.ndarray, small_prior: Path, run: Run
) -> None:
    from PIL import ImageCms

    mask = np.asarray(Image.open(folder / "mask.png"))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = Image.fromarray(photo)
    picture.putalpha(Image.fromarray(255 - mask))
    picture.save(folder / "erased.png", icc_profile=profile)
    done = run("inpaint", folder / "erased.png", "--mask", folder / "mask.png", "--model", small_prior, "--steps", 1)
    assert done.returncode == 0, done.stderr
    result = Image.open(folder / "erased.inpaint.png")
    assert np.asarray(result.getchannel("A")).min() == 255
    assert result.info["icc_profile"] == profile


def test_json_stays_json_when_a_score_is_infinite(folder: Path, small_prior: Path, run: Run) -> None:
    done = run(
        "colorize", folder / "grey.png", "--model", small_prior, "--steps", 1, "--json", "--truth", folder / "photo.png"
    )
    assert done.returncode == 0, done.stderr
    Image.new("RGB", (6, 6), (90, 90, 90)).save(folder / "flat.png")
    done = run(
        "colorize", folder / "flat.png", "--model", small_prior, "--steps", 1, "--json", "--truth", folder / "flat.png"
    )
    scores = json.loads(done.stdout, parse_constant=pytest.fail)["scores"]
    assert scores["grey"] == {**scores["grey"], "psnr": None, "ssim": None}


def test_exif_orientation_is_respected(folder: Path, photo: np.ndarray, small_prior: Path, run: Run) -> None:
    sideways = Image.fromarray(photo).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate 90 degrees clockwise to view
    sideways.save(folder / "phone.png", exif=exif)
    done = run("inpaint", folder / "phone.png", "--mask", folder / "mask.png", "--model", small_prior, "--steps", 2)
    assert done.returncode == 0, done.stderr
    known = np.asarray(Image.open(folder / "mask.png")) < 128
    assert np.array_equal(np.asarray(Image.open(folder / "phone.inpaint.png"))[known], photo[known])


def test_colorize_keeps_the_grey(folder: Path, small_prior: Path, run: Run) -> None:
    done = run(
        "colorize",
        folder / "photo.jpg",
        "--model",
        small_prior,
        "--steps",
        2,
        "--truth",
        folder / "photo.png",
        "--json",
        "-q",
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    grey = np.asarray(Image.open(folder / "photo.jpg").convert("L")).astype(int)
    back = np.asarray(Image.open(folder / "photo.colorize.png").convert("L"))
    assert np.abs(back - grey).max() <= 1
    # The prior has no colour table of its own: the one of photographs is the baseline.
    scores = json.loads(done.stdout)["scores"]
    assert all("ciede2000" in scores[name] for name in ("invsolve sample", "colour table"))


def test_colorize_takes_the_prior_of_whole_pictures(folder: Path, run: Run) -> None:
    done = run("colorize", folder / "photo.png", "--steps", 2, "--json", "-q")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["model"] == "thumbnails"
    grey = np.asarray(Image.open(folder / "photo.png").convert("L")).astype(int)
    assert np.abs(np.asarray(Image.open(folder / "photo.colorize.png").convert("L")) - grey).max() <= 1


def test_existing_results_are_only_replaced_by_force(folder: Path, small_prior: Path, run: Run) -> None:
    arguments = ["inpaint", folder / "photo.png", "--mask", folder / "mask.png", "--model", small_prior, "--steps", 1]
    (folder / "photo.inpaint.png").write_bytes(b"precious")
    refused = run(*arguments)
    assert refused.returncode == ExitCode.OUTPUT
    assert "--force" in refused.stderr
    assert (folder / "photo.inpaint.png").read_bytes() == b"precious"
    assert run(*arguments, "--force").returncode == 0
    assert Image.open(folder / "photo.inpaint.png").size == (40, 48)


def damage(folder: Path, photo: np.ndarray, small_prior: Path) -> None:
    data = (folder / "photo.png").read_bytes()
    (folder / "truncated.png").write_bytes(data[: len(data) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("not a picture")
    Image.fromarray(np.full(photo.shape[:2], 255, np.uint8)).save(folder / "white.png")
    Image.fromarray(np.zeros(photo.shape[:2], np.uint8)).save(folder / "nothing.png")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(folder / "small.png")
    tifffile.imwrite(folder / "bright.tif", np.full(photo.shape, 255, np.float32), photometric="rgb")
    tifffile.imwrite(folder / "signed.tif", np.zeros(photo.shape, np.int32), photometric="rgb")
    (folder / "zero.npz").write_bytes(b"")
    np.savez(folder / "photo.npz", images=np.zeros((4, 30, 40, 3), np.uint8))
    wrong = folder / "wrong-prior"
    wrong.mkdir()
    (wrong / "card.json").write_bytes((small_prior / "card.json").read_bytes())
    weights = bytearray((small_prior / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (wrong / "model.safetensors").write_bytes(weights)
    broken = folder / "broken-prior"
    broken.mkdir()
    (broken / "card.json").write_text("{")


BAD = {
    "picture missing": (["inpaint", "absent.png", "--mask", "mask.png"], ExitCode.BAD_INPUT, "no such file"),
    "picture truncated": (["inpaint", "truncated.png", "--mask", "mask.png"], ExitCode.BAD_INPUT, "truncated"),
    "picture of zero bytes": (["inpaint", "empty.png", "--mask", "mask.png"], ExitCode.BAD_INPUT, "0 bytes"),
    "not a picture": (["colorize", "text.png"], ExitCode.BAD_INPUT, "not a picture"),
    "a folder": (["colorize", "."], ExitCode.USAGE, "is a folder, and there is no -o"),
    "floats beyond white": (["colorize", "bright.tif"], ExitCode.BAD_INPUT, "scale them to [0, 1]"),
    "whole numbers of 32 bits": (["colorize", "signed.tif"], ExitCode.BAD_INPUT, "int32"),
    "demo over a file": (["demo", "photo.png"], ExitCode.OUTPUT, "photo.png"),
    "training data of zero bytes": (["train", "zero.npz", "-o", "."], ExitCode.BAD_INPUT, "cannot read"),
    "mask missing": (["inpaint", "photo.png", "--mask", "absent.png"], ExitCode.BAD_INPUT, "mask"),
    "mask of another size": (["inpaint", "photo.png", "--mask", "small.png"], ExitCode.BAD_INPUT, "9 x 9"),
    "mask all white": (["inpaint", "photo.png", "--mask", "white.png"], ExitCode.BAD_INPUT, "every pixel"),
    "mask empty": (["inpaint", "photo.png", "--mask", "nothing.png"], ExitCode.BAD_INPUT, "--invert-mask"),
    "no mask": (["inpaint", "photo.png"], ExitCode.USAGE, "--mask"),
    "truth of another size": (
        ["inpaint", "photo.png", "--mask", "mask.png", "--truth", "small.png"],
        ExitCode.BAD_INPUT,
        "--truth",
    ),
    "folder that cannot be made": (
        ["colorize", "photo.png", "-o", "mask.png/x.png"],
        ExitCode.OUTPUT,
        "cannot make the folder",
    ),
    "output is no picture": (["colorize", "photo.png", "-o", "x.txt"], ExitCode.OUTPUT, ".png"),
    "model unknown": (["colorize", "photo.png", "--model", "cats"], ExitCode.MODEL, "unknown model 'cats'"),
    "weights with a wrong hash": (["colorize", "photo.png", "--model", "wrong-prior"], ExitCode.MODEL, "sha256"),
    "card broken": (["colorize", "photo.png", "--model", "broken-prior"], ExitCode.MODEL, "card"),
    "a prior in other coordinates": (
        ["inpaint", "photo.png", "--mask", "mask.png", "--model", "thumbnails"],
        ExitCode.MODEL,
        "it is for colorize",
    ),
    "sampling a prior in other coordinates": (["sample", "--model", "thumbnails"], ExitCode.MODEL, "other coordinates"),
    "training pictures too small": (
        ["train", "photo.npz", "-o", "out", "--preset", "thumbnails"],
        ExitCode.BAD_INPUT,
        "at least 32 x 32 pixels",
    ),
    "rule unknown": (["colorize", "photo.png", "--model", "PRIOR", "--rule", "magic"], ExitCode.USAGE, "known rules"),
    "sampler unknown": (
        ["colorize", "photo.png", "--model", "PRIOR", "--sampler", "x"],
        ExitCode.USAGE,
        "known samplers",
    ),
    "zero samples": (["colorize", "photo.png", "--samples", "0"], ExitCode.USAGE, "--samples"),
    "device unknown": (["colorize", "photo.png", "--model", "PRIOR", "--device", "abacus"], ExitCode.MODEL, "abacus"),
    "preset unknown": (["train", ".", "-o", "out", "--preset", "huge"], ExitCode.USAGE, "known presets"),
    "time limit unreadable": (["train", ".", "-o", "out", "--time-limit", "soon"], ExitCode.USAGE, "45m"),
    "training data absent": (["train", "absent", "-o", "out"], ExitCode.BAD_INPUT, "neither a folder"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_input(
    case: str, folder: Path, photo: np.ndarray, small_prior: Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:  # type: ignore[no-untyped-def]
    damage(folder, photo, small_prior)
    arguments, code, message = BAD[case]
    arguments = [str(small_prior) if a == "PRIOR" else a for a in arguments]
    before = tree(folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["invsolve", *arguments])
    with pytest.raises(SystemExit) as stop:
        from invsolve.cli.main import main

        main()
    out, err = capfd.readouterr()
    assert stop.value.code == code
    assert out == ""
    assert message in err
    assert "Traceback" not in err
    if code != ExitCode.USAGE:
        lines = err.strip().splitlines()
        assert any(line.startswith("error: ") for line in lines)
        assert any(line.startswith("hint: ") for line in lines)
    assert tree(folder) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_asked_for_and_absent(folder: Path, small_prior: Path, run: Run) -> None:
    done = run("colorize", folder / "photo.png", "--model", small_prior, "--device", "cuda")
    assert done.returncode == ExitCode.MODEL
    assert "no CUDA device" in done.stderr
    assert "--device cpu" in done.stderr


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root can write everywhere")
def test_unwritable_folder(folder: Path, small_prior: Path, run: Run) -> None:
    (folder / "locked").mkdir(mode=0o555)
    done = run("colorize", folder / "photo.png", "--model", small_prior, "-o", folder / "locked")
    assert done.returncode == ExitCode.OUTPUT
    assert "cannot write" in done.stderr


def test_unwritable_file_system(folder: Path, small_prior: Path, run: Run) -> None:
    """Not even root can create files in /proc."""
    if not Path("/proc/self").is_dir():
        pytest.skip("needs /proc")
    done = run("colorize", folder / "photo.png", "--model", small_prior, "-o", "/proc/x.png")
    assert done.returncode == ExitCode.OUTPUT
    assert "cannot write" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_leaves_nothing_behind(folder: Path, small_prior: Path) -> None:
    before = tree(folder)
    arguments = [
        "inpaint",
        folder / "photo.png",
        "--mask",
        folder / "mask.png",
        "--model",
        small_prior,
        "--steps",
        100000,
    ]
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    assert process.stderr is not None
    assert "missing" in process.stderr.readline()  # the sampler is about to start
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == ExitCode.INTERRUPTED
    assert "Traceback" not in err
    *announced, last = err.splitlines()
    assert last == "interrupted" and all(line.startswith("this will take") for line in announced)
    assert out == ""
    assert tree(folder) == before


def test_help_and_version_need_no_torch() -> None:
    for arguments in (["--version"], ["--help"], ["inpaint", "--help"]):
        code = f"import sys; sys.argv = ['invsolve', *{arguments!r}]\nfrom invsolve.cli.main import main\n"
        code += (
            "try:\n    main()\nexcept SystemExit:\n    pass\nassert not {'torch', 'astra', 'scipy'} & set(sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_importing_the_package_loads_neither_astra_nor_typer() -> None:
    code = "import sys, invsolve; invsolve.solve, invsolve.inpaint, invsolve.forward_models\n"
    code += "assert 'astra' not in sys.modules and 'typer' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_exit_codes_are_documented() -> None:
    from invsolve.cli.main import app

    text = CliRunner().invoke(app, ["--help"]).output
    assert all(f"{int(code)} " in text for code in ExitCode)


def test_provenance_quotes_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/invsolve", "inpaint", "my photo.png"])
    assert provenance()["command"] == "invsolve inpaint 'my photo.png'"


# -- numbers out of range, and streams that are closed ------------------------------------------------------------------
REFUSED = {
    "sample -n 1000000000": (ExitCode.USAGE, "100000"),
    "sample -n 9999 --model photos --size 1000x1000": (ExitCode.USAGE, "GiB of memory"),
    "sample --model photos --size 100000x100000": (ExitCode.USAGE, "GiB of memory"),
    "sample --model photos --size ²x5": (ExitCode.USAGE, "96x64"),
    "sample --seed 9223372036854775807": (ExitCode.USAGE, "--seed"),
    "sample --steps 1000000000": (ExitCode.USAGE, "--steps"),
    "sample --sampler renoising(eta='x')": (ExitCode.USAGE, "wanted a finite number"),
    "sample --device meta": (ExitCode.MODEL, "unknown device"),
    "sample --model .": (ExitCode.MODEL, "has no card.json"),
    "sample --model photo.png": (ExitCode.MODEL, "is a file"),
    "generate --class bird --guidance nan": (ExitCode.USAGE, "--guidance"),
    "generate --class bird --guidance inf": (ExitCode.USAGE, "--guidance"),
    "interpolate photo.png grey.png --fit -n 1000000": (ExitCode.USAGE, "GiB of memory"),
    "interpolate photo.png grey.png --fit --temperature nan": (ExitCode.USAGE, "--temperature"),
    "interpolate photo.png grey.png --fit --tolerance inf": (ExitCode.USAGE, "--tolerance"),
    "likelihood photo.png --fit --probes 1000000000": (ExitCode.USAGE, "--probes"),
    "likelihood photo.png --fit --draws 1000000000": (ExitCode.USAGE, "--draws"),
    "likelihood photo.png --fit --seed 10000000000000": (ExitCode.USAGE, "--seed"),
    "likelihood deep.png --fit": (ExitCode.BAD_INPUT, "16 bits"),
    "verify --samples 1000000000000": (ExitCode.USAGE, "GiB of memory"),
    "verify --repeats 1000000000": (ExitCode.USAGE, "--repeats"),
    "verify --steps 1000000000": (ExitCode.USAGE, "--steps"),
    "verify --against .": (ExitCode.BAD_INPUT, "is a folder"),
    "verify --against /dev/null": (ExitCode.BAD_INPUT, "a pipe or a device"),
    "verify --save x.png --picture x.png": (ExitCode.USAGE, "both name"),
    "models .": (ExitCode.MODEL, "has no card.json"),
    "nonsense": (ExitCode.USAGE, "nonsense"),
    "sample -o a\x1b[31m.txt": (ExitCode.OUTPUT, "a\\x1b[31m.txt"),
}


@pytest.mark.parametrize("line", list(REFUSED))
def test_what_no_machine_can_do_is_refused_in_a_line(
    line: str, folder: Path, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from invsolve.cli.main import main

    Image.fromarray(np.zeros(photo.shape[:2], np.uint16)).save(folder / "deep.png")
    before = tree(folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["invsolve", *line.split(" ")])
    with pytest.raises(SystemExit) as stop:
        main()
    out, err = capfd.readouterr()
    code, message = REFUSED[line]
    assert stop.value.code == code
    assert out == ""
    assert [text.split(": ")[0] for text in err.splitlines()] == ["error", "hint"]
    assert message in err
    assert tree(folder) == before


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs ``line`` in bash with ``invsolve`` the command; prints the exit code of a pipe's first part."""
    command = f'invsolve() {{ {sys.executable} -m invsolve.cli.main "$@"; }}\n{line}\necho ${{PIPESTATUS[0]}} >&3'
    return subprocess.run(
        ["bash", "-c", f"exec 3>code\n{command}"], cwd=folder, capture_output=True, text=True, check=False, timeout=100
    )


@pytest.mark.skipif(sys.platform == "win32", reason="needs bash")
@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("invsolve models | (exec 0<&-; sleep 1)", ExitCode.OUTPUT, ""),
        ("invsolve --help | (exec 0<&-; sleep 1)", ExitCode.OUTPUT, ""),
        ("invsolve --version >&-", ExitCode.OUTPUT, "stdout is closed"),
        ("invsolve nonsense 2>&-", ExitCode.USAGE, ""),
        ("invsolve --version <&- >&- 2>&-", ExitCode.OUTPUT, ""),
        pytest.param(
            "invsolve --version > /dev/full", ExitCode.OUTPUT, "No space left",
            marks=pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full"),
        ),
    ],
)  # fmt: skip
def test_streams_that_nobody_reads(line: str, code: ExitCode, said: str, tmp_path: Path) -> None:
    done = shell(line, tmp_path)
    assert int((tmp_path / "code").read_text()) == code
    assert said in done.stderr if said else done.stderr == ""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_while_modules_load(tmp_path: Path) -> None:
    """Typer and torch are stood in for by modules that take long to load."""
    for name in ("typer", "torch"):
        where = tmp_path / name
        where.mkdir()
        (where / f"{name}.py").write_text("import time; print('loading', flush=True); time.sleep(60)")
        environment = {**os.environ, "PYTHONPATH": f"{where}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
        process = subprocess.Popen(
            [*COMMAND, "sample", "--device", "cpu"], cwd=tmp_path, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
        assert (process.returncode, out) == (ExitCode.INTERRUPTED, "interrupted\n")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(("stop", "code"), [(KeyboardInterrupt(), 130), (Terminated(signal.SIGTERM), 143)])
def test_ctrl_c_while_options_are_read(
    stop: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Before any command begins; Typer alone would end without a word."""

    def stopped(*_: object, **__: object) -> None:
        raise stop

    monkeypatch.setattr("typer.core.TyperGroup.make_context", stopped)
    assert call(monkeypatch, "doctor") == code
    assert capfd.readouterr().err == "interrupted\n"


def test_ctrl_c_while_text_is_executed(tmp_path: Path) -> None:
    """As dataclasses do when modules are loaded; a shell shows 130 for an end by a signal as well."""
    program = (
        "import sys\nfrom invsolve.cli import app, main\napp.run = lambda: exec('raise KeyboardInterrupt')\nmain.main()"
    )
    (tmp_path / "program.py").write_text(program)
    done = subprocess.run([sys.executable, "-m", "program"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (ExitCode.INTERRUPTED, "interrupted\n")


def test_progress_is_told_in_lines_where_there_is_no_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from invsolve.cli import console

    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(console.Verbosity, "level", 0)
    for pace, expected in ((0.01, 0), (0.5, 9), (5.0, 16)):
        with console.progress_bar() as bar:
            task = bar.add_task("sampling", total=1.0)
            for step in range(1, 101):
                now[0] += pace
                bar.update(task, completed=step / 100)
        lines = capsys.readouterr().err.splitlines()
        assert abs(len(lines) - expected) <= 4 if expected else not lines
        assert all(line.startswith("sampling: ") and line.endswith(" s left") for line in lines)
    monkeypatch.setattr(console.Verbosity, "level", -1)
    with console.progress_bar() as bar:
        task = bar.add_task("sampling", total=2)
        now[0] += 100
        bar.advance(task)
    assert capsys.readouterr().err == ""


def test_warnings_of_libraries_are_shown_to_who_asks_for_details(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import warnings

    from invsolve.cli import console

    for level, said in ((0, ""), (2, "UserWarning: mind the gap\n")):
        monkeypatch.setattr(console.Verbosity, "level", level)
        monkeypatch.setattr(sys, "warnoptions", [])
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            console.hide_warnings()
            warnings.warn("mind the gap", stacklevel=1)
        assert capsys.readouterr().err == said


def test_threads_sleep_while_they_wait_unless_told_otherwise() -> None:
    code = "import os, sys\nsys.argv = ['invsolve', '--version']\nfrom invsolve.cli.main import main\n"
    code += "try:\n    main()\nfinally:\n    sys.stderr.write(os.environ['OMP_WAIT_POLICY'])"
    for given, expected in (({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")):
        env = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"} | given
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
        assert (done.returncode, done.stderr) == (0, expected)
