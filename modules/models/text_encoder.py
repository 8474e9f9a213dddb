"""The frozen CLIP text tower: labels become one matrix of unit vectors, computed once per label.

Shapes: N labels, L tokens, E tower width, C embedding dimensions.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")  # clip's business, not our user's
    import clip
    from clip.model import LayerNorm, Transformer

CHUNK = 256  # sentences that go through the tower together: bounds memory for label lists of any length
AS_IT_IS = ("{}",)


def check_labels(labels: Sequence[str]) -> list[str]:
    """The labels as a list, or a ``ValueError``: none at all, not text, blank."""
    if isinstance(labels, str):
        parts = [part.strip() for part in labels.split(",")]
        raise ValueError(f"labels must be a list of strings, not one string; write {parts}")
    labels = list(labels)
    if not labels:
        raise ValueError("the label list is empty; give at least one label")
    for position, label in enumerate(labels):
        if not isinstance(label, str) or not label.strip():
            raise ValueError(f"label {position} is {label!r}; every label must be a text that is not blank")
    return labels


class TextEncoder(nn.Module):
    """CLIP's text half under CLIP's own parameter names. Always frozen, always in eval mode, always float32."""

    def __init__(self, embed_dim: int, width: int, layers: int, context_length: int, vocab_size: int = 49408) -> None:
        super().__init__()
        self.context_length = context_length
        self.embed_dim = embed_dim
        # The mask is no parameter: on the CPU even where the network is built without memory (device "meta").
        causal_mask = torch.full((context_length, context_length), float("-inf"), device="cpu").triu(1)
        # OpenAI's models have 64 channels per head.
        self.transformer = Transformer(width, layers, heads=width // 64, attn_mask=causal_mask)
        self.token_embedding = nn.Embedding(vocab_size, width)
        self.positional_embedding = nn.Parameter(torch.randn(context_length, width) * 0.01)
        self.ln_final = LayerNorm(width)
        self.text_projection = nn.Parameter(torch.randn(width, embed_dim) * width**-0.5)
        # CLIP's own temperature. LSeg never uses it, but every official file holds it.
        self.logit_scale = nn.Parameter(torch.tensor(1 / 0.07).log())
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        self.requires_grad_(False)
        self.eval()
        self._vectors: dict[tuple[str, ...], dict[str, Tensor]] = {}  # templates -> label -> vector
        self._matrices: dict[tuple[tuple[str, ...], ...], Tensor] = {}  # (labels, templates) -> matrix

    def train(self, mode: bool = True) -> TextEncoder:
        """Frozen means frozen: ``mode`` is accepted, as ``nn.Module.train`` asks, and eval mode kept."""
        return super().train(False)

    def forward(self, labels: Sequence[str], templates: Sequence[str] = AS_IT_IS) -> Tensor:
        """N strings -> (N, C) float32 unit vectors, one row a label; each goes through the tower once.

        Args:
            templates: sentences with {} where the label goes. Of several, a label's vector is the mean of its
                sentences' unit vectors, made a unit vector again, as CLIP's authors do.

        Raises:
            ValueError: an empty list, a blank label, or one that is longer than the tower's context.
        """
        if isinstance(labels, str) or not all(isinstance(label, str) for label in labels):
            check_labels(labels)  # raises, and says which
        key = (tuple(labels), tuple(templates))
        if key not in self._matrices:
            labels = check_labels(labels)
            twice = [label for label, count in Counter(labels).items() if count > 1]
            if twice:
                warnings.warn(f"labels given more than once can never all win: {', '.join(twice)}", stacklevel=2)
            vectors = self._vectors.setdefault(key[1], {})
            new = [label for label in dict.fromkeys(labels) if label not in vectors]
            step = max(CHUNK // len(templates), 1)
            for start in range(0, len(new), step):
                chunk = new[start : start + step]
                vectors.update(zip(chunk, self._encode_in(chunk, templates), strict=True))
            if len(self._matrices) >= 64:  # per-image lists can be many; the vectors they are made of stay
                self._matrices.clear()
            # Outside inference mode, so that a matrix first made in validation can serve in training.
            with torch.inference_mode(False):
                self._matrices[key] = torch.stack([vectors[label] for label in labels])
        return self._matrices[key]

    def fits(self, label: str) -> bool:
        """Whether the label is within the tower's context."""
        try:
            self.tokenize([label])
        except ValueError:
            return False
        return True

    def tokenize(self, labels: Sequence[str]) -> Tensor:
        """N strings -> (N, L) token ids on the tower's device; ``ValueError`` names a label that does not fit."""
        # One token more than fits, so that a label that is too long shows in the last column.
        tokens = clip.tokenize(list(labels), context_length=self.context_length + 1, truncate=True)
        for label, over in zip(labels, tokens[:, -1], strict=True):
            if over:
                raise ValueError(
                    f"label {label[:60]!r}... is longer than CLIP's {self.context_length} tokens; shorten it"
                )
        return tokens[:, :-1].to(self.positional_embedding.device)

    def _encode_in(self, labels: Sequence[str], templates: Sequence[str]) -> Tensor:
        sentences = self._encode([template.replace("{}", label) for label in labels for template in templates])
        if len(templates) == 1:
            return sentences
        with torch.inference_mode(False), torch.no_grad():
            return F.normalize(sentences.unflatten(0, (len(labels), len(templates))).mean(dim=1), dim=-1)

    def _encode(self, labels: Sequence[str]) -> Tensor:
        device = self.positional_embedding.device.type
        # In this order: leaving inference mode turns gradients on.
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(device, enabled=False):
            tokens = self.tokenize(labels)
            end = tokens.argmax(dim=-1)  # the end-of-text token has the highest id
            # Attention is causal: what follows the longest label's end cannot reach any label's feature.
            length = int(end.max()) + 1
            x = self.token_embedding(tokens[:, :length]) + self.positional_embedding[:length]  # (N, L, E)
            x = x.transpose(0, 1)  # clip's Transformer wants (L, N, E)
            x = self.transformer(x).transpose(0, 1)
            x = self.ln_final(x)[torch.arange(len(x)), end]  # (N, E)
            return F.normalize(x.float() @ self.text_projection.float(), dim=-1)

    def clear_cache(self) -> None:
        """Forget every computed vector; called whenever weights are loaded or moved."""
        self._vectors.clear()
        self._matrices.clear()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        self.clear_cache()

        def keep_float32(tensor: Tensor) -> Tensor:
            """Follow the network to another device, not to another precision."""
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(keep_float32, recurse)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.clear_cache()
        super()._load_from_state_dict(*args, **kwargs)
