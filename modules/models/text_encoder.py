"""The frozen CLIP text tower: labels become one matrix of unit vectors, computed once per label.

Shapes: N labels, L tokens, E tower width, C embedding dimensions.
"""

from __future__ import annotations

import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from functools import cache
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .doubts import warn_caller

CHUNK = 256  # sentences that go through the tower together: bounds memory for label lists of any length
AS_IT_IS = ("{}",)


@cache
def clip_package() -> ModuleType:
    """OpenAI's package, imported when labels are tokenised or weights downloaded: it imports all of torchvision."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="pkg_resources is deprecated")  # clip's business, not our user's
        import clip
    return clip


def check_labels(labels: Sequence[str]) -> list[str]:
    """The labels as a list; ``ValueError`` if there are none, or one is not text or blank."""
    if isinstance(labels, str):
        parts = [part.strip() for part in labels.split(",")]
        raise ValueError(f"labels must be a list of strings, not one string; write {parts}")
    labels = list(labels)
    if not labels:
        raise ValueError("the label list is empty; give at least one label")
    for position, label in enumerate(labels):
        if not isinstance(label, str) or not label.strip():
            raise ValueError(f"label {position} is {label!r}; every label must be text that is not blank")
    return labels


class QuickGELU(nn.Module):
    """CLIP's approximation of the GELU."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class AttentionBlock(nn.Module):
    """CLIP's residual attention block under CLIP's parameter names."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, num_heads=width // 64)  # OpenAI's models have 64 channels per head
        self.ln_1 = nn.LayerNorm(width)
        layers = {"c_fc": nn.Linear(width, 4 * width), "gelu": QuickGELU(), "c_proj": nn.Linear(4 * width, width)}
        self.mlp = nn.Sequential(OrderedDict(layers))
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """(L, N, E) -> (L, N, E); a token attends to itself and to those before it."""
        causal_mask = torch.full((len(x), len(x)), float("-inf"), dtype=x.dtype, device=x.device).triu(1)
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=causal_mask)[0]
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """CLIP's stack of blocks."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.resblocks = nn.Sequential(*[AttentionBlock(width) for _ in range(layers)])

    def forward(self, x: Tensor) -> Tensor:
        return self.resblocks(x)


