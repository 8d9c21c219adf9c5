"""Training: the loss, the noise density, resuming, stopping, data sources."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from invsolve.errors import InputError, UsageError
from invsolve.models.network import EDMDenoiser, NetworkConfig
from invsolve.models.precision import full_precision
from invsolve.pretrained import load_prior, save_prior
from invsolve.training.batches import batch_at
from invsolve.training.checkpoint import initial_state
from invsolve.training.crops import Augmentation, random_crops, shrunk
from invsolve.training.export import initial_weights
from invsolve.training.loop import TrainingInfo, fit, learning_rate_factor, train
from invsolve.training.loss import DENOISING, Batch, denoising_loss, loss_weight, stratified_sigma
from invsolve.training.optimizer import Muon, orthogonalized
from invsolve.training.post_hoc_ema import ema_decay
from invsolve.training.presets import PRESETS, SigmaDensity, TrainingConfig
from invsolve.training.sources import load_pictures, mixed
from invsolve.training.validation import validate

TINY = replace(
    PRESETS["tiny"],
    network=NetworkConfig(widths=(8, 16), encoder_blocks=(1, 1), decoder_blocks=(1,)),
    steps=12,
    batch=4,
    crop=16,
    crop_late=16,
)
CPU = torch.device("cpu")


def pictures(count: int = 6) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:40, :40]
    waves = [
        127 + 120 * np.sin((x * rng.normal() + y * rng.normal()) / 6 + rng.uniform(0, 6, 3)[:, None, None])
        for _ in range(count)
    ]
    return [wave.transpose(1, 2, 0).astype(np.uint8) for wave in waves]


def test_resumed_training_repeats_an_unbroken_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from invsolve.training import loss as training_loss

    torch.set_num_threads(1)
    losses: list[float] = []
    original = training_loss.denoising_loss

    def recorded(*args: object) -> torch.Tensor:
        loss = original(*args)  # type: ignore[arg-type]
        losses.append(float(loss.detach()))
        return loss

    monkeypatch.setattr(training_loss, "denoising_loss", recorded)
    whole = train(pictures(), TINY, tmp_path / "whole", device=CPU)
    unbroken, losses = losses, []

    class Stop(Exception):
        pass

    def stop(info: TrainingInfo) -> None:
        if info.step == 5:
            raise Stop

    with pytest.raises(Stop):
        train(pictures(), TINY, tmp_path / "broken", device=CPU, on_step=stop)
    resumed = train(pictures(), TINY, tmp_path / "broken", device=CPU)
    assert losses == unbroken
    assert resumed.step == whole.step == 12
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(whole.ema.parameters(), resumed.ema.parameters(), strict=True):
        assert torch.equal(a, b)


def test_losses_are_those_of_old(tmp_path: Path) -> None:
    losses: list[float] = []

    def recorded(model: EDMDenoiser, batch: Batch, config: TrainingConfig) -> torch.Tensor:
        loss = DENOISING.loss(model, batch, config)
        losses.append(float(loss.detach()))
        return loss

    with full_precision():
        fit(replace(DENOISING, loss=recorded), pictures(), TINY, tmp_path, device=CPU)
    # A change in crops, noise, rates or updates would show; processors and rounding differ by far less.
    of_old = [1.06614, 1.11411, 1.18759, 1.08603, 1.09987, 1.11173, 1.28974, 1.11231, 1.15754, 1.0593, 1.1042, 1.09931]
    assert losses == pytest.approx(of_old, rel=1e-3)


def test_muon_in_float32_is_pytorchs(monkeypatch: pytest.MonkeyPatch, generator: torch.Generator) -> None:
    """On processors that have no bfloat16 the same steps, but for its rounding."""
    ours, theirs = ([torch.nn.Parameter(torch.ones(shape)) for shape in ((8, 40), (40, 8))] for _ in range(2))
    settings = {"lr": 0.1, "weight_decay": 0.01, "momentum": 0.95, "adjust_lr_fn": "match_rms_adamw"}
    pairs = [(Muon(ours, **settings), ours), (torch.optim.Muon(theirs, **settings), theirs)]
    monkeypatch.setattr("invsolve.training.optimizer.native_bfloat16", lambda device: False)
    for _ in range(3):
        gradients = [torch.randn(p.shape, generator=generator) for p in ours]
        for optimizer, parameters in pairs:
            for p, gradient in zip(parameters, gradients, strict=True):
                p.grad = gradient.clone()
            optimizer.step()
    for a, b in zip(ours, theirs, strict=True):
        moved = (b.detach() - 1).norm()
        assert float((a.detach() - b.detach()).norm() / moved) < 0.01
    matrices = torch.randn((3, 12, 30), generator=generator)
    found = orthogonalized(matrices, (3.4445, -4.775, 2.0315), 5, 1e-7)
    spread = torch.linalg.svdvals(found)
    assert 0.6 < float(spread.min()) <= float(spread.max()) < 1.3


def test_training_denoises_better_than_before(tmp_path: Path) -> None:
    config = replace(TINY, steps=120, network=replace(TINY.network, widths=(16, 32)))
    held_out = torch.from_numpy(np.stack(pictures()).transpose(0, 3, 1, 2)).float() / 255
    before = validate(initial_state(config, CPU).ema, held_out, [0.1, 0.5])
    after = validate(train(pictures(), config, tmp_path, device=CPU).ema, held_out, [0.1, 0.5])
    assert all(after[s] < 0.7 * before[s] for s in before)


def test_time_limit_stops_and_leaves_a_checkpoint(tmp_path: Path) -> None:
    state = train(pictures(), replace(TINY, steps=100_000), tmp_path, device=CPU, time_limit=1.0)
    assert 0 < state.step < 100_000
    assert (tmp_path / "checkpoint.pt").is_file()


def test_a_diverged_run_keeps_a_sound_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from invsolve.errors import SolveError
    from invsolve.training import loss as training_loss

    original = training_loss.denoising_loss
    calls = 0

    def diverging(*args: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        loss = original(*args)  # type: ignore[arg-type]
        return loss * torch.nan if calls == 6 else loss

    monkeypatch.setattr(training_loss, "denoising_loss", diverging)
    with pytest.raises(SolveError, match="step 5"):
        train(pictures(), TINY, tmp_path, device=CPU)
    monkeypatch.undo()
    state = train(pictures(), TINY, tmp_path, device=CPU)
    assert state.step == 12
    assert all(bool(torch.isfinite(p).all()) for p in state.model.parameters())


def test_other_settings_do_not_resume(tmp_path: Path) -> None:
    train(pictures(), replace(TINY, steps=1), tmp_path, device=CPU)
    with pytest.raises(InputError, match="another run.*seed"):
        train(pictures(), replace(TINY, seed=1), tmp_path, device=CPU)


def test_a_new_run_starts_from_the_given_weights(tmp_path: Path) -> None:
    given = initial_state(replace(TINY, seed=5), CPU).model.state_dict()
    still = replace(TINY, learning_rate=0.0, muon_rate=0.0, steps=2)
    state = fit(DENOISING, pictures(), still, tmp_path, device=CPU, initial=given)
    for weights in (state.model.state_dict(), state.ema.state_dict()):
        assert all(torch.equal(weights[name], given[name]) for name in given)


def test_a_deeper_network_starts_as_the_prior_it_is_given(small_prior: Path) -> None:
    """Blocks that it has more of change nothing to begin with; fewer, or other widths, are refused."""
    prior = load_prior(small_prior, "cpu")
    deeper = replace(prior.network.config, encoder_blocks=(1, 3), decoder_blocks=(2,))
    network = EDMDenoiser(deeper).eval()
    network.load_state_dict(initial_weights(str(small_prior), TrainingConfig(network=deeper)))
    x, sigma = torch.rand(2, 3, 16, 16), torch.tensor([0.1, 0.8])
    with torch.no_grad(), full_precision():
        torch.testing.assert_close(network(x, sigma), prior.network(x, sigma))
    for wrong in (
        replace(deeper, encoder_blocks=(0, 1)),
        replace(deeper, widths=(8, 32)),
        replace(deeper, attention_from=1),
    ):
        with pytest.raises(UsageError, match="its network has"):
            initial_weights(str(small_prior), TrainingConfig(network=wrong))


def test_fine_tuning_from_the_command_line(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from invsolve.cli.main import app

    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, picture in enumerate(pictures()):
        Image.fromarray(picture).save(folder / f"{number}.png")
    run = CliRunner().invoke
    command = ["train", str(folder), "--preset", "tiny", "--batch", "2", "-q"]
    assert run(app, [*command, "--steps", "2", "--seed", "5", "-o", str(tmp_path / "a")]).exit_code == 0
    assert run(app, [*command, "--steps", "1", "-o", str(tmp_path / "b"), "--init", str(tmp_path / "a")]).exit_code == 0
    assert run(app, [*command, "--steps", "1", "-o", str(tmp_path / "c")]).exit_code == 0
    b, c = (load_prior(tmp_path / name, "cpu").network.state_dict() for name in "bc")
    assert any(not torch.equal(b[name], c[name]) for name in b)
    failed = run(app, ["train", str(folder), "--init", str(tmp_path / "a"), "-o", str(tmp_path / "d")])
    assert isinstance(failed.exception, UsageError)
    assert not (tmp_path / "d" / "checkpoint.pt").exists()


def test_a_finished_prior_is_not_overwritten(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from invsolve.cli.main import app
    from invsolve.errors import OutputError

    np.savez(tmp_path / "data.npz", images=np.stack(pictures(8)))
    (tmp_path / "card.json").write_text("precious")
    done = CliRunner().invoke(app, ["train", str(tmp_path / "data.npz"), "--preset", "tiny", "-o", str(tmp_path)])
    assert isinstance(done.exception, OutputError)
    assert (tmp_path / "card.json").read_text() == "precious"


def test_checkpoints_from_before_a_setting_existed_resume(tmp_path: Path) -> None:
    train(pictures(), replace(TINY, steps=1), tmp_path, device=CPU)
    content = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    del content["config"]["network"]["attention_from"], content["config"]["units"]
    del content["config"]["augmentation"]["framing"]
    torch.save(content, tmp_path / "checkpoint.pt")
    assert train(pictures(), replace(TINY, steps=2), tmp_path, device=CPU).step == 2


def test_another_network_does_not_resume(tmp_path: Path) -> None:
    train(pictures(), replace(TINY, steps=1), tmp_path, device=CPU)
    other = replace(TINY, network=replace(TINY.network, widths=(8, 8)))
    with pytest.raises(InputError, match="another run"):
        train(pictures(), other, tmp_path, device=CPU)


def test_loss_is_denoising_score_matching(generator: torch.Generator) -> None:
    model = EDMDenoiser(TINY.network)
    torch.nn.init.normal_(model.net.conv_out.weight, std=0.1)
    x0, z = torch.rand(4, 3, 16, 16, generator=generator), torch.randn(4, 3, 16, 16, generator=generator)
    sigma = torch.tensor([0.02, 0.1, 0.5, 3.0])
    s = sigma[:, None, None, None]
    # NCSN eq. 6 with lambda = sigma^2: sigma^2 |score + z / sigma|^2.
    score = (model(x0 + s * z, sigma) - x0 - s * z) / s**2
    expected = (s**2 * (score + z / s) ** 2).mean()
    torch.testing.assert_close(denoising_loss(model, x0, sigma, z, "ncsn"), expected, rtol=1e-3, atol=1e-5)
    # EDM's weight makes the network's own target unit variance: lambda c_out^2 = 1.
    c_out = sigma * 0.27 / (sigma**2 + 0.27**2).sqrt()
    torch.testing.assert_close(loss_weight(sigma, 0.27, "edm") * c_out**2, torch.ones(4))


def test_channels_have_their_own_scale(generator: torch.Generator) -> None:
    scales, centre = (4.0, 0.1, 0.2), (8.0, 0.0, 0.5)
    model = EDMDenoiser(replace(TINY.network, sigma_data=scales, center=centre))
    s, c = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (scales, centre))
    sigma = torch.tensor([0.3, 2.0])
    # Before its first step the network is silent: what is left is the Gaussian posterior mean, channel by channel.
    x = c + s * torch.randn(2, 3, 16, 16, generator=generator)
    level = sigma[:, None, None, None]
    torch.testing.assert_close(model(x, sigma), c + (x - c) * s**2 / (s**2 + level**2))
    # EDM's loss of that on Gaussian data is one in every channel.
    many = c + s * torch.randn(64, 3, 16, 16, generator=generator)
    noise = torch.randn(64, 3, 16, 16, generator=generator)
    loss = denoising_loss(model, many, torch.full((64,), 0.3), noise, "edm")
    assert float(loss.detach()) == pytest.approx(1, abs=0.05)
    # Weighted channels: each alone, and their mean.
    parts = [
        denoising_loss(model, many, torch.full((64,), 0.3), noise, "edm", channel_weights=alone).detach()
        for alone in ((1, 0, 0), (0, 1, 0), (0, 0, 1), (2, 1, 1))
    ]
    torch.testing.assert_close((parts[0] + parts[1] + parts[2]) / 3, loss.detach())
    torch.testing.assert_close((2 * parts[0] + parts[1] + parts[2]) / 4, parts[3])


def test_density_and_stratification(generator: torch.Generator) -> None:
    density = SigmaDensity()
    sigma = stratified_sigma(1000, density, generator)
    assert float(sigma.min()) >= density.low
    assert float(sigma.max()) <= density.high * 1.0001
    assert float((sigma < density.split).float().mean()) == pytest.approx(density.lower_share, abs=0.002)
    below = sigma[sigma < density.split].log()
    assert float(below.mean()) == pytest.approx((np.log(density.low) + np.log(density.split)) / 2, abs=0.02)


def test_ema_and_learning_rate() -> None:
    assert ema_decay(0, 0.05) == 0
    assert 0.99 < ema_decay(10_000, 0.05) < 1
    # Karras et al. 2024: sigma_rel = 0.05 is exponent 16.97, sigma_rel = 0.10 is 6.94.
    assert ema_decay(999, 0.05) == pytest.approx((1 - 1e-3) ** 17.97, rel=1e-4)
    assert ema_decay(999, 0.10) == pytest.approx((1 - 1e-3) ** 7.94, rel=1e-4)
    assert learning_rate_factor(0.5, 10_000, 0.4, 200) == 1
    assert learning_rate_factor(0.8, 10_000, 0.4, 200) == pytest.approx(0.5)
    assert learning_rate_factor(1.0, 10_000, 0.4, 200) == 0
    assert learning_rate_factor(0.0, 0, 0.4, 200) < 0.01


def test_data_sources_agree(tmp_path: Path) -> None:
    arrays = pictures(3)
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    files = []
    for k, array in enumerate(arrays):
        Image.fromarray(array).save(folder / "sub" / f"{k}.png")
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, "JPEG", quality=100, subsampling=0)
        files.append(buffer.getvalue())
    np.savez(tmp_path / "arrays.npz", images=np.stack(arrays))
    joined = np.frombuffer(b"".join(files), dtype=np.uint8)
    np.savez(tmp_path / "jpegs.npz", jpeg=joined, offsets=np.cumsum([0, *map(len, files)]))
    for a, b, c in zip(arrays, load_pictures(folder), load_pictures(tmp_path / "arrays.npz"), strict=True):
        assert np.array_equal(a, b)
        assert np.array_equal(a, c)
    for a, b in zip(arrays, load_pictures(tmp_path / "jpegs.npz"), strict=True):
        assert np.abs(a.astype(int) - b).max() < 12
    assert load_pictures(folder, channels=1)[0].shape == (40, 40, 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "absent.npz", "no such file"),
        (lambda p: (p / "empty").mkdir() or p / "empty", "no picture"),
        (lambda p: (p / "bad.npz").write_bytes(b"no archive") and p / "bad.npz", "cannot read"),
        (lambda p: np.savez(p / "keys.npz", pictures=np.zeros(3)) or p / "keys.npz", "keys"),
        (lambda p: np.savez(p / "float.npz", images=np.zeros((1, 8, 8, 3))) or p / "float.npz", "float64"),
        (lambda p: "NoSuchDataSet", "neither a folder"),
    ],
)
def test_bad_data_is_named(make, message: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=message):
        load_pictures(make(tmp_path))


def test_crops_smaller_than_the_picture_are_padded() -> None:
    crops = random_crops([[np.full((5, 30, 3), 7, np.uint8)]], [1.0], 16, 4, np.random.default_rng(0))
    assert crops.shape == (4, 3, 16, 16)
    assert bool((crops == 7).all())


def test_sixteen_bit_ct_archives_keep_their_values() -> None:
    crops = random_crops([[np.full((20, 20, 1), 2000, np.uint16)]], [1.0], 16, 1, np.random.default_rng(0))
    assert int(crops.max()) == 2000


def test_a_trained_prior_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from invsolve.cli.main import app

    np.savez(tmp_path / "data.npz", images=np.stack(pictures(8)))
    arguments = ["train", str(tmp_path / "data.npz"), "--preset", "tiny", "--steps", "3", "-o", str(tmp_path / "mine")]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    prior = load_prior(tmp_path / "mine", "cpu")
    assert prior.card.name == "mine"
    assert prior.card.training["steps"] == 3
    assert prior.mse(0.1) == pytest.approx(0.01, rel=0.5)
    assert Image.open(tmp_path / "mine" / "denoised.png").size[0] == 7 * 40


def test_coarse_scales_give_way_where_the_picture_is_smaller_than_the_crop() -> None:
    large, small = (np.full((side, side, 3), side, np.uint8) for side in (64, 20))
    pyramid = [[large, small], [large[:32, :32], small[:10, :10] + 1]]
    crops = random_crops(pyramid, [0.0, 1.0], 16, 32, np.random.default_rng(0))
    assert set(crops.unique().tolist()) == {20, 64}
    assert set(random_crops(pyramid, [0.0, 1.0], 8, 32, np.random.default_rng(0)).unique().tolist()) == {21, 64}


def test_framing_shrinks_whole_pictures() -> None:
    ramp = np.repeat(np.arange(0, 240, 2, dtype=np.uint8)[:, None, None], 160, axis=1).repeat(3, axis=2)  # 120 x 160
    whole = shrunk(ramp, 30, 1.0)
    assert whole.shape == (30, 30, 3)
    middles = np.arange(30) * 8 + 3.0  # each covers four rows, two levels apart
    assert np.abs(whole[1:-1, :, 0] - middles[1:-1, None]).max() <= 1
    assert np.array_equal(shrunk(ramp, 30, 0.0), ramp[45:75, 65:95])  # never enlarged, nor shrunk without need
    rng = np.random.default_rng(0)
    crops = random_crops([[ramp]], [1.0], 30, 64, rng, Augmentation("mirror", framing=(0.5, 1.0)))
    spans = (crops[:, 0, -2].int() - crops[:, 0, 1].int()).float().mean(dim=1)  # 27 rows' worth of the ramp
    assert float(spans.min()) + 3 >= 27 * 4
    assert float(spans.max()) - 3 <= 27 * 8
    assert float(spans.max() - spans.min()) > 60


def test_batches_are_oblong_in_turn() -> None:
    # Red tells the row and green the column, of a picture of 2:3 and of one too small for oblong crops.
    y, x = np.mgrid[:60, :90].astype(np.uint8)
    wide, small = np.stack([y, x, 0 * x], axis=2), np.full((22, 22, 3), 250, np.uint8)
    augmentation = Augmentation("mirror", framing=(1.0, 1.0), aspects=(1.0, 1.5, 2 / 3))
    config = replace(TINY, crop=20, crop_late=20, batch=12, augmentation=augmentation, scale_odds=(1.0,))
    shapes = []
    for step in range(12):
        crops = batch_at(step, 20, config, [[small, wide]]).x0
        assert crops.ndim == 4
        shapes.append(tuple(crops.shape))
        if crops.shape[-2] == crops.shape[-1]:
            continue
        assert int(crops.max()) < 90
        first = crops[0].float()
        rows = float(first[0].mean(dim=1).diff().abs().median())
        columns = float(first[1].mean(dim=0).diff().abs().median())
        # Both axes are shrunk alike: the whole of the picture where it is as wide, as much as fits where it is not.
        assert rows == pytest.approx(columns, abs=0.1) == (3 if crops.shape[-1] == 30 else 2)
    # Batches of about as many pixels each.
    assert set(shapes) == {(12, 3, 20, 20), (8, 3, 20, 30), (8, 3, 30, 20)}
    assert batch_at(3, 20, config, [[small]]).x0.shape == (12, 3, 20, 20)


def test_oblong_crops_are_not_turned() -> None:
    for wrong in ({"orientations": "square"}, {"share": 0.5}, {"aspects": ()}, {"aspects": (9.0,)}):
        with pytest.raises(UsageError):
            Augmentation(**{"orientations": "mirror", "aspects": (1.5,), **wrong})
    with pytest.raises(InputError, match="300 x 200"):
        random_crops([pictures(2)[:1]], [1.0], (200, 300), 1, np.random.default_rng(0), Augmentation("mirror"))


def test_framing_names_pictures_it_cannot_shrink(tmp_path: Path) -> None:
    framed = replace(TINY, augmentation=Augmentation("mirror", framing=(0.5, 1.0)))
    small = np.zeros((TINY.crop - 1, 90, 3), np.uint8)
    with pytest.raises(InputError, match=rf"90 x {TINY.crop - 1}.*wanted.*{TINY.crop} pixels or more"):
        train([*pictures(4), small], framed, tmp_path, device=CPU)
    assert not (tmp_path / "checkpoint.pt").exists()
    with pytest.raises(InputError, match="uint16"):
        shrunk(np.zeros((40, 40, 1), np.uint16), 16, 1.0)


def test_sources_are_drawn_about_as_often() -> None:
    few, many = pictures(3), pictures(10)
    together = mixed([few, many])
    assert len(together) == 3 * 3 + 10
    assert [sum(p is q for q in together) for p in few] == [3, 3, 3]
    assert [sum(p is q for q in together) for p in many] == [1] * 10


def test_several_sources_from_the_command_line(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from invsolve.cli.main import app

    for name, count in (("few", 4), ("many", 12)):
        np.savez(tmp_path / f"{name}.npz", images=np.stack(pictures(count)))
    np.savez(tmp_path / "ct.npz", images=np.zeros((4, 40, 40, 3), np.uint16))
    run, sources = CliRunner().invoke, [str(tmp_path / "few.npz"), str(tmp_path / "many.npz")]
    options = ["--preset", "tiny", "--steps", "2", "--batch", "2", "-o", str(tmp_path / "mine")]
    done = run(app, ["train", *sources, *options])
    assert done.exit_code == 0
    # One of each is held out; what is repeated is counted once.
    assert "14 pictures, 2 for validation" in done.output
    assert load_prior(tmp_path / "mine", "cpu").card.data == "few.npz, many.npz"
    assert load_prior(tmp_path / "mine", "cpu").frame is None
    other = ["--preset", "tiny", "-o", str(tmp_path / "other")]
    assert isinstance(run(app, ["train", *sources, *other, "--classifier"]).exception, UsageError)
    assert isinstance(run(app, ["train", sources[0], str(tmp_path / "ct.npz"), *other]).exception, InputError)


def test_a_prior_of_whole_pictures_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from invsolve.cli.main import app
    from invsolve.training import presets

    tiny, framing = presets.PRESETS["tiny"], Augmentation("mirror", framing=(0.5, 1.0))
    framed = replace(tiny, steps=2, augmentation=framing, colours="luma first", units="(16 Y, Cb, Cr)")
    monkeypatch.setitem(presets.PRESETS, "tiny", framed)
    np.savez(tmp_path / "data.npz", images=np.stack(pictures(8)))
    done = CliRunner().invoke(app, ["train", str(tmp_path / "data.npz"), "--preset", "tiny", "-o", str(tmp_path / "a")])
    assert done.exit_code == 0
    prior = load_prior(tmp_path / "a", "cpu")
    assert (prior.frame, prior.size, prior.orientations) == (32, None, "mirror")
    assert (prior.colours, prior.card.units) == ("luma first", "(16 Y, Cb, Cr)")
    assert prior.card.training["augmentation"]["framing"] == [0.5, 1.0]
    # Validated on whole pictures, shrunk: 40 pixels to 32.
    assert Image.open(tmp_path / "a" / "denoised.png").size[0] == 7 * 32


def test_mirror_augmentation_never_turns_a_picture_upside_down() -> None:
    ramp = np.repeat(np.arange(20, dtype=np.uint8)[:, None, None], 20, axis=1)  # darker above
    rng = np.random.default_rng(0)
    mirror = random_crops([[ramp]], [1.0], 8, 32, rng, Augmentation("mirror"))
    assert bool((mirror[:, 0].int().diff(dim=1) == 1).all())
    flips = random_crops([[ramp]], [1.0], 8, 32, rng, Augmentation("flips")).int()
    assert {int(v) for v in flips[:, 0].diff(dim=1).unique()} == {-1, 1}
    assert bool((flips[:, 0].diff(dim=2) == 0).all())
    square = random_crops([[ramp]], [1.0], 8, 32, rng).int()
    assert bool((square[:, 0].diff(dim=2) != 0).any())


def test_rotation_and_zoom_keep_straight_ramps_straight_and_stay_in_range() -> None:
    y, x = np.mgrid[:64, :64]
    ramp = (500 + 10 * x + 4 * y).astype(np.uint16)[..., None]
    rng = np.random.default_rng(1)
    crops = random_crops([[ramp]], [1.0], 16, 40, rng, Augmentation("mirror", 10.0, (0.8, 1.25), 1.0))
    assert crops.dtype == torch.float32
    assert crops.shape == (40, 1, 16, 16)
    second = crops[:, 0].diff(n=2, dim=1).abs().max(), crops[:, 0].diff(n=2, dim=2).abs().max()
    assert max(map(float, second)) < 0.1 * float(np.hypot(10, 4))  # torch's cubic kernel (a = -3/4) ripples a little
    slopes = torch.hypot(crops[:, 0].diff(dim=2).mean(dim=(1, 2)), crops[:, 0].diff(dim=1).mean(dim=(1, 2)))
    plain = float(np.hypot(10, 4))
    assert float(slopes.max()) < plain / 0.8 + 0.01
    assert float(slopes.min()) > plain / 1.25 - 0.01
    assert float(slopes.std()) > 0.5
    small = random_crops([[ramp[:10, :10]]], [1.0], 16, 2, rng, Augmentation("flips", 10.0, (0.8, 1.25), 1.0))
    assert small.shape == (2, 1, 16, 16)


class Killed(BaseException):
    """Nothing runs after it, as nothing does after kill -9."""


def test_breaking_off_anywhere_leaves_the_old_prior_or_the_new_one(
    small_prior: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = load_prior(small_prior, "cpu")
    new = EDMDenoiser(old.network.config)
    card = replace(old.card, name="new")
    operations = ("replace", "rename", "link", "unlink", "fsync")
    for stop in itertools.count():
        folder = tmp_path / str(stop)
        shutil.copytree(small_prior, folder)
        calls = itertools.count()
        dead = False

        def broken(operation: Callable[..., None]) -> Callable[..., None]:
            def call(*args: object, **options: object) -> None:
                nonlocal dead
                dead = dead or next(calls) == stop  # noqa: B023 - used up within the round
                if dead:
                    raise Killed
                operation(*args, **options)

            return call

        with monkeypatch.context() as patch, contextlib.suppress(Killed):
            for name in operations:
                patch.setattr(os, name, broken(getattr(os, name)))
            save_prior(folder, new, card)
        left = load_prior(folder, "cpu")
        wanted = new if left.card.name == "new" else old.network
        for name, value in left.network.state_dict().items():
            torch.testing.assert_close(value, wanted.state_dict()[name], rtol=1e-3, atol=1e-6)
        save_prior(folder, new, card)  # a later run is not in the way of what is left of this one
        assert load_prior(folder, "cpu").card.name == "new"
        assert {path.name for path in folder.glob("[!.]*")} == {"card.json", "model.safetensors"}
        if not dead:
            break
    assert stop >= 6


def test_weights_have_the_permissions_of_other_files(tmp_path: Path, small_prior: Path) -> None:
    prior = load_prior(small_prior, "cpu")
    before = os.umask(0o022)
    try:
        save_prior(tmp_path, prior.network, prior.card)
    finally:
        os.umask(before)
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        "card.json": 0o644,
        "model.safetensors": 0o644,
    }
