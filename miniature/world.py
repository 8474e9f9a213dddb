"""Composes the miniature world and writes it in ADE20K's layout: `images/`, `annotations/`, `world.json`, labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lseg_utils.progress import progress_bar
from miniature.drawing import Placement, draw_scene, random_angle
from miniature.folder import make_folder, save_pair, write_labels
from miniature.names import LABELS, SEEN, TEXTURES, UNSEEN

FOLDER = "miniature"
SIZE = 64
VERSION = 1  # raise it when the same seed gives other pictures, so that old worlds are made again
TRAINING_IMAGES, VALIDATION_IMAGES = 3000, 400
ZS_TRAINING_IMAGES, ZS_TEST_IMAGES = 40, 10  # of each class, in the world in folds
CLIP_STEPS = 400
RADII = (8.0, 13.0)
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
    return folder, make_folder(folder, settings, lambda aside: _write_all(aside, settings))


def compose(rng: np.random.Generator, labels: list[str], size: int = SIZE) -> list[Placement]:
    """Place an object for each label with little overlap; a crowded picture may contain fewer than requested."""
    placed: list[Placement] = []
    for label in labels:
        for _ in range(PLACING_TRIES):
            radius = rng.uniform(*RADII)
            x, y = rng.uniform(0.9 * radius, size - 0.9 * radius, 2)
            if all(np.hypot(x - p.x, y - p.y) > 0.95 * (radius + p.radius) for p in placed):
                placed.append(Placement(label, float(x), float(y), float(radius), random_angle(rng)))
                break
    return placed


def _write_all(folder: Path, settings: dict) -> None:
    compositions = [label for label in SEEN if label not in TEXTURES]
    allowed = {"training": compositions, "validation": compositions + list(UNSEEN)}
    total = sum(settings["counts"].values())
    with progress_bar(total=total, desc="miniature world", unit="image") as bar:
        for number, (split, count) in enumerate(settings["counts"].items()):
            for kind in ("images", "annotations"):
                (folder / kind / split).mkdir(parents=True)
            deck = _Deck(allowed[split], np.random.default_rng([settings["seed"], number]))
            for index in range(count):
                rng = np.random.default_rng([settings["seed"], number, index])
                objects = compose(rng, deck.draw(int(rng.integers(2, 6))))
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
