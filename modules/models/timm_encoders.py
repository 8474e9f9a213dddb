"""Any network of timm as an image encoder: what has to be known of it, the network is asked itself.

timm has two kinds. The blocks of a vision transformer have one grid of tokens, which is reassembled at four strides;
the stages of a pyramid (ConvNeXt, Swin, ResNet, EfficientNet ...) are at these strides already.

Shapes: B images, H x W pixels (multiples of 32), D token width, P patch size, h x w tokens.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .backbones import MULTIPLE, TIMM, Backbone
from .image_encoders import STRIDES, ImageEncoder, Reassemble

TEXT = "ViT-B/32"  # the text tower of a network of timm, unless another is given
OPEN_LICENCES = ("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc-by-4.0", "cc0-1.0")
# Options that let a network of timm take images of any size: one without the first has the second, or needs none.
ANY_SIZE: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})


class TimmEncoder(ImageEncoder):
    """A network of timm whose blocks or stages at ``hooks`` become four maps.

    Blocks are read behind the final norm, as in the published DPT heads of DINOv2 and DINOv3. What follows the last
    hook is cut off. For patches that do not divide 32 the image is resized to the nearest whole number of patches
    (480 to 476 pixels for patches of 14), and the maps to the strides that the decoder expects.

    Args:
        network: of ``create_network``.
        hooks: indices of blocks or stages, ascending.
        out_channels: channels of the four maps; a pyramid's own.
        width: D; 0 for a pyramid.
    """

    pretrained = "timm"

    def __init__(self, network: Any, hooks: Sequence[int], out_channels: Sequence[int], width: int = 0) -> None:
        super().__init__()
        self.hooks, self.out_channels = tuple(hooks), tuple(out_channels)
        network.prune_intermediate_layers(list(hooks), prune_norm=not width, prune_head=True)
        self.timm = network
        self.patch_size: int = patch_of(network) if width else 1
        self.class_token = bool(width) and has_class_token(network)
        self.reassemble = nn.ModuleList(
            Reassemble(width, channels, self.patch_size, stride, self.class_token)
            for channels, stride in zip(self.out_channels if width else (), STRIDES)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> four maps (B, out_channels[i], H/strides[i], W/strides[i])."""
        height, width = images.shape[-2:]
        patch, resized = self.patch_size, MULTIPLE % self.patch_size != 0
        if resized:
            size = [(side + patch // 2) // patch * patch for side in (height, width)]
            images = F.interpolate(images, size, mode="bilinear", align_corners=False)
        read = read_maps(self.timm, images, self.hooks, self.class_token)
        if not self.reassemble:
            return [patches.contiguous() for patches, _ in read]
        maps = []
        for reassemble, stride, (patches, prefix) in zip(self.reassemble, STRIDES, read, strict=True):
            tokens = patches.flatten(2).transpose(1, 2)  # (B, h*w, D)
            if prefix is not None:  # registers follow the class token, and are not read
                tokens = torch.cat([prefix[:, :1], tokens], dim=1)
            level = reassemble(tokens, (patches.shape[2], patches.shape[3]))
            if resized:
                exact = (height // stride, width // stride)
                level = F.interpolate(level, exact, mode="bilinear", align_corners=False)
            maps.append(level)
        return maps

    def recompute(self, activations: bool) -> None:
        """As for any encoder; ``ValueError`` for batch norm that is trained, which would count each batch twice."""
        if activations and not self.frozen and any(isinstance(part, _BatchNorm) for part in self.timm.modules()):
            raise ValueError(
                f"--grad_checkpointing would count each batch twice in the batch norm of this "
                f"{type(self.timm).__name__}; leave it out, or add --freeze_encoder"
            )
        super().recompute(activations)
        self.timm.set_grad_checkpointing(activations)


def patch_of(network: Any) -> int:
    """P of a vision transformer; 0 for a network whose stages have several strides, or that names none."""
    reductions = [info["reduction"] for info in getattr(network, "feature_info", [])]
    return reductions[0] if len(set(reductions)) == 1 else 0


def has_class_token(network: Any) -> bool:
    """Whether the first of the prefix tokens is a class token, and can be read."""
    readable = "return_prefix_tokens" in inspect.signature(network.forward_intermediates).parameters
    return readable and getattr(network, "cls_token", None) is not None


def read_maps(network: Any, images: Tensor, hooks: Sequence[int], prefix: bool) -> list[tuple[Tensor, Tensor | None]]:
    """The maps (B, channels, h, w) of the blocks or stages at ``hooks``, each with the prefix tokens if wanted."""
    norm = bool(patch_of(network))
    options: dict[str, Any] = {"return_prefix_tokens": True} if prefix else {}
    maps = network.forward_intermediates(
        images, indices=list(hooks), norm=norm, output_fmt="NCHW", intermediates_only=True, **options
    )
    return maps if prefix else [(one, None) for one in maps]


def create_network(name: str, dropout: float = 0.0) -> Any:
    """A network of timm with random weights, without classifier, for images of any size."""
    import timm

    rates: dict[str, Any] = {"pos_drop_rate": dropout, "proj_drop_rate": dropout} if dropout else {}
    refused: TypeError | None = None
    for options in ANY_SIZE:
        try:
            network = timm.create_model(name, pretrained=False, num_classes=0, **options, **rates)
        except TypeError as error:  # an argument that it does not have
            refused = error
            continue
        for part in network.modules():  # some configurations drop paths at random, which nobody has asked for
            if isinstance(part, timm.layers.DropPath):
                part.drop_prob = 0.0
        return network
    what = f"dropout is {dropout}, but it has no dropout layers; use a ViT, or 0" if dropout else refused
    raise ValueError(f"{TIMM}{name} cannot be built: {what}")


@lru_cache(maxsize=64)
def timm_backbone(name: str) -> Backbone:
    """What there is to know of a network of timm. It is built without memory for weights, and tried at two sizes.

    name: an architecture of timm, with or without a tag: vit_small_patch14_dinov2.lvd142m.

    Raises:
        ValueError: an unknown name or tag, or a network that does not give maps at strides 4, 8, 16 and 32 for images
            of any size.
    """
    import timm

    plain = name.split(".")[0]
    if not timm.is_model(plain):
        near = get_close_matches(plain, timm.list_models(), n=1)
        hint = f" (did you mean {TIMM}{near[0]}?)" if near else ""
        raise ValueError(f"timm {timm.__version__} has no network {plain!r}{hint}; `timm.list_models()` lists them")
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{plain}.*")]
    tag = name.partition(".")[2]
    if tag and tag not in tags:
        raise ValueError(
            f"timm {timm.__version__} has no weights {tag!r} of {plain}; it has {', '.join(tags) or 'none'}"
        )
    config: Any = timm.get_pretrained_cfg(name) or timm.models.PretrainedCfg()
    with torch.device("meta"):
        network = create_network(name)
        hooks = hooks_of(network, name)
        patch = patch_of(network)
        strides = [patch] * 4 if patch else STRIDES
        network.eval()
        for rows, columns in ((4, 6), (10, 4)):
            side = patch or MULTIPLE
            images = torch.empty(1, 3, rows * side, columns * side)
            try:
                maps = [found for found, _ in read_maps(network, images, hooks, False)]
                wrong = any(found.shape[2] * stride != rows * side for found, stride in zip(maps, strides))
            except Exception as error:  # whatever a network raises for a size that it cannot take
                raise not_an_encoder(name, f"it refuses images of {rows * side}x{columns * side} pixels") from error
            if wrong:
                raise not_an_encoder(name, f"its maps are {[tuple(found.shape[2:]) for found in maps]}")
    channels = [found.shape[1] for found in maps]
    width = channels[0] if patch else 0
    if patch:  # DPT's channels for ViT-L, and for smaller ones
        channels = [width // 4, width // 2, width, width] if width >= 1024 else [width // (8 >> i) for i in range(4)]
    return Backbone(
        *("timm", name, TEXT, (channels[0], channels[1], channels[2], channels[3])),
        weights="timm",
        hooks=hooks,
        options={"width": width},
        mean=config.mean,
        std=config.std,
        licence=config.license or "",
    )


def hooks_of(network: Any, name: str) -> tuple[int, ...]:
    """Four blocks, one at the end of each quarter, or the deepest stage at each of the strides 4, 8, 16, 32."""
    reductions = [info["reduction"] for info in getattr(network, "feature_info", [])]
    if not hasattr(network, "forward_intermediates") or not reductions:
        raise not_an_encoder(name, "it is a network without maps")
    if patch_of(network):
        count = len(reductions)
        if count < 4:
            raise not_an_encoder(name, f"it has {count} blocks, and four are needed")
        return tuple(count * (i + 1) // 4 - 1 for i in range(4))
    missing = [stride for stride in STRIDES if stride not in reductions]
    if missing:
        raise not_an_encoder(name, f"it has maps at strides {reductions}, not at {missing}")
    return tuple(max(i for i, found in enumerate(reductions) if found == stride) for stride in STRIDES)


def not_an_encoder(name: str, what: str) -> ValueError:
    """The error for a network of timm that cannot be an image encoder."""
    return ValueError(
        f"{TIMM}{name} gives no maps at strides 4, 8, 16 and 32 for images of any size: {what}. Choose a vision "
        "transformer with dynamic_img_size, or a pyramid such as a ConvNeXt, Swin, ResNet or EfficientNet"
    )


def licence_note(spec: Backbone) -> str:
    """What to know about a licence that restricts the use of the weights; "" for an open one, or none that is known."""
    if not spec.licence or spec.licence in OPEN_LICENCES:
        return ""
    return (
        f"note: the licence of {spec.image} is {spec.licence}, not one of the usual open ones: read it before you use "
        "or pass on what is trained from these weights; their download may ask you to accept it first"
    )
