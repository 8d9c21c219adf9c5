"""Sentences as measurements: how well a network of pictures and texts finds that one describes the other."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from invsolve.forward_models.classifier import CleanClassifier


@dataclass(frozen=True)
class TextSimilarity(CleanClassifier):
    """p(x | sentence) in proportion to p(x) exp(s(x, sentence)), s the network's similarity.

    The similarity is that of the denoised estimate, through which its gradient goes (Avrahami, Lischinski & Fried 2022, "Blended
    diffusion for text-driven editing of natural images", section 3.2). It is no probability: one picture is like a sentence by a
    number, whatever other pictures or sentences there are, so the scale on it is a choice.

    Parameters
    ----------
    operator : differentiable map x (B, 3, H, W) in [0, 1] -> similarities (B, sentences); of CLIP (Radford et al. 2021) the cosine
        between both embeddings times the scale it learned, about 100.
    classes : the sentences.
    """

    def log_likelihood(self, x: Tensor, y: Tensor) -> Tensor:
        """s(x, y), (B,), ``y`` (B,) or (1,) the numbers of sentences: log p(y | x) up to what does not depend on x."""
        found = self.operator(x)
        return found.gather(1, y.to(found.device).expand(len(found))[:, None])[:, 0]
