"""What MkDocs needs to make a site of these pages: pages that lie elsewhere, pages of the package, docstrings it can read.

The pages are written for GitHub, so their links lead to files of the repository. In the site, those to ``../README.md`` lead to
the first page, those to other documents to copies of them, and those to source files become plain text.
"""

from __future__ import annotations

import ast
import json
import os.path
import re
import sys
from pathlib import Path, PurePosixPath
from typing import Any

from griffe import Extension, Object
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]

ELSEWHERE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "examples/README.md": "examples.md",
    "examples/plugin/README.md": "examples-plugin.md",
}
"""Documents outside this folder, and where the site has them."""

PACKAGES = {
    "tasks": "Tasks: a picture in, a posterior out",
    "ct": "CT: scans, files, units, reconstruction",
    "forward_models": "Forward models: operators and noises",
    "rules": "Rules: how a measurement changes a score",
    "samplers": "Samplers",
    "ode": "The probability-flow ODE",
    "models": "Score models and networks",
    "pretrained": "Priors: loading, importing",
    "uncertainty": "Intervals and their calibration",
    "evaluation": "Scores of results and of priors",
    "verification": "Closed-form posteriors",
    "training": "Training",
    "distributed": "Volumes and clusters",
}
ALONE = ("solver", "posterior", "summary", "options", "errors", "atomic", "pictures", "finding", "folders", "manifests")
"""Modules of the package itself that its users meet."""


def modules(package: str) -> list[str]:
    """The public modules of a package that define anything public, by name."""
    paths = sorted((ROOT / "invsolve" / package).glob("*.py"))
    return [f"invsolve.{package}.{path.stem}" for path in paths if not path.stem.startswith("_") and defined(path)]


