"""The feature store: space on disk, labels that compression changes, and the time of writing and reading a frame.

Agreement: the share of pixels that get the same label as from the network in float32, on the quickstart's trained
network and validation pictures: over pixels with a label that was in the training, with one that was not ("unseen"),
and over all pixels with synonyms as labels. Space: for 1,000 frames of 640x480 with 512 dimensions; K components of the
quickstart's C dimensions count as 512 K / C; a basis is fitted with the texts of the training's labels alone. Times: of
a random network with 512 dimensions. Prints two tables and writes JSON.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from apps.predict.embeddings import FOLDER, EmbeddingWriter
from apps.predict.options import EmbeddingOptions
from benchmarks.common import RESULTS, machine
from lseg_utils.cli import Parser
from lseg_utils.errors import InputError, run_script
from lseg_utils.feature_store import FeatureStore, code_type
from lseg_utils.files import REPOSITORY
from lseg_utils.image_input import read_rgb
from lseg_utils.progress import progress_bar
from lseg_utils.results import text_table, write_json
from miniature.names import LABELS, SEEN, with_synonyms
from modules.models import BACKBONES, build_lseg
from modules.predictor import LSegPredictor

QUICKSTART = REPOSITORY / "quickstart"
HEIGHT, WIDTH, DIMENSIONS, FRAMES = 480, 640, 512, 1000  # of the frames whose space and times are given
FITTED = 32  # pictures that a basis is fitted on, as in predict_lseg.py
GROUPS = ("seen", "unseen", "synonyms")


def write_store(
    folder: Path, predictor: LSegPredictor, options: EmbeddingOptions, images: list[Any], text: torch.Tensor
) -> tuple[FeatureStore, float]:
    """Write images as predict_lseg.py does; the opened store, and the share of the variance that its basis keeps."""
    about = {"checkpoint": {"sha256": ""}, "dimensions": text.shape[1], "labels": list(LABELS[: len(text)])}
    writer = EmbeddingWriter(predictor, options, folder, about)
    writer.prepare(images[:: max(len(images) // FITTED, 1)][:FITTED], about["labels"], text)
    records = []
    for number, image in enumerate(images):
        writer.write(f"{number:04d}", image)
        records.append({"name": f"{number:04d}", "source": "", **writer.facts(*image.shape[1:])})
    writer.finish(records)
    return FeatureStore(folder / FOLDER), 1.0 if writer.pca is None else float(writer.pca.explained.sum())


def agreement(store: FeatureStore, expected: dict[str, list[np.ndarray]], texts: dict[str, np.ndarray]) -> list[float]:
    """Percent of pixels with the same label, one figure for each of ``GROUPS``."""
    same, counted = np.zeros(3), np.zeros(3)
    for number, name in enumerate(store.names):
        for wording, text in texts.items():
            equal = store.similarity(name, text).argmax(-1) == expected[wording][number]
            unseen = expected[wording][number] >= len(SEEN)
            masks = (~unseen, unseen, None) if wording == "labels" else (None, None, np.ones_like(unseen))
            for group, mask in enumerate(masks):
                if mask is not None:
                    same[group] += (equal & mask).sum()
                    counted[group] += mask.sum()
    return (100 * same / counted).tolist()


def measure_agreement(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each way of storing."""
    predictor = LSegPredictor.from_checkpoint(options.weights, "cpu", "32")
    files = sorted((options.world / "images" / "validation").glob("*"))[: options.pictures]
    images = [read_rgb(file) for file in files]
    wordings = {"labels": list(LABELS), "synonyms": [with_synonyms(label) for label in LABELS]}
    texts = {wording: predictor.encode_text(names) for wording, names in wordings.items()}
    expected: dict[str, list[np.ndarray]] = {wording: [] for wording in wordings}
    for image in images:
        grid = predictor.grid(image).permute(2, 0, 1)[None]
        for wording, text in texts.items():
            expected[wording].append(predictor.net.head.half_logits(grid, text)[0].argmax(0).numpy())
    dimensions = texts["labels"].shape[1]
    rows = []
    ways = [(codes, k) for k in (None, *options.pca) for codes in ("float16", "int8")]
    for codes, components in progress_bar(ways, desc="storing", unit="way"):
        with TemporaryDirectory() as folder:
            asked = EmbeddingOptions("store", pca=components, codes=codes)
            store, variance = write_store(Path(folder), predictor, asked, images, texts["labels"][: len(SEEN)])
            found = agreement(store, expected, {name: text.numpy() for name, text in texts.items()})
        kept = DIMENSIONS if components is None else components * DIMENSIONS // dimensions
        size = FRAMES * (HEIGHT // 4) * (WIDTH // 4) * code_type(codes, kept).itemsize
        row = {"codes": codes, "components": components, "dimensions": dimensions, "variance": variance}
        rows.append({**row, "gigabytes": size / 1e9, **dict(zip(GROUPS, found))})
    return rows


def seconds(work: Callable[[], object], rounds: int) -> float:
    """The median."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure_times(options: argparse.Namespace) -> dict[str, float]:
    """Seconds of everything that is done with one frame stored as int8."""
    predictor = LSegPredictor(build_lseg(options.backbone, None), "cpu", "32", base_size=WIDTH)
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, HEIGHT, WIDTH), dtype=np.uint8))
    text = torch.nn.functional.normalize(torch.randn(10, predictor.net.text_encoder.embed_dim), dim=1)
    points = np.random.default_rng(0).uniform(0, (HEIGHT - 1, WIDTH - 1), (1000, 2)).T
    with TemporaryDirectory() as folder:
        asked = EmbeddingOptions("store")
        store, _ = write_store(Path(folder), predictor, asked, [image], text)
        writer = EmbeddingWriter(predictor, asked, Path(folder), {})
        work: dict[str, Callable[[], object]] = {
            "the network alone": lambda: predictor.grid(image),
            "the network, and writing": lambda: writer.write("0000", image),
            "read: codes": lambda: np.array(store.codes("0000")),
            "read: grid": lambda: store.grid("0000"),
            "read: 1,000 points": lambda: store.at("0000", *points),
            "read: cosines with 10 texts, 320x240": lambda: store.similarity("0000"),
            "read: embeddings, 320x240": lambda: store.frame("0000"),
        }
        return {what: seconds(one, options.rounds) for what, one in work.items()}


def main() -> None:
    """Measure, print, write."""
    parser = Parser(__doc__)
    trained = QUICKSTART / "runs" / "trained_seed0" / "version_0" / "checkpoints" / "last.ckpt"
    world = QUICKSTART / "datasets_seed0" / "miniature"
    parser.add_argument("--weights", type=Path, default=trained, help="choose the quickstart's trained network")
    parser.add_argument("--world", type=Path, default=world, help="choose the folder of the quickstart's pictures")
    parser.add_argument("--pictures", type=int, default=150, help="store this many of its validation pictures")
    parser.add_argument("--pca", type=int, nargs="+", default=[8, 12, 16, 24], help="also keep this many components")
    parser.add_argument("--backbone", choices=list(BACKBONES), default="clip_vitb32_384", help="time this network")
    parser.add_argument("--rounds", type=int, default=5, help="report the median of this many rounds")
    parser.add_argument("--output", type=Path, default=RESULTS, help="write the JSON file to this folder")
    options = parser.parse(None)
    for path in (options.weights, options.world):
        if not path.exists():
            raise InputError(
                f"{path} does not exist; create it with `bash quickstart.sh`, or give --weights and --world"
            )
    rows, times = measure_agreement(options), measure_times(options)
    write_json(options.output / "store.json", {"machine": machine(), "agreement": rows, "seconds": times})
    full = FRAMES * (HEIGHT // 2) * (WIDTH // 2) * DIMENSIONS * 2 / 1e9
    lines = []
    for row in rows:
        share = f"{row['components']} of {row['dimensions']}: {row['variance']:.2%}" if row["components"] else "all"
        space = f"{row['gigabytes']:.1f}", f"1/{full / row['gigabytes']:.0f}"
        lines.append((row["codes"], share, *space, *(f"{row[group]:.2f}" for group in GROUPS)))
    header = ("codes", "components: variance", "GB", f"of {full:.1f}", *(f"same label, {group} %" for group in GROUPS))
    print(text_table(header, lines))
    print(text_table(("one frame, int8", "ms"), [(what, f"{1e3 * value:.0f}") for what, value in times.items()]))


if __name__ == "__main__":
    run_script(main)
