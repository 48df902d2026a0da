"""Structures: exact counts and whole units at every step, of every regime, and what they refuse."""

import functools
import math

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings

from mst_jax import topology
from mst_jax.topology import rewire

STRUCTURES = {  # leaf -> its structure and shape; all in one tree, hence in one program
    "fan_in": (topology.fan_in(), (8, 12)),
    "2:4": (topology.n_of_m(4), (8, 12)),
    "shared4": (topology.shared_fan_in(4), (9, 12)),
    "block2x3": (topology.block(2, 3), (8, 12)),
    "convolution": (topology.shared_fan_in(4), (3, 3, 2, 8)),
    "stacked": (topology.ensemble(inside=topology.shared_fan_in(4)), (2, 9, 8)),
    "stacked 2:4": (topology.ensemble(inside=topology.n_of_m(4)), (2, 8, 6)),
    "tied": (topology.tied(), (2, 5, 7)),
    "tied shared4": (topology.tied(1, topology.shared_fan_in(4)), (9, 2, 8)),
}
STEPS, END, INTERVAL = 40, 36, 3
TIMED = {"end": END, "interval": INTERVAL}
FAMILY = {  # the same scores and timing: one program, different tables
    "rigl": functools.partial(topology.rigl, **TIMED),
    "gmp": functools.partial(topology.gradual_magnitude_pruning, start=3, **TIMED),
    "granet": functools.partial(topology.granet, start=3, **TIMED),
    "growth": functools.partial(topology.gradual_growth, **TIMED),
    "expansion": functools.partial(
        topology.neuroplastic_expansion,
        growth_end=24,
        final=0.25,
        end=END,
        interval=INTERVAL,
        draw="random",
    ),
    "expansion at a rate": functools.partial(
        topology.neuroplastic_expansion,
        growth_end=24,
        end=END,
        interval=INTERVAL,
        rate=0.07,
        draw="random",
    ),
    "dense_then_rigl": functools.partial(topology.dense_then_rigl, start=3, **TIMED),
}
OTHERS = {
    "static": topology.static,
    "set": functools.partial(topology.set, **TIMED),
    "snfs": functools.partial(topology.snfs, **TIMED),
}
SEEDS = 2
FOR_OTHERS = ("2:4", "shared4", "stacked")  # whose scores alone differ


def leaves_of(prefix):
    return STRUCTURES if prefix == "k" else {name: STRUCTURES[name] for name in FOR_OTHERS}


def tree(*prefixes):
    return {
        f"{prefix}/{name}": jax.ShapeDtypeStruct(shape, jnp.float32)
        for prefix in prefixes
        for name, (_, shape) in leaves_of(prefix).items()
    }


def rules(prefix, make):
    return {
        f"{prefix}/{name}": make(0.5, allocation="uniform", structure=structure)
        for name, (structure, _) in leaves_of(prefix).items()
    }


def rollout(plan, key, tables):
    """Masks after every step of one seed, with random gradients."""
    shapes = tree(*dict.fromkeys(path.partition("/")[0] for path in plan.names))
    tx = topology.sparse(optax.sgd(0.1), plan)

    def normal(key):
        return {
            path: jax.random.normal(jax.random.fold_in(key, i), leaf.shape)
            for i, (path, leaf) in enumerate(shapes.items())
        }

    def body(carry, step):
        params, state = carry
        grads = normal(jax.random.fold_in(key, step))
        updates, state = tx.update(grads, state, params, step=step)
        params = topology.apply_updates(params, updates, topology.masks(state))
        return (params, state), (topology.masks(state), params)

    start = topology.init(tx, normal(key), key, tables)
    return jax.lax.scan(body, start, jnp.arange(STEPS))[1]


@functools.cache
def family():
    """{regime: (plan, masks and parameters [seeds, steps, ...])}: every regime in one program."""
    plans = [topology.plan(tree("k"), rules("k", make)) for make in FAMILY.values()]
    plan, tables = topology.sweep(plans)
    keys = jax.random.split(jax.random.key(0), SEEDS)
    seeds = jax.vmap(functools.partial(rollout, plan), in_axes=(0, None))
    found = jax.tree.map(np.asarray, jax.jit(jax.vmap(seeds, in_axes=(None, 0)))(keys, tables))
    return {
        name: (own, jax.tree.map(lambda x, i=i: x[i], found))
        for i, (name, own) in enumerate(zip(FAMILY, plans, strict=True))
    }


