"""Networks of timm as image encoders: every family in a tiny version, and the traps that each one sets."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from torch import nn

import train_lseg
from ade_tree import make_tree
from data import get_labels
from lseg_utils.errors import InputError
from modules.checkpoints import load_lseg, metadata_of, save_file, to_official
from modules.exporting import ExportTower, facts, trace, write_onnx, write_program
from modules.models import LSegNet, build_lseg
from modules.models.image_encoders import STRIDES
from modules.models.named import backbone_spec
from modules.models.pretrained import load_pretrained
from modules.models.timm_encoders import has_class_token, licence_note, timm_backbone
from modules.predictor import LSegPredictor
from modules.training.optimization import OptimizationConfig
from modules.training.optimizer import apply_settings, build_optimizer
from modules.training.start import NetworkChoice, build_network
from scripts import TINY
from tiny import LABELS, pictures
from tiny_timm import FAMILIES, PATCH, make_small

NO_CLASS_TOKEN = ("siglip", "gap_")
# Patches of 14 pixels, which do not divide an image, with positions that are added and that rotate; a pyramid.
EXPORTED = ("vit_pe_core_large_patch14_336", "convnext_atto")


@pytest.fixture(autouse=True, scope="module")
def small_networks():
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        yield
    timm_backbone.cache_clear()  # it has kept the specifications of small networks


def small_net(name: str, seed: int = 0) -> LSegNet:
    """A small random network around a member of ``FAMILIES``, in training mode."""
    torch.manual_seed(seed)
    return build_lseg(f"timm:{name}", LABELS, features=16, text_tower="tiny")


def family(part: str) -> str:
    """The first member of ``FAMILIES`` whose name contains ``part``."""
    return next(name for name in FAMILIES if part in name)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family(name):
    """Maps at the four strides, a gradient for every trained parameter, half precision, the size of any picture."""
    net = small_net(name)
    with torch.no_grad():
        for parameter in net.parameters():
            if not parameter.any():  # residual branches that begin with 0 hide what is in them
                parameter.normal_(std=0.2)
    encoder, images = net.image_encoder, pictures(2, 96, 160)
    maps = encoder(images)
    assert [tuple(level.shape) for level in maps] == [
        (2, channels, 96 // stride, 160 // stride)
        for channels, stride in zip(encoder.out_channels, STRIDES, strict=True)
    ]
    logits = net(images)
    assert logits.shape == (2, len(LABELS), 96, 160)
    logits.square().mean().backward()
    without = [key for key, p in net.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert without == []

    net.eval()
    with torch.no_grad():
        expected = net.coarse_embedding(images)
        with torch.autocast("cpu", torch.bfloat16):
            reduced = net.coarse_embedding(images).float()
    assert (reduced - expected).norm() < 0.1 * expected.norm()
    with pytest.raises(ValueError, match="96x160"):
        net(pictures(1, 90, 130))

    rgb = np.random.default_rng(0).integers(0, 255, (37, 61, 3), np.uint8)
    assert LSegPredictor(net, device="cpu").segment(rgb, LABELS).mask.shape == (37, 61)


@pytest.mark.parametrize("name", FAMILIES)
def test_images_are_normalised_as_the_weights_expect_them(name):
    config = timm.get_pretrained_cfg(name)
    net = small_net(name)
    assert (tuple(net.mean), tuple(net.std)) == (tuple(config.mean), tuple(config.std))
    tower = LSegPredictor(net.eval(), device="cpu")._tower
    grey = torch.tensor(config.mean).view(3, 1, 1).expand(3, 8, 8)
    assert tower.normalised(grey).abs().max() < 1e-6
    assert torch.allclose(tower.normalised(grey + torch.tensor(config.std).view(3, 1, 1)), torch.ones(3, 8, 8))


def test_families_differ_in_what_they_normalise_with():
    assert len({backbone_spec(f"timm:{name}").mean for name in FAMILIES}) == 4
    assert backbone_spec(f"timm:{family('tipsv2')}").std == (1, 1, 1)


def test_pictures_within_0_and_1_are_no_doubt_where_nothing_is_subtracted(recwarn):
    net = small_net(family("tipsv2")).eval()
    net(pictures(1, 64, 64).sigmoid())
    assert not [warning for warning in recwarn if "normalised" in str(warning.message)]


@pytest.mark.parametrize("name", [name for name in PATCH if "distilled" not in name])
def test_the_class_token_is_read_and_registers_are_not(name, monkeypatch):
    """Registers that are NaN change nothing; the class token reaches the maps of the networks that have one."""
    net = small_net(name).eval()
    network, encoder, images = net.image_encoder.timm, net.image_encoder, pictures(1, 64, 64)
    assert encoder.class_token == has_class_token(network) != any(part in name for part in NO_CLASS_TOKEN)
    original, shift = network.forward_intermediates, 0.0

    def marked(*args, **options):
        """As timm's, but the class token is shifted and the registers are NaN."""
        found = original(*args, **options)
        if not options.get("return_prefix_tokens"):
            return found
        return [(patches, torch.cat([p[:, :1] + shift, p[:, 1:] * torch.nan], dim=1)) for patches, p in found]

    monkeypatch.setattr(network, "forward_intermediates", marked)
    with torch.no_grad():
        before = encoder(images)
        shift = 5.0
        after = encoder(images)
    assert all(level.isfinite().all() for level in before)
    moved = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert moved == [encoder.class_token] * 4


