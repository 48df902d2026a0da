"""The wrapper around (and inside) the optimizers and combinators of optax."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mst_jax import topology

WIDTH = 8


def params_of(seed):
    rng = np.random.default_rng(seed)
    return {
        name: {
            "kernel": jnp.asarray(rng.standard_normal(shape), jnp.float32),
            "bias": jnp.asarray(rng.standard_normal(shape[1]), jnp.float32),
        }
        for name, shape in {"a": (WIDTH, WIDTH), "b": (WIDTH, 4)}.items()
    }


SHAPES = jax.eval_shape(lambda: params_of(0))
RIGL = topology.plan(
    SHAPES,
    {
        "a/kernel": topology.rigl(0.5, end=40, interval=4, drop_fraction=0.5),
        "b/kernel": topology.static(0.5),
    },
)
OPTIMIZERS = {
    "adamw": lambda: optax.adamw(1e-2),
    "sgd": lambda: optax.sgd(1e-2, momentum=0.9),
    "lion": lambda: optax.lion(1e-3),
    "adafactor": lambda: optax.adafactor(1e-2, min_dim_size_to_factor=4),
    "muon": lambda: optax.contrib.muon(1e-2),
    "schedule_free": lambda: optax.contrib.schedule_free(optax.sgd(1e-2), 1e-2),
    "adabelief": lambda: optax.adabelief(1e-2),
    "adagrad": lambda: optax.adagrad(1e-2),
    "clip + adam + schedule": lambda: optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adam(optax.linear_schedule(1e-2, 1e-3, 100)),
    ),
    "MultiSteps": lambda: optax.MultiSteps(optax.adam(1e-2), every_k_schedule=3),
    "apply_if_finite": lambda: optax.apply_if_finite(optax.adam(1e-2), 5),
}
SURROUNDINGS = {
    "chain": lambda tx: optax.chain(optax.clip(1.0), tx),
    "named_chain": lambda tx: optax.named_chain(("clip", optax.clip(1.0)), ("sparse", tx)),
    "masked": lambda tx: optax.masked(tx, {"a": True, "b": False}),
    "partition": lambda tx: optax.partition(
        {"sparse": tx, "plain": optax.sgd(1e-2)}, {"a": "sparse", "b": "plain"}
    ),
    "two in a partition": lambda tx: optax.partition(
        {"one": tx, "two": topology.sparse(optax.sgd(1e-2), RIGL)}, {"a": "one", "b": "two"}
    ),
    "inject_hyperparams": lambda tx: optax.inject_hyperparams(
        lambda rate: topology.sparse(optax.adamw(rate), RIGL)
    )(rate=1e-2),
}


def train(tx, steps=14):
    """Yields parameters and state after every step on random quadratic losses."""
    params, state = jax.jit(functools.partial(topology.init, tx))(params_of(0), jax.random.key(0))

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, noise, i):
        grads = jax.tree.map(jnp.add, params, noise)
        updates, state = tx.update(grads, state, params, step=i)
        return optax.apply_updates(params, updates), state

    for i in range(steps):
        params, state = step(params, state, params_of(i + 1), jnp.int32(i))
        yield params, state


def slots_like(tx, state, masks):
    """Every slot of a masked weight, beside its mask."""
    pairs = []

    def one(slot, mask):
        if isinstance(mask, jax.Array) and getattr(slot, "shape", None) == mask.shape:
            pairs.append((np.asarray(slot), np.asarray(mask)))
        return slot

    sentinel = lambda x: isinstance(x, optax.MaskedNode)  # noqa: E731
    optax.tree_map_params(tx, one, state, masks, is_leaf=sentinel)
    return pairs


def slow(names, *which):
    marks = {name: [pytest.mark.slow] for name in which}
    return [pytest.param(name, marks=marks.get(name, [])) for name in names]


# test_every_optimizer.py has counts for all of them; here are those that differ in their slots.
@pytest.mark.parametrize(
    "name",
    slow(
        OPTIMIZERS,
        *("adagrad", "lion", "adabelief", "muon", "sgd", "schedule_free", "clip + adam + schedule"),
    ),
)
def test_any_optimizer_inside(name):
    inner = OPTIMIZERS[name]()
    tx = topology.sparse(inner, RIGL)
    first = None
    for params, state in train(tx):
        topology.check(params, state, RIGL)
        first = first or jax.device_get(topology.masks(state))
    last = topology.masks(state)
    assert not np.array_equal(first["a"]["kernel"], last["a"]["kernel"])
    assert jax.tree.structure(state) == jax.tree.structure(
        jax.eval_shape(lambda key: topology.init(tx, params_of(0), key)[1], jax.random.key(0))
    )
    assert all(bool(jnp.isfinite(p).all()) for p in jax.tree.leaves(params))
    pairs = slots_like(inner, state.inner, last)
    if name != "adafactor":  # factored: its slots are rows and columns
        assert pairs
    fresh = 0.1 if name == "adagrad" else 0.0
    for slot, mask in pairs:
        np.testing.assert_allclose(slot[~mask], fresh, atol=1e-7)


def test_schedule_free_evaluates_inside_the_mask():
    inner = OPTIMIZERS["schedule_free"]()
    for moments in ("zero", "keep"):
        tx = topology.sparse(inner, RIGL, moments=moments)
        params, state = topology.init(tx, params_of(0), jax.random.key(0))
        topology.check(state.inner.z, state)
        *_, (params, state) = train(tx)
        average = optax.contrib.schedule_free_eval_params(state.inner, params)
        topology.check(average, state)


@pytest.mark.parametrize("name", slow(SURROUNDINGS, "named_chain"))
def test_allowed_surroundings(name):
    plain = topology.sparse(optax.adamw(1e-2), RIGL)
    tx = SURROUNDINGS[name](plain)
    changed = False
    first = None
    for params, state in train(tx):
        masks = jax.device_get(topology.masks(state, params))
        topology.check(params, state)
        first = first or masks
        changed |= not np.array_equal(first["a"]["kernel"], masks["a"]["kernel"])
    assert changed
    assert jax.tree.structure(masks, is_leaf=lambda x: isinstance(x, topology.DenseLeaf)) == (
        jax.tree.structure(params)
    )
    hidden = name in ("masked", "partition")
    assert isinstance(masks["b"]["kernel"], topology.DenseLeaf) == hidden
    assert isinstance(masks["a"]["bias"], topology.DenseLeaf)


def test_a_transform_after_the_wrapper_is_caught_by_check():
    tx = optax.chain(topology.sparse(optax.adam(1e-2), RIGL), optax.scale(0.5))
    *_, (params, state) = train(tx, steps=6)
    with pytest.raises(ValueError, match="last transform"):
        topology.check(params, state)


def test_counts_outside_the_plan_are_caught_by_check():
    *_, (params, state) = train(topology.sparse(optax.adam(1e-2), RIGL), steps=1)
    mask = state.masks["a"]["kernel"]
    fewer = mask.at[:2].set(False)
    state = state._replace(masks=state.masks | {"a": state.masks["a"] | {"kernel": fewer}})
    params = topology.apply(state.masks, params)
    topology.check(params, state)
    with pytest.raises(ValueError, match="active weights, a number that is not in its plan"):
        topology.check(params, state, RIGL)


def test_two_wrappers_of_one_leaf_are_refused():
    tx = topology.sparse(optax.sgd(0.1), RIGL)
    with pytest.raises(ValueError, match="mask the same parameter"):
        topology.init(optax.chain(tx, tx), params_of(0), jax.random.key(0))


def adam_moves(moments, steps=40):
    """Size of a regrown weight's steps over the learning rate, constant gradient, old optimizer."""
    shapes = {"kernel": jax.ShapeDtypeStruct((2, 2), np.float32)}
    regime = topology.rigl(
        0.5,
        end=20_001,
        start=20_000,
        interval=1,
        drop_fraction=lambda step: 0.5,
        allocation="uniform",
    )
    tx = topology.sparse(optax.adam(1.0), topology.plan(shapes, {".*": regime}), moments=moments)
    _, state = topology.init(tx, {"kernel": jnp.zeros((2, 2))}, jax.random.key(0))
    before = np.asarray(topology.masks(state)["kernel"])
    # The weights are held in place, so that only the size of the updates matters; the inactive
    # positions have the larger gradient and the first active one the smaller weight.
    held = {
        "kernel": jnp.where(before, jnp.cumsum(jnp.asarray(before).reshape(-1)).reshape(2, 2), 0.0)
    }
    grads = {"kernel": jnp.where(before, 1.0, 2.0)}

    def body(state, step):
        updates, state = tx.update(grads, state, held, step=step)
        return state, (updates["kernel"], topology.masks(state)["kernel"])

    # 20,000 steps bring Adam's bias correction to its end.
    _, (updates, masks) = jax.jit(lambda s: jax.lax.scan(body, s, jnp.arange(20_000 + steps)))(
        state
    )
    updates, masks = np.asarray(updates), np.asarray(masks)
    grown = masks[-1] & ~before
    assert grown.sum() == 1
    assert (masks[20_000] & ~before).sum() == 1
    return np.abs(updates[20_000:][:, grown][:, 0])


