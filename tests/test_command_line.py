"""What every command has: options from a file, stdin and stdout, dry runs, completion and a manual page."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from calling import Run
from PIL import Image
from typer.testing import CliRunner

from invsolve.cli.main import app
from invsolve.errors import ExitCode, InvsolveError
from invsolve.forward_models import Geometry, equispaced_mask, even_angles, projector
from invsolve.tasks.mri_simulation import simulate_mri

COMMANDS = [one.name or one.callback.__name__ for one in app.registered_commands if one.callback]


def invoke(*arguments: object, given: bytes | None = None, **environment: str) -> Any:
    return CliRunner().invoke(app, list(map(str, arguments)), input=given, env=environment)


def good(*arguments: object, given: bytes | None = None, **environment: str) -> Any:
    done = invoke(*arguments, given=given, **environment)
    assert done.exit_code == 0, done.exception
    return done


def refused(*arguments: object, given: bytes | None = None) -> InvsolveError:
    found = invoke(*arguments, given=given).exception
    assert isinstance(found, InvsolveError), found
    return found


@pytest.fixture
def folder(tmp_path: Path, photo: np.ndarray) -> Path:
    Image.fromarray(photo).save(tmp_path / "photo.png")
    mask = np.zeros(photo.shape[:2], np.uint8)
    mask[10:13, 5:30] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return tmp_path


# -- options from a file -------------------------------------------------------------------------------------------------
def in_force(*arguments: object, **environment: str) -> dict[str, Any]:
    return tomllib.loads(good(*arguments, "--show-config", **environment).stdout)


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_in_force_can_be_read_back(command: str, tmp_path: Path) -> None:
    text = good(command, "--show-config").stdout
    (tmp_path / "all.toml").write_text(text)
    assert in_force(command, "--config", tmp_path / "all.toml") == tomllib.loads(text)


def test_showing_the_options_leaves_the_command_as_it_was(run: Run) -> None:
    assert run("generate", "--show-config").returncode == 0
    assert run("generate").returncode == ExitCode.USAGE


def test_the_command_line_goes_before_the_environment_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("steps = 7\nseed = 3\ndevice = 'cuda'\nbox = ['1,2,3,4', '5,6,7,8']\nforce = true\nverbose = 1\n")
    found = in_force("inpaint", "--config", file, "--seed", 4, INVSOLVE_DEVICE="cpu")
    assert (found["steps"], found["seed"], found["device"], found["force"], found["verbose"]) == (7, 4, "cpu", True, 1)
    assert found["box"] == ["1,2,3,4", "5,6,7,8"]
    assert found["rule"] == "wiener"  # the default
    assert in_force("inpaint", "--seed", 4, "--device", "auto", "--config", file)["device"] == "auto"


def test_a_run_from_a_file_is_the_run_from_the_command_line(folder: Path, small_prior: Path) -> None:
    (folder / "a.toml").write_text(f"steps = 2\nseed = 5\nmodel = {json.dumps(str(small_prior))}\nsigma = 0.1\n")
    good(
        "denoise", folder / "photo.png", "--config", folder / "a.toml", "-o", folder / "a.png", "--sampler", "heun_sde"
    )
    good(
        "denoise", folder / "photo.png", "-o", folder / "b.png", "--steps", 2, "--seed", 5, "--model", small_prior,
        "--sigma", 0.1, "--sampler", "heun_sde",
    )  # fmt: skip
    a, b = (Image.open(folder / name) for name in ("a.png", "b.png"))
    assert np.array_equal(np.asarray(a), np.asarray(b))
    assert json.loads(a.text["invsolve"])["steps"] == 2  # type: ignore[attr-defined]


def test_defaults_that_follow_from_other_options_are_shown(tmp_path: Path) -> None:
    found = in_force("colorize", "--hints", "strokes.png")
    assert (found["steps"], found["sampler"]) == (30, "multistep")
    assert in_force("colorize")["sampler"] == "heun_sde"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("step = 3", "did you mean 'steps'"),
        ("config = 'b.toml'", "unknown key 'config'"),
        ("steps = 2.5", "steps: Invalid value"),
        ("steps = true", "wanted no switch"),
        ("steps = [3]", "wanted one value"),
        ("force = 'yes'", "wanted true or false"),
        ("box = '1,2,3,4'", "wanted a list"),
        ("fit = 'stretch'", "fit: Invalid value"),
        ("noise = nan", "noise"),
        ("[solve]\nsteps = 3", "unknown key 'solve'"),
        ("steps = ", "is no TOML"),
    ],
)
def test_what_no_option_takes_is_said_in_a_line(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(text)
    error = refused("inpaint", "x.png", "--config", tmp_path / "a.toml")
    assert said in str(error)
    assert error.exit_code == ExitCode.USAGE
    assert "a.toml" in error.message
    assert refused("inpaint", "x.png", "--config", tmp_path / "absent.toml").exit_code == ExitCode.BAD_INPUT


# -- stdin and stdout ----------------------------------------------------------------------------------------------------
def content(path: Path, kind: str, photo: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(("kind", "asked", "written"), [("PNG", (), "PNG"), ("JPEG", (), "JPEG"), ("BMP", (), "PNG"),
                                                        ("PNG", ("--format", "webp"), "WEBP")])  # fmt: skip
def test_a_picture_through_pipes(
    kind: str, asked: tuple[str, ...], written: str, folder: Path, photo: np.ndarray, small_prior: Path
) -> None:
    before = sorted(folder.iterdir())
    given = content(folder, kind, photo)
    done = good("denoise", "-", "--model", small_prior, "--steps", 1, "--sigma", 0.1, *asked, given=given)
    result = Image.open(io.BytesIO(done.stdout_bytes))
    assert (result.format, result.size) == (written, (photo.shape[1], photo.shape[0]))
    if written == "PNG":
        assert json.loads(result.text["invsolve"])["input"] == "-"  # type: ignore[attr-defined]
    assert "wrote -" in done.stderr and "/stdin" not in done.stderr
    assert sorted(folder.iterdir()) == before


def test_stdout_holds_what_a_file_holds(folder: Path, small_prior: Path) -> None:
    arguments = ["inpaint", folder / "photo.png", "--mask", folder / "mask.png", "--model", small_prior, "--steps", 2]
    good(*arguments, "-o", folder / "a.png")
    done = good(*arguments, "-o", "-")
    a, b = Image.open(folder / "a.png"), Image.open(io.BytesIO(done.stdout_bytes))
    assert np.array_equal(np.asarray(a), np.asarray(b))
    good("inpaint", "-", *arguments[2:], "-o", folder / "c.png", given=(folder / "photo.png").read_bytes())
    assert np.array_equal(np.asarray(Image.open(folder / "c.png")), np.asarray(a))


def test_what_does_not_go_through_pipes(folder: Path, small_prior: Path) -> None:
    picture = (folder / "photo.png").read_bytes()
    for arguments, given, said in (
        (["--samples", 2], picture, "--samples 2 with the result on stdout"),
        (["--json"], picture, "--json"),
        ([], b"", "stdin is empty"),
        ([], b"no picture", "stdin is not a picture"),
        (["-o", "x.png", "--format", "jpg"], picture, "--format jpg with -o"),
    ):
        done = invoke("denoise", "-", "--model", small_prior, "--steps", 1, *arguments, given=given)
        assert isinstance(done.exception, InvsolveError) and said in str(done.exception)
        assert done.stdout_bytes == b"" and "invsolve-" not in str(done.exception)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_gets_and_gives_no_bytes(folder: Path) -> None:
    import pty

    leader, follower = pty.openpty()
    for arguments, streams in (
        (["photo.png", "-o", "-"], {"stdin": subprocess.DEVNULL, "stdout": follower}),
        (["-", "-o", "x.png"], {"stdin": follower, "stdout": subprocess.PIPE}),
    ):
        done: Any = subprocess.run(
            [sys.executable, "-m", "invsolve.cli.main", "denoise", *arguments], cwd=folder, stderr=subprocess.PIPE,
            text=True, check=False, **streams,
        )  # fmt: skip
        assert done.returncode == ExitCode.USAGE
        assert "is a terminal, and pictures are binary" in done.stderr.splitlines()[0]
    os.close(follower)
    os.close(leader)


# -- dry runs ------------------------------------------------------------------------------------------------------------
def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def test_a_dry_run_says_what_the_run_does(folder: Path, small_prior: Path) -> None:
    before = files(folder)
    arguments = [
        "inpaint", folder / "photo.png", "--mask", folder / "mask.png", "--model", small_prior, "--steps", 3,
        "--samples", 2, "-o", f"{folder}/new", "--truth", folder / "photo.png", "--report", folder / "new" / "r.html", "--json",
    ]  # fmt: skip
    plan = json.loads(good(*arguments, "--dry-run").stdout)
    assert files(folder) == before
    assert plan["reads"] == [str(folder / name) for name in ("photo.png", "photo.png", "mask.png")]
    report = json.loads(good(*arguments).stdout)
    assert plan["network_calls"] == report["network_calls"]
    assert plan["writes"] == report["outputs"]
    assert all(report[name] == plan[name] for name in ("rule", "sampler", "steps", "samples", "seed"))
    assert refused(*arguments, "--dry-run").exit_code == ExitCode.OUTPUT  # the files are there now
    text = good(*arguments[:-1], "--dry-run", "--force").stdout
    assert "about 6 network calls" in text and text.endswith("nothing was written\n")


def test_noisy_known_pixels_have_a_rule_of_their_own(folder: Path, small_prior: Path) -> None:
    solve = [
        "inpaint",
        folder / "photo.png",
        "--mask",
        folder / "mask.png",
        "--model",
        small_prior,
        "--dry-run",
        "--json",
    ]
    for more, rule in (
        ((), "wiener"),
        (("--noise", 0.05), "wiener(lam=0.5)"),
        (("--noise", 0.05, "--rule", "dps"), "dps"),
    ):
        assert json.loads(good(*solve, *more).stdout)["rule"] == rule


def test_a_dry_run_counts_parts_and_resolutions_and_lists_every_file(folder: Path, small_prior: Path) -> None:
    """A wide hole is filled at two resolutions, and one far away in a box of its own; a box beside a mask hides no file."""
    Image.fromarray(np.full((300, 200, 3), 128, np.uint8)).save(folder / "large.png")
    for samples in (1, 2):
        arguments = [
            "inpaint", folder / "large.png", "--box", "10,10,40,40", "--box", "190,280,3,3", "--model", small_prior,
            "--steps", 3, "--samples", samples, "-o", folder / f"{samples}.png", "--json",
        ]  # fmt: skip
        plan = json.loads(good(*arguments, "--dry-run").stdout)
        assert plan["network_calls"] == json.loads(good(*arguments).stdout)["network_calls"] > 3 * 3 * samples - 1
    both = ["inpaint", folder / "photo.png", "--mask", folder / "mask.png", "--box", "1,1,2,2", "--model", small_prior]
    assert json.loads(good(*both, "--dry-run", "--json").stdout)["reads"][-1] == str(folder / "mask.png")
    assert "is a file that is read" in str(refused(*both, "-o", folder / "mask.png", "--force"))


def test_dry_runs_of_slices(tmp_path: Path, ct_prior: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVSOLVE_CACHE", str(tmp_path / "cache"))
    body = np.zeros((32, 32), np.float32)
    body[8:24, 6:26] = 0.5
    sinogram = projector(Geometry(even_angles(10), 47, (32, 32)), cache=False)(torch.from_numpy(body)[None, None])[0]
    np.save(tmp_path / "sino.npy", sinogram.numpy())
    scan = simulate_mri(50.0 * body, equispaced_mask((32, 32), 2, 12), coils=2, noise=0.3)
    np.save(tmp_path / "kspace.npy", scan.kspace)
    before = files(tmp_path)
    shared = ["--model", ct_prior, "--steps", 2, "--samples", 2, "--json"]
    for command in (["ct", tmp_path / "sino.npy", "--size", 32], ["mri", tmp_path / "kspace.npy", "--noise", 0.3]):
        plan = json.loads(good(*command, *shared, "--dry-run").stdout)
        assert files(tmp_path) == before  # nor a cache
        report = json.loads(good(*command, *shared).stdout)
        assert plan["writes"] == report["outputs"]
        assert 0 <= report["network_calls"] - plan["network_calls"] <= 1  # ct asks once where to start
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        for path in set(files(tmp_path)) - set(before):
            path.unlink()


def test_a_dry_run_finds_what_is_wrong(folder: Path, small_prior: Path, ct_prior: Path) -> None:
    arguments = ["denoise", folder / "photo.png", "--model", small_prior, "--dry-run"]
    assert "unknown rule" in str(refused(*arguments, "--rule", "magic"))
    assert "unknown sampler" in str(refused(*arguments, "--sampler", "magic"))
    assert "this prior has 1 channel" in str(refused(*arguments, "--model", ct_prior))
    assert refused(*arguments, "-o", folder / "mask.png" / "x.png").exit_code == ExitCode.OUTPUT
    assert refused("denoise", folder / "absent.png", "--dry-run").exit_code == ExitCode.BAD_INPUT
    assert refused("inpaint", folder / "photo.png", "--scratches", "--dry-run").exit_code == ExitCode.USAGE


# -- completion and the manual -------------------------------------------------------------------------------------------
def completed(words: str) -> list[str]:
    environment = {
        **os.environ, "_INVSOLVE_COMPLETE": "complete_bash", "COMP_WORDS": f"invsolve {words}",
        "COMP_CWORD": str(len(f"invsolve {words}".split(" ")) - 1),
    }  # fmt: skip
    code = "import sys; sys.argv = ['invsolve']; from invsolve.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    return done.stdout.split()


def test_shells_complete_commands_options_and_choices() -> None:
    assert completed("eval") == ["evaluate"]
    assert completed("inpaint --dry") == ["--dry-run"]
    assert completed("inpaint --fit ") == ["tile", "crop", "resize"]
    assert {"--install-completion", "--show-completion"} <= {
        option for parameter in typer.main.get_command(app).params for option in parameter.opts
    }


def test_the_manual_has_every_command_and_option() -> None:
    page = good("man").stdout
    root: Any = typer.main.get_command(app)
    context = root.make_context("invsolve", [], resilient_parsing=True)
    for name in root.list_commands(context):
        assert f"\n.SS {name}".replace("-", "\\-") in page, name
        for option in (o for p in root.get_command(context, name).params for o in p.opts if o.startswith("--")):
            assert option.replace("-", "\\-") in page, (name, option)
    requests = {line.split()[0] for line in page.splitlines() if line.startswith((".", "'"))}
    assert requests <= {".TH", ".SH", ".SS", ".PP", ".TP", ".B", ".RS", ".RE", ".nf", ".fi"}
    assert all(f".B {int(code)}\n" in page for code in ExitCode)
    one = good("man", "inpaint").stdout
    assert one.startswith('.TH "INVSOLVE-INPAINT"') and "superres" not in one
    assert "did you mean 'inpaint'" in str(refused("man", "inpant"))


@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")
def test_the_manual_is_good_roff() -> None:
    page = good("man").stdout
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww"], input=page, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stderr == ""
    assert "progress bars are shown" in done.stdout


# -- cards ---------------------------------------------------------------------------------------------------------------
def test_a_card_is_shown_without_its_thousand_numbers() -> None:
    short, whole = (good("models", "info", "photos", *more).stdout for more in ((), ("--all",)))
    assert len(short.splitlines()) < 100 < len(whole.splitlines())
    fields = json.loads(whole)
    assert fields.pop("error_spectrum")
    assert json.loads(short) == fields
