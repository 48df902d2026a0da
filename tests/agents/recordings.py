"""Plays recorded batches and noise back through an agent's own `learn`.

Run under `jax.disable_jit`: scans and conditionals are then plain Python, and each read of the
replay view or draw of noise takes the next recording.
"""

from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from mst_jax.agents import Clock, DrQv2Config, Experience, ModuleConfig, MRQConfig, Sizes
from mst_jax.agents.mr.mrq import build_mrq
from mst_jax.agents.parts import draws
from mst_jax.agents.pixels.drqv2 import build_drqv2
from mst_jax.envs import Continuous, Discrete, Observation
from mst_jax.recipes import override
from mst_jax.replay import Subtrajectory, Transition

# Paths of our parameters -> names of MR.Q's layers.
MRQ_LAYERS = {
    "encoder": {
        **{("zs", f"layer_{i}"): f"zs_mlp.l{i}" for i in (1, 2, 3)},
        **{("zsa", f"layer_{i}"): f"zsa.l{i}" for i in (1, 2, 3)},
        ("za",): "za",
        ("head",): "model",
    },
    "actor": {(f"layer_{i}",): f"policy.l{i}" for i in (1, 2, 3)},
    "critic": {
        **{(q, "trunk", f"layer_{i}"): f"{q}.q1.l{i}" for q in ("q1", "q2") for i in (1, 2, 3)},
        **{(q, "value"): f"{q}.q2" for q in ("q1", "q2")},
    },
}
MRQ_GROUPS = {"encoder": "encoder", "actor": "policy", "critic": "value"}


def load(name):
    """All arrays of a recording in tests/data."""
    return dict(np.load(Path(__file__).parents[1] / "data" / f"{name}.npz"))


def nested(leaves):
    """A tree of dictionaries from {path of names: leaf}."""
    tree = {}
    for path, leaf in leaves.items():
        node = tree
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = jnp.asarray(leaf)
    return tree


def mrq_params(recorded, prefix, module):
    """The recorded parameters `prefix/...` of one module of MR.Q in our layout."""
    leaves = {}
    for path, layer in MRQ_LAYERS[module].items():
        leaves[*path, "kernel"] = recorded[f"{prefix}/{layer}.weight"].T
        leaves[*path, "bias"] = recorded[f"{prefix}/{layer}.bias"]
    return nested(leaves)


def mrq_agent(recorded, discrete=None, **changes):
    """MR.Q's functions, its `Agent` and its recorded state; every size is read from the arrays.

    `discrete` holds the settings of an agent whose actions are choices.
    """
    shape = lambda layer: recorded[f"params/{layer}.weight"].shape  # noqa: E731
    zs, observation = shape("encoder/zs_mlp.l3")[0], shape("encoder/zs_mlp.l1")[1]
    za, action = shape("encoder/za")
    config = MRQConfig(
        encoder=ModuleConfig(hidden=shape("encoder/zs_mlp.l1")[0], learning_rate=1e-4),
        critic=ModuleConfig(hidden=shape("value/q1.q1.l1")[0], depth=3),
        actor=ModuleConfig(hidden=shape("policy/policy.l1")[0], activation="relu"),
        zs_size=zs,
        za_size=za,
        zsa_size=shape("encoder/zsa.l3")[0],
        reward_bins=shape("encoder/model")[0] - zs - 1,
        **changes,
    )
    space = Continuous(action) if discrete is None else Discrete(action)
    config = config if discrete is None else replace(config, discrete=discrete)
    built = build_mrq(config, Sizes(Observation((observation,)), space), 100_000)
    agent = built.agent()
    state = jax.jit(agent.init)(jax.random.key(0))
    online = {m: mrq_params(recorded, f"params/{g}", m) for m, g in MRQ_GROUPS.items()}
    targets = {m: mrq_params(recorded, f"params/{g}_target", m) for m, g in MRQ_GROUPS.items()}
    assert jax.tree.map(jnp.shape, state.params) == jax.tree.map(jnp.shape, online)
    return built, agent, state.replace(params=online, target_params=targets)


def mrq_transition(batch, **changes):
    """A recorded `rl_batch` as the replay view hands it out."""
    return Transition(
        **{
            "observation": jnp.asarray(batch["state"]),
            "action": jnp.asarray(batch["action"]),
            "reward": jnp.asarray(batch["reward"][..., 0]),
            "terminated": jnp.asarray(batch["not_done"][..., 0] == 0),
            "next_observation": jnp.asarray(batch["next_state"]),
            **changes,
        }
    )


def mrq_subtrajectory(batch):
    """A recorded encoder batch as the replay view hands it out."""
    first = batch["state"][:, :1]
    return Subtrajectory(
        observation=jnp.concatenate([first, batch["next_state"]], axis=1),
        action=jnp.asarray(batch["action"]),
        reward=jnp.asarray(batch["reward"][..., 0]),
        terminated=jnp.asarray(batch["not_done"][..., 0] == 0),
    )


def part(recorded, prefix):
    """The arrays under a prefix, without it."""
    start = f"{prefix}/"
    return {k.removeprefix(start): v for k, v in recorded.items() if k.startswith(start)}


