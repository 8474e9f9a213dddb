"""Which network a checkpoint belongs to: by its shapes, by CLIP's image tower, by what is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from checkpoint_files import assert_same_function, official_file, official_weights
from lseg_utils.errors import InputError
from modules.architecture import recognise_backbone
from modules.checkpoint_file import CheckpointFile
from modules.checkpoints import from_official, load_lseg
from reference import official_shapes
from tiny import TINY, tiny_net

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=TINY)
def net(request):
    return tiny_net(request.param)


@pytest.mark.parametrize(
    ("network", "backbone"),
    [
        ("vitl16_arch0", "clip_vitl16_384"),
        ("rn50x16_vitl16_arch0", "clipRN50x16_vitl16_384"),
        ("vitb32_arch0", "clip_vitb32_384"),
        ("vitb32_arch1_depth2_lrelu", "clip_vitb32_384"),
        ("zs_vitl16", "clip_vitl16_384"),
        ("zs_resnet101_pascal", "clip_resnet101"),
    ],
)
def test_official_backbones_are_recognised_by_their_shapes(network, backbone):
    weights = {name: torch.empty(shape, device="meta") for name, (shape, _) in official_shapes(network).items()}
    patch = official_shapes(network)["net.clip_pretrained.visual.conv1.weight"][0][-1]
    assert recognise_backbone(CheckpointFile(Path("x.ckpt"), from_official(weights), {}, patch)) == backbone


def test_clips_image_tower_tells_text_towers_of_the_same_shapes_apart():
    shapes = official_shapes("vitb32_arch0")
    weights = from_official({name: torch.empty(shape, device="meta") for name, (shape, _) in shapes.items()})
    for patch, backbone in ((32, "clip_vitb32_384"), (16, "clipb16_vitb32_384")):
        assert recognise_backbone(CheckpointFile(Path("x.ckpt"), weights, {}, patch)) == backbone
    unclear = CheckpointFile(Path("slim.pth"), weights, {})
    with pytest.raises(InputError, match=r"slim\.pth can be clip_vitb32_384 or clipb16_vitb32_384.*--backbone"):
        recognise_backbone(unclear)
    assert recognise_backbone(unclear, "clipb16_vitb32_384") == "clipb16_vitb32_384"


def test_a_backbone_that_is_asked_for_must_be_the_files(net, tmp_path):
    path, backbone = official_file(net, tmp_path / "official.ckpt"), net.architecture["backbone"]
    assert load_lseg(path, backbone=backbone).architecture["backbone"] == backbone
    with pytest.raises(InputError, match=f"--backbone is clip_vitl16_384, but .* is a {backbone}"):
        load_lseg(path, backbone="clip_vitl16_384")


@pytest.mark.parametrize("option", [1, 2])
def test_a_block_needs_what_shapes_cannot_tell(option, tmp_path):
    block = {"arch_option": option, "block_depth": 3, "activation": "tanh"}
    net = tiny_net(**block)
    path = official_file(net, tmp_path / "block.ckpt")
    for given in ({}, {"arch_option": 0}, {"block_depth": 3}):
        message = r"block\.ckpt.*arch_option 1 .* or 2.*block_depth.*arch_option=1.*--arch_option 1"
        with pytest.raises(InputError, match=message):
            load_lseg(path, **given)
    loaded = load_lseg(path, **block)
    assert loaded.architecture == net.architecture
    assert_same_function(net, loaded)


def test_a_block_that_the_file_does_not_have_is_not_left_out_silently(tmp_path):
    path = official_file(tiny_net(), tmp_path / "plain.ckpt")
    with pytest.raises(InputError, match=r"plain\.ckpt has no spatial regularisation block.*arch_option 1"):
        load_lseg(path, arch_option=1)
    assert load_lseg(path, arch_option=0).architecture["arch_option"] == 0


def test_an_unknown_encoder_is_described(net, tmp_path):
    weights = official_weights(net)
    weights["net.clip_pretrained.text_projection"] = torch.zeros(3, 5)
    with pytest.raises(InputError, match=r"fits none of the known backbones .clip_vitl16_384.*\(3, 5\)"):
        load_lseg(official_file(net, tmp_path / "other.ckpt", weights))
