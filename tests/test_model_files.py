"""Models from elsewhere: whatever stands in their files, a ModelError or a working prior, never a crash."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from invsolve.errors import InvsolveError, ModelError
from invsolve.models.network import EDMDenoiser, NetworkConfig
from invsolve.pretrained import load_prior
from invsolve.pretrained.card import Card, file_sha256, network_config
from invsolve.pretrained.loading import find_any, least_numbers, shipped_classifiers, shipped_priors

HOSTILE: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2, 10**9, 10**30, 0.5, -0.0, math.inf, math.nan, "", "x", [], {}, [[]], [1], [-1, 0], [10**9, 2],
    {"a": 1}, [[1, 2], [1, 2]], [[0, 0]], [[1, -1]],
)  # fmt: skip


def altered_cards(card: dict[str, Any], rng: random.Random) -> Iterator[str]:
    """The card with every field, and every field of its network, replaced by some hostile values, and left out."""
    for part in (card, card["network"]):
        for name, value in list(part.items()):
            for hostile in rng.sample(HOSTILE, 7):
                part[name] = hostile
                yield json.dumps(card)
            del part[name]
            yield json.dumps(card)
            part[name] = value
    for name in ("surplus", "weights\0"):
        yield json.dumps({**card, name: 1})
        yield json.dumps({**card, "network": {**card["network"], name: 1}})


def altered_bytes(content: bytes, count: int, rng: random.Random) -> Iterator[bytes]:
    """Bytes changed, cut off, repeated or added at random."""
    for _ in range(count):
        place = rng.randrange(len(content))
        flipped = bytearray(content)
        flipped[place] ^= 1 << rng.randrange(8)
        yield bytes(flipped)
        yield content[:place]
        yield content + content[place : place + 9]
        # the first bytes are the header's length, and after it names, types and shapes
        yield bytes([rng.randrange(256) for _ in range(8)]) + content[8:]
        yield content[: 8 + place % 300] + bytes([rng.randrange(32, 127)]) + content[9 + place % 300 :]


def altered_tensors(state: dict[str, torch.Tensor], rng: random.Random) -> Iterator[dict[str, torch.Tensor]]:
    """Tensors exchanged, reshaped, left out, added, of other types, or not finite."""
    for name in rng.sample(sorted(state), 8):
        tensor = state[name]
        other = rng.choice(list(state))
        yield {**state, name: state[other], other: tensor}
        yield {**state, name: tensor.reshape(-1)}
        yield {**state, name: tensor[:0]}
        yield {**state, name: tensor.double()}
        yield {**state, name: tensor.to(torch.int64)}
        yield {**state, name: torch.full_like(tensor, math.nan)}
        yield {key: value for key, value in state.items() if key != name}
        yield {**state, f"{name}.more": tensor}


def alterations(folder: Path, rng: random.Random) -> Iterator[None]:
    """Alter the model in ``folder`` in one way after another; the card's hash is that of the altered weights."""
    card, weights = folder / "card.json", folder / "model.safetensors"
    text, content, state = card.read_text(), weights.read_bytes(), load_file(weights)
    facts = json.loads(text)

    def with_hash() -> None:
        card.write_text(json.dumps({**facts, "sha256": file_sha256(weights)}))

    for altered in altered_cards(json.loads(text), rng):
        card.write_text(altered)
        yield
    for raw in altered_bytes(text.encode(), 6, rng):
        card.write_bytes(raw)
        yield
    for raw in altered_bytes(content, 14, rng):
        weights.write_bytes(raw)
        with_hash()
        yield
    for tensors in altered_tensors(state, rng):
        # a copy each: safetensors stores no tensor twice
        save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, weights)
        with_hash()
        yield


def fuzz(folder: Path) -> None:
    """Load every alteration and use what loads; prints how many did. Other errors than ours end the process."""
    used = refused = 0
    for _ in alterations(folder, random.Random(0)):
        try:
            prior = load_prior(folder, "cpu")
            x = torch.zeros(1, prior.channels, 9, 8)
            assert prior.denoise(x, 1.0).shape == x.shape
            assert prior.mse(1.0) > 0
            used += 1
        except InvsolveError:
            refused += 1
    print(f"{used} used, {refused} refused")


def test_altered_models_are_refused_or_work(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = NetworkConfig(widths=(2, 4), encoder_blocks=(1, 1), decoder_blocks=(1,))
    save_model(tmp_path, EDMDenoiser(config))
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path)], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    used, refused = (int(part.split()[0]) for part in done.stdout.split(", "))
    assert used > 20
    assert refused > 300


def save_model(folder: Path, network: EDMDenoiser) -> None:
    from invsolve.pretrained import save_prior

    errors = [(0.005, 2.4e-5), (1.0, 5e-2), (20.0, 0.07)]
    save_prior(folder, network, Card("tiny", {}, "RGB in [0, 1]", 0.005, 20.0, errors, ""))


def test_a_network_larger_than_its_weights_is_not_built(small_prior: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes((small_prior / "model.safetensors").read_bytes())
    fields = json.loads((small_prior / "card.json").read_text())
    fields["network"]["widths"] = [8000, 8000]
    (tmp_path / "card.json").write_text(json.dumps(fields))
    with pytest.raises(ModelError, match="at least .* numbers"):
        load_prior(tmp_path)


def test_the_least_size_of_the_shipped_networks_is_nearly_theirs() -> None:
    for name in [*shipped_priors(), *shipped_classifiers()]:
        folder = find_any(name)
        card = Card.read(folder / "card.json")
        stored = sum(tensor.numel() for tensor in load_file(folder / "model.safetensors").values())
        least = least_numbers(network_config(card), decoder=card.kind == "prior")
        assert 0.5 * stored < least < stored


def test_loading_leaves_the_random_numbers_alone(small_prior: Path) -> None:
    before = torch.get_rng_state()
    load_prior(small_prior, "cpu")
    assert torch.equal(torch.get_rng_state(), before)


def pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX")
@pytest.mark.parametrize("replaced", ["card.json", "model.safetensors"])
@pytest.mark.parametrize(
    ("put", "message"), [(pipe, "a pipe or a device"), (Path.mkdir, "is a folder"), (Path.touch, "is empty")]
)
def test_model_files_are_ordinary_files(
    replaced: str, put: Callable[[Path], None], message: str, small_prior: Path, tmp_path: Path
) -> None:
    for name in ("card.json", "model.safetensors"):
        if name == replaced:
            put(tmp_path / name)
        else:
            (tmp_path / name).write_bytes((small_prior / name).read_bytes())
    with pytest.raises(ModelError, match=message):
        load_prior(tmp_path)


def test_what_is_no_model_is_named(small_prior: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    for name, message in (
        (tmp_path / "empty", r"empty has no card\.json"),
        (tmp_path / "file", "is a file"),
        (small_prior / "card.json", "is a file"),
        ("cifar10-classifier", "holds a classifier, not a prior"),
        ("", "unknown model ''"),
        ("x" * 100_000, "unknown model 'xxx"),
        ("a\0b", "unknown model"),
    ):
        with pytest.raises(ModelError, match=message):
            load_prior(name)


if __name__ == "__main__":
    fuzz(Path(sys.argv[1]))
