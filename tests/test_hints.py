"""Hints for colorization: what they measure, the posterior in closed form, strokes in the result, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from invsolve import colorize, solve
from invsolve.colours import LUMA_GAIN, Colours, from_rgb, luma, luma_first, rgb
from invsolve.errors import ExitCode, InputError, InvsolveError
from invsolve.models.gaussian import GaussianPrior, smooth_gaussian_prior
from invsolve.models.score_model import FunctionPrior
from invsolve.samplers.sigmas import karras
from invsolve.tasks.baselines import scribbled
from invsolve.tasks.colorization import SCRIBBLES, colorization_task
from invsolve.tasks.hints import (
    HINT_STD,
    LEAST_STD,
    Averages,
    alike,
    check_hints,
    check_reference,
    measurement,
    shrunk_hints,
)

COLOURS: tuple[Colours, ...] = ("luma first", "rgb")


def picture(height: int = 8, width: int = 8) -> np.ndarray:
    """Half dark and half light, with mild colours; float32 RGB (H, W, 3)."""
    grey = np.where(np.arange(height) < height // 2, 0.3, 0.7)[:, None].repeat(width, axis=1)
    chroma = np.random.default_rng(0).uniform(-0.05, 0.05, (2, height, width)) + [[[0.05]], [[-0.04]]]
    planes = rgb(torch.from_numpy(np.stack([LUMA_GAIN * grey, *chroma])))
    return planes.permute(1, 2, 0).numpy().astype(np.float32)


def strokes(colours: np.ndarray, *where: Any, opacity: float = 1.0) -> np.ndarray:
    """``colours`` (H, W, 3) with an opacity that is not 0 at the indices ``where``."""
    alpha = np.zeros((*colours.shape[:2], 1), np.float32)
    for index in where:
        alpha[index] = opacity
    return np.concatenate([colours, alpha], axis=2).astype(np.float32)


def planes(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))[None]


@pytest.mark.parametrize("colours", COLOURS)
def test_a_picture_fits_its_own_hints_and_averages(colours: Colours) -> None:
    truth = picture()
    grey = torch.from_numpy(luma(truth))[None, None]
    hints = check_hints(strokes(truth, (1, 2), (5, 5)), luma(truth))
    known = measurement(grey, colours, hints, check_reference(truth))
    x = from_rgb(planes(truth), colours)
    assert known.forward_model.linear.measured_values == 64 + 2 * 2 + 2 * 2  # grey, two strokes, two bins of luma
    misfit = known.forward_model.residual(x, known.y)[0]  # in standard deviations
    assert float(misfit[:192].abs().max()) < 0.01
    assert float(misfit[192:].abs().max()) < 0.1  # luma that varies within a bin would be all there is to it
    # A cast shows in the strokes and in the averages, and not in the grey.
    cast = from_rgb(rgb(luma_first(planes(truth)) + torch.tensor([0, 0.1, 0]).reshape(1, 3, 1, 1)), colours)
    shifted = known.forward_model.residual(cast, known.y)[0]
    assert float(shifted[:64].abs().max()) < 0.01
    at_strokes = shifted[64:192].reshape(2, 8, 8)[:, [1, 5], [2, 5]].norm(dim=0)
    torch.testing.assert_close(at_strokes, torch.full((2,), 0.1 / HINT_STD), rtol=0.08, atol=0)
    assert float(shifted[192:].norm()) > 1


@pytest.mark.parametrize("colours", COLOURS)
@pytest.mark.parametrize("with_reference", [False, True])
def test_the_posterior_of_a_gaussian_prior(colours: Colours, with_reference: bool) -> None:
    # The length makes a stroke say something of its neighbours.
    shape = (3, 5, 5)
    if colours == "rgb":
        prior = smooth_gaussian_prior(shape, std=0.2, length=2.0)
    else:
        one = smooth_gaussian_prior(shape, std=1.0, length=2.0, channel_correlation=0.3)
        scale = torch.tensor([1.6, 0.07, 0.07], dtype=torch.float64).repeat_interleave(25)
        mean = torch.zeros(shape, dtype=torch.float64)
        mean[0] = 0.5 * LUMA_GAIN
        prior = GaussianPrior(mean, scale[:, None] * one.covariance * scale)
    prior.facts = replace(prior.facts, colours=colours)
    x = prior.sample(1, torch.Generator().manual_seed(0))
    first = x if colours == "luma first" else luma_first(x)
    grey = first[:, :1] / LUMA_GAIN
    colour = rgb(first)[0].permute(1, 2, 0).numpy().clip(0, 1)
    hints = check_hints(strokes(colour, (1, 1), (4, 2)), grey[0, 0].numpy())
    reference = Averages(torch.full((2, 5), 0.05), torch.full((2, 5), 0.04), torch.full((5,), 0.2))
    known = measurement(grey, colours, hints, reference if with_reference else None)
    exact = prior.posterior(known.forward_model, known.y.double())
    found = solve(
        prior, known.forward_model, known.y.double(), rule="moment_matching(tolerance=0.001, steps=80)",
        sampler="multistep", sigmas=karras(20, 0.001, 10.0), start=prior.mean[None], samples=150, batch=150,
    )  # fmt: skip
    spread = exact.covariance.diagonal().reshape(shape).sqrt()
    chroma = slice(1, 3) if colours == "luma first" else slice(0, 3)
    off = (found.samples[:, 0].mean(dim=0) - exact.mean) / spread
    assert float(off[chroma].square().mean().sqrt()) < 0.2  # 1 / sqrt(150) = 0.08 is chance
    assert float((found.samples[:, 0].std(dim=0) / spread)[chroma].mean()) == pytest.approx(1, abs=0.15)
    # And it is another posterior than the grey's alone.
    alone = measurement(grey, colours, None, None)
    plain = prior.posterior(alone.forward_model, alone.y.double())
    assert float(((exact.mean - plain.mean) / spread)[chroma].square().mean().sqrt()) > 0.4


def bluish(colours: Colours = "luma first", chroma: tuple[float, float] = (0.1, -0.05)) -> FunctionPrior:
    """A prior that knows of one colour only, and lets a rule that wants its Jacobian have one."""

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        target = from_rgb(rgb(torch.tensor([0.5 * LUMA_GAIN, *chroma]).reshape(1, 3, 1, 1)), colours)
        share = 0.01 / (0.01 + sigma.reshape(-1, 1, 1, 1) ** 2)
        return target.expand_as(x) + share * (x - target)

    return FunctionPrior(denoise, channels=3, colours=colours, frame=32)


@pytest.mark.parametrize("colours", COLOURS)
def test_strokes_hold_in_the_large_picture(colours: Colours) -> None:
    grey = np.linspace(0.35, 0.65, 300 * 260, dtype=np.float32).reshape(300, 260)
    stroke, wanted = (slice(40, 44), slice(30, 120)), (-0.06, 0.12)
    paint = rgb(torch.tensor([0.5 * LUMA_GAIN, *wanted]).reshape(3, 1, 1)).expand(3, 300, 260).permute(1, 2, 0).numpy()
    result = colorize(grey, bluish(colours), hints=strokes(paint, stroke), steps=6, samples=2)
    assert result.chi2.numel() == 0
    for sample in result.samples[:, 0]:
        there = luma_first(sample)
        torch.testing.assert_close(there[0] / LUMA_GAIN, torch.from_numpy(grey), atol=1e-5, rtol=0)
        for channel, value in zip(there[1:], wanted, strict=True):
            assert float((channel[stroke] - value).abs().max()) < 1 / 255
        # It fades over a few pixels of the working size, some 8 of these, instead of ending at the brush.
        near, far = there[2, 45:47, 60:90].mean(), there[2, 200:, :].mean()
        assert float(near) > 0.06
        assert float(far) == pytest.approx(-0.05, abs=0.04)


def test_a_transparent_stroke_is_vaguer() -> None:
    grey = np.full((64, 64), 0.5, np.float32)
    paint = np.broadcast_to(np.float32([0.7, 0.45, 0.4]), (64, 64, 3))
    stroke = (slice(20, 40), slice(20, 40))
    reds = []
    for opacity in (1.0, 0.5, 0.1):
        result = colorize(grey, bluish(), hints=strokes(paint, stroke, opacity=opacity), steps=6, samples=2)
        reds.append(float(luma_first(result.samples[:, 0])[:, 2, 25:35, 25:35].mean()))
    assert reds[0] > reds[1] + 0.02 > reds[2] + 0.03
    chroma, std = shrunk_hints(check_hints(strokes(paint, stroke), grey), torch.full((1, 1, 16, 16), 0.5))
    assert float(std[0, 0, 7, 7]) == pytest.approx(HINT_STD, rel=1e-4)
    assert torch.isinf(std[0, 0, 1, 1])
    assert float(chroma[0, 1, 7, 7]) == pytest.approx((0.7 - float(luma(paint)[0, 0])) / 1.402, abs=1e-5)


def test_a_thin_stroke_counts_at_the_working_size() -> None:
    grey = np.full((1000, 1000), 0.5, np.float32)
    paint = np.broadcast_to(np.float32([0.7, 0.45, 0.4]), (1000, 1000, 3))
    hints = check_hints(strokes(paint, (slice(500, 503), slice(100, 900))), grey)
    chroma, std = shrunk_hints(hints, torch.full((1, 1, 32, 32), 0.5))
    touched = torch.isfinite(std[0, 0])
    assert int(touched.sum()) == 26
    assert HINT_STD < float(std[0, 0][touched].min()) <= float(std[0, 0][touched].max()) < 1.2 * HINT_STD
    torch.testing.assert_close(chroma[0, :, 16, 5], hints.chroma[0, :, 501, 500])


def test_only_the_chroma_of_a_hint_counts() -> None:
    grey = np.full((40, 40), 0.4, np.float32)
    # The same chroma on another luma.
    results = []
    for lightness in (0.0, 0.25):
        paint = np.broadcast_to(np.float32([0.5, 0.35, 0.3]) + np.float32(lightness), (40, 40, 3))
        hints = strokes(paint, (slice(5, 9), slice(5, 20)))
        results.append(colorize(grey, bluish(), hints=hints, steps=3).samples)
    torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=0)
    # A colour that the grey has no room for is made weaker, its hue kept.
    dark = check_hints(
        strokes(np.broadcast_to(np.float32([1, 1, 0]), (4, 4, 3)), (1, 1)), np.full((4, 4), 0.1, np.float32)
    )
    shown = rgb(torch.cat([torch.full((1, 1, 4, 4), 0.1 * LUMA_GAIN), dark.chroma], dim=1))
    assert -1e-6 < float(shown.min()) < 1e-3
    assert float(dark.chroma[0, 0, 1, 1] / dark.chroma[0, 1, 1, 1]) == pytest.approx(-0.5 / 0.0813, rel=0.01)


def test_strokes_painted_on_the_grey_itself() -> None:
    grey = np.random.default_rng(0).random((20, 20)).astype(np.float32)
    painted = grey[..., None].repeat(3, axis=2) + np.float32(3 / 255)  # as JPEG may leave it
    painted[3:5, 3:9] = (0.8, 0.2, 0.1)
    marked = np.zeros((20, 20), bool)
    marked[3:5, 3:9] = True
    for hints in (painted, np.dstack([painted, np.ones((20, 20), np.float32)])):
        opacity = check_hints(hints.astype(np.float32), grey).opacity[0, 0].numpy()
        assert np.array_equal(opacity > 0, marked)


@pytest.mark.parametrize(
    ("hints", "message"),
    [
        (strokes(picture(9, 8), (1, 1)), "8 x 9 pixels, the picture 8 x 8"),
        (strokes(picture()), "no stroke"),
        (np.repeat(luma(picture())[..., None], 3, axis=2), "no stroke"),
        (picture()[..., 0], "wanted"),
        ((picture() * 255).astype(np.uint8), "wanted floats"),
        (np.full((8, 8, 4), np.nan, np.float32), "NaN"),
        ("strokes.png", "hints: the picture is a str"),
    ],
)
def test_hints_that_do_not_fit_are_refused(hints: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        colorization_task(luma(picture()), hints=hints)


def test_averages_of_a_reference() -> None:
    truth = picture(20, 20)
    found = check_reference(truth)
    assert found.share.tolist() == pytest.approx([0, 0.5, 0, 0.5, 0])
    dark = luma_first(planes(truth))[0, 1:, :10].flatten(1)
    torch.testing.assert_close(found.mean[:, 1], dark.mean(dim=1))
    torch.testing.assert_close(found.std[:, 1], dark.std(dim=1, correction=0))
    # Common luma: the dark half only. None at all: the whole of both.
    grey = torch.from_numpy(luma(truth))[None, None]
    darker = torch.where(grey > 0.5, 0.9, grey)
    regions, mean, _ = alike(darker, found)
    assert regions.unique().tolist() == [-1, 0]
    torch.testing.assert_close(mean[:, 0], found.mean[:, 1])
    regions, mean, _ = alike(torch.full_like(grey, 0.99), found)
    assert regions.unique().tolist() == [0]
    torch.testing.assert_close(mean[:, 0], luma_first(planes(truth))[0, 1:].mean(dim=(1, 2)))
    for wrong in (np.full((4, 4, 3), 0.5, np.float32), np.zeros((4, 4), np.float32)):
        with pytest.raises(InputError, match="reference"):
            check_reference(wrong)


def test_a_reference_draws_the_colours_towards_its_own() -> None:
    def one_cast(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """Pictures of one Cb and one Cr, whose standard deviation is 0.07."""
        cast = x[:, 1:].mean(dim=(2, 3), keepdim=True)
        share = 0.07**2 / (0.07**2 + sigma.reshape(-1, 1, 1, 1) ** 2 / x[0, 0].numel())
        return torch.cat([x[:, :1], (share * cast).expand_as(x[:, 1:])], dim=1)

    prior = FunctionPrior(one_cast, channels=3, colours="luma first", frame=32, sigma_data=34.0)
    grey = np.tile(np.linspace(0.3, 0.6, 40, dtype=np.float32), (32, 1))
    warm = rgb(torch.tensor([0.45 * LUMA_GAIN, -0.05, 0.08]).reshape(3, 1, 1)).expand(3, 9, 9).permute(1, 2, 0).numpy()
    exactly = "moment_matching(tolerance=0.001, steps=20)"
    result = colorize(grey, prior, reference=warm, steps=20, samples=8, rule=exactly)
    means = luma_first(result.samples[:, 0]).mean(dim=(2, 3))[:, 1:]
    # One bin of luma in common, known within LEAST_STD: the posterior's mean is all but the reference's.
    weight = 0.07**2 / (0.07**2 + LEAST_STD**2)
    torch.testing.assert_close(means.mean(dim=0), weight * torch.tensor([-0.05, 0.08]), atol=0.012, rtol=0)
    assert float(means.std(dim=0).mean()) == pytest.approx(LEAST_STD, rel=0.6)


def test_scribbles_fill_what_is_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    grey = np.where(np.arange(24) < 12, 0.3, 0.7)[:, None].repeat(30, axis=1)
    chroma, opacity = np.zeros((24, 30, 2)), np.zeros((24, 30))
    opacity[3, 4] = opacity[20, 9] = 1
    chroma[3, 4], chroma[20, 9] = (0.1, -0.05), (-0.08, 0.02)
    found = luma_first(torch.from_numpy(scribbled(grey, chroma, opacity)).permute(2, 0, 1))
    assert np.abs(found[0].numpy() / LUMA_GAIN - grey).max() < 1e-6
    for rows, wanted in ((slice(0, 12), (0.1, -0.05)), (slice(12, 24), (-0.08, 0.02))):
        for channel, value in zip(found[1:], wanted, strict=True):
            assert float((channel[rows] - value).abs().max()) < 0.01
    # Half a scribble does not fix, unless there is nothing else; larger pictures take a coarser system.
    assert np.abs(scribbled(grey, chroma, 0.2 * opacity) - scribbled(grey, chroma, opacity)).max() < 1e-9
    monkeypatch.setattr("invsolve.tasks.baselines.LARGEST_SCRIBBLED", 1000)
    large = scribbled(np.full((41, 67), 0.5), np.full((41, 67, 2), 0.1), np.eye(41, 67))
    assert large.shape == (41, 67, 3)
    assert np.abs(luma_first(torch.from_numpy(large).permute(2, 0, 1))[1:].numpy() - 0.1).max() < 1e-6
    assert scribbled(np.full((1, 1), 0.5), np.zeros((1, 1, 2)), np.ones((1, 1))).shape == (1, 1, 3)


def test_scribbles_stand_beside_the_result() -> None:
    truth = picture()
    task = colorization_task(luma(truth), hints=strokes(truth, (1, 1)))
    assert SCRIBBLES in task.baselines()
    assert task.determined() == pytest.approx((1 + 2 / 64) / 3)
    assert SCRIBBLES not in colorization_task(luma(truth), reference=truth).baselines()


def run(*arguments: Any) -> Any:
    from invsolve.cli.main import app

    return CliRunner().invoke(app, ["colorize", *map(str, arguments)])


def test_the_command_takes_hints_and_a_reference(tmp_path: Path, small_prior: Path, photo: np.ndarray) -> None:
    grey = Image.fromarray(photo).convert("L")
    grey.save(tmp_path / "grey.png")
    Image.fromarray(photo).resize((17, 30)).save(tmp_path / "other.jpg")
    paint = np.dstack([photo, np.zeros(photo.shape[:2], np.uint8)])
    paint[10:14, 5:30, 3] = 255
    Image.fromarray(paint).save(tmp_path / "strokes.png")
    common = [tmp_path / "grey.png", "--model", small_prior, "--json", "-q", "--force"]
    steering = ["--hints", tmp_path / "strokes.png", "--reference", tmp_path / "other.jpg"]
    done = run(*common, *steering, "--steps", 2)
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["rule"].startswith("moment_matching")
    assert (report["steps"], report["sampler"]) == (2, "multistep")
    assert report["hints"] == str(tmp_path / "strokes.png")
    result = np.asarray(Image.open(tmp_path / "grey.colorize.png"))
    assert np.abs(np.asarray(Image.fromarray(result).convert("L")).astype(int) - np.asarray(grey)).max() <= 1
    apart = luma_first(planes(result / 255.0)) - luma_first(planes(photo / 255.0))
    assert float(apart[0, 1:, 10:14, 5:30].abs().max()) < 2 / 255
    # Another way of solving that was asked for is taken.
    done = run(*common, *steering, "--steps", 2, "--rule", "proximal", "--sampler", "renoising")
    assert json.loads(done.stdout)["rule"] == "proximal"


def test_the_command_refuses_files_that_are_no_hints(tmp_path: Path, photo: np.ndarray) -> None:
    Image.fromarray(photo).convert("L").save(tmp_path / "grey.png")
    Image.new("RGBA", (40, 48)).save(tmp_path / "clear.png")
    Image.new("RGBA", (41, 48), (255, 0, 0, 255)).save(tmp_path / "large.png")
    Image.fromarray(np.zeros((48, 40), np.int32)).save(tmp_path / "deep.tif")
    (tmp_path / "text.png").write_text("red")
    (tmp_path / "empty.png").write_bytes(b"")
    for option, name, message in (
        ("--hints", "clear.png", "no stroke"),
        ("--hints", "large.png", "41 x 48 pixels, the picture 40 x 48"),
        ("--hints", "deep.tif", "8 or 16 bits"),
        ("--hints", "text.png", "not a picture"),
        ("--hints", "empty.png", "empty"),
        ("--hints", "none.png", "no such file"),
        ("--hints", ".", "no hints for grey.png"),
        ("--reference", "grey.png", "no colours"),
        ("--reference", "text.png", "not a picture"),
    ):
        refused = run(tmp_path / "grey.png", option, tmp_path / name).exception
        assert isinstance(refused, InvsolveError), (name, refused)
        assert refused.exit_code == ExitCode.BAD_INPUT
        assert message in str(refused)
    assert not (tmp_path / "grey.colorize.png").exists()
