"""Tiny trees of the zero-shot benchmarks, and what tests do to them."""

from __future__ import annotations

from pathlib import Path

from paper.stand_in import HEIGHT, WIDTH, few_pairs, make_coco, make_fss, make_pascal, stripes

__all__ = ["HEIGHT", "WIDTH", "few_pairs", "make_coco", "make_fss", "make_pascal", "make_tree", "replace", "stripes"]


def make_tree(name: str, root: Path, fold: int = 0, role: str = "test") -> Path:
    """One of the three by name; returns ``root``."""
    if name == "fss":
        return make_fss(root, (role,))
    return {"pascal": make_pascal, "coco": make_coco}[name](root, fold, role)


def replace(path: Path) -> Path:
    """Cut ``path`` off from the files it is linked to, so that a test may spoil it alone."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    return path