@pytest.mark.parametrize("name", [name for name in PATCH if not any(part in name for part in NO_CLASS_TOKEN)])
def test_the_class_token_is_the_first(name):
    """What timm puts in front of the patches begins with the class token."""
    network = small_net(name).eval().image_encoder.timm
    patches = network.patch_embed(pictures(1, 4 * PATCH[name], 4 * PATCH[name]))
    with torch.no_grad():
        before, *_ = (network._pos_embed(patches),) if name.startswith(("vit_s", "vit_b", "deit")) else (None,)
        network.cls_token.add_(3.0)
        after = network._pos_embed(patches)
    found = [one[0] if isinstance(one, tuple) else one for one in (before, after)]
    if found[0] is None:
        network.cls_token.data.sub_(3.0)
        found[0] = network._pos_embed(patches)[0]
    changed = (found[1] - found[0]).abs().amax(dim=(0, 2)) > 1
    assert changed.tolist() == [True] + [False] * (changed.numel() - 1)


def test_a_patch_of_14_takes_the_nearest_whole_number_of_patches(monkeypatch):
    net, seen = small_net(family("patch14_reg4")), []
    proj = net.image_encoder.timm.patch_embed.proj
    proj.register_forward_pre_hook(lambda module, inputs: seen.append(tuple(inputs[0].shape[2:])))
    for side in (32, 64, 96, 480):
        net.image_encoder(pictures(1, side, side))
    assert seen == [(28, 28), (70, 70), (98, 98), (476, 476)]


def test_positions_in_the_maps_are_those_of_the_image():
    """A dot in the image moves the four maps where it is, for patches that divide 32 and for those that do not."""
    for part in ("patch14_reg4", "patch16_384", "convnext_atto", "swin_tiny"):
        encoder = small_net(family(part)).eval().image_encoder
        images = torch.zeros(2, 3, 224, 224)
        images[1, :, 160:176, 48:64] = 4.0
        with torch.no_grad():
            for level, stride in zip(encoder(images), STRIDES, strict=True):
                moved = (level[1] - level[0]).square().sum(0)
                at = divmod(int(moved.argmax()), moved.shape[1])
                assert abs(at[0] * stride - 168) <= 32 and abs(at[1] * stride - 56) <= 32, (part, stride, at)


def test_a_frozen_encoder_keeps_still_while_the_rest_learns():
    net = small_net("test_resnet.r160_in1k")
    net.image_encoder.freeze()
    net.train()
    before = {key: value.clone() for key, value in net.image_encoder.network.state_dict().items()}
    optimizer = build_optimizer(net, OptimizationConfig())
    for _ in range(2):
        net(pictures(2, 64, 64)).square().mean().backward()
        optimizer.step()
    after = net.image_encoder.network.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)  # statistics of batch norm too
    assert net.decoder.embedding.weight.grad is not None and net.decoder.training
    assert all(p.grad is None for p in net.image_encoder.network.parameters())


