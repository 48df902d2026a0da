"""Fault C14: the papers' own variants, and leaf counts decided by score at the rewire.

One program rewires a module under every variant at once, for two runs of different sparsity; the
oracle is NumPy on what that program saw.
"""

import functools
import math

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from count_oracle import LEAVES, best, shared_out, split
from hypothesis import given, settings
from small_runs import by_default

from mst_jax import topology
from mst_jax.topology.selection import top_k
from mst_jax.topology.shared import decide, drop_by_sign

END, INTERVAL = 12, 2


def rules(sparsity, drop):
    """Every variant, by the name of the module it trains."""
    moving = {"end": END, "interval": INTERVAL, "drop_fraction": drop}
    gradual = {"start": INTERVAL, "end": END, "interval": INTERVAL, "threshold": "global"}
    return {
        "set": topology.set(sparsity, by_sign=True, **moving),
        "snfs": topology.snfs(sparsity, redistribute=True, **moving),
        "gmp": topology.gradual_magnitude_pruning(sparsity, **gradual),
        "granet": topology.granet(sparsity, drop_fraction=drop, initial=0.1, **gradual),
        "ne": neuroplastic_expansion(sparsity, drop, tau=math.inf),
        "silent": neuroplastic_expansion(sparsity, drop, tau=0.0),
    }


def neuroplastic_expansion(sparsity, drop, tau):
    options = {"prune": "dormancy", "rate": 0.3, "prune_share": 0.4, "draw": "random"}
    return topology.neuroplastic_expansion(
        sparsity,
        growth_end=8,
        end=END,
        interval=INTERVAL,
        drop_fraction=drop,
        tau=tau,
        **options,
    )


NAMES = tuple(rules(0.5, 0.3))
SHAPES = {n: {k: jax.ShapeDtypeStruct(s, np.float32) for k, s in LEAVES.items()} for n in NAMES}


def plan_of(sparsity, drop=0.3):
    return topology.plan(SHAPES, {f"{n}/.*": rule for n, rule in rules(sparsity, drop).items()})


def numbers(key, step):
    """Gradients with ties, NaN and infinities; a quarter of the neurons silent, one of them NaN."""
    key = jax.random.fold_in(key, step)

    def gradient(path, leaf):
        own = topology.rewire.leaf_key(key, jax.tree_util.keystr(path))
        g = jnp.round(4 * jax.random.normal(own, leaf.shape)) / 4
        odd = jax.random.uniform(jax.random.fold_in(own, 1), leaf.shape)
        return jnp.select([odd < 0.02, odd < 0.04], [jnp.nan, jnp.inf], g)

    def active(name):
        # No activity for the last layer, as in a network.
        for i, (leaf, shape) in enumerate(list(LEAVES.items())[:-1]):
            u = jax.random.uniform(jax.random.fold_in(key, i), shape[-1:])
            value = jnp.where(u < 0.3, 0.0, jnp.round(4 * u) / 4)
            yield f"{name}/{leaf}", value.at[0].set(jnp.where(u[1] < 0.2, jnp.nan, value[0]))

    activity = dict(item for name in ("ne", "silent") for item in active(name))
    return jax.tree_util.tree_map_with_path(gradient, SHAPES), activity


@functools.cache
def program():
    """`init` and `step` of two runs, whose counts are arguments; compiled once for all tests."""
    plan, _ = topology.sweep([plan_of(0.3), plan_of(0.6)])
    inner = optax.chain(optax.zero_nans(), optax.clip(1.0), optax.sgd(0.3))
    tx = topology.sparse(inner, plan)

    def init(key, tables):
        keys = dict(zip(SHAPES, jax.random.split(key, len(SHAPES)), strict=True))
        params = {
            name: {
                leaf: jnp.round(6 * jax.random.normal(jax.random.fold_in(keys[name], i), s)) / 6
                for i, (leaf, s) in enumerate(LEAVES.items())
            }
            for name in SHAPES
        }
        return topology.init(tx, params, key, tables)

    def step(key, params, state, step):
        grads, activity = numbers(key, step)
        updates, state = tx.update(
            grads, state, params, step=step, activity=lambda: numbers(key, step)[1]
        )
        seen = {"weight": params, "gradient": grads}
        return optax.apply_updates(params, updates), state, seen, activity

    return tx, jax.jit(jax.vmap(init)), jax.jit(jax.vmap(step, in_axes=(0, 0, 0, None)))


