"""ReDo on a small tree by hand, with masks and optimizers, and on every agent."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_runs import small_config, start_run, task_of

from mst_jax import topology
from mst_jax.agents import AGENTS
from mst_jax.agents.parts.recycling import dormant, recycled
from mst_jax.networks import readers
from mst_jax.program.recycling import check_recyclable, make_recycle


def test_a_unit_is_dormant_by_its_share_of_the_mean():
    strengths = jnp.array([0.0, 0.1, 0.9, 3.0])  # of a mean of 1
    assert dormant(strengths, 0.0).tolist() == [True, False, False, False]
    assert dormant(strengths, 0.1).tolist() == [True, True, False, False]
    assert dormant(jnp.zeros(3), 0.0).all(), "a silent layer begins again"
    assert not dormant(jnp.array([0.0, jnp.nan]), 0.1).any()


OLD = {
    "layer_1": {"kernel": jnp.full((2, 3), 1.0), "bias": jnp.full(3, 5.0)},
    "layer_2": {"kernel": jnp.full((3, 3), 2.0), "bias": jnp.full(3, 6.0)},
    "layer_3": {"kernel": jnp.full((3, 1), 3.0), "bias": jnp.full(1, 7.0)},
}
FRESH = jax.tree.map(lambda leaf: jnp.full_like(leaf, 9.0), OLD)
STRENGTHS = {"layer_1/kernel": jnp.array([0.0, 1, 1]), "layer_2/kernel": jnp.array([1.0, 0, 1])}


def test_incoming_weights_begin_again_and_outgoing_ones_are_zero():
    params, changed = recycled(OLD, FRESH, STRENGTHS, 0.1)
    assert params["layer_1"]["kernel"].tolist() == [[9, 1, 1], [9, 1, 1]]
    assert params["layer_1"]["bias"].tolist() == [9, 5, 5]
    # Row 0 leaves the first dormant unit, column 1 enters the second: zero where they cross.
    assert params["layer_2"]["kernel"].tolist() == [[0, 0, 0], [2, 9, 2], [2, 9, 2]]
    assert params["layer_2"]["bias"].tolist() == [6, 9, 6]
    assert params["layer_3"]["kernel"].tolist() == [[3], [0], [3]]
    assert params["layer_3"]["bias"].tolist() == [7], "of no hidden unit"
    new = jax.tree.map(lambda now, old: bool((now != old).any()), params, OLD)
    told = jax.tree.map(lambda leaf: bool(leaf.any()), changed)
    assert new == told
    same = recycled(OLD, FRESH, {}, 0.1)[1]
    assert not any(leaf.any() for leaf in jax.tree.leaves(same))


def test_a_flattened_picture_has_its_channels_in_every_place():
    shapes = {"layer_1/kernel": (3, 3, 1, 2), "layer_2/kernel": (6, 1)}
    assert readers(shapes) == {"layer_1/kernel": ["layer_2/kernel"]}
    params = {
        "layer_1": {"kernel": jnp.ones((3, 3, 1, 2))},
        "layer_2": {"kernel": jnp.ones((6, 1))},
    }
    fresh = jax.tree.map(jnp.zeros_like, params)
    new, _ = recycled(params, fresh, {"layer_1/kernel": jnp.array([1.0, 0.0])}, 0.1)
    assert new["layer_2"]["kernel"].ravel().tolist() == [1, 0, 1, 0, 1, 0]
    assert (new["layer_1"]["kernel"][..., 0] == 1).all()
    assert (new["layer_1"]["kernel"][..., 1] == 0).all()


def test_slots_of_what_was_recycled_begin_afresh_under_the_masks_that_were():
    tx = topology.sparse(optax.adamw(0.1), topology.plan(OLD, {".*kernel": topology.static(0.5)}))
    params, state = topology.init(tx, OLD, jax.random.key(1))
    masks = topology.masks(state)
    update = jax.jit(tx.update)
    for _ in range(3):
        updates, state = update(jax.tree.map(jnp.ones_like, params), state, params)
        params = topology.apply_updates(params, updates, masks)
    new, changed = recycled(params, FRESH, STRENGTHS, 0.1)
    new = topology.apply(masks, new)
    after = topology.renew(tx, new, state, changed)
    topology.check(new, after)
    assert all(map(np.array_equal, jax.tree.leaves(masks), jax.tree.leaves(topology.masks(after))))
    (adam, *_), (before, *_) = after.inner, state.inner
    assert adam.count == before.count == 3
    for slots, old in ((adam.mu, before.mu), (adam.nu, before.nu)):
        for now, was, where in zip(*map(jax.tree.leaves, (slots, old, changed)), strict=True):
            np.testing.assert_array_equal(now, np.where(where, 0.0, was))


@pytest.mark.slow
def test_averages_and_ages_of_recycled_weights_begin_again_too():
    rule = topology.snfs(0.5, end=10, interval=5, drop_fraction=lambda step: 0.9)
    tx = topology.sparse(
        optax.adam(0.1), topology.plan(OLD, {".*kernel": rule}), moments="bias_corrected"
    )
    params, state = topology.init(tx, OLD, jax.random.key(1))
    grads = jax.tree.map(jnp.ones_like, params)
    _, state = tx.update(grads, state, params, step=jnp.int32(0))
    _, changed = recycled(params, FRESH, STRENGTHS, 0.1)
    after = topology.renew(tx, params, state, changed)
    where = changed["layer_2"]["kernel"]
    assert ((after.averages["layer_2/kernel"] == 0) == where).all()
    assert ((after.ages.leaves["layer_2/kernel"] == 0) >= where).all()
    with pytest.raises(ValueError, match="another number of sparse"):
        topology.renew(optax.adam(0.1), params, state, changed)


# Hidden layers that our agents have, and what reads them.
READERS = {
    "sac": {"critic": 1, "actor": 1},
    "mrq": {"encoder": 4, "critic": 6, "actor": 2},
    "drqv2": {"encoder": 1, "critic": 4, "actor": 2},
    "der": {"encoder": 0, "critic": 1},  # of one convolution, which the head reads
    "stream_ac": {"critic": 1, "actor": 2},
}


@pytest.mark.parametrize("name", READERS)
def test_every_module_has_units_that_can_be_recycled(name):
    config = small_config("dense", name)
    agent = AGENTS[name].make(config, task_of(name).spec, 1000, None)
    for module, plan in agent.plans.items():
        found = readers(plan.dense)
        assert len(found) == READERS[name][module], (module, plan.dense)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n == "sac" else pytest.mark.slow) for n in sorted(AGENTS)],
)
def test_every_agent_recycles_under_its_masks(name):
    # The program is that of tests/agents/test_every_agent.py.
    _, agent, run = start_run(task_of(name), small_config("mst", name), [0, 1], 90, agent=name)
    check_recyclable(agent)
    before = jax.tree.map(jnp.copy, run.agent)
    # Above any share of a mean, every unit begins again: all outgoing weights are zero.
    after = make_recycle(agent, 2, 1e9)(jax.tree.map(jnp.copy, run)).agent
    for old, new in zip(*(jax.tree.leaves(agent.masks(s)) for s in (before, after)), strict=True):
        np.testing.assert_array_equal(old, new)
    for module, params in agent.parameters(after).items():
        topology.check(params, after.opt_state[module], agent.plans[module])
    critic = {
        "/".join(str(p.key) for p in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(agent.parameters(after)["critic"])
    }
    behind = {r for rs in readers({p: x.shape[1:] for p, x in critic.items()}).values() for r in rs}
    assert behind
    assert all((critic[path] == 0).all() for path in behind)
    kept = make_recycle(agent, 2, -1.0)(jax.tree.map(jnp.copy, run)).agent
    for old, new in zip(*map(jax.tree.leaves, (before, kept)), strict=True):
        np.testing.assert_array_equal(
            jax.random.key_data(old) if _is_key(old) else old,
            jax.random.key_data(new) if _is_key(new) else new,
        )


def _is_key(leaf):
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
