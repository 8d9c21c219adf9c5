"""Models from a hub, which the test serves on the loopback: what comes is what was listed, or it does not come."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from calling import call
from safetensors.torch import save

from invsolve.cli.main import app
from invsolve.errors import ModelError, UsageError
from invsolve.models.precision import full_precision
from invsolve.models.refinenet import RefineNet, RefineNetConfig
from invsolve.pretrained import load_prior
from invsolve.pretrained.card import Card
from invsolve.pretrained.hub import parse_repo, wanted_files

diffusers = pytest.importorskip("diffusers")
huggingface_hub = pytest.importorskip("huggingface_hub")

COMMIT = "0123456789abcdef0123456789abcdef01234567"
"""The one revision of the hub that ``serve_hub`` serves."""
UNET: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": [8, 8],
    "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 4,
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A model as a hub has it, by file name."""
    folder = tmp_path_factory.mktemp("repository")
    torch.manual_seed(0)
    diffusers.DDPMPipeline(diffusers.UNet2DModel(**UNET), diffusers.DDPMScheduler()).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    (folder / "payload.py").write_text("raise SystemExit")
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def mirror(repository: dict[str, bytes], tmp_path: Path, serve_hub: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("INVSOLVE_MODELS", str(tmp_path / "models"))
    return serve_hub(repository)


def pull(*arguments: str) -> None:
    app(["models", "pull", *arguments, "-q"], standalone_mode=False)


def test_a_model_is_fetched_at_its_commit(mirror: Any, tmp_path: Path) -> None:
    pull("lab/faces")
    card = Card.read(tmp_path / "models" / "faces" / "card.json")
    assert card.source["revision"] == COMMIT and card.source["from"] == f"{mirror.address}/lab/faces"
    assert card.licence == "mit" and card.size == 8
    fetched = {name for name, _ in mirror.asked}
    assert fetched == mirror.files.keys() - {"payload.py"}
    assert load_prior("faces", "cpu").denoise(torch.rand(1, 3, 8, 8), 0.3).shape == (1, 3, 8, 8)
    mirror.asked.clear()
    pull(f"lab/faces@{COMMIT}", "--as", "again")
    assert not mirror.asked  # all of it was in the cache


def test_offline_what_was_fetched_is_there(mirror: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pull("lab/faces@main")
    mirror.shutdown()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pull(f"lab/faces@{COMMIT}", "--as", "again")
    assert Card.read(tmp_path / "models" / "again" / "card.json").source["revision"] == COMMIT
    with pytest.raises(ModelError, match="cannot fetch lab/rooms"):
        pull("lab/rooms")
    blobs = [path for path in (tmp_path / "cache").rglob("blobs/*") if len(path.name) == 64]
    assert blobs
    for blob in blobs:
        blob.write_bytes(blob.read_bytes()[:-1] + b"\1")
    with pytest.raises(ModelError, match="does not have its hash"):
        pull(f"lab/faces@{COMMIT}", "--as", "third")


def test_what_was_broken_off_is_resumed(mirror: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # what is kept are whole ones
    mirror.break_off = 5000
    pull("lab/faces")
    parts = [part for name, part in mirror.asked if name.endswith(".safetensors")]
    assert len(parts) == 2 and parts[0] in (None, "bytes=0-") and parts[1] == "bytes=5000-"
    assert load_prior("faces", "cpu").size == 8


@pytest.mark.parametrize("name", ["unet/diffusion_pytorch_model.safetensors", "unet/config.json"])
def test_another_file_than_listed_is_refused(name: str, mirror: Any, tmp_path: Path) -> None:
    good, listing = mirror.files[name], mirror.listing()
    mirror.listing = lambda: listing  # type: ignore[method-assign]
    mirror.files[name] = good[:-2] + b" }" if name.endswith("json") else good[:-1] + b"\1"
    with pytest.raises(ModelError, match=r"has hash \w{12}\.\.\., the hub's listing says") as caught:
        pull("lab/faces")
    assert "\n" not in str(caught.value) and not (tmp_path / "models").exists()
    mirror.files[name] = good
    pull("lab/faces")  # the wrong file was forgotten


def test_another_commit_than_asked_for_is_refused(mirror: Any) -> None:
    mirror.commit = "f" * 40
    with pytest.raises(ModelError, match="answers with commit ffffffffffff"):
        pull(f"lab/faces@{COMMIT}")
    mirror.commit = "main"
    with pytest.raises(ModelError, match="gives lab/faces the revision 'main'"):
        pull("lab/faces")


def test_a_pickle_is_not_fetched(mirror: Any) -> None:
    name = "unet/diffusion_pytorch_model"
    mirror.files[f"{name}.bin"] = mirror.files.pop(f"{name}.safetensors")
    mirror.listed[f"{name}.bin"] = "0" * 64
    with pytest.raises(ModelError, match=r"as a pickle only \(unet/.*\.bin\), which can run any code"):
        pull("lab/faces")
    assert not mirror.asked


def test_asking_for_pickles_says_why_not(mirror: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """One line, and nothing is asked of the hub."""
    assert call(monkeypatch, "models", "pull", "lab/faces", "--allow-pickle") == 2
    said = capsys.readouterr().err
    assert "a pickle is a program" in said and "models import" in said and said.count("\n") == 2
    assert not mirror.asked


def test_a_file_of_another_library(mirror: Any, tmp_path: Path) -> None:
    """Alone in its repository, and described by --config: here an NCSNv2."""
    torch.manual_seed(0)
    network = RefineNet(RefineNetConfig(8, 3, 4, "ncsnv2")).eval()
    content = save({**network.state_dict(), "sigmas": torch.tensor([1.0, 0.1])})
    mirror.files = {"README.md": b"---\nlicense: mit\n---\n", "ncsn.safetensors": content}
    mirror.listed |= {name: hashlib.sha256(part).hexdigest() for name, part in mirror.files.items()}
    (tmp_path / "ncsn.toml").write_text("image_size = 8\n")
    pull("lab/faces", "--config", str(tmp_path / "ncsn.toml"))
    prior = load_prior("faces", "cpu")
    assert (prior.size, prior.card.licence, prior.card.source["revision"]) == (8, "mit", COMMIT)
    x = torch.rand(1, 3, 8, 8)
    with torch.no_grad(), full_precision():
        theirs = x + 0.5 * network(2 * x - 1, torch.tensor([0.5]))
        torch.testing.assert_close(prior.denoise(x, 0.5), theirs, rtol=0, atol=1e-5)


def test_names_of_files_lead_nowhere_else() -> None:
    hostile = ["../../x.safetensors", "unet/../../x.safetensors", "/etc/x.safetensors", "unet/.git/x.safetensors"]
    with pytest.raises(ModelError, match="no network with safetensors"):
        wanted_files([*hostile, "config.json"], "lab/faces")
    names = ["unet/config.json", "unet/model.safetensors", "vae/model.safetensors", "model.bin", "README.md"]
    assert wanted_files(names, "x") == ["README.md", "unet/config.json", "unet/model.safetensors"]


def test_repositories_and_revisions() -> None:
    assert parse_repo("lab/faces") == ("lab/faces", None)
    assert parse_repo("lab/faces@refs/pr/1") == ("lab/faces", "refs/pr/1")
    assert parse_repo("faces@v1.0") == ("faces", "v1.0")
    for wrong in (
        "",
        "a/b/c",
        "../x",
        "lab/..",
        "lab/faces@",
        "lab/faces@../x",
        "https://hub/lab/faces",
        "a b",
        "lab/faces\n",
    ):
        with pytest.raises(UsageError):
            parse_repo(wrong)


def test_unknown_repositories(mirror: Any) -> None:
    with pytest.raises(ModelError, match="cannot fetch lab/rooms: the hub knows no such repository"):
        pull("lab/rooms")
