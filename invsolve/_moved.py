"""Modules that have moved: an import by the old name still works, and says the new one.

Only a look-up in a table: the old name becomes a module whose attributes are those of the new modules.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MOVED: dict[str, tuple[str, ...]] = {
    "score_model": ("models.score_model",),
    "gaussian": ("models.gaussian",),
    "network": ("models.network",),
    "orientation": ("models.orientation",),
    "tiling": ("models.tiling",),
    "precision": ("models.precision",),
    "classifier": ("training.classifier", "models.noisy_classifier"),
    "sigmas": ("samplers.sigmas",),
    "noise": ("samplers.noise",),
    "flow": ("ode.flow",),
    "likelihood": ("ode.density",),
    "latent": ("ode.latent",),
    "inpainting": ("tasks.inpainting", "tasks.filling", "tasks.regions"),
    "fill": ("tasks.push_pull",),
    "colorization": ("tasks.colorization",),
    "generation": ("tasks.generation",),
    "baselines": ("tasks.baselines",),
    "sinogram": ("ct.sinogram",),
    "simulation": ("ct.simulation",),
    "ct_baselines": ("ct.classical", "ct.fbp", "ct.iterative", "ct.total_variation"),
    "conformal": ("uncertainty.conformal",),
    "diagnostics": ("uncertainty.trace",),
    "problems": ("verification.problems",),
    "exactness": ("verification.exactness",),
    "verify": ("verification.judge", "verification.figures"),
    "metrics": ("evaluation.metrics",),
    "quality": ("evaluation.sample_quality",),
    "data": ("training.sources", "training.crops"),
    "presets": ("training.presets",),
    "objectives": ("training.objectives",),
    "optimizer": ("training.optimizer",),
    "rounding": ("pictures",),
}
"""Old name -> where its contents are, both below ``invsolve``."""


class Finder:
    """Finds the old names; asked only after every other finder has failed."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        package, _, old = name.partition(".")
        return ModuleSpec(name, Finder) if package == "invsolve" and old in MOVED else None  # type: ignore[arg-type]

    @staticmethod
    def create_module(spec: ModuleSpec) -> None:
        """The ordinary empty module."""

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        homes = [f"invsolve.{home}" for home in MOVED[module.__name__.partition(".")[2]]]
        warnings.warn(f"{module.__name__} is now {' and '.join(homes)}", DeprecationWarning, stacklevel=2)

        def attribute(name: str) -> Any:
            for home in homes:
                if hasattr(found := importlib.import_module(home), name):
                    return getattr(found, name)
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

        module.__dict__["__getattr__"] = attribute


def install() -> None:
    """Let old names be imported."""
    if Finder not in sys.meta_path:
        sys.meta_path.append(Finder)
