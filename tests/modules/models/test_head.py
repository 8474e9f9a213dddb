"""The head is fast by doing less; here it is compared with the plain rendering of the paper's formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from modules.models import LSegNet
from modules.models.head import upsampled_norm_sq
from modules.models.upsampling import upsample_x2
from tiny import TINY, TOWER, pictures, tiny_net

pytestmark = pytest.mark.usefixtures("one_thread")

ACTIVATIONS = {"relu": torch.relu, "lrelu": lambda x: torch.where(x > 0, x, 0.01 * x), "tanh": torch.tanh}
BLOCKS = [
    {},
    *({"arch_option": option, "block_depth": depth, "activation": "lrelu"} for option in (1, 2) for depth in (0, 1, 3)),
    {"arch_option": 1, "block_depth": 3, "activation": "relu"},
    {"arch_option": 2, "block_depth": 4, "activation": "tanh"},
]


def plain_logits(net: LSegNet, images: Tensor, text: Tensor) -> Tensor:
    """images (B, 3, H, W), text (N, C) -> (B, N, H, W): every step at full length, as the paper writes it."""
    embedding = net.embed(images)
    length = embedding.square().sum(dim=1, keepdim=True).sqrt().clamp_min(1e-6)
    logits = torch.einsum("bchw,nc->bnhw", embedding / length, text) / 0.07
    if (option := net.architecture["arch_option"]) != 0:
        weight, bias = net.head.block.conv.weight, net.head.block.conv.bias
        applications = max(net.architecture["block_depth"], 1)
        for application in range(applications):
            maps = [F.conv2d(label_map, weight, bias, padding=1) for label_map in logits.split(1, dim=1)]
            strongest = logits.max(dim=1, keepdim=True).values if option == 1 else 0
            logits = torch.cat(maps, dim=1) + strongest
            if application < applications - 1:
                logits = ACTIVATIONS[net.architecture["activation"]](logits)
    return F.interpolate(logits, scale_factor=2, mode="bilinear", align_corners=True)


def gradients(net: LSegNet, logits: Tensor) -> dict[str, Tensor]:
    """Gradients of a random weighting of the logits, by parameter name."""
    net.zero_grad()
    (logits * torch.randn(logits.shape, generator=torch.Generator().manual_seed(4))).mean().backward()
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: "-".join(map(str, block.values())) or "none")
@pytest.mark.parametrize(("labels", "size"), [(1, (32, 96)), (5, (96, 32)), (1000, (32, 32))])
def test_logits_and_gradients_equal_the_plain_rendering(block, labels, size):
    net, images = tiny_net("tiny_resnet", **block), pictures(1 if labels == 1000 else 3, *size)
    text = F.normalize(torch.randn(labels, TOWER.embed_dim), dim=1)
    logits, plain = net(images, text), plain_logits(net, images, text)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, plain, atol=1e-4, rtol=1e-5)
    ours, expected = gradients(net, logits), gradients(net, plain)
    for name, gradient in expected.items():
        assert (ours[name] - gradient).norm() <= 1e-4 * gradient.norm() + 1e-9, name


@pytest.mark.parametrize("size", [(96, 160), (32, 32), (64, 32)])
def test_the_vit_too(size):
    net, images = tiny_net("tiny_vit", features=48), pictures(1, *size)
    text = net.encode_labels(["dog", "cat"])
    with torch.no_grad():
        torch.testing.assert_close(net(images, text), plain_logits(net, images, text), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("backbone", TINY)
def test_an_embedding_that_is_zero_everywhere_stays_finite(backbone):
    net = tiny_net(backbone).train()
    with torch.no_grad():
        net.decoder.embedding.weight.zero_()
        net.decoder.embedding.bias.zero_()
    logits = net(pictures(2, 64, 64))
    assert (logits == 0).all()
    F.cross_entropy(logits, torch.randint(0, 3, (2, 64, 64))).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


def test_an_embedding_that_is_zero_in_places_stays_finite_there_and_right_elsewhere():
    net = tiny_net()
    coarse = torch.randn(1, TOWER.embed_dim, 6, 6)
    coarse[..., :3] = 0
    coarse.requires_grad_()
    logits = net.head(coarse, net.encode_labels(["dog", "cat"]))
    logits.square().sum().backward()
    assert logits.isfinite().all() and coarse.grad.isfinite().all()
    assert (logits[..., :6] == 0).all() and (logits[..., -6:] != 0).all()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_length_of_an_embedding_does_not_count(scale):
    net, coarse = tiny_net(), torch.randn(1, TOWER.embed_dim, 5, 7)
    text = net.encode_labels(["dog", "cat"])
    logits = net.head(coarse * scale, text)
    torch.testing.assert_close(logits, net.head(coarse, text), atol=1e-3, rtol=1e-4)
    assert logits.abs().max() <= 1 / 0.07 * (1 + 1e-4)


def test_half_precision_embeddings_are_compared_in_float32():
    net, coarse = tiny_net(), torch.randn(1, TOWER.embed_dim, 4, 4).bfloat16()
    text = net.encode_labels(["dog", "cat"])
    with torch.autocast("cpu", torch.bfloat16):
        logits = net.head(coarse, text)
    torch.testing.assert_close(logits, net.head(coarse.float(), text))


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1), (2, 3), (7, 4)])
def test_squared_length_after_upsampling(size):
    coarse = torch.randn(2, 9, *size, requires_grad=True)
    expected = upsample_x2(coarse).square().sum(dim=1)
    found = upsampled_norm_sq(coarse)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    weights = torch.randn(expected.shape)
    ours, plain = (torch.autograd.grad((result * weights).sum(), coarse)[0] for result in (found, expected))
    torch.testing.assert_close(ours, plain, atol=1e-4, rtol=1e-4)
