"""Files are read without running code from them; damaged and hostile ones are refused with a reason."""

from __future__ import annotations

import argparse
import builtins
import importlib
import json
import pickle
import struct
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from checkpoint_files import Attack, attack, official_content, official_file
from lseg_utils.errors import InputError
from modules.checkpoints import load_lseg
from modules.safe_load import HARMLESS, read_torch_file, read_torchscript_weights
from tiny import pictures, tiny_net

pytestmark = pytest.mark.usefixtures("one_thread")


# ---------------------------------------------------------------------------------------------------- hostile


def hide_in(content: dict, where: str, thing: object) -> dict:
    """Place ``thing`` somewhere in a checkpoint's content."""
    places = {
        "top": lambda: {**content, "extra": thing},
        "key": lambda: {**content, thing: 1},
        "callbacks": lambda: {**content, "callbacks": {next(iter(content["callbacks"])): {"state": [thing]}}},
        "callback key": lambda: {**content, "callbacks": {thing: {}}},
        "state_dict": lambda: {**content, "state_dict": {**content["state_dict"], "net.scratch.x": thing}},
        "namespace": lambda: {**content, "hyper_parameters": argparse.Namespace(deep=(thing,))},
        "alone": lambda: thing,
    }
    return places[where]()


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("where", ["top", "key", "callbacks", "callback key", "state_dict", "namespace", "alone"])
def test_a_hostile_file_is_refused_by_name_and_nothing_runs(where, new_format, tmp_path):
    marker, path = tmp_path / "executed", tmp_path / "evil.ckpt"
    content = hide_in(official_content(tiny_net()), where, attack(marker))
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    message = r"evil\.ckpt is refused.*\.system.*run code.*trust_checkpoint=True.*--trust_checkpoint"
    with pytest.raises(InputError, match=message):
        load_lseg(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (builtins.eval, ("1",), "eval"),
        (builtins.exec, ("1",), "exec"),
        (builtins.getattr, ("a", "upper"), "getattr"),
        (importlib.import_module, ("this",), "importlib.import_module"),
        (subprocess.Popen, (["true"],), "Popen"),
        (torch.hub.load, ("a/b", "c"), "torch.hub.load"),
    ],
)
def test_every_other_function_is_refused_too(function, arguments, name, tmp_path):
    torch.save({"state_dict": {}, "x": Attack(function, *arguments)}, tmp_path / "evil.ckpt")
    with pytest.raises(InputError, match=rf"evil\.ckpt is refused: it tries to use \S*\b{name},"):
        read_torch_file(tmp_path / "evil.ckpt")


def test_trust_runs_what_the_file_asks_for(tmp_path):
    marker, path, net = tmp_path / "executed", tmp_path / "evil.ckpt", tiny_net()
    torch.save(hide_in(official_content(net), "callbacks", attack(marker)), path)
    loaded = load_lseg(path, trust_checkpoint=True)
    assert marker.exists()
    images = pictures(1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images, ["dog"]), net(images, ["dog"]), atol=1e-5, rtol=0)


def test_trust_does_not_help_where_a_class_is_not_installed(tmp_path):
    module = types.ModuleType("left_pad_forever")
    module.Thing = type("Thing", (), {"__module__": module.__name__})
    sys.modules[module.__name__] = module
    torch.save({"thing": module.Thing()}, tmp_path / "old.ckpt")
    del sys.modules[module.__name__]
    with pytest.raises(InputError, match=r"old\.ckpt.*left_pad_forever"):
        read_torch_file(tmp_path / "old.ckpt", trust=True)
    with pytest.raises(InputError, match=r"old\.ckpt is refused.*left_pad_forever\.Thing"):
        read_torch_file(tmp_path / "old.ckpt")


