"""Commands over several pictures: each file of a list, a folder or a glob, with what goes with it, into one folder.

A command's function takes one picture. :func:`over_pictures` makes of it a command that takes many, by way of
:func:`invsolve.folders.run_folder`, and leaves one picture alone what it was.
"""

from __future__ import annotations

import copy
import functools
import glob
import inspect
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from invsolve._version import __version__
from invsolve.cli.budget import note_asked
from invsolve.cli.companions import MATCHED, as_given, by_stem, is_word, matching
from invsolve.cli.console import Verbosity, clean_stdout, one_line, report, say
from invsolve.cli.dry_run import duration
from invsolve.cli.files import COMMAND, Folder
from invsolve.cli.formats import ENDINGS, PICTURES
from invsolve.cli.options import Quality
from invsolve.cli.pipeline import prior_of
from invsolve.errors import PicturesError, UsageError
from invsolve.finding import Picture, find_pictures
from invsolve.folders import Outcome, Step, run_folder, sha256_of
from invsolve.manifests import Shard, manifest_paths

SAID = frozenset(
    [
        "output",
        "force",
        "as_json",
        "quiet",
        "verbose",
        "device",
        "fail_fast",
        "shard",
        "diagnostics",
        "report",
        "dry_run",
        "config",
        "show_config",
    ]
)
"""Options that say where, how and how loud: the result is the same, and so is what it says of the command that made it."""

ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        show_default=False,
        rich_help_panel="Run",
        help="Of several pictures the I-th of N shares, from 1/N to N/N; in a SLURM array job by default the task's own.",
    ),
]
FailFast = Annotated[
    bool,
    typer.Option("--fail-fast", rich_help_panel="Run", help="Of several pictures: stop at the first that fails."),
]


