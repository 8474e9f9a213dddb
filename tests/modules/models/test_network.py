"""One tester for all networks: the contract of ``LSegNet`` with a ViT and with a ResNet inside."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torchvision.models import resnet18

from modules.models import BACKBONES, build_lseg
from modules.models.build import ENCODERS
from modules.models.decoder import Decoder
from modules.models.image_encoders import ViTEncoder, resize_position_embedding
from modules.models.text_encoder import TextEncoder
from modules.training.optimization import OptimizationConfig
from modules.training.optimizer import build_optimizer
from tiny import LABELS, TINY, TOWER, pictures, tiny_net

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=TINY)
def net(request):
    return tiny_net(request.param)


@pytest.mark.parametrize("size", [(64, 64), (32, 32), (96, 160), (160, 32)])
@pytest.mark.parametrize("batch", [1, 3])
def test_logits_and_embedding_have_the_promised_shape(net, batch, size):
    images = pictures(batch, *size)
    with torch.no_grad():
        logits, embedding = net(images), net.embed(images)
    assert (logits.shape, logits.dtype) == ((batch, len(LABELS), *size), torch.float32)
    assert (embedding.shape, embedding.dtype) == ((batch, TOWER.embed_dim, size[0] // 2, size[1] // 2), torch.float32)
    assert logits.isfinite().all() and logits.std() > 0


def test_a_seed_draws_the_weights_of_the_encoder_then_the_decoder_then_the_text_tower():
    torch.manual_seed(3)
    net = build_lseg("tiny_resnet", LABELS, features=16)
    torch.manual_seed(3)
    spec = BACKBONES["tiny_resnet"]
    encoder = ENCODERS[spec.encoder](spec, 0.0)
    decoder = Decoder(encoder.out_channels, encoder.strides, 16, TOWER.embed_dim)
    text = TextEncoder(TOWER.embed_dim, TOWER.width, TOWER.layers, TOWER.context_length)
    for built, expected in [(net.image_encoder, encoder), (net.decoder, decoder), (net.text_encoder, text)]:
        weights = dict(built.named_parameters())
        assert weights.keys() == dict(expected.named_parameters()).keys()
        for name, weight in expected.named_parameters():
            assert torch.equal(weights[name], weight), f"{name}: a seed draws other weights than it used to"


def test_encoder_states_its_contract(net):
    encoder = net.image_encoder
    maps = encoder(pictures(2, 64, 96))
    expected = [(2, c, 64 // s, 96 // s) for c, s in zip(encoder.out_channels, encoder.strides, strict=True)]
    assert [tuple(m.shape) for m in maps] == expected


def test_images_of_a_batch_do_not_influence_one_another(net):
    images = pictures(3, 64, 96)
    with torch.no_grad():
        together, alone = net(images), torch.cat([net(image[None]) for image in images])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_a_label_list_per_image_equals_one_call_per_image(net):
    images = pictures(3, 64, 32)
    labels = [["others", "cat"], ["others", "dog"], ["a red car", "others"]]
    with torch.no_grad():
        together = net(images, labels)
        alone = torch.cat([net(image[None], one) for image, one in zip(images, labels, strict=True)])
    assert together.shape == (3, 2, 64, 32)
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(together[0, 1], together[0, 0], atol=1e-3)


def test_labels_may_be_tuples_other_than_the_built_ones_or_a_matrix(net):
    images, labels = pictures(2, 32, 64), ["sky", "sea"]
    with torch.no_grad():
        expected = net(images, labels)
        matrix = net.encode_labels(labels)
        torch.testing.assert_close(net(images, tuple(labels)), expected)
        torch.testing.assert_close(net(images, matrix), expected)
        torch.testing.assert_close(net(images, torch.stack([matrix, matrix.flip(0)]))[1], expected[1].flip(0))
        torch.testing.assert_close(net(images), net(images, LABELS))


def test_a_label_has_the_same_logits_in_every_label_list():
    net, images = tiny_net(), pictures(1, 64, 64)
    with torch.no_grad():
        few, many = net(images, ["dog", "sky"]), net(images, ["tree", "sky", "road", "dog"])
    torch.testing.assert_close(few, many[:, [3, 1]], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("option", [0, 1, 2])
@pytest.mark.parametrize("backbone", TINY)
def test_gradients_reach_what_is_trained_and_nothing_else(backbone, option):
    net = tiny_net(backbone, arch_option=option, block_depth=2).train()
    logits = net(pictures(2, 64, 96))
    (logits * torch.randn(logits.shape)).sum().backward()
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().max() > 0, name
        else:
            assert parameter.grad is None, name


def test_text_tower_is_frozen(net):
    net.train()
    assert net.image_encoder.training and net.decoder.training
    assert not any(module.training for module in net.text_encoder.modules())
    text = set(net.text_encoder.parameters())
    assert text and not any(parameter.requires_grad for parameter in text)
    assert not net.encode_labels(LABELS).requires_grad
    optimizer = build_optimizer(net, OptimizationConfig())
    optimised = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(optimised) == len(set(optimised))
    assert set(optimised) == {p for p in net.parameters() if p.requires_grad}
    assert not text & set(optimised)


def test_what_no_forward_uses_is_not_trained():
    """DDP would wait for it: the deepest fusion's skip unit, the ViT's final norm and classifier."""
    net = tiny_net("tiny_vit")
    unused = [net.decoder.fusions[3].skip_unit, net.image_encoder.vit.norm, net.image_encoder.vit.head]
    assert not any(p.requires_grad for module in unused for p in module.parameters())
    images = pictures(1, 64, 64)
    with torch.no_grad():
        before = net(images)
        for module in unused:
            for parameter in module.parameters():
                parameter.normal_()
        torch.testing.assert_close(net(images), before)


def test_autocast_gives_float32_logits_near_the_exact_ones(net):
    images = pictures(2, 64, 64)
    with torch.no_grad():
        exact = net(images)
        net.text_encoder.clear_cache()
        with torch.autocast("cpu", torch.bfloat16):
            logits, text = net(images), net.encode_labels(LABELS)
        assert net.embed(images).dtype == torch.float32
        net.text_encoder.clear_cache()
        torch.testing.assert_close(text, net.encode_labels(LABELS))
    assert logits.dtype == torch.float32 and logits.isfinite().all()
    assert (logits - exact).abs().mean() < 0.3  # of +-14


def test_validation_in_inference_mode_leaves_a_network_that_can_train(net):
    images = pictures(2, 64, 64)
    with torch.inference_mode():
        net(images)
        net(images, [["sky", "sea"], ["sea", "tree"]])
    net.train()
    net(images).square().mean().backward()
    net(images, [["sky", "sea"], ["sea", "tree"]]).square().mean().backward()
    assert net.decoder.embedding.weight.grad.abs().max() > 0


def test_two_networks_in_one_process_do_not_meet():
    images = pictures(1, 64, 64)
    with torch.no_grad():
        alone = [tiny_net("tiny_vit", seed=seed)(images) for seed in (1, 2)]
        first, second = tiny_net("tiny_vit", seed=1), tiny_net("tiny_vit", seed=2)
        for _ in range(2):
            torch.testing.assert_close(first(images), alone[0])
            torch.testing.assert_close(second(images), alone[1])
    assert not torch.allclose(alone[0], alone[1], atol=1e-2)


def test_a_deep_copy_is_equal_and_independent(net):
    images = pictures(1, 64, 64)
    with torch.no_grad():
        before = net(images)
        twin = copy.deepcopy(net)
        torch.testing.assert_close(twin(images), before)
        twin.load_state_dict(tiny_net(net.architecture["backbone"], seed=5).state_dict())
        assert not torch.allclose(twin(images), before, atol=1e-2)
        torch.testing.assert_close(net(images), before)
    assert not set(twin.parameters()) & set(net.parameters())
    assert not any(p.requires_grad for p in twin.text_encoder.parameters())


def test_the_architecture_builds_the_same_network_again():
    net = tiny_net("tiny_vit", arch_option=1, block_depth=3, activation="tanh", features=24)
    again = build_lseg(labels=net.labels, **net.architecture).eval()
    again.load_state_dict(net.state_dict())
    images = pictures(1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(again(images), net(images))


def test_dropout_acts_in_training_only():
    net, images = tiny_net("tiny_vit", dropout=0.3), pictures(2, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(net(images), net(images))
        net.train()
        assert not torch.allclose(net(images), net(images), atol=1e-3)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_backbone_decides_normalisation_and_sizes(backbone):
    with torch.device("meta"):
        net = build_lseg(backbone, None)
    assert net.mean == ((0.485, 0.456, 0.406) if backbone == "clip_resnet101" else (0.5, 0.5, 0.5))
    assert (net.base_size, net.crop_size) == ((64, 64) if backbone.startswith("tiny") else (520, 480))
    assert net.metadata == {}


# ---------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 64, 70), "64x70: pad to 64x96"),
        ((1, 3, 33, 1), "33x1: pad to 64x32"),
        ((1, 3, 0, 64), "0x64: pad to 32x64"),
        ((3, 64, 64), r"\(B, 3, H, W\).*\(3, 64, 64\)"),
        ((1, 1, 64, 64), r"\(1, 1, 64, 64\)"),
        ((0, 3, 64, 64), r"\(0, 3, 64, 64\)"),
    ],
)
def test_images_that_do_not_fit(net, shape, message):
    with pytest.raises(ValueError, match=message):
        net(torch.zeros(shape))
    with pytest.raises(ValueError, match=message):
        net.embed(torch.zeros(shape))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "empty"),
        ("dog", r"write \['dog'\]"),
        (["dog", " "], "label 1 is ' '"),
        (["dog", 3], "label 1 is 3"),
        (["dog", ["cat"]], r"label 1 is \['cat'\]"),
        (["dog", None], "label 1 is None"),
        (["dog", "a house " * 20], r"'a house a house .*longer than CLIP's 16 tokens"),
        ([["dog"], ["cat", "sky"]], r"2 lists of equal length.*\[1, 2\]"),
        ([["dog"]], "2 lists of equal length here; got 1"),
        ([["dog"]] * 3, "2 lists of equal length here; got 3"),
        ([[], []], "empty"),
        (["dog", ""], "label 1 is ''"),
        ([["dog", "cat"], "ab"], "list of strings, not one string"),
    ],
)
def test_labels_that_do_not_fit(labels, message):
    with pytest.raises(ValueError, match=message):
        tiny_net()(pictures(2, 32, 32), labels)


def test_a_label_given_twice_is_a_warning_that_names_it():
    net = tiny_net(labels=["screen", "dog", "screen"])
    with pytest.warns(UserWarning, match="duplicate labels.*screen") as caught, torch.no_grad():
        logits = net(pictures(1, 32, 32))
    assert caught[0].filename == __file__  # not a line of torch
    torch.testing.assert_close(logits[:, 0], logits[:, 2])


def test_a_network_without_labels_says_how_to_call_it():
    net = tiny_net(labels=None)
    with pytest.raises(ValueError, match=r"net\(images, labels="):
        net(pictures(1, 32, 32))
    assert net(pictures(1, 32, 32), ["dog"]).shape == (1, 1, 32, 32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "vgg16"}, "'vgg16'.*clip_vitl16_384.*tiny_resnet"),
        ({"arch_option": 3}, "arch_option 3"),
        ({"arch_option": 1, "block_depth": -1}, "block_depth is -1"),
        ({"arch_option": 2, "activation": "gelu"}, "'gelu'.*lrelu"),
        ({"labels": []}, "empty"),
        ({"labels": "dog"}, r"\['dog'\]"),
        ({"dropout": 0.1}, "dropout is 0.1.*tiny_resnet"),
    ],
)
def test_impossible_networks(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_lseg(**{"backbone": "tiny_resnet", "labels": LABELS, "features": 16, **arguments})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": {"patch_size": 14, "img_size": 56}}, "14x14.*divide 32"),
        ({"options": {"patch_size": 64, "img_size": 128}}, "64x64.*divide 32"),
        ({"options": {"class_token": False, "global_pool": "avg"}}, "one class token"),
        ({"options": {"reg_tokens": 2}}, "one class token"),
        ({"options": {"no_embed_class": True}}, "position embeddings"),
        ({"options": {"pre_norm": True}}, "normalisation before the first block"),
        ({"image": "vit_tiny_patch16_224", "options": {"pos_embed": "none"}}, "position embeddings"),
        ({"image": "resnet18", "options": {}}, "ResNet is not a plain ViT"),
        ({"hooks": (0, 1, 2)}, r"\(0, 1, 2\).*4 blocks"),
        ({"hooks": (0, 2, 1, 3)}, "ascending"),
        ({"hooks": (1, 2, 3, 4)}, "4 blocks"),
    ],
)
def test_a_backbone_that_does_not_fit(change, message, monkeypatch):
    spec = BACKBONES["tiny_vit"]
    options = spec.options | change.get("options", {})
    if change.get("image") == "resnet18":
        options = {}
        monkeypatch.setitem(ENCODERS, "vit", lambda spec, dropout: ViTEncoder(resnet18(), spec.hooks, spec.channels))
    monkeypatch.setitem(BACKBONES, "other", replace(spec, **{**change, "options": options}))
    with pytest.raises(ValueError, match=message):
        build_lseg("other", LABELS)


def test_the_decoder_refuses_strides_that_it_cannot_fuse():
    with pytest.raises(ValueError, match=r"strides 4, 8, 16, 32.*\(2, 4, 8, 16\)"):
        Decoder((8, 8, 8, 8), (2, 4, 8, 16), 16, 64)


# ------------------------------------------------------------------------------------- position embedding


@pytest.mark.parametrize("grid", [(3, 6), (8, 4), (1, 1), (4, 4), (16, 12)])
def test_position_embedding_is_resized_plainly(grid):
    position = torch.randn(1, 1 + 4 * 4, 5)
    resized = resize_position_embedding(position, grid)
    assert resized.shape == (1, 1 + grid[0] * grid[1], 5)
    torch.testing.assert_close(resized[:, 0], position[:, 0])
    for channel in range(5):
        square = position[0, 1:, channel].reshape(1, 1, 4, 4)
        expected = F.interpolate(square, grid, mode="bilinear", align_corners=False)[0, 0]
        torch.testing.assert_close(resized[0, 1:, channel].reshape(grid), expected)


def test_position_embedding_matters_at_every_size():
    net = tiny_net("tiny_vit")
    flat = torch.zeros(1, 3, 96, 64)  # nothing in the image tells one place from another
    with torch.no_grad():
        embedding = net.embed(flat)
    assert embedding.std(dim=(2, 3)).max() > 1e-3
