"""The builder that puts the parts together: image encoder, decoder, text tower, head."""

from __future__ import annotations

from collections.abc import Sequence

import timm
import torchvision
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from .backbones import BACKBONES, TEXT_TOWERS, Backbone
from .decoder import Decoder
from .head import CorrelationHead, RegularisationBlock
from .image_encoders import ResNetEncoder, ViTEncoder
from .lseg_net import LSegNet
from .precision import channels_last
from .pretrained import load_pretrained
from .text_encoder import TextEncoder


def build_lseg(
    backbone: str,
    labels: Sequence[str] | None,
    *,
    arch_option: int = 0,
    block_depth: int = 0,
    activation: str = "lrelu",
    features: int = 256,
    dropout: float = 0.0,
    pretrained: bool = False,
) -> LSegNet:
    """Build LSeg with random weights, or with CLIP's text tower and the ImageNet backbone if ``pretrained``.

    Args:
        backbone: a key of ``BACKBONES``.
        labels: the network's own label set; None for one that is always called with labels.
        arch_option: 0 no spatial regularisation, 1 bottleneck block, 2 depthwise block (paper, section 3.3).
        block_depth: how often that block is applied (0 counts as 1).
        activation: between the applications: "lrelu", "tanh" or "relu".
        features: width of the decoder.
        dropout: rate after the ViT's position embedding and in its blocks; 0 in the official networks.
        pretrained: download what a training starts from. Nothing is downloaded otherwise.

    Raises:
        ValueError: an unknown name or option, an empty label list.
    """
    if backbone not in BACKBONES:
        raise ValueError(f"backbone {backbone!r} is unknown; choose one of {', '.join(BACKBONES)}")
    if arch_option not in (0, 1, 2):
        raise ValueError(f"arch_option {arch_option!r} is unknown; 0 is none, 1 bottleneck block, 2 depthwise block")
    if block_depth < 0:
        raise ValueError(f"block_depth is {block_depth}; it counts applications and cannot be negative")
    spec = BACKBONES[backbone]
    tower = TEXT_TOWERS[spec.text]
    net = LSegNet(
        image_encoder=build_image_encoder(spec, dropout),
        decoder=Decoder(spec.channels, features, tower.embed_dim),
        text_encoder=TextEncoder(tower.embed_dim, tower.width, tower.layers, tower.context_length),
        head=CorrelationHead(RegularisationBlock(arch_option == 1, block_depth, activation) if arch_option else None),
        labels=labels,
        architecture={
            "backbone": backbone,
            "arch_option": arch_option,
            "block_depth": block_depth,
            "activation": activation,
            "features": features,
        },
        mean=spec.mean,
        std=spec.std,
    )
    if pretrained:
        load_pretrained(net)
    return channels_last(net, features)


def build_image_encoder(spec: Backbone, dropout: float = 0.0) -> ViTEncoder | ResNetEncoder:
    """The image encoder of a backbone, random weights. ``dropout`` is refused where there is nothing to drop."""
    if spec.hooks is None:
        if dropout:
            raise ValueError(f"dropout {dropout} asked for, but {spec.image} has no dropout layers; use a ViT or 0")
        return resnet_encoder(spec)
    if spec.image == "tiny_vit":
        vit = VisionTransformer(
            img_size=64, patch_size=8, embed_dim=96, depth=4, num_heads=3, pos_drop_rate=dropout, proj_drop_rate=dropout
        )
    else:
        vit = timm.create_model(spec.image, pretrained=False, pos_drop_rate=dropout, proj_drop_rate=dropout)
    return ViTEncoder(vit, spec.hooks, spec.channels)


def resnet_encoder(spec: Backbone) -> ResNetEncoder:
    """A ResNet in four stages, the stem (conv, BN, ReLU, max pooling) in front of the first."""
    if spec.image == "tiny_resnet":
        return ResNetEncoder(tiny_resnet_stages(spec.channels), spec.channels)
    net: ResNet = getattr(torchvision.models, spec.image)(weights=None)
    first = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool, net.layer1)
    return ResNetEncoder([first, net.layer2, net.layer3, net.layer4], spec.channels)


def tiny_resnet_stages(channels: tuple[int, int, int, int]) -> list[nn.Module]:
    """Four stages of one basic block each, at strides 4, 8, 16 and 32."""

    def block(inputs: int, outputs: int, stride: int) -> BasicBlock:
        shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        return BasicBlock(inputs, outputs, stride, downsample=shortcut)

    stem = channels[0]
    first = nn.Sequential(
        nn.Conv2d(3, stem, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(stem),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.Sequential(BasicBlock(stem, stem)),
    )
    deeper = [nn.Sequential(block(channels[i], channels[i + 1], stride=2)) for i in range(3)]
    return [first, *deeper]
