"""The promises agents rely on: exact counts, exact zeros, one conditional, clear errors."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mst_jax import topology


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


def test_grown_weights_start_at_zero_and_regrown_ones_keep_their_value():
    tx = topology.sparse(optax.sgd(0.0), RIGL)
    params, state = topology.init(tx, make_params(jax.random.key(0)), jax.random.key(1))
    new, state_after = step_of(tx)(params, state, random_like(params, jax.random.key(5)), 10)

    def one(p, q, before, after):
        if isinstance(before, jax.Array):
            np.testing.assert_array_equal(q, np.where(np.array(before) & np.array(after), p, 0))

    jax.tree.map(one, params, new, topology.masks(state), topology.masks(state_after))


def test_misuse_stops_with_a_clear_line():
    tx = topology.sparse(optax.adam(1e-2), RIGL)
    params = make_params(jax.random.key(0))
    with pytest.raises(ValueError, match="not drawn"):
        tx.update(params, tx.init(params), params, step=1)
    masked, state = topology.init(tx, params, jax.random.key(1))
    with pytest.raises(ValueError, match="unbatched"):
        tx.update(params, state, masked)
    with pytest.raises(ValueError, match="needs the parameters"):
        tx.update(params, state, step=1)
    with pytest.raises(ValueError, match=r"nearest paths.*q1/l0/kernel"):
        topology.plan(SHAPES, {"q1/l0/kernal": topology.static(0.5)})
    with pytest.raises(ValueError, match="outside its mask"):
        topology.check(params, state)
    with pytest.raises(ValueError, match="No rewire"):
        topology.rigl(0.6, end=50)
    with pytest.raises(ValueError, match="not the plan's"):
        tx.init({"q1": params["q1"]})


def test_masks_round_trip_through_a_file(tmp_path):
    tx = topology.sparse(optax.adam(1e-2), RIGL)
    _, state = topology.init(tx, make_params(jax.random.key(0)), jax.random.key(1))
    masks = topology.masks(state)
    topology.save_masks(tmp_path / "masks.npz", masks)
    loaded = topology.load_masks(tmp_path / "masks.npz")
    assert jax.tree.structure(loaded) == jax.tree.structure(masks)
    jax.tree.map(np.testing.assert_array_equal, loaded, masks)
