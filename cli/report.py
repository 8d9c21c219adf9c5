"""A run as one page to read: pictures, figures, what they mean and what the model knows.

The page needs no network and no external script.
"""

from __future__ import annotations

import base64
import hashlib
import io
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from invsolve._version import __version__
from invsolve.cli.console import say
from invsolve.cli.files import named_output
from invsolve.cli.formats import eight_bits
from invsolve.errors import OutputError
from invsolve.pictures import Pixels

ENDINGS = (".html", ".htm")

LARGEST_SIDE, SMALL_SIDE = 1000, 420
"""Pixels on the longer side of the two compared pictures, and of the others, on the page."""

WEBP_QUALITY = 90

MOST_SHOWN = 8
"""Samples on the page."""

VERSIONS = ("torch", "torchvision", "numpy", "scikit-image", "astra-toolbox", "pillow")

SCRIPT = (
    "for(const f of document.querySelectorAll('.compare'))f.querySelector('input').addEventListener('input',"
    "e=>f.style.setProperty('--x',e.target.value+'%'));"
)

STYLE = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:66rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;overflow-wrap:anywhere}h2{font-size:1.15rem;margin-top:2rem}
figure{margin:0}figcaption{font-size:.85rem}img{max-width:100%;height:auto;display:block}
.compare{--x:50%;width:min(100%,48rem)}.compare img{width:100%;image-rendering:auto}.compare>div{position:relative}
.compare .before{position:absolute;inset:0;width:100%;height:100%;clip-path:inset(0 calc(100% - var(--x)) 0 0)}
.compare input{width:100%;margin:.4rem 0}.ends{display:flex;justify-content:space-between;font-size:.85rem}
.row{display:grid;grid-template-columns:repeat(auto-fill,minmax(11rem,1fr));gap:1rem}
table{border-collapse:collapse}th{white-space:nowrap}td,th{border-bottom:1px solid #8886;padding:.2rem .8rem .2rem 0;text-align:left;
vertical-align:top;overflow-wrap:anywhere}td.n{text-align:right;font-variant-numeric:tabular-nums}
.warning{border-left:4px solid #d60;padding-left:.8rem}pre{white-space:pre-wrap;overflow-wrap:anywhere}
"""


@dataclass(frozen=True)
class Shown:
    """A picture with what is written under it."""

    title: str
    pixels: Pixels  # (H, W) or (H, W, 3)
    text: str = ""


@dataclass(frozen=True)
class Page:
    """What a run's page shows; all of it is there once the run is done.

    Parameters
    ----------
    title : of the page.
    compared : the input, or what stands for it, and the result, of one size: the two that the slider compares.
    samples, drawn : the first samples, :data:`MOST_SHOWN` at most, and how many there are.
    others : further pictures.
    meaning : paragraphs on what the result is and is not.
    warning : what speaks against it, if anything does.
    scores : by method, against the truth.
    facts : the settings, as in the provenance of every file.
    card : of the model, empty for a method without one.
    """

    title: str
    compared: tuple[Shown, Shown]
    samples: Sequence[Shown] = ()
    drawn: int = 0
    others: Sequence[Shown] = ()
    meaning: Sequence[str] = ()
    warning: str | None = None
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    card: Mapping[str, Any] = field(default_factory=dict)


def report_path(given: Path | None, result: Path, outputs: Iterable[Path]) -> list[Path]:
    """The page as a list of files to write, none or one; in a folder it has the result's name.

    Raises
    ------
    OutputError : it ends otherwise, or is the name of another result.
    """
    if given is None:
        return []
    path = named_output(given, f"{result.stem}{ENDINGS[0]}", ENDINGS)
    if path.absolute() in [output.absolute() for output in outputs]:
        raise OutputError(f"--report {path} is the name of a result", hint="name another file")
    return [path]


def sample_row(pictures: Sequence[Any], draw: Callable[[Any], Pixels] = lambda pixels: pixels) -> list[Shown]:
    """The first of several samples, as ``draw`` shows each; of one none, for it is the result."""
    few = range(min(len(pictures), MOST_SHOWN)) if len(pictures) > 1 else ()
    return [Shown(f"sample {k}", draw(pictures[k])) for k in few]


def write_page(path: Path, page: Page) -> None:
    """Write it and say so."""
    from invsolve.atomic import write_files

    write_files({path: page_bytes(page)})
    say(f"wrote {path}, to look at in a browser")


def page_bytes(page: Page, *, made: datetime | None = None) -> bytes:
    """The page as HTML, everything in it; names and texts are escaped, and no script runs but its own.

    Parameters
    ----------
    made : when; default now.
    """
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    when = (made or datetime.now(UTC)).strftime("%Y-%m-%d %H:%M UTC")
    few = f" (the first {len(page.samples)} of {page.drawn})" if len(page.samples) < page.drawn else ""
    parts = [
        f"<h1>{text_of(page.title)}</h1>",
        f'<p class="warning">Warning: {text_of(page.warning)}</p>' if page.warning else "",
        _slider(*page.compared),
        _section(f"Samples{few}", _row(page.samples)),
        _section("Other pictures", _row(page.others)),
        _section("What this means", "".join(f"<p>{text_of(line)}</p>" for line in page.meaning)),
        _section("Scores against the truth", _scores(page.scores)),
        _section("The model", _table(page.card)),
        _section("Settings", _table(page.facts)),
        _section("Versions", _table(versions())),
        f"<p>Pictures on this page are reduced to {LARGEST_SIDE} pixels and compressed; the files are exact. Made {when}.</p>",
    ]
    html = (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" '
        f'content="{policy}"><meta name="viewport" content="width=device-width"><title>{text_of(page.title)}</title>'
        f"<style>{STYLE}</style></head><body>{''.join(parts)}<script>{SCRIPT}</script></body></html>\n"
    )
    return html.encode()


def text_of(value: Any) -> str:
    """Escaped, with what cannot be shown or encoded written out."""
    plain = "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in str(value))
    return escape(plain)


def versions() -> dict[str, str]:
    """Of what made the page."""
    found = {"invsolve": __version__, "Python": platform.python_version()}
    for name in VERSIONS:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def picture_tag(shown: Shown, side: int, css: str = "") -> str:
    """A picture in the page, at most ``side`` pixels long."""
    pixels = eight_bits(np.ascontiguousarray(shown.pixels.squeeze()))
    image = Image.fromarray(
        pixels if pixels.ndim == 2 or pixels.shape[2] == 3 else np.ascontiguousarray(pixels[..., :3])
    )
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "WEBP", quality=WEBP_QUALITY)
    data = base64.b64encode(buffer.getvalue()).decode()
    kind = f' class="{css}"' if css else ""
    return (
        f'<img{kind} src="data:image/webp;base64,{data}" alt="{text_of(shown.title)}" width="{image.width}" '
        f'height="{image.height}">'
    )


def _slider(before: Shown, after: Shown) -> str:
    """Two pictures of one size, one over the other up to where the slider is."""
    return (
        f'<figure class="compare"><div>{picture_tag(after, LARGEST_SIDE)}{picture_tag(before, LARGEST_SIDE, "before")}</div>'
        f'<input type="range" min="0" max="100" value="50" aria-label="how much of the first picture is shown">'
        f'<div class="ends"><span>{text_of(before.title)}</span><span>{text_of(after.title)}</span></div></figure>'
    )


def _row(pictures: Sequence[Shown]) -> str:
    figures = [
        f"<figure>{picture_tag(one, SMALL_SIDE)}<figcaption><b>{text_of(one.title)}</b> {text_of(one.text)}</figcaption></figure>"
        for one in pictures
    ]
    return f'<div class="row">{"".join(figures)}</div>' if figures else ""


def _section(title: str, content: str) -> str:
    return f"<section><h2>{text_of(title)}</h2>{content}</section>" if content else ""


def _table(rows: Mapping[str, Any]) -> str:
    kept = {name: value for name, value in rows.items() if value not in (None, "")}
    lines = [f"<tr><th>{text_of(name)}</th><td>{text_of(value)}</td></tr>" for name, value in kept.items()]
    return f"<table>{''.join(lines)}</table>" if lines else ""


def _scores(scores: Mapping[str, Mapping[str, float]]) -> str:
    if not scores:
        return ""
    names = list(dict.fromkeys(name for figures in scores.values() for name in figures))
    head = "".join(f"<th>{text_of(name)}</th>" for name in names)
    rows = [
        f"<tr><th>{text_of(method)}</th>"
        + "".join(f'<td class="n">{figures[name]:.3f}</td>' if name in figures else "<td></td>" for name in names)
        + "</tr>"
        for method, figures in scores.items()
    ]
    return f"<table><tr><th></th>{head}</tr>{''.join(rows)}</table>"
