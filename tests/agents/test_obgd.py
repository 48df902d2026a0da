"""The optimizer of streaming agents, alone and inside a sparse topology, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mst_jax import topology
from mst_jax.agents.parts.obgd import adaptive_obgd, obgd

SETTINGS = {"kappa": 2.0, "trace_decay": 0.8}
DISCOUNT = 0.99
STEPS = 12


def params_of(key):
    first, second = jax.random.split(key)
    return {
        "first": {"kernel": jax.random.normal(first, (6, 8)), "bias": jnp.zeros(8)},
        "last": {"kernel": jax.random.normal(second, (8, 1)), "bias": jnp.zeros(1)},
    }


def stream():
    """Gradients, TD errors (small, large and zero) and two ends."""
    generator = np.random.default_rng(0)
    shapes = jax.tree.map(np.shape, params_of(jax.random.key(0)), is_leaf=lambda x: False)
    grads = [
        jax.tree.map(
            lambda shape: generator.normal(size=shape).astype(np.float32),
            shapes,
            is_leaf=lambda x: isinstance(x, tuple),
        )
        for _ in range(STEPS)
    ]
    errors = generator.normal(size=STEPS).astype(np.float32) * 3
    errors[4] = 0
    return grads, errors, np.isin(np.arange(STEPS), (3, 8))


def oracle(params, masks, rate=1.0):
    """Plain NumPy with explicit masks: parameters after every step, and ‖e‖₁."""
    grads, errors, ends = stream()
    leaves, tree = jax.tree.flatten(params)
    weights = [np.array(leaf, np.float64) for leaf in leaves]
    traces = [np.zeros_like(weight) for weight in weights]
    history, norms = [], []
    for grad, error, end in zip(grads, errors, ends, strict=True):
        masked = [np.where(m, g, 0) for m, g in zip(masks, jax.tree.leaves(grad), strict=True)]
        traces = [0.99 * 0.8 * e + g for e, g in zip(traces, masked, strict=True)]
        norm = sum(np.abs(e).sum() for e in traces)
        bound = rate * SETTINGS["kappa"] * max(abs(error), 1.0) * norm
        step = rate / max(bound, 1.0)
        weights = [w + step * error * e for w, e in zip(weights, traces, strict=True)]
        history.append(jax.tree.unflatten(tree, weights))
        norms.append(norm)
        if end:
            traces = [np.zeros_like(e) for e in traces]
    return history, norms


def trained(plan, rate=1.0):
    """The same by the library: parameters, masks and traces after every step."""
    grads, errors, ends = stream()
    tx = topology.sparse(obgd(rate, **SETTINGS), plan)
    params, state = topology.init(tx, params_of(jax.random.key(0)), jax.random.key(1))
    start = params

    @jax.jit
    def step(params, state, grad, error, end, number):
        told = {"td_error": error, "discount": DISCOUNT, "reset": end}
        updates, state = tx.update(grad, state, params, step=number, **told)
        return topology.apply_updates(params, updates, topology.masks(state)), state

    rows = []
    for number, (grad, error, end) in enumerate(zip(grads, errors, ends, strict=True)):
        params, state = step(params, state, grad, error, end, jnp.int32(number))
        rows.append((params, topology.masks(state), topology.states(state)[0].inner))
    return start, rows


def full(mask, like):
    return np.ones(like.shape, bool) if isinstance(mask, topology.DenseLeaf) else np.asarray(mask)


@pytest.mark.parametrize("rate", [1.0, 1e-4])  # bounded at every step, never bounded
@pytest.mark.parametrize("sparsity", [None, 0.6])
def test_equal_to_numpy_dense_and_sparse(sparsity, rate):
    regime = topology.dense() if sparsity is None else topology.static(sparsity)
    plan = topology.plan(params_of(jax.random.key(0)), {".*kernel": regime})
    start, rows = trained(plan, rate)
    masks = (
        [
            full(mask, leaf)
            for mask, leaf in zip(
                jax.tree.leaves(rows[0][1], is_leaf=lambda x: isinstance(x, topology.DenseLeaf)),
                jax.tree.leaves(start),
                strict=True,
            )
        ]
        if sparsity
        else [np.ones(leaf.shape, bool) for leaf in jax.tree.leaves(start)]
    )
    history, norms = oracle(start, masks, rate)
    for (params, _, own), wanted, norm in zip(rows, history, norms, strict=True):
        np.testing.assert_allclose(own.trace_norm, norm, rtol=1e-5)
        for ours, theirs in zip(jax.tree.leaves(params), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
        for leaf, mask in zip(jax.tree.leaves(own.trace), masks, strict=True):
            assert (np.asarray(leaf)[~mask] == 0).all()


def test_traces_end_with_the_episode_after_their_last_step():
    plan = topology.plan(params_of(jax.random.key(0)), {".*kernel": topology.static(0.6)})
    _, rows = trained(plan)
    for number in (3, 8):
        before = rows[number - 1][0]["first"]["kernel"]
        assert not np.array_equal(rows[number][0]["first"]["kernel"], before)
        grad = stream()[0][number + 1]["first"]["bias"]  # of a leaf that is dense
        trace = [rows[i][2].trace["first"]["bias"] for i in (number, number + 1)]
        np.testing.assert_array_equal(trace[1], grad)
        assert not np.array_equal(trace[0], stream()[0][number]["first"]["bias"])
    unmoved = rows[4][0]["first"]["kernel"]  # its TD error is zero
    np.testing.assert_array_equal(unmoved, rows[3][0]["first"]["kernel"])
    assert any((np.asarray(leaf) != 0).any() for leaf in jax.tree.leaves(rows[4][2].trace))


def test_grown_weights_begin_without_a_trace_and_growth_is_scored_by_its_own_tree():
    shapes = params_of(jax.random.key(0))
    regime = topology.rigl(0.6, end=11, interval=3, drop_fraction=topology.schedules.constant(0.5))
    plan = topology.plan(shapes, {"first/kernel": regime})
    tx = topology.sparse(obgd(**SETTINGS), plan)
    params, state = topology.init(tx, shapes, jax.random.key(1))
    before = np.asarray(topology.masks(state)["first"]["kernel"])
    wanted = np.zeros(before.shape, np.float32)
    inactive = np.argwhere(~before)[:3]
    wanted[tuple(inactive.T)] = 1.0
    growth = {**jax.tree.map(jnp.zeros_like, shapes)}
    growth["first"] = {"kernel": jnp.asarray(wanted), "bias": jnp.zeros(8)}
    grads = stream()[0][0]
    arguments = {"td_error": jnp.float32(1.0), "discount": DISCOUNT, "reset": jnp.bool_(False)}
    _, state = tx.update(grads, state, params, step=jnp.int32(3), growth=growth, **arguments)
    after = np.asarray(topology.masks(state)["first"]["kernel"])
    assert after[tuple(inactive.T)].all()
    assert after.sum() == before.sum()
    with pytest.raises(ValueError, match="growth are not those of these parameters"):
        tx.update(grads, state, params, step=jnp.int32(4), growth={"a": 1.0}, **arguments)


def test_the_adaptive_one_is_equal_to_numpy_and_stays_inside_its_mask():
    """With the average's correction in the first steps, ends, and a δ of zero."""
    shapes = params_of(jax.random.key(0))
    plan = topology.plan(shapes, {".*kernel": topology.static(0.6)})
    tx = topology.sparse(adaptive_obgd(**SETTINGS), plan)
    params, state = topology.init(tx, shapes, jax.random.key(1))
    ones = topology.apply(topology.masks(state), jax.tree.map(jnp.ones_like, params))
    masks = [np.asarray(leaf) != 0 for leaf in jax.tree.leaves(ones)]
    weights = [np.array(leaf, np.float64) for leaf in jax.tree.leaves(params)]
    traces, squares = ([np.zeros_like(w) for w in weights] for _ in range(2))
    step = jax.jit(tx.update)
    for number, (grad, error, end) in enumerate(zip(*stream(), strict=True)):
        told = {"td_error": error, "discount": DISCOUNT, "reset": end}
        updates, state = step(grad, state, params, step=jnp.int32(number), **told)
        params = topology.apply_updates(params, updates, topology.masks(state))
        own = [np.where(m, g, 0) for m, g in zip(masks, jax.tree.leaves(grad), strict=True)]
        traces = [0.99 * 0.8 * e + g for e, g in zip(traces, own, strict=True)]
        pairs = zip(squares, traces, strict=True)
        squares = [0.999 * v + 0.001 * (error * e) ** 2 for v, e in pairs]
        missing = 1 - 0.999 ** (number + 1)
        pairs = zip(traces, squares, strict=True)
        scaled = [e / np.sqrt(v / missing + 1e-8) for e, v in pairs]
        bound = SETTINGS["kappa"] * max(abs(error), 1.0) * sum(np.abs(e).sum() for e in scaled)
        pairs = zip(weights, scaled, strict=True)
        weights = [w + error * e / max(bound, 1.0) for w, e in pairs]
        for ours, theirs, mask in zip(jax.tree.leaves(params), weights, masks, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
            assert (np.asarray(ours)[~mask] == 0).all()
        if end:
            traces = [np.zeros_like(e) for e in traces]
