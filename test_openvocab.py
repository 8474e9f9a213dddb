"""Test LSeg, a plain CLIP, a model of your own or saved predictions on any set of open-vocabulary benchmarks.

One command, one table. If it is interrupted, the same command resumes. On several GPUs:
``torchrun --nproc_per_node 8 test_openvocab.py ...``; each process then tests a share of the pictures.
"""

from __future__ import annotations

import lseg_utils.interrupt  # noqa: F401  first: Ctrl-C while the rest is imported is quiet

# isort: split

import argparse
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from data import get_dataset
from lseg_utils.cli import Parser, chosen
from lseg_utils.distributed import join_group, run_distributed
from lseg_utils.errors import InputError, raise_all
from lseg_utils.files import unwritable
from lseg_utils.lock import locked
from lseg_utils.progress import is_rank_zero
from openvocab.benchmarks import GROUPS, Benchmark, task_of
from openvocab.choice import add_model_options, add_wording_options, check_model, check_short_side, find_datasets
from openvocab.look import PROTOCOLS, SHORT_SIDE, look_at
from openvocab.wording import Wording


def build_parser() -> Parser:
    """The options of this script."""
    parser = Parser(__doc__)
    names = (
        f"all ({', '.join(GROUPS['all'])}), mess ({', '.join(GROUPS['mess'])}), some of these, datasets, YAML files "
    )
    names += "of datasets, or BENCHMARK=FILE for a benchmark on your own copy, with commas between them"
    parser.add_argument("--datasets", required=True, help=f"test on these benchmarks: {names}")
    parser.add_argument(
        "--data_path", type=Path, help="look for the datasets in this folder, except for those of YAML files"
    )
    add_model_options(parser)
    looks = "use the dataset's published protocol (else six scales and mirror images), scale 1 alone, or the whole "
    looks += "picture once"
    parser.add_argument("--protocol", choices=PROTOCOLS, default="published", help=looks)
    parser.add_argument(
        "--short_side", type=int, default=SHORT_SIDE, help="set the short side of --protocol short-side"
    )
    add_wording_options(parser)
    parser.add_argument(
        "--save_masks", action="store_true", help="also write every prediction, as PNG of class numbers"
    )
    mask_wise = "also compute CP-IoU (needs the probabilities of all labels at once: slow, and takes much memory)"
    parser.add_argument("--cp_iou", action="store_true", help=mask_wise)
    parser.add_argument(
        "--output_dir", type=Path, help="write the results to this folder; default: outputs/openvocab_*"
    )
    parser.add_argument("--workers", type=int, default=2, help="read pictures ahead in this many processes")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Check everything, then test one benchmark after the other."""
    options = build_parser().parse(argv)
    wording, benchmarks, missing, folder = check(options)
    if is_rank_zero():
        for text in missing:
            print(f"missing, left out: {text}")

    # What follows takes seconds to import, so it comes after everything that is quickly refused.
    from modules.device import resolve_device
    from openvocab.loading import load_segmenter
    from openvocab.table import write_table

    device = join_group(resolve_device(options.device))
    if options.predictions:
        model, name, fingerprint = None, f"predictions in {options.predictions}", ""
    else:
        given = (options.weights, options.clip, options.model, options.backbone, options.trust_checkpoint)
        model, name, fingerprint = load_segmenter(str(device), options.precision, *given)
    results = []
    with locked(folder, "--output_dir") if is_rank_zero() else nullcontext():
        for benchmark in benchmarks:
            result = run_benchmark(
                benchmark, options, wording, model, folder, {"model": name, "fingerprint": fingerprint}
            )
            if result is not None:
                results.append(result)
                table = write_table(folder, results, missing)
    if is_rank_zero():
        print(f"\n{table}\n\nwrote {folder / 'results.json'} and {folder / 'report.html'}")
        for text in missing:
            print(f"missing, left out: {text}")


def check(options: argparse.Namespace) -> tuple[Wording, list[Benchmark], list[str], Path]:
    """The label wording, the benchmarks whose datasets are here, what is missing, and the folder of the results."""
    problems = [] if options.workers >= 0 else [f"--workers is {options.workers}; give 0 or more"]
    wording, named, (benchmarks, missing), _ = raise_all(
        problems,
        lambda: chosen(Wording, options),
        lambda: check_model(options),
        lambda: find_datasets(options.datasets, options.data_path),
        lambda: check_short_side(options.short_side),
    )
    folder = options.output_dir or Path(__file__).resolve().parent / "outputs" / f"openvocab_{named}"
    if problem := unwritable(folder, "--output_dir"):
        raise InputError(problem)
    if not benchmarks:
        raise InputError("\n".join(["none of the datasets is here:", *missing]))
    return wording, benchmarks, missing, folder


def run_benchmark(
    benchmark: Benchmark, options: argparse.Namespace, wording: Wording, model: Any, folder: Path, facts: dict[str, str]
) -> dict[str, Any] | None:
    """One benchmark: its labels as texts, then all its pictures."""
    from openvocab.models import SavedPredictions, class_probabilities, picture_names, text_matrix
    from openvocab.suite import measure, pixels_of

    dataset = get_dataset(
        benchmark.dataset, benchmark.root(options.data_path), split=benchmark.split, mode="testval", transform=pixels_of
    )
    task, look = task_of(benchmark, dataset.labels), look_at(options.protocol, dataset, options.short_side)
    if model is None:
        saved = SavedPredictions(options.predictions, benchmark.name)
        names = picture_names([dataset.name_of(i) for i in range(len(dataset))])
        raise_all(saved.problems(names))
        facts = {**facts, "fingerprint": saved.fingerprint(names)}

        def predict(image: Any, name: str) -> Any:
            """What was saved: classes, and their probabilities if CP-IoU needs them."""
            asked = name, tuple(image.shape[1:]), len(task.classes)
            return saved.label_map(*asked), saved.probabilities(*asked) if options.cp_iou else None
    else:
        text, owner = text_matrix(model, task.labels, wording)

        def predict(image: Any, name: str) -> Any:
            """Classes, and their probabilities if CP-IoU needs them."""
            seen = model.see(image, look)
            labels = owner[model.best(seen, text)]
            if not options.cp_iou:
                return labels, None
            return labels, class_probabilities(model.probabilities(seen, text), owner, len(task.classes))

    facts = {
        "benchmark": benchmark.name,
        "dataset": dataset.name,
        "split": benchmark.split,
        **facts,
        "protocol": f"{options.protocol}: {look.describe()}",
        **wording.describe(),
        "background": task.background,
        "precision": "of the saved predictions" if model is None else model.precision,
        **({"cp_iou": "of softmax probabilities, at thresholds 0.1 to 0.9"} if options.cp_iou else {}),
        "labels_sha256": task.sha256,
        "labels": [" | ".join(labels) for labels in task.labels],
    }
    if is_rank_zero():
        print(f"\n{benchmark.name}: {len(dataset)} pictures, {len(task.classes)} classes")
        for name, value in facts.items():
            if name not in ("benchmark", "labels"):
                print(f"  {name}: {value}")
    masks = folder / "masks" / benchmark.name if options.save_masks else None
    return measure(benchmark, task, dataset, predict, facts, folder / benchmark.name, options.workers, masks)


if __name__ == "__main__":
    run_distributed(main)