class WritesAFile(torch.nn.Module):
    """A TorchScript module that writes a file while ``torch.jit.load`` reads it."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))
        self.target = target

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x

    @torch.jit.export
    def __getstate__(self) -> tuple[torch.Tensor, str, bool]:
        return self.weight, self.target, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, str, bool]) -> None:
        written = torch.from_file(state[1], True, 3, dtype=torch.uint8)
        written.copy_(torch.full((3,), 65, dtype=torch.uint8))
        self.weight, self.target, self.training = state[0] * written.sum(), state[1], state[2]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_torchscript_file_writes_nothing_while_it_is_read(tmp_path):
    marker, path = tmp_path / "written", tmp_path / "clip.pt"
    torch.jit.script(torch.nn.Sequential(torch.nn.Linear(2, 3), WritesAFile(str(marker)))).save(str(path))
    torch.jit.load(str(path))
    assert marker.read_bytes() == b"AAA"  # the attack works
    marker.unlink()
    assert set(read_torchscript_weights(path)) == {"0.weight", "0.bias"}
    assert not marker.exists()


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated")
def test_the_weights_of_a_torchscript_file(tmp_path):
    class Tower(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).half()
            self.tied = self.blocks[0].weight
            self.register_buffer("size", torch.tensor(32))
            self.register_buffer("nothing", torch.empty(0))
            self.plain, self.names = 3, ["a", "b"]
            self.part = torch.nn.Parameter(torch.arange(12.0).view(3, 4).T[1:])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.blocks(x)

    tower, path = Tower(), tmp_path / "clip.pt"
    torch.jit.script(tower).save(str(path))
    weights, expected = read_torchscript_weights(path), tower.state_dict()
    assert set(weights) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, rtol=0, atol=0)


def test_a_torchscript_file_that_asks_for_a_function_is_refused(tmp_path):
    marker, path = tmp_path / "executed", tmp_path / "clip.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("clip/data.pkl", pickle.dumps(attack(marker), protocol=2))
        archive.writestr("clip/constants.pkl", pickle.dumps(()))
    with pytest.raises(InputError, match=r"clip\.pt is refused.*\.system"):
        read_torchscript_weights(path)
    assert not marker.exists()


# ----------------------------------------------------------------------------------------- old, but harmless


@pytest.fixture
def old_lightning_classes(monkeypatch):
    """The classes of Lightning 1.x that today's version does not have, for pickling; gone again when reading."""

    def make(name: str, base: type) -> type:
        module_name, class_name = name.rsplit(".", 1)
        made = type(class_name, (base,), {"__module__": module_name})
        module = types.ModuleType(module_name)
        setattr(module, class_name, made)
        monkeypatch.setitem(sys.modules, module_name, module)
        return made

    return make


def test_what_old_lightning_left_in_its_files_is_read_inert(old_lightning_classes, monkeypatch, tmp_path):
    old_dict = old_lightning_classes("pytorch_lightning.utilities.parsing.AttributeDict", dict)
    old_bar = old_lightning_classes("pytorch_lightning.callbacks.progress.ProgressBar", object)
    content = official_content(tiny_net())
    content["callbacks"][old_bar] = {"best": np.float64(0.5), "folder": Path("a") / "b"}
    content["hyper_parameters"] = old_dict(lr=0.1, options=argparse.Namespace(backbone="x", sizes=[1, 2]))
    content["bar"] = old_bar()
    torch.save(content, tmp_path / "old.ckpt")
    monkeypatch.undo()
    read = read_torch_file(tmp_path / "old.ckpt")
    assert read["epoch"] == 3
    name = "net.scratch.head1.bias"
    torch.testing.assert_close(read["state_dict"][name], content["state_dict"][name])
    assert read["hyper_parameters"]["lr"] == 0.1
    assert not isinstance(read["hyper_parameters"]["options"], argparse.Namespace)
    assert not isinstance(read["bar"], old_bar)


def test_the_stand_ins_do_nothing_of_what_they_stand_for():
    """None of the names that are let through may be a function of the standard library that does something."""
    assert all(name.split(".")[0] in ("pytorch_lightning", "argparse", "pathlib", "numpy") for name in HARMLESS)


# ---------------------------------------------------------------------------------------------------- damaged


@pytest.mark.parametrize("new_format", [True, False])
def test_a_truncated_file(new_format, tmp_path):
    whole = tmp_path / "whole.ckpt"
    torch.save(official_content(tiny_net()), whole, _use_new_zipfile_serialization=new_format)
    content = whole.read_bytes()
    lengths = [0, 1, 2, 3, 10, 64, 100, 1000, 5000, len(content) // 2, len(content) - 1000, len(content) - 1]
    for length in lengths:
        cut = tmp_path / "cut.ckpt"
        cut.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"cut\.ckpt.*truncated.*again"):
            load_lseg(cut)


