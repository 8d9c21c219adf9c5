"""What a GPU changes: bfloat16's rounding, seconds of a network call and of whole tasks, and where the CPU waits for it.

python benchmarks/gpu.py --output gpu.json

The parts run in order of worth and say what they find at once; when ``--seconds`` are over, what is left is left out. The
projector's matrix is computed here (Joseph 1982), so that ASTRA need not be installed. ``--device cpu --quick`` rehearses
all of it on small pictures, but for what CUDA alone can do.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from harness import machine
from PIL import Image
from scipy.sparse import coo_matrix, csr_matrix
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from invsolve import inpaint, load_prior
from invsolve.atomic import write_files
from invsolve.ct.reconstruction import reconstruct_ct
from invsolve.ct.units import from_hounsfield
from invsolve.evaluation.metrics import psnr
from invsolve.forward_models import Geometry, SparseProjector, even_angles, even_subset
from invsolve.posterior import Posterior
from invsolve.pretrained import shipped_priors

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
CPU = torch.device("cpu")
CUDA_ONLY = "left out: needs CUDA"
WAITED = "called a synchronizing CUDA operation"

FLOAT32, TF32, BFLOAT16 = "float32", "float32 with TF32 convolutions", "bfloat16"

Call = Callable[[], object]


class Run:
    """What was asked for, and what was found so far: printed at once, kept for the table and the JSON."""

    def __init__(self, device: torch.device, quick: bool, seconds: float, output: Path | None) -> None:
        self.device, self.quick, self.output = device, quick, output
        self.end = time.monotonic() + seconds
        self.now = "start"
        self.found: dict[str, list[dict[str, Any]]] = {}
        self.table: list[tuple[str, str]] = []
        self.means: dict[str, Tensor] = {}
        self.lock = threading.Lock()
        name = torch.cuda.get_device_name(device) if self.cuda else "none"
        self.facts = {"machine": machine(), "cores": os.cpu_count(), "gpu": name, "quick": quick}
        print(self.facts, flush=True)

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()

    def add(self, **figures: Any) -> None:
        """A line of the part in hand."""
        self.found.setdefault(self.now, []).append(figures)
        print(f"[{self.left:5.1f} s left] {self.now}: {_line(figures)}", flush=True)

    def row(self, what: str, value: str) -> None:
        """A row of the table."""
        self.table.append((what, value))

    def note(self, why: str) -> None:
        """That the part in hand was left out, or ended early."""
        self.add(note=why)
        self.row(self.now, why)

    def write(self) -> None:
        """The JSON, as far as it goes."""
        if self.output:
            content = json.dumps({**self.facts, "found": self.found, "table": self.table}, indent=1)
            write_files({self.output: content.encode()})

    def finish(self) -> None:
        """The table and the JSON."""
        with self.lock:
            print(f"\n| | {self.facts['gpu']} |\n| --- | --- |")
            for what, value in list(self.table):
                print(f"| {what} | {value} |")
            sys.stdout.flush()
            self.write()

    def stop(self) -> None:
        """Time is up: whatever runs is cut off, and what was found is told."""
        try:
            self.note("cut off here: time is up")
            self.finish()
        finally:
            os._exit(0)


def _line(figures: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in figures.items())  # fmt: skip


# -- precision ------------------------------------------------------------------------------------------------------------


@contextmanager
def precision(device: torch.device, kind: str) -> Iterator[None]:
    """How the networks compute inside; TF32 only where it is asked for."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = kind == TF32
    try:
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=kind == BFLOAT16):
            yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def kinds(run: Run) -> list[str]:
    return [FLOAT32, TF32, BFLOAT16] if run.cuda else [FLOAT32, BFLOAT16]


def clean(name: str, side: int) -> Tensor:
    """Pictures (B, C, h, w) that a shipped prior knows: h and w at most ``side``."""
    if name == "ct":
        return torch.from_numpy(truth_of_ct())[None, None, :side, :side]
    picture = photograph("astronaut.png")[None]
    if name == "cifar10":
        return F.interpolate(F.unfold(picture, 128, stride=64).mT.reshape(-1, 3, 128, 128), size=32, mode="area")
    return picture[..., :side, :side]


