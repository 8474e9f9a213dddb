"""What only a GPU can show: the same numbers as on the CPU, and finite ones in half precision."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from modules.models import build_lseg
from modules.models.head import CorrelationHead
from modules.models.precision import cast_products, full_precision
from modules.models.streaming import upsampled_cross_entropy, upsampled_max
from modules.models.upsampling import upsample_x2
from modules.predictor import LSegPredictor
from modules.training.optimization import OptimizationConfig
from modules.training.optimizer import build_optimizer
from predicting import picture

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")]
LABELS = ["cat", "grass", "other"]


@pytest.mark.parametrize("backbone", ["tiny_vit", "tiny_resnet"])
def test_float32_agrees_with_the_cpu(backbone):
    torch.manual_seed(0)
    net, images = build_lseg(backbone, LABELS, features=32).eval(), torch.randn(2, 3, 96, 64)
    with torch.inference_mode():
        expected = net(images)
        found = net.cuda()(images.cuda()).cpu()
    torch.testing.assert_close(found, expected, atol=2e-2, rtol=0)  # TF32 in convolutions


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backbone", ["tiny_vit", "tiny_resnet"])
def test_training_in_half_precision_is_finite_and_learns(backbone, dtype):
    torch.manual_seed(0)
    net = build_lseg(backbone, LABELS, features=32).cuda().train()
    optimizer = build_optimizer(net, OptimizationConfig(base_lr=0.04, batch_size=2))
    scaler = torch.amp.GradScaler(enabled=dtype == torch.float16)
    images, target = torch.randn(2, 3, 64, 64).cuda(), torch.randint(0, 3, (2, 64, 64)).cuda()
    losses = []
    for _ in range(10):
        with torch.autocast("cuda", dtype):
            logits = net(images)
        assert logits.dtype == torch.float32
        loss = torch.nn.functional.cross_entropy(logits, target)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    assert all(map(torch.isfinite, map(torch.tensor, losses))) and losses[-1] < losses[0]


def test_streamed_loss_and_strongest_labels_are_those_of_all_at_once():
    logits = torch.randn(2, 7, 24, 16, device="cuda", requires_grad=True)
    target = torch.randint(0, 7, (2, 48, 32), device="cuda")
    expected = F.cross_entropy(upsample_x2(logits), target, reduction="sum")
    found = upsampled_cross_entropy(logits, target, -1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)
    (wanted,), (got,) = (torch.autograd.grad(loss, logits) for loss in (expected, found))
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-3)
    scores, labels = upsampled_max(logits)
    maps = upsample_x2(logits.detach())
    torch.testing.assert_close(scores, maps.amax(1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(maps.gather(1, labels[:, None])[:, 0], maps.amax(1), atol=1e-4, rtol=1e-4)


def test_full_precision_is_float32_in_products_and_convolutions():
    torch.manual_seed(0)
    left, right = torch.randn(256, 256), torch.randn(256, 256)
    image, kernel = torch.randn(1, 64, 32, 32), torch.randn(64, 64, 3, 3)
    torch.set_float32_matmul_precision("high")
    try:
        with full_precision(torch.device("cuda")), torch.inference_mode():
            product, convolved = left.cuda() @ right.cuda(), F.conv2d(image.cuda(), kernel.cuda())
            scale = CorrelationHead().scale(image.cuda())
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
    # TF32's ten bits would be a hundred times further away.
    torch.testing.assert_close(product.cpu(), left @ right, atol=1e-3, rtol=0)
    torch.testing.assert_close(convolved.cpu(), F.conv2d(image, kernel), atol=1e-3, rtol=0)
    torch.testing.assert_close(scale.cpu(), CorrelationHead().scale(image), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("backbone", ["tiny_vit", "tiny_resnet"])
def test_weights_cast_once_give_what_autocast_gives(backbone):
    net, images = build_lseg(backbone, LABELS, features=32).cuda().eval(), torch.randn(2, 3, 96, 64).cuda()
    twin = copy.deepcopy(net)
    cast_products(twin, torch.float16)
    with torch.inference_mode(), torch.autocast("cuda", torch.float16):
        torch.testing.assert_close(twin(images), net(images), atol=5e-2, rtol=0)


@pytest.mark.parametrize("backbone", ["tiny_vit", "tiny_resnet"])
def test_checkpointing_under_autocast_gives_the_same_gradients(backbone):
    net, images = build_lseg(backbone, LABELS, features=32).cuda().train(), torch.randn(4, 3, 64, 64).cuda()
    twin = copy.deepcopy(net)
    twin.image_encoder.checkpointing = True
    for one in (net, twin):
        torch.manual_seed(0)
        with torch.autocast("cuda", torch.float16):
            loss = one.half_logits(images).square().mean()
        loss.backward()
    for (name, expected), found in zip(net.named_parameters(), twin.parameters(), strict=True):
        if expected.grad is not None:
            error = (found.grad - expected.grad).norm()
            assert error <= 2e-2 * expected.grad.norm() + 1e-5, name


@pytest.mark.parametrize("precision", ["32", "16", "auto"])
def test_the_predictor_segments_as_on_the_cpu(precision):
    torch.manual_seed(0)
    net = build_lseg("tiny_vit", LABELS, features=32)
    image = picture(64, 96)
    expected = LSegPredictor(copy.deepcopy(net), "cpu").embed(image)
    model = LSegPredictor(net, "cuda", precision)
    found = model.embed(image)
    assert found.is_cuda and found.dtype == torch.float32
    assert (found.cpu() * expected).sum(dim=-1).min() > 0.99  # cosines of unit vectors
    assert model.segment(image).mask.shape == (64, 96)
