"""A generated folder is made as a whole or not at all, and again only when its settings change."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from data.miniature_world import read_settings
from encoding_ext.errors import InputError


def make_folder(folder: Path, settings: dict, write: Callable[[Path], None]) -> bool:
    """Let ``write`` fill ``folder``, unless its ``world.json`` says ``settings`` already; returns whether it was made.

    ``write`` gets a path beside it, whose last file must be ``world.json``. A world with other settings is replaced.
    Raises ``InputError`` where the folder is somebody else's or cannot be written.
    """
    found = read_settings(folder)
    if found == settings:
        return False
    if folder.exists() and found is None:
        raise InputError(
            f"{folder} exists and was not made by prepare_miniature.py (it has no readable world.json); "
            f"move it away or give another --data_path"
        )
    # Always the same names, so that what a killed process left does not pile up.
    aside, old = folder.with_name(f".{folder.name}.aside"), folder.with_name(f".{folder.name}.old")
    try:
        for leftover in (aside, old):
            if leftover.exists():
                shutil.rmtree(leftover)
        write(aside)
        if folder.exists():
            os.replace(folder, old)
        os.replace(aside, folder)
    except OSError as error:
        text = f"cannot write {folder}: {error.strerror}; free the space or give another --data_path"
        raise InputError(text) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    return True
