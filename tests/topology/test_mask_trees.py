"""Masks as trees and files, structures, statistics, costs, targets: small and by hand."""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mst_jax import topology
from mst_jax.topology import structures


class Pair(NamedTuple):
    kernel: jax.Array
    bias: jax.Array


def linen_params():
    model = nn.Sequential([nn.Dense(6), nn.relu, nn.Dense(3)])
    return model.init(jax.random.key(0), jnp.ones((1, 5)))


CONTAINERS = {
    "dict": lambda: {"a": {"kernel": jnp.ones((6, 6)), "bias": jnp.ones(6)}, "none": None},
    "linen": linen_params,
    "list": lambda: [jnp.ones((6, 6)), [jnp.ones((6, 4)), jnp.ones(4)]],
    "tuple": lambda: (jnp.ones((6, 6)), (jnp.ones((6, 4)), jnp.ones(4))),
    "namedtuple": lambda: {
        "l": Pair(jnp.ones((6, 6)), jnp.ones(6)),
        "m": Pair(jnp.ones((6, 2)), 1.0),
    },
    "one array": lambda: jnp.ones((6, 6)),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_any_container_trains_and_round_trips(name, tmp_path):
    params = CONTAINERS[name]()
    plan = topology.plan(params, {".*": topology.rigl(0.5, end=40, interval=4)})
    tx = topology.sparse(optax.sgd(0.1), plan)
    params, state = topology.init(tx, params, jax.random.key(0))
    masks = topology.masks(state)
    grads = jax.tree.map(
        lambda p: jnp.cos(jnp.arange(float(np.size(p)))).reshape(np.shape(p)), params
    )
    updates, state = jax.jit(lambda g, s, p: tx.update(g, s, p, step=4))(grads, state, params)
    params = optax.apply_updates(params, updates)
    topology.check(params, state, plan)
    topology.save_masks(tmp_path / "masks.npz", masks)
    loaded = topology.load_masks(tmp_path / "masks.npz", like=params)
    assert jax.tree.structure(loaded) == jax.tree.structure(masks)
    jax.tree.map(np.testing.assert_array_equal, loaded, masks)
    assert "total" in str(topology.summary(params, loaded))


def test_files_hold_one_bit_a_weight_and_need_no_jax(tmp_path):
    rng = np.random.default_rng(0)
    mask = rng.random((3, 100, 70)) < 0.3  # three stacked seeds
    topology.save_masks(
        tmp_path / "m.npz", {"a": {"kernel": jnp.asarray(mask)}, "b": topology.DenseLeaf()}
    )
    with np.load(tmp_path / "m.npz") as file:
        assert file["bits/a/kernel"].nbytes == mask.size / 8
        bits = np.unpackbits(file["bits/a/kernel"], count=mask.size)
        np.testing.assert_array_equal(bits.reshape(file["shape/a/kernel"]), mask)
        assert file["dense"].tolist() == ["b"]
    assert [p.name for p in tmp_path.iterdir()] == ["m.npz"]
    with pytest.raises(ValueError, match="different leaves, for example 'b'"):
        topology.load_masks(tmp_path / "m.npz", like={"a": {"kernel": 0}})
    whole = (tmp_path / "m.npz").read_bytes()
    for part in (b"", whole[:100], whole[:-30], whole.replace(b"shape/", b"shope/"), b"text"):
        (tmp_path / "m.npz").write_bytes(part)
        with pytest.raises(ValueError, match=r"m\.npz cannot be read as masks"):
            topology.load_masks(tmp_path / "m.npz")


def test_counting_and_comparing():
    one = {"k": jnp.array([[1, 1, 0, 0]], bool), "b": topology.DenseLeaf()}
    two = {"k": jnp.array([[1, 0, 1, 1]], bool), "b": topology.DenseLeaf()}
    assert int(topology.count(one)) == 2
    assert float(topology.density(two)) == 0.75
    assert float(topology.overlap(one, two)) == 0.25
    nothing = {"b": topology.DenseLeaf()}
    assert float(topology.density(nothing)) == 1.0
    assert float(topology.overlap(nothing, nothing)) == 1.0
    assert int(topology.count(nothing)) == 0


def test_applying_masks_removes_nan_and_refuses_strangers():
    masks = {"k": jnp.array([True, False]), "b": topology.DenseLeaf()}
    params = {"k": jnp.array([jnp.nan, jnp.nan]), "b": jnp.ones(1)}
    out = topology.apply(masks, params)
    assert np.isnan(out["k"][0])
    assert out["k"][1] == 0
    with pytest.raises(ValueError, match=r"no parameter for the masks of \['k'\]"):
        topology.apply(masks, {"b": jnp.ones(1)})


def test_the_summary_table():
    masks = {"k": jnp.array([[True, False], [False, False]]), "b": topology.DenseLeaf()}
    params = {"k": jnp.ones((2, 2)), "b": jnp.ones(2)}
    rows = [line.split() for line in str(topology.summary(params, masks)).splitlines()]
    assert rows[2:] == [
        ["b", "(2,)", "dense", "2", "2"],
        ["k", "(2,", "2)", "0.2500", "1", "4"],
        ["total", "0.5000", "3", "6"],
    ]


@pytest.mark.parametrize(
    ("structure", "shape", "groups", "first"),
    [
        (topology.unstructured(), (3, 4), 1, list(range(12))),
        (topology.fan_in(), (3, 4), 4, [0, 4, 8]),
        (topology.fan_in(), (2, 2, 3, 2), 2, list(range(0, 24, 2))),
        (topology.n_of_m(2), (4, 3), 6, [0, 3]),
        (topology.ensemble(), (2, 3, 2), 2, list(range(6))),
    ],
)
def test_structures_group_entries(structure, shape, groups, first):
    x = jnp.arange(math.prod(shape)).reshape(shape)
    split = structure.split(x)
    members, places, _, columns = split.shape
    assert structure.groups(shape) == members * places * columns == groups
    assert split[0, 0, :, 0].tolist() == first
    np.testing.assert_array_equal(structure.join(split, shape), x)
    assert isinstance(structure, structures.Structure)


def test_structured_masks():
    params = {"k": jnp.ones((8, 6)), "e": jnp.ones((3, 8, 6))}
    for rules, check in (
        (
            {"k": topology.static(0.5, structure=topology.n_of_m(4))},
            lambda m: m["k"].reshape(2, 4, 6).sum(1) == 2,
        ),
        ({"k": topology.static(0.5, structure=topology.fan_in())}, lambda m: m["k"].sum(0) == 4),
        (
            {"e": topology.static(0.75, structure=topology.ensemble())},
            lambda m: m["e"].sum((1, 2)) == 12,
        ),
    ):
        tx = topology.sparse(optax.sgd(0.1), topology.plan(params, rules))
        init = jax.jit(lambda key, tx=tx: topology.init(tx, params, key)[1])
        masks = topology.masks(init(jax.random.key(0)))
        assert bool(check(masks).all())
    members = np.asarray(masks["e"])
    assert not (members[0] == members[1]).all()


def test_degrees_and_their_histogram():
    mask = jnp.array([[1, 0, 1], [1, 0, 0]], bool)  # two inputs, three outputs
    ins, outs = topology.degrees(mask)
    assert ins.tolist() == [2, 0, 1]
    assert outs.tolist() == [2, 1]
    assert topology.degree_histogram(ins, bins=3, largest=2).tolist() == [1, 1, 1]
    assert topology.degree_histogram(ins, bins=1, largest=2).tolist() == [3]
    conv = jnp.zeros((3, 3, 2, 4), bool).at[:, :, 1, 0].set(True)
    ins, outs = topology.degrees(conv)
    assert ins.tolist() == [9, 0, 0, 0]
    assert outs.tolist() == [0, 9]


def test_statistics_follow_the_topology():
    params = {"k": jnp.zeros((4, 5)), "b": jnp.zeros(5)}
    regime = topology.set(0.6, end=100, interval=1, drop_fraction=0.5)
    tx = topology.sparse(optax.sgd(0.0), topology.plan(params, {".*": regime}), track=True)
    params, state = topology.init(tx, params, jax.random.key(0))
    step = jax.jit(lambda s, i: tx.update(params, s, params, step=i)[1])
    seen = [np.asarray(topology.masks(state)["k"])]
    initial = topology.statistics(state)["k"]
    assert (initial.churn, initial.churn_from_start, initial.explored) == (0, 0, np.float32(0.4))
    for i in range(1, 6):
        state = step(state, jnp.int32(i))
        seen.append(np.asarray(topology.masks(state)["k"]))
    found = jax.jit(topology.statistics)(state)["k"]
    np.testing.assert_allclose(found.density, 0.4, rtol=1e-6)
    np.testing.assert_allclose(found.churn, (seen[-1] != seen[-2]).mean(), rtol=1e-6)
    np.testing.assert_allclose(found.churn_from_start, (seen[-1] != seen[0]).mean(), rtol=1e-6)
    np.testing.assert_allclose(found.explored, np.any(seen, axis=0).mean(), rtol=1e-6)
    np.testing.assert_allclose(found.dead_outputs, (seen[-1].sum(0) == 0).mean(), rtol=1e-6)
    np.testing.assert_allclose(found.dead_inputs, (seen[-1].sum(1) == 0).mean(), rtol=1e-6)
    assert found.explored > 0.5


def test_costs_by_hand():
    params = {"k": jnp.ones((10, 10)), "head": jnp.ones((10, 1)), "b": jnp.ones(10)}
    static = topology.costs(topology.plan(params, {"k": topology.static(0.5)}), steps=100)
    assert static.inference == 2 * (50 + 10)
    assert static.training == 3 * static.inference
    assert static.dense_inference == 2 * 110
    assert static.dense_training == 3 * 220
    assert static.bytes == 4 * (50 + 10 + 10) + math.ceil(100 / 8)
    assert static.dense_bytes == 4 * 120
    # RigL: at each of 4 rewires in 100 steps the gradient of the other 50 positions as well.
    rigl = topology.plan(params, {"k": topology.rigl(0.5, end=80, interval=20)})
    assert topology.costs(rigl, steps=100).training == pytest.approx(360 + 2 * 50 * 4 / 100)
    set_ = topology.plan(params, {"k": topology.set(0.5, end=80, interval=20)})
    assert topology.costs(set_, steps=100).training == 360
    snfs = topology.plan(params, {"k": topology.snfs(0.5, end=80, interval=20)})
    assert topology.costs(snfs, steps=100).training == 360 + 2 * 50
    # Growth: 50 weights for 50 steps, 100 for 50; one dense gradient of the missing half.
    growth = topology.plan(params, {"k": topology.gradual_growth(0.5, end=50, interval=50)})
    cost = topology.costs(growth, steps=100, positions={"k": 9})
    assert cost.inference == 2 * (9 * 100 + 10)
    assert cost.training == pytest.approx(3 * 20 + 18 * (3 * 75 + 25 * 1 / 100))


def test_target_policies():
    online = {"k": jnp.array([1.0, 2.0, 0.0, 0.0]), "b": jnp.array([1.0])}
    target = {"k": jnp.array([0.0, 4.0, 8.0, 0.0]), "b": jnp.array([0.0])}
    masks = {"k": jnp.array([1, 1, 0, 0], bool), "b": topology.DenseLeaf()}
    expected = {
        "same_mask": [0.5, 3.0, 0.0, 0.0],
        "as_is": [0.5, 3.0, 4.0, 0.0],
        "re_prune": [0.0, 3.0, 4.0, 0.0],
    }
    for policy, values in expected.items():
        out = topology.update_target(target, online, masks, 0.5, policy=policy)
        assert out["k"].tolist() == values
        assert out["b"].tolist() == [0.5]
        copied = topology.update_target(target, online, masks, 1.0, policy=policy)
        assert copied["k"].tolist() == [1.0, 2.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="policy must be"):
        topology.update_target(target, online, masks, 0.5, policy="ema")


def test_bernoulli_masks_have_the_right_mean_and_leave_vectors_dense():
    params = {"k": jnp.ones((200, 200)), "b": jnp.ones(200)}
    tx = topology.sparse(
        optax.sgd(0.1), topology.plan(params, {".*": topology.network_sparsity(0.9)})
    )
    masks = topology.masks(topology.init(tx, params, jax.random.key(0))[1])
    assert bool(masks["b"].all())
    active = int(masks["k"].sum())
    expected = 40_200 - math.floor(0.9 * 40_200) - 200
    deviation = math.sqrt(expected * 0.9)
    assert abs(active - expected) < 5 * deviation
    assert active != expected


def test_optax_can_map_over_the_state_of_the_wrapper():
    params = {"k": jnp.ones((4, 4)), "b": jnp.ones(4)}
    plan = topology.plan(params, {"k": topology.rigl(0.5, end=40, interval=4)})
    tx = topology.sparse(optax.adam(0.1), plan)
    _, state = topology.init(tx, params, jax.random.key(0))
    names = {"k": "kernel", "b": "bias"}
    specs = optax.tree_map_params(
        tx,
        lambda slot, name: name,
        state,
        names,
        transform_non_params=lambda _: None,
        is_leaf=lambda node: isinstance(node, topology.DenseLeaf),
    )
    assert specs.inner[0].mu == specs.masks == names


def test_masking_inside_a_loss_has_the_derivative_of_a_where():
    """Masks are applied on bits, which alone would differentiate to zero in silence."""
    mask = {"kernel": jnp.array([True, False, True])}
    params = {"kernel": jnp.array([1.0, 2.0, -3.0])}
    loss = lambda p: jnp.sum(topology.apply(mask, p)["kernel"] ** 2)  # noqa: E731
    np.testing.assert_array_equal(jax.grad(loss)(params)["kernel"], [2.0, 0.0, -6.0])
    batched = jax.vmap(jax.grad(loss))(jax.tree.map(lambda p: jnp.stack([p, 2 * p]), params))
    np.testing.assert_array_equal(batched["kernel"], [[2.0, 0.0, -6.0], [4.0, 0.0, -12.0]])
