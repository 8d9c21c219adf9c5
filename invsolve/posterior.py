"""The result of a solve: samples and what follows from them."""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from invsolve.atomic import write_files
from invsolve.errors import InputError, first_line
from invsolve.files import regular_file
from invsolve.forward_models import LinearOperator
from invsolve.typed import first_misfit
from invsolve.uncertainty import intervals


@dataclass(frozen=True)
class Posterior:
    """Samples of p(x | y).

    Parameters
    ----------
    samples : (n, B, C, H, W), n samples of each of B images, in the prior's units, not clipped.
    seeds : the seed of each sample; antithetic pairs share one.
    chi2 : (n, B), mean squared misfit over measurement values in units of the noise variance; near 1 when the noise
        level is right. Empty for exact measurements, which have none.
    settings : everything needed to repeat the run.
    network_calls : pictures denoised in all; a backward pass through the denoiser counts as one more.
    diagnostics : ``sigma``, ``misfit`` and ``step``, a number for each step; see :mod:`invsolve.uncertainty.trace`.
    measured_values : informative values of one image's measurement, 0 where unknown.
    estimate : (B, C, H, W), the posterior's mean where the chains know it better than the average of so few samples does (see
        :mod:`invsolve.uncertainty.conditional_mean`); None where that average is the mean.
    """

    samples: Tensor
    seeds: tuple[int, ...] = ()
    chi2: Tensor = field(default_factory=lambda: torch.empty(0))
    settings: dict[str, Any] = field(default_factory=dict)
    network_calls: int = 0
    diagnostics: dict[str, list[float]] = field(default_factory=dict)
    measured_values: int = 0
    estimate: Tensor | None = None

    @property
    def mean(self) -> Tensor:
        """Posterior mean (B, C, H, W): the estimate of least expected squared error."""
        return self.samples.mean(dim=0) if self.estimate is None else self.estimate

    @property
    def std(self) -> Tensor:
        """Pointwise standard deviation (B, C, H, W), see :func:`invsolve.uncertainty.standard_deviation`."""
        return intervals.standard_deviation(self.samples, antithetic=self.antithetic)

    @property
    def antithetic(self) -> bool:
        """Whether samples 2m and 2m + 1 come from noise of opposite sign."""
        return bool(self.settings.get("antithetic", False))

    def quantiles(self, probabilities: list[float]) -> Tensor:
        """Pointwise quantiles (len(probabilities), B, C, H, W), linearly interpolated between samples.

        With few samples they are too narrow: the range from smallest to largest of 19 samples is a 90 % interval.
        """
        return torch.quantile(self.samples, self.samples.new_tensor(probabilities), dim=0)

    def interval(self, level: float = 0.9) -> tuple[Tensor, Tensor]:
        """Pixelwise interval (B, C, H, W) each end: 19 samples are enough for 90 %, see :mod:`invsolve.uncertainty`."""
        return intervals.interval(self.samples, level)

    def coverage(self, truth: Tensor, level: float = 0.9, where: Tensor | None = None) -> float:
        """Share of ``truth`` (B, C, H, W) inside the intervals, counted over the pixels ``where`` the data left open."""
        return intervals.coverage(self.samples, truth, level, where)

    def split_std(self, operator: LinearOperator) -> tuple[Tensor, Tensor]:
        """Standard deviation of what the data determine and of what the prior filled in, (B, C, H, W) each."""
        return intervals.split_std(operator, self.samples, antithetic=self.antithetic)

    @property
    def warning(self) -> str | None:
        """A sentence when the misfit does not go with the noise level given."""
        return intervals.misfit_warning(self.chi2, self.measured_values)

    def save(self, path: str | Path) -> None:
        """Write an ``.npz`` (arrays and a JSON header), whole or not at all."""
        write_files({Path(path): self.write})

    def write(self, file: IO[bytes]) -> None:
        """What :meth:`save` saves, into an open file."""
        header = {
            "seeds": self.seeds, "settings": self.settings, "network_calls": self.network_calls,
            "diagnostics": self.diagnostics, "measured_values": self.measured_values,
        }  # fmt: skip
        arrays: dict[str, Any] = {
            "samples": self.samples.numpy(),
            "chi2": self.chi2.numpy(),
            "header": np.array(json.dumps(header)),
        }
        if self.estimate is not None:
            arrays["estimate"] = self.estimate.numpy()
        np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> Posterior:
        """Read what :meth:`save` wrote.

        Raises
        ------
        InputError : no such file, not a saved posterior, or damaged.
        """
        file = regular_file(path, "saved posterior")
        try:
            with np.load(file, allow_pickle=False) as archive:
                header = json.loads(str(archive["header"]))
                samples, chi2 = archive["samples"], archive["chi2"]
                estimate = archive.get("estimate")
            _check_saved(header, samples, chi2, estimate)
        except READING_FAILED as error:
            raise InputError(
                f"cannot read {path} as a saved posterior: {first_line(error)}",
                hint="save it again with Posterior.save",
            ) from error
        return cls(
            torch.from_numpy(samples), tuple(header["seeds"]), torch.from_numpy(chi2), header["settings"],
            header["network_calls"], header.get("diagnostics", {}), header.get("measured_values", 0),
            None if estimate is None else torch.from_numpy(estimate),
        )  # fmt: skip


READING_FAILED = (
    OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, MemoryError, OverflowError, RecursionError,
    NotImplementedError, RuntimeError, BadZipFile, zlib.error, struct.error,
)  # fmt: skip
"""What numpy and zipfile raise for archives that are damaged, encrypted or none."""

HEADER = {
    "seeds": list[int],
    "settings": dict[str, Any],
    "network_calls": int,
    "diagnostics": dict[str, list[Any]],  # NaN where a step has no such number
    "measured_values": int,
}


def _check_saved(
    header: Any, samples: npt.NDArray[Any], chi2: npt.NDArray[Any], estimate: npt.NDArray[Any] | None
) -> None:
    """Raise a TypeError or ValueError for a header or arrays that no posterior has."""
    if not isinstance(header, dict):
        raise TypeError("the header is no object")
    if missing := sorted({"seeds", "settings", "network_calls"} - header.keys()):
        raise ValueError(f"the header has no {missing[0]}")
    if wrong := first_misfit(header, HEADER):
        raise ValueError(f"in the header, {wrong}")
    if samples.ndim != 5 or not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(f"samples of shape {samples.shape} and type {samples.dtype}, wanted (n, B, C, H, W) floats")
    if not np.issubdtype(chi2.dtype, np.floating) or (chi2.size and chi2.shape != samples.shape[:2]):
        raise ValueError(f"chi2 of shape {chi2.shape} and type {chi2.dtype}, wanted {samples.shape[:2]} floats or none")
    if estimate is not None and (not np.issubdtype(estimate.dtype, np.floating) or estimate.shape != samples.shape[1:]):
        raise ValueError(
            f"an estimate of shape {estimate.shape} and type {estimate.dtype}, wanted {samples.shape[1:]} floats"
        )
    if header["seeds"] and len(header["seeds"]) != len(samples):
        raise ValueError(f"{len(header['seeds'])} seeds for {len(samples)} samples")
