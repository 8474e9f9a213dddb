"""Image encoders: an image becomes four feature maps, at 1/4, 1/8, 1/16 and 1/32 of its size.

``ImageEncoder`` is what all of them have in common; timm_encoders.py has the one for any other network of timm.

Shapes: B images, H x W pixels (multiples of 32), D token width, P patch size, h x w = H/P x W/P tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

STRIDES = (4, 8, 16, 32)


def resize_position_embedding(position: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resize a ViT's position embedding to another token grid, the class token's part kept as it is.

    Plain bilinear as in DPT; timm's own resampling (bicubic, antialiased) would be another function.

    Args:
        position: (1, 1 + n*n, D), class token first, then a square grid row by row.
        grid: (h, w) of the input at hand.

    Returns:
        (1, 1 + h*w, D)
    """
    class_part, grid_part = position[:, :1], position[:, 1:]
    side = round(grid_part.shape[1] ** 0.5)
    # The same size needs no resizing, but a traced graph (torch.export) must not branch on the size.
    if not torch.compiler.is_compiling() and (side, side) == tuple(grid):
        return position
    grid_part = grid_part.reshape(1, side, side, -1).permute(0, 3, 1, 2)  # (1, D, side, side)
    grid_part = F.interpolate(grid_part, size=grid, mode="bilinear", align_corners=False)
    grid_part = grid_part.permute(0, 2, 3, 1).flatten(1, 2)  # (1, h*w, D)
    return torch.cat([class_part, grid_part], dim=1)


@torch.compiler.disable  # it cannot compile a checkpoint with contexts of its own: what is recomputed runs as it is
def recomputed(part: nn.Module, x: Tensor) -> Tensor:
    """``part(x)``, of which only ``x`` is kept; the backward pass computes the rest again (gradient checkpointing)."""

    def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
        return nullcontext(), batch_norm_statistics_kept(part)

    return checkpoint(part, x, use_reentrant=False, context_fn=contexts)


@contextmanager
def batch_norm_statistics_kept(part: nn.Module) -> Iterator[None]:
    """Batch norm normalises as in training and leaves its moving averages alone: the second pass has the same batch."""
    norms: list[Any] = [module for module in part.modules() if isinstance(module, _BatchNorm)]
    norms = [norm for norm in norms if norm.track_running_stats]
    before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(count)


class ImageEncoder(nn.Module):
    """The interface of an image encoder for the rest of LSeg.

    It takes normalised images (B, 3, H, W) whose sides are multiples of 32, and returns four maps, finest first, of
    shape (B, out_channels[i], H / strides[i], W / strides[i]). Mean and std of its images are in its ``Backbone``.

    Attributes:
        out_channels: channels of the four maps; set by the subclass.
        pretrained: name of the attribute with the network that comes with pretrained weights; set by the subclass.
        frozen: whether that network is left as it is.
        checkpointing: compute activations again in the backward pass instead of keeping them.
    """

    strides = STRIDES
    out_channels: tuple[int, ...]
    pretrained: str

    def __init__(self) -> None:
        super().__init__()
        self.checkpointing = self.frozen = False

    def recompute(self, activations: bool) -> None:
        """Set ``checkpointing``: less memory for more time."""
        self.checkpointing = activations

    @property
    def network(self) -> Any:
        """The network that comes with pretrained weights: all but the reassemble blocks."""
        return getattr(self, self.pretrained)

    def freeze(self) -> None:
        """Leave the pretrained network as it is: no gradients, and eval mode, so that batch norm keeps still."""
        self.frozen = True
        self.network.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> ImageEncoder:
        """As for any module, except that a frozen network stays in eval mode."""
        super().train(mode)
        if self.frozen:
            self.network.eval()
        return self


class Reassemble(nn.Module):
    """Tokens of one ViT block become a feature map of a given stride (DPT, "Reassemble").

    With a class token the readout is DPT's "project", else "ignore". If the stride is not a power of two times the
    patch, the map has the nearest stride that is: 3.5 instead of 4 for patches of 14.
    """

    def __init__(self, width: int, channels: int, patch_size: int, stride: int, class_token: bool = True) -> None:
        super().__init__()
        self.readout = nn.Linear(2 * width, width) if class_token else None
        self.project = nn.Conv2d(width, channels, kernel_size=1)
        self.resample: nn.Module = nn.Identity()
        power = round(math.log2(patch_size / stride))
        if power > 0:
            self.resample = nn.ConvTranspose2d(channels, channels, kernel_size=2**power, stride=2**power)
        elif power < 0:
            self.resample = nn.Conv2d(channels, channels, kernel_size=3, stride=2**-power, padding=1)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """tokens (B, 1 + h*w, D), class token first if there is one -> map (B, channels, h*P/stride, w*P/stride)."""
        if self.readout is None:
            return self.resample(self.project(tokens.transpose(1, 2).unflatten(2, grid)))
        class_token, patches = tokens[:, :1], tokens[:, 1:]
        # Linear(concat(patch, class)) = patch @ W1 + class @ W2: the class half is the same for every patch.
        patch_weight, class_weight = self.readout.weight.chunk(2, dim=1)
        read = F.linear(patches, patch_weight) + F.linear(class_token, class_weight, self.readout.bias)
        read = F.gelu(read).transpose(1, 2).unflatten(2, grid)  # (B, D, h, w)
        return self.resample(self.project(read))


