"""The README tells the truth: its snippet runs, its commands are accepted, its file tree is the one on disk."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from ade_tree import make_tree
from modules.checkpoints import METADATA_KEY, metadata_of, to_official
from modules.models import build_lseg
from scripts import REPOSITORY, environment

README = (REPOSITORY / "README.md").read_text()
FENCED = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)
COMMANDS = "\n".join(body for language, body in FENCED if language == "bash").replace("\\\n", " ")


def checkpoint(path: Path) -> Path:
    net = build_lseg("tiny_vit", None, features=16)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": to_official(net.state_dict()), METADATA_KEY: metadata_of(net)}, path)
    return path


def test_the_one_call_runs_as_it_stands(tmp_path, monkeypatch):
    (snippet,) = [body for language, body in FENCED if language == "python"]
    checkpoint(tmp_path / "checkpoints" / "demo_e200.ckpt")
    Image.new("RGB", (50, 40), "green").save(tmp_path / "cat.jpg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(snippet, names)
    assert names["mask"].shape == (40, 50)
    assert names["embedding"].shape == (20, 25, 64) and names["similarity"].shape == (20, 25, 2)
    assert (tmp_path / "cat_segmented" / "mask.png").is_file()


@pytest.mark.parametrize("line", re.findall(r"^python (\w+\.py.*?)(?:#.*)?$", COMMANDS, re.MULTILINE))
def test_every_python_command_is_accepted(line):
    script, *arguments = shlex.split(line)
    module = importlib.import_module(script.removesuffix(".py"))
    assert module.build_parser().parse(arguments)  # an unknown flag would raise SystemExit


@pytest.mark.parametrize("script", sorted(set(re.findall(r"bash (\w+\.sh)", README))))
def test_every_recipe_is_there_and_is_valid_bash(script):
    result = subprocess.run(["bash", "-n", str(REPOSITORY / script)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_train_sh_and_test_sh_run_from_anywhere(tmp_path):
    root = make_tree(tmp_path / "datasets")
    tiny = ["--backbone", "tiny_vit", "--crop_size", "64", "--base_size", "64", "--workers", "0"]
    weights = checkpoint(tmp_path / "mine.ckpt")
    recipes = {
        "train.sh": ["--dry-run", "--num_features", "16", "--accelerator", "cpu", "--checkpoint_dir", "runs"],
        "test.sh": ["--weights", str(weights), "--device", "cpu", "--output_dir", "out", "--log_dir", "logs"],
    }
    for script, options in recipes.items():
        line = ["bash", str(REPOSITORY / script), *tiny, "--data_path", str(root), *options]
        result = subprocess.run(
            line, cwd=tmp_path, env=environment(PYTHON=sys.executable), capture_output=True, text=True, timeout=200
        )
        assert result.returncode == 0, (result.stdout + result.stderr)[-2000:]
    assert (tmp_path / "out" / "results.json").is_file()
