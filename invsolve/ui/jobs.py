"""One queue of jobs, and the process that computes them one after the other.

A job is a command's arguments. The worker (:mod:`invsolve.cli.ui_worker`, given as a command line) gets them as a line of
JSON and answers with lines of JSON: ``{"said": text}``, ``{"share": of the work}``, ``{"preview": number}``, ``{"error": text,
"hint": text}``, and at the end ``{"code": exit code, "report": object or null}``. To cancel a running job its process is
ended, so that nothing goes on computing and all its memory is free again; the next job gets a new one.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shlex
import shutil
import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from invsolve.errors import InputError, UsageError

State = Literal["waiting", "running", "done", "failed", "cancelled"]
ENDED: tuple[State, ...] = ("done", "failed", "cancelled")

MOST_WAITING = 8
MOST_JOBS = 24
"""The oldest that has ended is forgotten then, with its files."""


@dataclass
class Job:
    """A command that is to run, runs or has run."""

    number: str
    task: str
    arguments: list[str]
    folder: Path
    given: tuple[str, ...]  # names of the files that were there before it ran
    state: State = "waiting"
    share: float = 0.0
    preview: int = 0
    seconds: float = 0.0
    error: str = ""
    hint: str = ""
    report: dict[str, Any] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    version: int = 0  # grows with every change

    @property
    def command(self) -> str:
        """What would run the same in a terminal, in the folder with the files."""
        return shlex.join(["invsolve", *self.arguments])

    @property
    def outputs(self) -> list[str]:
        """Names of the files that it wrote, the result first."""
        return [Path(name).name for name in self.report.get("outputs", [])]

    def described(self) -> dict[str, Any]:
        """For the page, as JSON has it."""
        return {
            "id": self.number, "task": self.task, "command": self.command, "state": self.state, "share": self.share,
            "preview": self.preview, "seconds": round(self.seconds, 1), "error": self.error, "hint": self.hint,
            "said": list(self.said), "outputs": self.outputs, "given": list(self.given), "report": self.report,
        }  # fmt: skip


class Jobs:
    """The queue; one thread follows the worker.

    Parameters
    ----------
    folder : each job gets a folder in it.
    worker : command line of the worker.
    environment : added to this process's own for it.
    """

    def __init__(self, folder: Path, worker: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self.folder, self.worker, self.environment = folder, list(worker), dict(environment or {})
        self.jobs: dict[str, Job] = {}
        self.waiting: deque[Job] = deque()
        self.running: Job | None = None
        self.process: subprocess.Popen[str] | None = None
        self.closed = False
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self._follow, name="jobs", daemon=True)
        self.thread.start()

    def add(self, task: str, arguments: list[str], files: Mapping[str, Path]) -> Job:
        """Put a job at the end of the queue.

        Parameters
        ----------
        files : what it works on, by the name that its arguments call it.

        Raises
        ------
        UsageError : too many are waiting.
        """
        with self.changed:
            if len(self.waiting) >= MOST_WAITING:
                raise UsageError(f"{MOST_WAITING} jobs are waiting already", hint="wait for one to end, or cancel one")
            number = secrets.token_hex(8)
            folder = self.folder / number
            folder.mkdir(parents=True)
            for name, path in files.items():
                copy(path, folder / name)
            job = Job(number, task, arguments, folder, tuple(files))
            self.jobs[number] = job
            self.waiting.append(job)
            self._forget()
            self.changed.notify_all()
        return job

    def find(self, number: str) -> Job:
        """A job by its number.

        Raises
        ------
        InputError : there is none.
        """
        job = self.jobs.get(number)
        if job is None:
            raise InputError("that job is not there any more", hint="run it again")
        return job

    def cancel(self, job: Job) -> None:
        """Take a job out of the queue, or end the process that computes it. One that has ended stays as it is."""
        with self.changed:
            if job.state in ENDED:
                return
            if job in self.waiting:
                self.waiting.remove(job)
            self._change(job, state="cancelled")
            if job is self.running and self.process is not None:
                self.process.kill()

    def close(self) -> None:
        """Cancel everything and wait for the process to be gone."""
        with self.changed:
            self.closed = True
            for job in [*self.waiting, *([self.running] if self.running else [])]:
                self.cancel(job)
            if self.process is not None:
                self.process.kill()
            self.changed.notify_all()
        self.thread.join(timeout=10)

    def _change(self, job: Job, **changes: Any) -> None:
        for name, value in changes.items():
            setattr(job, name, value)
        job.version += 1
        self.changed.notify_all()

    def _forget(self) -> None:
        ended = [job for job in self.jobs.values() if job.state in ENDED]
        for job in ended[: max(0, len(self.jobs) - MOST_JOBS)]:
            del self.jobs[job.number]
            shutil.rmtree(job.folder, ignore_errors=True)

    def _follow(self) -> None:
        """The thread: start what waits, take note of what the worker says."""
        while True:
            with self.changed:
                while not self.waiting and not self.closed:
                    self.changed.wait()
                if self.closed:
                    break
                job = self.running = self.waiting.popleft()
                self._change(job, state="running")
                started = time.monotonic()
                try:
                    process = self._send(job)
                except OSError as error:
                    self._change(job, state="failed", error=f"cannot start the worker: {error.strerror or error}")
                    continue
            ended = self._listen(job, process, started)
            with self.changed:
                self.running = None
                if not ended:
                    self._bury(process)
                    if job.state == "running":
                        self._change(job, state="failed", **self._cause(process))
        if self.process is not None:
            self._bury(self.process)

    def _send(self, job: Job) -> subprocess.Popen[str]:
        """Give a job to the worker that is there, or to a new one."""
        process = self.process
        if process is None or process.poll() is not None:
            with (self.folder / "worker.log").open("w", encoding="utf-8") as log:
                process = self.process = subprocess.Popen(
                    self.worker, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, encoding="utf-8",
                    env={**os.environ, **self.environment}, start_new_session=True,
                )  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(json.dumps({"arguments": [*job.arguments, "--json"], "folder": str(job.folder)}) + "\n")
        process.stdin.flush()
        return process

    def _listen(self, job: Job, process: subprocess.Popen[str], started: float) -> bool:
        """Take note of the worker's lines up to the job's end; False where the worker ended first."""
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            with self.changed:
                if job.state != "running":
                    return False
                job.seconds = time.monotonic() - started
                if "said" in event:
                    self._change(job, said=[*job.said, event["said"]])
                elif "code" in event:
                    state = "done" if event["code"] == 0 else "failed"
                    self._change(job, state=state, report=event["report"] or {}, share=float(state == "done"))
                    return True
                else:
                    self._change(job, **{name: event[name] for name in event if name in EVENTS})
        return False

    def _bury(self, process: subprocess.Popen[str]) -> None:
        """End a worker and free what it held."""
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # of what it did not read any more
                    pipe.close()
        if self.process is process:
            self.process = None

    def _cause(self, process: subprocess.Popen[str]) -> dict[str, str]:
        """Why a worker ended in the middle of a job, as far as that is known."""
        if process.returncode == -9:
            return {
                "error": "the system ended the computation, most likely for want of memory",
                "hint": "use fewer samples, or a smaller picture",
            }
        lines = (self.folder / "worker.log").read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "no message")
        return {"error": f"the computation ended by itself: {last[:300]}", "hint": "this is a bug; please report it"}


EVENTS = frozenset({"share", "preview", "error", "hint"})
"""What a line of the worker may change of a job as it is."""


def copy(source: Path, target: Path) -> None:
    """A second name for a file, or a copy where the file system has no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
