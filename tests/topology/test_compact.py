"""Compact storage against masked: the same topologies, weights and moments, step by step."""

import functools
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mst_jax import topology
from mst_jax.networks.shared import shared_dense
from mst_jax.topology import Shared, densified

SIZES = {"first": (12, 16), "middle": (16, 16), "last": (16, 1)}  # shared4 does not fit the last
SHAPES = {name: {"kernel": jax.ShapeDtypeStruct(size, np.float32)} for name, size in SIZES.items()}
STEPS, INTERVAL = 13, 3
SHARED = {"structure": topology.shared_fan_in(4)}
COMPACT = {**SHARED, "storage": "compact"}
MAKERS = {
    "static": topology.static,
    "rigl": functools.partial(topology.rigl, end=100, interval=INTERVAL),
    "set": functools.partial(topology.set, end=100, interval=INTERVAL),
}
X, Y = (jax.random.normal(jax.random.key(i), (8, size)) for i, size in ((1, 12), (2, 1)))


def dense_params(key, draw=jax.random.normal):
    keys = jax.random.split(key, len(SIZES))
    return {name: {"kernel": draw(k, SIZES[name]) / 4} for name, k in zip(SIZES, keys, strict=True)}


def product(x, kernel):
    return shared_dense(x, kernel) if isinstance(kernel, Shared) else x @ kernel


def loss(params, x=X):
    for name in ("first", "middle"):
        x = jax.nn.relu(product(x, params[name]["kernel"]))
    return jnp.mean((product(x, params["last"]["kernel"]) - Y) ** 2)


@functools.cache
def trainer(regime, storage, sparsity=0.5):
    """The plan, jitted init and jitted step; a step moves a target too."""
    made = MAKERS[regime](sparsity, **{**SHARED, "storage": storage})
    plan = topology.plan(SHAPES, {".*kernel": made})
    tx = topology.sparse(optax.adamw(1e-2, weight_decay=0.1), plan)

    def init(key):
        params, state = topology.init(tx, dense_params(key), jax.random.fold_in(key, 1))
        return params, state, jax.tree.map(jnp.copy, params)

    def step(params, state, target, number):
        grads = topology.value_and_grad(loss)(params)[1]
        extra = {"loss": loss} if plan.reads_loss else {}
        updates, state = tx.update(grads, state, params, step=number, **extra)
        masks = topology.masks(state)
        params = topology.apply_updates(params, updates, masks)
        return params, state, topology.update_target(target, params, masks, 0.1)

    return plan, jax.jit(init), jax.jit(step)


def trajectory(regime, storage, key=0):
    plan, init, step = trainer(regime, storage)
    carry, seen = init(jax.random.key(key)), []
    for number in range(STEPS):
        carry = step(*carry, jnp.int32(number))
        params, state, _ = carry
        topology.check(params, state, plan)
        seen.append(carry)
    return seen


def moments(params, state):
    """Adam's two, whole."""
    adam = optax.tree.get(state, "ScaleByAdamState")
    put = lambda p, m: Shared(m, p.index, p.inputs) if isinstance(p, Shared) else m  # noqa: E731
    own = [
        jax.tree.map(put, params, m, is_leaf=lambda p: isinstance(p, Shared))
        for m in (adam.mu, adam.nu)
    ]
    return densified(own)


@pytest.mark.parametrize("regime", ["static", "rigl"])
def test_training_is_that_of_masked_storage(regime):
    pairs = zip(trajectory(regime, "masked"), trajectory(regime, "compact"), strict=True)
    masks = []
    for (params, state, target), (own, own_state, own_target) in pairs:
        masks.append(topology.masks(state)["first"]["kernel"])
        jax.tree.map(
            np.testing.assert_array_equal,
            topology.masks(state),
            densified(topology.masks(own_state)),
        )
        close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
        jax.tree.map(close, params, densified(own))
        jax.tree.map(close, target, densified(own_target))
        jax.tree.map(close, moments(params, state), moments(own, own_state))
    moves = [bool((a != b).any()) for a, b in pairwise(masks)]
    assert moves == [regime == "rigl" and step % INTERVAL == 0 for step in range(1, STEPS)]


@pytest.mark.slow
def test_set_moves_as_many_weights_and_no_tile_has_an_input_twice():
    counts = {}
    for storage in ("masked", "compact"):
        seen = [topology.masks(state) for _, state, _ in trajectory("set", storage)]
        changes = [topology.diff(a, b) for a, b in pairwise(seen)]
        counts[storage] = [change["first/kernel"].kept for change in changes]
    kept, compact = (np.array(counts[storage]) for storage in ("masked", "compact"))
    # What is dropped may be grown again, so a rewire of either keeps at least the others.
    assert ((kept == kept[0]) == (np.arange(1, STEPS) % INTERVAL != 0)).all()
    assert ((compact == kept[0]) == (kept == kept[0])).all()
    for params, _, _ in trajectory("set", "compact"):
        index = np.sort(params["first"]["kernel"].index, axis=-1)
        assert (np.diff(index, axis=-1) > 0).all()


