"""The door for weights: official, plain and own files go in and out; what does not fit is named."""

from __future__ import annotations

import errno
import os
import subprocess
import zipfile
from pathlib import Path

import pytest
import torch
import torchvision

from checkpoint_files import CALLBACK_CLASS, official_file, official_weights, own_file
from lseg_utils.errors import InputError
from modules.checkpoints import (
    CheckpointFile,
    export_plain,
    from_official,
    git_state,
    load_lseg,
    metadata_of,
    read_checkpoint,
    recognise_backbone,
    save_file,
    to_official,
)
from reference import official_shapes
from tiny import LABELS, TINY, pictures, tiny_net

pytestmark = pytest.mark.usefixtures("one_thread")
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(params=TINY)
def net(request):
    return tiny_net(request.param)


def assert_same_function(net, loaded) -> None:
    images = pictures(2, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images, ["sky", "dog"]), net(images, ["sky", "dog"]), atol=1e-5, rtol=0)


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


def test_git_state_is_that_of_the_repository():
    if not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout")
    head = subprocess.run(["git", "-C", REPOSITORY, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert git_state()["commit"] == head.stdout.strip()
    assert isinstance(git_state()["changed"], bool)


def test_labels_can_be_given(net, tmp_path):
    path = official_file(net, tmp_path / "lseg.ckpt")
    assert load_lseg(path, labels=("sky", "sea")).labels == ["sky", "sea"]
    with pytest.raises(ValueError, match=r"write \['sky'\]"):
        load_lseg(path, labels="sky")
    with pytest.raises(ValueError, match="empty"):
        load_lseg(path, labels=[])


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


def test_the_patches_of_clips_image_tower_are_read_from_the_file(net, tmp_path):
    assert read_checkpoint(official_file(net, tmp_path / "official.ckpt")).clip_patch == 4
    assert read_checkpoint(own_file(net, tmp_path / "own.ckpt")).clip_patch is None


def test_a_backbone_that_is_asked_for_must_be_the_files(net, tmp_path):
    path, backbone = official_file(net, tmp_path / "official.ckpt"), net.architecture["backbone"]
    assert load_lseg(path, backbone=backbone).architecture["backbone"] == backbone
    with pytest.raises(InputError, match=f"--backbone is clip_vitl16_384, but .* is a {backbone}"):
        load_lseg(path, backbone="clip_vitl16_384")


def test_dead_weights_may_be_absent(net, tmp_path):
    dead = ("scratch.refinenet4.resConfUnit1.", "clip_pretrained.logit_scale", "pretrained.model.norm.", "model.head.")
    weights = official_weights(net)
    kept = {name: value for name, value in weights.items() if not any(part in name for part in dead)}
    assert len(kept) < len(weights)
    assert_same_function(net, load_lseg(official_file(net, tmp_path / "slim.ckpt", kept)))


# ------------------------------------------------------------------------------------------- what does not fit


def test_one_message_names_what_is_missing_unexpected_and_of_another_shape(net, tmp_path):
    weights = official_weights(net)
    del weights["net.scratch.refinenet1.out_conv.bias"]
    weights["net.scratch.head9.weight"] = torch.zeros(3)
    weights["net.scratch.layer2_rn.weight"] = torch.zeros(5, 4, 3, 3)
    path = official_file(net, tmp_path / "odd.ckpt", weights)
    with pytest.raises(InputError) as caught:
        load_lseg(path)
    text = str(caught.value)
    for part in (
        "odd.ckpt",
        net.architecture["backbone"],
        "missing: 1 (decoder.fusions.0.out_conv.bias)",
        "unexpected: 1 (scratch.head9.weight)",
        "wrong shape: 1 (decoder.projections.1.weight (5, 4, 3, 3) instead of",
    ):
        assert part in text


def test_a_foreign_network_is_no_lseg_checkpoint(tmp_path):
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(InputError, match=r"resnet18\.pth is not an LSeg checkpoint.*conv1\.weight"):
        load_lseg(tmp_path / "resnet18.pth")


def test_an_unknown_encoder_is_described(net, tmp_path):
    weights = official_weights(net)
    weights["net.clip_pretrained.text_projection"] = torch.zeros(3, 5)
    with pytest.raises(InputError, match=r"fits none of the known backbones .clip_vitl16_384.*\(3, 5\)"):
        load_lseg(official_file(net, tmp_path / "other.ckpt", weights))


@pytest.mark.parametrize(
    "content", [[1, 2], {"epoch": 3}, {"state_dict": {"a": 1}}, torch.zeros(3), {"state_dict": []}]
)
def test_a_file_without_weights(content, tmp_path):
    torch.save(content, tmp_path / "empty.ckpt")
    with pytest.raises(InputError, match=r"empty\.ckpt contains no weights"):
        load_lseg(tmp_path / "empty.ckpt")


def test_options_that_load_lseg_does_not_know(tmp_path):
    with pytest.raises(InputError, match="depth.*arch_option, block_depth, activation"):
        load_lseg(tmp_path / "any.ckpt", depth=3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": "clip_vith14"}, r"own\.ckpt.*clip_vith14"),
        ({"activation": "gelu", "arch_option": 1}, r"own\.ckpt.*gelu"),
        ({"invented_later": 1}, r"own\.ckpt.*invented_later"),
        ({"features": 48}, r"own\.ckpt does not fit"),
    ],
)
def test_a_file_that_describes_what_this_version_cannot_build(change, message, tmp_path):
    net = tiny_net()
    metadata = metadata_of(net)
    metadata["architecture"].update(change)
    torch.save({"state_dict": to_official(net.state_dict()), "lseg": metadata}, tmp_path / "own.ckpt")
    with pytest.raises(InputError, match=message):
        load_lseg(tmp_path / "own.ckpt")


def changed(metadata: dict, path: str, value: object) -> dict:
    """``metadata`` with ``value`` at "key" or "key.inner"."""
    key, _, inner = path.partition(".")
    return {**metadata, key: {**metadata[key], inner: value} if inner else value}


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("architecture", [None, "tiny_vit", ["tiny_vit"], {}, {"backbone": 3}]),
        ("architecture.features", [-1, 0, 10**12, 2.5, "16", None, True]),
        ("architecture.block_depth", [-1, "two"]),
        ("architecture.activation", [None, 3]),
        ("normalization", [None, {}, "half", [0.5, 0.5, 0.5]]),
        ("normalization.mean", [[0.5, 0.5], [0.5] * 4, "half", ["a"] * 3, [float("nan")] * 3, None]),
        ("normalization.std", [[0.5, 0.5, 0.0], [0.5, -1, 0.5]]),
        ("sizes", [None, 520, {"base": 520}]),
        ("sizes.crop", [0, "480", 480.0]),
        ("labels", ["dog", [], [1, 2], [["dog"]], ["dog", " "]]),
        ("dataset", [["ade20k"], 3]),
        ("metric", [[0.5], {"val_miou": "high"}]),
        ("zero_shot", [["pascal"], {"fold": "one"}]),
        ("epoch", ["last", -1]),
    ],
)
def test_metadata_of_the_wrong_kind_are_named(key, values, tmp_path):
    net = tiny_net()
    for value in values:
        metadata = changed(metadata_of(net), key, value)
        torch.save({"state_dict": to_official(net.state_dict()), "lseg": metadata}, tmp_path / "own.ckpt")
        with pytest.raises(InputError, match=rf"own\.ckpt.*{key.split('.')[0]} must be"):
            load_lseg(tmp_path / "own.ckpt")


