"""Names with arguments, own rules and samplers: read without running anything, refused with the reason."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
from typer.testing import CliRunner

from invsolve.cli.app import app
from invsolve.errors import UsageError
from invsolve.named import LONGEST
from invsolve.rules import find_rule
from invsolve.samplers import find_sampler
from invsolve.typed import brief, first_misfit, fits

NO_SAMPLERS = {
    "renoising(eta=1e999)": "eta is inf, wanted a finite number or None",
    "renoising(eta='x')": "eta is 'x'",
    "renoising(eta=True)": "eta is True",
    "renoising(eta=-1)": "eta is -1, wanted 0 to",
    "renoising(eta=1e300)": "wanted 0 to 1e\\+12",
    "renoising(eta=nan)": "eta is not a number",
    "renoising(eta=__import__('os').abort())": "eta is not a number",
    f"renoising(eta={'[' * 150}{']' * 150})": "eta is ",
    f"renoising(eta={'-' * 400}1)": "sampler",
    f"renoising(eta={'9' * 400})": "eta is 999",
    "(" * 400 + ")": "nested",
    "x" * 100_000: "unknown sampler 'xxx",
    "x" * 100_000 + ")": f"at most {LONGEST}",
    "rénoising(eta=1)": "unknown sampler 'rénoising'",
    "renoising\0(eta=1)": "null bytes",
    "\udcff()": "surrogates",
    "renoising(callback=3)": "callback is 3",
    "renoising(model=3)": "multiple values",
    "renoising(sigma=3)": "sigma",
    "renoising(1)": "not a call by keywords",
    "renoising(**{})": "not a call by keywords",
    "renoising(eta=1, eta=2)": "given once",
    "(lambda: 0)()": "not a call",
    "heun_sde(churn_range=(1, 2, 3))": "churn_range is \\(1, 2, 3\\), wanted \\(a finite number, a finite number\\)",
    "pc(corrector_steps=0.5)": "wanted a whole number",
    "pc(corrector_steps=1000000000)": "wanted 0 to 1000000",
    "pc(measured_norms=1)": "wanted True or False",
}


@pytest.mark.parametrize("text", list(NO_SAMPLERS), ids=lambda text: brief(text, 30))
def test_what_is_no_sampler_is_refused(text: str, recwarn: pytest.WarningsRecorder) -> None:
    with pytest.raises(UsageError, match=NO_SAMPLERS[text]) as refused:
        find_sampler(text)
    assert len(refused.value.message) < 400
    assert not recwarn.list


def test_arguments_of_the_right_types_are_taken() -> None:
    for text in ("renoising(eta=None)", "heun_sde(churn_range=[0.1, 2], noise_scale=1)", "pc(measured_norms=False)"):
        assert callable(find_sampler(text))
    for text in ("dps(weight='norm')", "moment_matching(steps=3, tolerance=1e-3)", "proximal(lam=2)"):
        assert callable(find_rule(text))
    with pytest.raises(UsageError, match="weight is 'x', wanted 'annealed' or 'norm'"):
        find_rule("dps(weight='x')")


@pytest.mark.parametrize(
    ("value", "wanted", "expected"),
    [
        (1, float, True), (math.nan, float, False), (True, float, False), (10**400, float, False), (True, int, False),
        (2**63, int, False), ("a", str, True), (None, int | None, True), ([1, 2.5], tuple[float, float], True),
        ([1], tuple[float, float], False), ([], tuple[int, ...], True), (["a"], list[int], False),
        ({"a": 1}, dict[str, float], True), ({1: 1}, dict[str, float], False), (True, Literal[1], False),
        (print, "Callable", False),
    ],
)  # fmt: skip
def test_values_fit_their_types(value: Any, wanted: Any, expected: bool) -> None:
    assert fits(value, wanted) is expected


def test_the_first_misfit_is_named() -> None:
    assert first_misfit({"a": 1, "b": "x"}, {"a": float, "b": int}) == "b is 'x', wanted a whole number"
    assert first_misfit({"c": 1}, {"a": float}) == "'c' is not known"
    assert first_misfit({"a": 1}, {"a": float}) is None


OWN = """
from invsolve.rules import Proximal

