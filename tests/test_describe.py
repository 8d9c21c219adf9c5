"""Pictures led by a sentence: a small CLIP of random weights, saved as its library saves one, with a tokenizer of its own."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from calling import call
from PIL import Image

from invsolve.errors import ExitCode, ModelError, UsageError
from invsolve.models.gaussian import smooth_gaussian_prior
from invsolve.tasks.generation import generate

transformers = pytest.importorskip("transformers")

SENTENCE = "a red bird"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as ``CLIPModel.save_pretrained`` writes it, and a tokenizer of single letters."""
    folder = tmp_path_factory.mktemp("text") / "clip"
    torch.manual_seed(0)
    tower: dict[str, Any] = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "projection_dim": 12
    }  # fmt: skip
    config = transformers.CLIPConfig(
        text_config=tower
        | {"vocab_size": 64, "max_position_embeddings": 16, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
        vision_config=tower | {"image_size": 24, "patch_size": 8},
        projection_dim=12,
    )
    transformers.utils.logging.disable_progress_bar()
    transformers.CLIPModel(config).save_pretrained(folder)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["<pad>", "<|startoftext|>", "<|endoftext|>", "<unk>", *letters, *(f"{c}</w>" for c in letters)]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return folder


def copy(clip: Path, to: Path) -> Path:
    shutil.copytree(clip, to)
    return to


def test_embeddings_are_the_librarys(clip: Path) -> None:
    from invsolve.pretrained.text import MEAN, STD, load_text_model

    found = load_text_model(str(clip))
    network = transformers.CLIPModel.from_pretrained(clip).eval()
    tokens = transformers.CLIPTokenizer.from_pretrained(clip)([SENTENCE], return_tensors="pt")
    x = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    shift, scale = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (MEAN, STD))
    with torch.no_grad():
        expected = network(**tokens, pixel_values=(x - shift) / scale)
    similarity = found.similarity(SENTENCE)
    y = torch.tensor([0])
    torch.testing.assert_close(similarity.log_likelihood(x, y), expected.logits_per_image[:, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        found.cosine(x, SENTENCE), expected.logits_per_image[:, 0] / network.logit_scale.exp(), rtol=1e-4, atol=1e-5
    )
    # the gradient is that of finite differences
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    slope = (similarity.log_likelihood_gradient(x, y) * direction).flatten(1).sum(dim=1)
    ends = [similarity.log_likelihood(x + h * direction, y) for h in (1e-2, -1e-2)]
    torch.testing.assert_close(slope, (ends[0] - ends[1]) / 2e-2, rtol=0.02, atol=1e-3)


def test_pictures_are_stretched_and_normalised_as_the_folder_says(clip: Path, tmp_path: Path) -> None:
    from invsolve.pretrained.text import load_text_model

    told = copy(clip, tmp_path / "told")
    (told / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.25, 0.5, 1.0]}))
    x = torch.full((1, 3, 40, 20), 0.5)
    assert load_text_model(str(told)).mean == (0.5, 0.5, 0.5)
    assert load_text_model(str(told)).picture_embedding(x).shape == (1, 12)
    assert not torch.allclose(
        load_text_model(str(told)).picture_embedding(x), load_text_model(str(clip)).picture_embedding(x)
    )


def test_guided_pictures_fit_the_sentence_better(clip: Path) -> None:
    from invsolve.pretrained.text import load_text_model

    prior, guide = smooth_gaussian_prior((3, 8, 8)), load_text_model(str(clip))
    cosines = []
    for guidance in (0.0, 1.0):
        drawn = generate(
            prior, guide.similarity(SENTENCE), SENTENCE, (8, 8), guidance=guidance, samples=32, steps=15, batch=32
        )
        cosines.append(float(guide.cosine(drawn.samples[:, 0], SENTENCE).mean()))
        assert drawn.settings["label"] == SENTENCE
    assert cosines[0] + 0.04 < cosines[1]


def damaged(clip: Path, folder: Path) -> dict[str, tuple[Path, str]]:
    """Folders that are no text model, and what is said of them."""
    parts = {
        name: copy(clip, folder / name)
        for name in ("no config", "no weights", "no tokenizer", "another", "cut", "half", "pickle", "mean")
    }
    (parts["no config"] / "config.json").unlink()
    (parts["no weights"] / "model.safetensors").unlink()
    (parts["no tokenizer"] / "merges.txt").unlink()
    (parts["another"] / "config.json").write_text('{"model_type": "bert"}')
    weights = (clip / "model.safetensors").read_bytes()
    (parts["cut"] / "model.safetensors").write_bytes(weights[:-100])
    from safetensors.torch import load_file, save_file

    kept = load_file(clip / "model.safetensors")
    del kept["logit_scale"]
    save_file(kept, parts["half"] / "model.safetensors", {"format": "pt"})
    (parts["pickle"] / "model.safetensors").rename(parts["pickle"] / "pytorch_model.bin")
    (parts["mean"] / "preprocessor_config.json").write_text('{"image_mean": 3}')
    messages = {
        "no config": "no such file", "no weights": "no weights", "no tokenizer": "no tokenizer", "another": "type bert|type 'bert'",
        "cut": "cannot be loaded", "half": "lacks 1 weights", "pickle": "pickle", "mean": "no three numbers",
    }  # fmt: skip
    return {name: (path, messages[name]) for name, path in parts.items()}


def test_folders_that_are_no_text_model_are_refused(clip: Path, tmp_path: Path) -> None:
    from invsolve.pretrained.text import load_text_model

    for path, message in damaged(clip, tmp_path).values():
        with pytest.raises(ModelError, match=message) as caught:
            load_text_model(str(path))
        assert caught.value.hint and "\n" not in str(caught.value)