class LabelEncoder(nn.Module):
    """What all text towers have in common: labels in, unit vectors out, each computed once and kept.

    Always frozen, always in eval mode, always float32. A subclass builds the tower and says how it reads text.

    Args:
        embed_dim: C.
        context_length: the most tokens that a label may have.
    """

    def __init__(self, embed_dim: int, context_length: int) -> None:
        super().__init__()
        self.context_length, self.embed_dim = context_length, embed_dim
        self._vectors: dict[tuple[str, ...], dict[str, Tensor]] = {}  # templates -> label -> vector
        self._matrices: dict[tuple[tuple[str, ...], ...], Tensor] = {}  # (labels, templates) -> matrix
        self._features_of: dict[tuple[tuple[int, ...], ...], Tensor] = {}  # tokens -> features

    def freeze(self) -> None:
        """No gradients, eval mode; called when the tower is complete."""
        self.requires_grad_(False)
        self.eval()

    def tokenize(self, labels: Sequence[str]) -> Tensor:
        """N strings -> (N, L) token ids on the tower's device; ``ValueError`` names a label that it cannot read."""
        raise NotImplementedError

    def _features(self, tokens: Tensor) -> Tensor:
        """(N, L) token ids -> (N, C) float32, not normalised."""
        raise NotImplementedError

    def as_read(self, label: str) -> str:
        """The label as the tower reads it: labels that are read alike are duplicates. CLIP's reads small letters."""
        return " ".join(label.lower().split())

    @property
    def device(self) -> torch.device:
        """Where the tower is."""
        return next(self.parameters()).device

    def train(self, mode: bool = True) -> LabelEncoder:
        """Stay in eval mode whatever ``mode`` is: the tower is frozen."""
        return super().train(False)

    def forward(self, labels: Sequence[str], templates: Sequence[str] = AS_IT_IS) -> Tensor:
        """N strings -> (N, C) float32 unit vectors, one row per label; each label goes through the tower once.

        Args:
            templates: sentences with {} where the label goes. With several, a label's vector is the mean of its
                sentences' unit vectors, normalised again, as CLIP's authors do.

        Raises:
            ValueError: an empty list, a blank label, or one that is longer than the tower's context.
        """
        if isinstance(labels, str) or not all(isinstance(label, str) for label in labels):
            check_labels(labels)  # raises, and names the label
        key = (tuple(labels), tuple(templates))
        read = Counter(map(self.as_read, labels))
        if len(read) < len(key[0]):
            twice = [label for label, count in read.items() if count > 1]
            warn_caller(f"duplicate labels (only the first can be predicted): {', '.join(twice)}")
        if key not in self._matrices:
            labels = check_labels(labels)
            vectors = self._vectors.setdefault(key[1], {})
            new = [label for label in dict.fromkeys(labels) if label not in vectors]
            step = max(CHUNK // len(templates), 1)
            for start in range(0, len(new), step):
                chunk = new[start : start + step]
                vectors.update(zip(chunk, self._encode(chunk, templates), strict=True))
            if len(self._matrices) >= 64:  # there can be many per-image lists; their vectors stay cached
                self._matrices.clear()
            # Outside inference mode, so that a matrix first made in validation can serve in training.
            with torch.inference_mode(False):
                self._matrices[key] = torch.stack([vectors[label] for label in labels])
        return self._matrices[key]

    def fits(self, label: str) -> bool:
        """Whether the label fits into the tower's context."""
        try:
            self.tokenize([label])
        except ValueError:
            return False
        return True

    def _encode(self, labels: Sequence[str], templates: Sequence[str]) -> Tensor:
        sentences = [template.replace("{}", label) for label in labels for template in templates]
        # In this order: leaving inference mode turns gradients on.
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            vectors = F.normalize(self._features(self.tokenize(sentences)), dim=-1)
            if len(templates) == 1:
                return vectors
            return F.normalize(vectors.unflatten(0, (len(labels), len(templates))).mean(dim=1), dim=-1)

    def clear_cache(self) -> None:
        """Forget all computed vectors; called whenever weights are loaded or moved."""
        self._vectors.clear()
        self._matrices.clear()
        self._features_of.clear()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        self.clear_cache()

        def keep_float32(tensor: Tensor) -> Tensor:
            """Follow the network to another device, but not to another precision."""
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(keep_float32, recurse)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.clear_cache()
        super()._load_from_state_dict(*args, **kwargs)


class TextEncoder(LabelEncoder):
    """CLIP's text half under CLIP's own parameter names."""

    def __init__(self, embed_dim: int, width: int, layers: int, context_length: int, vocab_size: int = 49408) -> None:
        super().__init__(embed_dim, context_length)
        self.transformer = Transformer(width, layers)
        self.token_embedding = nn.Embedding(vocab_size, width)
        self.positional_embedding = nn.Parameter(torch.randn(context_length, width) * 0.01)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.randn(width, embed_dim) * width**-0.5)
        # CLIP's own temperature. LSeg never uses it, but every official file contains it.
        self.logit_scale = nn.Parameter(torch.tensor(1 / 0.07).log())
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        self.freeze()

    def tokenize(self, labels: Sequence[str]) -> Tensor:
        """N strings -> (N, L) token ids on the tower's device; ``ValueError`` names a label that is too long."""
        # One token more than fits: it is used only by labels that are too long.
        tokens = clip_package().tokenize(list(labels), context_length=self.context_length + 1, truncate=True)
        too_long = [label for label, over in zip(labels, tokens[:, -1], strict=True) if over]
        if too_long:
            tokens_read = f"CLIP's {self.context_length} tokens"
            raise ValueError(f"label {too_long[0][:60]!r}... is longer than {tokens_read}; shorten it")
        return tokens[:, :-1].to(self.device)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """(N, L) token ids of ``clip.tokenize`` -> (N, C) float16, not normalised: what CLIP gives on a GPU.

        For programs that call CLIP's own method; ``forward`` gives unit vectors in float32.
        """
        return self.token_features(tokens).half()

    def token_features(self, tokens: Tensor) -> Tensor:
        """``encode_text`` in float32; cached by the tokens."""
        device = self.positional_embedding.device
        key = tuple(map(tuple, tokens.tolist()))
        if key not in self._features_of:
            if len(self._features_of) >= 64:
                self._features_of.clear()
            with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False):
                # Cloned, because tokens made in inference mode cannot be used outside of it.
                parts = tokens.to(device).clone().split(CHUNK)
                self._features_of[key] = torch.cat([self._features(part) for part in parts])
        return self._features_of[key]

    def _features(self, tokens: Tensor) -> Tensor:
        if not len(tokens):
            return self.text_projection.new_zeros(0, self.embed_dim)
        end = tokens.argmax(dim=-1)  # the end-of-text token has the highest id
        # Attention is causal: tokens after the end of the longest label cannot influence any label's feature.
        length = int(end.max()) + 1
        x = self.token_embedding(tokens[:, :length]) + self.positional_embedding[:length]  # (N, L, E)
        x = self.transformer(x.transpose(0, 1)).transpose(0, 1)  # attention wants (L, N, E)
        x = self.ln_final(x)[torch.arange(len(x)), end]  # (N, E)
        return x.float() @ self.text_projection.float()
