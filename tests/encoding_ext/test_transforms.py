"""Paired transforms: image and mask stay together, chance comes from the generator alone, golden validation crops."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision import transforms as tv

from encoding_ext import TrainTransform, ValTransform, image_to_tensor, mask_to_tensor
from encoding_ext.transforms import tensor_to_pixels

REPOSITORY = Path(__file__).parents[2]
SHARED = Path(os.environ.get("LSEG_SHARED") or REPOSITORY.parent / "shared")
SAMPLE = SHARED / "data" / "ade20k_sample"


def marked_pair(width: int, height: int) -> tuple[Image.Image, Image.Image]:
    """An image whose red says what its mask says: label 1 on the left (red 40), 2 on the right (red 80)."""
    mask = np.ones((height, width), np.uint8)
    mask[:, width // 2 :] = 2
    image = np.full((height, width, 3), 200, np.uint8)
    image[..., 0] = mask * 40
    return Image.fromarray(image), Image.fromarray(mask)


def outcomes(base: int, crop: int, size: tuple[int, int], number: int = 60):
    transform = TrainTransform(base, crop)
    for seed in range(number):
        image, mask = transform(*marked_pair(*size), np.random.default_rng(seed))
        yield np.asarray(image), np.asarray(mask)


@pytest.mark.parametrize("size", [(90, 60), (31, 77), (3, 200), (1, 1)])
def test_training_pairs_stay_together(size):
    for image, mask in outcomes(52, 48, size, 25):
        assert image.shape == (48, 48, 3) and mask.shape == (48, 48)
        red = image[..., 0].astype(int)
        agreeing = np.abs(red - 40 * mask.astype(int)) <= 20  # the image is smooth at the border, the mask is not
        assert agreeing.mean() > 0.9
        assert (image[mask == 0] == 0).all()  # padding: black and unlabelled


@pytest.mark.parametrize("size", [(90, 60), (31, 77), (200, 3), (683, 512), (1, 1)])
def test_training_is_the_official_procedure_step_by_step(size):
    noise = np.random.default_rng(0)
    source = Image.fromarray(noise.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    labels = Image.fromarray(noise.integers(0, 151, (size[1], size[0]), dtype=np.uint8))
    for seed in range(30):
        rng = np.random.default_rng(seed)
        image, mask = (ImageOps.mirror(p) for p in (source, labels)) if rng.random() < 0.5 else (source, labels)
        long_side = int(rng.integers(26, 104, endpoint=True))
        scaled = tuple(max(int(side * long_side / max(size) + 0.5), 1) for side in size)
        padding = (0, 0, max(48 - scaled[0], 0), max(48 - scaled[1], 0))
        image = ImageOps.expand(image.resize(scaled, Image.Resampling.BILINEAR), padding)
        mask = ImageOps.expand(mask.resize(scaled, Image.Resampling.NEAREST), padding)
        left, top = (int(rng.integers(0, side - 48, endpoint=True)) for side in image.size)
        box = (left, top, left + 48, top + 48)
        pixels, values = TrainTransform(52, 48)(source, labels, np.random.default_rng(seed))
        np.testing.assert_array_equal(np.asarray(values), np.asarray(mask.crop(box)))
        np.testing.assert_allclose(np.asarray(pixels, int), np.asarray(image.crop(box), int), atol=1)  # rounding


def test_training_pads_only_right_and_bottom_and_mirrors_half_of_the_time():
    masks = [mask for _, mask in outcomes(20, 48, (90, 60), 100)]  # long side 10..40: always padded
    assert all(mask[0, 0] > 0 and mask[-1, -1] == 0 for mask in masks)
    mirrored = sum(mask[0, 0] == 2 for mask in masks)
    assert 30 < mirrored < 70


def test_training_scale_reaches_both_ends():
    long_sides = {int((mask[0] > 0).sum()) for _, mask in outcomes(4, 16, (64, 64), 200)}
    assert long_sides == set(range(2, 9))


def test_training_scale_range_can_be_narrowed():
    transform = TrainTransform(30, 64, scale_range=(1.0, 1.0))
    _, mask = transform(*marked_pair(64, 32), np.random.default_rng(0))
    labelled = np.asarray(mask) > 0
    assert labelled[:15, :30].all() and labelled.sum() == 15 * 30


def test_training_crops_reach_every_corner():
    transform = TrainTransform(8, 4, scale_range=(1.0, 1.0))
    codes = Image.fromarray(np.arange(1, 65, dtype=np.uint8).reshape(8, 8))
    picture = Image.new("RGB", (8, 8))
    corners = {int(np.asarray(transform(picture, codes, np.random.default_rng(s))[1])[0].min()) for s in range(400)}
    assert {1, 5, 33, 37} <= corners  # the four extreme crops, mirrored or not


def test_the_same_generator_state_gives_the_same_crop_and_global_state_is_left_alone():
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    first, second = ([image.tobytes() for image, _ in outcomes(52, 48, (90, 60), 5)] for _ in range(2))
    assert first == second and len(set(first)) == 5
    assert (np.random.get_state()[1] == before[0]).all() and torch.equal(torch.get_rng_state(), before[1])


@pytest.mark.parametrize("size", [(90, 60), (60, 90), (48, 48), (10, 200)])
def test_validation_takes_the_centre_square(size):
    image, mask = (np.asarray(picture) for picture in ValTransform(48)(*marked_pair(*size)))
    assert image.shape == (48, 48, 3) and mask.shape == (48, 48)
    assert (mask > 0).all()
    assert abs(int((mask == 1).sum()) - int((mask == 2).sum())) <= 48  # the border is in the middle


def test_tensors():
    image = Image.fromarray(np.array([[[0, 127, 255]]], np.uint8))
    tensor = image_to_tensor((0.5, 0.5, 0.5), (0.5, 0.25, 0.5))(image)
    assert tensor.shape == (3, 1, 1) and tensor.dtype == torch.float32
    assert tensor.flatten().tolist() == pytest.approx([-1.0, (127 / 255 - 0.5) / 0.25, 1.0])
    mask = mask_to_tensor(Image.fromarray(np.array([[0, 1, 150]], np.uint8)))
    assert mask.dtype == torch.int64 and mask.tolist() == [[-1, 0, 149]]


@pytest.mark.parametrize("statistics", [((0.5,) * 3, (0.5,) * 3), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])
def test_tensors_are_those_of_torchvision_to_the_last_bit(statistics):
    pixels = np.random.default_rng(0).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    expected = tv.Compose([tv.ToTensor(), tv.Normalize(*statistics)])(pixels)
    transform = image_to_tensor(*statistics)
    for image in (pixels, Image.fromarray(pixels), np.pad(pixels, ((1, 2), (3, 4), (0, 0)))[1:-2, 3:-4]):
        assert transform(image).equal(expected)


def test_everything_travels_to_worker_processes():
    to_tensor = pickle.loads(pickle.dumps(image_to_tensor((0.5,) * 3, (0.5,) * 3)))
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    assert to_tensor(pixels).equal(image_to_tensor((0.5,) * 3, (0.5,) * 3)(pixels))
    for transform in (TrainTransform(52, 48), ValTransform(48)):
        assert vars(pickle.loads(pickle.dumps(transform))) == vars(transform)


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the three ADE20K sample images are not on this machine")
@pytest.mark.parametrize("number", [1, 2, 3])
def test_golden_validation_transform(number):
    golden = np.load(REPOSITORY / "tests" / "golden" / "val_transform.npz")
    name = f"ADE_val_{number:08d}"
    image = Image.open(SAMPLE / "images" / f"{name}.jpg").convert("RGB")
    mask = Image.open(SAMPLE / "annotations" / f"{name}.png")
    image, mask = ValTransform(480)(image, mask)
    pixels, labels = np.asarray(image), mask_to_tensor(mask).numpy()
    # JPEG decoders may differ by a grey level or two.
    assert np.abs(pixels[240].astype(int) - golden[f"val{number}.image_row240"].astype(int)).max() <= 3
    assert pixels.mean(axis=(0, 1)) == pytest.approx(golden[f"val{number}.image_mean"], abs=0.05)
    assert (labels[::8, ::8] == golden[f"val{number}.mask"]).all()
    assert (np.bincount(labels.ravel() + 1, minlength=151) == golden[f"val{number}.mask_hist"]).all()


@pytest.mark.parametrize("statistics", [((0.5,) * 3, (0.5,) * 3), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])
def test_pixels_come_back_from_the_tensor_as_they_were(statistics: tuple) -> None:
    pixels = np.arange(768, dtype=np.uint16).reshape(16, 16, 3).astype(np.uint8)  # all 256 values
    tensor = image_to_tensor(*statistics)(Image.fromarray(pixels))
    np.testing.assert_array_equal(tensor_to_pixels(*statistics)(tensor), pixels)
