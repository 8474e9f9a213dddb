"""The notebooks: they run from top to bottom on a tiny network, from any folder, and are stored with their pictures."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from PIL import Image

from checkpoint_files import own_file
from predicting import picture
from scripts import REPOSITORY
from tiny import tiny_net

NOTEBOOK = REPOSITORY / "lseg_demo.ipynb"
OWN_DATA = REPOSITORY / "examples" / "own_data.ipynb"
PICTURES = {NOTEBOOK: 7, OWN_DATA: 3}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """``run(path)``: the outputs of all cells, run in another folder of the repository; a failing cell raises."""
    checkpoint = own_file(tiny_net(labels=None), tmp_path / "tiny.ckpt")
    Image.fromarray(picture(48, 64)).save(tmp_path / "picture.png")
    monkeypatch.setenv("LSEG_CHECKPOINT", str(checkpoint))
    monkeypatch.setenv("LSEG_PICTURE", str(tmp_path / "picture.png"))
    for variable in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))

    import nbclient

    def run_notebook(path: Path) -> list:
        notebook = nbformat.read(path, as_version=4)
        anywhere = {"metadata": {"path": str(REPOSITORY / "docs")}}
        nbclient.NotebookClient(notebook, timeout=240, resources=anywhere).execute()
        return [output for cell in notebook.cells for output in cell.get("outputs", [])]

    return run_notebook


@pytest.mark.slow
@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_runs_from_top_to_bottom(path, run):
    outputs = run(path)
    assert sum("image/png" in output.get("data", {}) for output in outputs) == PICTURES[path]
    if path == NOTEBOOK:
        assert not [output for output in outputs if output.get("name") == "stderr"]
    else:  # the little network has learned something
        (miou,) = re.findall(r"mIoU: (\d+\.\d+) %", "".join(output.get("text", "") for output in outputs))
        assert float(miou) > 60


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_is_stored_with_the_pictures_of_one_run(path):
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "run all cells before you commit"
    outputs = [output for cell in code for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == PICTURES[path]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert str(REPOSITORY) not in path.read_text() and path.stat().st_size < 1_000_000
