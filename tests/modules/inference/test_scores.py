"""The streamed argmax: ties across chunks of labels, and memory that does not grow with the number of labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from modules.inference import scores as streamed
from predicting import normalised, picture, predictor
from tiny import TOWER

pytestmark = pytest.mark.usefixtures("one_thread")


def test_of_equal_labels_the_first_wins_in_whatever_chunk_it_is(monkeypatch):
    monkeypatch.setattr(streamed, "CANVAS_NUMBERS", 2 * 64 * 32)  # two labels at a time
    model = predictor()
    twins = model.net.encode_labels(["dog"]).expand(5, -1)
    assert not model.segment(picture(64, 32), twins).mask.any()


def test_ten_thousand_labels_are_never_in_memory_at_once(monkeypatch):
    """4 bytes x 10,000 labels x 64 x 64 pixels would be 164 MB; the largest allocation is counted."""
    monkeypatch.setattr(streamed, "CANVAS_NUMBERS", 500 * 64 * 64)
    model, image = predictor(), picture(64, 64)
    text = F.normalize(torch.randn(10_000, TOWER.embed_dim, generator=torch.Generator().manual_seed(0)), dim=-1)
    largest = 0

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                largest = max(largest, result.untyped_storage().nbytes())
            return result

    with Watch():
        result = model.segment(image, text)
    assert largest <= max(text.nbytes, 4 * 500 * 64 * 64)
    with torch.no_grad():
        expected = model.net(normalised(model.net, image), text)[0].argmax(0).numpy()
    assert np.mean(result.mask == expected) > 0.999
