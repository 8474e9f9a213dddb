"""What is wrong with the options of a run, told before the network is loaded."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from apps.predict.embeddings import BASIS
from apps.predict.journal import foreign_files
from apps.predict.outputs import KINDS
from apps.predict.sources import Source
from lseg_utils.files import unwritable

NOTHING = "none"
OF_EMBEDDINGS = {"embedding_size": "half", "embedding_variant": "unit", "embedding_multi_scale": False}  # and defaults


def parse_kinds(text: str) -> set[str]:
    """What ``--write`` lists; nothing for "none"."""
    return _listed(text) - {NOTHING}


def _listed(text: str) -> set[str]:
    return {part.strip() for part in text.split(",")} - {""}


def option_problems(options: argparse.Namespace, sources: Sequence[Source], folder: Path) -> list[str]:
    """Everything that is wrong with the options of ``predict_lseg.py``, for these sources and this output folder."""
    kinds = parse_kinds(options.write)
    known = ", ".join(KINDS)
    problems = [f"--write does not know {kind!r}; it takes {known}, or none" for kind in kinds - KINDS.keys()]
    if kinds and NOTHING in _listed(options.write):
        problems.append(f"--write is {options.write!r}; none stands alone")
    if not (options.embeddings or options.pca):
        if not kinds:
            problems.append("--write none leaves nothing to write; give --embeddings or --pca with it")
        idle = [f"--{name}" for name, default in OF_EMBEDDINGS.items() if getattr(options, name) != default]
        if idle:
            problems.append(f"{', '.join(idle)}: no embeddings are asked for; add --embeddings or --pca")
    for name, least in (("long_side", 1), ("batch_size", 1), ("max_frames", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            problems.append(f"--{name} is {value}; give at least {least}")
    if not 0 <= options.opacity <= 1:
        problems.append(f"--opacity is {options.opacity}; give a number from 0 (the picture alone) to 1")
    if problem := unwritable(folder, "--output_dir") or foreign_files(folder, "--output_dir"):
        problems.append(problem)
    cameras_alone = bool(sources) and all(source.kind == "camera" for source in sources)
    if options.pca and cameras_alone and (options.overwrite or not (folder / BASIS).exists()):
        problems.append(
            "--pca finds its components in pictures and videos before a camera is opened; give some like what the "
            "camera will see in the same command, or an --output_dir that has components of an earlier run "
            f"({BASIS}), or leave out --pca"
        )
    return problems
