"""Writes both miniature worlds to disk: completely or not at all, and again only when their settings change."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from lseg_utils.errors import InputError
from miniature.names import with_synonyms


def make_folder(folder: Path, settings: dict, write: Callable[[Path], None]) -> bool:
    """Let ``write`` fill ``folder``, unless its ``world.json`` contains ``settings``; return whether it was made.

    ``write`` gets the path of a new folder next to it, to which ``world.json`` is added last. A folder with other
    settings is replaced as a whole. Raises ``InputError`` where the folder is somebody else's or cannot be written.
    """
    found = read_settings(folder)
    if found == settings:
        return False
    if folder.exists() and found is None:
        raise InputError(
            f"{folder} exists and was not made by miniature.prepare (it has no readable world.json); "
            f"move it elsewhere or give another --data_path"
        )
    # Always the same names, so that what a killed process left does not pile up.
    aside, old = folder.with_name(f".{folder.name}.aside"), folder.with_name(f".{folder.name}.old")
    try:
        for leftover in (aside, old):
            if leftover.exists():
                shutil.rmtree(leftover)
        aside.mkdir(parents=True)
        write(aside)
        (aside / "world.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        if folder.exists():
            os.replace(folder, old)
        os.replace(aside, folder)
    except OSError as error:
        text = f"cannot write {folder}: {error.strerror}; free some space or give another --data_path"
        raise InputError(text) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    return True


def read_settings(folder: Path) -> dict | None:
    """The content of ``world.json``; None if it is missing or unreadable, that is, if the world is not finished."""
    try:
        settings = json.loads((folder / "world.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return settings if isinstance(settings, dict) else None


def save_pair(image_path: Path, image: np.ndarray, mask_path: Path, mask: np.ndarray) -> None:
    """Write an image, uint8 (h, w, 3), as JPEG and its mask, uint8 (h, w), as PNG."""
    # No chroma subsampling: it would wash a small object's colour into its surroundings.
    Image.fromarray(image).save(image_path, quality=92, subsampling=0)
    Image.fromarray(mask).save(mask_path)


def write_labels(folder: Path, labels: Sequence[str]) -> None:
    """``labels.txt`` and, in the same order, ``synonyms.txt``."""
    (folder / "labels.txt").write_text("\n".join(labels) + "\n", encoding="utf-8")
    (folder / "synonyms.txt").write_text("\n".join(map(with_synonyms, labels)) + "\n", encoding="utf-8")
