"""``invsolve models``: which priors there are and what they know."""

from __future__ import annotations

from typing import Annotated, Any

import typer


def models(
    name: Annotated[str | None, typer.Argument(help="Show this prior's whole card.")] = None,
) -> None:
    """List the shipped priors and classifiers and what they know, or show one's card.

    Example: invsolve models photos
    """
    from invsolve.pretrained.card import Card
    from invsolve.pretrained.loading import CARD, SHIPPED, find_any, shipped_classifiers, shipped_priors

    if name is not None:
        typer.echo(Card.read(find_any(name) / CARD).to_json(), nl=False)
        return
    shipped = [*shipped_priors(), *shipped_classifiers()]
    width = max(map(len, shipped), default=0)
    for known in shipped:
        card = Card.read(SHIPPED / known / CARD)
        typer.echo(f"{known:{width}}  {described(card)}")


def described(card: Any) -> str:
    """A card in a line: for a prior its size, units and what it knows, for a classifier its classes and how often it is right."""
    size = "any size" if card.size is None else f"{card.size} x {card.size}"
    if card.frame is not None:
        size = f"whole pictures, shorter side {card.frame}"
    if card.kind == "prior":
        return "; ".join(part for part in (size, card.units, card.knows) if part)
    accuracy = [f"{share:.0%} at noise {sigma:g}" for sigma, share, _ in sorted(card.validation_accuracy)[:1]]
    reach = f"trained up to noise {card.sigma_max:g}"
    right = f"right answers {accuracy[0]}, {reach}" if accuracy else reach
    return f"{size}; classifier of {', '.join(card.classes)}; {right}"
