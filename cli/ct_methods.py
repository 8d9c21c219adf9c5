"""What ``invsolve ct`` does with a scan: the classical methods and ours, or what a dry run says of them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from invsolve.cli.budget import keep_to_budget
from invsolve.cli.common import Common
from invsolve.cli.console import say
from invsolve.cli.ct_results import Result
from invsolve.cli.dry_run import plan_text
from invsolve.cli.files import provenance
from invsolve.cli.free_memory import available_memory
from invsolve.cli.pipeline import Solved, prior_of, solve_task

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from invsolve.ct.metal import Metal
    from invsolve.ct.scan import Scan
    from invsolve.forward_models import LinearOperator
    from invsolve.tasks.task import Task

LI_MAR = "LI-MAR"
"""FBP of a scan whose metal traces are interpolated, as it stands beside the others."""

MATRIX_BYTES = 36
"""For each value that a projector's matrix is expected to have, while it is made: measured 34, of ASTRA's own, a copy, and both ways
for torch."""


class Rays(NamedTuple):
    """Line integrals with their noise, where the projector is."""

    operator: LinearOperator
    y: Tensor  # (slices, views, detectors)
    sigma: float | Tensor  # standard deviation of y, one or one per ray

    @classmethod
    def of(cls, scan: Scan, where: torch.device, *, cache: bool = True) -> Rays:
        """Of a scan; from photon counts, rays without a photon have no weight. ``cache`` : as for the projector, whose matrix is
        not stored where it does not fit into the memory there is: ASTRA, which would build it, ends the program then."""
        from invsolve.forward_models import projector
        from invsolve.forward_models.projector import MATRIX_LIMIT

        limit = int(min(MATRIX_LIMIT, available_memory() / MATRIX_BYTES))
        return cls.through(projector(scan.geometry, where, cache=cache, limit=limit), scan)

    @classmethod
    def through(cls, operator: LinearOperator, scan: Scan) -> Rays:
        """Of a scan whose projector there is already."""
        import torch

        y = torch.from_numpy(np.ascontiguousarray(scan.sinogram, dtype=np.float32)).to(operator.device)
        sigma = scan.noise if isinstance(scan.noise, float) else torch.from_numpy(scan.noise).to(operator.device)
        return cls(operator, y, sigma)

    def residual(self, image: Tensor) -> Tensor:
        """What slices (slices, H, W) do not explain of the line integrals."""
        return self.operator(image[:, None].to(self.y)) - self.y

    def explained(self, method: str, residual: Tensor) -> str | None:
        """A warning where a method that fits the data does not; filtered back-projection of few views never does, so
        that another method tells whether the scan can be fitted."""
        from invsolve.ct.iterative import cgls
        from invsolve.ct.misfit import scan_warning

        best = self.residual(cgls(self.operator, self.y)[:, 0]) if method == "fbp" else residual
        return scan_warning(best, self.y, self.sigma)


class Classical(NamedTuple):
    """The classical methods on one scan."""

    scan: Scan
    rays: Rays

    def __call__(self, method: str, metal: Metal | None = None) -> Tensor:
        """(slices, H, W) by a method's name, with metal put in its place."""
        from invsolve.ct.classical import classical
        from invsolve.ct.metal import put_back

        found = classical(method, self.rays.operator, self.scan.geometry, self.rays.y, noise=self.rays.sigma)
        return put_back(found, metal)

    def check_units(self, fbp: Tensor, units: str, mu_water: float) -> None:
        """Warn, or stop, where the filtered back-projection does not look like a body in the prior's units."""
        from invsolve.ct.sinogram import check_range, check_sign, peak

        check_sign(self.scan.sinogram)
        pixel = self.scan.geometry.pixel_size if units != "pixel" else None
        warning = check_range(peak(fbp.numpy()), units, pixel, mu_water)
        if warning:
            say(f"warning: {warning}")


