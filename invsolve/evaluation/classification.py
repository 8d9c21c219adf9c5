"""Generative classification: which class's prior finds a picture likeliest?

Bayes' rule on the likelihoods that one prior per class gives, ``p(class | x) ~ p(x | class) p(class)``. With the true
densities no classifier errs less (Duda & Hart 1973, chapter 2); with learned ones the many values of a picture make
the probabilities far too sure, and it is the order of the classes that counts (Domingos & Pazzani 1997).
"""

from __future__ import annotations

import torch
from torch import Tensor

from invsolve.errors import InputError


def class_posterior(log_likelihoods: Tensor, class_shares: Tensor | None = None) -> Tensor:
    """p(class | x), (n, classes) float64, of log p(x | class) in nats.

    Parameters
    ----------
    log_likelihoods : (n, classes), all of one picture from the same noise, so that it does not count.
    class_shares : (classes,), p(class) up to a factor; default all alike. A class of share 0 is never chosen.

    Raises
    ------
    InputError : shapes do not fit, a number is NaN, or the shares are negative or all 0.
    """
    if log_likelihoods.ndim != 2 or log_likelihoods.isnan().any():
        raise InputError(
            f"log likelihoods of shape {tuple(log_likelihoods.shape)}", hint="wanted numbers (n, classes), none NaN"
        )
    classes = log_likelihoods.shape[1]
    shares = torch.ones(classes) if class_shares is None else class_shares
    if shares.shape != (classes,) or not (shares >= 0).all() or not shares.sum() > 0:
        raise InputError(f"shares {shares.tolist()} of {classes} classes", hint="wanted one for each, not below 0")
    return torch.softmax(log_likelihoods.double() + shares.to(log_likelihoods).double().log(), dim=1)


def accuracy(probabilities: Tensor, labels: Tensor) -> float:
    """Share of the pictures whose likeliest class of ``probabilities`` (n, classes) is that of ``labels`` (n,)."""
    return float((probabilities.argmax(dim=1) == labels.to(probabilities.device)).double().mean())
