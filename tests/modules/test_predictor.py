"""LSegPredictor.segment: the network's own scores at any size, in bounded chunks, without leaks from borders."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from checkpoint_files import official_file, own_file
from encoding_ext import MultiScaleEvaluator
from lseg_utils.errors import InputError
from modules.inference import scores as streamed
from modules.predictor import MODES, LSegPredictor, Segmentation
from predicting import normalised, picture, predictor, undecided
from scripts import REPOSITORY, environment
from tiny import tiny_net

pytestmark = pytest.mark.usefixtures("one_thread")

BLOCKS = ({}, {"arch_option": 1, "block_depth": 3}, {"arch_option": 2, "block_depth": 2})


def all_scores(result: Segmentation) -> Tensor:
    """(N, H, W) in the order of the labels."""
    indices, values = (torch.from_numpy(part) for part in result.scores(len(result.labels)))
    assert (values.diff(dim=0) <= 0).all()
    return torch.empty_like(values).scatter_(0, indices.long(), values)


def assert_is(result: Segmentation, expected: Tensor, tolerance: float = 1e-4) -> None:
    """The result has these scores (N, H, W), and the mask and confidence that follow from them."""
    torch.testing.assert_close(all_scores(result), expected, atol=tolerance, rtol=0)
    best, second = expected.topk(2, dim=0).values
    clear = best - second > 2 * tolerance
    assert clear.float().mean() > 0.9
    assert (torch.from_numpy(result.mask) == expected.argmax(0))[clear].all()
    confidence = torch.from_numpy(result.confidence)
    torch.testing.assert_close(confidence, expected.softmax(0).amax(0), atol=tolerance, rtol=0)


@pytest.mark.parametrize("options", BLOCKS)
def test_autocast_of_the_caller_changes_no_score(options):
    model, image = predictor(**options), picture(64, 32)
    text = undecided(model.net)
    exact = all_scores(model.segment(image, text))
    with torch.autocast("cpu", torch.bfloat16):
        found = all_scores(model.segment(image, text))
    assert torch.equal(found, exact)


@pytest.mark.parametrize("backbone", ["tiny_resnet", "tiny_vit"])
@pytest.mark.parametrize("options", BLOCKS)
@pytest.mark.parametrize("labels_at_a_time", [1, 2, 100])
def test_whole_is_the_network_where_nothing_is_resized(monkeypatch, backbone, options, labels_at_a_time):
    monkeypatch.setattr(streamed, "CANVAS_NUMBERS", 64 * 32 * labels_at_a_time)
    monkeypatch.setattr(streamed, "STRIP_NUMBERS", {"cpu": 32 * 5 * labels_at_a_time})
    model = predictor(backbone, **options)
    image, text = picture(64, 32), undecided(model.net)
    result = model.segment(image, text)
    with torch.no_grad():
        assert_is(result, model.net(normalised(model.net, image), text)[0])
    assert len(np.unique(result.mask)) > 1 or options


@pytest.mark.parametrize("options", BLOCKS)
def test_multi_scale_is_the_published_protocol(options):
    model = predictor(**options)
    image, text = picture(70, 50), undecided(model.net)
    evaluator = MultiScaleEvaluator(lambda images: model.net(images, text), len(text), base_size=64, crop_size=64)
    expected = evaluator(normalised(model.net, image))[0] / 12  # six scales, two mirror images
    assert_is(model.segment(image, text, "multi_scale"), expected)


def test_a_predictor_is_shown_by_its_backbone_and_device():
    assert repr(predictor()) == "LSegPredictor(backbone='tiny_resnet', device='cpu')"


def test_windows_are_averaged_where_they_overlap():
    model = predictor("tiny_vit")
    image, text = picture(32, 96), undecided(model.net)
    with torch.no_grad():
        left, right = (model.net(normalised(model.net, image[:, x : x + 64]), text)[0] for x in (0, 32))
    expected = torch.cat([left[..., :32], (left[..., 32:] + right[..., :32]) / 2, right[..., 32:]], dim=-1)
    assert_is(model.segment(image, text, "windows", long_side=96), expected)


def test_scores_are_resized_to_the_image():
    model = predictor()
    image, text = picture(41, 83), undecided(model.net)
    small = tv.resize(torch.from_numpy(image).permute(2, 0, 1), [32, 64], antialias=True).permute(1, 2, 0).numpy()
    with torch.no_grad():
        logits = model.net(normalised(model.net, small), text)
    expected = torch.nn.functional.interpolate(logits, (41, 83), mode="bilinear", align_corners=True)[0]
    assert_is(model.segment(image, text), expected)


def test_a_network_is_looked_through_at_the_size_of_its_training(tmp_path):
    net = tiny_net("tiny_vit", labels=["dog", "sky"])
    net.base_size, net.crop_size = 160, 96
    model = LSegPredictor.from_checkpoint(own_file(net, tmp_path / "net.ckpt"), "cpu")
    seen: list[tuple[int, ...]] = []
    model.net.image_encoder.register_forward_pre_hook(lambda module, inputs: seen.append(tuple(inputs[0].shape[2:])))
    image = picture(80, 160)
    for look in (model.segment, model.embed, model.levels, lambda image: model.heatmap(image, "dog")):
        look(image)
    assert seen == [(64, 160)] * 4  # 80 rows are rounded to the even multiple of 32
    seen.clear()
    model.segment(image, mode="windows")
    assert {side for size in seen for side in size} == {96}


@pytest.mark.parametrize("mode", MODES)
def test_nothing_leaks_from_images_beside_it(mode):
    model = predictor("tiny_vit")
    text = undecided(model.net)
    images = [picture(50, 70, 1), picture(90, 120, 2), picture(70, 50, 3), picture(100, 140, 4), picture(50, 70, 5)]
    together = list(model.segment_many(iter(images), text, mode, batch_size=3, keep_embeddings=True))
    assert [result.mask.shape for result in together] == [image.shape[:2] for image in images]
    for image, result in zip(images, together):
        assert_is(result, all_scores(model.segment(image, text, mode)))
        np.testing.assert_array_equal(result.image, image)


@pytest.mark.parametrize("mode", ["whole", "windows"])
def test_no_padding_is_ever_seen(mode):
    """Whatever the size, every number that goes into the network comes from the image: a constant stays one."""
    model = predictor()
    seen: list[Tensor] = []
    model.net.image_encoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    for size in ((33, 70), (5, 100), (64, 64), (1, 1), (200, 3)):
        model.segment(np.full((*size, 3), 200, np.uint8), ["dog", "sky"], mode)
    for images in seen:
        assert images.amax() == images.amin()


def test_random_sizes_keep_their_size():
    model, rng = predictor(), np.random.default_rng(0)
    text = undecided(model.net, 2)
    sizes = [(1, 1), (900, 1), (1, 1500), (900, 1500)] + [
        (int(rng.integers(1, 901)), int(rng.integers(1, 1501))) for _ in range(8)
    ]
    images = (np.zeros((*size, 3), np.uint8) for size in sizes)
    for size, result in zip(sizes, model.segment_many(images, text), strict=True):
        assert result.mask.shape == result.confidence.shape == result.image.shape[:2] == size
    for height, width in sizes:
        embedding = model.embed(np.zeros((height, width, 3), np.uint8), "half", dtype=torch.float16, long_side=64)
        assert embedding.shape == (-(-height // 2), -(-width // 2), 64)


def test_an_earlier_result_is_segmented_again_without_the_network():
    model = predictor()
    image, text = picture(40, 60), undecided(model.net)
    first = model.segment(image, text[:3])
    expected = model.segment(image, text), model.heatmap(image, "dog")
    model.net.image_encoder = None
    again, heat = model.segment(first, text), model.heatmap(first, "dog")
    np.testing.assert_array_equal(again.mask, expected[0].mask)
    np.testing.assert_array_equal(heat, expected[1])


def test_results_of_many_keep_embeddings_only_if_asked():
    model = predictor()
    (result,) = model.segment_many([picture(40, 40)], ["dog", "sky"])
    with pytest.raises(InputError, match="keep_embeddings=True"):
        result.scores()
    assert model.segment(result, ["tree"]).mask.shape == (40, 40)  # from its image


def test_heatmap_is_the_cosine_without_the_block():
    image = picture(64, 64)
    plain, with_block = predictor("tiny_vit"), predictor("tiny_vit", **BLOCKS[1])
    with_block.net.load_state_dict(plain.net.state_dict(), strict=False)
    heat = plain.heatmap(image, "a red car")
    result = plain.segment(image, ["a red car"])
    np.testing.assert_allclose(heat, result.scores(1)[1][0] * 0.07, atol=1e-6)
    np.testing.assert_allclose(with_block.heatmap(image, "a red car"), heat, atol=1e-5)
    assert result.confidence.min() == 1.0


def test_labels_may_be_the_networks_own():
    model = LSegPredictor(tiny_net(labels=["dog", "sky"]), "cpu")
    assert model.segment(picture(32, 32)).labels == ["dog", "sky"]
    with pytest.raises(InputError, match="no labels of its own"):
        predictor().segment(picture(32, 32))


def test_from_checkpoint_takes_official_files_with_and_without_a_block(tmp_path):
    image, text = picture(40, 40), None
    for options in BLOCKS:
        net = tiny_net(labels=None, activation="tanh", **options)
        path = official_file(net, tmp_path / "official.ckpt")
        given = {"block_depth": 0, "activation": "tanh", **options} if options else {}
        loaded = LSegPredictor.from_checkpoint(path, "cpu", **given)
        text = undecided(net)
        assert_is(loaded.segment(image, text), all_scores(LSegPredictor(net, "cpu").segment(image, text)))


def test_bfloat16_is_near_float32():
    net = tiny_net("tiny_vit", labels=None)
    image, text = picture(64, 64), undecided(net)
    exact, near = (all_scores(LSegPredictor(net, "cpu", name).segment(image, text)) for name in ("32", "bf16"))
    assert 0 < (exact - near).abs().max() < 1


@pytest.mark.parametrize(
    "arguments, reason",
    [
        ({"mode": "everything"}, "whole, windows, multi_scale"),
        ({"long_side": 0}, "long_side.* 0"),
        ({"long_side": 2.5}, "long_side.* 2.5"),
        ({"batch_size": 0}, "batch_size.* 0"),
        ({"mode": "windows", "long_side": 1_000_000}, "GB is the limit"),
    ],
)
def test_arguments_that_cannot_be_used_are_named(arguments, reason):
    with pytest.raises(InputError, match=reason):
        predictor().segment(picture(40, 40), ["dog"], **arguments)


@pytest.mark.parametrize("more", [{}, {"multi_scale": True}])
def test_a_look_that_needs_too_much_memory_is_refused_before_it_is_taken(more):
    with pytest.raises(InputError, match="GB is the limit"):
        predictor().embed(picture(40, 40), long_side=1_000_000, **more)
    with pytest.raises(InputError, match="GB is the limit"):
        predictor().levels(picture(40, 40), long_side=1_000_000)


@pytest.mark.parametrize(
    "arguments", [{"precision": "8"}, {"device": "toaster"}, {"device": "cuda:99"}, {"crop_size": -1}]
)
def test_a_predictor_that_cannot_be_is_refused(arguments):
    with pytest.raises(InputError, match=r"precision|toaster|cuda|crop_size"):
        LSegPredictor(tiny_net(), **{"device": "cpu", **arguments})


def test_a_bad_image_among_many_is_named(tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    results = predictor().segment_many([picture(32, 32), tmp_path / "empty.jpg"], ["dog"], batch_size=1)
    assert next(results).mask.shape == (32, 32)
    with pytest.raises(InputError, match="empty.jpg"):
        next(results)


def test_one_path_is_not_many_images(tmp_path):
    with pytest.raises(InputError, match="cat.jpg alone call segment"):
        predictor().segment_many("cat.jpg", ["dog"])


@pytest.mark.slow
def test_importing_it_drags_in_no_command_line_no_lightning_and_no_dataset():
    ours = {"apps", "benchmarks", "data", "miniature", "modules.lseg_module", "modules.options", "modules.testing"}
    ours |= {"modules.training", "lseg_utils.cli", "lseg_utils.distributed", "encoding_ext.transforms"}
    others = {"lightning", "lightning_fabric", "pytorch_lightning", "torchmetrics", "streamlit", "wandb"}
    code = "import sys, modules.predictor; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment(), capture_output=True, text=True, check=True
    )
    imported = result.stdout.split()
    assert "modules.inference.scores" in imported
    assert not [name for name in imported for unwanted in ours | others if f"{name}.".startswith(f"{unwanted}.")]
