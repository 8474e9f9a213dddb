"""Make the miniature world and its tiny CLIP: pictures, masks, label files, `clip_tiny.pt`. It can be run again."""

from __future__ import annotations

import lseg_utils.interrupt  # noqa: F401  first: Ctrl-C while the rest is imported is quiet

# isort: split

from collections.abc import Sequence
from pathlib import Path

from lseg_utils.cli import Parser
from lseg_utils.errors import InputError, run_script
from lseg_utils.files import REPOSITORY
from lseg_utils.results import text_table
from miniature.world import (
    CLIP_STEPS,
    TRAINING_IMAGES,
    VALIDATION_IMAGES,
    ZS_TEST_IMAGES,
    ZS_TRAINING_IMAGES,
    make_world,
)


def main(argv: Sequence[str] | None = None) -> None:
    """Make the world, then the CLIP; keep whatever already exists with the same settings."""
    parser = Parser(__doc__)
    parser.add_argument(
        "--data_path", type=Path, default=REPOSITORY / "quickstart" / "datasets", help="write to this folder"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed the pictures and the CLIP; 0 or more")
    parser.add_argument("--training", type=int, default=TRAINING_IMAGES, help="make this many training images")
    parser.add_argument("--validation", type=int, default=VALIDATION_IMAGES, help="make this many validation images")
    parser.add_argument("--clip_steps", type=int, default=CLIP_STEPS, help="train the tiny CLIP for this many steps")
    parser.add_argument(
        "--zs_training",
        type=int,
        default=ZS_TRAINING_IMAGES,
        help="make this many training images per class, zero-shot",
    )
    parser.add_argument(
        "--zs_test", type=int, default=ZS_TEST_IMAGES, help="make this many test images per class, zero-shot"
    )
    options = parser.parse(argv)
    check(options.seed, options.training, options.validation, options.clip_steps, options.zs_training, options.zs_test)

    from miniature.clip import ClipSettings, make_clip  # torch, which --help does not need
    from miniature.dataset_zs import make_fewshot_world

    folder, made = make_world(options.data_path, options.seed, options.training, options.validation)
    print(f"{folder}: {'made' if made else 'already there'}")
    weights, accuracies, made = make_clip(folder, ClipSettings(options.seed, steps=options.clip_steps))
    print(f"{weights}: {'made' if made else 'already there'}")
    folder, made = make_fewshot_world(options.data_path, options.seed, options.zs_training, options.zs_test)
    print(f"{folder}: {'made' if made else 'already there'}")
    rows = [(wording, 100 * accuracy) for wording, accuracy in accuracies.items()]
    print(text_table(("retrieval of the tiny CLIP among 40 labels", "accuracy %"), rows))


def check(seed: int, *counts: int) -> None:
    """``InputError`` unless the seed is at least 0 and each count at least 1."""
    if seed < 0 or min(counts) < 1:
        raise InputError(f"--seed must be at least 0, got {seed}; all other numbers must be at least 1, got {counts}")


if __name__ == "__main__":
    run_script(main)
