"""Train LSeg on two miniature worlds with unlike labels: each alone, both together, with and without unions.

One world names the shapes of its objects and calls every background ground; the other names colours only, but four
backgrounds. All networks see equally many pictures and are tested on the 40 fine labels of the quickstart, which
neither world has. If it is interrupted, the same command resumes.
"""

from __future__ import annotations

import lseg_utils.interrupt  # noqa: F401  first: Ctrl-C while the rest is imported is quiet

# isort: split

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lseg_utils.cli import Parser
from lseg_utils.errors import run_script
from lseg_utils.files import REPOSITORY
from lseg_utils.results import text_table, write_json
from miniature.prepare import check
from miniature.world import CLIP_STEPS, make_second_world, make_world

TABLE = REPOSITORY / "recipes" / "miniature_joint.yaml"
BOTH = "miniature_shapes:0.5,miniature_colours:0.5"  # half of each: as many pictures as one world alone
TRAININGS = {
    "shapes": ("shapes alone", "miniature_shapes", True),
    "colours": ("colours alone", "miniature_colours", True),
    "joint": ("both", BOTH, True),
    "words": ("both, without unions", BOTH, False),
}
"""Name of the run -> what it is called in the table, ``--dataset``, and whether coarse labels are unions."""
COLUMNS = {"all": "40 labels", "seen": "seen", "unseen": "unseen", "shapes": "own test, shapes", "colours": "colours"}


def main(argv: Sequence[str] | None = None) -> None:
    """Make the worlds, train and test every network for every seed, print mean and deviation."""
    parser = Parser(__doc__)
    parser.add_argument(
        "--folder", type=Path, default=REPOSITORY / "quickstart" / "joint", help="write everything here"
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], help="make a world and networks for each of these seeds"
    )
    parser.add_argument("--training", type=int, default=800, help="make this many training images of each world")
    parser.add_argument("--validation", type=int, default=150, help="make this many validation images of each world")
    parser.add_argument("--epochs", type=int, default=5, help="train for this many epochs")
    parser.add_argument("--clip_steps", type=int, default=CLIP_STEPS, help="train the tiny CLIP for this many steps")
    parser.add_argument("--backbone", default="tiny_resnet", help="train this image encoder")
    options = parser.parse(argv)
    check(min(options.seeds), options.training, options.validation, options.epochs, options.clip_steps)

    import torch  # which --help does not need

    from miniature.clip import ClipSettings, make_clip

    torch.set_num_threads(1)  # networks this small do not fill more

    results: dict[str, list[dict[str, float]]] = {name: [] for name in TRAININGS}
    for seed in options.seeds:
        root = options.folder / f"seed{seed}"
        world, _ = make_world(root, seed, options.training, options.validation)
        make_second_world(root, seed, options.training, options.validation)
        clip, _, _ = make_clip(world, ClipSettings(seed, steps=options.clip_steps))
        for name, (_, dataset, unions) in TRAININGS.items():
            weights = train(root, f"{name}_{options.backbone}", dataset, unions, clip, seed, options)
            results[name].append(measure(root, weights))
    rows = [[TRAININGS[name][0], *map(spread, columns(found))] for name, found in results.items()]
    print(f"mIoU in percent, mean (standard deviation) of {len(options.seeds)} seeds")
    print(text_table(("trained on", *COLUMNS.values()), rows))
    path = options.folder / f"table_{options.backbone}.json"
    write_json(path, {"settings": {k: str(v) for k, v in vars(options).items()}, "results": results})
    print(f"wrote {path}")


def train(root: Path, name: str, dataset: str, unions: bool, clip: Path, seed: int, options: Any) -> Path:
    """Train a network, unless it is there; the path of its last checkpoint."""
    import train_lseg

    last = root / "runs" / name / "version_0" / "checkpoints" / "last.ckpt"
    # The quickstart's recipe. A training that is complete ends at once.
    recipe = "--num_features 48 --optimizer adamw --scratch_factor 1 --schedule cosine --warmup_steps 50 --batch_size 4"
    recipe += f" --base_lr 0.008 --weight_decay 0.1 --workers 0 --accelerator cpu --seed {seed}"
    recipe += f" --max_epochs {options.epochs} --check_val_every_n_epoch {options.epochs} --backbone_weights random"
    words = ["--dataset", dataset, "--data_path", str(root), "--backbone", options.backbone, *recipe.split()]
    words += ["--clip_weights", str(clip), "--checkpoint_dir", str(root / "runs"), "--exp_name", name]
    # With an empty table too, the code for several label sets trains.
    empty = root / "no_unions.yaml"
    empty.write_text("{}\n", encoding="utf-8")
    train_lseg.main([*words, "--label_table", str(TABLE if unions else empty)])
    return last


def measure(root: Path, weights: Path) -> dict[str, float]:
    """mIoU in percent on the 40 fine labels, on those seen and unseen, and on the two worlds' own labels."""
    out = weights.parents[1] / "test"
    if not (out / "results.json").is_file():
        import test_lseg

        words = ["--eval", "--dataset", "miniature", "--data_path", str(root), "--weights", str(weights)]
        words += ["--scales", "1", "--window_batch", "2", "--workers", "0", "--device", "cpu"]
        test_lseg.main([*words, "--output_dir", str(out), "--log_dir", str(out)])
    result = json.loads((out / "results.json").read_text(encoding="utf-8"))

    from modules.checkpoints import read_checkpoint

    metric = read_checkpoint(weights).metadata["metric"]
    own = {name: 100 * metric[key] for name in ("shapes", "colours") if (key := f"val_miou_miniature_{name}") in metric}
    return {"all": result["miou"], **{group: result["groups"][group] for group in ("seen", "unseen")}, **own}


def columns(found: Sequence[dict[str, float]]) -> list[list[float]]:
    """The figures of all seeds, by column; none where a network was not validated."""
    return [[one[name] for one in found if name in one] for name in COLUMNS]


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation of the seeds; empty without values."""
    if not values:
        return ""
    deviation = f" ({statistics.stdev(values):.1f})" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{deviation}"


if __name__ == "__main__":
    run_script(main)
