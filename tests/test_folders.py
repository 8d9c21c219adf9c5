"""Many pictures: nothing is lost, nothing done twice, nothing of anybody else's overwritten."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from invsolve import manifests
from invsolve.atomic import write_files
from invsolve.errors import InputError, OutputError, UsageError
from invsolve.finding import Picture, find_pictures
from invsolve.folders import Outcome, run_folder
from invsolve.manifests import Manifest, Record, Shard, manifest_paths, merge_manifests

ENDINGS = {".png"}


class Copying:
    """Work that writes a picture's bytes again, and can be told to fail or be interrupted."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.errors: dict[str, BaseException] = {}  # before anything is written
        self.interrupts: set[str] = set()  # after it is

    def __call__(self, picture: Picture, folder: Path, force: bool) -> Sequence[Path]:
        self.calls.append(picture.name)
        if picture.name in self.errors:
            raise self.errors[picture.name]
        result = folder / f"{picture.path.stem}.copy.png"
        assert force or not result.exists()
        write_files({result: b"result of " + picture.path.read_bytes()})
        if picture.name in self.interrupts:
            raise KeyboardInterrupt
        return [result]


@pytest.fixture
def work() -> Copying:
    return Copying()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Five pictures, as far as their endings go, two of them in a sub-folder."""
    folder = tmp_path / "in"
    for name in ("a.png", "b.png", "c.png", "x/a.png", "x/d.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


NAMES = ["a.png", "b.png", "c.png", "x/a.png", "x/d.png"]


def run(work: Copying, source: Path, settings: dict[str, Any] | None = None, **others: Any) -> Outcome:
    folder = source.with_name("out")
    pictures = find_pictures([source], ENDINGS, without=folder)
    return run_folder(work, pictures, folder, task="copy", settings=settings or {"seed": 3}, **others)


def results(source: Path) -> dict[str, str]:
    out = source.with_name("out")
    return {path.relative_to(out).as_posix(): path.read_text() for path in sorted(out.rglob("*.copy.png"))}


WANTED = {f"{name.removesuffix('.png')}.copy.png": f"result of {name}" for name in NAMES}


def test_every_picture_is_done_once(source: Path, work: Copying) -> None:
    assert run(work, source).done == NAMES
    assert results(source) == WANTED
    again = run(work, source)
    assert (again.done, again.before, again.failed) == ([], NAMES, [])
    assert work.calls == NAMES
    begin, *lines = map(json.loads, (source.with_name("out") / "manifest.jsonl").read_text().splitlines())
    assert begin["pictures"] == NAMES and begin["settings"] == {"seed": 3}
    assert [(line["name"], line["status"], line["seed"]) for line in lines] == [(name, "done", 3) for name in NAMES]
    assert lines[3]["outputs"] == ["x/a.copy.png"] and lines[3]["input"] == str(source / "x" / "a.png")


def test_a_failure_does_not_stop_the_others_and_is_tried_again(source: Path, work: Copying) -> None:
    work.errors = {"b.png": InputError("it is damaged", hint="copy it"), "x/a.png": RuntimeError("no convergence")}
    first = run(work, source)
    assert first.done == ["a.png", "c.png", "x/d.png"]
    assert first.failed == [("b.png", "it is damaged (copy it)"), ("x/a.png", "RuntimeError: no convergence")]
    work.errors, work.calls = {}, []
    assert run(work, source).done == ["b.png", "x/a.png"] == work.calls
    assert results(source) == WANTED


def test_fail_fast_stops_at_the_first(source: Path, work: Copying) -> None:
    work.errors = {"b.png": InputError("it is damaged")}
    outcome = run(work, source, fail_fast=True)
    assert outcome.done == ["a.png"] and [name for name, _ in outcome.failed] == ["b.png"]
    assert work.calls == ["a.png", "b.png"]


def test_a_file_that_vanished_fails_alone(source: Path, work: Copying) -> None:
    (source / "b.png").unlink()
    (source / "b.png").symlink_to("nowhere")
    outcome = run(work, source)
    assert len(outcome.done) == 4 and "no such file" in outcome.failed[0].reason


@pytest.mark.parametrize("at", NAMES)
def test_an_interrupt_between_result_and_manifest_loses_nothing(at: str, source: Path, work: Copying) -> None:
    work.interrupts = {at}
    with pytest.raises(KeyboardInterrupt):
        run(work, source)
    work.interrupts, work.calls = set(), []
    outcome = run(work, source)
    assert outcome.failed == [] and outcome.before + outcome.done == NAMES
    assert work.calls == NAMES[NAMES.index(at) :]
    assert results(source) == WANTED


def test_an_error_of_usage_holds_for_all(source: Path, work: Copying) -> None:
    work.errors = {name: UsageError("--quality of a PNG") for name in NAMES}
    with pytest.raises(UsageError, match="quality"):
        run(work, source)
    assert work.calls == ["a.png"]


def test_what_nobody_of_ours_wrote_stays(source: Path, work: Copying) -> None:
    mine = source.with_name("out") / "b.copy.png"
    mine.parent.mkdir()
    mine.write_text("mine")
    outcome = run(work, source)
    assert len(outcome.done) == 4 and "b.copy.png exists" in outcome.failed[0].reason
    assert mine.read_text() == "mine"
    assert run(work, source, force=True).done == NAMES
    assert results(source) == WANTED


def test_what_somebody_made_of_a_picture_that_failed_stays(source: Path, work: Copying) -> None:
    work.errors = {"b.png": InputError("it is damaged")}
    run(work, source)
    by_hand = source.with_name("out") / "b.copy.png"
    by_hand.write_text("made by hand")
    work.errors = {}
    assert "b.copy.png exists" in run(work, source).failed[0].reason
    assert by_hand.read_text() == "made by hand"


def test_results_among_the_pictures_of_another_name(source: Path, work: Copying) -> None:
    (source / "a.copy.png").write_text("a.copy.png")  # whose result begins as those of a.png do
    assert len(run(work, source).done) == 6
    assert run(work, source).before == ["a.copy.png", *NAMES]


@pytest.mark.parametrize("dangling", [False, True])
def test_nothing_is_written_through_a_link(dangling: bool, source: Path, work: Copying) -> None:
    other = source.with_name("other.png")
    if not dangling:
        other.write_text("mine")
    (source.with_name("out")).mkdir()
    (source.with_name("out") / "b.copy.png").symlink_to(other)
    for force in (False, True):
        outcome = run(work, source, force=force)
        assert "b.copy.png is a symbolic link" in outcome.failed[0].reason
    assert not other.exists() if dangling else other.read_text() == "mine"


def test_a_result_that_is_gone_is_made_again(source: Path, work: Copying) -> None:
    run(work, source)
    (source.with_name("out") / "c.copy.png").unlink()
    assert run(work, source).done == ["c.png"]


def test_a_picture_that_changed_is_said(source: Path, work: Copying) -> None:
    run(work, source)
    (source / "b.png").write_text("another")
    outcome = run(work, source)
    assert "b.png has changed since b.copy.png was made" in outcome.failed[0].reason and outcome.done == []
    assert results(source) == WANTED
    (source.with_name("out") / "b.copy.png").unlink()
    assert run(work, source).done == ["b.png"]


def test_a_mask_that_changed_is_said(source: Path, work: Copying) -> None:
    mask = source.with_name("mask.png")
    mask.write_text("mask")
    run(work, source, beside=lambda _: {"mask": mask})
    mask.write_text("another")
    assert "what goes with" in run(work, source, beside=lambda _: {"mask": mask}).failed[0].reason


def test_other_settings_are_said_and_not_mixed_in(source: Path, work: Copying) -> None:
    run(work, source, {"seed": 3, "steps": 24})
    with pytest.raises(UsageError, match="other settings: seed 3, now 4; steps 24, now not given"):
        run(work, source, {"seed": 4})
    assert run(work, source, {"seed": 4}, force=True).done == NAMES
    assert run(work, source, {"seed": 4}).before == NAMES


def test_new_settings_by_force_go_on_after_a_kill(source: Path, work: Copying) -> None:
    run(work, source)
    work.interrupts = {"b.png"}
    with pytest.raises(KeyboardInterrupt):
        run(work, source, {"seed": 4}, force=True)
    work.interrupts = set()
    outcome = run(work, source, {"seed": 4})
    assert outcome.before == ["a.png"] and outcome.done == NAMES[1:]


def test_a_failure_after_a_kill_or_under_force_is_mended_too(source: Path, work: Copying) -> None:
    work.interrupts = {"b.png"}
    with pytest.raises(KeyboardInterrupt):
        run(work, source)  # b.png has a result, and no record of it
    work.interrupts, work.errors = set(), {"b.png": InputError("it is damaged")}
    assert [name for name, _ in run(work, source).failed] == ["b.png"]
    work.errors = {"c.png": InputError("it is damaged")}
    assert run(work, source, {"seed": 4}, force=True).failed[0].name == "c.png"
    work.errors = {}
    assert run(work, source, {"seed": 4}).done == ["c.png"]
    assert results(source) == WANTED


def test_what_is_made_of_a_result_beside_it_stays(source: Path, work: Copying) -> None:
    run(work, source)
    edited = source.with_name("out") / "a.copy.edited.png"
    edited.write_text("edited")
    assert run(work, source).before == NAMES
    work.interrupts = {"a.png"}
    with pytest.raises(KeyboardInterrupt):
        run(work, source, {"seed": 4}, force=True)
    work.interrupts = set()
    assert run(work, source, {"seed": 4}).done == NAMES
    assert edited.read_text() == "edited"


def test_two_runs_at_once(source: Path, work: Copying, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "PATIENCE", 0.1)
    said: list[str] = []

    def second(picture: Picture, folder: Path, force: bool) -> Sequence[Path]:
        for shard in (None, Shard(1, 2)):
            with pytest.raises(OutputError, match="another run is writing into"):
                run(Copying(), source, shard=shard)
            said.append(picture.name)
        return work(picture, folder, force)

    run_folder(second, find_pictures([source / "a.png"], ENDINGS), source.with_name("out"), task="copy", settings={})
    assert said == ["a.png"] * 2 and work.calls == ["a.png"]


def test_shards_run_at_once_but_not_with_those_of_another_division(source: Path, work: Copying) -> None:
    def second(picture: Picture, folder: Path, force: bool) -> Sequence[Path]:
        run(work, source, shard=Shard(2, 2))
        for shard in (None, Shard(1, 2), Shard(1, 3)):
            with pytest.raises(OutputError, match="another run is writing into"):
                run(work, source, shard=shard)
        return work(picture, folder, force)

    pictures = find_pictures([source], ENDINGS)
    run_folder(second, pictures, source.with_name("out"), task="copy", settings={"seed": 3}, shard=Shard(1, 2))
    assert sorted(work.calls) == NAMES
    assert results(source) == WANTED


def test_shards_are_one_run(source: Path, work: Copying) -> None:
    out = source.with_name("out")
    for index in (8, 1, 2, 3, 4, 5, 6):
        run(work, source, shard=Shard(index, 8))
    assert merge_manifests(out).missing == []  # shards without a picture need not have run
    assert [path.name for path in manifest_paths(out)] == ["manifest.jsonl"]
    merged = Manifest.read(out / "manifest.jsonl")
    assert merged.pictures == NAMES and sorted(work.calls) == NAMES
    assert results(source) == WANTED
    assert run(work, source).before == NAMES
    assert merge_manifests(out) == (NAMES, 0, [], [])


def test_merge_lists_what_is_missing_and_the_shards_go_on(source: Path, work: Copying) -> None:
    out = source.with_name("out")
    work.errors = {"c.png": InputError("it is damaged")}
    run(work, source, shard=Shard(1, 3))
    run(work, source, shard=Shard(3, 3))
    found = merge_manifests(out)
    assert (found.missing, [record.name for record in found.failed]) == (["b.png", "x/d.png"], ["c.png"])
    assert len(manifest_paths(out)) == 2
    work.errors = {}
    for index in (1, 2, 3):
        run(work, source, shard=Shard(index, 3))
    (out / "a.copy.png").unlink()
    assert merge_manifests(out).missing == ["a.png"]
    assert run(work, source).done == ["a.png"]  # one run over all takes the shards' manifests over
    assert [path.name for path in manifest_paths(out)] == ["manifest.jsonl"]


def test_merge_refuses_what_does_not_go_together(source: Path, work: Copying) -> None:
    out = source.with_name("out")
    with pytest.raises(InputError, match="no manifest in"):
        merge_manifests(out)
    run(work, source, shard=Shard(1, 2))
    with pytest.raises(UsageError, match="other settings: seed 3, now 4"):
        run(work, source, {"seed": 4}, shard=Shard(2, 2))
    run(work, source, {"seed": 4}, shard=Shard(2, 2), force=True)
    with pytest.raises(InputError, match="settings differ: seed 3, in manifest-2-of-2.jsonl 4"):
        merge_manifests(out)
    run(work, source, shard=Shard(2, 2), force=True)
    (source / "e.png").write_text("e.png")
    run(work, source, shard=Shard(2, 2))
    with pytest.raises(InputError, match=r"of different pictures, such as e\.png"):
        merge_manifests(out)
    run(work, source, shard=Shard(1, 2))
    assert len(merge_manifests(out).pictures) == 6


def test_a_torn_line_counts_for_nothing(source: Path, work: Copying) -> None:
    run(work, source)
    manifest = source.with_name("out") / "manifest.jsonl"
    whole = manifest.read_bytes()
    manifest.write_bytes(whole[:-40])
    outcome = run(work, source)  # whose x/d.png lies there without a record
    assert outcome.before == NAMES[:4] and "x/d.copy.png exists" in outcome.failed[0].reason
    assert manifest.read_bytes().count(b"\n") == 5


def test_a_damaged_manifest_is_said(source: Path, work: Copying) -> None:
    run(work, source)
    manifest = source.with_name("out") / "manifest.jsonl"
    lines = manifest.read_text().splitlines(keepends=True)
    for line in ("}\n", "[]\n", '{"name": "a.png"}\n', lines[1].replace("a.copy.png", "../a.png")):
        manifest.write_text("".join([lines[0], line, *lines[2:]]))
        with pytest.raises(InputError, match="line 2 of .* is damaged"):
            run(work, source)


def test_a_full_disk_stops_the_run_which_then_goes_on(source: Path, work: Copying) -> None:
    work.errors = {"b.png": OSError(errno.ENOSPC, "No space left on device")}
    with pytest.raises(OSError, match="No space"):
        run(work, source)
    assert work.calls == ["a.png", "b.png"]
    work.errors = {}
    assert run(work, source).done == NAMES[1:]


def test_a_manifest_that_cannot_be_written_stays_whole(
    source: Path, work: Copying, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, room = os.write, [4]

    def full(file: int, line: bytes) -> int:
        room[0] -= 1
        return real(file, line) if room[0] >= 0 else real(file, line[:20])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OutputError, match=r"cannot write .*manifest\.jsonl: no space left"):
        run(work, source)
    monkeypatch.undo()
    records = Manifest.read(source.with_name("out") / "manifest.jsonl").records
    assert {name: record.status for name, record in records.items()} == {"a.png": "done", "b.png": "started"}
    assert run(work, source).failed == []
    assert results(source) == WANTED


def test_names_of_one_result_are_refused_before_the_work(source: Path, work: Copying) -> None:
    with pytest.raises(UsageError, match="would have the same name"):
        run_folder(
            work, find_pictures([source / "a.png", source / "x" / "a.png"], ENDINGS), source.with_name("out"),
            task="copy", settings={},
        )  # fmt: skip
    with pytest.raises(UsageError, match="results would lie beside"):
        run_folder(work, find_pictures([source], ENDINGS), source, task="copy", settings={})
    assert work.calls == [] and not source.with_name("out").exists()


def test_what_files_folders_and_globs_mean(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source / "notes.txt").write_text("no picture")
    (source / ".hidden.png").write_text("hidden")
    (source / "UPPER.PNG").write_text("upper")
    (source / "loop").symlink_to(source)

    def names(*given: str | Path, **others: Any) -> list[str]:
        return [picture.name for picture in find_pictures(given, ENDINGS, **others)]

    assert names(source) == ["UPPER.PNG", *NAMES]
    assert names(source / "*.png") == NAMES[:3]
    assert names(source / "**" / "?.png", without=source / "x") == NAMES[:3]
    assert set(names(source, without=source / "x")) == {"UPPER.PNG", *NAMES[:3]}
    assert names(source / "a.png", source / "a.png", source / "x" / "d.png") == ["a.png", "d.png"]
    (source / "[a].png").write_text("literally")
    assert names(source / "[a].png") == ["[a].png"]
    monkeypatch.chdir(source / "x")
    assert names("../*.png", "..") == ["UPPER.PNG", "[a].png", *NAMES]
    assert names("../a.png") == ["a.png"]
    for bad, error in (
        ("*.gif", InputError),
        (source / "none", None),
        ("../*/../*.png", UsageError),
        ("**.png", UsageError),
    ):
        if error is None:
            assert names(bad) == ["none"]  # which fails in its turn, and alone
        else:
            with pytest.raises(error):
                names(bad)
    (source / "empty").mkdir()
    with pytest.raises(InputError, match="no picture in"):
        names(source / "empty")


def test_names_that_are_no_text(source: Path, work: Copying) -> None:
    strange = os.fsdecode(b"b\xff\n.png")
    try:
        (source / strange).write_text("strange")
    except OSError:
        pytest.skip("this file system has names of text only")
    assert len(run(work, source).done) == 6
    assert strange in run(work, source).before


@pytest.mark.parametrize(
    ("text", "shard"), [("3/8", Shard(3, 8)), ("8/8", Shard(8, 8)), ("0/8", Shard(8, 8)), ("1/1", Shard(1, 1))]
)
def test_shards_are_read(text: str, shard: Shard) -> None:
    assert Shard.parse(text) == shard


@pytest.mark.parametrize("text", ["9/8", "1/0", "0/0", "a/8", "1", "-1/8", "1/8/2", "", "1.5/8"])
def test_no_shards_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="shard"):
        Shard.parse(text)


def test_shares_hold_every_picture_once() -> None:
    shares = [Shard(index, 3).of(range(10)) for index in (1, 2, 3)]
    assert sorted(number for share in shares for number in share) == list(range(10))
    assert {len(share) for share in shares} == {3, 4}


def test_a_record_stays_within_its_folder() -> None:
    good = {"name": "a.png", "input": "a.png", "sha256": "", "settings": "", "status": "done"}
    assert Record.read(good).name == "a.png"
    for bad in ({"name": "../a.png"}, {"outputs": ["/etc/a"]}, {"status": "perhaps"}, {"name": 3}):
        with pytest.raises((ValueError, TypeError)):
            Record.read({**good, **bad})
