"""Reproduce the paper: list its tables and figures, or run one and compare it with what was published.

Without arguments: print a list of what each table shows, the published numbers with their sources, what it needs, and
what has run here. With names of tables: train and test their networks, and write table.txt, table.json and report.html.
If a run is interrupted, the same command resumes.
"""

from __future__ import annotations

import lseg_utils.interrupt  # noqa: F401  first: Ctrl-C while the rest is imported is quiet

# isort: split

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext, redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path

from apps.web.places import SAMPLE, is_miniature, sample_pictures
from lseg_utils.cli import Parser
from lseg_utils.errors import InputError, did_you_mean, raise_all, run_script
from lseg_utils.files import REPOSITORY
from modules.choices import MODES
from paper.entries import Entry, Row, chosen_entries, entries
from paper.label_sets import SCENES, FigureRow, rows_of_file, rows_of_scene
from paper.report import describe, listing, report
from paper.running import RELEASED, Plan, missing, reproduce, wrong_weights

Chosen = list[tuple[Entry, list[Row]]]


def build_parser() -> Parser:
    """The options of this script."""
    parser = Parser(__doc__)
    names = ", ".join(f"{entry.name} ({entry.alias})" for entry in entries())
    parser.add_argument("entries", nargs="*", help=f"reproduce these: all, {names}; none: print the list")
    parser.add_argument("--json", action="store_true", help="print the list as JSON")
    output = "keep runs and tables in this folder; default: outputs/paper, or a temporary folder in a dry run"
    parser.add_argument("--output_dir", type=Path, help=output)
    dry = "run everything on tiny stand-in data with tiny networks, in minutes on a CPU"
    parser.add_argument("--dry_run", action="store_true", help=dry)
    add = parser.add_argument_group("tables").add_argument
    known = list(dict.fromkeys(row.backbone for entry in entries() for row in entry.rows))
    backbones = f"reproduce only the rows with these backbones: {', '.join(known)}"
    add("--backbone", nargs="+", choices=known, metavar="BACKBONE", help=backbones)
    add("--row", nargs="+", default=[], help="reproduce only these rows; the list shows their names")
    folds = "run only these folds; FSS-1000 and ADE20K have none and are run whole"
    add("--fold", type=int, nargs="+", choices=(0, 1, 2, 3), default=[], help=folds)
    add("--seeds", type=int, default=1, help="train with this many seeds, 0, 1, ...; gives mean and deviation")
    rates = "try these rates in zero-shot training, keep the best by validation; default: the recipe's"
    add("--lrs", type=float, nargs="+", default=[], help=rates)
    weights = "test instead of training: 'released' for the files of the model zoo in checkpoints/, or your file for "
    weights += "one row, in whose name %% stands for the fold; for figures: the checkpoint to use"
    add("--weights", default="", help=weights)
    add("--ade20k_path", type=Path, help="look for ADE20K in this folder; default: ../datasets")
    add("--fewshot_path", type=Path, help="look for the zero-shot benchmarks here; default: data/Dataset_HSN")
    words = (
        "pass these to the training script, such as '--batch_size 4 --devices 2'; a single word needs an equals sign: "
    )
    words += "--train_options=--compile"
    add("--train_options", type=shlex.split, default=[], metavar="WORDS", help=words)
    add(
        "--test_options",
        type=shlex.split,
        default=[],
        metavar="WORDS",
        help="pass these to the test script, such as '--precision 32'",
    )
    add = parser.add_argument_group("figures").add_argument
    sample = "segment these pictures; default: the quickstart's, or a photograph of scikit-image, as suits the network"
    add("--image", type=Path, nargs="+", default=[], help=sample)
    add("--scene", choices=SCENES, help="use the label sets for this kind of picture; default: animal")
    add("--label_sets", type=Path, help="read the label sets from this JSON file instead")
    add("--mode", choices=MODES, default="whole", help="process the picture in this way")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """List, or check everything and run."""
    options = build_parser().parse(argv)
    folder = options.output_dir or REPOSITORY / "outputs" / "paper"
    if options.dry_run and not options.entries:
        raise InputError("--dry_run needs to know what to run: all, or the names of tables")
    if not options.entries:
        found = listing(folder)
        print(json.dumps(found, indent=1, ensure_ascii=False) if options.json else describe(found, folder))
        return
    plan, chosen, with_figures = check(options, folder)
    if options.dry_run:
        dry_run(options, plan, chosen, with_figures)
        return
    for entry, rows in chosen:
        for row in rows:
            reproduce(entry, row, plan, run_process)
        print(f"\n{report(entry, plan)}\nwrote {plan.folder / entry.name / 'table.json'}\n")
    if with_figures:
        figures(options, Path(options.weights), plan.folder / "figures")


