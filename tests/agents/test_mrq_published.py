"""The cheapest proof that this is MR.Q: the stock recipe, full size, against its published run."""

from pathlib import Path

import numpy as np
import pytest

from mst_jax.agents import default_config
from mst_jax.analysis import read_curve, read_published
from mst_jax.runs import Settings
from mst_jax.training import plan_run, train

PUBLISHED = Path(__file__).parents[2] / "docs/results/mrq_published.csv"


@pytest.mark.slow
def test_stock_recipe_reaches_the_published_return_on_cartpole_swingup(tmp_path):
    """About half an hour on 2 cores; published after 25 k agent steps: 795, sd 53, 10 seeds."""
    settings = Settings(
        recipe="mrq_stock",
        config=default_config("mrq"),
        steps=25_000,
        checkpoint_every=0,
        diagnose_every=0,
    )
    curve = read_curve(train(plan_run(settings, tmp_path)).folder)
    published = {curve.task: curve for curve in read_published(PUBLISHED)}[settings.task]
    (index,) = np.flatnonzero(published.steps == 25_000)
    mean, sd = published.mean[index], published.std[index]
    assert (round(mean), round(sd)) == (795, 53)
    assert np.abs(curve.returns[0, -1] - mean) < 3 * sd
