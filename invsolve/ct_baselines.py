"""Classical CT reconstruction: filtered back-projection, SIRT, CGLS and total variation.

All take and return tensors in the projector's units: a sinogram (B, views, detectors) of line integrals in pixel
lengths, a slice (B, 1, H, W). They stand beside the score prior's result in every report.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from invsolve.errors import UsageError
from invsolve.forward_models import Diagonal, Geometry, LinearOperator, projector

FILTERS: dict[str, Callable[[Tensor], Tensor]] = {
    "ram-lak": torch.ones_like,
    "shepp-logan": lambda f: torch.sinc(f),
    "cosine": lambda f: torch.cos(math.pi * f),
    "hamming": lambda f: 0.54 + 0.46 * torch.cos(2 * math.pi * f),
    "hann": lambda f: 0.5 + 0.5 * torch.cos(2 * math.pi * f),
}
"""Windows on the ramp, of the frequency f in cycles per bin (0 to 1/2)."""


def ramp_filter(sinogram: Tensor, window: str = "ram-lak") -> Tensor:
    """Filter (B, views, detectors) along the detector with |f|, in units of 1 / bin.

    The ramp is the band-limited one sampled in space (Kak & Slaney 1988, eq. 3.61), zero-padded to twice the length, so
    that the mean comes out right.
    """
    if window not in FILTERS:
        raise UsageError(f"unknown filter {window!r}", hint=f"known filters: {', '.join(FILTERS)}")
    bins = sinogram.shape[-1]
    size = 2 ** math.ceil(math.log2(2 * bins))
    n = torch.arange(size, dtype=sinogram.dtype, device=sinogram.device)
    distance = torch.minimum(n, size - n)
    kernel = torch.where(distance % 2 == 1, -1 / (math.pi * distance.clamp(min=1)) ** 2, 0.0)
    kernel[0] = 0.25
    frequency = torch.fft.rfftfreq(size, dtype=sinogram.dtype, device=sinogram.device)
    response = torch.fft.rfft(kernel).real * FILTERS[window](frequency)
    return torch.fft.irfft(torch.fft.rfft(sinogram, n=size) * response, n=size)[..., :bins]


def fbp(operator: LinearOperator, geometry: Geometry, sinogram: Tensor, window: str = "ram-lak") -> Tensor:
    """Filtered back-projection (Kak & Slaney 1988, ch. 3); fan-beam data are rebinned to parallel rays first.

    Missing angles count as zero: the weights are each view's share of the half turn.
    """
    if geometry.kind == "fan":
        geometry, sinogram = rebin_to_parallel(geometry, sinogram)
        operator = projector(geometry, operator.device)
    # The back-projection A' spreads each ray's value with weights that add up to pixel / bin per view.
    ratio = geometry.detector_spacing / geometry.pixel_size
    weights = angular_weights(geometry).to(sinogram)[:, None]
    filtered = ramp_filter(sinogram, window) * weights / ratio
    return operator.T(filtered) if ratio == 1 else _back_project(geometry, filtered)


def _back_project(geometry: Geometry, filtered: Tensor) -> Tensor:
    """Pixel-driven back-projection with linear interpolation, for bins of another size than the pixels."""
    rows, columns = geometry.shape
    left, _, _, top = geometry.window()
    x = left + (torch.arange(columns).to(filtered) + 0.5) * geometry.pixel_size
    y = top - (torch.arange(rows).to(filtered) + 0.5) * geometry.pixel_size
    out = torch.zeros(len(filtered), 1, rows, columns).to(filtered)
    for view, degrees in enumerate(geometry.angles):
        theta = math.radians(degrees)
        u = (x * math.cos(theta) + (y * math.sin(theta))[:, None]) / geometry.detector_spacing + geometry.axis_bin
        low = u.floor().clamp(0, geometry.detectors - 2)
        share = (u - low).clamp(0, 1)
        index = low.long()
        line = filtered[:, view]
        value = (1 - share) * line[:, index] + share * line[:, index + 1]
        out += torch.where((u > -0.5) & (u < geometry.detectors - 0.5), value, 0)[:, None]
    return out


def angular_weights(geometry: Geometry) -> Tensor:
    """Radians each view stands for: half the way to its neighbours modulo 180 degrees, (views,) in float64.

    A gap of more than three times the median step counts as missing data, not as one wide view.
    """
    angles = torch.tensor(geometry.angles, dtype=torch.float64) % 180.0
    order = torch.argsort(angles)
    ordered = angles[order]
    steps = torch.cat([ordered[1:] - ordered[:-1], ordered[:1] + 180.0 - ordered[-1:]])
    typical = float(steps.median())
    if len(angles) > 2:
        steps = torch.where(steps > 3 * max(typical, 1e-9), typical, steps)
    weights = torch.empty_like(angles)
    weights[order] = (steps + steps.roll(1)) / 2
    return torch.deg2rad(weights)


def rebin_to_parallel(geometry: Geometry, sinogram: Tensor) -> tuple[Geometry, Tensor]:
    """Fan-beam data on a parallel grid of as many views over 180 degrees, by bilinear interpolation.

    The fan ray at source angle b and fan angle g is the parallel ray at angle b + g and offset R sin(g); a ray measured
    from the other side, (b + 180 + 2 g, -g), fills what a scan of less than a full turn leaves open.
    """
    from scipy.interpolate import RegularGridInterpolator

    order = np.argsort(np.asarray(geometry.angles) % 360.0)
    angles = np.asarray(geometry.angles)[order] % 360.0
    values = sinogram.cpu().numpy()[:, order]
    full = len(angles) > 2 and (angles[0] + 360 - angles[-1]) < 2 * np.median(np.diff(angles))
    if full:  # a full turn is periodic
        angles = np.concatenate([angles[-1:] - 360, angles, angles[:1] + 360])
        values = np.concatenate([values[:, -1:], values, values[:, :1]], axis=1)
    source, focal = geometry.source_distance, geometry.source_distance + geometry.detector_distance
    views = geometry.views if not full else max(1, geometry.views // 2)
    spacing = geometry.detector_spacing / geometry.magnification
    parallel = Geometry(
        tuple(180.0 * i / views for i in range(views)), geometry.detectors, geometry.shape,
        detector_spacing=spacing, pixel_size=geometry.pixel_size, center=geometry.center,
        axis_pixel=geometry.axis_pixel,
    )  # fmt: skip
    offset = (np.arange(geometry.detectors) - geometry.axis_bin) * spacing
    gamma = np.arcsin(np.clip(offset / source, -1, 1))
    fan_bin = np.tan(gamma) * focal / geometry.detector_spacing + geometry.axis_bin
    theta = np.asarray(parallel.angles)[:, None]
    direct = (theta - np.rad2deg(gamma)) % 360.0, np.broadcast_to(fan_bin, (views, len(gamma)))
    opposite = (theta + 180 + np.rad2deg(gamma)) % 360.0, 2 * geometry.axis_bin - direct[1]
    out = np.zeros((len(values), views, geometry.detectors), dtype=values.dtype)
    for number, one in enumerate(values):
        grid = RegularGridInterpolator(
            (angles, np.arange(geometry.detectors)), one, bounds_error=False, fill_value=np.nan
        )
        both = np.stack([grid(np.stack(np.broadcast_arrays(*side), axis=-1)) for side in (direct, opposite)])
        counted = np.isfinite(both)
        out[number] = np.where(counted, both, 0).sum(axis=0) / np.maximum(counted.sum(axis=0), 1)
    return parallel, torch.from_numpy(out).to(sinogram)


def sirt(operator: LinearOperator, y: Tensor, iterations: int = 200, *, non_negative: bool = True) -> Tensor:
    """Simultaneous iterative reconstruction (Gilbert 1972): x += C A' R (y - A x), with inverse row and column sums."""
    ones_x, ones_y = torch.ones(1, *operator.input_shape).to(y), torch.ones(1, *operator.output_shape).to(y)
    rows, columns = operator(ones_x), operator.T(ones_y)
    r = torch.where(rows > 1e-6, 1 / rows.clamp(min=1e-6), 0)
    c = torch.where(columns > 1e-6, 1 / columns.clamp(min=1e-6), 0)
    x = torch.zeros(len(y), *operator.input_shape).to(y)
    for _ in range(iterations):
        x = x + c * operator.T(r * (y - operator(x)))
        if non_negative:
            x = x.clamp(min=0)
    return x


