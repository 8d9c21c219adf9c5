"""The page of ``invsolve ui`` in a real browser: paint, run, look, download; keyboard, narrow screens, names of controls."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
playwright = pytest.importorskip("playwright.sync_api")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")

UNNAMED = """() => [...document.querySelectorAll("input, select, button, canvas[tabindex], progress")]
  .filter((one) => one.offsetParent !== null)
  .filter((one) => !(one.labels && one.labels.length) && !one.getAttribute("aria-label") && !one.textContent.trim())
  .map((one) => one.outerHTML)"""
"""Controls without a name for screen readers."""

SIDEWAYS = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium, that of the system or Playwright's own."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    with playwright.sync_playwright() as running:
        try:
            opened = running.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no browser: {str(error).splitlines()[0]}")
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def address(small_prior: Path) -> Iterator[str]:
    """Where ``invsolve ui`` serves the page."""
    process = subprocess.Popen(
        [sys.executable, "-m", "invsolve.cli.main", "ui", "--port=0", "--no-browser", "--device=cpu", f"--model={small_prior}"],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.terminate()
    process.wait(timeout=30)


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The page, opened anew; whatever its scripts complain of fails the test."""
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    opened, errors = context.new_page(), []
    opened.set_default_timeout(180_000)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    opened.goto(address)
    opened.wait_for_selector("body[data-ready]")
    yield opened
    context.close()
    assert [error for error in errors if "400" not in error] == []  # refused uploads are answered with 400


@pytest.fixture
def file(tmp_path: Path, photo: np.ndarray) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(photo).save(path)
    return path


def drag(page: Any, *points: tuple[float, float]) -> None:
    """Draw a line on the picture; points as shares of its width and height."""
    box = page.locator("#paint").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=5)
    page.mouse.up()


def painted(page: Any) -> int:
    """How many pixels are painted."""
    return page.evaluate("""() => {
      const canvas = document.getElementById("paint");
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      return data.filter((value, index) => index % 4 === 3 && value > 127).length;
    }""")


def test_paint_run_compare_and_download(page: Any, file: Path, photo: np.ndarray, small_prior: Path) -> None:
    page.set_input_files("#file", file)
    page.wait_for_selector("#edit:not([hidden])")
    assert "40 x 48" in page.locator("#file-about").text_content()
    page.locator("#size").fill("4")
    drag(page, (0.2, 0.25), (0.7, 0.25))
    first = painted(page)
    assert first > 40
    drag(page, (0.3, 0.7), (0.6, 0.8))
    assert painted(page) > first
    page.keyboard.press("Control+z")
    assert painted(page) == first
    page.keyboard.press("e")
    assert page.locator("input[value=eraser]").is_checked()
    drag(page, (0.6, 0.25), (0.8, 0.25))
    assert 0 < painted(page) < first

    page.fill("#field-samples", "3")
    page.click("#more summary")
    page.fill("#field-steps", "3")
    page.select_option("#model", str(small_prior.resolve()))
    page.click("#run")
    page.wait_for_selector("#finished:not([hidden])")
    assert page.locator("#which").text_content() == "Sample 1 of 3"
    assert "--samples=3 --steps=3" in page.locator("#command").text_content()
    assert page.evaluate(UNNAMED) == []

    page.locator("#slide").focus()
    page.keyboard.press("Home")
    assert page.evaluate("() => document.getElementById('after').style.clipPath").replace("0px", "0").endswith("0 0%)")
    page.keyboard.press("End")
    assert "100%" in page.evaluate("() => document.getElementById('after').style.clipPath")
    page.click("#next")
    assert page.locator("#which").text_content() == "Sample 2 of 3"
    page.keyboard.press("d")
    assert page.locator("#std").get_attribute("aria-pressed") == "true"
    assert "std" in page.locator("#after").get_attribute("src")
    page.keyboard.press("m")
    assert "mean" in page.locator("#after").get_attribute("src")

    with page.expect_download() as result:
        page.click("#download")
    with page.expect_download() as archive:
        page.click("#zip")
    assert result.value.suggested_filename == "photo.inpaint.png"
    pixels = np.asarray(Image.open(result.value.path()))
    files = zipfile.ZipFile(archive.value.path())
    mask = np.asarray(Image.open(io.BytesIO(files.read("photo.mask.png"))).convert("L")) > 127
    assert np.array_equal(pixels[~mask], photo[~mask])
    assert not np.array_equal(pixels[mask], photo[mask])
    assert mask[12, 10:18].all()  # where the line was drawn
    assert not mask[:8].any()

    page.reload()  # what ran is there still
    page.wait_for_selector("#run-list button")
    page.click("#run-list button")
    page.wait_for_selector("#finished:not([hidden])")


