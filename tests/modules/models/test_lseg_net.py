"""The official names over our network: programs written for the official code get the same numbers."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from modules.checkpoints import to_official
from modules.models import lseg_net
from modules.models.lseg_net import LSegEncNet, LSegFeatureNet, LSegNet, forward_vit
from reference import GOLDEN, assert_golden, golden_image, official_shapes
from tiny import LABELS, TINY, pictures, tiny_net

pytestmark = pytest.mark.usefixtures("one_thread")
FIVE = ["dog", "grass", "sky", "a red car", "other"]
BLOCKS = [
    {},
    {"arch_option": 1, "block_depth": 2},
    {"arch_option": 2, "block_depth": 3, "activation": "tanh"},
    {"arch_option": 2, "activation": "relu"},
]


def official_dict(net) -> dict[str, torch.Tensor]:
    """The weights as official files contain them, without the prefix; CLIP's image tower included."""
    weights = {name.removeprefix("net."): tensor for name, tensor in to_official(net.state_dict()).items()}
    return {**weights, "clip_pretrained.visual.proj": torch.ones(2)}


@pytest.fixture(params=TINY)
def net(request):
    return LSegNet.of(tiny_net(request.param))


@pytest.mark.parametrize("block", BLOCKS, ids=str)
@pytest.mark.parametrize("backbone", TINY)
def test_the_same_function_as_our_network(backbone, block):
    ours = tiny_net(backbone, **block)
    net, images = LSegNet(LABELS, backbone=backbone, features=16, **block).eval(), pictures(2, 64, 96)
    net.load_state_dict(official_dict(ours))
    with torch.inference_mode():
        torch.testing.assert_close(net(images), ours(images), atol=1e-5, rtol=0)
        torch.testing.assert_close(net(images, FIVE), ours(images, FIVE), atol=1e-5, rtol=0)
        torch.testing.assert_close(net.raw_features(images), ours.embed(images), atol=1e-5, rtol=0)
        assert torch.equal(net.unit_features(images), F.normalize(net.raw_features(images), dim=1))
        torch.testing.assert_close(net.network(images), ours(images), atol=1e-5, rtol=0)
        for result in (net(images), net.raw_features(images), net.unit_features(images)):
            assert result.is_contiguous() and result.dtype == torch.float32
    again = ours.state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in net.network.state_dict().items())


@pytest.mark.parametrize("network", ["vitl16_arch0", "vitb32_arch1_depth2_lrelu"])
def test_official_names_and_shapes(network):
    options = {"arch_option": 1, "block_depth": 2, "backbone": "clip_vitb32_384"} if "b32" in network else {}
    with torch.device("meta"):
        net = LSegNet("", **options)
    expected = {
        name.removeprefix("net."): shape
        for name, (shape, _) in official_shapes(network).items()
        if ".visual." not in name
    }
    assert {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()} == expected
    assert (net.out_c, net.text.shape, net.crop_size) == (512, (1, 77), 480)


def test_a_hook_on_head1_sees_the_embedding_at_half_size(net):
    seen = []
    net.scratch.head1.register_forward_hook(lambda module, inputs, output: seen.append(output))
    images = pictures(1, 64, 96)
    net(images)
    assert seen[0].shape == (1, net.out_c, 32, 48)
    assert torch.equal(seen[0], net.raw_features(images))


@pytest.mark.parametrize("place", ["head1", "refinenet2", "output_conv", "act_postprocess1", "readout"])
def test_whoever_looks_at_a_part_sees_the_official_order(place):
    net, images, seen = LSegNet.of(tiny_net("tiny_vit")), pictures(1, 64, 96), []
    expected = net(images), net.raw_features(images)
    parts = {
        "act_postprocess1": net.pretrained.act_postprocess1[0],
        "readout": net.pretrained.act_postprocess1[0].project[0],
    }
    part = parts.get(place) or getattr(net.scratch, place)
    handle = part.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    torch.testing.assert_close((net(images), net.raw_features(images)), expected, atol=1e-5, rtol=0)
    assert seen
    shapes = {"head1": (64, 32, 48), "refinenet2": (16, 16, 24), "output_conv": (3, 64, 96)}
    assert place not in shapes or seen[0][1:] == shapes[place]
    handle.remove()
    assert torch.equal(net(images), expected[0])


def test_a_part_that_was_replaced_is_used():
    net, images = LSegNet.of(tiny_net("tiny_vit")), pictures(1, 64, 96)
    tokens = {level: part.clone() for level, part in (net(images), net.pretrained.activations)[1].items()}
    assert list(tokens) == list("1234") and tokens["1"].shape == (1, 1 + 8 * 12, 96)
    net.scratch.output_conv = nn.Identity()
    assert net(images).shape == (1, 3, 32, 48)
    other = LSegNet.of(tiny_net("tiny_vit"))
    other.scratch.head1 = nn.Conv2d(16, 64, 1)
    nn.init.zeros_(other.scratch.head1.weight)
    assert (other.raw_features(images) == other.scratch.head1.bias[:, None, None]).all()


