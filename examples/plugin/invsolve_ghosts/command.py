"""``invsolve ghost``: a command that this package adds."""

from __future__ import annotations

from typing import Annotated

import typer


def ghost(strength: Annotated[float, typer.Option(min=-0.99, max=0.99, help="Of the ghost.")] = 0.4) -> None:
    """Say how much a ghost changes the size of a measurement."""
    from invsolve_ghosts import Ghost  # torch is loaded when the command runs, not when it is listed

    typer.echo(f"largest singular value {Ghost((1, 16, 16), strength).norm:.3f}")
