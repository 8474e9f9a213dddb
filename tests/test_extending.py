"""docs/extending.md: every change on the page is applied as printed, and its commands run, on tiny networks."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import data
import test_lseg
import train_lseg
from ade_tree import make_tree
from modules.checkpoints import load_lseg
from modules.lseg_module import LSegModule
from modules.models import backbones, build
from modules.models.upsampling import upsample_x2
from pages import commands
from scripts import REPOSITORY
from tiny import tiny_net

PAGE = REPOSITORY / "docs" / "extending.md"
# Each block begins with where it belongs: a file, or a file and the name inside it that it is added to.
BLOCKS = re.findall(r"^```python\n# (\S+?)(?:: (\w+))?\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
TINY = "--num_features 16 --clip_weights random --base_size 64 --crop_size 64 --workers 0 --batch_size 2 --logger none"


def block(place: str, containing: str = "") -> str:
    places = [(f"{path}: {name}" if name else path, body) for path, name, body in BLOCKS]
    (found,) = [body for where, body in places if where == place and containing in body]
    return found


def add_entry(monkeypatch, registry: str, key: str) -> None:
    """Add the page's line for ``key`` to a registry: "modules/models/backbones.py: BACKBONES" and the like."""
    path, _, name = registry.partition(": ")
    module = importlib.import_module(path.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
    for found, value in eval("{" + block(registry, f'"{key}"') + "}", vars(module)).items():
        monkeypatch.setitem(getattr(module, name), found, value)


def add_dataset(monkeypatch, name: str) -> type:
    """The page's module for a dataset, as if it were a file in data/."""
    module = types.ModuleType(f"data.{name}")
    exec(block(f"data/{name}.py"), vars(module))
    monkeypatch.setitem(sys.modules, f"data.{name}", module)
    add_entry(monkeypatch, "data/__init__.py: _DATASETS", name)
    return getattr(module, name.capitalize())


def add_backbone(monkeypatch, name: str) -> None:
    add_entry(monkeypatch, "modules/models/backbones.py: BACKBONES", name)


def street(root: Path) -> Path:
    """Pictures with masks of the values 0, 1, 2 and 255, in ADE20K's layout."""
    rng = np.random.default_rng(0)
    for part in ("training", "validation"):
        for number in range(2):
            for folder, suffix in (("images", "jpg"), ("annotations", "png")):
                path = root / "street" / folder / part / f"{number}.{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                rgb, values = rng.integers(0, 256, (64, 80, 3), np.uint8), np.repeat([0, 1, 2, 255], 20)
                Image.fromarray(rgb if suffix == "jpg" else np.tile(values.astype(np.uint8), (64, 1))).save(path)
    return root


def run(line: str, **replaced: object) -> None:
    """Run a command of the page in this process; ``replaced`` options take precedence, as on a command line."""
    _, script, *arguments = shlex.split(line)
    for option, value in replaced.items():
        arguments += [f"--{option}", str(value)]
    {"train_lseg.py": train_lseg, "test_lseg.py": test_lseg}[script].main(arguments)


def of_the_page(*words: str) -> list[str]:
    return [line for line in commands(PAGE) if all(word in line for word in words)]


def test_a_dataset_trains_is_tested_and_evaluated(tmp_path, monkeypatch, capsys):
    add_dataset(monkeypatch, "street")
    street(tmp_path / "datasets")
    monkeypatch.chdir(tmp_path)
    dry, training, test = of_the_page("--dataset street")
    tiny = f"{TINY} --accelerator cpu --backbone tiny_resnet --backbone_weights random --checkpoint_dir checkpoints"
    run(f"{dry} {tiny}")
    run(f"{training} {tiny}", max_epochs=1)
    run(test, device="cpu", workers=0, scales=1, output_dir="out", log_dir="logs")
    assert "road" in (tmp_path / "out" / "results.json").read_text()
    exec(block("frequency_weighted_iou.py"), {})
    assert re.search(r"frequency-weighted IoU: 0\.\d+, mIoU: 0\.\d+", capsys.readouterr().out)


def test_masks_of_other_values_are_refused(tmp_path, monkeypatch):
    add_dataset(monkeypatch, "street")
    path = street(tmp_path) / "street" / "annotations" / "training" / "1.png"
    Image.fromarray(np.full((64, 80), 7, np.uint8)).save(path)
    with pytest.raises(ValueError, match=r"1\.png.* 7"):
        list(data.get_dataset("street", tmp_path, "train"))


def test_a_dataset_of_another_layout(tmp_path, monkeypatch):
    cls = add_dataset(monkeypatch, "painted")
    colours = np.array([*sys.modules["data.painted"].COLOURS, (1, 2, 3)], np.uint8)
    for split in ("train", "val"):
        folder = tmp_path / "painted" / split
        folder.mkdir(parents=True)
        Image.new("RGB", (40, 30)).save(folder / "a_image.jpg")
        Image.fromarray(np.repeat(colours[None], 30, axis=0).repeat(10, axis=1)).save(folder / "a_colours.png")
    assert data.problems("painted", tmp_path) == []
    _, target = data.get_dataset("painted", tmp_path, "val", "testval")[0]
    assert target[0, ::10].tolist() == [0, 1, 2, -1]
    (tmp_path / "painted" / "val" / "a_colours.png").unlink()
    assert "a_colours.png" in data.problems("painted", tmp_path)[0]
    assert cls.files_of(tmp_path / "nowhere", "train")[1]


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["clip_vits16_384", "clip_convnext_atto"])
def test_a_backbone_trains_and_its_checkpoint_loads(backbone, tmp_path, monkeypatch):
    if backbone == "clip_convnext_atto":
        exec(block("modules/models/build.py"), vars(build))
        add_entry(monkeypatch, "modules/models/build.py: ENCODERS", "timm_pyramid")
    add_backbone(monkeypatch, backbone)
    # The text tower of ViT-B/32 has 60 million weights; the miniature's stands in for it.
    monkeypatch.setitem(backbones.TEXT_TOWERS, "ViT-B/32", backbones.TEXT_TOWERS["tiny"])
    root = make_tree(tmp_path / "datasets")
    (dry,) = of_the_page(backbone)
    monkeypatch.chdir(tmp_path)
    tiny = f"{TINY} --accelerator cpu --backbone_weights random --checkpoint_dir checkpoints --data_path {root}"
    run(f"{dry} {tiny}")
    run(f"{dry.replace(' --dry-run', '')} {tiny}", max_epochs=1)
    (last,) = tmp_path.glob("checkpoints/*/version_0/checkpoints/last.ckpt")
    net = load_lseg(last)
    assert net.architecture["backbone"] == backbone and net.base_size == 64


def test_a_loss(monkeypatch):
    names = vars(sys.modules[LSegModule.__module__])
    monkeypatch.setitem(names, "upsample_x2", upsample_x2)  # the import that the page asks for
    added: dict = {}
    exec(block("modules/lseg_module.py: LSegModule"), names, added)
    monkeypatch.setattr(LSegModule, "loss", added["loss"])
    module = LSegModule(tiny_net(labels=["a", "b"]))
    logits, target = torch.randn(1, 2, 8, 8, requires_grad=True), torch.randint(-1, 2, (1, 16, 16))
    loss = module.loss(logits, target)
    loss.backward()
    full = F.interpolate(logits, (16, 16), mode="bilinear", align_corners=True)
    assert loss.item() == pytest.approx(F.cross_entropy(full, target, ignore_index=-1, label_smoothing=0.1).item())
    assert logits.grad.abs().sum() > 0
