"""The PyTorch peers compute what mst_jax computes: one update, same parameters, same batch."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.peers.replay import PrioritizedReplay, UniformReplay
from mst_jax.agents import SACConfig, Sizes, default_config, make_agent
from mst_jax.agents.actor_critic.config import simba_module
from mst_jax.agents.actor_critic.core import Batch
from mst_jax.agents.actor_critic.sac import build_sac
from mst_jax.envs import Continuous, Observation
from mst_jax.recipes import override

torch = pytest.importorskip("torch")
from peer_weights import assert_same, load, named  # noqa: E402 (which needs it)

OBS, ACT, B = 7, 3, 8
rng = np.random.default_rng(0)


def normal(*shape):
    return rng.normal(size=shape).astype(np.float32)


def test_sac_update():
    from benchmarks.peers.torch_sac import Batch as TorchBatch
    from benchmarks.peers.torch_sac import TorchSAC

    config = SACConfig(critic=simba_module(16, 2), actor=simba_module(8, 1), batch_size=B)
    sac = build_sac(config, Sizes.vector(OBS, ACT, 500), 10_000)
    state = sac.core.init(jax.random.key(0))
    target = sac.core.init(jax.random.key(1)).params["critic"]
    state = state.replace(target_critic=target)
    peer = TorchSAC(config, OBS, ACT, discount=0.99)
    load(peer.actor, state.params["actor"])
    load(peer.critic, state.params["critic"]["q1"])
    load(peer.target, target["q1"])

    terminated = rng.random(B) < 0.4
    arrays = (normal(B, OBS), normal(B, ACT), normal(B), terminated, normal(B, OBS))
    key = jax.random.key(2)
    after, _ = jax.jit(sac.update)(state, Batch(*arrays), key, 0)
    arrays = (*arrays[:3], terminated.astype(np.float32), arrays[4])
    noises = np.array(jax.random.normal(key, (2, B, ACT)))
    peer.update(TorchBatch(*map(torch.from_numpy, arrays)), torch.from_numpy(noises))
    assert_same(peer.actor, after.params["actor"], state.params["actor"])
    assert_same(peer.critic, after.params["critic"]["q1"], state.params["critic"]["q1"])
    temperature = peer.temperature.detach().numpy()
    np.testing.assert_allclose(temperature, after.params["temperature"], rtol=1e-6)
    for name, value in named(after.target_critic["q1"]).items():
        mine = peer.target.state_dict()[name].numpy()
        np.testing.assert_allclose(mine, value, rtol=0, atol=1e-6, err_msg=name)


LAYERS = {  # of the recording, in our names
    "fc_layer": "trunk.layer_1",
    "hidden_layer": "trunk.layer_2",
    "linear_layer": "value",
    "linear_mu": "mean",
    "linear_std": "std",
}


def recorded(data, prefix, module):
    """Recorded parameters under the names of PyTorch modules; layouts are the same."""
    head = f"{prefix}/{module}/"
    names = {name: name.removeprefix(head).split(".") for name in data if name.startswith(head)}
    return {f"{LAYERS[layer]}.{kind}": data[name] for name, (layer, kind) in names.items()}


def test_stream_ac_is_the_recorded_one():
    from benchmarks.peers.torch_stream_ac import TorchStreamAC, Transition

    data = dict(np.load(Path(__file__).parents[1] / "data/stream_ac.npz"))
    config = override(default_config("stream_ac"), {"critic.hidden": 16, "actor.hidden": 16})
    peer = TorchStreamAC(config, 7, 2)
    for name in ("critic", "actor"):
        weights = recorded(data, "params", name)
        getattr(peer, name).load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()})
    rows = [torch.from_numpy(row) for row in data["observations"]]
    actions, errors = torch.from_numpy(data["actions"]), []
    for index, (reward, over) in enumerate(zip(data["rewards"], data["dones"], strict=True)):
        taken = Transition(rows[index], actions[index], float(reward), bool(over), rows[index + 1])
        errors.append(peer.update(taken))
        if index + 1 not in (1, 5, 12):
            continue
        for name in ("critic", "actor"):
            after = recorded(data, f"params_after_{index + 1}", name)
            theirs = dict(getattr(peer, name).named_parameters())
            assert theirs.keys() == after.keys()
            for key, value in theirs.items():
                np.testing.assert_allclose(value.detach().numpy(), after[key], rtol=0, atol=1e-6)
    np.testing.assert_allclose(errors, data["td_errors"], rtol=0, atol=1e-6)


def test_stream_ac_statistics_are_the_recorded_ones():
    from benchmarks.peers.torch_stream_ac import RewardScale, SampleStatistics

    data = dict(np.load(Path(__file__).parents[1] / "data/stream_ac.npz"))
    statistics, scale, features = SampleStatistics(7), RewardScale(0.99), []
    for row in data["normalizer/x"]:
        statistics.observe(row)
        features.append(statistics.normalise(row))
    np.testing.assert_allclose(features, data["normalizer/y"], rtol=0, atol=1e-12)
    pairs = zip(data["reward_scaler/reward"], data["reward_scaler/done"], strict=True)
    scaled = [scale(float(reward), bool(over)) for reward, over in pairs]
    np.testing.assert_allclose(scaled, data["reward_scaler/scaled"], rtol=1e-12)


def test_stream_ac_learns_from_what_it_acted_on():
    """Each raw observation of a stream enters the statistics once; SparseInit as specified."""
    from benchmarks.peers.torch_stream_ac import TorchStreamAC

    peer = TorchStreamAC(default_config("stream_ac"), OBS, ACT)
    live = (peer.actor.trunk.layer_2.weight != 0).sum(1)
    assert (live == 128 - 116).all()  # ceil(0.9 * 128) inputs of each unit are zero
    stream = normal(6, OBS)
    features = peer.begin(stream[0])
    before = peer.critic.value.weight.clone()
    for row in stream[1:]:
        features = peer.learn(features, peer.act(features), 1.0, False, row)
    assert peer.statistics.count == 6
    last = (stream[5] - stream.mean(0)) / np.sqrt(stream.var(0, ddof=1) + 1e-8)
    np.testing.assert_allclose(features.numpy(), last, rtol=1e-5)
    assert (peer.critic.value.weight != before).any()


def test_running_norm():
    from benchmarks.peers.torch_sac import RunningNorm

    norm, data = RunningNorm(2), 3.0 + 2.0 * normal(500, 2)
    for row in data:
        norm.observe(row)
    expected = (data - data.mean(0)) / data.std(0)
    np.testing.assert_allclose(norm(data).numpy(), expected, atol=1e-3)


def test_prioritized_replay_by_hand():
    """Capacity 12, span 3; an episode of 4 cut by the time limit, one of 4 that terminates."""
    replay = PrioritizedReplay(12, 1, 1, span=3)
    value = lambda x: np.array([x], np.float32)  # noqa: E731
    for t in range(4):
        replay.add(value(t), value(10 + t), 1.0, False, t == 3, value(t + 1))
    assert np.flatnonzero(replay.priority).tolist() == [0, 1], "the last 2 starts stay out"
    assert replay.observation[:5, 0].tolist() == [0, 1, 2, 3, 4], "the final one has a slot"
    assert replay.mean_absolute_reward() == pytest.approx(4 / 5)
    for t in range(4):
        replay.add(value(20 + t), value(0), 1.0, t == 3, False, value(21 + t))
    assert np.flatnonzero(replay.priority).tolist() == [0, 1, 5, 6, 7, 8]
    assert replay.terminal_seen
    replay.set_priority(np.array([1, 6]), np.array([3.0, 0.5], np.float32))
    assert replay.max_priority == 3.0
    drawn = replay.sample(np.random.default_rng(0), 40_000)
    share = np.bincount(drawn, minlength=12) / 40_000
    weights = np.array([1, 3, 0, 0, 0, 1, 0.5, 1, 1, 0, 0, 0])
    np.testing.assert_allclose(share, weights / weights.sum(), atol=0.01)
    for t in range(3):  # slots 10, 11 and 0; slot 1 then holds the next observation
        replay.add(value(30 + t), value(0), 1.0, False, False, value(31 + t))
    assert np.flatnonzero(replay.priority).tolist() == [5, 6, 7, 8, 10]
    assert replay.priority[10] == 3.0, "new ones get the largest so far"
    assert replay.window(np.array([11]), 3).tolist() == [[11, 0, 1]]
    assert replay.observation[[11, 0, 1], 0].tolist() == [31, 32, 33]


def test_uniform_replay_by_hand():
    replay = UniformReplay(3, 1, 1)
    for t in range(4):
        replay.add(np.full(1, t), np.zeros(1), t, t == 2, np.full(1, t + 1))
    assert replay.observation[:, 0].tolist() == [3, 1, 2]
    assert replay.next_observation[:, 0].tolist() == [4, 2, 3]
    assert replay.terminated.tolist() == [0, 0, 1]
    assert set(replay.sample(np.random.default_rng(0), 100)) == {0, 1, 2}


def test_drqv2_update_is_the_recorded_one():
    from benchmarks.peers.torch_drqv2 import TorchDrQv2, Transition
    from benchmarks.peers.torch_pictures import shifted

    data = dict(np.load(Path(__file__).parents[1] / "data/drqv2_step.npz"))
    tensors = {name: torch.from_numpy(array) for name, array in data.items() if array.ndim}
    small = {"encoder.hidden": 4, "critic.hidden": 24, "actor.hidden": 24, "feature_dim": 6}
    peer = TorchDrQv2(override(default_config("drqv2"), small), (84, 84, 9), 2)
    modules = {"encoder": peer.encoder, "actor": peer.actor, "critic": peer.critic}

    def of(prefix, module):
        """Recorded tensors of a module, in the order in which both programs define them."""
        return [tensors[name] for name in tensors if name.startswith(f"{prefix}/{module}/")]

    for name, module in {**modules, "critic_target": peer.target}.items():
        with torch.no_grad():
            for own, value in zip(module.parameters(), of("params", name), strict=True):
                assert own.shape == value.shape
                own.copy_(value)
    batch = {name.removeprefix("batch/"): array for name, array in tensors.items()}
    shown = [
        shifted(batch[name], batch[shift], 4)
        for name, shift in (("obs", "shift_obs"), ("next_obs", "shift_next"))
    ]
    for name, pictures in zip(("obs", "next_obs"), shown, strict=True):
        np.testing.assert_allclose(pictures, data[f"augment/{name}"], rtol=0, atol=0.004)
    transition = Transition(
        shown[0], batch["action"], batch["reward"][:, 0], batch["discount"][:, 0], shown[1]
    )
    scale = float(data["settings/std"])
    noises = ((scale * batch[f"noise_{name}"]).clamp(-0.3, 0.3) for name in ("target", "actor"))
    peer.update(transition, *noises)
    for name, module in {**modules, "critic_target": peer.target}.items():
        for own, after in zip(module.parameters(), of("params_after", name), strict=True):
            np.testing.assert_allclose(own.detach(), after, rtol=0, atol=1e-6, err_msg=name)


def test_drqv2_starts_as_ours_does():
    from benchmarks.peers.torch_drqv2 import TorchDrQv2
    from benchmarks.peers.torch_drqv2 import Transition as TorchTransition

    config = override(default_config("drqv2"), {"critic.hidden": 8, "actor.hidden": 8})
    peer, shown = TorchDrQv2(config, (32, 32, 9), ACT), Observation((32, 32, 9), "uint8", history=3)
    ours = make_agent("drqv2", config, Sizes(shown, Continuous(ACT)), 10_000)
    params = ours.parameters(jax.eval_shape(ours.init, jax.random.key(0)))
    for name, module in params.items():
        theirs = sum(p.numel() for p in getattr(peer, name).parameters())
        assert theirs == sum(leaf.size for leaf in jax.tree.leaves(module)), name
    kernel = peer.encoder.layer_1.weight.detach().flatten(1)
    np.testing.assert_allclose(kernel @ kernel.T, 2 * np.eye(32), atol=1e-5)
    before = [p.detach().clone() for p in peer.actor.parameters()]
    pictures = torch.from_numpy(rng.integers(0, 256, (2, B, 9, 32, 32), np.uint8))
    numbers = (torch.from_numpy(normal(B, ACT)), torch.from_numpy(normal(B)), torch.ones(B))
    peer.learn(TorchTransition(pictures[0], *numbers, pictures[1]), 0.5)
    assert all((old != new).any() for old, new in zip(before, peer.actor.parameters(), strict=True))


@pytest.mark.parametrize("body", ["nature", "impala"])
def test_der_update_is_ours(body):
    """From the same parameters, batch and noise; ours is checked against the recorded one."""
    from benchmarks.peers.torch_der import TorchDer, Transition
    from mst_jax.agents.rainbow.der import Batch, build_der
    from mst_jax.envs import Discrete
    from mst_jax.networks import Noise

    changes = {"encoder.body": body, "encoder.hidden": 2, "critic.hidden": 8, "atoms": 11}
    config = override(default_config("der"), {**changes, "v_min": -2.0, "v_max": 2.0})
    shown = Observation((20, 20, 4), "uint8", history=4)
    ours = build_der(config, Sizes(shown, Discrete(3)), 10_000)
    state = ours.init(jax.random.key(1))
    state = state.replace(target_params=jax.tree.map(lambda x: 0.9 * x, state.params))
    peer = TorchDer(config, 4, 20, 3)

    def convolutions(params):
        if body == "nature":
            return [params["encoder"][f"layer_{n}"] for n in (1, 2, 3)]
        layers = []
        for n in (1, 2, 3):
            stack = params["encoder"][f"stack_{n}"]
            parts = [stack[f"block_{b}"][part] for b in (1, 2) for part in ("expand", "project")]
            layers += [stack["embed"], *parts]
        return layers

    def in_their_order(params):
        """Leaves as PyTorch has them: channels first, outputs before inputs."""
        for layer in convolutions(params):
            yield np.transpose(layer["kernel"], (3, 2, 0, 1))
            yield layer["bias"]
        channels = convolutions(params)[-1]["bias"].shape[0]
        for name in ("layer_1", "advantage", "value"):
            kernel, bias = (np.asarray(params["critic"][name][leaf]) for leaf in ("kernel", "bias"))
            if name == "layer_1":
                side = round((kernel.shape[1] / channels) ** 0.5)
                places = kernel.reshape(2, side, side, channels, -1)
                kernel = places.transpose(0, 3, 1, 2, 4).reshape(kernel.shape)
            yield from (kernel[0].T, bias[0], kernel[1].T, bias[1])

    for network, params in ((peer.online, state.params), (peer.target, state.target_params)):
        with torch.no_grad():
            for own, value in zip(network.parameters(), in_their_order(params), strict=True):
                own.copy_(torch.from_numpy(np.array(value)))
    drawn = [
        {name: (normal(i), normal(o)) for name, (i, o) in ours.critic.noisy.items()}
        for _ in range(2)  # of the next observations, and of the loss
    ]

    def theirs(noise):
        """Signed roots, with the features' channels first."""
        before, after = noise["layer_1"]
        channels = convolutions(state.params)[-1]["bias"].shape[0]
        side = round((len(before) / channels) ** 0.5)
        first = before.reshape(side, side, channels).transpose(2, 0, 1).ravel()
        pairs = [(first, after), noise["advantage"], noise["value"]]
        root = lambda x: torch.from_numpy(np.sign(x) * np.sqrt(np.abs(x)))  # noqa: E731
        return [(root(i), root(o)) for i, o in pairs]

    queue = [theirs(noise) for noise in drawn]
    peer.online.draw = lambda: queue.pop(0)
    pictures = rng.integers(0, 256, (2, B, 20, 20, 4), np.uint8)
    action, returns = rng.integers(0, 3, B, np.int32), normal(B)
    bootstrap, weight = np.where(np.arange(B) % 3, 0.9, 0).astype(np.float32), rng.uniform(size=B)
    weight = weight.astype(np.float32)
    first, following = torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 1, 4, 2, 3)))
    numbers = (torch.from_numpy(action).long(), *map(torch.from_numpy, (returns, bootstrap)))
    batch = Transition(first, *numbers, following)
    priorities = peer.learn(batch, torch.from_numpy(weight))
    next_noise, noise = ({k: Noise(*pair) for k, pair in one.items()} for one in drawn)
    own = Batch(pictures[0], action, returns, bootstrap, pictures[1], weight, noise, next_noise)
    after, expected, _ = jax.jit(ours.update)(state, own, jnp.int32(0))
    np.testing.assert_allclose(priorities, expected, rtol=1e-4)
    for leaf, value in zip(peer.online.parameters(), in_their_order(after.params), strict=True):
        np.testing.assert_allclose(leaf.detach(), value, rtol=0, atol=2e-5)
