"""Sample quality: Frechet and kernel distances between features of real and generated pictures, by torchmetrics.

FID (Heusel et al. 2017) and KID (Binkowski et al. 2018) say nothing without the network that made the features, so its
name is part of the result. Only Inception's figures may be set beside published ones; those of the small classifier
trained here compare this package's samplers with one another and nothing else.

Needs the optional packages of ``pip install invsolve[quality]``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from invsolve.errors import InputError, ModelError

if TYPE_CHECKING:
    from invsolve.pretrained.network_prior import TrainedClassifier

FEATURE_NOISE = 0.02
"""Noise level at which the classifier looks at a picture: grain below it counts little, as to the eye."""


class Quality(NamedTuple):
    """Distances between two sets of pictures; 0 for two sets of one law, up to the number of pictures."""

    fid: float
    kid: float  # mean over subsets
    kid_std: float
    pictures: int  # generated ones
    features: str  # the network, and whether its figures compare with papers


class Features(nn.Module):
    """A named map of pictures (B, C, H, W) in [0, 1] to features (B, num_features)."""

    def __init__(self, name: str, extract: nn.Module, num_features: int) -> None:
        super().__init__()
        self.name, self.extract, self.num_features = name, extract, num_features

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.extract(x.clamp(0, 1)).double()


class _ClassifierFeatures(nn.Module):
    def __init__(self, classifier: TrainedClassifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier.features(x.to(self.classifier.device), FEATURE_NOISE).float().cpu()


def classifier_features(classifier: TrainedClassifier) -> Features:
    """Features of a noise-conditional classifier, labelled as not comparable with papers."""
    card = classifier.card
    name = f"invsolve classifier {card.name} ({card.sha256[:8]}), not comparable with published figures"
    return Features(name, _ClassifierFeatures(classifier), classifier.network.config.widths[-1])


def inception_features() -> Features:
    """The Inception network of published FIDs, by torch-fidelity, which downloads its weights on first use.

    Raises
    ------
    ModelError : torch-fidelity or the weights are not at hand.
    """
    try:
        from torchmetrics.image.fid import NoTrainInceptionV3

        inception = NoTrainInceptionV3(name="inception-v3-compat", features_list=["2048"])
    except (ImportError, ModuleNotFoundError, OSError) as error:
        raise ModelError(
            f"no Inception network: {error}",
            hint="pip install torch-fidelity and allow its download, or use a classifier",
        ) from error

    class Bytes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return inception((x * 255).round().byte())

    return Features("Inception v3 (torch-fidelity), 2048 features", Bytes(), 2048)


def quality(real: Tensor, generated: Tensor, features: Features, *, seed: int = 0, batch: int = 100) -> Quality:
    """FID and KID of ``generated`` against ``real``, (N, C, H, W) in [0, 1].

    Both are biased by small numbers of pictures (FID more): compare equal numbers only.

    Raises
    ------
    ModelError : torchmetrics is not installed.
    InputError : fewer than two pictures.
    """
    try:
        from torchmetrics.image.fid import FrechetInceptionDistance
        from torchmetrics.image.kid import KernelInceptionDistance
    except ImportError as error:
        raise ModelError(f"no torchmetrics: {error}", hint="pip install 'invsolve[quality]'") from error
    fewest = min(len(real), len(generated))
    if fewest < 2:
        raise InputError(f"{len(real)} real and {len(generated)} generated pictures", hint="wanted hundreds of each")
    fid = FrechetInceptionDistance(feature=features, normalize=True).set_dtype(torch.float64)
    kid = KernelInceptionDistance(feature=features, normalize=True, subset_size=min(1000, -(-fewest // 2)), subsets=50)
    for pictures, is_real in ((real, True), (generated, False)):
        for part in pictures.split(batch):
            fid.update(part, real=is_real)
            kid.update(part, real=is_real)
    with torch.random.fork_rng(devices=[]):  # KID draws its subsets from the global generator
        torch.manual_seed(seed)
        mean, std = kid.compute()
    return Quality(float(fid.compute()), float(mean), float(std), len(generated), features.name)


def diversity(pictures: Tensor, features: Features) -> float:
    """Mean distance between the features of two of the pictures (N, C, H, W): 0 when all are alike."""
    found = features(pictures)
    distances = torch.cdist(found, found)
    return float(distances.sum() / (len(found) * (len(found) - 1)))


class InceptionScore(NamedTuple):
    """The score of a set of pictures; meaningless without the classifier's name."""

    score: float  # mean over the splits; from 1 to the number of classes
    std: float  # over the splits; NaN of one


def inception_score(probabilities: Tensor, *, splits: int = 10) -> InceptionScore:
    """``exp(E KL(p(class | x) || p(class)))`` (Salimans et al. 2016, section 4), any classifier's probabilities in.

    High where the classifier is sure of every picture and the pictures are of all classes alike: the number of classes at
    most, 1 at least. A name comes with it: only with the Inception network of the paper is it the figure of papers. Few
    pictures make it too small, and it does not know the real pictures: give theirs beside it.

    Parameters
    ----------
    probabilities : (n, classes), rows of sum 1, of pictures in the order in which they were drawn.
    splits : equal parts, each scored by its own p(class); ten in the paper.

    Raises
    ------
    InputError : rows that are no probabilities, or fewer pictures than parts.
    """
    p = probabilities.double()
    sums = p.sum(dim=-1)
    if p.ndim != 2 or not (p >= 0).all() or not torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
        raise InputError(
            f"rows of {tuple(p.shape)} that are no probabilities", hint="wanted (n, classes), each of sum 1"
        )
    if not 1 <= splits <= len(p):
        raise InputError(f"{len(p)} pictures in {splits} parts", hint="wanted at least one picture in each")
    scores = torch.stack([_divergence(part) for part in p.tensor_split(splits)]).exp()
    return InceptionScore(float(scores.mean()), float(scores.std()) if splits > 1 else float("nan"))


def _divergence(p: Tensor) -> Tensor:
    """Mean Kullback-Leibler divergence of the rows (n, classes) from their mean, in nats."""
    return (torch.xlogy(p, p) - torch.xlogy(p, p.mean(dim=0))).sum(dim=1).mean()