def rounding(run: Run) -> None:
    """(a) Root mean square of what rounding changes in the estimate, over sigma and over the error of the estimate itself."""
    for name in (n for n in ("photos", "ct", "cifar10") if n in shipped_priors()):
        prior = load_prior(name, run.device)
        x0 = clean(name, 64 if run.quick else 256)
        worst: dict[str, tuple[float, float]] = {}
        for sigma, mse in prior.card.validation_mse[:: 6 if run.quick else 1]:
            noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
            x = (x0 + sigma * noise).to(run.device)
            level = torch.full((len(x),), sigma, device=run.device)
            estimates = {}
            for kind in kinds(run):
                with precision(run.device, kind):
                    estimates[kind] = prior.network(x, level).float()
            own = mse**0.5
            for kind in kinds(run)[1:]:
                rms = float((estimates[kind] - estimates[FLOAT32]).square().mean().sqrt())
                run.add(prior=name, kind=kind, sigma=sigma, over_sigma=rms / sigma, over_own_error=rms / own)
                over_sigma, over_own = worst.get(kind, (0.0, 0.0))
                worst[kind] = max(over_sigma, rms / sigma), max(over_own, rms / own)
        for kind, (over_sigma, over_own) in worst.items():
            run.row(
                f"{name}, {kind} against float32: largest rms difference over sigma, over the prior's own error",
                f"{over_sigma:.2e}, {over_own:.2e}",
            )


# -- network calls --------------------------------------------------------------------------------------------------------


def median_seconds(run: Run, call: Call, repeats: int) -> float:
    """Of ``repeats`` calls after three that do not count; by the GPU's own clock there."""
    for _ in range(1 if run.quick else 3):
        call()
    if not run.cuda:
        seconds = []
        for _ in range(repeats):
            started = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - started)
        return statistics.median(seconds)
    marks = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)]
    for before, after in marks:
        before.record()
        call()
        after.record()
    torch.cuda.synchronize()
    return statistics.median(before.elapsed_time(after) for before, after in marks) / 1000


def product(run: Run) -> None:
    """What the GPU can do at best: a product of two square matrices in bfloat16."""
    side = 256 if run.quick else 8192
    a, b = (torch.randn(side, side, device=run.device, dtype=torch.bfloat16) for _ in range(2))
    seconds = median_seconds(run, lambda: a @ b, 10)
    rate = 2 * side**3 / seconds / 1e12
    run.add(side=side, seconds=seconds, tflops=rate)
    run.row(f"product of two matrices of {side} x {side}, bfloat16", f"{seconds * 1e3:.3g} ms, {rate:.3g} TFLOP/s")


def networks(run: Run) -> Iterator[tuple[str, torch.nn.Module, tuple[Tensor, Tensor]]]:
    """Name, network, and what it is called with."""
    side = 64 if run.quick else 256
    for name, batch in (("photos", 8), ("ct", 16)):
        network = load_prior(name, run.device).network
        x = torch.rand(1 if run.quick else batch, network.config.channels, side, side, device=run.device)
        level = torch.full((len(x),), 0.5, device=run.device)
        shape = " x ".join(map(str, (len(x), side, side)))
        if hasattr(network, "expert"):
            yield f"{name}, {shape}", network.general, (x, level)
            yield f"{name}'s expert, {shape}", network.expert, (x, (level / 5).reshape(-1, 1, 1, 1))
        else:
            yield f"{name}, {shape}", network, (x, level)


def eager(run: Run) -> None:
    """(b) Seconds of a network call as PyTorch comes."""
    for name, network, arguments in networks(run):
        for kind in kinds(run):
            timed(run, name, network, arguments, kind, kind)


def compiled(run: Run, wanted: str) -> None:
    """(b) Seconds of a network call after torch.compile, and what compiling takes."""
    for name, network, arguments in networks(run):
        if not name.startswith(f"{wanted},"):
            continue
        started = time.perf_counter()
        faster = torch.compile(network, dynamic=False)
        with precision(run.device, BFLOAT16):
            difference = faster(*arguments).float() - network(*arguments).float()
        rms = float(difference.square().mean().sqrt())
        run.add(network=name, seconds_to_compile=time.perf_counter() - started, rms_difference_to_eager=rms)
        timed(run, name, faster, arguments, BFLOAT16, "bfloat16, torch.compile", counted=network)


def timed(
    run: Run,
    name: str,
    network: Callable[..., Tensor],
    arguments: tuple[Tensor, Tensor],
    kind: str,
    title: str,
    counted: Callable[..., Tensor] | None = None,
) -> None:
    """A row of seconds and TFLOP/s; the operations are counted on ``counted``, default the network itself."""
    with precision(run.device, kind):
        with FlopCounterMode(display=False) as counter:
            (counted or network)(*arguments)
        operations = counter.get_total_flops()
        seconds = median_seconds(run, lambda: network(*arguments), 2 if run.quick else 20)
    rate = operations / seconds / 1e12
    run.add(network=name, kind=title, seconds=seconds, gflop=operations / 1e9, tflops=rate)
    run.row(f"{name}, {title}", f"{seconds * 1e3:.3g} ms, {rate:.3g} TFLOP/s")


# -- whole tasks ----------------------------------------------------------------------------------------------------------


