"""The bound on a mean's PSNR: what it promises, what it must not see, where it is kept."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from invsolve.errors import InputError, UsageError
from invsolve.posterior import Posterior
from invsolve.summary import Scaling, least_psnr
from invsolve.uncertainty import psnr_bound
from invsolve.uncertainty.conformal import Calibration, LeftOut
from invsolve.uncertainty.psnr_bound import Judged, PsnrBound, expected_error, learn_psnr_bound, ratio_bound


def decibels(error: float) -> float:
    return -10 * math.log10(error)


def judged(count: int, generator: torch.Generator) -> list[Judged]:
    """Pictures as hard as they like, whose errors are more or less than expected."""
    expected = torch.exp(torch.randn(count, generator=generator) - 7).tolist()
    ratios = torch.exp(0.4 * torch.randn(count, generator=generator) + 0.5).tolist()
    return [Judged(decibels(e * r), e) for e, r in zip(expected, ratios, strict=True)]


def test_the_bound_is_an_order_statistic_with_the_probability_that_so_few_have() -> None:
    ratios = [float(k) for k in range(1, 40)]
    assert ratio_bound(ratios[:11]) == (11, pytest.approx(11 / 12))  # 11 patients: 91.7 %, never 95
    assert ratio_bound(ratios[:18]) == (18, pytest.approx(18 / 19))
    assert ratio_bound(ratios[:19]) == (19, pytest.approx(0.95))
    assert ratio_bound(ratios[::-1]) == (38, pytest.approx(0.95))
    assert ratio_bound(ratios, 0.5) == (20, pytest.approx(0.5))


@pytest.mark.parametrize("count", [5, 19])
def test_a_new_picture_is_above_its_bound_as_often_as_said(count: int, generator: torch.Generator) -> None:
    held, trials = 0, 2000
    for _ in range(trials):
        *known, new = judged(count + 1, generator)
        bound = learn_psnr_bound({str(k): one for k, one in enumerate(known)})
        held += new.psnr >= bound.at_least(new.expected)
    level = count / (count + 1)
    assert bound.level == pytest.approx(level)
    assert held / trials == pytest.approx(level, abs=4 * math.sqrt(level * (1 - level) / trials))


def test_the_left_out_group_is_not_seen(generator: torch.Generator) -> None:
    groups = {str(k): one for k, one in enumerate(judged(8, generator))}
    found = {one.group: one for one in learn_psnr_bound(groups).groups}
    strange = {**groups, "3": Judged(groups["3"].psnr - 60, groups["3"].expected)}
    after = {one.group: one for one in learn_psnr_bound(strange).groups}
    assert after["3"].bound == found["3"].bound
    assert after["3"].psnr < after["3"].bound
    assert all(after[name].bound < found[name].bound - 30 for name in groups if name != "3")


def test_of_few_groups_all_but_one_are_above_by_construction(generator: torch.Generator) -> None:
    bound = learn_psnr_bound({str(k): one for k, one in enumerate(judged(8, generator))})
    assert bound.held == 7 / 8
    assert bound.margin > 0
    assert min(one.psnr - bound.at_least(10 ** (-one.psnr / 10) / one.ratio) for one in bound.groups) == pytest.approx(
        0
    )


@pytest.mark.parametrize("antithetic", [False, True])
@pytest.mark.parametrize("count", [3, 4, 9])
def test_samples_of_the_posterior_err_as_expected(count: int, antithetic: bool, generator: torch.Generator) -> None:
    shape = (1, 1, 1, 100_000)
    half = torch.randn(-(-count // 2), *shape, generator=generator)
    other = -half if antithetic else torch.randn(half.shape, generator=generator)
    samples = 0.5 + 0.05 * torch.stack([half, other], dim=1).flatten(0, 1)[:count]
    truth = 0.5 + 0.05 * torch.randn(shape, generator=generator)
    found = expected_error(samples, antithetic=antithetic)
    if antithetic and count % 2:  # the one without a partner adds an uncertainty that is left out
        found += 0.05**2 / count**2
    assert found == pytest.approx(float((samples.mean(dim=0) - truth).square().mean()), rel=0.02)


def test_large_pictures_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch, generator: torch.Generator) -> None:
    samples = torch.rand(5, 1, 3, 9, 7, generator=generator)
    whole = expected_error(samples, antithetic=True)
    monkeypatch.setattr(psnr_bound, "VALUES_AT_ONCE", 10)
    assert expected_error(samples, antithetic=True) == pytest.approx(whole, rel=1e-6)


def test_what_is_clipped_is_not_uncertain() -> None:
    samples = torch.tensor([-0.3, -0.1, 0.0]).reshape(3, 1).expand(3, 4)
    assert expected_error(samples) == 1e-12
    with pytest.raises(UsageError, match="1 sample"):
        expected_error(samples[:1])


def test_what_cannot_be_learned_from_is_said(generator: torch.Generator) -> None:
    one, other = judged(2, generator)
    with pytest.raises(UsageError, match="1 group"):
        learn_psnr_bound({"one": one})
    with pytest.raises(UsageError, match="level 1"):
        learn_psnr_bound({"one": one, "other": other}, 1.0)
    with pytest.raises(InputError, match="other has a PSNR of inf"):
        learn_psnr_bound({"one": one, "other": Judged(math.inf, 1e-12)})


# -- in a calibration -------------------------------------------------------------------------------------------------------
def calibration(bound: PsnrBound | None) -> Calibration:
    return Calibration(
        task="inpaint", prior_sha256="a" * 64, rule="proximal", sampler="renoising", steps=50, samples=3, level=0.9,
        factor=2.0, groups=[LeftOut("x.png", 0.5, 0.91, 1.9)], problem={"missing": 0.5}, psnr=bound,
    )  # fmt: skip


BOUND = learn_psnr_bound({"x.png": Judged(30.0, 1e-3), "y.png": Judged(28.0, 1e-3)})


def test_a_bound_is_kept_and_files_without_are_read(tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    for bound in (BOUND, None):
        calibration(bound).save(file)
        assert Calibration.load(file) == calibration(bound)
    old = json.loads(file.read_text())
    del old["psnr"]
    file.write_text(json.dumps(old))
    assert Calibration.load(file).psnr is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"level": 1.2}, "level 1.2"),
        ({"ratio": 0}, "ratio 0"),
        ({"ratio": "2"}, "ratio is '2'"),
        ({"groups": []}, "0 groups"),
        ({"groups": 3}, "groups is 3"),
        ({"groups": [{"group": "x"}]}, "no bound"),
        ({"groups": [{**BOUND.groups[0]._asdict(), "psnr": None}]}, "psnr is None"),
        ({"more": 1}, "'more' is not known"),
    ],
)
def test_a_bound_that_is_none_is_refused(change: dict, said: str, tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    calibration(BOUND).save(file)
    values = json.loads(file.read_text())
    file.write_text(json.dumps({**values, "psnr": {**values["psnr"], **change}}))
    with pytest.raises(InputError, match="calibration") as refused:
        Calibration.load(file)
    assert said in refused.value.message
    file.write_text(json.dumps({**values, "psnr": [1]}))
    with pytest.raises(InputError, match="psnr is"):
        Calibration.load(file)


def test_no_bound_is_given_where_it_would_be_false(generator: torch.Generator) -> None:
    samples = 0.5 + 0.1 * torch.randn(3, 1, 3, 8, 8, generator=generator)
    one = Posterior(samples)
    expected = expected_error(samples)
    found = least_psnr(one, Scaling(applied=calibration(BOUND)))
    assert found == pytest.approx(decibels(BOUND.ratio * expected))
    assert least_psnr(one, Scaling(alike=calibration(BOUND))) is None
    assert least_psnr(one, Scaling(applied=calibration(None))) is None
    assert least_psnr(one, Scaling(applied=calibration(BOUND), warning="other noise")) is None
    assert least_psnr(Posterior(samples.expand(3, 2, 3, 8, 8)), Scaling(applied=calibration(BOUND))) is None
    # In other units it is the same bound, from the white that they have.
    other = least_psnr(Posterior(50 * samples), Scaling(applied=calibration(BOUND)), white=50.0)
    assert other == pytest.approx(found, abs=1e-4)
    # In pairs the spread is another.
    paired = Posterior(samples, settings={"antithetic": True})
    assert least_psnr(paired, Scaling(applied=calibration(BOUND))) == pytest.approx(
        decibels(BOUND.ratio * expected_error(samples, antithetic=True))
    )
