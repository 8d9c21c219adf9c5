"""``invsolve man``: the manual page, made from what --help says."""

from __future__ import annotations

import re
import sys
from typing import Annotated, Any

import typer

from invsolve._version import __version__
from invsolve.errors import ExitCode, UsageError
from invsolve.named import nearest

MEANINGS = {
    ExitCode.OK: "the command did what it was asked for",
    ExitCode.FAILED: "the solve itself failed",
    ExitCode.USAGE: "an unknown option, a missing argument, or options that do not go together",
    ExitCode.BAD_INPUT: "a file that is missing, broken or does not fit",
    ExitCode.MODEL: "weights, a device or a package that is missing or damaged",
    ExitCode.OUTPUT: "the output exists or cannot be written",
    ExitCode.SOME_FAILED: "of several pictures some failed; the others have their results",
    ExitCode.HUNG_UP: "ended because the terminal was closed (SIGHUP)",
    ExitCode.INTERRUPTED: "interrupted with Ctrl-C",
    ExitCode.TERMINATED: "ended by a request to terminate (SIGTERM)",
}

ENVIRONMENT = {
    "INVSOLVE_DEVICE": "The device, as --device names it.",
    "INVSOLVE_HOME": "Folder of both that follow, where they have no variable of their own.",
    "INVSOLVE_CACHE": "Folder of what can be made or fetched again.",
    "INVSOLVE_MODELS": "Folder of imported models.",
    "NO_COLOR": "Where it is set, neither colours nor progress bars are shown.",
}


def man(
    context: typer.Context,
    command: Annotated[
        str | None, typer.Argument(metavar="COMMAND", help="Of one command only.", show_default=False)
    ] = None,
) -> None:
    """Print the manual page, for man.

    Examples:

      invsolve man > ~/.local/share/man/man1/invsolve.1

      invsolve man inpaint | man -l -
    """
    root: Any = context.find_root()
    names = root.command.list_commands(root)
    if command is not None and command not in names:
        raise UsageError(f"no command {command!r}", hint=f"{nearest(command, names)}see invsolve --help")
    sys.stdout.write(manual(root, [command] if command else names))


def manual(root: Any, names: list[str]) -> str:
    """A page in the man macros (man(7)) on the commands ``names`` of the program whose context is ``root``."""
    whole = len(names) > 1
    title = "invsolve" if whole else f"invsolve-{names[0]}"
    found = [(name, root.command.get_command(root, name)) for name in names]
    about = root.command.help if whole else found[0][1].help
    lines = [f'.TH "{title.upper()}" "1" "" "invsolve {__version__}"', ".SH NAME"]
    lines += [f"{escaped(title)} \\- {escaped(first_sentence(about))}"]
    lines += [
        ".SH SYNOPSIS",
        ".B invsolve",
        escaped("COMMAND [ARGUMENTS] [OPTIONS]" if whole else usage(root, *found[0])),
    ]
    if whole:
        lines += [".SH DESCRIPTION", *paragraphs(about), ".SH OPTIONS", *options(root, root.command), ".SH COMMANDS"]
    for name, one in found:
        lines += described(root, name, one, ".SS" if whole else ".SH DESCRIPTION")
    lines.append('.SH "EXIT STATUS"')
    for code, meaning in MEANINGS.items():
        lines += tagged(str(int(code)), meaning)
    lines.append(".SH ENVIRONMENT")
    for variable, meaning in ENVIRONMENT.items():
        lines += tagged(variable, meaning)
    return "\n".join(lines) + "\n"


def described(root: Any, name: str, command: Any, head: str) -> list[str]:
    """A command: its usage, what it does and its options; of a group, its commands."""
    lines = [f"{head} {escaped(usage(root, name, command))}"] if head == ".SS" else [head]
    lines += [*paragraphs(command.help or ""), *options(root, command)]
    for child in getattr(command, "commands", {}).values():
        lines += described(root, f"{name} {child.name}", child, ".SS")
    return lines


def usage(root: Any, name: str, command: Any) -> str:
    """``inpaint [OPTIONS] PICTURE``."""
    with command.make_context(name, [], parent=root, resilient_parsing=True) as context:
        return " ".join([name, *command.collect_usage_pieces(context)])


def options(root: Any, command: Any) -> list[str]:
    """Arguments and options with what they are, their defaults with them."""
    lines = []
    with command.make_context(command.name, [], parent=root, resilient_parsing=True) as context:
        for parameter in command.params:
            record = parameter.get_help_record(context)
            if record is not None:
                lines += tagged(*record)
    return lines


def tagged(tag: str, text: str) -> list[str]:
    """A term in bold, with its explanation indented."""
    return [".TP", f".B {escaped(plain(tag))}", escaped(plain(text)) or "\\&"]


def paragraphs(text: str) -> list[str]:
    """Help as paragraphs; what is indented, such as examples, line by line as it is."""
    lines = []
    for part in re.split(r"\n\s*\n", text.strip()):
        indented = part.startswith(" ")
        lines += [".PP", *([".RS 4", ".nf"] if indented else [])]
        lines += [escaped(plain(line.strip())) for line in part.splitlines()] if indented else [escaped(plain(part))]
        lines += [".fi", ".RE"] if indented else []
    return lines


def first_sentence(text: str) -> str:
    """Up to the first full stop, in one line."""
    return plain(text).partition(". ")[0].rstrip(".")


def plain(text: str) -> str:
    """In one line, and without the marks of Typer's rich help."""
    return " ".join(text.replace("\f", " ").split())


def escaped(text: str) -> str:
    """For roff: backslashes, hyphens that are to be copied, and lines that would be requests (groff_char(7))."""
    found = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    return f"\\&{found}" if found.startswith(".") else found
