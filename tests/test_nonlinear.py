"""Forward models that are not linear: what they measure, their gradients, and that a truth is found from them."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from invsolve import solve
from invsolve.errors import InputError
from invsolve.forward_models import ForwardModel, GaussianNoise, Jpeg, PhaseRetrieval, Quantization, Saturation, jpeg
from invsolve.models.gaussian import smooth_gaussian_prior
from invsolve.samplers.sigmas import geometric

MODELS: dict[str, Callable[[Tensor], Tensor]] = {
    "phase retrieval": PhaseRetrieval(2.0),
    "saturation": Saturation(0.55, 0.2),
    "quantization": Quantization(2),
    "jpeg": Jpeg(10),
}
SHAPE = (1, 8, 8)


def picture(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_phase_retrieval_is_the_autocorrelation() -> None:
    """Squared magnitudes are the transform of the picture's autocorrelation (Wiener-Khinchin)."""
    x = picture(1, 1, 5, 4)
    y = PhaseRetrieval(2.0)(x)
    assert y.shape == (1, 1, 10, 8)
    back = torch.fft.ifft2(y**2 * 80**0.5, norm="ortho").real[0, 0]
    expected = sum(x[0, 0, i, j] * x[0, 0, i + 1, j + 2] for i in range(4) for j in range(2))
    assert float(back[1, 2]) == pytest.approx(float(expected))
    torch.testing.assert_close(PhaseRetrieval(2.0)(-x), y)
    torch.testing.assert_close(PhaseRetrieval(2.0)(x.flip(-2, -1)), y)


@pytest.mark.parametrize("quality", [5, 30, 75, 95])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_pillows(quality: int, channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once colours are rounded to 8 bits before the transform, as in a file; what then is left is the pixels' rounding."""
    rounded = jpeg._rounded
    monkeypatch.setattr(jpeg, "_rounded", lambda planes, steps: rounded(planes.round(), steps))
    rows, columns = np.mgrid[:37, :50]
    waves = [np.sin(rows / (4 + c) + columns / (9 - c)) for c in range(channels)]
    planes = [127 + 90 * wave + 30 * np.cos(columns / 2 + c) for c, wave in enumerate(waves)]
    pixels = np.stack(planes, -1).clip(0, 255).round().astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(file, "jpeg", quality=quality, subsampling=0)
    expected = np.asarray(Image.open(file)).reshape(pixels.shape).transpose(2, 0, 1)
    found = 255 * Jpeg(quality)(torch.from_numpy(pixels / 255.0).permute(2, 0, 1)[None])[0].numpy()
    difference = np.abs(found - expected)
    assert float(np.mean(difference)) < 0.7
    assert float(np.quantile(difference, 0.99)) < 3


@pytest.mark.parametrize("name", ["phase retrieval", "saturation"])
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    model = ForwardModel(MODELS[name], GaussianNoise(0.1))
    x, y = picture(1, *SHAPE), MODELS[name](picture(1, *SHAPE, seed=1))
    found = model.log_likelihood_gradient(x, y)
    direction = picture(1, *SHAPE, seed=2) - 0.5
    ahead, behind = (model.log_likelihood(x + h * direction, y) for h in (1e-6, -1e-6))
    assert float((found * direction).sum()) == pytest.approx(float((ahead - behind) / 2e-6), rel=1e-5)


@pytest.mark.parametrize("name", ["quantization", "jpeg"])
def test_straight_through_gradients_lead_into_the_cell(name: str) -> None:
    operator = MODELS[name]
    model = ForwardModel(operator, GaussianNoise(0.1))
    truth = picture(1, *SHAPE)
    y = operator(truth)
    torch.testing.assert_close(operator(y), y)
    assert float(model.misfit_gradient(truth, y).abs().max()) < 1e-9
    x = picture(1, *SHAPE, seed=1)
    gradient = model.misfit_gradient(x, y)
    torch.testing.assert_close(gradient, y - operator(x))
    assert float(((x + gradient - truth) ** 2).mean()) < float(((x - truth) ** 2).mean())


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize(
    ("rule", "sampler", "options"),
    [
        ("dps", "ancestral", {"sigmas": geometric(60, 0.01, 1.0)}),
        ("annealed", "daps", {"sigmas": geometric(15, 0.02, 1.0)}),
    ],
    ids=["dps", "daps"],
)
def test_the_truth_is_found_better_than_the_start(name: str, rule: str, sampler: str, options: dict[str, Any]) -> None:
    prior = smooth_gaussian_prior(SHAPE)
    truth = prior.sample(6, torch.Generator().manual_seed(3))
    forward_model = ForwardModel(MODELS[name], GaussianNoise(0.02))
    y = forward_model.simulate(truth, torch.Generator().manual_seed(4))
    start = prior.mean.expand(6, *SHAPE)
    found = solve(prior, forward_model, y, rule=rule, sampler=sampler, start=start, samples=4, **options)
    before, after = (float((x - truth).square().mean().sqrt()) for x in (start, found.mean))
    assert after < 0.7 * before, f"{before:.3f} to {after:.3f}"


def test_bad_numbers_are_told() -> None:
    for wrong in (
        lambda: PhaseRetrieval(0.5), lambda: Saturation(0.0), lambda: Quantization(0), lambda: Jpeg(0),
        lambda: Jpeg(50)(torch.zeros(1, 2, 8, 8)),
    ):  # fmt: skip
        with pytest.raises(InputError):
            wrong()
