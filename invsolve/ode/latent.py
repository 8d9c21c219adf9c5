"""Latent codes: the probability-flow ODE maps pictures to Gaussian noise and back, one to one.

Song et al. 2021, section 4.3 and appendix D.4. A code is ``z = (x_T - center) / sqrt(sigma_max^2 + sigma_data^2)``, near
standard normal for the prior's own pictures, so codes interpolate on the sphere (Shoemake 1985) and scale with a
temperature (Kingma & Dhariwal 2018, section 6).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from invsolve.errors import UsageError
from invsolve.models.precision import full_precision
from invsolve.models.score_model import ScoreModel
from invsolve.ode.flow import integrate

CENTER = 0.5


def _scale(model: ScoreModel) -> float:
    return math.sqrt(model.sigma_max**2 + model.sigma_data**2)


@torch.no_grad()
def encode(model: ScoreModel, x: Tensor, *, rtol: float = 1e-5, atol: float = 1e-5) -> Tensor:
    """Codes (B, C, H, W) of pictures ``x`` (B, C, H, W), taken as they are for the lowest noise level.

    ``rtol``, ``atol`` bound the error of each step; the images of a batch share their steps.
    """
    model.check_size(x)
    model.check_rgb()
    return (_follow(model, x, model.sigma_min, model.sigma_max, rtol, atol) - CENTER) / _scale(model)


@torch.no_grad()
def decode(model: ScoreModel, z: Tensor, *, temperature: float = 1.0, rtol: float = 1e-5, atol: float = 1e-5) -> Tensor:
    """Pictures (B, C, H, W) of codes ``z`` (B, C, H, W): the inverse of :func:`encode` at temperature 1.

    Codes are multiplied by ``temperature``: below 1 pictures are more ordinary, above 1 wilder.
    """
    if not temperature >= 0:
        raise UsageError(f"temperature {temperature}", hint="wanted a number >= 0; 1 leaves the codes")
    model.check_size(z)
    model.check_rgb()
    x = CENTER + temperature * _scale(model) * z
    return _follow(model, x, model.sigma_max, model.sigma_min, rtol, atol)


def slerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """The point ``share`` of the way from ``a`` to ``b`` (C, H, W) on the great circle; lengths change evenly.

    A straight line would pass too near the origin, where hardly any noise lies.
    """
    length_a, length_b = a.norm(), b.norm()
    unit_a, unit_b = a / length_a, b / length_b
    angle = torch.arccos((unit_a * unit_b).sum().clamp(-1, 1))
    length = length_a + share * (length_b - length_a)
    if float(angle.sin()) < 1e-6:  # the same direction: the circle is a point
        return length * unit_a
    return length * (((1 - share) * angle).sin() * unit_a + (share * angle).sin() * unit_b) / angle.sin()


def interpolate(
    model: ScoreModel,
    a: Tensor,
    b: Tensor,
    count: int = 8,
    *,
    temperature: float = 1.0,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> Tensor:
    """``count`` pictures (count, C, H, W) on the way from ``a`` to ``b`` (C, H, W), both ends decoded too."""
    if count < 2:
        raise UsageError(f"{count} pictures", hint="wanted at least 2, the two ends")
    codes = encode(model, torch.stack([a, b]), rtol=rtol, atol=atol)
    way = torch.stack([slerp(codes[0], codes[1], k / (count - 1)) for k in range(count)])
    return decode(model, way, temperature=temperature, rtol=rtol, atol=atol)


def _follow(model: ScoreModel, x: Tensor, sigma_from: float, sigma_to: float, rtol: float, atol: float) -> Tensor:
    def velocity(state: Tensor, sigma: float) -> Tensor:
        here = state.reshape(x.shape)
        return (here - model.denoise(here, sigma)).flatten()

    with full_precision():
        return integrate(velocity, x.flatten(), sigma_from, sigma_to, rtol=rtol, atol=atol).reshape(x.shape)