def test_the_keyboard_alone_will_do(page: Any, file: Path) -> None:
    page.set_input_files("#file", file)
    page.wait_for_selector("#edit:not([hidden])")
    page.keyboard.press("]")
    size = int(page.locator("#size").input_value())
    page.keyboard.press("[")
    assert int(page.locator("#size").input_value()) < size
    page.locator("#paint").focus()
    page.keyboard.down(" ")
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    page.keyboard.up(" ")
    assert painted(page) > 100
    page.keyboard.press("i")
    assert 0 < painted(page) < 40 * 48
    page.keyboard.press("?")
    assert page.locator("#keys").is_visible()
    assert page.locator("#key-rows tr").count() > 15
    page.keyboard.press("Escape")
    page.focus("body")
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("() => document.activeElement.id"))
    assert {"help", "file", "size", "undo", "clear", "invert", "mask", "field-samples", "run", "paint"} <= reached


def test_what_is_wrong_is_said_on_the_page(page: Any, tmp_path: Path, file: Path) -> None:
    (tmp_path / "notes.png").write_text("no picture")
    page.set_input_files("#file", tmp_path / "notes.png")
    page.wait_for_selector("#alert:not([hidden])")
    assert "notes.png is not a picture" in page.locator("#alert-what").text_content()
    page.set_input_files("#file", file)
    page.wait_for_selector("#edit:not([hidden])")
    assert page.locator("#alert").is_hidden()
    page.click("#run")
    page.wait_for_selector("#alert:not([hidden])")
    assert "nothing is marked as missing" in page.locator("#alert-what").text_content()


def test_what_is_dropped_chooses_the_task_that_takes_it(page: Any, tmp_path: Path, file: Path) -> None:
    chosen = "() => document.querySelector('input[name=task]:checked').value"
    (tmp_path / "half.npy").write_bytes(b"\x93NUMPY")
    page.set_input_files("#file", tmp_path / "half.npy")
    page.wait_for_selector("#alert:not([hidden])")
    assert page.evaluate(chosen) == "inpaint"  # it was no sinogram
    np.save(tmp_path / "scan.npy", np.ones((20, 30)))
    page.locator("input[value=denoise]").check()
    page.set_input_files("#file", tmp_path / "scan.npy")
    page.wait_for_function("() => document.getElementById('file-about').textContent.startsWith('scan.npy')")
    page.wait_for_selector("#edit:not([hidden])")
    assert page.evaluate(chosen) == "ct"
    page.set_input_files("#file", file)
    page.wait_for_function("() => document.getElementById('file-about').textContent.includes('40 x 48')")
    assert page.evaluate(chosen) == "denoise"


def test_a_narrow_screen_needs_no_scrolling_sideways(page: Any, file: Path) -> None:
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate(SIDEWAYS) <= 0
    page.set_input_files("#file", file)
    page.wait_for_selector("#edit:not([hidden])")
    for task in ("colorize", "superres", "denoise", "dejpeg", "ct", "inpaint"):
        page.locator(f"input[value={task}]").check()
        assert page.evaluate(SIDEWAYS) <= 0, task
        assert page.evaluate(UNNAMED) == []
    box = page.locator("#paint").bounding_box()
    assert 200 < box["width"] <= 400


def test_a_run_can_be_cancelled_and_the_picture_painted_again(page: Any, file: Path, small_prior: Path) -> None:
    page.set_input_files("#file", file)
    page.wait_for_selector("#edit:not([hidden])")
    drag(page, (0.2, 0.25), (0.7, 0.25))
    page.fill("#field-samples", "64")
    page.click("#more summary")
    page.fill("#field-steps", "1000")
    page.select_option("#model", str(small_prior.resolve()))
    page.click("#run")
    page.wait_for_selector("#working:not([hidden])")
    page.wait_for_selector("#preview:not([hidden])")
    assert page.evaluate(UNNAMED) == []
    page.click("#cancel")
    page.wait_for_selector("#failed:not([hidden])")
    assert "Cancelled" in page.locator("#failed").text_content()
    assert "cancelled" in page.locator("#run-list").text_content()
    page.keyboard.press("1")
    before = painted(page)
    drag(page, (0.2, 0.6), (0.7, 0.6))
    assert painted(page) > before
