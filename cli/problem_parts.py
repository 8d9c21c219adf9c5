"""From what a problem file names to operators, noises and measurements; and the other way round, measurements made of a truth."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from invsolve.cli.console import say
from invsolve.cli.ct_files import ENDINGS, npy_bytes, read_array
from invsolve.cli.files import check_memory, encode_picture, luma, read_picture
from invsolve.cli.own import blame
from invsolve.cli.problem import Block, Named, ProblemFile
from invsolve.errors import InputError, InvsolveError, UsageError
from invsolve.forward_models import (
    NOISES,
    OPERATORS,
    ForwardModel,
    GaussianNoise,
    LinearOperator,
    NoiseModel,
    compose,
    find_operator,
    make_noise,
    output_shape,
)
from invsolve.forward_models.catalogue import file_arguments
from invsolve.forward_models.geometry import Geometry
from invsolve.forward_models.operator import Shape
from invsolve.forward_models.stacked import Map
from invsolve.named import look_up
from invsolve.pictures import channels_last, to_pixels, to_unit
from invsolve.tasks.kspace_files import read_numbers
from invsolve.tasks.measured import Measurement
from invsolve.tasks.restoration import ROUNDING, planes

if TYPE_CHECKING:
    from invsolve.models.score_model import ScoreModel

SIMULATED = (".npy", ".png")
"""Endings of measurements that can be made."""


class Values(NamedTuple):
    """A measurement file's content."""

    array: np.ndarray  # real or complex; of a picture (C, H, W) in [0, 1]
    rounded: bool  # to 8 bits


def read_values(path: Path, what: str = "measurement") -> Values:
    """A measurement: ``.npy`` (real or complex), ``.npz``, ``.tif``, or a picture."""
    if path.suffix.lower() == ".npy":
        array = read_numbers(path, what)
        bad = int((~np.isfinite(array)).sum())
        if bad:
            raise InputError(f"{path} has {bad} values that are NaN or infinite", hint="mask them, and set them to 0")
        return Values(array, rounded=False)
    if path.suffix.lower() in ENDINGS:
        return Values(read_array(path, what), rounded=False)
    pixels = read_picture(path, what)
    return Values(planes(to_unit(pixels))[0].numpy(), rounded=pixels.dtype == np.uint8)


def picture_shape(problem: ProblemFile, prior: ScoreModel, values: list[Values]) -> Shape:
    """(C, H, W) of the picture that is looked for: of the file's size, else of the first measurement's."""
    size = problem.size
    if size is None:
        array = values[0].array
        if array.ndim < 2:
            raise InputError(
                f"{problem.path}: the picture's size is not known, as {problem.blocks[0].file} has shape {array.shape}",
                hint="wanted [picture] with size = [width, height]",
            )
        size = (array.shape[-2], array.shape[-1])
    check_memory(problem.path, size[1], size[0])
    return (prior.channels, *size)


def read_measurements(
    problem: ProblemFile, values: list[Values], shape: Shape, device: torch.device
) -> list[Measurement]:
    """Everything that was measured, checked against what the operators give.

    Raises
    ------
    InputError : operators, noises or files that do not go together; the message names the place in the file.
    """
    found = []
    for block, one in zip(problem.blocks, values, strict=True):
        model = forward_model(problem, block, shape, device)
        y = _shaped(block, one.array, output_shape(model.operator, shape))
        if one.rounded and isinstance(model.noise, GaussianNoise) and model.noise.sigma < ROUNDING:
            say(f"{block.name}: {block.file.name} is rounded to 8 bits, taken as noise of {ROUNDING:.4f}")
            model = ForwardModel(model.operator, GaussianNoise(ROUNDING))
        found.append(Measurement(block.name, model, y))
    return found


def forward_model(problem: ProblemFile, block: Block, shape: Shape, device: torch.device) -> ForwardModel:
    """Operators, in the order they are applied, and noise."""
    maps: list[Map] = []
    here = shape
    for place, named in enumerate(block.operators, 1):
        where = f"{problem.path}: {block.name}, operator {place}"
        made = _made(where, partial(make_operator, named, problem.base, here, device))
        if not callable(made):
            raise InputError(f"{where}: {named.type} is a {type(made).__name__}", hint="wanted an operator")
        if isinstance(made, LinearOperator) and made.input_shape != here:
            raise InputError(
                f"{where}: it takes {made.input_shape}, what comes to it is {here}", hint="make them alike"
            )
        maps.append(made)
        here = _made(where, partial(output_shape, made, here))
    noise = _made(f"{problem.path}: {block.name}, noise", partial(make_named_noise, block.noise, problem.base))
    identity = find_operator("identity")(shape)
    return ForwardModel(compose(*(maps or [identity])), noise)


def make_operator(named: Named, base: Path, shape: Shape, device: torch.device) -> Map:
    """One operator for pictures of ``shape``."""
    arguments = read_arguments("operator", named, base)
    maker = find_operator(named.type, arguments, device)
    if named.type in OPERATORS:
        return maker(shape)
    with blame({named.type: "operator"}):
        return maker(shape)


def make_named_noise(named: Named, base: Path) -> NoiseModel:
    """One noise model."""
    arguments = read_arguments("noise", named, base)
    if named.type in NOISES:
        return make_noise(named.type, arguments)
    with blame({named.type: "noise"}):
        return make_noise(named.type, arguments)


