"""What a machine has to show: checkpoints, and the pictures and labels that suit them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from lseg_utils.errors import InputError
from lseg_utils.files import REPOSITORY

SUFFIXES = (".ckpt", ".pth")
TRAINED = "runs*/trained_seed*/version_*/checkpoints/last.ckpt"  # where quickstart.sh leaves the miniature
PHOTOGRAPHS = ("chelsea.png", "coffee.png", "astronaut.png")  # a cat, a cup, a woman
SAMPLE = REPOSITORY / "docs" / "sample.png"  # a sail, a lifebuoy, a ball and a starfish, as the miniature draws them
SAMPLE_LABELS = ("water", "white triangle", "red ring", "yellow star", "purple circle")
MAX_SAMPLES = 12
MAX_FEW = 6  # labels that a page begins with
FAMILIAR = ("grass", "water", "blue square", "yellow circle", "red cross", "green star")  # labels of the miniature


def found_checkpoints(checkpoint_dir: Path, quickstart: Path) -> list[Path]:
    """Every checkpoint in ``checkpoint_dir`` and its folders, then those that quickstart.sh trained."""
    own = sorted(path for path in checkpoint_dir.rglob("*") if path.suffix in SUFFIXES and path.is_file())
    return own + sorted(quickstart.glob(TRAINED))


def default_checkpoint(checkpoint_dir: Path = REPOSITORY / "checkpoints", quickstart: Path | None = None) -> Path:
    """The miniature's checkpoint, or the first of any; ``InputError`` that says how to get one."""
    quickstart = quickstart or REPOSITORY / "quickstart"
    found = sorted(quickstart.glob(TRAINED)) or found_checkpoints(checkpoint_dir, quickstart)
    if not found:
        raise InputError(
            f"there is no checkpoint in {checkpoint_dir}, and no network of the quickstart in {quickstart}; run "
            "`bash quickstart.sh` (about ten minutes), or put a published checkpoint into checkpoints/ "
            "(`python -m modules.zoo` lists them)"
        )
    return found[0]


def name_of(checkpoint: Path, checkpoint_dir: Path) -> str:
    """A short name for lists, without the folders that all runs have, or this machine's."""
    path, folder = checkpoint.absolute(), checkpoint_dir.absolute()
    if path.is_relative_to(folder):
        parts = path.relative_to(folder).parts
        return "/".join(part for part in parts if part != "checkpoints")
    folders = [folder.name for folder in path.parents]  # checkpoints, version_0, trained_seed0, runs_short, ...
    if len(folders) < 4 or not folders[2].startswith("trained_seed"):
        return path.name
    kind = folders[3].removeprefix("runs").replace("_", ", ")
    return f"miniature{kind}, {folders[2].removeprefix('trained_')}, {folders[1]}"


def miniature_folder(checkpoint: Path) -> Path | None:
    """The miniature world that quickstart.sh trained a checkpoint on, if it is one of those and the world is there.

    ``runs/trained_seed1/...`` belongs to ``datasets_seed1``, ``runs_short/trained_seed1/...`` to
    ``datasets_seed1_short``.
    """
    if len(checkpoint.parents) < 5:
        return None
    runs, run = checkpoint.parents[3], checkpoint.parents[2].name
    seed, kind = run.removeprefix("trained_"), runs.name.removeprefix("runs")
    folder = runs.parent / f"datasets_{seed}{kind}" / "miniature"
    return folder if seed != run and folder.is_dir() else None


def sample_pictures(checkpoint: Path) -> list[Path]:
    """Pictures to try a checkpoint with: those of the miniature, or photographs that scikit-image ships.

    Empty where a network for photographs finds no scikit-image.
    """
    if folder := miniature_folder(checkpoint):
        images = sorted((folder / "images" / "validation").glob("*.jpg"))
        return [SAMPLE, *images[:MAX_SAMPLES]]
    package = find_spec("skimage")
    photographs = Path(package.origin).parent / "data" if package and package.origin else None
    return [photographs / name for name in PHOTOGRAPHS if (photographs / name).is_file()] if photographs else []


def is_miniature(checkpoint: Path) -> bool:
    """Whether quickstart.sh trained this checkpoint, so that it understands only the miniature's shapes."""
    return miniature_folder(checkpoint) is not None


def label_lists(checkpoint: Path, sample: Path | None = None) -> dict[str, list[str]]:
    """Label lists of the miniature by name, the first one short; empty for other checkpoints.

    sample: one of the miniature's pictures, whose own labels come first in the short list.
    """
    folder = miniature_folder(checkpoint)
    files = {"all labels of the miniature": "labels.txt", "synonyms it never saw in training": "synonyms.txt"}
    paths = {name: folder / file for name, file in files.items()} if folder else {}
    lists = {name: path.read_text().splitlines() for name, path in paths.items() if path.is_file()}
    if not lists:
        return {}
    labels = next(iter(lists.values()))
    mask = folder / "annotations" / "validation" / f"{sample.stem}.png" if sample else None
    there = [label for label in SAMPLE_LABELS if label in labels] if sample == SAMPLE else []
    if mask is not None and mask.is_file():
        with Image.open(mask) as picture:  # value v is label v - 1; 0 is unlabelled
            there = [labels[value - 1] for _, value in sorted(picture.getcolors(), reverse=True) if value]
    few = list(dict.fromkeys([*there, *(label for label in FAMILIAR if label in labels), *labels]))
    return {"a few labels": few[: max(MAX_FEW, len(there))], **lists}
