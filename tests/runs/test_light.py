"""Light checkpoints: what acting reads, and those of before, which held whole fields."""

import jax
import numpy as np
import pytest
from small_runs import small_config, task_of

from mst_jax.agents import AGENTS, make_agent
from mst_jax.agents.base import acting_parts
from mst_jax.runs.arrays import flatten
from mst_jax.runs.light import MASKS, from_light, masks_in, to_light


def agent_and_states(name, fill=1.0, **changes):
    """An agent and states of two seeds, all of one number."""
    agent = make_agent(name, small_config("all_static", name, **changes), task_of(name).spec, 1000)
    shapes = jax.eval_shape(jax.vmap(agent.init), jax.random.split(jax.random.key(0), 2))
    return agent, jax.tree.map(lambda x: np.full(x.shape, fill, x.dtype), shapes)


def as_before(agent, states):
    """What an earlier version wrote: every field that acting reads a part of."""
    fields = {path.partition("/")[0] for path in agent.acting}
    whole = flatten({field: getattr(states, field) for field in fields})
    return whole | {f"{MASKS}{path}": mask for path, mask in flatten(agent.masks(states)).items()}


@pytest.mark.parametrize("name", sorted(AGENTS))
def test_it_holds_what_acting_reads_and_all_masks(name):
    agent, states = agent_and_states(name)
    arrays = to_light(agent, states)
    own = {path for path in arrays if not path.startswith(MASKS)}
    assert own == set(flatten(acting_parts(agent, states)))
    assert {path.partition("/")[0] for path in masks_in(arrays)} == set(agent.modules)
    whole = {path for path in as_before(agent, states) if not path.startswith(MASKS)}
    if all(module.role != "policy" for module in agent.modules.values()):
        assert own == whole, "values choose actions"
        return
    assert not any("critic" in path or "/za" in path or "/head" in path for path in own)
    assert own < whole


@pytest.mark.parametrize("name", sorted(AGENTS))
def test_those_of_before_are_read(name):
    agent, blank = agent_and_states(name, 0.0)
    _, states = agent_and_states(name, 2.0)
    for arrays in (to_light(agent, states), as_before(agent, states)):
        found = from_light(agent, arrays, blank)
        read = acting_parts(agent, found)
        assert all((leaf == 2).all() for leaf in jax.tree.leaves(read))
        total = len(jax.tree.leaves(read))
        moved = [leaf for leaf in jax.tree.leaves(found) if leaf.size and (leaf == 2).all()]
        assert len(moved) == total, "critics and optimizers are left as they were"


def test_those_of_another_configuration_are_refused():
    agent, states = agent_and_states("sac")
    for changes, match in (
        ({"actor__depth": 2}, "params/actor/trunk/block_2/expand/bias is not expected"),
        ({"actor__hidden": 16}, "params/actor/.* is float32.*, expected float32"),
    ):
        other = agent_and_states("sac", **changes)
        for arrays in (to_light(*other), as_before(*other)):
            with pytest.raises(ValueError, match=match):
                from_light(agent, arrays, states)
    critic = agent_and_states("sac", critic__depth=2)
    with pytest.raises(ValueError, match=r"params/critic/.* is not expected"):
        from_light(agent, as_before(*critic), states)
    short = to_light(agent, states)
    del short["statistics/mean"]
    with pytest.raises(ValueError, match="statistics/mean is missing"):
        from_light(agent, short, states)
