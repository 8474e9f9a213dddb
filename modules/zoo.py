"""List the checkpoints that the authors of LSeg released; check and convert files (python -m modules.zoo)."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from lseg_utils.cli import Parser
from lseg_utils.errors import InputError, raise_all, run_script
from lseg_utils.files import sha256_of
from lseg_utils.results import text_table

from .weights_file import check_weights_file

DATA: dict[str, Any] = json.loads(Path(__file__).with_name("released.json").read_text(encoding="utf-8"))
LAYOUTS = ("plain", "lightning", "hub")
UNKNOWN_FOLDER = "DATA_FOLDER"  # in a command, where the folder of the dataset is unknown


@dataclass(frozen=True)
class Released:
    """One released checkpoint; None or "" where nothing reliable is known."""

    file: str
    backbone: str
    dataset: str | None  # None: the mixture of the demo model
    fold: int | None  # None: the benchmark has no folds
    miou: float | None  # as published, in percent
    note: str

    @property
    def name(self) -> str:
        return self.file.rsplit(".", 1)[0]

    @property
    def place(self) -> str:
        """What it was trained for, in words."""
        return "seven datasets" if self.dataset is None else place(self.dataset, self.fold)


@dataclass(frozen=True)
class Published:
    """Published figures of a zero-shot benchmark in percent; None where only a mean is known."""

    miou_by_fold: list[float | None]
    miou: float
    fb_iou: float | None


@dataclass
class Report:
    """What was found out about a file."""

    file: str
    bytes: int
    sha256: str  # of the file
    tensors_sha256: str  # of the weights; it survives saving the same weights again
    architecture: dict[str, Any]  # backbone and features; of our own files everything they contain
    trained: dict[str, Any]  # dataset, epoch, metric ... of a file of this project; official files: {}
    misfits: dict[str, list[str]]  # names that are missing, unexpected, of another shape, or not finite; {} if all fit
    can_be: list[str]  # released checkpoints
    notes: list[str]
    commands: list[str]  # that test it


RELEASED = [Released(**entry) for entry in DATA["checkpoints"]]


def place(dataset: str, fold: int | None) -> str:
    """'pascal fold 0', or 'fss', which has no folds."""
    return dataset if fold is None else f"{dataset} fold {fold}"


def released_for(dataset: str, backbone: str, fold: int) -> Released | None:
    """The checkpoint released for a benchmark's fold, if there is one; ``fold`` is ignored for FSS-1000."""
    entries = (e for e in RELEASED if (e.dataset, e.backbone) == (dataset, backbone) and e.fold in (None, fold))
    return next(entries, None)


def released_file(dataset: str, backbone: str, fold: int) -> str:
    """Its file name; ``InputError`` if there is none."""
    if entry := released_for(dataset, backbone, fold):
        return entry.file
    known = sorted({f"{entry.dataset} with {entry.backbone}" for entry in RELEASED if entry.dataset})
    raise InputError(
        f"no checkpoint was released for {place(dataset, fold)} with {backbone}; give yours with --weights, or "
        f"choose one of {', '.join(known)} (folds 0 to 3; FSS-1000 has none)"
    )


def published(dataset: str, backbone: str) -> Published | None:
    """The published figures of a zero-shot benchmark; None if there are none for it or for the backbone."""
    for figures in DATA["benchmarks"]:
        if (figures["dataset"], figures["backbone"]) == (dataset, backbone):
            folds = sorted({entry.fold or 0 for entry in RELEASED if entry.dataset == dataset})
            by_fold = [
                entry.miou if entry else None for entry in (released_for(dataset, backbone, fold) for fold in folds)
            ]
            return Published(by_fold, figures["miou"], figures["fb_iou"])
    return None


def table() -> str:
    """The released checkpoints, their published figures, and what to know about them."""
    rows = [(e.file, e.backbone, e.place, "" if e.miou is None else f"{e.miou:.1f}") for e in RELEASED]
    notes = {entry.file: entry.note for entry in RELEASED if entry.note} | DATA["not_released"]
    lines = [text_table(("file", "backbone", "trained for", "published mIoU"), rows), ""]
    lines += [f"{file}: {note}" for file, note in notes.items()]
    end = f"The official checkpoints are linked in the model zoo of {DATA['repository']}"
    return "\n".join([*lines, f"beware: {DATA['readme_slip']}", end])


def named_after(path: Path) -> Released | None:
    """The released checkpoint whose name is part of the file's ('pascal_fold0 (1).ckpt'), if there is one."""
    return next((entry for entry in RELEASED if entry.name in path.stem.lower()), None)


