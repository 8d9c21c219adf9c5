"""The contract that priors and posteriors share.

A score model knows ``E[x0 | x]`` for ``x = x0 + sigma z``; Tweedie's formula makes that the score. Conditioning a
score model on a measurement gives a score model again, so a sampler never knows which of the two it runs on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from invsolve.colours import Colours
from invsolve.errors import InputError, ModelError

Sigma = float | Tensor
"""Standard deviation of the perturbation in the units of x: a number, or one per image (B,)."""

Noise = Callable[[Tensor], Tensor]
"""``noise(x)`` draws standard normal noise shaped as ``x``."""


def per_image(value: Sigma, x: Tensor) -> Tensor:
    """A number, or one per image, shaped to multiply a batch ``x`` (B, ...)."""
    return torch.as_tensor(value, dtype=x.dtype, device=x.device).reshape(-1, *(1,) * (x.ndim - 1))


class Prediction(NamedTuple):
    """What a score model says about ``x = x0 + sigma z``."""

    x0: Tensor  # estimate of the clean picture, (B, C, H, W)
    z: Tensor  # estimate of the noise in x, (B, C, H, W), unit variance


Orientations = Literal["square", "flips", "mirror"]


@dataclass(frozen=True)
class PriorFacts:
    """What is known of a score model: held by a prior, by all that wraps it and by its card.

    Parameters
    ----------
    channels : channels of x.
    sigma_min, sigma_max : noise levels the model knows.
    sigma_data : standard deviation of x0 around its mean.
    size : side of the square pictures the model knows; None for any size.
    patch : side of the patches in which a model that knows one size takes larger pictures; None where it sees them whole.
    frame : shorter side of the whole pictures the model knows; None where it knows parts of pictures, at any scale.
    colours : the coordinates of x, RGB or luma first; see :mod:`invsolve.colours`.
    orientations : in which orientations pictures are as likely as upright ones; see :mod:`invsolve.models.orientation`.
    hounsfield : whether x are CT numbers n, with HU = 2000 n - 1000; None where that is not known.
    """

    channels: int
    sigma_min: float = 0.005
    sigma_max: float = 20.0
    sigma_data: float = 0.27
    size: int | None = None
    frame: int | None = None
    colours: Colours = "rgb"
    orientations: Orientations = "square"
    patch: int | None = None
    hounsfield: bool | None = None


class ErrorCovariance:
    """The covariance C of x0 given x: how far, where and in which directions a denoiser is off. Subclass and write both
    methods; this one is white.

    Parameters
    ----------
    variance : of every value; a number, or one per image (B, 1, 1, 1).
    """

    def __init__(self, variance: float | Tensor) -> None:
        self.variance = torch.as_tensor(variance)

    def times(self, v: Tensor) -> Tensor:
        """C v for ``v`` (B, C, H, W)."""
        return self.variance.to(v) * v

    def root_times(self, v: Tensor) -> Tensor:
        """L v with L L' = C: of white noise, a draw of the error."""
        return self.variance.to(v).sqrt() * v


