"""``invsolve models``: which priors there are and what they know; others are brought in, checked and removed."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from invsolve.cli import options
from invsolve.cli.console import Verbosity, clean_stdout, progress_bar, say, show_bars
from invsolve.cli.examples import examples_for
from invsolve.errors import InputError, InvsolveError, UsageError
from invsolve.typed import brief

if TYPE_CHECKING:
    from invsolve.pretrained.imported import About, Imported


class ModelsGroup(TyperGroup):
    """``invsolve models NAME`` means ``invsolve models info NAME``."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["info", *args]
        return super().resolve_command(ctx, args)


models = typer.Typer(cls=ModelsGroup, invoke_without_command=True)

Named = Annotated[
    str | None, typer.Option("--as", metavar="NAME", help="What it is called from now on; default its folder's name.")
]
Validate = Annotated[
    str | None,
    typer.Option(
        metavar="PICTURES",
        help="Measure its denoising error on these: a folder or an .npz of pictures like those it knows, and not of its "
        "training; with a sub-folder for each class where it has to be told one. Without, rules take the error of a Gaussian.",
    ),
]
Count = Annotated[int, typer.Option("--pictures", min=2, max=500, help="Of those, at most so many.")]
Licence = Annotated[str, typer.Option(help="Its licence, where the source does not state it.")]
Config = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.toml|json",
        help="What weights of guided-diffusion, score_sde and NCSNv2 do not say of their networks, by those libraries' own names.",
    ),
]
Window = Annotated[
    str | None,
    typer.Option(
        metavar="LOW,HIGH",
        help="The network knows CT slices: Hounsfield units at the ends of its range (-1 and 1), such as -1000,1000.",
    ),
]
NullClass = Annotated[
    int | None,
    typer.Option(min=0, help="The class that stood for none in training; lets `generate` guide towards the others."),
]
AllowPickle = Annotated[
    bool, typer.Option("--allow-pickle", help="Refused, with the reason: there is no way to open a pickle safely.")
]
Force = Annotated[bool, typer.Option("--force", "-f", help="Replace an imported model of that name.")]


@models.callback()
def all_models(context: typer.Context) -> None:
    """List priors and classifiers and what they know, show one's card, and bring in others.

    Examples:

      invsolve models

      invsolve models photos

      invsolve models import my-unet/ --as faces --validate faces-val/
    """  # fmt: skip
    if context.invoked_subcommand is None:
        list_models()


@models.command("list")
def list_models() -> None:
    """List the shipped and the imported models.

    Examples:

      invsolve models list
    """
    from invsolve.pretrained.card import Card
    from invsolve.pretrained.loading import CARD, find_any, installed_models, shipped_classifiers, shipped_priors

    names = list(dict.fromkeys([*shipped_priors(), *shipped_classifiers(), *installed_models()]))
    width = max(map(len, names), default=0)
    for known in names:
        try:
            line = described(Card.read(find_any(known) / CARD))
        except InvsolveError as error:
            line = f"damaged: {error.message}"
        typer.echo(f"{known:{width}}  {line}")


@models.command("info")
def info(
    name: Annotated[str, typer.Argument(help="A model, or a folder that holds one.")],
    whole: Annotated[
        bool, typer.Option("--all", help="With the spectrum of its errors, some thousand numbers.")
    ] = False,
) -> None:
    """Show a model's card.

    Examples:

      invsolve models info photos

      invsolve models photos
    """
    from invsolve.pretrained.card import Card
    from invsolve.pretrained.loading import CARD, find_any

    card = Card.read(find_any(name) / CARD).to_json()
    typer.echo(card if whole else shortened(card), nl=False)


def shortened(card: str) -> str:
    """A card without the spectrum of its errors, and its lists of numbers in one line each."""
    fields = json.loads(card)
    fields.pop("error_spectrum", None)
    numbers = re.compile(r"\[\s+(-?[\d.e+-]+(?:,\s+-?[\d.e+-]+)*)\s+\]")
    return numbers.sub(lambda found: "[" + " ".join(found[1].split()) + "]", json.dumps(fields, indent=2)) + "\n"


@models.command("import")
def import_model(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="A folder of diffusers, or of a prior; or a file of weights: of diffusers with config.json beside it, of "
            "guided-diffusion, EDM, EDM2, score_sde or NCSNv2.",
        ),
    ],
    name: Named = None,
    config: Config = None,
    window: Window = None,
    null_class: NullClass = None,
    validate: Validate = None,
    pictures: Count = 32,
    licence: Licence = "",
    force: Force = False,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
) -> None:
    """Bring in a model from a folder or file: converted to safetensors with a card, nothing in it is run.

    Examples:

      invsolve models import my-unet/ --as faces --validate faces-val/

      invsolve models import 256x256_diffusion_uncond.pt --config adm.toml --as imagenet

      invsolve models import slices/ --window -1000,1000 --as chest
    """  # fmt: skip
    Verbosity.level = -1 if quiet else 0
    if not source.exists():
        raise InputError(f"there is no {source}", hint="wanted a folder; `invsolve models pull` fetches from the hub")
    with clean_stdout():
        from invsolve.pretrained.imported import About
        from invsolve.pretrained.published_files import read_stated

        stated = {} if config is None else read_stated(config)
        called = name or _name_of(source.absolute().stem)
        about = About(called, licence, window=parse_window(window), null_class=null_class, stated=stated)
        _install(source, about, validate, pictures, force, device)