def file_name_doubts(path: Path, dataset: str, fold: int, backbone: str | None) -> list[str]:
    """A sentence if the name of checkpoint ``path`` belongs to another test than that of ``dataset`` and ``fold``.

    backbone: the architecture that was asked for, None for any.
    """
    entry = named_after(path)
    if entry is None or dataset not in {known.dataset for known in RELEASED}:
        return []
    if entry.dataset == dataset and entry.fold in (None, fold) and backbone in (None, entry.backbone):
        return []
    wanted = released_for(dataset, backbone or entry.backbone, fold)
    doubt = f"{path.name} has the name of the released {entry.backbone} for {entry.place}, but this test is of "
    doubt += f"{backbone or 'any network'} on {place(dataset, wanted.fold if wanted else fold)}"
    slip = [DATA["readme_slip"]] if (dataset, entry.dataset) == ("coco", "pascal") else []
    return ["; ".join([doubt, *slip, *([f"the right file is {wanted.file}"] if wanted else [])])]


def identify(path: Path, trust_checkpoint: bool = False) -> Report:
    """Look at a file, running no code from it unless it is trusted.

    Raises:
        InputError: a missing, damaged or hostile file, or one that is not an LSeg network.
    """
    # The table and the answer to a missing file need no torch.
    from .architecture import ANY_BLOCK, architecture_of, skeleton
    from .checkpoints import misfits, read_checkpoint
    from .models.fingerprint import fingerprint
    from .models.pretrained import not_finite
    from .weight_names import official_name

    file = read_checkpoint(path, trust_checkpoint)
    own, has_unknown_block = file.metadata, file.has_block and not file.metadata
    architecture = architecture_of(file, ANY_BLOCK if has_unknown_block else {})
    found = misfits(file, skeleton(path, architecture))
    if broken := not_finite(file.weights):
        found["not finite"] = [official_name(name) for name in broken]
    candidates, named, notes = [], named_after(path), []
    if not (found or own or file.has_block) and architecture["features"] == DATA["features"]:
        candidates = [entry for entry in RELEASED if entry.backbone == architecture["backbone"]]
        notes.append(
            "the SHA-256 values of the released files are unknown here: compare yours with those of another user"
        )
    if named in candidates:
        notes += [f"{named.name}: {named.note}"] if named.note else []
    elif named and candidates:
        notes.append(f"it is called {named.name}, but that one is a {named.backbone} for {named.place}")
    if has_unknown_block:
        notes.append(
            "it has a spatial regularisation block, which no released checkpoint has; its shapes do not show which: "
            "add --arch_option 1|2 --block_depth D --activation A to the commands"
        )
    commands = own_command(path, own, notes) if own else []
    if not own:
        commands = [test_command(entry, path) for entry in ([named] if named in candidates else candidates)]
    return Report(
        file=str(path),
        bytes=path.stat().st_size,
        sha256=sha256_of(path),
        tensors_sha256=fingerprint(file.weights),
        architecture=own.get("architecture") or {key: architecture[key] for key in ("backbone", "features")},
        trained={key: own[key] for key in ("dataset", "epoch", "step", "metric") if key in own},
        misfits=found,
        can_be=[entry.name for entry in candidates],
        notes=notes,
        commands=[] if found else commands,
    )


def own_command(path: Path, metadata: dict[str, Any], notes: list[str]) -> list[str]:
    """How a file of this project is tested, if it contains what it was trained on; adds to ``notes``."""
    dataset, folder = metadata.get("dataset"), metadata.get("data_path")
    if not dataset:
        return []
    if file := metadata.get("dataset_file"):
        if not Path(file).is_file():
            notes.append(f"the dataset {dataset} is described by {file}, which does not exist here")
        dataset = file
    # A miniature has no usual place: it lies where it was made.
    unknown = not Path(folder).is_dir() if folder else dataset.startswith("miniature")
    if unknown:
        note = f"{UNKNOWN_FOLDER} in the command: the folder of the dataset {dataset}"
        note += f"; in training that was {folder}, which does not exist here" if folder else ""
        made = "; `bash quickstart.sh` creates quickstart/datasets_seed0" if dataset.startswith("miniature") else ""
        notes.append(note + made)
        folder = UNKNOWN_FOLDER
    zero_shot = metadata.get("zero_shot")
    script = ["test_lseg_zs.py", "--fold", str(zero_shot["fold"])] if zero_shot else ["test_lseg.py", "--eval"]
    data = ["--data_path", folder] if folder else []
    names = metadata.get("label_sets", {dataset: []})  # several were trained together
    return [shlex.join(["python", *script, "--dataset", name, *data, "--weights", str(path)]) for name in names]


def test_command(entry: Released, path: Path) -> str:
    """The command that gives the published figure of a released checkpoint, where there is one."""
    test = "test_lseg.py --eval --dataset ade20k --data_path ../datasets"
    if entry.dataset:
        fold = "" if entry.fold is None else f" --fold {entry.fold}"
        test = f"test_lseg_zs.py --dataset {entry.dataset}{fold} --nshot 0"
    return f"python {test} --weights {shlex.quote(str(path))}"


