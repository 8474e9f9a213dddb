"""hubconf.py as torch.hub uses it: from a foreign folder, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from checkpoint_files import official_file
from modules.models import BACKBONES
from scripts import REPOSITORY, environment
from tiny import tiny_net


@pytest.fixture
def foreign_folder(tmp_path: Path) -> Path:
    """A user's project that has packages of the same names as ours, and a checkpoint."""
    for package in ("modules", "data", "encoding_ext"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
    official_file(tiny_net("tiny_vit"), tmp_path / "lseg.ckpt")
    return tmp_path


def python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    code = f"import sys, torch\nHERE = {str(REPOSITORY)!r}\ntorch.set_num_threads(1)\n{code}"
    (folder / "user.py").write_text(code)
    return subprocess.run(
        [sys.executable, "user.py"], cwd=folder, env=environment(), capture_output=True, text=True, timeout=200
    )


@pytest.mark.slow
def test_load_list_and_help_from_a_foreign_folder(foreign_folder):
    result = python(
        """
import inspect, numpy as np
torch.hub._get_cache_or_reload = lambda *args, **kwargs: HERE  # list knows no local folders
print("entries", *torch.hub.list(HERE))
print(torch.hub.help(HERE, "clip_vitl16_384"))
print(torch.hub.help(HERE, "lseg"))
predictor = torch.hub.load(HERE, "lseg", source="local", checkpoint="lseg.ckpt", device="cpu")
assert HERE not in sys.path
print("mask", predictor.segment(np.zeros((40, 50, 3), np.uint8), ["cat", "grass"]).mask.shape)
net = torch.hub.load(HERE, "tiny_vit", source="local", checkpoint="lseg.ckpt", labels=["cat"])
print("logits", tuple(net(torch.zeros(1, 3, 64, 64)).shape))
net = torch.hub.load(HERE, "tiny_resnet", source="local", features=16)
print("built", net.architecture["backbone"], net.architecture["features"])
for entry, options in (("lseg", {}), ("tiny_resnet", {"checkpoint": "lseg.ckpt"})):
    try:
        torch.hub.load(HERE, entry, source="local", **options)
    except ValueError as error:
        print("refused", error)
import modules, data
print("data", data.__file__)
""",
        foreign_folder,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    lines = result.stdout.splitlines()
    (entries,) = [line.split()[1:] for line in lines if line.startswith("entries")]
    assert sorted(entries) == sorted([*BACKBONES, "lseg"])
    assert "vit_large_patch16_384" in result.stdout and "nothing is downloaded" in result.stdout
    assert "mask (40, 50)" in lines and "logits (1, 1, 64, 64)" in lines and "built tiny_resnet 16" in lines
    refused = [line for line in lines if line.startswith("refused")]
    assert "needs checkpoint=FILE" in refused[0] and "is a tiny_vit" in refused[1]
    assert f"data {foreign_folder / 'data' / '__init__.py'}" in lines  # the user's, which we never hid


def test_a_package_of_the_same_name_that_was_imported_before_is_named(foreign_folder):
    result = python('import modules\ntorch.hub.load(HERE, "tiny_resnet", source="local")', foreign_folder)
    assert result.returncode == 1
    assert f"hidden by {foreign_folder / 'modules'}" in result.stderr and "load LSeg first" in result.stderr
