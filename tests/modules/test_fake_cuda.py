"""CUDA paths without a GPU: tensors that have a CUDA device, a shape and a dtype, but no numbers.

Every mix of devices or dtypes that a GPU would refuse raises here too. PyTorch's backward pass asks the driver for a
context, so gradients are checked on the meta device instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import FakeTensor

from encoding_ext.evaluator import MultiScaleEvaluator
from modules import predictor as predictor_module
from modules.models import BACKBONES, LSegNet, build_lseg
from modules.models import head as head_module
from modules.models.precision import cast_products
from modules.models.streaming import upsampled_cross_entropy, upsampled_max
from modules.models.upsampling import upsampling_matrix
from modules.predictor import LSegPredictor
from modules.training.optimization import OptimizationConfig
from modules.training.optimizer import build_optimizer

# There, fake tensors do not mix with real ones, and halving a fake CUDA weight ends the process.
OLD = tuple(map(int, torch.__version__.split(".")[:2])) < (2, 8)
pytestmark = pytest.mark.skipif(OLD, reason="PyTorch 2.6 and 2.7 abort")

LABELS = ["cat", "grass", "other"]
PRECISIONS = [None, torch.bfloat16, torch.float16]
EACH = [None, torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.slow)]
SMALL = {name for name in BACKBONES if name.startswith("tiny")}


def numpy_of(tensor: FakeTensor) -> np.ndarray:
    """An array of the right shape, where PyTorch would give one."""
    if tensor.device.type != "cpu":
        raise TypeError(f"can't convert {tensor.device} device type tensor to numpy")
    return np.zeros(tuple(tensor.shape), torch.empty(0, dtype=tensor.dtype, device="meta").dtype.__str__()[6:])


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTensorMode]:
    """One fake GPU. Numbers read from a tensor are made up: shapes and devices do not depend on them here."""
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(predictor_module, "resolve_device", lambda _: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (8 << 30, 8 << 30))
    monkeypatch.setattr(FakeTensor, "__int__", lambda self: 3, raising=False)
    monkeypatch.setattr(FakeTensor, "__bool__", lambda self: False, raising=False)
    monkeypatch.setattr(FakeTensor, "numpy", numpy_of, raising=False)
    monkeypatch.setattr(nn.Module, "_apply", move)
    upsampling_matrix.cache_clear()  # tensors of another mode would not mix
    with FakeTensorMode() as mode:
        yield mode
    upsampling_matrix.cache_clear()


def move(module: nn.Module, function: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """``nn.Module._apply`` with new parameters; PyTorch's own swaps tensors in place, which fake ones do not allow."""
    for child in module.children() if recurse else ():
        child._apply(function)
    for name, parameter in module._parameters.items():
        if parameter is not None:
            module._parameters[name] = nn.Parameter(function(parameter), requires_grad=parameter.requires_grad)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = function(buffer)
    return module


def on_fake(net: nn.Module) -> nn.Module:
    """The network with tensors of the same shapes, dtypes and strides on the fake GPU; inside ``fake_cuda``."""
    for module in net.modules():
        for name, value in vars(module).items():
            if isinstance(value, Tensor):  # neither parameter nor buffer (CLIP's mask): it stays on the CPU
                setattr(module, name, torch.empty(value.shape, dtype=value.dtype))
    return net._apply(lambda each: torch.empty_strided(each.shape, each.stride(), dtype=each.dtype, device="cuda"))


@pytest.fixture(scope="module")
def networks() -> Callable[[str], LSegNet]:
    """Makes networks outside of fake modes, without numbers: ``on_fake`` and the meta device need none."""

    def make(backbone: str, **options: int) -> LSegNet:
        with torch.device("meta"):
            return build_lseg(backbone, LABELS, features=32, **options)

    return make


def autocast(dtype: torch.dtype | None) -> torch.autocast:
    return torch.autocast("cuda", dtype=dtype or torch.float16, enabled=dtype is not None)


def images(height: int = 64, width: int = 96) -> Tensor:
    return torch.empty(2, 3, height, width, device="cuda")


# ------------------------------------------------------------------------------------------------- what must work


@pytest.mark.parametrize("dtype", EACH)
@pytest.mark.parametrize(("backbone", "arch_option"), [*((name, 0) for name in sorted(SMALL)), ("tiny_vit", 1)])
def test_forward_loss_and_labels(networks, request, backbone, arch_option, dtype):
    net = networks(backbone, arch_option=arch_option, block_depth=2)
    request.getfixturevalue("fake_cuda")
    loss, labels = exercise(on_fake(net).eval(), dtype)
    assert loss.shape == () and labels.shape == (2, 64, 96)


