"""The page's HTTP interface, and the server around it.

All paths lie below the token, see :mod:`invsolve.ui.guard`; errors are ``{"error": one line, "hint": the way out}``.

| path | |
| --- | --- |
| ``GET /`` and ``/static/...`` | the page |
| ``GET /api/start`` | what there is: tasks with their fields, priors, limits, version |
| ``POST /api/uploads?name=&kind=&like=`` | take in a file, the body as it is; ``like`` : the upload whose size it must have |
| ``GET /api/uploads/{id}/view`` | a picture of it, PNG of 8 bits |
| ``POST /api/jobs`` | ``{"task", "source", "files": {option: upload}, "answers": {field: value}, "model"}`` |
| ``GET /api/jobs``, ``/api/jobs/{id}`` | the jobs, one job |
| ``GET /api/jobs/{id}/events`` | a job at every change, as server-sent events, until it has ended |
| ``DELETE /api/jobs/{id}`` | cancel it |
| ``GET /api/jobs/{id}/preview`` | the estimate so far, JPEG |
| ``GET /api/jobs/{id}/files/{name}`` | a file that it wrote or was given; ``?view`` as PNG of 8 bits |
| ``GET /api/jobs/{id}/zip`` | all of them, with the report and the command |
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
import tempfile
import zipfile
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.requests import ClientDisconnect

from invsolve._version import __version__
from invsolve.errors import InputError, InvsolveError, UsageError
from invsolve.ui.forms import FORMS, arguments, described
from invsolve.ui.guard import Address, Guard
from invsolve.ui.jobs import ENDED, Job, Jobs
from invsolve.ui.uploads import LARGEST_UPLOAD, MOST_PIXELS, Reader, Uploads

STATIC = Path(__file__).parent / "static"

LARGEST_REQUEST = 2**16
"""Bytes of a job as the page asks for it."""

WATCH_SECONDS = 0.1
"""Between two looks at whether a job has changed."""

BESIDE = {"mask": ("mask",), "hints": ("hints",), "geometry": ("geometry",)}
"""Options that name a further file, and the kinds of upload that may be one."""


@dataclass(frozen=True)
class Setting:
    """What a page is given.

    Parameters
    ----------
    folder : for uploads and jobs; whoever made it removes it.
    worker : command line of the process that computes.
    reader : looks at files.
    models : names of priors to choose from.
    device : where the commands compute.
    largest_upload, most_pixels : limits.
    """

    folder: Path
    worker: Sequence[str]
    reader: Reader
    models: Sequence[str]
    device: str = "auto"
    largest_upload: int = LARGEST_UPLOAD
    most_pixels: int = MOST_PIXELS


class Page:
    """The routes, on uploads and jobs of their own."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.uploads = Uploads(setting.folder / "uploads", setting.reader, setting.largest_upload, setting.most_pixels)
        self.jobs = Jobs(setting.folder / "jobs", setting.worker, {"INVSOLVE_DEVICE": setting.device})
        self.closing = False

    def close(self) -> None:
        """End what runs, so that the server can end too."""
        self.closing = True
        self.jobs.close()

    # -- the page -----------------------------------------------------------------------------------------------
    async def index(self) -> Response:
        return FileResponse(STATIC / "index.html", media_type="text/html; charset=utf-8")

    async def start(self) -> dict[str, Any]:
        return {
            "version": __version__, "tasks": described(), "models": list(self.setting.models),
            "device": self.setting.device, "largest_upload": self.setting.largest_upload,
            "most_pixels": self.setting.most_pixels,
        }  # fmt: skip

    # -- files --------------------------------------------------------------------------------------------------
    async def upload(self, request: Request, name: str = "", kind: str = "picture", like: str = "") -> dict[str, Any]:
        pattern = self.uploads.find(like) if like else None
        length = request.headers.get("content-length", "")
        announced = int(length) if length.isascii() and length.isdigit() else None
        path = await self.uploads.receive(request.stream(), name, kind, announced)
        return (await run_in_threadpool(self.uploads.look, path, kind, pattern)).described()

    async def view(self, number: str) -> Response:
        return FileResponse(self.uploads.find(number).view, media_type="image/png")

    # -- jobs ---------------------------------------------------------------------------------------------------
    async def add(self, request: Request) -> dict[str, Any]:
        asked = await read_object(request)
        task, answers = text_of(asked, "task"), asked.get("answers", {})
        if not isinstance(answers, dict):
            raise UsageError("answers that are no object", hint="reload the page")
        takes = FORMS[task].takes if task in FORMS else "picture"
        source = self.uploads.find(text_of(asked, "source"), (takes,))
        names, files = {}, {source.path.name: source.path}
        for option, number in (asked.get("files") or {}).items():
            if option not in BESIDE:
                raise UsageError(f"unknown file {str(option)[:20]!r}", hint="reload the page")
            beside = self.uploads.find(str(number), BESIDE[option])
            names[option] = f"{source.path.stem}.{option}{beside.path.suffix}"
            files[names[option]] = beside.path
        wanted = arguments(
            task, source.path.name, answers, model=text_of(asked, "model", ""), models=self.setting.models, files=names
        )
        return (await run_in_threadpool(self.jobs.add, task, wanted, files)).described()

    async def all_jobs(self) -> list[dict[str, Any]]:
        return [job.described() for job in list(self.jobs.jobs.values())]

    async def job(self, number: str) -> dict[str, Any]:
        return self.jobs.find(number).described()

    async def cancel(self, number: str) -> dict[str, Any]:
        job = self.jobs.find(number)
        await run_in_threadpool(self.jobs.cancel, job)
        return job.described()

    async def events(self, number: str) -> Response:
        stream = self._changes(self.jobs.find(number))
        return StreamingResponse(stream, media_type="text/event-stream")

    async def _changes(self, job: Job) -> AsyncIterator[str]:
        """The job as it is, then at every change; a comment now and then, so that a browser that is gone is noticed."""
        seen, quiet = -1, 0.0
        while not self.closing:
            version, ended = job.version, job.state in ENDED
            if version != seen:
                seen, quiet = version, 0.0
                yield f"data: {json.dumps(job.described())}\n\n"
            if ended:
                return
            await asyncio.sleep(WATCH_SECONDS)
            quiet += WATCH_SECONDS
            if quiet > 10:
                quiet = 0.0
                yield ": still here\n\n"

    async def preview(self, number: str) -> Response:
        path = self.jobs.find(number).folder / "preview.jpg"
        if not path.is_file():
            raise InputError("there is no preview yet")
        return Response(await run_in_threadpool(path.read_bytes), media_type="image/jpeg")

    async def file(self, number: str, name: str, request: Request) -> Response:
        job = self.jobs.find(number)
        if name not in (*job.outputs, *job.given) or not (job.folder / name).is_file():
            raise InputError("that job has no such file", hint="run it again")
        path = job.folder / name
        if "view" in request.query_params:
            seen = await run_in_threadpool(self.setting.reader, path, "picture", 2 * 64 * self.setting.most_pixels)
            return Response(seen.png, media_type="image/png")
        return FileResponse(path, filename=name)

    async def archive(self, number: str) -> Response:
        job = self.jobs.find(number)
        if job.state != "done":
            raise InputError("that job has no results", hint="wait for it to end, or run it again")
        path = await run_in_threadpool(zipped, job)
        return FileResponse(path, filename=path.name, media_type="application/zip")


