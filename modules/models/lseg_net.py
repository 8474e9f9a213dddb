"""The network under the names of the official code, for programs that were written for it or for a copy of it.

``from modules.models.lseg_net import LSegNet`` gives the official constructor, attributes and state dict. Inside are
the leaf modules of our network, so both compute with the same weights. New programs use ``build_lseg``, ``load_lseg``
or ``LSegPredictor``, which are shorter and a little faster. docs/dropin.md describes who needs what.

Shapes: B images, H x W pixels (multiples of 32), N labels, C embedding dimensions, F decoder features.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .build import build_lseg
from .decoder import Decoder, FusionBlock
from .doubts import check_range
from .head import LOGIT_SCALE, TINY_NORM_SQ, RegularisationBlock
from .image_encoders import Reassemble, ResNetEncoder, ViTEncoder
from .network import Labels, check_images
from .network import LSegNet as Network
from .precision import full_precision
from .text_encoder import TextEncoder, clip_package
from .upsampling import upsample_x2

if TYPE_CHECKING:
    from typing_extensions import Self

VISUAL = "clip_pretrained.visual."  # CLIP's image tower: in official files, and never used

__all__ = ["LSegEncNet", "LSegFeatureNet", "LSegNet", "forward_vit"]


def __getattr__(name: str) -> Any:
    if name == "clip":  # callers import it from here; it imports all of torchvision
        return clip_package()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class LSegNet(nn.Module):
    """The official ``LSegNet``: ``net(x, labelset)``, its attributes and its parameter names.

    It downloads nothing: load a checkpoint with ``load_state_dict``, or use ``LSegNet.of(load_lseg(file))``. Loading
    refuses weights that are missing or unexpected, by name, also with ``strict=False`` and inside a larger network.
    What the official class does not have (``encode_labels``, ``embed``, ``mean`` ...) is passed on to ``network``.

    Args:
        labels: the own label set, used where a call names none; "" for none.
        path: a file of tensors (``python -m modules.zoo convert``), loaded at once.
        scale_factor, channels_last, use_bn: accepted; they had no effect on the official network.
        readout: "project" is the only one.
        crop_size, features, backbone, arch_option, block_depth, activation: as for ``build_lseg``.

    Attributes:
        pretrained: image encoder: ``model``, ``act_postprocess1`` to 4 and ``activations`` (ResNet: ``layer1`` to 4).
        scratch: ``layer1_rn`` to 4, ``refinenet1`` to 4, ``head1`` (its output is the pixel embedding at H/2 x W/2),
            ``head_block`` (with an ``arch_option``), ``output_conv``.
        clip_pretrained: text tower; ``encode_text(tokens)``.
        text: tokens of ``labels``. out_c: C. logit_scale: 1 / 0.07.
        network: our network, with the same weights.
        check_range: whether the next images are looked at, once, for values that were not normalised; False: never.
    """

    def __init__(
        self,
        labels: str | Sequence[str] = "",
        path: str | Path | None = None,
        scale_factor: float = 0.5,
        crop_size: int = 480,
        *,
        features: int = 256,
        backbone: str = "clip_vitl16_384",
        readout: str = "project",
        channels_last: bool = False,
        use_bn: bool = True,
        arch_option: int = 0,
        block_depth: int = 0,
        activation: str = "lrelu",
    ) -> None:
        if readout != "project":
            raise ValueError(f"readout is {readout!r}; the released networks have 'project', and so has this one")
        block: dict[str, Any] = {"arch_option": arch_option, "block_depth": block_depth, "activation": activation}
        own = [labels] if isinstance(labels, str) and labels else list(labels)
        network = build_lseg(backbone, own or None, features=features, **block)
        network.crop_size = crop_size
        self._take(network, labels)
        self.scale_factor, self.channels_last = scale_factor, channels_last
        if path is not None:
            self.load(path)

    @classmethod
    def of(cls, network: Network) -> Self:
        """One of our networks (``build_lseg``, ``load_lseg``) under official names; weights are shared, not copied."""
        net = cls.__new__(cls)
        net._take(network, network.labels or "")
        net.scale_factor, net.channels_last = 0.5, False
        return net

    def _take(self, network: Network, labels: str | Sequence[str]) -> None:
        super().__init__()
        self.__dict__["network"] = network  # not a child: its weights are already under official names
        encoder, decoder = network.image_encoder, network.decoder
        if not isinstance(network.text_encoder, TextEncoder):
            raise ValueError(
                "this checkpoint is a plain classifier (--head classes), and the official LSegNet needs text"
            )
        self.clip_pretrained = network.text_encoder
        self.pretrained: Any = PretrainedViT(encoder) if isinstance(encoder, ViTEncoder) else PretrainedResNet(encoder)
        self.scratch: Any = Scratch(decoder, network.head.block)
        self.labels = labels
        with torch.device("cpu"):  # the tokens are numbers even where the weights are still on the device "meta"
            self.text = network.text_encoder.tokenize([labels] if isinstance(labels, str) else labels)
        self.logit_scale = torch.tensor(LOGIT_SCALE)
        self.out_c = network.text_encoder.embed_dim
        self.crop_size = network.crop_size
        self.arch_option = network.architecture["arch_option"]
        self.block_depth = network.architecture["block_depth"]
        self.check_range = True
        self.train(network.training)

    def __getattr__(self, name: str) -> Any:
        """Parts of a module, then what our network has and the official one has not."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_") or "network" not in self.__dict__:
                raise
            return getattr(self.network, name)

    def load(self, path: str | Path) -> None:
        """Load a file of tensors under official names. A Lightning checkpoint is converted by ``modules.zoo`` first."""
        try:
            weights = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever is wrong with a file, the advice is the same
            raise ValueError(
                f"{path} is not a file of tensors ({str(error).splitlines()[0][:120]}); convert it: "
                "python -m modules.zoo convert FILE NEW_FILE"
            ) from error
        weights = weights.get("state_dict", weights)
        self.load_state_dict({name.removeprefix("net."): tensor for name, tensor in weights.items()})

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """As ``nn.Module``, but ``strict=False`` forgives nothing."""
        return super().load_state_dict(state_dict, strict=True, assign=assign)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        """Drop CLIP's image tower, and refuse weights that are incomplete inside a larger network's state dict."""
        for name in [name for name in state_dict if name.startswith(prefix + VISUAL)]:
            del state_dict[name]
        found = {name for name in state_dict if name.startswith(prefix)}
        expected = {prefix + name for name in self.state_dict()}
        # At the top torch reports the names itself. A larger network's state dict may leave LSeg out altogether.
        if prefix and found and found != expected:
            kinds = {"missing": sorted(expected - found), "unexpected": sorted(found - expected)}
            rest[-1].extend(  # the errors, for which torch raises even without strict
                f"LSeg's weights are incomplete, which strict=False does not forgive: {len(names)} {kind}, such as "
                f"{', '.join(names[:3])}"
                for kind, names in kinds.items()
                if names
            )
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(self, x: Tensor, labelset: str | Labels | None = "") -> Tensor:
        """(B, 3, H, W) normalised -> (B, N, H, W) float32 logits.

        ``labelset``: "" for the own labels, a list of N texts, or whatever our network takes as labels.
        """
        return self.scratch.output_conv(self._logits(self._features(x), labelset)).contiguous()

    def raw_features(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) normalised -> (B, C, H/2, W/2): the output of ``scratch.head1``."""
        return self._features(x).contiguous()

    def _features(self, x: Tensor) -> Tensor:
        check_images(x)
        check_range(self, x)
        scratch, maps = self.scratch, forward_vit(self.pretrained, x)
        path = scratch.refinenet4(scratch.layer4_rn(maps[3]))
        path = scratch.refinenet3(path, scratch.layer3_rn(maps[2]))
        path = scratch.refinenet2(path, scratch.layer2_rn(maps[1]))
        path = scratch.refinenet1(path, scratch.layer1_rn(maps[0]))  # (B, F, H/2, W/2)
        return scratch.head1(path)

    def unit_features(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) normalised -> (B, C, H/2, W/2) float32 unit vectors."""
        with full_precision(x.device):
            return nn.functional.normalize(self.raw_features(x).float(), dim=1)

    def _text(self, labelset: str | Labels | None, batch: int) -> Tensor:
        """(N, C) or (B, N, C) unit vectors; every label is encoded once and cached."""
        if labelset is None or (isinstance(labelset, str) and not labelset):
            if not self.labels:
                raise ValueError("this network has no labels of its own; call it as net(x, ['cat', 'grass'])")
            return nn.functional.normalize(self.clip_pretrained.token_features(self.text), dim=-1)
        return self.network.text_matrix([labelset] if isinstance(labelset, str) else labelset, batch)

    def _logits(self, features: Tensor, labelset: str | Labels | None) -> Tensor:
        """Raw features (B, C, h, w) -> (B, N, h, w) float32, through the regularisation block if there is one."""
        text = self._text(labelset, len(features))
        with full_precision(features.device):
            pixels = features.float().permute(0, 2, 3, 1).flatten(1, 2)  # (B, h * w, C), contiguous in a wide network
            norm_sq = torch.linalg.vecdot(pixels, pixels).clamp_min(TINY_NORM_SQ)
            logits = pixels @ text.float().mT * (LOGIT_SCALE * norm_sq.rsqrt())[..., None]
            logits = logits.transpose(1, 2).unflatten(2, features.shape[2:])  # a pixel's labels stay next to each other
            if self.arch_option:
                for _ in range(self.block_depth - 1):
                    logits = self.scratch.head_block(logits)
                logits = self.scratch.head_block(logits, False)
            return logits


