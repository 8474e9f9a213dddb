"""The builder that puts the parts together: image encoder, decoder, text tower, head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from torch import nn

from .backbones import OPEN_CLIP, TEXT_TOWERS, Backbone
from .class_encoder import ClassEncoder
from .decoder import Decoder
from .head import CorrelationHead, RegularisationBlock
from .image_encoders import ImageEncoder, ResNetEncoder, ViTEncoder
from .named import backbone_spec, text_dimension
from .network import LSegNet
from .precision import channels_last
from .pretrained import load_pretrained
from .text_encoder import LabelEncoder, TextEncoder


def build_lseg(
    backbone: str,
    labels: Sequence[str] | None,
    *,
    arch_option: int = 0,
    block_depth: int = 0,
    activation: str = "lrelu",
    features: int = 256,
    classes: Sequence[str] | None = None,
    dropout: float = 0.0,
    text_tower: str | None = None,
    pretrained: bool = False,
) -> LSegNet:
    """Build LSeg with random weights, or with CLIP's text tower and the ImageNet backbone if ``pretrained``.

    Args:
        backbone: a key of ``BACKBONES``, or timm:NAME for any network of timm that gives feature maps.
        labels: the network's own label set; None for one that is always called with labels.
        arch_option: 0 no spatial regularisation, 1 bottleneck block, 2 depthwise block (paper, section 3.3).
        block_depth, activation: how often that block is applied (0 counts as 1); between, "lrelu", "tanh" or "relu".
        features: width of the decoder.
        classes: names of the classes of a plain classifier without text (the paper's DPT baseline); None: LSeg.
        dropout: rate after the ViT's position embedding and in its blocks; 0 in the official networks.
        text_tower: a key of ``TEXT_TOWERS``, or open_clip:MODEL[/TAG]; None: the backbone's usual one.
        pretrained: download what a training starts from. Nothing is downloaded otherwise.

    Raises ``ValueError`` for an unknown name or option, or an empty label list.
    """
    spec = backbone_spec(backbone)
    if arch_option not in (0, 1, 2):
        raise ValueError(f"arch_option {arch_option!r} is unknown; 0 is none, 1 bottleneck block, 2 depthwise block")
    if block_depth < 0:
        raise ValueError(f"block_depth is {block_depth}; it counts applications and cannot be negative")
    if classes is not None and (arch_option or text_tower is not None):
        raise ValueError("a plain classifier has no regularisation block and no text tower; leave out their options")
    image_encoder = ENCODERS[spec.encoder](spec, dropout)  # publishes out_channels and strides
    block = {"arch_option": arch_option, "block_depth": block_depth, "activation": activation}
    # The order of these three is the order in which a seed's random numbers are drawn; another order gives a seed other
    # initial weights, and its results no longer come back.
    embed_dim = text_dimension(text_tower or spec.text) if classes is None else len(classes)
    decoder = Decoder(image_encoder.out_channels, image_encoder.strides, features, embed_dim)
    text_encoder = text_encoder_of(text_tower or spec.text) if classes is None else ClassEncoder(classes)
    regularisation = RegularisationBlock(arch_option == 1, block_depth, activation) if arch_option else None
    net = LSegNet(
        image_encoder=image_encoder,
        decoder=decoder,
        text_encoder=text_encoder,
        head=CorrelationHead(regularisation, cosine=classes is None),
        labels=classes if labels is None else labels,
        architecture={"backbone": backbone, **block, "features": features}
        | ({} if classes is None else {"classes": list(classes)})
        | ({} if text_tower in (None, spec.text) else {"text_tower": text_tower}),
        mean=spec.mean,
        std=spec.std,
        base_size=spec.base_size,
        crop_size=spec.crop_size,
    )
    if pretrained:
        load_pretrained(net)
    return channels_last(net, features)


def text_encoder_of(name: str) -> LabelEncoder:
    """A text tower with random weights; ``name`` as for ``text_dimension``."""
    if name.startswith(OPEN_CLIP):
        from .open_clip_text import OpenClipTextEncoder

        return OpenClipTextEncoder(name)
    tower = TEXT_TOWERS[name]
    return TextEncoder(tower.embed_dim, tower.width, tower.layers, tower.context_length)


# The encoders' libraries are imported where they are used: timm takes a second to import, torchvision half a second,
# and a network needs only one of them.


def vit_encoder(spec: Backbone, dropout: float) -> ViTEncoder:
    """A vision transformer of timm."""
    import timm

    options: dict[str, Any] = {**spec.options, "pos_drop_rate": dropout, "proj_drop_rate": dropout}
    vit: Any = timm.create_model(spec.image, pretrained=False, **options)
    return ViTEncoder(vit, spec.hooks, spec.channels)


def resnet_encoder(spec: Backbone, dropout: float) -> ResNetEncoder:
    """A ResNet of torchvision in four stages, the stem (conv, BN, ReLU, max pooling) in front of the first."""
    import torchvision

    refuse_dropout(spec, dropout)
    net = getattr(torchvision.models, spec.image)(weights=None)
    first = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool, net.layer1)
    return ResNetEncoder([first, net.layer2, net.layer3, net.layer4], spec.channels)


def small_resnet_encoder(spec: Backbone, dropout: float) -> ResNetEncoder:
    """Four stages of one basic block each, at strides 4, 8, 16 and 32."""
    from torchvision.models.resnet import BasicBlock

    refuse_dropout(spec, dropout)

    def block(inputs: int, outputs: int) -> BasicBlock:
        shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, 2, bias=False), nn.BatchNorm2d(outputs))
        return BasicBlock(inputs, outputs, 2, downsample=shortcut)

    stem = spec.channels[0]
    conv = nn.Conv2d(3, stem, 3, stride=2, padding=1, bias=False)
    pool = nn.MaxPool2d(3, stride=2, padding=1)
    layer = nn.Sequential(BasicBlock(stem, stem))
    first = nn.Sequential(conv, nn.BatchNorm2d(stem), nn.ReLU(inplace=True), pool, layer)
    deeper = [nn.Sequential(block(*pair)) for pair in pairwise(spec.channels)]
    return ResNetEncoder([first, *deeper], spec.channels)


def refuse_dropout(spec: Backbone, dropout: float) -> None:
    """``ValueError`` for a rate that would have no effect."""
    if dropout:
        raise ValueError(f"dropout is {dropout}, but {spec.image} has no dropout layers; use a ViT, or 0")


def timm_encoder(spec: Backbone, dropout: float) -> ImageEncoder:
    """Any network of timm."""
    from .timm_encoders import TimmEncoder, create_network

    return TimmEncoder(create_network(spec.image, dropout), spec.hooks, spec.channels, **spec.options)


ENCODERS: dict[str, Callable[[Backbone, float], ImageEncoder]] = {
    "vit": vit_encoder,
    "resnet": resnet_encoder,
    "small_resnet": small_resnet_encoder,
    "timm": timm_encoder,
}
