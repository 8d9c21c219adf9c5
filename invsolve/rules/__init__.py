"""Rules: how a measurement changes a score. ``condition`` turns a prior into a posterior."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from invsolve.forward_models import ForwardModel
from invsolve.models.score_model import ScoreModel
from invsolve.named import find, name_of
from invsolve.rules.annealed import AnnealedLikelihood
from invsolve.rules.classifier_gradient import ClassifierGradient
from invsolve.rules.conditioned import ConditionedModel, GuidedModel, separable
from invsolve.rules.dps import DPS
from invsolve.rules.exact import ExactPosterior
from invsolve.rules.merged import Merged
from invsolve.rules.moment_matching import MomentMatching
from invsolve.rules.pigdm import PiGDM
from invsolve.rules.proximal import Proximal, ValidatedProximal
from invsolve.rules.replacement import Replacement
from invsolve.rules.wiener import Wiener

Rule = Callable[[ScoreModel, ForwardModel, Tensor], ScoreModel]

RULES: dict[str, Rule] = {
    "proximal": Proximal,
    "validated": ValidatedProximal,
    "wiener": Wiener,
    "annealed": AnnealedLikelihood,
    "replacement": Replacement,
    "dps": DPS,
    "pigdm": PiGDM,
    "moment_matching": MomentMatching,
    "merged": Merged,
    "exact": ExactPosterior,
    "classifier_gradient": ClassifierGradient,
}


def find_rule(name: str) -> Rule:
    """A rule by name, with arguments where any follow; see :func:`invsolve.named.find`."""
    return find("rule", name, RULES, arguments=3)


def rule_name(rule: str | Rule) -> str:
    """What a report calls a rule: its name, with the arguments it was given in alphabetical order."""
    if isinstance(rule, str):
        return rule_name(find_rule(rule)) if rule.endswith(")") else rule
    return name_of(rule, RULES)


def condition(prior: ScoreModel, forward_model: ForwardModel, y: Tensor, rule: str | Rule = "proximal") -> ScoreModel:
    """Bayes' rule for scores: a score model of p(x | y), with the same contract as the prior.

    Parameters
    ----------
    prior : score model of p(x).
    forward_model : p(y | x).
    y : measurement (B, ...), one per image of the batches to come, or (1, ...) for all.
    rule : a name from :data:`RULES`, or a function (prior, forward_model, y) -> ScoreModel.
    """
    return (find_rule(rule) if isinstance(rule, str) else rule)(prior, forward_model, y)


__all__ = [
    "DPS",
    "RULES",
    "AnnealedLikelihood",
    "ClassifierGradient",
    "ConditionedModel",
    "ExactPosterior",
    "GuidedModel",
    "Merged",
    "MomentMatching",
    "PiGDM",
    "Proximal",
    "Replacement",
    "Rule",
    "ValidatedProximal",
    "Wiener",
    "condition",
    "find_rule",
    "rule_name",
    "separable",
]
