"""Datasets: list the known ones, check or draw one, convert its masks to PNG files, compare the labels of several.

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
from data.conflicts import compare_sets, conflict_rows
from data.description import Description, is_description, known_datasets, read_description
from data.joint import described_dataset, list_of
from data.label_table import LabelTable
from data.relations import KNOWN as RELATIONS
from data.relations import Relations
from lseg_utils.cli import Parser
from lseg_utils.errors import InputError, raise_all, run_script
from lseg_utils.progress import progress_bar
from lseg_utils.results import text_table, write_json


def build_parser() -> Parser:
    """The options of ``python -m data``."""
    parser = Parser(__doc__, prog="python -m data")
    what = "list the known datasets; check, draw or convert one; or show conflicts between the labels of several"
    commands = ("list", "check", "show", "prepare", "conflicts")
    parser.add_argument("command", choices=commands, help=what)
    parser.add_argument("dataset", nargs="*", help="use the dataset with this name, or the one in this YAML file")
    parser.add_argument("--data_path", type=Path, help="look for the files in this folder")
    parser.add_argument("--deep", action="store_true", help="also decode every mask and count its values")
    parser.add_argument("--split", help="show this split (default val), or convert it alone")
    place = "write the sheet to this file (sheet.png), or converted masks to this folder (prepared/NAME below the data)"
    parser.add_argument("--out", type=Path, help=place)
    group = parser.add_argument_group("conflicts")
    group.add_argument("--label_table", type=Path, help="first rename, drop and unite labels as this YAML file says")
    group.add_argument("--label_src", help="use this list of labels, where a dataset has it")
    known = "read synonyms, parts and catch-alls from this file; default: the built-in one"
    group.add_argument("--relations", type=Path, default=RELATIONS, help=known)
    group.add_argument("--json", type=Path, help="also write what is found to this file")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 1 if something is wrong with the checked dataset."""
    options = build_parser().parse(argv)
    if options.command == "list":
        known = map(read_description, known_datasets())
        rows = [(d.name, len(d.labels), ", ".join(d.splits), d.licence, d.about) for d in known]
        print(text_table(("dataset", "labels", "splits", "licence", "about"), rows))
        return 0
    if options.command == "conflicts":
        return show_conflicts(options.dataset, options.label_table, options.label_src, options.relations, options.json)
    if len(options.dataset) != 1 or not is_description(options.dataset[0]):
        given = f"{options.dataset[0]!r} is not described by a YAML file" if options.dataset else "no dataset is given"
        what = f"{options.command} takes one dataset" if len(options.dataset) > 1 else given
        raise InputError(f"{what}; give one of {', '.join(known_datasets())}, or your own YAML file")
    (options.dataset,) = options.dataset
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
        print(f"{description.name} ({splits}; {len(description.labels)} labels): no problems found")
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
        compared = ", the official number" if official == masks[name] else compared
        print(f"{description.name}, split {name}: {masks[name]:,} masks{compared}")
    print_shares(description, splits, list(pixels))
    print(f"wrote {path}; give it as --dataset, or as --datasets BENCHMARK={path} to test_openvocab.py")


def print_shares(description: Description, splits: Sequence[str], pixels: Sequence[np.ndarray]) -> None:
    """A table of each label's share; ``pixels``: for each split, those of each label, the last unlabelled."""
    shares = [100 * counts / max(counts.sum(), 1) for counts in pixels]
    names = (*description.labels, "(unlabelled)")
    rows = [(label, *(float(share[i]) for share in shares)) for i, label in enumerate(names)]
    print(text_table(("label", *(f"{split}, % of pixels" for split in splits)), [rows[-1], *rows[:-1]]))


def show_conflicts(
    names: Sequence[str], table: Path | None, label_src: str | None, relations: Path, output: Path | None
) -> int:
    """Print where the label sets of datasets agree and disagree; exit code 0, since that is for a person to judge."""
    if len(names) < 2:
        raise InputError(
            "conflicts compares label sets; give at least two datasets, as in: conflicts ade20k cityscapes"
        )
    described = raise_all([], *[lambda name=name: described_dataset(name) for name in names])
    labels, known = LabelTable(table), Relations.read(relations)
    labels.check_names([one.name for one in described])
    lists = [one.read_labels(list_of(one, label_src), testing=False)[0] for one in described]
    found = compare_sets([labels.settle(one.name, own)[0] for one, own in zip(described, lists, strict=True)], known)
    print(text_table(("dataset", "labels"), list(found["counts"].items())))
    print(f"{found['total']} labels, {found['distinct']} distinct, {found['shared']} shared by two or more datasets")
    same = [(name, len(sets), ", ".join(sets)) for name, sets in found["same"].items()]
    print(text_table(("same name", "sets", "datasets"), sorted(same, key=lambda row: (-row[1], row[0]))))
    print(text_table(("conflict", "labels", "what to do"), conflict_rows(found)))
    if output:
        write_json(output, found)
        print(f"wrote {output}")
    return 0


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
