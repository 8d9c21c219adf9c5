"""Volumes and folders through Dask: the values of one machine, whatever happens on the way; stores that are gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("distributed")
zarr = pytest.importorskip("zarr")
h5py = pytest.importorskip("h5py")

from distributed import Client, LocalCluster

from invsolve import load_prior, reconstruct_ct
from invsolve.ct.units import to_hounsfield
from invsolve.distributed import connect, local_workers, map_files, map_slices, open_sinograms
from invsolve.distributed.bounded import PER_WORKER, RETRIES, bounded
from invsolve.distributed.cluster import usable_cores, worker_environments
from invsolve.distributed.store import write_slice
from invsolve.errors import ExitCode, InputError, ModelError, OutputError, SolveError, UsageError
from invsolve.forward_models import Geometry, even_angles, projector
from invsolve.models.score_model import ScoreModel

SIZE, VIEWS, SLICES = 32, 12, 6
GEOMETRY = Geometry(even_angles(VIEWS), 47, (SIZE, SIZE))
SOLVE: dict[str, Any] = {"samples": 2, "steps": 3, "seed": 5}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVSOLVE_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Two workers in threads of this process, which other processes can reach too; one thread each may be three in torch."""
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, protocol="tcp", host="127.0.0.1", dashboard_address=None,
        resources={"cores": 3},
    ) as made:  # fmt: skip
        yield made


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[Client]:
    with Client(cluster, set_as_default=False) as made:
        yield made


@pytest.fixture(scope="module")
def sinograms() -> np.ndarray:
    """Of a body that becomes wider from slice to slice: (slices, views, detectors)."""
    y, x = (np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2) / (SIZE / 2)
    body = [np.where((x / 0.8) ** 2 + (y / (0.5 + 0.03 * k)) ** 2 < 1, 0.5, 0) for k in range(SLICES)]
    return projector(GEOMETRY, cache=False)(torch.tensor(np.stack(body))[:, None].float()).numpy()


@pytest.fixture
def volume(sinograms: np.ndarray, tmp_path: Path) -> Path:
    """A Zarr group with its angles, in radians."""
    group = zarr.open_group(tmp_path / "volume.zarr", mode="w")
    group.create_array("sinogram", data=sinograms, chunks=(1, *sinograms.shape[1:]))
    group.create_array("angles", data=np.deg2rad(GEOMETRY.angles)).attrs["units"] = "radians"
    return tmp_path / "volume.zarr"


def on_one_machine(sinograms: np.ndarray, prior: Path, **options: Any) -> np.ndarray:
    """The mean in HU as the whole stack at once has it."""
    posterior = reconstruct_ct(sinograms, GEOMETRY, load_prior(prior, "cpu"), **{**SOLVE, **options})
    return to_hounsfield(posterior.mean[:, 0].numpy())


# -- volumes --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["group.zarr", "array.zarr", "file.h5", "stack.npy"])
def test_volumes_are_opened_without_being_read(kind: str, sinograms: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / kind
    if kind == "group.zarr":
        zarr.open_group(path, mode="w").create_array("sinogram", data=sinograms, chunks=(2, *sinograms.shape[1:]))
    elif kind == "array.zarr":
        zarr.create_array(path, data=sinograms, chunks=(1, *sinograms.shape[1:]))
    elif kind == "file.h5":
        with h5py.File(path, "w") as file:
            file["sinogram"], file["angles"] = sinograms, GEOMETRY.angles
    else:
        np.save(path, sinograms)
    found = open_sinograms(path)
    assert found.array.shape == sinograms.shape
    np.testing.assert_array_equal(found.array[2:4].compute(scheduler="synchronous"), sinograms[2:4])
    assert found.angles == (GEOMETRY.angles if kind == "file.h5" else None)


def test_a_chunk_of_many_slices_is_spoken_of(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "v.zarr", data=np.zeros((40, 3, 8), np.float32), chunks=(40, 3, 8))
    assert "40 slices lie in one chunk" in open_sinograms(tmp_path / "v.zarr").notes[0]


def test_what_is_no_volume_is_refused_in_a_line(tmp_path: Path) -> None:
    np.save(tmp_path / "flat.npy", np.zeros((3, 8)))
    np.save(tmp_path / "complex.npy", np.zeros((2, 3, 8), complex))
    (tmp_path / "broken.h5").write_bytes(b"no HDF5")
    zarr.open_group(tmp_path / "empty.zarr", mode="w").create_array("other", data=np.zeros(3))
    for name, said in {
        "flat.npy": r"shape \(3, 8\)", "complex.npy": "complex128", "broken.h5": "cannot read", "none.zarr": "no such file",
        "empty.zarr": "no array 'sinogram', but other", "a.jpg": "no volume",
    }.items():  # fmt: skip
        with pytest.raises(InputError, match=said):
            open_sinograms(tmp_path / name)


def test_a_missing_package_is_named_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch, volume: Path) -> None:
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ModelError) as caught:
        open_sinograms(volume)
    assert "invsolve[distributed]" in caught.value.hint