def test_tokens_of_a_frozen_encoder_are_reassembled_by_what_is_trained():
    net = small_net(family("siglip"))
    net.image_encoder.freeze()
    net(pictures(1, 64, 64)).square().mean().backward()
    assert all(p.grad is not None for p in net.image_encoder.reassemble.parameters())


def test_rates_by_layer():
    """Each block learns at half of the next one's rate, decoder and head at their own, which no factor changes."""
    net = small_net(family("dinov2"))
    config = OptimizationConfig(base_lr=1.6, encoder_lr_factor=0.5, layer_decay=0.5, optimizer="adamw")
    assert config.encoder_lr == pytest.approx(0.05) and config.scratch_lr == pytest.approx(1.0)
    optimizer = build_optimizer(net, config)
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    blocks = [rate[id(block.attn.qkv.weight)] for block in net.image_encoder.timm.blocks]
    assert blocks == pytest.approx([0.05 / 8, 0.05 / 4, 0.05 / 2, 0.05])
    assert rate[id(net.image_encoder.timm.pos_embed)] == pytest.approx(0.05 / 16)
    assert rate[id(net.image_encoder.reassemble[0].project.weight)] == pytest.approx(0.05)
    assert rate[id(net.decoder.embedding.weight)] == pytest.approx(1.0)
    assert rate.keys() == {id(p) for p in net.parameters() if p.requires_grad}
    apply_settings(optimizer, OptimizationConfig(base_lr=3.2, layer_decay=0.5, optimizer="adamw"))
    assert [group["initial_lr"] for group in optimizer.param_groups[:3]] == pytest.approx([0.2, 2.0, 0.2])


def test_two_groups_without_layer_decay():
    net, config = small_net(family("dinov2")), OptimizationConfig()
    groups = build_optimizer(net, config).param_groups
    assert [group["lr"] for group in groups] == [config.encoder_lr, config.scratch_lr]
    state = build_optimizer(net, config)
    for group in state.param_groups:  # as in the file of an earlier version
        group.pop("scale", None)
    apply_settings(state, OptimizationConfig(base_lr=0.016))
    assert [group["initial_lr"] for group in state.param_groups] == pytest.approx([0.001, 0.01])


def test_checkpointing_gives_the_same_gradients():
    net, images = small_net(family("dinov3")), pictures(2, 64, 64)
    found = []
    for again in (False, True):
        net.image_encoder.recompute(again)
        net.zero_grad()
        net(images).square().mean().backward()
        found.append(net.image_encoder.timm.blocks[0].mlp.fc1.weight.grad.clone())
    assert torch.allclose(*found, rtol=1e-4)
    with pytest.raises(ValueError, match="batch norm"):
        small_net("test_resnet.r160_in1k").image_encoder.recompute(True)


@pytest.mark.parametrize("part", ["reg4_dinov2", "dinov3", "swin_tiny", "test_efficientnet"])
def test_a_checkpoint_builds_the_network_again(part, tmp_path):
    """The file's own description is enough, normalisation included; tables that are in no file are there again."""
    net = small_net(family(part)).eval()
    save_file({"state_dict": to_official(net.state_dict()), "lseg": metadata_of(net)}, tmp_path / "a.ckpt")
    loaded = load_lseg(tmp_path / "a.ckpt")
    assert loaded.architecture == net.architecture and loaded.architecture["text_tower"] == "tiny"
    assert (loaded.mean, loaded.std, loaded.labels) == (net.mean, net.std, LABELS)
    images = pictures(1, 64, 96)
    assert torch.equal(loaded(images), net(images))


def test_weights_of_timm_are_read_by_its_names():
    net, network = small_net(family("dinov2")), timm.create_model(family("dinov2"))
    with pytest.raises(ValueError, match="1 names missing"):
        load_pretrained(net, "random", "file", lambda path: dict(list(network.state_dict().items())[1:]))
    load_pretrained(net, "random", "file", lambda path: network.state_dict())
    assert torch.equal(net.image_encoder.timm.blocks[0].attn.qkv.weight, network.blocks[0].attn.qkv.weight)


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("vit_smal_patch16_384", ["vit_small_patch16_384"]),
        ("vit_small_patch16_384.augreg", ["augreg_in1k", "augreg"]),
        ("mixer_s16_224", ["mixer_s16_224", "64x96"]),
        ("levit_128", ["[4, 8]", "ConvNeXt"]),
        ("beit_base_patch16_224", ["beit", "64x96"]),
    ],
)
def test_what_cannot_be_an_encoder_is_refused(name, facts):
    with pytest.raises(ValueError) as refused:
        backbone_spec(f"timm:{name}")
    assert all(fact in str(refused.value) for fact in facts), str(refused.value)


