"""The door for weights: official, plain and own files go in and out."""

from __future__ import annotations

import errno
import os
import zipfile

import pytest
import torch

from checkpoint_files import CALLBACK_CLASS, assert_same_function, official_file, official_weights, own_file
from lseg_utils.errors import InputError
from lseg_utils.git import git_state
from modules.checkpoints import export_plain, load_lseg, metadata_of, read_checkpoint, save_file, to_official
from tiny import LABELS, TINY, tiny_net

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=TINY)
def net(request):
    return tiny_net(request.param)


# -------------------------------------------------------------------------------------------------- going in


def test_an_official_lightning_file(net, tmp_path):
    path = official_file(net, tmp_path / "lseg.ckpt")
    with zipfile.ZipFile(path) as archive:  # it is what the official files are
        assert CALLBACK_CLASS in archive.read("lseg/data.pkl")
    with pytest.raises(Exception, match="ModelCheckpoint"):
        torch.load(path, weights_only=True)

    loaded = load_lseg(path)
    assert loaded.architecture["backbone"] == net.architecture["backbone"]
    assert loaded.labels is None
    assert not any("visual" in name for name in loaded.state_dict())
    assert {value.dtype for value in loaded.state_dict().values()} <= {torch.float32, torch.int64}
    assert_same_function(net, loaded)


def test_the_loaded_network_is_ready_to_use_and_to_train(net, tmp_path):
    loaded = load_lseg(official_file(net, tmp_path / "lseg.ckpt"))
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.text_encoder.parameters())
    flags = {name: p.requires_grad for name, p in net.named_parameters()}
    assert {name: p.requires_grad for name, p in loaded.named_parameters()} == flags
    assert all(flags[f"decoder.projections.{level}.weight"] for level in range(4))
    assert all(parameter.is_leaf for parameter in loaded.parameters())


def test_the_loaded_network_does_not_need_its_file_any_more(net, tmp_path):
    path = official_file(net, tmp_path / "lseg.ckpt")
    loaded = load_lseg(path)
    with open(path, "r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert_same_function(net, loaded)


def test_a_plain_state_dict_goes_out_and_comes_in(net, tmp_path):
    path = export_plain(net, tmp_path / "plain.pth")
    plain = torch.load(path, weights_only=True)
    assert set(plain) == {name.removeprefix("net.") for name in to_official(net.state_dict())}
    assert any(name.startswith("pretrained.") for name in plain) and "scratch.head1.weight" in plain
    assert_same_function(net, load_lseg(path))


def test_an_official_plain_state_dict_with_prefix(net, tmp_path):
    torch.save(official_weights(net), tmp_path / "plain.pth")
    assert_same_function(net, load_lseg(tmp_path / "plain.pth"))


def test_our_own_file_explains_itself(tmp_path):
    net = tiny_net("tiny_vit", arch_option=2, block_depth=3, activation="tanh", features=24)
    net.mean, net.std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    net.base_size, net.crop_size = 240, 224
    metadata = metadata_of(net, step=77, epoch=4, metric={"val_miou_epoch": 0.25}, dataset="ade20k")
    save_file({"state_dict": to_official(net.state_dict()), "lseg": metadata}, tmp_path / "own.ckpt")

    loaded = load_lseg(tmp_path / "own.ckpt")
    assert loaded.architecture == net.architecture
    assert loaded.labels == LABELS
    assert (loaded.mean, loaded.std) == (net.mean, net.std)
    assert (loaded.base_size, loaded.crop_size) == (240, 224)
    assert_same_function(net, loaded)
    said = loaded.metadata
    assert (said["step"], said["epoch"], said["metric"]) == (77, 4, {"val_miou_epoch": 0.25})
    assert said["dataset"] == "ade20k" and said["git"] == git_state()


def test_files_without_sizes_get_those_of_their_backbone(net, tmp_path):
    official = load_lseg(official_file(net, tmp_path / "official.ckpt"))
    metadata = metadata_of(net)
    del metadata["sizes"]
    save_file({"state_dict": to_official(net.state_dict()), "lseg": metadata}, tmp_path / "older.ckpt")
    older = load_lseg(tmp_path / "older.ckpt")
    assert [(one.base_size, one.crop_size) for one in (official, older)] == [(64, 64)] * 2
    assert official.metadata == {} and older.metadata == metadata


def test_labels_can_be_given(net, tmp_path):
    path = official_file(net, tmp_path / "lseg.ckpt")
    assert load_lseg(path, labels=("sky", "sea")).labels == ["sky", "sea"]
    with pytest.raises(ValueError, match=r"write \['sky'\]"):
        load_lseg(path, labels="sky")
    with pytest.raises(ValueError, match="empty"):
        load_lseg(path, labels=[])


def test_the_patches_of_clips_image_tower_are_read_from_the_file(net, tmp_path):
    assert read_checkpoint(official_file(net, tmp_path / "official.ckpt")).clip_patch == 4
    assert read_checkpoint(own_file(net, tmp_path / "own.ckpt")).clip_patch is None


def test_dead_weights_may_be_absent(net, tmp_path):
    dead = ("scratch.refinenet4.resConfUnit1.", "clip_pretrained.logit_scale", "pretrained.model.norm.", "model.head.")
    weights = official_weights(net)
    kept = {name: value for name, value in weights.items() if not any(part in name for part in dead)}
    assert len(kept) < len(weights)
    assert_same_function(net, load_lseg(official_file(net, tmp_path / "slim.ckpt", kept)))


# ------------------------------------------------------------------------------------------------- going out


class Unwritable:
    def __reduce__(self):
        raise TypeError("cannot be pickled")


def full_disk(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def half_written(content, file):
    file.write(b"half")
    raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")


def interrupted(content, file):
    file.write(b"half")
    raise KeyboardInterrupt


def test_a_new_file_replaces_the_old_one(tmp_path):
    path = tmp_path / "new" / "folder" / "last.ckpt"
    for value in (1, 2):
        save_file({"value": value}, path)
        assert torch.load(path) == {"value": value}
    assert [p.name for p in path.parent.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize(
    ("place", "failure", "error"),
    [
        (None, None, (TypeError, "cannot be pickled")),
        ((os, "fsync"), full_disk, (InputError, "no room left.*last.ckpt.*intact")),
        ((torch, "save"), full_disk, (InputError, "no room left.*last.ckpt.*intact")),
        ((torch, "save"), half_written, (InputError, "last.ckpt could not be written")),
        ((torch, "save"), interrupted, (KeyboardInterrupt, None)),
        ((os, "replace"), full_disk, (InputError, "no room left")),
    ],
)
def test_a_failed_save_leaves_the_file_that_was_there(place, failure, error, tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    save_file({"value": 1}, path)
    with monkeypatch.context() as patch, pytest.raises(error[0], match=error[1]):
        if place:
            patch.setattr(*place, failure)
        save_file({"weights": torch.zeros(9), "bad": None if place else Unwritable()}, path)
    assert torch.load(path) == {"value": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(InputError, match=r"taken/last\.ckpt could not be written.*another folder"):
        save_file({}, tmp_path / "taken" / "last.ckpt")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match=r"last\.ckpt could not be written.*another folder"):
        save_file({}, tmp_path / "last.ckpt")
