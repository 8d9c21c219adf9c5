"""The factor on the intervals' width: what it is, what it covers, what it must not see, where it is kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from invsolve.errors import InputError, UsageError
from invsolve.uncertainty.conformal import Calibration, LeftOut, covered, learn_factor, leave_one_out, scale, scores
from invsolve.uncertainty.intervals import attainable_interval, coverage


def narrow_group(seed: int, *, spread: float = 0.5, pixels: int = 3000) -> tuple[torch.Tensor, torch.Tensor]:
    """19 samples ``spread`` times as wide as the truth's own distribution, another width in every pixel."""
    generator = torch.Generator().manual_seed(seed)
    width = torch.rand(1, 1, 1, pixels, generator=generator) + 0.1
    truth = width * torch.randn(1, 1, 1, pixels, generator=generator)
    return spread * width * torch.randn(19, 1, 1, 1, pixels, generator=generator), truth


def narrow_scores(count: int = 12, spread: float = 0.5) -> dict[str, torch.Tensor]:
    pairs = {f"group {seed}": narrow_group(seed, spread=spread) for seed in range(count)}
    return {name: scores(attainable_interval(samples), truth) for name, (samples, truth) in pairs.items()}


@pytest.mark.parametrize("spread", [0.5, 1.0, 2.0])
def test_intervals_of_the_wrong_width_are_put_right(spread: float) -> None:
    groups = narrow_scores(spread=spread)
    # Samples too wide have a median too uncertain as well, which takes some of the narrowing back.
    assert learn_factor(list(groups.values())) == pytest.approx(1 / spread, rel=0.03 if spread <= 1 else 0.08)
    left_out = leave_one_out(groups)
    mean = sum(group.after for group in left_out) / len(left_out)
    assert mean == pytest.approx(0.9, abs=0.01)
    assert all(group.after == pytest.approx(0.9, abs=0.03) for group in left_out)  # five standard errors of 3000 pixels
    before = sum(group.before for group in left_out) / len(left_out)
    assert before == pytest.approx({0.5: 0.64, 1.0: 0.9, 2.0: 0.994}[spread], abs=0.02)


def test_the_left_out_group_is_not_seen() -> None:
    groups = narrow_scores(5)
    honest = {group.group: group for group in leave_one_out(groups)}
    strange = {**groups, "group 2": 1000 * groups["group 2"] + 1000}
    after = {group.group: group for group in leave_one_out(strange)}
    assert after["group 2"].factor == honest["group 2"].factor
    assert after["group 2"].after == 0
    assert all(after[name].factor > honest[name].factor for name in groups if name != "group 2")
    others = [groups[name] for name in groups if name != "group 2"]
    assert honest["group 2"].factor == learn_factor(others)
    assert honest["group 2"].after == covered(groups["group 2"], learn_factor(others))


def test_a_score_is_the_factor_that_just_covers() -> None:
    samples, truth = narrow_group(0)
    interval = attainable_interval(samples)
    found = scores(interval, truth)
    assert covered(found) == pytest.approx(coverage(samples, truth), abs=1e-3)
    for factor in (0.5, 1.7, 3.0):
        low, _, high, _ = scale(interval, factor)
        assert covered(found, factor) == pytest.approx(
            float(((truth >= low) & (truth <= high)).double().mean()), abs=1e-3
        )
    # An asymmetric interval keeps its shape: 0 to 4 about 1 becomes -1 to 7.
    asymmetric = attainable_interval(torch.tensor([0.0, 1.0, 4.0]).reshape(3, 1, 1, 1, 1))
    assert [float(bound) for bound in scale(asymmetric, 2)[:3]] == [-1, 1, 7]
    half = torch.arange(3000).reshape(1, 1, 1, -1) < 1500
    assert len(scores(interval, truth, half)) == 1500
    with pytest.raises(InputError, match="shape"):
        scores(interval, truth[..., :10])
    with pytest.raises(InputError, match="no pixel"):
        scores(interval, truth, torch.zeros_like(truth))


def test_every_group_counts_the_same_whatever_its_size() -> None:
    large, small = torch.full((9000,), 1.0), torch.full((10,), 5.0)
    assert learn_factor([large, small], 0.4) == 1.0
    assert learn_factor([large, small], 0.6) == 5.0