def zipped(job: Job) -> Path:
    """All that a job was given and wrote, the report and the command, as a file beside them."""
    path = job.folder / f"{Path(job.outputs[0]).stem}.zip"
    if not path.exists():
        partial = path.with_suffix(".part")
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:  # pictures are compressed already
            for name in (*job.given, *job.outputs):
                archive.write(job.folder / name, name)
            archive.writestr("report.json", json.dumps(job.report, indent=1) + "\n")
            archive.writestr("command.txt", f"{job.command}\n\n" + "".join(f"{line}\n" for line in job.said))
        partial.replace(path)
    return path


async def read_object(request: Request) -> dict[str, Any]:
    """The JSON object that a request holds.

    Raises
    ------
    UsageError : it holds something else, or too much.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_REQUEST:
            raise UsageError("the request is too long", hint="reload the page")
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UsageError("the request is no JSON object", hint="reload the page")
    return found


def text_of(asked: dict[str, Any], name: str, default: str | None = None) -> str:
    """A text of a request.

    Raises
    ------
    UsageError : it is missing, or no text.
    """
    found = asked.get(name, default)
    if not isinstance(found, str):
        raise UsageError(f"the request has no {name}", hint="reload the page")
    return found


async def said(request: Request, error: Exception) -> Response:
    """What is wrong, in one line, for the page to show."""
    assert isinstance(error, InvsolveError)
    message = " ".join(error.message.split())
    return JSONResponse({"error": message, "hint": " ".join(error.hint.split())}, status_code=400)


async def broken(request: Request, error: Exception) -> Response:
    """An error that nobody thought of, in one line too."""
    line = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return JSONResponse({"error": line, "hint": "this is a bug; please report it"}, status_code=500)


async def gone(request: Request, error: Exception) -> Response:
    """Nobody waits for an answer any more, as when a page is closed while it sends a file."""
    return Response(status_code=400)


def application(page: Page) -> FastAPI:
    """The routes of ``page``, without the guard around them."""
    app = FastAPI(title="invsolve", docs_url=None, redoc_url=None, openapi_url=None)
    routes: list[tuple[str, str, Callable[..., Any]]] = [
        ("GET", "/", page.index),
        ("GET", "/api/start", page.start),
        ("POST", "/api/uploads", page.upload),
        ("GET", "/api/uploads/{number}/view", page.view),
        ("POST", "/api/jobs", page.add),
        ("GET", "/api/jobs", page.all_jobs),
        ("GET", "/api/jobs/{number}", page.job),
        ("DELETE", "/api/jobs/{number}", page.cancel),
        ("GET", "/api/jobs/{number}/events", page.events),
        ("GET", "/api/jobs/{number}/preview", page.preview),
        ("GET", "/api/jobs/{number}/files/{name}", page.file),
        ("GET", "/api/jobs/{number}/zip", page.archive),
    ]
    for method, path, endpoint in routes:
        app.add_api_route(path, endpoint, methods=[method], response_model=None)
    app.add_exception_handler(InvsolveError, said)
    app.add_exception_handler(ClientDisconnect, gone)
    app.add_exception_handler(Exception, broken)
    app.mount("/static", StaticFiles(directory=STATIC))
    return app


class Server(uvicorn.Server):
    """Says when it is ready, and lets open streams go as soon as it is asked to end."""

    def __init__(self, config: uvicorn.Config, page: Page, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self.page, self.ready = page, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await asyncio.to_thread(self.page.close)
        await super().shutdown(sockets)


def serve(
    address: Address,
    bound: socket.socket,
    setting: Callable[[Path], Setting],
    ready: Callable[[str], None],
) -> None:
    """Serve the page until Ctrl-C or a request to terminate; whatever was uploaded and computed is removed then.

    Parameters
    ----------
    bound : the socket of the ``address``.
    setting : makes the page's setting with a folder of its own.
    ready : called as soon as the page answers, with an address that leads there once.
    """
    with tempfile.TemporaryDirectory(prefix="invsolve-ui-", ignore_cleanup_errors=True) as folder:
        page = Page(setting(Path(folder)))
        guard = Guard(application(page), address)
        config = uvicorn.Config(
            guard, log_level="error", access_log=False, server_header=False,
            timeout_graceful_shutdown=2, lifespan="off",
        )  # fmt: skip
        end_by_signals()
        try:
            Server(config, page, lambda: ready(guard.ticket())).run(sockets=[bound])
        except KeyboardInterrupt:
            pass  # the usual way to end
        finally:
            page.close()


def end_by_signals() -> None:
    """Let requests to terminate, and a terminal that is closed, end the program in good order. Uvicorn raises the first again when
    it has ended, which must not keep the folder from being removed."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, lambda number, frame: sys.exit(128 + number))
