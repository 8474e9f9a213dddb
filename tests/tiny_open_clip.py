"""Text towers of open_clip as it configures them, with sizes of their own: small enough to compute with in a test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

SMALL = {"width": 64, "heads": 2, "layers": 2}
# Each kind with what is changed in its configuration: CLIP's tokenizer needs its whole vocabulary.
TOWERS: dict[str, dict[str, Any]] = {
    "ViT-B-32-quickgelu": SMALL,
    "ViT-B-32": SMALL,
    "ViT-B-16-SigLIP": {**SMALL, "vocab_size": 512},
    "ViT-B-16-SigLIP2": {**SMALL, "vocab_size": 512},
    "PE-Core-B-16": SMALL,
    "MobileCLIP2-S0": SMALL,
    "coca_ViT-B-32": SMALL,
}
DIMENSION = 48


class WordTokenizer:
    """Stands in for a tokenizer that would be downloaded: a number for each word, 1 at the end and as padding."""

    def __init__(self, clean: Any) -> None:
        self.clean_fn = clean

    def __call__(self, texts: list[str], context_length: int) -> Tensor:
        rows = [[2 + sum(map(ord, word)) % 500 for word in self.clean_fn(text).split()] for text in texts]
        padded = [(row + [1] * context_length)[:context_length] for row in rows]
        return torch.tensor(padded)


def make_small(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """From now on open_clip has ``TOWERS`` under the names tiny-..., and needs no download for their tokenizers."""
    import open_clip
    from open_clip.tokenizer import get_clean_fn

    from modules.models import open_clip_text

    folder.mkdir(exist_ok=True)
    for name, changes in TOWERS.items():
        config = open_clip.get_model_config(name)
        config = {**config, "embed_dim": DIMENSION, "text_cfg": {**config["text_cfg"], **changes}}
        (folder / f"tiny-{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    original = open_clip.get_tokenizer

    def tokenizer(model: str) -> Any:
        """As open_clip's, without files of the Hugging Face Hub."""
        text = open_clip.get_model_config(model)["text_cfg"]
        if "hf_tokenizer_name" not in text:
            return original(model)
        return WordTokenizer(get_clean_fn(text["tokenizer_kwargs"]["clean"]))

    patch.setattr(open_clip, "get_tokenizer", tokenizer)
    open_clip_text.tower_config.cache_clear()
    open_clip_text.tokenizer_of.cache_clear()
