"""One budget for all modules of an agent: which kernels it prunes, and what it refuses."""

import math
from dataclasses import dataclass, field

import jax
import numpy as np
import pytest

from mst_jax import topology
from mst_jax.agents import ModuleConfig, Sizes, make_agent, training_costs
from mst_jax.agents.parts.plans import plan_modules
from mst_jax.envs import Discrete, Observation
from mst_jax.presets import preset_overrides
from mst_jax.recipes import make_config

TIED = {"critic": {".*": 0}}  # mean and scale of every noisy weight and bias
ACTIONS, ATOMS, HIDDEN = 18, 51, 512
STATIC = {"regime": "static", "sparsity": 0.4}


@dataclass
class TwoModules:
    encoder: ModuleConfig = field(default=None, metadata={"role": "representation"})
    critic: ModuleConfig = field(default=None, metadata={"role": "value"})
    joint: bool = True


def config(joint=True, encoder=None, **settings):
    own = {"regime": "static", "sparsity": 0.8, **settings}
    return TwoModules(ModuleConfig(**{**own, **(encoder or {})}), ModuleConfig(**own), joint)


def leaf(*shape):
    return jax.ShapeDtypeStruct(shape, np.float32)


def head(features):
    """A noisy dueling head: hidden layer, advantages and values, each (mean, scale)."""
    sizes = {
        "hidden": (features, HIDDEN),
        "advantage": (HIDDEN, ACTIONS * ATOMS),
        "value": (HIDDEN, ATOMS),
    }
    return {n: {"kernel": leaf(2, i, o), "bias": leaf(2, o)} for n, (i, o) in sizes.items()}


def impala(width):
    """Three stacks of a convolution and two blocks of two; 84x84 pictures leave 11x11."""
    encoder, inputs = {}, 4
    for stack, channels in enumerate((16 * width, 32 * width, 32 * width)):
        for index in range(5):
            kernel = leaf(3, 3, inputs if index == 0 else channels, channels)
            encoder[f"stack_{stack}_{index}"] = {"kernel": kernel, "bias": leaf(channels)}
        inputs = channels
    return {"encoder": encoder, "critic": head(11 * 11 * inputs)}


def nature():
    kernels = {"layer_1": (8, 8, 4, 32), "layer_2": (4, 4, 32, 64), "layer_3": (3, 3, 64, 64)}
    encoder = {n: {"kernel": leaf(*s), "bias": leaf(s[-1])} for n, s in kernels.items()}
    return {"encoder": encoder, "critic": head(7744)}


NETWORKS = {"impala": impala(3), "nature": nature()}


def plans(settings, shapes, updates=10_000):
    return plan_modules(settings, shapes, dict.fromkeys(shapes, updates), TIED)


def sparsities(found):
    """{module/leaf: its sparsity}, of the leaves that have a mask."""
    return {
        f"{name}/{path.removesuffix('/kernel')}": 1
        - int(plan.groups[group].table.target[0, column]) / math.prod(entry.shape)
        for name, plan in found.items()
        for path, (group, column, entry) in plan.entries().items()
    }


def share_by_hand(shapes, sparsity, axes):
    """Sparsity of each kernel: density in proportion to sum / product of its last axes, at most 1.

    By bisection of the factor, in floats; a noisy kernel has the shape of its mean.
    """
    leaves = {
        f"{module}/{name}": own["kernel"].shape
        for module, layers in shapes.items()
        for name, own in layers.items()
    }
    single = {path: s[1:] if path.startswith("critic") else s for path, s in leaves.items()}
    raw = {path: sum(s[-axes:]) / math.prod(s[-axes:]) for path, s in single.items()}
    sizes = {path: math.prod(s) for path, s in leaves.items()}
    low, high = 0.0, 1e9
    for _ in range(200):
        factor = (low + high) / 2
        active = sum(sizes[path] * min(1.0, factor * raw[path]) for path in leaves)
        low, high = (
            (factor, high) if active < (1 - sparsity) * sum(sizes.values()) else (low, factor)
        )
    return {path: 1 - min(1.0, low * raw[path]) for path in leaves}


@pytest.mark.parametrize(
    ("network", "sparsity", "allocation", "convolutions", "matrices"),
    [
        ("impala", 0.4, "er", [0.0] * 15, (0.449, 0.177)),
        ("impala", 0.8, "er", [0.0] * 15, (0.863, 0.795)),
        ("nature", 0.4, "er", [0.0] * 3, (0.434, 0.172)),
        ("nature", 0.8, "er", [0.0] * 3, (0.821, 0.738)),
        ("impala", 0.4, "erk", [0.0] * 6 + [0.333] * 9, (0.430, 0.150)),
        ("impala", 0.8, "erk", [0.0] + [0.549] * 4 + [0.669] + [0.781] * 9, (0.813, 0.721)),
        ("nature", 0.4, "erk", [0.0, 0.136, 0.010], (0.433, 0.172)),
        ("nature", 0.8, "erk", [0.436, 0.718, 0.677], (0.815, 0.730)),
    ],
)
def test_what_a_budget_of_the_whole_network_prunes(
    network, sparsity, allocation, convolutions, matrices
):
    """By ER, which ignores the sides of kernels, no convolution at all; by ERK some of them."""
    shapes = NETWORKS[network]
    found = sparsities(plans(config(sparsity=sparsity, allocation=allocation), shapes))
    by_hand = share_by_hand(shapes, sparsity, axes=2 if allocation == "er" else 4)
    assert found.keys() == by_hand.keys()
    for path, value in by_hand.items():
        assert found[path] == pytest.approx(value, abs=1e-3 if path.endswith("_0_0") else 1e-4)
    own = [value for path, value in found.items() if path.startswith("encoder")]
    np.testing.assert_allclose(own, convolutions, atol=6e-4)
    head = [found[f"critic/{name}"] for name in ("hidden", "advantage", "value")]
    np.testing.assert_allclose(head, [*matrices, 0.0], atol=6e-4)


