"""Which kernels of MR.Q each recipe prunes: the table in docs/agents.md is that of the plans."""

import math
from pathlib import Path

import numpy as np
import pytest
import small_runs

from mst_jax.agents import Sizes, make_agent
from mst_jax.envs import Continuous
from mst_jax.recipes import make_config

PAGE = Path(__file__).parents[2] / "docs/agents.md"
RECIPES = ("mrq_stock", "dense", "mst", "swap", "all_static", "all_rigl")
TASKS = (
    Sizes(small_runs.PICTURE_SIZES.observation, Continuous(1), 500),  # cartpole-swingup
    small_runs.ATARI_SIZES,  # six actions
)


def kernels(recipe, sizes):
    """Kernel -> the share of its weights that is there, from the first update to the last."""
    found = {}
    for name, module in make_agent(
        "mrq", make_config("mrq", recipe), sizes, 20_000
    ).modules.items():
        masked = module.plan.entries()
        for path in module.plan.names:
            if not path.endswith("kernel"):
                assert path not in masked, "biases are dense"
                continue
            share = 1.0
            if path in masked:
                group, column, entry = masked[path]
                (count,) = set(np.asarray(module.plan.groups[group].table.target)[:, column])
                share = float(count) / math.prod(entry.shape)
            found[f"{name}/{path}"] = share
    return found


def rows():
    """The table: a kernel, its share on each task, and the recipes that prune it."""
    plans = {recipe: [kernels(recipe, sizes) for sizes in TASKS] for recipe in RECIPES}
    for kernel in plans["all_rigl"][0]:
        if kernel.startswith("critic/q2/"):  # as q1, but for what rounding leaves over
            continue
        shares = [plans["all_rigl"][task][kernel] for task in (0, 1)]
        pruned = [r for r in RECIPES if any(own[kernel] < 1 for own in plans[r])]
        for recipe in pruned:
            assert [own[kernel] for own in plans[recipe]] == shares, "whatever moves it"
        cells = [f"`{kernel.removesuffix('/kernel')}`", *(f"{share:.3f}" for share in shares)]
        yield f"| {' | '.join([*cells, ', '.join(f'`{r}`' for r in pruned) or 'none'])} |"


@pytest.mark.slow
def test_the_documented_kernels_are_those_of_the_plans():
    table = "\n".join(rows())
    assert table in PAGE.read_text(), f"docs/agents.md should have:\n{table}"