def read_arguments(kind: str, named: Named, base: Path) -> dict[str, Any]:
    """The arguments of a named operator or noise, with the content of files in the place of their names."""
    known: dict[str, Any] = {**(OPERATORS if kind == "operator" else NOISES)}
    return with_files(look_up(kind, named.type, known), f"{kind} {named.type}", named.arguments, base)


def with_files(maker: Any, what: str, arguments: dict[str, Any], base: Path) -> dict[str, Any]:
    """``arguments`` of ``maker``, with the content of files in the place of their names."""
    read = dict(arguments)
    for name, wanted in file_arguments(maker).items():
        if name not in read:
            continue
        if not isinstance(read[name], str):
            raise UsageError(f"{what}: {name} is {read[name]!r}", hint="wanted the name of a file")
        path = base / read[name]
        read[name] = Geometry.read(path) if wanted is Geometry else read_tensor(path, f"{what}'s {name}")
    return read


def read_tensor(path: Path, what: str) -> Tensor:
    """Numbers as a tensor: an array as it is, a picture as its grey values (H, W) in [0, 1]."""
    if path.suffix.lower() == ".npy":
        array = read_numbers(path, what)
        return torch.from_numpy(array if array.dtype.kind == "c" else array.astype(np.float32))
    if path.suffix.lower() in ENDINGS:
        return torch.from_numpy(read_array(path, what).astype(np.float32))
    return torch.from_numpy(to_unit(luma(read_picture(path, what))))


def read_whole(path: Path, channels: int, what: str) -> Tensor:
    """A picture (1, C, H, W) in the prior's units, from a picture file or an array: a truth or a start.

    Grey pictures count as colour pictures without colours, colour pictures as their luma, as the prior asks.
    """
    array = read_values(path, what).array
    if array.dtype.kind == "c":
        raise InputError(f"{path} holds complex values", hint=f"wanted real numbers, the {what}")
    x = torch.from_numpy(array.astype(np.float32))
    x = x[None] if x.ndim == 2 else x
    if x.ndim == 3 and (len(x), channels) == (1, 3):
        x = x.expand(3, -1, -1)
    elif x.ndim == 3 and (len(x), channels) == (3, 1):
        x = find_operator("grayscale")((3, *x.shape[1:]))(x[None])[0]
    if x.ndim != 3 or len(x) != channels:
        raise InputError(f"{path} has shape {array.shape}", hint=f"wanted ({channels}, height, width), the {what}")
    return x[None].contiguous()


def simulated(
    problem: ProblemFile, truth: Tensor, seed: int, facts: dict[str, Any], device: torch.device
) -> dict[Path, bytes]:
    """The measurement files of a true picture (1, C, H, W): each with its own noise, all from one seed."""
    files: dict[Path, bytes] = {}
    generator = torch.Generator().manual_seed(seed)
    for block in problem.blocks:
        if block.file.suffix.lower() not in SIMULATED:
            raise InputError(
                f"{block.file} cannot be made", hint="name a measurement .npy, or .png where it is a picture"
            )
        if block.file in files:
            raise InputError(f"{block.file} is named twice", hint="give every measurement a file of its own")
        model = forward_model(problem, block, tuple(truth.shape[1:]), device)
        with blame({block.noise.type: "noise"} if block.noise.type not in NOISES else {}), torch.no_grad():
            y = model.simulate(truth.to(device), generator)[0].cpu()
        if block.file.suffix.lower() == ".npy":
            files[block.file] = npy_bytes(y.numpy())
            continue
        if y.ndim != 3 or len(y) not in (1, 3):
            raise InputError(f"{block.name} has shape {tuple(y.shape)}: no picture", hint="name its file .npy")
        beyond = float(((y < 0) | (y > 1)).float().mean())
        say(f"{block.file.name} is rounded to 8 bits" + (f", {beyond:.1%} of its values cut off" if beyond else ""))
        files[block.file] = encode_picture(to_pixels(channels_last(y)), block.file, facts)
    return files


def _made(where: str, make: partial[Any]) -> Any:
    """What ``make`` makes; its errors say where in the file."""
    try:
        return make()
    except InvsolveError as error:
        raise InputError(f"{where}: {error.message}", hint=error.hint) from error
    except (RuntimeError, IndexError, TypeError) as error:  # a map tried on a picture of another shape
        reason = str(error).splitlines()[0]
        raise InputError(f"{where}: {reason}", hint="it does not take a measurement of such a shape") from error


def _shaped(block: Block, array: np.ndarray, wanted: Shape) -> Tensor:
    """(1, *wanted): axes of length 1 may be missing, and complex values stand for pairs of real and imaginary part."""
    real = array
    if array.dtype.kind == "c":
        planes_first = (
            np.concatenate([array.real, array.imag]) if array.ndim == 3 else np.stack([array.real, array.imag])
        )
        pairs = np.stack([array.real, array.imag], axis=-3)
        real = pairs if _squeezed(pairs.shape) == _squeezed(wanted) else planes_first
    if _squeezed(real.shape) != _squeezed(wanted):
        raise InputError(
            f"{block.name}: {block.file} has shape {array.shape}, its operators give {wanted}",
            hint="correct the operators, or say [picture] with size = [width, height]",
        )
    return torch.from_numpy(np.ascontiguousarray(real, dtype=np.float32)).reshape(1, *wanted)


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for n in shape if n != 1)
