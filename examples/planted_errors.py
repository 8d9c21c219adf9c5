"""Four mistakes that leave the pictures pretty, and what `invsolve.verification.judge` says to each: the posterior is wrong.

Run from anywhere: python examples/planted_errors.py
"""

import torch

from invsolve.errors import InputError
from invsolve.forward_models import LinearOperator
from invsolve.rules import MomentMatching
from invsolve.samplers import multistep
from invsolve.verification.judge import check_adjoint, verify
from invsolve.verification.problems import colorization_problem


class LikelihoodTwice(MomentMatching):
    """The measurement's pull counted twice."""

    def denoise(self, x, sigma):
        guide = self.guide(x, sigma)
        return guide.denoised + 2 * (guide.x0 - guide.denoised)


class WrongUnit(MomentMatching):
    """The noise level of pictures in [-1, 1], handed to a prior of pictures in [0, 1]."""

    def denoise(self, x, sigma):
        return super().denoise(x, 0.5 * float(torch.as_tensor(sigma)))


class WrongSign(LinearOperator):
    """Differences of neighbours whose adjoint has one sign wrong."""

    def __init__(self):
        super().__init__((3, 8, 8), (3, 8, 8))

    def _apply(self, x):
        return x - 0.5 * x.roll(1, -1)

    def _adjoint(self, y):
        return y + 0.5 * y.roll(-1, -1)


def double_noise(model, x, sigmas, noise, **options):
    """Twice the variance of noise put back in every step."""
    return multistep(model, x, sigmas, lambda like: 2**0.5 * noise(like), **options)


problem = colorization_problem()
cases = {
    "nothing wrong": ("moment_matching", "multistep"),
    "likelihood counted twice in the rule": (LikelihoodTwice, "multistep"),
    "sigma in the wrong unit": (WrongUnit, "multistep"),
    "factor 2 in the sampler's step": ("moment_matching", double_noise),
}
print(f"{'':<37} {'bias':>6} {'ratio':>6} {'coverage':>8} {'KSD':>7} {'p':>6}   (right: 0, 1, .9, 0)")
for name, (rule, sampler) in cases.items():
    found = verify(problem, rule=rule, sampler=sampler, steps=12, samples=400)
    verdict = "calibrated" if found.calibrated else "WRONG"
    stein = f"{found.ksd_squared:7.4f} {found.ksd_p:6.3f}"
    print(f"{name:<37} {found.bias:6.3f} {found.std_ratio:6.3f} {found.coverage:8.3f} {stein}   {verdict}")
try:
    check_adjoint(WrongSign())
except InputError as error:
    print(f"{'wrong sign in an adjoint':<37} refused: {error}")
