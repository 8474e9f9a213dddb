"""Checkpoints that are not used: what does not fit, is damaged, or describes itself wrongly is named."""

from __future__ import annotations

import pytest
import torch
import torchvision

from checkpoint_files import official_file, official_weights
from lseg_utils.errors import InputError
from modules.checkpoints import load_lseg, metadata_of, to_official
from tiny import TINY, tiny_net

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=TINY)
def net(request):
    return tiny_net(request.param)


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
        "missing: 1 (scratch.refinenet1.out_conv.bias)",
        "unexpected: 1 (scratch.head9.weight)",
        "wrong shape: 1 (scratch.layer2_rn.weight (5, 4, 3, 3) instead of",
    ):
        assert part in text


def test_a_foreign_network_is_no_lseg_checkpoint(tmp_path):
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(InputError, match=r"resnet18\.pth is not an LSeg checkpoint.*conv1\.weight"):
        load_lseg(tmp_path / "resnet18.pth")


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
    with pytest.raises(InputError, match=r"broken\.ckpt.*2 of its tensors.*scratch\.\S+ \(1 number"):
        load_lseg(official_file(net, tmp_path / "broken.ckpt", weights))


def test_large_finite_weights_are_not_refused(net, tmp_path):
    """The sum of these overflows."""
    weights = official_weights(net)
    weights["net.scratch.head1.bias"].fill_(3e38)
    loaded = load_lseg(official_file(net, tmp_path / "large.ckpt", weights))
    assert (loaded.decoder.embedding.bias == 3e38).all()