def run(seeds, tables):
    """Every rewire of two runs: what was there before it, what it saw, and the masks after it."""
    _, init, step = program()
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    params, state = init(keys, tables)
    history = []
    for i in range(INTERVAL, END + 1):
        before = topology.masks(state)
        params, state, seen, activity = step(keys, params, state, jnp.int32(i))
        row = {
            **seen,
            "before": before,
            "after": topology.masks(state),
            "average": state.averages,
            "activity": activity,
        }
        if i % INTERVAL == 0:
            history.append(jax.tree.map(np.asarray, row))
    return params, state, history


@functools.cache
def recorded():
    plans = [plan_of(0.3), plan_of(0.6)]
    return plans, *run((0, 1), topology.sweep(plans)[1])


def weights_of(means):
    means = np.where(np.isnan(means), 0, means)
    with np.errstate(invalid="ignore"):
        share = means / means.max()
    levels = 2 ** (30 - len(means).bit_length())
    return [1 + int(np.floor(s * levels)) if not np.isnan(s) else 1 for s in share]


def flat(tree, name, run):
    return [np.asarray(tree[name][leaf][run]).reshape(-1) for leaf in LEAVES]


def dormancy_of(activity, run):
    scores = []
    for leaf, shape in LEAVES.items():
        own = activity.get(leaf)
        if own is None:
            scores.append(np.full(math.prod(shape), np.inf, np.float32))
            continue
        share = own[run] / (own[run].mean(dtype=np.float32) + np.float32(1e-9))
        scores.append(np.broadcast_to(share, shape).reshape(-1))
    return scores


def oracle(name, table, u, seen, run):
    """The new masks of one module at its u-th rewire (SET's growth is random)."""
    mask, weight, slope = (flat(seen[key], name, run) for key in ("before", "weight", "gradient"))
    size = np.abs(np.concatenate(weight))
    grow = [np.abs(g) for g in slope]
    sizes = [m.size for m in mask]
    if name == "snfs":
        grow = [np.abs(seen["average"][f"{name}/{leaf}"][run].reshape(-1)) for leaf in LEAVES]
    left = mask
    if name in ("gmp", "granet"):
        left = split(best(size, table.threshold[u], np.concatenate(mask)))
    if name in ("ne", "silent"):
        scores = dormancy_of({leaf: seen["activity"].get(f"{name}/{leaf}") for leaf in LEAVES}, run)
        chosen = best(np.concatenate(scores), table.threshold[u], np.concatenate(mask))
        spared = np.concatenate(scores) > 0 if name == "silent" else np.zeros(size.size, bool)
        left = split(chosen | (np.concatenate(mask) & spared))
    active = [int(m.sum()) for m in left]
    before = sum(active) if name == "snfs" else int(table.threshold[u])
    drops = shared_out(before - int(table.keep[u]), active, active)
    keep = [n - d for n, d in zip(active, drops, strict=True)]
    kept = [best(np.abs(w), k, m) for w, k, m in zip(weight, keep, left, strict=True)]
    if name == "snfs":
        means = [
            g[m].sum(dtype=np.float32) / max(m.sum(), 1) for g, m in zip(grow, mask, strict=True)
        ]
        room = [n - k for n, k in zip(sizes, keep, strict=True)]
        missing = int(table.target[u].sum()) - sum(keep)
        more = shared_out(missing, weights_of(np.array(means, np.float32)), room)
        target = [k + m for k, m in zip(keep, more, strict=True)]
    else:
        target = table.target[u].tolist() if name in ("ne", "silent") else active
    return [k | best(g, t - k.sum(), ~k) for k, g, t in zip(kept, grow, target, strict=True)]


