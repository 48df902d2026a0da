import jax
import numpy as np
import pytest
from small_runs import small_config

from experiments.examples import agent_sweep
from mst_jax import envs
from mst_jax.agents import Sizes, make_agent, sweep


@pytest.mark.slow
def test_five_sparsities_times_four_seeds_in_one_program():
    """Every run keeps its own budget and learning rate; seeds differ, keys do not depend on it."""
    task, steps = envs.make("probe:point"), 220
    runs, agent, run = agent_sweep.start(task, steps)
    before = agent_sweep.active_weights(agent, run)
    hidden = 2 * 3 * 32 * 32 + 2 * 32
    for (sparsity, _), count in zip(runs, before, strict=True):
        assert count == hidden - int(np.floor(sparsity * hidden + 1e-9))
    np.testing.assert_allclose(learning_rates(run)[::4], 3e-4 * np.arange(1, 6), rtol=1e-6)
    masks = jax.device_get(agent.masks(run.agent)["critic"]["q1"]["trunk"]["layer_1"]["kernel"])
    assert (masks[0] != masks[1]).any(), "seeds of one sparsity"

    run = agent_sweep.train(task, agent, run, steps)
    np.testing.assert_array_equal(agent_sweep.active_weights(agent, run), before)
    after = jax.device_get(agent.masks(run.agent)["critic"]["q1"]["trunk"]["layer_1"]["kernel"])
    assert (masks != after).any(axis=(1, 2)).all(), "every run was rewired"
    assert np.asarray(run.healthy).all()


def learning_rates(run):
    """The critic's learning rate of every run, found by its name in the optimizer state."""
    leaves = jax.tree_util.tree_flatten_with_path(run.agent.opt_state["critic"])[0]
    (rates,) = [leaf for path, leaf in leaves if "learning_rate" in str(path[-1])]
    return np.asarray(rates)


@pytest.mark.slow
def test_a_run_of_a_sweep_starts_as_it_would_alone():
    configs = [small_config(agent="mrq", critic__sparsity=s) for s in (0.4, 0.7)]
    agent, numbers = sweep("mrq", configs, Sizes.vector(4, 2), 2000)
    key = jax.random.key(5)
    among = jax.vmap(agent.init, (None, 0))(key, numbers)
    alone = jax.jit(make_agent("mrq", configs[1], Sizes.vector(4, 2), 2000).init)(key)
    for a, b in zip(jax.tree.leaves(alone.params), jax.tree.leaves(among.params), strict=True):
        np.testing.assert_array_equal(a, b[1])


def test_structural_differences_are_refused_by_name():
    with pytest.raises(ValueError, match=r"these differ in critic\.hidden"):
        sweep("sac", [small_config(), small_config(critic__hidden=24)], Sizes.vector(4, 2), 2000)
    with pytest.raises(ValueError, match=r"these differ in batch_size"):
        sweep("sac", [small_config(), small_config(batch_size=8)], Sizes.vector(4, 2), 2000)
    with pytest.raises(ValueError, match="at least one"):
        sweep("sac", [], Sizes.vector(4, 2), 2000)
