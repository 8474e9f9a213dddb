"""What only a GPU can show: the same numbers as on the CPU, and finite ones in half precision."""

from __future__ import annotations

import pytest
import torch

from modules.models import build_lseg
from modules.optimization import OptimizationConfig, build_optimizer

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
