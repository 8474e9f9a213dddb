"""LSegNet: an image becomes one embedding per pixel, labels become one matrix, and the head compares the two.

Shapes: B images, H x W pixels (multiples of 32), N labels, C embedding dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .backbones import MULTIPLE
from .class_encoder import ClassEncoder
from .decoder import Decoder
from .doubts import check_range
from .head import CorrelationHead
from .image_encoders import ImageEncoder
from .text_encoder import LabelEncoder, check_labels
from .upsampling import upsample_x2

Labels = Sequence[str] | Sequence[Sequence[str]] | Tensor


class LSegNet(nn.Module):
    """Language-driven semantic segmentation (Li et al., ICLR 2022). Fixed-label and zero-shot are the same function.

    Args:
        image_encoder: image -> four maps.
        decoder: four maps -> coarse pixel embedding.
        text_encoder: labels -> unit vectors; frozen. A plain classifier's: classes -> rows of the identity.
        head: embedding and vectors -> logits.
        labels: the label set that is used when a call names none; None for a network without one.
        architecture: the arguments of ``build_lseg`` that make this network again, for the checkpoint.
        mean, std: the normalisation that the images must have had (values in 0..1, RGB).
        base_size: long side in pixels of an image at scale 1, as in training.
        crop_size: side in pixels of training crops and of the sliding windows.

    Attributes:
        metadata: the description in the checkpoint that this network was loaded from, {} if there is none.
        check_range: whether the next images are looked at, once, for values that were not normalised; False: never.
    """

    def __init__(
        self,
        image_encoder: ImageEncoder,
        decoder: Decoder,
        text_encoder: LabelEncoder | ClassEncoder,
        head: CorrelationHead,
        labels: Sequence[str] | None,
        architecture: dict[str, Any],
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        base_size: int,
        crop_size: int,
    ) -> None:
        super().__init__()
        self.image_encoder, self.decoder = image_encoder, decoder
        self.text_encoder, self.head = text_encoder, head
        self.labels = None if labels is None else check_labels(labels)
        self.architecture = architecture
        self.mean, self.std = mean, std
        self.base_size, self.crop_size = base_size, crop_size
        self.metadata: dict[str, Any] = {}
        self.check_range = True

    def describe(self) -> dict[str, Any]:
        """What a file must say so that the network can be built again, in plain types; ``follow`` reads it."""
        return {
            "format": 1,
            "architecture": dict(self.architecture),
            "labels": None if self.labels is None else list(self.labels),
            "normalization": {"mean": list(self.mean), "std": list(self.std)},
            "sizes": {"base": self.base_size, "crop": self.crop_size},
        }

    def follow(self, metadata: dict[str, Any]) -> None:
        """Take over what a file says about its network: ``metadata`` itself, labels, normalisation and sizes."""
        self.metadata = metadata
        self.labels = None if metadata.get("labels") is None else check_labels(metadata["labels"])
        if "sizes" in metadata:  # absent in older files, which were trained at the backbone's sizes
            self.base_size, self.crop_size = (int(metadata["sizes"][key]) for key in ("base", "crop"))
        if "normalization" in metadata:
            red_green_blue = metadata["normalization"]
            self.mean, self.std = (tuple(map(float, red_green_blue[key])) for key in ("mean", "std"))  # type: ignore

    def forward(self, images: Tensor, labels: Labels | None = None) -> Tensor:
        """Logits of every pixel for every label.

        Args:
            images: (B, 3, H, W) RGB, normalised with ``mean`` and ``std``; H and W multiples of 32.
            labels: None (the built-in ones), a list of N strings, one list of N strings per image,
                or a matrix from ``encode_labels``: (N, C) or (B, N, C).

        Returns:
            (B, N, H, W) float32.

        Raises:
            ValueError: sides that are not multiples of 32, no labels, one that is too long, lists of different lengths.
        """
        return upsample_x2(self.half_logits(images, labels))

    def half_logits(self, images: Tensor, labels: Labels | None = None) -> Tensor:
        """(B, N, H/2, W/2) float32: the logits before their last x2, which loss and evaluation do strip by strip."""
        self._check(images)
        text = self.text_matrix(labels, len(images))
        return self.head.half_logits(self.coarse_embedding(images), text)

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, H/2, W/2) pixel embeddings, not normalised."""
        self._check(images)
        return upsample_x2(self.coarse_embedding(images))

    def encode_labels(self, labels: Sequence[str]) -> Tensor:
        """N strings -> (N, C) float32 unit vectors; computed once and cached; the result is the caller's own copy."""
        return self.text_encoder(labels).clone()

    def coarse_embedding(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, H/4, W/4) pixel embeddings before their last upsampling: what the head compares."""
        return self.decoder(self.image_encoder(images))

    @property
    def own_labels(self) -> list[str]:
        """``labels``; ``ValueError`` if this network has none."""
        if self.labels is None:
            raise ValueError("this network has no labels of its own; call it as net(images, labels=[...])")
        return self.labels

    def _check(self, images: Tensor) -> None:
        """``ValueError`` for a wrong shape; the first images of all also give a warning if they are not normalised."""
        check_images(images)
        check_range(self, images)

    def text_matrix(self, labels: Labels | None, batch: int) -> Tensor:
        """What ``forward`` takes as labels -> (N, C) or, with one list per image of the batch, (B, N, C)."""
        labels = self.own_labels if labels is None else labels
        if isinstance(labels, Tensor):
            return labels
        if len(labels) == 0 or isinstance(labels, str) or isinstance(labels[0], str):
            return self.text_encoder(labels)  # (N, C)
        if len(labels) != batch or len({len(one) for one in labels}) != 1:
            raise ValueError(
                f"one label list per image means {batch} lists of equal length here; "
                f"got {len(labels)} lists of lengths {sorted({len(one) for one in labels})}"
            )
        return torch.stack([self.text_encoder(one) for one in labels])  # (B, N, C)


def check_images(images: Tensor) -> None:
    """Raise a ``ValueError`` that names the padded size unless ``images`` is (B, 3, H, W), sides multiples of 32."""
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[0] == 0:
        raise ValueError(f"images must be a non-empty batch (B, 3, H, W); got a tensor of shape {tuple(images.shape)}")
    height, width = images.shape[-2:]
    if height % MULTIPLE or width % MULTIPLE or not height or not width:
        padded = [max(-(-side // MULTIPLE), 1) * MULTIPLE for side in (height, width)]
        raise ValueError(
            f"image sides must be multiples of {MULTIPLE}; got {height}x{width}: pad to {padded[0]}x{padded[1]} "
            "(and crop the result), or resize"
        )
