"""The multi-scale evaluator against the protocol written out plainly: every window cut, padded and segmented alone."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from encoding_ext import MultiScaleEvaluator
from encoding_ext.evaluator import MAX_BATCH
from lseg_utils.errors import InputError

MEAN, STD = (0.5, 0.4, 0.3), (0.5, 0.25, 0.2)
BASE, CROP, LABELS = 52, 48, 4
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


def pad_with_black(image: Tensor) -> Tensor:
    """(1, 3, h, w) -> padded on the right and at the bottom to at least CROP."""
    height, width = max(image.shape[2], CROP), max(image.shape[3], CROP)
    padded = torch.empty(1, 3, height, width)
    for channel in range(3):
        padded[0, channel] = (0 - MEAN[channel]) / STD[channel]
    padded[:, :, : image.shape[2], : image.shape[3]] = image
    return padded


def plain_protocol(predict, image: Tensor, scales=SCALES, flip: bool = True) -> Tensor:
    def forward(crop: Tensor) -> Tensor:
        scores = predict(crop)
        return scores + predict(crop.flip(3)).flip(3) if flip else scores

    height, width = image.shape[2:]
    stride = 32
    total = torch.zeros(1, LABELS, height, width)
    for scale in scales:
        long_side = math.ceil(BASE * scale)
        if height > width:
            h, w = long_side, int(1.0 * width * long_side / height + 0.5)
        else:
            h, w = int(1.0 * height * long_side / width + 0.5), long_side
        small = F.interpolate(image, (h, w), mode="bilinear", align_corners=True)
        if long_side <= CROP:
            scores = forward(pad_with_black(small))[:, :, :h, :w]
        else:
            padded = pad_with_black(small) if min(h, w) < CROP else small
            ph, pw = padded.shape[2:]
            summed, count = torch.zeros(1, LABELS, ph, pw), torch.zeros(1, 1, ph, pw)
            for i in range(math.ceil((ph - CROP) / stride) + 1):
                for j in range(math.ceil((pw - CROP) / stride) + 1):
                    top, left = i * stride, j * stride
                    bottom, right = min(top + CROP, ph), min(left + CROP, pw)
                    scores = forward(pad_with_black(padded[:, :, top:bottom, left:right]))
                    summed[:, :, top:bottom, left:right] += scores[:, :, : bottom - top, : right - left]
                    count[:, :, top:bottom, left:right] += 1
            scores = (summed / count)[:, :, :h, :w]
        total += F.interpolate(scores, (height, width), mode="bilinear", align_corners=True)
    return total


@pytest.fixture
def lopsided():
    """A function of the crop that knows left from right and where in the crop a pixel lies."""
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(3, LABELS, 3, padding=1)
    ramp = torch.linspace(-1, 2, CROP) + torch.linspace(0, 5, CROP)[:, None]

    def predict(crops: Tensor) -> Tensor:
        return torch.tanh(conv(crops)) * ramp + crops.mean(dim=(1, 2, 3), keepdim=True)

    return predict


def random_image(height: int, width: int) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(height * 1000 + width)) * 2 - 1


def evaluator(predict, **changes) -> MultiScaleEvaluator:
    return MultiScaleEvaluator(predict, LABELS, BASE, CROP, **{"scales": SCALES, "mean": MEAN, "std": STD, **changes})


@pytest.mark.parametrize("window_batch", [1, 3, 100])
@pytest.mark.parametrize("size", [(61, 83), (97, 30), (30, 97), (48, 48), (1, 1), (20, 500), (150, 150)])
def test_is_the_protocol_for_any_size_and_batch(lopsided, size, window_batch):
    image = random_image(*size)
    scores = evaluator(lopsided, window_batch=window_batch)(image)
    expected = plain_protocol(lopsided, image)
    assert scores.shape == (1, LABELS, *size) and scores.dtype == torch.float32
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4)


def test_flip_and_scales_can_be_chosen(lopsided):
    image = random_image(61, 83)
    scales = (0.7, 1.3)  # 36.4 and 67.6 pixels, rounded up
    without = evaluator(lopsided, flip=False, scales=scales)(image)
    torch.testing.assert_close(without, plain_protocol(lopsided, image, scales, flip=False), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(without, evaluator(lopsided, scales=scales)(image) / 2, atol=1e-2)


def test_a_constant_score_counts_once_per_scale_and_mirror():
    scores = evaluator(lambda crops: torch.ones(len(crops), LABELS, CROP, CROP))(random_image(70, 90))
    torch.testing.assert_close(scores, torch.full_like(scores, 2.0 * len(SCALES)))


def test_one_window_of_a_pointwise_function_is_that_function():
    image = random_image(BASE, BASE)
    pointwise = torch.nn.Conv2d(3, LABELS, 1)
    scores = evaluator(pointwise, scales=(1.0,), flip=False)(image)
    torch.testing.assert_close(scores, pointwise(image).detach(), rtol=1e-4, atol=1e-5)


def test_windows_at_the_official_sizes_begin_every_320_pixels():
    seen: list[Tensor] = []

    def predict(crops: Tensor) -> Tensor:
        seen.extend(crops)
        return crops[:, :1]

    columns = torch.arange(910.0).expand(1, 3, 600, 910)
    MultiScaleEvaluator(predict, 1, scales=(1.75,), flip=False)(columns)
    assert [(float(crop[0, 0, 0]), tuple(crop.shape)) for crop in seen] == [
        (start, (3, 480, 480)) for start in (0.0, 320.0, 640.0) * 2
    ]
    assert float(seen[2][0, 0, 269]) == 909 and float(seen[2][0, 0, 270]) == -1  # beyond the border: black


def test_a_very_long_image_keeps_at_least_one_pixel_of_its_short_side():
    scores = evaluator(torch.nn.Conv2d(3, LABELS, 1), scales=(0.5,))(random_image(1, 400))
    assert scores.shape == (1, LABELS, 1, 400) and scores.isfinite().all()


def test_batches_are_full_across_scales_and_half_precision_is_summed_in_float32():
    sizes: list[int] = []

    def predict(crops: Tensor) -> Tensor:
        sizes.append(len(crops))
        return torch.full((len(crops), LABELS, CROP, CROP), 0.1, dtype=torch.bfloat16)

    scores = evaluator(predict, window_batch=7)(random_image(60, 60))
    assert set(sizes[:-1]) == {7}
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, torch.full_like(scores, 12 * float(torch.tensor(0.1, dtype=torch.bfloat16))))


def test_another_number_of_labels_is_named():
    with pytest.raises(InputError, match=r"\(4, 5, 48, 48\).*num_classes"):
        evaluator(lambda crops: torch.zeros(len(crops), 5, CROP, CROP))(random_image(40, 40))


@pytest.mark.parametrize("shape", [(4, 4, 36, 36), (4, 4, 24, 48), (4, 4, 0, 0), (3, 4, 48, 48), (4,)])
def test_scores_of_another_size_are_named(shape):
    with pytest.raises(InputError, match=r"expected \(4, 4, 48, 48\).*size of its input"):
        evaluator(lambda crops: torch.zeros(shape))(random_image(40, 40))


def test_a_batch_of_images_is_refused(lopsided):
    with pytest.raises(InputError, match=r"one image"):
        evaluator(lopsided)(torch.zeros(2, 3, 40, 40))


def test_impossible_settings_are_all_reported_at_once(lopsided):
    with pytest.raises(InputError, match=r"window_batch is 0.*scales are \(1.0, -2.0\)"):
        evaluator(lopsided, window_batch=0, scales=(1.0, -2.0))
    with pytest.raises(InputError, match="scales"):
        evaluator(lopsided, scales=())


def test_no_gradient_is_kept(lopsided):
    image = random_image(40, 40).requires_grad_()
    assert not evaluator(lopsided, scales=(1.0,))(image).requires_grad


# ------------------------------------------------------------------------------- scores at a fraction of the size


@pytest.mark.parametrize("fraction", [2, 3, 4])
@pytest.mark.parametrize("window_batch", [1, 3, None])
@pytest.mark.parametrize("flip", [True, False])
def test_the_last_upsampling_may_be_left_to_the_evaluator(fraction, window_batch, flip):
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(3, LABELS, fraction, stride=fraction)
    ramp = torch.linspace(-1, 2, CROP // fraction)

    def small(crops: Tensor) -> Tensor:
        return torch.tanh(conv(crops)) * ramp + ramp[:, None]

    def full(crops: Tensor) -> Tensor:
        return F.interpolate(small(crops), (CROP, CROP), mode="bilinear", align_corners=True)

    image = random_image(61, 83)
    scores = evaluator(small, window_batch=window_batch, flip=flip)(image)
    torch.testing.assert_close(scores, plain_protocol(full, image, flip=flip), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("labels", [1, 1000])
def test_one_label_and_a_thousand(labels):
    conv = torch.nn.Conv2d(3, labels, 2, stride=2)
    image = random_image(50, 61)
    small = MultiScaleEvaluator(conv, labels, BASE, CROP, SCALES, mean=MEAN, std=STD)(image)
    full = MultiScaleEvaluator(
        lambda crops: F.interpolate(conv(crops), (CROP, CROP), mode="bilinear", align_corners=True),
        labels, BASE, CROP, SCALES, mean=MEAN, std=STD, window_batch=1,
    )(image)  # fmt: skip
    torch.testing.assert_close(small, full, rtol=1e-4, atol=1e-4)
    assert (small.argmax(1) == full.argmax(1)).float().mean() > 0.9999


# ----------------------------------------------------------------------------------------------- batches and memory


def greedy(limit: int, seen: list[int]):
    """A function of the crops that has memory for ``limit`` of them."""

    def predict(crops: Tensor) -> Tensor:
        seen.append(len(crops))
        if len(crops) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")
        return crops.mean(1, keepdim=True).expand(-1, LABELS, -1, -1)

    return predict


def test_a_batch_that_was_too_large_is_halved_until_it_fits(monkeypatch):
    monkeypatch.setitem(MAX_BATCH, "cpu", 8)
    seen: list[int] = []
    image = random_image(97, 61)
    tried = evaluator(greedy(2, seen))
    scores = tried(image)
    assert seen[:3] == [8, 4, 2] and set(seen[2:]) == {2}
    torch.testing.assert_close(scores, plain_protocol(greedy(99, []), image), rtol=1e-4, atol=1e-4)
    seen.clear()
    tried(image)
    assert set(seen) == {2}  # remembered


def test_a_batch_that_was_asked_for_and_does_not_fit_is_an_instruction():
    with pytest.raises(InputError, match=r"out of memory \(CUDA.*smaller window_batch than 5"):
        evaluator(greedy(2, []), window_batch=5)(random_image(97, 61))
    with pytest.raises(InputError, match="out of memory"):
        evaluator(greedy(0, []))(random_image(97, 61))


def test_other_errors_are_left_alone():
    def broken(crops: Tensor) -> Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        evaluator(broken)(random_image(40, 40))


@pytest.mark.parametrize(("free", "batch"), [(10**12, 4), (4 * 48**2 * 66 * 2 * 3 + 9, 3), (1000, 1)])
def test_the_batch_follows_the_free_memory(monkeypatch, free, batch):
    monkeypatch.setattr("encoding_ext.evaluator.free_bytes", lambda device: free)
    seen: list[int] = []
    evaluator(greedy(99, seen))(random_image(97, 61))
    assert seen[0] == batch
