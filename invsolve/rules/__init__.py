"""Rules: how a measurement changes a score. ``condition`` turns a prior into a posterior."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from functools import partial
from importlib.metadata import entry_points

from torch import Tensor

from invsolve.errors import UsageError
from invsolve.forward_models import ForwardModel
from invsolve.rules.annealed import AnnealedLikelihood
from invsolve.rules.classifier_gradient import ClassifierGradient
from invsolve.rules.conditioned import ConditionedModel, GuidedModel, separable
from invsolve.rules.dps import DPS
from invsolve.rules.exact import ExactPosterior
from invsolve.rules.moment_matching import MomentMatching
from invsolve.rules.pigdm import PiGDM
from invsolve.rules.proximal import Proximal, ValidatedProximal
from invsolve.rules.replacement import Replacement
from invsolve.score_model import ScoreModel

Rule = Callable[[ScoreModel, ForwardModel, Tensor], ScoreModel]

RULES: dict[str, Rule] = {
    "proximal": Proximal,
    "validated": ValidatedProximal,
    "annealed": AnnealedLikelihood,
    "replacement": Replacement,
    "dps": DPS,
    "pigdm": PiGDM,
    "moment_matching": MomentMatching,
    "exact": ExactPosterior,
    "classifier_gradient": ClassifierGradient,
}


def find_rule(name: str) -> Rule:
    """A rule by name: the built-in ones, then those that installed packages offer under ``invsolve.rules``.

    Arguments may follow as Python writes them: ``moment_matching(tolerance=0.2, steps=6)``.
    """
    if name.endswith(")"):
        return _with_arguments(name)
    if name in RULES:
        return RULES[name]
    for entry in entry_points(group="invsolve.rules", name=name):
        loaded: Rule = entry.load()
        return loaded
    raise UsageError(f"unknown rule {name!r}", hint=f"known rules: {', '.join(RULES)}")


def _with_arguments(text: str) -> Rule:
    """The rule of a call written as text; only numbers, strings and the like are read, nothing is run."""
    try:
        call = ast.parse(text, mode="eval").body
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and not call.args):
            raise ValueError("not a call by keywords")
        arguments = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
        rule = find_rule(call.func.id)
        inspect.signature(rule).bind(None, None, None, **arguments)
    except UsageError:
        raise
    except (SyntaxError, TypeError, ValueError) as error:
        hint = "wanted a name with keywords, such as moment_matching(tolerance=0.2, steps=6)"
        raise UsageError(f"rule {text!r}: {error}", hint=hint) from None
    return partial(rule, **arguments)


def rule_name(rule: str | Rule) -> str:
    """What a report calls a rule: its name, with the arguments it was given in alphabetical order."""
    if isinstance(rule, str):
        return rule_name(find_rule(rule)) if rule.endswith(")") else rule
    if isinstance(rule, partial):
        names = {id(known): name for name, known in RULES.items()}
        arguments = ", ".join(f"{key}={value}" for key, value in sorted(rule.keywords.items()))
        return f"{names.get(id(rule.func), rule_name(rule.func))}({arguments})"
    return getattr(rule, "__name__", "custom")


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
    "MomentMatching",
    "PiGDM",
    "Proximal",
    "Replacement",
    "Rule",
    "ValidatedProximal",
    "condition",
    "find_rule",
    "rule_name",
    "separable",
]
