"""The page of a run: self-contained, escaped, and with all that a reader needs."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from invsolve.cli.main import app
from invsolve.cli.report import Page, Shown, page_bytes, sample_row
from invsolve.forward_models import Geometry, equispaced_mask, even_angles, projector
from invsolve.tasks.mri_simulation import simulate_mri

HOSTILE = "<script>alert(1)</script>&\"'><img src=x>"


class Parsed(HTMLParser):
    """Tags with their attributes, and the text between."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(content.decode())
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("img", "meta", "input", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f"{data} "

    @property
    def pictures(self) -> list[np.ndarray]:
        found = [one["src"] or "" for tag, one in self.tags if tag == "img"]
        assert all(source.startswith("data:image/webp;base64,") for source in found)
        return [np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))) for source in found]


def check_closed(page: Parsed, content: bytes) -> None:
    """Nothing comes from elsewhere, and nothing runs but the page's own script."""
    links = [value or "" for _, given in page.tags for key, value in given.items() if key in ("src", "href", "action")]
    assert links and all(link.startswith("data:image/webp;") for link in links)
    assert not any(key.startswith("on") for _, given in page.tags for key in given)
    assert b"url(" not in content and b"@import" not in content
    assert [tag for tag, _ in page.tags].count("script") == 1
    script = re.search(rb"<script>(.*?)</script>", content, re.DOTALL)
    policy = next(one["content"] for tag, one in page.tags if tag == "meta" and "http-equiv" in one) or ""
    assert script is not None
    assert f"sha256-{base64.b64encode(hashlib.sha256(script[1]).digest()).decode()}" in policy
    assert "default-src 'none'" in policy


def run(*arguments: object) -> Any:
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 0, done.exception
    return done


def test_a_page_is_closed_and_escaped() -> None:
    grey = np.arange(2000, dtype=np.uint16).reshape(40, 50)
    page = Page(
        HOSTILE, (Shown(HOSTILE, grey), Shown("result", grey)), others=[Shown("a", grey, HOSTILE)], meaning=[HOSTILE],
        warning=HOSTILE, scores={HOSTILE: {"psnr": 1.0}, "b": {"ssim": float("nan")}}, facts={"input": HOSTILE + "\udcff\x1b[31m"},
    )  # fmt: skip
    content = page_bytes(page, made=datetime(2026, 1, 2, tzinfo=UTC))
    found = Parsed(content)
    check_closed(found, content)
    assert found.text.count(HOSTILE) >= 5  # as text, not as tags
    assert "2026-01-02" in found.text and "\\udcff\\x1b[31m" in found.text


def test_large_pictures_make_a_small_page() -> None:
    large = np.random.default_rng(0).integers(0, 255, (1500, 2400, 3), np.uint8)
    content = page_bytes(
        Page("a", (Shown("in", large), Shown("out", large)), samples=sample_row([large] * 20), drawn=20)
    )
    found = Parsed(content)
    assert {picture.shape for picture in found.pictures} == {(625, 1000, 3), (263, 420, 3)}
    assert len(found.pictures) == 2 + 8 and "the first 8 of 20" in found.text
    assert len(content) < 4e6  # of noise, which hardly compresses


