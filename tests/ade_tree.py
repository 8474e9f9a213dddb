"""A few tiny pictures in ADE20K's layout."""

from __future__ import annotations

from pathlib import Path

from paper.stand_in import ade20k_files
from paper.stand_in import make_ade20k as make_tree
from paper.stand_in import write_ade20k_pair as write_pair

__all__ = ["image_path", "make_tree", "mask_path", "truncate", "write_pair"]


def image_path(root: Path, split: str, name: str) -> Path:
    return ade20k_files(root, split, name)[0]


def mask_path(root: Path, split: str, name: str) -> Path:
    return ade20k_files(root, split, name)[1]


def truncate(path: Path, keep: float = 0.5) -> None:
    """Cut the file off after this part of its length."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
