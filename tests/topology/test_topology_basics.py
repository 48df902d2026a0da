"""The promises agents rely on: exact counts, exact zeros, one conditional, clear errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mst_jax import topology
from mst_jax.agents import ModuleConfig, SACConfig
from mst_jax.agents.parts.trained import make_trained


def make_params(key):
    def head(key):
        shapes = [(16, 24), (24, 1)]
        keys = jax.random.split(key, len(shapes))
        return {
            f"l{i}": {"kernel": jax.random.normal(k, s), "bias": jnp.ones(s[1])}
            for i, (k, s) in enumerate(zip(keys, shapes, strict=True))
        }

    return {"q1": head(jax.random.fold_in(key, 1)), "q2": head(jax.random.fold_in(key, 2))}


SHAPES = jax.eval_shape(make_params, jax.random.key(0))
RIGL = topology.plan(SHAPES, {r"q[12]/.*kernel": topology.rigl(0.6, end=75, interval=10)})
STATIC = topology.plan(SHAPES, {r"q[12]/.*kernel": topology.static(0.6)})
DENSE = topology.plan(SHAPES, {".*": topology.dense()})


def conditionals(fn, *args):
    """Ranks of the predicates of every conditional in the program of ``fn``."""
    ranks, seen = [], []

    def visit(jaxpr):
        for eqn in jaxpr.eqns:
            seen.append(eqn.primitive.name)
            if eqn.primitive.name == "cond":
                ranks.append(eqn.invars[0].aval.ndim)
            for sub in jax.tree.leaves(eqn.params, is_leaf=lambda x: hasattr(x, "eqns")):
                sub = getattr(sub, "jaxpr", sub)
                if hasattr(sub, "eqns"):
                    visit(sub)

    visit(jax.make_jaxpr(fn)(*args).jaxpr)
    return ranks, len(seen)


def step_of(tx):
    def step(params, state, grads, step):
        updates, state = tx.update(grads, state, params, step=step)
        return optax.apply_updates(params, updates), state

    return step


def random_like(params, key):
    return jax.tree.map(lambda p: jax.random.normal(key, p.shape), params)


def test_counts_are_exact_and_zeros_stay_zero():
    tx = topology.sparse(optax.adamw(1e-2), RIGL)
    params, state = topology.init(tx, make_params(jax.random.key(0)), jax.random.key(1))
    step = jax.jit(step_of(tx))
    sizes = [16 * 24 + 24] * 2
    changed = []
    for i in range(100):
        before = topology.masks(state)
        params, state = step(params, state, random_like(params, jax.random.key(i)), i)
        masks = topology.masks(state)
        assert int(topology.count(masks)) == sum(sizes) - int(0.6 * sum(sizes))
        changed += [i] if float(topology.overlap(before, masks)) < 1 else []
        topology.check(params, state)
    # The last rewires drop a weight or two, which may grow again at once.
    assert {10, 20, 30, 40, 50} <= set(changed) <= {10, 20, 30, 40, 50, 60, 70}


def test_conditionals_are_counted_and_their_predicates_have_no_seed_axis():
    for plan, expected in ((RIGL, [0]), (STATIC, []), (DENSE, [])):
        tx = topology.sparse(optax.adamw(1e-2), plan)

        def start(key, tx=tx):
            return topology.init(tx, make_params(key), key)

        params, state = jax.vmap(start)(jax.random.split(jax.random.key(0), 3))
        program = jax.vmap(step_of(tx), in_axes=(0, 0, 0, None))
        assert conditionals(program, params, state, params, jnp.int32(3))[0] == expected
        compiled = jax.jit(program).lower(params, state, params, jnp.int32(3)).compile().as_text()
        assert compiled.count(" conditional(") == len(expected)


def test_a_dense_plan_costs_nothing():
    params = make_params(jax.random.key(0))
    tx, plain = topology.sparse(optax.adamw(1e-2), DENSE), optax.adamw(1e-2)
    _, state = topology.init(tx, params, jax.random.key(1))
    _, wrapped = conditionals(step_of(tx), params, state, params, jnp.int32(3))
    plain = optax.with_extra_args_support(plain)
    _, bare = conditionals(step_of(plain), params, plain.init(params), params, jnp.int32(3))
    assert wrapped == bare


def test_seeds_have_their_own_masks_and_match_the_loop():
    tx = topology.sparse(optax.adamw(1e-2), RIGL)
    params = make_params(jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), 3)
    stacked = jax.vmap(lambda key: topology.masks(topology.init(tx, params, key)[1]))(keys)
    single = [topology.masks(topology.init(tx, params, key)[1]) for key in keys]
    jax.tree.map(
        np.testing.assert_array_equal,
        stacked,
        jax.tree.map(lambda *m: jnp.stack(m), *single),
    )
    assert float(topology.overlap(single[0], single[1])) < 0.5
    kernels = single[0]["q1"]["l0"]["kernel"], single[0]["q2"]["l0"]["kernel"]
    assert not np.array_equal(*kernels)


def test_nan_gradients_outside_the_mask_do_not_reach_the_parameters():
    tx = topology.sparse(optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-2)), STATIC)
    params, state = topology.init(tx, make_params(jax.random.key(0)), jax.random.key(1))
    grads = jax.tree.map(
        lambda p, m: jnp.where(m, 1.0, jnp.nan) if isinstance(m, jax.Array) else jnp.ones_like(p),
        params,
        topology.masks(state),
    )
    params, state = step_of(tx)(params, state, grads, 0)
    topology.check(params, state)
    assert all(bool(jnp.isfinite(p).all()) for p in jax.tree.leaves(params))


@functools.cache
def small():
    """A plan of one leaf, its start and a compiled update with a rewire."""
    params = {"k": jnp.arange(1.0, 17.0).reshape(4, 4)}
    plan = topology.plan(params, {"k": topology.rigl(0.5, end=100, interval=1)})
    tx = topology.sparse(optax.adam(1e-2), plan)
    params, state = jax.jit(lambda p: topology.init(tx, p, jax.random.key(0)))(params)
    return plan, params, state, jax.jit(lambda g, s, p: tx.update(g, s, p, step=1))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_when_it_is_dropped_leaves_a_zero(value):
    """Fault C7: adding -p to it does not."""
    plan, params, state, dropping = small()
    mask = np.asarray(state.masks["k"])
    first = tuple(np.argwhere(mask)[0])
    # Infinity is the largest weight and so never dropped: it is outside already.
    odd = first if np.isnan(value) else tuple(np.argwhere(~mask)[0])
    params = {"k": params["k"].at[odd].set(value)}
    grads = {"k": jnp.where(mask, 0.0, 1.0).at[odd].set(0.0)}
    updates, state = dropping(grads, state, params)
    assert not state.masks["k"][odd]
    added = optax.apply_updates(params, updates)
    assert np.isnan(added["k"][odd])
    with pytest.raises(ValueError, match=r"'k' has 1 weights outside .* NaN or infinite.*selects"):
        topology.check(added, state)
    selected = topology.apply_updates(params, updates, topology.masks(state))
    topology.check(selected, state, plan)
    finite = np.isfinite(np.asarray(added["k"]))
    np.testing.assert_array_equal(selected["k"][finite], added["k"][finite])


def test_our_agents_select():
    """Fault C7, where agents apply an optimizer's updates."""
    config = SACConfig(critic=ModuleConfig(regime="rigl", sparsity=0.5, interval=1))
    inits = {"critic": lambda key: {"kernel": jnp.ones((4, 4))}}
    trained = make_trained(config, inits, {"critic": 100})
    params, opt_state = jax.jit(trained.init)(jax.random.key(0))
    odd = tuple(np.argwhere(np.asarray(trained.masks(opt_state)["critic"]["kernel"]))[0])
    broken = {"kernel": params["critic"]["kernel"].at[odd].set(jnp.nan)}
    grads = {"kernel": jnp.ones((4, 4)).at[odd].set(0.0)}
    step = jax.jit(functools.partial(trained.step, "critic"))
    moved, state = step(grads, broken, opt_state["critic"], jnp.int32(1))
    assert moved["kernel"][odd] == 0
    topology.check(moved, state, trained.modules["critic"].plan)
    target = topology.update_target(broken, moved, topology.masks(state), 0.1)
    assert target["kernel"][odd] == 0


def test_grown_weights_start_at_zero_and_regrown_ones_keep_their_value():
    tx = topology.sparse(optax.sgd(0.0), RIGL)
    params, state = topology.init(tx, make_params(jax.random.key(0)), jax.random.key(1))
    new, state_after = step_of(tx)(params, state, random_like(params, jax.random.key(5)), 10)

    def one(p, q, before, after):
        if isinstance(before, jax.Array):
            np.testing.assert_array_equal(q, np.where(np.array(before) & np.array(after), p, 0))

    jax.tree.map(one, params, new, topology.masks(state), topology.masks(state_after))


def test_masks_round_trip_through_a_file(tmp_path):
    tx = topology.sparse(optax.adam(1e-2), RIGL)
    _, state = topology.init(tx, make_params(jax.random.key(0)), jax.random.key(1))
    masks = topology.masks(state)
    topology.save_masks(tmp_path / "masks.npz", masks)
    loaded = topology.load_masks(tmp_path / "masks.npz")
    assert jax.tree.structure(loaded) == jax.tree.structure(masks)
    jax.tree.map(np.testing.assert_array_equal, loaded, masks)