@pytest.mark.parametrize(  # momenta compile long
    "name", by_default(set(NAMES) - {"snfs"}, [name for name in NAMES if name != "set"])
)
def test_every_variant_is_the_oracle_s_at_every_rewire(name):
    """Fault C14: SNFS, NE, GraNet and GMP as published, two sparsities in one program."""
    plans, _, _, history = recorded()
    moved = set()
    for run_index, plan in enumerate(plans):
        (group,) = [g for g in plan.groups if g.entries[0].path == f"{name}/a"]
        for u, seen in enumerate(history, start=1):
            expected = oracle(name, group.table, u, seen, run_index)
            found = flat(seen["after"], name, run_index)
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_array_equal(one, other, err_msg=f"run {run_index}, rewire {u}")
            assert sum(m.sum() for m in found) == group.table.target[u].sum()
            moved.add(tuple(int(m.sum()) for m in found))
    assert len(moved) > 2  # the leaves' counts do move


def test_set_drops_a_share_of_each_sign():
    """Fault C14: SET by sign."""
    plans, _, _, history = recorded()
    for run_index, plan in enumerate(plans):
        (group,) = [g for g in plan.groups if g.entries[0].path == "set/a"]
        for u, seen in enumerate(history, start=1):
            columns = (flat(seen[k], "set", run_index) for k in ("before", "weight", "after"))
            for column, (old, weight, new) in enumerate(zip(*columns, strict=True)):
                signs = [old & ~(weight < 0), old & (weight < 0)]
                active = [int(m.sum()) for m in signs]
                drops = shared_out(sum(active) - int(group.table.keep[u, column]), active, active)
                survivors = [
                    best(np.abs(weight), n - d, m)
                    for m, n, d in zip(signs, active, drops, strict=True)
                ]
                assert new[survivors[0] | survivors[1]].all()
                assert new.sum() == group.table.target[u, column]


def test_a_share_of_each_sign_by_hand():
    """Fault C14: three of six go: two of four positive ones, one of two negative ones."""
    weight = jnp.array([0.1, 0.4, -0.2, 0.3, -0.9, 0.2, 5.0])
    leaf = topology.Leaf(weight, weight, None, jnp.arange(7) < 6, jax.random.key(0))
    kept = drop_by_sign(leaf, topology.magnitude(leaf), jnp.int32(3))
    assert kept.tolist() == [False, True, False, True, True, False, False]
    by_size = top_k(topology.magnitude(leaf), jnp.int32(3), leaf.mask)
    assert by_size.tolist() == [False, True, False, True, True, False, False]
    small = leaf._replace(weight=jnp.array([0.1, 0.4, -1.2, 0.3, -0.9, 0.2, 5.0]))
    kept = drop_by_sign(small, topology.magnitude(small), jnp.int32(3))
    assert kept.tolist() == [False, True, True, True, False, False, False]
    by_size = top_k(topology.magnitude(small), jnp.int32(3), small.mask)
    assert by_size.tolist() == [False, True, True, False, True, False, False]


