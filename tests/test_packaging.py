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
import modules, data, utils
assert modules.MINE and data.MINE and utils.MINE
import numpy as np, torch
torch.set_num_threads(1)
predictor = lseg.LSegPredictor.from_checkpoint("lseg.ckpt", device="cpu")
assert predictor.embed(np.zeros((40, 50, 3), np.uint8), mode="protocol", variant="vlmaps").shape == (51, 64, 64)
assert predictor.segment(np.zeros((40, 50, 3), np.uint8), ["cat", "grass"]).mask.shape == (40, 50)
assert lseg.LSegNet(backbone="tiny_vit", features=16).eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 64, 32, 32)
from {package}.models.lseg_net import LSegNet, clip
assert LSegNet("", backbone="tiny_vit", features=16).out_c == 64 and clip.tokenize("cat").shape == (1, 77)
net = lseg.build_lseg("tiny_vit", ["cat"], features=16)
assert net(torch.zeros(1, 3, 64, 64)).shape == (1, 1, 64, 64)
from encoding_ext.palettes import ade20k_palette
from {package}.zoo import RELEASED
assert len(RELEASED) == 11 and ade20k_palette().shape[1] == 3
from lseg_utils.git import git_state
assert git_state() == {{}}
import importlib.util
print(importlib.util.find_spec("{package}").origin)
"""


def copy_of_sources(folder: Path) -> Path:
    """What a commit contains of the three packages and the build's files, without what earlier builds left."""
    for package in PACKAGES:
        shutil.copytree(REPOSITORY / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(REPOSITORY / name, folder)
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's folder with packages of their own called modules, data and utils, and a checkpoint."""
    folder = tmp_path / "project"
    for package in ("modules", "data", "utils"):
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").write_text("MINE = True\n")
    official_file(tiny_net("tiny_vit"), folder / "lseg.ckpt")
    return folder


def use(package: str, project: Path, path: Path | None = None, python: str | Path = sys.executable) -> str:
    (project / "user.py").write_text(USE.format(package=package))
    variables = {name: value for name, value in environment().items() if name != "PYTHONPATH"}
    if path is not None:
        variables["PYTHONPATH"] = str(path)
    done = subprocess.run([python, "user.py"], cwd=project, env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


def test_the_wheel_next_to_a_foreign_modules_and_data(project, tmp_path):
    sources, target = copy_of_sources(tmp_path / "sources"), tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = [*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path / "wheels", sources]
    subprocess.run(build, check=True, timeout=300)
    (wheel,) = (tmp_path / "wheels").glob("lseg-*.whl")
    install = [*pip, "install", "-q", "--no-deps", "--no-compile", "--target", target, wheel]
    subprocess.run(install, check=True, timeout=300)
    assert {path.name for path in target.iterdir() if path.is_dir() and not path.name.endswith(".dist-info")} == {
        *("lseg", "encoding_ext", "lseg_utils", "bin")
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
    shutil.copy(REPOSITORY / "docs" / "sample.png", project / "cat.png")
    variables = {**environment(), "PYTHONPATH": str(target)}
    line = [target / "bin" / "lseg", "segment", "--labels", "cat, grass", "cat.png", "--weights", "lseg.ckpt"]
    subprocess.run([*line, "--device", "cpu"], cwd=project, env=variables, check=True, timeout=300)
    assert (project / "lseg_output" / "cat" / "mask.png").exists()


def test_an_editable_install_next_to_foreign_packages(project, tmp_path):
    sources, venv = copy_of_sources(tmp_path / "sources"), tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True, timeout=300)
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "others.pth").write_text(f"{Path(pytest.__file__).resolve().parent.parent}\n")  # torch and the like
    pip = [sys.executable, "-m", "pip", "--python", venv / "bin" / "python", "--disable-pip-version-check"]
    install = [*pip, "install", "-q", "--no-deps", "--no-compile", "--no-build-isolation", "-e", sources]
    subprocess.run(install, check=True, timeout=300)
    assert use("lseg", project, python=venv / "bin" / "python") == str(sources / "modules" / "__init__.py")


def test_a_submodule_at_depth(project):
    copy = project / "a" / "b" / "lseg_repo"
    copy.mkdir(parents=True)
    copy_of_sources(copy)
    shutil.copytree(REPOSITORY / "additional_utils", copy / "additional_utils")
    line = "from a.b.lseg_repo.additional_utils.models import LSeg_MultiEvalModule, pad_image"
    subprocess.run([sys.executable, "-c", line], cwd=project, env=environment(), check=True, timeout=300)
    package = "a.b.lseg_repo.modules"
    assert use(package, project) == str(copy / "modules" / "__init__.py")