@pytest.mark.parametrize("trust", [False, True])
def test_every_damaged_byte_of_an_archive_is_noticed(trust, tmp_path):
    whole, damaged = tmp_path / "whole.ckpt", tmp_path / "damaged.ckpt"
    torch.save({"state_dict": {"a": torch.ones(1000), "b": torch.ones(1000)}}, whole)
    content = whole.read_bytes()
    with zipfile.ZipFile(whole) as archive:
        records = {
            record.filename: record.header_offset for record in archive.infolist() if "/data/" in record.filename
        }
    assert len(records) == 2
    for name, offset in records.items():
        start = content.index(torch.ones(1000).numpy().tobytes(), offset)
        for length in (1, 2000):
            damaged.write_bytes(content[: start + 400] + bytes([7] * length) + content[start + 400 + length :])
            with pytest.raises(InputError, match=rf"damaged\.ckpt.*checksum of {name}.*"):
                read_torch_file(damaged, trust=trust)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_flipped_bytes_never_end_in_another_error(tmp_path):
    """Whatever a broken pickle asks for, the answer is an instruction or a network, not a traceback."""
    whole = tmp_path / "whole.ckpt"
    content = {"epoch": 1, "x": {"a": [1, 2.5, "b"], "t": torch.zeros(2)}}
    torch.save(content, whole, _use_new_zipfile_serialization=False)
    content, broken = bytearray(whole.read_bytes()), tmp_path / "broken.ckpt"
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        position = int(rng.integers(len(content)))
        changed = bytearray(content)
        changed[position] = int(rng.integers(256))
        broken.write_bytes(changed)
        try:
            read_torch_file(broken)
        except InputError:
            refused += 1
    assert refused > 50


def zip_of_text(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "hello")


def npz(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.zeros(3))


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(b""),
        zip_of_text,
        npz,
        lambda path: path.write_bytes(bytes(range(256)) * 9),
        lambda path: path.write_bytes(bytes(4096)),
    ],
    ids=["empty", "zip", "npz", "bytes", "zeros"],
)
@pytest.mark.parametrize("trust", [False, True])
def test_a_file_of_another_kind(write, trust, tmp_path):
    path = tmp_path / "odd.ckpt"
    write(path)
    with pytest.raises(InputError, match=r"odd\.ckpt.*not a complete PyTorch file"):
        load_lseg(path, trust_checkpoint=trust)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<html><body>404 not found</body></html>", "begins with '<html><body>404 not found</body></html>'"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (json.dumps({"a": 1}), "(8 bytes) is a text file that begins with"),
        ("\n\nhello", "begins with 'hello'"),
    ],
)
@pytest.mark.parametrize("trust", [False, True])
def test_a_text_in_place_of_a_checkpoint_is_quoted(text, shown, trust, tmp_path):
    path = tmp_path / "odd.ckpt"
    path.write_text(text)
    with pytest.raises(InputError, match=r"odd\.ckpt.*not a checkpoint") as caught:
        load_lseg(path, trust_checkpoint=trust)
    assert shown in str(caught.value)


def test_a_folder_and_a_missing_file_list_what_is_there(tmp_path):
    official_file(tiny_net(), tmp_path / "lseg_l16.ckpt")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=r"is a folder.*lseg_l16\.ckpt") as caught:
        load_lseg(tmp_path)
    assert "notes.txt" not in str(caught.value)
    with pytest.raises(InputError, match=r"no file .*lseg_b32\.ckpt; that folder has lseg_l16\.ckpt"):
        load_lseg(tmp_path / "lseg_b32.ckpt")
    with pytest.raises(InputError, match=r"no file .*none/lseg\.ckpt"):
        load_lseg(tmp_path / "none" / "lseg.ckpt")


def test_an_archive_that_claims_to_span_several_files_is_refused(tmp_path):
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 1, 0, 2)
    (tmp_path / "parts.pt").write_bytes(locator + b"PK\x05\x06" + bytes(18))
    with pytest.raises(InputError, match="parts.pt"):
        read_torchscript_weights(tmp_path / "parts.pt")
