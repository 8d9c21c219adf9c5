"""``invsolve doctor``: whether a run would work on this machine, how fast, and what to do about it."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import typer

from invsolve.cli import options
from invsolve.cli.console import Verbosity, clean_stdout
from invsolve.cli.results import json_text
from invsolve.errors import ExitCode

LITTLE_MEMORY = 2 * 2**30
"""Bytes of memory that a picture of some megapixels, or a slice with eight samples, takes."""

LITTLE_DISK = 2**28

SLOW_SHARE = 0.1
"""Of a matrix product's speed: the network reaches 0.2 to 0.5 where nothing is in its way."""

MB = 1e6

EXTRA = "pip install 'invsolve["
NOT_INSTALLED = "unknown: invsolve is run from its source"


class Finding(NamedTuple):
    """What is wrong or slow."""

    kind: str  # "wrong": a run would fail; "slow"; "note": only some things are missing
    what: str
    way_out: str


def doctor(
    as_json: options.Json = False,
    device: options.Device = "auto",
    verbose: options.Verbose = 0,
) -> None:
    """Look at this machine: versions, device, memory, folders, speed; what is wrong or slow, and the way out.

    Takes some seconds. Exit code 0 if a run would work, 4 if not.

    Examples:

      invsolve doctor

      invsolve doctor --json
    """
    Verbosity.level = verbose
    with clean_stdout():
        from invsolve.cli.machine import examine

        facts = examine(device)
    findings = diagnose(facts)
    if as_json:
        sys.stdout.write(json_text({**facts, "findings": [one._asdict() for one in findings]}) + "\n")
    else:
        sys.stdout.write("\n".join([*described(facts), "", *advice(findings)]) + "\n")
    if any(one.kind == "wrong" for one in findings):
        raise typer.Exit(int(ExitCode.MODEL))


def diagnose(facts: dict[str, Any]) -> list[Finding]:
    """What is wrong first, then what is slow, then what is only missing."""
    found = [*_wrong(facts), *_slow(facts), *_notes(facts)]
    order = ("wrong", "slow", "note")
    return sorted(found, key=lambda one: order.index(one.kind))


def _wrong(facts: dict[str, Any]) -> list[Finding]:
    found = []
    network = facts["network"]
    if "error" in network:
        found.append(Finding("wrong", network["error"], network["hint"]))
    for name, version in facts["packages"]["needed"].items():
        if version is None:
            found.append(Finding("wrong", f"{name} is not installed", f"pip install {name}"))
    for name, wanted in facts["too_old"].items():
        have = facts["packages"]["needed"][name]
        found.append(Finding("wrong", f"{name} is {have}, wanted {wanted}", f"pip install '{name}{wanted}'"))
    if not facts["astra"]["works"] and facts["packages"]["needed"].get("astra-toolbox") is not None:
        found.append(Finding("wrong", f"ASTRA: {facts['astra']['error']}", "reinstall astra-toolbox; only ct needs it"))
    return found


def _slow(facts: dict[str, Any]) -> list[Finding]:
    found, processor, accelerator = [], facts["processor"], facts["accelerator"]
    on_cpu = facts["network"].get("device") == "cpu"
    if on_cpu and processor["threads"] < processor["cores"]:
        what = f"{processor['threads']} of {processor['cores']} cores are used"
        limited = processor["OMP_NUM_THREADS"] is not None
        way = "unset OMP_NUM_THREADS" if limited else "set OMP_NUM_THREADS to their number"
        found.append(Finding("slow", what, f"{way}, unless others need them"))
    if processor["load"] is not None and processor["load"] > 1.5 * processor["cores"]:
        what = f"other programs run here: a load of {processor['load']:g} on {processor['cores']} cores"
        found.append(Finding("slow", what, "wait for them, or expect several times the seconds"))
    if on_cpu and processor["instructions"] in ("DEFAULT", "NO AVX"):
        found.append(
            Finding("slow", "PyTorch found no AVX2 here", "run on a newer processor, or install another build")
        )
    if on_cpu and accelerator["gpus"]:
        found.append(Finding("slow", "the GPU is not used", "--device cuda, or unset INVSOLVE_DEVICE"))
    if accelerator["driver"] and not accelerator["gpus"]:
        built = accelerator["torch_cuda"]
        reason = f"was built for CUDA {built}, newer than the driver" if built else "was built without CUDA"
        found.append(
            Finding(
                "slow", f"there is a GPU's driver, but PyTorch sees no GPU: it {reason}", "see pytorch.org/get-started"
            )
        )
    memory = facts["memory_free_bytes"]
    if memory is not None and memory < LITTLE_MEMORY:
        found.append(
            Finding("slow", f"{memory / 1e9:.1f} GB of memory are free", "close other programs; give small pictures")
        )
    share = facts["network"].get("share")
    if share is not None and share < SLOW_SHARE:
        what = f"the network reaches {share:.0%} of the speed of a matrix product"
        found.append(Finding("slow", what, "other programs may be in the way; run again when they are done"))
    return found