class LSegEncNet(LSegNet):
    """VLMaps' network: it returns embeddings and logits."""

    def forward(self, x: Tensor, labelset: str | Labels | None = "") -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """(B, 3, H, W) -> unit vectors times 1 / 0.07, then x2: (B, C, H, W); logits (B, N, H, W)."""
        features = self.raw_features(x)
        with full_precision(x.device):
            scaled = nn.functional.normalize(features.float(), dim=1) * LOGIT_SCALE
        logits = self._logits(features, labelset)
        return self.scratch.output_conv(scaled), self.scratch.output_conv(logits).contiguous()


class LSegFeatureNet(LSegNet):
    """The network of the package lseg-minimal, where it is called ``lseg.LSegNet``: images in, embeddings out."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """(B, 3, H, W) -> (B, C, H/2, W/2), not normalised, without a graph."""
        return self.raw_features(x).detach()


def forward_vit(pretrained: Any, x: Tensor) -> tuple[Tensor, ...]:
    """The four feature maps of ``net.pretrained``, at 1/4, 1/8, 1/16 and 1/32 of x (B, 3, H, W)."""
    return pretrained.maps(x)


# ------------------------------------------------------------------------------------------------ the official parts


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

    def maps(self, x: Tensor) -> tuple[Tensor, ...]:
        """See ``forward_vit``."""
        self.model.forward_flex(x)
        grid = [side // self.encoder.patch_size for side in x.shape[2:]]
        found = []
        for level, tokens in self.activations.items():
            post: Any = getattr(self, f"act_postprocess{level}")
            found.append(post[3:](post[:2](tokens).unflatten(2, grid)))
        return tuple(found)


class PretrainedResNet(nn.Module):
    """``net.pretrained`` around a ResNet: its four stages."""

    def __init__(self, encoder: ResNetEncoder) -> None:
        super().__init__()
        for level, stage in enumerate(encoder.stages, start=1):
            self.add_module(f"layer{level}", stage)

    def maps(self, x: Tensor) -> tuple[Tensor, ...]:
        """See ``forward_vit``."""
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
