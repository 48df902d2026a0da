"""PyTorch's MR.Q computes what ours does: one update, same parameters, same batch."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mst_jax.agents import ModuleConfig, MRQConfig, Sizes
from mst_jax.agents.mr import losses
from mst_jax.agents.mr.config import PicturesConfig
from mst_jax.agents.mr.mrq import build_mrq
from mst_jax.envs import Continuous, Discrete, Observation
from mst_jax.replay import Subtrajectory, Transition

torch = pytest.importorskip("torch")
from peer_weights import assert_same, load  # noqa: E402 (which needs it)

from benchmarks.peers.torch_mrq import Batch, VectorMRQ  # noqa: E402
from benchmarks.peers.torch_mrq_pictures import PictureMRQ  # noqa: E402
from benchmarks.peers.torch_mrq_policies import GumbelPolicy, Noise, TanhPolicy  # noqa: E402

B, MODULES = 8, ("encoder", "critic", "actor")
PICTURES = PicturesConfig(channels=4, depth=2, strided=1, shift=1)
CONFIG = MRQConfig(
    encoder=ModuleConfig(hidden=24, learning_rate=1e-4),
    critic=ModuleConfig(hidden=24, depth=3),
    actor=ModuleConfig(hidden=24, activation="relu"),
    zs_size=20,
    za_size=12,
    zsa_size=16,
    batch_size=B,
    pictures=PICTURES,
)
SHOWN = Observation((12, 13, 6), "uint8", history=2)
CONVOLVED = (2, 3, 4, 4)  # two convolutions make 3x4 places of 4 channels


class Case(NamedTuple):
    """Ours and PyTorch's agent, and random observations (B, 6, *O), channels last."""

    ours: object
    peer: object
    observation: np.ndarray
    convolved: tuple[int, ...] | None = None


def rng():
    return np.random.default_rng(0)


def vectors():
    observation = rng().normal(size=(B, 6, 7)).astype(np.float32)
    sizes = Sizes.vector(7, 3)
    return Case(build_mrq(CONFIG, sizes, 1000), VectorMRQ(CONFIG, 7, 3), observation)


def pictures(action, policy):
    ours = build_mrq(CONFIG, Sizes(SHOWN, action), 1000)
    observation = rng().integers(0, 256, (B, 6, *SHOWN.shape), np.uint8)
    return Case(ours, PictureMRQ(CONFIG, SHOWN.shape, policy), observation, CONVOLVED)


CASES = {
    "vectors": vectors,
    "pictures": lambda: pictures(Continuous(3), TanhPolicy(CONFIG, 3)),
    "choices": lambda: pictures(Discrete(4), GumbelPolicy(CONFIG, 4)),
}


def tensor(array):
    """Ours as PyTorch has it: of pictures the channels come first."""
    array = np.moveaxis(array, -1, -3) if np.ndim(array) == 5 else array
    return torch.from_numpy(np.array(array))


def batches(case):
    """Sub-trajectories and returns of three of their steps, as ours and as PyTorch takes them."""
    draw, size = rng(), case.ours.policy.size
    action = draw.uniform(-1, 1, (B, 5, size)).astype(np.float32)
    if isinstance(case.peer.policy, GumbelPolicy):
        action = np.eye(size, dtype=np.float32)[action.argmax(-1)]
    reward, terminated = draw.normal(size=(B, 5)).astype(np.float32), draw.random((B, 5)) < 0.1
    assert terminated.any()
    seen = case.observation
    path = Subtrajectory(seen, action, reward, terminated)
    steps = Transition(seen[:, 0], action[:, 0], reward[:, :3], terminated[:, :3], seen[:, 3])
    arrays = map(tensor, (seen, action, reward, terminated.astype(np.float32)))
    theirs = Batch(*arrays)
    cut = Batch(theirs.observation[:, [0, 3]], *(x[:, :3] for x in theirs[1:]))
    return (path, steps), (theirs, cut)


@pytest.mark.parametrize("name", CASES)
def test_update(name):
    case = CASES[name]()
    ours, peer = case.ours, case.peer
    other = ours.core.init(jax.random.key(1)).params
    state = ours.core.init(jax.random.key(0)).replace(
        target_params=other, reward_scale=jnp.array(0.7), target_reward_scale=jnp.array(0.4)
    )
    layouts = {"encoder": case.convolved}
    for module in MODULES:
        load(getattr(peer, module), state.params[module], layouts.get(module))
        load(peer.targets[module], other[module], layouts.get(module))
    peer.reward_scale, peer.target_reward_scale = 0.7, 0.4
    (path, steps), (their_path, their_steps) = batches(case)

    key = jax.random.key(2)
    drawn = ours.policy.noise(key, B)
    noise = Noise(
        tuple(map(tensor, drawn.target)), None if drawn.actor is None else tensor(drawn.actor)
    )
    after, priorities, _ = jax.jit(ours.update)(state, steps, key, 0)
    theirs = peer.update_critic_and_actor(their_steps, noise)
    np.testing.assert_allclose(theirs.numpy(), priorities, rtol=1e-4)
    for module in ("critic", "actor"):
        assert_same(getattr(peer, module), after.params[module], state.params[module])

    (encoder, _), _ = jax.jit(ours.core.update_encoder)(
        state.params["encoder"],
        state.opt_state["encoder"],
        other["encoder"],
        path,
        losses.EncoderLossWeights(1.0, 0.1, 0.1),
        0,
    )
    peer.update_encoder(their_path, terminal_seen=True)
    assert_same(peer.encoder, encoder, state.params["encoder"], case.convolved)


def test_a_step_from_stored_pictures():
    """Every stack is a cut of itself, of its own draw, and every module takes a step."""
    torch.manual_seed(0)
    case = CASES["choices"]()
    peer, (_, (path, steps)) = case.peer, batches(case)
    before = {name: [p.clone() for p in getattr(peer, name).parameters()] for name in MODULES}
    moved, stored = peer.moved(path).observation, path.observation.float()
    padded = torch.nn.functional.pad(stored, (1, 1, 1, 1, 0, 0), mode="replicate")
    found = []
    for stack in np.ndindex(B, 6):
        cuts = {
            (r, c): padded[stack][:, r : r + 12, c : c + 13] for r in range(3) for c in range(3)
        }
        found += [at for at, cut in cuts.items() if (moved[stack] - cut).abs().max() < 0.01]
    assert len(found) == B * 6 and len(set(found)) > 5
    priorities = peer.learn(path, steps)
    assert priorities.shape == (B,) and (priorities >= 1).all()
    for name, old in before.items():
        pairs = zip(old, getattr(peer, name).parameters(), strict=True)
        assert any((own != was).any() for was, own in pairs), name
