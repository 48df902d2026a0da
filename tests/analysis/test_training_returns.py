"""Training's own episodes: windows are weighted by how many episodes ended in them."""

import json

import numpy as np
import pytest

from mst_jax.analysis import read_training_returns
from mst_jax.recipes import make_config
from mst_jax.runs import Settings
from mst_jax.runs.config_file import write_settings

ROWS = [  # (step, episodes, mean return)
    [(10, 3, 1.0), (20, 1, 5.0), (30, 3, 9.0)],
    [(10, 0, None), (20, 0, None), (30, 2, 4.0)],
    [(10, 1, 2.0), (20, 0, None), (30, 0, None)],
]


def run_with(folder, rows, **changes):
    config = make_config("stream_ac", "dense")
    settings = Settings(config=config, agent="stream_ac", seeds=len(rows), steps=30, **changes)
    folder.mkdir()
    write_settings(folder, settings)
    for seed, own in enumerate(rows):
        (folder / f"seed_{seed}").mkdir()
        lines = []
        for step, episodes, value in own:
            row = {"step": step, "kind": "train", "healthy": True, "seed": seed}
            row |= {"episodes": episodes} if episodes is not None else {}
            row |= {"return": value} if value is not None else {}
            lines.append(json.dumps(row) + "\n")
        (folder / f"seed_{seed}" / "metrics.jsonl").write_text("".join(lines))
    return folder


def test_windows_are_weighted_by_their_episodes(tmp_path):
    found = read_training_returns(run_with(tmp_path / "run", ROWS))
    np.testing.assert_array_equal(found.steps, [10, 20, 30])
    np.testing.assert_array_equal(found.episodes, [[3, 1, 3], [0, 0, 2], [1, 0, 0]])
    np.testing.assert_array_equal(found.over_last(20), [8.0, 4.0, np.nan])
    np.testing.assert_array_equal(found.over_last(30), [(3 + 5 + 27) / 7, 4.0, 2.0])
    with pytest.raises(ValueError, match="no window begins at step 15"):
        found.over_last(15)


def test_rows_without_episodes_are_refused_in_one_line(tmp_path):
    with pytest.raises(ValueError, match="does not say how many training episodes ended"):
        read_training_returns(run_with(tmp_path / "run", [[(10, None, 1.0)]]))
    with pytest.raises(ValueError, match="has no metric row of training yet"):
        read_training_returns(run_with(tmp_path / "other", [[]]))
