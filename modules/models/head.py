"""The head: every pixel embedding is correlated with every label, then optionally regularised in space.

Shapes: B images, N labels, C embedding dimensions; h x w = H/4 x W/4, the decoder's coarse grid.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.amp.autocast_mode import is_autocast_available

from modules.models.decoder import upsample_x2

LOGIT_SCALE = 1 / 0.07  # CLIP's temperature, a constant here: neither learned nor in the weights
TINY_NORM_SQ = 1e-12  # an embedding shorter than 1e-6 counts as zero and gets zero logits, not NaN


def full_precision(device: torch.device) -> AbstractContextManager:
    """No autocast inside, on devices that have such a thing."""
    return torch.autocast(device.type, enabled=False) if is_autocast_available(device.type) else nullcontext()


def interpolation_matrices(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The two matrices that turn squares and neighbour products into squares of the x2 interpolation, on one axis.

    Output i of bilinear x2 (corners aligned) is a*x[k] + b*x[k+1], with a + b = 1, hence
    out^2 = a^2 x[k]^2 + b^2 x[k+1]^2 + 2ab x[k]x[k+1].

    Returns:
        squares (size, 2*size) that holds a^2 and b^2, products (size, 2*size) that holds 2ab in row k.
    """
    target, device = device, torch.device("cpu") if device.type == "mps" else device  # Apple GPUs have no float64
    position = torch.arange(2 * size, device=device, dtype=torch.float64) * ((size - 1) / (2 * size - 1))
    low = position.floor().clamp(max=max(size - 2, 0)).long()
    high = (low + 1).clamp(max=size - 1)
    b = position - low
    a = 1 - b
    columns = torch.arange(2 * size, device=device)
    squares = torch.zeros(size, 2 * size, device=device, dtype=torch.float64)
    products = torch.zeros_like(squares)
    squares.index_put_((low, columns), a * a, accumulate=True)
    squares.index_put_((high, columns), b * b, accumulate=True)
    products[low, columns] = 2 * a * b
    return squares.float().to(target), products.float().to(target)


def upsampled_norm_sq(coarse: Tensor) -> Tensor:
    """Squared length of every vector of ``upsample_x2(coarse)``, without making it: exact, for C times less memory.

    The square of a bilinear mixture of four neighbours is a mixture of their six inner products, which five maps at
    the coarse size hold: own squares, products with the right, the lower and the two diagonal neighbours.

    Args:
        coarse: (B, C, h, w) float32

    Returns:
        (B, 2h, 2w) float32
    """
    height, width = coarse.shape[-2:]
    square_y, product_y = interpolation_matrices(height, coarse.device)
    square_x, product_x = interpolation_matrices(width, coarse.device)

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

    ACTIVATIONS = {"relu": F.relu, "lrelu": F.leaky_relu, "tanh": torch.tanh}

    def __init__(self, bottleneck: bool, depth: int, activation: str) -> None:
        super().__init__()
        if activation not in self.ACTIVATIONS:
            raise ValueError(f"activation {activation!r} is unknown; choose one of {', '.join(self.ACTIVATIONS)}")
        self.conv = nn.Conv2d(1, 1, kernel_size=3, padding=1)
        self.bottleneck = bottleneck
        self.repeats = max(depth, 1)
        self.activation = self.ACTIVATIONS[activation]

    def forward(self, logits: Tensor) -> Tensor:
        """(B, N, h, w) -> (B, N, h, w)."""
        for repeat in range(self.repeats):
            strongest = logits.amax(dim=1, keepdim=True) if self.bottleneck else 0
            logits = self.conv(logits.flatten(0, 1).unsqueeze(1)).view_as(logits) + strongest
            if repeat < self.repeats - 1:
                logits = self.activation(logits)
        return logits


class CorrelationHead(nn.Module):
    """Scaled cosine similarity of pixels and labels, the regularisation block if there is one, and the last x2.

    Always in float32, under autocast too: half precision turned the official training into NaN.
    """

    def __init__(self, block: RegularisationBlock | None = None) -> None:
        super().__init__()
        self.block = block

    def forward(self, coarse: Tensor, text: Tensor) -> Tensor:
        """Correlate at the coarse grid, which is exact: the product with the text is linear and commutes with the x2.

        Args:
            coarse: (B, C, h, w) pixel embeddings before their upsampling.
            text: (N, C) for the whole batch or (B, N, C), one label set an image; unit vectors.

        Returns:
            (B, N, 4h, 4w) float32 logits, within +-1/0.07 where there is no block.
        """
        with full_precision(coarse.device):
            coarse, text = coarse.float(), text.float()
            products = text @ coarse.flatten(2)  # (B, N, h*w)
            products = products.unflatten(2, coarse.shape[2:])
            inverse_norm = upsampled_norm_sq(coarse).clamp_min(TINY_NORM_SQ).rsqrt()
            logits = upsample_x2(products) * (LOGIT_SCALE * inverse_norm).unsqueeze(1)  # (B, N, 2h, 2w)
            if self.block is not None:
                logits = self.block(logits)
            return upsample_x2(logits)
