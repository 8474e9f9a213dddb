"""The DPT fusion decoder: four feature maps become one embedding per pixel.

Shapes: B images, H x W pixels, F decoder features, C embedding dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from .upsampling import upsample_x2


class ResidualConvUnit(nn.Module):
    """x + BN(conv(relu(BN(conv(relu(x))))))."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(features)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(features)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(F.relu(x)))
        return x + self.bn2(self.conv2(F.relu(y)))


class FusionBlock(nn.Module):
    """Adds a level's map to the path that comes from below, and refines the sum; upsampling is left to the caller.

    In DPT the 1x1 ``out_conv`` follows the bilinear upsampling. Both are linear, one acts on channels and the other
    on positions with weights that sum to one, so they commute: here it runs first, on a quarter of the pixels.
    """

    def __init__(self, features: int, deepest: bool = False) -> None:
        super().__init__()
        self.skip_unit = ResidualConvUnit(features)
        self.merge_unit = ResidualConvUnit(features)
        self.out_conv = nn.Conv2d(features, features, kernel_size=1)
        if deepest:
            # The deepest level has no path from below, and DPT then leaves the skip unit out. Its weights are in
            # every official file; frozen, they are neither trained nor waited for by DDP.
            self.skip_unit.requires_grad_(False)

    def forward(self, level: Tensor, path: Tensor | None) -> Tensor:
        """level and path (B, F, h, w) -> (B, F, h, w); ``path`` is None for the deepest level."""
        x = level if path is None else path + self.skip_unit(level)
        return self.out_conv(self.merge_unit(x))


class Decoder(nn.Module):
    """Four maps in, pixel embedding out.

    Args:
        in_channels, strides: of the four maps, finest first, as the image encoder publishes them.
        features: F, the decoder's width.
        embedding_dim: C, the dimension of the text embeddings to be compared with.

    Raises:
        ValueError: strides other than 4, 8, 16, 32: each fusion doubles the size, and so do the head's two steps.
    """

    def __init__(self, in_channels: Sequence[int], strides: Sequence[int], features: int, embedding_dim: int) -> None:
        super().__init__()
        if tuple(strides) != (4, 8, 16, 32):
            raise ValueError(f"the decoder fuses maps at strides 4, 8, 16, 32; this image encoder has {tuple(strides)}")
        self.projections = nn.ModuleList(
            nn.Conv2d(channels, features, 3, padding=1, bias=False) for channels in in_channels
        )
        last = len(in_channels) - 1
        self.fusions = nn.ModuleList(FusionBlock(features, deepest=i == last) for i in range(len(in_channels)))
        self.embedding = nn.Conv2d(features, embedding_dim, kernel_size=1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Four maps, finest (stride 4) first -> coarse embedding (B, C, H/4, W/4).

        ``upsample_x2`` of it is the pixel embedding at H/2 (the same argument as in ``FusionBlock``); the head
        correlates at H/4 and never needs the large one.
        """
        return self.embedding(self.paths(maps)[0])

    def paths(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Four maps, finest first -> the fused map of each level, (B, F, h, w) at the level's own size."""
        paths: list[Tensor] = []
        for projection, fusion, level in reversed(list(zip(self.projections, self.fusions, maps, strict=True))):
            below = upsample_x2(paths[0]) if paths else None
            paths.insert(0, fusion(projection(level), below))
        return paths
