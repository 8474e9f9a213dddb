"""What a training starts from: CLIP's text tower and ImageNet weights, from files and from failing downloads."""

from __future__ import annotations

import urllib.error

import clip
import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

from lseg_utils.errors import InputError
from modules.models import BACKBONES, build_lseg, pretrained
from modules.models.backbones import RANDOM
from modules.models.pretrained import load_pretrained
from modules.training.start import read_weights
from tiny import LABELS, TOWER, pictures, tiny_clip, tiny_net

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.trace.* is deprecated"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]


def script_archive(model: clip.model.CLIP, path) -> None:
    """Write ``model`` as OpenAI distributes CLIP: a TorchScript archive with both halves and their sizes."""

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, child in model.named_children():
                self.add_module(name, child)
            for name, parameter in model.named_parameters(recurse=False):
                self.register_parameter(name, parameter)
            self.register_buffer("input_resolution", torch.tensor(32))
            self.register_buffer("context_length", torch.tensor(TOWER.context_length))
            self.register_buffer("vocab_size", torch.tensor(49408))

        def encode_image(self, image):
            return self.visual(image)

        def encode_text(self, text):
            return model.encode_text(text)

    tokens = clip.tokenize(LABELS, context_length=TOWER.context_length)
    inputs = {"encode_image": pictures(1, 32, 32), "encode_text": tokens}
    torch.jit.trace_module(Wrapped(), inputs, check_trace=False).save(str(path))


def assert_text_tower_of(model: clip.model.CLIP, net) -> None:
    with torch.no_grad():
        features = model.encode_text(clip.tokenize(LABELS, context_length=TOWER.context_length))
    torch.testing.assert_close(net.encode_labels(LABELS), F.normalize(features, dim=1), atol=1e-5, rtol=0)


def write_state_dict(model, path) -> None:
    torch.save(model.state_dict(), path)


def write_half_precision(model, path) -> None:
    torch.save({name: value.half() for name, value in model.state_dict().items()}, path)


@pytest.mark.parametrize("write", [write_state_dict, script_archive])
def test_text_tower_from_a_clip_file(write, tmp_path):
    model, net = tiny_clip(seed=7), tiny_net()
    before = net.encode_labels(LABELS)
    write(model, tmp_path / "clip.pt")
    load_pretrained(net, tmp_path / "clip.pt", RANDOM, read=read_weights)
    assert_text_tower_of(model, net)
    assert not torch.allclose(net.encode_labels(LABELS), before, atol=1e-3)
    assert not any("visual" in name for name in net.state_dict())
    assert not any(p.requires_grad for p in net.text_encoder.parameters())


def test_half_precision_weights_become_float32(tmp_path):
    model, net = tiny_clip(seed=7), tiny_net()
    write_half_precision(model, tmp_path / "clip.pt")
    load_pretrained(net, tmp_path / "clip.pt", RANDOM)
    assert {p.dtype for p in net.text_encoder.parameters()} == {torch.float32}
    model.load_state_dict({name: value.half().float() for name, value in model.state_dict().items()})
    assert_text_tower_of(model, net)


def test_a_clip_of_another_size_is_named(tmp_path):
    write_state_dict(tiny_clip(width=TOWER.width + 64), tmp_path / "other.pt")
    net = tiny_net()
    before = net.encode_labels(LABELS).clone()
    with pytest.raises(ValueError, match=r"other\.pt is not a CLIP file.*: 0 names missing.*of another shape"):
        load_pretrained(net, tmp_path / "other.pt", RANDOM)
    torch.testing.assert_close(net.encode_labels(LABELS), before)


@pytest.mark.parametrize("content", [(1, 2), {"state_dict": [1]}, {"epoch": 3}])
def test_a_file_without_weights_is_named(content, tmp_path):
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(InputError, match=r"odd\.pth contains no weights"):
        read_weights(tmp_path / "odd.pth")


def test_a_damaged_safetensors_file_is_named(tmp_path):
    save_file({"a": torch.zeros(4)}, tmp_path / "odd.safetensors")
    (tmp_path / "odd.safetensors").write_bytes((tmp_path / "odd.safetensors").read_bytes()[:-1])
    with pytest.raises(InputError, match=r"odd\.safetensors.*not a complete"):
        read_weights(tmp_path / "odd.safetensors")


def test_a_clip_with_a_weight_that_is_not_finite_is_refused(tmp_path):
    model = tiny_clip()
    with torch.no_grad():
        model.ln_final.bias[3] = float("inf")
    write_state_dict(model, tmp_path / "broken.pt")
    with pytest.raises(ValueError, match=r"broken\.pt.*infinite.*ln_final\.bias"):
        load_pretrained(tiny_net(), tmp_path / "broken.pt", RANDOM)


def test_a_file_that_is_no_clip_is_named(tmp_path):
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(ValueError, match=r"resnet18\.pth is not a CLIP file.*missing .*(text_proj|resblocks)"):
        load_pretrained(tiny_net(), tmp_path / "resnet18.pth", RANDOM)