# -- slices ---------------------------------------------------------------------------------------------------------
def test_the_values_are_those_of_one_machine_bit_for_bit(
    client: Client, volume: Path, sinograms: np.ndarray, ct_prior: Path, tmp_path: Path
) -> None:
    shares: list[float] = []
    result = map_slices(
        client, open_sinograms(volume).array, GEOMETRY, tmp_path / "out.zarr", ct_prior, interval=True, threads=1,
        facts={"input": "volume.zarr"}, progress=shares.append, **SOLVE,
    )  # fmt: skip
    torch.set_num_threads(1)
    expected = on_one_machine(sinograms, ct_prior)
    np.testing.assert_array_equal(result.mean.compute(), expected)
    assert shares == pytest.approx([k / SLICES for k in range(1, SLICES + 1)])
    assert result.low is not None and result.high is not None and result.std is not None
    assert (result.low.compute() <= expected).all() and (expected <= result.high.compute()).all()
    assert (result.std.compute() > 0).any()
    assert (result.computed, result.calls) == (SLICES, SLICES * (3 * 2 + 1))
    group = zarr.open_group(tmp_path / "out.zarr", mode="r")
    assert dict(group.attrs["invsolve"]) == {"input": "volume.zarr"}
    assert group.attrs["settings"]["seed"] == 5
    assert group["mean"].chunks == (1, SIZE, SIZE)
    assert group["mean"].attrs["units"] == "HU"
    assert not (tmp_path / "out.partial.zarr").exists()


def test_neighbours_share_their_noise_unless_told_otherwise(sinograms: np.ndarray, ct_prior: Path) -> None:
    same = np.repeat(sinograms[:1], 3, axis=0)
    shared = on_one_machine(same, ct_prior)
    np.testing.assert_array_equal(shared[0], shared[2])
    apart = on_one_machine(same, ct_prior, through_plane="off")
    assert np.abs(apart[0] - apart[2]).max() > 1
    np.testing.assert_array_equal(apart[0], shared[0])
    np.testing.assert_array_equal(on_one_machine(same[2:], ct_prior, through_plane="off", first=2), apart[2:])
    with pytest.raises(UsageError, match="through_plane"):
        on_one_machine(same, ct_prior, through_plane="on")


def test_a_stopped_run_is_gone_on_with_and_other_settings_are_refused(
    client: Client, volume: Path, sinograms: np.ndarray, ct_prior: Path, tmp_path: Path
) -> None:
    output, array = tmp_path / "out.zarr", open_sinograms(volume).array

    def run(**others: Any) -> Any:
        return map_slices(client, array, GEOMETRY, output, ct_prior, threads=1, **{**SOLVE, **others})

    def stop(share: float) -> None:
        if share > 0.3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(progress=stop)
    assert not output.exists()
    with pytest.raises(OutputError, match="seed 5, now it is 6"):
        run(seed=6)
    notes: list[str] = []
    result = run(note=notes.append)
    assert 0 < result.computed <= SLICES - 2
    assert f"{SLICES - result.computed} of {SLICES} slices were done already" in notes
    torch.set_num_threads(1)
    np.testing.assert_array_equal(result.mean.compute(), on_one_machine(sinograms, ct_prior))
    with pytest.raises(OutputError, match="exists"):
        run()
    again = run(seed=6, force=True)
    assert again.computed == SLICES
    with pytest.raises(OutputError, match="other settings"):  # as a task of the stopped run would, that goes on
        write_slice(output, "0123456789abcdef", 0, {}, None)
    np.testing.assert_array_equal(again.mean[0].compute(), on_one_machine(sinograms[:1], ct_prior, seed=6)[0])
    np.testing.assert_array_equal(again.mean.compute(), on_one_machine(sinograms, ct_prior, seed=6))
    assert {path.name for path in tmp_path.iterdir()} == {"volume.zarr", "out.zarr"}