def test_zeroed_moments_overshoot_and_the_corrected_ones_do_not():
    # docs/specs/mst-and-mrq.md §3.5, steps 1, 2, 3, 5, 10, 20 and 40 after regrowth.
    after = np.array([1, 2, 3, 5, 10, 20, 40]) - 1
    np.testing.assert_allclose(
        adam_moves("zero")[after], [3.16, 4.25, 4.95, 5.80, 6.53, 6.24, 4.97], atol=6e-3
    )
    np.testing.assert_allclose(adam_moves("bias_corrected")[after], 1.0, atol=2e-3)


def test_bias_corrected_weights_move_as_in_a_fresh_adam():
    shapes = {"kernel": jax.ShapeDtypeStruct((6, 6), np.float32)}
    regime = topology.rigl(0.5, end=60, start=50, interval=100, drop_fraction=lambda step: 0.4)
    plan = topology.plan(shapes, {".*": regime})
    policy = topology.bias_corrected(b1=0.8, b2=0.99)
    tx = topology.sparse(optax.adam(1e-2, b1=0.8, b2=0.99), plan, moments=policy)
    key = jax.random.key(0)
    params, state = topology.init(tx, {"kernel": jax.random.normal(key, (6, 6))}, key)
    fresh = optax.adam(1e-2, b1=0.8, b2=0.99)
    step = jax.jit(lambda g, s, p, i: tx.update(g, s, p, step=i))
    fresh_step, before, fresh_state = jax.jit(fresh.update), None, None
    for i in range(70):
        grads = {"kernel": jax.random.normal(jax.random.fold_in(key, i), (6, 6))}
        before = topology.masks(state)["kernel"] if i == 50 else before
        updates, state = step(grads, state, params, jnp.int32(i))
        params = optax.apply_updates(params, updates)
        if i == 50:
            grown = np.asarray(topology.masks(state)["kernel"] & ~before)
            assert grown.any()
            fresh_state = fresh.init(params)
        if i >= 50:
            expected, fresh_state = fresh_step(grads, fresh_state, params)
            np.testing.assert_allclose(
                updates["kernel"][grown], expected["kernel"][grown], rtol=2e-4, atol=1e-8
            )
    ages = state.ages.leaves["kernel"]
    assert set(np.unique(np.asarray(ages)[grown])) == {20}