def defined(path: Path) -> list[str]:
    """Names of the public classes and functions with a docstring that a module defines itself."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    nodes = [node for node in ast.parse(path.read_text()).body if isinstance(node, kinds)]
    return [node.name for node in nodes if not node.name.startswith("_") and ast.get_docstring(node)]


def public_names() -> dict[str, str]:
    """What ``invsolve`` itself exports, and where each is defined."""
    tree = ast.parse((ROOT / "invsolve" / "__init__.py").read_text())
    homes = next(
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "_HOMES"
    )
    return ast.literal_eval(homes)


def first_line(home: str, name: str) -> str:
    """The first line of the docstring of a class or function that the module ``home`` defines."""
    path = ROOT / home.replace(".", "/")
    tree = ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text())
    found = next(node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name)
    return inline((ast.get_docstring(found) or "").partition("\n")[0], home).replace("|", "\\|")


def api_pages() -> dict[str, str]:
    """The pages on the package, made of its source: path in the site -> Markdown."""
    index = ["# The package from Python\n", "| from `invsolve` | |", "| --- | --- |"]
    index += [f"| [`{name}`][{home}.{name}] | {first_line(home, name)} |" for name, home in public_names().items()]
    index += ["\n| package | |", "| --- | --- |"]
    index += [f"| [`invsolve.{name}`]({name}.md) | {title} |" for name, title in PACKAGES.items()]
    index += ["| [`invsolve`](invsolve.md) | Solving, results, files |"]
    index += ["\nA first use is in the [tutorial](../tutorials/pipeline.md)."]
    pages = {"api/index.md": "\n".join(index) + "\n"}
    for name, title in PACKAGES.items():
        own = defined(ROOT / "invsolve" / name / "__init__.py")
        pages[f"api/{name}.md"] = f"# {title}\n\n{entry(f'invsolve.{name}', own)}{''.join(map(entry, modules(name)))}"
    pages["api/invsolve.md"] = f"# Solving, results, files\n\n{''.join(entry(f'invsolve.{name}') for name in ALONE)}"
    return pages


def entry(name: str, members: list[str] | None = None) -> str:
    """What mkdocstrings replaces by the documentation of a module; of a package, of the ``members`` that it defines itself."""
    options: dict[str, Any] = {"heading_level": 2, "show_submodules": False}
    if members is not None:
        options["members"] = members or False
    return f"::: {name}\n    options: {json.dumps(options)}\n\n"


def command_page() -> str:
    """Every command with its arguments and options, as ``--help`` has them."""
    sys.path.insert(0, str(ROOT))
    import typer

    from invsolve.cli.app import app

    root: Any = typer.main.get_command(app)
    with root.make_context("invsolve", [], resilient_parsing=True) as context:
        parts = [described(context, name, command) for name, command in root.commands.items()]
    return "# Commands and their options\n\nWhat `--help` says of each.\n\n" + "".join(parts)


def described(context: Any, name: str, command: Any) -> str:
    """A command as a section: what it does, examples, a table of what it takes; of a group, its commands."""
    from invsolve.cli.man import plain, usage

    parts: list[str] = []
    for part in re.split(r"\n\s*\n", (command.help or "").replace("\f", "").strip()):
        if not part.startswith(" "):
            parts.append(inline(plain(part), ""))
        elif parts[-1].endswith("\n```"):
            parts[-1] = parts[-1].removesuffix("```") + f"{plain(part)}\n```"
        else:
            parts.append(f"```text\n{plain(part)}\n```")
    rows = ["| argument or option | |", "| --- | --- |"]
    with command.make_context(name, [], parent=context, resilient_parsing=True) as own:
        for parameter in command.params:
            record = parameter.get_help_record(own)
            if record is not None:
                term = re.sub(r"<list\[(.+)\]>", r"<\1>", plain(record[0]))
                rows.append(f"| `{term}` | {inline(plain(record[1]), '').replace('|', chr(92) + '|')} |")
    table = "\n".join(rows)
    below = "".join(described(context, f"{name} {one.name}", one) for one in getattr(command, "commands", {}).values())
    return "\n\n".join([f"## {name}", f"`invsolve {usage(context, name, command)}`", *parts, table]) + "\n\n" + below


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are not files of this folder."""
    for path, page in ELSEWHERE.items():
        if page != "index.md":
            files.append(File.generated(config, page, content=linked((ROOT / path).read_text(), path)))
    for path, text in (api_pages() | {"commands.md": command_page()}).items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Make links out of this folder lead to pages of the site."""
    return linked(markdown, f"docs/{page.file.src_uri}") if page.file.abs_src_path else markdown


def linked(markdown: str, path: str) -> str:
    """``markdown`` of the document ``path`` (from the repository's root) with its links as the site needs them."""
    home = PurePosixPath(path).parent
    here = PurePosixPath(site_path(path) or path).parent

    def replace(found: re.Match[str]) -> str:
        text, target = found.groups()
        file, _, anchor = target.partition("#")
        if not file or re.match(r"[a-z]+:", file):
            return found[0]
        there = site_path(os.path.normpath(home / file))
        if there is None:
            return text
        return f"[{text}]({os.path.relpath(there, here)}{'#' + anchor if anchor else ''})"

    return re.sub(r"(?<!!)\[((?:[^\[\]]|!\[[^\]]*\]\([^)]*\))*)\]\(([^)\s]+)\)", replace, markdown)


def site_path(path: str) -> str | None:
    """Where the site has a file of the repository, if it does."""
    if path in ELSEWHERE:
        return ELSEWHERE[path]
    return path.removeprefix("docs/") if path.startswith("docs/") else None


ROLE = re.compile(r":(?:func|mod|class|data|meth|attr|obj|exc):`~?([^`]+)`")
SECTION = re.compile(r"^(Parameters|Raises|Returns)\n-+\n", re.MULTILINE)
ITEM = re.compile(r"^(\S.*?) : (.*)$")


class Sections(Extension):
    """Griffe reads the source's docstrings after this has made Markdown of them."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Called once for every module, class, function and constant."""
        if obj.docstring is not None:
            obj.docstring.value = readable(obj.docstring.value, obj.module.path)


def readable(text: str, module: str) -> str:
    """A docstring of the source as Markdown, with sections as Google's style has them."""
    head, *rest = SECTION.split(text)
    parts = [inline(doctests(head), module).rstrip()]
    for title, body in zip(rest[::2], rest[1::2], strict=True):
        items, after = section(inline(body, module), free=title == "Returns")
        parts.append("\n".join([f"{'Args' if title == 'Parameters' else title}:", *(f"    {line}" for line in items)]))
        if after:
            parts.append(doctests(after))
    return "\n\n".join(part for part in parts if part)


def section(body: str, *, free: bool) -> tuple[list[str], str]:
    """The lines of a section as "name: text", one item per name, and the text that follows it after an empty line."""
    block, _, after = body.partition("\n\n")
    items: list[tuple[str, list[str]]] = []
    for line in block.rstrip().splitlines():
        item = None if free else ITEM.match(line)
        if item:
            items.append((item[1], [item[2]]))
        elif items:
            items[-1][1].append(line.strip())
        else:
            items.append(("", [line]))
    lines = []
    for names, text in items:
        for name in names.split(", "):
            lines += [f"{name}: {text[0]}" if name else text[0], *(f"    {line}" for line in text[1:])]
    return lines, after


def inline(text: str, module: str) -> str:
    """Roles as links, double backticks as single ones, and no "<" outside code that could be taken for a tag."""

    def link(found: re.Match[str]) -> str:
        name = found[1]
        whole = name if name.startswith("invsolve") else f"{module}.{name}"
        short = name.rsplit(".", 1)[-1] if found[0].split("`")[1].startswith("~") else name
        return f'<autoref identifier="{whole}" optional>`{short}`</autoref>'

    pieces = re.split(r"(:\w+:`[^`]+`|``.+?``)", text)
    for k, piece in enumerate(pieces):
        if piece.startswith("``") and len(piece) > 4:
            pieces[k] = f"`{piece[2:-2]}`"
        elif ROLE.fullmatch(piece):
            pieces[k] = ROLE.sub(link, piece)
        else:
            pieces[k] = piece.replace("<", "&lt;")
    return "".join(pieces)


def doctests(text: str) -> str:
    """Examples at a prompt, and what they print, as code."""
    return re.sub(r"^>>> .*(?:\n(?!\s*$).+)*", lambda found: f"```pycon\n{found[0]}\n```", text, flags=re.MULTILINE)
