"""The head: every pixel embedding is correlated with every label, then optionally regularised in space.

Shapes: B images, N labels, C embedding dimensions; h x w = H/4 x W/4, the decoder's coarse grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .precision import full_precision
from .upsampling import upsample_x2, upsampling_matrix

LOGIT_SCALE = 1 / 0.07  # CLIP's temperature, a constant here: neither learned nor in the weights
TINY_NORM_SQ = 1e-12  # an embedding shorter than 1e-6 counts as zero and gets zero logits, not NaN


def squared_upsampling(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The two matrices that turn squares and neighbour products into squares of the x2 interpolation, on one axis.

    Output i is a*x[k] + b*x[k+1], hence out^2 = a^2 x[k]^2 + b^2 x[k+1]^2 + 2ab x[k]x[k+1].

    Returns:
        squares (size, 2*size) with a^2 and b^2, products (size, 2*size) with 2ab in row k.
    """
    weights = upsampling_matrix(size, device).T
    products = torch.zeros_like(weights)
    products[:-1] = 2 * weights[:-1] * weights[1:]
    return weights.square(), products


def upsampled_norm_sq(coarse: Tensor) -> Tensor:
    """Squared length of every vector of ``upsample_x2(coarse)``, without making it: exact, for C times less memory.

    The square of a bilinear mixture of four neighbours is a mixture of their six inner products, which four maps at
    the coarse size contain: own squares, products with the right and the lower neighbour, the sum of both diagonals.

    Args:
        coarse: (B, C, h, w) float32

    Returns:
        (B, 2h, 2w) float32
    """
    height, width = coarse.shape[-2:]
    square_y, product_y = squared_upsampling(height, coarse.device)
    square_x, product_x = squared_upsampling(width, coarse.device)

    def inner(p: Tensor, q: Tensor) -> Tensor:
        """Inner products over C, zero-padded back to h x w (where there is no neighbour, its weight is 0 too)."""
        product = (p * q).sum(dim=1)
        return F.pad(product, (0, width - product.shape[-1], 0, height - product.shape[-2]))

    own = inner(coarse, coarse)
    right = inner(coarse[..., :-1], coarse[..., 1:])
    below = inner(coarse[..., :-1, :], coarse[..., 1:, :])
    diagonals = inner(coarse[..., :-1, :-1], coarse[..., 1:, 1:]) + inner(coarse[..., :-1, 1:], coarse[..., 1:, :-1])

    within_row = own @ square_x + right @ product_x  # (B, h, 2w): squares, x interpolated
    across_rows = below @ square_x + diagonals @ (product_x / 2)  # (B, h, 2w): products of rows y and y + 1
    return square_y.T @ within_row + product_y.T @ across_rows


class RegularisationBlock(nn.Module):
    """Spatial regularisation of the label maps (paper, section 3.3): one 3x3 kernel, shared by labels and repeats.

    Args:
        bottleneck: True for arch_option 1 (adds the maximum over labels), False for arch_option 2 (depthwise).
        depth: how often the block is applied; 0 applies it once, as the official code does.
        activation: "relu", "lrelu" or "tanh", between the applications and not after the last.
    """

    ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "lrelu": F.leaky_relu, "tanh": torch.tanh}

    def __init__(self, bottleneck: bool, depth: int, activation: str) -> None:
        super().__init__()
        if activation not in self.ACTIVATIONS:
            raise ValueError(f"activation {activation!r} is unknown; choose one of {', '.join(self.ACTIVATIONS)}")
        self.conv = nn.Conv2d(1, 1, kernel_size=3, padding=1)
        self.bottleneck = bottleneck
        self.repeats = max(depth, 1)
        self.activation = self.ACTIVATIONS[activation]

    def forward(self, logits: Tensor, maxima: Sequence[Tensor] | None = None) -> Tensor:
        """(B, N, h, w) -> (B, N, h, w).

        If ``logits`` cover only some of the labels, ``maxima`` contains the (B, 1, h, w) maximum over all labels before
        each application of a bottleneck block; applications without one are skipped.
        """
        given = maxima if self.bottleneck else None
        for repeat in range(self.repeats if given is None else len(given)):
            mixed = self.conv(logits.flatten(0, 1).unsqueeze(1)).view(logits.shape)
            if self.bottleneck:
                mixed = mixed + (logits.amax(dim=1, keepdim=True) if given is None else given[repeat])
            logits = self.activation(mixed) if repeat < self.repeats - 1 else mixed
        return logits


def correlate(coarse: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """Scaled cosines at twice the coarse grid, exact: the product with the text is linear and commutes with the x2.

    coarse (B, C, h, w), text (N, C) or (B, N, C), all float32, and ``head.scale(coarse)`` -> (B, N, 2h, 2w), the labels
    of a pixel contiguous in memory.
    """
    pixels = coarse.permute(0, 2, 3, 1)  # (B, h, w, C)
    products = F.linear(pixels, text) if text.ndim == 2 else torch.einsum("bhwc,bnc->bhwn", pixels, text)
    logits = upsample_x2(products.permute(0, 3, 1, 2))
    return logits * scale if logits.requires_grad else logits.mul_(scale)


class CorrelationHead(nn.Module):
    """Scaled cosine similarity of pixels and labels, the regularisation block if there is one, and the last x2.

    With ``cosine`` False, the plain product instead, which for the unit vectors of a ``ClassEncoder`` is the output of
    a 1x1 convolution: the head of the paper's DPT baseline.

    Always in float32, under autocast too, and in the forward pass without TF32: half precision turned the official
    training into NaN.
    """

    def __init__(self, block: RegularisationBlock | None = None, cosine: bool = True) -> None:
        super().__init__()
        self.block, self.cosine = block, cosine

    def scale(self, coarse: Tensor) -> Tensor:
        """What turns products of pixels (B, C, h, w) float32 and labels into scaled cosines: (B, 1, 2h, 2w), or 1."""
        if not self.cosine:
            return coarse.new_ones(())
        return LOGIT_SCALE * upsampled_norm_sq(coarse).clamp_min(TINY_NORM_SQ).rsqrt().unsqueeze(1)

    def forward(self, coarse: Tensor, text: Tensor) -> Tensor:
        """(B, N, 4h, 4w) float32 logits, within +-1/0.07 where there is no block; arguments as ``half_logits``."""
        return upsample_x2(self.half_logits(coarse, text))

    def half_logits(self, coarse: Tensor, text: Tensor) -> Tensor:
        """The logits before their last x2.

        Args:
            coarse: (B, C, h, w) pixel embeddings before their upsampling.
            text: (N, C) for the whole batch or (B, N, C), one label set per image; unit vectors.

        Returns:
            (B, N, 2h, 2w) float32.
        """
        with full_precision(coarse.device):
            coarse = coarse.float()
            logits = correlate(coarse, text.float(), self.scale(coarse))
            return logits if self.block is None else self.block(logits)
