"""What the page asks of each task, and how the answers become the arguments of a command.

One table says both: the page draws its fields from it, and what comes back is checked against it. What is left empty is not
passed on, so that a command's own defaults hold.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from invsolve import options
from invsolve.errors import InputError, UsageError
from invsolve.options import SolveOptions

Kind = Literal["whole", "number", "choice", "text"]

LONGEST_TEXT = 40


@dataclass(frozen=True)
class Field:
    """One field of the page, which is one option of the command.

    Parameters
    ----------
    name : the option without its dashes.
    label : what it is called on the page, with its unit.
    kind : "whole" and "number" have the ends ``low`` and ``high``, "choice" the ``choices``, "text" a ``pattern``.
    default : what the command takes where the field is empty, to be shown.
    help : a sentence on what it does.
    more : whether it stands among the fields that are seldom needed.
    """

    name: str
    label: str
    kind: Kind
    default: str
    help: str = ""
    low: float = 0.0
    high: float = 1.0
    choices: tuple[str, ...] = ()
    pattern: str = ""
    more: bool = False

    def check(self, value: Any) -> str:
        """``value`` as the option's text.

        Raises
        ------
        UsageError : it is no such value.
        """
        text = str(value).strip()
        if self.kind in ("whole", "number"):
            try:
                number = int(text) if self.kind == "whole" else float(text)
            except ValueError:
                number = math.nan
            if not self.low <= number <= self.high:
                what = "a whole number" if self.kind == "whole" else "a number"
                raise UsageError(
                    f"{self.label}: {text[:LONGEST_TEXT]!r}", hint=f"wanted {what} from {self.low:g} to {self.high:g}"
                )
        elif self.kind == "choice" and text not in self.choices:
            raise UsageError(f"{self.label}: {text[:LONGEST_TEXT]!r}", hint=f"wanted one of {', '.join(self.choices)}")
        elif self.kind == "text" and not (len(text) <= LONGEST_TEXT and re.fullmatch(self.pattern, text)):
            raise UsageError(f"{self.label}: {text[:LONGEST_TEXT]!r}", hint=self.help)
        return text


@dataclass(frozen=True)
class Form:
    """One task of the page.

    Parameters
    ----------
    title : what the task is called on the page.
    about : a sentence on what it does.
    takes : "picture" or "sinogram", what is dropped.
    paints : what is painted on it: "mask", "hints" or nothing.
    model : the prior that the command takes by default.
    fields : in the order of the page.
    extra : arguments that the page always adds.
    """

    title: str
    about: str
    takes: Literal["picture", "sinogram"]
    paints: Literal["mask", "hints", ""]
    model: str
    fields: tuple[Field, ...]
    extra: tuple[str, ...] = ()


NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"


def sampling(solve: SolveOptions, usual: str = "") -> tuple[Field, ...]:
    """The fields that every task has, with the command's own defaults; ``usual`` says when its noise levels are others."""
    return (
        Field(
            "samples", "Samples", "whole", str(solve.samples), low=1, high=64,
            help="Of several, each is a picture that fits; their mean and where they differ are shown too.",
        ),
        Field(
            "seed", "Seed", "whole", str(solve.seed), low=0, high=2**53 - 1, more=True, help="Another seed draws other samples.",
        ),
        Field(
            "steps", "Noise levels", "whole", str(solve.steps), low=1, high=1000, more=True,
            help=f"Fewer are quicker and worse. {usual}".strip(),
        ),
    )  # fmt: skip


