"""Labels as measurements: p(label | x) by a classifier, trained on noisy pictures or on clean ones.

``y`` is a class number per image, (B,) int64. Both models have the forward model's contract; the rule
``classifier_gradient`` conditions a prior on them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invsolve.errors import InputError
from invsolve.forward_models.forward_model import ForwardModel

Denoise = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class CleanClassifier(ForwardModel):
    """p(label | x) by a classifier of clean pictures.

    Parameters
    ----------
    operator : differentiable map x (B, C, H, W) -> logits (B, classes).
    classes : names of the classes.
    """

    classes: tuple[str, ...] = ()

    def label(self, name: str) -> int:
        """The number of a class.

        Raises
        ------
        InputError : no such class.
        """
        if name not in self.classes:
            raise InputError(f"unknown class {name!r}", hint=f"known classes: {', '.join(self.classes)}")
        return self.classes.index(name)

    def log_probabilities(self, x: Tensor) -> Tensor:
        """log p(label | x) of every label, (B, classes)."""
        return self.operator(x).log_softmax(dim=1)

    def log_likelihood(self, x: Tensor, y: Tensor) -> Tensor:
        """log p(y | x), (B,); ``y`` (B,) or (1,) for all."""
        return _pick(self.log_probabilities(x), y)

    def simulate(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Draw a label of each ``x`` (B, C, H, W)."""
        probabilities = self.log_probabilities(x).exp().cpu()
        return torch.multinomial(probabilities, 1, generator=generator)[:, 0].to(x.device)

    def residual(self, x: Tensor, y: Tensor) -> Tensor:
        """Nothing, (B, 0): labels leave no difference to measure."""
        return x.new_zeros(len(x), 0)

    def misfit_gradient(self, x: Tensor, y: Tensor) -> Tensor:
        raise InputError("labels have no squared misfit", hint="use rule='classifier_gradient'")

    def log_likelihood_gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """grad_x log p(y | x), shaped as ``x``."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(self.log_likelihood(x, y).sum(), x)[0]

    def noisy_log_likelihood(self, x: Tensor, sigma: Tensor, y: Tensor, denoise: Denoise) -> Tensor:
        """log p(y | x_sigma), (B,): here of the denoised estimate, log p(y | E[x0 | x]).

        The estimate's error is ignored, as in diffusion posterior sampling (Chung et al. 2023, eq. 10): biased where
        the estimate is blurred, but any classifier will do. ``sigma`` (B,).
        """
        return self.log_likelihood(denoise(x, sigma), y)


@dataclass(frozen=True)
class NoiseConditionalClassifier(CleanClassifier):
    """p(label | x_sigma) by a classifier that was trained at every noise level; needs no denoiser.

    Parameters
    ----------
    operator : logits of clean pictures, as in :class:`CleanClassifier`.
    classes : names of the classes.
    noisy_logits : map of x (B, C, H, W) and sigma (B,) to logits (B, classes).
    """

    noisy_logits: Callable[[Tensor, Tensor], Tensor] | None = None

    def noisy_log_likelihood(self, x: Tensor, sigma: Tensor, y: Tensor, denoise: Denoise) -> Tensor:
        if self.noisy_logits is None:
            return super().noisy_log_likelihood(x, sigma, y, denoise)
        return _pick(self.noisy_logits(x, sigma).log_softmax(dim=1), y)


def _pick(log_probabilities: Tensor, y: Tensor) -> Tensor:
    labels = y.to(log_probabilities.device).expand(len(log_probabilities))
    return log_probabilities.gather(1, labels[:, None])[:, 0]


IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def torchvision_classifier(
    module: nn.Module,
    classes: Sequence[str],
    *,
    size: int | None = 224,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> CleanClassifier:
    """Any torchvision classifier as a forward model, through the prior's denoised estimate.

    Parameters
    ----------
    module : RGB pictures normalised by ``mean`` and ``std`` -> logits, on the prior's device; put into eval mode.
    classes : names of its classes, for instance ``weights.meta["categories"]``.
    size : side in pixels that pictures are enlarged or reduced to; None leaves them.
    """
    module.eval().requires_grad_(False)

    def logits(x: Tensor) -> Tensor:
        if size is not None:
            x = F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False, antialias=True)
        shift, scale = (x.new_tensor(values).reshape(1, -1, 1, 1) for values in (mean, std))
        return module((x - shift) / scale)

    return CleanClassifier(logits, classes=tuple(classes))
