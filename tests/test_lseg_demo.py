"""The notebook: it runs from top to bottom on a tiny network, from any folder, and is stored with its pictures."""

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
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 7
    assert not [output for output in outputs if output.get("name") == "stderr"]


def test_is_ten_cells_stored_with_the_pictures_of_one_run():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert len(notebook.cells) == 10
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "run all cells before you commit"
    outputs = [output for cell in code for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 7
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert str(REPOSITORY) not in NOTEBOOK.read_text() and NOTEBOOK.stat().st_size < 1_000_000
