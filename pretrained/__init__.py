"""Priors: the shipped weights with their cards, and safe loading."""

from invsolve.pretrained.card import Card
from invsolve.pretrained.loading import (
    NetworkPrior,
    find_prior,
    load_prior,
    resolve_device,
    save_prior,
    shipped_priors,
)

__all__ = ["Card", "NetworkPrior", "find_prior", "load_prior", "resolve_device", "save_prior", "shipped_priors"]