def test_keep_carries_the_decayed_moment():
    shapes = {"kernel": jax.ShapeDtypeStruct((6, 6), np.float32)}
    regime = topology.set(0.5, end=100, start=2, interval=1, drop_fraction=0.5)
    tx = topology.sparse(
        optax.sgd(1.0, momentum=0.5), topology.plan(shapes, {".*": regime}), moments="keep"
    )
    params, state = topology.init(tx, {"kernel": jnp.ones((6, 6))}, jax.random.key(0))
    grads = {"kernel": jnp.ones((6, 6))}
    masks, traces = [], []
    for i in range(4):
        _, state = tx.update(grads, state, params, step=i)
        masks.append(np.asarray(topology.masks(state)["kernel"]))
        traces.append(np.asarray(optax.tree.get(state.inner, "trace")["kernel"]))
    trace = np.zeros((6, 6))
    for mask, seen in zip(masks, traces, strict=True):
        trace = 0.5 * trace + mask
        np.testing.assert_allclose(seen, trace)
    assert (masks[1] & ~masks[2]).any()
    with pytest.raises(ValueError, match="moments must be"):
        topology.sparse(optax.sgd(1.0), RIGL, moments="mean")


def test_masked_gradients_reach_the_clipping():
    plan = topology.plan(SHAPES, {".*kernel": topology.static(0.5)})
    tx = topology.sparse(optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(1.0)), plan)
    params, state = topology.init(tx, params_of(0), jax.random.key(0))
    grads = jax.tree.map(jnp.ones_like, params)
    updates, state = tx.update(grads, state, params)
    active = int(topology.count(topology.masks(state))) + WIDTH + 4
    moved = np.asarray(updates["a"]["bias"])
    np.testing.assert_allclose(moved, -1 / np.sqrt(active), rtol=1e-6)


def test_half_precision_stays_exactly_zero_outside():
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params_of(0))
    plan = topology.plan(params, {".*kernel": topology.rigl(0.5, end=40, interval=2)})
    tx = topology.sparse(optax.adamw(1e-2), plan)
    params, state = topology.init(tx, params, jax.random.key(0))
    step = jax.jit(lambda g, s, p, i: tx.update(g, s, p, step=i))
    for i in range(5):
        updates, state = step(jax.tree.map(jnp.ones_like, params), state, params, jnp.int32(i))
        params = optax.apply_updates(params, updates)
        topology.check(params, state, plan)
    assert params["a"]["kernel"].dtype == jnp.bfloat16