class ScoreModel:
    """A noise-conditional score model: subclass and write :meth:`denoise`.

    Parameters
    ----------
    facts : what is known of it; or its fields as keywords, ``channels`` among them.
    """

    def __init__(self, facts: PriorFacts | None = None, **fields: Any) -> None:
        self.facts = PriorFacts(**fields) if facts is None else facts

    @property
    def channels(self) -> int:
        return self.facts.channels

    @property
    def sigma_min(self) -> float:
        return self.facts.sigma_min

    @property
    def sigma_max(self) -> float:
        return self.facts.sigma_max

    @property
    def sigma_data(self) -> float:
        return self.facts.sigma_data

    @property
    def size(self) -> int | None:
        return self.facts.size

    @property
    def patch(self) -> int | None:
        return self.facts.patch

    @property
    def frame(self) -> int | None:
        return self.facts.frame

    @property
    def colours(self) -> Colours:
        return self.facts.colours

    @property
    def hounsfield(self) -> bool | None:
        return self.facts.hounsfield

    @property
    def orientations(self) -> Orientations:
        return self.facts.orientations

    @property
    def device(self) -> torch.device:
        """Where x must be."""
        return torch.device("cpu")

    @property
    def base(self) -> ScoreModel:
        """The model itself, without wrappers that count or turn."""
        return self

    def check_size(self, x: Tensor) -> None:
        """Raise an InputError where ``x`` (B, C, H, W) is not of the size the model knows, or smaller than its patches."""
        if self.size is not None and tuple(x.shape[-2:]) != (self.size, self.size):
            raise InputError(
                f"the picture is {x.shape[-1]} x {x.shape[-2]}, the prior knows {self.size} x {self.size} only",
                hint="use a prior of any size such as photos; or --fit tile, in Python patches=True, for a larger picture",
            )
        if self.patch is not None and min(x.shape[-2:]) < self.patch:
            raise InputError(
                f"the picture is {x.shape[-1]} x {x.shape[-2]}, the prior's patches are {self.patch} x {self.patch}",
                hint="enlarge the picture, or use a prior of any size such as photos",
            )

    def check_rgb(self) -> None:
        """Raise a ModelError where x are colour pictures in other coordinates than RGB."""
        if self.colours != "rgb":
            raise ModelError(
                f"this prior knows pictures in other coordinates ({self.colours})",
                hint="it is for colorize; use one of RGB pictures, such as photos",
            )

    def denoise(self, x: Tensor, sigma: Sigma) -> Tensor:
        """E[x0 | x], shaped as ``x`` (B, C, H, W), in the prior's units."""
        raise TypeError(f"{type(self).__name__} does not define denoise")

    def score(self, x: Tensor, sigma: Sigma) -> Tensor:
        """grad log p_sigma(x) = (D(x, sigma) - x) / sigma^2 (Tweedie; Robbins 1956, Efron 2011)."""
        return (self.denoise(x, sigma) - x) / per_image(sigma, x) ** 2

    def predict(self, x: Tensor, sigma: Sigma) -> Prediction:
        """Both halves of x: the clean picture and the noise, as the denoise-renoise samplers want them."""
        x0 = self.denoise(x, sigma)
        return Prediction(x0, (x - x0) / per_image(sigma, x))

    @property
    def projects(self) -> bool:
        """Whether :meth:`project` does anything."""
        return type(self).project is not ScoreModel.project

    def project(self, x: Tensor, sigma: Sigma, noise: Noise) -> Tensor:
        """Bring ``x`` near the measurement before a sampler's step; the identity for all but replacement rules."""
        return x

    def count_gradients(self, count: int) -> None:
        """Told by a rule that it differentiated :meth:`denoise` for ``count`` pictures; for wrappers that count."""

    def mse(self, sigma: float) -> float:
        """Mean squared error per pixel of :meth:`denoise`, as validated; here the error of a Gaussian of sigma_data."""
        return sigma**2 * self.sigma_data**2 / (sigma**2 + self.sigma_data**2)

    def error_covariance(self, x0: Tensor, sigma: Sigma) -> ErrorCovariance:
        """The covariance of the clean picture around what :meth:`denoise` made of x, ``x0`` (B, C, H, W), at ``sigma``; where
        no more is known, white and of variance :meth:`mse`."""
        return ErrorCovariance(mse_per_image(self, sigma, x0))

    def draw(self, x: Tensor, sigma: Sigma, noise: Noise) -> Prediction:
        """A draw of the clean picture given ``x``, taken as Gaussian with mean :meth:`denoise` and covariance
        :meth:`error_covariance`, and the noise that is then in x."""
        denoised = self.denoise(x, sigma)
        x0 = denoised + self.error_covariance(denoised, sigma).root_times(noise(x))
        return Prediction(x0, (x - x0) / per_image(sigma, x))


def mse_per_image(model: ScoreModel, sigma: Sigma, x: Tensor) -> Tensor:
    """The model's denoising error r^2(sigma), shaped to multiply a batch ``x``."""
    errors = [model.mse(float(s)) for s in per_image(sigma, x).flatten()]
    return per_image(x.new_tensor(errors), x)


