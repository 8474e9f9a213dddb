"""LSegPredictor: an image and labels in, a mask out; or an image in, one embedding per pixel out.

Needs no dataset and no Lightning. Legend: H x W the image, N labels, C embedding dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lseg_utils.errors import InputError
from lseg_utils.image_input import MAX_PIXELS, ImageInput, read_rgb
from lseg_utils.memory import memory_advice

from .checkpoints import load_lseg
from .choices import MODES, VARIANTS
from .device import resolve_device
from .inference.image_tower import LESS_MEMORY, ImageTower, Levels, check_positive
from .inference.label_texts import LabelInput, encode_with_templates, named_matrix
from .inference.pixel_embedding import Look, looks, pixel_embedding, target_size
from .inference.scores import rank
from .inference.segmentation import Segmentation
from .inference.views import EmbeddedImage
from .models import LSegNet
from .models.head import LOGIT_SCALE
from .models.precision import full_precision

__all__ = ["MODES", "VARIANTS", "LSegPredictor", "Levels", "Segmentation"]


class LSegPredictor:
    """A network with everything that lies between it and a picture: reading, resizing, normalising, streaming.

    Args:
        net: from ``build_lseg`` or ``load_lseg``; it is moved to the device and put in eval mode.
        device: "auto" (CUDA, else MPS, else CPU), "cpu", "cuda", "cuda:1", "mps".
        precision: of the network: "auto" (bf16 on CUDA GPUs that have it, fp16 on others, float32 elsewhere), "32",
            "bf16", "16". Norms, similarities and softmax are float32 always, and so are all results.
        base_size, crop_size: the long side that counts as scale 1, and the side of windows; default: the network's own,
            which are those of its training.
        max_pixels: larger images are refused before they are decoded.

    Raises:
        InputError: a device that is not there, an unknown precision.
    """

    def __init__(
        self,
        net: LSegNet,
        device: str | torch.device = "auto",
        precision: str = "auto",
        *,
        base_size: int | None = None,
        crop_size: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.device = resolve_device(str(device))
        self.net = net.to(self.device).eval()
        self.max_pixels = max_pixels
        sizes = net.base_size if base_size is None else base_size, net.crop_size if crop_size is None else crop_size
        self._tower = ImageTower(self.net, self.device, precision, *sizes)

    @property
    def base_size(self) -> int:
        """The long side that counts as scale 1."""
        return self._tower.base_size

    def __repr__(self) -> str:
        return f"LSegPredictor(backbone={self.net.architecture['backbone']!r}, device={str(self.device)!r})"

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        device: str | torch.device = "auto",
        precision: str = "auto",
        *,
        trust_checkpoint: bool = False,
        base_size: int | None = None,
        crop_size: int | None = None,
        max_pixels: int = MAX_PIXELS,
        **what_shapes_cannot_tell: Any,
    ) -> LSegPredictor:
        """From an official or own checkpoint; ``what_shapes_cannot_tell`` as for ``modules.checkpoints.load_lseg``."""
        net = load_lseg(path, trust_checkpoint=trust_checkpoint, **what_shapes_cannot_tell)
        return cls(net, device, precision, base_size=base_size, crop_size=crop_size, max_pixels=max_pixels)

    # ------------------------------------------------------------------------------------------------ segmentation

    def segment(
        self,
        image: ImageInput | Segmentation,
        labels: LabelInput | None = None,
        mode: str = "whole",
        long_side: int | None = None,
        *,
        names: Sequence[str] | None = None,
        templates: str | Sequence[str] | None = None,
        other: bool | str = False,
        batch_size: int = 4,
    ) -> Segmentation:
        """The best label of every pixel; the result has the image's own size.

        Args:
            image: see ``lseg_utils.image_input.read_rgb``; or an earlier result, to see the same image under other
                labels without the network running again (if it kept its embeddings: ``mode`` and ``long_side`` are
                then its own).
            labels: N texts, or a matrix (N, C) of label embeddings; None for the network's own.
            mode: what the network looks at. A result depends on the image alone, but for rounding.
                "whole": once at all of it, resized to about ``long_side`` (default: ``base_size``), each side to the
                nearest multiple of 32. Nothing is padded, so nothing leaks from a border; proportions change a little.
                "windows": resized likewise (default: twice ``base_size``), then seen through windows of ``crop_size``
                that lie inside the image, overlap by a third and are averaged. Nothing is padded.
                "multi_scale": the published test protocol, number by number: six sizes around ``long_side`` (default:
                ``base_size``), windows, mirror images. Its windows do reach beyond the image, and the network sees
                black there, as it did in training.
            names: what the rows of a matrix are called.
            templates: None, "imagenet" or a list, see ``encode_text``.
            other: True appends the label 'other', a text appends that text; nothing is ever added silently.
            batch_size: windows that go through the network together: time and memory, not the result.

        Raises:
            InputError: an image or labels that cannot be used, an unknown mode, a ``long_side`` that needs too much
                memory (what is kept of an image grows with its area; with the defaults it stays near 2 GB or below).
        """
        matrix = self._label_matrix(labels, names, templates, other)
        encoded = self._encoded(image, mode, long_side, batch_size)
        return self._result(encoded, *matrix, keep_embeddings=True)

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
        keep_embeddings: bool = False,
    ) -> Iterator[Segmentation]:
        """``segment`` for many images of any sizes: one result for each, in order, made as they are asked for.

        In mode "whole", images that the network sees at the same size go through it together. ``keep_embeddings``:
        results can give ``scores`` and be segmented again; each then holds 20 MB or more.
        """
        if isinstance(images, str | Path):
            raise InputError(f"segment_many takes a list of images; for {images} alone call segment")
        check_positive(batch_size=batch_size)
        names, text = self._label_matrix(labels, names, templates, other)
        together = batch_size if mode == "whole" else 1  # the other modes have a batch in every image
        images = iter(images)

        def results() -> Iterator[Segmentation]:
            while batch := [read_rgb(image, self.max_pixels) for image in islice(images, together)]:
                for encoded in self._tower.encode(batch, mode, long_side, batch_size):
                    yield self._result(encoded, names, text, keep_embeddings)

        return results()

    def _encoded(
        self, image: ImageInput | Segmentation, mode: str, long_side: int | None, batch_size: int = 4
    ) -> EmbeddedImage:
        if isinstance(image, Segmentation):
            if image.encoded is not None:
                return image.encoded
            image = image.image
        (encoded,) = self._tower.encode([read_rgb(image, self.max_pixels)], mode, long_side, batch_size)
        return encoded

    def _result(self, encoded: EmbeddedImage, names: list[str], text: Tensor, keep_embeddings: bool) -> Segmentation:
        best = rank(encoded, text, self.net.head.block)
        return Segmentation(
            image=encoded.pixels,
            labels=names,
            mask=best.indices[0].long().cpu().numpy(),
            confidence=best.confidence.cpu().numpy(),
            encoded=encoded if keep_embeddings else None,
            ranker=partial(rank, encoded, text, self.net.head.block) if keep_embeddings else None,
        )

    # -------------------------------------------------------------------------------------------------- embeddings

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
        """One embedding per pixel, (H, W, C), in the space of ``encode_text``; on the predictor's device.

        Args:
            image: see ``lseg_utils.image_input.read_rgb``. Gradients reach a floating tensor that requires them.
            size: of the result: "input" (the image's), "half" (half of it, rounded up) or (height, width). The
                network's own grid is half of what it looks at; to any other it is interpolated (bilinear).
            normalize: False is short for ``variant="raw"``, True for "unit".
            multi_scale: True: the sum over six sizes (0.5 to 1.75 times ``base_size`` as long side) and mirror images,
                each seen whole; or the scales as a list.
            variant: "unit": unit vectors, also after interpolation and sums; "raw": what the head puts out; "scaled":
                unit vectors times 14.29 (1 / 0.07), so that products with texts are logits; "summed": unit vectors of
                every size and mirror image, added and left so.
            long_side: the network looks at the image with about this long side, each side to the nearest multiple of
                32, nothing padded. Default: the image's own size, but at most twice ``base_size``.
            grad: keep the graph, to train through the network; a floating tensor that requires it does so by itself.

        Raises:
            InputError: an image, size or variant that cannot be used; a ``variant`` that ``normalize=False``
                contradicts; a result of more than 8 GB; a ``long_side`` that needs too much memory.
        """
        if not normalize and variant in ("unit", "scaled"):
            raise InputError(f"variant {variant!r} is normalised, and normalize is False; leave one of them out")
        variant = variant or ("unit" if normalize else "raw")
        if variant not in VARIANTS:
            raise InputError(f"variant {variant!r} is unknown; choose one of {', '.join(VARIANTS)}")
        rgb = read_rgb(image, self.max_pixels)
        target = target_size(size, *rgb.shape[1:], self.net.text_encoder.embed_dim)
        views = looks(*rgb.shape[1:], self.base_size, long_side, multi_scale, variant)
        self._check_looks(views)
        with memory_advice(LESS_MEMORY), torch.set_grad_enabled(grad or rgb.requires_grad):
            return pixel_embedding(self._tower, rgb, views, target, variant, dtype)

    def levels(self, image: ImageInput, long_side: int | None = None, *, grad: bool = False) -> Levels:
        """The four maps of the image encoder, and the four of the decoder's path, of which the first is the finest.

        The network looks at the image as ``embed`` does, and maps have the size of that look divided by 4, 8, 16, 32.
        """
        rgb = read_rgb(image, self.max_pixels)
        ((height, width, _),) = views = looks(*rgb.shape[1:], self.base_size, long_side)
        self._check_looks(views)
        with torch.set_grad_enabled(grad or rgb.requires_grad):
            return self._tower.levels(rgb, (height, width))

    def _check_looks(self, views: Sequence[Look]) -> None:
        height, width, _ = max(views)
        self._tower.check_kept(height * width, max(height, width))

    # -------------------------------------------------------------------------------------------------------- text

    def encode_text(
        self, labels: Sequence[str], templates: str | Sequence[str] | None = None, *, truncate: bool = False
    ) -> Tensor:
        """N labels -> (N, C) float32 unit vectors, for ``segment`` and ``similarity``.

        See ``modules.inference.label_texts.encode_with_templates`` for templates, and for labels that are too long or
        occur twice.
        """
        return encode_with_templates(self.net.text_encoder, labels, templates, truncate)

    def similarity(self, embedding: Tensor | np.ndarray, texts: LabelInput) -> Tensor:
        """Cosine of every pixel embedding (H, W, C) with N texts, or rows of a matrix (N, C): (H, W, N), -1..1.

        Either may be a tensor or an array, in float16 too; one text vector (C,) is a matrix of one row. The result is
        where ``embedding`` is; of an array, on the predictor's device. ``InputError`` for another last dimension.
        """
        if isinstance(embedding, np.ndarray):
            embedding = torch.from_numpy(embedding.astype(np.float32)).to(self.device)
        text = texts if isinstance(texts, Tensor | np.ndarray) else self.encode_text(texts)
        if isinstance(text, np.ndarray):
            text = torch.from_numpy(text.astype(np.float32))
        text = text[None] if text.ndim == 1 else text
        if text.ndim != 2 or embedding.shape[-1:] != text.shape[1:]:
            raise InputError(
                f"embeddings {tuple(embedding.shape)} do not compare with texts {tuple(text.shape)}; give (H, W, C) "
                "and (N, C), both of one network and before any projection (predict_lseg.py --pca)"
            )
        with full_precision(embedding.device):
            text = F.normalize(text.to(embedding.device, torch.float32), dim=-1)
            return F.normalize(embedding.float(), dim=-1) @ text.T

    def heatmap(
        self, image: ImageInput | Segmentation, query: str, mode: str = "whole", long_side: int | None = None
    ) -> np.ndarray:
        """Cosine of every pixel with one text: (H, W) float32, -1..1. ``image`` and modes as for ``segment``.

        Cosines of good and bad matches lie close together: scale them to their own range to show them.
        """
        encoded = self._encoded(image, mode, long_side)
        return rank(encoded, self.encode_text([query]), None).scores[0].cpu().numpy() / LOGIT_SCALE

    def _label_matrix(
        self,
        labels: LabelInput | None,
        names: Sequence[str] | None,
        templates: str | Sequence[str] | None,
        other: bool | str,
    ) -> tuple[list[str], Tensor]:
        """The labels' names and their (N, C) matrix on the predictor's device."""
        if labels is None and self.net.labels is None:
            raise InputError("this network has no labels of its own; name some: segment(image, ['cat', 'grass'])")
        labels = self.net.labels if labels is None else labels
        with torch.no_grad():
            return named_matrix(self.net.text_encoder, labels, names, templates, other)