def cgls(operator: LinearOperator, y: Tensor, iterations: int = 15) -> Tensor:
    """Conjugate gradients for least squares, stopped early (Hestenes & Stiefel 1952): the number is the regularizer."""
    x = torch.zeros(len(y), *operator.input_shape).to(y)
    r, s = y, operator.T(y)
    p, gamma = s, s.square().flatten(1).sum(dim=1)
    for _ in range(iterations):
        q = operator(p)
        alpha = gamma / q.square().flatten(1).sum(dim=1).clamp(min=1e-30)
        x = x + alpha[:, None, None, None] * p
        r = r - alpha.reshape(-1, *(1,) * (r.ndim - 1)) * q
        s = operator.T(r)
        previous, gamma = gamma, s.square().flatten(1).sum(dim=1)
        p = s + (gamma / previous.clamp(min=1e-30))[:, None, None, None] * p
    return x


def gradient(x: Tensor) -> Tensor:
    """Forward differences (B, 2, H, W) of (B, 1, H, W), zero over the last row and column."""
    out = torch.zeros(len(x), 2, *x.shape[-2:]).to(x)
    out[:, 0, :-1] = x[:, 0, 1:] - x[:, 0, :-1]
    out[:, 1, :, :-1] = x[:, 0, :, 1:] - x[:, 0, :, :-1]
    return out


