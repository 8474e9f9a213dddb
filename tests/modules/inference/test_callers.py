"""``embed(mode="protocol")`` gives what each project computes, as tests/callers.py describes it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import callers
from lseg_utils.errors import InputError
from modules.inference.callers import result_size, seen_sizes
from modules.predictor import LSegPredictor
from tiny import tiny_net

pytestmark = pytest.mark.usefixtures("one_thread")
BASE, CROP = 104, 96


@pytest.fixture(scope="module")
def predictor():
    return LSegPredictor(tiny_net("tiny_vit"), device="cpu", base_size=BASE, crop_size=CROP)


def picture(height: int, width: int) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (-(-height // 10), -(-width // 10), 3), np.uint8)
    return np.kron(noise, np.ones((10, 10, 1), np.uint8))[:height, :width]


CASES = [
    *(("vlmaps", (96, 80)), ("vlmaps", (60, 160)), ("openscene", (96, 80)), ("openscene", (60, 160))),
    *(("feature_3dgs", (96, 80)), ("feature_3dgs", (60, 160)), ("dff", (60, 160)), ("conceptfusion", (96, 80))),
    *(pytest.param(caller, (300, 496), marks=pytest.mark.slow) for caller in ("dff", "feature_3dgs")),
]


@pytest.mark.parametrize(("caller", "size"), CASES)
def test_equal_to_the_projects_own_procedure(predictor, caller, size):
    image = picture(*size)
    sizes = (BASE, CROP) if caller not in ("openscene", "conceptfusion") else ()
    with torch.no_grad():
        expected = getattr(callers, caller)(predictor.net.embed, image, *sizes)[0].permute(1, 2, 0)
    seen = []
    hook = predictor.net.image_encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[2:]))
    found = predictor.embed(image, mode="protocol", variant=caller)
    hook.remove()
    assert tuple(found.shape[:2]) == result_size(caller, *size, BASE)
    assert set(seen) == set(seen_sizes(caller, *size, CROP))
    assert F.cosine_similarity(found, expected, dim=-1).min() > 0.99999
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)  # lengths too


def test_a_whole_photo_in_half_precision(predictor):
    found = predictor.embed(picture(96, 80), mode="protocol", variant="feature_3dgs", dtype=torch.float16)
    assert (found.dtype, found.shape) == (torch.float16, (96, 80, 64))


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        ({"mode": "protocol"}, "vlmaps"),
        ({"mode": "protocol", "variant": "unit"}, "vlmaps"),
        ({"mode": "protocol", "variant": "dff", "size": "half"}, "dff"),
        ({"mode": "protocol", "variant": "dff", "grad": True}, "dff"),
        ({"variant": "dff"}, "protocol"),
        ({"mode": "windows"}, "windows"),
        ({"mode": "protocol", "variant": "openscene"}, "16"),
    ],
)
def test_what_cannot_be_asked_for(predictor, options, fact):
    with pytest.raises(InputError, match=fact):
        predictor.embed(picture(40, 50), **options)
