"""Metal in CT: found from the data, its rays left out, and what that gains; and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from calling import call
from scipy.ndimage import binary_dilation

from invsolve.ct.description import Description
from invsolve.ct.fbp import fbp
from invsolve.ct.iterative import cgls
from invsolve.ct.metal import MOST, closed_over, find_metal, li_mar, masked, metal_traces, put_back, without_metal
from invsolve.ct.reconstruction import _measurement, reconstruction_task
from invsolve.ct.scan import Scan, interpret
from invsolve.ct.simulation import counts_through_metal, photon_counts, project_slice
from invsolve.ct.units import attenuation_per_unit
from invsolve.errors import ExitCode, InputError
from invsolve.forward_models import Geometry, LinearOperator, even_angles, find_operator, projector
from invsolve.pretrained import load_prior

Patch = pytest.MonkeyPatch
Capture = pytest.CaptureFixture[str]
SIZE, PIXEL_MM, PHOTONS = 64, 3.0, 1e5
GEOMETRY = Geometry(even_angles(60), 93, (SIZE, SIZE), pixel_size=PIXEL_MM, detector_spacing=PIXEL_MM)
EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "ct-slice.npy"


def body() -> np.ndarray:
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    out = np.where((x / 27) ** 2 + (y / 20) ** 2 < 1, 0.5, 0.0)
    out[(x - 8) ** 2 + (y + 4) ** 2 < 20] = 0.9
    return out.astype(np.float32)


def metal() -> np.ndarray:
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    return np.asarray(((x + 10) ** 2 + (y - 2) ** 2 < 6) | ((x - 10) ** 2 + (y - 8) ** 2 < 4))


@pytest.fixture(scope="module")
def operator() -> LinearOperator:
    return projector(GEOMETRY, cache=False)


@pytest.fixture(scope="module")
def counts() -> np.ndarray:
    return counts_through_metal(body(), metal(), GEOMETRY, PIXEL_MM, PHOTONS)


@pytest.fixture(scope="module")
def full(counts: np.ndarray) -> Scan:
    known = Description(geometry=GEOMETRY, units="counts", i0=PHOTONS, pixel_size=PIXEL_MM, bad_bins="none")
    return interpret(counts, known)


def error(image: torch.Tensor) -> float:
    """Root mean square error outside the metal and what is next to it."""
    counted = ~binary_dilation(metal(), iterations=2)
    return float(np.sqrt(((image.squeeze().numpy() - body())[counted] ** 2).mean()))


def test_metal_and_its_rays_are_found(full: Scan, operator: LinearOperator) -> None:
    left_out, found = without_metal(full, operator)
    inside = found.pixels[0]
    assert inside[metal()].mean() > 0.8
    assert not inside[~binary_dilation(metal(), iterations=3)].any()
    through = operator(torch.from_numpy(metal()[None, None].astype(np.float32)))[0].numpy() > 1
    assert found.rays[0][through].mean() > 0.98
    assert found.rays.mean() < 0.2
    noise = np.asarray(left_out.noise)
    assert np.isinf(noise[found.rays]).all()
    np.testing.assert_array_equal(noise[~found.rays], np.asarray(full.noise)[~found.rays])
    assert left_out.sinogram[~found.rays] == pytest.approx(full.sinogram[~found.rays])


@pytest.mark.parametrize("views", [23, 45])
@pytest.mark.parametrize("photons", [None, 2e4])
def test_none_is_found_where_there_is_none(views: int, photons: float | None) -> None:
    example = (np.load(EXAMPLE).astype(np.float32) + 1000) / 2000
    geometry = Geometry(even_angles(views), 367, example.shape)
    y = project_slice(example, geometry)
    scale = attenuation_per_unit(1.5)
    if photons is not None:
        y = -np.log(np.clip(photon_counts(y, photons, scale), 1, None) / photons) / scale
    whole = projector(geometry, cache=False)
    image = fbp(whole, geometry, torch.from_numpy(np.asarray(y, np.float32))[None], "hann")[:, 0].numpy()
    assert not find_metal(image).any()


def test_what_is_bright_all_over_is_no_metal_and_what_is_tiny_neither() -> None:
    image = np.zeros((2, 20, 20), np.float32)
    image[0, :5] = 5.0  # a quarter: another unit
    image[1, 3, 3] = image[1, 10:12, 10:14] = 5.0
    found = find_metal(image)
    assert not found[0].any() and (image[0] > 2).mean() > MOST
    assert found[1].sum() == 8 and not found[1, 3, 3]
    assert find_metal(image, 8000.0).sum() == found[1].sum()
    assert not find_metal(image, 9500.0).any()


def test_the_masked_projector_has_an_exact_adjoint_and_reads_no_masked_ray(
    full: Scan, operator: LinearOperator
) -> None:
    left_out, found = without_metal(full, operator)
    y = torch.from_numpy(left_out.sinogram)
    model, white = _measurement(operator, y, torch.from_numpy(np.asarray(left_out.noise))[0])
    assert not model.linear.informative[torch.from_numpy(found.rays[0])].any()
    generator = torch.Generator().manual_seed(0)
    for dtype, bound in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        x = torch.randn(2, 1, SIZE, SIZE, generator=generator, dtype=dtype)
        z = torch.randn(2, *GEOMETRY.sinogram_shape, generator=generator, dtype=dtype)
        seen, back = model.linear(x), model.linear.T(z)
        assert float(seen[:, torch.from_numpy(found.rays[0])].abs().max()) == 0
        gap = float((seen * z).sum() - (x * back).sum())
        assert abs(gap) < bound * float(seen.norm() * z.norm())
    # whatever such a ray says changes nothing
    other = y.clone()
    other[torch.from_numpy(found.rays)] = 1e3
    again = _measurement(operator, other, torch.from_numpy(np.asarray(left_out.noise))[0])[1]
    assert torch.equal(model.linear.T(white), model.linear.T(again))


def test_leaving_rays_out_and_interpolating_them_both_help(full: Scan, operator: LinearOperator) -> None:
    left_out, found = without_metal(full, operator)
    y = torch.from_numpy(full.sinogram)
    interpolated = error(li_mar(operator, GEOMETRY, y, found))
    assert interpolated < 0.8 * error(fbp(operator, GEOMETRY, y, "hann"))

    def weighted(scan: Scan) -> float:
        noise = torch.from_numpy(np.asarray(scan.noise))[0]
        model, white = _measurement(operator, torch.from_numpy(scan.sinogram), noise)
        return error(cgls(model.linear, white, 60))

    assert weighted(left_out) < 0.5 * weighted(full)
    assert weighted(left_out) < interpolated


def test_exact_rays_are_left_out_too(operator: LinearOperator) -> None:
    y = operator(torch.from_numpy(body())[None, None]).numpy()
    exact = Scan(y, GEOMETRY, 0.0, stacked=False)
    rays = metal_traces(metal()[None], operator)
    noise = np.asarray(masked(exact, rays).noise)
    assert np.isinf(noise[rays]).all() and (noise[~rays] < 1e-2 * y.max()).all()
    with pytest.raises(InputError, match="every ray"):
        masked(exact, np.ones_like(rays))
    same, none = without_metal(exact, operator)
    assert same is exact and not none.found


def test_the_first_guess_is_closed_over_where_no_ray_has_been() -> None:
    guess = torch.from_numpy(body())[None, None]
    hole = binary_dilation(metal(), iterations=2)
    empty = torch.where(torch.from_numpy(hole), 0.0, guess)
    found = closed_over(empty, metal())
    assert torch.equal(found[0, 0][~hole], guess[0, 0][~hole])
    assert float((found - guess)[0, 0][hole].abs().max()) < 0.05  # tissue again, where there was nothing
    assert closed_over(empty, np.zeros_like(hole)) is empty


def test_metal_stands_in_every_sample(full: Scan, operator: LinearOperator, ct_prior: Path) -> None:
    left_out, found = without_metal(full, operator)
    task = reconstruction_task(left_out.sinogram, GEOMETRY, noise=left_out.noise, operator=operator, metal=found)
    posterior = task.solve(load_prior(ct_prior, "cpu"), samples=2, steps=2)
    inside = torch.from_numpy(found.pixels)
    assert posterior.samples.shape == (2, 1, 1, SIZE, SIZE)
    assert torch.equal(posterior.samples[1, :, 0][inside], torch.from_numpy(found.values)[inside])
    assert float(posterior.std[:, 0][~inside].min()) > 0
    assert put_back(posterior.mean[:, 0], None) is not None


@pytest.fixture
def folder(tmp_path: Path, counts: np.ndarray, monkeypatch: Patch) -> Path:
    monkeypatch.setenv("INVSOLVE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    np.save("counts.npy", counts)
    np.save("truth.npy", 2000 * body() - 1000)
    Path("geometry.toml").write_text(GEOMETRY.to_toml())
    return tmp_path


GIVEN = ("ct", "counts.npy", "--geometry", "geometry.toml", "--units", "counts", "--i0", "1e5", "--bad-bins", "none")


def test_the_command_leaves_metal_out_and_says_so(folder: Path, monkeypatch: Patch, capfd: Capture) -> None:
    assert call(monkeypatch, *GIVEN, "--method", "cgls", "--truth", "truth.npy", "--json") == 0
    out, err = capfd.readouterr()
    report = json.loads(out)
    assert f"the {report['metal_rays']} rays through it" in err and "count as not measured" in err
    assert set(report["scores"]) == {"FBP", "LI-MAR", "CGLS"}
    assert report["scores"]["LI-MAR"]["psnr"] > report["scores"]["FBP"]["psnr"] + 3
    assert np.load("counts.ct.npy").max() > 3000  # the metal is in its place
    kept = json.loads(_off(monkeypatch, capfd))
    assert "metal_rays" not in kept and "LI-MAR" not in kept["scores"]
    assert kept["scores"]["FBP"]["psnr"] < report["scores"]["FBP"]["psnr"]  # there the metal counts
    assert call(monkeypatch, *GIVEN, "--method", "fbp", "--metal", "60000", "--force") == 0
    assert "metal:" not in capfd.readouterr().err


def _off(monkeypatch: Patch, capfd: Capture) -> str:
    assert (
        call(monkeypatch, *GIVEN, "--method", "cgls", "--truth", "truth.npy", "--json", "--metal", "off", "--force")
        == 0
    )
    return capfd.readouterr().out


def test_samples_of_a_scan_with_metal(folder: Path, ct_prior: Path, monkeypatch: Patch, capfd: Capture) -> None:
    some = ("--model", ct_prior, "--steps", "2", "--samples", "2", "--truth", "truth.npy", "--json")
    assert call(monkeypatch, *GIVEN, *some) == 0
    report = json.loads(capfd.readouterr().out)
    assert set(report["scores"]) == {"FBP", "LI-MAR", "TV", "mean of 2"}
    std, result = np.load("counts.ct.std.npy"), np.load("counts.ct.npy")
    assert (std[result > 3000] == 0).all() and (result > 3000).sum() == report["metal_pixels"]


def test_a_file_names_the_rays(folder: Path, operator: LinearOperator, monkeypatch: Patch, capfd: Capture) -> None:
    rays = metal_traces(metal()[None], operator)[0]
    np.save("rays.npy", rays)
    assert call(monkeypatch, *GIVEN, "--method", "fbp", "--metal", "rays.npy", "--truth", "truth.npy", "--json") == 0
    out, err = capfd.readouterr()
    assert f"{int(rays.sum())} rays of rays.npy" in err
    assert list(json.loads(out)["scores"]) == ["FBP"]


BAD = {
    "--metal -5": (ExitCode.USAGE, "wanted auto, off"),
    "--metal nan": (ExitCode.USAGE, "wanted auto, off"),
    "--metal nowhere.npy": (ExitCode.BAD_INPUT, "nowhere.npy"),
    "--metal on": (ExitCode.BAD_INPUT, "on"),
    "--metal small.npy": (ExitCode.BAD_INPUT, "has shape (3, 4)"),
    "--metal all.npy": (ExitCode.BAD_INPUT, "leaves no ray"),
    "--metal rays.npy --workers 2": (ExitCode.USAGE, "--metal rays.npy of a volume"),
}


@pytest.mark.parametrize("given", BAD)
def test_bad_input_is_one_line(given: str, folder: Path, monkeypatch: Patch, capfd: Capture) -> None:
    np.save("small.npy", np.zeros((3, 4)))
    np.save("all.npy", np.ones(GEOMETRY.sinogram_shape))
    np.save("rays.npy", np.zeros(GEOMETRY.sinogram_shape))
    before = {path.name for path in folder.iterdir()}
    code, said = BAD[given]
    assert call(monkeypatch, *GIVEN, "--method", "fbp", *given.split()) == code
    err = capfd.readouterr().err
    assert said in err and "Traceback" not in err
    assert {path.name for path in folder.iterdir()} - before <= {"cache"}


def test_a_problem_file_names_missing_rays(folder: Path, operator: LinearOperator) -> None:
    rays = torch.from_numpy(metal_traces(metal()[None], operator)[0]).float()
    made = find_operator("projector", {"geometry": GEOMETRY, "missing": rays})((1, SIZE, SIZE))
    seen = made(torch.from_numpy(body())[None, None])[0]
    assert float(seen[rays > 0.5].abs().max()) == 0
    assert torch.equal(seen[rays < 0.5], operator(torch.from_numpy(body())[None, None])[0][rays < 0.5])
    for wrong in (rays[:5], torch.ones_like(rays)):
        with pytest.raises(InputError, match="missing has shape"):
            find_operator("projector", {"geometry": GEOMETRY, "missing": wrong})((1, SIZE, SIZE))


def test_a_stack_of_which_one_slice_has_metal(full: Scan, operator: LinearOperator) -> None:
    clean = operator(torch.from_numpy(body())[None, None]).numpy()
    two = replace(
        full, sinogram=np.concatenate([full.sinogram, clean]),
        noise=np.concatenate([np.asarray(full.noise), np.full_like(clean, 0.1)]),
    )  # fmt: skip
    left_out, found = without_metal(two, operator)
    assert found.rays[0].any() and not found.rays[1].any()
    assert np.isfinite(np.asarray(left_out.noise)[1]).all()
