"""Show what a label list does to a segmentation: the same pictures under synonyms, templates, distractors, typos ...

Each picture goes through the network once and is compared with all lists. If the run is interrupted, the same command
resumes.
"""

from __future__ import annotations

import lseg_utils.interrupt  # noqa: F401  first: Ctrl-C while the rest is imported is quiet

# isort: split

import argparse
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from data import check_dataset, get_dataset
from lseg_utils.cli import Parser
from lseg_utils.distributed import join_group, run_distributed
from lseg_utils.errors import InputError, raise_all
from lseg_utils.files import REPOSITORY, unwritable
from lseg_utils.lock import locked
from lseg_utils.progress import is_rank_zero
from openvocab.changes import Vocabulary, changes_of
from openvocab.choice import add_model_options, check_model, check_short_side
from openvocab.look import PROTOCOLS, SHORT_SIDE, look_at


def build_parser() -> Parser:
    """The options of this script."""
    parser = Parser(__doc__)
    parser.add_argument("--dataset", default="ade20k", help="use the dataset of this name, or of this YAML file")
    parser.add_argument("--data_path", type=Path, help="look for the datasets in this folder")
    parser.add_argument("--split", default="val", help="use this split")
    parser.add_argument("--images", type=int, help="use only this many pictures, the first ones")
    add_model_options(parser, saved=False)
    parser.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default="single",
        help="process the pictures as test_openvocab.py does",
    )
    parser.add_argument(
        "--short_side", type=int, default=SHORT_SIDE, help="set the short side of --protocol short-side"
    )
    words = "read synonyms, groups and other languages from this JSON file; ade20k and miniature have a built-in one"
    parser.add_argument("--vocabulary", type=Path, help=words)
    parser.add_argument("--seed", type=int, default=0, help="seed the order of the labels and the typos")
    place = "write the report to this folder; default: outputs/robustness_<dataset>_<model>"
    parser.add_argument("--output_dir", type=Path, help=place)
    parser.add_argument("--workers", type=int, default=2, help="read pictures ahead in this many processes")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Check everything, count every picture under every label list, report."""
    options = build_parser().parse(argv)
    folder, vocabulary = check(options)

    # What follows takes seconds to import, so it comes after everything that is quickly refused.
    from modules.device import resolve_device
    from openvocab.loading import load_segmenter
    from openvocab.models import picture_names
    from openvocab.robustness import compare, predictions, prepare
    from openvocab.suite import Pictures, picture_by_picture, pixels_of

    device = join_group(resolve_device(options.device))
    given = (options.weights, options.clip, options.model, options.backbone, options.trust_checkpoint)
    model, name, fingerprint = load_segmenter(str(device), options.precision, *given)
    where = {"split": options.split, "mode": "testval", "transform": pixels_of}
    dataset: Any = get_dataset(options.dataset, options.data_path, **where)
    changes = changes_of(dataset.labels, vocabulary, options.seed)
    prepared, look = prepare(model, changes), look_at(options.protocol, dataset, options.short_side)
    names = picture_names([dataset.name_of(i) for i in range(len(dataset))])[: options.images]
    facts = {
        "model": name,
        "fingerprint": fingerprint,
        "dataset": dataset.name,
        "split": options.split,
        "pictures": len(names),
        "protocol": f"{options.protocol}: {look.describe()}",
        "precision": model.precision,
        "seed": options.seed,
    }

    def count(index: int, image: Any, truth: Any) -> dict[str, Any]:
        """Predict one picture under every list; what is kept of it."""
        return compare(prepared, predictions(model, prepared, image, look), truth.numpy())

    with locked(folder, "--output_dir") if is_rank_zero() else nullcontext():
        header = {**facts, "changes": [[change.name, list(change.labels)] for change in changes]}
        pictures = Pictures(dataset, names, range(len(dataset.labels)))
        records = picture_by_picture(pictures, count, header, folder, options.workers, "label lists")
        if records is not None:
            report(folder, facts, prepared, records, model, dataset, look)


def check(options: argparse.Namespace) -> tuple[Path, Vocabulary]:
    """The folder of the report and the vocabulary; one ``InputError`` with everything that is wrong."""
    numbers = {"--workers": (options.workers, 0), "--images": (options.images, 1), "--seed": (options.seed, 0)}
    problems = [
        f"{flag} is {value}; give at least {least}"
        for flag, (value, least) in numbers.items()
        if value is not None and value < least
    ]
    model, vocabulary, *_ = raise_all(
        problems,
        lambda: check_model(options, saved=False),
        lambda: Vocabulary.read(options.vocabulary, Path(options.dataset).stem),
        lambda: check_dataset(options.dataset, options.data_path, (options.split,)),
        lambda: check_short_side(options.short_side),
    )
    folder = options.output_dir or REPOSITORY / "outputs" / f"robustness_{Path(options.dataset).stem}_{model}"
    if problem := unwritable(folder, "--output_dir"):
        raise InputError(problem)
    return folder, vocabulary


def report(
    folder: Path, facts: dict[str, Any], prepared: Any, records: Any, model: Any, dataset: Any, look: Any
) -> None:
    """results.json, table.txt and report.html; the table is printed."""
    from lseg_utils.files import write_aside
    from lseg_utils.git import git_state
    from lseg_utils.html_page import write_page
    from lseg_utils.results import versions, write_json
    from openvocab.robustness import as_text, order_matters, page_parts, summary, worst_pictures, worst_sheet
    from openvocab.table import PACKAGES

    rows = summary([one.change for one in prepared], records)
    facts = {**facts, "versions": versions(PACKAGES), "git": git_state()}
    write_json(folder / "results.json", {**facts, "order_check": order_matters(rows), "rows": rows})
    text = f"{as_text(rows)}\n\n{order_matters(rows)}"
    with write_aside(folder / "table.txt") as aside:
        aside.write_text(text + "\n", encoding="utf-8")
    worst = worst_pictures(rows, records)
    picture = worst_sheet(model, prepared, dataset, worst, look) if worst else None
    write_page(folder / "report.html", f"What labels do to {facts['model']}", page_parts(rows, facts, picture))
    print(f"{text}\n\nwrote {folder / 'results.json'} and {folder / 'report.html'}")


if __name__ == "__main__":
    run_distributed(main)
