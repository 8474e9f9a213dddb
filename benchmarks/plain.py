"""The official procedure, written down plainly from this project's parts: what the benchmarks compare with.

The same function and the same weights, computed as the official code does: all labels go through the text tower at
every forward, in CLIP's full context of 77 tokens; attention is spelt out; a fusion block's 1x1 convolution follows the
upsampling; the embedding is made at H/2, normalised there and multiplied with the text there; the loss sees logits at
full size; crops and mirror images go through the network one by one. Float32.

Shapes: B images, H x W pixels, N labels, C embedding dimensions, D token width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from encoding_ext.views import TEST_SCALES, protocol_canvases
from modules.models import LSegNet
from modules.models.head import LOGIT_SCALE
from modules.models.image_encoders import Reassemble, ViTEncoder, resize_position_embedding
from modules.models.upsampling import upsample_x2


def prepare(net: LSegNet) -> LSegNet:
    """Undo, in place, what the project sets up for speed: memory layout, fused attention, text without a graph."""
    net.to(memory_format=torch.contiguous_format)
    if isinstance(net.image_encoder, ViTEncoder):
        for block in net.image_encoder.vit.blocks:
            block.attn.fused_attn = False
    net.text_encoder.requires_grad_(True)  # never in the optimiser, yet the official backward pass goes through it
    return net


def encode_text(net: LSegNet, labels: Sequence[str]) -> Tensor:
    """N strings -> (N, C) vectors, not normalised; nothing is kept."""
    tower = net.text_encoder
    tokens = tower.tokenize(labels)  # (N, 77)
    x = tower.token_embedding(tokens) + tower.positional_embedding
    x = tower.transformer(x.transpose(0, 1)).transpose(0, 1)  # CLIP's transformer takes (77, N, E)
    x = tower.ln_final(x)[torch.arange(len(x), device=x.device), tokens.argmax(dim=-1)]
    return x @ tower.text_projection


def maps(net: LSegNet, images: Tensor) -> list[Tensor]:
    """(B, 3, H, W) -> the image encoder's four maps, finest first."""
    encoder = net.image_encoder
    if not isinstance(encoder, ViTEncoder):
        return encoder(images)
    vit, patches = encoder.vit, encoder.vit.patch_embed.proj(images)
    grid = (patches.shape[2], patches.shape[3])
    tokens = torch.cat([vit.cls_token.expand(len(images), -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
    tokens = vit.pos_drop(tokens + resize_position_embedding(vit.pos_embed, grid))
    levels = []
    for index, block in enumerate(vit.blocks):
        tokens = block(tokens)
        if index in encoder.hooks:
            levels.append(tokens)
    return [reassemble(part, level, grid) for part, level in zip(encoder.reassemble, levels, strict=True)]


def reassemble(part: Reassemble, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, 1 + h*w, D) -> a map; the class token is concatenated to every patch."""
    class_token = tokens[:, :1].expand(-1, tokens.shape[1] - 1, -1)
    read = F.gelu(part.readout(torch.cat([tokens[:, 1:], class_token], dim=-1)))
    return part.resample(part.project(read.transpose(1, 2).unflatten(2, grid)))


def embed(net: LSegNet, images: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, C, H/2, W/2)."""
    decoder, path = net.decoder, None
    steps = zip(decoder.projections, decoder.fusions, maps(net, images), strict=True)
    for projection, fusion, level in reversed(list(steps)):
        level = projection(level)
        x = level if path is None else path + fusion.skip_unit(level)
        path = fusion.out_conv(upsample_x2(fusion.merge_unit(x)))
    return decoder.embedding(path)


def logits(net: LSegNet, images: Tensor, labels: Sequence[str] | Tensor) -> Tensor:
    """(B, 3, H, W) and N strings (or what ``encode_text`` made of them) -> (B, N, H, W)."""
    text = labels if isinstance(labels, Tensor) else encode_text(net, labels)
    embedding = embed(net, images)
    batch, channels, height, width = embedding.shape
    pixels = embedding.permute(0, 2, 3, 1).reshape(-1, channels)
    pixels = pixels / pixels.norm(dim=-1, keepdim=True)
    text = text / text.norm(dim=-1, keepdim=True)
    scores = LOGIT_SCALE * pixels @ text.t()
    scores = scores.view(batch, height, width, -1).permute(0, 3, 1, 2)
    return upsample_x2(scores if net.head.block is None else net.head.block(scores))


def loss(net: LSegNet, images: Tensor, labels: Sequence[str], target: Tensor) -> Tensor:
    """Mean cross-entropy over the pixels of ``target`` (B, H, W) that are not -1."""
    return F.cross_entropy(logits(net, images, labels), target, ignore_index=-1)


def optimizer(net: LSegNet, encoder_lr: float, scratch_lr: float) -> torch.optim.Optimizer:
    """The official SGD, one parameter after the other."""
    groups = [
        {"params": list(net.image_encoder.parameters()), "lr": encoder_lr},
        {"params": [*net.decoder.parameters(), *net.head.parameters()], "lr": scratch_lr},
    ]
    return torch.optim.SGD(groups, momentum=0.9, weight_decay=1e-4, foreach=False)


@torch.no_grad()
def multi_scale_scores(
    predict: Callable[[Tensor], Tensor],
    image: Tensor,
    black: Sequence[float],
    base_size: int = 520,
    crop_size: int = 480,
    scales: Sequence[float] = TEST_SCALES,
) -> Tensor:
    """The test protocol with mirror images: (1, 3, H, W) -> (1, N, H, W), every crop a forward pass of its own.

    predict: (1, 3, S, S) -> (1, N, S, S); black: the normalised value of a black pixel.
    """
    total: Tensor | float = 0.0
    for canvas in protocol_canvases(*image.shape[-2:], base_size, crop_size, scales, flip=False):
        pixels = canvas.protocol_pixels(image[0], image.new_tensor(black).view(3, 1, 1))[None]
        scores = None
        for view in canvas.views:
            crop = view.place(pixels)
            both = predict(crop) + predict(crop.flip(-1)).flip(-1)
            if scores is None:
                scores = both.new_zeros(1, both.shape[1], *canvas.full_size)
            view.place(scores).add_(both)
        mean = scores[..., : canvas.height, : canvas.width] / canvas.cover(image.device)
        total = total + F.interpolate(mean, image.shape[-2:], mode="bilinear", align_corners=True)
    return total