def score_task(scan: Scan, operator: LinearOperator, **how: Any) -> Task:
    """The reconstruction of a scan; its photons are part of what a calibration is for. ``how`` : further arguments of
    :func:`invsolve.ct.reconstruction.reconstruction_task`."""
    from invsolve.ct.reconstruction import reconstruction_task

    task = reconstruction_task(scan.sinogram, scan.geometry, operator=operator, **{"noise": scan.noise, **how})
    return replace(task, problem={**task.problem, "photons": scan.i0 or 0.0})


def plan_slices(
    scan: Scan, method: str, common: Common, where: torch.device, reads: list[Path], writes: Iterable[Path]
) -> str:
    """What a run would do; the projector is made, but not kept in the cache."""
    from invsolve.ct.reconstruction import check_ct_prior

    rows, columns = scan.geometry.shape
    about = f"{len(scan.sinogram)} of {columns} x {rows} from {scan.geometry.views} views, method {method}"
    task = prior = None
    if method == "score":
        prior = prior_of(common.model, str(where), common.in_patches("ct"))
        check_ct_prior(prior)
        task = score_task(scan, Rays.of(scan, where, cache=False).operator)
        common = common.with_levels_of(task)
        common, task = keep_to_budget(common, task, prior, least=2)
    return plan_text(f"ct {reads[0].name}", about, reads, writes, common, task, prior)


def reconstruct(
    scan: Scan, method: str, common: Common, where: torch.device, facts: dict[str, object], units: str, mu_water: float,
    through_plane: str, threshold: float | None = None, *, baselines: bool,
) -> Result:  # fmt: skip
    """FBP first, to see whether there is metal and whether the units fit; then TV and ours, or the one classical method asked
    for. Rays through what is above ``threshold`` in HU count as not measured.

    With a budget TV is left out, unless its file is wanted.
    """
    from invsolve.ct.metal import about, covered, put_back, without_metal
    from invsolve.ct.reconstruction import check_ct_prior

    prior = prior_of(common.model, common.device, common.in_patches("ct")) if method == "score" else None
    if prior is not None:
        check_ct_prior(prior)
    rays, started, metal = Rays.of(scan, where), time.perf_counter(), None
    classical = Classical(scan, rays)
    images = {"FBP": classical("fbp")}
    body = covered(images["FBP"])
    if threshold is not None:
        scan, found = without_metal(scan, rays.operator, threshold)
        if found.found:
            say(about(found))
            metal, rays = found, Rays.through(rays.operator, scan)
            facts = facts | {
                "metal_hu": threshold,
                "metal_pixels": int(found.pixels.sum()),
                "metal_rays": int(found.rays.sum()),
            }
            classical = Classical(scan, rays)
            body = classical("fbp")
            images[LI_MAR] = put_back(body, metal)
    classical.check_units(body, units, mu_water)
    solved: Solved | None = None
    if prior is not None:
        rows, columns = scan.geometry.shape
        say(f"{len(rays.y)} slice{'s' if len(rays.y) > 1 else ''} of {columns} x {rows}, on {where}")
        if common.budget is None or baselines:  # it takes as long as many noise levels
            images["TV"] = classical("tv", metal)
        task = score_task(scan, rays.operator, through_plane=through_plane, metal=metal)
        common = common.with_levels_of(task)
        # The pseudo-inverse takes some hundred projections: all samples only where their map is asked for.
        most = None if common.wants_interval else 2
        common, task = keep_to_budget(common, task, prior, least=2, most=most)
        solved = solve_task(task, prior, common, most=most, photo=None, **facts)
        name = f"mean of {common.samples}" if common.samples > 1 else "one sample"
        images[name] = solved.posterior.mean[:, 0]
    elif method != "fbp":
        images[method.upper()] = classical(method, metal)
    made = solved.facts if solved else provenance(task="ct", **facts)
    return Result.of(images, rays, solved, made, time.perf_counter() - started, metal)
