"""Checks a checkpoint's path, without importing torch."""

from __future__ import annotations

from pathlib import Path

from lseg_utils.errors import InputError
from lseg_utils.files import REPOSITORY

from .released import DATA

SUFFIXES = (".ckpt", ".pth", ".pt", ".safetensors")
HUB_WEIGHTS = "model.safetensors"  # in a folder of the hub's kind
TEXT = frozenset(range(32, 127)) | {9, 10, 13}  # printable bytes: no PyTorch file begins with 64 of them
ZIP = b"PK"  # what zip archives begin with


def check_weights_file(path: str | Path) -> Path:
    """The path, expanded; of a folder of the hub's kind (``LSegNet.save_pretrained``), that of the weights in it.

    ``InputError`` for another folder, a missing file, a pattern that matches nothing, or a text.
    """
    path = Path(path).expanduser()
    if (path / HUB_WEIGHTS).is_file():
        path = path / HUB_WEIGHTS
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the checkpoint file in it{_listing(path)}")
    if not path.exists():
        if any(sign in path.name for sign in "*?["):  # a shell passes it on unchanged if nothing matches
            raise InputError(f"no file matches {path}{_listing(path.parent)}{_other_sources(path.name)}")
        raise InputError(f"there is no file {path}{_listing(path.parent)}{_other_sources(path.name)}")
    with path.open("rb") as file:
        start = file.read(64)
    if start and not ZIP.startswith(start[: len(ZIP)]) and all(byte in TEXT for byte in start):
        first = start.decode().strip().split("\n")[0]
        raise InputError(
            f"{path} ({path.stat().st_size:,} bytes) is a text file that begins with {first!r}, not a checkpoint: a "
            "web page or a Git LFS pointer saved in its place? Download the file itself"
        )
    return path


def _listing(folder: Path) -> str:
    names = sorted(path.name for path in folder.glob("*") if path.suffix in SUFFIXES) if folder.is_dir() else []
    return f"; that folder has {', '.join(names[:8])}" if names else ""


def _other_sources(name: str) -> str:
    """Where checkpoints come from: the quickstart, if it has trained one here, and the authors of LSeg.

    name: of the file that is missing. test.sh expects one that the authors never released.
    """
    note = f" ({name}: {DATA['not_released'][name]})" if name in DATA["not_released"] else ""
    trained = sorted(REPOSITORY.glob("quickstart/runs/trained_seed*/version_*/checkpoints/last.ckpt"))
    own = f"; the quickstart trained {trained[-1]}" if trained else ""
    return f"{note}{own}; `python -m {__package__}.zoo` lists the official checkpoints and how to get them"
