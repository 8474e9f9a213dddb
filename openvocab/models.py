"""What the suite can test: LSeg, any model with two methods, and predictions that somebody else saved.

Legend: H x W the picture; N classes; T texts; C embedding dimensions; h x w a model's own grid.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from encoding_ext.evaluator import MultiScaleEvaluator
from lseg_utils.errors import InputError, few
from modules.device import dtype_name, resolve_device
from modules.inference.image_tower import EmbeddedImage, ImageTower
from modules.inference.label_texts import encode_with_templates
from modules.inference.scores import rank
from modules.models import LSegNet
from openvocab.look import Look
from openvocab.wording import Wording

SCORES = 2**24  # numbers of a chunk of labels on a whole picture: 64 MB
CLIP_SCALE = 100.0  # of cosines before a softmax
VIEWS = 4  # of a picture that go through LSeg together


class DenseModel(Protocol):
    """What a model of your own must have: ``encode_labels``, and ``embed`` or ``logits`` (or both; ``embed`` wins).

    ``embed(image)``: a picture (3, H, W), float32 RGB in 0..1, -> a map (C, h, w) of any size and scale. A label's
    score at a pixel is the cosine of the two vectors, and for probabilities 100 (CLIP's scale) times the cosine.
    ``logits(image, text)``: the same picture, and what ``encode_labels`` gave for all texts, -> scores (T, h, w).
    """

    def encode_labels(self, labels: Sequence[str], templates: Sequence[str]) -> Tensor:
        """T labels -> (T, C) float32 unit vectors. Each template has one {} for the label."""
        ...


class Segmenter(Protocol):
    """What the suite asks of a model, in two steps, so that a picture is seen once however many label lists follow."""

    def encode_labels(self, labels: Sequence[str], templates: Sequence[str]) -> Tensor:
        """T labels -> (T, C) float32 unit vectors."""
        ...

    def see(self, image: Tensor, look: Look) -> Any:
        """A picture, uint8 (3, H, W) -> anything that ``best`` takes."""
        ...

    def best(self, seen: Any, text: Tensor) -> Tensor:
        """The number of the best text of each pixel, integers (H, W) on the CPU."""
        ...

    def probabilities(self, seen: Any, text: Tensor) -> Tensor:
        """The softmax over all texts, (T, H, W): as large as it says, and asked for where nothing less will do."""
        ...


class LSegSegmenter:
    """An LSeg network, in the precision and on the device that are asked for."""

    def __init__(self, net: LSegNet, device: str, precision: str) -> None:
        self.device = resolve_device(device)
        self.net = net.to(self.device).eval()
        self.tower = ImageTower(self.net, self.device, precision, net.base_size, net.crop_size)

    @property
    def precision(self) -> str:
        """What convolutions and matrix products are computed in."""
        return dtype_name(self.tower.dtype)

    def encode_labels(self, labels: Sequence[str], templates: Sequence[str]) -> Tensor:
        """See ``Segmenter``."""
        return encode_with_templates(self.net.text_encoder, labels, templates)

    def see(self, image: Tensor, look: Look) -> EmbeddedImage:
        """The coarse embeddings of every view."""
        return self.tower.look([image], [look.canvases(*image.shape[1:])], VIEWS)[0]

    def best(self, seen: EmbeddedImage, text: Tensor) -> Tensor:
        """Streamed over chunks of labels, so that memory does not grow with T."""
        return rank(seen, text.to(self.device), self.net.head).indices[0].long().cpu()

    def probabilities(self, seen: EmbeddedImage, text: Tensor) -> Tensor:
        """See ``Segmenter``."""
        ranking = rank(seen, text.to(self.device), self.net.head, k=len(text))
        return torch.empty_like(ranking.scores).scatter_(0, ranking.indices.long(), ranking.scores.softmax(dim=0))


class PluggedSegmenter:
    """A ``DenseModel``: windows, scales and mirror images are the suite's, so that every model is seen alike."""

    precision = "the model's own"

    def __init__(self, model: Any) -> None:
        wanted = ("encode_labels", "embed" if hasattr(model, "embed") else "logits")
        if missing := [name for name in wanted if not callable(getattr(model, name, None))]:
            raise InputError(
                f"the model {type(model).__name__} does not have {', '.join(missing)}; see docs/openvocab.md"
            )
        self.model = model

    def encode_labels(self, labels: Sequence[str], templates: Sequence[str]) -> Tensor:
        """See ``Segmenter``."""
        return self.model.encode_labels(labels, templates)

    def see(self, image: Tensor, look: Look) -> tuple[Tensor, tuple[int, int], Look]:
        """The sum of unit embeddings (C, h, w) over all views, since cosines can be summed before or after the
        product with the labels; or the picture itself for a model without ``embed``."""
        rgb, size = image.float() / 255, (image.shape[1], image.shape[2])
        if not hasattr(self.model, "embed"):
            return rgb, size, look
        return self._map(rgb, look, lambda crop: F.normalize(self.model.embed(crop).float(), dim=0)), size, look

    @torch.inference_mode()
    def best(self, seen: tuple[Tensor, tuple[int, int], Look], text: Tensor) -> Tensor:
        """Chunk by chunk of labels; of equal scores the first label is the better."""
        maps, size, look = seen
        if not hasattr(self.model, "embed"):
            maps = self._map(maps, look, lambda crop: self.model.logits(crop, text).float())
            return _resized(maps, size).argmax(dim=0).cpu()
        best = torch.full(size, float("-inf"), device=maps.device)
        labels = torch.zeros(size, dtype=torch.int64, device=maps.device)
        chunk = max(SCORES // (size[0] * size[1]), 1)
        for first in range(0, len(text), chunk):
            vectors = text[first : first + chunk].to(maps)
            scores, index = _resized(torch.einsum("kc,chw->khw", vectors, maps), size).max(dim=0)
            better = scores > best
            best, labels = torch.where(better, scores, best), torch.where(better, index + first, labels)
        return labels.cpu()

    @torch.inference_mode()
    def probabilities(self, seen: tuple[Tensor, tuple[int, int], Look], text: Tensor) -> Tensor:
        """See ``Segmenter``; scores are averaged over scales and mirror images before the softmax."""
        maps, size, look = seen
        views = 1 if look.short_side else len(look.scales) * (1 + look.flip)
        if hasattr(self.model, "embed"):
            scores = CLIP_SCALE * torch.einsum("kc,chw->khw", text.to(maps), maps)
        else:
            scores = self._map(maps, look, lambda crop: self.model.logits(crop, text).float())
        return _resized(scores / views, size).softmax(dim=0)

    @torch.inference_mode()
    def _map(self, rgb: Tensor, look: Look, compute: Any) -> Tensor:
        """``compute`` of the whole picture, or its sum over windows, scales and mirror images."""
        height, width = rgb.shape[1:]
        if look.short_side:
            (canvas,) = look.canvases(height, width)
            size = (canvas.height, canvas.width)
            return compute(F.interpolate(rgb[None], size, mode="bilinear", antialias=True)[0])

        def of_crop(crops: Tensor) -> Tensor:
            """One window (1, 3, crop, crop) -> its map, in a size that divides the window's."""
            (crop,) = crops
            scores = compute(crop)
            side = scores.shape[-1]
            fits = scores.shape[-2] == side and look.crop % side == 0
            return (scores if fits else _resized(scores, (look.crop, look.crop)))[None]

        channels = len(compute(torch.zeros(3, look.crop, look.crop)))
        sizes = (channels, look.base, look.crop, look.scales, look.flip)
        return MultiScaleEvaluator(of_crop, *sizes, mean=(0, 0, 0), std=(1, 1, 1), window_batch=1)(rgb[None])[0]


def _resized(scores: Tensor, size: tuple[int, int]) -> Tensor:
    if scores.shape[-2:] == size:
        return scores
    return F.interpolate(scores[None], size, mode="bilinear", align_corners=False)[0]


class SavedPredictions:
    """Somebody else's predictions: for each picture a PNG of class numbers from 0, or an .npy of logits (N, h, w).

    They lie in ``FOLDER/BENCHMARK/NAME.png`` (or ``.npy``), NAME as in ``picture_names``; for a single benchmark the
    files may also lie in FOLDER itself.
    """

    precision = "of the saved predictions"

    def __init__(self, folder: Path, benchmark: str) -> None:
        inner = folder / benchmark
        self.folder = inner if inner.is_dir() else folder

    def problems(self, names: Sequence[str]) -> list[str]:
        """A sentence about files that are missing."""
        missing = [name for name in names if self._file(name) is None]
        if not missing:
            return []
        return [
            f"{self.folder} lacks the predictions of {len(missing)} of {len(names)} pictures (.png or .npy): "
            f"{few(missing, 3)}"
        ]

    def fingerprint(self, names: Sequence[str]) -> str:
        """Changes when a file of these pictures is written again: a hash of names, sizes and times of change."""
        parts = []
        for path in filter(None, map(self._file, names)):
            status = path.stat()
            parts.append(f"{path.name} {status.st_size} {status.st_mtime_ns}")
        content = "\n".join(parts).encode(errors="surrogateescape")
        return f"files sha256 {hashlib.sha256(content).hexdigest()}"

    def label_map(self, name: str, size: tuple[int, int], classes: int) -> Tensor:
        """The classes of a picture, int64 (H, W)."""
        saved = self._saved(name, size, classes)
        return saved.argmax(dim=0) if saved.ndim == 3 else saved

    def probabilities(self, name: str, size: tuple[int, int], classes: int) -> Tensor:
        """The same as probabilities, float32 (N, H, W): 1 and 0 for a PNG."""
        saved = self._saved(name, size, classes)
        return saved.softmax(dim=0) if saved.ndim == 3 else F.one_hot(saved, classes).movedim(-1, 0).float()

    def _saved(self, name: str, size: tuple[int, int], classes: int) -> Tensor:
        """Logits in the picture's size, float32 (N, H, W), or classes, int64 (H, W)."""
        path = self._file(name)
        assert path is not None  # ``problems`` has looked
        try:
            if path.suffix == ".npy":
                values = np.load(path, allow_pickle=False)
            else:
                with Image.open(path) as picture:
                    values = np.asarray(picture)
        except (OSError, ValueError, SyntaxError) as error:
            raise InputError(f"{path} cannot be read ({error}); save the prediction again") from error
        if path.suffix == ".npy":
            if values.ndim != 3 or len(values) != classes or not np.issubdtype(values.dtype, np.floating):
                raise InputError(f"{path} is {values.dtype} {values.shape}; logits of {classes} classes are (N, h, w)")
            return _resized(torch.from_numpy(values.astype(np.float32)), size)
        if values.shape != size:
            raise InputError(f"{path} is {values.shape}, its picture is {size} (height, width); one number per pixel")
        if values.max() >= classes:
            raise InputError(f"{path} contains the class {values.max()}, but there are {classes} classes (from 0)")
        return torch.from_numpy(values.astype(np.int64))

    def _file(self, name: str) -> Path | None:
        paths = (self.folder / f"{name}{suffix}" for suffix in (".png", ".npy"))
        return next((path for path in paths if path.is_file()), None)


def plugged_from(text: str) -> PluggedSegmenter:
    """The model of ``--model FILE.py:NAME``: what calling NAME of that file returns."""
    file, _, name = text.rpartition(":")
    path = Path(file).expanduser()
    if not name or not path.is_file():
        raise InputError(f"--model is {text!r}; give FILE.py:NAME, where NAME() returns the model")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    make = getattr(module, name, None)
    if not callable(make):
        raise InputError(f"{path} does not define {name}; --model needs FILE.py:NAME, where NAME() returns the model")
    return PluggedSegmenter(make())


def text_matrix(model: Segmenter, labels: Sequence[Sequence[str]], wording: Wording) -> tuple[Tensor, Tensor]:
    """The texts of all classes: unit vectors (T, C), and the class of each, (T,) int64.

    labels: for each class, the labels that stand for it.
    """
    per_label = [(cls, wording.names_of(label)) for cls, several in enumerate(labels) for label in several]
    names = [name for _, group in per_label for name in group]
    distinct = list(dict.fromkeys(names))  # two classes may share a name
    vectors = model.encode_labels(distinct, wording.sentences)
    place = {name: i for i, name in enumerate(distinct)}
    if wording.synonyms != "mean":
        owner = [cls for cls, group in per_label for _ in group]
        return vectors[[place[name] for name in names]], torch.tensor(owner)
    means = [vectors[[place[name] for name in group]].mean(dim=0) for _, group in per_label]
    return F.normalize(torch.stack(means), dim=-1), torch.tensor([cls for cls, _ in per_label])


def class_probabilities(of_texts: Tensor, owner: Tensor, classes: int) -> Tensor:
    """(T, H, W) -> (N, H, W): a class has the sum of its texts' probabilities. ``owner``: the class of each text."""
    total = of_texts.new_zeros(classes, *of_texts.shape[1:])
    return total.index_add_(0, owner.to(of_texts.device), of_texts)


def picture_names(paths: Sequence[str]) -> list[str]:
    """Unique names of pictures: their paths below the folder that contains all of them, without suffix."""
    files = [Path(path) for path in paths]
    common = files[0].parent
    while not all(file.is_relative_to(common) for file in files):
        common = common.parent
    return [file.relative_to(common).with_suffix("").as_posix() for file in files]
