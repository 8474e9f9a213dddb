"""Run a row of a table: train and test each seed and fold with the usual scripts, and note what is finished.

A row's folder contains ``ledger.jsonl`` (a line for each finished seed and fold), the runs, and the tests' results.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from data import check_dataset
from lseg_utils.errors import InputError, raise_all
from lseg_utils.files import REPOSITORY, file_state
from lseg_utils.ledger import Ledger
from lseg_utils.lock import locked
from modules.released import DATA as ZOO
from paper.entries import Entry, Row
from paper.identity import identity_of
from recipes.select_checkpoint import best_checkpoint

RELEASED = "released"
EPISODES_SHOWN = 8
NETWORK = ("backbone", "arch_option", "block_depth", "activation")  # options that both training and test take
FIX = "How to fix it: "  # begins the second half of the messages about missing data
# (script, its arguments): runs it to its end, and raises ``InputError`` if it fails.
RunScript = Callable[[str, Sequence[str]], None]


@dataclass(frozen=True)
class Plan:
    """What one call asks of every row.

    Attributes:
        folder: results go to ``<folder>/<entry>/<row>``.
        seeds: of the trainings; a given checkpoint is tested once.
        folds: these folds alone; (): all of the benchmark. What has no folds is run whole.
        rates: base learning rates to try, the best by validation; (): the recipe's (zero-shot only).
        weights: "": train; "released": test the released files in ``checkpoints``; else the path of a checkpoint, in
            which % stands for the fold.
        ade20k, fewshot: roots of the datasets; None: their usual places.
        train_options, test_options: further words for the scripts, which take precedence.
        warning: what a reader of the results must know first, such as that this is a dry run; "": nothing.
    """

    folder: Path
    seeds: tuple[int, ...] = (0,)
    folds: tuple[int, ...] = ()
    rates: tuple[float, ...] = ()
    weights: str = ""
    ade20k: Path | None = None
    fewshot: Path | None = None
    train_options: tuple[str, ...] = ()
    test_options: tuple[str, ...] = ()
    warning: str = ""

    def __post_init__(self) -> None:
        wrong = [rate for rate in self.rates if not rate > 0]
        raise_all([f"--lrs contains {rate}; give positive numbers" for rate in wrong])

    def jobs(self, entry: Entry) -> list[tuple[int, int]]:
        """(seed, fold) of everything that a row consists of."""
        chosen = self.folds if len(entry.folds) > 1 and self.folds else entry.folds
        return list(product((0,) if self.weights else self.seeds, chosen))

    def row_folder(self, entry: Entry, row: Row) -> Path:
        """Where a row is kept; what was trained elsewhere is kept apart."""
        suffix = "" if not self.weights else "_released" if self.weights == RELEASED else "_given"
        return self.folder / entry.name / f"{row.name}{suffix}"

    def checkpoint(self, row: Row, fold: int) -> Path:
        """The given or released file."""
        name = REPOSITORY / "checkpoints" / row.released if self.weights == RELEASED else self.weights
        return Path(str(name).replace("%", str(fold)))

    def data_path(self, entry: Entry) -> Path | None:
        """The root of the entry's dataset."""
        return self.ade20k if entry.dataset == "ade20k" else self.fewshot

    def runnable(self, entry: Entry, row: Row) -> str:
        """Why this row cannot be run as asked, or ""."""
        if self.weights == RELEASED and not row.released:
            return "no checkpoint was released for it"
        return "" if self.weights or row.trains else "only its released checkpoint can be tested: --weights released"


def missing(chosen: Sequence[tuple[Entry, Sequence[Row]]], plan: Plan) -> list[str]:
    """Everything that these rows need and that is not there, with the commands that fetch it. Does not import torch."""
    problems, data = [], {}  # data: what to do -> what is missing, since the folds of a benchmark share the remedy
    for entry, rows in chosen:
        splits = ("val",) if plan.weights else ("train", "val")
        folder = "--ade20k_path" if entry.dataset == "ade20k" else "--fewshot_path"
        for fold in sorted({fold for _, fold in plan.jobs(entry)}):
            choices: dict[str, Any] = {}
            if entry.kind == "zero_shot":
                splits, choices = ("test",) if plan.weights else ("train", "val", "test"), {"fold": fold}
            try:
                check_dataset(str(entry.dataset), plan.data_path(entry), splits, **choices)
            except InputError as error:
                what, fix, remedy = str(error).partition(FIX)
                remedy = re.sub("another folder with --data_?path", f"another folder with {folder}", fix + remedy)
                data.setdefault(remedy, {})[what.strip()] = None
        for row in rows if plan.weights else ():
            files = dict.fromkeys(plan.checkpoint(row, fold) for _, fold in plan.jobs(entry))
            if lacking := [str(file) for file in files if not file.is_file()]:
                them = "it" if len(lacking) == 1 else "them"
                where = f"download {them} from the model zoo of {ZOO['repository']} to that place and check {them}: "
                where += f"python -m modules.zoo check {' '.join(lacking)}"
                advice = where if plan.weights == RELEASED else "name your files with --weights"
                problems.append(f"{entry.name}, {row.name}: there is no {', '.join(lacking)}; {advice}")
    texts = ["\n".join([*found, remedy]).strip() for remedy, found in data.items()]
    return list(dict.fromkeys(texts + problems))