def _notes(facts: dict[str, Any]) -> list[Finding]:
    found = []
    for name, what in (("cache", "the cache"), ("models", "the folder of imported models"), ("here", "this folder")):
        where = facts[name]
        variable = {"cache": "set INVSOLVE_CACHE", "models": "set INVSOLVE_MODELS", "here": "use -o"}[name]
        if not where["writable"]:
            found.append(Finding("note", f"{what}, {where['path']}, cannot be written", f"{variable} to name another"))
        elif where["free_bytes"] < LITTLE_DISK:
            found.append(
                Finding(
                    "note", f"{what}, {where['path']}, has {where['free_bytes'] / MB:.0f} MB left", "free some space"
                )
            )
    if facts["accelerator"]["gpus"] and facts["astra"]["works"] and not facts["astra"]["cuda"]:
        found.append(
            Finding(
                "note",
                "ASTRA sees no GPU: only scans of more than 200 million matrix values need it",
                "conda install -c astra-toolbox astra-toolbox",
            )
        )
    for extra, members in facts["packages"].items():
        missing = [name for name, version in members.items() if version is None]
        if extra != "needed" and missing:
            found.append(Finding("note", f"{extra}: {', '.join(missing)} not installed", f"{EXTRA}{extra}]'"))
    return found


def described(facts: dict[str, Any]) -> list[str]:
    """Lines to read."""
    versions, processor, accelerator, network = (facts[k] for k in ("versions", "processor", "accelerator", "network"))
    needed = facts["packages"]["needed"]
    kinds = {True: "yes", False: "no", None: "unknown"}
    gpus = [
        f"{one['name']}, {one['free_bytes'] / 1e9:.1f} of {one['bytes'] / 1e9:.1f} GB free"
        for one in accelerator["gpus"]
    ]
    memory = facts["memory_free_bytes"]
    extras = [
        f"{name} {'yes' if all(members.values()) else 'no'}"
        for name, members in facts["packages"].items()
        if name != "needed"
    ]
    built = f"for CUDA {accelerator['torch_cuda']}" if accelerator["torch_cuda"] else "without CUDA"
    rows = {
        "invsolve": f"{versions['invsolve']}, Python {versions['python']}, {versions['system']}",
        "packages": ", ".join(f"{name} {version or 'missing'}" for name, version in needed.items()) or NOT_INSTALLED,
        "extras": ", ".join(extras) or NOT_INSTALLED,
        "device": network.get("device", "none"),
        "GPU": "; ".join(gpus) or f"none (PyTorch built {built})",
        "processor": f"{processor['machine']}, {processor['threads']} threads on {processor['cores']} cores, "
        f"load {processor['load']}; {processor['instructions']}, AVX512-BF16 {kinds[processor['avx512_bf16']]}, "
        f"AMX {kinds[processor['amx']]}",
        "ASTRA": f"works, CUDA {kinds[facts['astra']['cuda']]}" if facts["astra"]["works"] else facts["astra"]["error"],
        "memory": "unknown" if memory is None else f"{memory / 1e9:.1f} GB free",
        "cache": sized(facts["cache"]),
        "models": sized(facts["models"]),
        "here": f"{facts['here']['path']}, {facts['here']['free_bytes'] / 1e9:.1f} GB free",
    }
    if "share" in network:
        side = network["picture"][0]
        rows["speed"] = (
            f"{network['call_seconds']:.3g} s a network call of {side} x {side} pixels: {network['network_gflops']:g} "
            f"GFLOP/s, {network['share']:.0%} of a matrix product's {network['matrix_product_gflops']:g} ({network['type']})"
        )
    return [f"{name:>10}  {text}" for name, text in rows.items()]


def sized(where: dict[str, Any]) -> str:
    """A folder in words."""
    if not where["exists"]:
        return f"{where['path']}, not there yet"
    return f"{where['path']}, {where['files']} files, {where['bytes'] / MB:.1f} MB"


def advice(findings: list[Finding]) -> list[str]:
    """What was found, and whether a run would work; extras, which no run needs unless it says so, in one line together."""
    extras = [one.what.split(":")[0] for one in findings if one.way_out.startswith(EXTRA)]
    lines = [f"{one.kind}: {one.what}\n    {one.way_out}" for one in findings if not one.way_out.startswith(EXTRA)]
    if extras:
        lines.append(
            f"note: not installed, and not needed by most commands; those that do say so: {', '.join(extras)}\n"
            f"    {EXTRA}{extras[0]}]', and so on"
        )
    wrong = sum(one.kind == "wrong" for one in findings)
    return [*lines, f"{wrong} thing{'s' * (wrong > 1)} to mend before a run works" if wrong else "a run would work"]
