"""``invsolve check``: an operator or a noise of your own against the laws that the samplers count on."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from invsolve.cli import options
from invsolve.cli.console import Verbosity, clean_stdout, say
from invsolve.cli.results import json_text
from invsolve.cli.uncertainty import figure
from invsolve.errors import ExitCode, InputError, UsageError
from invsolve.named import look_up, nearest, offered, parse_call
from invsolve.typed import brief

if TYPE_CHECKING:
    from invsolve.verification.laws import Finding

MOST_VALUES = 2**22
"""Of the picture an operator is checked on."""

Shape = tuple[int, ...]


def check(
    target: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:NAME|NAME",
            help="An operator or a noise: a class, a function that makes one, or one that is made; or a name that "
            "`invsolve solve` knows.",
        ),
    ],
    shape: Annotated[
        str,
        typer.Option(metavar="C,H,W", help="Shape of the picture an operator is made for.", rich_help_panel="Problem"),
    ] = "3,8,8",
    args: Annotated[
        str,
        typer.Option(
            metavar="K=V,...", help="Its arguments, such as 'sigma=2.0, factor=2'.", rich_help_panel="Problem"
        ),
    ] = "",
    as_json: options.Json = False,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Check an operator or a noise of your own: which law fails, and by how much.

    Of a linear operator: linearity, adjoint, norm, proximal map, pseudo-inverse, float32 and float64, batches. Of a noise: whether
    the gradient is that of the log-likelihood, and whether it simulates what it says. Then draws are compared with a posterior
    that is known. Exit code 1 if anything fails.

    Examples:

      invsolve check mypackage:MyOperator --shape 3,8,8 --args 'strength=0.3'

      invsolve check mypackage.noises:MyNoise --args 'scale=0.1'

      invsolve check blur --args 'sigma=1.5'
    """
    Verbosity.level = -1 if quiet else verbose
    size, arguments = parse_shape(shape), parse_arguments(args)
    with clean_stdout():
        kind, findings = judged(target, size, arguments, device)
    if as_json:
        typer.echo(json_text({"target": target, "kind": kind, "laws": [as_plain(one) for one in findings]}))
    elif not quiet:
        print_findings(f"{target}, {kind}", findings)
    failed = [one for one in findings if not one.passed]
    if failed:
        say(f"{len(failed)} of {len(findings)} fail: {', '.join(one.law for one in failed)}", level=-1)
        raise typer.Exit(int(ExitCode.FAILED))


def judged(target: str, shape: Shape, arguments: dict[str, Any], device: str) -> tuple[str, list[Finding]]:
    """What the target is, and what was found."""
    from invsolve.cli.own import blame
    from invsolve.forward_models import LinearOperator
    from invsolve.pretrained.loading import resolve_device
    from invsolve.verification.certificates import certify_noise, certify_operator, small_enough
    from invsolve.verification.laws import Finding, check_map, check_operator
    from invsolve.verification.noise_laws import check_noise

    def certified(certify: Callable[[Any], list[Finding]], made: Any) -> list[Finding]:
        try:
            return certify(made)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - somebody's own code may raise anything, and that is a finding
            return [Finding("posterior", math.inf, 0.0, f"it raised {type(error).__name__}: {error}")]

    where = resolve_device(device)
    with blame({target: "code"}):
        made = make(target, shape, arguments)
    if isinstance(made, LinearOperator):
        if math.prod(made.input_shape) > MOST_VALUES:
            raise UsageError(f"an operator of {math.prod(made.input_shape)} values", hint="give a smaller --shape")
        found = check_operator(made, where)
        if small_enough(made):
            return f"operator {made!r}", [*found, *certified(certify_operator, made)]
        say("too large to compare draws with a known posterior: give a --shape of at most 600 values, such as 3,8,8")
        return f"operator {made!r}", found
    if is_noise(made):
        return "noise", [*check_noise(made), *certified(certify_noise, made)]
    if callable(made):
        return f"map that is not linear, of pictures {shape}", check_map(made, shape)
    raise InputError(f"{target} is a {type(made).__name__}", hint="wanted a LinearOperator, a noise model or a map")


