"""What is found out about a scan, axis, noise and bad bins; fans of equal angles; DICOM and NIfTI."""

from __future__ import annotations

import gzip
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from invsolve.cli.main import main
from invsolve.ct.bad_bins import bad_bins, parse_bins
from invsolve.ct.description import Description
from invsolve.ct.dicom import dicom_bytes, read_dicom
from invsolve.ct.fbp import fbp
from invsolve.ct.nifti import nifti_bytes
from invsolve.ct.noise import estimate_noise
from invsolve.ct.rotation_axis import find_axis
from invsolve.ct.scan import interpret
from invsolve.ct.simulation import project_slice
from invsolve.errors import ExitCode, InputError, UsageError
from invsolve.forward_models import Geometry, even_angles, even_subset, projector

SIZE, BINS, FULL = 96, 141, 180
HERE = Path(__file__).resolve().parent


def discs() -> np.ndarray:
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    out = np.where(((x - 7) / 38) ** 2 + ((y + 3) / 28) ** 2 < 1, 0.5, 0.0)
    out[(x - 15) ** 2 + (y - 8) ** 2 < 40] += 0.3
    out[(x + 9) ** 2 + (y + 9) ** 2 < 50] -= 0.2
    return out.astype(np.float32)


def scan(center: float | None = None) -> Geometry:
    return Geometry(even_angles(FULL), BINS, (SIZE, SIZE), center=center)


@pytest.fixture(scope="module")
def sinograms() -> dict[str, np.ndarray]:
    """Exact sinograms of 180 views; the example slice is shown coarser."""
    example = np.load(HERE.parent / "examples" / "ct-slice.npy").astype(np.float32)
    coarse = example[:255, :255].reshape(85, 3, 85, 3).mean(axis=(1, 3))
    example_n = np.pad((coarse + 1000) / 2000, ((5, 6), (5, 6)))
    return {"discs": project_slice(discs(), scan()), "example": project_slice(example_n, scan())}


def noisy(sinogram: np.ndarray, share: float) -> np.ndarray:
    return sinogram + share * sinogram.max() * np.random.default_rng(0).standard_normal(sinogram.shape)


# -- the noise ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("views", [23, 60, 180])
@pytest.mark.parametrize("name", ["discs", "example"])
def test_a_noiseless_scan_is_not_called_noisy_and_a_noisy_one_is_measured(
    name: str, views: int, sinograms: dict[str, np.ndarray]
) -> None:
    chosen = even_subset(FULL, views)
    clean, angles = sinograms[name][chosen], tuple(scan().angles[i] for i in chosen)
    assert estimate_noise(clean, angles) == 0
    assert estimate_noise(clean) <= 1.5e-3 * clean.max()
    for share in (0.003, 0.01, 0.03):
        assert estimate_noise(noisy(clean, share), angles) == pytest.approx(share * clean.max(), rel=0.2)


def test_consistency_finds_noise_where_no_tile_is_quiet(sinograms: dict[str, np.ndarray]) -> None:
    clean = sinograms["discs"][::3, 20:-20]  # a detector that the shadow fills
    truth = 0.01 * clean.max()
    assert estimate_noise(noisy(clean, 0.01), scan().angles[::3]) == pytest.approx(truth, rel=0.2)


def test_rays_that_were_filled_in_do_not_lower_the_noise(sinograms: dict[str, np.ndarray]) -> None:
    data = noisy(sinograms["discs"], 0.02)
    seen = np.ones(data.shape, dtype=bool)
    seen[:, 5::20] = False
    data[~seen] = 0
    known = Description(measured=seen, bad_bins="none")
    found = interpret(data.astype(np.float32), known)
    assert isinstance(found.noise, np.ndarray)
    assert np.isinf(found.noise[0][~seen]).all()
    assert float(found.noise[0][seen].max()) == pytest.approx(0.02 * data.max(), rel=0.2)


# -- the axis -------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def shifted() -> dict[float, np.ndarray]:
    return {shift: project_slice(discs(), scan((BINS - 1) / 2 + shift)) for shift in (-6.3, 3.8)}


