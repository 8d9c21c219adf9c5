"""Runs commands for ``invsolve ui``, one after the other, in a process of its own: ending it ends the computation.

``python -m invsolve.cli.ui_worker`` reads a line of JSON per job from stdin, ``{"arguments": [...], "folder": "..."}``, and
runs ``invsolve ARGUMENTS`` in that folder. What the command says, how far it is and what the picture looks like so far
become lines of JSON on stdout, see :mod:`invsolve.ui.jobs`. It ends when stdin does, so it never outlives its page, and
removes the folder that it was given as an argument: a page that was killed could not.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import queue
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from invsolve.cli.console import Audience

if TYPE_CHECKING:
    from torch import Tensor

PREVIEW_SECONDS = 0.5
"""No preview sooner than this after the one before, nor sooner than PREVIEW_SHARE of the time a preview takes allows."""

PREVIEW_SHARE = 0.1
"""Of the time, at most, goes into previews."""

PREVIEW_SIDE = 1024
"""Pixels on the longer side of a preview."""

PREVIEW_FILE = "preview.jpg"


class Teller:
    """A :class:`invsolve.cli.console.Listener` that writes a line of JSON per event.

    Parameters
    ----------
    stream : where the lines go.
    task : the command, which says what the numbers of an estimate are.
    """

    def __init__(self, stream: IO[str], task: str) -> None:
        self.stream, self.task = stream, task
        self.previews, self.next_look = 0, 0.0

    def tell(self, **event: Any) -> None:
        self.stream.write(json.dumps(event) + "\n")
        self.stream.flush()

    def said(self, message: str) -> None:
        self.tell(said=" ".join(message.split()))

    def failed(self, message: str, hint: str) -> None:
        self.tell(error=message, hint=hint)

    def progressed(self, what: str, share: float) -> None:
        self.tell(share=round(share, 4))

    def estimated(self, picture: Callable[[], Tensor]) -> None:
        started = time.monotonic()
        if started < self.next_look:
            return
        partial = Path(f".{PREVIEW_FILE}")
        partial.write_bytes(preview(picture(), self.task))
        partial.replace(PREVIEW_FILE)
        self.previews += 1
        self.tell(preview=self.previews)
        took = time.monotonic() - started
        self.next_look = started + max(PREVIEW_SECONDS, took / PREVIEW_SHARE)


def preview(estimate: Tensor, task: str) -> bytes:
    """An estimate (C, H, W) as a JPEG; a CT slice in the window that shows soft tissue."""
    from PIL import Image

    from invsolve.pictures import channels_last, to_pixels

    side = max(estimate.shape[-2:])
    step = -(-side // PREVIEW_SIDE)
    array = channels_last(estimate[:, ::step, ::step].float().cpu())
    if task == "ct":
        from invsolve.cli.ct_files import windowed
        from invsolve.ct.units import to_hounsfield

        pixels = windowed(to_hounsfield(array), (40.0, 400.0))
    else:
        pixels = to_pixels(array)
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def work(jobs: queue.SimpleQueue[str], stream: IO[str]) -> None:
    """Run the jobs of a queue, without end."""
    from invsolve.cli.app import run

    while True:
        job = json.loads(jobs.get())
        os.chdir(job["folder"])
        sys.argv = ["invsolve", *job["arguments"]]
        teller = Teller(stream, job["arguments"][0])
        Audience.listener, printed = teller, io.StringIO()
        with contextlib.redirect_stdout(printed):
            code = run()
        lines = printed.getvalue().splitlines()
        teller.tell(code=code, report=json.loads(lines[-1]) if code == 0 and lines else None)


def listen(jobs: queue.SimpleQueue[str], stdin: IO[str], folders: list[str]) -> None:
    """Pass the lines of ``stdin`` on; at its end stop the process, whatever it computes, and remove the ``folders``."""
    for line in stdin:
        jobs.put(line)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


def main() -> None:
    """Serve the process that started this one."""
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is not for the page
    jobs: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=listen, args=(jobs, sys.stdin, sys.argv[1:]), daemon=True).start()
    work(jobs, stream)


if __name__ == "__main__":
    main()
