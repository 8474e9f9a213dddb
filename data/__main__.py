"""Datasets on disk: list the known ones, check one for everything that is wrong with it, or draw a sheet of it."""

from __future__ import annotations

import lseg_utils.interrupt  # noqa: F401  first: Ctrl-C while the rest is imported is quiet

# isort: split

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
    parser.add_argument("command", choices=("list", "check", "show"), help="list the known datasets, check or draw one")
    parser.add_argument("dataset", nargs="?", help="take the dataset of this name, or of this YAML file")
    parser.add_argument("--data_path", type=Path, help="look for the files in this folder")
    parser.add_argument("--deep", action="store_true", help="also decode every mask and count its values")
    parser.add_argument("--split", default="val", help="show this split")
    parser.add_argument("--out", type=Path, default=Path("sheet.png"), help="write the sheet of show to this file")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 1 if something is wrong with the checked dataset."""
    options = build_parser().parse(argv)
    if options.command == "list":
        rows = [(d.name, len(d.labels), ", ".join(d.splits), d.about) for d in map(read_description, known_datasets())]
        print(text_table(("dataset", "labels", "splits", "about"), rows))
        return 0
    if not options.dataset or not is_description(options.dataset):
        what = f"{options.dataset!r} is not described by a YAML file" if options.dataset else "no dataset is given"
        raise InputError(f"{what}; give one of {', '.join(known_datasets())}, or your own YAML file")
    if options.command == "show":
        from data.showing import dataset_sheet
        from lseg_utils.pictures import save_picture

        dataset = get_dataset(options.dataset, options.data_path, options.split, "testval")
        save_picture(options.out, dataset_sheet(dataset))
        print(f"wrote {options.out}")
        return 0
    description = read_description(options.dataset)
    root = options.data_path or description.root or DEFAULT_ROOT
    found = problems(options.dataset, options.data_path, tuple(description.splits))
    if options.deep:
        found += count_values(description, Path(root))
    for text in found:
        print(text)
    splits = ", ".join(description.splits)
    if not found:
        print(f"{description.name} ({splits}; {len(description.labels)} labels): nothing is wrong")
    return int(bool(found))


def count_values(description: Description, root: Path) -> list[str]:
    """Print how many pixels each label has in each split; return a sentence for each mask that cannot be used."""
    from data.described import files_of, segments_of
    from data.masks import MaskReader

    reader = MaskReader(description.masks, tuple(range(len(description.labels))), description.name)
    wrong, header, columns = [], ["label"], []
    for split in description.splits:
        counts = np.zeros(len(description.labels) + 1, np.int64)
        masks = [mask for _, mask in files_of(description, root, split)[0] if mask]
        for mask in progress_bar(masks, desc=f"decoding {split}", unit="mask", leave=False):
            try:
                target = reader.target(mask, segments_of(description, root, split, mask))
                counts += np.bincount(target.ravel(), minlength=len(counts))
            except InputError as error:
                wrong.append(str(error))
        header.append(f"{split}, % of pixels")
        columns.append(100 * counts / max(counts.sum(), 1))
    rows = [(label, *(float(c[i]) for c in columns)) for i, label in enumerate(("(unlabelled)", *description.labels))]
    print(text_table(header, rows))
    return wrong


if __name__ == "__main__":
    run_script(main)