def test_all_wrong_metadata_are_named_at_once(tmp_path):
    net = tiny_net()
    metadata = {**metadata_of(net), "labels": "dog", "sizes": 3}
    torch.save({"state_dict": to_official(net.state_dict()), "lseg": metadata}, tmp_path / "own.ckpt")
    with pytest.raises(InputError, match="labels must be.*'dog'.*sizes must be.*3"):
        load_lseg(tmp_path / "own.ckpt")
    torch.save({"state_dict": to_official(net.state_dict()), "lseg": ["odd"]}, tmp_path / "own.ckpt")
    with pytest.raises(InputError, match=r"own\.ckpt.*must be a dict.*odd"):
        load_lseg(tmp_path / "own.ckpt")


@pytest.mark.parametrize("name", [3, None, b"net.scratch.x", ("net", "x")])
def test_a_name_that_is_not_text(name, tmp_path):
    torch.save({"state_dict": {**official_weights(tiny_net()), name: torch.zeros(2)}}, tmp_path / "odd.ckpt")
    with pytest.raises(InputError, match=r"odd\.ckpt is not an LSeg checkpoint: 1 of"):
        load_lseg(tmp_path / "odd.ckpt")


@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")
@pytest.mark.parametrize(
    "tensor",
    [torch.zeros(2, dtype=torch.complex64), torch.zeros(2, 2).to_sparse(), torch.zeros(2, device="meta")],
    ids=["complex", "sparse", "meta"],
)
def test_a_tensor_that_cannot_be_a_weight(tensor, tmp_path):
    torch.save({"state_dict": {**official_weights(tiny_net()), "net.scratch.x": tensor}}, tmp_path / "odd.ckpt")
    with pytest.raises(InputError, match=r"odd\.ckpt is not an LSeg checkpoint: 1 of.*net\.scratch\.x"):
        load_lseg(tmp_path / "odd.ckpt")


@pytest.mark.parametrize("shape", [(), (64,), (64, 0, 1, 1), (64, 10**5, 1, 1), (1, 16, 1, 1)])
@pytest.mark.parametrize("name", ["scratch.head1.weight", "pretrained.model.patch_embed.proj.weight"])
def test_weights_of_odd_dimensions(name, shape, tmp_path):
    weights = {**official_weights(tiny_net("tiny_vit")), f"net.{name}": torch.zeros(()).expand(shape)}
    torch.save({"state_dict": weights}, tmp_path / "odd.ckpt")
    with pytest.raises(InputError, match=r"odd\.ckpt"):
        load_lseg(tmp_path / "odd.ckpt")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused_by_the_name_of_the_first(net, number, tmp_path):
    weights = official_weights(net)
    for name in ("net.scratch.head1.bias", "net.scratch.layer2_rn.weight"):
        weights[name].view(-1)[2] = number
    with pytest.raises(InputError, match=r"broken\.ckpt.*2 of its tensors.*decoder\.\S+ \(1 number"):
        load_lseg(official_file(net, tmp_path / "broken.ckpt", weights))


def test_large_finite_weights_are_not_refused(net, tmp_path):
    """The sum of these overflows."""
    weights = official_weights(net)
    weights["net.scratch.head1.bias"].fill_(3e38)
    loaded = load_lseg(official_file(net, tmp_path / "large.ckpt", weights))
    assert (loaded.decoder.embedding.bias == 3e38).all()


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
