"""What is done strip by strip and in chunks of labels equals what is done at once."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from modules.models import streaming
from modules.models.streaming import strips, strongest, upsampled_cross_entropy, upsampled_max
from modules.models.upsampling import source_rows, upsample_x2, upsampled_rows, upsampling_matrix

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = [(1, 1), (1, 7), (7, 1), (2, 3), (5, 8), (15, 11)]


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
