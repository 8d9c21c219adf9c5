"""Models from a hub, by huggingface_hub: at a fixed revision, safetensors only, every file checked against the hub's hash.

huggingface_hub resumes what was broken off, keeps files in its own cache, and takes ``HF_ENDPOINT`` for another hub and
``HF_HUB_OFFLINE=1`` for what is in the cache already. It is imported here and nowhere else.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from invsolve.errors import ModelError, UsageError, first_line
from invsolve.pretrained.card import file_sha256
from invsolve.pretrained.weight_files import NAMES, PICKLES
from invsolve.typed import brief

PART = r"[A-Za-z0-9][\w.-]{0,95}"
PLACES = ("unet/", "model/", "")
"""Where a repository may hold its network."""

DESCRIPTIONS = ("README.md", "model_index.json", "scheduler_config.json", "scheduler/scheduler_config.json")


class Pulled(NamedTuple):
    """What was fetched."""

    folder: Path
    source: dict[str, str]  # for the card


def parse_repo(text: str) -> tuple[str, str | None]:
    """``OWNER/NAME[@REVISION]`` as repository and revision.

    Raises
    ------
    UsageError : neither.
    """
    found = re.fullmatch(rf"((?:{PART}/)?{PART})(?:@({PART}(?:/{PART})*))?", text, re.ASCII)
    if found is None or ".." in text:
        raise UsageError(f"{brief(text)} is no repository", hint="wanted OWNER/NAME or OWNER/NAME@REVISION")
    return found[1], found[2]


def pull(text: str, *, beside: Iterable[str] = (), quiet: bool = False) -> Pulled:
    """Fetch a model's files.

    Parameters
    ----------
    text : ``OWNER/NAME``, or ``OWNER/NAME@REVISION``; the card gets the commit that this was.
    beside : files that are fetched too, where the repository has them.
    quiet : without progress bars.

    Raises
    ------
    UsageError : not a repository.
    ModelError : no such repository or revision, no connection, no safetensors, or a file that is not what the hub says.
    """
    repo, revision = parse_repo(text)
    try:
        import huggingface_hub
        import huggingface_hub.utils
    except ImportError as error:
        raise ModelError(
            f"fetching models takes huggingface_hub, which cannot be imported: {first_line(error)}",
            hint="pip install 'invsolve[diffusers]'",
        ) from None
    if quiet:
        utils: Any = huggingface_hub.utils
        utils.disable_progress_bars()
    try:
        if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
            return _from_cache(huggingface_hub, repo, revision)
        return _from_hub(huggingface_hub, repo, revision, beside)
    except ModelError:
        raise
    except Exception as error:  # of the library, its HTTP client or the system, whichever they are
        raise ModelError(f"cannot fetch {text}: {_reason(error)}", hint=_hint(error)) from error


def _from_hub(library: Any, repo: str, revision: str | None, beside: Iterable[str]) -> Pulled:
    endpoint = os.environ.get("HF_ENDPOINT") or None
    info = library.HfApi(endpoint=endpoint).model_info(repo, revision=revision, files_metadata=True)
    commit = str(info.sha)
    if not re.fullmatch("[0-9a-f]{40}", commit):
        raise ModelError(f"the hub gives {repo} the revision {brief(commit)}", hint="wanted a commit's 40 digits")
    if revision and re.fullmatch("[0-9a-f]{40}", revision) and revision != commit:
        raise ModelError(
            f"the hub answers with commit {commit[:12]}, not {revision[:12]}", hint="do not trust this hub"
        )
    siblings = {one.rfilename: one for one in info.siblings or []}
    folder = None
    for name in [*wanted_files(siblings, repo), *(name for name in beside if name in siblings)]:
        path = Path(library.hf_hub_download(repo, name, revision=commit, endpoint=endpoint))
        _check_hash(path, siblings[name], f"{name} of {repo}")
        folder = path.parents[name.count("/")]
    assert folder is not None
    return Pulled(folder, {"from": f"{endpoint or 'https://huggingface.co'}/{repo}", "revision": commit})


def _from_cache(library: Any, repo: str, revision: str | None) -> Pulled:
    folder = Path(library.snapshot_download(repo, revision=revision, local_files_only=True))
    for path in folder.rglob("*"):
        blob = path.resolve().name  # large files are stored under their hash
        if path.is_file() and re.fullmatch("[0-9a-f]{64}", blob) and file_sha256(path) != blob:
            raise ModelError(
                f"{path} is damaged: it does not have its hash", hint="delete it, and fetch the model again"
            )
    return Pulled(folder, {"from": f"the cache's copy of {repo}", "revision": folder.name})


def wanted_files(names: Iterable[str], repo: str) -> list[str]:
    """Of a repository's files those that describe the network, and its weights.

    Raises
    ------
    ModelError : no weights, or as a pickle only.
    """
    safe = {name for name in names if all(re.fullmatch(PART, part, re.ASCII) for part in name.split("/"))}
    found = [name for name in DESCRIPTIONS if name in safe]
    for place in PLACES:
        described = [name for name in (f"{place}config.json", f"{place}card.json") if name in safe]
        if not described:
            continue
        for stem in NAMES:
            if (whole := f"{place}{stem}.safetensors") in safe:
                return [*found, *described, whole]
            if (index := f"{whole}.index.json") in safe:
                parts = sorted(name for name in safe if re.fullmatch(rf"{place}{stem}-[\w-]+\.safetensors", name))
                return [*found, *described, index, *parts]
        single = [name for name in safe if re.fullmatch(rf"{place}[^/]+\.safetensors", name)]
        if len(single) == 1:
            return [*found, *described, *single]
    alone = [name for name in safe if re.fullmatch(r"[^/]+\.safetensors", name)]
    if len(alone) == 1:  # of a library that describes its networks otherwise
        return [*(name for name in found if name == "README.md"), *alone]
    if pickles := sorted(name for name in safe if name.lower().endswith(PICKLES)):
        raise ModelError(
            f"{repo} has its weights as a pickle only ({pickles[0]}), which can run any code when it is loaded: not fetched",
            hint="fetch and convert it yourself where you trust it, then `invsolve models import FOLDER`",
        )
    raise ModelError(f"{repo} has no network with safetensors", hint="wanted config.json and a .safetensors file")


def _check_hash(path: Path, sibling: Any, what: str) -> None:
    """Raise a ModelError, and forget the file, unless it is what the hub's listing says."""
    large: Mapping[str, Any] | None = sibling.lfs
    if large is not None:
        wanted, found = large["sha256"], file_sha256(path)
    else:
        content = path.read_bytes()
        wanted, found = sibling.blob_id, hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # git's
    if found != wanted:
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        raise ModelError(
            f"{what} has hash {found[:12]}..., the hub's listing says {str(wanted)[:12]}...",
            hint="it was deleted; try again, and do not trust a hub that does this twice",
        )


def _reason(error: Exception) -> str:
    known = {
        "GatedRepoError": "its owner grants access one by one",
        "RepositoryNotFoundError": "the hub knows no such repository, or it is private",
        "RevisionNotFoundError": "the hub knows no such revision",
        "LocalEntryNotFoundError": "no connection to the hub, and not in the cache",
        "OfflineModeIsEnabled": "offline, and not in the cache",
    }
    return known.get(type(error).__name__, first_line(error)[:200])


def _hint(error: Exception) -> str:
    if type(error).__name__ in ("GatedRepoError", "RepositoryNotFoundError", "RevisionNotFoundError"):
        return "check its name and revision; for a private one log in with `hf auth login`"
    return "check the connection; what was fetched so far is kept, and HF_ENDPOINT names another hub"