class FunctionPrior(ScoreModel):
    """Any function ``denoise(x, sigma)`` with sigma (B,) as a score model: the door for foreign networks.

    ``device`` is where the function wants x; ``facts`` are the fields of :class:`PriorFacts`.
    """

    def __init__(
        self, function: Callable[[Tensor, Tensor], Tensor], *, device: torch.device | str = "cpu", **facts: Any
    ) -> None:
        super().__init__(**facts)
        self.function, self._device = function, torch.device(device)

    @property
    def device(self) -> torch.device:
        return self._device

    def denoise(self, x: Tensor, sigma: Sigma) -> Tensor:
        return self.function(x, torch.as_tensor(sigma, dtype=x.dtype, device=x.device).expand(len(x)))


class DerivedModel(ScoreModel):
    """A model made of another one, for the same pictures and noise levels; subclass and write :meth:`denoise`.

    What follows from :meth:`denoise` (score, predict) is its own; a wrapper that only watches or turns what passes is a
    :class:`WrappedModel`.
    """

    def __init__(self, model: ScoreModel) -> None:
        super().__init__(model.facts)
        self.model = model

    @property
    def base(self) -> ScoreModel:
        return self.model.base

    @property
    def device(self) -> torch.device:
        return self.model.device

    def count_gradients(self, count: int) -> None:
        self.model.count_gradients(count)

    def mse(self, sigma: float) -> float:
        return self.model.mse(sigma)

    def error_covariance(self, x0: Tensor, sigma: Sigma) -> ErrorCovariance:
        return self.model.error_covariance(x0, sigma)


class WrappedModel(DerivedModel):
    """A model around another one that passes every question on to it; a subclass changes what it wants to.

    A subclass that writes :meth:`denoise` alone keeps the rest in step with it: score and predict take its estimate, and
    the noise in x stays what the wrapped model says where that is a statement of its own (as with the rule
    ``proximal``), at the price of a second call.
    """

    @property
    def _denoises_itself(self) -> bool:
        return type(self).denoise is not WrappedModel.denoise

    @property
    def projects(self) -> bool:
        return type(self).project is not WrappedModel.project or self.model.projects

    def check_size(self, x: Tensor) -> None:
        self.model.check_size(x)

    def check_rgb(self) -> None:
        self.model.check_rgb()

    def denoise(self, x: Tensor, sigma: Sigma) -> Tensor:
        return self.model.denoise(x, sigma)

    def score(self, x: Tensor, sigma: Sigma) -> Tensor:
        return super().score(x, sigma) if self._denoises_itself else self.model.score(x, sigma)

    def predict(self, x: Tensor, sigma: Sigma) -> Prediction:
        if not self._denoises_itself:
            return self.model.predict(x, sigma)
        inner = self.model
        while isinstance(inner, WrappedModel):
            inner = inner.model
        if type(inner).predict is ScoreModel.predict:
            return super().predict(x, sigma)
        return Prediction(self.denoise(x, sigma), self.model.predict(x, sigma).z)

    def draw(self, x: Tensor, sigma: Sigma, noise: Noise) -> Prediction:
        return super().draw(x, sigma, noise) if self._denoises_itself else self.model.draw(x, sigma, noise)

    def project(self, x: Tensor, sigma: Sigma, noise: Noise) -> Tensor:
        return self.model.project(x, sigma, noise)


class CountedModel(WrappedModel):
    """Counts the pictures that ``model`` denoised, forwards and backwards."""

    def __init__(self, model: ScoreModel) -> None:
        super().__init__(model)
        self.calls = 0

    def denoise(self, x: Tensor, sigma: Sigma) -> Tensor:
        self.calls += len(x)
        return self.model.denoise(x, sigma)

    def score(self, x: Tensor, sigma: Sigma) -> Tensor:
        self.calls += len(x)
        return self.model.score(x, sigma)

    def predict(self, x: Tensor, sigma: Sigma) -> Prediction:
        self.calls += len(x)
        return self.model.predict(x, sigma)

    def draw(self, x: Tensor, sigma: Sigma, noise: Noise) -> Prediction:
        self.calls += len(x)
        return self.model.draw(x, sigma, noise)

    def count_gradients(self, count: int) -> None:
        self.calls += count
        super().count_gradients(count)