def check_vit(vit: Any, hooks: Sequence[int]) -> None:
    """``ValueError`` unless ``ViTEncoder`` computes what ``vit`` computes, and can read its blocks at ``hooks``."""
    from timm.models.vision_transformer import VisionTransformer  # whoever has a ViT has imported timm already

    name = type(vit).__name__
    plain = isinstance(vit, VisionTransformer) and vit.num_prefix_tokens == 1 and vit.pos_embed is not None
    if not plain or vit.no_embed_class or not isinstance(vit.norm_pre, nn.Identity):
        raise ValueError(
            f"this {name} is not a plain ViT of timm: one class token, position embeddings for it and for all patches, "
            "no normalisation before the first block"
        )
    height, width = vit.patch_embed.proj.kernel_size
    if height != width or STRIDES[-1] % height:
        raise ValueError(f"this {name} has patches of {height}x{width} pixels; they must be square and divide 32")
    if len(hooks) != 4 or list(hooks) != sorted(set(hooks)) or not 0 <= hooks[0] <= hooks[-1] < len(vit.blocks):
        raise ValueError(
            f"hooks {tuple(hooks)} must be four ascending indices of this {name}'s {len(vit.blocks)} blocks"
        )


class ViTEncoder(ImageEncoder):
    """A timm vision transformer whose blocks at ``hooks`` are reassembled into four maps (paper, section 3.1).

    Args:
        vit: timm's network; its final norm and classifier are not part of the function. They stay, frozen,
            because official checkpoints contain them, so that a file can be read and written unchanged.
        hooks: indices of the four blocks whose outputs are read, before the final norm.
        out_channels: channels of the four maps.

    Raises:
        ValueError: another kind of ViT, a patch size or hooks that do not fit.
    """

    pretrained = "vit"

    def __init__(self, vit: VisionTransformer, hooks: Sequence[int], out_channels: Sequence[int]) -> None:
        super().__init__()
        check_vit(vit, hooks)
        self.vit: Any = vit  # torch declares its parts as Tensor or Module
        self.hooks, self.out_channels = tuple(hooks), tuple(out_channels)
        self.patch_size: int = vit.patch_embed.proj.kernel_size[0]
        self.reassemble = nn.ModuleList(
            Reassemble(vit.embed_dim, channels, self.patch_size, stride)
            for channels, stride in zip(self.out_channels, self.strides, strict=True)
        )
        self.vit.norm.requires_grad_(False)
        self.vit.head.requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> four maps (B, out_channels[i], H/strides[i], W/strides[i])."""
        levels, grid = self.levels(images)
        return [reassemble(level, grid) for reassemble, level in zip(self.reassemble, levels, strict=True)]

    def levels(self, images: Tensor) -> tuple[list[Tensor], tuple[int, int]]:
        """(B, 3, H, W) -> the tokens (B, 1 + h*w, D) behind each of the four blocks, and (h, w)."""
        patches = self.vit.patch_embed.proj(images)  # (B, D, h, w)
        grid = (patches.shape[2], patches.shape[3])
        class_tokens = self.vit.cls_token.expand(images.shape[0], -1, -1)
        tokens = torch.cat([class_tokens, patches.flatten(2).transpose(1, 2)], dim=1)  # (B, 1 + h*w, D)
        tokens = self.vit.pos_drop(tokens + resize_position_embedding(self.vit.pos_embed, grid))
        levels, again = [], self.checkpointing and torch.is_grad_enabled()
        for index, block in enumerate(self.vit.blocks[: self.hooks[-1] + 1]):
            tokens = recomputed(block, tokens) if again else block(tokens)
            if index in self.hooks:
                levels.append(tokens)
        return levels, grid


class ResNetEncoder(ImageEncoder):
    """A ResNet cut into its four stages, the stem belonging to the first; they feed the decoder directly."""

    pretrained = "stages"

    def __init__(self, stages: Sequence[nn.Module], out_channels: Sequence[int]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.out_channels = tuple(out_channels)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> four maps (B, out_channels[i], H/strides[i], W/strides[i])."""
        levels, again = [], self.checkpointing and torch.is_grad_enabled()
        features = images
        for stage in self.stages:
            features = recomputed(stage, features) if again else stage(features)
            levels.append(features)
        return levels
