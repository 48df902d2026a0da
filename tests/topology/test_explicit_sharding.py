"""Fault C6: parameters sharded along explicit mesh axes, which is what jax.make_mesh gives."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from mst_jax import topology

SPECS = {"a": P(None, "model"), "bias": P("model")}
RULES = {"a": topology.snfs(0.5, end=30, interval=2, structure=topology.n_of_m(4))}


def train(params):
    plan = topology.plan(params, RULES)
    tx = topology.sparse(optax.adamw(1e-2), plan, moments="bias_corrected", track=True)

    def step(carry, i):
        params, state, target = carry
        noise = jax.random.normal(jax.random.fold_in(jax.random.key(0), i), (12,))
        grads = jax.tree.map(lambda p: jnp.cos(5 * p + noise), params)
        updates, state = tx.update(grads, state, params, step=i)
        masks = topology.masks(state)
        params = topology.apply_updates(params, updates, masks)
        target = topology.update_target(target, params, masks, 0.1, policy="re_prune")
        return (params, state, target), topology.statistics(state)["a"]

    @jax.jit
    def run(params):
        params, state = topology.init(tx, params, jax.random.key(2))
        return jax.lax.scan(step, (params, state, params), jnp.arange(5))

    (params, state, target), statistics = run(params)
    topology.check(params, state, plan)
    assert int(jnp.count_nonzero(target["a"])) <= int(topology.count(topology.masks(state)))
    return params, state, statistics


def test_selection_under_explicit_axes():
    mesh = jax.make_mesh((1,), ("model",))
    scores = jnp.arange(32.0).reshape(4, 8)
    with jax.set_mesh(mesh):
        sharded = jax.device_put(scores, P(None, "model"))
        chosen = topology.top_k(sharded, 5, jnp.ones_like(sharded, bool))
        assert jax.typeof(chosen).sharding.spec == P(None, "model")
    np.testing.assert_array_equal(chosen, np.arange(32).reshape(4, 8) >= 27)


@pytest.mark.slow
def test_training_under_explicit_axes_is_training_without():
    """Structured, averaged, tracked, with ages, targets and statistics: all that has a shape."""
    params = {"a": jax.random.normal(jax.random.key(1), (8, 12)), "bias": jnp.ones(12)}
    plain, plain_state, statistics = train(params)
    with jax.set_mesh(jax.make_mesh((1,), ("model",))):
        sharded = {name: jax.device_put(p, SPECS[name]) for name, p in params.items()}
        found, state, again = train(sharded)
        for name, x in (
            *(("a", x) for x in jax.tree.leaves((state.masks, state.history, state.averages))),
            ("a", state.ages.leaves["a"]),
            *state.inner[0].mu.items(),
            *found.items(),
        ):
            assert jax.typeof(x).sharding.spec == SPECS[name]
    jax.tree.map(np.testing.assert_array_equal, plain_state.masks, state.masks)
    jax.tree.map(np.testing.assert_array_equal, statistics, again)
    assert statistics.churn_from_start[-1] > 0
    for name, value in plain.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-7)