def test_vit_from_a_timm_file(tmp_path):
    torch.manual_seed(5)
    vit = VisionTransformer(img_size=64, patch_size=8, embed_dim=96, depth=4, num_heads=3).eval()
    torch.nn.init.normal_(vit.cls_token)
    torch.save(vit.state_dict(), tmp_path / "vit.pth")
    net = tiny_net("tiny_vit")
    reassemble = {name: value.clone() for name, value in net.image_encoder.reassemble.state_dict().items()}
    load_pretrained(net, RANDOM, tmp_path / "vit.pth", read=read_weights)
    seen = []
    handle = net.image_encoder.vit.blocks[3].register_forward_hook(lambda module, inputs, output: seen.append(output))
    images = pictures(1, 64, 64)
    with torch.no_grad():
        net.embed(images)
        torch.testing.assert_close(vit.norm(seen[0]), vit.forward_features(images), atol=1e-4, rtol=1e-4)
    handle.remove()
    for name, value in net.image_encoder.reassemble.state_dict().items():
        torch.testing.assert_close(value, reassemble[name], msg=name)


def test_vit_from_a_file_of_another_vit(tmp_path):
    vit = VisionTransformer(img_size=64, patch_size=8, embed_dim=48, depth=4, num_heads=3)
    torch.save(vit.state_dict(), tmp_path / "narrow.pth")
    with pytest.raises(ValueError, match=r"narrow\.pth is not timm's weights of this network"):
        load_pretrained(tiny_net("tiny_vit"), RANDOM, tmp_path / "narrow.pth")


def test_resnet_from_a_torchvision_file(tmp_path):
    torch.manual_seed(6)
    resnet = torchvision.models.resnet101(weights=None).eval()
    torch.save(resnet.state_dict(), tmp_path / "resnet101.pth")
    net = build_lseg("clip_resnet101", ["dog"], features=16).eval()
    load_pretrained(net, RANDOM, tmp_path / "resnet101.pth", read=read_weights)
    images = pictures(1, 32, 32)
    with torch.no_grad():
        deepest = net.image_encoder(images)[3]
        torch.testing.assert_close(resnet.fc(deepest.mean((2, 3))), resnet(images), atol=1e-4, rtol=1e-4)


def test_random_needs_no_file_and_changes_nothing():
    net, twin = tiny_net("tiny_vit"), tiny_net("tiny_vit")
    load_pretrained(net, RANDOM, RANDOM)
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value, twin.state_dict()[name], msg=name)


# ------------------------------------------------------------------------------------------- failed downloads


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No network, empty caches."""

    def fail(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", fail)
    monkeypatch.setattr("torch.hub.urlopen", fail)
    monkeypatch.setattr(pretrained, "CLIP_CACHE", tmp_path / "clip")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return fail


def test_a_failed_download_of_clip_says_what_to_put_where(offline, tmp_path):
    message = r"download https://\S+/ViT-B-32\.pt.*clip_weights=FILE.*--clip_weights"
    with pytest.raises(ValueError, match=message) as caught:
        pretrained.download_clip("ViT-B/32")
    assert str(tmp_path / "clip" / "ViT-B-32.pt") in str(caught.value)
    assert not list((tmp_path / "clip").glob("*"))


def test_a_failed_download_of_a_resnet_says_what_to_download(offline):
    with pytest.raises(ValueError, match=r"resnet101 .*download https://\S+/resnet101-63fe2227\.pth.*--backbone_w"):
        pretrained.download_backbone(BACKBONES["clip_resnet101"])


@pytest.mark.parametrize("backbone", ["clip_vitb32_384", "clip_vitl16_384"])
def test_a_failed_download_of_a_vit_names_a_file_that_can_be_read(backbone, offline, monkeypatch):
    name = BACKBONES[backbone].image
    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ValueError, match=rf"{name} could not.*--backbone_weights") as caught:
        pretrained.download_backbone(BACKBONES[backbone])
    assert "model.safetensors" in str(caught.value) and f"timm/{name}." in str(caught.value)
    assert ".npz" not in str(caught.value)  # Google's format, which --backbone_weights cannot read


@pytest.mark.parametrize("backbone", ["tiny_vit", "tiny_resnet"])
def test_the_tiny_networks_have_nothing_to_download(backbone, offline):
    with pytest.raises(ValueError, match="--clip_weights"):
        load_pretrained(tiny_net(backbone))
    with pytest.raises(ValueError, match="--backbone_weights"):
        load_pretrained(tiny_net(backbone), RANDOM)


def test_building_downloads_nothing_unless_asked(offline):
    build_lseg("tiny_resnet", ["dog"])
    with pytest.raises(ValueError, match="downloaded"):
        build_lseg("tiny_resnet", ["dog"], pretrained=True)


def test_a_vit_starts_from_clips_image_tower_except_for_its_positions(tmp_path):
    model = clip.model.CLIP(TOWER.embed_dim, 64, 4, 192, 8, TOWER.context_length, 49408, 64, 1, TOWER.layers)
    vit = timm.create_model("vit_tiny_patch16_224", img_size=64, patch_size=8, depth=4)
    before, tower = vit.pos_embed.clone(), model.visual.state_dict()
    pretrained.load_clip_image(vit, model.state_dict(), "clip.pt")
    assert torch.equal(vit.pos_embed, before)
    assert torch.equal(vit.patch_embed.proj.weight, tower["conv1.weight"])
    assert torch.equal(vit.cls_token.flatten(), tower["class_embedding"])
    # A block of CLIP and its copy differ only in their GELU.
    block = model.visual.transformer.resblocks[3]
    tokens = torch.randn(2, 5, 192)
    with torch.no_grad():
        expected = block.attention(block.ln_1(tokens.transpose(0, 1))).transpose(0, 1)
        torch.testing.assert_close(vit.blocks[3].attn(vit.blocks[3].norm1(tokens)), expected, atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match=r"other\.pt is not a CLIP file with an image tower of this shape"):
        pretrained.load_clip_image(vit, {}, "other.pt")
