"""Composes the miniature world and writes it in ADE20K's layout: `images/`, `annotations/`, `world.json`, labels."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from lseg_utils.progress import progress_bar
from miniature.drawing import Placement, draw_scene, random_angle
from miniature.folder import make_folder, save_pair, write_labels
from miniature.names import LABELS, SEEN, TEXTURES, UNSEEN

FOLDER, SECOND_FOLDER = "miniature", "miniature_colours"
SIZE = 64
VERSION = 1  # raise it when the same seed gives other pictures, so that old worlds are made again
TRAINING_IMAGES, VALIDATION_IMAGES = 3000, 400
ZS_TRAINING_IMAGES, ZS_TEST_IMAGES = 40, 10  # of each class, in the world in folds
CLIP_STEPS = 400
RADII = (8.0, 13.0)
APART, OVERLAPPING = 0.95, 0.55  # least distance of two objects, in sums of their radii
PLACING_TRIES = 60


def world_settings(seed: int, training: int = TRAINING_IMAGES, validation: int = VALIDATION_IMAGES) -> dict:
    """Everything that a world depends on; ``world.json`` contains it."""
    return {
        "version": VERSION,
        "seed": seed,
        "num_seen": len(SEEN),
        "size": SIZE,
        "counts": {"training": training, "validation": validation},
    }


def make_world(
    root: str | Path, seed: int, training: int = TRAINING_IMAGES, validation: int = VALIDATION_IMAGES
) -> tuple[Path, bool]:
    """Write the world of ``seed`` into ``<root>/miniature``, unless exactly this world is there already.

    Training images show seen compositions only, validation images all of them. An older world with other settings
    is replaced as a whole, with its CLIP, since what was learned from it does not belong to the new one.

    Returns the folder and whether it was made now. Raises ``InputError`` where the folder is somebody else's or
    cannot be written.
    """
    folder = Path(root) / FOLDER
    settings = world_settings(seed, training, validation)
    compositions = [label for label in SEEN if label not in TEXTURES]
    allowed = {"training": compositions, "validation": compositions + list(UNSEEN)}
    return folder, make_folder(folder, settings, lambda aside: _write_all(aside, settings, allowed))


def make_second_world(root: str | Path, seed: int, training: int, validation: int) -> tuple[Path, bool]:
    """Write other pictures into ``<root>/miniature_colours``: all compositions in training too, and objects overlap.

    Its masks have the same 40 values; ``miniature_colours.yaml`` reads of them only colours and textures. Returns and
    raises as ``make_world``.
    """
    folder = Path(root) / SECOND_FOLDER
    settings = world_settings(seed, training, validation) | {"spacing": OVERLAPPING}
    every = [label for label in LABELS if label not in TEXTURES]
    allowed = {"training": every, "validation": every}
    write = partial(_write_all, settings=settings, allowed=allowed, stream=len(allowed), spacing=OVERLAPPING)
    return folder, make_folder(folder, settings, write)


def compose(rng: np.random.Generator, labels: list[str], spacing: float = APART) -> list[Placement]:
    """Place an object for each label; a crowded picture may contain fewer than requested.

    spacing: least distance of two objects, in sums of their radii.
    """
    placed: list[Placement] = []
    for label in labels:
        for _ in range(PLACING_TRIES):
            radius = rng.uniform(*RADII)
            x, y = rng.uniform(0.9 * radius, SIZE - 0.9 * radius, 2)
            if all(np.hypot(x - p.x, y - p.y) > spacing * (radius + p.radius) for p in placed):
                placed.append(Placement(label, float(x), float(y), float(radius), random_angle(rng)))
                break
    return placed


def _write_all(
    folder: Path, settings: dict, allowed: dict[str, list[str]], stream: int = 0, spacing: float = APART
) -> None:
    """``allowed``: the compositions of each split. ``stream``: of random numbers, the first of one for each split."""
    total = sum(settings["counts"].values())
    with progress_bar(total=total, desc="miniature world", unit="image") as bar:
        for number, (split, count) in enumerate(settings["counts"].items(), start=stream):
            for kind in ("images", "annotations"):
                (folder / kind / split).mkdir(parents=True)
            deck = _Deck(allowed[split], np.random.default_rng([settings["seed"], number]))
            for index in range(count):
                rng = np.random.default_rng([settings["seed"], number, index])
                objects = compose(rng, deck.draw(int(rng.integers(2, 6))), spacing=spacing)
                image, mask = draw_scene(TEXTURES[index % len(TEXTURES)], objects, SIZE, rng)
                name = f"{split}_{index:05d}"
                places = folder / "images" / split / f"{name}.jpg", folder / "annotations" / split / f"{name}.png"
                save_pair(places[0], image, places[1], mask)
                bar.update()
    write_labels(folder, LABELS)


class _Deck:
    """Draws labels like cards from a shuffled deck, so that all compositions appear almost equally often."""

    def __init__(self, labels: list[str], rng: np.random.Generator):
        self.labels, self.rng, self.left = labels, rng, []

    def draw(self, count: int) -> list[str]:
        while len(self.left) < count:
            self.left += [self.labels[i] for i in self.rng.permutation(len(self.labels))]
        hand, self.left = self.left[:count], self.left[count:]
        return hand
