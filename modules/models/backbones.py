"""Every backbone and every text tower as plain data: names and numbers that can be read without importing torch."""

from __future__ import annotations

from dataclasses import dataclass

HALF = (0.5, 0.5, 0.5)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class TextTower:
    """Sizes of a CLIP text tower; heads are width / 64."""

    embed_dim: int
    width: int
    layers: int = 12
    context_length: int = 77


TEXT_TOWERS = {
    "ViT-B/32": TextTower(embed_dim=512, width=512),
    "ViT-B/16": TextTower(embed_dim=512, width=512),
    "RN50x4": TextTower(embed_dim=640, width=640),
    "RN50x16": TextTower(embed_dim=768, width=768),
    "tiny": TextTower(embed_dim=64, width=64, layers=3, context_length=16),  # the miniature's
}


@dataclass(frozen=True)
class Backbone:
    """An image encoder and the text tower it is trained against."""

    image: str  # name in timm, "resnet101" of torchvision, or one of the miniature's two
    text: str  # key of TEXT_TOWERS
    channels: tuple[int, int, int, int]  # of the four maps
    hooks: tuple[int, int, int, int] | None = None  # ViT blocks that are read; None for a ResNet
    mean: tuple[float, float, float] = HALF
    std: tuple[float, float, float] = HALF


BACKBONES = {
    "clip_vitl16_384": Backbone(
        image="vit_large_patch16_384", text="ViT-B/32", channels=(256, 512, 1024, 1024), hooks=(5, 11, 17, 23)
    ),
    "clipRN50x16_vitl16_384": Backbone(
        image="vit_large_patch16_384", text="RN50x16", channels=(256, 512, 1024, 1024), hooks=(5, 11, 17, 23)
    ),
    "clipRN50x4_vitl16_384": Backbone(
        image="vit_large_patch16_384", text="RN50x4", channels=(256, 512, 1024, 1024), hooks=(5, 11, 17, 23)
    ),
    "clip_vitb32_384": Backbone(
        image="vit_base_patch32_384", text="ViT-B/32", channels=(96, 192, 384, 768), hooks=(2, 5, 8, 11)
    ),
    "clip_resnet101": Backbone(
        image="resnet101", text="ViT-B/32", channels=(256, 512, 1024, 2048), mean=IMAGENET_MEAN, std=IMAGENET_STD
    ),
    # The miniature's backbones: the same classes of modules, small enough for two CPU cores.
    "tiny_vit": Backbone(image="tiny_vit", text="tiny", channels=(32, 48, 96, 96), hooks=(0, 1, 2, 3)),
    "tiny_resnet": Backbone(image="tiny_resnet", text="tiny", channels=(32, 64, 96, 128)),
}
