"""What ``invsolve ct`` does with a scan: the classical methods, and ours."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from invsolve.cli.budget import keep_to_budget
from invsolve.cli.common import Common
from invsolve.cli.console import say
from invsolve.cli.ct_results import Classical, Rays, Result
from invsolve.cli.dry_run import plan_text
from invsolve.cli.files import provenance
from invsolve.cli.pipeline import Solved, prior_of, solve_task

if TYPE_CHECKING:
    import torch

    from invsolve.ct.scan import Scan

LI_MAR = "LI-MAR"
"""FBP of a scan whose metal traces are interpolated, as it stands beside the others."""


def plan_slices(
    scan: Scan, method: str, common: Common, where: torch.device, reads: list[Path], writes: Iterable[Path]
) -> str:
    """What a run would do; the projector is made, but not kept in the cache."""
    from invsolve.ct.reconstruction import check_ct_prior, reconstruction_task

    rows, columns = scan.geometry.shape
    about = f"{len(scan.sinogram)} of {columns} x {rows} from {scan.geometry.views} views, method {method}"
    task = prior = None
    if method == "score":
        prior = prior_of(common.model, str(where), common.in_patches("ct"))
        check_ct_prior(prior)
        operator = Rays.of(scan, where, cache=False).operator
        task = reconstruction_task(scan.sinogram, scan.geometry, noise=scan.noise, operator=operator)
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
    from invsolve.ct.reconstruction import check_ct_prior, reconstruction_task

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
        task = reconstruction_task(
            scan.sinogram,
            scan.geometry,
            noise=scan.noise,
            operator=rays.operator,
            through_plane=through_plane,
            metal=metal,
        )
        task = replace(task, problem={**task.problem, "photons": scan.i0 or 0.0})
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
