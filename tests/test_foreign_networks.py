"""Networks of diffusers as priors: the library's own predictions, files that come back as they were, nothing that runs."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from invsolve.cli.main import app
from invsolve.errors import InvsolveError, ModelError, OutputError, UsageError
from invsolve.models.precision import full_precision
from invsolve.pretrained import NetworkPrior, load_prior
from invsolve.pretrained.card import Card
from invsolve.pretrained.diffusers_unet import DiffusersConfig
from invsolve.pretrained.foreign import ForeignDenoiser
from invsolve.pretrained.imported import About
from invsolve.pretrained.weight_files import read_weights
from invsolve.training.export import initial_weights
from invsolve.training.presets import PRESETS

diffusers = pytest.importorskip("diffusers")
importing = pytest.importorskip("invsolve.pretrained.importing")

SIDE, CPU = 16, torch.device("cpu")
UNET: dict[str, Any] = {
    "sample_size": SIDE,
    "block_out_channels": [16, 32],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "attention_head_dim": 8,
}
SCORE_UNET = UNET | {
    "down_block_types": ["SkipDownBlock2D", "AttnSkipDownBlock2D"],
    "up_block_types": ["AttnSkipUpBlock2D", "SkipUpBlock2D"],
    "time_embedding_type": "fourier",
    "center_input_sample": True,
    "block_out_channels": [32, 64],  # its groups are a quarter of the channels
}


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where imported models go."""
    monkeypatch.setenv("INVSOLVE_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def network(**changes: Any) -> Any:
    torch.manual_seed(0)
    return diffusers.UNet2DModel(**(UNET | changes)).eval()


def folder_of(path: Path, unet: Any, scheduler: Any, **options: Any) -> Path:
    """As a pipeline of diffusers stores itself."""
    diffusers.DDPMPipeline(unet, scheduler).save_pretrained(path, **options)
    return path


def read(path: Path, unet: Any, scheduler: Any) -> Any:
    return importing.read_model(folder_of(path, unet, scheduler), About("small"))


def pictures(count: int = 2) -> Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))


def noise() -> Tensor:
    return torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(4))


def compare(ours: Tensor, theirs: Tensor, sigma: float) -> None:
    """To 1e-5; of the noise level where that is above one, as both subtract numbers of its size in single precision."""
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * max(1.0, sigma))


CHAINS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "noise": ("DDPMScheduler", {}, {}),
    "data": ("DDPMScheduler", {"prediction_type": "sample"}, {}),
    "v": ("DDIMScheduler", {"prediction_type": "v_prediction", "beta_schedule": "scaled_linear"}, {}),
    "cosine": ("DDPMScheduler", {"beta_schedule": "squaredcos_cap_v2"}, {}),
    "zero SNR": ("DDIMScheduler", {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}, {}),
    "own betas": (
        "DDPMScheduler",
        {"trained_betas": [0.01 + 0.002 * k for k in range(50)], "num_train_timesteps": 50},
        {},
    ),
    "variances": ("DDPMScheduler", {"variance_type": "learned_range"}, {"out_channels": 6}),
    "learned steps": ("DDPMScheduler", {}, {"time_embedding_type": "learned", "num_train_timesteps": 1000}),
}


@pytest.mark.parametrize("case", CHAINS)
def test_chains_agree_with_the_library(case: str, tmp_path: Path) -> None:
    name, options, changes = CHAINS[case]
    unet = network(**changes)
    scheduler = getattr(diffusers, name)(clip_sample=False, **options)
    denoiser = read(tmp_path / "source", unet, scheduler).denoiser
    chain = scheduler.alphas_cumprod.double()
    steps = torch.linspace(0, int((chain > 1e-7).sum()) - 1, 20).round().long()
    clean, z = 2 * pictures() - 1, noise()
    for t in steps:
        alpha, std = chain[t].sqrt(), (1 - chain[t]).sqrt()
        u = scheduler.add_noise(clean, z, t.expand(2))
        with torch.no_grad():
            said = unet(u, t).sample
            ours = denoiser((0.5 + 0.5 * u.double() / alpha).float(), (0.5 * std / alpha).float().expand(2))
        if name == "DDPMScheduler":
            theirs = scheduler.step(said, int(t), u).pred_original_sample
        else:
            scheduler.set_timesteps(scheduler.config.num_train_timesteps)
            theirs = scheduler.step(said, int(t), u).pred_original_sample
        compare(ours, 0.5 + 0.5 * theirs, float(0.5 * std / alpha))


