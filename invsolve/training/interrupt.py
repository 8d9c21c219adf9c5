"""Ctrl-C during training: the step in hand is finished first, so that what is saved belongs together."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from invsolve.errors import terminate

USUAL: dict[int, object] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
"""What Python does with a signal unless it is told otherwise."""


@contextmanager
def deferred_interrupt(on_first: Callable[[], None] | None = None) -> Iterator[Callable[[], bool]]:
    """Inside the block the first Ctrl-C only makes the yielded function return True; the second interrupts at once.

    So does a termination signal, by which ``torchrun`` and schedulers of clusters stop a process, but however often it comes:
    they follow it up by a signal that cannot be put off.

    ``on_first`` is called by the signal handler: whatever it does must be safe there. Where Ctrl-C does not raise
    KeyboardInterrupt anyway (another handler, ignored, not the main thread), it is left as it is, and likewise termination.
    """
    asked = threading.Event()
    usual: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    here = threading.current_thread() is threading.main_thread()
    handled = [number for number, handler in usual.items() if here and handler in (USUAL[number], terminate)]

    def first(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            signal.signal(number, usual[number])
        if on_first is not None and not asked.is_set():
            on_first()
        asked.set()

    for number in handled:
        signal.signal(number, first)
    try:
        yield asked.is_set
    finally:
        for number in handled:
            signal.signal(number, usual[number])
