"""Show what the miniature learned: the table of all tests, and pictures of one trained network.

Reads what `quickstart.sh` has left in its folder: the world, the checkpoint and the tests' `results.json`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from data import get_dataset, get_labels
from data.miniature_drawing import COLOUR_RGB
from data.miniature_names import COLOURS, LABELS, SEEN, SHAPES, TEXTURES, UNSEEN, with_synonyms
from encoding_ext.charts import DIVERGING, heat_map, named_regions, side_by_side
from encoding_ext.errors import InputError, run_script
from encoding_ext.files import write_aside
from encoding_ext.palettes import save_picture
from encoding_ext.pictures import sheet
from encoding_ext.results import text_table
from encoding_ext.transforms import image_to_tensor
from modules.checkpoints import load_lseg
from modules.models import LSegNet, build_lseg
from modules.options import REPOSITORY, Parser

TESTS = {  # folder of the result -> what it is
    "labels": "label names",
    "synonyms": "synonyms, in no mask and no training label",
    "shuffled": "control: label embeddings exchanged among labels",
    "untrained_labels": "control: untrained text tower, label names",
    "untrained_synonyms": "control: untrained text tower, synonyms",
}
NEEDED = ("labels", "synonyms")
ZOOM = 4  # the 64 pixels of an image become 256
TEXTURE_RGB = {"grass": (78, 100, 48), "sand": (196, 170, 124), "water": (62, 118, 138), "brick": (128, 72, 58)}
BY_COLOUR = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]


@dataclass
class Run:
    """The files of one quickstart: world, checkpoint, results by test, and the folder that the pictures go to."""

    world_root: Path
    checkpoint: Path
    results: dict[str, dict[str, Any]]
    pictures: Path


def main(argv: Sequence[str] | None = None) -> None:
    """Check that all is there, print the table, write the pictures and print their paths."""
    parser = Parser(__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "quickstart", help="what quickstart.sh --folder was")
    parser.add_argument("--seed", type=int, default=0, help="of that quickstart")
    parser.add_argument("--short", action="store_true", help="it was a --short one")
    options = parser.parse(argv)

    run = find_run(options.folder, options.seed, options.short)
    net = load_lseg(run.checkpoint)
    pictures = {
        "sheet.png": segmentation_sheet(net, run.world_root),
        "label_lists.png": label_lists(net, run.world_root),
        "compositions.png": composition_maps(run.results),
        "text_cosines.png": text_cosines(net),
    }
    for name, picture in pictures.items():
        save_picture(run.pictures / name, picture)
    table = results_table(run.results)
    with write_aside(run.pictures / "table.txt") as aside:
        aside.write_text(table + "\n", encoding="utf-8")
    print(table)
    for name in ("table.txt", *pictures):
        print(f"wrote {run.pictures / name}")


def find_run(folder: Path, seed: int, short: bool = False) -> Run:
    """The parts of a quickstart in ``folder``; one ``InputError`` with everything that is missing."""
    kind = "_short" if short else ""
    results = folder / "results" / f"seed{seed}{kind}"
    run = Run(
        world_root=folder / f"datasets_seed{seed}{kind}",
        checkpoint=folder / f"runs{kind}" / f"trained_seed{seed}" / "version_0" / "checkpoints" / "last.ckpt",
        results={},
        pictures=folder / "pictures" / f"seed{seed}{kind}",
    )
    files = {test: results / test / "results.json" for test in TESTS}
    needed = [run.world_root / "miniature" / "world.json", run.checkpoint, *(files[test] for test in NEEDED)]
    missing = [f"{path} is missing" for path in needed if not path.is_file()]
    if missing:
        command = f"bash quickstart.sh --seed {seed}{' --short' if short else ''} --folder {folder}"
        raise InputError("\n".join([*missing, f"run `{command}` (it ends with this report), or name another --folder"]))
    run.results = {test: json.loads(path.read_text(encoding="utf-8")) for test, path in files.items() if path.is_file()}
    return run


def results_table(results: dict[str, dict[str, Any]]) -> str:
    """mIoU in percent of each test that was run, over the seen and the unseen labels, against the full list of 40."""
    rows = [
        (TESTS[test], result["groups"]["seen"], result["groups"]["unseen"], result["pixel_accuracy"])
        for test, result in results.items()
    ]
    return text_table(("mIoU % on the validation images, 40 labels to choose from", "34 seen", "6 unseen", "pixel acc."), rows)


def segmentation_sheet(net: LSegNet, root: Path) -> Image.Image:
    """An image for each unseen composition: itself, the truth, what the names give, what the synonyms give."""
    dataset = get_dataset("miniature", root, "val", "testval", image_to_tensor(net.mean, net.std))
    synonyms = get_labels("miniature", "synonyms", root)
    rows = []
    for index in one_for_each_unseen([dataset[i][1].numpy() for i in range(len(dataset))]):
        image, truth = dataset[index]
        rows.append([
            enlarged(dataset.images[index]),
            drawn(truth.numpy(), LABELS),
            drawn(segment(net, image, LABELS), LABELS),
            drawn(segment(net, image, synonyms), synonyms),
        ])
    titles = ("image", "truth (* unseen in training)", "LSeg, 40 label names", "LSeg, 40 synonyms only")
    return sheet(rows, titles, cell=(64 * ZOOM, 64 * ZOOM), heading="Trained on 34 labels, asked for 40")


def one_for_each_unseen(masks: Sequence[np.ndarray]) -> list[int]:
    """For each unseen label the image with it that shows the most labels (and is not taken yet), the first of equals.

    Chosen by the truth alone, so that the sheet shows failures as they come.
    """
    present = [set(np.unique(mask).tolist()) for mask in masks]
    chosen: list[int] = []
    for label in range(len(SEEN), len(LABELS)):
        candidates = [i for i, labels in enumerate(present) if label in labels and i not in chosen]
        if candidates:
            chosen.append(max(candidates, key=lambda i: len(present[i])))
    return chosen


def label_lists(net: LSegNet, root: Path) -> Image.Image:
    """One image segmented under changing label lists; where a list lacks a thing, the most alike label takes it."""
    dataset = get_dataset("miniature", root, "val", "testval", image_to_tensor(net.mean, net.std))
    masks = [dataset[i][1].numpy() for i in range(len(dataset))]
    index = max(range(len(masks)), key=lambda i: (np.unique(masks[i]) >= len(SEEN)).sum() * 10 + len(np.unique(masks[i])))
    image = dataset[index][0]
    there = [LABELS[i] for i in np.unique(masks[index])]
    lists = {
        "all 40 labels": list(LABELS),
        "only what is there": there,
        "the same in other words": [with_synonyms(label) for label in there],
        "without the unseen": [label for label in there if label not in UNSEEN],
        "textures and colours": [*TEXTURES, *COLOURS],
        "textures and shapes": [*TEXTURES, *SHAPES],
    }
    cells = [enlarged(dataset.images[index]), *(drawn(segment(net, image, names), names) for names in lists.values())]
    return sheet([cells], ["image", *lists], cell=(64 * ZOOM, 64 * ZOOM), heading="One image, other label lists")


def composition_maps(results: dict[str, dict[str, Any]]) -> Image.Image:
    """The 6x6 compositions' IoU in percent, under their names and under their synonyms; the unseen ones framed."""
    maps = []
    for test, title in (("labels", "IoU %, label names"), ("synonyms", "IoU %, synonyms")):
        iou = dict(zip(LABELS, results[test]["per_class_iou"].values(), strict=True))  # in mask order, both times
        values = np.array([iou[label] for label in BY_COLOUR]).reshape(len(COLOURS), len(SHAPES))
        diagonal = [divmod(BY_COLOUR.index(label), len(SHAPES)) for label in UNSEEN]
        names = [COLOURS, SHAPES]
        if test == "synonyms":
            names = [[with_synonyms(word) for word in words] for words in names]
        maps.append(heat_map(values, *names, f"{title}; framed: never seen", low=0, high=100, marked=diagonal))
    return side_by_side(maps)


