"""The probability-flow ODE in logarithmic time, integrated by an adaptive Runge-Kutta method.

Song et al. 2021, eq. 13: ``du / dt = f u - g^2 / 2 score`` in the state u and the time t of an SDE of
:mod:`invsolve.models.sde`. By default time is log(sigma), which is the variance-exploding SDE's: ``dx / dt = x - D(x, sigma)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from scipy.integrate import RK45
from torch import Tensor

from invsolve.errors import SolveError

State = npt.NDArray[np.float64]

Watch = Callable[[float, Callable[[float], Tensor]], None]
"""Called after each accepted step with the sigma reached, and the state (n,) as a function of sigma within the step."""


def integrate(
    velocity: Callable[[Tensor, float], Tensor],
    state: Tensor,
    sigma_from: float,
    sigma_to: float,
    *,
    rtol: float,
    atol: float,
    time: Callable[[float], float] = math.log,
    level: Callable[[float], float] = math.exp,
    watch: Watch | None = None,
) -> Tensor:
    """Integrate ``d state / d time = velocity(state, sigma)`` with Dormand and Prince's pair of orders 5 and 4.

    Parameters
    ----------
    velocity : maps a state (n,) of the given state's type and device, and sigma, to its derivative (n,).
    state : (n,) at ``sigma_from``.
    sigma_from, sigma_to : positive, in either order.
    rtol, atol : a step's error, root mean square over the state, stays below ``atol + rtol |state|``.
    time, level : time as a function of sigma, increasing, and its inverse.

    Raises
    ------
    SolveError : the step shrank to nothing.
    """

    def right_hand_side(t: float, values: State) -> State:
        here = torch.from_numpy(values).to(state)
        return velocity(here, level(t)).double().cpu().numpy()

    initial = state.detach().double().cpu().numpy()
    solver = RK45(right_hand_side, time(sigma_from), initial, time(sigma_to), rtol=rtol, atol=atol)
    while solver.status == "running":
        before = solver.t
        problem = solver.step()
        if solver.status == "failed" or not np.isfinite(solver.y).all():
            raise SolveError(
                f"the ODE could not be followed beyond sigma {level(before):.3g}: {problem or 'not finite'}",
                hint="allow larger errors (rtol, atol), or use the sampler ode",
            )
        if watch is not None:
            dense = solver.dense_output()

            def within(sigma: float, dense: Callable[[float], State] = dense) -> Tensor:
                return torch.from_numpy(dense(time(sigma))).to(state)

            watch(level(solver.t), within)
    return torch.from_numpy(np.array(solver.y)).to(state)
