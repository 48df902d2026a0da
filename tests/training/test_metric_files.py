import json

import numpy as np
import pytest
from small_runs import small_config, small_settings

from mst_jax.training import read_metrics, read_settings
from mst_jax.training.evaluation import episodes_together
from mst_jax.training.settings import write_settings
from mst_jax.training.sinks import METRICS, JsonLines, cut_back
from mst_jax.training.trainer import next_boundary


def test_rows_are_plain_json_and_non_finite_values_are_null(tmp_path):
    sink = JsonLines([tmp_path])
    sink.write(0, {"step": np.int64(3), "x": np.float32(0.5), "bad": np.nan, "ok": np.True_})
    sink.write(0, {"step": 4, "returns": np.array([1.0, np.inf])})
    sink.close()
    rows = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    assert rows == [
        {"step": 3, "x": 0.5, "bad": None, "ok": True},
        {"step": 4, "returns": [1.0, None]},
    ]


def test_cut_back_drops_later_rows_and_a_half_written_line(tmp_path):
    text = "".join(json.dumps({"step": step}) + "\n" for step in (0, 5, 5, 10))
    (tmp_path / METRICS).write_text(text + '{"step": 1')
    cut_back(tmp_path, 5)
    assert [row["step"] for row in read_metrics(tmp_path)] == [0, 5, 5]
    cut_back(tmp_path, -1)
    assert read_metrics(tmp_path) == []


def test_cut_back_of_a_run_without_metrics_does_nothing(tmp_path):
    cut_back(tmp_path, 5)
    assert list(tmp_path.iterdir()) == []


def test_settings_round_trip(tmp_path):
    settings = small_settings(config=small_config(critic__sparsity=0.8))
    write_settings(tmp_path, settings)
    assert read_settings(tmp_path) == settings
    versions = json.loads((tmp_path / "versions.json").read_text())
    assert versions["packages"]["jax"]
    assert versions["devices"]


def test_settings_that_cannot_be_read_are_explained(tmp_path):
    with pytest.raises(ValueError, match="not a run folder"):
        read_settings(tmp_path)
    write_settings(tmp_path, small_settings())
    path = tmp_path / "config.json"
    raw = json.loads(path.read_text())
    del raw["config"]["critic"]["hidden"]
    path.write_text(json.dumps(raw))
    with pytest.raises(ValueError, match="hidden"):
        read_settings(tmp_path)
    path.write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        read_settings(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 64}, "must exceed learning_starts=64"),
        ({"seeds": 0}, "seeds=0"),
        ({"eval_every": 0}, "eval_every=0"),
        ({"eval_episodes": -1}, "eval_episodes=-1"),
        ({"checkpoint_every": -1}, "checkpoint_every=-1"),
    ],
)
def test_impossible_run_settings_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        small_settings(**changes).validate()


def test_next_boundary_stops_at_everything_that_is_due():
    settings = small_settings(steps=250, log_every=40, eval_every=100, checkpoint_every=60)
    stops, step = [], 0
    while step < 250:
        step = next_boundary(step, settings, learning_starts=64)
        stops.append(step)
    assert stops == [40, 60, 64, 80, 100, 120, 160, 180, 200, 240, 250]


@pytest.mark.parametrize(
    ("seeds", "episodes", "expected"),
    [(1, 10, 10), (4, 10, 5), (8, 10, 2), (4, 3, 3), (8, 7, 1), (64, 10, 1), (1, 100, 25)],
)
def test_episodes_together_divides_and_limits_environments(seeds, episodes, expected):
    assert episodes_together(seeds, episodes) == expected
