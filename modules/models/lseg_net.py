"""The network under the names of the official code, for programs that were written for it or for a copy of it.

``from modules.models.lseg_net import LSegNet`` gives the official constructor, attributes and state dict. Inside are
the leaf modules of our network, so both compute with the same weights. New programs use ``build_lseg``, ``load_lseg``
or ``LSegPredictor``, which are shorter and a little faster. docs/dropin.md describes who needs what.

Shapes: B images, H x W pixels (multiples of 32), N labels, C embedding dimensions, F decoder features.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .build import build_lseg
from .class_encoder import ClassEncoder
from .doubts import check_range
from .head import LOGIT_SCALE, TINY_NORM_SQ
from .hub import HubFiles
from .image_encoders import ResNetEncoder, ViTEncoder
from .network import Labels, check_images
from .network import LSegNet as Network
from .official_parts import PretrainedResNet, PretrainedViT, Scratch, only_official
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


class LSegNet(nn.Module, HubFiles):
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
        if isinstance(network.text_encoder, ClassEncoder):
            raise ValueError(
                "this checkpoint is a plain classifier (--head classes), and the official LSegNet needs text"
            )
        if not (isinstance(network.text_encoder, TextEncoder) and isinstance(encoder, ViTEncoder | ResNetEncoder)):
            parts = " and ".join(
                str(network.architecture[key]) for key in ("backbone", "text_tower") if key in network.architecture
            )
            raise ValueError(
                f"the official LSegNet has no names for the parts of {parts}; load the checkpoint with "
                "load_lseg or LSegPredictor.from_checkpoint"
            )
        self.clip_pretrained = network.text_encoder
        self.pretrained: Any = PretrainedViT(encoder) if isinstance(encoder, ViTEncoder) else PretrainedResNet(encoder)
        self.scratch: Any = Scratch(decoder, network.head.block)
        self._parts = [*self.pretrained.modules(), *self.scratch.modules()]
        self._only_official = list(only_official(self.pretrained, self.scratch))
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
        """Parts of a module, then what our network has and the official one does not."""
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
        features, official = self._embedding(x)
        return self.scratch.output_conv(self._logits(features, official, labelset)).contiguous()

    def raw_features(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) normalised -> (B, C, H/2, W/2): the output of ``scratch.head1``."""
        features, official = self._embedding(x)
        # Copying before the x2 moves a quarter of the numbers that copying after it would.
        return features.contiguous() if official else upsample_x2(features.contiguous())

    def _embedding(self, x: Tensor) -> tuple[Tensor, bool]:
        """The raw pixel embedding: (B, C, H/2, W/2) and True, or (B, C, H/4, W/4) before its x2 and False.

        The official order (x2, then ``head1``, then the labels) is needed where somebody looks: a hook sees what it
        would see officially. Otherwise the x2 comes last, as in our network, with a quarter of the work.
        """
        check_images(x)
        check_range(self, x)
        scratch = self.scratch
        if self._is_as_built():
            return self.network.decoder(self.pretrained.maps(x, official=False)), False
        maps = forward_vit(self.pretrained, x)
        path = scratch.refinenet4(scratch.layer4_rn(maps[3]))
        path = scratch.refinenet3(path, scratch.layer3_rn(maps[2]))
        path = scratch.refinenet2(path, scratch.layer2_rn(maps[1]))
        path = scratch.refinenet1(path, scratch.layer1_rn(maps[0]))  # (B, F, H/2, W/2)
        return scratch.head1(path), True

    def _is_as_built(self) -> bool:
        """Whether no part was replaced, and none that only the official order calls has a hook or another forward."""
        if torch.compiler.is_compiling() or self._parts != [*self.pretrained.modules(), *self.scratch.modules()]:
            return False
        return not any(
            part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or "forward" in part.__dict__
            for part in self._only_official
        )

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

    def _logits(self, features: Tensor, official: bool, labelset: str | Labels | None) -> Tensor:
        """What ``_embedding`` gives -> (B, N, H/2, W/2) float32, through the regularisation block if there is one."""
        text = self._text(labelset, len(features))
        if not official:
            return self.network.head.half_logits(features, text)
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
        features, official = self._embedding(x)
        half = features if official else upsample_x2(features)
        with full_precision(x.device):
            scaled = nn.functional.normalize(half.contiguous().float(), dim=1) * LOGIT_SCALE
        logits = self._logits(features, official, labelset)
        return self.scratch.output_conv(scaled), self.scratch.output_conv(logits).contiguous()


class LSegFeatureNet(LSegNet):
    """The network of the package lseg-minimal, where it is called ``lseg.LSegNet``: images in, embeddings out."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """(B, 3, H, W) -> (B, C, H/2, W/2), not normalised, without a graph."""
        return self.raw_features(x).detach()


def forward_vit(pretrained: Any, x: Tensor) -> tuple[Tensor, ...]:
    """The four feature maps of ``net.pretrained``, at 1/4, 1/8, 1/16 and 1/32 of x (B, 3, H, W)."""
    return pretrained.maps(x)
