"""The command solve: what its file may say, what it writes, what it refuses, and that its documentation is whole."""

from __future__ import annotations

import inspect
import json
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from calling import call
from PIL import Image

from invsolve.cli.problem import KEYS, read_problem
from invsolve.errors import ExitCode, InputError
from invsolve.forward_models import NOISES, OPERATORS, Grayscale
from invsolve.posterior import Posterior

Patch = pytest.MonkeyPatch
Capture = pytest.CaptureFixture[str]
PAGE = Path(__file__).resolve().parents[1] / "docs" / "solve.md"
documented = pytest.mark.skipif(not PAGE.exists(), reason="the source distribution has no docs")

SMALL = """
[prior]
name = "PRIOR"

[picture]
size = [40, 48]

[measurement]
file = "y.npy"

[[operator]]
type = "blur"
sigma = 1.0

[[operator]]
type = "downsample"
factor = 2

[[operator]]
type = "mask"
missing = 0.2

[noise]
type = "gaussian"
sigma = 0.05

[solve]
steps = 3
samples = 3
seed = 7

[output]
folder = "out"
interval = true
diagnostics = true
"""

TWO = """
[prior]
name = "PRIOR"

[[measurement]]
file = "grey.png"
operator = { type = "grayscale" }
noise = { type = "gaussian", sigma = 0.02 }

[[measurement]]
file = "counts.npy"
operator = [{ type = "mask", file = "strokes.png", invert = true }]
noise = { type = "poisson", gain = 100.0 }

[solve]
steps = 2
"""


