"""The notebook: runs from top to bottom on a tiny network, from any folder, and holds no outputs."""

from __future__ import annotations

import nbclient
import nbformat
import pytest
from PIL import Image

from checkpoint_files import own_file
from predicting import picture
from scripts import REPOSITORY
from tiny import tiny_net

NOTEBOOK = REPOSITORY / "lseg_demo.ipynb"


@pytest.mark.slow
def test_runs_from_top_to_bottom(tmp_path, monkeypatch):
    checkpoint = own_file(tiny_net(labels=None), tmp_path / "tiny.ckpt")
    Image.fromarray(picture(48, 64)).save(tmp_path / "picture.png")
    monkeypatch.setenv("LSEG_CHECKPOINT", str(checkpoint))
    monkeypatch.setenv("LSEG_PICTURE", str(tmp_path / "picture.png"))
    for variable in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    anywhere = {"metadata": {"path": str(REPOSITORY / "docs")}}
    nbclient.NotebookClient(notebook, timeout=120, resources=anywhere).execute()  # raises a failing cell's traceback
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 8
    assert not [output for output in outputs if output.get("name") == "stderr"]


def test_is_ten_cells_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert len(notebook.cells) == 10
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    clear = "clear all outputs before you commit (in Jupyter: Edit, Clear Outputs of All Cells)"
    assert all(not cell.outputs and cell.execution_count is None for cell in code), clear