def test_sentences_that_cannot_be_read(clip: Path) -> None:
    from invsolve.pretrained.text import load_text_model

    guide = load_text_model(str(clip))
    for sentence, message in (("", "empty"), (" \n", "empty"), ("a long sentence of letters", "tokens")):
        with pytest.raises(UsageError, match=message):
            guide.similarity(sentence)


def test_transformers_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    from invsolve.pretrained.text import load_text_model

    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModelError, match="transformers") as caught:
        load_text_model("anything")
    assert "invsolve[text]" in caught.value.hint


def test_a_named_repository_is_fetched_and_checked(clip: Path, tmp_path: Path, serve_hub: Any) -> None:
    from invsolve.pretrained.text import load_text_model

    files = {path.name: path.read_bytes() for path in clip.iterdir()} | {"payload.py": b"raise SystemExit"}
    hub = serve_hub(files)
    found = load_text_model("lab/faces")
    assert {name for name, _ in hub.asked} == files.keys() - {"payload.py"}
    x = torch.rand(1, 3, 24, 24)
    torch.testing.assert_close(found.cosine(x, SENTENCE), load_text_model(str(clip)).cosine(x, SENTENCE))
    shutil.rmtree(tmp_path / "cache")
    hub.listed["model.safetensors"] = "0" * 64  # what comes is not what was listed
    with pytest.raises(ModelError, match="hash|fetch"):
        load_text_model("lab/faces")


# -- the command --------------------------------------------------------------------------------------------------------
def test_the_command_writes_a_grid_and_its_pictures(
    clip: Path, small_prior: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--text-model", clip, "--model", small_prior, "-n", 3, "--size", "24x16", "--steps", 3, "--json"]
    assert call(monkeypatch, "describe", SENTENCE, *options) == 0
    out, err = capfd.readouterr()
    report = json.loads(out)
    assert report["task"] == "describe" and report["label"] == SENTENCE and -1 <= report["cosine"] <= 1
    assert len(report["text_model_sha256"]) == 64
    assert {p.name for p in tmp_path.iterdir()} == {
        "describe.a-red-bird.png", *(f"describe.a-red-bird.sample-{j}.png" for j in range(3))
    }  # fmt: skip
    assert Image.open(tmp_path / "describe.a-red-bird.sample-1.png").size == (24, 16)
    assert "cosine" in err


BAD: dict[str, tuple[list[str], ExitCode, str]] = {
    "no sentence": (["--text-model", "CLIP"], ExitCode.USAGE, "SENTENCE"),
    "empty": (["  ", "--text-model", "CLIP"], ExitCode.USAGE, "empty sentence"),
    "too long": (["a long sentence of letters", "--text-model", "CLIP"], ExitCode.USAGE, "tokens"),
    "no text model": ([SENTENCE], ExitCode.USAGE, "--text-model"),
    "absent folder": ([SENTENCE, "--text-model", "./absent/"], ExitCode.MODEL, "no text model in"),
    "folder without files": ([SENTENCE, "--text-model", "."], ExitCode.MODEL, "no such file"),
    "negative guidance": ([SENTENCE, "--text-model", "CLIP", "--guidance", "-1"], ExitCode.USAGE, "guidance"),
    "undefined guidance": ([SENTENCE, "--text-model", "CLIP", "--guidance", "inf"], ExitCode.USAGE, "finite"),
    "unknown prior": ([SENTENCE, "--text-model", "CLIP", "--model", "cats"], ExitCode.MODEL, "unknown model"),
    "prior of scans": ([SENTENCE, "--text-model", "CLIP", "--model", "ct"], ExitCode.MODEL, "1 channel"),
    "prior of colours": ([SENTENCE, "--text-model", "CLIP", "--model", "thumbnails"], ExitCode.MODEL, "colorize"),
    "size": ([SENTENCE, "--text-model", "CLIP", "--size", "16"], ExitCode.USAGE, "--size"),
    "output": ([SENTENCE, "--text-model", "CLIP", "-o", "x.txt"], ExitCode.OUTPUT, ".png"),
    "result exists": (["kept", "--text-model", "CLIP"], ExitCode.OUTPUT, "--force"),
    "sampler": ([SENTENCE, "--text-model", "CLIP", "--sampler", "magic"], ExitCode.USAGE, "known samplers"),
    "split sampler": ([SENTENCE, "--text-model", "CLIP", "--sampler", "daps"], ExitCode.USAGE, "daps"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_bad_input(
    name: str,
    clip: Path,
    small_prior: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "describe.kept.png").write_bytes(b"precious")
    arguments, code, message = BAD[name]
    if "--model" not in arguments:
        arguments = [*arguments, "--model", str(small_prior), *([] if "--size" in arguments else ["--size", "16x16"])]
    assert call(monkeypatch, "describe", *(str(clip) if a == "CLIP" else a for a in arguments)) == code
    out, err = capfd.readouterr()
    assert out == "" and message in err and "Traceback" not in err
    assert sum(line.startswith("error: ") for line in err.splitlines()) == 1
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"describe.kept.png": b"precious"}


def test_a_name_without_a_hub_is_answered_in_a_sentence(
    tmp_path: Path, small_prior: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("huggingface_hub")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    arguments = [SENTENCE, "--text-model", "nobody/nothing", "--model", small_prior, "--size", "16x16"]
    assert call(monkeypatch, "describe", *arguments) == ExitCode.MODEL
    assert "cannot fetch nobody/nothing" in capfd.readouterr().err
    assert np.all([path.suffix != ".png" for path in tmp_path.rglob("*")])