def test_variance_exploding_networks_agree_with_the_library(tmp_path: Path) -> None:
    unet = network(**SCORE_UNET)
    scheduler = diffusers.ScoreSdeVeScheduler(num_train_timesteps=20, sigma_max=50.0)
    denoiser = read(tmp_path / "source", unet, scheduler).denoiser
    assert (denoiser.sigma_min, denoiser.sigma_max) == pytest.approx((0.01, 50.0), rel=1e-3)
    for sigma in scheduler.sigmas:
        x = pictures() + sigma * noise()
        with torch.no_grad():
            scheduler.discrete_sigmas[0] = sigma  # the library's last step, which takes all noise, from here
            theirs = scheduler.step_pred(unet(x, sigma.expand(2)).sample, 0, x).prev_sample_mean
            compare(denoiser(x, sigma.expand(2)), theirs, float(sigma))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_edm_networks_agree_with_the_library(prediction: str, tmp_path: Path) -> None:
    unet = network()
    scheduler = diffusers.EDMEulerScheduler(prediction_type=prediction)
    denoiser = read(tmp_path / "source", unet, scheduler).denoiser
    assert (denoiser.sigma_min, denoiser.sigma_max) == pytest.approx((0.001, 40.0))
    scheduler.set_timesteps(20)
    for level in scheduler.sigmas[:20]:
        u = 2 * pictures() - 1 + level * noise()
        with torch.no_grad():
            said = unet(scheduler.precondition_inputs(u, level), scheduler.precondition_noise(level).expand(2)).sample
            theirs = scheduler.precondition_outputs(u, said, level)
            ours = denoiser(0.5 + 0.5 * u, (0.5 * level).expand(2))
        compare(ours, 0.5 + 0.5 * theirs, float(0.5 * level))


def test_classes_and_guidance_agree_with_the_library(tmp_path: Path) -> None:
    """Three classes, and a fourth that stood for none."""
    unet, scheduler = network(num_class_embeds=4), diffusers.DDPMScheduler(clip_sample=False)
    source = folder_of(tmp_path / "source", unet, scheduler)
    told = importing.read_model(source, About("small", null_class=3)).denoiser
    assert (told.config.classes, told.of_class(1).label) == (3, 1)
    for t in (5, 400):
        chain = scheduler.alphas_cumprod[t].double()
        alpha, std = chain.sqrt(), (1 - chain).sqrt()
        u = (alpha * (2 * pictures() - 1) + std * noise()).float()
        x, level = (0.5 + 0.5 * u.double() / alpha).float(), (0.5 * std / alpha).float().expand(2)
        with torch.no_grad():
            none, two = (unet(u, t, class_labels=torch.full((2,), row)).sample for row in (3, 2))
            for ours, said in ((told, none), (told.of_class(2), two), (told.of_class(2, 4.0), none + 4 * (two - none))):
                theirs = (0.5 + 0.5 * (u.double() - std * said) / alpha).float()
                compare(ours(x, level), theirs, 4 * float(level[0]))
    always = importing.read_model(source, About("small")).denoiser
    assert (always.config.classes, always.config.null_class) == (4, None)
    with pytest.raises(ModelError, match="one of 4 classes"):
        always(x, level)
    with pytest.raises(ModelError, match="null_class 4"):
        importing.read_model(source, About("small", null_class=4))
    with pytest.raises(UsageError, match="has its own"):
        importing.read_model(source, About("small", stated={"image_size": SIDE}))


