"""Make the miniature world and its tiny CLIP: pictures, masks, label files, `clip_tiny.pt`. Safe to run again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from data.miniature_clip import ClipSettings, train_clip
from data.miniature_world import TRAINING_IMAGES, VALIDATION_IMAGES, make_world
from encoding_ext.errors import run_script
from encoding_ext.files import write_aside
from encoding_ext.results import text_table
from modules.options import REPOSITORY, Parser


def main(argv: Sequence[str] | None = None) -> None:
    """World, then CLIP; what is there already, with the same settings, is left alone."""
    parser = Parser(__doc__)
    parser.add_argument("--data_path", type=Path, default=REPOSITORY / "quickstart" / "datasets", help="gets miniature/")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--training", type=int, default=TRAINING_IMAGES, help="training images")
    parser.add_argument("--validation", type=int, default=VALIDATION_IMAGES, help="validation images")
    parser.add_argument("--clip_steps", type=int, default=ClipSettings(seed=0).steps, help="training steps of the tiny CLIP")
    options = parser.parse(argv)

    folder, made = make_world(options.data_path, options.seed, options.training, options.validation)
    print(f"{folder}: {'made' if made else 'already there'}")
    target = folder / "clip_tiny.pt"
    if target.exists():
        print(f"{target}: already there")
        return
    state, accuracies = train_clip(ClipSettings(options.seed, steps=options.clip_steps))
    with write_aside(target) as aside:
        torch.save(state, aside)
    print(text_table(("retrieval among 40 labels", "accuracy %"), [(k, 100 * v) for k, v in accuracies.items()]))
    print(f"{target}: made")


if __name__ == "__main__":
    run_script(main)
