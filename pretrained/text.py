"""Networks of pictures and texts that somebody else trained: CLIP, by transformers, from a folder or a hub.

Weights are numbers in safetensors, code is this package's and the library's own; what a repository brings along is not run. None
is shipped and none is fetched unless it is named. transformers is imported here and nowhere else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invsolve.errors import ModelError, UsageError, first_line
from invsolve.files import read_json
from invsolve.forward_models.text import TextSimilarity
from invsolve.pretrained.card import file_sha256
from invsolve.pretrained.hub import pull
from invsolve.pretrained.weight_files import weight_files
from invsolve.typed import brief

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of CLIP's own training pictures, where a folder does not say."""

TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"))
"""Files that hold a tokenizer: those of one of these."""

BESIDE = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "preprocessor_config.json",
)
"""What is fetched beside the network."""


class TextModel:
    """A CLIP network with its tokenizer.

    Parameters
    ----------
    network : a ``transformers.CLIPModel``, on the device where pictures will be; put into eval mode.
    tokenizer : the library's, of sentences.
    mean, std : that pictures are normalised with, one number for each channel.
    name, sha256 : for reports.
    """

    def __init__(
        self,
        network: nn.Module,
        tokenizer: Any,
        *,
        mean: tuple[float, ...] = MEAN,
        std: tuple[float, ...] = STD,
        name: str = "",
        sha256: str = "",
    ) -> None:
        self.network: Any = network.float().eval().requires_grad_(False)
        self.tokenizer, self.mean, self.std, self.name, self.sha256 = tokenizer, mean, std, name, sha256

    def similarity(self, sentence: str) -> TextSimilarity:
        """The forward model of one sentence.

        Raises
        ------
        UsageError : the sentence is empty, or longer than what the network reads.
        """
        embedding = self.text_embedding(sentence)
        scale = self.network.logit_scale.exp()
        return TextSimilarity(lambda x: scale * (self.picture_embedding(x) @ embedding.T), classes=(sentence,))

    def cosine(self, x: Tensor, sentence: str) -> Tensor:
        """Of each picture (B, 3, H, W) in [0, 1] with a sentence, (B,), in [-1, 1]."""
        with torch.no_grad():
            return (self.picture_embedding(x) @ self.text_embedding(sentence).T)[:, 0]

    def text_embedding(self, sentence: str) -> Tensor:
        """(1, features), of norm 1."""
        if not sentence.strip():
            raise UsageError("an empty sentence", hint='say what to show, such as "a red bird on a branch"')
        most = self.network.config.text_config.max_position_embeddings
        tokens = self.tokenizer([sentence], return_tensors="pt", return_attention_mask=True)
        count = tokens["input_ids"].shape[1]
        if count > most:
            raise UsageError(f"a sentence of {count} tokens, the text model reads {most}", hint="say it in fewer words")
        device = self.network.logit_scale.device
        with torch.no_grad():
            found = self.network.text_model(
                input_ids=tokens["input_ids"].to(device), attention_mask=tokens["attention_mask"].to(device)
            )
            return F.normalize(self.network.text_projection(found.pooler_output), dim=1)

    def picture_embedding(self, x: Tensor) -> Tensor:
        """(B, features), of norm 1; differentiable. ``x`` (B, 3, H, W) in [0, 1], stretched to the network's square."""
        side = self.network.config.vision_config.image_size
        square = F.interpolate(x.float(), size=(side, side), mode="bicubic", align_corners=False, antialias=True)
        shift, scale = (square.new_tensor(values).reshape(1, -1, 1, 1) for values in (self.mean, self.std))
        found = self.network.vision_model(pixel_values=(square - shift) / scale)
        return F.normalize(self.network.visual_projection(found.pooler_output), dim=1)


def load_text_model(name: str, device: torch.device | str = "cpu") -> TextModel:
    """A CLIP network from a folder, or from a hub.

    Parameters
    ----------
    name : a folder as ``CLIPModel.save_pretrained`` and its tokenizer write it, or ``OWNER/NAME[@REVISION]``, which is fetched (see
        :mod:`invsolve.pretrained.hub`).

    Raises
    ------
    ModelError : transformers is not installed; no such folder; files are missing, damaged, pickled or of another network.
    UsageError : neither a folder nor a repository's name.
    """
    library = _transformers()
    folder = Path(name)
    if not folder.is_dir():
        if folder.exists() or name.count("/") != 1 or name.startswith((".", "/", "~")):
            raise ModelError(
                f"no text model in {brief(name)}", hint="give a folder with a CLIP network, or a hub's OWNER/NAME"
            )
        folder = pull(name, beside=BESIDE).folder
    weights = _check_files(folder)
    mean, std = _normalisation(folder)
    try:
        network, report = library.CLIPModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
        tokenizer = library.CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # noqa: BLE001 - of the library, whichever they are
        raise ModelError(
            f"{folder} cannot be loaded: {first_line(error)[:200]}", hint="copy it again from the original"
        ) from None
    missing = sorted({*report["missing_keys"], *map(str, report["mismatched_keys"])})
    if missing:
        raise ModelError(
            f"{folder} lacks {len(missing)} weights of its network: {missing[0][:100]}",
            hint="copy it again from the original",
        )
    return TextModel(network.to(device), tokenizer, mean=mean, std=std, name=name, sha256=file_sha256(weights))


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ModelError(
            f"describing pictures takes transformers, which cannot be imported: {first_line(error)}",
            hint="pip install 'invsolve[text]'",
        ) from None
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


def _check_files(folder: Path) -> Path:
    """The first file of the weights, after checking that all that is needed is there and the network a CLIP."""
    config = read_json(folder / "config.json", "text model's config.json", ModelError)
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "clip":
        raise ModelError(f"{folder} holds a network of type {brief(str(kind))}", hint="wanted a CLIP, model_type clip")
    weights = weight_files(folder)
    if weights[0].suffix != ".safetensors":
        raise ModelError(
            f"{folder} has its weights as a pickle, which can run any code when it is loaded: not loaded",
            hint="where you trust it, save it again with save_pretrained(..., safe_serialization=True)",
        )
    if not any(all((folder / name).is_file() for name in names) for names in TOKENIZERS):
        raise ModelError(
            f"{folder} has no tokenizer", hint="wanted tokenizer.json, or vocab.json and merges.txt, beside the weights"
        )
    return weights[0]


def _normalisation(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of pictures, of the folder or else CLIP's own."""
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return MEAN, STD
    said = read_json(path, "text model's preprocessor_config.json", ModelError)
    facts = said if isinstance(said, dict) else {}
    return _three(facts.get("image_mean", MEAN), path), _three(facts.get("image_std", STD), path)


def _three(values: Any, path: Path) -> tuple[float, ...]:
    """One number for each channel."""
    if not (
        isinstance(values, list | tuple)
        and len(values) == 3
        and all(isinstance(value, int | float) and 0 < value < 1e3 for value in values)
    ):
        raise ModelError(
            f"{path} gives no three numbers for image_mean and image_std", hint="copy it again from the original"
        )
    return tuple(values)