def test_noise_levels_of_one_batch_may_differ_and_gradients_pass(tmp_path: Path) -> None:
    denoiser = read(tmp_path / "source", network(), diffusers.DDPMScheduler()).denoiser
    x, levels = pictures().requires_grad_(), torch.tensor([0.02, 3.0])
    both = denoiser(x, levels)
    for k in range(2):
        compare(both[k : k + 1], denoiser(x[k : k + 1], levels[k : k + 1]), 3.0)
    both.sum().backward()
    assert x.grad is not None and bool(x.grad.abs().sum(dim=(1, 2, 3)).gt(0).all())


def test_pictures_of_any_size_where_the_network_states_none(tmp_path: Path) -> None:
    found = read(tmp_path / "source", network(sample_size=None), diffusers.DDPMScheduler())
    assert found.card.size is None
    assert found.denoiser(torch.rand(1, 3, 9, 13), torch.tensor([0.1])).shape == (1, 3, 9, 13)


def photographs(folder: Path, count: int = 3) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k in range(count):
        Image.fromarray(rng.integers(0, 255, (40, 44, 3), dtype=np.uint8)).save(folder / f"{k}.png")
    return folder


def run(*arguments: str | Path) -> None:
    app([str(argument) for argument in arguments], standalone_mode=False)


