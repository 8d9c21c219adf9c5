"""The commands superres, deblur, denoise and dejpeg, and what simulate makes for them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from calling import call
from PIL import Image, ImageCms

from invsolve.errors import ExitCode
from invsolve.forward_models import Blur, Downsample, gaussian_psf
from invsolve.tasks.restoration import planes

Patch = pytest.MonkeyPatch
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path, photo: np.ndarray, monkeypatch: Patch) -> Path:
    Image.fromarray(photo).save(tmp_path / "photo.png")
    Image.fromarray(photo).convert("L").save(tmp_path / "grey.png")
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.npy").write_text("not numbers")
    Image.new("L", (5, 5)).save(tmp_path / "black.png")
    Image.new("L", (64, 64), 9).save(tmp_path / "wide.png")
    Image.new("L", (40, 48), 90).save(tmp_path / "flat.png")
    np.save(tmp_path / "cube.npy", np.ones((3, 3, 3)))
    np.save(tmp_path / "negative.npy", np.array([[1.0, -0.5]]))
    np.save(tmp_path / "nan.npy", np.array([[1.0, np.nan]]))
    Image.fromarray(photo).save(tmp_path / "web.jpg", quality=30)
    Image.fromarray(photo).save(tmp_path / "done.jpg", quality=30)
    Image.fromarray(photo).convert("CMYK").save(tmp_path / "cmyk.jpg")
    data = (tmp_path / "web.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[:-200])
    (tmp_path / "frame.jpg").write_bytes(data.replace(b"\xff\xc4", b"\xff\xe5"))
    (tmp_path / "done.dejpeg.png").write_bytes(b"precious")
    (tmp_path / "photo.superres.png").write_bytes(b"precious")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_shipped_calibration_of_denoising_is_applied(folder: Path, monkeypatch: Patch, capfd: Capture) -> None:
    Image.open("photo.png").crop((0, 0, 16, 16)).save("small.png")
    given = ["denoise", "small.png", "--sigma", "0.1", "--samples", "19", "--json", "--device", "cpu"]
    assert call(monkeypatch, *given, "--calibration", "shipped") == 0
    interval = json.loads(capfd.readouterr().out)["uncertainty"]["interval"]
    assert interval["calibration"]["factor"] > 1 and interval["level"] == 0.9
    # other noise than it was learned with is said
    given[3] = "0.02"
    assert call(monkeypatch, *given, "--calibration", "shipped", "--force") == 0
    assert "learned on other measurements: noise 0.02 (learned with 0.1)" in capfd.readouterr().err


COMMANDS = {
    "superres": (["-x", "2", "-o", "out"], "bicubic"),
    "deblur": (["--sigma", "1", "--noise", "0.02", "-o", "out"], "Wiener"),
    "denoise": (["--sigma", "0.1", "-o", "out"], "non-local means"),
    "dejpeg": (["--quality", "60", "-o", "out"], "decoded"),
}


@pytest.mark.parametrize("name", ["photo.png", "grey.png"])
@pytest.mark.parametrize("command", COMMANDS)
def test_everything_that_is_asked_for_is_written(
    command: str, name: str, folder: Path, photo: np.ndarray, small_prior: Path, monkeypatch: Patch, capfd: Capture
) -> None:
    options, classical = COMMANDS[command]
    factor = 2 if command == "superres" else 1
    truth = Image.open(folder / name).resize((40 * factor, 48 * factor))
    truth.save(folder / "truth.png")
    common = ["--model", small_prior, "--steps", 2, "--truth", "truth.png", "--diagnostics", "trace.png", "--json"]
    assert call(monkeypatch, command, name, *options, *common, "--samples", 3, "--interval") == 0
    out, err = capfd.readouterr()
    stem = f"{Path(name).stem}.{command}"
    parts = ("", ".sample-1", ".sample-2", ".mean", ".std", ".low", ".high")
    assert {path.name for path in (folder / "out").iterdir()} == {f"{stem}{part}.png" for part in parts}
    assert (folder / "trace.png").exists()
    for part in ("", ".mean", ".low"):
        result = Image.open(folder / "out" / f"{stem}{part}.png")
        assert (result.size, result.mode) == (truth.size, truth.mode)
    report = json.loads(out)
    assert report["task"] == command and report["network_calls"] == 6 and report["uncertainty"]["interval"]
    assert {classical, "invsolve sample", "mean of 3"} <= set(report["scores"])
    assert f"{stem}.png" in err
    facts = json.loads(Image.open(folder / "out" / f"{stem}.png").text["invsolve"])  # type: ignore[attr-defined]
    momentum = 0.68 if command == "dejpeg" else 0.7
    several = "redrawing" if command == "denoise" else f"renoising(momentum={momentum})"
    assert facts["command"].startswith(f"invsolve {command} {name}") and facts["sampler"] == several


def test_transparency_and_colour_profile_are_enlarged_too(
    folder: Path, photo: np.ndarray, small_prior: Path, monkeypatch: Patch
) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = Image.fromarray(photo)
    picture.putalpha(Image.fromarray(photo[..., 0]))
    picture.save(folder / "clear.png", icc_profile=profile)
    for command, options in (
        ("superres", ["-x", 3]),
        ("deblur", ["--motion", "5,10"]),
        ("denoise", ["--sigma", 0.1]),
        ("dejpeg", ["-Q", 60]),
    ):
        assert call(monkeypatch, command, "clear.png", *options, "--model", small_prior, "--steps", 1, "-q") == 0
        result = Image.open(folder / f"clear.{command}.png")
        factor = 3 if command == "superres" else 1
        assert (result.mode, result.size, result.info["icc_profile"]) == ("RGBA", (40 * factor, 48 * factor), profile)
        alpha = Image.fromarray(photo[..., 0]).resize(result.size, Image.Resampling.BICUBIC)
        assert np.array_equal(np.asarray(result.getchannel("A")), np.asarray(alpha))


@pytest.mark.parametrize("command", COMMANDS)
def test_one_result_is_the_estimate_of_least_error(
    command: str, folder: Path, small_prior: Path, monkeypatch: Patch, capfd: Capture
) -> None:
    options = ["-o", "one.png", "--model", small_prior, "--steps", 2, "--json"]
    assert call(monkeypatch, command, "grey.png", *COMMANDS[command][0], *options) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["sampler"] == ("posterior_mean" if command == "denoise" else "renoising(averaging=0.5)")
    assert ("it is the mean of the pictures" if command == "denoise" else "it is one sample") in err


def test_a_file_is_restored_as_it_lies_and_judged_by_its_own_coefficients(
    folder: Path, photo: np.ndarray, small_prior: Path, monkeypatch: Patch, capfd: Capture
) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photo).rotate(90, expand=True).save("turned.jpg", quality=30, exif=exif, icc_profile=profile)
    options = ["--model", small_prior, "--steps", 1, "--json", "--truth", "photo.png"]
    assert call(monkeypatch, "dejpeg", "turned.jpg", *options) == 0
    out, err = capfd.readouterr()
    report = json.loads(out)
    assert report["inside"] > 0.95 and report["sampling"] == "4:2:0" and report["quality"] is None
    assert "lie in the file's cells" in err
    result = Image.open("turned.dejpeg.png")
    assert (result.size, result.info["icc_profile"]) == ((40, 48), profile)
    # a prior that knows nothing still cannot leave the cells: means of blocks are the picture's, not those of one turned otherwise
    means = [np.asarray(picture, float).reshape(6, 8, 5, 8, 3).mean(axis=(1, 3)) for picture in (result, photo)]
    assert np.abs(means[0] - means[1]).max() < 20 < np.abs(means[0][::-1] - means[1]).max()


def test_a_picture_that_was_no_jpeg_of_that_quality_is_warned_of(
    folder: Path, photo: np.ndarray, small_prior: Path, monkeypatch: Patch, capfd: Capture
) -> None:
    noisy = np.clip(photo + np.random.default_rng(0).normal(0, 25, photo.shape), 0, 255).astype(np.uint8)
    Image.fromarray(noisy).save("noisy.png")
    Image.fromarray(noisy).save("noisy.jpg", quality=20)
    Image.open("noisy.jpg").save("decoded.png")
    for name, warned in (("noisy.png", True), ("decoded.png", False)):
        assert call(monkeypatch, "dejpeg", name, "--quality", 20, "--model", small_prior, "--steps", 1) == 0
        assert ("hardly compressed so" in capfd.readouterr().err) == warned


# -- simulate -----------------------------------------------------------------------------------------------------------
def test_simulated_reductions_are_those_of_the_operator(folder: Path, photo: np.ndarray, monkeypatch: Patch) -> None:
    assert call(monkeypatch, "simulate", "superres", "photo.png", "-x", 4, "--kernel", "box", "-q") == 0
    expected = Downsample((3, 48, 40), 4, "box")(planes(photo / 255))[0].permute(1, 2, 0).numpy()
    assert np.array_equal(np.asarray(Image.open("photo.small.png")), np.rint(expected * 255))
    assert not Path("photo.truth.png").exists()
    assert call(monkeypatch, "simulate", "superres", "grey.png", "-x", 7, "-q") == 0
    assert (Image.open("grey.small.png").size, Image.open("grey.truth.png").size) == ((5, 6), (35, 42))


def test_simulated_blur_and_noise(folder: Path, photo: np.ndarray, monkeypatch: Patch, capfd: Capture) -> None:
    Image.fromarray(np.rint(255 * gaussian_psf(1.0).numpy() / gaussian_psf(1.0).max().item()).astype(np.uint8)).save(
        "psf.png"
    )
    for options in (["--sigma", "1"], ["--psf", "psf.png"]):
        assert call(monkeypatch, "simulate", "deblur", "photo.png", *options, "--noise", 0, "-f") == 0
        expected = Blur(gaussian_psf(1.0), (3, 48, 40), "reflect")(planes(photo / 255))[0].permute(1, 2, 0).numpy()
        assert np.abs(np.asarray(Image.open("photo.blurred.png")) - 255 * expected).max() < 1
        assert f"invsolve deblur photo.blurred.png {' '.join(options)}" in capfd.readouterr().err
    assert call(monkeypatch, "simulate", "denoise", "flat.png", "--sigma", 0.1) == 0
    assert np.asarray(Image.open("flat.noisy.png")).std() == pytest.approx(25.5, rel=0.1)


def test_simulated_compression_is_pillows(folder: Path, photo: np.ndarray, monkeypatch: Patch, capfd: Capture) -> None:
    assert call(monkeypatch, "simulate", "dejpeg", "photo.png", "-Q", 30, "-o", "out.jpg") == 0
    assert "invsolve dejpeg out.jpg" in capfd.readouterr().err
    assert np.array_equal(np.asarray(Image.open("out.jpg")), np.asarray(Image.open("web.jpg")))
    assert b"simulate dejpeg" in Image.open("out.jpg").info["comment"]
    assert call(monkeypatch, "simulate", "dejpeg", "grey.png", "--sampling", "4:4:4", "-q") == 0
    assert Image.open("grey.q20.jpg").mode == "L"
    assert call(monkeypatch, "simulate", "dejpeg", "photo.png", "-o", "out.jpg") == ExitCode.OUTPUT


def test_a_simulation_overwrites_nothing(folder: Path, monkeypatch: Patch) -> None:
    for command, options, name in (
        ("superres", [], "small"), ("deblur", ["--sigma", 1], "blurred"), ("denoise", [], "noisy")
    ):  # fmt: skip
        (folder / f"photo.{name}.png").write_bytes(b"precious")
        assert call(monkeypatch, "simulate", command, "photo.png", *options) == ExitCode.OUTPUT
        assert (folder / f"photo.{name}.png").read_bytes() == b"precious"


# -- bad input ----------------------------------------------------------------------------------------------------------
BAD = {
    "superres absent.png": (ExitCode.BAD_INPUT, "no such file"),
    "superres text.png": (ExitCode.BAD_INPUT, "not a picture"),
    "superres empty.png": (ExitCode.BAD_INPUT, "0 bytes"),
    "superres photo.png -x 1 -o x.png": (ExitCode.USAGE, "factor"),
    "superres photo.png -x 9 -o x.png": (ExitCode.USAGE, "factor"),
    "superres photo.png -x 2.5 -o x.png": (ExitCode.USAGE, "factor"),
    "superres photo.png --kernel lanczos": (ExitCode.USAGE, "kernel"),
    "superres photo.png --noise -1": (ExitCode.USAGE, "noise"),
    "superres photo.png": (ExitCode.OUTPUT, "--force"),
    "superres photo.png -o x.png --truth photo.png": (ExitCode.BAD_INPUT, "4 times as large"),
    "superres photo.png -o x.txt": (ExitCode.OUTPUT, ".png"),
    "superres photo.png -o x.png --model cats": (ExitCode.MODEL, "unknown model"),
    "superres photo.png -o x.png --model thumbnails": (ExitCode.MODEL, "colorize"),
    "superres photo.png -o x.png --model flowers64": (ExitCode.BAD_INPUT, "64 x 64 only"),
    "superres photo.png -o x.png --rule merged": (ExitCode.USAGE, "rule 'merged' is for"),
    "superres photo.png -o x.png --interval": (ExitCode.USAGE, "--interval"),
    "superres photo.png -o x.png --samples 0": (ExitCode.USAGE, "samples"),
    "deblur absent.png --sigma 1": (ExitCode.BAD_INPUT, "no such file"),
    "deblur photo.png": (ExitCode.USAGE, "no blur given"),
    "deblur photo.png --sigma 1 --motion 5,3": (ExitCode.USAGE, "--sigma and --motion together"),
    "deblur photo.png --sigma 0": (ExitCode.USAGE, "more than 0"),
    "deblur photo.png --sigma nan": (ExitCode.USAGE, "finite"),
    "deblur photo.png --sigma 40": (ExitCode.BAD_INPUT, "321 x 321 pixels, the picture 40 x 48"),
    "deblur photo.png --motion far": (ExitCode.USAGE, "LENGTH,ANGLE"),
    "deblur photo.png --motion 5,1,2": (ExitCode.USAGE, "LENGTH,ANGLE"),
    "deblur photo.png --motion -5,1": (ExitCode.USAGE, "LENGTH,ANGLE"),
    "deblur photo.png --psf absent.png": (ExitCode.BAD_INPUT, "no such file"),
    "deblur photo.png --psf text.png": (ExitCode.BAD_INPUT, "not a picture"),
    "deblur photo.png --psf text.npy": (ExitCode.BAD_INPUT, "damaged"),
    "deblur photo.png --psf black.png": (ExitCode.BAD_INPUT, "nothing but zeros"),
    "deblur photo.png --psf wide.png": (ExitCode.BAD_INPUT, "64 x 64 pixels, the picture 40 x 48"),
    "deblur photo.png --psf cube.npy": (ExitCode.BAD_INPUT, "3 dimensions"),
    "deblur photo.png --psf negative.npy": (ExitCode.BAD_INPUT, "negative values"),
    "deblur photo.png --psf nan.npy": (ExitCode.BAD_INPUT, "NaN"),
    "deblur photo.png --sigma 1 --noise 2": (ExitCode.USAGE, "noise"),
    "deblur photo.png --sigma 1 --truth wide.png": (ExitCode.BAD_INPUT, "--truth"),
    "denoise absent.png": (ExitCode.BAD_INPUT, "no such file"),
    "denoise text.png": (ExitCode.BAD_INPUT, "not a picture"),
    "denoise .": (ExitCode.USAGE, "is a folder, and there is no -o"),
    "denoise flat.png": (ExitCode.BAD_INPUT, "--sigma 0.05"),
    "denoise photo.png --sigma -0.1": (ExitCode.USAGE, "sigma"),
    "denoise photo.png --sigma nan": (ExitCode.USAGE, "--sigma"),
    "denoise photo.png --sigma 26": (ExitCode.USAGE, "sigma"),
    "denoise photo.png --truth grey.png": (ExitCode.BAD_INPUT, "--truth"),
    "denoise photo.png -o x.gif": (ExitCode.OUTPUT, ".png"),
    "denoise photo.png --model ct": (ExitCode.MODEL, "1 channel"),
    "denoise photo.png --sigma 0.1 --model SMALL --rule magic": (ExitCode.USAGE, "known rules"),
    "denoise photo.png --sigma 0.1 --model SMALL --sampler x": (ExitCode.USAGE, "known samplers"),
    "denoise photo.png --sigma 0.1 --calibration absent.json --samples 2 --model SMALL": (
        ExitCode.BAD_INPUT,
        "no such",
    ),
    "denoise photo.png --sigma 0.1 --calibration shipped --samples 2 --model SMALL": (ExitCode.USAGE, "shipped"),
    "dejpeg absent.jpg": (ExitCode.BAD_INPUT, "no such file"),
    "dejpeg photo.png": (ExitCode.BAD_INPUT, "is not a JPEG file"),
    "dejpeg text.png": (ExitCode.BAD_INPUT, "not a picture"),
    "dejpeg empty.png": (ExitCode.BAD_INPUT, "0 bytes"),
    "dejpeg cut.jpg": (ExitCode.BAD_INPUT, "damaged"),
    "dejpeg frame.jpg": (ExitCode.BAD_INPUT, "damaged"),
    "dejpeg cmyk.jpg": (ExitCode.BAD_INPUT, "4 components"),
    "dejpeg photo.png --quality 0": (ExitCode.USAGE, "quality"),
    "dejpeg photo.png --quality 101": (ExitCode.USAGE, "quality"),
    "dejpeg photo.png --quality good": (ExitCode.USAGE, "quality"),
    "dejpeg photo.png --quality 20 --sampling 4:1:0": (ExitCode.USAGE, "sampling"),
    "dejpeg web.jpg --sampling 4:2:0": (ExitCode.USAGE, "--sampling without --quality"),
    "dejpeg done.jpg": (ExitCode.OUTPUT, "--force"),
    "dejpeg web.jpg --truth wide.png": (ExitCode.BAD_INPUT, "--truth"),
    "dejpeg web.jpg -o x.gif": (ExitCode.OUTPUT, ".png"),
    "dejpeg web.jpg --model ct": (ExitCode.MODEL, "1 channel"),
    "dejpeg web.jpg --model flowers64": (ExitCode.BAD_INPUT, "64 x 64 only"),
    "dejpeg web.jpg --model SMALL --rule proximal": (ExitCode.USAGE, "Gaussian noise is needed"),
    "dejpeg web.jpg --interval": (ExitCode.USAGE, "--interval"),
    "simulate dejpeg absent.png": (ExitCode.BAD_INPUT, "no such file"),
    "simulate dejpeg photo.png -Q 0": (ExitCode.USAGE, "quality"),
    "simulate dejpeg photo.png -o x.png": (ExitCode.OUTPUT, ".jpg"),
    "simulate superres absent.png": (ExitCode.BAD_INPUT, "no such file"),
    "simulate superres black.png -x 8": (ExitCode.BAD_INPUT, "larger picture"),
    "simulate deblur photo.png": (ExitCode.USAGE, "no blur given"),
    "simulate denoise photo.png --sigma 2": (ExitCode.USAGE, "sigma"),
}


@pytest.mark.parametrize("line", list(BAD))
def test_bad_input(line: str, folder: Path, small_prior: Path, monkeypatch: Patch, capfd: Capture) -> None:
    before = tree(folder)
    code, message = BAD[line]
    assert call(monkeypatch, *line.replace("SMALL", str(small_prior)).split()) == code
    out, err = capfd.readouterr()
    assert out == "" and message in err and "Traceback" not in err
    if code != ExitCode.USAGE:
        assert any(text.startswith("error: ") for text in err.splitlines())
        assert any(text.startswith("hint: ") for text in err.splitlines())
    assert tree(folder) == before


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_leaves_nothing_behind(folder: Path, small_prior: Path) -> None:
    before = tree(folder)
    arguments = ["deblur", "photo.png", "--sigma", 1, "--model", small_prior, "--steps", 100000]
    process = subprocess.Popen(
        [sys.executable, "-m", "invsolve.cli.main", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    assert "photo.png" in process.stderr.readline()
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (ExitCode.INTERRUPTED, "")
    assert err.splitlines()[-1] == "interrupted" and "Traceback" not in err
    assert tree(folder) == before


def test_help_needs_no_torch() -> None:
    code = (
        "import sys\nfrom invsolve.cli.main import main\nfor command in ('superres', 'deblur', 'denoise', 'dejpeg'):\n"
    )
    code += "    sys.argv = ['invsolve', command, '--help']\n    try:\n        main()\n    except SystemExit:\n        pass\n"
    code += "assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(f"invsolve {command} " in done.stdout for command in COMMANDS)