@torch.inference_mode()
def text_cosines(net: LSegNet) -> Image.Image:
    """Cosines between the 40 labels' embeddings, from the trained text tower and from one with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        untrained = build_lseg(labels=None, **net.architecture)
    names = [*BY_COLOUR, *TEXTURES]
    maps = []
    for network, title in ((net, "cosines of label embeddings, trained text tower"), (untrained, "untrained text tower")):
        text = network.encode_labels(names)
        cosines = (text @ text.T).cpu().numpy()
        maps.append(heat_map(cosines, names, names, title, low=-1, high=1, scale=DIVERGING, cell=14, text_size=11, numbers=False))
    return side_by_side(maps)


@torch.inference_mode()
def segment(net: LSegNet, image: torch.Tensor, labels: Sequence[str]) -> np.ndarray:
    """The most likely label of each pixel of a (3, h, w) image: (h, w), from a single forward."""
    return net(image[None], list(labels))[0].argmax(dim=0).numpy()


def drawn(labels: np.ndarray, names: Sequence[str]) -> Image.Image:
    """A label map in colours that resemble what the names mean, enlarged, the names written in, * on unseen ones."""
    starred = {*UNSEEN, *map(with_synonyms, UNSEEN)}
    colours = np.array([colour_of(name) for name in names], dtype=np.uint8)
    return named_regions(labels, [f"{name}*" if name in starred else name for name in names], colours, ZOOM)


def colour_of(name: str) -> np.ndarray:
    """A map colour for a label or synonym: its own colour, lighter or darker by its shape; grey for a shape alone."""
    canonical = {with_synonyms(word): word for word in (*COLOURS, *SHAPES, *TEXTURES)}
    words = [canonical.get(word, word) for word in name.split()]
    if words[0] in TEXTURE_RGB:
        return np.array(TEXTURE_RGB[words[0]])
    base = np.array(COLOUR_RGB.get(words[0], (150, 150, 150)), dtype=float)
    if words[-1] not in SHAPES:
        return base
    return base * (1 - 0.45 * SHAPES.index(words[-1]) / (len(SHAPES) - 1))


def enlarged(path: Path) -> Image.Image:
    """The image file as large as its label maps are drawn."""
    with Image.open(path) as picture:
        return picture.convert("RGB").resize((picture.width * ZOOM, picture.height * ZOOM), Image.Resampling.BICUBIC)


if __name__ == "__main__":
    run_script(main)
