import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(("allowed", "code"), [("", 1), ("1", 0)])
def test_a_python_that_is_not_installed_is_reported_in_one_line(allowed, code):
    result = subprocess.run(
        [ROOT / ".ci" / "matrix"],
        env={**os.environ, "CELLS": "3.1/0.10", "ALLOW_MISSING": allowed},
        capture_output=True,
        text=True,
        check=False,
    )
    line = "Python 3.1, jax 0.10: skipped, python3.1 is neither on PATH nor in pyenv"
    assert result.stdout.strip() == line
    assert result.returncode == code


def test_the_cells_are_what_setup_allows():
    matrix = (ROOT / ".ci" / "matrix").read_text()
    (cells,) = [line for line in matrix.splitlines() if line.startswith("CELLS=")]
    setup = (ROOT / "setup.py").read_text()
    assert 'python_requires=">=3.11"' in setup
    assert '"jax>=0.10,<0.13"' in setup
    assert {cell.split("/")[0] for cell in cells.split('"')[1].split()} == {"3.11", "3.12", "3.13"}
    jaxes = {cell.split("/")[1].rstrip("}") for cell in cells.split('"')[1].split()}
    assert jaxes == {"0.10", "0.11", "0.12"}
