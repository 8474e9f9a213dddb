"""A network's passport: its answer to a built-in picture and three words, kept in its checkpoint and in exports.

Wrong preprocessing raises no error and only makes results worse: another mean, another tokenizer, another way to resize
positions, a newer library with another default. When a file is loaded or exported, its network answers again, through
the same code as any picture and any label; another answer stops it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lseg_utils.errors import InputError
from lseg_utils.results import versions

from .models import LSegNet
from .models.precision import full_precision
from .models.upsampling import upsample_x2

WORDS = ("dog", "Traffic-light!", "a red car")  # with capitals and punctuation, which towers read differently
HEIGHT, WIDTH = 96, 160  # no network's own size, and not square
NUMBERS = 4  # per place and per word: what is kept of C
TOLERANCE = 2e-3  # of the length of the answer; other machines and exported files stay below a tenth of it
LIBRARIES = ("torch", "timm", "open_clip_torch", "clip-anytorch", "transformers")


def picture() -> np.ndarray:
    """The built-in picture, (96, 160, 3) uint8: waves of three directions, and blocks, no two channels alike."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float64)
    waves = [np.sin(0.11 * x + 0.05 * y), np.sin(0.07 * y - 0.02 * x) * 0.8 - 0.2, np.sin(0.19 * x) * np.cos(0.13 * y)]
    rgb = np.stack([90 + 60 * waves[0], 120 + 80 * waves[1], 150 + 50 * waves[2]], axis=-1)
    rgb[16:48, 24:56] = (220, 40, 30)
    rgb[56:88, 96:144] = (20, 60, 200)
    return rgb.round().astype(np.uint8)


def passport_of(net: LSegNet) -> dict[str, Any]:
    """The answers as plain numbers, and the versions of the libraries that took part.

    Where the words cannot be read here (no tokenizer, no text tower), "text" is empty.
    """
    from .inference.image_tower import ImageTower  # everything that predicts goes this way

    device = next(net.decoder.parameters()).device
    with torch.no_grad(), answering(net), full_precision(device):
        tower = ImageTower(net, device, "32", net.base_size, net.crop_size)
        images = tower.normalised(torch.from_numpy(picture()).permute(2, 0, 1))[None]
        image = image_answer(upsample_x2(net.coarse_embedding(images))[0])
        text: list[float] = []
        if net.head.cosine:
            try:
                text = kept(net.text_encoder(WORDS))
            except ValueError:  # labels will say why, when there are any
                text = []
    return {"image": image, "text": text, "versions": versions(LIBRARIES)}


def image_answer(embedding: Tensor) -> list[float]:
    """(C, 48, 80) pixel embeddings of the picture -> what is kept of them, at 3 x 5 places."""
    return kept(embedding[:, 8::16, 8::16].flatten(1).T)


def kept(vectors: Tensor) -> list[float]:
    """(N, C) -> N * 4 numbers: the vectors seen from four fixed directions."""
    channels = torch.arange(vectors.shape[1], dtype=torch.float64)
    directions = torch.stack([torch.sin((k + 1) * 0.7 * channels + k) for k in range(NUMBERS)], dim=1)
    seen = vectors.detach().cpu().double() @ (directions / math.sqrt(vectors.shape[1]))
    return [float(number) for number in seen.flatten()]


@contextmanager
def answering(net: LSegNet) -> Iterator[None]:
    """The network in eval mode and not compiled, as it was afterwards."""
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        with torch.compiler.set_stance("force_eager"):  # another size would compile the network again
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def difference(stored: list[float], found: list[float]) -> float:
    """How far apart two answers are, relative to the stored one; 0 where one of them is missing."""
    if not stored or not found:
        return 0.0
    a, b = np.array(stored), np.array(found)
    return float(np.linalg.norm(a - b) / max(np.linalg.norm(a), 1e-12)) if a.shape == b.shape else math.inf


def check_passport(net: LSegNet, where: str) -> None:
    """``InputError`` unless the network answers as its passport in ``net.metadata`` says; without one nothing happens.

    where: the file that is being loaded or exported.
    """
    stored = net.metadata.get("passport")
    if not stored:
        return
    found = passport_of(net)
    problems = []
    if not (far := difference(stored["image"], found["image"])) <= TOLERANCE:
        problems.append(
            f"its answer to the built-in picture differs by {100 * far:.1f} %: the image encoder, the normalisation "
            f"(mean {tuple(net.mean)}, std {tuple(net.std)}) or the resizing of positions is different"
        )
    if not (far := difference(stored["text"], found["text"])) <= TOLERANCE:
        problems.append(
            f"its answer to three words differs by {100 * far:.1f} %: the tokenizer, the cleaning of labels or the "
            "text tower is different"
        )
    if problems:
        before, now = stored.get("versions", {}), found["versions"]
        changed = [f"{name} was {before[name]}, is {now.get(name)}" for name in before if before[name] != now.get(name)]
        advice = "The file was changed, or is damaged"
        if changed:
            advice = f"Install the versions that it was written with ({', '.join(changed)})"
        raise InputError(
            f"{where} does not compute here what it computed when it was written: {'; '.join(problems)}. {advice}"
        )


def check_export(path: str, answer: Callable[[np.ndarray], np.ndarray], about: dict[str, Any]) -> None:
    """``InputError`` unless an exported tower answers the picture as the passport in ``about`` says.

    answer: images (1, 3, H, W) float32, normalised with ``about``'s mean and std -> embeddings (1, C, H/2, W/2).
    """
    mean, std = (np.asarray(about[key], np.float32).reshape(3, 1, 1) for key in ("mean", "std"))
    images = ((picture().transpose(2, 0, 1).astype(np.float32) / 255 - mean) / std)[None].astype(np.float32)
    far = difference(about["passport"]["image"], image_answer(torch.from_numpy(np.array(answer(images)[0]))))
    if not far <= TOLERANCE:
        raise InputError(f"{path} was not kept: its answer to the built-in picture differs by {100 * far:.1f} %")


def is_passport(value: Any) -> bool:
    """Whether metadata contain a passport that can be compared."""
    return isinstance(value, dict) and all(
        isinstance(value.get(key), list) and all(isinstance(number, float) for number in value[key])
        for key in ("image", "text")
    )