def gradient_adjoint(p: Tensor) -> Tensor:
    """Adjoint of :func:`gradient`."""
    out = torch.zeros(len(p), 1, *p.shape[-2:]).to(p)
    out[:, 0, :-1] -= p[:, 0, :-1]
    out[:, 0, 1:] += p[:, 0, :-1]
    out[:, 0, :, :-1] -= p[:, 1, :, :-1]
    out[:, 0, :, 1:] += p[:, 1, :, :-1]
    return out


def total_variation(
    operator: LinearOperator,
    y: Tensor,
    weight: float,
    *,
    iterations: int = 600,
    tolerance: float = 3e-4,
    balance: float = 100.0,
    non_negative: bool = True,
) -> Tensor:
    """``argmin_x 1/2 |A x - y|^2 + weight * TV(x)``, x >= 0, isotropic, by the primal-dual method.

    Chambolle & Pock 2011, Algorithm 1, both terms dualised (Sidky, Joergensen & Pan 2012, Algorithm 4); A and the
    gradient are brought to norm 1 so that one step size suits both. ``balance`` is the typical size of x over that of its
    dual variables, some 100 for CT; any value converges, a fitting one far sooner. Stops when x moves by less than ``tolerance`` of its
    norm in 10 iterations.
    """
    a = operator.norm
    g = math.sqrt(8.0)
    # min 1/(2) |(a)(A/a) x - y|^2: dual variables q for A x / a and p for grad x / g.
    step = 0.95 / math.sqrt(2.0)
    primal_step, dual_step = step * balance, step / balance
    x = torch.zeros(len(y), *operator.input_shape).to(y)
    x_bar, q, p = x, torch.zeros_like(y), gradient(x)
    target = y / a
    bound = weight * g / a**2  # the objective divided by a^2
    for iteration in range(1, iterations + 1):
        q = (q + dual_step * (operator(x_bar) / a - target)) / (1 + dual_step)
        p = p + dual_step / g * gradient(x_bar)
        p = p / (p.norm(dim=1, keepdim=True) / bound).clamp(min=1)
        previous = x
        x = x - primal_step * (operator.T(q) / a + gradient_adjoint(p) / g)
        if non_negative:
            x = x.clamp(min=0)
        x_bar = 2 * x - previous
        if iteration % 10 == 0 and float((x - previous).norm()) * 10 < tolerance * float(x.norm()):
            break
    return x


TV_WEIGHT = 0.03
"""Weight of the total variation for an exact sinogram, tuned on training slices (pixel units)."""

TV_WEIGHT_PER_VARIANCE = 3.0
"""What noise of variance 1 per ray adds to that weight."""


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


def tuned_tv(operator: LinearOperator, y: Tensor, noise: float | Tensor = 0.0) -> Tensor:
    """Total variation with the weight that served training slices best at this noise; rays are weighted by theirs."""
    if not isinstance(noise, Tensor):
        return total_variation(operator, y, TV_WEIGHT + TV_WEIGHT_PER_VARIANCE * noise**2)
    slices = []
    for one, sigma in zip(y, noise, strict=True):
        weight = 1 / sigma
        level = 1 / float(weight.square().mean()) ** 0.5
        whitened = Diagonal(level * weight) @ operator
        slices.append(
            total_variation(whitened, (level * weight * one)[None], TV_WEIGHT + TV_WEIGHT_PER_VARIANCE * level**2)
        )
    return torch.cat(slices)
