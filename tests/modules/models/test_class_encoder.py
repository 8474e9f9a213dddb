"""The plain classifier: a 1x1 convolution on the same decoder, which refuses labels other than its classes."""

from __future__ import annotations

import pytest
import torch

import export_lseg
from checkpoint_files import own_file
from lseg_utils.errors import InputError
from modules.checkpoints import export_plain, load_lseg, save_file
from modules.models import build_lseg
from modules.models.upsampling import upsample_x2
from modules.predictor import LSegPredictor
from modules.training.start import NetworkChoice, build_network
from tiny import pictures, tiny_net

CLASSES = ["wall", "screen", "sky", "screen"]  # as in ADE20K, a name may occur twice


@pytest.fixture
def net():
    return tiny_net("tiny_vit", None, classes=CLASSES)


def test_logits_are_the_outputs_of_the_last_convolution(net):
    images = pictures(2, 64, 96)
    with torch.no_grad():
        expected = upsample_x2(upsample_x2(net.coarse_embedding(images)))
        torch.testing.assert_close(net(images), expected)
        torch.testing.assert_close(net(images, ["sky", "wall"]), expected[:, [2, 0]])
    assert net.labels == CLASSES and not any(name.startswith("text_encoder") for name in net.state_dict())


def test_the_checkpoint_contains_the_classes(net, tmp_path):
    loaded = load_lseg(own_file(net, tmp_path / "classes.ckpt"))
    images = pictures(1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), net(images))
    predictor = LSegPredictor(loaded, "cpu")
    mask = predictor.segment(torch.zeros(3, 64, 64, dtype=torch.uint8)).mask
    assert mask.shape == (64, 64) and mask.max() < len(CLASSES)


def test_other_labels_are_refused_with_the_nearest_class(net, tmp_path):
    with pytest.raises(ValueError, match=r"classifier of 4 classes \(wall.*'skyy'.*did you mean 'sky'.*--head text"):
        net.encode_labels(["wall", "skyy"])
    picture = torch.zeros(3, 64, 64, dtype=torch.uint8)
    with pytest.raises(InputError, match="'cat'"):
        LSegPredictor(net, "cpu").segment(picture, ["cat", "wall"])
    with pytest.raises(InputError, match="leave the templates out"):
        LSegPredictor(net, "cpu").segment(picture, ["wall"], templates="imagenet")
    with pytest.raises(ValueError, match="no regularisation block"):
        build_lseg("tiny_vit", None, classes=CLASSES, arch_option=1)


def test_what_needs_text_is_refused(net, tmp_path):
    with pytest.raises(InputError, match="plain classifier"):
        export_plain(net, tmp_path / "plain.pth")
    own_file(net, tmp_path / "classes.ckpt")
    with pytest.raises(InputError, match="plain classifier"):
        export_lseg.main(
            ["--weights", str(tmp_path / "classes.ckpt"), "--formats", "--output_dir", str(tmp_path / "o")]
        )
    with pytest.raises(InputError, match=r"--arch_option\n.*--clip_weights"):
        save_file({}, tmp_path / "clip.pt")
        NetworkChoice("tiny_vit", head="classes", arch_option=1, clip_weights=str(tmp_path / "clip.pt"))
    choice = NetworkChoice("tiny_vit", finetune_weights=tmp_path / "classes.ckpt")
    with pytest.raises(InputError, match="--head is text, but .* was trained with --head classes"):
        build_network(choice, CLASSES)