def test_what_is_imported_denoises_bit_for_bit(
    tmp_path: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unet = network()
    source = folder_of(tmp_path / "source", unet, diffusers.DDPMScheduler())
    (source / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    run("models", "import", source, "--as", "noises", "--validate", photographs(tmp_path / "photos"))
    card = Card.read(models / "noises" / "card.json")
    assert (card.size, card.licence, card.orientations) == (SIDE, "apache-2.0", "mirror")
    assert len(card.validation_mse) == 13 and card.error_spectrum["sigmas"]
    assert len(card.source) == 4  # where from, and the hashes of two descriptions and the weights
    assert card.source["from"] == str(source)
    levels = [sigma for sigma, _ in card.label_rounding]
    assert levels == sorted(levels) and all(0 < effect < sigma for sigma, effect in card.label_rounding)
    # as one wraps the network that was never stored, at twenty levels
    direct = NetworkPrior(ForeignDenoiser(unet, DiffusersConfig.from_dict(card.foreign)), card, CPU)
    loaded = load_prior("noises", "cpu")
    for sigma in np.geomspace(loaded.sigma_min, loaded.sigma_max, 20):
        x = pictures() + float(sigma) * noise()
        assert torch.equal(loaded.denoise(x, float(sigma)), direct.denoise(x, float(sigma)))
    # the stated error is that of the prior as it is loaded
    assert loaded.mse(card.validation_mse[5][0]) == pytest.approx(card.validation_mse[5][1])
    capsys.readouterr()
    run("models", "verify", "noises")
    run("models")
    run("models", "noises")
    shown = capsys.readouterr().out
    assert "noises: sound" in shown and "validated on 3 pictures" in shown and '"name": "noises"' in shown
    run("models", "remove", "noises")
    assert not (models / "noises").exists()


def test_the_error_on_the_card_is_the_error(tmp_path: Path) -> None:
    """Measured once more, with other noise."""
    found = read(tmp_path / "source", network(), diffusers.DDPMScheduler())
    clean = pictures(8)
    measured = importing.validated(found, clean, "random", CPU)
    prior = NetworkPrior(measured.denoiser, measured.card, CPU)
    for sigma in (0.02, 0.3, 4.0):
        x = clean + sigma * torch.randn(clean.shape, generator=torch.Generator().manual_seed(9))
        assert prior.mse(sigma) == pytest.approx(float((prior.denoise(x, sigma) - clean).square().mean()), rel=0.1)
    assert prior.sigma_data == pytest.approx(float(clean.std()), rel=0.01)


def test_unvalidated_priors_take_the_error_of_a_gaussian(tmp_path: Path, models: Path) -> None:
    run("models", "import", folder_of(tmp_path / "plain", network(), diffusers.DDPMScheduler()), "-q")
    prior = load_prior("plain", "cpu")
    assert prior.card.knows == "imported; not validated here" and prior.card.licence.startswith("not stated")
    assert prior.mse(0.27) == pytest.approx(0.27**2 / 2)
    with pytest.raises(UsageError, match="a network of another library"):
        initial_weights("plain", PRESETS["photos"])


def test_bare_networks_older_names_half_precision_and_pickles(tmp_path: Path, models: Path) -> None:
    """All the ways in which folders of diffusers come."""
    unet = network().half()
    wanted = {key: value.float() for key, value in unet.state_dict().items()}
    bare = tmp_path / "bare"
    unet.save_pretrained(bare, safe_serialization=False)
    assert list(bare.glob("*.bin"))
    with pytest.raises(ModelError, match=r"which noise .* was trained for"):
        importing.read_model(bare, About("bare"))
    diffusers.DDPMScheduler().save_pretrained(bare)
    older = {
        key.replace(".to_q.", ".query.").replace(".to_out.0.", ".proj_attn."): value
        for key, value in torch.load(next(bare.glob("*.bin")), weights_only=True).items()
    }
    assert older.keys() != wanted.keys()
    torch.save(older, next(bare.glob("*.bin")))
    run("models", "import", bare, "-q")
    found = load_prior("bare", "cpu")
    for key, value in found.network.unet.state_dict().items():
        assert torch.equal(value, wanted[key])
    with pytest.raises(OutputError, match="already"):
        run("models", "import", bare, "-q")
    run("models", "import", next(bare.glob("*.bin")), "--as", "bare", "--force", "-q")
    index = {
        "_class_name": "DDPMPipeline",
        "unet": ["diffusers", "UNet2DModel"],
        "scheduler": ["diffusers", "DDPMScheduler"],
    }
    (bare / "model_index.json").write_text(json.dumps(index))  # a pipeline with all in one folder
    assert torch.equal(
        importing.read_model(bare, About("bare")).denoiser.unet.conv_in.weight, found.network.unet.conv_in.weight
    )
    sharded = network()
    sharded.save_pretrained(tmp_path / "sharded", max_shard_size="100KB")
    diffusers.DDPMScheduler().save_pretrained(tmp_path / "sharded")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    again = importing.read_model(tmp_path / "sharded", About("sharded")).denoiser.unet.state_dict()
    assert all(torch.equal(again[key], value) for key, value in sharded.state_dict().items())


def test_own_priors_are_imported(small_prior: Path, models: Path) -> None:
    run("models", "import", small_prior, "--as", "mine", "-q")
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(load_prior("mine", "cpu").denoise(x, 0.3), load_prior(small_prior, "cpu").denoise(x, 0.3))


def test_names_lead_nowhere_else(tmp_path: Path, models: Path, small_prior: Path) -> None:
    for name in ("../up", "photos", "a/b", ".", "-x", "x\n", "", "a" * 200):
        with pytest.raises(UsageError):
            importing.check_name(name)
    for name in ("photos", "../models", "nothing", "", "."):
        with pytest.raises(UsageError):
            importing.remove(name)
    models.mkdir()
    (models / "linked").symlink_to(small_prior)
    with pytest.raises(UsageError):
        importing.remove("linked")
    with pytest.raises(OutputError):
        importing.check_name("linked", force=True)
    assert (small_prior / "card.json").exists()


def test_broken_imports_are_found(tmp_path: Path, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("models", "import", folder_of(tmp_path / "plain", network(), diffusers.DDPMScheduler()), "-q")
    weights = models / "plain" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ModelError, match="does not match its card"):
        run("models", "verify", "plain")
    (models / "plain" / "card.json").write_text("{}")
    run("models")
    assert "plain" in capsys.readouterr().out.split("damaged:")[0].splitlines()[-1]


# What somebody might send.


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.trace}",)


def bare(folder: Path) -> Path:
    """A good folder of a bare network, to be spoilt."""
    network().save_pretrained(folder)
    diffusers.DDPMScheduler().save_pretrained(folder)
    return folder


def without_weights(folder: Path) -> Path:
    next(bare(folder).glob("*.safetensors")).unlink()
    return folder


def pickle_with_payload(folder: Path, trace: Path) -> None:
    torch.save({"conv_in.weight": torch.zeros(2), "x": Payload(trace)}, without_weights(folder) / "model.bin")


def bare_pickle(folder: Path, trace: Path) -> None:
    (without_weights(folder) / "model.pt").write_bytes(pickle.dumps(Payload(trace)))


def pickle_called_safetensors(folder: Path, trace: Path) -> None:
    (without_weights(folder) / "model.safetensors").write_bytes(pickle.dumps(Payload(trace)))


def torchscript(folder: Path, trace: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), str(without_weights(folder) / "model.pt"))