def test_text_is_encoded_once(net):
    calls, images = [], pictures(1, 32, 32)
    net.clip_pretrained.transformer.register_forward_hook(lambda *_: calls.append(1))
    for _ in range(3):
        net(images)
        net(images, FIVE)
    assert len(calls) == 2
    tokens = net.clip_pretrained.tokenize(FIVE)
    features = [net.clip_pretrained.encode_text(tokens) for _ in range(3)]
    assert len(calls) == 3 and features[0].dtype == torch.float16
    unit = F.normalize(features[0].float(), dim=-1)
    torch.testing.assert_close(unit, net.encode_labels(FIVE), atol=2e-3, rtol=0)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("change", ["missing", "unexpected"])
def test_incomplete_weights_are_always_refused_by_name(change, strict):
    net = LSegNet("", backbone="tiny_vit", features=16)
    weights = official_dict(net.network)
    if change == "missing":
        del weights["scratch.head1.weight"]
        name = "scratch.head1.weight"
    else:
        weights["scratch.head2.weight"] = torch.ones(1)
        name = "scratch.head2.weight"
    with pytest.raises(RuntimeError, match=name):
        net.load_state_dict(weights, strict=strict)
    parent = nn.ModuleDict({"lseg": net, "other": nn.Linear(1, 1)})
    with pytest.raises(RuntimeError, match=f"lseg.{name}"):
        parent.load_state_dict({f"lseg.{key}": value for key, value in weights.items()}, strict=strict)


def test_inside_a_larger_network():
    net = LSegNet("", backbone="tiny_vit", features=16)
    parent = nn.ModuleDict({"lseg": net, "other": nn.Linear(1, 1)})
    weights = parent.state_dict()
    assert {name for name in weights if name.startswith("lseg.")} == {f"lseg.{name}" for name in net.state_dict()}
    fresh = nn.ModuleDict({"lseg": LSegNet("", backbone="tiny_vit", features=16), "other": nn.Linear(1, 1)})
    fresh.load_state_dict({**weights, "lseg.clip_pretrained.visual.proj": torch.ones(2)})
    images = pictures(1, 32, 32)
    assert torch.equal(fresh.eval()["lseg"](images, ["cat"]), parent.eval()["lseg"](images, ["cat"]))
    # A larger network's own weights say nothing about LSeg's.
    fresh.load_state_dict({name: value for name, value in weights.items() if name[0] == "o"}, strict=False)


def test_copies_are_independent_and_whole(net):
    images = pictures(1, 32, 32)
    net(images).sum().backward()  # activations with a graph cannot be copied, and are not
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net.requires_grad_(False)))):
        assert torch.equal(other(images), net(images))
        other.scratch.head1.weight.data.zero_()
        other.scratch.head1.bias.data.zero_()
        assert not other.raw_features(images).any() and not other.network.embed(images).any()
        assert net.raw_features(images).any()


def test_precision_and_mode_reach_our_network(net):
    net.double().train()
    assert net.network.decoder.embedding.weight.dtype == torch.float64
    assert net.clip_pretrained.text_projection.dtype == torch.float32  # the text tower stays as it is
    assert all(module.training for module in net.network.decoder.modules() if isinstance(module, nn.BatchNorm2d))


def test_images_in_another_range_are_reported_once(net):
    grey = pictures(1, 32, 32).sigmoid()
    for images in (grey, grey * 255):
        net.check_range = True
        with pytest.warns(UserWarning, match="does not look normalised") as caught:
            net(images)
        assert caught[0].filename == __file__
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            net(images)
    net.check_range = True
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net(pictures(1, 32, 32))
        net.check_range = True
        net(torch.zeros(1, 3, 32, 32))
        net.check_range = False
        net(grey)


def test_what_cannot_be_built_or_called():
    with pytest.raises(ValueError, match="project"):
        LSegNet("", backbone="tiny_vit", readout="ignore")
    net = LSegNet("", backbone="tiny_vit", features=16).eval()
    with pytest.raises(ValueError, match="no labels"):
        net(pictures(1, 32, 32))
    with pytest.raises(AttributeError, match="auxlayer"):
        _ = net.auxlayer
    with pytest.raises(AttributeError, match="clipp"):
        _ = lseg_net.clipp


def test_files_of_tensors_are_loaded_and_others_refused(tmp_path):
    ours = tiny_net("tiny_vit")
    torch.save(official_dict(ours), tmp_path / "plain.pt")
    net = LSegNet(LABELS, str(tmp_path / "plain.pt"), backbone="tiny_vit", features=16).eval()
    torch.testing.assert_close(net(pictures(1, 32, 32)), ours(pictures(1, 32, 32)), atol=1e-5, rtol=0)
    (tmp_path / "text.pt").write_text("not a file of tensors")
    with pytest.raises(ValueError, match=r"text\.pt .*modules\.zoo convert"):
        net.load(tmp_path / "text.pt")


# ------------------------------------------------------------------- calling code, one test per family of projects


