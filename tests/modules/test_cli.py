"""The command ``lseg`` of the installed package."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from checkpoint_files import tiny_checkpoint
from lseg_utils.errors import InputError
from modules import cli
from scripts import REPOSITORY

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def here(tmp_path, monkeypatch):
    tiny_checkpoint(tmp_path / "tiny.ckpt")
    Image.new("RGB", (50, 40), "red").save(tmp_path / "cat.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_segment(here, capsys):
    assert cli.main(["segment", "cat.png", "--weights", "tiny.ckpt", "--labels", "cat, grass", "--device", "cpu"]) == 0
    assert Image.open(here / "lseg_output" / "cat" / "mask.png").size == (50, 40)
    assert "%" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "shape"),
    [([], (40, 50, 64)), (["--layout", "chw"], (64, 40, 50)), (["--variant", "conceptfusion"], (240, 320, 64))],
)
def test_embed(here, options, shape):
    assert cli.main(["embed", "cat.png", "--weights=tiny.ckpt", "--output-dir=out", "--device=cpu", *options]) == 0
    pixels = np.load(here / "out" / "cat.npy")
    assert (pixels.shape, pixels.dtype) == (shape, np.float16)


def test_segment_with_the_name_of_the_network(here):
    command = ["segment", "cat.png", "--weights", "tiny.ckpt", "--labels", "cat", "--device", "cpu", "--backbone"]
    assert cli.main([*command, "tiny_vit"]) == 0
    with pytest.raises(InputError, match="tiny_vit"):
        cli.main([*command, "tiny_resnet"])


def test_zoo(here, capsys):
    assert cli.main(["zoo", "check", "tiny.ckpt"]) == 0
    assert "tiny_vit" in capsys.readouterr().out


def test_everything_that_is_wrong_is_told_at_once_before_torch_is_imported(here):
    with pytest.raises(InputError) as caught:
        cli.main(["segment", "dog.png", "cat.png", "./cat.png", "--weights", "none.ckpt"])
    assert all(fact in str(caught.value) for fact in ("dog.png", "two pictures are called cat", "none.ckpt"))
    code = "import sys; sys.argv = ['lseg', 'embed', 'x.png', '--weights', 'y.ckpt']\n"
    code += "try:\n from modules import cli; cli.run()\nfinally: assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "Assertion" not in done.stderr and "x.png" in done.stderr, done.stderr
