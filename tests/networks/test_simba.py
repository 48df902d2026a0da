"""SimBa networks against the published counts, the closed form of their norms, and NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mst_jax import networks, topology
from mst_jax.agents import Sizes, default_config, make_agent, scaled
from mst_jax.networks import Architecture

HUMANOID, DOG = Sizes.vector(67, 21, 500), Sizes.vector(223, 38, 500)


def counts(agent, width, depth, sizes):
    config = scaled(default_config(agent), width, depth)
    built = make_agent(agent, config, sizes, 500_000)
    params = built.parameters(jax.eval_shape(built.init, jax.random.key(0)))
    return tuple(sum(x.size for x in jax.tree.leaves(params[m])) for m in ("actor", "critic"))


@pytest.mark.parametrize(
    ("width", "depth", "actor", "critic", "dog_total"),
    [
        (0.5, 1, 40_426, 1_075_713, 1_172_621),
        (1, 1, 146_346, 4_248_577, 4_507_853),
        (2, 1, 554_794, 16_885_761, 17_666_381),
        (3, 1, 1_225_386, 37_911_553, 39_475_661),
        (4, 1, 2_158_122, 67_325_953, 69_935_693),
        (5, 1, 3_353_002, 105_128_961, 109_046_477),
        (2, 2, 1_080_874, 33_677_313, 34_984_013),
        (2, 3, 1_606_954, 50_468_865, 52_301_645),
        (2, 4, 2_133_034, 67_260_417, 69_619_277),
        (3, 2, 2_407_722, 75_681_793, 78_428_237),
        (4, 3, 6_359_594, 201_601_025, 208_412_237),
    ],
)
def test_parameter_counts_of_the_published_sizes(width, depth, actor, critic, dog_total):
    assert counts("sac", width, depth, HUMANOID) == (actor, critic)
    assert sum(counts("sac", width, depth, DOG)) == dog_total


def test_parameter_counts_of_ddpg():
    assert counts("ddpg", 1, 1, HUMANOID) == (143_637, 4_248_577)
    assert counts("ddpg", 1, 1, DOG)[0] == 165_798


@pytest.mark.parametrize(
    ("sizes", "width", "depth", "sparsity", "actor", "critic", "kept"),
    [
        # The table prints 0.507 here; its formula, 0.5 of 4,248,577 over 4 x 2^20, gives 0.50647.
        (HUMANOID, 1, 1, 0.5, (0, 0.558, 0), (0, 0.506, 0), 2.20),
        (HUMANOID, 1, 1, 0.8, (0.641, 0.846, 0.126), (0, 0.810, 0), 0.88),
        (HUMANOID, 1, 1, 0.9, (0.829, 0.927, 0.584), (0.489, 0.906, 0), 0.44),
        (HUMANOID, 5, 1, 0.8, (0, 0.819, 0), (0, 0.802, 0), 21.7),
        (HUMANOID, 5, 1, 0.9, (0.299, 0.917, 0), (0, 0.902, 0), 10.9),
        (HUMANOID, 4, 3, 0.92, (0.497, 0.927, 0), (0, 0.921, 0), 16.6),
        (DOG, 1, 1, 0.8, (0.795, 0.837, 0.430), (0.549, 0.810, 0), 0.90),
        (DOG, 1, 1, 0.9, (0.902, 0.922, 0.727), (0.777, 0.906, 0), 0.45),
        (DOG, 5, 1, 0.84, (0.583, 0.865, 0), (0, 0.846, 0), 17.5),
        (DOG, 5, 1, 0.9, (0.757, 0.921, 0), (0.178, 0.905, 0), 10.9),
        (DOG, 4, 3, 0.92, (0.811, 0.928, 0.171), (0.446, 0.922, 0), 16.7),
    ],
)
def test_layer_sparsities_of_the_published_code(sizes, width, depth, sparsity, actor, critic, kept):
    """docs/specs/network-sparsity.md §3.3: input layer, feed-forward kernels, head."""
    config = scaled(default_config("sac"), width, depth)
    for module in (config.actor, config.critic):
        module.regime, module.sparsity = "network_sparsity", sparsity
    plans = make_agent("sac", config, sizes, 500_000).plans
    nonzeros = 0
    for module, (embed, feedforward, head) in (("actor", actor), ("critic", critic)):
        leaves = layer_sparsities(plans[module])
        nonzeros += sum(active for _, active, _ in leaves.values())
        for path, (found, _, size) in leaves.items():
            if not path.endswith("kernel"):
                assert found == 0
                continue
            expected = embed if "embed" in path else feedforward if "block" in path else head
            # Counts are whole numbers: one weight more or less than the published share.
            assert found == pytest.approx(expected, abs=5e-4 + 1 / size), path
    assert nonzeros / 1e6 == pytest.approx(kept, abs=0.006 if kept < 5 else 0.06)


def layer_sparsities(plan):
    """Leaf -> (sparsity, active weights, size)."""
    leaves = {path: (0.0, np.prod(shape), np.prod(shape)) for path, shape in plan.dense.items()}
    for path, (group, column, entry) in plan.entries().items():
        active, size = int(plan.groups[group].table.target[0, column]), np.prod(entry.shape)
        leaves[path] = (1 - active / size, active, size)
    return leaves


def norms(config, sizes):
    agent = make_agent("sac", config, sizes, 500_000)
    params = agent.parameters(jax.jit(agent.init)(jax.random.key(3)))
    squares = {m: sum(float(jnp.sum(x**2)) for x in jax.tree.leaves(params[m])) for m in params}
    return squares["critic"] ** 0.5, squares["actor"] ** 0.5


@pytest.mark.parametrize(
    ("width", "depth", "sparsity", "critic", "actor"),
    [
        (2, 1, 0.0, 153.8, 56.4),
        pytest.param(5, 1, 0.0, 242.8, 88.3, marks=pytest.mark.slow),
        pytest.param(4, 3, 0.0, 370.5, 132.4, marks=pytest.mark.slow),
        pytest.param(5, 1, 0.9, 113.0, 43.6, marks=pytest.mark.slow),
    ],
)
def test_initial_parameter_norms(width, depth, sparsity, critic, actor):
    """docs/specs/network-sparsity.md §4: a sharp test of every initialiser at once."""
    config = scaled(default_config("sac"), width, depth)
    if sparsity:
        for module in (config.actor, config.critic):
            module.regime, module.sparsity = "network_sparsity", sparsity
    assert norms(config, HUMANOID) == pytest.approx((critic, actor), abs=0.5)


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("activation", ["relu", "elu"])
def test_simba_by_hand(norm, activation):
    """The network written out in NumPy (§2.1), its input narrower than its width."""
    arch = Architecture(6, 2, activation, norm, "simba")
    critic = networks.make_critic(4, arch, heads=1)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda p: p + jnp.asarray(0.1 * rng.normal(size=p.shape), jnp.float32),
        critic.init(jax.random.key(0)),
    )
    x = rng.normal(size=(5, 4))
    actual = critic.apply(params, jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(actual, by_hand(params["q1"], x, arch), rtol=1e-4, atol=1e-5)


def by_hand(params, x, arch):
    params = jax.tree.map(lambda p: np.asarray(p, np.float64), params)

    def linear(layer, x):
        return x @ layer["kernel"] + layer["bias"]

    def norm(layer, x):
        if not arch.norm:
            return x
        centred = x - x.mean(-1, keepdims=True)
        scaled_ = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
        return scaled_ * layer["scale"] + layer["bias"]

    act = {"relu": lambda u: np.maximum(u, 0), "elu": lambda u: np.where(u > 0, u, np.expm1(u))}
    trunk = params["trunk"]
    x = linear(trunk["embed"], x)
    for name in ("block_1", "block_2"):
        block = trunk[name]
        inner = linear(block["expand"], norm(block.get("norm"), x))
        x = x + linear(block["project"], act[arch.activation](inner))
    return linear(params["value"], norm(trunk.get("norm"), x))


def test_simba_can_be_a_module_of_mrq_too():
    actor = networks.make_actor(8, 3, Architecture(6, 1, "relu", True, "simba"))
    params = actor.init(jax.random.key(0))
    assert set(params) == {"trunk", "output"}
    assert actor.apply(params, jnp.ones((2, 8))).shape == (2, 3)
    plan = topology.plan(params, {".*kernel": topology.static(0.5)})
    assert len(plan.entries()) == 4