class RecordedView:
    """Stands in for the replay view of one seed: hands out recorded batches in their order."""

    terminal_seen = jnp.asarray(True)

    def __init__(self, transitions, subtrajectories=(), mean_absolute_reward=None):
        self._transitions = iter(transitions)
        self._subtrajectories = iter(subtrajectories)
        self._mean_absolute_reward = mean_absolute_reward

    def sample(self, key, batch_size):
        return jnp.arange(batch_size)

    def transition(self, indices, n):
        batch = next(self._transitions)
        assert (len(indices), n) == batch.reward.shape
        return batch

    def subtrajectory(self, indices, length):
        batch = next(self._subtrajectories)
        assert (len(indices), length) == batch.reward.shape
        return batch

    def mean_absolute_reward(self):
        return jnp.asarray(self._mean_absolute_reward)

    def used_up(self):
        return not [*self._transitions, *self._subtrajectories]


@contextmanager
def drawing(monkeypatch, noises: Iterable[np.ndarray], gumbels: Iterable[np.ndarray] = ()):
    """Inside, agents draw these standard normal and Gumbel numbers, in this order and all."""

    def drawn(left):
        def draw(key, shape):
            noise = jnp.asarray(left.pop(0))
            assert noise.shape == tuple(shape)
            return noise

        return draw

    left = {"normal": list(noises), "gumbel": list(gumbels)}
    with monkeypatch.context() as patch:
        for name, own in left.items():
            patch.setattr(draws, name, drawn(own))
        yield
    assert not any(left.values()), "an agent draws as often as the recorded program"


def played(agent, state, view, update):
    """`agent.learn` on a recorded view as the update of this number, all batches used up."""
    clock = Clock(step=jnp.asarray(update, jnp.int32), update=jnp.asarray(update, jnp.int32))
    with jax.disable_jit():
        result = agent.learn(state, Experience(None, view), jax.random.key(0), clock)
    assert view.used_up()
    return result


def close(actual, expected, relative=1e-4, name=""):
    """Equal to 1e-4 of the largest entry."""
    largest = np.max(np.abs(expected))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=relative * largest, err_msg=name)


def trees_close(actual, expected, atol=None):
    """Leaf by leaf, to 1e-4 of the largest entry or to an absolute tolerance."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        if atol is None:
            close(a, e)
        else:
            np.testing.assert_allclose(a, e, rtol=0, atol=atol)


def drqv2_params(recorded, prefix):
    """The recorded parameters `prefix/...` of one module of DrQ-v2 in our layout.

    PyTorch's pictures have their channels first, and so the rows of a trunk's kernel.
    """
    convolutions = {"convnet.0": 1, "convnet.2": 2, "convnet.4": 3, "convnet.6": 4}
    heads = {"policy": "policy", "Q1": "q1", "Q2": "q2"}
    leaves = {}
    for name, array in part(recorded, prefix).items():
        layer, kind = name.rsplit(".", 1)
        head, number = layer.rsplit(".", 1)
        leaf = {"weight": "kernel"}.get(kind, kind)
        if head == "convnet":
            own = array.transpose(2, 3, 1, 0) if leaf == "kernel" else array
            leaves[f"layer_{convolutions[layer]}", leaf] = own
        elif layer == "trunk.0":
            own = drqv2_features(array, recorded).T if leaf == "kernel" else array
            leaves["trunk", "layer_1", leaf] = own
        elif layer == "trunk.1":
            leaves["trunk", "active_1", "norm", {"kernel": "scale"}.get(leaf, leaf)] = array
        else:
            leaves[heads[head], f"layer_{int(number) // 2 + 1}", leaf] = array.T
    return nested(leaves)


def drqv2_features(array, recorded):
    """Rows of features (..., channels * places) with their channels last, as ours have them."""
    channels = len(recorded["params/encoder/convnet.6.bias"])
    side = round((array.shape[-1] // channels) ** 0.5)
    by_place = np.asarray(array).reshape(-1, channels, side, side).transpose(0, 2, 3, 1)
    return by_place.reshape(array.shape)


def drqv2_agent(recorded):
    """DrQ-v2's functions and its recorded state; every size is read from the arrays."""
    pictures, actions = recorded["batch/obs"].shape, recorded["batch/action"].shape
    hidden = len(recorded["params/critic/Q1.0.bias"])
    config = override(
        DrQv2Config(),
        {
            "encoder.hidden": len(recorded["params/encoder/convnet.6.bias"]),
            "critic.hidden": hidden,
            "actor.hidden": hidden,
            "feature_dim": len(recorded["params/critic/trunk.0.bias"]),
            "batch_size": actions[0],
        },
    )
    shown = Observation((*pictures[2:], pictures[1]), "uint8", history=3)
    built = build_drqv2(config, Sizes(shown, Continuous(actions[1])), 100_000)
    state = jax.jit(built.init)(jax.random.key(0))
    params = {name: drqv2_params(recorded, f"params/{name}") for name in state.params}
    same = jax.tree.map(lambda a, b: a.shape == b.shape, params, state.params)
    assert all(jax.tree.leaves(same))
    target = drqv2_params(recorded, "params/critic_target")
    return built, state.replace(params=params, target_critic=target)
