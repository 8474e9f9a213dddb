"""The README keeps its promises: it is short, its snippet runs, and its two recipes run from any folder."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import yaml
from PIL import Image

from ade_tree import make_tree
from checkpoint_files import tiny_checkpoint
from pages import fenced
from scripts import REPOSITORY, environment, python_file

README = REPOSITORY / "README.md"


def test_it_is_short():
    assert len(README.read_text().splitlines()) <= 200


def test_the_one_call_runs_as_printed(tmp_path, monkeypatch):
    (snippet,) = fenced(README, "python")
    tiny_checkpoint(tmp_path / "checkpoints" / "demo_e200.ckpt")
    Image.new("RGB", (50, 40), "green").save(tmp_path / "cat.jpg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(snippet, names)
    assert names["mask"].shape == (40, 50)
    assert names["embedding"].shape == (20, 25, 64) and names["similarity"].shape == (20, 25, 2)
    assert (tmp_path / "cat_segmented" / "mask.png").is_file()


def test_licence_and_citation_are_there():
    assert (REPOSITORY / "LICENSE").read_text().startswith("MIT License")
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    paper = citation["preferred-citation"]
    (bibtex,) = fenced(README, "bibtex")
    assert paper["title"] in bibtex and paper["url"] in bibtex and str(paper["year"]) in bibtex
    assert all(f"{author['given-names']} {author['family-names']}" in bibtex for author in paper["authors"])


@pytest.mark.slow
def test_train_sh_and_test_sh_run_from_anywhere(tmp_path):
    root = make_tree(tmp_path / "datasets")
    tiny = ["--backbone", "tiny_vit", "--crop_size", "64", "--base_size", "64", "--workers", "0"]
    weights = tiny_checkpoint(tmp_path / "mine.ckpt")
    recipes = {
        "train.sh": ["--dry-run", "--num_features", "16", "--accelerator", "cpu", "--checkpoint_dir", "runs"],
        "test.sh": ["--weights", str(weights), "--device", "cpu", "--output_dir", "out", "--log_dir", "logs"],
    }
    pythons = sys.executable, python_file()  # one as a user runs it
    for python, (script, options) in zip(pythons, recipes.items(), strict=True):
        line = ["bash", str(REPOSITORY / script), *tiny, "--data_path", str(root), *options]
        result = subprocess.run(
            line, cwd=tmp_path, env=environment(PYTHON=python), capture_output=True, text=True, timeout=200
        )
        assert result.returncode == 0, (result.stdout + result.stderr)[-2000:]
    assert (tmp_path / "out" / "results.json").is_file()
