"""Plug-ins: the example is built, installed, checked and solved with; a broken one breaks nothing else."""

from __future__ import annotations

import importlib.metadata
import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from calling import call
from PIL import Image
from typer.testing import CliRunner

from invsolve.cli.app import app
from invsolve.cli.check import parse_arguments, parse_shape
from invsolve.errors import ExitCode, UsageError
from invsolve.named import offered

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "plugin"
PAGE = ROOT / "docs" / "plugins.md"

Patch = pytest.MonkeyPatch
Capture = pytest.CaptureFixture[str]


def _has_setuptools(least: int) -> bool:
    """Asked without importing it: setuptools fails where distutils was imported before."""
    try:
        return int(importlib.metadata.version("setuptools").split(".")[0]) >= least
    except importlib.metadata.PackageNotFoundError:
        return False


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the example was installed into, without the network."""
    pytest.importorskip("pip")
    if not _has_setuptools(77):
        pytest.skip("setuptools 77 or newer is not installed")
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(EXAMPLE, folder / "source")  # building leaves files beside the source
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*install, "--target", str(folder / "site"), str(folder / "source")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "site"


@pytest.fixture
def plugin(installed: Path, monkeypatch: Patch) -> Path:
    """The example, installed for one test."""
    monkeypatch.syspath_prepend(installed)
    for module in ("invsolve_ghosts", "invsolve_ghosts.command"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    return installed


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: Patch) -> Path:
    """An installed package that raises when it is imported."""
    site = tmp_path / "site"
    info = site / "broken-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    groups = ("forward_models", "noises", "rules", "samplers", "commands")
    (info / "entry_points.txt").write_text("".join(f"[invsolve.{g}]\nbroken = broken_package:it\n" for g in groups))
    (site / "broken_package.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w').close()\n1 / 0\n")
    monkeypatch.syspath_prepend(site)
    return tmp_path / "imported"


@pytest.mark.parametrize(("target", "arguments"), [("ghost", "strength=0.5"), ("student", "scale=0.05")])
def test_the_example_passes_its_check(target: str, arguments: str, plugin: Path) -> None:
    done = CliRunner().invoke(app, ["check", target, "--args", arguments, "--shape", "1,6,6", "--json"])
    assert done.exit_code == 0, done.output
    laws = json.loads(done.stdout)["laws"]
    assert [one["law"] for one in laws][-2:] == ["posterior mean", "posterior spread"]
    assert all(one["passed"] for one in laws)


def test_the_example_solves(
    plugin: Path, tmp_path: Path, photo: np.ndarray, small_prior: Path, monkeypatch: Patch, capfd: Capture
) -> None:
    text = (EXAMPLE / "problem.toml").read_text().replace('"photos"', f'"{small_prior}"')
    (tmp_path / "problem.toml").write_text(re.sub("steps = .*", "steps = 2", text))
    Image.fromarray(photo).save(tmp_path / "truth.png")
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, "solve", "problem.toml", "--simulate", "truth.png") == 0
    y, truth = np.load(tmp_path / "window.npy"), photo.transpose(2, 0, 1) / 255
    ghost = truth + 0.4 * np.roll(truth, (2, 6), (1, 2))
    assert float(np.median(np.abs(y - ghost))) == pytest.approx(0.02 * 0.741, rel=0.1)  # of Student's, 4 degrees
    assert call(monkeypatch, "solve", "problem.toml") == 0
    report = json.loads((tmp_path / "problem-solved" / "report.json").read_text())
    assert report["measurements"][0]["operators"] == [{"type": "ghost", "arguments": {"strength": 0.4, "across": 6}}]
    (tmp_path / "problem.toml").write_text(text.replace("strength", "strenght"))
    assert call(monkeypatch, "solve", "problem.toml") == int(ExitCode.BAD_INPUT)
    assert "did you mean 'strength'" in capfd.readouterr().err


def test_the_examples_command_is_listed_and_runs(plugin: Path) -> None:
    shown = CliRunner().invoke(app, ["--help"]).output
    assert "From the package invsolve-ghosts 0.1.0." in shown
    assert "invsolve_ghosts.command" not in sys.modules
    done = CliRunner().invoke(app, ["ghost", "--strength", "0.3"])
    assert done.output == "largest singular value 1.300\n"
    assert "Of the ghost" in CliRunner().invoke(app, ["ghost", "--help"]).output
    assert offered("operator") == ["ghost"]


def test_the_examples_own_tests_pass(plugin: Path) -> None:
    tests = runpy.run_path(str(EXAMPLE / "test_ghosts.py"))
    for kind, laws in (("operator", "OPERATOR_LAWS"), ("noise", "NOISE_LAWS")):
        for law in tests[laws]:
            tests[f"test_{kind}"](law)


def test_a_broken_package_is_one_line_and_breaks_nothing_else(
    broken: Path, monkeypatch: Patch, capfd: Capture, tmp_path: Path
) -> None:
    assert "broken" in CliRunner().invoke(app, ["--help"]).output
    assert call(monkeypatch, "models") == 0
    assert call(monkeypatch, "check", "identity", "--shape", "1,3,3", "-q") == 0
    assert not broken.exists()  # nobody asked for it
    capfd.readouterr()
    for arguments in (["broken"], ["check", "broken"], ["verify", "-r", "broken"], ["verify", "-s", "broken"]):
        assert call(monkeypatch, *arguments) == int(ExitCode.USAGE)
        lines = capfd.readouterr().err.strip().splitlines()
        assert "cannot be loaded: ZeroDivisionError" in lines[0] and len(lines) == 2
    assert broken.exists()


OWN = """
import torch
from invsolve.forward_models import GaussianNoise, LinearOperator

