"""Small data and a small trained-on-the-spot prior that the tests share."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
import typer
from calling import Completed, Run, call

from invsolve.models.gaussian import GaussianPrior, smooth_gaussian_prior
from invsolve.models.network import EDMDenoiser, NetworkConfig
from invsolve.pretrained import Card, save_prior

ROOT = Path(__file__).resolve().parents[1]

# In a shell's background job Ctrl-C is ignored, and the programs that the tests start would not hear it either.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _workers_share_the_cores() -> None:
    """Processes that test beside each other (``pytest -n``) would else compute on all cores each, and so would theirs."""
    if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
        threads = max(1, (os.cpu_count() or 1) // workers)
        torch.set_num_threads(threads)
        os.environ["OMP_NUM_THREADS"] = str(threads)


@pytest.fixture(autouse=True)
def _quiet_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(autouse=True)
def _no_imported_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of whoever runs the tests are not the tests' business."""
    monkeypatch.setenv("INVSOLVE_MODELS", str(ROOT / "no-such-folder"))


@pytest.fixture(autouse=True, scope="session")
def _commands_are_put_together_once() -> Iterator[None]:
    """Typer makes all commands anew at every call, which takes a twentieth of a second; a program makes one call."""
    make, made = typer.main.get_command, dict[int, tuple[typer.Typer, Any]]()

    def once(program: typer.Typer) -> Any:
        if id(program) not in made:
            made[id(program)] = program, make(program)  # kept, so that no other program gets its id
        return made[id(program)][1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.main.get_command", once)
        patch.setattr("typer.testing._get_command", once, raising=False)
        yield


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """``invsolve ARGUMENTS`` in this process: what it wrote, and its exit code."""

    def called(*arguments: object) -> Completed:
        capfd.readouterr()
        code = call(monkeypatch, *arguments)
        return Completed(code, *capfd.readouterr())

    return called


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def gaussian() -> GaussianPrior:
    """An image-like Gaussian on (3, 4, 4) in float64."""
    return smooth_gaussian_prior((3, 4, 4))


@pytest.fixture(scope="session")
def small_prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real prior folder: a small network of random weights, not trained, with a card."""
    torch.manual_seed(0)
    config = NetworkConfig(widths=(8, 16), encoder_blocks=(1, 1), decoder_blocks=(1,))
    network = EDMDenoiser(config)
    for parameter in network.parameters():  # zero-initialised layers would hide errors
        if float(parameter.detach().abs().sum()) == 0:
            torch.nn.init.normal_(parameter, std=0.02)
    folder = tmp_path_factory.mktemp("priors") / "small"
    card = Card(
        name="small",
        network={},
        units="RGB in [0, 1]",
        sigma_min=0.005,
        sigma_max=20.0,
        validation_mse=[(0.005, 2.4e-5), (0.1, 5e-3), (1.0, 5e-2), (20.0, 0.07)],
        sha256="",
    )
    save_prior(folder, network, card)
    return folder


@pytest.fixture(scope="session")
def ct_prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real prior folder of one channel: a small network that was not trained."""
    torch.manual_seed(0)
    config = NetworkConfig(channels=1, stem=2, widths=(8, 16), encoder_blocks=(1, 1), decoder_blocks=(1,))
    folder = tmp_path_factory.mktemp("priors") / "small-ct"
    errors = [(0.005, 2.4e-5), (0.1, 5e-3), (1.0, 5e-2), (5.0, 0.07)]
    card = Card("small-ct", {}, "CT number n", 0.005, 5.0, errors, "")
    save_prior(folder, EDMDenoiser(config), card)
    return folder


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """A smooth 48 x 40 RGB picture, uint8."""
    y, x = np.mgrid[:48, :40]
    channels = [128 + 100 * np.sin(x / 9 + k) * np.cos(y / 11 - k) for k in range(3)]
    return np.stack(channels, axis=2).astype(np.uint8)


COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Mirror(ThreadingHTTPServer):
    """The parts of a hub that fetching a model takes: the listing of a repository, and its files."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.files, self.commit, self.break_off = files, COMMIT, 0
        self.listed = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        self.asked: list[tuple[str, str | None]] = []  # path and range of every GET of a file

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def listing(self) -> dict[str, Any]:
        siblings = []
        for name, content in self.files.items():
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            large = {"size": len(content), "sha256": self.listed[name], "pointerSize": 134}
            siblings.append({"rfilename": name, "size": len(content), "blobId": blob})
            if name.endswith((".safetensors", ".bin")):
                siblings[-1]["lfs"] = large
        return {"id": "lab/faces", "modelId": "lab/faces", "sha": self.commit, "siblings": siblings, "tags": []}


class Answers(BaseHTTPRequestHandler):
    server: Mirror
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        parts = urlsplit(self.path).path.strip("/").split("/")
        if parts[:4] == ["api", "models", "lab", "faces"] and parts[4:] in (
            [],
            ["revision", "main"],
            ["revision", COMMIT],
        ):
            self.send(json.dumps(self.server.listing()).encode(), body, {"Content-Type": "application/json"})
        elif parts[:4] == ["lab", "faces", "resolve", COMMIT] and "/".join(parts[4:]) in self.server.files:
            name = "/".join(parts[4:])
            if body:
                self.server.asked.append((name, self.headers.get("Range")))
            headers = {"ETag": f'"{self.server.listed[name]}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            self.send(self.server.files[name], body, headers)
        else:
            self.send(b"", body, {"X-Error-Code": "RepoNotFound"}, status=404)

    def send(self, content: bytes, body: bool, headers: dict[str, str], status: int = 200) -> None:
        first = int(self.headers["Range"].removeprefix("bytes=").partition("-")[0]) if "Range" in self.headers else 0
        if first:
            status, headers = 206, headers | {"Content-Range": f"bytes {first}-{len(content) - 1}/{len(content)}"}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        if not body:
            return
        if self.server.break_off and len(content) > self.server.break_off:
            self.wfile.write(content[first : self.server.break_off])
            self.server.break_off = 0
            self.close_connection = True
            return
        self.wfile.write(content[first:])


@pytest.fixture
def serve_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[dict[str, bytes]], Mirror]]:
    """Serves files by name as the repository lab/faces of a hub on the loopback, which huggingface_hub is sent to."""
    huggingface_hub = pytest.importorskip("huggingface_hub")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    servers: list[tuple[Mirror, threading.Thread]] = []

    def serve(files: dict[str, bytes]) -> Mirror:
        server = Mirror(dict(files))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        servers.append((server, thread))
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        return server

    yield serve
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()
