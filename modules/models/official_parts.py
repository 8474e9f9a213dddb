"""The official network's parts, made of our leaf modules: what ``lseg_net.LSegNet`` registers under official names.

Shapes: B images, H x W pixels (multiples of 32), N labels, D token width, F decoder features, h x w a level's grid.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from .decoder import Decoder, FusionBlock
from .head import RegularisationBlock
from .image_encoders import Reassemble, ResNetEncoder, ViTEncoder
from .upsampling import upsample_x2


class Activations(dict[str, Tensor]):
    """Tokens by the number of the block's hook, "1" to "4". Copies of a network begin without any."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Activations:
        return Activations()


class ProjectReadout(nn.Module):
    """(B, 1 + n, D) tokens -> (B, n, D): each patch's token with the class token's behind it."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.project = nn.Sequential(linear, nn.GELU())

    def forward(self, tokens: Tensor) -> Tensor:
        class_token, patches = tokens[:, :1], tokens[:, 1:]
        return self.project(torch.cat([patches, class_token.expand_as(patches)], dim=-1))


class Transpose(nn.Module):
    """(B, n, D) -> (B, D, n)"""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.transpose(1, 2)


def postprocess(reassemble: Reassemble, side: int) -> nn.Sequential:
    """``act_postprocess``: readout, transpose, unflatten (to the side of pretraining), project, resample."""
    assert reassemble.readout is not None, "the official backbones have a class token"
    parts = [ProjectReadout(reassemble.readout), Transpose(), nn.Unflatten(2, torch.Size([side, side]))]
    resample = [] if isinstance(reassemble.resample, nn.Identity) else [reassemble.resample]
    return nn.Sequential(*parts, reassemble.project, *resample)


class PretrainedViT(nn.Module):
    """``net.pretrained`` around a ViT. ``model.forward_flex(x)`` fills ``activations``, as officially."""

    def __init__(self, encoder: ViTEncoder) -> None:
        super().__init__()
        self.encoder: ViTEncoder
        self.__dict__["encoder"] = encoder  # not a child: its parts are registered below
        self.model: Any = encoder.vit
        self.model.patch_size = [encoder.patch_size, encoder.patch_size]
        self.model.forward_flex = MethodType(PretrainedViT.forward_flex, self)
        side = round((encoder.vit.pos_embed.shape[1] - 1) ** 0.5)
        for level, reassemble in enumerate(encoder.reassemble, start=1):
            self.add_module(f"act_postprocess{level}", postprocess(reassemble, side))  # type: ignore[arg-type]
        self.activations = Activations()

    def forward_flex(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> the ViT's last tokens (B, 1 + h*w, D), normalised; the hooked ones go to ``activations``."""
        levels, _ = self.encoder.levels(x)
        self.activations.update(zip("1234", levels, strict=True))
        return self.model.norm(levels[-1])

    def maps(self, x: Tensor, official: bool = True) -> tuple[Tensor, ...]:
        """See ``forward_vit``; without ``official``, ``act_postprocess`` is not called: the same maps, faster."""
        self.model.forward_flex(x)
        height, width = (side // self.encoder.patch_size for side in x.shape[2:])
        if not official:
            levels = zip(self.encoder.reassemble, self.activations.values(), strict=True)
            return tuple(reassemble(tokens, (height, width)) for reassemble, tokens in levels)
        found = []
        for level, tokens in self.activations.items():
            post: Any = getattr(self, f"act_postprocess{level}")
            found.append(post[3:](post[:2](tokens).unflatten(2, (height, width))))
        return tuple(found)


class PretrainedResNet(nn.Module):
    """``net.pretrained`` around a ResNet: its four stages."""

    def __init__(self, encoder: ResNetEncoder) -> None:
        super().__init__()
        for level, stage in enumerate(encoder.stages, start=1):
            self.add_module(f"layer{level}", stage)

    def maps(self, x: Tensor, official: bool = True) -> tuple[Tensor, ...]:
        """See ``forward_vit``; there is one way."""
        found = []
        for stage in self.children():
            x = stage(x)
            found.append(x)
        return tuple(found)


class Refine(nn.Module):
    """``refinenet``: the fusion block with its upsampling."""

    def __init__(self, block: FusionBlock) -> None:
        super().__init__()
        self.resConfUnit1, self.resConfUnit2, self.out_conv = block.skip_unit, block.merge_unit, block.out_conv

    def forward(self, path: Tensor, skip: Tensor | None = None) -> Tensor:
        """(B, F, h, w), and the level's map unless it is the deepest -> (B, F, 2h, 2w)."""
        x = path if skip is None else path + self.resConfUnit1(skip)
        return upsample_x2(self.out_conv(self.resConfUnit2(x)))  # in this order a quarter of the work, see FusionBlock


class SharedKernel(nn.Module):
    """One 3x3 kernel for every label's map: (B, N, h, w) -> (B, N, h, w)."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.depthwise = conv

    def forward(self, x: Tensor) -> Tensor:
        return self.depthwise(x.flatten(0, 1).unsqueeze(1)).view(x.shape)


class HeadBlock(nn.Module):
    """``head_block``: one application of the regularisation block."""

    def __init__(self, block: RegularisationBlock) -> None:
        super().__init__()
        self.depthwise = SharedKernel(block.conv)
        self.bottleneck, self.activation = block.bottleneck, block.activation

    def forward(self, x: Tensor, act: bool = True) -> Tensor:
        """(B, N, h, w) -> (B, N, h, w); ``act``: with the activation behind it."""
        mixed = self.depthwise(x)
        if self.bottleneck:
            mixed = mixed + x.amax(dim=1, keepdim=True)
        return self.activation(mixed) if act else mixed


class Scratch(nn.Module):
    """``net.scratch``: decoder and head."""

    def __init__(self, decoder: Decoder, block: RegularisationBlock | None) -> None:
        super().__init__()
        for level, (projection, fusion) in enumerate(zip(decoder.projections, decoder.fusions), start=1):
            self.add_module(f"layer{level}_rn", projection)
            self.add_module(f"refinenet{level}", Refine(fusion))  # type: ignore[arg-type]
        self.head1 = decoder.embedding
        if block is not None:
            self.head_block = HeadBlock(block)
        self.output_conv = nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True))


def only_official(pretrained: nn.Module, scratch: Scratch) -> Iterator[nn.Module]:
    """The parts that our own order of computation does not call, or calls with smaller inputs."""
    yield scratch.head1  # before the x2 instead of behind it
    for part in (*pretrained.modules(), *scratch.modules()):
        if isinstance(part, ProjectReadout):
            yield part.project[0]  # its weight is used in two halves
        if type(part).__module__ == __name__ or type(part) in (nn.Sequential, nn.GELU, nn.Unflatten, nn.Upsample):
            yield part