def test_an_index_is_drawn_in_order_and_survivors_stay_where_they_are():
    _, init, _ = trainer("rigl", "compact")
    before = init(jax.random.key(0))[0]["middle"]["kernel"].index
    assert (np.diff(before, axis=-1) > 0).all()
    seen = [before, *(p["middle"]["kernel"].index for p, _, _ in trajectory("rigl", "compact"))]
    for old, new in pairwise(map(np.asarray, seen)):
        stays = np.array([np.isin(*rows) for rows in zip(old, new, strict=True)])
        np.testing.assert_array_equal(old == new, stays)


def test_ties_and_nan_are_as_in_masked_storage():
    """Every weight and every gradient alike, but NaN for one input."""
    x = X.at[:, 5].set(jnp.nan)
    masks = {}
    for storage in ("masked", "compact"):
        regime = MAKERS["rigl"](0.5, **{**SHARED, "storage": storage})
        shapes = {"kernel": SHAPES["first"]["kernel"]}
        tx = topology.sparse(optax.sgd(0.0), topology.plan(shapes, {"kernel": regime}))
        linear = lambda params: jnp.sum(product(jnp.sign(x * 0) + 1 + x * 0, params["kernel"]))  # noqa: E731

        def rewired(key, tx=tx, linear=linear, storage=storage):
            params, state = topology.init(tx, {"kernel": jnp.ones((12, 16))}, key)
            grads = topology.value_and_grad(linear)(params)[1]
            extra = {"loss": linear} if storage == "compact" else {}
            updates, state = tx.update(grads, state, params, step=jnp.int32(INTERVAL), **extra)
            return densified(topology.masks(state))["kernel"], updates

        masks[storage], _ = jax.jit(rewired)(jax.random.key(3))
    np.testing.assert_array_equal(*masks.values())
    assert int(masks["compact"].sum()) == 12 * 16 // 2


@pytest.mark.slow
def test_seeds_in_one_program_are_those_alone():
    _, init, step = trainer("rigl", "compact")
    keys = jax.random.split(jax.random.key(7), 2)
    together = jax.jit(jax.vmap(init))(keys)
    many = jax.jit(jax.vmap(step, (0, 0, 0, None)))
    alone = [init(key) for key in keys]
    for number in range(INTERVAL + 2):
        together = many(*together, jnp.int32(number))
        alone = [step(*one, jnp.int32(number)) for one in alone]
    for seed, (params, state, _) in enumerate(alone):
        own = jax.tree.map(lambda leaf, seed=seed: leaf[seed], together[0])
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
            densified(params),
            densified(own),
        )
        masks = jax.tree.map(lambda leaf, seed=seed: leaf[seed], topology.masks(together[1]))
        jax.tree.map(np.testing.assert_array_equal, topology.masks(state), masks)
    first = jax.tree.map(lambda leaf: leaf[0], together[0])
    stacked = jax.tree.map(lambda leaf: leaf[0], densified(together[0]))
    jax.tree.map(np.testing.assert_array_equal, stacked, densified(first))


def conditionals(jaxpr):
    for equation in jaxpr.eqns:
        if equation.primitive.name == "cond":
            yield equation
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns") and equation.primitive.name != "cond":
                yield from conditionals(inner)


def test_the_conditional_returns_indices_and_gradients_of_the_values_only():
    plan, init, step = trainer("rigl", "compact")
    carry = jax.eval_shape(init, jax.random.key(0))
    many = jax.eval_shape(jax.vmap(init), jax.random.split(jax.random.key(0), 2))
    of_seeds = jax.vmap(step, (0, 0, 0, None))
    for traced, args, lead in ((step, carry, ()), (of_seeds, many, (2,))):
        (found,) = conditionals(jax.make_jaxpr(traced)(*args, jnp.int32(0)).jaxpr)
        assert found.invars[0].aval.shape == ()
        kernels = [carry[0][name]["kernel"] for name in ("first", "middle")]
        wanted = [(*lead, *part.shape) for k in kernels for part in (k.index, k.values)]
        # The last kernel is in masked storage and dense: it never moves.
        assert sorted(v.aval.shape for v in found.outvars) == sorted(wanted)
    assert plan.reads_loss


def test_what_looks_at_masks_takes_both_storages(tmp_path):
    params, state, _ = trajectory("rigl", "compact")[-1]
    stored, whole = topology.masks(state), densified(topology.masks(state))
    assert int(topology.count(stored)) == int(topology.count(whole)) == (12 * 16 + 16 * 16) // 2
    assert float(topology.density(stored)) == float(topology.density(whole))
    assert float(topology.overlap(stored, whole)) == 1.0
    assert str(topology.summary(params, stored)) == str(topology.summary(densified(params), whole))
    topology.save_masks(tmp_path / "masks.npz", stored)
    read = topology.load_masks(tmp_path / "masks.npz")
    jax.tree.map(np.testing.assert_array_equal, whole, read)
    found = topology.statistics(state)["first/kernel"]
    assert float(found.density) == 0.5
    assert float(found.dead_outputs) == 0.0


