"""The rewire step inside training: every regime, thousands of steps, against a NumPy model."""

import functools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings

from mst_jax import topology

SHAPES = {
    "a": {"kernel": jax.ShapeDtypeStruct((12, 10), np.float32), "bias": np.zeros(10)},
    "b": {"kernel": jax.ShapeDtypeStruct((10, 7), np.float32)},
    "absent": None,
    "scale": np.zeros(()),
}
STEPS = 1200
FAMILY = {  # the same scores and timing: one program, different tables
    "rigl": topology.rigl(0.6, end=1000, interval=10),
    "gradual_magnitude_pruning": topology.gradual_magnitude_pruning(
        0.7, start=10, end=1000, interval=10
    ),
    "granet": topology.granet(0.7, start=10, end=1000, prune_end=800, interval=10),
    "gradual_growth": topology.gradual_growth(0.7, end=1000, interval=10),
    "neuroplastic_expansion": topology.neuroplastic_expansion(
        growth_end=700, end=1000, interval=10, draw="random"
    ),
    "dense_then_rigl": topology.dense_then_rigl(0.7, start=10, end=1000, interval=10),
}
OTHERS = {
    "static": topology.static(0.6),
    "set": topology.set(0.6, end=1000, interval=10),
    "snfs": topology.snfs(0.6, end=1000, interval=10),
}
STRUCTURED = {  # one timing, so one program; 2:4 does not fit b
    "a/kernel": topology.rigl(0.5, end=1000, interval=10, structure=topology.n_of_m(4)),
    "b/kernel": topology.rigl(0.6, end=1000, interval=10, structure=topology.fan_in()),
}
REGIMES = [*FAMILY, *OTHERS, "structured"]


def params_of(key):
    return {
        "a": {"kernel": jax.random.normal(key, (12, 10)), "bias": jnp.ones(10)},
        "b": {"kernel": jax.random.normal(jax.random.fold_in(key, 1), (10, 7))},
        "absent": None,
        "scale": jnp.ones(()),
    }


def gradients_of(key, params):
    """Random, quantised so that ties abound, with NaN and infinities sprinkled in."""

    def one(p):
        g = jnp.round(4 * jax.random.normal(key, p.shape)) / 4
        odd = jax.random.uniform(jax.random.fold_in(key, 1), p.shape)
        return jnp.select([odd < 0.01, odd < 0.02, odd < 0.03], [jnp.nan, jnp.inf, -jnp.inf], g)

    return jax.tree.map(one, params)


draw_gradients = jax.jit(gradients_of)


def apply_step(tx, params, state, grads, step):
    updates, state = tx.update(grads, state, params, step=step)
    return optax.apply_updates(params, updates), state


def start(tx):
    return jax.jit(lambda key: topology.init(tx, params_of(key), key))(jax.random.key(0))


def plan_of(name):
    rules = {".*kernel": (FAMILY | OTHERS)[name]} if name != "structured" else STRUCTURED
    return topology.plan(SHAPES, rules)


@functools.cache
def wrapped(name):
    return sparse(plan_of(name))


def sparse(plan):
    # Only finite updates may reach the weights; the growth scores still see what is not.
    return topology.sparse(optax.chain(optax.zero_nans(), optax.clip(1.0), optax.adam(0.01)), plan)


@functools.cache
def family():
    """All of the family in one program."""
    plan, tables = topology.sweep([plan_of(name) for name in FAMILY])
    run = jax.jit(jax.vmap(functools.partial(rollout, sparse(plan)), in_axes=(None, 0)))
    return jax.tree.map(np.asarray, run(jax.random.key(0), tables))


def history(name):
    """What happened at every step of a regime, as NumPy, with its plan."""
    if name in FAMILY:
        seed = list(FAMILY).index(name)
        return plan_of(name), jax.tree.map(lambda x: x[seed], family())
    return plan_of(name), other(name)


@functools.cache
def other(name):
    run = jax.jit(functools.partial(rollout, wrapped(name)))
    return jax.tree.map(np.asarray, run(jax.random.key(0), plan_of(name).tables))