def check(options: argparse.Namespace, folder: Path) -> tuple[Plan, Chosen, bool]:
    """What is asked for, and whether figures are; one ``InputError`` with everything that is wrong or missing."""
    problems = [] if options.seeds >= 1 else [f"--seeds is {options.seeds}; give at least 1"]
    wanted, plan = raise_all(
        problems,
        lambda: chosen_entries(options.entries),
        lambda: Plan(
            folder,
            tuple(range(options.seeds)),
            tuple(sorted(set(options.fold))),
            tuple(options.lrs),
            options.weights,
            options.ade20k_path,
            options.fewshot_path,
            tuple(options.train_options),
            tuple(options.test_options),
        ),
    )
    chosen, problems = rows_to_run(options, wanted, plan)
    with_figures = any(entry.kind == "figures" for entry in wanted)
    if options.lrs and chosen and all(entry.kind != "zero_shot" for entry, _ in chosen):
        problems.append("--lrs is for zero-shot training; elsewhere give --train_options '--base_lr RATE'")
    if options.weights:
        idle = {"--seeds": options.seeds > 1, "--lrs": options.lrs, "--train_options": options.train_options}
        given = ", ".join(name for name, value in idle.items() if value)
        problems += [f"{given} would have no effect: --weights tests without training; leave one out"] if given else []
    if not options.dry_run:
        for entry, rows in chosen:
            problems += wrong_weights(entry, rows, plan)
        problems += missing(chosen, plan)
        is_file = options.weights not in ("", RELEASED) and Path(options.weights).is_file()
        if with_figures and not is_file and "all" in options.entries:
            print("note: the figures are left out; they need --weights with the path of one checkpoint")
            with_figures = False
        elif with_figures:
            problems += figure_problems(options, is_file)
    raise_all(problems, lambda: label_sets(options, ""))
    return plan, chosen, with_figures


def rows_to_run(options: argparse.Namespace, wanted: Sequence[Entry], plan: Plan) -> tuple[Chosen, list[str]]:
    """The tables with their rows, and what is wrong with the choice. Rows of "all" that cannot run are left out."""
    names = [row.name for entry in wanted for row in entry.rows]
    problems = [
        f"there is no row {name!r}{did_you_mean(name, names)}; choose some of {', '.join(names)}"
        for name in options.row
        if name not in names
    ]
    chosen: Chosen = []
    for entry in (entry for entry in wanted if entry.kind != "figures"):
        rows = [row for row in entry.rows if not options.backbone or row.backbone in options.backbone]
        rows = [row for row in rows if not options.row or row.name in options.row]
        reasons = {} if options.dry_run else {row.name: plan.runnable(entry, row) for row in rows}
        left = [row for row in rows if not reasons.get(row.name)]
        if left:
            chosen.append((entry, left))
            for name, reason in reasons.items():
                if reason:
                    print(f"note: {entry.name}, {name} is left out: {reason}")
        elif "all" not in options.entries:
            known = ", ".join(f"{row.name} ({row.backbone})" for row in entry.rows)
            why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
            why = why or "no row has that --row and --backbone"
            problems.append(f"{entry.name} has nothing to run ({why}); its rows are {known}")
    return chosen, problems