def photograph(name: str) -> Tensor:
    """(3, H, W) in [0, 1]."""
    pixels = np.asarray(Image.open(EXAMPLES / name).convert("RGB"))
    return torch.from_numpy(pixels.transpose(2, 0, 1) / np.float32(255))


def truth_of_ct() -> npt.NDArray[np.float32]:
    """(H, W), in the units of n."""
    return np.asarray(from_hounsfield(np.load(EXAMPLES / "ct-slice.npy").astype(np.float32)), dtype=np.float32)


Figures = dict[str, float]
Problem = tuple[Callable[[], Posterior], Callable[[Posterior], Figures]]
"""How a task is solved, and how its posterior is judged."""


def inpainting(run: Run, device: torch.device) -> Problem:
    """The example's scratches, with the defaults."""
    part = (slice(0, 96), slice(0, 96)) if run.quick else (slice(None), slice(None))
    truth, damaged = (photograph(n).permute(1, 2, 0).numpy()[part] for n in ("astronaut.png", "astronaut-damaged.png"))
    missing = (np.asarray(Image.open(EXAMPLES / "astronaut-mask.png")) > 127)[part]
    fewer: dict[str, Any] = {"samples": 2, "steps": 2} if run.quick else {"samples": 8}
    prior = load_prior("photos", device)

    def judge(posterior: Posterior) -> Figures:
        estimate = posterior.mean[0].permute(1, 2, 0).cpu().numpy()
        samples = posterior.samples[:, 0].permute(0, 2, 3, 1).cpu().numpy()
        return {
            "psnr": psnr(truth, estimate, data_range=1.0),
            "psnr_of_missing": psnr(truth[missing], estimate[missing], data_range=1.0),
            "known_pixels_kept": bool((samples == damaged)[:, ~missing].all()),
        }

    return lambda: inpaint(damaged, missing, prior, **fewer), judge


def joseph(geometry: Geometry) -> csr_matrix:
    """The matrix of a parallel scan: along its steeper axis every ray meets two neighbouring pixels a row, weighted by
    nearness (Joseph 1982), as ASTRA's kernel "linear" does. Values in pixel lengths, (views * detectors, H * W)."""
    rows, columns = geometry.shape
    left, _, _, top = geometry.window()
    pixel, bins = geometry.pixel_size, np.arange(geometry.detectors)
    data, lines, pixels = [], [], []
    for view, (ray_x, ray_y, middle_x, middle_y, step_x, step_y) in enumerate(geometry.vectors()):
        offset = bins - (geometry.detectors - 1) / 2
        x, y = middle_x + offset * step_x, middle_y + offset * step_y  # a point of every ray
        steep = abs(ray_y) >= abs(ray_x)
        count, across = (rows, columns) if steep else (columns, rows)
        along = np.arange(count)[:, None]
        if steep:
            position = (x + (top - (along + 0.5) * pixel - y) * ray_x / ray_y - left) / pixel - 0.5
        else:
            position = (top - y - (left + (along + 0.5) * pixel - x) * ray_y / ray_x) / pixel - 0.5
        first = np.floor(position).astype(np.int64)
        length = np.hypot(ray_x, ray_y) / max(abs(ray_x), abs(ray_y))
        for neighbour, share in ((first, 1 - (position - first)), (first + 1, position - first)):
            inside = (neighbour >= 0) & (neighbour < across) & (share > 0)
            row, column = (along, neighbour) if steep else (neighbour, along)
            data.append((length * share)[inside])
            lines.append(np.broadcast_to(view * geometry.detectors + bins, inside.shape)[inside])
            pixels.append(np.broadcast_to(row * columns + column, inside.shape)[inside])
    values, where = np.concatenate(data), (np.concatenate(lines), np.concatenate(pixels))
    shape = (geometry.views * geometry.detectors, rows * columns)
    return coo_matrix((values.astype(np.float32), where), shape=shape).tocsr()


def tomography(run: Run, device: torch.device) -> Problem:
    """The example's slice from 23 of its views, with the defaults."""
    views = 5 if run.quick else 23
    sinogram = np.load(EXAMPLES / "sinogram.npy")
    geometry = Geometry(even_angles(len(sinogram)), sinogram.shape[1], (256, 256)).subset(views)
    rows = sinogram[even_subset(len(sinogram), views)]
    operator, prior = SparseProjector(geometry, joseph(geometry), device), load_prior("ct", device)
    fewer: dict[str, Any] = {"samples": 2, "steps": 2} if run.quick else {}

    def judge(posterior: Posterior) -> Figures:
        return {"psnr": psnr(truth_of_ct(), posterior.mean[0, 0].cpu().numpy(), data_range=1.0)}

    return lambda: reconstruct_ct(rows, geometry, prior, operator=operator, **fewer), judge