def rollout(tx, key, tables):
    """Weights, gradients and masks before, masks and weights after every step."""
    params, state = topology.init(tx, params_of(key), key, tables)

    def body(carry, step):
        params, state = carry
        grads = gradients_of(jax.random.fold_in(key, step), params)
        new = apply_step(tx, params, state, grads, step)
        seen = (params["a"]["kernel"], grads["a"]["kernel"], topology.masks(state))
        return new, (*seen, topology.masks(new[1]), new[0]["a"]["kernel"])

    return jax.lax.scan(body, (params, state), jnp.arange(STEPS))[1]


@pytest.mark.parametrize("name", REGIMES)
def test_counts_are_the_plan_s_at_every_step(name):
    plan, (_, _, _, masks, after) = history(name)
    (group,) = plan.groups
    rows = np.zeros(STEPS, int)
    if group.timing:
        for u, step in enumerate(group.timing.steps, start=1):
            rows[step:] = u
    for column, entry in enumerate(group.entries):
        mask = masks[entry.path.split("/")[0]]["kernel"]
        np.testing.assert_array_equal(
            mask.sum((1, 2)), group.table.target[rows, column], err_msg=entry.path
        )
    assert (after[~masks["a"]["kernel"]] == 0).all()  # exactly zero, and never NaN
    if name == "structured":
        assert (masks["a"]["kernel"].reshape(STEPS, 3, 4, 10).sum(2) == 2).all()
        assert (masks["b"]["kernel"].sum(1) == 4).all()


