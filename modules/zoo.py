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

from .released import DATA, RELEASED, named_after, released_file, table, test_command
from .weights_file import check_weights_file

LAYOUTS = ("plain", "lightning", "hub")
UNKNOWN_FOLDER = "DATA_FOLDER"  # in a command, where the folder of the dataset is unknown


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
