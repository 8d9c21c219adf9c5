"""Many tasks through a cluster, few at a time: backpressure, retries, workers that go and come."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from invsolve.errors import InvsolveError, SolveError, first_line

if TYPE_CHECKING:
    from distributed import Client, Future

PER_WORKER = 2
"""Tasks in flight for each worker: one it works at, and one that waits so that it never idles."""

RETRIES = 2
"""Times that a task is tried again, with the same seeds, after an error that need not come again."""

Note = Callable[[str], None]
"""Called with a sentence for a person."""


def bounded(
    client: Client,
    submit: Callable[[int], Future[Any]],
    numbers: Iterable[int],
    *,
    note: Note = lambda sentence: None,
    describe: Callable[[int], str] = "task {}".format,
    failed: Callable[[int, InvsolveError], None] | None = None,
) -> Iterator[tuple[int, Any]]:
    """Run a task for each number and yield (number, result) as they come, in any order.

    At most :data:`PER_WORKER` tasks for each worker are known to the cluster at a time, so that neither their inputs nor
    their results pile up. The tasks of a lost worker go to another; one that failed is tried again. What is in flight when
    the caller stops is cancelled.

    Parameters
    ----------
    submit : starts the task of a number.
    note : told of workers that are lost, and of a cluster without any.
    describe : names a task for the messages.
    failed : called with what cannot be done, before going on; by default it is raised.

    Raises
    ------
    InvsolveError : what a task found wrong, in its own words.
    SolveError : a task failed again and again, its workers died, or the scheduler is gone.
    """
    from distributed import as_completed

    waiting, tries = deque(numbers), Counter[int]()
    flying: dict[Any, tuple[int, Future[Any]]] = {}
    watch = _Workers(client, note)
    completed = as_completed(loop=client.loop)
    try:
        while waiting or flying:
            most = PER_WORKER * max(1, watch.count())
            while waiting and len(flying) < most:
                number = waiting.popleft()
                future = submit(number)
                flying[future.key] = number, future
                completed.add(future)
            future = next(completed)
            number, _ = flying.pop(future.key)
            error = _error_of(future, client, describe(number))
            if error is None:
                yield number, future.result()
            elif isinstance(error, InvsolveError):
                if failed is None:
                    raise error
                failed(number, error)
            else:
                tries[number] += 1
                if tries[number] > RETRIES:
                    final = SolveError(f"{describe(number)}: {type(error).__name__}: {first_line(error)}")
                    if failed is None:
                        raise final from error
                    failed(number, final)
                else:
                    waiting.appendleft(number)
            future.release()
        watch.count()
    finally:
        if flying and client.status == "running":
            client.cancel([future for _, future in flying.values()], force=True)


def _error_of(future: Future[Any], client: Client, what: str) -> BaseException | None:
    """What went wrong with a task that is over; an InvsolveError where trying again is of no use."""
    from distributed import KilledWorker

    if client.status != "running":
        raise _gone()
    if future.status == "finished":
        return None
    if future.cancelled():
        return ConnectionError("its result was lost")
    error = future.exception()
    if isinstance(error, KilledWorker):
        return SolveError(
            f"{what}: every worker that tried it died", hint="out of memory? see the workers' own messages"
        )
    return error


def _gone() -> SolveError:
    return SolveError("the scheduler is gone", hint="the same command goes on where this one stopped")


class _Workers:
    """Who is there, and who was."""

    def __init__(self, client: Client, note: Note) -> None:
        self.client, self.note = client, note
        self.known: set[str] = set()
        self.told = False

    def count(self) -> int:
        """How many workers there are now."""
        try:
            there = set(self.client.nthreads())
        except (OSError, TimeoutError):
            raise _gone() from None
        for address in sorted(self.known - there):
            self.note(f"the worker {address} is gone: what it had begun is done again by another")
        if not there and not self.told:
            self.note("no worker has joined the scheduler yet: waiting for one")
            self.told = True
        self.known = there
        return len(there)