def test_an_unknown_backbone_names_the_nearest():
    with pytest.raises(ValueError, match="clip_vitl16_384"):
        backbone_spec("clip_vitl16_383")


def test_licences_that_restrict_are_told():
    assert "dinov3-license" in licence_note(backbone_spec(f"timm:{family('dinov3')}"))
    assert "cc-by-nc-4.0" in licence_note(backbone_spec("timm:convnextv2_atto.fcmae"))
    assert licence_note(backbone_spec(f"timm:{family('dinov2')}")) == licence_note(backbone_spec("tiny_vit")) == ""


@pytest.mark.slow
@pytest.mark.parametrize("part", EXPORTED)
def test_both_export_formats_compute_the_same(part, tmp_path):
    net = small_net(family(part)).eval()
    tower = ExportTower(net).eval()
    program = trace(tower)
    for write, path in ((write_program, tmp_path / "a.pt2"), (write_onnx, tmp_path / "a.onnx")):
        assert write(program, path, tower, facts(net))["largest_difference"] < 1e-4


def test_dropout_is_for_vits():
    torch.manual_seed(0)
    net = build_lseg(f"timm:{family('dinov2')}", LABELS, features=16, text_tower="tiny", dropout=0.3)
    rates = {part.p for part in net.image_encoder.modules() if isinstance(part, nn.Dropout)}
    assert 0.3 in rates
    with pytest.raises(ValueError, match="dropout"):
        build_lseg("timm:test_resnet.r160_in1k", LABELS, features=16, text_tower="tiny", dropout=0.3)


@pytest.mark.slow
def test_training_resumes_and_its_checkpoint_predicts(tmp_path, capsys):
    """The scripts know a network of timm by its name; a run with other settings is not resumed."""
    root = make_tree(tmp_path / "datasets", train=4, val=2)
    line = [
        "--dataset",
        "ade20k",
        "--data_path",
        str(root),
        "--checkpoint_dir",
        str(tmp_path),
        *TINY,
        "--exp_name",
        "a",
    ]
    line += ["--backbone", f"timm:{family('convnextv2')}", "--text_tower", "tiny", "--batch_size", "2"]
    line += ["--logger", "none"]
    train_lseg.main([*line, "--max_epochs", "1"])
    assert "cc-by-nc-4.0" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"layer_decay was 1\.0, is now 0\.5"):
        train_lseg.main([*line, "--max_epochs", "2", "--layer_decay", "0.5"])
    train_lseg.main([*line, "--max_epochs", "2"])
    last = tmp_path / "a" / "version_0" / "checkpoints" / "last.ckpt"
    predictor = LSegPredictor.from_checkpoint(last, device="cpu")
    assert predictor.segment(np.zeros((40, 50, 3), np.uint8), ["sky", "tree"]).mask.shape == (40, 50)
    other = NetworkChoice(f"timm:{family('convnextv2')}", text_tower="ViT-B/16", finetune_weights=last)
    with pytest.raises(InputError, match="ViT-B/16.*tiny"):
        build_network(other, get_labels("ade20k"))


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        ({"backbone": "timm:vit_smal_patch16_384"}, "vit_small_patch16_384"),
        ({"backbone": "tiny_vit", "text_tower": "ViT-B/61"}, "ViT-B/16"),
        ({"backbone": "tiny_vit", "freeze_encoder": True, "backbone_weights": "random"}, "freeze_encoder"),
        ({"backbone": "tiny_vit", "head": "classes", "text_tower": "tiny"}, "text_tower"),
    ],
)
def test_choices_that_cannot_be_trained(options, fact):
    with pytest.raises(InputError, match=fact):
        NetworkChoice(**options)
