"""``invsolve merge``: join what the shards of a run over many pictures noted."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from invsolve.cli import options
from invsolve.cli.console import Verbosity, one_line, say
from invsolve.errors import PicturesError
from invsolve.manifests import WHOLE, merge_manifests


def merge(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of the results.", show_default=False)],
    quiet: options.Quiet = False,
) -> None:
    """Join the manifests of all shards of a folder into one, if they are complete.

    Shards must have the same settings and the same list of pictures. What is missing or failed is listed on stdout, a line
    each, and nothing is changed; the exit code is then 6.

    Examples:

      invsolve merge repaired/
    """
    Verbosity.level = -1 if quiet else 0
    merged = merge_manifests(folder)
    for name in merged.missing:
        sys.stdout.write(f"{one_line(name)}: not done\n")
    for record in merged.failed:
        sys.stdout.write(f"{one_line(record.name)}: failed: {one_line(record.error or '')}\n")
    wanting = len(merged.missing) + len(merged.failed)
    if wanting:
        raise PicturesError(
            f"{wanting} of {len(merged.pictures)} pictures are not done",
            hint="run the shards again that they belong to: they do only what is not done; then merge",
        )
    shards = f" of {merged.shards} shards" if merged.shards else ""
    say(f"{folder / WHOLE}: all {len(merged.pictures)} pictures{shards} are done")