@pytest.mark.parametrize("regime", ["static", "set", "rigl", "snfs", "rigl_averaged"])
def test_the_total_is_exact_and_lasts(regime):
    shapes = NETWORKS["nature"]
    found = plans(config(regime=regime), shapes)
    sizes = sum(math.prod(e.shape) for p in found.values() for _, _, e in p.entries().values())
    tables = [np.asarray(g.table.target) for plan in found.values() for g in plan.groups]
    assert all((table == table[0]).all() for table in tables)
    wanted = sizes - math.floor(sizes * 8 / 10)
    assert 0 <= wanted - sum(int(table[0].sum()) for table in tables) < 2  # pairs
    steps = [plan.groups[0].timing for plan in found.values()]
    assert all(timing is None if regime == "static" else timing.end == 7_500 for timing in steps)


def test_every_module_has_its_own_budget_unless_they_are_joint():
    shapes = NETWORKS["nature"]
    alone = plans(config(joint=False), shapes)
    for name, plan in alone.items():
        rule = {".*kernel": topology.static(0.8)}
        assert str(plan) == str(topology.plan(shapes[name], rule, TIED.get(name)))
    encoder = [v for path, v in sparsities(alone).items() if path.startswith("encoder")]
    assert np.mean(encoder) > 0.5


def test_structures_are_cut_from_the_joint_budget():
    shapes = NETWORKS["nature"]
    found = plans(config(structure="fan_in", sparsity=0.9), shapes)
    for plan in found.values():
        for group, column, entry in plan.entries().values():
            assert entry.regime.structure.fits(entry.shape)
            multiple = math.prod(entry.shape) // math.prod(entry.shape[:-1])
            assert int(plan.groups[group].table.target[0, column]) % multiple == 0


def test_dense_modules_have_nothing_to_share():
    settings = config(regime="dense", sparsity=0.0)
    assert all(not plan.groups for plan in plans(settings, NETWORKS["nature"]).values())


@pytest.mark.parametrize(
    ("encoder", "settings", "what"),
    [
        (
            {"regime": "dense", "sparsity": 0.0},
            {"regime": "rigl"},
            "agree in regime: encoder.regime=dense, critic.regime=rigl; set them alike, or joint=F",
        ),
        ({"sparsity": 0.5}, {}, "agree in sparsity: encoder.sparsity=0.5, critic.sparsity=0.8"),
        ({"allocation": "erk"}, {}, "agree in allocation: encoder.allocation=erk, critic.all"),
        ({"structure": "fan_in"}, {}, "agree in structure"),
        (
            {},
            {"regime": "gradual_magnitude_pruning"},
            "static, set or rigl, and not encoder.regime=gradual_magnitude_pruning",
        ),
        ({}, {"regime": "gradual_growth"}, "not encoder.regime=gradual_growth"),
        ({}, {"regime": "neuroplastic_expansion_dormancy"}, "not encoder.regime=neuro"),
        ({}, {"regime": "snfs_redistributed"}, "not encoder.regime=snfs_redistributed"),
        ({}, {"sparsity": 0.9999999}, "joint: sparsity 0.9999999 leaves .critic/"),
    ],
)
def test_what_cannot_share_a_budget_is_one_line(encoder, settings, what):
    with pytest.raises(ValueError, match=what) as error:
        plans(config(encoder=encoder, **settings), NETWORKS["nature"])
    assert "\n" not in str(error.value)


def test_der_has_the_setting():
    """Its own networks are those whose shapes are written down above."""
    shown = Observation((84, 84, 4), "uint8", history=4, fill="zeros")
    changes = {f"{m}.{k}": v for m in ("encoder", "critic") for k, v in STATIC.items()}
    base = {**preset_overrides("der", "netsparsity", "atari:Pong"), **changes, "joint": True}
    own = make_config("der", "dense", "3x1", "", base)
    agent = make_agent("der", own, Sizes(shown, Discrete(ACTIONS), None), 10_000)
    found, expected = (
        sparsities(agent.plans),
        sparsities(plans(config(**STATIC), NETWORKS["impala"])),
    )
    assert sorted(found.values()) == sorted(expected.values())
    assert str(training_costs(agent)).endswith("were zeros free, 1.01 times fewer")