def test_a_picture_command_writes_its_page(tmp_path: Path, photo: np.ndarray, small_prior: Path) -> None:
    name = tmp_path / '<b>&"x.png'
    mask = np.zeros(photo.shape[:2], np.uint8)
    mask[10:13, 5:30] = 255
    Image.fromarray(photo).save(name)
    Image.fromarray(mask).save(tmp_path / "mask.png")
    done = run(
        "inpaint", name, "--mask", tmp_path / "mask.png", "--model", small_prior, "--steps", 3, "--samples", 3, "--truth", name,
        "--interval", "--report", tmp_path / "r.html", "--json",
    )  # fmt: skip
    report = json.loads(done.stdout)
    assert report["outputs"][-1] == str(tmp_path / "r.html")
    content = (tmp_path / "r.html").read_bytes()
    found = Parsed(content)
    check_closed(found, content)
    assert [tag for tag, _ in found.tags].count("b") == len([one for one in found.tags if one[0] == "figcaption"])
    for said in (
        "sample 2",
        "mean of 3",
        "standard deviation",
        "lower bound",
        "biharmonic",
        "course of the run",
        "level 50.0%",
    ):
        assert said in found.text, said
    for figures in report["scores"].values():
        assert f"{figures['psnr']:.3f}" in found.text
    assert report["model_sha256"] in found.text and torch.__version__.partition("+")[0] in found.text
    after, before = found.pictures[:2]
    assert after.shape == before.shape == photo.shape
    assert np.abs(before.astype(int) - photo).mean() < 4  # WebP
    again = CliRunner().invoke(
        app, ["denoise", str(name), "--model", str(small_prior), "--report", str(tmp_path / "r.html")]
    )
    assert "exists" in str(again.exception)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((), "best estimate"),
        (("--sampler", "redrawing"), "one answer of many"),
        (("--samples", "2"), "Each of the 2 samples"),
    ],
)
def test_a_page_says_what_its_result_is(
    given: tuple[str, ...], said: str, tmp_path: Path, photo: np.ndarray, small_prior: Path
) -> None:
    Image.fromarray(photo).save(tmp_path / "a.png")
    run("superres", tmp_path / "a.png", "--model", small_prior, "--steps", 2, "--report", tmp_path / "r.html", *given)
    assert said in Parsed((tmp_path / "r.html").read_bytes()).text


@pytest.mark.parametrize(("name", "message"), [("r.txt", ".html"), ("a.denoise.html", "")])
def test_names_of_pages(name: str, message: str, tmp_path: Path, photo: np.ndarray, small_prior: Path) -> None:
    Image.fromarray(photo).save(tmp_path / "a.png")
    arguments = ["denoise", tmp_path / "a.png", "--model", small_prior, "--steps", 1, "--sigma", 0.1]
    given = tmp_path / name if message else tmp_path
    done = CliRunner().invoke(app, [*map(str, arguments), "--report", str(given)])
    if message:
        assert message in str(done.exception)
        assert not list(tmp_path.glob("*.denoise*"))
    else:
        text = Parsed((tmp_path / name).read_bytes()).text
        assert "The result is the mean of all answers" in text  # one picture of denoise is the posterior mean


def test_slices_have_pages(tmp_path: Path, ct_prior: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVSOLVE_CACHE", str(tmp_path / "cache"))
    y, x = (np.mgrid[:32, :32] - 15.5) / 16
    body = np.where((x / 0.8) ** 2 + (y / 0.6) ** 2 < 1, 0.5, 0.0).astype(np.float32)
    sinogram = projector(Geometry(even_angles(10), 47, (32, 32)))(torch.from_numpy(body)[None, None])[0]
    np.save(tmp_path / "sino.npy", sinogram.numpy())
    scan = simulate_mri(50.0 * body, equispaced_mask((32, 32), 2, 12), coils=2, noise=0.3)
    np.save(tmp_path / "kspace.npy", scan.kspace)
    shared = ["--model", ct_prior, "--steps", 2, "--samples", 2, "--report", tmp_path]
    run("ct", tmp_path / "sino.npy", "--size", 32, *shared)
    run("ct", tmp_path / "sino.npy", "--size", 32, "--method", "fbp", "-o", tmp_path / "fbp.npy", "--report", tmp_path)
    run("mri", tmp_path / "kspace.npy", "--noise", 0.3, *shared)
    wanted = {
        "sino.ct.html": ("FBP", "TV", "misfit", "-160 HU"),
        "fbp.html": ("misfit",),
        "kspace.mri.html": ("TV", "zero-filled"),
    }
    for name, texts in wanted.items():
        content = (tmp_path / name).read_bytes()
        found = Parsed(content)
        check_closed(found, content)
        assert all(text in found.text for text in (*texts, "Not for diagnosis")), name
        assert ("sample 1" in found.text) == (name != "fbp.html")
    facts = json.loads((tmp_path / "sino.ct.json").read_text())
    assert facts["outputs"][-1] == str(tmp_path / "sino.ct.html")