class Turned(LinearOperator):
    def _apply(self, x):
        return x.flip(-1) + 0.5 * x
    def _adjoint(self, y):
        return y.flip(-1) + 0.6 * y

class Quiet(GaussianNoise):
    def simulate(self, clean, generator):
        return GaussianNoise(0.5 * self.sigma).simulate(clean, generator)

class Crash(Turned):
    _adjoint = Turned._apply
    def _pinv(self, y):
        return {}["key"]

made = Turned((1, 4, 4), (1, 4, 4))

def squared(shape):
    return lambda x: x**2

def needs(shape, factor):
    return squared(shape)

word = "text"
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: Patch) -> None:
    (tmp_path / "own_checked.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_checked", raising=False)


def failing(output: str) -> list[str]:
    return [line.split("│")[1].strip() for line in output.splitlines() if "FAIL" in line]


def test_what_fails_is_named_with_the_exit_code(own: None, monkeypatch: Patch, capfd: Capture) -> None:
    for target in ("own_checked:Turned", "own_checked:made"):
        assert call(monkeypatch, "check", target, "--shape", "1,4,4") == int(ExitCode.FAILED)
        out, err = capfd.readouterr()
        assert {"adjoint, float32", "adjoint, float64"} <= set(failing(out))
        assert {"shapes", "linear", "dtype", "measured values"}.isdisjoint(failing(out))
        assert "fail: adjoint, float32, adjoint, float64" in err
    assert call(monkeypatch, "check", "own_checked:Quiet", "--args", "sigma=0.1") == int(ExitCode.FAILED)
    assert failing(capfd.readouterr().out) == ["simulation"]
    assert call(monkeypatch, "check", "own_checked:Crash", "--shape", "1,4,4") == int(ExitCode.FAILED)
    out = capfd.readouterr().out
    assert "raised KeyError: 'key'" in out and "adjoint, float64" not in failing(out)
    assert call(monkeypatch, "check", "own_checked:squared") == 0


def test_what_cannot_be_checked_is_told(own: None, monkeypatch: Patch, capfd: Capture) -> None:
    for arguments, message in (
        (["own_checked:word"], "own_checked:word is a str"),
        (["own_checked:needs"], "cannot be called with the shape"),
        (["own_checked:made", "--args", "x=1"], "is made already"),
        (["own_checked:gone"], "no attribute 'gone'"),
        (["blurr"], "did you mean 'blur'"),
        (["blur", "--args", "sigm=1"], "did you mean 'sigma'"),
        (["blur", "--args", "sigma=-1.0"], "sigma = -1"),
        (["matrix", "--args", "file='none.npy'"], "no such file"),
        (["blur", "--shape", "3,8"], "wanted channels,height,width"),
    ):
        assert call(monkeypatch, "check", *arguments) in (ExitCode.USAGE, ExitCode.BAD_INPUT), arguments
        assert message in capfd.readouterr().err, arguments


def test_what_a_plug_in_raises_later_is_its_own_error(
    tmp_path: Path, photo: np.ndarray, small_prior: Path, monkeypatch: Patch, capfd: Capture
) -> None:
    site, info = tmp_path / "site", tmp_path / "site" / "late-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: late\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[invsolve.commands]\nlate = late_package:command\n[invsolve.forward_models]\nlate = late_package:Late\n"
    )
    (site / "late_package.py").write_text(
        "from invsolve.forward_models import Identity\n"
        "def command() -> None:\n    raise KeyError('never')\n"
        "class Late(Identity):\n    def _adjoint(self, y):\n        raise KeyError('later')\n"
    )
    monkeypatch.syspath_prepend(site)
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, "late") == int(ExitCode.FAILED)
    assert "the command late of late_package:command raised KeyError: 'never'" in capfd.readouterr().err
    assert call(monkeypatch, "late", "--views") == int(ExitCode.USAGE)
    Image.fromarray(photo).save(tmp_path / "y.png")
    (tmp_path / "p.toml").write_text(
        f'[prior]\nname = "{small_prior}"\n[measurement]\nfile = "y.png"\noperator = {{type = "late"}}\n[solve]\nsteps = 2\n'
    )
    assert call(monkeypatch, "solve", "p.toml") == int(ExitCode.USAGE)
    assert "your operator late raised KeyError: 'later'" in capfd.readouterr().err


def test_shapes_and_arguments_are_read() -> None:
    assert parse_shape("3,8,9") == (3, 8, 9)
    assert parse_arguments("a=1, b='x', c=[1, 2]") == {"a": 1, "b": "x", "c": [1, 2]}
    for wrong in ("a", "1", "a=b", "a=(", "a=__import__('os')"):
        with pytest.raises(UsageError):
            parse_arguments(wrong)
    for wrong in ("", "3,8,0", "3,8,x", "3000,3000,3000"):
        with pytest.raises(UsageError):
            parse_shape(wrong)


@pytest.mark.skipif(not PAGE.exists(), reason="the source distribution has no docs")
def test_the_page_shows_the_example_as_it_is() -> None:
    shown = re.findall(r"^```toml\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert shown and all(block in (EXAMPLE / "pyproject.toml").read_text() for block in shown)
