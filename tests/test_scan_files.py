"""Scans from files: Data Exchange, NXtomo and Zarr come back as they were simulated, and bad files are told in a line."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from invsolve.ct.flat_field import line_integrals
from invsolve.ct.scan_files import is_scan_file, read_scan
from invsolve.errors import InputError, InvsolveError, UsageError
from invsolve.forward_models import even_angles

h5py: ModuleType = pytest.importorskip("h5py")

VIEWS, ROWS, BINS, DARK = 20, 3, 40, 100
ANGLES = np.array(even_angles(VIEWS))


@pytest.fixture(scope="module")
def lines() -> np.ndarray:
    """Line integrals (views, rows, bins), every row and view another."""
    bins = np.exp(-(((np.arange(BINS) - 20) / 8.0) ** 2))
    return (1 + 0.02 * np.arange(VIEWS))[:, None, None] * (1 + np.arange(ROWS))[:, None] * bins


def fields() -> np.ndarray:
    return 1e5 * (1 + 0.2 * np.sin(np.arange(BINS)))


def counts(lines: np.ndarray) -> np.ndarray:
    return fields() * np.exp(-lines) + DARK


def write_data_exchange(path: Path, lines: np.ndarray, **changes: object) -> Path:
    """``changes`` are arrays by name; None leaves one out."""
    parts = {
        "data": counts(lines),
        "data_white": np.tile(fields() + DARK, (4, ROWS, 1)),
        "data_dark": np.full((2, ROWS, BINS), DARK),
        "theta": ANGLES,
    } | changes
    with h5py.File(path, "w") as file:
        for name, values in parts.items():
            if values is not None:
                file[f"exchange/{name}"] = values
    return path


def write_nxtomo(path: Path, lines: np.ndarray, unit: str = "deg") -> Path:
    flats, darks = np.tile(fields() + DARK, (3, ROWS, 1)), np.full((2, ROWS, BINS), DARK)
    broken = np.full((1, ROWS, BINS), -5.0)
    angles = np.concatenate([[0, 0, 0], ANGLES, [0, 0], [7]])
    with h5py.File(path, "w") as file:
        detector = file.create_group("entry/tomo/instrument/detector")
        detector["data"] = np.concatenate([flats, counts(lines), darks, broken])
        detector["image_key"] = [1] * 3 + [0] * VIEWS + [2] * 2 + [3]
        detector["x_pixel_size"] = 650.0
        detector["x_pixel_size"].attrs["units"] = "um"
        file["entry/tomo/sample/rotation_angle"] = np.deg2rad(angles) if unit == "rad" else angles
        file["entry/tomo/sample/rotation_angle"].attrs["units"] = unit
    return path


def test_data_exchange(tmp_path: Path, lines: np.ndarray) -> None:
    path = write_data_exchange(tmp_path / "scan.h5", lines)
    assert is_scan_file(path)
    middle, last = read_scan(path), read_scan(path, 2)
    assert (middle.slice, middle.slices, last.slice) == (1, 3, 2)
    np.testing.assert_allclose(middle.values, lines[:, 1], atol=1e-5)
    np.testing.assert_allclose(last.values, lines[:, 2], atol=1e-5)
    assert middle.measured.all()
    np.testing.assert_allclose(middle.angles, ANGLES)
    assert middle.units == "attenuation"
    for said in ("Data Exchange, slice 1 of 3", "20 views x 40 bins", "0 to 171 degrees", "flat field of 4", "-ln"):
        assert said in middle.summary
    without = read_scan(write_data_exchange(tmp_path / "none.h5", lines, data_dark=None, theta=None))
    assert without.angles is None
    assert "no dark field" in without.summary


@pytest.mark.parametrize("unit", ["deg", "rad"])
def test_nxtomo(tmp_path: Path, lines: np.ndarray, unit: str) -> None:
    scan = read_scan(write_nxtomo(tmp_path / "scan.nxs", lines, unit), 0)
    np.testing.assert_allclose(scan.values, lines[:, 0], atol=1e-5)
    np.testing.assert_allclose(scan.angles, ANGLES, atol=1e-9)
    assert scan.pixel_size == pytest.approx(0.65)
    assert ("angles from radians" in scan.summary) == (unit == "rad")
    assert "1 invalid frames left out" in scan.summary


def test_zarr(tmp_path: Path, lines: np.ndarray) -> None:
    zarr = pytest.importorskip("zarr")
    stack = np.swapaxes(lines, 0, 1).astype(np.float32)
    group = zarr.open_group(str(tmp_path / "scan.zarr"), mode="w")
    group["sinogram"], group["theta"] = stack, ANGLES
    scan = read_scan(tmp_path / "scan.zarr", 2)
    np.testing.assert_array_equal(scan.values, stack[2])
    np.testing.assert_allclose(scan.angles, ANGLES)
    zarr.save_array(str(tmp_path / "bare"), stack[0])
    assert is_scan_file(tmp_path / "bare")
    np.testing.assert_array_equal(read_scan(tmp_path / "bare").values, stack[0])
    exchange = zarr.open_group(str(tmp_path / "dx.zarr"), mode="w")
    exchange["exchange/data"], exchange["exchange/theta"] = counts(lines), ANGLES
    exchange["exchange/data_white"] = np.tile(fields(), (2, ROWS, 1)) + DARK
    exchange["exchange/data_dark"] = np.full((2, ROWS, BINS), DARK)
    np.testing.assert_allclose(read_scan(tmp_path / "dx.zarr").values, lines[:, 1], atol=1e-5)


def test_views_in_any_order_are_sorted(tmp_path: Path, lines: np.ndarray) -> None:
    order = np.random.default_rng(0).permutation(VIEWS)
    scan = read_scan(write_data_exchange(tmp_path / "a.h5", lines, data=counts(lines)[order], theta=ANGLES[order]))
    np.testing.assert_allclose(scan.values, lines[:, 1], atol=1e-5)
    assert "sorted by angle" in scan.summary


def test_rays_without_light_or_number_are_masked_and_said(tmp_path: Path, lines: np.ndarray) -> None:
    data = counts(lines)
    data[3, 1, 10] = np.nan
    data[4, 1, 11] = DARK  # nothing came through
    data[5, 1, 12] = DARK - 3
    data[6, 1] = np.inf  # a whole view
    scan = read_scan(write_data_exchange(tmp_path / "bad.h5", lines, data=data))
    assert scan.values.shape == (VIEWS - 1, BINS)
    assert np.isfinite(scan.values).all()
    assert np.argwhere(~scan.measured).tolist() == [[3, 10], [4, 11], [5, 12]]
    between = (scan.values[3, 9] + scan.values[3, 11]) / 2
    assert scan.values[3, 10] == pytest.approx(between, rel=1e-5)
    assert "3 rays masked" in scan.summary
    assert "1 views without a measurement left out" in scan.summary


def test_a_dead_flat_field_masks_its_bin() -> None:
    flats = np.tile(np.where(np.arange(BINS) == 7, 0.0, 1000.0), (3, 1))
    found = line_integrals(np.full((4, BINS), 500.0), flats, None)
    assert (~found.measured).any(axis=0).nonzero()[0].tolist() == [7]
    np.testing.assert_allclose(found.values, np.log(2), rtol=1e-6)


def bomb(path: Path) -> Path:
    """A chunk that says it is 3 kB, and unpacks to a thousand times that."""
    more = np.random.default_rng(0).bytes(3_200_000)
    with h5py.File(path, "w") as file:
        data = file.create_dataset("exchange/data", (VIEWS, 1, BINS), "f4", chunks=(VIEWS, 1, BINS), compression="gzip")
        data.id.write_direct_chunk((0, 0, 0), zlib.compress(more, 0))
        file["exchange/data_white"] = np.ones((1, 1, BINS))
    return path


def truncated(path: Path, lines: np.ndarray) -> Path:
    content = write_data_exchange(path, lines).read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def huge(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("exchange/data", (10**5, 10, 10**6), "u2", chunks=(1, 1, 1000))
        file["exchange/data_white"] = np.ones((1, 10, 10))
    return path


def huge_chunk(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("exchange/data", (2000, 1000, 1000), "f8", chunks=(2000, 1000, 200))
        file["exchange/data_white"] = np.ones((1, 1000, 1000))
    return path


def external(path: Path, lines: np.ndarray) -> Path:
    write_data_exchange(path.with_name("other.h5"), lines)
    with h5py.File(path, "w") as file:
        file["exchange/data"] = h5py.ExternalLink("other.h5", "/exchange/data")
        file["exchange/data_white"] = np.ones((1, ROWS, BINS))
    return path


def edited(path: Path, lines: np.ndarray, change: Callable[[h5py.File], None]) -> Path:
    with h5py.File(write_nxtomo(path, lines), "a") as file:
        change(file["entry/tomo"])
    return path


def set_key(entry: h5py.Group) -> None:
    entry["instrument/detector/image_key"][:] = 2


def drop_angles(entry: h5py.Group) -> None:
    del entry["sample/rotation_angle"]


Case = tuple[Callable[[Path, np.ndarray], Path], str]
HOSTILE: dict[str, Case] = {
    "truncated": (truncated, "damaged"),
    "a bomb": (lambda p, s: bomb(p), "unpacks to more than it says"),
    "huge": (lambda p, s: huge(p), "a slice of exchange/data in"),
    "huge chunks": (lambda p, s: huge_chunk(p), "has chunks of shape"),
    "another file's data": (external, "no data set of its own"),
    "no flat field": (lambda p, s: write_data_exchange(p, s, data_white=None), "no flat field"),
    "other flats": (lambda p, s: write_data_exchange(p, s, data_white=np.ones((2, 1, 9))), r"shape \(2, 1, 9\)"),
    "text": (lambda p, s: write_data_exchange(p, s, data=np.full((2, 2, 2), b"a")), "has shape"),
    "complex": (lambda p, s: write_data_exchange(p, s, data=np.ones((2, 2, 2), complex)), "complex128"),
    "two axes": (lambda p, s: write_data_exchange(p, s, data=np.ones((2, 2))), r"shape \(2, 2\)"),
    "no view": (lambda p, s: write_data_exchange(p, s, data=np.ones((0, 2, 2))), r"shape \(0, 2, 2\)"),
    "all dark": (lambda p, s: write_data_exchange(p, s, data=np.zeros((VIEWS, ROWS, BINS))), "no ray that can be used"),
    "too few angles": (lambda p, s: write_data_exchange(p, s, theta=ANGLES[:5]), "5 angles for 20 views"),
    "radians": (lambda p, s: write_data_exchange(p, s, theta=np.deg2rad(ANGLES)), "look like radians"),
    "one angle": (lambda p, s: write_data_exchange(p, s, theta=0 * ANGLES), "all 20 angles"),
    "no numbers": (lambda p, s: write_data_exchange(p, s, theta=np.full(VIEWS, np.nan)), "angles that are no numbers"),
    "no projections": (lambda p, s: edited(p, s, set_key), "no projection"),
    "no rotation": (lambda p, s: edited(p, s, drop_angles), "rotation_angle is no data set"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_bad_files_are_told_in_one_line(name: str, tmp_path: Path, lines: np.ndarray) -> None:
    make, message = HOSTILE[name]
    with pytest.raises(InvsolveError, match=message) as caught:
        read_scan(make(tmp_path / "bad.h5", lines))
    assert caught.value.hint
    assert "\n" not in str(caught.value)


def test_other_files_and_slices_that_are_not_there(tmp_path: Path, lines: np.ndarray) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["pictures"] = np.ones(3)
    with pytest.raises(InputError, match="HDF5 with pictures"):
        read_scan(tmp_path / "other.h5")
    path = write_data_exchange(tmp_path / "scan.h5", lines)
    for number in (-1, ROWS):
        with pytest.raises(UsageError, match=f"--slice {number}") as caught:
            read_scan(path, number)
        assert "it has 3, from 0 to 2" in caught.value.hint
    assert not is_scan_file(tmp_path)
    assert not is_scan_file(tmp_path / "missing.h5")


def test_bad_zarr(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(str(tmp_path / "empty.zarr"), mode="w")
    with pytest.raises(InputError, match="Zarr with nothing"):
        read_scan(tmp_path / "empty.zarr")
    group.create_array("sinogram", shape=(10**6, 10**6), chunks=(100, 100), dtype="f4")
    with pytest.raises(InputError, match="a slice of .* is 1000000 x 1000000"):
        read_scan(tmp_path / "empty.zarr")
    zarr.save_array(str(tmp_path / "long.zarr"), np.ones((8, 40)))
    chunk = next(path for path in (tmp_path / "long.zarr").rglob("*") if path.is_file() and path.name != "zarr.json")
    chunk.write_bytes(bytes(20_000))
    with pytest.raises(InputError, match="longer than it says"):
        read_scan(tmp_path / "long.zarr")
    (tmp_path / "bad.zarr").mkdir()
    (tmp_path / "bad.zarr" / "zarr.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        read_scan(tmp_path / "bad.zarr")