@pytest.mark.parametrize(("adam", "expected"), [(False, [4, 2]), (True, [3, 3])])
def test_redistribution_by_hand(adam, expected):
    """Fault C14: two leaves of 3 active weights drop one each and share what comes back.

    Mean averages of the active weights are 3 and 0.1; as Adam normalises them, 1 and 1. The second
    leaf's NaN lies outside its mask.
    """
    regime = topology.snfs(0.5, end=200, redistribute=True, adam=adam)
    active = jnp.array([1, 1, 1, 0, 0, 0], bool)
    weight = jnp.array([1.0, -0.1, 0.5, 0.0, 0.0, 0.0])
    leaves = [
        topology.Leaf(
            weight, weight, average, active, jax.random.key(0), square=jnp.square(average)
        )
        for average in (
            jnp.array([3.0, -3.0, 3.0, 1.0, 2.0, 9.0]),
            jnp.array([0.1, -0.1, 0.1, jnp.nan, 0.2, 0.3]),
        )
    ]
    counts = topology.Totals(*(jnp.array(x, jnp.int32) for x in ([6, 6], [6, 4], [[3, 3], [3, 3]])))
    masks, keep, target = decide(regime, regime.sharing, counts, jnp.int32(1), leaves)
    assert keep.tolist() == [2, 2]
    assert target.tolist() == expected
    assert all(mask is leaf.mask for mask, leaf in zip(masks, leaves, strict=True))


def test_averages_of_squares_skip_what_is_not_finite():
    rule = topology.snfs(0.5, end=200, adam=True)
    params = {"a": jnp.ones((2, 2))}
    tx = topology.sparse(optax.sgd(0.1), topology.plan(params, {"a": rule}))
    params, state = topology.init(tx, params, jax.random.key(0))
    update = jax.jit(tx.update)
    for i, value in enumerate([1.0, jnp.nan, 3.0, jnp.inf]):
        _, state = update({"a": jnp.full((2, 2), value)}, state, params, step=i)
    np.testing.assert_allclose(state.averages["a"], 0.9 * (0.1 * 1) + 0.1 * 3, rtol=1e-5)
    np.testing.assert_allclose(state.squares["a"], 0.999 * (0.001 * 1) + 0.001 * 9, rtol=1e-5)


def test_masks_stay_consistent_and_the_plan_s_totals_are_checked():
    plans, params, state, _ = recorded()
    assert (np.asarray(state.masks["gmp"]["a"]).sum((1, 2)) > 0).all()
    for name, leaves in topology.masks(state).items():
        for leaf, mask in leaves.items():
            outside = np.asarray(params[name][leaf])[~np.asarray(mask)]
            assert (outside == 0).all()
    first = jax.tree.map(lambda x: x[0] if jnp.ndim(x) else x, (params, state))
    topology.check(*first, plans[0])
    with pytest.raises(ValueError, match="active weights together, a number that is not in the"):
        topology.check(*first, topology.plan(SHAPES, {"gmp/.*": rules(0.45, 0.3)["gmp"]}))


@pytest.mark.slow
def test_a_run_does_not_see_its_neighbour():
    """Seeds are independent: another seed and sparsity beside it, bit-equal results."""
    plans, params, state, _ = recorded()
    others = topology.sweep([plans[0], plan_of(0.45)])[1]
    again, beside, _ = run((0, 9), others)
    same = jax.tree.map(
        lambda a, b: bool((a[0] == b[0]).all()), (params, state.masks), (again, beside.masks)
    )
    assert all(jax.tree.leaves(same))
    assert not np.array_equal(state.masks["snfs"]["a"][1], beside.masks["snfs"]["a"][1])


@given(sparsity=st.floats(0.15, 0.7), drop=st.floats(0.0, 1.0), seed=st.integers(0, 99))
@settings(max_examples=6, deadline=None)
def test_totals_are_exact_for_any_budget(sparsity, drop, seed):
    """Invariant: every module has exactly the plan's number after every rewire."""
    plans = [plan_of(sparsity, drop), plan_of(0.5, 0.2)]
    _, _, history = run((seed, 1), topology.sweep(plans)[1])
    for run_index, plan in enumerate(plans):
        for group in plan.groups:
            names = [entry.path.split("/") for entry in group.entries]
            for u, seen in enumerate(history, start=1):
                counts = [seen["after"][n][leaf][run_index].sum() for n, leaf in names]
                assert sum(counts) == group.table.target[u].sum()
                if group.sharing is None or group.sharing.growth == "plan":
                    assert counts == group.table.target[u].tolist()