def figure_problems(options: argparse.Namespace, is_file: bool) -> list[str]:
    """What the figures lack: a checkpoint (``is_file``: it is there), or pictures."""
    problems = [f"figures: there is no picture {path}" for path in options.image if not path.is_file()]
    if not is_file:
        problems.append(f"figures: there is no checkpoint {options.weights or '(none given)'}; name one with --weights")
    elif not pictures(options):
        what = "figures: name a picture with --image, and --scene for its kind"
        problems.append(f"{what} (`pip install scikit-image` brings a photograph of a cat)")
    return problems


def pictures(options: argparse.Namespace) -> list[Path]:
    """Those of ``--image``, else one that suits the checkpoint; none where a photograph would be needed."""
    if options.image or options.dry_run:
        return options.image or [SAMPLE]
    return [SAMPLE] if is_miniature(Path(options.weights)) else sample_pictures(Path(options.weights))[:1]


def label_sets(options: argparse.Namespace, dataset: str) -> tuple[FigureRow, ...]:
    """The rows of the figures; ``dataset``: what the network was trained on."""
    if options.label_sets:
        return rows_of_file(options.label_sets)
    return rows_of_scene(options.scene or ("miniature" if dataset.startswith("miniature") else "animal"))


def run_process(script: str, arguments: Sequence[str]) -> None:
    """Run a script in a process of its own; a test on all GPUs, as a training does by itself."""
    import torch

    launch, gpus = [sys.executable, "-u"], torch.cuda.device_count()
    if script.startswith("test") and gpus > 1:
        launch += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(gpus)]
    code = subprocess.run([*launch, str(REPOSITORY / script), *arguments]).returncode
    if code:
        raise InputError(f"{script} ended with exit code {code}, see its message above; the same command resumes")


def dry_run(options: argparse.Namespace, plan: Plan, chosen: Chosen, with_figures: bool) -> None:
    """Walk through the entries in this process; what the scripts print goes to a log."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # networks this small gain nothing from more
    from dataclasses import replace

    from paper.dry_run import WARNING, walk

    place = nullcontext(str(options.output_dir)) if options.output_dir else tempfile.TemporaryDirectory()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(place))
        folder.mkdir(parents=True, exist_ok=True)
        log = stack.enter_context((folder / "log.txt").open("a", encoding="utf-8"))

        def run_here(script: str, arguments: Sequence[str]) -> None:
            print(f"  {script} {shlex.join(arguments)[:100]} ...", flush=True)
            with redirect_stdout(log), redirect_stderr(log):
                import_module(script.removesuffix(".py")).main(list(arguments))

        plan = replace(plan, folder=folder, weights="")
        walked = walk(chosen, folder, plan, run_here)
        for entry, own in walked:
            print(f"\n{report(entry, own)}")
        if with_figures:
            checkpoint = next(folder.glob("table*/*/runs/*/version_*/checkpoints/last.ckpt"), None)
            if checkpoint is None:
                raise InputError(
                    "the dry run of the figures uses a network of a table's dry run; name a table too, or all"
                )
            figures(options, checkpoint, folder / "figures", WARNING)
    print("\nthe dry run is complete" + (f"; everything is in {folder}" if options.output_dir else ""))


def figures(options: argparse.Namespace, checkpoint: Path, folder: Path, warning: str = "") -> None:
    """Write the sheets, with ``warning`` on them."""
    from lseg_utils.files import sha256_of
    from lseg_utils.git import git_state
    from lseg_utils.image_input import read_rgb
    from modules.predictor import LSegPredictor
    from paper.figures import make_figures

    predictor = LSegPredictor.from_checkpoint(checkpoint)
    images = {path.stem: read_rgb(path).permute(1, 2, 0).numpy() for path in pictures(options)}
    facts = {"checkpoint": checkpoint, "SHA-256": sha256_of(checkpoint), "mode": options.mode, **git_state()}
    facts["network"] = predictor.net.architecture["backbone"]
    rows = label_sets(options, predictor.net.metadata.get("dataset", ""))
    files = make_figures(
        folder, images, rows, lambda image, labels: predictor.segment(image, list(labels), options.mode), facts, warning
    )
    print(f"wrote {', '.join(map(str, files))}")


if __name__ == "__main__":
    run_script(main)
