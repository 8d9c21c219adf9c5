"""Small data and a small trained-on-the-spot prior that the tests share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from invsolve.models.gaussian import GaussianPrior, smooth_gaussian_prior
from invsolve.models.network import EDMDenoiser, NetworkConfig
from invsolve.pretrained import Card, save_prior

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _quiet_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(autouse=True)
def _no_imported_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of whoever runs the tests are not the tests' business."""
    monkeypatch.setenv("INVSOLVE_MODELS", str(ROOT / "no-such-folder"))


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def gaussian() -> GaussianPrior:
    """An image-like Gaussian on (3, 4, 4) in float64."""
    return smooth_gaussian_prior((3, 4, 4))


@pytest.fixture(scope="session")
def small_prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real prior folder: a small network of random weights, not trained, with a card."""
    torch.manual_seed(0)
    config = NetworkConfig(widths=(8, 16), encoder_blocks=(1, 1), decoder_blocks=(1,))
    network = EDMDenoiser(config)
    for parameter in network.parameters():  # zero-initialised layers would hide errors
        if float(parameter.detach().abs().sum()) == 0:
            torch.nn.init.normal_(parameter, std=0.02)
    folder = tmp_path_factory.mktemp("priors") / "small"
    card = Card(
        name="small",
        network={},
        units="RGB in [0, 1]",
        sigma_min=0.005,
        sigma_max=20.0,
        validation_mse=[(0.005, 2.4e-5), (0.1, 5e-3), (1.0, 5e-2), (20.0, 0.07)],
        sha256="",
    )
    save_prior(folder, network, card)
    return folder


@pytest.fixture(scope="session")
def ct_prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real prior folder of one channel: a small network that was not trained."""
    torch.manual_seed(0)
    config = NetworkConfig(channels=1, stem=2, widths=(8, 16), encoder_blocks=(1, 1), decoder_blocks=(1,))
    folder = tmp_path_factory.mktemp("priors") / "small-ct"
    errors = [(0.005, 2.4e-5), (0.1, 5e-3), (1.0, 5e-2), (5.0, 0.07)]
    card = Card("small-ct", {}, "CT number n", 0.005, 5.0, errors, "")
    save_prior(folder, EDMDenoiser(config), card)
    return folder


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """A smooth 48 x 40 RGB picture, uint8."""
    y, x = np.mgrid[:48, :40]
    channels = [128 + 100 * np.sin(x / 9 + k) * np.cos(y / 11 - k) for k in range(3)]
    return np.stack(channels, axis=2).astype(np.uint8)
