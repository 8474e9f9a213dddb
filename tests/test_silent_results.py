"""What would silently be a wrong result is refused or said. docs/trust.md lists all of it."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lseg_utils.errors import InputError
from lseg_utils.image_input import read_rgb
from modules.checkpoints import metadata_of
from modules.inference.pixel_embedding import finite_in
from modules.lseg_module import LSegModule
from modules.predictor import LSegPredictor
from modules.testing.common import check_scores
from modules.testing.episodes import setting_of
from modules.training.start import NetworkChoice
from modules.training.trainer import check_same_run
from recipes.select_checkpoint import validation_miou
from test_lseg import doubts_of_the_test
from tiny import LABELS, tiny_net

pytestmark = pytest.mark.usefixtures("one_thread")


# ------------------------------------------------------------------------------------------- ranges of images


@pytest.mark.parametrize("call", ["net", "embed"])
@pytest.mark.parametrize("factor", [1, 255])
def test_images_that_are_not_normalised_are_doubted_once(call, factor):
    net = tiny_net()
    function = net if call == "net" else net.embed
    images = torch.rand(1, 3, 64, 64) * factor
    with torch.no_grad(), pytest.warns(UserWarning, match="does not look normalised") as caught:
        function(images)
    assert caught[0].filename == __file__
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        function(images)


def test_normalised_images_are_not_doubted_and_the_check_can_be_switched_off():
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        for net in (tiny_net(), tiny_net("tiny_vit")):
            net(torch.rand(1, 3, 64, 64) * 2 - 1)
        net = tiny_net()
        net(torch.zeros(1, 3, 64, 64))
        net.check_range = True
        net((torch.rand(1, 3, 64, 64) - 0.485) / 0.229)
        net.check_range = False
        net(torch.rand(1, 3, 64, 64) * 255)


@pytest.mark.parametrize(
    ("image", "fact"),
    [
        (np.eye(8, dtype=np.uint8), "times|255"),
        (torch.ones(3, 8, 8, dtype=torch.uint8), "255"),
        (np.full((8, 8), 200, np.uint16), "16 bits"),
    ],
)
def test_whole_numbers_of_another_range_are_doubted(image, fact):
    with pytest.warns(UserWarning, match=f"almost black.*{fact}|{fact}.*almost black"):
        read_rgb(image)


def test_dark_pictures_are_not_doubted():
    with warnings.catch_warnings(record=True) as caught:
        for image in (np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 2, np.uint8), np.full((8, 8), 300, np.uint16)):
            read_rgb(image)
    assert not caught


# --------------------------------------------------------------------------------------- NaN in what is computed


def test_an_overflow_inside_the_network_is_said_and_not_label_0():
    net = tiny_net("tiny_vit")
    predictor = LSegPredictor(net, "cpu", "32")
    net.decoder.embedding.bias.data[0] = float("inf")  # what float16 makes of a number above 65,504
    for call in (predictor.segment, predictor.embed, lambda image: predictor.heatmap(image, "a")):
        with pytest.raises(InputError, match="NaN or infinite in torch.float32"):
            call(torch.zeros(3, 64, 64, dtype=torch.uint8))


def test_scores_that_are_nan_end_a_test():
    with pytest.raises(InputError, match="float16.*--precision 32"):
        check_scores(torch.tensor([1.0, float("nan")]), "float16")
    check_scores(torch.zeros(3), "float16")


def test_embeddings_that_float16_has_no_numbers_for_are_refused():
    with pytest.raises(InputError, match="float16"):
        finite_in(torch.tensor([7e4]), torch.float16)
    assert finite_in(torch.tensor([7e4]), torch.float32) == 7e4


def test_a_validation_miou_that_is_nan_chooses_no_checkpoint(tmp_path):
    for value in (float("nan"), float("inf")):
        content = {"state_dict": {"net.a": torch.zeros(1)}, "lseg": {"metric": {"val_miou_epoch": value}}}
        torch.save(content, tmp_path / "a.ckpt")
        with pytest.raises(InputError, match=r"a\.ckpt contains no validation mIoU"):
            validation_miou(tmp_path / "a.ckpt")


def test_a_clip_file_of_equal_size_but_other_weights_does_not_resume_a_run(tmp_path, capsys):
    module, found = LSegModule(tiny_net("tiny_vit")), []
    for content in (b"these weights", b"other weights"):
        (tmp_path / "clip.pt").write_bytes(content)
        found.append(NetworkChoice("tiny_vit", clip_weights=str(tmp_path / "clip.pt")).sources())
    before = {"architecture": module.net.architecture, "labels": module.net.labels, "run": found[0]}
    before["optimization"] = {"optimizer": module.config.optimizer}
    module.run_facts = found[0]
    check_same_run(tmp_path / "last.ckpt", before, module)
    assert "resuming" in capsys.readouterr().out
    module.run_facts = found[1]
    with pytest.raises(InputError, match="clip_weights_sha256 was"):
        check_same_run(tmp_path / "last.ckpt", before, module)


# ------------------------------------------------------------------------------- tests of what was trained on


@pytest.mark.parametrize(
    ("metadata", "fact"),
    [
        ({}, "zero-shot"),
        ({"dataset": "pascal", "zero_shot": {"fold": 1}}, "zero-shot"),
        ({"dataset": "pascal", "zero_shot": {"fold": 0}}, "not zero-shot: trained on pascal fold 0"),
        ({"dataset": "coco", "zero_shot": {"fold": 1}}, "not zero-shot: trained on coco"),
        ({"dataset": "ade20k"}, "not zero-shot: trained on ade20k"),
        ({"dataset": "pascal", "zero_shot": {"fold": 1, "nshot": 5, "trained_on": "supports"}}, "few-shot"),
    ],
)
def test_a_network_trained_on_the_classes_is_not_called_zero_shot(metadata, fact):
    assert setting_of(metadata, "pascal", 1).startswith(fact)
    assert (setting_of(metadata, "pascal", 1) == "zero-shot") == (fact == "zero-shot")


def doubts(own=LABELS, standard=LABELS, trained_on="ade20k", split="val", base=64, **metadata):
    net = tiny_net()
    net.metadata = {**metadata_of(net, dataset=trained_on), **metadata}
    dataset = SimpleNamespace(name="ade20k", base_size=base, crop_size=64)
    net.labels = own if len(own) == len(standard) else standard
    return doubts_of_the_test(net, own, standard, dataset, split)


def test_what_makes_a_test_another_one_than_it_seems_is_said():
    assert doubts() == []
    (text,) = doubts(own=LABELS[::-1])
    assert "another order" in text and repr(LABELS[0]) in text and repr(LABELS[-1]) in text
    (text,) = doubts(own=[*LABELS[:-1], "bus"])
    assert "'bus'" in text and "order" not in text and "--label_src default" in text
    (text,) = doubts(own=[*LABELS, "bus"])
    assert "own 4" in text
    (text,) = doubts(split="train")
    assert "trained on" in text
    (text,) = doubts(base=520)
    assert "64" in text and "520" in text
    assert "miniature" in doubts(trained_on="miniature", split="train")[0]
