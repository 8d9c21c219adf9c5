"""CT geometry and projectors: conventions, exact adjoint, ASTRA and scikit-image agree, cache, files."""

from __future__ import annotations

import gc
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import platformdirs
import pytest
import torch
from skimage.transform import radon

from invsolve.cache import cache_folder
from invsolve.ct.determined import determined_share
from invsolve.errors import InputError
from invsolve.forward_models import (
    AstraProjector,
    Diagonal,
    Geometry,
    LinearOperator,
    SparseProjector,
    even_angles,
    even_subset,
    projector,
)
from invsolve.forward_models.conjugate_gradient import conjugate_gradient
from invsolve.forward_models.projector import build_matrix, expected_values
from invsolve.models.gaussian import dense_matrix
from invsolve.uncertainty import determined

PARALLEL = Geometry(even_angles(9), 31, (16, 20), detector_spacing=1.3, pixel_size=0.7, center=14.2)
FAN = replace(PARALLEL, kind="fan", angles=even_angles(11, 360), source_distance=60.0, detector_distance=30.0)
SCANS = {"parallel": PARALLEL, "fan": FAN, "off-centre": replace(PARALLEL, axis_pixel=(3.0, 11.5))}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVSOLVE_CACHE", str(tmp_path / "cache"))


def blobs(shape: tuple[int, int]) -> np.ndarray:
    """A smooth, lopsided picture inside the inscribed circle: every flip of it is another one."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    h, w = shape
    out = np.exp(-((x - 0.36 * w) ** 2 + (y - 0.6 * h) ** 2) / (0.02 * h * w))
    out += 0.5 * np.exp(-((x - 0.62 * w) ** 2 + (y - 0.36 * h) ** 2) / (0.005 * h * w))
    return out.astype(np.float32)


@pytest.mark.parametrize("scan", SCANS.values(), ids=SCANS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_sparse_adjoint_is_exact(scan: Geometry, dtype: torch.dtype, tolerance: float) -> None:
    operator = projector(scan)
    assert isinstance(operator, SparseProjector)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 1, *scan.shape, generator=generator, dtype=dtype)
    y = torch.randn(3, *scan.sinogram_shape, generator=generator, dtype=dtype)
    ax, aty = operator(x), operator.T(y)
    assert ax.dtype == aty.dtype == dtype
    assert abs(float((ax * y).sum() - (x * aty).sum())) < tolerance * float(ax.norm() * y.norm())


@pytest.mark.parametrize("scan", SCANS.values(), ids=SCANS)
def test_matrix_and_astra_projectors_agree(scan: Geometry) -> None:
    stored, direct = projector(scan), projector(scan, limit=0)
    assert isinstance(direct, AstraProjector)
    x = torch.from_numpy(blobs(scan.shape))[None, None].repeat(2, 1, 1, 1)
    x[1] = x[1].flip(-1)
    y = stored(x)
    assert float((direct(x) - y).abs().max()) < 1e-4 * float(y.abs().max())
    back = stored.T(y)
    assert float((direct.T(y) - back).abs().max()) < 1e-4 * float(back.abs().max())


@pytest.mark.parametrize("kind", ["parallel", "fan"])
def test_astras_own_geometry_is_ours(kind: str) -> None:
    import astra

    image, degrees = blobs((32, 32)), np.array([0.0, 20.0, 75.0, 140.0, 200.0, 310.0])
    volume = astra.create_vol_geom(32, 32)
    if kind == "parallel":
        theirs = astra.create_proj_geom("parallel", 1.0, 61, np.deg2rad(degrees))
        identifier = astra.create_projector("linear", theirs, volume)
        ours = Geometry(tuple(degrees), 61, (32, 32))
    else:
        theirs = astra.create_proj_geom("fanflat", 1.7, 61, np.deg2rad(degrees), 90.0, 40.0)
        identifier = astra.create_projector("line_fanflat", theirs, volume)
        ours = Geometry(
            tuple(degrees), 61, (32, 32), "fan", detector_spacing=1.7, source_distance=90.0, detector_distance=40.0
        )
    _, expected = astra.create_sino(image, identifier)
    y = projector(ours)(torch.from_numpy(image)[None, None])[0].numpy()
    np.testing.assert_allclose(y, expected, atol=1e-4 * expected.max())
    # The object has no symmetry: reading the bins or the views the other way round is far off.
    for other in (y[:, ::-1], projector(replace(ours, angles=tuple(-degrees)))(torch.from_numpy(image)[None, None])[0]):
        assert np.linalg.norm(np.asarray(other) - expected) > 0.3 * np.linalg.norm(expected)


def test_a_fans_source_is_below_the_slice_and_its_first_bin_on_the_left() -> None:
    image = np.zeros((21, 21), np.float32)
    image[3, 16] = 1  # 7 mm above the axis, 6 to the right
    scan = Geometry((0.0,), 61, (21, 21), "fan", source_distance=50.0, detector_distance=50.0)
    y = projector(scan)(torch.from_numpy(image)[None, None])[0, 0].numpy()
    assert float((y * np.arange(61)).sum() / y.sum()) == pytest.approx(30 + 6 * 100 / (50 + 7), abs=0.1)


@pytest.mark.parametrize("circle", [True, False])
def test_scikit_image_radon_is_ours_with_its_centre(circle: bool) -> None:
    image, degrees = blobs((48, 48)), np.arange(0, 180, 15.0)
    expected = radon(image, theta=degrees, circle=circle).T
    scan = Geometry(tuple(degrees), expected.shape[1], (48, 48), center=expected.shape[1] // 2, axis_pixel=(24.0, 24.0))
    y = projector(scan)(torch.from_numpy(image)[None, None])[0].numpy()
    assert np.linalg.norm(y - expected) < 0.02 * np.linalg.norm(expected)


@pytest.mark.parametrize("kind", ["parallel", "fan"])
def test_line_integrals_of_a_disc(kind: str) -> None:
    # A disc of radius 30 mm: the chord at distance s is 2 sqrt(r^2 - s^2), whatever the pixels and bins are.
    scan = Geometry(
        even_angles(5), 61, (160, 160), kind=kind, detector_spacing=1.5, pixel_size=0.5,  # type: ignore[arg-type]
        source_distance=300.0 if kind == "fan" else math.inf, detector_distance=100.0 if kind == "fan" else 0.0,
    )  # fmt: skip
    y, x = (np.mgrid[:160, :160] - 79.5) * 0.5
    disc = torch.from_numpy((x**2 + y**2 < 30**2).astype(np.float32))[None, None]
    offset = (np.arange(61) - 30) * 1.5
    distance = offset if kind == "parallel" else 300 * np.sin(np.arctan(offset / 400))
    chord = 2 * np.sqrt(np.clip(30**2 - distance**2, 0, None))
    measured = projector(scan)(disc)[0].numpy() * scan.pixel_size
    inside = np.abs(distance) < 28
    np.testing.assert_allclose(measured[:, inside], np.broadcast_to(chord, measured.shape)[:, inside], atol=1.5)


def test_angles_count_counter_clockwise_and_rows_go_down() -> None:
    image = np.zeros((21, 21), np.float32)
    image[2, 10] = 1  # above the axis
    image[10, 17] = 2  # to the right
    scan = Geometry((0.0, 90.0, 45.0), 21, (21, 21))
    y = projector(scan)(torch.from_numpy(image)[None, None])[0].numpy()
    assert int(y[0].argmax()) == 17  # rays from the top: the right one on the right
    assert y[1, 18] == pytest.approx(1, abs=0.01)  # the detector turned up: the upper one far along it
    assert y[1, 10] == pytest.approx(2, abs=0.01)
    assert int(y[2].argmax()) == round(10 + 7 * math.cos(math.pi / 4))
    clockwise = projector(replace(scan, angles=(-90.0,)))(torch.from_numpy(image)[None, None])[0].numpy()
    assert clockwise[0, 2] == pytest.approx(1, abs=0.01)


def test_a_shifted_detector_is_a_shifted_centre() -> None:
    image = torch.from_numpy(blobs((24, 24)))[None, None]
    middle = Geometry(even_angles(7), 41, (24, 24))
    shifted = replace(middle, center=23.0)
    np.testing.assert_allclose(
        projector(shifted)(image)[0, :, 3:].numpy(), projector(middle)(image)[0, :, :-3].numpy(), atol=1e-4
    )


@pytest.mark.parametrize("limit", [10**9, 0])
def test_autograd_gives_the_adjoint(limit: int) -> None:
    operator = projector(PARALLEL, limit=limit)
    x = torch.randn(2, 1, *PARALLEL.shape, requires_grad=True)
    target = torch.randn(2, *PARALLEL.sinogram_shape)
    (0.5 * (operator(x) - target).square().sum()).backward()
    expected = operator.T(operator(x.detach()) - target)
    assert x.grad is not None
    torch.testing.assert_close(x.grad, expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("weighted", [False, True])
def test_prox_against_the_dense_solve(weighted: bool) -> None:
    """Also where some rays see nothing and where some count for nothing, as behind metal."""
    operator: LinearOperator = projector(replace(PARALLEL, shape=(6, 7), detectors=19, center=None), tolerance=1e-9)
    generator = torch.Generator().manual_seed(1)
    if weighted:
        weights = torch.rand(operator.output_shape, generator=generator)
        operator = Diagonal(torch.where(weights < 0.2, 0.0, weights)) @ operator
    matrix = dense_matrix(operator)
    assert bool((matrix == 0).all(dim=1).any())
    z = torch.randn(2, 1, 6, 7, generator=generator, dtype=torch.float64)
    y = torch.randn(2, *operator.output_shape, generator=generator, dtype=torch.float64)
    x = operator.prox(z, y, torch.tensor([0.5, 2.0]))
    for image, rho in enumerate((0.5, 2.0)):
        normal = matrix.T @ matrix + rho * torch.eye(42, dtype=torch.float64)
        expected = torch.linalg.solve(normal, matrix.T @ y[image].flatten() + rho * z[image].flatten())
        torch.testing.assert_close(x[image].flatten(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("weighted", [False, True])
def test_prox_of_few_views_is_conjugate_gradients_on_the_picture(weighted: bool) -> None:
    """The same iterates from vectors as long as the sinogram: stopped as early, the same picture; noise does not matter."""
    operator: LinearOperator = projector(Geometry(even_angles(6), 70, (48, 48)), tolerance=0.05)
    generator = torch.Generator().manual_seed(0)
    if weighted:
        operator = Diagonal(torch.rand(operator.output_shape, generator=generator, dtype=torch.float64)) @ operator
    truth = torch.from_numpy(blobs((48, 48))).double()[None, None].expand(2, -1, -1, -1)
    z = truth + 0.05 * torch.randn(2, 1, 48, 48, generator=generator, dtype=torch.float64)
    y = operator(truth) + 0.1 * torch.randn(2, *operator.output_shape, generator=generator, dtype=torch.float64)
    rho, steps = torch.tensor([0.1, 3.0], dtype=torch.float64).reshape(2, 1, 1, 1), []

    def normal(d: torch.Tensor) -> torch.Tensor:
        steps.append(1)
        return operator.T(operator(d)) + rho * d

    gradient = operator.T(y - operator(z))
    d = conjugate_gradient(normal, gradient, torch.zeros_like(z), tolerance=0.05)
    assert 4 < len(steps) < 20  # later, rounding makes the two differ by an iteration
    found = operator.prox(z, y, rho.flatten()) - z
    assert float((found - d).norm() / d.norm()) < 1e-6  # an iteration more or less is some hundredths


def test_cached_matrix_needs_no_astra_and_survives_damage(tmp_path: Path) -> None:
    first = projector(PARALLEL)
    (cached,) = (tmp_path / "cache").glob("projector-*.npz")
    code = (
        "import sys; sys.modules['astra'] = None\n"
        "from invsolve.forward_models import projector, Geometry\n"
        "import torch\n"
        f"g = Geometry.read({str(tmp_path / 'g.toml')!r})\n"
        "print(float(projector(g)(torch.ones(1, 1, *g.shape)).sum()))"
    )
    (tmp_path / "g.toml").write_text(PARALLEL.to_toml())
    assert Geometry.read(tmp_path / "g.toml").digest == PARALLEL.digest
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    total = float(first(torch.ones(1, 1, *PARALLEL.shape)).sum())
    assert float(done.stdout) == pytest.approx(total, rel=1e-5)
    cached.write_bytes(cached.read_bytes()[:1000])
    again = projector(PARALLEL)
    assert float(again(torch.ones(1, 1, *PARALLEL.shape)).sum()) == pytest.approx(total, rel=1e-6)
    assert cached.stat().st_size > 1000


def test_what_a_scan_determines_is_kept_with_its_matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    operator = projector(PARALLEL)
    share = determined_share(operator)
    assert share == pytest.approx(float(determined(operator, probes=1).mean())) and 0.3 < share < 1
    (kept,) = (tmp_path / "cache").glob("determined-*")
    monkeypatch.setattr(SparseProjector, "_adjoint", lambda self, y: pytest.fail("computed again"))
    assert determined_share(operator) == share
    monkeypatch.undo()
    monkeypatch.setenv("INVSOLVE_CACHE", str(tmp_path / "cache"))
    for damaged in (b"", b"NaN", b"[0.5]", b"\xff"):
        kept.write_bytes(damaged)
        assert determined_share(operator) == share
    monkeypatch.setenv("INVSOLVE_CACHE", str(tmp_path / "other"))
    assert determined_share(projector(PARALLEL, cache=False)) == share
    assert not (tmp_path / "other").exists()


def _parts(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as archive:
        return dict(archive)


def _changed(array: np.ndarray, index: int, value: float) -> np.ndarray:
    out = array.copy()
    out[index] = value
    return out


DAMAGED: dict[str, Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]] = {
    "column far beyond": lambda m: {"indices": _changed(m["indices"], 5, 2**30)},
    "negative column": lambda m: {"indices": _changed(m["indices"], 5, -1)},
    "rows that go back": lambda m: {"indptr": _changed(m["indptr"], 5, 0)},
    "rows beyond the end": lambda m: {"indptr": _changed(m["indptr"], -1, 2**30)},
    "rows that start late": lambda m: {"indptr": _changed(m["indptr"], 0, 1)},
    "a row too few": lambda m: {"indptr": m["indptr"][:-1]},
    "not a number": lambda m: {"data": _changed(m["data"], 5, np.nan)},
    "a value too few": lambda m: {"data": m["data"][:-1]},
    "another type": lambda m: {"indices": m["indices"].astype(np.float32)},
    "complex": lambda m: {"data": m["data"] * 1j},
    "no rows": lambda m: {"indptr": m["indptr"][:0], "data": m["data"][:0], "indices": m["indices"][:0]},
    "two dimensions": lambda m: {"data": m["data"][None]},
    "another shape": lambda m: {"shape": m["shape"] + 1},
    "of no shape": lambda m: {"shape": np.array(3)},
    "objects": lambda m: {"data": np.array([{}], dtype=object)},
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_a_cached_matrix_that_is_none_is_built_again(
    damage: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]], tmp_path: Path
) -> None:
    ones = torch.ones(1, 1, *PARALLEL.shape)
    expected = projector(PARALLEL)(ones)
    (cached,) = (tmp_path / "cache").glob("projector-*.npz")
    parts = _parts(cached)
    np.savez(cached, **{**parts, **damage(parts)})
    assert torch.equal(projector(PARALLEL)(ones), expected)
    assert all(np.array_equal(parts[name], array) for name, array in _parts(cached).items())


def test_any_damage_to_a_cached_matrix_is_mended(tmp_path: Path) -> None:
    scan = replace(PARALLEL, shape=(5, 6), detectors=9, center=None)
    ones = torch.ones(1, 1, *scan.shape)
    expected = projector(scan)(ones)
    (cached,) = (tmp_path / "cache").glob("projector-*.npz")
    whole = cached.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(150):
        content = np.frombuffer(whole, np.uint8).copy()
        start, length = rng.integers(len(whole)), rng.integers(1, 12)
        content[start : start + length] = rng.integers(0, 256, len(content[start : start + length]))
        cut = rng.integers(len(whole)) if rng.random() < 0.2 else len(whole)
        cached.write_bytes(content[:cut].tobytes())
        torch.testing.assert_close(projector(scan)(ones), expected)


def test_an_astra_projector_is_freed() -> None:
    import astra

    operator = projector(PARALLEL, limit=0)
    assert isinstance(operator, AstraProjector)
    identifier = operator._projector.proj_id
    assert astra.projector.volume_geometry(identifier)
    del operator
    gc.collect()
    with pytest.raises(astra.log.AstraError):
        astra.projector.volume_geometry(identifier)


def test_the_cache_folder_is_the_systems_unless_another_is_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("INVSOLVE_CACHE")
    assert cache_folder() == Path(platformdirs.user_cache_dir("invsolve", appauthor=False))
    assert "invsolve" in cache_folder().parts


def test_concurrent_writers_leave_one_whole_file(tmp_path: Path) -> None:
    from invsolve.forward_models.projector import _read, _write, build_matrix

    matrix = build_matrix(PARALLEL)
    path = tmp_path / "cache" / "projector-test.npz"
    threads = [threading.Thread(target=_write, args=(path, matrix)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    stored = _read(path, matrix.shape)
    assert stored is not None
    assert abs(stored - matrix).max() == 0


def test_the_cache_forgets_what_was_used_longest_ago(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["invsolve.forward_models.projector"]
    scans = [replace(PARALLEL, center=float(c)) for c in (12, 13, 14)]
    projector(scans[0])
    size = sum(p.stat().st_size for p in (tmp_path / "cache").iterdir())
    monkeypatch.setattr(module, "CACHE_LIMIT", int(2.5 * size))
    projector(scans[1])
    projector(scans[2])
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_toml_units_direction_and_ranges(tmp_path: Path) -> None:
    path = tmp_path / "scan.toml"
    path.write_text(
        'kind = "fan"\nangle_unit = "radians"\ndirection = "clockwise"\ndetectors = 9\nshape = [8, 8]\n'
        "angles = { first = 0.0, last = 3.141592653589793, count = 4 }\nsource_distance = 100.0\n"
    )
    scan = Geometry.read(path)
    assert scan.angles == pytest.approx((0.0, -45.0, -90.0, -135.0))
    assert scan.kind == "fan"


GOOD_TOML = {"angles": "[0.0]", "detectors": "9", "shape": "[8, 8]"}
FAN_TOML = {"kind": '"fan"', "source_distance": "100.0"}

BAD_KEYS: dict[str, tuple[dict[str, str | None], str]] = {
    "no angles": ({"angles": None}, "no angles"),
    "no detectors": ({"detectors": None}, "no detectors"),
    "no shape": ({"shape": None}, "no shape"),
    "unknown key": ({"colour": "3"}, "unknown key 'colour'"),
    "cone": ({"kind": '"cone"', "detector_rows": "3"}, "kind = 'cone' is not supported yet"),
    "kind of another type": ({"kind": "[1]"}, "kind = [1]"),
    "bad unit": ({"angle_unit": '"gon"'}, "angle_unit = 'gon'"),
    "bad direction": ({"direction": "3"}, "direction = 3"),
    "text for angles": ({"angles": '"all"'}, "angles = 'all'"),
    "nested angles": ({"angles": "[[0.0], [1.0]]"}, "angles = [[0.0], [1.0]]"),
    "true angles": ({"angles": "[true, false]"}, "angles = [True, False]"),
    "no angle in the list": ({"angles": "[]"}, "no angles"),
    "nan angle": ({"angles": "[nan]"}, "angles = [nan]"),
    "range without count": ({"angles": "{ first = 0, last = 180 }"}, "angles = {"),
    "list in a range": ({"angles": "{ first = [0], last = 180, count = 3 }"}, "first = [0]"),
    "nan in a range": ({"angles": "{ first = 0, last = nan, count = 3 }"}, "last = nan"),
    "count that does not fit": ({"angles": "{ first = 0, last = 180, count = 1000000000000 }"}, "count = 1000000000000"),
    "fractional count": ({"angles": "{ first = 0, last = 180, count = 1e12 }"}, "count = 1000000000000.0"),
    "fractional detectors": ({"detectors": "9.5"}, "detectors = 9.5"),
    "true detectors": ({"detectors": "true"}, "detectors = True"),
    "negative detectors": ({"detectors": "-4"}, "detectors = -4"),
    "many detectors": ({"detectors": "100000000000"}, "would take 373 GiB"),
    "one side": ({"shape": "[8]"}, "shape = (8,)"),
    "a side as text": ({"shape": '["8", 8]'}, "shape = ('8', 8)"),
    "shape as a number": ({"shape": "8"}, "shape = 8"),
    "huge slice": ({"shape": "[1000000, 1000000]"}, "shape = (1000000, 1000000) would take 3.73e+03 GiB"),
    "number of 4000 digits": ({"pixel_size": "9" * 4000}, "pixel_size = 999"),
    "negative spacing": ({"detector_spacing": "-1.0"}, "detector_spacing = -1.0"),
    "true spacing": ({"detector_spacing": "true"}, "detector_spacing = True"),
    "text pixel": ({"pixel_size": '"1 mm"'}, "pixel_size = '1 mm'"),
    "centre as a list": ({"center": "[4]"}, "center = [4]"),
    "centre nan": ({"center": "nan"}, "center = nan"),
    "centre far away": ({"center": "1e9"}, "center = 1000000000.0"),
    "axis as a number": ({"axis_pixel": "4.0"}, "axis_pixel = 4.0"),
    "axis of lists": ({"axis_pixel": "[[4], [4]]"}, "axis_pixel = ([4], [4])"),
    "axis nan": ({"axis_pixel": "[nan, 3.0]"}, "axis_pixel = (nan, 3.0)"),
    "source inside": ({**FAN_TOML, "source_distance": "3.0"}, "source_distance = 3.0"),
    "source inside a shifted slice": ({**FAN_TOML, "source_distance": "9.0", "axis_pixel": "[7, 7]"}, "source_distance"),
    "no source": ({"kind": '"fan"'}, "source_distance = inf"),
    "negative detector distance": ({**FAN_TOML, "detector_distance": "-1"}, "detector_distance = -1"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "said"), BAD_KEYS.values(), ids=BAD_KEYS)
def test_bad_geometry_keys_are_named(changes: dict[str, str | None], said: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    lines = {name: value for name, value in {**GOOD_TOML, **changes}.items() if value is not None}
    path.write_text("\n".join(f"{name} = {value}" for name, value in lines.items()))
    with pytest.raises(InputError) as caught:
        Geometry.read(path)
    assert "bad.toml" in caught.value.message
    assert said in caught.value.message
    assert len(caught.value.message.splitlines()) == 1
    assert caught.value.hint


@pytest.mark.parametrize(
    "content",
    [b"angles = [", b"a = " + b"[" * 5000, b"detectors = " + b"9" * 5000, b"\xff\xfe", b"a = {" + b"b = {" * 3000],
    ids=["cut", "nested", "5000 digits", "not text", "nested tables"],
)
def test_what_is_not_toml_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot read the geometry") as caught:
        Geometry.read(path)
    assert len(caught.value.message.splitlines()) == 1


def test_a_pipe_is_not_read_as_a_geometry(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    for path in (tmp_path / "pipe.toml", Path(os.devnull), tmp_path):
        with pytest.raises(InputError, match="pipe or a device|is a folder"):
            Geometry.read(path)


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    angles = tuple(np.linspace(0, 180, 3, endpoint=False, dtype=np.float32))
    scan = Geometry(angles, np.int64(9), (np.int32(8), np.int32(8)), pixel_size=np.float32(0.5))  # type: ignore[arg-type]
    assert len(scan.digest) == 24
    (tmp_path / "g.toml").write_text(scan.to_toml())
    assert Geometry.read(tmp_path / "g.toml").sinogram_shape == (3, 9)


def test_missing_geometry_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        Geometry.read(tmp_path / "none.toml")


def test_even_subset_starts_at_the_first_view_and_is_even() -> None:
    chosen = even_subset(180, 23)
    assert chosen[0] == 0
    assert len(set(chosen)) == 23
    assert set(np.diff(chosen)) <= {7, 8}
    with pytest.raises(InputError, match="24 views wanted"):
        even_subset(23, 24)


def test_the_expected_size_of_the_matrix_is_about_right() -> None:
    geometry = Geometry(even_angles(12), 91, (64, 64))
    assert build_matrix(geometry).nnz == pytest.approx(expected_values(geometry), rel=0.1)
