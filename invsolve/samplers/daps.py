"""Decoupled annealing posterior sampling.

Zhang, Chu, Berner, Meng, Anandkumar & Song 2024, "Improving diffusion inverse problem solving with decoupled noise
annealing", Algorithm 1. At every level: a clean picture by a few steps of the probability-flow ODE; a draw of x0 from
``N(x0; that, r^2) N(y; A x0, sigma_y^2)``; the next level's noise on top, all of it fresh.

The paper draws x0 by Langevin steps with r = sigma; for a linear operator the draw is exact here (perturb and solve),
and r^2 is the prior's validated mse(sigma). Other differentiable maps take the Langevin steps, unadjusted.

Where the measurement says nothing the draw is the clean picture with white noise of r. The paper puts the next level's noise
on top, and the network, told that level alone, leaves what there is too much. Here the draw's own noise counts as part of the next
level's, which is never below it.
"""

from __future__ import annotations

from torch import Tensor

from invsolve.forward_models import LinearOperator
from invsolve.models.score_model import Noise, ScoreModel
from invsolve.rules.conditioned import ConditionedModel, separable
from invsolve.samplers.info import Callback, StepInfo, needs
from invsolve.samplers.multistep import multistep
from invsolve.samplers.sigmas import karras
from invsolve.samplers.split_gibbs import likelihood_step


@needs(calls=lambda *, ode_steps, **_: ode_steps, forgets=True)
def daps(
    model: ScoreModel,
    x: Tensor,
    sigmas: Tensor,
    noise: Noise,
    *,
    ode_steps: int = 4,
    langevin_steps: int = 50,
    step_size: float = 0.1,
    callback: Callback | None = None,
) -> Tensor:
    """Sample a posterior by decoupled annealing; of ``model`` only prior, forward model and y are used.

    Parameters
    ----------
    model : a conditioned model, of any rule that keeps its parts.
    x : start (B, C, H, W), at noise level sigmas[0].
    sigmas : falling levels ending in 0.
    noise : source of standard normal noise.
    ode_steps : network calls of each ODE solve.
    langevin_steps, step_size : for maps that are not linear: number of steps, and their size relative to the
        likelihood's and the coupling's joint curvature (with |J| = 1).

    Returns
    -------
    Tensor (B, C, H, W). Costs ``ode_steps`` calls per level.
    """
    parts = separable(model, "daps")
    levels = [float(s) for s in sigmas]
    lowest = 0.5 * min(s for s in levels if s > 0)
    sigma = levels[0]
    for i, sigma_next in enumerate(levels[1:]):
        clean = multistep(parts.prior, x, karras(ode_steps, lowest, sigma), noise, tau=0.0)
        spread = parts.prior.mse(sigma) ** 0.5
        if isinstance(parts.forward_model.operator, LinearOperator):
            x0 = likelihood_step(parts, clean, spread, noise)
        else:
            x0 = _langevin(parts, clean, spread, langevin_steps, step_size, noise)
        level, sigma = sigma, max(sigma_next, spread)
        x = x0 + (sigma**2 - spread**2) ** 0.5 * noise(x0) if sigma_next > 0 else x0
        if callback is not None:
            callback(StepInfo(i + 1, len(levels) - 1, level, x, clean))
    return x


def _langevin(parts: ConditionedModel, clean: Tensor, spread: float, steps: int, size: float, noise: Noise) -> Tensor:
    """Langevin steps on ``N(x0; clean, spread^2) N(y; A(x0), sigma_y^2)`` (Algorithm 1, lines 5-8)."""
    alpha = size / (1 / spread**2 + 1 / parts.sigma_y**2)
    x0 = clean
    for _ in range(steps):
        gradient = parts.forward_model.misfit_gradient(x0, parts.y) / parts.sigma_y**2 + (clean - x0) / spread**2
        x0 = x0 + alpha * gradient + (2 * alpha) ** 0.5 * noise(x0)
    return x0