class NotARule: pass
instance = NotARule()

class Raises(Proximal):
    def __init__(self, prior, forward_model, y):
        raise ValueError("not today")

class RaisesLater(Proximal):
    def predict(self, x, sigma):
        return {}["x"]

class Ends(Proximal):
    def __init__(self, prior, forward_model, y):
        raise SystemExit(3)

class WrongShape(Proximal):
    def predict(self, x, sigma):
        found = super().predict(x, sigma)
        return found._replace(x0=found.x0[:, :1, :2])

def number(prior, forward_model, y):
    return 5

def shorter(model, x, sigmas, noise):
    return x[:1]

def nothing(model, x, sigmas, noise):
    pass

def operator():
    raise RuntimeError("no operator")

class Fine(Proximal): pass
"""

NOT_ONES_OWN = {
    "-r os:system": "os:system is no rule: it is the function system(command)",
    "-s math:sqrt": "math:sqrt is no sampler",
    "--operator json:loads": "json:loads is no operator: it is the function loads(s",
    "--operator os:abort": "os:abort is no operator",
    "--operator own_rules:instance": "own_rules:instance is no operator: it is a NotARule",
    "--operator own_rules:operator": "your operator own_rules:operator raised RuntimeError: no operator",
    "-r own_rules:NotARule": "is no rule: it is the class NotARule()",
    "-r own_rules:instance": "is no rule: it is a NotARule",
    "-r own_rules:absent": "has no attribute 'absent'",
    "-r own_rules:number": "your rule own_rules:number returned a int",
    "-r own_rules:Raises": "your rule own_rules:Raises raised ValueError: not today",
    "-r own_rules:RaisesLater -r proximal": "your rule own_rules:RaisesLater raised KeyError",
    "-r own_rules:Ends": "your rule own_rules:Ends raised SystemExit: 3",
    "-r own_rules:WrongShape": "your rule own_rules:WrongShape raised RuntimeError",
    "-s own_rules:shorter": "your sampler own_rules:shorter returned a Tensor of shape (1, 3, 8, 8)",
    "-s own_rules:nothing": "your sampler own_rules:nothing returned a NoneType",
    "-r own_broken:x": "importing own_broken raised ZeroDivisionError",
    "-r own_unfinished:x": "importing own_unfinished raised SyntaxError",
    "-r no.such.module:x": "No module named 'no'",
    "-r :": "cannot load ':'",
    "-r .x:y": "cannot load '.x:y'",
}


@pytest.mark.parametrize("options", list(NOT_ONES_OWN))
def test_own_code_is_checked_and_blamed(options: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_rules.py").write_text(OWN)
    (tmp_path / "own_broken.py").write_text("1 / 0")
    (tmp_path / "own_unfinished.py").write_text("def (")
    with monkeypatch.context() as fresh:  # each folder has an own_rules of its own
        fresh.delitem(sys.modules, "own_rules", raising=False)
        more = ["-s", "renoising"] if "-s " not in options else []
        done = CliRunner().invoke(app, ["verify", "-p", "blur", "--steps", "3", *more, *options.split()])
    assert isinstance(done.exception, UsageError)
    assert NOT_ONES_OWN[options] in done.exception.message


def test_ones_own_rule_is_judged_under_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_fine.py").write_text(OWN)
    arguments = ["verify", "-p", "blur", "-s", "invsolve.samplers:renoising", "--steps", "3", "--json"]
    done = CliRunner().invoke(app, [*arguments, "-r", "own_fine:Fine", "-r", "proximal"])
    assert done.exit_code == 0, done.output
    own, known = json.loads(done.stdout)
    assert (own["rule"], own["sampler"], known["rule"]) == ("Fine", "renoising", "proximal")
    assert own["bias"] == known["bias"]