def exported(folder: Path, trace: Path) -> None:
    program = torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),))
    torch.export.save(program, without_weights(folder) / "archive.pt2")
    (folder / "archive.pt2").rename(folder / "model.pt")


def lying_header(folder: Path, trace: Path) -> None:
    header = json.dumps({"conv_in.weight": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    (without_weights(folder) / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 64)


def huge_header(folder: Path, trace: Path) -> None:
    (without_weights(folder) / "model.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")


def zip_bomb(folder: Path, trace: Path) -> None:
    """The archive that torch writes, its numbers packed: 32 MB of zeros in 32 kB."""
    buffer = io.BytesIO()
    torch.save({"conv_in.weight": torch.zeros(2**23)}, buffer)
    with (
        zipfile.ZipFile(buffer) as plain,
        zipfile.ZipFile(without_weights(folder) / "model.bin", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry))


def repeated_number(folder: Path, trace: Path) -> None:
    """One stored number that says it is a terabyte."""
    torch.save({"conv_in.weight": torch.zeros(1).expand(2**38)}, without_weights(folder) / "model.bin")


def link(folder: Path, trace: Path) -> None:
    outside = folder.parent / "outside.safetensors"
    next(bare(folder).glob("*.safetensors")).rename(outside)
    (folder / "diffusion_pytorch_model.safetensors").symlink_to(outside)


def endless_link(folder: Path, trace: Path) -> None:
    target = without_weights(folder) / "model.safetensors"
    target.symlink_to(target)


def index_outside(folder: Path, trace: Path) -> None:
    listed = {"weight_map": {"conv_in.weight": "../outside.safetensors"}}
    (without_weights(folder) / "model.safetensors.index.json").write_text(json.dumps(listed))


def huge_network(folder: Path, trace: Path) -> None:
    """A configuration of 10^14 numbers."""
    config = json.loads((bare(folder) / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(config | {"block_out_channels": [8192, 8192], "layers_per_block": 64})
    )


def own_code(folder: Path, trace: Path) -> None:
    """A pipeline with a module of its own beside it."""
    bare(folder)
    (folder / "payload.py").write_text(f"open({str(trace)!r}, 'w')")
    (folder / "model_index.json").write_text(json.dumps({"unet": ["payload", "UNet"], "scheduler": ["payload", "S"]}))


def latent(folder: Path, trace: Path) -> None:
    bare(folder)
    (folder / "model_index.json").write_text(json.dumps({"unet": ["diffusers", "UNet2DModel"], "vqvae": ["x", "y"]}))


def strange_scheduler(folder: Path, trace: Path) -> None:
    bare(folder)
    (folder / "scheduler_config.json").write_text(json.dumps({"_class_name": "FlowMatchEulerDiscreteScheduler"}))


def wants_vectors(folder: Path, trace: Path) -> None:
    network(class_embed_type="timestep").save_pretrained(folder)
    diffusers.DDPMScheduler().save_pretrained(folder)


MALICIOUS: dict[Callable[[Path, Path], None], str] = {
    pickle_with_payload: "more in it than tensors",
    bare_pickle: "more in it than tensors",
    pickle_called_safetensors: "not a safetensors file",
    torchscript: "TorchScript, a program",
    exported: r"torch\.export archive, a program",
    lying_header: "not a safetensors file",
    huge_header: "not a safetensors file",
    zip_bomb: "unpacks to",
    repeated_number: "more than are stored",
    link: "leads out of",
    endless_link: "leads out of|no such file|cannot read",
    index_outside: r"names the file '\.\./outside",
    huge_network: "do not fit|diffusers cannot build",
    own_code: "its network is",
    latent: "pipeline with vqvae",
    strange_scheduler: "its scheduler is 'FlowMatch",
    wants_vectors: "is told classes as 'timestep'",
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:Detected pickle")
@pytest.mark.parametrize("make", MALICIOUS, ids=lambda make: make.__name__)
def test_nothing_runs(make: Callable[[Path, Path], None], tmp_path: Path, models: Path) -> None:
    folder, trace = tmp_path / "source", tmp_path / "trace"
    folder.mkdir()
    make(folder, trace)
    with pytest.raises(ModelError, match=MALICIOUS[make]) as caught:
        run("models", "import", folder, "-q")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1200
    assert not trace.exists() and not models.exists()


def test_the_payload_would_have_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    pickle_with_payload(tmp_path / "source", trace)
    torch.load(tmp_path / "source" / "model.bin", weights_only=False)
    assert trace.exists()


HOSTILE: tuple[Any, ...] = (-1, 0, [], {}, "x", [10**9, 10**9], ["x", "y"], None, True)


def test_cards_of_foreign_networks_are_checked(tmp_path: Path, models: Path) -> None:
    """Whatever stands in one: a ModelError, before anything of the size it names is built."""
    run("models", "import", folder_of(tmp_path / "plain", network(), diffusers.DDPMScheduler()), "-q")
    file = models / "plain" / "card.json"
    good = json.loads(file.read_text())
    for part in ("unet", "scheduler"):
        for number, name in enumerate(good["foreign"][part]):
            for hostile in (HOSTILE[number % len(HOSTILE)], HOSTILE[(number + 3) % len(HOSTILE)], 10**9):
                changed = json.loads(json.dumps(good))
                changed["foreign"][part][name] = hostile
                file.write_text(json.dumps(changed))
                try:
                    load_prior("plain", "cpu")
                except InvsolveError as error:
                    assert isinstance(error, ModelError)
    for changed in ({"library": "os"}, {"unet": {}}, {"extra": 1}):
        file.write_text(json.dumps(good | {"foreign": good["foreign"] | changed}))
        with pytest.raises(ModelError):
            load_prior("plain", "cpu")


def test_a_file_is_read_as_the_tensors_it_holds(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(3.0), "b": torch.ones(2, 2).t()}, tmp_path / "good.pt")
    assert read_weights(tmp_path / "good.pt")["a"].tolist() == [0.0, 1.0, 2.0]
    for bad in ([1, 2], {"a": 3}, {1: torch.ones(2)}, {"a": {"b": torch.ones(2)}}, {}):
        torch.save(bad, tmp_path / "bad.pt")
        with pytest.raises(ModelError, match="holds a"):
            read_weights(tmp_path / "bad.pt")


def test_imported_priors_solve(tmp_path: Path, models: Path) -> None:
    """A command, with the imported prior's name."""
    run("models", "import", folder_of(tmp_path / "plain", network(), diffusers.DDPMScheduler()), "-q")
    Image.fromarray((255 * pictures()[0].permute(1, 2, 0).numpy()).astype(np.uint8)).save(tmp_path / "picture.png")
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[4:9, 4:9] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    with full_precision():
        run(
            "inpaint",
            tmp_path / "picture.png",
            "--mask",
            tmp_path / "mask.png",
            "--model",
            "plain",
            "--steps",
            "3",
            "-q",
        )
    assert (tmp_path / "picture.inpaint.png").exists()
    assert replace(load_prior("plain", "cpu").card, name="other").name == "other"
