"""Training data that is damaged, lies about itself or waits forever: one line that names the file."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from invsolve.errors import InputError
from invsolve.training.presets import PRESETS
from invsolve.training.sources import held_out_indices, load_labelled, load_labelled_split, load_pictures, load_split
from invsolve.training.validation import classifier_examples, prior_examples

IMAGES = np.zeros((4, 32, 32, 3), np.uint8)
NAMES = np.array(["cat", "dog"])


def refused(load: Callable[[], object]) -> str:
    """The one line of an InputError, after checking that nothing else reaches the terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError) as raised:
            load()
    assert "\n" not in str(raised.value)
    assert raised.value.hint
    return raised.value.message


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"labels": np.zeros(4, int)},
        {"classes": NAMES},
        {"labels": np.array(1), "classes": NAMES},
        {"labels": np.zeros(3, int), "classes": NAMES},
        {"labels": np.zeros(0, int), "classes": NAMES},
        {"labels": np.zeros(4), "classes": NAMES},
        {"labels": np.array([0, np.nan, 1, 1]), "classes": NAMES},
        {"labels": np.array([0, -1, 1, 1]), "classes": NAMES},
        {"labels": np.array([0, 2, 1, 1]), "classes": NAMES},
        {"labels": np.full(4, 2**64 - 1, np.uint64), "classes": NAMES},
        {"labels": np.array([0, 1, None, "x"], object), "classes": NAMES},
        {"labels": np.zeros(4, "U3"), "classes": NAMES},
        {"labels": np.zeros((4, 1), int), "classes": NAMES},
        {"labels": np.zeros(4, int), "classes": np.array("cat")},
        {"labels": np.zeros(4, int), "classes": np.array([], "U1")},
        {"labels": np.zeros(4, int), "classes": np.array(["cat"])},
        {"labels": np.zeros(4, int), "classes": np.array(["cat", "cat"])},
        {"labels": np.zeros(4, int), "classes": np.array([b"cat", b"dog"])},
        {"labels": np.zeros(4, int), "classes": np.array([1.0, 2.0])},
        {"labels": np.zeros(4, int), "classes": np.array(["cat", None], object)},
    ],
)
def test_labels_that_do_not_fit_are_refused(arrays: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, images=IMAGES, **arrays)
    assert str(path) in refused(lambda: load_labelled(path))


def encoded(format: str = "JPEG", size: tuple[int, int] = (32, 32), mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, format)
    return buffer.getvalue()


JPEG = np.frombuffer(encoded() * 2, np.uint8)
HALF, WHOLE = len(JPEG) // 2, len(JPEG)


@pytest.mark.parametrize(
    "offsets",
    [
        [0, HALF, 10**12],
        [0, HALF, WHOLE + 1],
        [-5, HALF, WHOLE],
        [0, WHOLE, HALF],
        [0, 0, WHOLE],
        [0],
        [],
        0,
        [0.0, HALF, WHOLE],
        [0.0, np.nan, WHOLE],
        [[0, HALF, WHOLE]],
        [0, HALF + 7, WHOLE],
        np.array([0, 2**64 - 1, WHOLE], np.uint64),
        np.array([0, None], object),
    ],
)
def test_offsets_that_lie_are_refused(offsets: Any, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, jpeg=JPEG, offsets=np.asarray(offsets))
    assert str(path) in refused(lambda: load_pictures(path))
    np.savez(path, jpeg=JPEG, offsets=[0, HALF, WHOLE])
    assert len(load_pictures(path)) == 2


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((4, 0, 32, 3), np.uint8),
        np.zeros((4, 32, 32, 0), np.uint8),
        np.zeros((0, 32, 32, 3), np.uint8),
        np.zeros((32, 32), np.uint8),
        np.zeros((2, 4, 32, 32, 3), np.uint8),
        np.uint8(3),
        np.zeros((4, 32, 32), np.uint8),
        np.zeros((4, 32, 32, 3), "S4"),
        np.array([None, 1], object),
    ],
)
def test_arrays_of_other_shapes_and_types_are_refused(images: Any, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, images=images)
    assert str(path) in refused(lambda: load_pictures(path))
    assert "jpeg is" in refused(lambda: load_pictures(other(tmp_path, jpeg=JPEG[None], offsets=[0, 1])))
    assert "jpeg is" in refused(lambda: load_pictures(other(tmp_path, jpeg=JPEG * 1.0, offsets=[0, 1])))


def other(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "other.npz", **arrays)
    return folder / "other.npz"


