"""The frozen text tower: the same function as CLIP's, and each label goes through it once."""

from __future__ import annotations

import clip
import pytest
import torch
import torch.nn.functional as F

from modules.models.text_encoder import CHUNK
from tiny import LABELS, TOWER, pictures, tiny_clip, tiny_net

pytestmark = pytest.mark.usefixtures("one_thread")


class Counter:
    """Counts how many labels pass through a network's tower."""

    def __init__(self, net) -> None:
        self.labels = 0
        net.text_encoder.transformer.register_forward_hook(self._count)

    def _count(self, module, inputs, output) -> None:
        self.labels += output.shape[1]  # (L, N, E)


def text_half(model: clip.model.CLIP) -> dict[str, torch.Tensor]:
    return {name: value for name, value in model.state_dict().items() if not name.startswith("visual.")}


def test_equals_clip_at_full_context_length():
    model, net = tiny_clip(seed=3), tiny_net(labels=None)
    net.text_encoder.load_state_dict(text_half(model))
    longest = " ".join(["house"] * (TOWER.context_length - 2))  # with start and end the whole context
    labels = ["dog", "a red car", longest, "traffic light with a long name", "x"]
    with torch.no_grad():
        expected = model.encode_text(clip.tokenize(labels, context_length=TOWER.context_length))
    torch.testing.assert_close(net.encode_labels(labels), F.normalize(expected, dim=1), atol=1e-5, rtol=0)


def test_only_a_label_that_is_too_long_is_called_so(monkeypatch):
    encoder = tiny_net().text_encoder
    house = [" ".join(["house"] * length) for length in (TOWER.context_length - 2, TOWER.context_length - 1)]
    assert [encoder.fits(label) for label in house] == [True, False]

    def interrupted(*args, **options):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

    monkeypatch.setattr(clip, "tokenize", interrupted)
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        encoder.fits("dog")


def test_vectors_are_unit_float32_and_do_not_depend_on_their_neighbours():
    net = tiny_net()
    many = [f"thing {i}" for i in range(CHUNK + 3)] + ["dog"]
    matrix = net.encode_labels(many)
    assert (matrix.shape, matrix.dtype) == ((CHUNK + 4, TOWER.embed_dim), torch.float32)
    torch.testing.assert_close(matrix.norm(dim=1), torch.ones(CHUNK + 4))
    torch.testing.assert_close(matrix[-1:], tiny_net().encode_labels(["dog"]), atol=1e-6, rtol=0)
    assert matrix.unique(dim=0).shape[0] == CHUNK + 4


def test_every_label_goes_through_the_tower_once():
    net, images = tiny_net(labels=LABELS), pictures(2, 32, 32)
    counter = Counter(net)
    with torch.no_grad():
        for _ in range(3):
            net(images)
        assert counter.labels == len(LABELS)
        net(images, [*LABELS, "sky"])
        net(images, [["sky", "dog"], ["dog", "tree"]])
        net.encode_labels(["tree", "sky"])
    assert counter.labels == len(LABELS) + 2  # sky, tree


def test_many_label_lists_do_not_bring_the_tower_back():
    """Zero-shot training draws a pair of labels an image: their matrices may be forgotten, their vectors not."""
    net, classes = tiny_net(labels=None), [f"class {i}" for i in range(20)]
    counter = Counter(net)
    for first in classes:
        for second in classes:
            if first != second:
                net.encode_labels([first, second])
    assert counter.labels == len(classes)


def test_loading_weights_forgets_what_was_computed():
    net, other = tiny_net(seed=0), tiny_net(seed=1)
    before = net.encode_labels(LABELS)
    net.load_state_dict(other.state_dict())
    torch.testing.assert_close(net.encode_labels(LABELS), other.encode_labels(LABELS))
    assert not torch.allclose(net.encode_labels(LABELS), before, atol=1e-3)


@pytest.mark.parametrize("move", [lambda net: net.to(torch.float64), lambda net: net.double()])
def test_moving_forgets_what_was_computed_and_keeps_float32_vectors(move):
    net, images = tiny_net(), pictures(1, 32, 32)
    with torch.no_grad():
        before, logits = net.encode_labels(LABELS), net(images)
        counter = Counter(net)
        move(net)
        after = net.encode_labels(LABELS)
        assert counter.labels == len(LABELS)
        assert after.dtype == torch.float32
        torch.testing.assert_close(after, before, atol=1e-5, rtol=0)
        torch.testing.assert_close(net(images.double()), logits, atol=1e-3, rtol=0)


def test_order_of_labels_is_the_order_of_rows():
    net = tiny_net()
    torch.testing.assert_close(net.encode_labels(LABELS).flip(0), net.encode_labels(LABELS[::-1]))
