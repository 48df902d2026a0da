"""Cosines between samples' gradients, as a run saves them: RUN/diagnostics/covariance_STEP.npz."""

from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from mst_jax.runs.folder import COVARIANCES, covariance_file


def save_covariances(folder: Path, step: int, matrices: Mapping[str, jax.Array]) -> None:
    """Writes RUN/diagnostics/covariance_STEP.npz."""
    arrays = {name: np.asarray(matrix) for name, matrix in matrices.items()}
    path = covariance_file(folder, step)
    path.parent.mkdir(exist_ok=True)
    np.savez(path, **arrays)  # ty: ignore[invalid-argument-type] - allow_pickle is no module


def read_covariances(folder: Path, index: int = 0) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """First and last gradient covariances that a run saved, by module.

    Args:
        folder: run folder; its diagnostics/covariance_STEP.npz hold {module: (S, B, B)}.
        index: position of the seed.

    Returns:
        {"module, step A and step B": two matrices (B, B)}.

    Raises:
        ValueError: when the run saved none.
    """
    files = {
        int(path.stem.removeprefix("covariance_")): path
        for path in (folder / COVARIANCES).glob("covariance_*.npz")
    }
    if not files:
        raise ValueError(f"{folder} holds no gradient covariances (gradient_covariance was off)")
    first, last = min(files), max(files)
    with np.load(files[first]) as before, np.load(files[last]) as after:
        return {
            f"{module}, step {first:,} and step {last:,}": (
                before[module][index],
                after[module][index],
            )
            for module in before.files
        }