@models.command("pull")
def pull_model(
    repo: Annotated[
        str, typer.Argument(metavar="REPO[@REV]", help="OWNER/NAME on the hub, at a branch, tag or commit.")
    ],
    name: Named = None,
    config: Config = None,
    window: Window = None,
    null_class: NullClass = None,
    validate: Validate = None,
    pictures: Count = 32,
    licence: Licence = "",
    allow_pickle: AllowPickle = False,
    force: Force = False,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
) -> None:
    """Fetch a model from the Hugging Face hub and import it; safetensors only.

    HF_ENDPOINT names another hub, HF_HUB_OFFLINE=1 takes what was fetched before.

    Example: invsolve models pull OWNER/NAME --as faces
    """
    from invsolve.pretrained.hub import parse_repo, pull

    Verbosity.level = -1 if quiet else 0
    if allow_pickle:
        raise UsageError(
            "--allow-pickle: a pickle is a program, which runs with your rights when it is opened, so none is fetched",
            hint="where you trust it, fetch it yourself, convert it (docs/bring-your-own-prior.md), and `invsolve models import` it",
        )
    called = name or _name_of(parse_repo(repo)[0].rpartition("/")[2])
    with clean_stdout():
        from invsolve.pretrained.imported import About
        from invsolve.pretrained.importing import check_name
        from invsolve.pretrained.published_files import read_stated

        check_name(called, force=force)
        shown, stated = parse_window(window), {} if config is None else read_stated(config)
        pulled = pull(repo, quiet=not show_bars())
        about = About(called, licence, pulled.source, shown, null_class, stated)
        _install(pulled.folder, about, validate, pictures, force, device)


@models.command("verify")
def verify_model(name: Annotated[str | None, typer.Argument(help="One model; default all.")] = None) -> None:
    """Check weights against their cards, and that they denoise.

    Example: invsolve models verify photos
    """
    from invsolve.pretrained.importing import verified
    from invsolve.pretrained.loading import (
        find_prior,
        installed_models,
        load_classifier,
        shipped_classifiers,
        shipped_priors,
    )

    names = [*shipped_priors(), *shipped_classifiers(), *installed_models()] if name is None else [name]
    failed: list[InvsolveError] = []
    for known in dict.fromkeys(names):
        try:
            classifier = known in shipped_classifiers()
            card = load_classifier(known, "cpu").card if classifier else verified(find_prior(known))
            typer.echo(f"{known}: sound, sha256 {card.sha256[:12]}")
        except InvsolveError as error:
            if name is not None:
                raise
            typer.echo(f"{known}: {error.message}")
            failed.append(error)
    if failed:
        raise failed[0]


@models.command("remove")
def remove_model(name: Annotated[str, typer.Argument(help="An imported model.")]) -> None:
    """Delete an imported model.

    Examples:

      invsolve models remove faces
    """
    from invsolve.pretrained.importing import remove

    say(f"removed {remove(name)}")


def _name_of(text: str) -> str:
    """A name for a model, made of a folder's."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") or "model"


def parse_window(text: str | None) -> tuple[float, float] | None:
    """``LOW,HIGH`` in Hounsfield units.

    Raises
    ------
    UsageError : not two rising numbers.
    """
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low = high = math.nan
    if not -math.inf < low < high < math.inf:
        raise UsageError(
            f"--window {brief(text)}", hint="wanted the Hounsfield units at -1 and at 1, such as --window -1000,1000"
        )
    return low, high


def _install(source: Path, about: About, validate: str | None, count: int, force: bool, device: str) -> None:
    """Read, measure, write, and say what was found."""
    from invsolve.pretrained import importing
    from invsolve.pretrained.loading import CARD, resolve_device

    name = about.name
    folder, where = importing.check_name(name, force=force), resolve_device(device)
    if (source / CARD).exists():
        if validate is not None:
            raise UsageError(f"{source} has a card already", hint="leave out --validate: its figures are on the card")
        if about.stated or about.window is not None or about.null_class is not None:
            raise UsageError(f"{source} has a card already", hint="leave out --config, --window and --null-class")
        say(f"{name}: {described(importing.install_own(source, folder, name))}")
        say(f"wrote {folder}")
        return
    imported = importing.read_model(source, about)
    examples = None if validate is None else examples_for(imported.denoiser.config, validate, count)
    if examples is not None and validate is not None:
        with progress_bar() as bar:
            task = bar.add_task("validating", total=1.0)
            imported = importing.validated(
                imported, examples.pictures, Path(validate).name, where, lambda done: bar.update(task, completed=done),
                labels=examples.labels,
            )  # fmt: skip
    shown = importing.plain_pictures(imported.denoiser.config) if examples is None else examples.pictures[:8]
    rounding = importing.label_rounding(imported.denoiser, shown, where)
    card = importing.install(replace(imported, card=replace(imported.card, label_rounding=rounding)), folder)
    say(f"{name}: {described(card)}; licence: {card.licence}")
    if examples is None:
        say("not validated: rules will take the error of a Gaussian; --validate PICTURES measures it")
    say(f"wrote {folder}; now: invsolve {_first_use(imported)} --model {name}")


def _first_use(imported: Imported) -> str:
    config = imported.denoiser.config
    if config.window is not None:
        return "ct SINOGRAM"
    if config.classes and config.null_class is None:
        return "generate --class 0"
    return "inpaint PICTURE --mask MASK"


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
