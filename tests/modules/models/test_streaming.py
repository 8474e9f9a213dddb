"""What is done strip by strip and in chunks of labels equals what is done at once."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from modules.models import streaming
from modules.models.streaming import strips, strongest, upsampled_cross_entropy, upsampled_max
from modules.models.upsampling import source_rows, upsample_x2, upsampled_rows, upsampling_matrix
from tiny import TOWER, pictures, tiny_net

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = [(1, 1), (1, 7), (7, 1), (2, 3), (5, 8), (15, 11)]
BLOCKS = [
    {},
    {"arch_option": 1},
    {"arch_option": 1, "block_depth": 3, "activation": "lrelu"},
    {"arch_option": 2, "block_depth": 2, "activation": "tanh"},
]


@pytest.fixture(params=[1, 300, 2**20], ids=["two-rows", "a-few-rows", "whole"])
def strip(request, monkeypatch):
    """Strips from the smallest ones to whole images."""
    monkeypatch.setitem(streaming.STRIP, "cpu", request.param)


# ------------------------------------------------------------------------------------------------ upsampling


def test_the_matrix_of_three_positions_by_hand():
    # Outputs lie 2/5 apart: 0, 0.4, 0.8, 1.2, 1.6, 2.
    expected = [[1, 0, 0], [0.6, 0.4, 0], [0.2, 0.8, 0], [0, 0.8, 0.2], [0, 0.4, 0.6], [0, 0, 1]]
    torch.testing.assert_close(upsampling_matrix(3, torch.device("cpu")), torch.tensor(expected))


@pytest.mark.parametrize("size", SIZES)
def test_any_rows_of_the_upsampled_map(size):
    x = torch.randn(2, 5, *size)
    expected = upsample_x2(x)
    height = size[0]
    for start in range(2 * height):
        for stop in range(start + 1, 2 * height + 1):
            first, end = source_rows(height, start, stop)
            assert end - first <= (stop - start) // 2 + 2
            rows = upsampled_rows(x.permute(0, 2, 3, 1)[:, first:end], start, stop, height)
            torch.testing.assert_close(rows.permute(0, 3, 1, 2), expected[:, :, start:stop], atol=1e-5, rtol=1e-5)


# ------------------------------------------------------------------------------------------------------ loss


@pytest.mark.parametrize("labels", [1, 2, 40, 1000])
@pytest.mark.parametrize("size", SIZES[2:])
@pytest.mark.parametrize("batch", [1, 3])
def test_cross_entropy_and_its_gradient(strip, batch, size, labels):
    logits = (5 * torch.randn(batch, labels, *size)).requires_grad_()
    target = torch.randint(0, labels, (batch, 2 * size[0], 2 * size[1]))
    target[torch.rand(target.shape) < 0.3] = 255
    plain = F.cross_entropy(upsample_x2(logits), target, ignore_index=255, reduction="sum")
    loss = upsampled_cross_entropy(logits, target, ignore_index=255)
    torch.testing.assert_close(loss, plain, atol=1e-4, rtol=1e-5)
    (expected,) = torch.autograd.grad(plain / 7, logits)
    (gradient,) = torch.autograd.grad(loss / 7, logits)
    assert (gradient - expected).norm() <= 1e-4 * expected.norm() + 1e-9


def test_a_loss_without_a_labelled_pixel_is_zero_and_so_is_its_gradient():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = upsampled_cross_entropy(logits, torch.full((2, 8, 8), -1), ignore_index=-1)
    loss.backward()
    assert loss == 0 and (logits.grad == 0).all()


def test_the_loss_stays_in_float32_under_autocast_and_works_without_gradients():
    logits, target = torch.randn(2, 9, 6, 4), torch.randint(0, 9, (2, 12, 8))
    expected = F.cross_entropy(upsample_x2(logits), target, reduction="sum")
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(upsampled_cross_entropy(logits.requires_grad_(), target, -1), expected)
    with torch.inference_mode():
        torch.testing.assert_close(upsampled_cross_entropy(torch.clone(logits), target, -1), expected)


def test_strips_cover_the_image_and_stay_small_unless_two_rows_are_not():
    found = list(strips(torch.empty(1, 150, 240, 240)))
    assert found[0][0] == 0 and found[-1][1] == 480 and len(found) > 20
    assert all(one[1] == following[0] for one, following in pairwise(found))
    assert list(strips(torch.empty(1, 10**9, 4, 240, device="meta"))) == [(0, 2), (2, 4), (4, 6), (6, 8)]


# -------------------------------------------------------------------------------------------- strongest label


@pytest.mark.parametrize("labels", [1, 2, 40])
@pytest.mark.parametrize("size", SIZES)
def test_maximum(strip, size, labels):
    logits = torch.randn(3, labels, *size)
    scores, found = upsampled_max(logits)
    expected = upsample_x2(logits)
    torch.testing.assert_close(scores, expected.amax(1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(expected.gather(1, found[:, None])[:, 0], scores, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("chunk", [None, 1, 7, 1000])
@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: "-".join(map(str, block.values())) or "none")
@pytest.mark.parametrize("per_image", [False, True], ids=["one-list", "a-list-per-image"])
def test_segment_is_the_maximum_of_the_logits(block, chunk, per_image):
    net, images = tiny_net("tiny_resnet", **block), pictures(3, 32, 96)
    text = F.normalize(torch.randn(*((3, 23) if per_image else (23,)), TOWER.embed_dim), dim=-1)
    scores, labels = net.segment(images, text, chunk)
    logits = net(images, text)
    assert labels.dtype == torch.int64 and not scores.requires_grad
    torch.testing.assert_close(scores, logits.amax(1), atol=1e-4, rtol=1e-5)
    assert (labels == logits.argmax(1)).float().mean() > 0.9999


def test_segment_takes_label_lists_and_gives_ties_to_the_first():
    net, images = tiny_net(), pictures(1, 64, 32)
    _, labels = net.segment(images, [["dog", "grass", "a red car"]], chunk=1)
    assert torch.equal(labels, net(images).argmax(1))
    twins = net.encode_labels(["dog"]).expand(5, -1)
    assert (net.segment(images, twins, chunk=2)[1] == 0).all()


def test_ten_thousand_labels_are_never_all_there_at_once(monkeypatch):
    """4 bytes x 10,000 labels x 64 x 64 pixels would be 164 MB; what is allocated at a time is counted."""
    net, coarse = tiny_net(), torch.randn(1, TOWER.embed_dim, 16, 16)
    text = F.normalize(torch.randn(10_000, TOWER.embed_dim), dim=-1)
    largest = 0

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                largest = max(largest, result.untyped_storage().nbytes())
            return result

    with Watch():
        scores, labels = net.head.segment(coarse, text, chunk=500)
    assert largest <= max(text.nbytes, 4 * 500 * 64 * 64)
    logits = net.head(coarse, text)
    torch.testing.assert_close(scores, logits.amax(1), atol=1e-4, rtol=1e-5)
    assert (labels == logits.argmax(1)).float().mean() > 0.999


@pytest.mark.parametrize("count", [1, 31, 255, 256, 257, 287, 288, 1000])
def test_strongest_is_the_maximum_with_the_first_of_equal_ones(count):
    generator = torch.Generator().manual_seed(count)
    scores = torch.randint(40, (3, 50, count), generator=generator).float()  # many are equal
    best, label = strongest(scores.transpose(0, 1))
    expected = scores.transpose(0, 1).max(dim=-1)
    assert torch.equal(best, expected.values)
    first = (scores.transpose(0, 1) == expected.values[..., None]).int().argmax(dim=-1)
    assert torch.equal(label, first)


def test_strongest_finds_every_place():
    assert strongest(torch.eye(300))[1].tolist() == list(range(300))
