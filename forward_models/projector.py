"""The CT projector: ASTRA's own geometry as a sparse matrix, so that the adjoint is exact.

A and A' are both stored in CSR form and applied to whole batches: on a laptop's CPU that is many times faster than
calling a projector image by image, and the same matrix runs on a GPU. It is built once by ASTRA and cached on disk by
the geometry's hash; reading it back needs no ASTRA. Above ``MATRIX_LIMIT`` non-zeros :func:`projector` falls back on
ASTRA's own projectors, which store nothing.

Values are line lengths in **pixels**: ``A n`` is a sinogram of n in pixel units; multiply by the pixel size for mm.

Sources: van Aarle et al. 2016 (ASTRA toolbox); Joseph 1982 (the ``linear`` kernel); Siddon 1985 (``line``).
"""

from __future__ import annotations

import contextlib
import math
import warnings
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from invsolve.atomic import write_files
from invsolve.cache import cache_folder
from invsolve.errors import InputError, ModelError, OutputError
from invsolve.forward_models.geometry import Geometry
from invsolve.forward_models.operator import LinearOperator

Array = npt.NDArray[Any]

FORMAT = 2
"""Of the cached matrices: goes up when a geometry's matrix changes."""

MATRIX_LIMIT = 200_000_000
"""Non-zeros up to which the matrix is stored: 3.2 GB for A and A' in float32."""

TOLERANCE = 1e-2
"""Default relative residual of ``prox``: what is left is far below a denoiser's error, and ten times tighter changes
no figure of a reconstruction."""

CACHE_LIMIT = 4 * 2**30
"""Bytes of cached matrices; beyond, the least recently used ones go."""


class _MatrixProduct(torch.autograd.Function):
    """x -> M x for columns, with the stored transpose as its derivative (torch has none for CSR on every backend)."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, transpose: Tensor, columns: Tensor) -> Tensor:
        ctx.matrices = matrix, transpose
        return matrix @ columns

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, Tensor]:
        matrix, transpose = ctx.matrices
        return None, None, _MatrixProduct.apply(transpose, matrix, gradients[0].contiguous())


class SparseProjector(LinearOperator):
    """y = A x with a stored matrix; (1, H, W) -> (views, detectors), float32 and float64, CPU and GPU.

    Parameters
    ----------
    geometry : the scan.
    matrix : its matrix, (views * detectors) x (H * W), in pixel lengths.
    device : where A and A' live.
    tolerance : relative residual at which the conjugate gradients of ``prox`` stop.
    """

    def __init__(
        self, geometry: Geometry, matrix: csr_matrix, device: torch.device | str = "cpu", tolerance: float = TOLERANCE
    ) -> None:
        super().__init__((1, *geometry.shape), geometry.sinogram_shape)
        self.geometry, self.device, self.tolerance = geometry, torch.device(device), tolerance
        self._pairs = {torch.float32: (_to_torch(matrix, self.device), _to_torch(matrix.T.tocsr(), self.device))}

    def _matrices(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        if dtype not in self._pairs:  # float64, for tests and the exactness tables
            a, at = self._pairs[torch.float32]
            self._pairs[dtype] = a.to(dtype), at.to(dtype)
        return self._pairs[dtype]

    def _apply(self, x: Tensor) -> Tensor:
        matrix, transpose = self._matrices(x.dtype)
        columns = x.reshape(len(x), -1).T.contiguous()
        return _MatrixProduct.apply(matrix, transpose, columns).T.reshape(-1, *self.output_shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        matrix, transpose = self._matrices(y.dtype)
        columns = y.reshape(len(y), -1).T.contiguous()
        return _MatrixProduct.apply(transpose, matrix, columns).T.reshape(-1, *self.input_shape)

    def _gram(self, y: Tensor) -> Tensor:
        matrix, transpose = self._matrices(y.dtype)
        columns = y.reshape(len(y), -1).T.contiguous()
        picture = _MatrixProduct.apply(transpose, matrix, columns)  # stays in columns, as a picture is larger than y
        return _MatrixProduct.apply(matrix, transpose, picture).T.reshape(-1, *self.output_shape)


class AstraProjector(LinearOperator):
    """The same map by ASTRA's CPU projectors, one image at a time, float32 inside: for geometries too large to store."""

    def __init__(self, geometry: Geometry, tolerance: float = TOLERANCE) -> None:
        super().__init__((1, *geometry.shape), geometry.sinogram_shape)
        astra = import_astra()
        self.geometry, self.tolerance = geometry, tolerance
        identifier = _create_projector(geometry)
        self._projector = astra.OpTomo(identifier)
        weakref.finalize(self, astra.projector.delete, identifier)  # ASTRA's objects live until they are deleted

    def _apply(self, x: Tensor) -> Tensor:
        return _Astra.apply(self, False, x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return _Astra.apply(self, True, y)

    def run(self, x: Tensor, transposed: bool) -> Tensor:
        """A x, or A' x, without derivatives."""
        method = self._projector.T if transposed else self._projector
        arrays = x.detach().to("cpu", torch.float32).flatten(1).numpy()
        out = np.stack([method @ np.ascontiguousarray(one) for one in arrays]) / self.geometry.pixel_size
        shape = self.input_shape if transposed else self.output_shape
        return torch.from_numpy(out).to(x).reshape(-1, *shape)


class _Astra(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, operator: AstraProjector, transposed: bool, x: Tensor) -> Tensor:
        ctx.operator, ctx.transposed = operator, transposed
        return operator.run(x, transposed)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, Tensor]:
        return None, None, _Astra.apply(ctx.operator, not ctx.transposed, gradients[0])


