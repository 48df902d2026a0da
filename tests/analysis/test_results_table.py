import csv
import json
import math
import shutil

import numpy as np
import pytest
from small_runs import ATARI_SIZES, small_config, small_settings

from mst_jax import analysis, envs
from mst_jax.analysis.curves import total_seconds
from mst_jax.analysis.scores import ATARI
from mst_jax.recipes import make_config


def test_rows_of_a_finished_run(finished_run, tmp_path):
    rows = analysis.read_results(finished_run)
    assert [(row["seed"], row["step"]) for row in rows] == [
        (seed, step) for seed in (0, 1) for step in (0, 60, 120)
    ]
    written = [
        json.loads(line)
        for line in (finished_run / "seed_1" / "metrics.jsonl").read_text().splitlines()
    ]
    assert rows[-1]["return"] == [r["return"] for r in written if r["kind"] == "eval"][-1]
    assert rows[-1]["updates"] == 2 * (120 - 64)
    assert rows[0]["flops"] == 0
    assert rows[-1]["config.critic.regime"] == "rigl"
    assert rows[-1]["config.critic.sparsity"] == 0.6
    assert rows[-1]["task"] == "probe:point"
    analysis.write_csv(tmp_path / "results.csv", rows)
    with (tmp_path / "results.csv").open() as file:
        read = list(csv.DictReader(file))
    assert float(read[-1]["return"]) == rows[-1]["return"]
    assert int(read[-1]["parameters"]) == rows[-1]["parameters"]


def test_results_are_read_where_the_task_cannot_be_made(finished_run, tmp_path):
    """As on a machine without the task's suite; only `config.json` and `task.json` differ."""
    run = shutil.copytree(finished_run, tmp_path / "run")
    for name in ("config.json", "task.json"):
        text = (run / name).read_text()
        (run / name).write_text(text.replace("probe:point", "not_installed.envs:point"))
    rows = analysis.read_results(run)
    for row, same in zip(rows, analysis.read_results(finished_run), strict=True):
        changed = {"task": "not_installed.envs:point", "run": "run"}
        np.testing.assert_equal(row, {**same, **changed})
    (run / "task.json").unlink()  # as runs were before it was written
    with pytest.raises(ValueError, match="not_installed"):
        analysis.read_results(run)


def test_parameters_and_operations_of_stock_networks():
    """MR.Q on the dog, docs/specs/mst-and-mrq.md §2.5: 3,987,306 parameters."""
    settings = small_settings(
        task="dmc:dog-run",
        agent="mrq",
        recipe="mrq_stock",
        config=make_config("mrq", "mrq_stock"),
        steps=20_000,
    )
    cost = analysis.cost_of(settings)
    assert cost.parameters == cost.active_parameters == 3_987_306
    assert cost.flops == cost.dense_flops


def test_a_statically_sparse_network_has_its_share_of_everything():
    wide = {f"{module}__hidden": 64 for module in ("actor", "critic", "encoder")}
    sparse, dense = (
        analysis.cost_of(small_settings(agent="mrq", config=small_config(recipe, "mrq", **wide)))
        for recipe in ("all_static", "dense")
    )
    assert sparse.parameters == dense.parameters
    assert sparse.dense_flops == dense.flops
    # All kernels count and each is used once, so 60 % of the operations are gone; biases remain.
    assert sparse.flops == pytest.approx(0.4 * dense.flops, rel=1e-3)
    kernels = dense.flops / (16 * 6)
    biases = dense.parameters - kernels
    assert sparse.active_parameters == pytest.approx(0.4 * kernels + biases, abs=10)


def test_a_convolution_counts_at_each_of_its_places():
    """Nature's with a noisy head on six actions, docs/specs/der.md §1.2, layer by layer."""
    settings = small_settings("atari:Pong", agent="der", config=make_config("der", "dense"))
    cost = analysis.cost_of(settings, envs.Spec("atari:Pong", *ATARI_SIZES, 4))
    convolutions = 21**2 * 8 * 8 * 4 * 32 + 11**2 * 4 * 4 * 32 * 64 + 11**2 * 3 * 3 * 64 * 64
    noisy = 2 * (11 * 11 * 64 * 512 + 512 * 51 * (6 + 1))  # mean and scale
    # On a batch of 32: two operations forward, for the inputs' and for the weights' gradient.
    assert cost.flops == cost.dense_flops == 32 * 6 * (convolutions + noisy)
    assert cost.parameters == 8_375_146


