"""What a worker keeps while a run lasts: the prior, the projector, its share of the machine.

A Dask worker plugin: the scheduler hands it to every worker once, also to one that joins later or takes the place of a
lost one. What it holds is loaded by the first task that asks for it.
"""

from __future__ import annotations

import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from invsolve._version import __version__
from invsolve.errors import InvsolveError, ModelError
from invsolve.forward_models import Geometry, LinearOperator, projector
from invsolve.models.score_model import ScoreModel
from invsolve.pretrained.loading import find_prior, load_prior, resolve_device

if TYPE_CHECKING:
    import torch
    from distributed import Client

    WorkerPlugin = object  # so that types are the same with Dask and without
else:
    try:
        from distributed import WorkerPlugin
    except ImportError:  # said in one line by whoever asks for a client
        WorkerPlugin = object


@dataclass(frozen=True)
class PriorFiles:
    """A prior's folder as it travels: a worker need not have it."""

    name: str
    files: dict[str, bytes]

    @classmethod
    def read(cls, prior: str | Path) -> PriorFiles:
        """The files of a prior by name or folder; errors as of :func:`invsolve.load_prior`."""
        folder = find_prior(prior)
        return cls(folder.name, {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()})

    def load(self, device: torch.device) -> ScoreModel:
        """The prior; its weights are checked against the card as always."""
        with tempfile.TemporaryDirectory(prefix="invsolve-prior-", ignore_cleanup_errors=True) as temporary:
            folder = Path(temporary) / self.name
            folder.mkdir()
            for name, content in self.files.items():
                (folder / name).write_bytes(content)
            return load_prior(folder, device)


CORES = "cores"
"""The Dask resource by which a worker of one Dask thread says how many threads PyTorch may use."""

Prior = str | Path | ScoreModel
"""A name or folder of a prior, whose files travel, or a score model, which is pickled."""


class Resident(WorkerPlugin):
    """See the module.

    Parameters
    ----------
    prior : what the workers load, None for work that needs none.
    device : ``auto``, ``cpu``, ``cuda`` or ``cuda:N``, resolved by each worker.
    threads : of one worker; None for its resource ``cores`` where it was started with one, else as many as Dask says.
    job : what all tasks of the run need to know.
    """

    def __init__(self, prior: Prior | None, device: str, threads: int | None = None, job: Any = None) -> None:
        self.name = f"invsolve-{uuid4().hex[:12]}"
        self.prior = PriorFiles.read(prior) if isinstance(prior, str | Path) else prior
        self.device, self.threads, self.job = device, threads, job
        self.version = __version__

    def setup(self, worker: Any) -> None:
        """Called on the worker before its first task."""
        if self.version != __version__:
            raise ModelError(
                f"the worker {worker.address} has invsolve {__version__}, the client {self.version}",
                hint="install the same version everywhere",
            )
        self.threads = self.threads or int(worker.state.total_resources.get(CORES, worker.state.nthreads))
        self._lock = threading.Lock()
        self._loaded: ScoreModel | None = None
        self._projectors: dict[str, LinearOperator] = {}
        if worker.nanny and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # its nanny hears Ctrl-C too, and ends it in order

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """One task at a time in a process, on the worker's share of the cores: else PyTorch would take all of them, in every
        process, and for every thread that Dask runs tasks in."""
        import torch

        with self._lock:
            torch.set_num_threads(self.threads or 1)  # of this thread: OpenMP keeps the number for each
            yield

    @property
    def where(self) -> torch.device:
        """The device that this worker computes on."""
        return resolve_device(self.device)

    @property
    def loaded(self) -> ScoreModel:
        """The prior, loaded once."""
        if self._loaded is None:
            assert self.prior is not None, "this run has no prior"
            self._loaded = self.prior.load(self.where) if isinstance(self.prior, PriorFiles) else self.prior
        return self._loaded

    def projector(self, geometry: Geometry) -> LinearOperator:
        """The projector of a scan, made once."""
        if geometry.digest not in self._projectors:
            self._projectors[geometry.digest] = projector(geometry, self.where)
        return self._projectors[geometry.digest]


def resident(name: str) -> Resident:
    """What the worker that this task runs on keeps for the run ``name``."""
    from distributed import get_worker

    found: Any = get_worker().plugins[name]
    assert isinstance(found, Resident)
    return found


@contextmanager
def settled(client: Client, kept: Resident) -> Iterator[Resident]:
    """Have the cluster's workers keep ``kept`` during the block.

    Raises
    ------
    ModelError : the workers have another version of this package, or none.
    """
    plugin: Any = kept
    try:
        client.register_plugin(plugin, name=kept.name)
    except InvsolveError:
        raise
    except (ImportError, AttributeError) as error:
        raise ModelError(
            f"the workers cannot import invsolve: {error}", hint="install it, in the same version, where they run"
        ) from None
    try:
        yield kept
    finally:
        with suppress(OSError, TimeoutError):  # of a scheduler that is gone
            if client.status == "running":
                client.unregister_worker_plugin(kept.name)