class Extractor(LSegNet):
    """What projects for 3D reconstruction do (LSM, Uni3R, C3G): subclass, reach inside, decode labels later."""

    @classmethod
    def from_checkpoint(cls, content, **options):
        weights = {name[len("net.") :]: tensor for name, tensor in content["state_dict"].items() if "net." in name[:4]}
        net = cls(labels="", crop_size=224, arch_option=0, block_depth=0, activation="lrelu", **options)
        net.load_state_dict(weights, strict=True)
        return net.eval()

    def features(self, images):
        outer = self.pretrained
        outer.model.forward_flex(images)
        side = outer.model.patch_size[1]
        grid = torch.Size([images.shape[2] // side, images.shape[3] // side])
        maps = []
        for level in "1234":
            post = getattr(outer, f"act_postprocess{level}")
            tokens = post[0:2](outer.activations[level])
            maps.append(post[3 : len(post)](nn.Unflatten(2, grid)(tokens)))
        scratch = self.scratch
        path = scratch.refinenet4(scratch.layer4_rn(maps[3]))
        for refine, project, level in (
            (scratch.refinenet3, scratch.layer3_rn, maps[2]),
            (scratch.refinenet2, scratch.layer2_rn, maps[1]),
            (scratch.refinenet1, scratch.layer1_rn, maps[0]),
        ):
            path = refine(path, project(level))
        return scratch.head1(path)

    def decode(self, features, labels):
        self.logit_scale = self.logit_scale.to(features.device)
        text = self.clip_pretrained.encode_text(self.tokens(labels).to(features.device))
        batch, _, height, width = features.shape
        pixels = features.permute(0, 2, 3, 1).reshape(-1, self.out_c)
        pixels = pixels / pixels.norm(dim=-1, keepdim=True)
        text = text / text.norm(dim=-1, keepdim=True)
        logits = self.logit_scale * pixels.half() @ text.t()
        return self.scratch.output_conv(logits.float().view(batch, height, width, -1).permute(0, 3, 1, 2))

    def tokens(self, labels):
        return self.clip_pretrained.tokenize(labels)


def check_extractor(ours, **options):
    content = {"state_dict": {f"net.{name}": tensor for name, tensor in official_dict(ours).items()}}
    net, images = Extractor.from_checkpoint(content, **options), pictures(2, 64, 96).clamp(-1, 1)
    with torch.no_grad():
        features = net.features(images)
        torch.testing.assert_close(features, ours.embed(images), atol=1e-5, rtol=0)
        expected = ours(images, FIVE)
        torch.testing.assert_close(net.decode(features, FIVE), expected, atol=2e-2, rtol=0)  # float16 inside
    return net


def test_subclasses_that_reach_inside():
    check_extractor(tiny_net("tiny_vit"), backbone="tiny_vit", features=16)


def test_networks_that_return_embeddings():
    ours, images = tiny_net("tiny_vit"), pictures(1, 64, 64)
    scaled, logits = LSegEncNet.of(ours)(images, FIVE)
    half = F.normalize(ours.embed(images), dim=1) / 0.07
    expected = F.interpolate(half, scale_factor=2, mode="bilinear", align_corners=True)
    torch.testing.assert_close(scaled, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(logits, ours(images, FIVE), atol=1e-5, rtol=0)

    minimal = LSegFeatureNet(backbone="tiny_vit", features=16, crop_size=480, scale_factor=1.0)
    minimal.load_state_dict(official_dict(ours))
    raw = minimal.eval()(images)
    assert not raw.requires_grad
    torch.testing.assert_close(raw, ours.embed(images), atol=1e-5, rtol=0)
    import modules

    assert modules.LSegNet is LSegFeatureNet


def test_forward_vit_is_where_it_was():
    from modules.models import lseg_blocks, lseg_vit

    net, images = LSegNet.of(tiny_net("tiny_vit")), pictures(1, 64, 64)
    assert lseg_vit.forward_vit is lseg_blocks.forward_vit is forward_vit
    for ours, theirs in zip(net.network.image_encoder(images), forward_vit(net.pretrained, images), strict=True):
        torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=0)


# ------------------------------------------------------------------------------------ the official network's numbers


@pytest.mark.slow
@pytest.mark.xdist_group("golden")
def test_golden_numbers_under_the_official_names(golden_net):
    """One pass of each kind: that the whole is our network's function is shown above."""
    net, golden = LSegNet.of(golden_net("vitb32_arch0", "clip_vitb32_384")), np.load(GOLDEN / "vitb32_arch0.npz")
    image = golden_image(352, 480, seed=7, batch=2)
    with torch.inference_mode():
        assert_golden(net(image, FIVE), golden, "labelset5.2x352x480", atol=1e-4)
        for level, features in enumerate(forward_vit(net.pretrained, image), start=1):
            assert_golden(features, golden, f"layer{level}", atol=1e-4)


def test_networks_whose_parts_have_no_official_names_are_refused():
    with pytest.raises(ValueError, match="plain classifier"):
        LSegNet.of(tiny_net(classes=["sky", "grass"]))
    with pytest.raises(ValueError, match=r"timm:test_resnet\.r160_in1k.*load_lseg"):
        LSegNet.of(tiny_net("timm:test_resnet.r160_in1k", text_tower="tiny"))
