"""Latent codes: the probability-flow ODE maps pictures to Gaussian noise and back, one to one.

Song et al. 2021, section 4.3 and appendix D.4. A code is ``z = (x_T - center) / sqrt(sigma_max^2 + sigma_data^2)``, near
standard normal for the prior's own pictures, so codes interpolate on the sphere (Shoemake 1985) and scale with a
temperature (Kingma & Dhariwal 2018, section 6).

The ODE is followed in ``y = (x - center) / s``, ``s = sqrt(sigma^2 + sigma_data^2)``: what an EDM network takes in (Karras et
al. 2022, Table 1, c_in). Along ``dx / du = x - D(x, sigma)``, u = log(sigma),

    dy / du = sigma_data^2 / s^2 y - (D(center + s y, sigma) - center) / s,

which vanishes at both ends of the noise range and where the data are white: what is left to integrate is what the prior
knows. The noise's own growth, which x has, would take steps and leave errors.
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

TOLERANCE = 3e-7
"""Of a step, in standard deviations of the noisy picture. Where encoding brings pictures together decoding tears them apart,
and with them the error: :func:`decode` returns grey pictures within one or two grey levels at 3e-7, within eight at 1e-5."""


def _scale(model: ScoreModel, sigma: float) -> float:
    """Standard deviation of a picture at noise level ``sigma``."""
    return math.sqrt(sigma**2 + model.sigma_data**2)


@torch.no_grad()
def encode(model: ScoreModel, x: Tensor, *, rtol: float = TOLERANCE, atol: float = TOLERANCE) -> Tensor:
    """Codes (B, C, H, W) of pictures ``x`` (B, C, H, W), taken as they are for the lowest noise level.

    ``rtol``, ``atol`` bound the error of each step; the images of a batch share their steps.
    """
    model.check_size(x)
    model.check_rgb()
    y = (x - CENTER) / _scale(model, model.sigma_min)
    return _follow(model, y, model.sigma_min, model.sigma_max, rtol, atol)


@torch.no_grad()
def decode(
    model: ScoreModel, z: Tensor, *, temperature: float = 1.0, rtol: float = TOLERANCE, atol: float = TOLERANCE
) -> Tensor:
    """Pictures (B, C, H, W) of codes ``z`` (B, C, H, W): the inverse of :func:`encode` at temperature 1.

    Codes are multiplied by ``temperature``: below 1 pictures are more ordinary, above 1 wilder.
    """
    if not temperature >= 0:
        raise UsageError(f"temperature {temperature}", hint="wanted a number >= 0; 1 leaves the codes")
    model.check_size(z)
    model.check_rgb()
    y = _follow(model, temperature * z, model.sigma_max, model.sigma_min, rtol, atol)
    return CENTER + _scale(model, model.sigma_min) * y


def slerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """The point ``share`` of the way from ``a`` to ``b`` (C, H, W) on the great circle (Shoemake 1985).

    A straight line would pass too near the origin, where hardly any noise lies. The weights are applied to the codes as
    they are: of codes at right angles the squared length changes evenly. Codes of real pictures differ in length, and made
    equally long first the shorter one, of the picture with less contrast, would be amplified.
    """
    angle = torch.arccos((a / a.norm() * (b / b.norm())).sum().clamp(-1, 1))
    if not float(angle.sin()) > 1e-6:  # one direction, or none: the circle is a line
        return torch.lerp(a, b, share)
    return (((1 - share) * angle).sin() * a + (share * angle).sin() * b) / angle.sin()


def interpolate(
    model: ScoreModel,
    a: Tensor,
    b: Tensor,
    count: int = 8,
    *,
    temperature: float = 1.0,
    rtol: float = TOLERANCE,
    atol: float = TOLERANCE,
) -> Tensor:
    """``count`` pictures (count, C, H, W) on the way from ``a`` to ``b`` (C, H, W), both ends decoded too."""
    if count < 2:
        raise UsageError(f"{count} pictures", hint="wanted at least 2, the two ends")
    codes = encode(model, torch.stack([a, b]), rtol=rtol, atol=atol)
    way = torch.stack([slerp(codes[0], codes[1], k / (count - 1)) for k in range(count)])
    return decode(model, way, temperature=temperature, rtol=rtol, atol=atol)


def _follow(model: ScoreModel, y: Tensor, sigma_from: float, sigma_to: float, rtol: float, atol: float) -> Tensor:
    """Scaled pictures (B, C, H, W) at noise level ``sigma_from``, carried to ``sigma_to``."""

    def velocity(state: Tensor, sigma: float) -> Tensor:
        s = _scale(model, sigma)
        denoised = model.denoise(CENTER + s * state.reshape(y.shape), sigma)
        return (model.sigma_data / s) ** 2 * state - (denoised - CENTER).flatten() / s

    with full_precision():
        return integrate(velocity, y.flatten(), sigma_from, sigma_to, rtol=rtol, atol=atol).reshape(y.shape)
