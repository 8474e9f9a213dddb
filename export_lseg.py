"""Write LSeg for programs that do not have this code: the image tower as ONNX and torch.export, the labels' matrix.

The labels' matrix is a NumPy file, made once here, so CLIP's text tower is not needed where the files are used;
examples/onnx_segment.py segments with onnxruntime and NumPy alone. Every file is compared with PyTorch at two sizes
before it is kept.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.labels import labels_from
from lseg_utils.cli import Parser, doubts_as_notes
from lseg_utils.errors import InputError, raise_all, run_script
from lseg_utils.files import REPOSITORY, unwritable, write_aside
from lseg_utils.results import write_json
from modules.checkpoints import git_state, load_lseg, read_checkpoint
from modules.exporting import ExportTower, facts, missing_packages, trace, write_onnx, write_program
from modules.models import LSegNet
from modules.options import weights_name

WRITERS = {"onnx": write_onnx, "pt2": write_program}
NAME = "lseg"


def build_parser() -> Parser:
    """The options of this script."""
    parser = Parser(__doc__)
    parser.add_argument("--weights", "--checkpoint", type=Path, required=True, help="official or own checkpoint")
    parser.add_argument("--labels", help="'cat, grass, other', or a file, one a line; default: the checkpoint's own")
    parser.add_argument(
        "--formats", nargs="*", choices=list(WRITERS), default=list(WRITERS), help="none: only the labels' matrix"
    )
    parser.add_argument("--output_dir", type=Path, help="default: outputs/export_<weights>")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")
    parser.add_argument("--trust_checkpoint", action="store_true", help="run code found in the file: risky")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Check everything, load, write and verify file after file."""
    options = build_parser().parse(argv)
    folder = options.output_dir or REPOSITORY / "outputs" / f"export_{weights_name(options.weights)}"
    given: list[str] = []
    with doubts_as_notes():
        raise_all(
            output_problems(options, folder),
            lambda: given.extend([] if options.labels is None else labels_from(options.labels)),
            lambda: refuse_block(options),
        )
    net = load_lseg(options.weights, trust_checkpoint=options.trust_checkpoint)
    labels = given or net.labels
    if labels is None:
        raise InputError(f'{options.weights} has no labels of its own; add --labels "cat, grass, other" or a file')
    write_text(net, labels, folder / f"{NAME}.npz")
    if options.formats:
        about = {**facts(net), "weights": options.weights.name, "git": git_state()}
        written = write_towers(net, options.formats, folder, about)
        write_json(folder / f"{NAME}.json", {**about, "files": written})
        print(f"wrote {folder / NAME}.json, which describes them")


def output_problems(options: argparse.Namespace, folder: Path) -> list[str]:
    """A folder that cannot be written to, files that are there already, packages that are not."""
    problems = [text] if (text := unwritable(folder, "--output_dir")) else []
    names = [f"{NAME}.{suffix}" for suffix in (*options.formats, "npz")]
    there = [name for name in names if (folder / name).exists()]
    if there and not options.overwrite:
        problems.append(f"{folder} has {', '.join(there)} already; add --overwrite, or name another --output_dir")
    missing = missing_packages() if "onnx" in options.formats else []
    if missing:
        problems.append(f"ONNX needs {', '.join(missing)}: pip install {' '.join(missing)} (or --formats pt2)")
    return problems


def refuse_block(options: argparse.Namespace) -> None:
    """A regularisation block works on the labels' maps, outside the image tower, and would be left out silently."""
    if read_checkpoint(options.weights, options.trust_checkpoint).has_block:
        raise InputError(
            f"{options.weights} has a spatial regularisation block, which comes after the product with the labels: it "
            "is no part of the image tower, and the exported files would give other labels; export a checkpoint without"
        )


def write_text(net: LSegNet, labels: list[str], path: Path) -> None:
    """labels, text (N, C) unit vectors, long_side, mean, std, logit_scale, architecture (as JSON): what towers lack."""
    try:
        text = net.encode_labels(labels).numpy()
    except ValueError as error:
        raise InputError(f"{error} (in --labels)") from error
    known = facts(net)
    numbers = {name: np.asarray(known[name], np.float32) for name in ("mean", "std", "logit_scale")}
    others = {"long_side": known["long_side"], "architecture": json.dumps(known["architecture"])}
    with write_aside(path) as aside:
        np.savez(aside, text=text, labels=labels, **others, **numbers)
    print(f"wrote {path}: {len(labels)} labels")


def write_towers(net: LSegNet, formats: list[str], folder: Path, about: dict[str, Any]) -> dict[str, Any]:
    """File name -> opset and largest difference from PyTorch."""
    tower = ExportTower(net).eval()
    program, written = trace(tower), {}
    for suffix in formats:
        start, path = time.time(), folder / f"{NAME}.{suffix}"
        written[path.name] = WRITERS[suffix](program, path, tower, about)
        print(
            f"wrote {path}: {path.stat().st_size / 1e6:.1f} MB, {time.time() - start:.0f} s, differs from PyTorch by "
            f"{written[path.name]['largest_difference']:.1e}"
        )
    return written


if __name__ == "__main__":
    run_script(main)
