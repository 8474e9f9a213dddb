"""LSegPredictor: an image and labels in, a mask out; or an image in, one embedding per pixel out.

Needs no dataset and no Lightning. Legend: H x W the image, N labels, C embedding dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from encoding_ext.errors import InputError
from encoding_ext.evaluator import TEST_SCALES
from encoding_ext.image_input import MAX_PIXELS, ImageInput, read_rgb, to_pixels
from modules.checkpoints import load_lseg
from modules.label_texts import LabelInput, encode_labels, named_matrix
from modules.models import LSegNet
from modules.models.decoder import upsample_x2
from modules.models.head import LOGIT_SCALE
from modules.options import autocast_dtype, resolve_device, training_precision
from modules.scores import rank
from modules.segmentation import Segmentation
from modules.views import (
    MODES,
    Canvas,
    Normalise,
    crops,
    draw,
    protocol_canvases,
    resized,
    whole_canvas,
    window_canvas,
    working_size,
)

BASE_SIZE, CROP_SIZE = 520, 480  # of the official trainings; the miniature's networks saw squares of 64
VARIANTS = ("raw", "unit", "scaled", "summed")


class Levels(NamedTuple):
    """The maps inside the network, finest (stride 4) first, each (1, channels, h/stride, w/stride)."""

    encoder: list[Tensor]
    decoder: list[Tensor]


class LSegPredictor:
    """A network together with everything between it and a picture: reading, resizing, normalising, streaming.

    Args:
        net: from ``build_lseg`` or ``load_lseg``; it is put in eval mode and moved to the device.
        device: "auto" (CUDA, else MPS, else CPU), "cpu", "cuda", "cuda:1", "mps".
        precision: of the image tower: "auto" (bf16 on GPUs that have it, fp16 on other GPUs, else float32), "32", "bf16",
            "16". Norms, similarities and softmax are float32 always.
        base_size, crop_size: long side at scale 1 and side of a window; default: as the network was trained.
        max_pixels: larger images are refused.

    Raises:
        InputError: no such device or precision here.
    """

    def __init__(
        self,
        net: LSegNet,
        device: str = "auto",
        precision: str = "auto",
        *,
        base_size: int | None = None,
        crop_size: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.device = resolve_device(str(device))
        self.dtype = autocast_dtype(training_precision(precision, self.device.type == "cuda"))
        self.net = net.to(self.device).eval()
        tiny = str(net.architecture.get("backbone", "")).startswith("tiny")
        self.base_size = base_size or (64 if tiny else BASE_SIZE)
        self.crop_size = crop_size or (64 if tiny else CROP_SIZE)
        self.max_pixels = max_pixels
        self._normalise = Normalise(net.mean, net.std, self.device)

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        device: str = "auto",
        precision: str = "auto",
        *,
        trust_checkpoint: bool = False,
        base_size: int | None = None,
        crop_size: int | None = None,
        max_pixels: int = MAX_PIXELS,
        **what_shapes_cannot_tell: Any,
    ) -> LSegPredictor:
        """From an official or own checkpoint; ``what_shapes_cannot_tell`` as in ``modules.checkpoints.load_lseg``."""
        net = load_lseg(path, trust_checkpoint=trust_checkpoint, **what_shapes_cannot_tell)
        return cls(net, device, precision, base_size=base_size, crop_size=crop_size, max_pixels=max_pixels)

    # ------------------------------------------------------------------------------------------------ segmentation

    def segment(
        self,
        image: ImageInput,
        labels: LabelInput | None = None,
        mode: str = "whole",
        long_side: int | None = None,
        *,
        names: Sequence[str] | None = None,
        templates: str | Sequence[str] | None = None,
        other: bool | str = False,
        window_batch: int = 4,
    ) -> Segmentation:
        """The best label of every pixel."""
        (result,) = self.segment_many(
            [image],
            labels,
            mode,
            long_side,
            names=names,
            templates=templates,
            other=other,
            batch_size=window_batch,
            keep_scores=True,
        )
        return result

    def segment_many(
        self,
        images: Iterable[ImageInput],
        labels: LabelInput | None = None,
        mode: str = "whole",
        long_side: int | None = None,
        *,
        names: Sequence[str] | None = None,
        templates: str | Sequence[str] | None = None,
        other: bool | str = False,
        batch_size: int = 4,
        keep_scores: bool = False,
    ) -> Iterator[Segmentation]:
        """``segment`` for many images of any sizes, one result for each, in order."""
        if mode not in MODES:
            raise InputError(f"mode {mode!r} is unknown; choose one of {', '.join(MODES)}")
        label_names, text = self._label_matrix(labels, names, templates, other)
        images = iter(images)
        while batch := [read_rgb(image, self.max_pixels) for image in islice(images, batch_size)]:
            canvases = [self._canvases(rgb, mode, long_side) for rgb in batch]
            self._look(batch, canvases, batch_size)
            for rgb, own in zip(batch, canvases):
                yield self._result(rgb, own, label_names, text, keep_scores)

    def _canvases(self, rgb: Tensor, mode: str, long_side: int | None) -> list[Canvas]:
        size = rgb.shape[1:]
        if mode == "multi_scale":
            return protocol_canvases(*size, long_side or self.base_size, self.crop_size)
        if mode == "windows":
            return [window_canvas(*size, long_side or 2 * self.base_size, self.crop_size)]
        return [whole_canvas(*size, long_side or self.base_size)]

    @torch.no_grad()
    def _look(self, batch: list[Tensor], canvases: list[list[Canvas]], batch_size: int) -> None:
        """Send every view through the network, views of equal size together."""
        waiting: dict[tuple[int, int], list[tuple[Any, Tensor]]] = {}

        def flush(size: tuple[int, int]) -> None:
            views, pixels = zip(*waiting.pop(size))
            for view, coarse in zip(views, self._coarse(torch.stack(pixels))):
                view.coarse = coarse

        for rgb, own in zip(batch, canvases):
            for canvas in own:
                for view, pixels in zip(canvas.views, crops(canvas, draw(canvas, rgb, self._normalise))):
                    size = (view.height, view.width)
                    waiting.setdefault(size, []).append((view, pixels))
                    if len(waiting[size]) == batch_size:
                        flush(size)
        for size in list(waiting):
            flush(size)

    def _coarse(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) normalised -> (B, C, h/4, w/4) float32."""
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            return self.net.coarse_embedding(images).float()

    def _result(
        self, rgb: Tensor, canvases: list[Canvas], labels: list[str], text: Tensor, keep_scores: bool
    ) -> Segmentation:
        size = (rgb.shape[1], rgb.shape[2])

        def ranker(k: int) -> tuple[np.ndarray, np.ndarray]:
            best = rank(canvases, size, text, self.net.head, k)
            return best.indices.cpu().numpy(), best.scores.cpu().numpy()

        best = rank(canvases, size, text, self.net.head)
        confidence = (best.scores[0] - best.log_sum).exp().clamp(max=1)
        return Segmentation(
            to_pixels(rgb),
            labels,
            best.indices[0].long().cpu().numpy(),
            confidence.cpu().numpy(),
            ranker if keep_scores else None,
        )

    # ------------------------------------------------------------------------------------------------- embeddings

    def embed(
        self,
        image: ImageInput,
        size: str | tuple[int, int] = "input",
        normalize: bool = True,
        multi_scale: bool | Sequence[float] = False,
        dtype: torch.dtype = torch.float32,
        variant: str | None = None,
        *,
        long_side: int | None = None,
        grad: bool = False,
    ) -> Tensor:
        """One embedding per pixel: (H, W, C)."""
        variant = variant or ("unit" if normalize else "raw")
        if variant not in VARIANTS:
            raise InputError(f"variant {variant!r} is unknown; choose one of {', '.join(VARIANTS)}")
        rgb = read_rgb(image, self.max_pixels)
        target = self._target(size, *rgb.shape[1:])
        with torch.set_grad_enabled(grad or rgb.requires_grad):
            total = 0
            for working, mirrored in self._embed_views(rgb, long_side, multi_scale, variant):
                pixels = resized(rgb, working, self._normalise)
                pixels = pixels.flip(-1) if mirrored else pixels
                half = upsample_x2(self._coarse(pixels[None]))
                half = half.flip(-1) if mirrored else half
                if tuple(half.shape[2:]) != target:
                    half = half.contiguous(memory_format=torch.channels_last)
                    half = F.interpolate(half, target, mode="bilinear", align_corners=True)
                if variant != "raw":
                    half = F.normalize(half, dim=1)
                total = total + half
            if variant in ("unit", "scaled"):
                total = F.normalize(total, dim=1)
            if variant == "scaled":
                total = total * LOGIT_SCALE
            return total[0].permute(1, 2, 0).to(dtype)

    def _embed_views(
        self, rgb: Tensor, long_side: int | None, multi_scale: bool | Sequence[float], variant: str
    ) -> list[tuple[tuple[int, int], bool]]:
        height, width = rgb.shape[1:]
        if multi_scale is False and variant != "summed":
            side = long_side or min(max(height, width), 2 * self.base_size)
            return [(working_size(height, width, side), False)]
        scales = TEST_SCALES if isinstance(multi_scale, bool) else multi_scale
        base = long_side or self.base_size
        return [
            (working_size(height, width, math.ceil(base * scale)), mirrored)
            for scale in scales
            for mirrored in (False, True)
        ]

    @staticmethod
    def _target(size: str | tuple[int, int], height: int, width: int) -> tuple[int, int]:
        if size == "input":
            return height, width
        if size == "half":
            return -(-height // 2), -(-width // 2)
        if isinstance(size, str) or len(size) != 2 or not all(isinstance(s, int) and s > 0 for s in size):
            raise InputError(f'size is {size!r}; give "input", "half" or (height, width)')
        return tuple(size)

    def levels(self, image: ImageInput, long_side: int | None = None, *, grad: bool = False) -> Levels:
        """The four maps of the image encoder and the four of the decoder's path."""
        rgb = read_rgb(image, self.max_pixels)
        ((working, _),) = self._embed_views(rgb, long_side, False, "raw")
        with torch.set_grad_enabled(grad or rgb.requires_grad):
            pixels = resized(rgb, working, self._normalise)[None]
            with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None):
                encoder = self.net.image_encoder(pixels)
                decoder = self.net.decoder.paths(encoder)
        return Levels([m.float() for m in encoder], [m.float() for m in decoder])

    # ------------------------------------------------------------------------------------------------------- text

    def encode_text(
        self, labels: Sequence[str], templates: str | Sequence[str] | None = None, *, truncate: bool = False
    ) -> Tensor:
        """N labels -> (N, C) float32 unit vectors."""
        return encode_labels(self.net.text_encoder, labels, templates, truncate)

    def similarity(self, embedding: Tensor, texts: Tensor | Sequence[str]) -> Tensor:
        """Cosine of every pixel embedding (H, W, C) with every text: (H, W, N), -1..1."""
        text = texts if isinstance(texts, Tensor) else self.encode_text(texts)
        text = F.normalize(text.to(embedding.device, torch.float32), dim=-1)
        return F.normalize(embedding.float(), dim=-1) @ text.T

    def heatmap(self, image: ImageInput, query: str, long_side: int | None = None) -> np.ndarray:
        """Cosine of every pixel with one text: (H, W) float32, -1..1."""
        rgb = read_rgb(image, self.max_pixels)
        embedding = self.embed(rgb, "half", long_side=long_side)
        similarity = self.similarity(embedding, [query]).permute(2, 0, 1)[None]
        return F.interpolate(similarity, rgb.shape[1:], mode="bilinear", align_corners=True)[0, 0].cpu().numpy()

    def _label_matrix(
        self,
        labels: LabelInput | None,
        names: Sequence[str] | None,
        templates: str | Sequence[str] | None,
        other: bool | str,
    ) -> tuple[list[str], Tensor]:
        if labels is None:
            labels = self.net.labels
            if labels is None:
                raise InputError("this network has no labels of its own; name some: segment(image, ['cat', 'grass'])")
        with torch.no_grad():
            return named_matrix(self.net.text_encoder, labels, names, templates, other)
