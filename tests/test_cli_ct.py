"""``invsolve ct`` and ``invsolve simulate``: good runs, what is announced, bad input."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from calling import Run
from PIL import Image
from skimage.transform import radon

from invsolve.cli.main import main
from invsolve.errors import ExitCode
from invsolve.forward_models import Geometry, even_angles, projector
from invsolve.pretrained import Card
from invsolve.uncertainty.conformal import Calibration, LeftOut
from invsolve.uncertainty.intervals import standard_deviation

COMMAND = [sys.executable, "-m", "invsolve.cli.main"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVSOLVE_CACHE", str(tmp_path_factory.mktemp("cache")))


def body(size: int = 48) -> np.ndarray:
    """A lopsided body in n."""
    y, x = (np.mgrid[:size, :size] - (size - 1) / 2) / (size / 2)
    out = np.where((x / 0.8) ** 2 + (y / 0.6) ** 2 < 1, 0.5, 0.0)
    return np.where((x - 0.3) ** 2 + (y - 0.2) ** 2 < 0.03, 0.8, out).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    geometry = Geometry(even_angles(20), 71, (48, 48))
    np.save(tmp_path / "sino.npy", projector(geometry)(torch.from_numpy(body())[None, None])[0].numpy())
    np.save(tmp_path / "truth.npy", 2000 * body() - 1000)
    (tmp_path / "geometry.toml").write_text(geometry.to_toml())
    return tmp_path


def test_the_result_is_the_mean_in_hounsfield_units_with_all_that_belongs_to_it(
    folder: Path, ct_prior: Path, run: Run
) -> None:
    done = run(
        "ct", folder / "sino.npy", "--model", ct_prior, "--steps", 3, "--samples", 3, "--truth", folder / "truth.npy",
        "--views", 10, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for said in ("parallel beam, 20 views over 180 degrees", "using 10 of 20 views", "HU = 2000 n - 1000", "mean of 3"):
        assert said in done.stderr
    endings = [".npy", ".tif", ".png", ".compare.png", ".residual.png", ".json", ".std.npy", ".std.png", ".samples.npy"]
    written = {p.name for p in folder.glob("sino.ct*")}
    assert written == {f"sino.ct{ending}" for ending in endings}
    result, samples = np.load(folder / "sino.ct.npy"), np.load(folder / "sino.ct.samples.npy")
    assert result.shape == (48, 48)
    assert samples.shape == (3, 48, 48)
    np.testing.assert_allclose(result, samples.mean(axis=0), atol=0.1)
    spread = standard_deviation(torch.from_numpy(samples), antithetic=True)
    np.testing.assert_allclose(np.load(folder / "sino.ct.std.npy"), spread, atol=0.1)
    np.testing.assert_array_equal(tifffile.imread(folder / "sino.ct.tif"), result)
    assert "invsolve" in tifffile.TiffFile(folder / "sino.ct.tif").pages[0].description
    report = json.loads(done.stdout)
    assert report == json.loads((folder / "sino.ct.json").read_text())
    assert set(report["scores"]) == {"FBP", "TV", "mean of 3"}
    assert set(report["scores"]["TV"]) == {"psnr", "ssim", "rmse_hu"}
    assert report["scores"]["TV"]["psnr"] > report["scores"]["FBP"]["psnr"]
    assert json.loads(Image.open(folder / "sino.ct.png").text["invsolve"])["model"] == "small-ct"  # type: ignore[attr-defined]
    again = run("ct", folder / "sino.npy", "--model", ct_prior)
    assert again.returncode == ExitCode.OUTPUT
    assert "--force" in again.stderr


@pytest.mark.parametrize("method", ["fbp", "sirt", "cgls", "tv"])
def test_classical_methods_alone_need_no_prior(method: str, folder: Path, run: Run) -> None:
    done = run("ct", folder / "sino.npy", "--method", method, "--truth", folder / "truth.npy", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["network_calls"] == 0
    error = np.load(folder / "sino.ct.npy") - np.load(folder / "truth.npy")
    assert np.sqrt((error**2).mean()) < 220


def test_scikit_image_sinogram_comes_out_upright_and_in_place(tmp_path: Path, run: Run) -> None:
    np.save(tmp_path / "sk.npy", radon(body(), theta=np.arange(0, 180, 3.0), circle=True))
    done = run("ct", tmp_path / "sk.npy", "--method", "tv")
    assert done.returncode == 0, done.stderr
    assert "scikit-image" in done.stderr
    result = np.load(tmp_path / "sk.ct.npy")
    truth = 2000 * body() - 1000
    size = min(result.shape[0], 48)
    cut = [(n - size) // 2 for n in (result.shape[0], 48)]
    a = result[cut[0] : cut[0] + size, cut[0] : cut[0] + size]
    b = truth[cut[1] : cut[1] + size, cut[1] : cut[1] + size]
    fit, *others = (np.corrcoef(t.ravel(), b.ravel())[0, 1] for t in (a, a[::-1], a[:, ::-1], a.T, np.roll(a, 1, 1)))
    assert fit > 0.97
    assert fit > max(others) + 0.005


def test_a_stack_and_physical_units(folder: Path, ct_prior: Path, run: Run) -> None:
    sino = np.load(folder / "sino.npy")
    physical = np.stack([sino, sino[:, ::-1]]) * 2 * 0.0192 * 2.0
    tifffile.imwrite(folder / "stack.tif", physical.astype(np.float32))
    done = run(
        "ct", folder / "stack.tif", "--units", "attenuation", "--pixel-size", 2, "--model", ct_prior, "--steps", 2,
        "--samples", 2, "--size", 48,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "water 0.0192 per mm, pixels of 2 mm" in done.stderr
    stack = np.load(folder / "stack.ct.npy")
    assert stack.shape == (2, 48, 48)
    assert np.load(folder / "stack.ct.samples.npy").shape == (2, 2, 48, 48)
    inside = np.s_[:, 20:28, 20:28]
    assert abs(float(stack[inside].mean())) < 150


def test_simulated_counts_run_with_the_command_that_is_printed(folder: Path, ct_prior: Path, run: Run) -> None:
    done = run("simulate", "ct", folder / "truth.npy", "--views", 12, "--i0", 1e5, "--pixel-size", 2)
    assert done.returncode == 0, done.stderr
    command = done.stderr.strip().splitlines()[-1].removeprefix("now: invsolve ").split()
    again = run(*command, "--model", ct_prior, "--steps", 2, "--samples", 2, "--json")
    assert again.returncode == 0, again.stderr
    report = json.loads(again.stdout)
    assert report["chi2"] > 0
    assert "photon counts, I0 = 100000" in again.stderr
    counts = np.load(folder / "truth.sinogram.npy")
    assert np.array_equal(counts, counts.round())
    assert counts.max() <= 1.05e5


def test_center_auto_finds_a_shifted_axis(folder: Path, run: Run) -> None:
    geometry = Geometry(even_angles(40), 71, (48, 48), center=37.5)
    np.save(folder / "off.npy", projector(geometry)(torch.from_numpy(body())[None, None])[0].numpy())
    done = run("ct", folder / "off.npy", "--method", "fbp", "--center", "auto", "--size", 48)
    assert done.returncode == 0, done.stderr
    assert "centre of rotation at bin 37.5" in done.stderr


def test_simulate_inpaint_and_colorize_write_what_the_commands_take(
    tmp_path: Path, photo: np.ndarray, run: Run
) -> None:
    Image.fromarray(photo).save(tmp_path / "photo.png")
    done = run("simulate", "inpaint", tmp_path / "photo.png", "--pixels", 0.5)
    assert done.returncode == 0, done.stderr
    mask, damaged = (np.asarray(Image.open(tmp_path / f"photo.{part}.png")) for part in ("mask", "damaged"))
    assert 0.45 < (mask == 255).mean() < 0.55
    assert np.array_equal(damaged[mask == 0], photo[mask == 0])
    assert run("simulate", "colorize", tmp_path / "photo.png").returncode == 0
    assert Image.open(tmp_path / "photo.grey.png").mode == "L"
    assert run("simulate", "colorize", tmp_path / "photo.png").returncode == ExitCode.OUTPUT


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit code of ``invsolve ct`` in this process, quicker than one of its own."""
    monkeypatch.setattr(sys, "argv", ["invsolve", "ct", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


def test_the_interval_is_written_in_hounsfield_units_with_what_the_scan_is_blind_to(
    folder: Path, ct_prior: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = [folder / "sino.npy", "--model", ct_prior, "--steps", 2, "--samples", 3, "--noise", 0.05, "--json"]
    assert call(monkeypatch, *arguments, "--interval", "--diagnostics", folder / "run.png") == 0
    out, err = capfd.readouterr()
    report = json.loads(out)
    samples = np.load(folder / "sino.ct.samples.npy")
    np.testing.assert_allclose(np.load(folder / "sino.ct.low.npy"), samples.min(axis=0), atol=0.01)
    np.testing.assert_allclose(np.load(folder / "sino.ct.high.npy"), samples.max(axis=0), atol=0.01)
    std, blind = np.load(folder / "sino.ct.std.npy"), np.load(folder / "sino.ct.std-prior.npy")
    assert blind.shape == std.shape
    assert report["uncertainty"]["prior_share_of_variance"] == pytest.approx(
        (blind**2).sum() / (std**2).sum(), abs=0.02
    )
    assert 0.1 < report["uncertainty"]["determined"] < 20 * 71 / 48**2
    assert report["uncertainty"]["interval"]["level"] == pytest.approx(0.5)
    assert report["uncertainty"]["interval"]["mean_width"] == pytest.approx(np.ptp(samples, axis=0).mean(), rel=1e-3)
    assert "level 50.0%" in err
    assert "the data determine" in err
    # A network that was not trained does not fit; the sentence is said and kept.
    assert "chi-squared per value" in report["warning"]
    assert f"warning: {report['warning']}" in err
    assert len(report["diagnostics"]["misfit"]) == 2
    assert {str(folder / "run.png"), str(folder / "sino.ct.low.npy")} <= set(report["outputs"])
    assert Image.open(folder / "run.png").size == (480, 320)
    assert report == json.loads((folder / "sino.ct.json").read_text())


def test_a_calibration_scales_the_interval_of_a_slice(
    folder: Path, ct_prior: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    sha = Card.read(ct_prior / "card.json").sha256
    learned = Calibration(
        task="ct", prior_sha256=sha, rule="proximal", sampler="renoising(momentum=0.6)", steps=2, samples=3, level=0.9,
        factor=3.0,
        groups=[LeftOut("patient", 0.4, 0.9, 3.0)], problem={"views": 20, "noise": 0.0, "photons": 0.0},
        where="the body",
    )  # fmt: skip
    learned.save(folder / "c.json")
    arguments = [folder / "sino.npy", "--model", ct_prior, "--steps", 2, "--samples", 3, "--noise", 0, "--json"]
    arguments += ["--sampler", "renoising(momentum=0.6)"]  # with noise it is another by default
    assert call(monkeypatch, *arguments, "--calibration", folder / "c.json") == 0
    out, err = capfd.readouterr()
    samples = np.sort(np.load(folder / "sino.ct.samples.npy"), axis=0)
    np.testing.assert_allclose(
        np.load(folder / "sino.ct.low.npy"), samples[1] - 3 * (samples[1] - samples[0]), atol=0.1
    )
    assert json.loads(out)["uncertainty"]["interval"]["calibration"]["factor"] == 3
    assert "scaled by 3 to cover 90% of the body" in err
    assert "learned on other measurements" not in err
    arguments[arguments.index("--noise") + 1] = 0.1
    assert call(monkeypatch, *arguments, "--calibration", folder / "c.json", "--force") == 0
    assert "warning: the calibration was learned on other measurements: noise" in capfd.readouterr().err


def test_a_wrong_centre_is_warned_of_by_every_method(
    folder: Path, ct_prior: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    noisy = np.load(folder / "sino.npy") + 0.2 * np.random.default_rng(0).standard_normal((20, 71))
    np.save(folder / "noisy.npy", noisy)
    few = ["--model", ct_prior, "--steps", 2, "--samples", 1]
    for method in ("fbp", "sirt", "cgls", "tv", "score"):
        for name, noise in (("noisy.npy", 0.2), ("sino.npy", 0)):
            for center, wrong in ((35, False), (39, True)):
                arguments = [
                    folder / name,
                    "--method",
                    method,
                    "--noise",
                    noise,
                    "--center",
                    center,
                    "--force",
                    "--json",
                ]
                assert call(monkeypatch, *arguments, *(few if method == "score" else [])) == 0
                out, err = capfd.readouterr()
                warning = json.loads(out)["warning"]
                if method == "score" and noise:  # a network that was not trained does not fit either
                    assert warning
                else:
                    assert ("does not explain the sinogram" in (warning or "")) == wrong, (
                        method,
                        noise,
                        center,
                        warning,
                    )
                assert (f"warning: {warning}" in err) == bool(warning)


@pytest.mark.parametrize("ending", [".npy", ".tif", ".tiff", ".png"])
def test_the_output_that_was_asked_for_is_named(
    ending: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    output = folder / f"out{ending}"
    assert call(monkeypatch, folder / "sino.npy", "--method", "fbp", "-o", output) == 0
    assert f"wrote {output} in HU" in capfd.readouterr().err
    assert output.is_file()


def test_astras_fan_beam_sinogram_comes_out_upright_with_astras_angles(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import astra

    radians = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    theirs = astra.create_proj_geom("fanflat", 2.0, 101, radians, 120.0, 80.0)
    _, sinogram = astra.create_sino(
        body(), astra.create_projector("line_fanflat", theirs, astra.create_vol_geom(48, 48))
    )
    np.save(folder / "fan.npy", sinogram.T)
    (folder / "fan.toml").write_text(
        'kind = "fan"\nangle_unit = "radians"\nangles = { first = 0.0, last = 6.283185307179586, count = 60 }\n'
        "detectors = 101\nshape = [48, 48]\ndetector_spacing = 2.0\nsource_distance = 120.0\ndetector_distance = 80.0\n"
    )
    scan = [folder / "fan.npy", "--geometry", folder / "fan.toml", "--axis", "detectors,views"]
    assert call(monkeypatch, *scan, "--method", "sirt", "--truth", folder / "truth.npy", "--json") == 0
    out, err = capfd.readouterr()
    assert "given: fan beam, 60 views 0 to 354 counter-clockwise, axes (detectors,views), 101 bins of 2 mm" in err
    assert json.loads(out)["warning"] is None
    assert json.loads(out)["scores"]["SIRT"]["rmse_hu"] < 60
    assert call(monkeypatch, *scan, "--method", "fbp", "--center", "auto", "--force") == ExitCode.USAGE
    assert "--center auto with a fan beam" in capfd.readouterr().err


def test_views_around_the_whole_turn_reconstruct_like_those_of_half(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sino = np.load(folder / "sino.npy")
    np.save(folder / "turn.npy", np.concatenate([sino, sino[:, ::-1]]))
    assert call(monkeypatch, folder / "turn.npy", "--angles", "0:360", "--method", "fbp", "--size", 48) == 0
    assert call(monkeypatch, folder / "sino.npy", "--method", "fbp", "--size", 48) == 0
    np.testing.assert_allclose(np.load(folder / "turn.ct.npy"), np.load(folder / "sino.ct.npy"), atol=2)


def _tiff_with(folder: Path, sino: np.ndarray, tag: str, value: int) -> Path:
    """A TIFF of the sinogram with another number in a tag of its header."""
    path = folder / "damaged.tif"
    tifffile.imwrite(path, sino.astype(np.float32))
    with tifffile.TiffFile(path) as tiff:
        found = tiff.pages[0].tags[tag]
        offset, size = found.valueoffset, {3: 2, 4: 4}[int(found.dtype)]
    content = bytearray(path.read_bytes())
    content[offset : offset + size] = value.to_bytes(size, "little")
    path.write_bytes(content)
    return path


DAMAGED: dict[str, Callable[[Path, np.ndarray], Path]] = {
    "zero width": lambda f, s: _tiff_with(f, s, "ImageWidth", 0),
    "zero height": lambda f, s: _tiff_with(f, s, "ImageLength", 0),
    "enormous": lambda f, s: _tiff_with(f, s, "ImageLength", 4_000_000_000),
    "larger than the file": lambda f, s: _tiff_with(f, s, "ImageLength", 3000),
    "bits 99": lambda f, s: _tiff_with(f, s, "BitsPerSample", 99),
    "zstd without its codec": lambda f, s: _tiff_with(f, s, "Compression", 50000),
    "cut tiff": lambda f, s: _cut(f, s, "cut.tif"),
    "cut npz": lambda f, s: _cut(f, s, "cut.npz"),
    "objects": lambda f, s: _write(f, "o.npy", np.array([[{}, {}]], dtype=object)),
    "one number": lambda f, s: _write(f, "0.npy", np.array(3.0)),
    "no values": lambda f, s: _write(f, "e.npy", np.zeros((0, 71))),
    "complex": lambda f, s: _write(f, "c.npy", s * 1j),
    "text": lambda f, s: _write(f, "u.npy", np.array([["a", "b"]])),
    "beyond float32": lambda f, s: _write(f, "b.npy", np.where(s > 9, 1e300, s.astype(float))),
    "squares beyond float32": lambda f, s: _write(f, "b.npy", np.where(s > 9, 1e38, s.astype(float))),
    "long double": lambda f, s: _write(f, "l.npy", np.full((9, 9), 1e308, np.longdouble) * 100),
    "a pipe": lambda f, s: os.mkfifo(f / "pipe.npy") or f / "pipe.npy",
    "a device": lambda f, s: Path("/dev/zero"),
}


def _cut(folder: Path, sino: np.ndarray, name: str) -> Path:
    whole = folder / name
    np.savez(whole, sinogram=sino) if name.endswith("npz") else tifffile.imwrite(whole, sino)
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 3])
    return whole


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize("option", ["SINOGRAM", "--truth", "--angles", "--geometry"])
def test_a_damaged_file_is_one_error_and_nothing_else_on_the_terminal(
    damage: Callable[[Path, np.ndarray], Path], option: str, folder: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    path = damage(folder, np.load(folder / "sino.npy"))
    arguments = [path] if option == "SINOGRAM" else [folder / "sino.npy", option, path]
    code = call(monkeypatch, *arguments, "--method", "fbp")
    out, err = capfd.readouterr()
    assert code == ExitCode.BAD_INPUT, err
    lines = [line for line in err.splitlines() if not line.startswith(("assumed", "given", "units", "noise"))]
    assert [line.split(":")[0] for line in lines] == ["error", "hint"], err
    assert not out
    assert not [str(w.message) for w in recwarn]
    assert not caplog.records


def test_a_codec_that_is_not_there_is_not_called_damage(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if importlib.util.find_spec("imagecodecs"):
        pytest.skip("the codec is there")
    call(monkeypatch, _tiff_with(folder, np.load(folder / "sino.npy"), "Compression", 50000))
    assert "compressed" in capfd.readouterr().err


def _write(folder: Path, name: str, array: np.ndarray) -> Path:
    np.save(folder / name, array)
    return folder / name


BAD = {
    "missing": (lambda f, s: ["none.npy"], ExitCode.BAD_INPUT, "no such file"),
    "empty": (lambda f, s: [(f / "e.npy").write_bytes(b"") or "e.npy"][:0] + ["e.npy"], ExitCode.BAD_INPUT, "0 bytes"),
    "truncated": (
        lambda f, s: [(f / "t.npy").write_bytes((f / "sino.npy").read_bytes()[:999]) and "t.npy"],
        ExitCode.BAD_INPUT,
        "damaged or truncated",
    ),
    "pickled": (lambda f, s: [_write(f, "o.npy", np.array([{}], dtype=object))], ExitCode.BAD_INPUT, "damaged"),
    "a picture": (lambda f, s: [f / "x.png"], ExitCode.BAD_INPUT, "no such file"),
    "nan": (lambda f, s: [_write(f, "n.npy", np.where(s > 9, np.nan, s))], ExitCode.BAD_INPUT, "NaN or infinite"),
    "inf": (lambda f, s: [_write(f, "i.npy", np.where(s > 9, np.inf, s))], ExitCode.BAD_INPUT, "NaN or infinite"),
    "complex": (lambda f, s: [_write(f, "c.npy", s * 1j)], ExitCode.BAD_INPUT, "complex"),
    "four dimensions": (lambda f, s: [_write(f, "d.npy", s[None, None])], ExitCode.BAD_INPUT, "4 dimensions"),
    "one dimension": (lambda f, s: [_write(f, "d.npy", s[0])], ExitCode.BAD_INPUT, "1 dimensions"),
    "wrong axis": (lambda f, s: [_write(f, "a.npy", s.T), "--axis", "views,detectors"], ExitCode.BAD_INPUT, "--axis"),
    "transposed for the geometry": (
        lambda f, s: [_write(f, "a.npy", s.T), "--geometry", f / "geometry.toml"],
        ExitCode.BAD_INPUT,
        "(views, detectors) = (20, 71)",
    ),
    "too many views": (lambda f, s: ["sino.npy", "--views", 21], ExitCode.BAD_INPUT, "21 views wanted"),
    "no views": (lambda f, s: ["sino.npy", "--views", 0], ExitCode.USAGE, "views"),
    "radians": (lambda f, s: ["sino.npy", "--angles", "0:3.14159"], ExitCode.BAD_INPUT, "radians"),
    "angles of another scan": (
        lambda f, s: ["sino.npy", "--angles", _angles(f, 19)],
        ExitCode.BAD_INPUT,
        "19 angles for a sinogram with 20 views",
    ),
    "negative counts": (
        lambda f, s: [_write(f, "c.npy", s - 5), "--units", "counts", "--i0", 100, "--pixel-size", 1, "--axis", "views,detectors"],
        ExitCode.BAD_INPUT,
        "negative",
    ),
    "counts without i0": (
        lambda f, s: ["sino.npy", "--units", "counts", "--pixel-size", 1], ExitCode.USAGE, "--i0",
    ),
    "wrong unit": (lambda f, s: [_write(f, "u.npy", s * 0.04)], ExitCode.BAD_INPUT, "--units attenuation"),
    "hounsfield unit sinogram": (lambda f, s: [_write(f, "u.npy", s * 2000)], ExitCode.BAD_INPUT, "bright end"),
    "sign turned": (lambda f, s: [_write(f, "n.npy", -s)], ExitCode.BAD_INPUT, "on average"),
    "no pixel size": (lambda f, s: ["sino.npy", "--units", "attenuation"], ExitCode.USAGE, "--pixel-size"),
    "unknown units": (lambda f, s: ["sino.npy", "--units", "furlongs"], ExitCode.USAGE, "furlongs"),
    "unknown method": (lambda f, s: ["sino.npy", "--method", "magic"], ExitCode.USAGE, "magic"),
    "truth of another size": (
        lambda f, s: ["sino.npy", "--truth", _write(f, "t.npy", np.zeros((3, 48, 48)))], ExitCode.BAD_INPUT, "--truth",
    ),
    "no geometry file": (lambda f, s: ["sino.npy", "--geometry", "g.toml"], ExitCode.BAD_INPUT, "no such file"),
    "photo prior": (lambda f, s: ["sino.npy", "--model", "photos"], ExitCode.MODEL, "channels"),
    "centre off the detector": (lambda f, s: ["sino.npy", "--center", 400], ExitCode.BAD_INPUT, "off the detector"),
    "two arrays": (
        lambda f, s: [np.savez(f / "two.npz", a=s, b=s) or "two.npz"], ExitCode.BAD_INPUT, "2 arrays",
    ),
    "interval of a classical method": (
        lambda f, s: ["sino.npy", "--method", "tv", "--interval"], ExitCode.USAGE, "--method score",
    ),
    "interval of one sample": (lambda f, s: ["sino.npy", "--samples", 1, "--interval"], ExitCode.USAGE, "--samples 19"),
    "diagnostics over the result": (
        lambda f, s: ["sino.npy", "--diagnostics", f / "sino.ct.png"], ExitCode.OUTPUT, "name of a result",
    ),
    "noise beyond measure": (lambda f, s: ["sino.npy", "--noise", "1e300"], ExitCode.USAGE, "--noise"),
    "noise nan": (lambda f, s: ["sino.npy", "--noise", "nan"], ExitCode.USAGE, "--noise"),
    "angles to infinity": (lambda f, s: ["sino.npy", "--angles", "0:inf"], ExitCode.USAGE, "--angles"),
    "angles with a comment only": (lambda f, s: ["sino.npy", "--angles", _comment(f)], ExitCode.BAD_INPUT, "0 angles"),
    "pixels of no size": (
        lambda f, s: ["sino.npy", "--units", "attenuation", "--pixel-size", "1e-300"], ExitCode.BAD_INPUT, "a width in mm",
    ),
    "water of no weight": (
        lambda f, s: ["sino.npy", "--units", "attenuation", "--pixel-size", 1, "--mu-water", "1e-320"],
        ExitCode.BAD_INPUT,
        "values up to",
    ),
    "enormous slice": (lambda f, s: ["sino.npy", "--size", 10**6], ExitCode.BAD_INPUT, "would take 3.73e+03 GiB"),
    "text window": (lambda f, s: ["sino.npy", "--window", "bone"], ExitCode.USAGE, "--window"),
}  # fmt: skip


def _comment(folder: Path) -> Path:
    (folder / "angles.txt").write_text("# degrees\n")
    return folder / "angles.txt"


def _angles(folder: Path, count: int) -> Path:
    np.savetxt(folder / "angles.txt", np.linspace(0, 180, count, endpoint=False))
    return folder / "angles.txt"


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
def test_bad_input_is_one_line_with_a_way_out(
    case: tuple, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments, code, said = case
    given = arguments(folder, np.load(folder / "sino.npy"))
    before = {p.name for p in folder.iterdir()}
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["invsolve", "ct", *map(str, given)])
    with pytest.raises(SystemExit) as stop:  # in this process: starting one for each would take minutes
        main()
    out, err = capfd.readouterr()
    assert stop.value.code == code, err
    assert said in err
    assert "Traceback" not in err
    assert out == ""
    assert "hint: " in err or "Usage:" in err
    assert {p.name for p in folder.iterdir()} == before


def test_simulate_refuses_what_is_not_a_slice(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    np.save(folder / "volume.npy", np.zeros((3, 8, 8)))
    for arguments, said in ((["volume.npy"], "3 dimensions"), (["truth.npy", "--i0", "1e5", "--noise", "1"], "--i0")):
        done = run("simulate", "ct", *arguments)
        assert done.returncode in (ExitCode.USAGE, ExitCode.BAD_INPUT)
        assert said in done.stderr
