"""Write LSeg for programs that do not have this code: the image tower as ONNX and torch.export, the labels as a matrix.

The matrix is a NumPy file, computed once here, so CLIP's text tower is not needed where the files are used;
examples/onnx_segment.py segments with onnxruntime and NumPy alone. Every file is compared with PyTorch at two sizes.
Files appear only when all of them are complete: a killed export leaves what was there before.
"""

from __future__ import annotations

import lseg_utils.interrupt  # noqa: F401  first: Ctrl-C while the rest is imported is quiet

# isort: split

import argparse
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data.labels import labels_from
from lseg_utils.cli import Parser, doubts_as_notes
from lseg_utils.errors import InputError, raise_all, run_script
from lseg_utils.files import REPOSITORY, unwritable, write_aside
from lseg_utils.lock import locked
from lseg_utils.results import write_json
from modules.options import add_weights_options, backbone_names, weights_name
from modules.weights_file import check_weights_file

if TYPE_CHECKING:
    from modules.models import LSegNet

FORMATS = ("onnx", "pt2")
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
NAME = "lseg"
WRITING, COMPLETE = ".lseg.writing", ".lseg.complete"  # folders of an export that is being written, or moved into place


def build_parser() -> Parser:
    """The options of this script."""
    parser = Parser(__doc__)
    add_weights_options(parser)
    labels = "use these labels: 'cat, grass, other', or a file with one per line; default: the checkpoint's"
    parser.add_argument("--labels", help=labels)
    some = "write these formats; none: only the matrix"
    parser.add_argument("--formats", nargs="*", choices=FORMATS, default=list(FORMATS), help=some)
    parser.add_argument("--output_dir", type=Path, help="write to this folder; default: outputs/export_<weights>")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    parser.add_argument(
        "--backbone", choices=backbone_names(), help="expect this backbone in the file; default: recognise it"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Check everything, load, write and verify all files, move them into place."""
    options = build_parser().parse(argv)
    folder = options.output_dir or REPOSITORY / "outputs" / f"export_{weights_name(options.weights)}"
    given: list[str] = []
    with doubts_as_notes():
        raise_all(
            output_problems(options, folder),
            lambda: given.extend([] if options.labels is None else labels_from(options.labels)),
            lambda: check_weights_file(options.weights),
        )
    # After the cheap checks, which need no torch.
    from lseg_utils.git import git_state
    from modules.checkpoints import network_of, read_checkpoint
    from modules.exporting import facts

    file = read_checkpoint(options.weights, options.trust_checkpoint)
    if file.has_block:
        raise InputError(
            f"{options.weights} has a spatial regularisation block, which follows the product with the labels: it is "
            "not part of the image tower, so the exported files would give other labels; export a checkpoint without "
            "a block"
        )
    net = network_of(file, backbone=options.backbone)
    if not net.head.cosine:
        raise InputError(f"{options.weights} is a plain classifier without text; only LSeg's image tower is exported")
    labels = given or net.labels
    if labels is None:
        raise InputError(f'{options.weights} has no labels of its own; add --labels "cat, grass, other" or a file')
    with locked(folder, "--output_dir"), all_or_nothing(folder) as writing:
        write_text(net, labels, writing / f"{NAME}.npz")
        if options.formats:
            about = {**facts(net), "weights": options.weights.name, "git": git_state()}
            written = write_towers(net, options.formats, writing, about)
            write_json(writing / f"{NAME}.json", {**about, "files": written})
    print(f"the files are in {folder}" + (f"; {NAME}.json describes them" if options.formats else ""))


def output_problems(options: argparse.Namespace, folder: Path) -> list[str]:
    """An output folder that is not writable, existing files, missing packages."""
    problems = [text] if (text := unwritable(folder, "--output_dir")) else []
    if not problems:
        with locked(folder, "--output_dir"):
            finish(folder)
    names = [f"{NAME}.{suffix}" for suffix in (*options.formats, "npz")]
    there = [name for name in names if (folder / name).exists()]
    if there and not options.overwrite:
        problems.append(f"{folder} contains {', '.join(there)}; add --overwrite, or choose another --output_dir")
    missing = [name for name in ONNX_PACKAGES if find_spec(name) is None] if "onnx" in options.formats else []
    if missing:
        problems.append(f"ONNX needs {', '.join(missing)}: pip install {' '.join(missing)} (or --formats pt2)")
    return problems


@contextmanager
def all_or_nothing(folder: Path) -> Iterator[Path]:
    """Yield a folder to write to; afterwards its files replace those of ``folder``, all or none of them."""
    writing = folder / WRITING
    writing.mkdir()
    try:
        yield writing
        writing.rename(folder / COMPLETE)  # from here on ``finish`` completes the export
    finally:
        finish(folder)


def finish(folder: Path) -> None:
    """Move the files of an interrupted export into place if all of them were written; else delete them."""
    for file in sorted((folder / COMPLETE).glob("*")):
        os.replace(file, folder / file.name)
    for leftover in (WRITING, COMPLETE):
        shutil.rmtree(folder / leftover, ignore_errors=True)
    for leftover in folder.glob(f".{NAME}.aside.*"):  # of earlier versions of this script
        leftover.unlink()


def write_text(net: LSegNet, labels: list[str], path: Path) -> None:
    """labels, text (N, C) unit vectors, long_side, mean, std, logit_scale, architecture (as JSON)."""
    from modules.exporting import facts

    try:
        text = net.encode_labels(labels).numpy()
    except ValueError as error:
        raise InputError(f"{error} (in --labels)") from error
    known = facts(net)
    numbers = {name: np.asarray(known[name], np.float32) for name in ("mean", "std", "logit_scale")}
    others = {"long_side": known["long_side"], "architecture": json.dumps(known["architecture"])}
    with write_aside(path) as aside:
        np.savez(aside, text=text, labels=labels, **others, **numbers)
    print(f"{path.name}: {len(labels)} labels")


def write_towers(net: LSegNet, formats: list[str], folder: Path, about: dict[str, Any]) -> dict[str, Any]:
    """File name -> opset and largest difference from PyTorch."""
    from modules.exporting import ExportTower, trace, write_onnx, write_program

    writers = {"onnx": write_onnx, "pt2": write_program}
    tower = ExportTower(net).eval()
    program, written = trace(tower), {}
    for suffix in formats:
        start, path = time.time(), folder / f"{NAME}.{suffix}"
        written[path.name] = writers[suffix](program, path, tower, about)
        print(
            f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, {time.time() - start:.0f} s, differs from PyTorch by "
            f"{written[path.name]['largest_difference']:.1e}"
        )
    return written


if __name__ == "__main__":
    run_script(main)
