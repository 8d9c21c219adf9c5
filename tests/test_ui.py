"""``invsolve ui``: who may talk to it, what it takes in, that it runs the commands, and that cancelling ends the work."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
httpx = pytest.importorskip("httpx")

from fastapi.testclient import TestClient

from invsolve.cli.main import app as program
from invsolve.cli.main import main
from invsolve.cli.ui import WORKER, view
from invsolve.errors import ExitCode, UsageError
from invsolve.forward_models import Geometry, even_angles, projector
from invsolve.ui.app import Page, Setting, application
from invsolve.ui.forms import FORMS, arguments
from invsolve.ui.guard import Address, Guard, check_host, split_port
from invsolve.ui.uploads import safe_name

TOKEN = "a-token"
HERE = {"Host": "127.0.0.1:8484"}
COMMAND = [sys.executable, "-m", "invsolve.cli.main"]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, small_prior: Path, ct_prior: Path) -> Iterator[Page]:
    setting = Setting(
        tmp_path_factory.mktemp("ui"), [sys.executable, "-m", WORKER], view, [str(small_prior), str(ct_prior), "photos"], "cpu",
        largest_upload=2**20, most_pixels=10_000,
    )  # fmt: skip
    made = Page(setting)
    yield made
    made.close()


@pytest.fixture
def client(page: Page) -> TestClient:
    guarded = Guard(application(page), Address("127.0.0.1", 8484, TOKEN))
    return TestClient(guarded, base_url=f"http://127.0.0.1:8484/{TOKEN}/", headers=HERE)


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Exit code of a command in this process."""
    monkeypatch.setattr(sys, "argv", ["invsolve", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def upload(client: Any, content: bytes, name: str = "photo.png", kind: str = "picture", like: str = "") -> Any:
    return client.post("api/uploads", params={"name": name, "kind": kind, "like": like}, content=content)


def hole(photo: np.ndarray) -> np.ndarray:
    mask = np.zeros(photo.shape[:2], np.uint8)
    mask[10:13, 5:30] = 255
    return mask


def ask(client: Any, photo: np.ndarray, model: Path, **answers: Any) -> Any:
    """Fill the hole of the photograph."""
    source = upload(client, png(photo)).json()["id"]
    mask = upload(client, png(hole(photo)), "mask.png", "mask", source).json()["id"]
    asked = {"task": "inpaint", "source": source, "files": {"mask": mask}, "answers": answers, "model": str(model)}
    return client.post("api/jobs", json=asked)


def wait(client: Any, number: str, states: tuple[str, ...] = ("done", "failed", "cancelled")) -> dict[str, Any]:
    for _ in range(3600):
        job = client.get(f"api/jobs/{number}").json()
        if job["state"] in states:
            return job
        time.sleep(0.05)
    raise AssertionError(f"still {job['state']}")


# -- who may talk to it -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("path", "headers", "why"),
    [
        ("/", {}, "token"),
        ("/another/", {}, "token"),
        (f"/{TOKEN}", {}, "token"),
        ("/api/start", {}, "token"),
        (f"/{TOKEN}/", {"Host": "evil.example:8484"}, "address"),
        (f"/{TOKEN}/", {"Host": "127.0.0.1:8485"}, "address"),
        (f"/{TOKEN}/", {"Host": "127.0.0.1"}, "address"),
        (f"/{TOKEN}/api/start", {"Origin": "http://evil.example"}, "another page"),
        (f"/{TOKEN}/api/start", {"Origin": "null"}, "another page"),
        (f"/{TOKEN}/api/start", {"Origin": "http://127.0.0.1:9999"}, "another page"),
        (f"/{TOKEN}/api/start", {"Sec-Fetch-Site": "cross-site"}, "another page"),
        (f"/{TOKEN}/api/start", {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}, "another page"),
    ],
)
def test_nobody_else_is_served(path: str, headers: dict[str, str], why: str, client: TestClient) -> None:
    for method in ("GET", "POST", "DELETE"):
        answer = client.request(method, f"http://127.0.0.1:8484{path}", headers={**HERE, **headers})
        assert answer.status_code == 403
        assert why in answer.json()["error"]
        assert "content-security-policy" in answer.headers


@pytest.mark.parametrize("host", ["127.0.0.1:8484", "localhost:8484", "[::1]:8484"])
def test_the_page_is_served_to_its_own_address(host: str, client: TestClient) -> None:
    answer = client.get("", headers={"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"})
    assert answer.status_code == 200
    assert "<title>invsolve</title>" in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["referrer-policy"] == "no-referrer"
    for name in ("page.css", "page.js", "painter.js", "slices.js", "api.js"):
        assert client.get(f"static/{name}").status_code == 200


def test_a_ticket_opens_the_page_once() -> None:
    guard = Guard(None, Address("127.0.0.1", 8484, TOKEN))  # type: ignore[arg-type]
    ticket = guard.ticket()
    assert TOKEN not in ticket
    client = TestClient(guard, follow_redirects=False)
    assert client.get(ticket, headers={"Host": "evil.example:8484"}).status_code == 403
    opened = client.get(ticket)
    assert (opened.status_code, opened.headers["location"]) == (303, f"/{TOKEN}/")
    assert client.get(ticket).status_code == 403
    assert client.get(f"{ticket[:-1]}x").status_code == 403


def test_nothing_comes_from_the_network_and_nothing_is_inline() -> None:
    from invsolve.ui.app import STATIC

    for path in STATIC.iterdir():
        text = path.read_text()
        assert not re.search(r"https?:|//[a-z]+\.|@import", text.replace("data:,", "")), path.name
    assert not re.search(r"<script(?![^>]*src=)| style=| on\w+=", (STATIC / "index.html").read_text())


def test_files_outside_cannot_be_had(client: TestClient) -> None:
    for path in (
        "static/../app.py",
        "static/%2e%2e/app.py",
        "api/jobs/x/files/..%2f..%2fetc%2fpasswd",
        "api/uploads/../view",
    ):
        assert client.get(path).status_code in (400, 403, 404)


def test_other_machines_only_when_asked_plainly() -> None:
    for host in ("127.0.0.1", "localhost", "::1"):
        check_host(host, remote=False)
    for host in ("0.0.0.0", "192.168.1.5", "example.org"):
        with pytest.raises(UsageError, match="other machines"):
            check_host(host, remote=False)
        check_host(host, remote=True)
    remote = Address("0.0.0.0", 80, TOKEN, remote=True)
    assert remote.serves("192.168.1.5:80")
    assert not remote.serves("rebound.example:80")
    assert split_port("[::1]:80") == ("::1", 80)
    assert split_port("localhost") == ("localhost", 80)
    assert split_port("localhost:x")[1] == -1


# -- what it takes in -------------------------------------------------------------------------------------------------
def test_an_upload_is_seen_as_the_commands_read_it(client: TestClient, photo: np.ndarray) -> None:
    image = Image.fromarray(photo)
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned by a quarter
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif)
    found = upload(client, buffer.getvalue(), "C:\\holiday\\a b;rm *.JPG").json()
    assert (found["width"], found["height"]) == photo.shape[:2]
    assert found["name"] == "a b_rm.jpg"
    seen = Image.open(io.BytesIO(client.get(f"api/uploads/{found['id']}/view").content))
    assert seen.size == photo.shape[:2]


