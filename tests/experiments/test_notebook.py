"""The notebooks run from top to bottom, each in a kernel of its own."""

from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parents[2] / "experiments" / "notebooks"


def read(name):
    nbformat = pytest.importorskip("nbformat")
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def executed(name, folder):
    """What the cells of a notebook put out, when it runs in this folder."""
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    client = nbclient.NotebookClient(
        read(name), timeout=300, kernel_name="python3", resources={"metadata": {"path": folder}}
    )
    outputs = [output for cell in client.execute().cells for output in cell.get("outputs", [])]
    assert list(folder.iterdir()) == [], "it writes nothing beside itself"
    return outputs, [output["data"] for output in outputs if "data" in output]


@pytest.mark.parametrize("name", sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")))
def test_a_notebook_is_committed_without_outputs(name):
    cells = [cell for cell in read(name).cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells)


@pytest.mark.slow
def test_the_notebook_of_masks_runs(tmp_path):
    outputs, shown = executed("inspect_masks", tmp_path)
    tables = [data["text/html"] for data in shown if "<table>" in data.get("text/html", "")]
    assert len(tables) == 3, "the run, the summary and the difference"
    assert "finished 300 steps" in tables[0]
    assert "critic/q1/trunk/layer_1/kernel" in tables[2]
    assert sum("image/png" in data for data in shown) == 2
    assert any("anim" in data.get("text/html", "") for data in shown), "the animation"
    text = "".join(output["text"] for output in outputs if output["output_type"] == "stream")
    assert "of the teacher's weights found" in text


@pytest.mark.slow
def test_the_notebook_of_pictures_runs(tmp_path):
    outputs, shown = executed("inspect_pictures", tmp_path)
    assert sum("image/png" in data for data in shown) == 3, "filters, places, dormancy"
    assert any("anim" in data.get("text/html", "") for data in shown), "the film"
    text = "".join(output["text"] for output in outputs if output["output_type"] == "stream")
    assert "'encoder/layer_2/kernel': '(2, 3, 3, 8, 16), 36% active'" in text
    assert "9 steps, return " in text
