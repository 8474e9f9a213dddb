"""Every backbone and every text tower as plain data: names and numbers that can be read without importing torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

HALF = (0.5, 0.5, 0.5)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

MULTIPLE = 32  # image sides are multiples of it: the coarsest feature map has 1/32 of the resolution
OPEN_CLIP = "open_clip:"  # what names of text towers of the package open_clip begin with
TIMM = "timm:"  # what names of timm's networks begin with
RANDOM = "random"  # given in place of a weights file: keep the random initial weights


@dataclass(frozen=True)
class TextTower:
    """Sizes of a CLIP text tower; the number of attention heads is width / 64."""

    embed_dim: int
    width: int
    layers: int = 12
    context_length: int = 77


TEXT_TOWERS = {
    "ViT-B/32": TextTower(embed_dim=512, width=512),
    "ViT-B/16": TextTower(embed_dim=512, width=512),
    "ViT-L/14": TextTower(embed_dim=768, width=768),
    "ViT-L/14@336px": TextTower(embed_dim=768, width=768),
    "RN50": TextTower(embed_dim=1024, width=512),
    "RN101": TextTower(embed_dim=512, width=512),
    "RN50x4": TextTower(embed_dim=640, width=640),
    "RN50x16": TextTower(embed_dim=768, width=768),
    "RN50x64": TextTower(embed_dim=1024, width=1024),
    "tiny": TextTower(embed_dim=64, width=64, layers=3, context_length=16),  # the miniature's
}


@dataclass(frozen=True)
class Backbone:
    """An image encoder, the text tower it is trained against, and how its images are prepared.

    Attributes:
        encoder: which function of ``build.ENCODERS`` builds it: "vit", "resnet", "small_resnet" or "timm".
        image: the image network's name in timm or torchvision.
        text: a key of ``TEXT_TOWERS``.
        channels: channels of the four feature maps, finest first.
        weights: where the pretrained weights of ``image`` come from: "timm", "torchvision", or "none".
        hooks: indices of the ViT blocks whose tokens become the four maps; of timm's other networks, those of the
            stages; () for a ResNet.
        options: further arguments of the image network.
        base_size: long side in pixels that training and testing count as scale 1.
        crop_size: side in pixels of training crops and of the sliding windows.
        mean, std: normalisation of the images (values in 0..1, RGB).
        licence: of the pretrained weights, as timm names it; "" if it is not known.
    """

    encoder: str
    image: str
    text: str
    channels: tuple[int, int, int, int]
    weights: str
    hooks: tuple[int, ...] = ()
    options: Mapping[str, int] = field(default_factory=dict)
    base_size: int = 520
    crop_size: int = 480
    mean: tuple[float, float, float] = HALF
    std: tuple[float, float, float] = HALF
    licence: str = ""


def vit_large(text: str) -> Backbone:
    """ViT-L/16 with one of CLIP's text towers."""
    channels, hooks = (256, 512, 1024, 1024), (5, 11, 17, 23)
    return Backbone("vit", "vit_large_patch16_384", text, channels, weights="timm", hooks=hooks)


def vit_base32(text: str) -> Backbone:
    """ViT-B/32 with one of CLIP's text towers."""
    channels, hooks = (96, 192, 384, 768), (2, 5, 8, 11)
    return Backbone("vit", "vit_base_patch32_384", text, channels, weights="timm", hooks=hooks)


BACKBONES = {
    "clip_vitl16_384": vit_large("ViT-B/32"),
    "clipRN50x16_vitl16_384": vit_large("RN50x16"),
    "clipRN50x4_vitl16_384": vit_large("RN50x4"),
    "clip_vitb32_384": vit_base32("ViT-B/32"),
    # The paper's ablation of the text encoder.
    "clipb16_vitb32_384": vit_base32("ViT-B/16"),
    "clipRN50x4_vitb32_384": vit_base32("RN50x4"),
    "clipRN50x16_vitb32_384": vit_base32("RN50x16"),
    "clip_resnet101": Backbone(
        *("resnet", "resnet101", "ViT-B/32", (256, 512, 1024, 2048)),
        weights="torchvision",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    ),
    # The miniature's backbones: the same classes of modules, small enough for two CPU cores.
    "tiny_vit": Backbone(
        *("vit", "vit_tiny_patch16_224", "tiny", (32, 48, 96, 96)),
        weights="none",
        hooks=(0, 1, 2, 3),
        options={"img_size": 64, "patch_size": 8, "embed_dim": 96, "depth": 4, "num_heads": 3},
        base_size=64,
        crop_size=64,
    ),
    "tiny_resnet": Backbone(
        *("small_resnet", "tiny_resnet", "tiny", (32, 64, 96, 128)),
        weights="none",
        base_size=64,
        crop_size=64,
    ),
}