def exercise(net: LSegNet, dtype: torch.dtype | None) -> tuple[Tensor, Tensor]:
    """Forward, loss and strongest label in one precision; raises where a GPU would."""
    target = torch.zeros(2, 64, 96, dtype=torch.int64, device="cuda")
    with torch.no_grad(), autocast(dtype):
        square = torch.empty(2, 2, device="cuda")
        assert (square @ square).dtype == (dtype or torch.float32), "autocast is not at work here"
        logits = net.half_logits(images())
        assert logits.device.type == "cuda" and logits.dtype == torch.float32
        assert net(images(), ["one", "two"]).shape == (2, 2, 64, 96)
        assert net(images(), [["one"], ["two"]]).shape == (2, 1, 64, 96)
        loss = upsampled_cross_entropy(logits, target, -1)
        assert loss.device.type == "cuda" and loss.dtype == torch.float32
        scores, labels = upsampled_max(logits)
        assert scores.device.type == labels.device.type == "cuda" and labels.dtype == torch.int64
    return loss, labels


@pytest.mark.slow
@pytest.mark.parametrize("backbone", sorted(set(BACKBONES) - SMALL))
def test_official_backbones(networks, request, backbone):
    net = networks(backbone)
    request.getfixturevalue("fake_cuda")
    net = on_fake(net).eval()
    for dtype in PRECISIONS:
        with torch.no_grad(), autocast(dtype):
            assert net(images()).shape == (2, len(LABELS), 64, 96)


@pytest.mark.parametrize("precision", ["32", "bf16", pytest.param("16", marks=pytest.mark.slow), "auto"])
def test_predictor(networks, request, precision):
    net = networks("tiny_vit")
    request.getfixturevalue("fake_cuda")
    predictor = LSegPredictor(on_fake(net), "cuda", precision)
    picture = torch.zeros(3, 64, 96, dtype=torch.uint8)
    assert predictor.segment(picture, LABELS).mask.shape == (64, 96)
    assert predictor.embed(picture).device.type == "cuda"
    assert predictor.similarity(predictor.embed(picture), ["a", "b"]).shape[-1] == 2


@pytest.mark.parametrize("dtype", EACH)
def test_evaluator(networks, request, dtype):
    net = networks("tiny_resnet")
    request.getfixturevalue("fake_cuda")
    net = on_fake(net).eval()
    with torch.no_grad():
        text = net.encode_labels(LABELS)
        cast_products(net, dtype)

        def predict(batch: Tensor) -> Tensor:
            with autocast(dtype):
                return net.half_logits(batch, text)

        sizes = {"base_size": 64, "crop_size": 64, "scales": (0.5, 1.75)}  # one window, and several
        evaluator = MultiScaleEvaluator(predict, len(LABELS), **sizes, window_batch=2)
        scores = evaluator(torch.zeros(1, 3, 50, 70, device="cuda"))
    assert scores.shape == (1, len(LABELS), 50, 70) and scores.device.type == "cuda"


@pytest.mark.parametrize("backbone", ["tiny_vit", "tiny_resnet"])
def test_backward_and_optimiser_on_the_meta_device(networks, backbone):
    net = networks(backbone).to("meta").train()
    optimizer = build_optimizer(net, OptimizationConfig(batch_size=2))
    text = torch.empty(3, net.decoder.embedding.out_channels, device="meta")
    logits = net.half_logits(torch.empty(2, 3, 64, 64, device="meta"), text)
    upsampled_cross_entropy(logits, torch.zeros(2, 64, 64, dtype=torch.int64, device="meta"), -1).backward()
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    without = [parameter.shape for parameter in trained if parameter.grad is None]
    assert trained and not without, f"no gradient reaches parameters of the shapes {without}"
    optimizer.step()


# ------------------------------------------------------------------------------------------ faults must be caught


def matrix_on_the_cpu(net: LSegNet, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = head_module.upsampling_matrix
    monkeypatch.setattr(head_module, "upsampling_matrix", lambda size, device: whole(size, torch.device("cpu")))


def text_on_the_cpu(net: LSegNet, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = net.text_encoder.forward
    monkeypatch.setattr(net.text_encoder, "forward", lambda *args, **options: whole(*args, **options).cpu())


def weight_in_half_precision(net: LSegNet, monkeypatch: pytest.MonkeyPatch) -> None:
    net.decoder.embedding.half()


def buffer_left_behind(net: LSegNet, monkeypatch: pytest.MonkeyPatch) -> None:
    norm = next(module for module in net.image_encoder.modules() if isinstance(module, nn.BatchNorm2d))
    norm.running_mean = torch.empty(norm.running_mean.shape)


def pixels_in_half_precision(net: LSegNet, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = net.decoder.forward
    monkeypatch.setattr(net.decoder, "forward", lambda maps: whole([each.half() for each in maps]))


FAULTS = [matrix_on_the_cpu, text_on_the_cpu, weight_in_half_precision, buffer_left_behind, pixels_in_half_precision]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_seeded_fault_is_caught(networks, request, monkeypatch, fault):
    net = networks("tiny_resnet")
    request.getfixturevalue("fake_cuda")
    on_fake(net).eval()
    fault(net, monkeypatch)
    with pytest.raises((RuntimeError, TypeError)):
        exercise(net, None)
