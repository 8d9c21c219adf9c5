"""``invsolve evaluate``: figures as the commands have them, files matched by names, and what does not fit is said."""

from __future__ import annotations

import csv
import json
import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from typer.testing import CliRunner

from invsolve.cli.main import app
from invsolve.errors import ExitCode, InvsolveError
from invsolve.evaluation.comparison import HOUNSFIELD, compare, mean_with_error, range_of


def evaluate(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def refused(*arguments: object) -> InvsolveError:
    found = evaluate(*arguments).exception
    assert isinstance(found, InvsolveError), found
    return found


def noisy(picture: np.ndarray, sigma: float, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(scale=sigma, size=picture.shape)
    return np.clip(np.rint(picture + noise), 0, 255).astype(np.uint8)


@pytest.fixture
def folders(tmp_path: Path, photo: np.ndarray) -> Path:
    """Three truths, and of each a sample and a mean that is nearer to it."""
    for name in ("clean", "found"):
        (tmp_path / name).mkdir()
    for k in range(3):
        Image.fromarray(photo).save(tmp_path / "clean" / f"p{k}.png")
        Image.fromarray(noisy(photo, 6 + 4 * k, k)).save(tmp_path / "found" / f"p{k}.denoise.png")
        Image.fromarray(noisy(photo, 3 + 2 * k, k)).save(tmp_path / "found" / f"p{k}.denoise.mean.png")
        Image.fromarray(photo[..., 0]).save(tmp_path / "found" / f"p{k}.denoise.std.png")
    return tmp_path


def test_figures_of_a_picture_are_those_of_the_formulas(tmp_path: Path, photo: np.ndarray) -> None:
    result = noisy(photo, 8)
    Image.fromarray(photo).save(tmp_path / "a.png")
    Image.fromarray(result).save(tmp_path / "b.png")
    done = evaluate(tmp_path / "b.png", "--truth", tmp_path / "a.png", "--json")
    (found,) = json.loads(done.stdout)["files"]
    rmse = np.sqrt(np.mean((photo / 255 - result / 255) ** 2))
    assert found["rmse"] == pytest.approx(rmse, rel=1e-5)
    assert found["psnr"] == pytest.approx(-20 * np.log10(rmse), rel=1e-5)
    assert found["unit"] == "of the range"


def test_a_folder_is_averaged_by_kind_with_standard_errors(folders: Path) -> None:
    arguments = [folders / "found", "--truth", folders / "clean"]
    report = json.loads(evaluate(*arguments, "--json", "--csv", folders / "s.csv").stdout)
    assert [one["group"] for one in report["files"]] == ["denoise.mean", "denoise"] * 3  # the maps are no results
    assert report["worst"].endswith("p2.denoise.png")
    psnrs = [one["psnr"] for one in report["files"] if one["group"] == "denoise"]
    mean = next(one for one in report["means"] if one["group"] == "denoise")["psnr"]
    assert mean["mean"] == pytest.approx(np.mean(psnrs), abs=1e-4)
    assert mean["error"] == pytest.approx(np.std(psnrs, ddof=1) / np.sqrt(3), abs=1e-4)
    rows = list(csv.DictReader((folders / "s.csv").open()))
    assert [float(row["psnr"]) for row in rows] == [one["psnr"] for one in report["files"]]
    table = evaluate(*arguments).stdout
    assert "denoise.mean: mean of 3 ± standard error" in table


def test_errors_are_drawn_on_one_scale(folders: Path, photo: np.ndarray) -> None:
    done = evaluate(folders / "found", "--truth", folders / "clean", "--pictures", folders / "errors", "--json")
    assert done.exit_code == 0
    picture = Image.open(folders / "errors" / "p1.denoise.error.png")
    white = json.loads(picture.text["invsolve"])["error_white"]  # type: ignore[attr-defined]
    assert white == pytest.approx(3 * max(one["rmse"] for one in json.loads(done.stdout)["files"]), rel=1e-5)
    height, width = photo.shape[:2]
    strip = np.asarray(picture)[16:]
    assert strip.shape == (height, 3 * width, 3)
    assert np.array_equal(strip[:, :width], photo)
    result = np.asarray(Image.open(folders / "found" / "p1.denoise.png"))
    error = np.sqrt((((result / 255.0) - photo / 255.0) ** 2).mean(axis=2)) / white
    assert np.abs(strip[:, 2 * width :, 0] / 255 - np.clip(error, 0, 1)).max() < 0.01
    assert refused(folders / "found", "--truth", folders / "clean", "--pictures", folders / "errors").exit_code == 5


def slices(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:24, :24]
    truth = np.stack([1000 * np.sin(x / 5 + k) * np.cos(y / 4) for k in range(2)]).astype(np.float32)
    result = truth + np.random.default_rng(0).normal(scale=60, size=truth.shape).astype(np.float32)
    np.save(folder / "slice.npy", truth)
    np.save(folder / "slice.ct.npy", result)
    return truth, result


def test_slices_are_judged_as_ct_judges_them(tmp_path: Path) -> None:
    from invsolve.cli.ct_results import score_slices

    truth, result = slices(tmp_path)
    arguments = [tmp_path / "slice.ct.npy", "--truth", tmp_path / "slice.npy", "--json"]
    wanted = score_slices(truth, {"ours": result})["ours"]
    (plain,) = json.loads(evaluate(*arguments).stdout)["files"]
    (named,) = json.loads(evaluate(*arguments, "--data-range", "HU").stdout)["files"]
    (tmp_path / "slice.ct.json").write_text(json.dumps({"task": "ct", "software": "invsolve 0"}))
    (said,) = json.loads(evaluate(*arguments).stdout)["files"]
    assert said == named
    assert plain["unit"] == "" and named["unit"] == "HU"
    for name, key in (("psnr", "psnr"), ("ssim", "ssim"), ("rmse", "rmse_hu")):
        assert named[name] == pytest.approx(wanted[key], rel=1e-4)


def test_a_tiff_of_ct_says_that_it_is_in_hu(tmp_path: Path) -> None:
    from invsolve.cli.ct_files import tif_bytes

    truth, result = slices(tmp_path)
    tifffile.imwrite(tmp_path / "truth.tif", truth)
    (tmp_path / "truth.ct.tif").write_bytes(tif_bytes(result, {"task": "ct", "software": "invsolve 0"}))
    done = evaluate(tmp_path / "truth.ct.tif", "--truth", tmp_path / "truth.tif", "--json")
    (found,) = json.loads(done.stdout)["files"]
    assert (found["unit"], found["data_range"]) == ("HU", [-1000, 1000])
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean((truth - result) ** 2)), rel=1e-4)


