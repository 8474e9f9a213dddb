"""Labels in words or as a matrix: templates, 'other', repetitions, labels that are too long or strange."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lseg_utils.errors import InputError
from modules.inference.clip_templates import IMAGENET_TEMPLATES
from predicting import picture, predictor, undecided

pytestmark = pytest.mark.usefixtures("one_thread")


def test_labels_as_they_are_are_the_networks_own_vectors():
    model = predictor()
    torch.testing.assert_close(model.encode_text(["dog", "sky"]), model.net.encode_labels(["dog", "sky"]))


def test_templates_are_averaged_as_clip_does():
    model = predictor()
    forms = ["a {}.", "the {} of it", "{}"]
    sentences = model.encode_text([form.replace("{}", "red {car}") for form in forms])
    (vector,) = model.encode_text(["red {car}"], forms)
    torch.testing.assert_close(vector, F.normalize(sentences.mean(0), dim=0), atol=1e-6, rtol=0)


def test_imagenet_templates_are_eighty_and_remembered():
    assert len(set(IMAGENET_TEMPLATES)) == 80 and all(form.count("{}") == 1 for form in IMAGENET_TEMPLATES)
    model = predictor()
    passed: list[int] = []
    model.net.text_encoder.transformer.register_forward_hook(lambda module, inputs, output: passed.append(1))
    first = model.encode_text(["dog", "sky"], "imagenet")
    calls = len(passed)
    again = model.encode_text(["sky", "dog"], "imagenet")
    assert calls and len(passed) == calls
    assert torch.equal(first.flip(0), again)
    torch.testing.assert_close(first.norm(dim=1), torch.ones(2))
    assert (first - model.encode_text(["dog", "sky"])).abs().max() > 1e-3


def test_other_is_added_only_if_asked():
    model, image = predictor(), picture(32, 32)
    assert model.segment(image, ["dog"]).labels == ["dog"]
    assert model.segment(image, ["dog"], other=True).labels == ["dog", "other"]
    assert model.segment(image, ["dog", "other"], other=True).labels == ["dog", "other"]
    assert model.segment(image, ["dog"], other="background").labels == ["dog", "background"]


def test_a_matrix_is_taken_in_place_of_words():
    model, image = predictor(), picture(40, 40)
    labels = ["dog", "sky", "tree"]
    words, text = model.segment(image, labels), model.encode_text(labels)
    for matrix in (text, 7 * text.double().numpy()):
        result = model.segment(image, matrix, names=labels)
        assert result.labels == labels
        np.testing.assert_allclose(result.confidence, words.confidence, atol=1e-5)
    assert model.segment(image, text).labels == ["label 0", "label 1", "label 2"]


def test_a_label_twice_is_warned_of_and_the_first_wins():
    model = predictor()
    with pytest.warns(UserWarning, match="duplicate.*dog") as caught:
        result = model.segment(picture(40, 40), ["dog", "dog", "sky"])
    assert caught[0].filename == __file__
    assert result.labels == ["dog", "dog", "sky"] and not (result.mask == 1).any()
    with pytest.warns(UserWarning, match="duplicate"):  # each time, not only the first
        model.encode_text(["dog", "dog"])


def test_emoji_and_chinese_are_labels_like_others():
    labels = ["🐈", "猫", "chat noir", "μῆλον"]
    result = predictor().segment(picture(32, 32), labels)
    assert result.labels == labels
    vectors = predictor().encode_text(labels)
    assert vectors.isfinite().all() and vectors.unique(dim=0).shape[0] == 4
    result.legend()  # letters that the font does not know are boxes, no error


def test_a_long_label_is_refused_or_cut_with_a_warning():
    model, long = predictor(), "dog " * 1250  # 5,000 characters; the tiny tower takes 14 words
    with pytest.raises(InputError, match=r"'dog dog.* is longer than CLIP's 16 tokens.*truncate=True"):
        model.segment(picture(32, 32), ["sky", long])
    with pytest.warns(UserWarning, match="16 tokens and was shortened") as caught:
        vectors = model.encode_text(["sky", long], truncate=True)
    assert caught[0].filename == __file__
    torch.testing.assert_close(vectors, model.encode_text(["sky", "dog " * 14]), atol=1e-6, rtol=0)
    with pytest.warns(UserWarning, match="was shortened"):
        assert model.encode_text(["x" * 5000], ["the photo of a {}."], truncate=True).isfinite().all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.encode_text(["sky"], truncate=True)


@pytest.mark.parametrize(
    "labels, reason",
    [
        ([], "empty"),
        ("dog", "not one string"),
        (["dog", "  "], "label 1"),
        (["dog", 3], "label 1 is 3"),
        (torch.zeros(3, 5), r"\(3, 5\).*\(N, 64\)"),
        (torch.zeros(0, 64), r"\(0, 64\)"),
        (torch.zeros(64), r"\(64,\)"),
        (torch.eye(64)[:2] * torch.tensor([[1.0], [torch.nan]]), r"rows \[1\]"),
        (np.zeros((2, 64)), r"rows \[0, 1\]"),
    ],
)
def test_labels_that_cannot_be_used_are_named(labels, reason):
    with pytest.raises(InputError, match=reason):
        predictor().segment(picture(32, 32), labels)


@pytest.mark.parametrize(
    "arguments, reason",
    [
        ({"templates": "clip"}, "imagenet"),
        ({"templates": []}, "imagenet"),
        ({"templates": ["a photo"]}, "'a photo'"),
        ({"names": ["dog"]}, "are their own names"),
    ],
)
def test_arguments_that_cannot_be_used_are_named(arguments, reason):
    with pytest.raises(InputError, match=reason):
        predictor().segment(picture(32, 32), ["dog"], **arguments)


@pytest.mark.parametrize("arguments", [{"templates": "imagenet"}, {"other": True}, {"names": ["one"]}])
def test_a_matrix_goes_with_neither_templates_nor_wrong_names(arguments):
    model = predictor()
    with pytest.raises(InputError, match=r"encode_text first|1 names for 3"):
        model.segment(picture(32, 32), undecided(model.net, 3), **arguments)