def projector(
    geometry: Geometry,
    device: torch.device | str = "cpu",
    *,
    cache: bool = True,
    limit: int = MATRIX_LIMIT,
    tolerance: float = TOLERANCE,
) -> SparseProjector | AstraProjector:
    """The operator of a scan: the stored matrix, or ASTRA's projectors when it would have more than ``limit`` values.

    Parameters
    ----------
    geometry : the scan.
    device : where to compute.
    cache : read and write the matrix in :func:`invsolve.cache.cache_folder`.
    limit : most non-zeros to store.
    tolerance : relative residual at which the conjugate gradients of ``prox`` stop.
    """
    if expected_values(geometry) > limit:
        return AstraProjector(geometry, tolerance)
    return SparseProjector(geometry, system_matrix(geometry, cache=cache), device, tolerance)


def expected_values(geometry: Geometry) -> int:
    """Estimate of the matrix's non-zeros: a ray meets 2 pixels per row or column it crosses, and many miss the corners."""
    return int(geometry.views * geometry.detectors * 1.3 * max(geometry.shape))


def matrix_path(geometry: Geometry) -> Path:
    """Where the cache has the matrix of a scan, or would have it."""
    return cache_folder() / f"projector-{FORMAT}-{geometry.digest}.npz"


def system_matrix(geometry: Geometry, *, cache: bool = True) -> csr_matrix:
    """ASTRA's matrix of the scan (views * detectors, H * W), float32, in pixel lengths; from the cache if it is there."""
    path = matrix_path(geometry)
    if cache and path.is_file():
        stored = _read(path, (math.prod(geometry.sinogram_shape), math.prod(geometry.shape)))
        if stored is not None:
            return stored
    matrix = build_matrix(geometry)
    if cache:
        _write(path, matrix)
    return matrix


def build_matrix(geometry: Geometry) -> csr_matrix:
    """The matrix, computed by ASTRA."""
    astra = import_astra()
    identifier = _create_projector(geometry)
    try:
        matrix_id = astra.projector.matrix(identifier)
        matrix = csr_matrix(astra.matrix.get(matrix_id), dtype=np.float32)
        astra.matrix.delete(matrix_id)
    finally:
        astra.projector.delete(identifier)
    matrix.data /= np.float32(geometry.pixel_size)
    return matrix


def import_astra() -> Any:
    """The ASTRA toolbox, or an error that says how to get it."""
    try:
        import astra
    except ImportError as error:
        raise ModelError(f"ASTRA is needed for this geometry: {error}", hint="pip install astra-toolbox") from error
    return astra


