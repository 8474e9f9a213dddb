"""The wheel and a copy of the repository inside a foreign project, next to folders of the same names."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from checkpoint_files import official_file
from scripts import REPOSITORY, environment
from tiny import tiny_net

pytestmark = pytest.mark.slow
PACKAGES = ("modules", "encoding_ext", "lseg_utils")

USE = """
import sys
import {package} as lseg
assert "torch" not in sys.modules
import modules, data
assert modules.MINE and data.MINE
import numpy as np, torch
torch.set_num_threads(1)
predictor = lseg.LSegPredictor.from_checkpoint("lseg.ckpt", device="cpu")
assert predictor.segment(np.zeros((40, 50, 3), np.uint8), ["cat", "grass"]).mask.shape == (40, 50)
net = lseg.build_lseg("tiny_vit", ["cat"], features=16)
assert net(torch.zeros(1, 3, 64, 64)).shape == (1, 1, 64, 64)
from encoding_ext.palettes import ade20k_palette
from {package}.zoo import RELEASED
assert len(RELEASED) == 11 and ade20k_palette().shape[1] == 3
from {package} import checkpoints
assert checkpoints.git_state() == {{}}
import importlib.util
print(importlib.util.find_spec("{package}").origin)
""".replace("from {package}.encoding_of import palette\n", "from encoding_ext import palette\nassert palette(3)\n")


def copy_of_sources(folder: Path) -> Path:
    """What a commit contains of the three packages and the build's files, without what earlier builds left."""
    for package in PACKAGES:
        shutil.copytree(REPOSITORY / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(REPOSITORY / name, folder)
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's folder with packages of their own called modules and data, and a checkpoint."""
    folder = tmp_path / "project"
    for package in ("modules", "data"):
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").write_text("MINE = True\n")
    official_file(tiny_net("tiny_vit"), folder / "lseg.ckpt")
    return folder


def use(package: str, project: Path, path: Path | None = None) -> str:
    (project / "user.py").write_text(USE.format(package=package))
    variables = {name: value for name, value in environment().items() if name != "PYTHONPATH"}
    if path is not None:
        variables["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [sys.executable, "user.py"], cwd=project, env=variables, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


def test_the_wheel_next_to_a_foreign_modules_and_data(project, tmp_path):
    sources, target = copy_of_sources(tmp_path / "sources"), tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = [*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path / "wheels", sources]
    subprocess.run(build, check=True, timeout=300)
    (wheel,) = (tmp_path / "wheels").glob("lseg-*.whl")
    subprocess.run([*pip, "install", "-q", "--no-deps", "--target", target, wheel], check=True, timeout=300)
    assert {path.name for path in target.iterdir() if path.is_dir() and not path.name.endswith(".dist-info")} == {
        *("lseg", "encoding_ext", "lseg_utils")
    }
    assert all((target / package / "py.typed").exists() for package in ("lseg", "encoding_ext", "lseg_utils"))
    missing = [
        path.relative_to(sources)
        for folder, package in (("modules", "lseg"), ("encoding_ext", "encoding_ext"), ("lseg_utils", "lseg_utils"))
        for path in (sources / folder).rglob("*.*")
        if path.is_file() and not (target / package / path.relative_to(sources / folder)).exists()
    ]
    assert not missing, missing
    assert use("lseg", project, target) == str(target / "lseg" / "__init__.py")


def test_a_submodule_at_depth(project):
    copy = project / "a" / "b" / "lseg_repo"
    copy.mkdir(parents=True)
    copy_of_sources(copy)
    package = "a.b.lseg_repo.modules"
    assert use(package, project) == str(copy / "modules" / "__init__.py")
