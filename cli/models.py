"""``invsolve models``: which priors there are and what they know."""

from __future__ import annotations

from typing import Annotated

import typer


def models(
    name: Annotated[str | None, typer.Argument(help="Show this prior's whole card.")] = None,
) -> None:
    """List the shipped priors and classifiers, or show one's card.

    Example: invsolve models photos
    """
    from invsolve.pretrained.card import Card
    from invsolve.pretrained.loading import CARD, SHIPPED, find_prior, shipped_classifiers, shipped_priors

    if name is not None:
        folder = SHIPPED / name if name in shipped_classifiers() else find_prior(name)
        typer.echo(Card.read(folder / CARD).to_json(), nl=False)
        return
    for shipped in shipped_priors():
        card = Card.read(find_prior(shipped) / CARD)
        typer.echo(f"{card.name:10} {card.units}; {card.knows}")
    for shipped in shipped_classifiers():
        card = Card.read(SHIPPED / shipped / CARD)
        typer.echo(f"{card.name:10} classifier of {', '.join(card.classes)}")