def test_structured_topologies_move_and_keep_what_the_oracle_keeps():
    """Fault C1: some groups of 2:4 drop a weight at every rewire, the smallest of their last."""
    plan, (weights, grads, before, masks, _) = history("structured")
    (group,) = plan.groups
    assert (group.table.keep[1:75] < group.table.target[1:75]).all()
    changed = 0

    def groups_of(x):
        return np.swapaxes(x, 0, 1).reshape(30, 4)  # structures.NofM, in words: along the inputs

    for u, step in enumerate(group.timing.steps, start=1):
        old, new = groups_of(before["a"]["kernel"][step]), groups_of(masks["a"]["kernel"][step])
        w, g = groups_of(np.abs(weights[step])), groups_of(np.abs(grads[step]))
        keep = group.table.keep[u, 0]
        sure = np.stack([best(*group) for group in zip(w, [keep // 30] * 30, old, strict=True)])
        last = np.stack([best(*group) for group in zip(w, [1] * 30, old & ~sure, strict=True)])
        kept = sure | best(w.reshape(-1), keep % 30, last.reshape(-1)).reshape(30, 4)
        assert kept.sum() == keep
        missing = 2 - kept.sum(1)
        grown = np.stack([best(*group) for group in zip(g, missing, ~kept, strict=True)])
        np.testing.assert_array_equal(new, kept | grown)
        changed += bool((old != new).any())
    assert changed > 70  # a dropped weight may be the best to grow


@pytest.mark.parametrize("name", ["rigl", "gradual_magnitude_pruning", "granet", "gradual_growth"])
def test_kept_and_grown_are_the_oracle_s(name):
    plan, (weights, grads, before, masks, after) = history(name)
    (group,) = plan.groups
    for u, step in enumerate(group.timing.steps, start=1):
        old, new = before["a"]["kernel"][step].reshape(-1), masks["a"]["kernel"][step].reshape(-1)
        w, g = np.abs(weights[step]).reshape(-1), np.abs(grads[step]).reshape(-1)
        keep, target = group.table.keep[u, 0], group.table.target[u, 0]
        kept = best(w, keep, old)
        grown = best(g, target - keep, ~kept)
        assert not (kept & grown).any()
        np.testing.assert_array_equal(new, kept | grown)
        # Dropped and grown at once: the weight keeps its value and takes the step from there.
        same, fresh = old & grown, grown & ~old
        moved = after[step].reshape(-1)
        assert (np.abs(moved[same] - weights[step].reshape(-1)[same]) < 0.2).all()
        assert (np.abs(moved[fresh]) < 0.2).all()


def best(scores, k, eligible):
    order = sorted(np.flatnonzero(eligible), key=lambda i: (np.isnan(scores[i]), -scores[i], i))
    mask = np.zeros(scores.size, bool)
    mask[order[:k]] = True
    return mask


def test_masks_change_only_when_due():
    _, (_, _, before, masks, _) = history("rigl")
    changed = np.flatnonzero((before["a"]["kernel"] != masks["a"]["kernel"]).any((1, 2)))
    assert set(changed) <= set(range(10, 1001, 10))
    assert len(changed) > 50
    _, (_, _, before, masks, _) = history("static")
    np.testing.assert_array_equal(before["a"]["kernel"], masks["a"]["kernel"])


def test_initial_masks_by_magnitude_are_the_largest_weights():
    regime = topology.neuroplastic_expansion(growth_end=700, interval=10)
    tx = sparse(topology.plan(SHAPES, {".*kernel": regime}))
    params = params_of(jax.random.key(3))
    init = jax.jit(lambda params, key: topology.init(tx, params, key))
    mask = topology.masks(init(params, jax.random.key(0))[1])["a"]["kernel"]
    sizes = np.sort(np.abs(params["a"]["kernel"]).reshape(-1))[::-1]
    np.testing.assert_array_equal(mask, np.abs(params["a"]["kernel"]) >= sizes[int(mask.sum()) - 1])


@pytest.mark.parametrize("name", ["set", pytest.param("rigl", marks=pytest.mark.slow)])
def test_vmapped_is_looped(name):
    tx = wrapped(name)
    keys = jax.random.split(jax.random.key(7), 3)
    init = jax.jit(lambda key: topology.init(tx, params_of(key), key))
    step = jax.jit(functools.partial(apply_step, tx))
    starts = [init(key) for key in keys]
    some = starts[0][0]
    params, state = jax.jit(jax.vmap(init))(keys)
    mapped = jax.jit(jax.vmap(step, in_axes=(0, 0, 0, None)))
    for i in (9, 10, 20):
        grads = [draw_gradients(jax.random.fold_in(key, i), some) for key in keys]
        stacked = jax.tree.map(lambda *g: jnp.stack(g), *grads)
        params, state = mapped(params, state, stacked, jnp.int32(i))
        starts = [step(*start, g, jnp.int32(i)) for start, g in zip(starts, grads, strict=True)]
    looped = jax.tree.map(lambda *x: np.stack(x), *[(p, topology.masks(s)) for p, s in starts])
    jax.tree.map(np.testing.assert_array_equal, topology.masks(state), looped[1])
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)
    jax.tree.map(close, params, looped[0])
    kernels = looped[1]["a"]["kernel"]
    assert not (kernels[0] == kernels[1]).all()
    assert not (kernels[1] == kernels[2]).all()


@pytest.mark.slow
def test_jit_is_eager():
    tx = wrapped("rigl")
    params, state = start(tx)
    grads = draw_gradients(jax.random.key(1), params)
    step = functools.partial(apply_step, tx)
    eager, jitted = step(params, state, grads, 10), jax.jit(step)(params, state, grads, 10)
    masks = topology.masks(eager[1]), topology.masks(jitted[1])
    jax.tree.map(np.testing.assert_array_equal, *masks)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)
    jax.tree.map(close, eager[0], jitted[0])


def test_donated_and_restored_states_continue_identically():
    tx = wrapped("snfs")
    step = jax.jit(functools.partial(apply_step, tx), donate_argnums=(0, 1))
    key = jax.random.key(0)

    def run(carry, steps):
        for i in steps:
            grads = draw_gradients(jax.random.fold_in(key, i), carry[0])
            carry = step(*carry, grads, jnp.int32(i))
        return carry

    whole = run(start(tx), range(25))
    leaves, structure = jax.tree.flatten(run(start(tx), range(12)))
    saved = [
        jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else np.array(x)
        for x in leaves
    ]
    typed = [jnp.issubdtype(x.dtype, jax.dtypes.prng_key) for x in leaves]
    restored = [
        jax.random.wrap_key_data(x) if is_key else jnp.asarray(x)
        for x, is_key in zip(saved, typed, strict=True)
    ]
    resumed = run(jax.tree.unflatten(structure, restored), range(12, 25))
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        if not jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            np.testing.assert_array_equal(a, b)


def test_seeds_grow_at_different_places():
    tx = wrapped("set")
    params, state = start(tx)
    other = topology.init(tx, params, jax.random.key(1))[1]
    step = jax.jit(functools.partial(apply_step, tx))
    grads = jax.tree.map(jnp.ones_like, params)
    one, two, again = (
        step(params, s, grads, jnp.int32(i))[1].masks["a"]["kernel"]
        for s, i in ((state, 10), (state._replace(key=other.key), 10), (state, 20))
    )
    assert not np.array_equal(one, two)
    assert not np.array_equal(one, again)


def test_averages_skip_what_is_not_finite():
    tx = wrapped("snfs")
    params, state = start(tx)
    step = jax.jit(functools.partial(apply_step, tx))
    for i, value in enumerate([1.0, jnp.nan, 3.0, jnp.inf]):
        grads = jax.tree.map(lambda p, v=value: jnp.full_like(p, v), params)
        params, state = step(params, state, grads, jnp.int32(i))
    expected = 0.9 * (0.1 * 1.0) + 0.1 * 3.0
    np.testing.assert_allclose(state.averages["a/kernel"], expected, rtol=1e-6)


def test_steps_outside_the_table_are_safe():
    plan, tx = plan_of("rigl"), wrapped("rigl")
    params, state = start(tx)
    grads = draw_gradients(jax.random.key(1), params)
    step = jax.jit(functools.partial(apply_step, tx))
    for i in (-10, -1, 0, 1010, 2**31 - 1):
        _, new = step(params, state, grads, jnp.int32(i))
        jax.tree.map(np.testing.assert_array_equal, topology.masks(new), topology.masks(state))
    assert plan.tables[0].target.shape == (101, 2)


def test_a_foreign_mask_is_brought_back_to_the_plan():
    plan, tx = plan_of("rigl"), wrapped("rigl")
    params, state = start(tx)
    fewer = {"a": {"kernel": state.masks["a"]["kernel"].at[:6].set(False)}}
    state = state._replace(masks=state.masks | {"a": state.masks["a"] | fewer["a"]})
    params = topology.apply(state.masks, params)
    grads = jax.tree.map(jnp.ones_like, params)
    _, state = apply_step(tx, params, state, grads, 10)
    assert int(state.masks["a"]["kernel"].sum()) == plan.tables[0].target[1, 0]


def test_two_timings_have_a_conditional_each_and_their_own_clock():
    plan = topology.plan(
        SHAPES,
        {
            "a/kernel": topology.rigl(0.6, end=100, interval=10),
            "b/kernel": topology.set(0.5, end=90, interval=30),
        },
    )
    tx = topology.sparse(optax.sgd(0.01), plan)
    params, state = start(tx)
    step = jax.jit(functools.partial(apply_step, tx))
    for i in range(61):
        old = topology.masks(state)
        grads = jax.tree.map(lambda p, i=i: jax.random.normal(jax.random.key(i), p.shape), params)
        params, state = step(params, state, grads, jnp.int32(i))
        new = topology.masks(state)
        for name, interval in (("a", 10), ("b", 30)):
            same = np.array_equal(old[name]["kernel"], new[name]["kernel"])
            assert same == (i == 0 or i % interval != 0)
    topology.check(params, state, plan)


@given(sparsity=st.floats(0.1, 0.8), drop=st.floats(0.0, 1.0), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_any_budget_in_one_program(sparsity, drop, seed):
    rule = topology.rigl(sparsity, end=30, interval=10, drop_fraction=drop, allocation="uniform")
    plan = topology.plan(SHAPES, {".*kernel": rule})
    init, step = any_budget()
    params, state = init(jax.random.key(seed), plan.tables)
    for i in range(10, 40, 10):
        grads = draw_gradients(jax.random.fold_in(jax.random.key(seed), i), params)
        params, state = step(params, state, grads, jnp.int32(i))
        for column, name in enumerate("ab"):
            active = int(topology.masks(state)[name]["kernel"].sum())
            assert active == plan.tables[0].target[i // 10, column]
        topology.check(params, state)


@functools.cache
def any_budget():
    """One compiled program whose counts are arguments."""
    rule = topology.rigl(0.5, end=30, interval=10, allocation="uniform")
    inner = optax.chain(optax.zero_nans(), optax.clip(1.0), optax.sgd(0.1))
    tx = topology.sparse(inner, topology.plan(SHAPES, {".*kernel": rule}))
    init = jax.jit(lambda key, tables: topology.init(tx, params_of(key), key, tables))
    return init, jax.jit(functools.partial(apply_step, tx))