def wrong_weights(entry: Entry, rows: Sequence[Row], plan: Plan) -> list[str]:
    """Why a given checkpoint cannot be what these rows and folds ask for: it is one network, trained for one fold."""
    if plan.weights in ("", RELEASED):
        return []
    problems = []
    if len(rows) > 1:
        names = ", ".join(row.name for row in rows)
        problems.append(f"{entry.name}: {plan.weights} is one network; choose its row with --row: {names}")
    if "%" not in plan.weights and len(folds := {fold for _, fold in plan.jobs(entry)}) > 1:
        what = f"{entry.name}: {plan.weights} would be tested on {len(folds)} folds, but was trained for one at most"
        problems.append(f"{what}; write % for the fold's number in the name, or choose a --fold")
    return problems


def reproduce(entry: Entry, row: Row, plan: Plan, run: RunScript) -> None:
    """Train and test what is not finished; a checkpoint of a kill is resumed by the scripts themselves."""
    folder = plan.row_folder(entry, row)
    with locked(folder, "--output_dir"):
        ledger = open_ledger(entry, row, plan)
        finished = [(record["seed"], record["fold"], record["given"]) for record in ledger.records]
        for seed, fold in plan.jobs(entry):
            given = file_state(plan.checkpoint(row, fold)) if plan.weights else None
            if (seed, fold, given) in finished:
                continue
            name = f"seed{seed}_fold{fold}"
            print(f"== {entry.title}; {row.title}: seed {seed}, fold {fold}", flush=True)
            checkpoint = plan.checkpoint(row, fold) if given else train(entry, row, plan, folder, seed, fold, run)
            found = measure(entry, row, plan, checkpoint, folder / name, fold, run)
            ledger.append({"seed": seed, "fold": fold, "given": given, **found})


def measure(
    entry: Entry, row: Row, plan: Plan, checkpoint: Path, folder: Path, fold: int, run: RunScript
) -> dict[str, Any]:
    """Test a checkpoint: its ``measures`` in percent, and the ``identity`` of the test."""
    arguments = ["--weights", str(checkpoint), "--output_dir", str(folder), "--log_dir", str(folder.parent / "logs")]
    if plan.weights:  # a file that is not the row's network is refused
        known = {name: row.options[name] for name in NETWORK if name in row.options}
        arguments += [word for name, value in known.items() for word in (f"--{name}", str(value))]
    if entry.kind == "zero_shot":
        arguments += ["--fold", str(fold), "--nshot", "0", "--bsz", "8", "--save_pictures", str(EPISODES_SHOWN)]
    else:
        arguments.append("--eval")
    script = "test_lseg_zs.py" if entry.kind == "zero_shot" else "test_lseg.py"
    run(script, [*data_words(entry, plan), *arguments, *plan.test_options])
    result = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    keys = {"miou": "mIoU", "fb_iou": "FB-IoU", "pixel_accuracy": "pixel accuracy"}
    identity = identity_of(checkpoint)
    identity |= {key: result[key] for key in ("setting", "protocol", "precision", "labels_sha256") if key in result}
    return {"measures": {name: result[key] for key, name in keys.items() if key in result}, "identity": identity}


def train(entry: Entry, row: Row, plan: Plan, folder: Path, seed: int, fold: int, run: RunScript) -> Path:
    """Train one seed and fold, at each rate, and return the checkpoint to test.

    Zero-shot: the best by validation, as ``train_zs.sh`` chooses it. Fixed labels: the last, since validation images
    are those of the test.
    """
    zero_shot, runs = entry.kind == "zero_shot", []
    for rate in plan.rates if zero_shot and plan.rates else (None,):
        name = f"seed{seed}_fold{fold}" + ("" if rate is None else f"_lr{rate}")
        given = dict(row.options) | ({"fold": fold} if zero_shot else {}) | ({} if rate is None else {"base_lr": rate})
        words = [word for option, value in given.items() for word in (f"--{option}", str(value))]
        words += ["--seed", str(seed), "--checkpoint_dir", str(folder / "runs"), "--exp_name", name]
        script = "train_lseg_zs.py" if zero_shot else "train_lseg.py"
        run(script, [*data_words(entry, plan), *words, *plan.train_options])
        runs.append(folder / "runs" / name)
    if zero_shot:
        return best_checkpoint(runs)
    return max(runs[0].glob("version_*/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime)


def data_words(entry: Entry, plan: Plan) -> list[str]:
    """The options that name the dataset."""
    root = plan.data_path(entry)
    return ["--dataset", str(entry.dataset), *(["--data_path", str(root)] if root else [])]


def open_ledger(entry: Entry, row: Row, plan: Plan) -> Ledger:
    """The row's ledger; ``InputError`` if it was made with other options."""
    options = {
        "options": dict(row.options),
        "rates": plan.rates,
        "train": plan.train_options,
        "test": plan.test_options,
    }
    header = {"entry": entry.name, "row": row.name, "weights": plan.weights, **options}
    header |= {"warning": plan.warning} if plan.warning else {}
    try:
        return Ledger(plan.row_folder(entry, row) / "ledger.jsonl", header)
    except InputError as error:
        raise InputError(f"{error}\ngive another --output_dir, or move that folder away") from error


def ledger_of(folder: Path) -> Ledger | None:
    """The ledger in a row's folder, whatever its options; None if nothing was finished there."""
    try:
        with (folder / "ledger.jsonl").open(encoding="utf-8") as file:
            header = json.loads(file.readline())
    except (OSError, ValueError):
        return None
    if not isinstance(header, dict):
        raise InputError(f"{folder / 'ledger.jsonl'} does not begin like a ledger of reproduce.py; move it away")
    return Ledger(folder / "ledger.jsonl", header)