def test_seconds_of_a_run_whose_processes_each_began_at_zero_are_added_up():
    rows = [{"wall/seconds": s} for s in (1.0, 4.0, 2.0, 3.0, 1.0)]
    assert total_seconds(rows) == [1.0, 4.0, 6.0, 7.0, 8.0]
    goes_on = [{"wall/seconds": s} for s in (1.0, 4.0, 6.5, 6.5, 9.0)]
    assert total_seconds(goes_on) == [1.0, 4.0, 6.5, 6.5, 9.0]


def test_the_last_evaluation_of_every_seed():
    rows = [
        {"task": "t", "run": "r", "seed": seed, "step": step, "return": seed + step}
        for seed in (0, 1)
        for step in (0, 5, 10)
    ]
    last = analysis.last_rows(rows)
    assert [row["return"] for row in last] == [10, 11]
    assert analysis.by_task(last) == {"t": {0: 10, 1: 11}}
    with pytest.raises(ValueError, match="occurs twice"):
        analysis.by_task(rows)


def test_normalised_scores_have_a_range_or_are_refused():
    np.testing.assert_array_equal(analysis.normalised("dmc:dog-run", np.array([500.0])), [0.5])
    assert analysis.normalised("gym:Ant-v5", 6902.0) == 1.0
    # A human plays Pong to 14.6, chance to -20.7: halfway is -3.05.
    np.testing.assert_allclose(
        analysis.normalised("atari:Pong", [-20.7, -3.05, 14.6]), [0.0, 0.5, 1.0], atol=1e-12
    )
    assert analysis.score_range("dmc:lqr-lqr_2_1") is None
    assert analysis.score_range("envpool:dog-run") == (0, 1000)
    assert analysis.score_range("envpool:Ant-v4") == analysis.score_range("gym:Ant-v4") == (0, 6902)
    assert analysis.score_range("envpool:Swimmer-v4") is None
    assert analysis.score_range("atari:Tetris") is None
    assert len(ATARI) == 26
    assert all(human > chance for chance, human in ATARI.values())
    with pytest.raises(ValueError, match="no agreed range"):
        analysis.normalised("brax:ant", 1.0)


def test_a_return_that_is_not_finite_is_nan(finished_run, tmp_path):
    copy = shutil.copytree(finished_run, tmp_path / "run")
    path = copy / "seed_0" / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[-1] |= {"return": None, "returns": [None, None], "episodes": 0}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    last = analysis.last_rows(analysis.read_results(copy))[0]
    assert math.isnan(last["return"])
    assert (last["healthy"], last["diverged"], last["episodes"]) == (True, None, 0)


def test_a_diverged_seed_has_no_return_in_the_table(finished_run, tmp_path):
    """Fault A1: rows of an older version have a finite one; from that step on there is none."""
    copy = shutil.copytree(finished_run, tmp_path / "run")
    path = copy / "seed_1" / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row.pop("episodes", None)
        row["healthy"] = row["step"] < 60
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = [row for row in analysis.read_results(copy) if row["seed"] == 1]
    assert [math.isfinite(row["return"]) for row in table] == [True, False, False]
    assert [row["healthy"] for row in table] == [True, False, False]
    assert [row["episodes"] for row in table] == [2, 0, 0]
    assert {row["diverged"] for row in table} == {60}
    healthy = [row for row in analysis.read_results(copy) if row["seed"] == 0]
    assert all(math.isfinite(row["return"]) for row in healthy)
    analysis.write_csv(tmp_path / "results.csv", [*table, *healthy])
    with (tmp_path / "results.csv").open() as file:
        read = list(csv.DictReader(file))
    assert (read[-1]["diverged"], read[0]["diverged"], read[1]["return"]) == ("", "60", "nan")
