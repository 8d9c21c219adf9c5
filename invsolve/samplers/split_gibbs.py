"""Split Gibbs: an exact likelihood step and a diffusion prior step, in turn.

Wu, Sun, Chen, Zhang, Yue & Bouman 2024, "Principled probabilistic imaging using diffusion models as plug-and-play
priors", Algorithm 1 (after Vono, Dobigeon & Chainais 2019). The picture is split in two, z from the prior and
x = z + rho n from the likelihood's side:

    x | z, y ~ N(y; A x, Sigma_c) N(x; z, rho^2)        perturb and solve (Papandreou & Yuille 2010), exact
    z | x    ~ p(z) N(x; z, rho^2)                      reverse diffusion from level rho, started at x itself

The papers keep Sigma_c = sigma_y^2; z then sees its likelihood widened to sigma_y^2 + rho^2 A A', and only rho -> 0,
where the chain stands still, mends that. At the last rho the coupling's own noise counts as part of the measurement's
here, ``Sigma_c = sigma_y^2 - rho^2 A A'``, so that z has the right likelihood at rho > 0. The likelihood step then
needs no solve: with k = rho^2 / sigma_y^2 it is (Woodbury)

    x = z + k A'(y - A z) + rho (1 - k A'A)^(1/2) n,

the square root by its power series. What is left is mixing, and the prior step's own accuracy.
"""

from __future__ import annotations

from torch import Tensor

from invsolve.errors import UsageError
from invsolve.models.score_model import Noise, ScoreModel
from invsolve.rules.conditioned import ConditionedModel, separable
from invsolve.samplers.info import Callback, StepInfo, needs
from invsolve.samplers.multistep import multistep
from invsolve.samplers.sigmas import geometric

SERIES_TOLERANCE = 1e-6


def likelihood_step(model: ConditionedModel, z: Tensor, rho: float, noise: Noise) -> Tensor:
    """A draw from ``N(y; A x, sigma_y^2) N(x; z, rho^2)``, by solving for a perturbed picture and measurement."""
    y = model.y.expand(len(z), *model.y.shape[1:])
    perturbed = y + model.sigma_y * noise(y)
    return model.forward_model.linear.prox(z + rho * noise(z), perturbed, (model.sigma_y / rho) ** 2)


def exact_likelihood_step(model: ConditionedModel, z: Tensor, rho: float, noise: Noise) -> Tensor:
    """A draw from ``N(y; A x, sigma_y^2 - rho^2 A A') N(x; z, rho^2)``, for rho |A| < sigma_y."""
    operator, k = model.forward_model.linear, (rho / model.sigma_y) ** 2
    mean = z + k * operator.T(model.y - operator(z))
    term = root = noise(z)
    # sqrt(1 - t) = 1 - t/2 - t^2/8 - ...: each coefficient is (2 j - 3) / (2 j) times the one before.
    for j in range(1, 200):
        term = (2 * j - 3) / (2 * j) * k * operator.T(operator(term))
        root = root + term
        if (k * operator.norm**2) ** j < SERIES_TOLERANCE:
            break
    return mean + rho * root


@needs(calls=lambda *, prior_steps, **_: prior_steps, forgets=True)
def split_gibbs(
    model: ScoreModel,
    x: Tensor,
    sigmas: Tensor,
    noise: Noise,
    *,
    prior_steps: int = 4,
    sweeps: int = 20,
    coupling: float = 0.7,
    callback: Callback | None = None,
) -> Tensor:
    """Sample a posterior by annealed split Gibbs; of ``model`` only prior, forward model and y are used.

    Parameters
    ----------
    model : a conditioned model, of any rule that keeps its parts.
    x : start (B, C, H, W), at noise level sigmas[0].
    sigmas : falling levels ending in 0: the couplings rho of the annealing. Those below the last one are left out.
    noise : source of standard normal noise.
    prior_steps : network calls of each prior step.
    sweeps : further sweeps at the last coupling.
    coupling : the last rho, in units of sigma_y / |A|, in (0, 0.95]; larger mixes faster.

    Returns
    -------
    Tensor (B, C, H, W). Costs ``prior_steps`` calls per sweep.
    """
    parts = separable(model, "split_gibbs")
    if not 0 < coupling <= 0.95:
        raise UsageError(f"coupling {coupling}", hint="wanted a number above 0, at most 0.95")
    norm = parts.forward_model.linear.norm
    last = coupling * parts.sigma_y / norm
    rhos = [float(s) for s in sigmas[:-1] if float(s) > last] + [last] * (1 + sweeps)
    for i, rho in enumerate(rhos):
        if i > 0:
            x = likelihood_step(parts, x, rho, noise) if rho > last else exact_likelihood_step(parts, x, rho, noise)
        ladder = geometric(prior_steps, 0.2 * rho, rho)
        x = multistep(parts.prior, x, ladder, noise, tau=1.0)
        if callback is not None:
            callback(StepInfo(i + 1, len(rhos), rho, x, x))
    return x
