"""The notebook runs from top to bottom, in a kernel of its own."""

from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "experiments" / "notebooks" / "inspect_masks.ipynb"


def read():
    nbformat = pytest.importorskip("nbformat")
    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_notebook_is_committed_without_outputs():
    cells = [cell for cell in read().cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells)


def test_the_notebook_runs(tmp_path):
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    client = nbclient.NotebookClient(
        read(), timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    notebook = client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = [output["data"] for output in outputs if "data" in output]
    tables = [data["text/html"] for data in shown if "<table>" in data.get("text/html", "")]
    assert len(tables) == 3, "the run, the summary and the difference"
    assert "finished 300 steps" in tables[0]
    assert "critic/q1/trunk/layer_1/kernel" in tables[2]
    assert sum("image/png" in data for data in shown) == 2
    assert any("anim" in data.get("text/html", "") for data in shown), "the animation"
    text = "".join(output["text"] for output in outputs if output["output_type"] == "stream")
    assert "of the teacher's weights found" in text
    assert list(tmp_path.iterdir()) == [], "it writes nothing beside itself"
