"""What replaces the text tower in a plain classifier, the paper's DPT baseline: a fixed list of classes, no text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from .text_encoder import AS_IT_IS, check_labels


class ClassEncoder(nn.Module):
    """A class becomes a unit vector of its own, so that comparing pixels with classes reads the classifier's outputs.

    It has the interface of ``TextEncoder`` and no weights.

    Args:
        classes: names of the C classes that the network is trained on.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__()
        self.classes = check_labels(classes)
        self.embed_dim = len(self.classes)
        self._here = torch.empty(0, device="cpu")  # follows the network to its device

    @property
    def device(self) -> torch.device:
        """Where vectors are made."""
        return self._here.device

    def forward(self, labels: Sequence[str], templates: Sequence[str] = AS_IT_IS) -> Tensor:
        """N names of classes -> (N, C) float32 rows of the identity; ``ValueError`` for any other text."""
        if tuple(templates) != AS_IT_IS:
            raise ValueError("this network is a plain classifier without text; leave the templates out")
        return torch.eye(self.embed_dim, device=self.device)[self.tokenize(labels)]

    def tokenize(self, labels: Sequence[str]) -> Tensor:
        """N names of classes -> their numbers (N,); ``ValueError`` for a text that is not the name of a class."""
        labels = check_labels(labels)
        if labels == self.classes:  # names can occur twice, as 'screen' does in ADE20K
            return torch.arange(self.embed_dim, device=self.device)
        unknown = [label for label in dict.fromkeys(labels) if label not in self.classes]
        if unknown:
            near = get_close_matches(unknown[0], self.classes, n=1, cutoff=0.7)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(
                f"this network is a plain classifier of {self.embed_dim} classes ({', '.join(self.classes[:5])}, ...) "
                f"and understands no other text: {', '.join(map(repr, unknown[:3]))}{hint}. Only a network that was "
                "trained with --head text takes labels of your choice"
            )
        return torch.tensor([self.classes.index(label) for label in labels], device=self.device)

    def fits(self, label: str) -> bool:
        """Whether it is the name of a class."""
        return label in self.classes

    def clear_cache(self) -> None:
        """Do nothing: no vector is kept."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        self._here = fn(self._here)
        return super()._apply(fn, recurse)
