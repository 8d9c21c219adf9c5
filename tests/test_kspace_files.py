"""K-space files: what fastMRI's and ISMRMRD's layouts hold comes back as it was simulated, and bad files are told."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from invsolve.errors import InputError, UsageError
from invsolve.forward_models import equispaced_mask
from invsolve.tasks.kspace_files import read_kspace, without_oversampling
from invsolve.tasks.mri_simulation import MriScan, simulate_mri

h5py: ModuleType = pytest.importorskip("h5py")
ismrmrd: ModuleType = pytest.importorskip("ismrmrd")

HEIGHT, WIDTH, COILS = 48, 40, 3

HEADER = """<?xml version="1.0"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
 <experimentalConditions><H1resonanceFrequency_Hz>63500000</H1resonanceFrequency_Hz></experimentalConditions>
 <encoding>
  <encodedSpace><matrixSize><x>{encoded}</x><y>{width}</y><z>{depth}</z></matrixSize>
   <fieldOfView_mm><x>480</x><y>240</y><z>5</z></fieldOfView_mm></encodedSpace>
  <reconSpace><matrixSize><x>{rows}</x><y>{width}</y><z>1</z></matrixSize>
   <fieldOfView_mm><x>240</x><y>240</y><z>5</z></fieldOfView_mm></reconSpace>
  <encodingLimits><kspace_encoding_step_1>
   <minimum>0</minimum><maximum>{last}</maximum><center>{center}</center></kspace_encoding_step_1></encodingLimits>
  <trajectory>{trajectory}</trajectory>
 </encoding>
