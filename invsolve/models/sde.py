"""The diffusions of score-based modelling as reparametrisations of one contract.

Song, Sohl-Dickstein, Kingma, Kumar, Ermon & Poole 2021, "Score-based generative modeling through stochastic differential
equations", section 3.4 and appendices B and C, and Karras et al. 2022, appendix B.1. A linear diffusion of the clean
picture w = (x0 - center) / unit, and what it makes of it at time t:

    du = f(t) u dt + g(t) dW,        u(t) = alpha(t) w + std(t) z,        z ~ N(0, 1)

A score model here knows x = x0 + sigma z. Divided by alpha, u is that, so denoiser and score carry over exactly:

    x = center + unit u / alpha(t),  sigma = unit std(t) / alpha(t)
    E[x0 | u] = D(x, sigma),         grad log p_t(u) = (unit / alpha) grad log p_sigma(x)

and f = alpha' / alpha, g^2 = alpha^2 d(std^2 / alpha^2) / dt. With B(t) the integral of beta from 0 to t:

======== =========== ============================= ========= ==========================
name     alpha       std                           f         g^2
======== =========== ============================= ========= ==========================
edm      1           t                             0         2 t
ve       1           s_min (s_max / s_min)^t       0         2 std^2 log(s_max / s_min)
vp       e^(-B / 2)  sqrt(1 - e^(-B))              -beta / 2 beta
subvp    e^(-B / 2)  1 - e^(-B)                    -beta / 2 beta (1 - e^(-2 B))
======== =========== ============================= ========= ==========================

So all of them pass through the same laws of x, one for each sigma; what differs is how fast (the ladder that even steps
of t make) and what a solver's steps err by (a straight line in u is none in x).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from invsolve.errors import UsageError
from invsolve.models.score_model import ScoreModel, Sigma, per_image

Curve = Callable[[Tensor], Tensor]
"""A function of time, value by value."""

SDEName = Literal["edm", "ve", "vp", "subvp"]


@dataclass(frozen=True)
class SDE:
    """A linear diffusion, see above.

    Parameters
    ----------
    alpha, std : of the marginal u(t) = alpha w + std z.
    time : the time at which std / alpha has a value; their inverse.
    drift : f, of which f u is the drift.
    diffusion : g.
    center, unit : w = (x0 - center) / unit; pictures in [0, 1] become [-1, 1] with 0.5 and 0.5.
    start, end : times between which the paper's samplers run.
    """

    alpha: Curve
    std: Curve
    time: Curve
    drift: Curve
    diffusion: Curve
    center: float = 0.0
    unit: float = 1.0
    start: float = 1.0
    end: float = 1e-5

    def sigma(self, t: Tensor | float) -> Tensor:
        """The noise level of x at time ``t``, in the units of x."""
        t = _precise(t)
        return self.unit * self.std(t) / self.alpha(t)

    def time_of(self, sigma: Sigma) -> Tensor:
        """The time at which x has the noise level ``sigma``."""
        return self.time(_precise(sigma) / self.unit)

    def levels(self, steps: int, sigma_min: float | None = None, sigma_max: float | None = None) -> Tensor:
        """``steps`` levels at even times, then 0: the ladder of the paper's samplers (float64, falling).

        Parameters
        ----------
        sigma_min, sigma_max : its ends; default those of the SDE itself, at ``end`` and ``start``.

        >>> VP.levels(3, 0.01, 20.0).shape
        torch.Size([4])
        """
        first = self.start if sigma_max is None else float(self.time_of(sigma_max))
        last = self.end if sigma_min is None else float(self.time_of(sigma_min))
        if steps < 1 or not last <= first < math.inf:
            raise UsageError(
                f"{steps} levels from {sigma_max} to {sigma_min}", hint="wanted at least 1, and sigma_min <= sigma_max"
            )
        times = torch.linspace(first, last, steps, dtype=torch.float64)
        return torch.cat([self.sigma(times), times.new_zeros(1)])

    def state(self, x: Tensor, t: Tensor) -> Tensor:
        """u of x (B, C, H, W) at time ``t``, a number or one for each image (B,)."""
        return per_image(self.alpha(t), x) * (x - self.center) / self.unit

    def picture(self, u: Tensor, t: Tensor) -> Tensor:
        """x of u: the inverse of :meth:`state`."""
        return self.center + self.unit * u / per_image(self.alpha(t), u)

    def score(self, score: Tensor, t: Tensor) -> Tensor:
        """grad log p_t(u) from ``score`` = grad log p_sigma(x)."""
        return self.unit * score / per_image(self.alpha(t), score)

    def reverse_drift(self, model: ScoreModel, u: Tensor, t: Tensor) -> Tensor:
        """f u - g^2 grad log p_t(u), the drift of the reverse SDE (Song et al. 2021, eq. 6; Anderson 1982)."""
        sigma = self.sigma(t).to(u)
        score = self.score(model.score(self.picture(u, t), sigma), t)
        return per_image(self.drift(t), u) * u - per_image(self.diffusion(t), u) ** 2 * score

    def velocity(self, u: Tensor, score: Tensor, t: Tensor) -> Tensor:
        """f u - g^2 / 2 grad log p_t(u), what the probability-flow ODE follows (their eq. 13); ``score`` is of u."""
        return per_image(self.drift(t), u) * u - 0.5 * per_image(self.diffusion(t), u) ** 2 * score


def _precise(value: Tensor | float) -> Tensor:
    """A tensor as it is; a number in double precision."""
    return value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)


def edm() -> SDE:
    """The noise level itself as time (Karras et al. 2022, table 1): what ``reverse_sde`` and ``ode`` step in by default."""
    return SDE(
        alpha=torch.ones_like,
        std=lambda t: t,
        time=lambda level: level,
        drift=torch.zeros_like,
        diffusion=lambda t: (2 * t).sqrt(),
        start=20.0,
        end=0.005,
    )


def ve(sigma_min: float = 0.01, sigma_max: float = 50.0, *, center: float = 0.0, unit: float = 1.0) -> SDE:
    """The variance-exploding SDE (Song et al. 2021, eq. 30 and appendix C): a geometric progression of noise levels."""
    ratio = math.log(sigma_max / sigma_min)

    def std(t: Tensor) -> Tensor:
        return sigma_min * (ratio * t).exp()

    return SDE(
        alpha=torch.ones_like,
        std=std,
        time=lambda level: (level / sigma_min).log() / ratio,
        drift=torch.zeros_like,
        diffusion=lambda t: std(t) * math.sqrt(2 * ratio),
        center=center,
        unit=unit,
    )


def vp(beta_min: float = 0.1, beta_max: float = 20.0, *, center: float = 0.5, unit: float = 0.5) -> SDE:
    """The variance-preserving SDE (Song et al. 2021, eq. 32 and 33), the limit of DDPM's chain (Ho et al. 2020)."""
    beta, integral, inverse = _linear_rate(beta_min, beta_max)
    return SDE(
        alpha=lambda t: (-0.5 * integral(t)).exp(),
        std=lambda t: (-torch.expm1(-integral(t))).sqrt(),
        time=lambda level: inverse(torch.log1p(level**2)),  # std^2 / alpha^2 = e^B - 1
        drift=lambda t: -0.5 * beta(t),
        diffusion=lambda t: beta(t).sqrt(),
        center=center,
        unit=unit,
        end=1e-3,
    )