def test_a_classical_method_needs_no_prior_and_counts_are_weighted(
    client: Client, sinograms: np.ndarray, tmp_path: Path
) -> None:
    import dask.array as da

    counts = da.from_array(np.random.default_rng(0).poisson(1e4 * np.exp(-0.04 * sinograms)).astype(np.float32))
    result = map_slices(
        client, counts, GEOMETRY, tmp_path / "tv.zarr", method="tv", i0=1e4, scale=0.04, threads=1
    )  # fmt: skip
    middle = result.mean[:, SIZE // 2, SIZE // 2].compute()
    assert np.abs(middle).max() < 150
    assert result.std is None
    assert result.calls == 0
    assert 0.3 < np.median(result.chi2) < 3


def test_an_error_says_which_slice_it_is_of(
    client: Client, sinograms: np.ndarray, ct_prior: Path, small_prior: Path, tmp_path: Path
) -> None:
    import dask.array as da

    broken = sinograms.copy()
    broken[3, 0, 0] = np.nan
    arguments: Any = (client, da.from_array(broken), GEOMETRY, tmp_path / "out.zarr")
    with pytest.raises(InputError, match="slice 3: the sinogram has 1 values"):
        map_slices(*arguments, ct_prior, **SOLVE)
    with pytest.raises(ModelError, match="3 channels"):
        map_slices(*arguments, small_prior, **SOLVE)


def test_a_killed_worker_changes_nothing(volume: Path, sinograms: np.ndarray, ct_prior: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    with local_workers(2, device="cpu") as client:
        alive = client.run(os.getpid)
        assert len(alive) == 2

        def kill(share: float) -> None:
            if alive:
                os.kill(alive.popitem()[1], signal.SIGKILL)
                alive.clear()

        result = map_slices(
            client, open_sinograms(volume).array, GEOMETRY, tmp_path / "out.zarr", ct_prior, threads=1, progress=kill,
            note=notes.append, **{**SOLVE, "steps": 12},
        )  # fmt: skip
    torch.set_num_threads(1)
    np.testing.assert_array_equal(result.mean.compute(), on_one_machine(sinograms, ct_prior, steps=12))
    assert [note for note in notes if "is gone" in note]


def test_each_local_worker_has_its_share_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert [e["CUDA_VISIBLE_DEVICES"] for e in worker_environments(3, "auto")] == ["3", "5", "3"]
    assert worker_environments(2, "cpu") == [{}, {}]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert worker_environments(2, "auto") == [{}, {}]
    assert usable_cores() >= 1
    with pytest.raises(UsageError, match="0 workers"), local_workers(0):
        pass


# -- few at a time --------------------------------------------------------------------------------------------------
def test_few_tasks_are_in_flight_and_failures_are_tried_again(client: Client, tmp_path: Path) -> None:
    submitted: list[int] = []

    def work(number: int) -> int:
        tried = tmp_path / f"{number}"
        if number == 7 and not tried.exists():
            tried.touch()
            raise OSError("a hiccup")
        return number**2

    def submit(number: int) -> Any:
        submitted.append(number)
        return client.submit(work, number, pure=False)

    results = {}
    for number, result in bounded(client, submit, range(20)):
        results[number] = result
        assert len(submitted) - len(results) <= 2 * PER_WORKER + 1
    assert results == {number: number**2 for number in range(20)}
    assert submitted.count(7) == 2


def test_what_fails_for_good_is_raised_or_reported(client: Client) -> None:
    tried: list[int] = []

    def submit(number: int) -> Any:
        tried.append(number)
        return client.submit(lambda n: 1 // n, number, pure=False)

    with pytest.raises(SolveError, match="task 0: ZeroDivisionError"):
        list(bounded(client, submit, [0]))
    assert tried == [0] * (RETRIES + 1)
    wrong: dict[int, Any] = {}
    found = dict(bounded(client, submit, [0, 1, 2], failed=wrong.__setitem__))
    assert found == {1: 1, 2: 0}
    assert list(wrong) == [0]


# -- files ----------------------------------------------------------------------------------------------------------
def threads_and_mean(path: Path, prior: ScoreModel) -> bytes:
    """Something that needs the prior and says how many threads there are."""
    if path.stem == "bad":
        raise InputError(f"{path} is bad", hint="repair it")
    x = torch.full((1, 1, 16, 16), float(path.read_text()))
    return f"{torch.get_num_threads()} {float(prior.denoise(x, 0.1).mean()):.6f}".encode()


def test_files_are_done_skipped_or_reported(client: Client, ct_prior: Path, tmp_path: Path) -> None:
    for name, value in {"a": 0.1, "b": 0.5, "bad": 0}.items():
        (tmp_path / f"{name}.txt").write_text(str(value))
    files, shares = sorted(tmp_path.glob("*.txt")), list[float]()
    mapped = map_files(
        client, threads_and_mean, files, tmp_path / "out", ending=".dat", prior=ct_prior, progress=shares.append
    )  # fmt: skip
    assert {path.name for path in mapped.written} == {"a.txt", "b.txt"}
    assert [(path.name, type(error)) for path, error in mapped.failed.items()] == [("bad.txt", InputError)]
    threads, mean = (tmp_path / "out" / "b.dat").read_text().split()
    assert threads == "3"  # the worker's resource "cores"
    expected = load_prior(ct_prior, "cpu").denoise(torch.full((1, 1, 16, 16), 0.5), 0.1).mean()
    assert float(mean) == pytest.approx(float(expected), abs=1e-5)
    assert sorted(shares) == pytest.approx([1 / 3, 2 / 3, 1])
    again = map_files(client, threads_and_mean, files, tmp_path / "out", ending=".dat", prior=ct_prior)
    assert (len(again.written), len(again.skipped), len(again.failed)) == (0, 2, 1)
    with pytest.raises(UsageError, match=r"both become a\.npz"):
        map_files(client, threads_and_mean, ["x/a.png", "y/a.jpg"], tmp_path / "out", prior=ct_prior)


# -- the command ----------------------------------------------------------------------------------------------------
def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "NO_COLOR": "1", "COLUMNS": "300", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "invsolve.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False)


def test_the_command_takes_a_volume_to_a_scheduler(
    cluster: LocalCluster, volume: Path, sinograms: np.ndarray, ct_prior: Path
) -> None:
    arguments = (
        "ct", volume, "--scheduler", cluster.scheduler_address, "--model", ct_prior, "--samples", 2, "--steps", 3, "--seed",
        5, "--size", SIZE, "--noise", 0,
    )  # fmt: skip
    done = run(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert "12 views 0 to 165" in done.stderr  # its angles, which were in radians
    assert "dashboard: " in done.stderr
    report = json.loads(done.stdout)
    assert report["shape"] == [SLICES, SIZE, SIZE]
    assert report["model_sha256"]
    group = zarr.open_group(volume.with_name("volume.ct.zarr"), mode="r")
    np.testing.assert_allclose(group["mean"][:], on_one_machine(sinograms, ct_prior), atol=0.05)
    assert "geometry" in group.attrs["invsolve"]
    again = run(*arguments)
    assert again.returncode == ExitCode.OUTPUT
    assert "--force" in again.stderr


def test_what_a_volume_does_not_take_is_refused(volume: Path) -> None:
    from typer.testing import CliRunner

    from invsolve.cli.main import app

    for options, said in (
        (["--workers", "2", "--scheduler", "tcp://a:1"], "give one"),
        (["--workers", "2", "--truth", str(volume / "zarr.json")], "--truth of a volume"),
        (["--workers", "2", "--size", str(SIZE), "--method", "magic"], "unknown method"),
    ):
        done = CliRunner().invoke(app, ["ct", str(volume), *options])
        assert isinstance(done.exception, UsageError), done.output
        assert said in str(done.exception)


def test_a_scheduler_that_is_not_there_is_said_to_be_so() -> None:
    with pytest.raises(ModelError, match="no scheduler at"), connect("tcp://127.0.0.1:9", patience=0.5):
        pass
    with pytest.raises(UsageError, match="--scheduler nonsense"), connect("nonsense://x:y", patience=0.5):
        pass