def claiming(path: Path) -> None:
    """An archive whose array says that it is larger than any memory."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 10**6)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", header.getvalue())


def flipped(path: Path) -> None:
    np.savez_compressed(path, images=np.random.default_rng(0).integers(0, 9, IMAGES.shape).astype(np.uint8))
    content = bytearray(path.read_bytes())
    content[300:340] = bytes(40)
    path.write_bytes(content)


def renamed(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, IMAGES)


def foreign(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", b"no array")
        archive.writestr("jpeg", b"text")


def cut(path: Path) -> None:
    np.savez(path, images=IMAGES)
    path.write_bytes(path.read_bytes()[:-500])


@pytest.mark.parametrize("make", [claiming, flipped, renamed, foreign, cut, os.mkfifo, lambda p: p.symlink_to(p)])
def test_what_is_no_archive_is_refused(make: Callable[[Path], object], tmp_path: Path) -> None:
    make(tmp_path / "data.npz")
    assert str(tmp_path / "data.npz") in refused(lambda: load_pictures(tmp_path / "data.npz"))
    assert str(tmp_path / "data.npz") in refused(lambda: load_labelled(tmp_path / "data.npz"))


def png(width: int, height: int) -> bytes:
    """A PNG that says it is ``width`` x ``height``, with next to no data."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cut.png", encoded("PNG")[:60]),
        ("cut.jpg", encoded()[:300]),
        ("empty.png", b""),
        ("random.tif", b"II*\0" + np.random.default_rng(0).bytes(300)),
        ("random.webp", b"RIFF\x10\0\0\0WEBPVP8 " + bytes(20)),
        ("narrow.png", png(0, 8)),
        ("bomb.png", png(30_000, 30_000)),
        ("large.png", png(10_000, 12_000)),
        ("deep.png", encoded("PNG", mode="I;16")),
        ("deep.tif", encoded("TIFF", mode="I;16")),
        ("float.tif", encoded("TIFF", mode="F")),
    ],
)
def test_pictures_that_cannot_be_used_are_named(
    name: str, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sound.png").write_bytes(encoded("PNG"))
    (tmp_path / name).write_bytes(content)
    assert str(tmp_path / name) in refused(lambda: load_pictures(tmp_path))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert str(tmp_path / name) in refused(lambda: load_pictures(tmp_path))


@pytest.mark.parametrize("make", [os.mkfifo, lambda p: p.symlink_to(p), lambda p: p.symlink_to("absent")])
def test_what_is_no_file_among_pictures_is_named(make: Callable[[Path], object], tmp_path: Path) -> None:
    (tmp_path / "sound.png").write_bytes(encoded("PNG"))
    make(tmp_path / "other.png")
    assert str(tmp_path / "other.png") in refused(lambda: load_pictures(tmp_path))


def test_links_to_folders_are_not_followed_and_folders_may_end_like_pictures(tmp_path: Path) -> None:
    (tmp_path / "album.png").mkdir()
    (tmp_path / "album.png" / "sound.png").write_bytes(encoded("PNG"))
    (tmp_path / "round").symlink_to(tmp_path)
    assert len(load_pictures(tmp_path)) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_closed_folders_and_files_are_named(tmp_path: Path) -> None:
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "sound.png").write_bytes(encoded("PNG"))
    (tmp_path / "b").chmod(0)
    try:
        assert str(tmp_path / "b") in refused(lambda: load_pictures(tmp_path))
        assert str(tmp_path / "b") in refused(lambda: load_labelled(tmp_path))
        assert str(tmp_path / "b" / "x.npz") in refused(lambda: load_pictures(tmp_path / "b" / "x.npz"))
    finally:
        (tmp_path / "b").chmod(0o755)


def test_every_kth_picture_is_held_out_whatever_their_number(tmp_path: Path) -> None:
    assert list(held_out_indices(2)) == [0]
    assert list(held_out_indices(70)) == [0, 33, 66]
    assert len(held_out_indices(100_000)) == 3031
    with pytest.raises(InputError, match="at least 2"):
        held_out_indices(1)
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 32, 32, 3), np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=np.array([0, 1, 0, 1, 1]), classes=NAMES)
    split = load_split([str(tmp_path / "data.npz")], None, 3)
    kept, held_out = load_labelled_split(str(tmp_path / "data.npz"), None, 3)
    assert [int(p.max()) for p in split.training] == [int(p.max()) for p in kept.pictures] == [1, 2, 3, 4]
    assert [int(p.max()) for p in split.held_out] == [int(p.max()) for p in held_out.pictures] == [0]
    assert (kept.labels.tolist(), held_out.labels.tolist()) == ([1, 0, 1, 1], [0])


def test_validation_pictures_are_checked_against_the_preset(tmp_path: Path) -> None:
    small = [np.zeros((24, 200, 3), np.uint8)] * 2
    for name in ("photos", "cifar10", "thumbnails", "flowers64"):
        with pytest.raises(InputError, match="validation picture"):
            prior_examples(PRESETS[name], small)
    with pytest.raises(InputError, match="validation picture"):  # the network knows 64 x 64 only
        prior_examples(PRESETS["flowers64"], [np.zeros((40, 200, 3), np.uint8)])
    assert prior_examples(PRESETS["cifar10"], [np.zeros((40, 200, 3), np.uint8)]).shape == (1, 3, 32, 32)
    assert prior_examples(PRESETS["photos"], [np.zeros((40, 200, 3), np.uint8)]).shape == (1, 3, 40, 40)
    np.savez(tmp_path / "deep.npz", images=IMAGES.astype(np.uint16), labels=[0, 1, 0, 1], classes=NAMES)
    np.savez(tmp_path / "data.npz", images=IMAGES, labels=[0, 1, 0, 1], classes=NAMES)
    np.savez(tmp_path / "small.npz", images=IMAGES[:, 1:], labels=[0, 1, 0, 1], classes=NAMES)
    data, deep, less = (str(tmp_path / f"{name}.npz") for name in ("data", "deep", "small"))
    assert "16-bit" in refused(lambda: load_split([data], deep, 3))
    assert "16-bit" in refused(lambda: load_labelled_split(data, deep, 3))
    _, held_out = load_labelled_split(data, less, 3)
    assert "validation picture" in refused(lambda: classifier_examples(PRESETS["cifar10"], held_out))