@dataclass(frozen=True)
class Many:
    """What a command over pictures is made of.

    Parameters
    ----------
    command : works on one picture, its first argument, and returns the files that it wrote.
    argument : the name of that argument.
    beside : options that name a file, or a folder with one of the same stem for each picture, which the result depends on.
    endings : of the files that are taken from a folder.
    """

    command: Callable[..., list[Path]]
    argument: str
    beside: tuple[str, ...]
    endings: frozenset[str]

    def task(self, options: Mapping[str, Any]) -> str:
        return "scratches" if options.get("scratches") else self.command.__name__

    def companions(self, picture: Picture, options: Mapping[str, Any]) -> dict[str, Path]:
        """The files that go with a picture, by the options that name them or their folder.

        Raises
        ------
        InputError : there is none in the folder, or there are two.
        """
        named = {name: options.get(name) for name in (*self.beside, *MATCHED)}
        return {
            name: matching(Path(given), picture, name)
            for name, given in named.items()
            if given is not None and not is_word(given)
        }

    def settings(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """What decides on the results beside the pictures; a file by its content, a prior by its weights."""
        found: dict[str, Any] = {"task": self.task(options), "version": __version__}
        for name, value in options.items():
            if value is None or name in SAID | MATCHED | {"model"}:
                continue
            if name in self.beside and not is_word(value):
                value = "a file for each picture"
            elif isinstance(value, str | Path) and Path(value).is_file():
                value = f"sha256 {sha256_of(Path(value), name)[:16]}"
            found[name] = value if isinstance(value, bool | int | float | list) else str(value)
        if options.get("method", "score") == "score" and not options.get("scratches"):
            patches = options.get("patches") or options.get("fit") == "tile"
            with clean_stdout():
                card = prior_of(options["model"], options["device"], bool(patches)).card
            found["model"] = f"{card.name}, sha256 {card.sha256[:16]}"
        return found


def over_pictures(
    *, beside: tuple[str, ...] = (), endings: frozenset[str] = PICTURES
) -> Callable[[Callable[..., list[Path]]], Callable[..., Any]]:
    """Let a command take several pictures, folders and globs; the parameters as in :class:`Many`."""

    def decorate(command: Callable[..., list[Path]]) -> Callable[..., Any]:
        signature = inspect.signature(command)
        first, *others = signature.parameters.values()
        many = Many(command, first.name, beside, endings)
        parameters = [first.replace(annotation=several(first.annotation)), *others]
        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters += [
            inspect.Parameter("shard", keyword, default=None, annotation=ShardOption),
            inspect.Parameter("fail_fast", keyword, default=False, annotation=FailFast),
            inspect.Parameter("context", keyword, default=None, annotation=typer.Context),
        ]

        @functools.wraps(command)
        def run(*arguments: Any, **given: Any) -> Any:
            context = given.pop("context", None)
            prior_of.cache_clear()
            note_asked(context)
            try:
                if context is None:  # another command calls
                    return command(*arguments, **given)
                return dispatch(many, context, given)
            finally:
                prior_of.cache_clear()

        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
        return run

    return decorate


def several(annotation: Any) -> Any:
    """An argument's annotation for any number of its kind."""
    argument = get_args(annotation)[1]
    argument = copy.copy(argument)
    argument.help = f"{argument.help} Several, a folder or a quoted glob go into the folder -o."
    return Annotated[list[Path], argument]


def dispatch(many: Many, context: Any, options: dict[str, Any]) -> None:
    """One picture goes its own way; several, or one into a folder that has a manifest, go by the manifest."""
    given: list[Path] = options.pop(many.argument)
    shard, fail_fast = options.pop("shard"), options.pop("fail_fast")
    output: Path | None = options["output"]
    by_manifest = output is not None and output.is_dir() and bool(manifest_paths(output))
    one = given[0] if len(given) == 1 else None
    if one is None or is_folder(one) or shard or by_manifest or (not one.exists() and glob.has_magic(str(one))):
        run_many(many, context, given, options, shard, fail_fast)
        return
    picture = Picture(one, one.name)
    found = many.companions(picture, options)
    with said_alone(many, context, picture, found):
        many.command(one, **{**options, **as_given(options, found)})


def run_many(
    many: Many, context: Any, given: Sequence[Path], options: dict[str, Any], shard: str | None, fail_fast: bool
) -> None:
    """Find the pictures, do what is not done yet, and say what became of them.

    Raises
    ------
    UsageError : options that only one picture can have, or no folder for the results.
    PicturesError : some failed.
    """
    Verbosity.level = -1 if options["quiet"] else options["verbose"]
    output: Path | None = options["output"]
    check_options(options)
    if options.get("format") is None and says_quality(many):
        check_quality(options["quality"])
    if output is None or (output.exists() and not output.is_dir()):
        what = f"{given[0]} is a folder" if len(given) == 1 and given[0].is_dir() else "several pictures"
        why = "there is no -o" if output is None else f"{output} is a file"
        raise UsageError(f"{what}, and {why}", hint="name a folder for the results with -o")
    if output.suffix.lower() in ENDINGS and not output.is_dir() and not isinstance(output, Folder):
        raise UsageError(
            f"several pictures, and {output} is the name of one", hint=f"name a folder with -o, such as {output.stem}/"
        )
    if Path("-") in given:
        raise UsageError("- among several pictures", hint="stdin is one picture: give it alone, or name files")
    alone = len(given) == 1 and given[0].is_file()  # such as each task of an array gets its own
    share = chosen_shard(shard, {} if alone else os.environ)
    pictures = find_pictures([str(path) for path in given], many.endings, without=output)
    if share is not None:
        mine = len(share.of(pictures))
        say(f"shard {share} ({'--shard' if shard else 'the SLURM array'}): {mine} of {len(pictures)} pictures")
    by_stem.cache_clear()

    def work(picture: Picture, folder: Path, force: bool) -> Sequence[Path]:
        found = many.companions(picture, options)
        changed = {**options, **as_given(options, found), "output": Path(folder), "force": force}
        with said_alone(many, context, picture, found), briefly():
            return many.command(picture.path, **changed)

    def beside(picture: Picture) -> dict[str, Path]:
        found = many.companions(picture, options)
        return {name: path for name, path in found.items() if name in many.beside}

    began, done, started = False, 0, time.monotonic()

    def tell(step: Step) -> None:
        nonlocal began, done
        began = True
        if step.ended is None:
            left = f", about {duration(step.seconds_left)}" if step.seconds_left is not None else ""
            name = one_line(step.picture.name)
            say(f"picture {step.number} of {step.total}: {name}; {step.total - step.number + 1} left{left}")
        elif step.ended.error is not None:
            say(f"failed: {one_line(f'{step.picture.name}: {step.ended.error}')}")
        else:
            done += 1

    try:
        outcome = run_folder(
            work, pictures, output, task=many.task(options), settings=many.settings(options), beside=beside,
            shard=share, force=options["force"], fail_fast=fail_fast, tell=tell,
        )  # fmt: skip
    except BaseException:
        if began:
            say(f"{plural(done)} {'was' if done == 1 else 'were'} done; the same command goes on from there")
        raise
    say_outcome(outcome, output, time.monotonic() - started, share)


def say_outcome(outcome: Outcome, output: Path, seconds: float, shard: Shard | None) -> None:
    """A line on what was done, one for every failure, and PicturesError where there is any."""
    before = f"{plural(len(outcome.before))} of {output} {'was' if len(outcome.before) == 1 else 'were'} done before"
    if outcome.done:
        say(f"wrote the results of {plural(len(outcome.done))} into {output} ({seconds:.1f} s)")
    if outcome.before:
        say(before if outcome.done or outcome.failed else f"nothing to do: {before}")
    for failure in outcome.failed:
        report(f"{failure.name}: {failure.reason}")
    if outcome.failed:
        total = len(outcome.done) + len(outcome.before) + len(outcome.failed)
        raise PicturesError(
            f"{len(outcome.failed)} of {plural(total)} failed", hint="the same command does again only what is not done"
        )
    if shard is not None:
        say(f"when all {shard.count} shards are done: invsolve merge {output}")


def plural(count: int) -> str:
    return f"{count} picture{'' if count == 1 else 's'}"


def check_options(options: Mapping[str, Any]) -> None:
    """Raise a UsageError for what only one picture can have."""
    if options.get("diagnostics") is not None:
        raise UsageError("--diagnostics with several pictures", hint="it is one file: give one picture")
    for option in ("workers", "scheduler"):
        if options.get(option) is not None:
            raise UsageError(f"--{option} with several sinograms", hint="give one volume")
    if options.get("dry_run"):
        raise UsageError("--dry-run with several pictures", hint="give one of them")
    report_to = options.get("report")
    if report_to is not None and not Path(report_to).is_dir():
        raise UsageError("--report of one file with several pictures", hint="give a folder that is there")
    truth = options.get("truth")
    if truth is not None and not Path(truth).is_dir():
        raise UsageError("--truth of one file with several pictures", hint="give a folder that has one for each")


def says_quality(many: Many) -> bool:
    """Whether ``--quality`` is that of the results: ``dejpeg`` means its input's."""
    quality = inspect.signature(many.command).parameters.get("quality")
    return quality is not None and quality.annotation == Quality


def check_quality(quality: int | None) -> None:
    """Raise a UsageError for a quality of PNG files, which a folder's results are where no format is asked for."""
    if quality is not None:
        raise UsageError(
            f"--quality {quality} with several pictures, whose results are PNG files", hint="give --format jpg as well"
        )


def chosen_shard(given: str | None, environment: Mapping[str, str]) -> Shard | None:
    """The share that was asked for, or that a SLURM array's task has; None for the whole.

    Raises
    ------
    UsageError : no share, or a task of an array with gaps, whose number does not say which share it has.
    """
    if given is not None:
        shard = Shard.parse(given)
        return shard if shard.count > 1 else None
    try:
        task, count = (int(environment[f"SLURM_ARRAY_TASK_{name}"]) for name in ("ID", "COUNT"))
        first, step = (int(environment.get(f"SLURM_ARRAY_TASK_{n}", e)) for n, e in (("MIN", 0), ("STEP", 1)))
        last = int(environment.get("SLURM_ARRAY_TASK_MAX", first + step * (count - 1)))
    except (KeyError, ValueError):
        return None
    if count < 2:
        return None
    if "SLURM_ARRAY_TASK_MIN" in environment and (last - first) // max(step, 1) + 1 != count:
        raise UsageError(
            f"the SLURM array has {count} tasks from {first} to {last}: which share is this one's?",
            hint="say it with --shard I/N, the same N as before where some tasks are run again",
        )
    return Shard((task - first) // max(step, 1) % count + 1, count)


def is_folder(path: Path) -> bool:
    """Whether it holds pictures: a Zarr array is one thing, though a folder on the disk."""
    return path.is_dir() and not any((path / name).exists() for name in ("zarr.json", ".zarray", ".zgroup"))


@contextmanager
def briefly() -> Iterator[None]:
    """Say of a picture only what it warns of; all of it with -v."""
    Verbosity.brief = True
    try:
        yield
    finally:
        Verbosity.brief = False


@contextmanager
def said_alone(many: Many, context: Any, picture: Picture, found: Mapping[str, Path]) -> Iterator[None]:
    """Let the provenance name the command that makes this picture alone: so its file is the same, whoever makes it."""
    before = COMMAND.set(command_line(context, {many.argument: [str(picture.path)], **found}))
    try:
        yield
    finally:
        COMMAND.reset(before)


def command_line(context: Any, changed: Mapping[str, Any]) -> list[str]:
    """The command with the options that were asked for and decide on the result, in the order of its help."""
    words = [context.info_name]
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name)
        if parameter.name in SAID | MATCHED or source is None or source.name.startswith("DEFAULT"):
            continue
        value = changed.get(parameter.name, context.params[parameter.name])
        option = max(parameter.opts, key=len)
        if not option.startswith("-"):  # the argument
            words += map(str, value)
        elif isinstance(value, bool):
            words += [option] if value else parameter.secondary_opts[:1]
        else:
            for one in value if isinstance(value, list | tuple) else [value]:
                words += [option, str(one)]
    return words