def make(target: str, shape: Shape, arguments: dict[str, Any]) -> Any:
    """The operator, noise or map that ``target`` names, made with ``arguments``."""
    from invsolve.cli.own import load_object
    from invsolve.cli.problem_parts import with_files
    from invsolve.forward_models import NOISES, OPERATORS, LinearOperator
    from invsolve.named import bind

    if ":" not in target:
        known: dict[str, dict[str, Any]] = {"operator": {**OPERATORS}, "noise": {**NOISES}}
        kinds = [kind for kind in known if target in known[kind] or target in offered(kind)]
        if not kinds:
            names = [name for kind in known for name in (*known[kind], *offered(kind))]
            raise UsageError(
                f"{brief(target)} is neither an operator nor a noise",
                hint=f"{nearest(target, names)}wanted module:name, or one of {', '.join(dict.fromkeys(names))}",
            )
        kind = kinds[0]
        read = with_files(look_up(kind, target, known[kind]), target, arguments, Path())
        made = bind(kind, target, known[kind], read, positional=int(kind == "operator"))
        return made(shape) if kind == "operator" else made()
    found = load_object(target)
    if isinstance(found, LinearOperator) or (is_noise(found) and not inspect.isclass(found)):
        if arguments:
            raise UsageError(f"{target} is made already", hint="give --args to a class or a function only")
        return found
    if not callable(found) or inspect.isbuiltin(found):
        return found
    read = with_files(found, target, arguments, Path())
    return called(target, found, shape, read)


def called(target: str, found: Any, shape: Shape, arguments: dict[str, Any]) -> Any:
    """``found`` called with what it takes: the shape once; or that and the shape of what it measures, as
    :class:`LinearOperator` itself; or nothing."""
    signature = inspect.signature(found)
    noise = inspect.isclass(found) and is_noise(found)
    twice = [(shape, shape)] if "output_shape" in signature.parameters else []
    for given in [()] if noise else [(shape,), *twice, ()]:
        try:
            signature.bind(*given, **arguments)
        except TypeError:
            continue
        made = found(*given, **arguments)
        if given != (shape, shape):
            return made
        measured = measured_shape(made)
        return made if measured in (None, shape) else found(shape, measured, **arguments)
    takes = "its keywords" if noise else "the shape (C, H, W) and its keywords"
    raise UsageError(f"{target}{signature} cannot be called with {takes}", hint="give the missing ones with --args")


def measured_shape(operator: Any) -> Shape | None:
    """What an operator makes of a picture, whatever it was told; None where it raises, which is a finding for later."""
    import torch

    try:
        return tuple(operator._apply(torch.zeros(1, *operator.input_shape)).shape[1:])
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - somebody's own code may raise anything
        return None


def is_noise(made: Any) -> bool:
    """Whether it has the three methods of a noise model."""
    return all(
        callable(getattr(made, name, None)) for name in ("log_likelihood", "log_likelihood_gradient", "simulate")
    )


def parse_shape(text: str) -> Shape:
    """``3,8,8`` as numbers."""
    try:
        shape = tuple(int(part) for part in text.split(","))
    except ValueError:
        shape = ()
    if len(shape) != 3 or not all(0 < n <= MOST_VALUES for n in shape):
        raise UsageError(f"--shape {brief(text)}", hint="wanted channels,height,width, such as 3,8,8")
    if math.prod(shape) > MOST_VALUES:
        raise UsageError(f"--shape {text} has {math.prod(shape)} values", hint=f"wanted at most {MOST_VALUES}")
    return shape


def parse_arguments(text: str) -> dict[str, Any]:
    """``sigma=2.0, factor=2`` as keywords; nothing is run."""
    try:
        return parse_call(f"arguments({text})")[1]
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        reason = str(error).splitlines()[0] if str(error) else "too deeply nested"
        raise UsageError(
            f"--args {brief(text)}: {reason}", hint="wanted keywords, such as 'sigma=2.0, factor=2'"
        ) from None


def as_plain(finding: Finding) -> dict[str, Any]:
    """A finding for JSON; errors that are infinite or undefined become null."""
    return {
        "law": finding.law, "error": figure(finding.error), "tolerance": figure(finding.tolerance),
        "passed": finding.passed, "meaning": finding.meaning,
    }  # fmt: skip


def print_findings(title: str, findings: list[Finding]) -> None:
    """The table on stdout, one row per law."""
    table = Table("law", "error", "tolerance", "", "what the error is", title=title, title_justify="left")
    for column in table.columns[1:3]:
        column.justify = "right"
    for one in findings:
        table.add_row(
            one.law, f"{one.error:.2g}", f"{one.tolerance:.2g}", "PASS" if one.passed else "FAIL", one.meaning
        )
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False, markup=False)
    with console.capture() as shown:
        console.print(table)
    sys.stdout.write(shown.get())
