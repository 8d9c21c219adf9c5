"""The probability-flow ODE by an adaptive Runge-Kutta method (Song et al. 2021, section 4.3 and appendix D.4)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from invsolve.errors import UsageError
from invsolve.models.precision import full_precision
from invsolve.models.score_model import Noise, ScoreModel
from invsolve.models.sde import SDEName, find_sde
from invsolve.ode.flow import integrate
from invsolve.samplers.info import Callback, StepInfo, needs

FINEST = 1e-10
"""Bound of a step's error below which rounding alone would shrink the steps to nothing."""


@needs(adaptive=120)
def ode_adaptive(
    model: ScoreModel,
    x: Tensor,
    sigmas: Tensor,
    noise: Noise,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    sde: SDEName = "ve",
    callback: Callback | None = None,
) -> Tensor:
    """Follow the probability-flow ODE by SciPy's RK45, which chooses its own steps.

    The images of a batch share their steps, so an image alone comes out the same up to the tolerance only.

    Parameters
    ----------
    model : prior or posterior whose rule does not project.
    x : start (B, C, H, W), at noise level sigmas[0].
    sigmas : falling levels ending in 0: the ODE runs from the first to the last positive one, then x is denoised; the
        callback is told of x at each. Where they end above 0, so does x.
    noise : not used.
    rtol, atol : bounds of a step's error.
    sde : whose state and time are integrated: "ve" (x itself, in log(sigma)), "edm", "vp" or "subvp".

    Returns
    -------
    Tensor (B, C, H, W). Costs six network calls per step of the method.

    Raises
    ------
    UsageError : the model projects x between steps, which is no ODE; errors bounded by next to nothing.
    SolveError : the method could not go on.
    """
    if model.projects:
        raise UsageError("ode_adaptive cannot project x between steps", hint="use the sampler ode, or another rule")
    if not (rtol >= 0 and atol >= 0 and max(rtol, atol) >= FINEST):
        raise UsageError(f"rtol {rtol}, atol {atol}", hint=f"wanted one of them at least {FINEST:g}")
    process, levels = find_sde(sde), [float(s) for s in sigmas]
    positive = [s for s in levels if s > 0]
    steps = len(levels) - 1

    def velocity(state: Tensor, sigma: float) -> Tensor:
        t, u = process.time_of(sigma), state.reshape(x.shape)
        score = model.score(process.picture(u, t), sigma)
        return process.velocity(u, process.score(score, t), t).flatten()

    ahead = list(enumerate(positive))[1:]

    def watch(reached: float, state: Callable[[float], Tensor]) -> None:
        # One call per level, however many of them, or few, a step of the method spans.
        while callback is not None and ahead and ahead[0][1] >= reached * (1 - 1e-9):
            step, level = ahead.pop(0)
            here = process.picture(state(level).reshape(x.shape), process.time_of(level))
            callback(StepInfo(step, steps, positive[step - 1], here, here))

    with full_precision():
        end = x
        if len(positive) > 1:
            flat = integrate(
                velocity, process.state(x, process.time_of(positive[0])).flatten(), positive[0], positive[-1],
                rtol=rtol, atol=atol, watch=watch,
                time=lambda sigma: float(process.time_of(sigma)), level=lambda t: float(process.sigma(t)),
            )  # fmt: skip
            end = process.picture(flat.reshape(x.shape), process.time_of(positive[-1]))
        if levels[-1] == 0:
            end = model.denoise(end, positive[-1])
    if callback is not None and levels[-1] == 0:
        callback(StepInfo(steps, steps, positive[-1], end, end))
    return end
