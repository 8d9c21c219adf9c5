"""``invsolve ui``: the tasks on a page in the browser, served to this machine alone."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from PIL import Image

from invsolve.cli import options
from invsolve.cli.console import Verbosity, say
from invsolve.errors import InputError, ModelError

if TYPE_CHECKING:
    from invsolve.ui.uploads import View

PORT = 8484
NEEDED = ("fastapi", "uvicorn")

WORKER = "invsolve.cli.ui_worker"


def ui(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Where the page is served; 0 takes any that is free.")
    ] = PORT,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Print the address of the page, and do not open it.")
    ] = False,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|FOLDER",
            show_default=False,
            help="A further prior to choose on the page, such as a folder that `invsolve train` wrote; may be repeated.",
        ),
    ] = None,
    device: options.Device = "auto",
    host: Annotated[str, typer.Option(help="Address to serve at.")] = "127.0.0.1",
    allow_remote: Annotated[
        bool,
        typer.Option(
            "--allow-remote",
            help="Let --host be one that other machines reach. Whoever has the page's address can use it then; nothing is "
            "encrypted.",
        ),
    ] = False,
    quiet: options.Quiet = False,
) -> None:
    """Open a page in the browser: drop a picture, paint over what is wrong, see the result.

    The page runs the other commands, with their defaults, and shows the command that does the same. It is served to this
    machine alone, under an address with a random token, and loads nothing from the network. Ctrl-C ends it and removes what
    was uploaded and computed: download what you want to keep.

    Examples:

      invsolve ui

      invsolve ui --port 0 --no-browser
    """
    Verbosity.level = -1 if quiet else 0
    for name in NEEDED:
        if importlib.util.find_spec(name) is None:
            raise ModelError(f"invsolve ui needs {name}", hint="pip install 'invsolve[ui]'")
    from invsolve.ui.guard import Address, check_host, listen, new_token

    check_host(host, remote=allow_remote)
    models = known_models(model or [], device)
    with listen(host, port) as bound:
        from invsolve.ui.app import Setting, serve

        address = Address(host, bound.getsockname()[1], new_token(), allow_remote)

        def ready(ticket: str) -> None:
            say("the page is here; Ctrl-C ends it:")
            typer.echo(address.url)
            sys.stdout.flush()
            if has_screen() and not no_browser:
                threading.Thread(target=open_browser, args=(ticket,), daemon=True).start()

        serve(
            address,
            bound,
            lambda folder: Setting(folder, [sys.executable, "-m", WORKER, str(folder)], view, models, device),
            ready,
        )


def has_screen() -> bool:
    """Whether a browser has where to show itself: one that runs in the terminal would take it over."""
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def open_browser(address: str) -> None:
    """Open an address in the user's browser; where there is none, the address is printed already."""
    import webbrowser

    with contextlib.suppress(webbrowser.Error):
        webbrowser.open(address)


def known_models(more: list[str], device: str) -> list[str]:
    """The priors to choose from, ``more`` of them first; those that are no names as whole paths.

    Raises
    ------
    ModelError : one of them is none, or the device is not there.
    """
    from invsolve.pretrained.loading import find_prior, installed_models, resolve_device, shipped_priors

    resolve_device(device)
    there = [*shipped_priors(), *installed_models()]
    own = [name if name in there else str(find_prior(name).resolve()) for name in more]
    return list(dict.fromkeys([*own, *there]))


def view(path: Path, kind: str, most_pixels: int) -> View:
    """A file as the page shows it, read as the commands read it.

    Raises
    ------
    InputError : what the commands say of a file that they cannot read, or too many pixels.
    """
    from invsolve.ui.uploads import View

    if kind == "geometry":
        from invsolve.forward_models.geometry import Geometry

        found = Geometry.read(path)
        return View(b"", 0, 0, f"{found.kind} beam, {found.views} views, {found.detectors} bins")
    if kind == "sinogram":
        return view_of_sinogram(path)
    size = stated_size(path)
    if size is not None:
        check_pixels(path, *size, most_pixels)
    return view_of_mask(path) if kind == "mask" else view_of_picture(path, most_pixels)


def stated_size(path: Path) -> tuple[int, int] | None:
    """(width, height) as a picture file's header says, before anything is decoded; None where only reading it tells."""
    import warnings

    from invsolve.cli.codecs import decoders

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=decoders(path)) as image:
                return image.size
    except Exception:  # noqa: BLE001 - whatever is wrong with it, the reader says it
        return None


def check_pixels(path: Path, width: int, height: int, most: int) -> None:
    """Raise InputError for more pixels than the page takes."""
    if width * height > most:
        raise InputError(
            f"{path.name} is {width} x {height} pixels, {width * height / 1e6:.0f} million",
            hint=f"the page takes up to {most / 1e6:.0f} million; use the command on it, or make it smaller",
        )


def view_of_picture(path: Path, most_pixels: int) -> View:
    """A photograph in 8 bits, with its transparency."""
    from invsolve.cli.files import read_photo
    from invsolve.cli.formats import eight_bits
    from invsolve.ui.uploads import View

    photo = read_photo(path)
    height, width = photo.pixels.shape[:2]
    check_pixels(path, width, height, most_pixels)
    kind = "grey" if photo.pixels.ndim == 2 else "colour"
    about = f"{width} x {height}, {kind}, {8 * photo.pixels.itemsize} bits a channel"
    return View(png(eight_bits(photo.with_alpha(photo.pixels))), width, height, about)


def view_of_mask(path: Path) -> View:
    """A mask, white where a pixel is missing: where the commands take it to be."""
    from invsolve.cli.masks import read_mask
    from invsolve.ui.uploads import View

    missing = read_mask(path)
    height, width = missing.shape
    return View(png(missing.astype(np.uint8) * 255), width, height, f"{missing.mean():.1%} missing")


def view_of_sinogram(path: Path) -> View:
    """A sinogram's middle slice, black its least value and white its largest."""
    from invsolve.cli.ct_files import read_array
    from invsolve.pictures import to_pixels
    from invsolve.ui.uploads import View

    array = read_array(path, "sinogram")
    if array.ndim not in (2, 3):
        raise InputError(
            f"{path.name} has {array.ndim} dimensions", hint="wanted (views, detectors), or a stack of them"
        )
    stack = array if array.ndim == 3 else array[None]
    middle = stack[len(stack) // 2].astype(np.float64)
    low, high = middle.min(), middle.max()
    shape = " x ".join(map(str, array.shape))
    grey = to_pixels((middle - low) / (high - low or 1.0))
    return View(png(grey), grey.shape[1], grey.shape[0], f"{shape}, {low:.4g} to {high:.4g}", len(stack))


def png(pixels: np.ndarray) -> bytes:
    """8-bit pixels as a PNG, quickly rather than small."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