@pytest.mark.parametrize(
    ("content", "name", "kind", "error"),
    [
        (b"not a picture", "x.png", "picture", "x.png is not a picture"),
        (b"", "x.png", "picture", "empty"),
        (b"x" * (2**20 + 1), "x.png", "picture", "larger than 1 MiB"),
        (png(np.zeros((101, 100), np.uint8)), "x.png", "picture", "100 x 101 pixels"),
        (png(np.zeros((101, 100), np.uint8)), "x.png", "mask", "100 x 101 pixels"),
        (b"not numbers", "x.npy", "sinogram", "x.npy holds Python objects, or is damaged"),
        (npy(np.full((4, 4), np.nan)), "x.npy", "sinogram", "NaN"),
        (npy(np.zeros(4)), "x.npy", "sinogram", "dimensions"),
        (b"kind = 1", "x.toml", "geometry", "x.toml"),
        (b"x", "x", "virus", "unknown kind"),
    ],
)
def test_bad_files_get_one_line_and_are_not_kept(
    content: bytes, name: str, kind: str, error: str, client: TestClient, page: Page
) -> None:
    answer = upload(client, content, name, kind)
    assert answer.status_code == 400
    assert error in answer.json()["error"]
    assert "\n" not in answer.json()["error"]
    assert str(page.setting.folder) not in answer.text
    kept = {path for upload in page.uploads.files.values() for path in (upload.path, upload.view)}
    assert {path for path in (page.setting.folder / "uploads").rglob("*") if path.is_file()} == kept


