"""Datasets on disk: list the known ones, check or draw one, or convert its masks to PNG files of label numbers.

An interrupted conversion resumes with the same command.
"""

from __future__ import annotations

import lseg_utils.interrupt  # noqa: F401  first: Ctrl-C while the rest is imported is quiet

# isort: split

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data import DEFAULT_ROOT, get_dataset, problems
from data.description import Description, is_description, known_datasets, read_description
from lseg_utils.cli import Parser
from lseg_utils.errors import InputError, run_script
from lseg_utils.progress import progress_bar
from lseg_utils.results import text_table


def build_parser() -> Parser:
    """The options of ``python -m data``."""
    parser = Parser(__doc__, prog="python -m data")
    commands = ("list", "check", "show", "prepare")
    parser.add_argument("command", choices=commands, help="list the known datasets; check, draw or convert one")
    parser.add_argument("dataset", nargs="?", help="take the dataset of this name, or of this YAML file")
    parser.add_argument("--data_path", type=Path, help="look for the files in this folder")
    parser.add_argument("--deep", action="store_true", help="also decode every mask and count its values")
    parser.add_argument("--split", help="show this split (default val), or convert it alone")
    place = "write the sheet to this file (sheet.png), or converted masks to this folder (prepared/NAME below the data)"
    parser.add_argument("--out", type=Path, help=place)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 1 if something is wrong with the checked dataset."""
    options = build_parser().parse(argv)
    if options.command == "list":
        known = map(read_description, known_datasets())
        rows = [(d.name, len(d.labels), ", ".join(d.splits), d.licence, d.about) for d in known]
        print(text_table(("dataset", "labels", "splits", "licence", "about"), rows))
        return 0
    if not options.dataset or not is_description(options.dataset):
        what = f"{options.dataset!r} is not described by a YAML file" if options.dataset else "no dataset is given"
        raise InputError(f"{what}; give one of {', '.join(known_datasets())}, or your own YAML file")
    if options.command == "show":
        from data.showing import dataset_sheet
        from lseg_utils.pictures import save_picture

        dataset = get_dataset(options.dataset, options.data_path, options.split or "val", "testval")
        out = options.out or Path("sheet.png")
        save_picture(out, dataset_sheet(dataset))
        print(f"wrote {out}")
        return 0
    description = read_description(options.dataset)
    root = Path(os.path.abspath(options.data_path or description.root or DEFAULT_ROOT))
    if options.command == "prepare":
        prepare_masks(description, root, options.split, options.out)
        return 0
    found = problems(options.dataset, options.data_path, tuple(description.splits))
    if options.deep:
        found += count_values(description, root)
    for text in found:
        print(text)
    splits = ", ".join(description.splits)
    if not found:
        print(f"{description.name} ({splits}; {len(description.labels)} labels): nothing is wrong")
    return int(bool(found))


def prepare_masks(description: Description, root: Path, split: str | None, out: Path | None) -> None:
    """Convert the masks of a split, or of all that have masks; print what was written and each label's share."""
    from data.preparing import prepare

    with_masks = [name for name, parts in description.splits.items() if any(part.masks for part in parts)]
    if split and split not in with_masks:
        raise InputError(f"{description.name} has no split {split!r} with masks; choose one of {', '.join(with_masks)}")
    splits = [split] if split else with_masks
    folder = Path(os.path.abspath(out or root / "prepared" / description.name))
    path, masks, pixels = prepare(description, root, splits, folder)
    for name in splits:
        official = description.counts.get(name)
        compared = f" (officially {official:,})" if official else ""
        compared = ", as many as officially" if official == masks[name] else compared
        print(f"{description.name}, split {name}: {masks[name]:,} masks{compared}")
    print_shares(description, splits, list(pixels))
    print(f"wrote {path}; give it as --dataset, or as --datasets BENCHMARK={path} to test_openvocab.py")


def print_shares(description: Description, splits: Sequence[str], pixels: Sequence[np.ndarray]) -> None:
    """A table of each label's share; ``pixels``: for each split, those of each label, the last unlabelled."""
    shares = [100 * counts / max(counts.sum(), 1) for counts in pixels]
    names = (*description.labels, "(unlabelled)")
    rows = [(label, *(float(share[i]) for share in shares)) for i, label in enumerate(names)]
    print(text_table(("label", *(f"{split}, % of pixels" for split in splits)), [rows[-1], *rows[:-1]]))


def count_values(description: Description, root: Path) -> list[str]:
    """Print how many pixels each label has in each split; return a sentence for each mask that cannot be used."""
    from data.described import files_of, segments_of
    from data.masks import MaskReader

    reader = MaskReader(description.masks, tuple(range(len(description.labels))), description.name)
    wrong, columns = [], []
    for split in description.splits:
        counts = np.zeros(len(description.labels) + 1, np.int64)
        masks = [mask for _, mask in files_of(description, root, split)[0] if mask]
        for mask in progress_bar(masks, desc=f"decoding {split}", unit="mask", leave=False):
            try:
                target = reader.target(mask, segments_of(description, root, split, mask))
                counts += np.bincount(target.ravel(), minlength=len(counts))
            except InputError as error:
                wrong.append(str(error))
        columns.append(np.roll(counts, -1))
    print_shares(description, list(description.splits), columns)
    return wrong


if __name__ == "__main__":
    run_script(main)
