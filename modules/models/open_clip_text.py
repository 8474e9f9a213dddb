"""Text towers of the package open_clip: OpenCLIP's CLIPs, SigLIP and SigLIP 2, PE, MobileCLIP 2, CoCa and others.

Everything about a tower comes from its configuration there: tokenizer and how it cleans text, context, padding,
causal or not, activation, pooling, projection. The package is optional; importing this file does not import it.
"""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .backbones import OPEN_CLIP
from .text_encoder import LabelEncoder


class TowerConfig(NamedTuple):
    """model, tag: the names in open_clip, tag "" if none was given. text: the arguments of its text tower."""

    model: str
    tag: str
    embed_dim: int
    quick_gelu: bool
    text: dict[str, Any]


def open_clip_package() -> ModuleType:
    """The package; ``ValueError`` says what to install."""
    try:
        import open_clip
    except ImportError as error:
        raise ValueError(
            f"text towers of {OPEN_CLIP} need the package open_clip_torch ({error}): pip install open_clip_torch"
        ) from error
    return open_clip


@cache
def tower_config(name: str) -> TowerConfig:
    """The configuration of open_clip:MODEL or open_clip:MODEL/TAG, such as open_clip:ViT-B-32/laion2b_s34b_b79k.

    The tag decides the activation too: OpenAI's weights need QuickGELU, which the model's name alone does not say.

    Raises:
        ValueError: a model or tag that open_clip does not have (with the nearest), or a tower of another library.
    """
    package = open_clip_package()
    model, _, tag = name.removeprefix(OPEN_CLIP).partition("/")
    config = package.get_model_config(model)
    if config is None:
        near = get_close_matches(model, package.list_models(), n=1, cutoff=0.4)
        hint = f" (did you mean {OPEN_CLIP}{near[0]}?)" if near else ""
        raise ValueError(f"open_clip has no model {model!r}{hint}; `open_clip.list_models()` lists them")
    tags = package.list_pretrained_tags_by_model(model)
    if tag and tag not in tags:
        raise ValueError(f"open_clip has no weights {tag!r} of {model}; it has {', '.join(tags) or 'none'}")
    text = dict(config["text_cfg"])
    if text.get("hf_model_name"):
        raise ValueError(
            f"{name} has a text tower of transformers ({text['hf_model_name']}), not one of open_clip's own"
        )
    weights = package.get_pretrained_cfg(model, tag) if tag else {}
    quick_gelu = bool(config.get("quick_gelu") or weights.get("quick_gelu"))
    return TowerConfig(model, tag, config["embed_dim"], quick_gelu, {**text, "output_tokens": False})


@cache
def tokenizer_of(model: str) -> Any:
    """The tokenizer of a model, with its own cleaning of text; ``ValueError`` if it cannot be loaded."""
    try:
        return open_clip_package().get_tokenizer(model)
    except (ImportError, OSError) as error:
        raise ValueError(
            f"the tokenizer of {model} cannot be loaded ({type(error).__name__}: {str(error).splitlines()[0][:160]}). "
            "It needs the package transformers (pip install transformers sentencepiece) and is downloaded once from "
            "the Hugging Face Hub; on a machine without internet copy ~/.cache/huggingface from one that has it"
        ) from error


class OpenClipTextEncoder(LabelEncoder):
    """A text tower of open_clip with random weights. name: as for ``tower_config``."""

    def __init__(self, name: str) -> None:
        from open_clip.model import (  # the package is there: it has told the configuration
            CLIPTextCfg,
            _build_text_tower,
        )

        config = tower_config(name)
        text = CLIPTextCfg(**config.text)
        super().__init__(config.embed_dim, text.context_length)
        self.model = config.model
        self.tower: Any = _build_text_tower(config.embed_dim, text, config.quick_gelu)
        # Tokens behind the end of a label are padding. Only a causal tower that is read at the end does not see them.
        self.trimmed = not text.no_causal_mask and text.pool_type == "argmax" and not text.embed_cls
        self.freeze()

    def as_read(self, label: str) -> str:
        """The label as the tokenizer cleans it: SigLIP's drops punctuation too."""
        clean = getattr(tokenizer_of(self.model), "clean_fn", None)
        return clean(label) if clean else super().as_read(label)

    def tokenize(self, labels: Any) -> Tensor:
        """N strings -> (N, L) token ids on the tower's device; ``ValueError`` names a label that it cannot read."""
        tokenizer, length = tokenizer_of(self.model), self.context_length
        blank = [label for label in labels if not self.as_read(label).strip()]
        if blank:
            raise ValueError(f"label {blank[0]!r} contains nothing that {self.model} reads; write it in letters")
        # One token more than fits: padding, except in labels that are too long.
        tokens = tokenizer([*labels, ""], context_length=length + 1)
        too_long = [label for label, last in zip(labels, tokens[:, -1], strict=False) if last != tokens[-1, -1]]
        if too_long:
            raise ValueError(f"label {too_long[0][:60]!r}... is longer than {self.model}'s {length} tokens; shorten it")
        return tokenizer(list(labels), context_length=length).to(self.device)

    def _features(self, tokens: Tensor) -> Tensor:
        if not len(tokens):
            return torch.zeros(0, self.embed_dim, device=self.device)
        whole = self.tower.attn_mask
        if self.trimmed:
            tokens = tokens[:, : int(tokens.argmax(dim=-1).max()) + 1]
        try:
            if self.trimmed:
                self.tower.attn_mask = whole[: tokens.shape[1], : tokens.shape[1]]
            return self.tower(tokens).float()
        finally:
            self.tower.attn_mask = whole

    def weights_from(self, file: Any) -> dict[str, Tensor]:
        """The tower's weights from a state dict of the whole model, whose text half may be called text."""
        names = {name.removeprefix("module."): tensor for name, tensor in file.items()}
        own = {name.removeprefix("text."): tensor for name, tensor in names.items() if name.startswith("text.")}
        return own or names


def download_open_clip(name: str, how: str) -> Path:
    """The file of open_clip:MODEL/TAG in its cache, downloaded by the package. how: the way to give a file instead."""
    package, config = open_clip_package(), tower_config(name)
    if not config.tag:
        tags = ", ".join(package.list_pretrained_tags_by_model(config.model))
        raise ValueError(
            f"{name} does not say which weights; add /TAG ({tags or 'there are none'}), or give a file: {how}"
        )
    try:
        return Path(package.download_pretrained(package.get_pretrained_cfg(config.model, config.tag)))
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"the weights of {name} could not be downloaded ({type(error).__name__}: "
            f"{str(error).splitlines()[0][:160]}); on a machine with internet download them, then give the file: {how}"
        ) from error