def test_reset_keeps_the_topology_and_begins_anew():
    plan, _, _ = trainer("rigl", "compact")
    tx = topology.sparse(optax.adamw(1e-2, weight_decay=0.1), plan)
    params, state, _ = trajectory("rigl", "compact")[-1]
    fresh, again = topology.restart(tx, dense_params(jax.random.key(9)), state)
    topology.check(fresh, again, plan)
    jax.tree.map(np.testing.assert_array_equal, topology.masks(again), topology.masks(state))
    mask = densified(topology.masks(state))["first"]["kernel"]
    wanted = np.where(mask, dense_params(jax.random.key(9))["first"]["kernel"], 0)
    np.testing.assert_array_equal(densified(fresh)["first"]["kernel"], wanted)
    assert not any(np.asarray(m).any() for m in jax.tree.leaves(moments(fresh, again)))
    assert params["first"]["kernel"].values.shape == fresh["first"]["kernel"].values.shape


def test_what_is_full_or_does_not_fit_has_masked_storage_and_the_plan_says_so():
    shapes = {**SHAPES, "tiny": {"kernel": jax.ShapeDtypeStruct((1, 4), np.float32)}}
    plan = topology.plan(shapes, {".*kernel": topology.static(0.7, **COMPACT)})
    text = {line.split()[0]: line for line in str(plan).splitlines() if "/" in line}
    assert "(shared4: compact)" in text["middle/kernel"]
    assert "(shared4: masked storage)" in text["tiny/kernel"]
    assert "does not fit: masked storage" in text["last/kernel"]
    compact = {path for path, (_, _, entry) in plan.entries().items() if entry.compact}
    assert compact == {"first/kernel", "middle/kernel"}


NOISY = {"kernel": jax.ShapeDtypeStruct((2, 8, 8), np.float32)}


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: topology.static(0.5, storage="compact"), "needs neurons that share their inputs"),
        (lambda: topology.static(0.5, **COMPACT | {"storage": "csr"}), "storage must be masked or"),
        (
            lambda: topology.static(0.5, storage="compact", structure=topology.block(2, 4)),
            "got block2x4",
        ),
        (lambda: topology.snfs(0.5, end=9, interval=3, **COMPACT), "keeps no average"),
        (
            lambda: topology.rigl(0.5, end=9, interval=3, grow_score=topology.dormancy, **COMPACT),
            "takes grow_score=scores.gradient or scores.random only",
        ),
        (
            lambda: topology.plan(
                SHAPES,
                {
                    ".*": topology.gradual_magnitude_pruning(
                        0.5, start=3, end=9, interval=3, **COMPACT
                    )
                },
            ),
            "changes how many there are",
        ),
        (
            lambda: topology.plan(NOISY, {"kernel": topology.static(0.5, **COMPACT)}),
            "no kernel of a linear layer",
        ),
        (
            lambda: topology.plan(
                NOISY, {"kernel": topology.static(0.5, **COMPACT)}, tied={"kernel": 0}
            ),
            "is noisy",
        ),
        (
            lambda: topology.sparse(optax.sgd(1.0), trainer("rigl", "compact")[0], track=True),
            "keeps nothing of weights that are dropped",
        ),
        (
            lambda: topology.sweep([trainer("rigl", "compact", s)[0] for s in (0.5, 0.75)]),
            "cannot differ in the number of weights",
        ),
    ],
)
def test_what_compact_storage_does_not_take_is_one_line(call, line):
    with pytest.raises(ValueError, match=line) as error:
        call()
    assert "\n" not in str(error.value)


def test_wrong_calls_of_a_compact_state_are_one_line():
    plan = trainer("rigl", "compact")[0]
    tx = topology.sparse(optax.sgd(1.0), plan)
    params, state = topology.init(tx, dense_params(jax.random.key(0)), jax.random.key(1))
    grads = topology.values_of(params)
    with pytest.raises(ValueError, match="loss=loss"):
        tx.update(grads, state, params, step=jnp.int32(0))
    with pytest.raises(ValueError, match="its mask is not"):
        topology.apply_updates(params, grads, densified(topology.masks(state)))
    with pytest.raises(ValueError, match="use same_mask"):
        topology.update_target(params, params, topology.masks(state), 0.1, policy="as_is")
    other = topology.init(tx, dense_params(jax.random.key(0)), jax.random.key(2))[0]
    with pytest.raises(ValueError, match="has other inputs than its optimizer's state"):
        topology.check(other, state, plan)
