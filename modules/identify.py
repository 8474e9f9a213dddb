"""What a checkpoint file is: its architecture, whether it is whole, and which released checkpoints it can be."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lseg_utils.errors import InputError
from lseg_utils.files import sha256_of

from .checkpoints import CheckpointFile, architecture_of, misfits, read_checkpoint, skeleton
from .released import RELEASED, Released, named_after, slips

# Shapes cannot tell which regularisation block a file has, and both kinds have the same.
ANY_BLOCK = {"arch_option": 1, "block_depth": 0, "activation": "lrelu"}
UNKNOWN_FOLDER = "DATA_FOLDER"  # in a command, where nobody knows which
FOREIGN = 0.5  # a file that lacks more than this share of every network is no damaged LSeg, but something else


@dataclass
class Report:
    """What was found out about a file."""

    file: str
    bytes: int
    sha256: str
    architecture: dict[str, Any]  # backbone and features; of our own files, all that they say
    trained: dict[str, Any]  # dataset, epoch, metric ...: what a file of this project says of itself; official: {}
    misfits: dict[str, list[str]]  # names that are missing, unexpected or of another shape; {} if all fit
    can_be: list[str]  # released checkpoints
    notes: list[str]
    commands: list[str]  # to test it


def identify(path: Path, trust_checkpoint: bool = False) -> Report:
    """Look at a file, running no code from it unless it is trusted.

    Raises:
        InputError: missing, damaged or hostile file, or one that is no LSeg network at all.
    """
    file = read_checkpoint(path, trust_checkpoint)
    architecture, found = closest_architecture(file)
    sha256 = sha256_of(path)
    candidates = [] if found or file.metadata else matching(architecture, sha256)
    named = named_after(path)
    likely = [named] if named in candidates else candidates
    return Report(
        file=str(path),
        bytes=path.stat().st_size,
        sha256=sha256,
        architecture=file.metadata.get("architecture", architecture),
        trained={key: file.metadata[key] for key in ("dataset", "epoch", "step", "metric") if key in file.metadata},
        misfits=found,
        can_be=[entry.name for entry in candidates],
        notes=notes_on(file, candidates, named, sha256),
        commands=[] if found else own_command(file) if file.metadata else [test_command(e, path) for e in likely],
    )


def closest_architecture(file: CheckpointFile) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Backbone and width of the file's network, and where it departs from that network."""
    given = ANY_BLOCK if file.has_block and not file.metadata else {}
    try:
        architecture = architecture_of(file, given)
        found = misfits(file, skeleton(file.path, architecture))
    except InputError:
        # Not whole, or nothing of ours: which released network lacks the least?
        tried = []
        for released in {entry.backbone: entry.architecture for entry in RELEASED}.values():
            net = skeleton(file.path, released)
            found = misfits(file, net)
            lacking = len(found.get("missing", ())) + len(found.get("wrong shape", ()))
            tried.append((lacking / len(net.state_dict()), released, found))
        share, architecture, found = min(tried, key=lambda one: one[0])
        if share > FOREIGN:
            raise
    return {key: architecture[key] for key in ("backbone", "features")}, found


def matching(architecture: dict[str, Any], sha256: str) -> list[Released]:
    """The released checkpoint with this SHA-256, else all those of this architecture."""
    same = [entry for entry in RELEASED if entry.sha256 == sha256]
    return same or [entry for entry in RELEASED if architecture.items() <= entry.architecture.items()]


def notes_on(file: CheckpointFile, candidates: list[Released], named: Released | None, sha256: str) -> list[str]:
    """What the user should know, a sentence each."""
    notes = []
    if file.metadata.get("dataset") and UNKNOWN_FOLDER in data_options(file):
        gone = file.metadata.get("data_path")
        notes.append(
            f"{UNKNOWN_FOLDER} in the command: the folder that holds the dataset {file.metadata['dataset']}"
            + (f"; in training that was {gone}, which is not here" if gone else "")
            + ("; quickstart.sh makes quickstart/datasets_seed0" if of_miniature(file) else "")
        )
    if file.has_block and not file.metadata:
        notes.append(
            "it has a spatial regularisation block, which no released checkpoint has; its shapes cannot tell which: "
            "add --arch_option 1|2 --block_depth D --activation A to the commands"
        )
    if named and candidates and named not in candidates:
        said = f"its name says {named.name}, but that one is a {named.backbone} for {named.place}"
        notes.append("; ".join([said, *slips(named.dataset, named.dataset)]))
    if named in candidates:
        if named.sha256 not in (None, sha256):
            notes.append(f"its SHA-256 is not that of the released {named.name}: a changed or re-saved copy")
        if named.note:
            notes.append(f"{named.name}: {named.note}")
    if candidates and not any(entry.sha256 for entry in candidates):
        notes.append("no SHA-256 of these is known yet: shapes and the file's name are all there is to go by")
    return notes


def own_command(file: CheckpointFile) -> list[str]:
    """How a file of this project is tested, if it says what it was trained on."""
    dataset, zero_shot = file.metadata.get("dataset"), file.metadata.get("zero_shot")
    if not dataset:
        return []
    script = ["test_lseg_zs.py", "--fold", str(zero_shot["fold"])] if zero_shot else ["test_lseg.py", "--eval"]
    rest = ["--dataset", dataset, *data_options(file), "--weights", str(file.path)]
    return [shlex.join(["python", *script, *rest])]


def data_options(file: CheckpointFile) -> list[str]:
    """``--data_path`` of a test, where a file of this project was not trained on its dataset's default folder."""
    folder = file.metadata.get("data_path")
    if folder is None and not of_miniature(file):
        return []
    return ["--data_path", folder if folder and Path(folder).is_dir() else UNKNOWN_FOLDER]


def of_miniature(file: CheckpointFile) -> bool:
    """Whether it was trained on the miniature, which lies wherever it was made and has no usual place."""
    return str(file.metadata.get("dataset")).startswith("miniature")


def test_command(entry: Released, path: Path) -> str:
    """The command that gives the published figure of a released checkpoint, where there is one."""
    weights = shlex.quote(str(path))
    if entry.dataset is None:
        return f"python test_lseg.py --eval --dataset ade20k --data_path ../datasets --weights {weights}"
    fold = "" if entry.fold is None else f" --fold {entry.fold}"
    return f"python test_lseg_zs.py --dataset {entry.dataset}{fold} --nshot 0 --weights {weights}"