TASKS = {"inpaint": inpainting, "ct": tomography}


def task(run: Run, name: str, device: torch.device) -> None:
    """(c) Seconds and accuracy of a whole task, its prior and operator being there; on a GPU twice, since the first run
    alone chooses kernels."""
    solve, judge = TASKS[name](run, device)
    seconds, posteriors = [], []
    for _ in range(2 if device.type == "cuda" else 1):
        started = time.perf_counter()
        posteriors.append(solve())
        mean = posteriors[0].mean.cpu()  # waits for the GPU
        seconds.append(time.perf_counter() - started)
    figures = judge(posteriors[0])
    if len(posteriors) > 1:
        figures["repeats_exactly"] = torch.equal(posteriors[0].samples, posteriors[1].samples)
    if name in run.means:
        figures["rms_between_means"] = float((mean - run.means[name]).square().mean().sqrt())
    run.means[name] = mean
    run.add(task=name, device=device.type, seconds=seconds, calls=posteriors[0].network_calls, **figures)
    told = ", then ".join(f"{t:.2f} s" for t in seconds)
    run.row(f"{name} on {device.type}, {len(posteriors[0].samples)} samples", f"{told}; {_line(figures)}")


# -- waiting --------------------------------------------------------------------------------------------------------------


def waits(call: Call, cuda: bool) -> Counter[str]:
    """How often the CPU waited for the GPU in ``call``, by the innermost line of ours that made it."""
    found: Counter[str] = Counter()

    def shown(message: Warning | str, *_: Any, **__: Any) -> None:
        if WAITED in str(message):
            found[_place()] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = shown
        if cuda:
            torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            if cuda:
                torch.cuda.set_sync_debug_mode("default")
    return found


def _place() -> str:
    """The innermost line of the package that is being run."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename).resolve()
        if path.is_relative_to(ROOT) and path != Path(__file__).resolve():
            return f"{path.relative_to(ROOT)}:{frame.lineno} {(frame.line or '')[:80]}"
    return "elsewhere"


def waiting(run: Run, name: str) -> None:
    """(d) Where a task waits for the GPU."""
    if not run.cuda:
        run.note(CUDA_ONLY)
        return
    posteriors: list[Posterior] = []
    solve, _ = TASKS[name](run, run.device)
    found = waits(lambda: posteriors.append(solve()), run.cuda)
    total, calls = sum(found.values()), posteriors[0].network_calls
    run.add(task=name, waits=total, network_calls=calls)
    for line, count in found.most_common(12):
        run.add(count=count, line=line)
    run.row(f"{name}: waits of the CPU for the GPU, network calls of a picture", f"{total}, {calls}")
    for line, count in found.most_common(4):
        run.row(f"{name} waits at `{line}`", str(count))


# -- all of it ------------------------------------------------------------------------------------------------------------


def parts() -> list[tuple[str, Callable[[Run], None]]]:
    """All parts in order of worth."""

    def beside(name: str) -> Callable[[Run], None]:
        return lambda run: task(run, name, CPU) if run.cuda else run.note("left out: the same as above")

    return [
        ("rounding", rounding),
        ("matrix product", product),
        ("network calls", eager),
        ("inpainting", lambda run: task(run, "inpaint", run.device)),
        ("tomography", lambda run: task(run, "ct", run.device)),
        ("waiting in inpainting", lambda run: waiting(run, "inpaint")),
        ("waiting in tomography", lambda run: waiting(run, "ct")),
        ("inpainting on the CPU", beside("inpaint")),
        ("compiled photos", lambda run: compiled(run, "photos")),
        ("tomography on the CPU", beside("ct")),
        ("compiled ct", lambda run: compiled(run, "ct")),
    ]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=40.0, help="when they are over, what is left is left out")
    parser.add_argument("--quick", action="store_true", help="small pictures and few steps, to rehearse")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--output", type=Path, metavar="FILE", help="every figure, as JSON")
    chosen = parser.parse_args(argv)
    if chosen.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("this PyTorch sees no CUDA device; --device cpu --quick rehearses")
    run = Run(torch.device(chosen.device), chosen.quick, chosen.seconds, chosen.output)
    run.write()  # a place that cannot be written fails now
    alarm = threading.Timer(chosen.seconds, run.stop)
    alarm.daemon = True
    alarm.start()
    failed = False
    for name, part in parts():
        run.now = name
        if chosen.no_compile and name.startswith("compiled"):
            run.note("left out: --no-compile")
            continue
        try:
            part(run)
        except Exception as error:  # noqa: BLE001 - the figures of the other parts are worth having
            failed = True
            traceback.print_exc()
            run.note(f"failed: {type(error).__name__}: {error}".splitlines()[0])
        run.write()
    alarm.cancel()
    run.finish()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
