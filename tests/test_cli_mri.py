"""``invsolve mri``: a good run with all its files, and bad input."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from invsolve.cli.main import main
from invsolve.errors import ExitCode
from invsolve.forward_models import equispaced_mask, random_mask
from invsolve.tasks.mri_simulation import simulate_mri


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVSOLVE_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    y, x = (np.mgrid[:48, :48] - 23.5) / 24
    head = 50 * ((x / 0.7) ** 2 + (y / 0.8) ** 2 < 1) + 40.0 * ((x - 0.2) ** 2 + y**2 < 0.05)
    mask = equispaced_mask((48, 48), 2, 12)
    scan = simulate_mri(head, mask, coils=3, noise=0.3)
    assert scan.sensitivities is not None
    np.save(tmp_path / "kspace.npy", scan.kspace)
    np.save(tmp_path / "mask.npy", mask[0].numpy())
    np.save(tmp_path / "maps.npy", scan.sensitivities)
    np.save(tmp_path / "truth.npy", head)
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object, command: tuple[str, ...] = ("mri",)) -> int:
    monkeypatch.setattr(sys, "argv", ["invsolve", *command, *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_a_slice_with_all_that_belongs_to_it(
    folder: Path, ct_prior: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = (folder / "kspace.npy", "--model", ct_prior, "--noise", 0.3, "--samples", 3, "--steps", 3)
    assert run(monkeypatch, *given, "--truth", folder / "truth.npy", "--interval", "--json") == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert set(report["scores"]) == {"zero-filled", "TV", "mean of 3"}
    assert all(10 < figures["psnr"] < 60 for figures in report["scores"].values())
    assert report["outputs"][0] == str(folder / "kspace.mri.npy")
    assert "2.0 times fewer values, 3 coils" in captured.err
    mean, std, samples, low, high = (
        np.load(folder / f"kspace.mri{ending}.npy") for ending in ("", ".std", ".samples", ".low", ".high")
    )
    assert samples.shape == (3, 48, 48)
    np.testing.assert_allclose(samples.mean(axis=0), mean, rtol=1e-4, atol=1e-3)
    assert bool((low <= high).all()) and bool((std >= 0).all())
    assert Image.open(folder / "kspace.mri.png").size == (48, 48)
    assert Image.open(folder / "kspace.mri.compare.png").size == (4 * 48, 48 + 16)
    assert run(monkeypatch, *given) == ExitCode.OUTPUT

    masked = (*given[:-4], "--samples", 1, "--steps", 2, "--mask", folder / "mask.npy")
    out = ("-o", folder / "out", "--sensitivities", folder / "maps.npy", "--diagnostics", folder / "trace.png")
    assert run(monkeypatch, *masked, *out) == 0
    assert sorted(path.name for path in (folder / "out").iterdir()) == [
        "kspace.mri.compare.png", "kspace.mri.npy", "kspace.mri.png",
    ]  # fmt: skip
    assert (folder / "trace.png").exists()


def test_the_shipped_calibration_is_applied(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    head = np.load(folder / "truth.npy")
    mask = random_mask((48, 48), 3, 12, torch.Generator().manual_seed(0))
    np.save(folder / "one.npy", simulate_mri(head, mask, noise=0.01 * float(head.max())).kspace)
    asked = ("--samples", 19, "--device", "cpu", "--json", "--calibration", "shipped")
    given = (folder / "one.npy", "--noise", 0.01 * float(head.max()), "--truth", folder / "truth.npy", *asked)
    assert run(monkeypatch, *given) == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert report["uncertainty"]["interval"]["calibration"]["factor"] > 1
    assert report["uncertainty"]["interval"]["level"] == 0.9
    assert "learned on other measurements" not in captured.err
    bound = report["uncertainty"]["psnr_of_mean"]["at_least"]  # in these units it would be below 0 if white were 1
    assert 5 < bound < report["scores"]["mean of 19"]["psnr"] + 20
    low, high = (np.load(folder / f"one.mri.{end}.npy") for end in ("low", "high"))
    samples = np.load(folder / "one.mri.samples.npy")
    assert np.median((high - low) / np.ptp(samples, axis=0)) > 1  # wider than the samples' range
    # several coils are no measurement like those it was learned on, which is said
    assert run(monkeypatch, folder / "kspace.npy", *asked) == 0
    captured = capsys.readouterr()
    assert "learned on other measurements: acceleration 2" in captured.err
    assert "coils 3 (learned with 1)" in captured.err
    assert json.loads(captured.out)["uncertainty"]["psnr_of_mean"] is None


def test_bad_input(
    folder: Path, ct_prior: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "text.npy").write_text("no array")
    np.save(folder / "small.npy", np.ones((4, 4)))
    good = folder / "kspace.npy"
    for arguments, code, message in (
        ((folder / "none.npy",), ExitCode.BAD_INPUT, "none.npy"),
        ((folder / "text.npy",), ExitCode.BAD_INPUT, "is no .npy file"),
        ((folder / "truth.npy",), ExitCode.BAD_INPUT, "k-space has shape (48, 48), float64"),
        ((good, "--mask", folder / "small.npy"), ExitCode.BAD_INPUT, "the mask has shape (4, 4)"),
        ((good, "--truth", folder / "small.npy"), ExitCode.BAD_INPUT, "--truth has shape (4, 4)"),
        ((good, "--sensitivities", folder / "small.npy"), ExitCode.BAD_INPUT, "sensitivities (4, 4)"),
        ((good, "--interval", "--samples", 1), ExitCode.USAGE, "interval"),
        ((good, "--sensitivities", "coils"), ExitCode.BAD_INPUT, "no such file: coils"),
        ((good, "--slice", 1), ExitCode.USAGE, "slice 1 of"),
        ((good, "-o", folder / "a.png"), ExitCode.OUTPUT, "does not end in .npy"),
    ):
        assert run(monkeypatch, *arguments, "--model", ct_prior) == code, arguments
        assert message in capsys.readouterr().err
    assert not list(folder.glob("*.mri.*"))


def test_simulated_slices_are_what_the_command_takes(
    folder: Path, ct_prior: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A grey picture, with each pattern, to its reconstruction by the line that is printed."""
    truth = np.load(folder / "truth.npy")
    Image.fromarray((255 * truth / truth.max()).astype(np.uint8)).save(folder / "head.png")
    simulated = ("simulate", "mri")
    for pattern in ("equispaced", "random", "poisson"):
        made = (folder / "head.png", "-o", folder / pattern, "--pattern", pattern, "--acceleration", 2, "--centre", 12)
        (folder / pattern).mkdir()
        assert run(monkeypatch, *made, "--coils", 3, command=simulated) == 0
        line = capsys.readouterr().err.strip().splitlines()[-1].split("now: invsolve mri ")[1].split()
        assert np.load(folder / pattern / "head.kspace.npy").shape == (3, 48, 48)
        assert np.load(folder / pattern / "head.mask.npy").mean() == pytest.approx(0.5, abs=0.03)
    assert run(monkeypatch, *line, "--model", ct_prior, "--samples", 1, "--steps", 2) == 0
    assert "one sample" in capsys.readouterr().err
    assert run(monkeypatch, *made, command=simulated) == ExitCode.OUTPUT

    np.save(folder / "negative.npy", truth - 1)
    np.save(folder / "volume.npy", truth[None])
    for arguments, code, message in (
        ((folder / "none.png",), ExitCode.BAD_INPUT, "none.png"),
        ((folder / "negative.npy",), ExitCode.BAD_INPUT, "wanted magnitudes"),
        ((folder / "volume.npy",), ExitCode.BAD_INPUT, "3 dimensions"),
        ((folder / "head.png", "--centre", 40), ExitCode.BAD_INPUT, "40 of 48 positions"),
        ((folder / "head.png", "--acceleration", "nan"), ExitCode.USAGE, "acceleration"),
    ):
        assert run(monkeypatch, *arguments, "-o", folder / "no", command=simulated) == code, arguments
        assert message in capsys.readouterr().err
    assert not (folder / "no").exists()


def test_noise_and_sensitivities_that_nobody_measured(
    folder: Path, ct_prior: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = (folder / "kspace.npy", "--model", ct_prior, "--samples", 1, "--steps", 2)
    assert run(monkeypatch, *few, "-o", folder / "a.npy") == 0
    said = capsys.readouterr().err
    assert "(estimated)" in said
    assert (
        float(said.split("noise ")[1].split()[0]) > 0.3 / 90
    )  # the truth, over 50 + 40; two discs have sharp edges besides
    pytest.importorskip("sigpy")
    assert run(monkeypatch, *few, "-o", folder / "b.npy", "--sensitivities", "espirit") == 0
    assert not np.array_equal(np.load(folder / "a.npy"), np.load(folder / "b.npy"))
