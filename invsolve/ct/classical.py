"""The classical methods by name, with the parameters that served training slices best.

They stand beside the score prior's result in every report.
"""

from __future__ import annotations

from torch import Tensor

from invsolve.ct.fbp import fbp
from invsolve.ct.iterative import cgls, sirt
from invsolve.ct.total_variation import tuned_tv
from invsolve.errors import UsageError
from invsolve.forward_models import Geometry, LinearOperator


def classical(
    method: str, operator: LinearOperator, geometry: Geometry, y: Tensor, *, noise: float | Tensor = 0.0
) -> Tensor:
    """A classical method by name with its tuned parameters: (B, views, detectors) -> (B, H, W).

    ``noise`` is the standard deviation of y, a number or one per ray; only TV uses it.
    """
    if method == "fbp":
        return fbp(operator, geometry, y, "hann")[:, 0].cpu()
    if method == "sirt":
        return sirt(operator, y)[:, 0].cpu()
    if method == "cgls":
        return cgls(operator, y)[:, 0].cpu()
    if method == "tv":
        return tuned_tv(operator, y, noise)[:, 0].cpu()
    raise UsageError(f"unknown method {method!r}", hint="known methods: fbp, sirt, cgls, tv")
