"""LSegPredictor.embed: the network's own embeddings, in four forms, at any size, with gradients on request."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lseg_utils.errors import InputError
from modules.inference import pixel_embedding
from modules.predictor import VARIANTS, LSegPredictor
from predicting import normalised, picture, predictor, undecided

pytestmark = pytest.mark.usefixtures("one_thread")


def head_output(model: LSegPredictor, image: np.ndarray) -> Tensor:
    """(H/2, W/2, C) of an image whose sides are multiples of 32."""
    with torch.no_grad():
        return model.net.embed(normalised(model.net, image))[0].permute(1, 2, 0)


def at_size(embedding: Tensor, size: tuple[int, int]) -> Tensor:
    """(h, w, C) interpolated."""
    maps = embedding.permute(2, 0, 1)[None]
    return F.interpolate(maps, size, mode="bilinear", align_corners=True)[0].permute(1, 2, 0)


@pytest.mark.parametrize("backbone", ["tiny_resnet", "tiny_vit"])
def test_half_is_net_embed_on_multiples_of_32(backbone):
    model, image = predictor(backbone), picture(64, 96)
    raw = head_output(model, image)
    torch.testing.assert_close(model.embed(image, "half", normalize=False, long_side=96), raw, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.embed(image, "half", long_side=96), F.normalize(raw, dim=-1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("strip", [1, 2**24])
def test_interpolated_embeddings_are_unit_vectors_again(monkeypatch, strip):
    monkeypatch.setattr(pixel_embedding, "STRIP_NUMBERS", strip)
    model, image = predictor(), picture(64, 96)
    embedding = model.embed(image, long_side=96)
    assert embedding.shape == (64, 96, 64)
    expected = F.normalize(at_size(head_output(model, image), (64, 96)), dim=-1)
    torch.testing.assert_close(embedding, expected, atol=1e-5, rtol=0)


def test_the_four_variants():
    model, image = predictor("tiny_vit"), picture(64, 64)
    raw = head_output(model, image)
    mirrored = head_output(model, image[:, ::-1]).flip(1)
    unit, unit_mirrored = F.normalize(raw, dim=-1), F.normalize(mirrored, dim=-1)
    expected = {
        ("raw", False): raw,
        ("unit", False): unit,
        ("scaled", False): unit / 0.07,
        ("raw", (1,)): raw + mirrored,
        ("unit", (1,)): F.normalize(unit + unit_mirrored, dim=-1),
        ("scaled", (1,)): F.normalize(unit + unit_mirrored, dim=-1) / 0.07,
        ("summed", (1,)): unit + unit_mirrored,
    }
    assert {name for name, _ in expected} == set(VARIANTS)
    for (variant, scales), value in expected.items():
        embedding = model.embed(image, "half", variant=variant, multi_scale=scales)
        torch.testing.assert_close(embedding, value, atol=2e-5, rtol=1e-4, msg=lambda text, v=variant: f"{v}: {text}")


def test_normalize_that_contradicts_the_variant_is_refused():
    model, image = predictor("tiny_vit"), picture(64, 64)
    torch.testing.assert_close(model.embed(image, normalize=False), model.embed(image, variant="raw"))
    torch.testing.assert_close(model.embed(image, normalize=False, variant="raw"), model.embed(image, variant="raw"))
    for variant in ("unit", "scaled"):
        with pytest.raises(InputError, match=f"variant '{variant}' is normalised, and normalize is False"):
            model.embed(image, normalize=False, variant=variant)


def test_multi_scale_sums_six_sizes_and_their_mirror_images():
    model, image = predictor(), picture(64, 64)
    looks: list[tuple[int, ...]] = []
    model.net.image_encoder.register_forward_pre_hook(lambda module, inputs: looks.append(tuple(inputs[0].shape[2:])))
    summed = model.embed(image, variant="summed")
    assert [size[0] for size in looks] == [32, 32, 64, 64, 64, 64, 64, 64, 96, 96, 128, 128]
    torch.testing.assert_close(model.embed(image, multi_scale=True), F.normalize(summed, dim=-1), atol=1e-5, rtol=0)
    assert summed.norm(dim=-1).max() > 10


def test_size_and_dtype_are_as_asked():
    model = predictor()
    for size, expected in (("input", (41, 77)), ("half", (21, 39)), ((10, 20), (10, 20))):
        assert model.embed(picture(41, 77), size).shape == (*expected, 64)
    half = model.embed(picture(41, 77), dtype=torch.float16)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), model.embed(picture(41, 77)), atol=1e-3, rtol=0)


def test_similarity_is_the_cosine_whatever_the_variant():
    model, image = predictor(), picture(64, 64)
    texts = ["dog", "sky"]
    cosines = model.similarity(model.embed(image), texts)
    assert cosines.shape == (64, 64, 2) and cosines.abs().max() <= 1 + 1e-5
    torch.testing.assert_close(cosines[5, 7, 1], model.embed(image)[5, 7] @ model.encode_text(["sky"])[0])
    scaled = model.similarity(model.embed(image, variant="scaled"), 3 * model.encode_text(texts))
    torch.testing.assert_close(scaled, cosines, atol=1e-5, rtol=0)


@pytest.mark.filterwarnings("error")
def test_similarity_takes_stored_arrays_and_one_vector(tmp_path):
    model, image = predictor(), picture(32, 32)
    text = model.encode_text(["dog", "sky"])
    cosines = model.similarity(model.embed(image), text)
    np.save(tmp_path / "image.npy", model.embed(image, dtype=torch.float16).numpy())
    for stored in (np.load(tmp_path / "image.npy"), np.load(tmp_path / "image.npy", mmap_mode="r")):
        torch.testing.assert_close(model.similarity(stored, text.numpy()), cosines, atol=1e-3, rtol=0)
    torch.testing.assert_close(model.similarity(model.embed(image), text[1]), cosines[..., 1:])


@pytest.mark.parametrize(("pixels", "texts"), [((4, 5, 3), (2, 64)), ((4, 5, 64), (1, 2, 64)), ((), (2, 64))])
def test_similarity_refuses_what_does_not_compare(pixels, texts):
    with pytest.raises(InputError, match="cannot be compared with texts"):
        predictor().similarity(torch.zeros(pixels), torch.zeros(texts))


def test_gradients_only_on_request():
    model = predictor()
    assert not model.embed(picture(32, 32)).requires_grad
    embedding = model.embed(picture(32, 32), variant="unit", grad=True)
    embedding[3, 4].sum().backward()
    assert model.net.decoder.embedding.weight.grad.abs().sum() > 0
    image = torch.rand(3, 40, 33, requires_grad=True)
    model.embed(image, multi_scale=[0.5, 1]).sum(dim=-1).square().sum().backward()
    assert image.grad.shape == (3, 40, 33) and image.grad.abs().sum() > 0
    texts = torch.nn.Parameter(model.encode_text(["dog"]))
    model.similarity(model.embed(picture(32, 32)), texts).sum().backward()
    assert texts.grad is not None


def test_embeddings_are_the_same_with_gradients():
    model, image = predictor(), picture(50, 70)
    for variant in VARIANTS:
        plain = model.embed(image, variant=variant)
        torch.testing.assert_close(model.embed(image, variant=variant, grad=True).detach(), plain, atol=1e-5, rtol=0)


def test_levels_are_what_the_decoder_gets_and_makes():
    model, image = predictor(), picture(64, 96)
    levels = model.levels(image, 96)
    assert [tuple(level.shape[2:]) for level in levels.encoder] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert [level.shape[1] for level in levels.encoder] == list(model.net.image_encoder.out_channels)
    for encoded, decoded in zip(levels.encoder, levels.decoder, strict=True):
        assert decoded.shape == (1, 16, *encoded.shape[2:])
    with torch.no_grad():
        embedding = model.net.decoder.embedding(levels.decoder[0])
        torch.testing.assert_close(embedding, model.net.coarse_embedding(normalised(model.net, image)))
    assert model.levels(image, grad=True).decoder[0].requires_grad and not levels.decoder[0].requires_grad


@pytest.mark.parametrize(
    "arguments, reason",
    [
        ({"size": "double"}, "double"),
        ({"size": (0, 3)}, r"\(0, 3\)"),
        ({"size": (3.5, 3)}, r"\(3.5, 3\)"),
        ({"size": 7}, "size is 7"),
        ({"size": (40_000, 40_000)}, "limit"),
        ({"variant": "best"}, "unit, raw, scaled, summed"),
        ({"multi_scale": []}, "positive scales"),
        ({"multi_scale": [0, 1]}, "positive scales"),
        ({"multi_scale": ["a"]}, "positive scales"),
        ({"multi_scale": 2}, "positive scales"),
        ({"long_side": -5}, "long_side.* -5"),
    ],
)
def test_arguments_that_cannot_be_used_are_named(arguments, reason):
    with pytest.raises(InputError, match=reason):
        predictor().embed(picture(32, 32), **arguments)


def test_autocast_of_the_caller_changes_nothing():
    model, image = predictor(), picture(64, 32)
    texts = undecided(model.net)

    def found() -> tuple[Tensor, Tensor, Tensor]:
        embedding = model.embed(image, (40, 50))
        return embedding, model.similarity(embedding, texts), model.embed(image, variant="raw")

    exact = found()
    with torch.autocast("cpu", torch.bfloat16):
        for one, other in zip(found(), exact, strict=True):
            assert one.dtype == torch.float32 and torch.equal(one, other)


def test_running_out_of_memory_says_what_to_do(monkeypatch):
    def full(images: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    model = predictor()
    monkeypatch.setattr(model.net.image_encoder, "forward", full)
    for ask in (model.embed, model.levels, lambda image: model.segment(image, ["cat"])):
        with pytest.raises(InputError, match="smaller batch_size.*long_side"):
            ask(picture(32, 32))