def test_a_mask_must_have_the_size_of_the_picture(client: TestClient, photo: np.ndarray) -> None:
    source = upload(client, png(photo)).json()["id"]
    answer = upload(client, png(np.zeros((5, 6), np.uint8)), "mask.png", "mask", source)
    assert answer.json()["error"] == "the mask is 6 x 5 pixels, the picture 40 x 48"


def test_names_of_files_are_harmless() -> None:
    assert safe_name("../../etc/passwd", "picture") == "passwd"
    assert safe_name("--output=x.png", "picture") == "output_x.png"
    assert safe_name(".png", "picture") == "picture.png"
    assert safe_name("…", "mask") == "mask"
    assert safe_name("größe 1.PNG", "picture") == "größe 1.png"
    assert len(safe_name("x" * 500 + ".jpeg", "picture")) < 80


# -- that it runs the commands ----------------------------------------------------------------------------------------
def test_fields_are_options_of_the_commands_with_their_defaults() -> None:
    import typer

    commands: Any = typer.main.get_command(program)
    for name, form in FORMS.items():
        known = {option: one for one in commands.commands[name].params for option in one.opts}
        for field in form.fields:
            option = known[f"--{field.name}"]
            if field.default.isdigit():
                assert int(option.default or 0) == int(field.default), (name, field.name)
            if field.kind == "choice":
                default = str(getattr(option.default, "value", option.default))
                # Units are those that the file names; the page's sinograms are arrays, which name none: pixel.
                assert default == ("None" if (name, field.name) == ("ct", "units") else field.default)
        assert known["--model"].default == form.model
        assert all(one in known for one in form.extra)


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ({"samples": "many"}, "Samples: 'many'"),
        ({"samples": 0}, "Samples: '0'"),
        ({"noise": "nan"}, "Noise"),
        ({"output": "/etc/passwd"}, "no field 'output'"),
    ],
)
def test_wrong_answers_are_named(answers: dict[str, Any], error: str) -> None:
    with pytest.raises(UsageError, match=error):
        arguments("inpaint", "x.png", answers, files={"mask": "m.png"})


def test_text_that_is_no_such_option_is_refused() -> None:
    assert "--angles=-90:90" in arguments("ct", "s.npy", {"angles": "-90:90"})
    for angles in ("/etc/passwd", "0:180 --force", "0:180\n1"):
        with pytest.raises(UsageError, match="Angles"):
            arguments("ct", "s.npy", {"angles": angles})
    with pytest.raises(UsageError, match="unknown prior"):
        arguments("ct", "s.npy", {}, model="/tmp/evil", models=["photos"])
    with pytest.raises(UsageError, match="unknown task"):
        arguments("train", "s.npy", {})