def test_equal_files_have_an_infinite_psnr(tmp_path: Path, photo: np.ndarray) -> None:
    for name in ("a.png", "a.x.png"):
        Image.fromarray(photo).save(tmp_path / name)
    done = evaluate(tmp_path / "a.x.png", "--truth", tmp_path / "a.png", "--json")
    (found,) = json.loads(done.stdout)["files"]
    assert (found["psnr"], found["ssim"], found["rmse"]) == (None, 1.0, 0.0)
    assert "inf" in evaluate(tmp_path / "a.x.png", "--truth", tmp_path / "a.png").stdout


def test_what_does_not_fit_is_said_in_a_line(folders: Path, photo: np.ndarray) -> None:
    found, clean = folders / "found", folders / "clean"
    Image.fromarray(photo[:-1]).save(folders / "p0.small.png")
    Image.fromarray(photo[..., 0]).save(folders / "p0.grey.png")
    Image.fromarray(photo).save(folders / "cat.png")
    np.save(folders / "p0.flat.npy", np.zeros((9, 9)))
    np.save(folders / "four.npy", np.zeros((2, 2, 9, 9)))
    tifffile.imwrite(folders / "hu.tif", np.linspace(-900, 900, 400, dtype=np.float32).reshape(20, 20))
    (folders / "empty").mkdir()
    cases: dict[str, tuple[list[object], ExitCode]] = {
        "its truth": ([folders / "p0.small.png", "--truth", clean], ExitCode.BAD_INPUT),
        "has shape (48, 40)": ([folders / "p0.grey.png", "--truth", clean], ExitCode.BAD_INPUT),
        "no truth has the name": ([folders / "cat.png", "--truth", clean], ExitCode.BAD_INPUT),
        "no such file": ([folders / "absent.png", "--truth", clean], ExitCode.BAD_INPUT),
        "holds no picture": ([folders / "empty", "--truth", clean], ExitCode.BAD_INPUT),
        "its truth is not": ([folders / "p0.flat.npy", "--truth", clean], ExitCode.BAD_INPUT),
        "no range": ([folders / "p0.flat.npy", "--truth", folders / "p0.flat.npy"], ExitCode.BAD_INPUT),
        "a stack": ([folders / "four.npy", "--truth", folders / "four.npy"], ExitCode.BAD_INPUT),
        "floats from": ([folders / "hu.tif", "--truth", folders / "hu.tif"], ExitCode.BAD_INPUT),
        "--data-range": ([found, "--truth", clean, "--data-range", "1,0"], ExitCode.USAGE),
        ".csv": ([found, "--truth", clean, "--csv", folders / "x.txt"], ExitCode.OUTPUT),
    }
    for message, (arguments, code) in cases.items():
        error = refused(*arguments)
        assert message in str(error) and error.exit_code == code and error.hint, message
    assert "--data-range" in refused(folders / "hu.tif", "--truth", folders / "hu.tif").hint
    assert evaluate(folders / "hu.tif", "--truth", folders / "hu.tif", "--data-range", "HU").exit_code == 0
    (clean / "p0.jpg").write_bytes((clean / "p0.png").read_bytes())
    (found / "p0.denoise.webp").write_bytes((found / "p0.denoise.png").read_bytes())
    assert "two truths" in str(refused(found / "p0.denoise.webp", "--truth", clean))


def test_weights_that_cannot_be_fetched_are_an_error_in_a_line(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchmetrics")
    import torch

    def offline(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setenv("TORCH_HOME", str(folders / "hub"))
    error = refused(folders / "found", "--truth", folders / "clean", "--lpips")
    assert error.exit_code == ExitCode.MODEL
    assert "cannot be fetched" in error.message


def test_means_and_ranges() -> None:
    assert mean_with_error([1.0, 3.0]) == (2.0, pytest.approx(1.0))
    assert np.isnan(mean_with_error([1.0])[1])
    assert range_of(np.array([[-2.0, 5.0]]))[:2] == (-2.0, 5.0)
    assert range_of(np.array([[1.0, 5.0]]))[:2] == (0.0, 5.0)
    truth = np.zeros((12, 12))
    assert compare(truth, truth + 200, HOUNSFIELD)["psnr"] == pytest.approx(20.0)
