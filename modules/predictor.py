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
from .choices import CALLERS, MODES, VARIANTS
from .device import resolve_device
from .inference.callers import caller_embedding
from .inference.image_tower import EmbeddedImage, ImageTower, Levels, check_positive
from .inference.label_texts import LabelInput, encode_with_templates, named_matrix
from .inference.pixel_embedding import looks, pixel_embedding, target_size
from .inference.scores import rank
from .inference.segmentation import Segmentation
from .models import LSegNet
from .models.head import LOGIT_SCALE, CorrelationHead
from .models.precision import full_precision

LESS_MEMORY = "choose a smaller batch_size (images or windows at a time) or a shorter long_side, or another device"

__all__ = ["MODES", "VARIANTS", "LSegPredictor", "Levels", "Segmentation"]


class LSegPredictor:
    """A network and everything between it and a picture: reading, resizing, normalising, streaming.

    By default the network sees every image at the long side that it was trained with (``net.base_size``; 520 for
    the official networks), each side then rounded to a multiple of 32 (so about 512).

    Args:
        net: from ``build_lseg`` or ``load_lseg``; it is moved to the device and put in eval mode.
        device: "auto" (CUDA, else MPS, else CPU), "cpu", "cuda", "cuda:1", "mps".
        precision: of the network: "auto" (bf16 on CUDA GPUs that have it, fp16 on others, float32 elsewhere), "32",
            "bf16", "16". Norms, similarities and softmax are always computed in float32, and results are float32.
        base_size: long side in pixels that counts as scale 1; default: ``net.base_size``, as in training.
        crop_size: side in pixels of windows; default: ``net.crop_size``, as in training.
        max_pixels: larger images are refused before they are decoded.

    Raises:
        InputError: a device that this machine does not have, an unknown precision.
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
        self.base_size = net.base_size if base_size is None else base_size
        self.crop_size = net.crop_size if crop_size is None else crop_size
        self._tower = ImageTower(self.net, self.device, precision, self.base_size, self.crop_size)

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
            image: see ``lseg_utils.image_input.read_rgb``; or an earlier result, to compare the same image with other
                labels. If that result kept its embeddings, the network does not run again, and ``mode`` and
                ``long_side`` stay as they were.
            labels: N texts, or a matrix (N, C) of label embeddings; None for the network's own.
            mode: what the network looks at. A result depends on the image alone, except for rounding.
                "whole": the whole image once, resized to about ``long_side`` (default: ``base_size``), each side to the
                nearest multiple of 32. Nothing is padded, so nothing leaks from a border; proportions change a little.
                "windows": the image is resized likewise (default: twice ``base_size``), then seen through windows of
                ``crop_size`` that lie inside the image, overlap by a third and are averaged. Nothing is padded.
                "multi_scale": the published test protocol, number by number: six sizes around ``long_side`` (default:
                ``base_size``), windows, mirror images. Its windows do reach beyond the image; the network sees black
                there, as it did in training.
            long_side: in pixels; see ``mode``.
            names: of the rows of a matrix.
            templates: None, "imagenet" or a list, see ``encode_text``.
            other: True appends the label 'other', a text appends that text. Nothing is ever added silently.
            batch_size: windows that go through the network together. It changes time and memory, not the result.

        Raises:
            InputError: an image or labels that cannot be used, an unknown mode, a ``long_side`` that needs too much
                memory (what is kept of an image grows with its area; with the defaults it stays near 2 GB or below).
        """
        (result,) = self.segment_many(
            [image],
            labels,
            mode,
            long_side,
            names=names,
            templates=templates,
            other=other,
            batch_size=batch_size,
            keep_embeddings=True,
        )
        return result

    def segment_many(
        self,
        images: Iterable[ImageInput | Segmentation],
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
        """``segment`` for many images of any sizes: one result per image, in order, computed as they are consumed.

        Labels are encoded once. In mode "whole", images that the network sees at the same size go through it together.
        With ``keep_embeddings``, results can give ``scores`` and be segmented again; each then takes 20 MB or more.
        """
        if isinstance(images, str | Path):
            raise InputError(f"segment_many takes a list of images; for {images} alone call segment")
        check_positive(batch_size=batch_size, long_side=long_side)
        if labels is None and self.net.labels is None:
            raise InputError("this network has no labels of its own; give some: segment(image, ['cat', 'grass'])")
        labels = self.net.own_labels if labels is None else labels
        with torch.no_grad():
            names, text = named_matrix(self.net.text_encoder, labels, names, templates, other)
        seen = map(self._seen, images)
        return self.segment_read(seen, names, text, mode, long_side, batch_size, keep_embeddings)

    def segment_read(
        self,
        images: Iterable[Tensor | EmbeddedImage],
        labels: list[str],
        text: Tensor,
        mode: str = "whole",
        long_side: int | None = None,
        batch_size: int = 4,
        keep_embeddings: bool = False,
    ) -> Iterator[Segmentation]:
        """``segment_many`` without its checks and copies, for programs that read images and encode labels themselves.

        images: as from ``read_rgb``, (3, H, W). text: what ``encode_text`` made of ``labels``, (N, C).
        """
        images = iter(images)
        together = batch_size if mode == "whole" else 1  # the other modes have a batch in every image
        while batch := list(islice(images, together)):
            with memory_advice(LESS_MEMORY):
                encoded = self._tower.encode(batch, mode, long_side, batch_size)
            for image in encoded:
                ranker = partial(rank, image, text, self.net.head)
                best = ranker()
                mask, confidence = best.indices[0].long().cpu().numpy(), best.confidence.cpu().numpy()
                kept, again = (image, ranker) if keep_embeddings else (None, None)
                yield Segmentation(image.pixels, labels, mask, confidence, kept, again)

    def _seen(self, image: ImageInput | Segmentation) -> Tensor | EmbeddedImage:
        """What the network has made of an earlier result's image, if that was kept, or the image, (3, H, W)."""
        if isinstance(image, Segmentation):
            return image.encoded or read_rgb(image.image, self.max_pixels)
        return read_rgb(image, self.max_pixels)

    def check_look(self, height: int, width: int) -> None:
        """``InputError`` if the network cannot look at so many pixels at once."""
        self._tower.check_kept(height * width, max(height, width))

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
        mode: str = "whole",
        long_side: int | None = None,
        grad: bool = False,
    ) -> Tensor:
        """One embedding per pixel, (H, W, C), in the space of ``encode_text``; on the predictor's device.

        Args:
            image: see ``lseg_utils.image_input.read_rgb``. Gradients reach a floating tensor that requires them.
            size: of the result: "input" (the image's), "half" (half of it, rounded up) or (height, width). The
                network's own grid is half the size that it looks at, and is interpolated (bilinear) to any other.
            normalize: False is short for ``variant="raw"``, True for "unit".
            multi_scale: True: the sum over six sizes (0.5 to 1.75 times ``long_side``) and mirror images, each seen
                whole; or the scales as a list.
            variant: "unit": unit vectors, also after interpolation and sums; "raw": the decoder's output; "scaled":
                unit vectors times 14.29 (1 / 0.07), so that products with texts are logits; "summed": the sum of the
                unit vectors of every size and mirror image, not normalised again.
            mode: "whole", or "protocol": exactly what the project computes that ``variant`` names, one of "vlmaps",
                "dff", "feature_3dgs", "openscene", "conceptfusion" (see ``inference.callers``). The project decides on
                everything else, the size of the result included; only ``dtype`` remains yours.
            long_side: the network sees the image resized to about this long side, each side to the nearest multiple of
                32, nothing padded. Default: ``base_size``, as in ``segment``.
            grad: keep the graph, to train through the network; an image tensor that requires gradients implies it.

        Raises:
            InputError: an image, size or variant that cannot be used; a ``variant`` that ``normalize=False``
                contradicts; a result of more than 8 GB; a ``long_side`` that needs too much memory.
        """
        if mode == "protocol":
            if variant not in CALLERS:
                raise InputError(f"mode 'protocol' needs a project as its variant, one of {', '.join(CALLERS)}")
            if (size, normalize, multi_scale, long_side, grad) != ("input", True, False, None, False):
                raise InputError(f"in mode 'protocol', {variant} decides on all except dtype; leave the rest out")
            with memory_advice(LESS_MEMORY):
                return caller_embedding(self._tower, read_rgb(image, self.max_pixels), variant).to(dtype)
        if mode != "whole" or variant in CALLERS:
            raise InputError(f"mode is {mode!r}, variant {variant!r}; give mode 'protocol' with a project, or 'whole'")
        if not normalize and variant in ("unit", "scaled"):
            raise InputError(f"variant {variant!r} is normalised, and normalize is False; leave one of them out")
        variant = variant or ("unit" if normalize else "raw")
        if variant not in VARIANTS:
            raise InputError(f"unknown variant {variant!r}; choose one of {', '.join(VARIANTS)}")
        rgb = read_rgb(image, self.max_pixels)
        height, width = rgb.shape[1], rgb.shape[2]
        target = target_size(size, height, width, self.net.text_encoder.embed_dim)
        views = looks(height, width, self.base_size, long_side, multi_scale, variant)
        height, width, _ = max(views)
        self.check_look(height, width)
        with memory_advice(LESS_MEMORY), torch.set_grad_enabled(grad or rgb.requires_grad):
            return pixel_embedding(self._tower, rgb, views, target, variant, dtype)

    @torch.no_grad()
    def grid(self, image: ImageInput, long_side: int | None = None) -> Tensor:
        """The decoder's own embeddings (h/4, w/4, C), float32, not normalised; ``embed`` interpolates them.

        h x w is the size at which the network looks at the image, as in ``embed``.
        """
        rgb = read_rgb(image, self.max_pixels)
        ((height, width, _),) = looks(rgb.shape[1], rgb.shape[2], self.base_size, long_side)
        self.check_look(height, width)
        with memory_advice(LESS_MEMORY):
            return self._tower.coarse(self._tower.resized(rgb, (height, width))[None])[0].permute(1, 2, 0)

    def levels(self, image: ImageInput, long_side: int | None = None, *, grad: bool = False) -> Levels:
        """The four maps of the image encoder and the four of the decoder, the finest first.

        The network looks at the image as ``embed`` does; the maps have that size divided by 4, 8, 16 and 32.
        """
        rgb = read_rgb(image, self.max_pixels)
        ((height, width, _),) = looks(rgb.shape[1], rgb.shape[2], self.base_size, long_side)
        self.check_look(height, width)
        with memory_advice(LESS_MEMORY), torch.set_grad_enabled(grad or rgb.requires_grad):
            return self._tower.levels(rgb, (height, width))

    # -------------------------------------------------------------------------------------------------------- text

    def encode_text(
        self, labels: Sequence[str], templates: str | Sequence[str] | None = None, *, truncate: bool = False
    ) -> Tensor:
        """N labels -> (N, C) float32 unit vectors, for ``segment`` and ``similarity``.

        See ``modules.inference.label_texts.encode_with_templates`` for templates, duplicate labels and labels that are
        too long.
        """
        return encode_with_templates(self.net.text_encoder, labels, templates, truncate)

    def similarity(self, embedding: Tensor | np.ndarray, texts: LabelInput) -> Tensor:
        """Cosine of every pixel embedding (H, W, C) with N texts, or rows of a matrix (N, C): (H, W, N), -1..1.

        Either may be a tensor or an array, in float16 too; one text vector (C,) is a matrix of one row. The result is
        on the device of ``embedding``, or on the predictor's device if that is an array. ``InputError`` if the last
        dimensions differ.
        """
        if isinstance(embedding, np.ndarray):
            embedding = torch.from_numpy(embedding.astype(np.float32)).to(self.device)
        text = texts if isinstance(texts, Tensor | np.ndarray) else self.encode_text(texts)
        if isinstance(text, np.ndarray):
            text = torch.from_numpy(text.astype(np.float32))
        text = text[None] if text.ndim == 1 else text
        if text.ndim != 2 or embedding.shape[-1:] != text.shape[1:]:
            raise InputError(
                f"embeddings {tuple(embedding.shape)} cannot be compared with texts {tuple(text.shape)}; give "
                "(H, W, C) and (N, C), both of one network and before any projection (`python predict_lseg.py --pca`)"
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
        check_positive(long_side=long_side)
        with memory_advice(LESS_MEMORY):
            (encoded,) = self._tower.encode([self._seen(image)], mode, long_side, batch_size=4)
        return rank(encoded, self.encode_text([query]), CorrelationHead()).scores[0].cpu().numpy() / LOGIT_SCALE
