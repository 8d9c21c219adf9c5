"""How sure a repaired or coloured picture is: what the commands write, say and report of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from calling import call
from PIL import Image

from invsolve.errors import ExitCode
from invsolve.models.network import EDMDenoiser, NetworkConfig
from invsolve.pretrained import Card, save_prior
from invsolve.uncertainty.conformal import Calibration, LeftOut

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path, photo: np.ndarray) -> Path:
    Image.fromarray(photo).save(tmp_path / "photo.png")
    Image.fromarray(photo).convert("L").save(tmp_path / "grey.png")
    mask = np.zeros(photo.shape[:2], np.uint8)
    mask[10:13, 5:30] = 255  # 75 of 1920 pixels
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return tmp_path


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def inpaint(folder: Path, prior: Path) -> list[object]:
    return ["inpaint", folder / "photo.png", "--mask", folder / "mask.png", "--model", prior, "--steps", 2, "--json"]


def test_the_interval_of_a_repaired_picture(
    folder: Path, photo: np.ndarray, small_prior: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    assert call(monkeypatch, *inpaint(folder, small_prior), "--samples", 3, "--interval") == 0
    out, err = capfd.readouterr()
    report = json.loads(out)
    names = ("photo.inpaint.png", "photo.inpaint.sample-1.png", "photo.inpaint.sample-2.png")
    drawn = np.stack([pixels(folder / name) for name in names])
    low, high = pixels(folder / "photo.inpaint.low.png"), pixels(folder / "photo.inpaint.high.png")
    np.testing.assert_array_equal(low, drawn.min(axis=0))
    np.testing.assert_array_equal(high, drawn.max(axis=0))
    assert str(folder / "photo.inpaint.low.png") in report["outputs"]
    missing = pixels(folder / "mask.png") > 0
    np.testing.assert_array_equal(low[~missing], photo[~missing])
    certainty = report["uncertainty"]
    assert certainty["determined"] == pytest.approx(1 - 75 / 1920, abs=1e-6)
    assert certainty["prior_share_of_variance"] == pytest.approx(1)
    assert certainty["interval"]["level"] == pytest.approx(0.5)  # (n - 1) / (n + 1), never 90 %
    assert certainty["interval"]["mean_width"] == pytest.approx((high - low)[missing].mean() / 255, abs=0.01)
    assert certainty["interval"]["calibration"] is None
    assert report["warning"] is None
    assert certainty["chi2_of_samples"] is None
    assert "the data determine 96.1% of the values" in err
    assert (
        "smallest to largest of 3 samples, level 50.0% if the samples are the posterior's (--samples 19 for 90 %)"
        in err
    )


def test_the_interval_of_a_coloured_picture(
    folder: Path, small_prior: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    arguments = ["colorize", folder / "grey.png", "--model", small_prior, "--steps", 2, "--samples", 2, "--json"]
    assert call(monkeypatch, *arguments, "--interval") == 0
    out, err = capfd.readouterr()
    certainty = json.loads(out)["uncertainty"]
    assert certainty["determined"] == pytest.approx(1 / 3, abs=1e-5)
    assert certainty["prior_share_of_variance"] == pytest.approx(1, abs=1e-3)  # the grey is kept
    assert certainty["interval"]["level"] == pytest.approx(1 / 3, abs=1e-5)
    pair = np.stack([pixels(folder / "grey.colorize.png"), pixels(folder / "grey.colorize.sample-1.png")])
    np.testing.assert_array_equal(pixels(folder / "grey.colorize.high.png"), pair.max(axis=0))
    assert "the data determine 33.3%" in err


def test_a_misfit_that_does_not_go_with_the_noise_is_warned_of(
    folder: Path, small_prior: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    # The picture has no noise, and a network that was not trained takes none out: the samples follow every pixel.
    assert call(monkeypatch, *inpaint(folder, small_prior), "--noise", 0.05) == 0
    out, err = capfd.readouterr()
    report = json.loads(out)
    assert "fit the measurement too well" in report["warning"]
    assert f"warning: {report['warning']}" in err
    assert report["uncertainty"]["chi2_of_samples"] < 0.9
    assert report["uncertainty"]["interval"] is None  # of one sample


def test_the_run_is_drawn_and_reported(
    folder: Path, small_prior: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    assert call(monkeypatch, *inpaint(folder, small_prior), "--diagnostics", folder / "run.png") == 0
    report = json.loads(capfd.readouterr().out)
    trace = report["diagnostics"]
    assert [len(trace[name]) for name in ("sigma", "misfit", "step")] == [2, 2, 2]
    assert trace["sigma"][0] == pytest.approx(0.25)
    assert report["outputs"] == [str(folder / "photo.inpaint.png"), str(folder / "run.png")]
    picture = Image.open(folder / "run.png")
    assert picture.size == (480, 320)
    assert "misfit" in json.loads(picture.text["invsolve"])["content"]  # type: ignore[attr-defined]
    assert call(monkeypatch, *inpaint(folder, small_prior), "--force", "--diagnostics", folder / "run.jpg") == 5
    assert ".png" in capfd.readouterr().err


def test_divergence_is_one_line_that_names_the_level(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    network = EDMDenoiser(NetworkConfig(widths=(8, 16), encoder_blocks=(1, 1), decoder_blocks=(1,)))
    for parameter in network.parameters():
        torch.nn.init.constant_(parameter, 6e4)  # the largest of 16 bits: layer by layer beyond those of 32
    card = Card("broken", {}, "RGB in [0, 1]", 0.005, 20.0, [(0.005, 2.4e-5), (20.0, 0.07)], "")
    save_prior(folder / "broken", network, card)
    before = {path.name for path in folder.iterdir()}
    assert call(monkeypatch, *inpaint(folder, folder / "broken")) == ExitCode.FAILED
    out, err = capfd.readouterr()
    assert out == ""
    assert "Traceback" not in err
    assert [line for line in err.splitlines() if line.startswith("error: ")] == [
        "error: the sampler diverged at noise level 0.25 (step 1 of 2)"
    ]
    assert {path.name for path in folder.iterdir()} == before


@pytest.fixture
def learned(small_prior: Path, folder: Path) -> Calibration:
    found = Calibration(
        task="inpaint", prior_sha256=Card.read(small_prior / "card.json").sha256, rule="wiener", sampler="redrawing",
        steps=2, samples=3, level=0.9, factor=1.5, groups=[LeftOut("a", 0.7, 0.88, 1.4), LeftOut("b", 0.5, 0.92, 1.6)],
        problem={"missing": 75 / 1920, "noise": 0.0}, where="the missing pixels",
    )  # fmt: skip
    found.save(folder / "c.json")
    return found


def test_a_calibration_scales_the_interval_and_is_said(
    folder: Path, small_prior: Path, learned: Calibration, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    plain = [*inpaint(folder, small_prior), "--samples", 3]
    assert call(monkeypatch, *plain, "--interval") == 0
    before = json.loads(capfd.readouterr().out)["uncertainty"]["interval"]
    assert call(monkeypatch, *plain, "--force", "--calibration", folder / "c.json") == 0
    out, err = capfd.readouterr()
    after = json.loads(out)["uncertainty"]["interval"]
    assert after["mean_width"] == pytest.approx(1.5 * before["mean_width"], rel=1e-4)
    assert after["level"] == 0.9
    assert after["calibration"] == {
        "factor": 1.5, "where": "the missing pixels", "groups": 2, "coverage_before": pytest.approx(0.6),
        "coverage_after": pytest.approx(0.9), "guaranteed": False,
    }  # fmt: skip
    assert "scaled by 1.5 to cover 90% of the missing pixels (in 2 groups" in err
    assert "other measurements" not in err
    replace(learned, problem={"missing": 0.5, "noise": 0.0}).save(folder / "c.json")
    assert call(monkeypatch, *plain, "--force", "--calibration", folder / "c.json") == 0
    assert "warning: the calibration was learned on other measurements: missing 0.0391" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"task": "ct"}, ExitCode.USAGE, "task inpaint, learned with ct"),
        ({"prior_sha256": "b" * 64}, ExitCode.USAGE, "learned with bbbbbbbbbbbb"),
        ({"steps": 50}, ExitCode.USAGE, "steps 2, learned with 50"),
        ({"samples": 19}, ExitCode.USAGE, "samples 3, learned with 19"),
        ({"rule": "moment_matching(steps=6, tolerance=0.2)"}, ExitCode.USAGE, "rule wiener"),
        ({"factor": -1.0}, ExitCode.BAD_INPUT, "factor -1"),
    ],
)
def test_a_calibration_that_does_not_fit_stops_the_run(
    change: dict, code: ExitCode, said: str, folder: Path, small_prior: Path, learned: Calibration,
    monkeypatch: pytest.MonkeyPatch, capfd: Capture,
) -> None:  # fmt: skip
    replace(learned, **change).save(folder / "c.json")
    arguments = [*inpaint(folder, small_prior), "--samples", 3, "--calibration", folder / "c.json"]
    assert call(monkeypatch, *arguments) == code
    out, err = capfd.readouterr()
    assert said in err
    assert "hint: " in err
    assert out == ""
    assert not (folder / "photo.inpaint.png").exists()


def test_a_shipped_calibration_is_found_by_settings_and_measurement(
    folder: Path,
    small_prior: Path,
    learned: Calibration,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: Capture,
) -> None:
    from invsolve.pretrained import calibrations

    monkeypatch.setattr(calibrations, "SHIPPED", tmp_path / "pretrained")
    shelf = tmp_path / "pretrained" / "any" / "calibrations"
    shelf.mkdir(parents=True)
    for number, changes in enumerate(
        ({"factor": 2.0}, {"factor": 3.0, "problem": {"missing": 0.5, "noise": 0.0}}, {"factor": 4.0, "steps": 50})
    ):
        replace(learned, **changes).save(shelf / f"{number}.json")  # type: ignore[arg-type]
    plain = [*inpaint(folder, small_prior), "--calibration", "shipped", "--samples"]
    assert call(monkeypatch, *plain, 3) == 0
    assert json.loads(capfd.readouterr().out)["uncertainty"]["interval"]["calibration"]["factor"] == 2.0
    assert call(monkeypatch, *plain, 4, "--force") == ExitCode.USAGE
    assert "wiener, redrawing, 2 steps, 3 samples" in capfd.readouterr().err
    # Not asked for, it says what such intervals hold, and changes nothing.
    bare = [*inpaint(folder, small_prior), "--interval", "--force", "--samples", "3"]
    assert call(monkeypatch, *bare) == 0
    printed = capfd.readouterr()
    assert f"{learned.before:.1%} in {len(learned.groups)} measurements like it" in printed.err
    assert json.loads(printed.out)["uncertainty"]["interval"]["calibration"] is None
    assert call(monkeypatch, *bare, "--noise", "0.1") == 0
    assert "measurements like it" not in capfd.readouterr().err


def test_one_sample_has_no_interval(
    folder: Path, small_prior: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    assert call(monkeypatch, *inpaint(folder, small_prior), "--interval") == ExitCode.USAGE
    assert "--samples 19" in capfd.readouterr().err
