"""How many training samples a second one core gives: the project's loader against Pillow's decode-resize-crop.

Makes ADE20K-like pictures in a temporary folder: of 683x512, as most of ADE20K is, and of 2000x1500. Both ways give the
same crops of the same files, in alternation, on one thread; what is counted is processor time.
"""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import PIL
import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader
from torchvision import transforms as tv

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import HEADER, RESULTS, SEED, cells, machine
from data import DescribedDataset, get_dataset
from data.described import MEAN, STD
from data.loading import SeededDataset, make_loader
from encoding_ext.transforms import TrainTransform
from lseg_utils.cli import Parser
from lseg_utils.errors import run_script
from lseg_utils.results import text_table, write_json

KINDS = {"683x512": (683, 512), "2000x1500": (2000, 1500)}
LARGE_SHARE = 0.1  # of the mixture that the aim speaks of
BATCH = 4
JPEG_QUALITY = 90


class PlainTraining(SeededDataset):
    """The official training transform as it is written down: everything decoded, flipped, resized, padded, then cut.

    Takes the same random numbers as the project's, so that its crops are the same.
    """

    def __getitem__(self, place: tuple[int, int]) -> dict[str, Any]:
        epoch, index = place
        image = Image.open(self.dataset.files[index][0]).convert("RGB")
        mask = Image.open(self.dataset.files[index][1])
        transform = TrainTransform(self.dataset.base_size, self.dataset.crop_size)
        crop = transform.draw(image.size, self.generator(epoch, index))
        if crop.mirrored:
            image, mask = ImageOps.mirror(image), ImageOps.mirror(mask)
        image = image.resize(crop.size, Image.Resampling.BILINEAR)
        mask = mask.resize(crop.size, Image.Resampling.NEAREST)
        right, bottom = (max(crop.side - side, 0) for side in crop.size)
        box = (crop.left, crop.top, crop.left + crop.side, crop.top + crop.side)
        image, mask = (ImageOps.expand(each, (0, 0, right, bottom), fill=0).crop(box) for each in (image, mask))
        to_tensor = tv.Compose([tv.ToTensor(), tv.Normalize(MEAN, STD)])
        return {"image": to_tensor(image), "mask": torch.from_numpy(np.array(mask)).long() - 1, "index": index}


def make_pictures(root: Path, size: tuple[int, int], number: int, seed: int) -> DescribedDataset:
    """ADE20K's training set with ``number`` pictures of ``size`` under ``root``."""
    for index in range(number):
        pixels, mask = _scene(np.random.default_rng((seed, index)), *size)
        for folder, picture, suffix in (("images", pixels, "jpg"), ("annotations", mask, "png")):
            path = root / "ADEChallengeData2016" / folder / "training" / f"a{index}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path, quality=JPEG_QUALITY)
    return get_dataset("ade20k", root)


def _scene(rng: np.random.Generator, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """An image (h, w, 3) with a photograph's spectrum and edges, and its mask (h, w) of some twenty objects."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf
    noise = rng.standard_normal((4, height, width))  # whose amplitude is made to fall with frequency
    fields = np.fft.irfft2(np.fft.rfft2(noise) / frequency**1.6, (height, width))
    grey, *colours = fields / fields.std(axis=(1, 2), keepdims=True)
    image = 120 + 35 * grey[..., None] + 10 * np.stack(colours, axis=-1)
    mask = np.full((height, width), rng.integers(1, 151), np.uint8)
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    for _ in range(20):
        radius = rng.uniform(0.05, 0.3) * height * (1 + 0.2 * np.cumsum(rng.normal(size=60)) / 8)
        outline = rng.uniform(0, (width, height)) + radius[:, None] * directions
        inside = cv2.fillPoly(np.zeros_like(mask), [outline.astype(np.int32)], 1) > 0
        mask[inside] = rng.integers(1, 151)
        image[inside] = image[inside] * rng.uniform(0.5, 1.2) + rng.uniform(-50, 50, 3)
    return image.clip(0, 255).astype(np.uint8), mask


def compare(dataset: DescribedDataset, rounds: int, seed: int) -> tuple[float, float, dict[str, float]]:
    """Processor time per sample of the plain procedure and of the project, and how far apart their samples are."""
    project = make_loader(dataset, BATCH, seed, shuffle=True)
    plain = DataLoader(PlainTraining(dataset, seed), batch_size=BATCH, sampler=project.sampler)
    difference, unequal = [], 0
    for batch, other in zip(project, plain):  # warms up, too
        difference.append((batch["image"] - other["image"]).abs().mean().item() * 255 * STD[0])
        unequal += int((batch["mask"] != other["mask"]).sum())
    seconds: tuple[list[float], list[float]] = ([], [])
    for epoch in range(1, rounds + 1):
        project.sampler.set_epoch(epoch)
        for loader, times in zip((plain, project), seconds):
            started = time.process_time()
            for _ in loader:
                pass
            times.append((time.process_time() - started) / len(dataset))
    distance = {"mean_difference_of_255": sum(difference) / len(difference), "unequal_labels": unequal}
    return median(seconds[0]), median(seconds[1]), distance


def main() -> None:
    """Print two rows per kind of picture and write them."""
    parser = Parser(__doc__)
    parser.add_argument("--images", type=int, default=24, help="make this many pictures of each kind")
    parser.add_argument("--rounds", type=int, default=8, help="time this many epochs of each loader; the median counts")
    options = parser.parse(None)
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    warnings.filterwarnings("ignore", message=".*images here, .*officially")
    measured = {}
    with TemporaryDirectory() as folder:
        for name, size in KINDS.items():
            dataset = make_pictures(Path(folder, name), size, options.images, SEED)
            measured[name] = compare(dataset, options.rounds, SEED)
    small, large = measured.values()
    mixed = [(1 - LARGE_SHARE) * small[i] + LARGE_SHARE * large[i] for i in range(2)]
    measured[f"{LARGE_SHARE:.0%} large"] = (*mixed, {})
    rows = []
    for kind, (plain, project, distance) in measured.items():
        for procedure, seconds, more in (("plain", plain, {}), ("project", project, distance)):
            row = {"what": f"training samples, one core, pictures: {kind}", "procedure": procedure}
            row |= {"seconds": [seconds], "ratio": plain / seconds, "per_second": 1 / seconds, "unit": "samples"}
            rows.append(row | more)
    print(text_table(HEADER, [cells(row) for row in rows]))
    versions = {"pillow": PIL.__version__, "opencv": cv2.__version__}
    content = {"machine": machine() | versions, "jpeg_quality": JPEG_QUALITY, "rows": rows}
    write_json(RESULTS / "data_cpu.json", content)


if __name__ == "__main__":
    run_script(main)
