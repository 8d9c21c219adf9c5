"""Picture commands over folders: the same files as alone and in shards, failures named, everything resumed."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from calling import call
from PIL import Image

from invsolve.cli.companions import by_stem, matching
from invsolve.cli.folders import chosen_shard
from invsolve.errors import ExitCode, InputError, UsageError
from invsolve.finding import Picture
from invsolve.manifests import Manifest, Shard
from invsolve.pretrained import loading

Patch = pytest.MonkeyPatch
Capture = pytest.CaptureFixture[str]

NAMES = ["a.png", "b.jpg", "c.png", "x/a.png", "x/grey.png"]


@pytest.fixture(autouse=True)
def _no_array(monkeypatch: Patch) -> None:
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: Patch) -> Path:
    """Five small pictures with their masks, two in a sub-folder, one grey and one JPEG."""
    y, x = np.mgrid[:16, :20]
    for k, name in enumerate(NAMES):
        planes = [128 + 100 * np.sin(x / (3 + k) + c) * np.cos(y / 5 - c) for c in range(3)]
        picture = Image.fromarray(np.stack(planes, axis=2).astype(np.uint8))
        mask = Image.fromarray(np.where((x + y + k) % 3 == 0, 255, 0).astype(np.uint8))
        for path, image in ((tmp_path / "in" / name, picture), (tmp_path / "masks" / name, mask)):
            path.parent.mkdir(parents=True, exist_ok=True)
            (image.convert("L") if "grey" in name else image).save(path.with_suffix(".png") if image is mask else path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def results(folder: str) -> dict[str, bytes]:
    found = (path for path in sorted(Path(folder).rglob("*.*")) if path.is_file() and "manifest" not in path.name)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_alone_in_a_folder_and_in_shards_the_files_are_the_same(
    folder: Path, small_prior: Path, monkeypatch: Patch, capfd: Capture
) -> None:
    common = ["--model", small_prior, "--steps", 2, "--samples", 2, "--seed", 5]
    assert call(monkeypatch, "inpaint", "in", "--mask", "masks", *common, "-o", "whole/") == 0
    said = capfd.readouterr().err
    assert "picture 2 of 5: b.jpg; 4 left, about" in said
    assert "wrote the results of 5 pictures into whole" in said and "sample" not in said
    for name in NAMES:
        mask = Path("masks", name).with_suffix(".png")
        place = Path("alone", name).parent
        alone = ["inpaint", "--seed=5", f"in/{name}", "--mask", mask, *common[:-2], "-o", place, "-q"]
        assert call(monkeypatch, *alone) == 0
    for shard in range(8):  # from 0: 0/8 is 8/8
        sharded = ["inpaint", "in/", "--mask", "masks/", *common, "--shard", f"{shard}/8", "-o", "shards"]
        assert call(monkeypatch, *sharded) == 0
    assert "shard 8/8 (--shard): 0 of 5 pictures" in capfd.readouterr().err
    assert call(monkeypatch, "merge", "shards") == 0
    assert "all 5 pictures of 8 shards are done" in capfd.readouterr().err
    assert len(results("whole")) == 5 * 4
    assert results("whole") == results("alone") == results("shards")
    whole, shards = (Manifest.read(Path(name, "manifest.jsonl")) for name in ("whole", "shards"))
    assert (whole.pictures, whole.settings) == (shards.pictures, shards.settings)
    assert [record.outputs for record in whole.records.values()] == [r.outputs for r in shards.records.values()]
    assert whole.records["x/a.png"].beside["mask"][0] == "masks/x/a.png" and whole.records["x/a.png"].seed == 5
    facts = json.loads(Image.open("whole/x/a.inpaint.png").text["invsolve"])  # type: ignore[attr-defined]
    assert facts["command"].startswith("invsolve inpaint in/x/a.png --mask masks/x/a.png --samples 2 --seed 5 ")


def test_the_prior_is_loaded_once(folder: Path, small_prior: Path, monkeypatch: Patch) -> None:
    loads, load = [], loading.load_prior

    def counted(*arguments: object, **options: object) -> object:
        loads.append(arguments)
        return load(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(loading, "load_prior", counted)
    given = ["denoise", "in/a.png", "in/c.png", "--sigma", 0.1, "--model", small_prior, "--steps", 1, "-o", "out", "-q"]
    assert call(monkeypatch, *given) == 0
    assert len(results("out")) == 2 and len(loads) == 1


def test_a_broken_picture_in_the_middle_is_listed_and_mended(
    folder: Path, small_prior: Path, monkeypatch: Patch, capfd: Capture
) -> None:
    good = Path("in/c.png").read_bytes()
    Path("in/c.png").write_bytes(good[:100])
    Path("masks/b.png").unlink()
    given = ["inpaint", "in", "--mask", "masks", "--model", small_prior, "--steps", 1, "-o", "out"]
    assert call(monkeypatch, *given) == ExitCode.SOME_FAILED
    said = capfd.readouterr().err
    assert "error: b.jpg: no mask for b.jpg in masks" in said and "error: c.png: in/c.png is damaged" in said
    assert "error: 2 of 5 pictures failed" in said and "Traceback" not in said
    assert len(results("out")) == 3
    assert call(monkeypatch, "merge", "out") == ExitCode.SOME_FAILED
    listed = capfd.readouterr().out.splitlines()
    assert listed[0].startswith("b.jpg: failed: no mask") and listed[1].startswith("c.png: failed: in/c.png is damaged")
    assert call(monkeypatch, *given, "--fail-fast", "-q") == ExitCode.SOME_FAILED
    Path("in/c.png").write_bytes(good)
    Path("masks/b.scratches.png").write_bytes(Path("masks/a.png").read_bytes())
    assert call(monkeypatch, *given) == 0
    assert "3 pictures of out were done before" in capfd.readouterr().err
    assert len(results("out")) == 5 and call(monkeypatch, "merge", "out") == 0


def test_a_picture_of_found_scratches_is_a_mask_and_no_truth(tmp_path: Path) -> None:
    picture = Picture(tmp_path / "a.png", "a.png")
    (tmp_path / "beside").mkdir()
    found = tmp_path / "beside/a.scratches.png"
    found.touch()
    by_stem.cache_clear()
    assert matching(tmp_path / "beside", picture, "mask") == found
    with pytest.raises(InputError, match="no truth for a.png"):
        matching(tmp_path / "beside", picture, "truth")


def test_a_rerun_with_other_settings_says_so(
    folder: Path, small_prior: Path, monkeypatch: Patch, capfd: Capture
) -> None:
    given = ["superres", "in/*.png", "-x", 2, "--model", small_prior, "--steps", 1, "-o", "out"]
    assert call(monkeypatch, *given) == 0
    before = results("out")
    assert call(monkeypatch, *given, "--seed", 4) == ExitCode.USAGE
    assert "out holds results of other settings: seed 0, now 4" in capfd.readouterr().err
    assert call(monkeypatch, "denoise", "in/*.png", "--model", small_prior, "-o", "out") == ExitCode.USAGE
    assert results("out") == before
    assert call(monkeypatch, *given, "--device", "cpu", "-v") == 0  # which decide nothing
    assert "nothing to do: 2 pictures of out were done before" in capfd.readouterr().err
    assert call(monkeypatch, "superres", "in/a.png", *given[2:]) == 0  # one picture, but the manifest has it
    assert "nothing to do: 1 picture of out was done before" in capfd.readouterr().err
    assert call(monkeypatch, *given, "--seed", 4, "--force", "-q") == 0
    assert results("out").keys() == before.keys() and results("out") != before


COMMANDS = {
    "colorize": ["--samples", 2],
    "superres": ["-x", 2],
    "deblur": ["--sigma", 1],
    "denoise": [],
    "dejpeg": ["--quality", 50],
    "inpaint": ["--box", "2,2,4,4"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_picture_command_takes_a_folder(
    command: str, folder: Path, small_prior: Path, monkeypatch: Patch, capfd: Capture
) -> None:
    common = [*COMMANDS[command], "--model", small_prior, "--steps", 1, "--json"]
    shutil.copytree("in/x", "truths")
    shutil.copy("in/b.jpg", "truths/b.jpg")
    if command not in ("superres", "colorize"):
        common += ["--truth", "truths"]
    assert call(monkeypatch, command, "in/b.jpg", "in/x", *common, "-o", "out.v2/") == 0
    reports = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [report["input"] for report in reports] == ["in/x/a.png", "in/b.jpg", "in/x/grey.png"]
    assert {path for report in reports for path in report["outputs"]} == {
        f"out.v2/{name}" for name in results("out.v2")
    }
    assert all(report["scores"] for report in reports) is ("--truth" in common)


def test_scratches_of_a_folder_are_its_masks(folder: Path, small_prior: Path, monkeypatch: Patch) -> None:
    for name in ("b.jpg", "c.png", "x/a.png", "x/grey.png"):
        Path("in", name).unlink()
    y, x = np.mgrid[:64, :64]
    scratched = (100 + 0.5 * x + 0.3 * y).astype(np.uint8)
    scratched[:, 30] = 255
    Image.fromarray(scratched).save("in/a.png")
    assert call(monkeypatch, "inpaint", "in", "--scratches", "-o", "found", "-q") == 0
    assert set(results("found")) == {"a.scratches.png", "a.scratches.shown.png"}
    given = ["--mask", "found", "--model", small_prior, "--steps", 1, "-o", "out", "-q"]
    assert call(monkeypatch, "inpaint", "in", *given) == 0
    assert set(results("out")) == {"a.inpaint.png"}


def test_a_folder_of_sinograms_and_of_kspaces(
    tmp_path: Path, ct_prior: Path, monkeypatch: Patch, capfd: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INVSOLVE_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for name in ("first", "second"):
        for part in ("ct", "mri"):
            Path(part).mkdir(exist_ok=True)
        np.save(f"ct/{name}.npy", 5 + rng.random((12, 32)))
        np.save(f"mri/{name}.npy", rng.normal(size=(32, 32)) + 1j * rng.normal(size=(32, 32)))
    common = ["--model", ct_prior, "--steps", 1, "--samples", 2, "-q"]
    assert call(monkeypatch, "ct", "ct", "--noise", 0.05, *common, "-o", "slices") == 0
    assert call(monkeypatch, "mri", "mri", "--noise", 0.1, *common, "-o", "heads") == 0
    for stem in ("first", "second"):
        assert {f"{stem}.ct.npy", f"{stem}.ct.json", f"{stem}.ct.std.npy"} <= set(results("slices"))
        assert {f"{stem}.mri.npy", f"{stem}.mri.png", f"{stem}.mri.std.npy"} <= set(results("heads"))
    np.testing.assert_array_equal(np.load("slices/first.ct.npy").shape, (32, 32))


BAD = {
    "inpaint in --mask masks": "in is a folder, and there is no -o",
    "denoise in/a.png in/c.png": "several pictures, and there is no -o",
    "denoise in -o in/a.png": "in/a.png is a file",
    "denoise in/a.png in/c.png -o result.png": "result.png is the name of one",
    "denoise in -o in": "the results would lie beside in/a.png",
    "denoise in/a.png in/x -o out": "in/a.png and in/x/a.png would have the same name",
    "denoise in -o out --diagnostics run.png": "--diagnostics with several pictures",
    "denoise in -o out --truth in/a.png": "--truth of one file with several pictures",
    "denoise in -o out --shard 9/8": "--shard '9/8'",
    "denoise in -o out --model nowhere": "nowhere",
    "denoise in/*.gif -o out": "no file matches 'in/*.gif'",
    "merge nowhere": "no manifest in nowhere",
    "merge in": "no manifest in in",
}


@pytest.mark.parametrize("line", BAD)
def test_what_cannot_be_is_refused_before_anything_is_made(
    line: str, folder: Path, monkeypatch: Patch, capfd: Capture
) -> None:
    code = call(monkeypatch, *line.split())
    assert code in (ExitCode.USAGE, ExitCode.BAD_INPUT, ExitCode.MODEL)
    error, hint = capfd.readouterr().err.splitlines()
    assert BAD[line] in error and hint.startswith("hint: ")
    assert not Path("out").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_loses_nothing(folder: Path, small_prior: Path, monkeypatch: Patch) -> None:
    given = ["denoise", "in", "--sigma", 0.1, "--model", small_prior, "--steps", 40, "-o"]
    command = [sys.executable, "-m", "invsolve", *map(str, given), "out"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("picture 2"):
            break
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == ExitCode.INTERRUPTED and "Traceback" not in said
    assert said.endswith(" done; the same command goes on from there\ninterrupted\n")
    assert 1 <= len(results("out")) < 5
    assert call(monkeypatch, *given, "out", "-q") == 0 == call(monkeypatch, *given, "reference", "-q")
    assert results("out") == results("reference") and len(results("out")) == 5


def test_two_runs_at_once_on_one_folder(folder: Path, small_prior: Path, monkeypatch: Patch, capfd: Capture) -> None:
    from filelock import FileLock

    given = ["denoise", "in", "--model", small_prior, "--steps", 1, "-o", "out"]
    Path("out").mkdir()
    with FileLock("out/.manifest.lock"):
        assert call(monkeypatch, *given, "-q") == ExitCode.OUTPUT
    assert "another run is writing into out" in capfd.readouterr().err
    assert results("out") == {}


def test_a_slurm_array_gives_the_shard(folder: Path, small_prior: Path, monkeypatch: Patch, capfd: Capture) -> None:
    for task in (3, 4):
        for name, value in (("ID", task), ("COUNT", 2), ("MIN", 3), ("MAX", 4)):
            monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
        given = ["denoise", "in", "--model", small_prior, "--steps", 1, "-o", "out"]
        assert call(monkeypatch, *given) == 0
        said = capfd.readouterr().err.splitlines()
        assert said[0] == f"shard {task - 2}/2 (the SLURM array): {3 if task == 3 else 2} of 5 pictures"
        assert said[-1] == "when all 2 shards are done: invsolve merge out"
    assert call(monkeypatch, "merge", "out", "-q") == 0 and len(results("out")) == 5
    Path("out/a.denoise.png").unlink()
    assert call(monkeypatch, "denoise", "in/a.png", *given[2:]) == 0  # one file is nobody's share
    assert len(results("out")) == 5


def test_shares_of_arrays() -> None:
    def shard(**values: int) -> Shard | None:
        return chosen_shard(None, {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()})

    for first in (0, 1):  # even where only the two are known, every task has a share of its own
        assert {shard(ID=task + first, COUNT=8) for task in range(8)} == {Shard(k, 8) for k in range(1, 9)}
    assert [shard(ID=k, COUNT=3, MIN=1, MAX=9, STEP=4) for k in (1, 5, 9)] == [Shard(k, 3) for k in (1, 2, 3)]
    assert shard(ID=3) is None and shard(COUNT=3) is None and shard(ID=0, COUNT=1) is None
    assert chosen_shard("2/3", {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "8"}) == Shard(2, 3)
    assert chosen_shard("1/1", {}) is None
    with pytest.raises(UsageError, match="2 tasks from 3 to 5: which share"):  # --array=3,5
        shard(ID=3, COUNT=2, MIN=3, MAX=5)


def test_the_pages_example_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "folders.md").read_text()
    code = re.search(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert code is not None
    Path("in").rename("night")
    Path("example.py").write_text(code[1])
    runpy.run_path("example.py")
    assert capsys.readouterr().out == "5 done, 0 before, []\n"
    assert len(list(Path("clean").rglob("*.denoise.png"))) == 5