@pytest.mark.parametrize("views", [23, 60])
@pytest.mark.parametrize("way", ["auto", "correlation", "entropy"])
def test_a_shifted_axis_is_found_within_half_a_bin(way: str, views: int, shifted: dict[float, np.ndarray]) -> None:
    chosen = even_subset(FULL, views)
    for shift, full in list(shifted.items())[: 1 if way == "entropy" else None]:  # which takes its time
        found, others = find_axis(noisy(full, 0.01)[chosen][None], scan().subset(views), way)
        assert found.bin == pytest.approx((BINS - 1) / 2 + shift, abs=0.5)
        assert found.spread < 0.5
        assert {axis.way for axis in others} == {"auto", "correlation"} - {way}
        assert f"{found.bin:.2f} +- " in str(found)


def test_an_axis_that_nobody_gave_and_is_not_in_the_middle_is_warned_of(shifted: dict[float, np.ndarray]) -> None:
    def warned(y: np.ndarray, **known: Any) -> list[str]:
        notes = interpret(y.astype(np.float32), Description(**known)).notes
        return [note for note in notes if "(--center auto)" in note]

    for shift, full in shifted.items():
        at = (BINS - 1) / 2 + shift
        (line,) = warned(noisy(full, 0.005))
        assert f"taken at bin {(BINS - 1) / 2:.2f}" in line
        assert float(line.split("put it at bin ")[1].split()[0]) == pytest.approx(at, abs=0.5)
        assert warned(full, center=at) == warned(full, center="auto") == warned(full, geometry=scan()) == []
    middle = project_slice(discs(), scan())
    assert warned(noisy(middle, 0.005)) == warned(middle[:: FULL // 8]) == []
    cut = np.roll(middle, 12, axis=1)[:, : BINS // 2]  # the detector does not see it whole: the views' sums say nothing
    assert warned(cut) == []


def test_a_full_turn_is_no_trouble(shifted: dict[float, np.ndarray]) -> None:
    half = shifted[3.8][::6]
    at = (BINS - 1) / 2 + 3.8
    # Half a turn on, each view is seen from behind: mirrored about the axis.
    places = 2 * at - np.arange(BINS)
    behind = np.stack([np.interp(places, np.arange(BINS), view, left=0, right=0) for view in half])
    full = np.concatenate([half, behind])[None]
    geometry = Geometry(even_angles(60, 360), BINS, (SIZE, SIZE))
    for way in ("correlation", "entropy"):
        assert find_axis(full, geometry, way)[0].bin == pytest.approx(at, abs=0.5)


def test_an_axis_that_cannot_be_found_is_refused() -> None:
    y = np.random.default_rng(0).random((1, 8, 64))
    with pytest.raises(InputError, match="half a turn apart"):
        find_axis(y, Geometry(even_angles(8, 60), 64, (64, 64)), "correlation")
    with pytest.raises(UsageError, match="wanted a bin number, auto, correlation, entropy"):
        find_axis(y, Geometry(even_angles(8), 64, (64, 64)), "magic")
    fan = Geometry(even_angles(8, 360), 64, (32, 32), "fan", source_distance=100.0)
    with pytest.raises(UsageError, match="parallel beams only"):
        find_axis(y, fan, "entropy")


# -- bad bins -------------------------------------------------------------------------------------------------------
def test_bad_bins_are_found_and_no_good_one_is(sinograms: dict[str, np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    for name, clean in sinograms.items():
        for views in (23, 60, 180):
            for share in (0, 0.01):
                few = noisy(clean, share)[even_subset(FULL, views)][None]
                assert not bad_bins(few).any(), (name, views, share)
    broken = noisy(sinograms["discs"], 0.01)
    broken[:, 50] = 3.0  # stuck
    broken[:, 71:73] = broken[:1, 71:73]
    broken[:, 90] = 30 * rng.random(FULL)
    assert np.flatnonzero(bad_bins(broken[None])).tolist() == [50, 71, 72, 90]
    found = interpret(broken.astype(np.float32), Description())
    assert "bad detector bins found: 50, 71, 72, 90" in " ".join(found.notes)
    assert isinstance(found.noise, np.ndarray)
    assert np.isinf(found.noise[..., [50, 71, 72, 90]]).all()
    assert np.isfinite(np.delete(found.noise, [50, 71, 72, 90], axis=-1)).all()
    middle = (found.sinogram[..., 49] + found.sinogram[..., 51]) / 2
    np.testing.assert_allclose(found.sinogram[..., 50], middle, rtol=1e-5)


def test_bins_are_named_as_a_list() -> None:
    assert np.flatnonzero(parse_bins("3,17, 40:44", 50)).tolist() == [3, 17, 40, 41, 42, 43]
    for text in ("50", "4:", ":4", "a", "", "4:4", "-1"):
        with pytest.raises(UsageError, match="--bad-bins"):
            parse_bins(text, 50)


# -- a detector on an arc -------------------------------------------------------------------------------------------
def test_an_arc_of_equal_angles_sees_the_rays_of_a_flat_detector() -> None:
    arc = Geometry(
        even_angles(60, 360), BINS, (64, 64), "fan-arc", detector_spacing=1.3, source_distance=110.0,
        detector_distance=90.0, center=68.5,
    )  # fmt: skip
    flat = replace(arc, kind="fan")
    image = torch.from_numpy(discs()[16:80, 16:80])[None, None]
    operator = projector(arc, cache=False)
    seen, on_flat = operator(image), projector(flat, cache=False)(image)[0].numpy()
    places = flat.bins_at(arc.opening(np.arange(BINS) - 68.5)) + 68.5
    expected = np.stack([np.interp(places, np.arange(BINS), view) for view in on_flat])
    assert np.linalg.norm(seen[0].numpy() - expected) < 0.02 * np.linalg.norm(expected)
    assert np.linalg.norm(seen[0].numpy() - on_flat) > 0.04 * np.linalg.norm(expected)
    back = fbp(operator, arc, seen, "hann")
    assert float((back - image).square().mean().sqrt()) < 0.08


def test_an_arc_has_a_file_and_ends_before_the_source(tmp_path: Path) -> None:
    arc = Geometry((0.0, 9.0), 30, (8, 8), "fan-arc", source_distance=50.0, detector_distance=30.0)
    (tmp_path / "g.toml").write_text(arc.to_toml())
    assert Geometry.read(tmp_path / "g.toml") == replace(arc, center=14.5)
    with pytest.raises(InputError, match="outermost ray is"):
        replace(arc, detector_spacing=20.0)


# -- DICOM and NIfTI ------------------------------------------------------------------------------------------------
def hounsfield() -> np.ndarray:
    return (2000 * discs() - 1000 + np.linspace(0, 50, SIZE)).astype(np.float32)


def test_dicom_comes_back_and_says_what_it_is(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    hu = hounsfield()
    made = [dicom_bytes(hu, 1.25, series="by a learned prior", derivation="from 23 views") for _ in range(2)]
    for number, content in enumerate(made):
        (tmp_path / f"{number}.dcm").write_bytes(content)
    found = read_dicom(tmp_path / "0.dcm")
    np.testing.assert_allclose(found.hu, hu, atol=0.5001)
    assert found.pixel_size == 1.25
    first, second = (pydicom.dcmread(tmp_path / f"{number}.dcm") for number in (0, 1))
    assert list(first.ImageType)[:2] == ["DERIVED", "SECONDARY"]
    assert (first.SeriesDescription, first.DerivationDescription) == ("by a learned prior", "from 23 views")
    for name in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate"):
        assert str(first.data_element(name).value or "") == ""
    for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert getattr(first, name) != getattr(second, name)
    np.testing.assert_array_equal(pydicom.pixels.apply_rescale(first.pixel_array, first), found.hu)
    (tmp_path / "metal.dcm").write_bytes(dicom_bytes(hu * 50, 1.0, series="", derivation=""))
    np.testing.assert_allclose(read_dicom(tmp_path / "metal.dcm").hu, hu * 50, atol=2)


def edited_dicom(folder: Path, **changes: object) -> Path:
    pydicom = pytest.importorskip("pydicom")
    (folder / "a.dcm").write_bytes(dicom_bytes(hounsfield(), 1.5, series="", derivation=""))
    data = pydicom.dcmread(folder / "a.dcm")
    for name, value in changes.items():
        if value is None:
            del data[name]
        elif name == "PixelPaddingValue":
            data.add_new(name, "SS", value)
        else:
            setattr(data, name, value)
    data.save_as(folder / "a.dcm")
    return folder / "a.dcm"


def test_dicom_rescale_padding_and_inversion(tmp_path: Path) -> None:
    stored = np.clip(np.round(hounsfield()), -1000, None).astype(np.int16)
    stored[:5] = -2000
    path = edited_dicom(
        tmp_path, PixelData=stored.tobytes(), RescaleSlope="2", RescaleIntercept="-24", PixelPaddingValue=-2000,
        PhotometricInterpretation="MONOCHROME1",
    )  # fmt: skip
    found = read_dicom(path)
    np.testing.assert_allclose(found.hu[5:], 2.0 * stored[5:] - 24)
    assert (found.hu[:5] == -1000).all()
    assert "480 padding pixels" in found.notes[0]
    assert "MONOCHROME1" in found.notes[1]


WRONG_DICOM: dict[str, tuple[dict[str, object], str]] = {
    "another modality": ({"Modality": "MR"}, "modality 'MR'"),
    "frames": ({"NumberOfFrames": 3}, "3 frames"),
    "no rescale": ({"RescaleSlope": None}, "no RescaleSlope"),
    "slope 0": ({"RescaleSlope": "0"}, "RescaleSlope = 0"),
    "other units": ({"RescaleType": "MGML"}, "units of 'MGML'"),
    "oblong pixels": ({"PixelSpacing": [1, 2]}, "1 x 2 mm"),
    "colours": ({"PhotometricInterpretation": "RGB"}, "is RGB"),
    "no pixels": ({"PixelData": None}, "no PixelData"),
    "too few pixels": ({"PixelData": b"ab"}, "damaged"),
    "huge": ({"Rows": 65535, "Columns": 65535}, "65535 x 65535 pixels"),
}


@pytest.mark.parametrize("name", WRONG_DICOM)
def test_bad_dicom_is_told_in_one_line(name: str, tmp_path: Path) -> None:
    changes, message = WRONG_DICOM[name]
    with pytest.raises(InputError, match=message) as caught:
        read_dicom(edited_dicom(tmp_path, **changes))
    assert caught.value.hint
    assert "\n" not in str(caught.value)


def test_files_that_are_no_dicom(tmp_path: Path) -> None:
    whole = edited_dicom(tmp_path).read_bytes()
    for content in (whole[:2000], whole[:140], b"text", bytes(500)):
        (tmp_path / "bad.dcm").write_bytes(content)
        with pytest.raises(InputError) as caught:
            read_dicom(tmp_path / "bad.dcm")
        assert "\n" not in str(caught.value)


def test_nifti_lies_where_the_scanner_saw_it() -> None:
    nibabel = pytest.importorskip("nibabel")
    geometry = Geometry((0.0,), 9, (SIZE, SIZE), pixel_size=1.5)
    hu = np.stack([hounsfield(), hounsfield() + 7])
    content = nifti_bytes(hu, geometry, description="made", packed=True, spacing=4.0)
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(content))
    np.testing.assert_array_equal(np.asarray(image.dataobj).transpose(2, 1, 0), hu)
    assert nibabel.aff2axcodes(image.affine) == ("R", "P", "S")  # columns to the right, rows down, slices up
    middle = image.affine @ [(SIZE - 1) / 2, (SIZE - 1) / 2, 1, 1]
    np.testing.assert_allclose(middle, [0, 0, 4, 1], atol=1e-5)
    np.testing.assert_allclose(image.header.get_zooms(), [1.5, 1.5, 4])


# -- as commands ----------------------------------------------------------------------------------------------------
@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INVSOLVE_CACHE", str(tmp_path / "cache"))
    return tmp_path


def command(*arguments: object) -> int:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as left:
        patch.setattr("sys.argv", ["invsolve", *map(str, arguments)])
        main()
    return int(left.value.code or 0)


def test_from_dicom_to_dicom_and_nifti(cached: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pydicom, nibabel = pytest.importorskip("pydicom"), pytest.importorskip("nibabel")
    path = edited_dicom(cached)
    assert command("simulate", "ct", path, "--views", 40) == ExitCode.OK
    assert "CT slice of 96 x 96, pixels of 1.5 mm" in capsys.readouterr().err
    np.testing.assert_allclose(np.load(cached / "a.truth.npy"), hounsfield(), atol=0.5001)
    sinogram, toml = cached / "a.sinogram.npy", cached / "a.geometry.toml"
    given = ("ct", sinogram, "--geometry", toml, "--method", "fbp", "--truth", path)
    assert command(*given, "-o", cached / "out.dcm") == ExitCode.OK
    result = np.load(cached / "out.npy")
    made = pydicom.dcmread(cached / "out.dcm")
    np.testing.assert_allclose(pydicom.pixels.apply_rescale(made.pixel_array, made), result, atol=0.5001)
    assert [float(side) for side in made.PixelSpacing] == [1.5, 1.5]
    assert "FBP" in made.SeriesDescription
    assert "40 views" in made.DerivationDescription
    assert command(*given, "-o", cached / "more.nii.gz") == ExitCode.OK
    image = nibabel.load(cached / "more.nii.gz")
    np.testing.assert_allclose(np.asarray(image.dataobj)[..., 0].T, result, atol=1e-3)
    capsys.readouterr()
    assert command("ct", sinogram, "--method", "fbp", "-o", cached / "c.dcm") == ExitCode.USAGE
    assert "--pixel-size" in capsys.readouterr().err
    np.save(cached / "two.npy", np.stack([np.load(sinogram)] * 2))
    stack = ("ct", cached / "two.npy", "--method", "fbp", "--pixel-size", 1.5, "-o", cached / "d.dcm")
    assert command(*stack) == ExitCode.USAGE
    assert "--slice" in capsys.readouterr().err
    assert command(*stack, "--slice", 1) == ExitCode.OK


def test_a_learned_prior_is_named_in_the_series(cached: Path, ct_prior: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    geometry = Geometry(even_angles(12), 71, (48, 48), pixel_size=2.0, detector_spacing=2.0)
    y = projector(geometry)(torch.from_numpy(discs()[::2, ::2].copy())[None, None])[0].numpy()
    y[:, 30] = 0
    np.save(cached / "y.npy", y)
    (cached / "g.toml").write_text(geometry.to_toml())
    given = ("ct", cached / "y.npy", "--geometry", cached / "g.toml", "--model", ct_prior, "--steps", 2, "--samples", 2)
    assert command(*given, "--bad-bins", "30", "-o", cached / "r.dcm") == ExitCode.OK
    made = pydicom.dcmread(cached / "r.dcm")
    assert made.SeriesDescription == "Reconstruction by a learned prior (invsolve)"
    assert "mean of 2 from the posterior" in made.DerivationDescription
    assert np.isfinite(np.load(cached / "r.npy")).all()


def test_one_line_says_what_was_read(cached: Path, capsys: pytest.CaptureFixture[str]) -> None:
    h5py = pytest.importorskip("h5py")
    geometry = Geometry(even_angles(40), 71, (48, 48), center=37.2)
    y = projector(geometry)(torch.from_numpy(discs()[::2, ::2].copy())[None, None])[0].numpy() * 2 * 0.0192 * 1.5
    with h5py.File(cached / "scan.h5", "w") as file:
        file["exchange/data"] = (1e4 * np.exp(-y))[:, None, :]
        file["exchange/data_white"] = np.full((2, 1, 71), 1e4)
        file["exchange/theta"] = geometry.angles
    given = ("ct", cached / "scan.h5", "--method", "fbp", "--pixel-size", 1.5, "--center", "correlation", "--size", 48)
    assert command(*given) == ExitCode.OK
    said = capsys.readouterr().err
    assert "scan.h5: Data Exchange: 40 views x 71 bins, 0 to 175.5 degrees, no pixel size; flat field of 2" in said
    found = re.search(r"centre of rotation at bin ([\d.]+) \+-", said)
    assert found is not None
    assert float(found[1]) == pytest.approx(37.2, abs=0.3)
    assert "correlation 0.9" in said
    assert command(*given, "--units", "counts", "--force") == ExitCode.USAGE
    assert "--units counts" in capsys.readouterr().err


def test_the_noise_of_few_photons_is_that_of_each_ray(sinograms: dict[str, np.ndarray]) -> None:
    """A flat-fielded scan of an absorbing object: every ray's noise within a fifth of what Poisson's law says."""
    exact = 6 * sinograms["discs"] / sinograms["discs"].max()
    photons = 2e4 * np.exp(-exact)
    counts = np.random.default_rng(0).poisson(photons).clip(1)
    known = Description(units="attenuation", pixel_size=1.5, counted=True)
    found = interpret(-np.log(counts / 2e4).astype(np.float32), known)
    assert isinstance(found.noise, np.ndarray)
    behind = exact > 1
    truth = 1 / np.sqrt(photons) * (found.sinogram[0][behind] / -np.log(counts / 2e4)[behind]).mean()
    ratio = found.noise[0] / truth
    assert 0.8 < np.median(ratio) < 1.25
    assert np.quantile(ratio, 0.1) > 0.7 and np.quantile(ratio, 0.9) < 1.4
    plain = interpret(-np.log(counts / 2e4).astype(np.float32), replace(known, counted=False))
    assert isinstance(plain.noise, float)