@functools.cache
def others():
    """The same of the other regimes, side by side in one tree."""
    both = {path: rule for name, make in OTHERS.items() for path, rule in rules(name, make).items()}
    plan = topology.plan(tree(*OTHERS), both)
    keys = jax.random.split(jax.random.key(0), SEEDS)
    run = jax.jit(jax.vmap(functools.partial(rollout, plan), in_axes=(0, None)))
    found = jax.tree.map(np.asarray, run(keys, plan.tables))
    return dict.fromkeys(OTHERS, (plan, found))


def units_by_hand(name, mask):
    """{group: its units, each a list of flags}, of one mask, by plain loops."""
    groups = {}
    if name == "tied":
        return {0: mask.reshape(len(mask), -1).T.tolist()}
    if name == "tied shared4":
        first, second = (units_by_hand("shared4", part) for part in np.moveaxis(mask, 1, 0))
        return {key: [a + b for a, b in zip(first[key], second[key], strict=True)] for key in first}
    if name.startswith("stacked"):
        inner = {"stacked": "shared4", "stacked 2:4": "2:4"}[name]
        for member, own in enumerate(mask):
            groups |= {(member, key): units for key, units in units_by_hand(inner, own).items()}
        return groups
    flat = mask.reshape(-1, *mask.shape[-2:])  # kernel positions, inputs, outputs
    rows, columns = {"fan_in": (1, 1), "2:4": (1, 1), "block2x3": (2, 3)}.get(name, (1, 4))
    for k, i, j in np.ndindex(flat.shape[0], flat.shape[1] // rows, flat.shape[2] // columns):
        group = (k, i // 4, j) if name == "2:4" else j
        unit = flat[k, i * rows : (i + 1) * rows, j * columns : (j + 1) * columns]
        groups.setdefault(group, []).append(unit.reshape(-1).tolist())
    return groups


@pytest.mark.parametrize("name", [*FAMILY, *OTHERS])
def test_counts_are_exact_and_units_whole_at_every_step(name):
    plan, (masks, params) = (family() if name in FAMILY else others())[name]
    prefix = "k" if name in FAMILY else name
    for leaf, (structure, shape) in leaves_of(prefix).items():
        path = f"{prefix}/{leaf}"
        g, column, _ = plan.entries()[path]
        group, seen = plan.groups[g], masks[path]
        rows = np.zeros(STEPS, int)
        for u, step in enumerate(group.timing.steps if group.timing else (), start=1):
            rows[step:] = u
        target = np.asarray(group.table.target)[rows, column]
        unit = structure.unit_of(shape)
        assert (target % (structure.groups(shape) * unit) == 0).all()
        np.testing.assert_array_equal(seen.sum(axis=tuple(range(2, seen.ndim))), [target] * SEEDS)
        assert (params[path][~seen] == 0).all()
        assert not np.array_equal(seen[0], seen[1])
        for seed in range(SEEDS):
            for step in [0, *range(2, STEPS, INTERVAL)]:
                found = units_by_hand(leaf, seen[seed, step])
                assert len(found) == structure.groups(shape)
                assert all(len(set(unit)) == 1 for units in found.values() for unit in units), leaf
                shares = {sum(unit[0] for unit in units) for units in found.values()}
                assert shares == {target[step] // (len(found) * unit)}, (leaf, step)


@pytest.mark.parametrize("name", ["rigl", "set", "snfs"])
def test_every_structure_moves_as_long_as_a_unit_is_dropped(name):
    plan, (masks, _) = (family() if name in FAMILY else others())[name]
    prefix = "k" if name in FAMILY else name
    for leaf, (structure, shape) in leaves_of(prefix).items():
        path, unit = f"{prefix}/{leaf}", structure.unit_of(shape)
        g, column, entry = plan.entries()[path]
        table = plan.groups[g].table
        dropped = table.target[1:, column] - table.keep[1:, column]
        share = [entry.regime.drop(step) for step in plan.groups[g].timing.steps]
        whole = np.floor(np.array(share) * table.target[1:, column] / unit + 1e-9)
        np.testing.assert_array_equal(dropped, whole * unit)
        assert entry.drops
        assert not entry.remarks
        moves = np.array(plan.groups[g].timing.steps)[dropped > 0]
        changed = (masks[path][:, moves] != masks[path][:, moves - 1]).any(
            axis=tuple(range(2, masks[path].ndim))
        )
        # A dropped unit may be the best to grow, most often where few compete.
        assert changed.mean() > 0.5, leaf


@functools.cache
def selections(name):
    structure, _ = STRUCTURES[name]
    return (
        jax.jit(functools.partial(rewire.select, structure)),
        jax.jit(functools.partial(rewire.fill, structure)),
    )


def best(scores, k, eligible):
    """Positions of the k best of a group's units, the first of equal ones first."""
    order = sorted(np.flatnonzero(eligible), key=lambda i: (-scores[i], i))
    return set(order[:k])


@given(
    name=st.sampled_from(["fan_in", "2:4", "shared4", "block2x3", "tied", "tied shared4"]),
    seed=st.integers(0, 2**31),
    share=st.floats(0.3, 1.0),
    drop=st.floats(0.0, 0.9),
)
@settings(max_examples=60, deadline=None)
def test_what_is_kept_and_grown_is_the_oracle_s(name, seed, share, drop):
    structure, shape = STRUCTURES[name]
    select, fill = selections(name)
    rng = np.random.default_rng(seed)
    groups, unit = structure.groups(shape), structure.unit_of(shape)
    per_group = math.prod(shape) // groups // unit
    n = max(round(share * per_group), 1)
    target = n * groups * unit
    # Multiples of 1/8, whose means are exact: the oracle adds in another order.
    draw = lambda: (rng.integers(-20, 20, shape) / 8).astype(np.float32)  # noqa: E731
    first, size, slope = draw(), draw(), draw()
    mask = np.asarray(select(first, target, np.ones(shape, bool)))
    dropped = math.floor(drop * n * groups)
    keep = target - dropped * unit
    kept = np.asarray(select(size, keep, mask))
    new = np.asarray(fill(slope, target, kept))

    active, wants = units_by_hand(name, mask), units_by_hand(name, size)
    grows, found = units_by_hand(name, slope), units_by_hand(name, new)
    each, more = divmod(keep // unit, groups)
    mean = {key: [np.mean(u) for u in units] for key, units in wants.items()}
    chosen, rivals = {}, []
    # Groups in the order in which the structure numbers them: by output, then by place.
    for key in sorted(active, key=lambda key: key[::-1] if isinstance(key, tuple) else key):
        flags = [unit[0] for unit in active[key]]
        chosen[key] = best(mean[key], each, flags)
        rest = [flag and i not in chosen[key] for i, flag in enumerate(flags)]
        rivals += [(mean[key][i], key, i) for i in best(mean[key], 1, rest)]
    for _, key, i in sorted(rivals, key=lambda rival: -rival[0])[:more]:
        chosen[key].add(i)
    for key, units in units_by_hand(name, kept).items():
        assert {i for i, unit in enumerate(units) if unit[0]} == chosen[key]
    for key, units in found.items():
        slopes = [np.mean(unit) for unit in grows[key]]
        free = [i not in chosen[key] for i in range(len(units))]
        expected = chosen[key] | best(slopes, n - len(chosen[key]), free)
        assert {i for i, unit in enumerate(units) if unit[0]} == expected


def test_flags_and_random_bits_are_a_unit_s_first_and_scores_its_mean():
    structure = topology.block(2, 3)
    x = np.arange(4 * 6, dtype=np.float32).reshape(4, 6)
    np.testing.assert_array_equal(structure.split(x), [[[[4, 7], [16, 19]]]])
    np.testing.assert_array_equal(structure.split(x.astype(np.uint32)), [[[[0, 3], [12, 15]]]])
    half = structure.split(x.astype(jnp.bfloat16) + jnp.bfloat16(200))
    np.testing.assert_allclose(half, [[[[204, 207], [216, 219]]]])  # added up in float32
    mask = structure.join(jnp.array([[[[True, False], [False, True]]]]), (4, 6))
    np.testing.assert_array_equal(mask[:, 0], [True, True, False, False])
    np.testing.assert_array_equal(mask[:, 5], [False, False, True, True])


def test_the_printed_plan_says_what_does_not_fit_and_what_can_never_move():
    shapes = {
        "wide": jax.ShapeDtypeStruct((8, 64), np.float32),
        "few": jax.ShapeDtypeStruct((2, 64), np.float32),
        "head": jax.ShapeDtypeStruct((64, 6), np.float32),
    }
    rule = topology.rigl(
        0.5, end=90, interval=10, structure=topology.block(2, 32), allocation="uniform"
    )
    lines = {
        line.split()[0]: line
        for line in str(topology.plan(shapes, {"wide|head": rule})).splitlines()
    }
    assert "rigl (block2x32) " in lines["wide"]
    assert "rigl (unstructured: block2x32 does not fit)" in lines["head"]
    with pytest.raises(ValueError, match="'few' with fewer weights than the 128 its structure"):
        topology.plan(shapes, {"few": rule})
    slow = topology.rigl(
        0.5,
        end=90,
        interval=10,
        drop_fraction=0.1,
        structure=topology.block(2, 32),
        allocation="uniform",
    )
    plan = topology.plan(shapes, {"wide": slow})
    assert "(block2x32: never moves, every drop is less than one unit of 64 weights)" in str(plan)
    (entry,) = plan.groups[0].entries
    assert not entry.drops


def test_check_finds_broken_units_and_unequal_groups():
    shapes = {"k": jax.ShapeDtypeStruct((8, 8), np.float32)}
    for structure, swap, what in (
        (topology.shared_fan_in(4), "within a unit", "parts of units"),
        (topology.n_of_m(4), "between groups", "1 to 3 active units in its groups"),
    ):
        plan = topology.plan(shapes, {"k": topology.static(0.5, structure=structure)})
        tx = topology.sparse(optax.sgd(0.1), plan)
        init = jax.jit(functools.partial(topology.init, tx))
        params, state = init({"k": jnp.ones((8, 8))}, jax.random.key(0))
        topology.check(params, state, plan)
        mask = np.array(state.masks["k"])
        if swap == "within a unit":
            on, off = np.argwhere(mask)[0], np.argwhere(~mask)[0]
        else:  # from the first group of four inputs to the second, in one column
            on, off = (np.flatnonzero(half)[0] for half in (mask[:4, 0], ~mask[4:, 0]))
            on, off = (on, 0), (off + 4, 0)
        mask[tuple(on)], mask[tuple(off)] = False, True
        state = state._replace(masks={"k": jnp.asarray(mask)})
        with pytest.raises(ValueError, match=what):
            topology.check(topology.apply(state.masks, params), state, plan)


@pytest.mark.parametrize(
    ("name", "structure", "sparsity"),
    [
        ("unstructured", topology.unstructured(), None),
        ("fan_in", topology.fan_in(), None),
        ("2:4", topology.n_of_m(4), 0.5),
        ("1:4", topology.n_of_m(4), 0.75),
        ("3:8", topology.n_of_m(8), 0.625),
        ("shared16", topology.shared_fan_in(16), None),
        ("block4x16", topology.block(4, 16), None),
    ],
)
def test_names_of_structures(name, structure, sparsity):
    found = topology.structure_named(name)
    assert found.sparsity == sparsity
    for shape in ((16, 64), (24, 48), (7, 9), (3, 3, 16, 64)):
        assert found.structure.fits(shape) == structure.fits(shape)
        if structure.fits(shape):
            assert found.structure.groups(shape) == structure.groups(shape)
    assert found.structure.unit == structure.unit


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("shard16", "no structure 'shard16': choose unstructured, fan_in, N:M"),
        ("shared", "no structure"),
        ("2:4 ", "no structure"),
        ("4:4", "needs 0 < N < M"),
        ("0:4", "needs 0 < N < M"),
        ("shared0", "columns must be at least 1"),
        ("block0x4", "rows and columns must be at least 1"),
        ("", "no structure ''"),
    ],
)
def test_names_that_are_none(name, what):
    with pytest.raises(ValueError, match=what) as error:
        topology.structure_named(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "make",
    [
        functools.partial(topology.set, 0.5, end=100, by_sign=True),
        functools.partial(topology.snfs, 0.5, end=100, redistribute=True),
        functools.partial(topology.static, 0.5, draw="bernoulli"),
    ],
)
def test_what_counts_single_weights_takes_no_structure(make):
    with pytest.raises(
        ValueError, match="counts single weights and takes no structure; got shared"
    ):
        make(structure=topology.shared_fan_in(4))
