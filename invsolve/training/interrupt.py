"""Ctrl-C during training: the step in hand is finished first, so that what is saved belongs together."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def deferred_interrupt(on_first: Callable[[], None] | None = None) -> Iterator[Callable[[], bool]]:
    """Inside the block the first Ctrl-C only makes the yielded function return True; the second interrupts at once.

    ``on_first`` is called by the signal handler: whatever it does must be safe there. Where Ctrl-C does not raise
    KeyboardInterrupt anyway (another handler, ignored, not the main thread), it is left as it is.
    """
    asked = threading.Event()
    usual = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or usual is not signal.default_int_handler:
        yield asked.is_set
        return

    def first(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, usual)
        asked.set()
        if on_first is not None:
            on_first()

    signal.signal(signal.SIGINT, first)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, usual)
