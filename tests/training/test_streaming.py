"""Whole runs of Stream AC(λ): what is refused, exact resume, and that it learns."""

import numpy as np
import pytest
from small_runs import metrics_without_wall_clock, resumed_exactly, small_settings

from mst_jax.recipes import make_config, override
from mst_jax.runs import Settings
from mst_jax.training import plan_run, train


def test_several_environments_are_refused_in_one_line(tmp_path):
    settings = small_settings(agent="stream_ac", environments=2)
    with pytest.raises(ValueError, match="environments=2: stream_ac learns from 1 of each") as e:
        plan_run(settings, tmp_path)
    assert "\n" not in str(e.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("task", ["gym:InvertedPendulum-v4", "brax:inverted_pendulum"])
def test_a_killed_run_resumes_exactly(task, tmp_path, monkeypatch):
    """In the middle of an episode; traces, statistics and the mask that moves come back."""
    settings = small_settings(task, "mst", "stream_ac", steps=400, with_time="published")
    resumed_exactly(settings, tmp_path, monkeypatch, 130)


@pytest.mark.slow
@pytest.mark.parametrize("action_scale", ["native", "unit"])
@pytest.mark.parametrize("sparsity", [0.0, 0.8])
def test_the_pendulum_stands_after_twelve_thousand_steps(sparsity, action_scale, tmp_path):
    """All three seeds reach the highest return; ours did by step 5,000 in either units."""
    own = {"hidden": 256, "regime": "static", "sparsity": sparsity}
    changes = {f"{module}.{key}": v for module in ("critic", "actor") for key, v in own.items()}
    changes["action_scale"] = action_scale
    settings = Settings(
        agent="stream_ac",
        task="gym:InvertedPendulum-v4",
        recipe="learning",
        config=override(make_config("stream_ac", "dense"), changes),
        steps=12_000,
        seeds=3,
        eval_every=12_000,
        eval_episodes=1,
        log_every=1_000,
        checkpoint_every=0,
        diagnose_every=0,
    )
    folder = train(plan_run(settings, tmp_path)).folder
    rows = metrics_without_wall_clock(folder)
    best = [
        max(row.get("return", 0.0) for row in own if row["kind"] == "train")
        for own in rows.values()
    ]
    assert len(best) == 3
    np.testing.assert_array_equal(best, 1000.0)
