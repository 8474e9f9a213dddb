"""docs/extending.md: every change on the page is applied as printed, and its commands run, on tiny networks."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import test_lseg
import train_lseg
from modules.checkpoints import load_lseg
from modules.lseg_module import LSegModule
from modules.models import backbones, build
from modules.models.upsampling import upsample_x2
from modules.zoo import identify
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


def add_backbone(monkeypatch, name: str) -> None:
    add_entry(monkeypatch, "modules/models/backbones.py: BACKBONES", name)


def street(folder: Path) -> None:
    """The folder that the page supposes: 40 made-up pictures with masks of the values 0 to 4 and 255, and its file."""
    rng = np.random.default_rng(0)
    for number in range(40):
        values = rng.permutation([0, 1, 2, 3, 4, 255]).astype(np.uint8).repeat(16)[None].repeat(64, axis=0)
        part = "train" if number < 30 else "val"
        for kind, suffix in (("pictures", "jpg"), ("masks", "png")):
            path = folder / kind / part / f"{number}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = rng.integers(0, 40, (64, 96, 3), np.uint8)
            Image.fromarray(values if kind == "masks" else values[..., None] // 5 * 40 + noise).save(path)
    (yaml,) = re.findall(r"^```yaml\n# street/street.yaml\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    (folder / "street.yaml").write_text(yaml)


def run(line: str, **replaced: object) -> None:
    """Run a command of the page in this process; ``replaced`` options take precedence, as on a command line."""
    _, script, *arguments = shlex.split(line)
    for option, value in replaced.items():
        arguments += [f"--{option}", str(value)]
    {"train_lseg.py": train_lseg, "test_lseg.py": test_lseg}[script].main(arguments)


def of_the_page(*words: str) -> list[str]:
    return [line for line in commands(PAGE) if all(word in line for word in words)]


def test_a_dataset_trains_is_tested_and_evaluated(tmp_path, monkeypatch, capsys):
    street(tmp_path / "street")
    monkeypatch.chdir(tmp_path)
    dry, training, test = [line for line in of_the_page("street.yaml") if "--backbone" not in line]
    tiny = TINY.replace("--base_size 64 --crop_size 64 ", "")  # the file sets them
    tiny += " --accelerator cpu --backbone tiny_vit --backbone_weights random --checkpoint_dir checkpoints"
    run(f"{dry} {tiny}")
    run(f"{training} {tiny}", max_epochs=1)
    (last,) = tmp_path.glob("checkpoints/street/version_0/checkpoints/last.ckpt")
    report = identify(last)
    assert f"--dataset {tmp_path / 'street' / 'street.yaml'} --weights" in report.commands[0]
    run(test, device="cpu", workers=0, scales=1, output_dir="out", log_dir="logs")
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(results["per_class_iou"]) == ["road", "building", "car", "tree", "sky"]
    assert results["images"] == 10 and "windows of 64, base 96" in results["protocol"]
    exec(block("frequency_weighted_iou.py"), {})
    assert re.search(r"frequency-weighted IoU: 0\.\d+, mIoU: 0\.\d+", capsys.readouterr().out)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["clip_vits16_384", "clip_convnext_atto"])
def test_a_backbone_trains_and_its_checkpoint_loads(backbone, tmp_path, monkeypatch):
    if backbone == "clip_convnext_atto":
        exec(block("modules/models/build.py"), vars(build))
        add_entry(monkeypatch, "modules/models/build.py: ENCODERS", "timm_pyramid")
    add_backbone(monkeypatch, backbone)
    # The text tower of ViT-B/32 has 60 million weights; the miniature's stands in for it.
    monkeypatch.setitem(backbones.TEXT_TOWERS, "ViT-B/32", backbones.TEXT_TOWERS["tiny"])
    street(tmp_path / "street")
    (dry,) = of_the_page(backbone)
    monkeypatch.chdir(tmp_path)
    tiny = f"{TINY} --accelerator cpu --backbone_weights random --checkpoint_dir checkpoints"
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