def test_the_guarantee_holds_for_a_new_group() -> None:
    """Groups that differ among each other: on average over calibrations a new one is covered."""
    generator = torch.Generator().manual_seed(0)
    plain, guaranteed = [], []
    for _ in range(300):
        size = torch.exp(0.5 * torch.randn(13, 1, generator=generator))
        *known, new = size * torch.randn(13, 200, generator=generator).abs()
        plain.append(covered(new, learn_factor(known)))
        guaranteed.append(covered(new, learn_factor(known, guaranteed=True)))
    error = torch.tensor(guaranteed).std() / 300**0.5
    assert sum(guaranteed) / 300 >= 0.9 - 2 * float(error)
    assert sum(plain) / 300 < sum(guaranteed) / 300
    assert sum(plain) / 300 == pytest.approx(0.9, abs=0.03)
    nine = list(narrow_scores(9).values())
    assert learn_factor(nine, guaranteed=True) == max(float(group.max()) for group in nine)
    with pytest.raises(UsageError, match="at least 9"):
        learn_factor(nine[:8], guaranteed=True)


def test_what_cannot_be_learned_from_is_said() -> None:
    with pytest.raises(UsageError, match="level"):
        learn_factor([torch.ones(3)], 1.0)
    with pytest.raises(UsageError, match="no groups"):
        learn_factor([])
    with pytest.raises(UsageError, match="at least 2"):
        leave_one_out({"one": torch.ones(3)})


CALIBRATION = Calibration(
    task="inpaint", prior_sha256="a" * 64, rule="proximal", sampler="renoising", steps=50, samples=3, level=0.9,
    factor=2.0, groups=[LeftOut("x.png", 0.5, 0.91, 1.9), LeftOut("y.png", 0.6, 0.89, 2.1)],
    problem={"missing": 0.5, "noise": 0.0}, where="the missing pixels",
)  # fmt: skip


def test_a_calibration_is_kept_and_knows_what_it_is_for(tmp_path: Path) -> None:
    CALIBRATION.save(tmp_path / "c.json")
    found = Calibration.load(tmp_path / "c.json")
    assert found == CALIBRATION
    assert found.before == pytest.approx(0.55)
    assert found.after == pytest.approx(0.90)
    found.check(task="inpaint", prior_sha256="a" * 64, rule="proximal", sampler="renoising", steps=50, samples=3)
    for name, other in {"task": "ct", "prior_sha256": "b" * 64, "rule": "dps", "steps": 49, "samples": 19}.items():
        with pytest.raises(UsageError, match=name.split("_")[0]):
            found.check(**{name: other})
    assert found.warning({"missing": 0.52, "noise": 0.0}) is None
    assert "noise 0.05 (learned with 0)" in str(found.warning({"missing": 0.5, "noise": 0.05}))
    applied = found.apply(torch.tensor([0.0, 1.0, 4.0]).reshape(3, 1, 1, 1, 1))
    assert [float(v) for v in applied[:3]] == [-1, 1, 7]
    assert applied.level == 0.9
    with pytest.raises(UsageError, match="4 samples"):
        found.apply(torch.zeros(4, 1, 1, 1, 1))


def test_what_differed_among_the_groups_may_differ_as_much(tmp_path: Path) -> None:
    found = replace(CALIBRATION, problem={"noise": 0.01, "coils": 1.0}, ranges={"noise": (0.005, 0.018)})
    found.save(tmp_path / "c.json")
    assert Calibration.load(tmp_path / "c.json") == found
    for noise in (0.0046, 0.005, 0.007, 0.018, 0.0199):  # the ends with the tenth that is granted
        assert found.warning({"noise": noise, "coils": 1.0}) is None
    for noise in (0.0044, 0.0201):
        assert f"noise {noise:.3g} (learned with 0.005 to 0.018)" in str(found.warning({"noise": noise}))
    assert "coils 8 (learned with 1)" in str(found.warning({"noise": 0.01, "coils": 8.0}))
    replace(found, ranges={"noise": (2.0, 1.0)}).save(tmp_path / "c.json")
    with pytest.raises(InputError, match=r"noise from 2.0 to 1.0"):
        Calibration.load(tmp_path / "c.json")
    fields = json.loads((tmp_path / "c.json").read_text())
    (tmp_path / "c.json").write_text(json.dumps({**fields, "ranges": {"noise": [1.0]}}))
    with pytest.raises(InputError, match="ranges"):
        Calibration.load(tmp_path / "c.json")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 1}', '{"format": 9}', "\x00"])
def test_a_file_that_is_no_calibration_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(InputError, match="calibration"):
        Calibration.load(tmp_path / "c.json")
    with pytest.raises(InputError, match="no such file"):
        Calibration.load(tmp_path / "absent.json")


def test_a_factor_that_is_none_is_refused(tmp_path: Path) -> None:
    replace(CALIBRATION, factor=0.0).save(tmp_path / "c.json")
    with pytest.raises(InputError, match="factor 0"):
        Calibration.load(tmp_path / "c.json")
    fields = json.loads((tmp_path / "c.json").read_text())
    (tmp_path / "c.json").write_text(json.dumps({**fields, "factor": "two"}))
    with pytest.raises(InputError, match="cannot read"):
        Calibration.load(tmp_path / "c.json")
