"""Show what the quickstart measured: a table, and pictures of the predictions with several label lists."""

from __future__ import annotations

import lseg_utils.interrupt  # noqa: F401  first: Ctrl-C while the rest is imported is quiet

# isort: split

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data import check_dataset, get_dataset
from encoding_ext import image_to_tensor
from encoding_ext.transforms import tensor_to_pixels
from lseg_utils.cli import Parser
from lseg_utils.errors import InputError, run_script
from lseg_utils.files import REPOSITORY, write_aside
from lseg_utils.pictures import save_picture
from lseg_utils.results import text_table, write_json
from miniature.names import LABELS
from miniature.pictures import (
    choose_images,
    choose_rich_image,
    cosine_maps,
    iou_maps,
    prediction_sheet,
    relabel_sheet,
    visible_areas,
)
from miniature.results import TABLE_NOTE, composition_ious, read_results, table_cells, table_rows
from modules.checkpoints import load_lseg
from modules.models import LSegNet, build_lseg


@dataclass(frozen=True)
class Places:
    """Where ``quickstart.sh`` writes the files of one seed, below its ``--folder``."""

    folder: Path
    seed: int
    short: bool

    def _named(self, name: str) -> Path:
        return self.folder / f"{name}{'_short' if self.short else ''}"

    @property
    def datasets(self) -> Path:
        return self._named(f"datasets_seed{self.seed}")

    @property
    def checkpoint(self) -> Path:
        return self._named("runs") / f"trained_seed{self.seed}" / "version_0" / "checkpoints" / "last.ckpt"

    @property
    def results(self) -> Path:
        return self._named(f"results/seed{self.seed}")

    @property
    def report(self) -> Path:
        return self._named(f"report_seed{self.seed}")

    @property
    def command(self) -> str:
        """The command that makes everything."""
        words = ["bash", "quickstart.sh", "--seed", str(self.seed), *(["--short"] if self.short else [])]
        if self.folder != REPOSITORY / "quickstart":
            words += ["--folder", str(self.folder)]
        return shlex.join(words)


def main(argv: Sequence[str] | None = None) -> None:
    """Check that everything is there, write the report, print its table."""
    parser = Parser(__doc__)
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "quickstart", help="the quickstart's --folder")
    parser.add_argument("--seed", type=int, default=0, help="the quickstart's --seed")
    parser.add_argument("--short", action="store_true", help="report on a quickstart that ran with --short")
    options = parser.parse(argv)
    places = Places(options.folder.resolve(), options.seed, options.short)

    results = check_all(places)
    net = load_lseg(places.checkpoint)
    rows = table_rows(results)
    table = f"{text_table(*table_cells(rows))}\n\n{TABLE_NOTE}"
    content = {"seed": places.seed, "short": places.short, "unit": "percent", "rows": rows}
    write_json(places.report / "results.json", content)
    with write_aside(places.report / "table.txt") as aside:
        aside.write_text(table + "\n", encoding="utf-8")
    write_pictures(places, net)
    ious = [composition_ious(results[name]) for name in ("labels", "synonyms")]
    save_picture(places.report / "iou_map.png", iou_maps(*ious))
    save_picture(places.report / "cosine.png", cosine_maps(cosines(net), cosines(untrained_like(net, places.seed))))

    print(table)
    if places.short:
        print("This was a short run: it shows that everything runs, not that it learns.")
    pictures = ", ".join(f"{name}.png" for name in ("sheet", "relabel", "iou_map", "cosine"))
    print(f"\npictures: {pictures} in {places.report}\n{what_next(places.checkpoint)}")


def what_next(checkpoint: Path) -> str:
    """The trained network, and commands that use it."""
    weights = shlex.quote(str(checkpoint))
    return (
        f"trained network: {checkpoint}\n\nwhat to try next, after `source .venv/bin/activate`:\n"
        f'  python predict_lseg.py PICTURE --weights {weights} --labels "crimson disc, azure box, lawn"\n'
        "  pip install -r requirements-extras.txt    # for the app and the notebook\n"
        f"  streamlit run lseg_app.py -- --checkpoint {weights}\n"
        "  lseg_demo.ipynb, in any Jupyter\n"
        "This network only understands the miniature's shapes, colours and textures; README.md says how to get others."
    )


def check_all(places: Places) -> dict[str, dict]:
    """The results of the tests; one ``InputError`` with everything that is missing or damaged."""
    results, problems = read_results(places.results)
    if not places.checkpoint.is_file():
        problems.append(f"{places.checkpoint}, the trained network, is missing")
    try:
        check_dataset("miniature", places.datasets, ["val"])
    except InputError as error:
        problems.append(str(error))
    if problems:
        problems.append(f"run `{places.command}`, which makes whatever is missing; then run this command again")
        raise InputError("\n".join(problems))
    return results


def write_pictures(places: Places, net: LSegNet) -> None:
    """sheet.png and relabel.png, from images chosen by a fixed rule."""
    dataset = get_dataset(
        "miniature", places.datasets, split="val", mode="testval", transform=image_to_tensor(net.mean, net.std)
    )

    @torch.inference_mode()
    def segment(image: Tensor, labels: Sequence[str]) -> np.ndarray:
        return net(image[None], labels=list(labels))[0].argmax(dim=0).numpy()

    areas, to_pixels = visible_areas(dataset), tensor_to_pixels(net.mean, net.std)
    picture = prediction_sheet(dataset, choose_images(areas), segment, to_pixels)
    save_picture(places.report / "sheet.png", picture)
    image, mask = dataset[choose_rich_image(areas)]
    save_picture(places.report / "relabel.png", relabel_sheet(image, mask.numpy(), segment, to_pixels))


def cosines(net: LSegNet) -> np.ndarray:
    """(40, 40): cosine similarity of the text embeddings of the miniature's labels, -1..1."""
    text = net.encode_labels(LABELS)
    return (text @ text.T).numpy()


def untrained_like(net: LSegNet, seed: int) -> LSegNet:
    """A network of the same architecture with random weights, in the text tower too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_lseg(labels=None, **net.architecture).eval()


if __name__ == "__main__":
    run_script(main)