def test_the_result_is_that_of_the_command(
    client: TestClient, photo: np.ndarray, small_prior: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = ask(client, photo, small_prior, samples=3, steps=2).json()["id"]
    events = client.get(f"api/jobs/{number}/events").text.split("\n\n")
    seen = [json.loads(event.removeprefix("data: ")) for event in events if event.startswith("data: ")]
    assert (seen[-1]["state"], seen[-1]["error"]) == ("done", "")
    shares = [job["share"] for job in seen]
    assert shares == sorted(shares)
    job = seen[-1]
    assert job["preview"] >= 1
    assert Image.open(io.BytesIO(client.get(f"api/jobs/{number}/preview").content)).size == (40, 48)
    assert job["command"].startswith("invsolve inpaint photo.png --mask photo.mask.png --samples=3 --steps=2 --model ")
    assert any("missing" in line for line in job["said"])

    Image.fromarray(photo).save(tmp_path / "photo.png")
    Image.fromarray(hole(photo)).save(tmp_path / "photo.mask.png")
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, *shlex.split(job["command"])[1:], "--device", "cpu") == 0
    names = [f"photo.inpaint{part}.png" for part in ("", ".sample-1", ".sample-2", ".mean", ".std")]
    assert job["outputs"] == names
    archive = zipfile.ZipFile(io.BytesIO(client.get(f"api/jobs/{number}/zip").content))
    assert set(archive.namelist()) == {*names, "photo.png", "photo.mask.png", "report.json", "command.txt"}
    for name in names:
        own = np.asarray(Image.open(tmp_path / name))
        for content in (client.get(f"api/jobs/{number}/files/{name}").content, archive.read(name)):
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), own), name
        shown = Image.open(io.BytesIO(client.get(f"api/jobs/{number}/files/{name}?view=1").content))
        assert np.array_equal(np.asarray(shown), own)
    assert client.get(f"api/jobs/{number}/files/worker.log").status_code == 400


def test_ct_gives_hounsfield_units_of_every_method(client: TestClient, ct_prior: Path) -> None:
    y, x = np.mgrid[-1:1:24j, -1:1:24j]
    body = torch.from_numpy(np.where(x**2 + y**2 < 0.6, 0.5, 0.0).astype(np.float32))
    sinogram = projector(Geometry(even_angles(12), 35, (24, 24)))(body[None, None])[0].numpy()
    source = upload(client, npy(sinogram), "scan.npy", "sinogram").json()
    assert source["about"].startswith("12 x 35, 0 to ")
    asked = {
        "task": "ct",
        "source": source["id"],
        "answers": {"samples": 2, "steps": 2, "size": 24},
        "model": str(ct_prior),
    }
    job = wait(client, client.post("api/jobs", json=asked).json()["id"])
    assert (job["state"], job["error"]) == ("done", "")
    for part in ("", ".fbp", ".tv", ".std", ".samples"):
        content = client.get(f"api/jobs/{job['id']}/files/scan.ct{part}.npy").content
        array = np.load(io.BytesIO(content))
        assert array.dtype == np.float32
        assert array.shape[-2:] == (24, 24)
    assert job["preview"] >= 1


@pytest.mark.parametrize(("task", "answers"), [("superres", {"factor": 2}), ("denoise", {"sigma": 0.1}), ("colorize", {}), ("dejpeg", {"quality": 30})])  # fmt: skip
def test_the_other_tasks_run_too(
    task: str, answers: dict[str, Any], client: TestClient, photo: np.ndarray, small_prior: Path
) -> None:
    source = upload(client, png(photo)).json()["id"]
    asked = {"task": task, "source": source, "answers": {**answers, "steps": 2}, "model": str(small_prior)}
    if task == "colorize":
        strokes = np.zeros((*photo.shape[:2], 4), np.uint8)
        strokes[5:9, 5:9] = (200, 30, 30, 255)
        asked["files"] = {"hints": upload(client, png(strokes), "hints.png", "hints", source).json()["id"]}
    job = wait(client, client.post("api/jobs", json=asked).json()["id"])
    assert (job["state"], job["error"]) == ("done", "")
    assert job["preview"] >= 1
    factor = answers.get("factor", 1)
    shape = (factor * photo.shape[1], factor * photo.shape[0])
    for path in ("preview", f"files/{job['outputs'][0]}"):
        assert Image.open(io.BytesIO(client.get(f"api/jobs/{job['id']}/{path}").content)).size == shape


def test_what_the_command_refuses_is_said(client: TestClient, photo: np.ndarray, small_prior: Path) -> None:
    source = upload(client, png(photo)).json()["id"]
    asked: dict[str, Any] = {"task": "inpaint", "source": source, "model": str(small_prior)}
    assert "nothing is marked" in client.post("api/jobs", json=asked).json()["error"]
    empty = upload(client, png(np.zeros(photo.shape[:2], np.uint8)), "mask.png", "mask", source).json()["id"]
    job = wait(client, client.post("api/jobs", json={**asked, "files": {"mask": empty}}).json()["id"])
    assert job["state"] == "failed"
    assert job["error"] == "the mask marks no pixel as missing"
    assert client.get(f"api/jobs/{job['id']}/zip").status_code == 400
    for body in ("[]", "{", "{}", '{"task": 3}', '{"task": "inpaint", "source": "none"}', "x" * 100_000):
        answer = client.post("api/jobs", content=body)
        assert answer.status_code == 400
        assert answer.json()["error"]