def test_the_conditionals_return_masks_and_see_no_seeds():
    tx, init, _ = program()
    plan, tables = topology.sweep([plan_of(0.3), plan_of(0.6)])
    keys = jax.random.split(jax.random.key(0), 2)
    params, state = jax.eval_shape(init, keys, tables)
    calls = []

    def step(params, state, i):
        def activity():
            calls.append(i)
            return numbers(jax.random.key(0), 0)[1]

        return tx.update(params, state, params, step=i, activity=activity)

    jaxpr = jax.make_jaxpr(jax.vmap(step, in_axes=(0, 0, None)))(params, state, jnp.int32(0))
    conditionals = [e for e in jaxpr.eqns if e.primitive.name == "cond"]
    assert [e.invars[0].aval.shape for e in conditionals] == [()] * len(plan.groups)
    assert {v.aval.dtype for e in conditionals for v in e.outvars} == {np.dtype(bool)}
    # The forward pass that measures neurons is inside them: one call for each rule that asks.
    assert len(calls) == 2


def test_totals_by_hand():
    """Fault C14: 30 + 20 + 4 weights under each kind of total."""
    plan = plan_of(0.5, 0.29)
    tables = {group.entries[0].path.split("/")[0]: group.table for group in plan.groups}
    snfs = tables["snfs"]  # 27 active; the first drop is floor(27 * 0.29 * (1 + cos(pi/6)) / 2)
    assert snfs.target.sum(1).tolist() == [27] * 7
    assert snfs.keep.tolist()[:2] == [
        27,
        27 - math.floor(27 * 0.29 * (1 + math.cos(math.pi / 6)) / 2),
    ]
    gmp = tables["gmp"]  # cubic over five intervals
    sums = [54 - math.floor(54 * 0.5 * (1 - (1 - x / 5) ** 3) + 1e-9) for x in range(6)]
    assert gmp.threshold.tolist() == gmp.keep.tolist() == gmp.target.sum(1).tolist() == [54, *sums]
    granet = tables["granet"]
    assert granet.threshold[1:].tolist() == [49, 39, 32, 29, 28, 27]
    assert (granet.threshold - granet.keep).tolist() == [0, 14, 10, 6, 3, 0, 0]  # 0.29 to 0.005
    assert granet.threshold.tolist() == granet.target.sum(1).tolist()


def test_the_published_growth_of_ne_by_hand():
    """Fault C14: uniform ends, a rate that nothing normalises, a leaf that began above its end."""
    shapes = {"a": np.zeros((20, 10)), "b": np.zeros((10, 4)), "c": np.zeros((4, 1))}
    rule = topology.neuroplastic_expansion(
        {"a": 0.8, "b": 0.5, "c": 0.0}, growth_end=60, interval=10, rate=0.5, prune="dormancy"
    )
    (group,) = topology.plan(shapes, {".*": rule}).groups
    # Ends at density 0.75: 150 and 30; c is above it. Net growth is 0.3 of 110 and of 10 a step.
    a, b, c = group.table.target.T.tolist()
    assert a == [40, 73, 106, 139, 150, 150, 150]
    assert b == [20, 23, 26, 29, 30, 30, 30]
    assert c == [4] * 7
    # Drops are 0.4 / 0.6 of the net growth of all leaves together.
    assert group.table.threshold.tolist() == [64, 64 - 24, 100 - 24, 136 - 24, 172 - 8, 184, 184]
    rule = topology.neuroplastic_expansion(
        0.8, growth_end=10_000, interval=100, rate=0.008, allocation="uniform"
    )
    (group,) = topology.plan({"k": np.zeros((100, 100))}, {"k": rule}).groups
    # The authors' setting: after 100 rewires the room from 0.2 to 0.75 is filled to 0.48 only.
    assert group.table.target[[0, -1], 0].tolist() == [2000, 2000 + 2640]