FORMS: Mapping[str, Form] = {
    "inpaint": Form(
        "Fill holes",
        "Paint over what is to be filled: scratches, dates, persons, holes. The rest stays as it is.",
        "picture", "mask", "photos",
        (
            *sampling(options.INPAINTING),
            Field("grow", "Widen the mask (pixels)", "whole", "0", low=0, high=100, more=True),
            Field("noise", "Noise of the known pixels (0 to 1)", "number", "0", more=True,
                  help="Share of the full range; above 0 they are denoised too."),
        ),
    ),
    "colorize": Form(
        "Colour",
        "Gives a grey picture colours. Strokes of the colours you want are optional.",
        "picture", "hints", "thumbnails", sampling(options.COLORIZATION, f"With strokes {options.HINTED_COLORIZATION.steps} are usual."),
    ),
    "superres": Form(
        "Enlarge",
        "Enlarges a picture 2 to 8 times. The detail is plausible, not recovered.",
        "picture", "", "photos",
        (
            Field("factor", "Times larger", "whole", "4", low=2, high=8),
            *sampling(options.SUPERRESOLUTION),
            Field("kernel", "How it was made smaller", "choice", "bicubic", choices=("bicubic", "box", "gaussian"), more=True),
            Field("noise", "Noise of the picture (0 to 1)", "number", "0", more=True,
                  help="Share of the full range; a JPEG has 0.01 to 0.03."),
        ),
    ),
    "denoise": Form(
        "Denoise",
        "Takes white noise off a picture.",
        "picture", "", "photos",
        (
            Field("sigma", "Noise (0 to 1)", "number", "estimated", help="Standard deviation, as a share of the full range."),
            *sampling(options.DENOISING),
        ),
    ),
    "dejpeg": Form(
        "JPEG",
        "Takes the blocks and rings of JPEG compression off a picture.",
        "picture", "", "photos",
        (
            *sampling(options.DEJPEG),
            Field("quality", "Quality it was saved with", "whole", "read from the file", low=1, high=100, more=True,
                  help="Only for a picture that was saved in another format after it was compressed."),
        ),
    ),
    "ct": Form(
        "CT scan",
        "A slice from a sinogram of few views, in Hounsfield units, beside FBP and TV.",
        "sinogram", "", "ct",
        (
            Field("views", "Views to use", "whole", "all", low=1, high=100_000),
            *sampling(options.RECONSTRUCTION, f"Of a scan without noise {options.EXACT_RECONSTRUCTION.steps} are usual."),
            Field("units", "Units of the file", "choice", "pixel", choices=("pixel", "attenuation", "counts"), more=True,
                  help="pixel: line integrals in pixel lengths; attenuation: -ln(I/I0); counts: I."),
            Field("i0", "Photons per ray without an object", "number", "", low=1e-9, high=1e12, more=True,
                  help="With counts."),
            Field("angles", "Angles (degrees, FIRST:LAST)", "text", "0:180", pattern=f"{NUMBER}:{NUMBER}", more=True,
                  help="wanted two numbers such as 0:180"),
            Field("pixel-size", "Pixel size (mm)", "number", "", low=1e-6, high=1e6, more=True),
            Field("size", "Side of the slice (pixels)", "whole", "auto", low=8, high=4096, more=True),
            Field("center", "Rotation axis (bin)", "text", "middle", pattern=f"auto|{NUMBER}", more=True,
                  help="wanted a bin number from 0, or auto"),
            Field("noise", "Noise of the line integrals", "text", "auto", pattern=f"auto|{NUMBER}", more=True,
                  help="wanted a number in the file's units, or auto"),
        ),
        ("--baselines",),
    ),
}  # fmt: skip
"""The tasks of the page by the command that runs them."""


def arguments(
    task: str, source: str, answers: Mapping[str, Any], *, model: str = "", models: Sequence[str] = (),
    files: Mapping[str, str] | None = None,
) -> list[str]:  # fmt: skip
    """The command's arguments.

    Parameters
    ----------
    task : of :data:`FORMS`.
    source : name of the file to work on, in the folder where the command runs.
    answers : what was filled in, by field; empty ones count as left out.
    model : the prior, one of ``models``; the command's own where empty.
    files : names of further files by option, such as the mask.

    Raises
    ------
    UsageError : a task, field, value or prior that there is not.
    InputError : a mask is needed and none is there.
    """
    form = FORMS.get(task)
    if form is None:
        raise UsageError(f"unknown task {task[:LONGEST_TEXT]!r}", hint=f"wanted one of {', '.join(FORMS)}")
    files = files or {}
    if form.paints == "mask" and "mask" not in files:
        raise InputError("nothing is marked as missing", hint="paint over what is to be filled, or give a mask")
    known = {field.name: field for field in form.fields}
    if unknown := sorted(set(answers) - set(known)):
        raise UsageError(f"{task} has no field {unknown[0][:LONGEST_TEXT]!r}", hint=f"wanted {', '.join(known)}")
    found = [task, source]
    for option, name in files.items():
        found += [f"--{option}", name]
    for name, field in known.items():
        if str(answers.get(name, "")).strip():
            found.append(f"--{name}={field.check(answers[name])}")
    if model:
        if model not in models:
            raise UsageError(f"unknown prior {model[:LONGEST_TEXT]!r}", hint=f"wanted one of {', '.join(models)}")
        found += ["--model", model]
    return [*found, *form.extra]


def described() -> dict[str, Any]:
    """The table for the page, as JSON has it."""
    return {name: asdict(form) for name, form in FORMS.items()}