</ismrmrdHeader>"""


def header(encoded: int = HEIGHT, rows: int = HEIGHT, depth: int = 1, trajectory: str = "cartesian") -> bytes:
    return HEADER.format(
        encoded=encoded, rows=rows, depth=depth, width=WIDTH, last=WIDTH - 1, center=WIDTH // 2, trajectory=trajectory
    ).encode()


@pytest.fixture(scope="module")
def scan() -> MriScan:
    y, x = (np.mgrid[:HEIGHT, :WIDTH] - 20.0) / 20
    head = 1.0 * ((x / 0.7) ** 2 + (y / 0.8) ** 2 < 1)
    return simulate_mri(head, equispaced_mask((HEIGHT, WIDTH), 2, 10), coils=COILS)


def oversampled(kspace: np.ndarray, height: int) -> np.ndarray:
    """K-space of the same picture with air above and below."""
    lines = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(kspace, -2), axis=-2, norm="ortho"), -2)
    above = height // 2 - kspace.shape[-2] // 2
    padded = np.pad(lines, ((0, 0), (above, height - kspace.shape[-2] - above), (0, 0)))
    return np.fft.fftshift(np.fft.fft(np.fft.ifftshift(padded, -2), axis=-2, norm="ortho"), -2).astype(np.complex64)


def write_fastmri(path: Path, kspace: np.ndarray, mask: np.ndarray | None = None, head: bytes | None = None) -> Path:
    with h5py.File(path, "w") as file:
        file["kspace"] = kspace
        if mask is not None:
            file["mask"] = mask
        if head is not None:
            file["ismrmrd_header"] = head
    return path


def write_ismrmrd(path: Path, slices: list[np.ndarray], head: bytes, repeats: int = 1, reverse: bool = False) -> Path:
    """Columns that are not 0, each as a readout; and one readout of noise."""
    dataset = ismrmrd.Dataset(str(path), "dataset", create_if_needed=True)
    dataset.write_xml_header(head)
    noise = ismrmrd.Acquisition.from_array(np.full((COILS, 16), 1e3, dtype=np.complex64))
    noise.set_flag(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
    dataset.append_acquisition(noise)
    for number, kspace in enumerate(slices):
        for column in np.flatnonzero(np.abs(kspace).sum(axis=(0, 1))):
            for repeat in range(repeats):
                line = kspace[..., column] + (0.5 if repeat % 2 else -0.5) * (repeats > 1)
                samples = line.shape[-1]
                backwards = line[:, ::-1] if reverse else line
                readout = ismrmrd.Acquisition.from_array(np.ascontiguousarray(backwards, dtype=np.complex64))
                readout.center_sample = samples - 1 - samples // 2 if reverse else samples // 2
                readout.idx.kspace_encode_step_1 = column
                readout.idx.slice = number
                if reverse:
                    readout.set_flag(ismrmrd.ACQ_IS_REVERSE)
                dataset.append_acquisition(readout)
    dataset.close()
    return path


def test_fastmri(tmp_path: Path, scan: MriScan) -> None:
    measured = np.abs(scan.kspace).sum(axis=(0, 1)) > 0
    stack = np.stack([0 * scan.kspace, scan.kspace, 2 * scan.kspace])
    path = write_fastmri(tmp_path / "three.h5", stack, measured)
    middle, last = read_kspace(path), read_kspace(path, 2)
    assert (middle.slice, middle.slices, last.slice) == (1, 3, 2)
    np.testing.assert_array_equal(middle.values, scan.kspace)
    np.testing.assert_array_equal(last.values, 2 * scan.kspace)
    assert middle.measured is not None
    np.testing.assert_array_equal(middle.measured, measured)
    single = read_kspace(write_fastmri(tmp_path / "single.h5", stack[:, 0]))
    np.testing.assert_array_equal(single.values, scan.kspace[0])
    assert single.measured is None


@pytest.mark.parametrize("encoded", [HEIGHT, 2 * HEIGHT, 2 * HEIGHT + 1])
def test_readout_oversampling_is_cut_off(tmp_path: Path, scan: MriScan, encoded: int) -> None:
    wide = oversampled(scan.kspace, encoded)
    fastmri = write_fastmri(tmp_path / "wide.h5", wide[None], head=header(encoded))
    raw = write_ismrmrd(tmp_path / "raw.h5", [wide], header(encoded))
    for path in (fastmri, raw):
        np.testing.assert_allclose(read_kspace(path).values, scan.kspace, atol=1e-5)


def test_cutting_keeps_white_noise_as_it_is() -> None:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((64, 300)) + 1j * rng.standard_normal((64, 300))
    cut = without_oversampling(noise, 32)
    assert cut.shape == (32, 300)
    assert cut.real.std() == pytest.approx(1, rel=0.03)
    assert without_oversampling(noise, 64) is noise


@pytest.mark.parametrize("reverse", [False, True])
def test_ismrmrd(tmp_path: Path, scan: MriScan, reverse: bool) -> None:
    path = write_ismrmrd(tmp_path / "raw.h5", [scan.kspace, 3 * scan.kspace], header(), repeats=2, reverse=reverse)
    found = read_kspace(path)
    assert (found.slice, found.slices) == (1, 2)
    np.testing.assert_allclose(found.values, 3 * scan.kspace, atol=1e-5)
    np.testing.assert_allclose(read_kspace(path, 0).values, scan.kspace, atol=1e-5)
    assert found.measured is not None
    np.testing.assert_array_equal(found.measured, np.abs(scan.kspace).sum(axis=0) > 0)


def test_bad_files_are_told(tmp_path: Path, scan: MriScan) -> None:
    good = write_fastmri(tmp_path / "good.h5", scan.kspace[None])
    (tmp_path / "cut.h5").write_bytes(good.read_bytes()[:2000])
    (tmp_path / "text.h5").write_text("no HDF5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["volume"] = np.ones(3)
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["kspace"] = h5py.ExternalLink("good.h5", "kspace")
    layout = h5py.VirtualLayout(shape=(1, *scan.kspace.shape), dtype=np.complex64)
    layout[:] = h5py.VirtualSource(str(good), "kspace", shape=(1, *scan.kspace.shape))
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        file.create_virtual_dataset("kspace", layout)
    with h5py.File(tmp_path / "huge.h5", "w") as file:
        file.create_dataset("kspace", (1, 64, 65536, 65536), dtype=np.complex64, chunks=(1, 1, 256, 256))
    write_fastmri(tmp_path / "real.h5", scan.kspace.real[None])
    write_fastmri(tmp_path / "mask.h5", scan.kspace[None], mask=np.ones(3))
    write_fastmri(tmp_path / "header.h5", scan.kspace[None], head=b"<no/>")
    write_ismrmrd(tmp_path / "radial.h5", [scan.kspace], header(trajectory="radial"))
    write_ismrmrd(tmp_path / "volume.h5", [scan.kspace], header(depth=8))
    wide = np.pad(scan.kspace, ((0, 0), (0, 0), (0, 8)), constant_values=1)
    write_ismrmrd(tmp_path / "wide.h5", [wide], header())
    write_ismrmrd(tmp_path / "empty.h5", [], header())
    for name, message in {
        "none.h5": "no such file",
        "cut.h5": "is damaged",
        "text.h5": "is no .npy file",
        "other.h5": "HDF5 with volume",
        "link.h5": "no data set of its own",
        "virtual.h5": "no data set of its own",
        "huge.h5": "has 274877906944 values",
        "real.h5": "float32",
        "mask.h5": r"mask in .* has shape \(3,\)",
        "header.h5": "header of .* is damaged",
        "radial.h5": "radial trajectory",
        "volume.h5": "3-D scan of 8",
        "wide.h5": "does not fit its header",
        "empty.h5": "holds no slice",
    }.items():
        with pytest.raises(InputError, match=message):
            read_kspace(tmp_path / name)
    with pytest.raises(UsageError, match="slice 1 of"):
        read_kspace(good, 1)
