"""Every rule with every sampler, turned or not, on square and oblong pictures: it runs as promised, or says why not."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from invsolve import solve
from invsolve.errors import UsageError
from invsolve.forward_models import CleanClassifier, ForwardModel, GaussianNoise, Grayscale, Identity
from invsolve.models.gaussian import GaussianPrior, smooth_gaussian_prior
from invsolve.models.orientation import OrientedModel
from invsolve.models.score_model import FunctionPrior
from invsolve.rules import RULES
from invsolve.samplers import SAMPLERS
from invsolve.samplers.info import HANDED_OVER
from invsolve.samplers.sigmas import karras

REFUSED = {
    *((rule, "twisted") for rule in RULES if rule not in ("dps", "pigdm", "moment_matching")),
    *((rule, "redrawing") for rule in RULES if rule not in ("wiener", "merged", "exact")),
    ("exact", "split_gibbs"),
    ("exact", "daps"),
    ("classifier_gradient", "split_gibbs"),
    ("classifier_gradient", "daps"),
    ("replacement", "ode_adaptive"),
    ("replacement", "sde_adaptive"),
}
"""Pairs that cannot be; the table of docs/samplers.md says the same."""

SHORT: dict[str, dict[str, Any]] = {
    "langevin": {"langevin_steps": 2},
    "split_gibbs": {"sweeps": 1},
    "twisted": {"particles": 3},
    "ode_adaptive": {"rtol": 1e-2, "atol": 1e-2},
    "sde_adaptive": {"rtol": 0.5, "atol": 0.1},
}


def pixelwise(prior: GaussianPrior) -> FunctionPrior:
    """Independent Gaussian pixels: a prior of any size and orientation."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return 0.5 + (x - 0.5) / (1 + 16 * sigma.reshape(-1, 1, 1, 1) ** 2)

    return FunctionPrior(denoise, channels=prior.channels, sigma_min=prior.sigma_min, sigma_max=prior.sigma_max)


def problem(rule: str, prior: GaussianPrior) -> tuple[ForwardModel, Tensor]:
    generator = torch.Generator().manual_seed(1)
    if rule == "classifier_gradient":
        return CleanClassifier(lambda x: x.mean(dim=(2, 3)), classes=("a", "b", "c")), torch.tensor([0, 2])
    operator = Identity(prior.shape) if rule == "merged" else Grayscale(prior.shape)
    forward_model = ForwardModel(operator, GaussianNoise(0.1))
    return forward_model, forward_model.simulate(prior.sample(2, generator), generator)


@pytest.mark.parametrize("shape", [(3, 3, 3), (3, 2, 4)], ids=["square", "oblong"])
@pytest.mark.parametrize("sampler", list(SAMPLERS))
@pytest.mark.parametrize("rule", list(RULES))
def test_a_pair_runs_or_is_refused(rule: str, sampler: str, shape: tuple[int, int, int]) -> None:
    gaussian = smooth_gaussian_prior(shape)
    forward_model, y = problem(rule, gaussian)
    prior = gaussian if rule == "exact" else pixelwise(gaussian)
    options: dict[str, Any] = {
        "rule": rule, "sampler": sampler, "sigmas": karras(3, 0.05, 1.0), "samples": 2, "seed": 3,
        "start": gaussian.mean.expand(2, *shape), "batch": 3, **SHORT.get(sampler, {}),
    }  # fmt: skip
    for turn in (False, True):
        if (rule, sampler) in REFUSED:
            with pytest.raises(UsageError, match=f"'?{sampler}'? "):
                solve(prior, forward_model, y, turn=turn, **options)
            continue
        found, again = (solve(prior, forward_model, y, turn=turn, **options).samples for _ in range(2))
        assert found.shape == (2, 2, *shape)
        assert bool(torch.isfinite(found).all())
        assert torch.equal(found, again)


REFERENCE = Path(__file__).resolve().parents[1] / "docs" / "samplers.md"
documented = pytest.mark.skipif(not REFERENCE.exists(), reason="the source distribution has no docs")


def sections() -> dict[str, str]:
    """What docs/samplers.md says of each rule and sampler, by its heading."""
    parts = re.split(r"^##+ ", REFERENCE.read_text(), flags=re.MULTILINE)
    return {part.partition("`")[2].partition("`")[0]: part for part in parts if part.startswith("`")}


@documented
@pytest.mark.parametrize("name", [*RULES, *SAMPLERS])
def test_the_reference_has_a_section_with_every_argument(name: str) -> None:
    text = sections()[name]
    for point in ("Source", "Arguments", "Cost", "Ladder", "Bias", "Take it"):
        assert f"- **{point}**" in text
    function: Any = {**RULES, **SAMPLERS}[name]
    taken = 3 if name in RULES else 4
    for parameter in list(inspect.signature(function).parameters.values())[taken:]:
        if parameter.name not in HANDED_OVER:
            assert f"`{parameter.name} = {parameter.default!r}`".replace("'", '"') in text


@documented
def test_the_reference_says_which_pairs_run() -> None:
    table = REFERENCE.read_text().partition("## Which pairs run")[2].partition("## Symbols")[0]
    head, _, *rows = [
        [cell.strip(" `") for cell in row.strip("|").split("|")] for row in table.split("\n") if row[:1] == "|"
    ]
    said = {(rule, row[0]): cell for row in rows for rule, cell in zip(head[1:], row[1:], strict=True)}
    assert said == {
        (rule, sampler): "refused" if (rule, sampler) in REFUSED else "runs" for rule in RULES for sampler in SAMPLERS
    }


@pytest.mark.parametrize("shape", [(3, 5, 5), (3, 5, 7)], ids=["square", "oblong"])
def test_particles_are_turned_as_their_image(shape: tuple[int, int, int]) -> None:
    shown: list[Tensor] = []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        shown.append(x)
        return x / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)

    prior = FunctionPrior(denoise, channels=3)
    # Two images, three particles each: the same picture, so that what the prior is shown tells the orientation.
    x = torch.rand(2, *shape).repeat_interleave(3, dim=0)
    sigmas = torch.tensor([0.1, 0.5, 2.0, 0.2, 0.3, 0.4])
    expected = prior.denoise(x, sigmas)
    shown.clear()
    torch.testing.assert_close(OrientedModel(prior, [0, 1]).denoise(x, sigmas), expected)
    pictures = [image for batch in shown for image in batch]
    assert len(pictures) == 6
    for image in (0, 3):
        first, *others = pictures[image : image + 3]
        assert all(torch.equal(first, other) for other in others)


def test_rows_that_belong_to_no_image_are_refused() -> None:
    prior = FunctionPrior(lambda x, sigma: x, channels=3)
    with pytest.raises(UsageError, match="batch of 3 for 2 images"):
        OrientedModel(prior, [0, 1]).denoise(torch.zeros(3, 3, 4, 4), 1.0)
