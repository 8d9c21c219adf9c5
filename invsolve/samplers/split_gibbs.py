"""Split Gibbs: an exact likelihood step and a diffusion prior step, in turn.

Wu, Sun, Chen, Zhang, Yue & Bouman 2024, "Principled probabilistic imaging using diffusion models as plug-and-play
priors", Algorithm 1 (after Vono, Dobigeon & Chainais 2019). The picture is split in two, z from the prior and
x = z + rho n from the likelihood's side:

    x | z, y ~ N(y; A x, sigma_c^2) N(x; z, rho^2)      perturb and solve (Papandreou & Yuille 2010), exact
    z | x    ~ p(z) N(x; z, rho^2)                      reverse diffusion from level rho, started at x itself

The papers keep sigma_c = sigma_y; z then sees its likelihood widened to sigma_y^2 + rho^2 A A', and only rho -> 0, where
the chain stands still, mends that. Here the coupling's own noise counts as part of the measurement's:
``sigma_c^2 = sigma_y^2 - rho^2 |A|^2`` as soon as that leaves half of sigma_y^2, so that z has the right likelihood
at rho > 0 already, exactly so where A A' is a multiple of the identity on what is measured (masks, grey values).
"""

from __future__ import annotations

from torch import Tensor

from invsolve.errors import UsageError
from invsolve.rules.conditioned import ConditionedModel, separable
from invsolve.samplers.info import Callback, StepInfo
from invsolve.samplers.multistep import multistep
from invsolve.score_model import Noise, ScoreModel
from invsolve.sigmas import karras


def likelihood_step(model: ConditionedModel, z: Tensor, rho: float, noise_sigma: float, noise: Noise) -> Tensor:
    """A draw from ``N(y; A x, noise_sigma^2) N(x; z, rho^2)``, by solving for a perturbed measurement and picture."""
    y = model.y.expand(len(z), *model.y.shape[1:])
    return model.forward_model.linear.prox(z + rho * noise(z), y + noise_sigma * noise(y), (noise_sigma / rho) ** 2)


def split_gibbs(
    model: ScoreModel,
    x: Tensor,
    sigmas: Tensor,
    noise: Noise,
    *,
    prior_steps: int = 4,
    sweeps: int = 0,
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
    coupling : the last rho, in units of sigma_y / |A|, in (0, 1).

    Returns
    -------
    Tensor (B, C, H, W). Costs ``prior_steps`` calls per sweep.
    """
    parts = separable(model, "split_gibbs")
    if not 0 < coupling < 1:
        raise UsageError(f"coupling {coupling}", hint="wanted a number between 0 and 1, both excluded")
    norm = parts.forward_model.linear.norm
    last = coupling * parts.sigma_y / norm
    rhos = [float(s) for s in sigmas[:-1] if float(s) > last] + [last] * (1 + sweeps)
    sigma_min = min(float(sigmas[-2]), 0.5 * last)
    for i, rho in enumerate(rhos):
        spare = parts.sigma_y**2 - (rho * norm) ** 2
        noise_sigma = spare**0.5 if spare >= 0.5 * parts.sigma_y**2 else parts.sigma_y
        if i > 0:
            x = likelihood_step(parts, x, rho, noise_sigma, noise)
        ladder = karras(prior_steps, min(sigma_min, rho), rho)
        x = multistep(parts.prior, x, ladder, noise)
        if callback is not None:
            callback(StepInfo(i + 1, len(rhos), rho, x, x))
    return x
