"""What makes a network faster or smaller leaves its function, its gradients and the names of its weights alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from modules.models import LSegNet
from modules.models.precision import cast_products, channels_last, compile_parts, full_precision
from tiny import TINY, pictures, tiny_net

pytestmark = pytest.mark.usefixtures("one_thread")


def step(net: LSegNet, images: Tensor) -> dict[str, Tensor]:
    """Gradients by name after a backward pass."""
    torch.manual_seed(3)  # dropout
    net.zero_grad()
    net.half_logits(images).square().mean().backward()
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name] - value).float().norm() <= 1e-4 * value.float().norm() + 1e-6, name


@pytest.mark.parametrize(("backbone", "options"), [("tiny_resnet", {}), ("tiny_vit", {"dropout": 0.3})])
def test_checkpointing_gives_the_same_gradients_and_batch_norm_statistics(backbone, options):
    net, images = tiny_net(backbone, **options).train(), pictures(3, 64, 32)
    twin = copy.deepcopy(net)
    twin.image_encoder.checkpointing = True
    assert_same(step(twin, images), step(net, images))
    assert_same(twin.state_dict(), net.state_dict())
    assert all(m.momentum == 0.1 for m in twin.modules() if isinstance(m, nn.BatchNorm2d))


@pytest.mark.parametrize("backbone", TINY)
def test_checkpointing_keeps_less(backbone):
    def kept(net: LSegNet) -> int:
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.nbytes) or x, lambda x: x):
            net.half_logits(pictures(2, 64, 64))
        return sum(sizes)

    net = tiny_net(backbone).train()
    plain = kept(net)
    net.image_encoder.checkpointing = True
    assert kept(net) < 0.8 * plain


@pytest.mark.parametrize("backbone", TINY)
def test_channels_last_is_the_same_function_with_the_same_names(backbone):
    net, images = tiny_net(backbone, features=48), pictures(2, 64, 96)
    twin = channels_last(copy.deepcopy(net), features=256)
    layouts = [m.weight.is_contiguous(memory_format=torch.channels_last) for m in twin.decoder.projections]
    assert all(layouts) and channels_last(net, features=16).decoder.projections[0].weight.is_contiguous()
    with torch.no_grad():
        torch.testing.assert_close(twin(images), net(images), atol=1e-4, rtol=1e-5)
    assert_same(step(twin.train(), images), step(net.train(), images))
    assert list(twin.state_dict()) == list(net.state_dict())


@pytest.mark.parametrize("backbone", TINY)
def test_weights_cast_once_give_what_autocast_gives(backbone):
    net, images = tiny_net(backbone, features=48), pictures(2, 64, 96)
    twin = copy.deepcopy(net)
    cast_products(twin, torch.bfloat16)
    assert twin.decoder.embedding.weight.dtype == torch.bfloat16
    assert twin.text_encoder.text_projection.dtype == torch.float32
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(twin(images), net(images))
    cast_products(net, None)
    assert all(p.dtype == torch.float32 for p in net.parameters())


@pytest.mark.parametrize("backbone", TINY)
def test_bfloat16_predicts_what_float32_predicts_but_for_close_calls(backbone):
    net, images = tiny_net(backbone, features=48), pictures(2, 64, 96)
    with torch.inference_mode():
        exact = net(images)
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(images)
    assert logits.dtype == torch.float32
    assert (logits - exact).abs().max() < 0.5  # of +-14.3
    margin = exact.topk(2, dim=1).values
    clear = margin[:, 0] - margin[:, 1] > 0.5
    assert clear.any() and torch.equal(logits.argmax(1)[clear], exact.argmax(1)[clear])


@pytest.mark.slow
def test_compiled_parts_are_the_same_function_with_the_same_names():
    net, images = tiny_net("tiny_resnet"), pictures(2, 64, 32)
    twin = copy.deepcopy(net)
    compile_parts(twin, backend="aot_eager")
    assert list(twin.state_dict()) == list(net.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(twin(images), net(images), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("backbone", TINY)
@pytest.mark.slow
def test_compiling_and_checkpointing_go_together(backbone):
    net, images = tiny_net(backbone).train(), pictures(2, 64, 32)
    twin = copy.deepcopy(net)
    twin.image_encoder.checkpointing = True
    compile_parts(twin, backend="eager")
    assert_same(step(twin, images), step(net, images))
    assert_same(twin.state_dict(), net.state_dict())


def tf32() -> tuple[str, str]:
    """PyTorch's switches of matrix products and convolutions."""
    return torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision


def set_tf32(products: str, convolutions: str) -> None:
    torch.backends.cuda.matmul.fp32_precision = products
    torch.backends.cudnn.conv.fp32_precision = convolutions


@pytest.fixture
def tf32_put_back() -> Iterator[None]:
    before = tf32()
    yield
    set_tf32(*before)


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="this PyTorch has only the older switches")
@pytest.mark.parametrize("before", [("tf32", "tf32"), ("ieee", "tf32"), ("tf32", "ieee"), ("none", "none")], ids=str)
def test_full_precision_allows_no_tf32_whatever_was_set_before(before, tf32_put_back):
    set_tf32(*before)
    image, kernel = torch.ones(1, 1, 4, 4, requires_grad=True), torch.ones(1, 1, 3, 3)
    with full_precision(torch.device("cuda")):
        assert tf32() == ("ieee", "ieee")
        nn.functional.conv2d(image, kernel).sum().backward()  # reads the switches, on whatever device
    with full_precision(torch.device("cpu")):
        assert tf32() == before
    assert tf32() == before


def test_full_precision_puts_everything_back():
    with torch.autocast("cpu", torch.bfloat16):
        with full_precision(torch.device("cpu")):
            assert not torch.is_autocast_enabled("cpu")
        with pytest.raises(ValueError), full_precision(torch.device("cpu")):
            raise ValueError
        assert torch.is_autocast_enabled("cpu")
    with full_precision(torch.device("meta")):
        pass