# -- cancelling, ending -----------------------------------------------------------------------------------------------
def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_cancelled_job_computes_no_more_and_the_next_one_runs(
    client: TestClient, page: Page, photo: np.ndarray, small_prior: Path
) -> None:
    long = ask(client, photo, small_prior, steps=1000, samples=64).json()["id"]
    waiting = ask(client, photo, small_prior, steps=2).json()["id"]
    dropped = ask(client, photo, small_prior, steps=2).json()["id"]
    for _ in range(3600):
        if 0 < client.get(f"api/jobs/{long}").json()["share"] < 1:
            break
        time.sleep(0.05)
    assert client.get(f"api/jobs/{waiting}").json()["state"] == "waiting"
    assert client.delete(f"api/jobs/{dropped}").json()["state"] == "cancelled"
    assert page.jobs.process is not None
    worker = page.jobs.process.pid
    assert client.delete(f"api/jobs/{long}").json()["state"] == "cancelled"
    assert wait(client, waiting)["state"] == "done"
    assert not alive(worker)
    assert client.get(f"api/jobs/{long}").json()["state"] == "cancelled"
    assert client.get(f"api/jobs/{dropped}").json()["state"] == "cancelled"


def served(folder: Path, *options: str) -> subprocess.Popen[str]:
    """The command itself, with its temporary files in ``folder``; its first line is the address."""
    env = {**os.environ, "TMPDIR": str(folder), "NO_COLOR": "1", "COLUMNS": "300"}
    return subprocess.Popen(
        [*COMMAND, "ui", "--port", "0", "--no-browser", *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, start_new_session=True,
    )  # fmt: skip


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
def test_nothing_is_left_when_it_ends(tmp_path: Path, photo: np.ndarray, small_prior: Path) -> None:
    endings = {signal.SIGINT: 0, signal.SIGTERM: 143, signal.SIGKILL: -9}
    folders = {ending: tmp_path / ending.name for ending in endings}
    for folder in folders.values():
        folder.mkdir()
    servers = {ending: served(folders[ending], "--model", str(small_prior), "--device", "cpu") for ending in endings}
    try:
        for ending, process in servers.items():
            assert process.stdout is not None
            with httpx.Client(base_url=process.stdout.readline().strip()) as client:
                number = ask(client, photo, small_prior.resolve(), steps=1000, samples=64).json()["id"]
                wait(client, number, ("running",))
                with client.stream("GET", f"api/jobs/{number}/events") as events:
                    next(events.iter_lines())
                    assert len(list(folders[ending].iterdir())) == 1
                    process.send_signal(ending)
                    assert process.wait(timeout=30) == endings[ending]
    finally:
        for process in servers.values():
            process.kill()
    for _ in range(100):
        if not list(tmp_path.glob("*/*")):
            break
        time.sleep(0.05)
    assert not list(tmp_path.glob("*/*"))


def test_a_port_in_use_and_a_remote_host_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert command(monkeypatch, "ui", "--port", str(port), "--no-browser") == ExitCode.OUTPUT
    said = capfd.readouterr().err
    assert f"port {port}: Address already in use" in said
    assert "--port 0" in said
    assert command(monkeypatch, "ui", "--host", "0.0.0.0") == ExitCode.USAGE
    assert "--allow-remote" in capfd.readouterr().err
    assert command(monkeypatch, "ui", "--model", "no-such-prior") == ExitCode.MODEL
    assert "no-such-prior" in capfd.readouterr().err


def test_without_the_extra_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *more: None if name == "fastapi" else find(name, *more)
    )
    assert command(monkeypatch, "ui") == ExitCode.MODEL
    assert "pip install 'invsolve[ui]'" in capfd.readouterr().err
