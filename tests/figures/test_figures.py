import json
from pathlib import Path

import numpy as np
import pytest
from small_runs import small_settings

from mst_jax.analysis import (
    Layer,
    estimate,
    mean,
    read_curve,
    read_layers,
    read_published,
)
from mst_jax.analysis.curves import Published, interval_over_seeds
from mst_jax.figures import draw_curves, draw_topology, save_figure
from mst_jax.figures.topology_figure import WIDEST, _shrink
from mst_jax.runs.config_file import write_settings
from mst_jax.runs.health import read_diverged

RESULTS = Path(__file__).parents[2] / "docs" / "results"


def write_run(folder, rows_of_seeds):
    """A run folder with only settings and metric files."""
    write_settings(folder, small_settings(seeds=len(rows_of_seeds)))
    for seed, rows in enumerate(rows_of_seeds):
        (folder / f"seed_{seed}").mkdir()
        lines = [
            json.dumps(
                {"step": s, "kind": "eval", "return": r, "healthy": h, "wall/seconds": float(s)}
            )
            for s, r, h in rows
        ]
        text = "".join(line + "\n" for line in lines)
        (folder / f"seed_{seed}" / "metrics.jsonl").write_text(text)


def test_read_curve_keeps_every_seed_and_marks_the_sick_one(tmp_path):
    write_run(
        tmp_path,
        [[(0, 1.0, True), (10, 2.0, True)], [(0, 3.0, True), (10, None, False)], [(0, 5.0, True)]],
    )
    curve = read_curve(tmp_path)
    np.testing.assert_array_equal(curve.steps, [0, 10])
    np.testing.assert_array_equal(curve.returns, [[1, 2], [3, np.nan], [5, np.nan]])
    np.testing.assert_array_equal(curve.healthy, [True, False, True])
    assert curve.diverged == read_diverged(tmp_path) == {1: 10}
    assert curve.seconds == 10.0
    save_figure(draw_curves([curve, curve]), tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_a_finite_return_of_a_diverged_seed_is_none_whoever_wrote_it(tmp_path):
    """Fault A1 in a run of an older version: doing nothing earned more, and nothing comes back."""
    write_run(
        tmp_path,
        [
            [(0, 1.0, True), (10, 2.0, True), (20, 3.0, True)],
            [(0, 3.0, True), (10, 48.4, False), (20, 48.4, True)],
        ],
    )
    curve = read_curve(tmp_path)
    np.testing.assert_array_equal(curve.returns, [[1, 2, 3], [3, np.nan, np.nan]])
    assert curve.diverged == {1: 10}


def test_published_curves_are_read_and_drawn_beside(tmp_path):
    published = {curve.task: curve for curve in read_published(RESULTS / "mrq_published.csv")}
    assert {task.partition(":")[0] for task in published} == {"dmc", "dmc_pixels", "gym", "atari"}
    vectors, pictures = (published[f"{suite}:cartpole-swingup"] for suite in ("dmc", "dmc_pixels"))
    assert vectors.steps[1] == pictures.steps[1] == 25_000
    assert vectors.frames == pictures.frames == 2
    assert vectors.mean[1] == pytest.approx(795.297)
    assert pictures.mean[4] == pytest.approx(815, abs=0.5)  # at 100,000
    write_run(tmp_path, [[(0, 1.0, True), (30_000, 2.0, True)]])
    curve = read_curve(tmp_path)._replace(task=vectors.task)
    (axis,) = draw_curves([curve], [vectors, pictures]).axes
    labels = [text.get_text() for text in axis.get_legend().get_texts()]
    assert labels[-1] == "published, mean and sd"
    (drawn,) = axis.containers
    np.testing.assert_array_equal(drawn[0].get_xdata(), [0, 25_000])


def test_published_points_stand_where_as_many_frames_have_passed(tmp_path):
    published = Published("probe:point", 2, *np.array([[0, 25, 50, 75], [1, 2, 3, 4], [1] * 4]))
    write_run(tmp_path, [[(0, 1.0, True), (15, 2.0, True)]])
    curve = read_curve(tmp_path)._replace(frames=8)
    (axis,) = draw_curves([curve], [published]).axes
    (drawn,) = axis.containers
    np.testing.assert_array_equal(drawn[0].get_xdata(), [0, 6.25, 12.5])
    assert drawn.get_label() == "published, mean and sd, steps of 2 frames each"
    assert axis.get_xlabel() == "agent steps (8 frames each)"


def test_published_rows_of_a_task_have_steps_of_one_length(tmp_path):
    table = "task,frames,agent_steps,mean_return,std_return\na:b,2,0,1,1\na:b,4,1,1,1\n"
    (tmp_path / "table.csv").write_text(table)
    with pytest.raises(ValueError, match=r"rows of a:b have steps of \[2, 4\] frames"):
        read_published(tmp_path / "table.csv")


def test_a_run_without_evaluations_is_explained(tmp_path):
    write_run(tmp_path, [[]])
    with pytest.raises(ValueError, match="no evaluation yet"):
        read_curve(tmp_path)


def test_a_step_at_which_no_seed_is_finite_is_a_gap(tmp_path):
    write_run(tmp_path, [[(0, 1.0, True), (10, None, False)]])
    save_figure(draw_curves([read_curve(tmp_path)]), tmp_path / "curve.png")


def test_large_masks_are_averaged_in_blocks_that_cover_everything():
    mask = np.random.default_rng(0).random((3 * WIDEST + 5, 40)) < 0.3
    small = _shrink(mask)
    assert small.shape == (-(-mask.shape[0] // 4), 40)
    np.testing.assert_allclose(small[:-1], mask[: 4 * (len(small) - 1)].reshape(-1, 4, 40).mean(1))
    np.testing.assert_allclose(small[-1], mask[4 * (len(small) - 1) :].mean(0))


def test_small_masks_are_drawn_as_they_are():
    mask = np.eye(7, dtype=bool)
    np.testing.assert_array_equal(_shrink(mask), mask.astype(float))


@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_topology_pictures_of_any_number_of_layers(tmp_path, count):
    rng = np.random.default_rng(count)
    masks = [rng.random((2, 6, 300)) < 0.4 for _ in range(count)]
    layers = [Layer(f"critic/layer_{i}", *pair) for i, pair in enumerate(masks)]
    layers.append(Layer("critic/value", np.ones((6, 1), bool), np.ones((6, 1), bool)))
    save_figure(draw_topology(layers, "title"), tmp_path / "topology.png")
    assert (tmp_path / "topology.png").stat().st_size > 1000


@pytest.mark.slow
def test_layers_of_a_run_are_those_masked(finished_run):
    found = read_layers(finished_run, seed=1)
    layers = found.layers
    names = [layer.name for layer in layers]
    assert len(names) == 9
    assert names[:3] == ["actor/log_std", "actor/mean", "actor/trunk/block_1/expand"]
    by_name = {layer.name: layer for layer in layers}
    np.testing.assert_array_equal(*by_name["actor/trunk/block_1/project"][1:])
    critic = by_name["critic/q1/trunk/block_1/expand"]
    assert critic.before.sum() == critic.after.sum()
    assert (critic.before != critic.after).any()
    assert (found.step, found.seed, found.healthy, found.dense) == (120, 1, True, [])
    of_the_critic = {path: one for path, one in found.masks.items() if path.startswith("critic/")}
    assert found._replace(masks=of_the_critic).dense == ["actor"]


def test_intervals_of_curves_are_those_of_the_statistics():
    values = np.array([[1.0, 1.0, np.nan], [3.0, np.nan, np.nan], [8.0, np.nan, np.nan]])
    low, high = interval_over_seeds(values)
    found = estimate(mean, [values[:, 0]])
    assert (low[0], high[0]) == (found.low, found.high)
    assert 1.0 <= low[0] < 4.0 < high[0] <= 8.0
    assert np.isnan([*low[1:], *high[1:]]).all()