def _create_projector(geometry: Geometry) -> int:
    astra = import_astra()
    rows, columns = geometry.shape
    volume = astra.create_vol_geom(rows, columns, *geometry.window())
    if geometry.kind != "fan":
        bins = 1 if geometry.kind == "fan-arc" else geometry.detectors  # an arc's vectors are of single rays
        scan = astra.create_proj_geom("parallel_vec", bins, geometry.vectors())
        return int(astra.create_projector("linear", scan, volume))
    scan = astra.create_proj_geom("fanflat_vec", geometry.detectors, geometry.vectors())
    return int(astra.create_projector("line_fanflat", scan, volume))


def _read(path: Path, shape: tuple[int, int]) -> csr_matrix | None:
    """A cached matrix of this shape; None where the file is damaged (it is then built again)."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            data, indices, indptr = archive["data"], archive["indices"], archive["indptr"]
            stored = tuple(int(n) for n in archive["shape"])
    except Exception:  # noqa: BLE001 - a damaged archive fails in a dozen ways, all of which mean the same
        return None
    if stored != shape or not _is_csr(data, indices, indptr, shape):
        return None
    with suppress(OSError):  # a cache that one may only read
        path.touch()
    return csr_matrix((data, indices, indptr), shape=shape)


def _is_csr(data: Array, indices: Array, indptr: Array, shape: tuple[int, int]) -> bool:
    """Whether the parts make a matrix of this shape: torch reads beyond the end of one that does not."""
    rows, columns = shape
    return bool(
        data.ndim == indices.ndim == indptr.ndim == 1
        and data.dtype == np.float32
        and indices.dtype in (np.int32, np.int64)
        and indptr.dtype in (np.int32, np.int64)
        and len(indptr) == rows + 1
        and len(data) == len(indices) == indptr[-1]
        and indptr[0] == 0
        and (np.diff(indptr) >= 0).all()
        and indices.min(initial=0) >= 0
        and indices.max(initial=0) < columns
        and np.isfinite(data).all()
    )


def _write(path: Path, matrix: csr_matrix) -> None:
    """Put a matrix into the cache. Every writer has a file of its own until it is whole; a full disk is no failure."""
    parts = {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr, "shape": np.array(matrix.shape)}
    with contextlib.suppress(OSError, OutputError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_files({path: lambda file: np.savez(file, **parts)})
        _prune(path.parent, keep=path)


def _prune(folder: Path, keep: Path) -> None:
    """Remove the matrices used longest ago until the rest fits into ``CACHE_LIMIT``."""
    used = 0
    for path in sorted(folder.glob("projector-*.npz"), key=lambda p: p.stat().st_mtime, reverse=True):
        used += path.stat().st_size
        if used > CACHE_LIMIT and path != keep:
            path.unlink(missing_ok=True)


def _to_torch(matrix: csr_matrix, device: torch.device) -> Tensor:
    """A torch CSR tensor with int32 indices, half the memory traffic of int64."""

    def copy(values: Array, dtype: torch.dtype) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(device, dtype)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        warnings.filterwarnings("ignore", message="Sparse invariant checks are implicitly disabled")  # PyTorch 2.11
        return torch.sparse_csr_tensor(
            copy(matrix.indptr, torch.int32),
            copy(matrix.indices, torch.int32),
            copy(matrix.data, torch.float32),
            size=matrix.shape,
            check_invariants=False,
        )


def check_sinogram(y: Array, geometry: Geometry) -> None:
    """Raise InputError unless the last two axes of ``y`` are the geometry's (views, detectors) and all is finite."""
    if tuple(y.shape[-2:]) != geometry.sinogram_shape:
        raise InputError(
            f"the sinogram has shape {tuple(y.shape)}, the geometry (views, detectors) = {geometry.sinogram_shape}",
            hint="transpose it, or correct the geometry",
        )
    if not np.isfinite(y).all():
        count = int((~np.isfinite(y)).sum())
        raise InputError(
            f"the sinogram has {count} values that are NaN or infinite", hint="mask or repair dead detectors first"
        )
