"""Tests of the plug-in: invsolve's laws hold for what it adds."""

from __future__ import annotations

import pytest
from invsolve_ghosts import Ghost, StudentNoise

from invsolve.verification.laws import OPERATOR_LAWS
from invsolve.verification.noise_laws import NOISE_LAWS


@pytest.mark.parametrize("law", list(OPERATOR_LAWS))
def test_operator(law: str) -> None:
    found = OPERATOR_LAWS[law](Ghost((3, 9, 8)))
    assert found.passed, found


@pytest.mark.parametrize("law", list(NOISE_LAWS))
def test_noise(law: str) -> None:
    found = NOISE_LAWS[law](StudentNoise(0.05))
    assert found.passed, found