@pytest.fixture
def folder(tmp_path: Path, photo: np.ndarray, small_prior: Path, monkeypatch: Patch) -> Path:
    Image.fromarray(photo).save(tmp_path / "truth.png")
    strokes = np.zeros(photo.shape[:2], np.uint8)
    strokes[5:9, 3:30] = 255
    Image.fromarray(strokes).save(tmp_path / "strokes.png")
    for name, text in (("small", SMALL), ("two", TWO)):
        (tmp_path / f"{name}.toml").write_text(text.replace("PRIOR", str(small_prior)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_file_is_simulated_solved_and_repeated(folder: Path, monkeypatch: Patch, capfd: Capture) -> None:
    assert call(monkeypatch, "solve", "small.toml", "--simulate", "truth.png") == 0
    y = np.load(folder / "y.npy")
    assert y.shape == (3, 24, 20)
    assert call(monkeypatch, "solve", "small.toml", "--truth", "truth.png", "--json") == 0
    out, err = capfd.readouterr()
    pictures = {f"result{part}.png" for part in ("", ".sample-1", ".sample-2", ".mean", ".std", ".low", ".high")}
    out_folder = folder / "out"
    others = {"trace.png", "report.json", "problem.toml", "posterior.npz"}
    assert {path.name for path in out_folder.iterdir()} == pictures | others
    report = json.loads(out.strip().splitlines()[-1])
    assert report == json.loads((out_folder / "report.json").read_text())
    assert set(report["scores"]) == {"least squares", "invsolve sample", "mean of 3"}
    (measured,) = report["measurements"]
    assert [one["type"] for one in measured["operators"]] == ["blur", "downsample", "mask"]
    assert (report["rule"], report["sampler"], report["seed"], report["steps"]) == ("wiener", "redrawing", 7, 3)
    assert "chi-squared per value" in err
    posterior = Posterior.load(out_folder / "posterior.npz")
    assert posterior.samples.shape == (3, 1, 3, 48, 40)
    # the misfit is that of the samples, over the values that were measured
    assert measured["values"] == int((np.abs(y) > 0).sum()) or measured["values"] < y.size
    assert float(posterior.chi2.mean()) == pytest.approx(measured["chi2"], rel=1e-4)
    # the copy is a problem file too, and solving it again gives the same numbers
    assert call(monkeypatch, "solve", "out/problem.toml") == int(ExitCode.OUTPUT)
    assert call(monkeypatch, "solve", "out/problem.toml", "-o", "again", "-q") == 0
    assert torch.equal(Posterior.load(folder / "again" / "posterior.npz").samples, posterior.samples)


def test_measurements_of_different_kinds_are_one_problem(folder: Path, monkeypatch: Patch, capfd: Capture) -> None:
    assert call(monkeypatch, "solve", "two.toml", "--simulate", "truth.png", "--noise-seed", 3) == 0
    grey, counts = Image.open(folder / "grey.png"), np.load(folder / "counts.npy")
    assert grey.mode == "L" and np.array_equal(counts, counts.round())
    again = grey.tobytes()
    assert call(monkeypatch, "solve", "two.toml", "--simulate", "truth.png") == int(ExitCode.OUTPUT)
    assert call(monkeypatch, "solve", "two.toml", "--simulate", "truth.png", "--noise-seed", 4, "--force") == 0
    assert Image.open(folder / "grey.png").tobytes() != again
    assert call(monkeypatch, "solve", "two.toml") == 0
    report = json.loads((folder / "two-solved" / "report.json").read_text())
    assert [one["sigma"] for one in report["measurements"]] == [0.02, None]
    # of the strokes' pixels only, in three channels
    assert [one["values"] for one in report["measurements"]] == [48 * 40, 4 * 27 * 3]
    # as it is, for a rule that takes any noise
    text = (folder / "two.toml").read_text().replace("steps = 2", 'steps = 2\nrule = "annealed"\nsampler = "langevin"')
    (folder / "exact.toml").write_text(text)
    assert call(monkeypatch, "solve", "exact.toml", "-q") == 0
    report = json.loads((folder / "exact-solved" / "report.json").read_text())
    assert (report["rule"], report["sigma_y"]) == ("annealed", None)


def test_a_map_that_is_not_linear_and_a_start(folder: Path, monkeypatch: Patch, capfd: Capture) -> None:
    text = (folder / "small.toml").read_text()
    text = re.sub(
        r"\[\[operator\]\].*?\[noise\]",
        '[[operator]]\ntype = "saturation"\nhigh = 0.6\n\n[noise]',
        text,
        flags=re.DOTALL,
    )
    (folder / "clipped.toml").write_text(text.replace("size = [40, 48]", 'start = "truth.png"'))
    assert call(monkeypatch, "solve", "clipped.toml", "--simulate", "truth.png") == 0
    assert call(monkeypatch, "solve", "clipped.toml", "--truth", "truth.png") == 0
    report = json.loads((folder / "out" / "report.json").read_text())
    assert (report["rule"], report["sampler"]) == ("dps", "ancestral")
    assert report["uncertainty"]["determined"] is None
    assert "least squares" not in report["scores"]


def test_a_scan_of_one_channel(folder: Path, ct_prior: Path, monkeypatch: Patch) -> None:
    from invsolve.forward_models import Geometry, even_angles

    scan = Geometry(even_angles(7), 26, (16, 16))
    (folder / "scan.toml").write_text(scan.to_toml())
    np.save(folder / "slice.npy", np.full((16, 16), 0.4, np.float32))
    (folder / "ct.toml").write_text(
        f'[prior]\nname = "{ct_prior}"\n[picture]\nsize = [16, 16]\n[measurement]\nfile = "counts.npy"\n'
        'operator = {type = "projector", geometry = "scan.toml"}\nnoise = {type = "transmission", i0 = 1e4, scale = 0.05}\n'
        "[solve]\nsteps = 2\n"
    )
    assert call(monkeypatch, "solve", "ct.toml", "--simulate", "slice.npy") == 0
    assert np.load(folder / "counts.npy").shape == (7, 26)
    assert call(monkeypatch, "solve", "ct.toml") == 0
    assert Image.open(folder / "ct-solved" / "result.png").mode == "L"


WRONG: dict[str, tuple[str, str]] = {
    'sigma = 1.0\n': ("sigma = -1.0\n", "operator 1: blur: sigma = -1"),
    'type = "blur"': ('type = "blurr"', "did you mean 'blur'"),
    "factor = 2": ("factors = 2", "did you mean 'factor'"),
    "factor = 2\n": ("factor = 7\n", "measurement, operator 2: downsampling"),
    "sigma = 0.05": ("sigma = -0.05", "measurement, noise: noise standard deviation"),
    'type = "gaussian"': ('type = "gausian"', "did you mean 'gaussian'"),
    "steps = 3": ("steps = 0", "steps 0"),
    "steps = 3\n": ("stepz = 3\n", "[solve]: 'stepz' is not known"),
    "samples = 3": ("samples = 1", "interval of 1 sample"),
    "seed = 7": ("seed = 1.5", "seed is 1.5"),
    "seed = 7\n": ('rule = "wienr"\n', "did you mean 'wiener'"),
    "seed = 7 ": ('sampler = "redrawn"\n', "did you mean 'redrawing'"),
    "[prior]": ("[priors]", "did you mean 'prior'"),
    'name = "': ('nam = "', "did you mean 'name'"),
    "size = [40, 48]": ("size = [40]", "size is [40]"),
    "size = [40, 48]\n": ("size = [40, 40]\n", "measurement: y.npy has shape (3, 24, 20), its operators give (3, 20, 20)"),
    "[measurement]": ("[[measurement]]\nfile='a.npy'\n[[measurement]]", "and noise at the top level"),
    'file = "y.npy"': ('file = "absent.npy"', "no such file"),
    "[noise]": ("[noise", "no TOML file"),
    "missing = 0.2": ('file = "truth.png"', "40 x 48 pixels, the picture 20 x 24"),
    "missing = 0.2\n": ("file = 3\n", "wanted the name of a file"),
    'folder = "out"': ("folder = 2020-01-01", "folder is datetime"),
}  # fmt: skip


def test_what_is_wrong_is_said_in_a_line(folder: Path, monkeypatch: Patch, capfd: Capture) -> None:
    assert call(monkeypatch, "solve", "small.toml", "--simulate", "truth.png", "-q") == 0
    text = (folder / "small.toml").read_text()
    before = {path.name for path in folder.iterdir()}
    for old, (new, message) in WRONG.items():
        assert old.strip() in text
        (folder / "small.toml").write_text(text.replace(old if old in text else old.strip(), new, 1))
        capfd.readouterr()
        code = call(monkeypatch, "solve", "small.toml")
        err = capfd.readouterr().err
        assert code in (ExitCode.BAD_INPUT, ExitCode.USAGE), (old, err)
        assert message in err, (old, err)
        assert len([line for line in err.splitlines() if line.strip()]) <= 2, err
    assert {path.name for path in folder.iterdir()} == before


def test_paths_begin_where_the_file_says(folder: Path) -> None:
    (folder / "deep").mkdir()
    text = "# a paper's problem\nbase = '..'\n" + (folder / "small.toml").read_text()
    (folder / "deep" / "moved.toml").write_text(text)
    problem = read_problem(folder / "deep" / "moved.toml")
    assert problem.blocks[0].file.resolve() == folder / "y.npy"
    copied = problem.copy(folder / "a" / "b")
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "problem.toml").write_text(copied)
    again = read_problem(folder / "a" / "b" / "problem.toml")
    assert again.blocks[0].file.resolve() == folder / "y.npy"
    assert copied.count("base =") == 1 and "# a paper's problem" in copied
    elsewhere = problem.copy(folder.parent / "elsewhere")
    assert f'base = "{folder.as_posix()}"' in elsewhere


def test_the_grey_of_a_colour_truth_is_its_luma(folder: Path, photo: np.ndarray) -> None:
    from invsolve.cli.problem_parts import read_whole

    x = torch.from_numpy(photo / np.float32(255)).permute(2, 0, 1)[None]
    found = read_whole(folder / "truth.png", 1, "truth")
    torch.testing.assert_close(found, Grayscale((3, 48, 40))(x))
    with pytest.raises(InputError, match="wanted"):
        read_whole(folder / "truth.png", 2, "truth")


def test_a_picture_of_16_bits_counts_from_0_to_1(tmp_path: Path) -> None:
    from invsolve.cli.problem_parts import read_tensor, read_values

    levels = np.random.default_rng(0).integers(0, 65536, (6, 7)).astype(np.uint16)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    found = read_values(tmp_path / "deep.png")
    np.testing.assert_allclose(found.array, levels[None] / 65535, atol=1e-6)
    assert not found.rounded  # to 8 bits
    np.testing.assert_allclose(read_tensor(tmp_path / "deep.png", "mask").numpy(), levels / 65535, atol=1e-6)


# -- the documentation ----------------------------------------------------------------------------------------------------
@documented
def test_the_page_names_every_key_operator_and_noise() -> None:
    text = PAGE.read_text()
    for table, keys in KEYS.items():
        for key in keys:
            assert f"| `{key}` |" in text, f"[{table}] {key}"
    makers: dict[str, dict[str, Any]] = {"## The operators": {**OPERATORS}, "## The noises": {**NOISES}}
    for heading, named in makers.items():
        section = text.partition(heading)[2].partition("\n## ")[0]
        rows = {line.split("`")[1]: line for line in section.splitlines() if line.startswith("| `")}
        assert list(rows) == list(named)
        for name, maker in named.items():
            taken = [one for one in inspect.signature(maker).parameters if one not in ("shape", "device")]
            assert all(f"`{one}`" in rows[name] for one in taken), rows[name]


@documented
@pytest.mark.parametrize("number", range(3))
def test_the_pages_examples_run(
    number: int, folder: Path, small_prior: Path, monkeypatch: Patch, capfd: Capture
) -> None:
    blocks = re.findall(r"^```toml\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    text = blocks[number].replace('"photos"', f'"{small_prior}"')
    text = re.sub(r"^(steps|samples) = .*$", r"\1 = 2", text, flags=re.MULTILINE)
    text = text.replace("size = [64, 64]", "size = [40, 48]")
    (folder / "problem.toml").write_text(text)
    assert call(monkeypatch, "solve", "problem.toml", "--simulate", "truth.png") == 0
    assert call(monkeypatch, "solve", "problem.toml", "--truth", "truth.png") == 0


def test_k_space_off_the_grid_has_a_name(folder: Path, ct_prior: Path, monkeypatch: Patch, capfd: Capture) -> None:
    pytest.importorskip("torchkbnufft")
    np.save("truth.npy", np.pad(np.full((12, 12), 0.5, np.float32), 10))
    np.save("ring.npy", 0.4 * np.stack([np.sin(np.arange(64)), np.cos(np.arange(64))], axis=1))
    text = """
[prior]
name = "PRIOR"

[picture]
size = [32, 32]

[[measurement]]
file = "spokes.npy"
operator = [{ type = "phase" }, { type = "nufft", spokes = 12 }]
noise = { type = "gaussian", sigma = 0.01 }

[[measurement]]
file = "ring-measured.npy"
operator = [{ type = "phase" }, { type = "nufft", trajectory = "ring.npy" }]
noise = { type = "gaussian", sigma = 0.01 }

[solve]
steps = 2
""".replace("PRIOR", str(ct_prior))
    Path("radial.toml").write_text(text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the library's use of torch.jit
        assert call(monkeypatch, "solve", "radial.toml", "--simulate", "truth.npy") == 0
        assert np.load("spokes.npy").shape == (2, 12 * 64)
        assert call(monkeypatch, "solve", "radial.toml", "--truth", "truth.npy", "--json") == 0
    report = json.loads(capfd.readouterr().out.strip().splitlines()[-1])
    assert [one["values"] for one in report["measurements"]] == [2 * 12 * 64, 2 * 64]
    assert report["scores"]["least squares"]["psnr"] > 20
    for wrong, said in (
        ("spokes = 12", "several of trajectory, spokes given"),
        ("golden = true", "wanted a complex picture"),
    ):
        both = text.replace('trajectory = "ring.npy"', f'trajectory = "ring.npy", {wrong}')
        if "golden" in wrong:
            both = both.replace('[{ type = "phase" }, { type = "nufft", traj', '[{ type = "nufft", traj')
        Path("wrong.toml").write_text(both)
        assert call(monkeypatch, "solve", "wrong.toml") == int(ExitCode.BAD_INPUT)
        assert said in capfd.readouterr().err
