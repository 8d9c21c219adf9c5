"""Priors and classifiers: the shipped weights with their cards, and safe loading."""

from invsolve.pretrained.card import Card
from invsolve.pretrained.loading import (
    find_prior,
    load_classifier,
    load_prior,
    resolve_device,
    save_prior,
    shipped_classifiers,
    shipped_priors,
)
from invsolve.pretrained.network_prior import NetworkPrior, TrainedClassifier

__all__ = [
    "Card",
    "NetworkPrior",
    "TrainedClassifier",
    "find_prior",
    "load_classifier",
    "load_prior",
    "resolve_device",
    "save_prior",
    "shipped_classifiers",
    "shipped_priors",
]