def describe(report: Report) -> str:
    """The report for people."""
    from .checkpoints import describe_misfits

    backbone, features = report.architecture["backbone"], report.architecture["features"]
    fits = "does not fit" if report.misfits else "all names and shapes fit"
    lines = [
        f"{report.file} ({report.bytes:,} bytes)",
        f"network: {backbone}, decoder with {features} features; {fits}",
    ]
    lines += describe_misfits(report.misfits)
    if report.trained:
        facts = {key: value for key, value in report.trained.items() if key != "metric"}
        facts |= {name: f"{number:.4g}" for name, number in report.trained.get("metric", {}).items()}
        lines.append("written by this project: " + ", ".join(f"{key} {value}" for key, value in facts.items()))
    elif not report.misfits:
        lines.append(f"can be: {', '.join(report.can_be) or 'none of the released checkpoints'}")
    lines += [f"note: {note}" for note in report.notes]
    lines += [f"SHA-256 of the file: {report.sha256}", f"SHA-256 of its weights: {report.tensors_sha256}"]
    return "\n".join([*lines, *(["to test it:"] if report.commands else []), *(f"  {one}" for one in report.commands)])


def build_parser() -> Parser:
    """The command and its options."""
    parser = Parser(__doc__)
    parser.prog = "python -m modules.zoo"
    commands = parser.add_subparsers(dest="command", metavar="{list,check,convert,file}", parser_class=Parser)
    listing = commands.add_parser("list", help="print the table (the default)", description=table.__doc__)
    listing.add_argument("--json", action="store_true", help="print the data for programs")
    checking = commands.add_parser("check", help="identify files, check them, show their test commands", description="")
    checking.add_argument("files", nargs="+", metavar="FILE", help="identify this checkpoint")
    checking.add_argument("--json", action="store_true", help="print the reports for programs")
    checking.add_argument("--trust_checkpoint", action="store_true", help="run code found in the files: risky")
    converting = commands.add_parser("convert", help="write only the tensors, to a file or a folder", description="")
    converting.add_argument("source", metavar="IN", help="read this checkpoint, or folder in the hub's format")
    converting.add_argument("target", metavar="OUT", help="write this file or folder, and replace an existing one")
    layouts = "write a state dict (plain), one under 'state_dict' with the prefix 'net.' (lightning), or a folder with "
    layouts += "safetensors, configuration and model card (hub)"
    converting.add_argument("--layout", choices=LAYOUTS, default="plain", help=layouts)
    results = "show these results.json files of the test scripts in the model card (with --layout hub)"
    converting.add_argument("--results", nargs="+", type=Path, default=[], metavar="FILE", help=results)
    converting.add_argument("--trust_checkpoint", action="store_true", help="run code found in the file: risky")
    naming = commands.add_parser("file", help="print the name of the file released for a benchmark", description="")
    naming.add_argument("dataset", help="use this benchmark: pascal, coco or fss")
    naming.add_argument("backbone", help="use this image encoder")
    naming.add_argument("--fold", type=int, default=0, help="use this fold of the benchmark")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0; 1 if a checked file does not fit its network. One ``InputError`` for all that cannot be read."""
    options = build_parser().parse(argv)
    if options.command == "check":
        reports, problems = [], []
        for file in options.files:
            try:
                reports.append(identify(check_weights_file(file), options.trust_checkpoint))
            except InputError as error:
                problems.append(str(error))
        if options.json:
            print(json.dumps([asdict(report) for report in reports], indent=1, ensure_ascii=False))
        elif reports:
            print("\n\n".join(describe(report) for report in reports))
            for first, second in combinations(reports, 2):
                same = "the same weights" if first.tensors_sha256 == second.tensors_sha256 else "different weights"
                print(f"{first.file} and {second.file} contain {same}")
        raise_all(problems)
        return int(any(report.misfits for report in reports))
    if options.command == "convert":
        target = Path(options.target).expanduser()
        if options.results and options.layout != "hub":
            raise InputError("--results are for the model card of --layout hub; leave them out, or choose that layout")
        from .converting import convert

        source, layout = check_weights_file(options.source), options.layout
        released = named_after(source)
        note = ""
        if released and released.miou is not None:
            published = f"{released.miou} mIoU on {released.place}"
            note = f"Published for the file {released.file}: {published}. It was not measured here."
        count = convert(source, target, layout, options.trust_checkpoint, options.results, note)
        reader = "LSegNet.from_pretrained" if layout == "hub" else "torch.load"
        print(f"{target}: {count} tensors; {reader}({str(target)!r}) reads them")
    elif options.command == "file":
        print(released_file(options.dataset, options.backbone, options.fold))
    else:
        as_json = options.command == "list" and options.json
        print(json.dumps(DATA, indent=1, ensure_ascii=False) if as_json else table())
    return 0


if __name__ == "__main__":
    run_script(main)