def vp_by_level(center: float = 0.5, unit: float = 0.5) -> SDE:
    """The variance-preserving diffusion with std / alpha as time: that of every chain, whatever its betas."""
    return SDE(
        alpha=lambda t: (1 + t**2).rsqrt(),
        std=lambda t: t * (1 + t**2).rsqrt(),
        time=lambda level: level,
        drift=lambda t: -t / (1 + t**2),
        diffusion=lambda t: (2 * t).sqrt() * (1 + t**2).rsqrt(),
        center=center,
        unit=unit,
    )


def subvp(beta_min: float = 0.1, beta_max: float = 20.0, *, center: float = 0.5, unit: float = 0.5) -> SDE:
    """The sub-VP SDE (Song et al. 2021, eq. 34 and 29): VP's drift with less noise, std = 1 - alpha^2."""
    beta, integral, inverse = _linear_rate(beta_min, beta_max)
    return SDE(
        alpha=lambda t: (-0.5 * integral(t)).exp(),
        std=lambda t: -torch.expm1(-integral(t)),
        time=lambda level: inverse(2 * torch.asinh(0.5 * level)),  # std / alpha = 2 sinh(B / 2)
        drift=lambda t: -0.5 * beta(t),
        diffusion=lambda t: (-beta(t) * torch.expm1(-2 * integral(t))).sqrt(),
        center=center,
        unit=unit,
        end=1e-3,
    )


def _linear_rate(beta_min: float, beta_max: float) -> tuple[Curve, Curve, Curve]:
    """beta(t) = beta_min + t (beta_max - beta_min), its integral B(t), and the time at which B has a value."""
    slope = beta_max - beta_min

    def beta(t: Tensor) -> Tensor:
        return beta_min + slope * t

    def integral(t: Tensor) -> Tensor:
        return t * (beta_min + 0.5 * slope * t)

    def inverse(b: Tensor) -> Tensor:
        return 2 * b / (beta_min + (beta_min**2 + 2 * slope * b).sqrt())

    return beta, integral, inverse


EDM, VE, VP, SUBVP = edm(), ve(), vp(), subvp()

SDES: dict[str, SDE] = {"edm": EDM, "ve": VE, "vp": VP, "subvp": SUBVP}
"""By the names that samplers take; VP and sub-VP as in the paper, of pictures brought from [0, 1] to [-1, 1]."""


def find_sde(sde: str | SDE) -> SDE:
    """An SDE by name, or itself.

    Raises
    ------
    UsageError : no such name.
    """
    if isinstance(sde, SDE):
        return sde
    if sde not in SDES:
        raise UsageError(f"unknown SDE {sde!r}", hint=f"known: {', '.join(SDES)}")
    return SDES[sde]
