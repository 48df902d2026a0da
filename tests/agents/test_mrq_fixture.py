"""MR.Q against a recorded step of the reference program (tests/data/mrq_step.npz).

Tolerances: arrays to 1e-4 of their largest entry, parameters after a step to 2e-5 absolute.
"""

from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mst_jax.agents import ModuleConfig, MRQConfig, Sizes
from mst_jax.agents import mrq_losses as losses
from mst_jax.agents.mrq import build_mrq

RECORDED = dict(np.load(Path(__file__).parents[1] / "data" / "mrq_step.npz"))
CONFIG = MRQConfig(
    encoder=ModuleConfig(hidden=24, learning_rate=1e-4),
    critic=ModuleConfig(hidden=24, depth=3),
    actor=ModuleConfig(hidden=24, activation="relu"),
    zs_size=32,
    za_size=16,
    zsa_size=28,
    batch_size=8,
    learning_starts=10,
)
# Paths of our parameters -> names of the reference program's layers.
LAYERS = {
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
GROUPS = {"encoder": "encoder", "actor": "policy", "critic": "value"}


def recorded_params(prefix, module):
    """The recorded parameters `prefix/...` of one module in our layout."""
    tree = {}
    for path, layer in LAYERS[module].items():
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node["kernel"] = jnp.asarray(RECORDED[f"{prefix}/{layer}.weight"].T)
        node["bias"] = jnp.asarray(RECORDED[f"{prefix}/{layer}.bias"])
    return tree


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * np.max(np.abs(expected)))


def trees_close(actual, expected, atol=None):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        if atol is None:
            close(a, e)
        else:
            np.testing.assert_allclose(a, e, rtol=0, atol=atol)


@pytest.fixture(scope="module")
def mrq():
    return build_mrq(CONFIG, Sizes(17, 6), total_steps=1000)


@pytest.fixture(scope="module")
def state(mrq):
    state = mrq.core.init(jax.random.key(0))
    online = {m: recorded_params(f"params/{g}", m) for m, g in GROUPS.items()}
    targets = {m: recorded_params(f"params/{g}_target", m) for m, g in GROUPS.items()}
    trees_match = jax.tree.map(lambda a, b: a.shape == b.shape, state.params, online)
    assert all(jax.tree.leaves(trees_match))
    return state.replace(
        params=online,
        target_params=targets,
        reward_scale=jnp.asarray(RECORDED["rl_batch/reward_scale"]),
        target_reward_scale=jnp.asarray(RECORDED["rl_batch/target_reward_scale"]),
    )


@pytest.fixture(scope="module")
def rl_batch():
    return SimpleNamespace(
        observation=jnp.asarray(RECORDED["rl_batch/state"]),
        action=jnp.asarray(RECORDED["rl_batch/action"]),
        reward=jnp.asarray(RECORDED["rl_batch/reward"][..., 0]),
        terminated=jnp.asarray(RECORDED["rl_batch/not_done"][..., 0] == 0),
        next_observation=jnp.asarray(RECORDED["rl_batch/next_state"]),
    )


def test_forward(mrq, state):
    params = state.params
    observation = RECORDED["encoder_batch/state"][:, 0]
    zs = mrq.core.encoder.zs(params["encoder"], observation)
    zsa = mrq.core.encoder.zsa(params["encoder"], zs, RECORDED["encoder_batch/action"][:, 0])
    prediction = mrq.core.encoder.predict(params["encoder"], zsa)
    pre_activation = mrq.actor.apply(params["actor"], zs)
    close(zs, RECORDED["forward/zs"])
    close(zsa, RECORDED["forward/zsa"])
    close(prediction.terminal[:, None], RECORDED["forward/done"])
    close(prediction.next_zs, RECORDED["forward/next_zs"])
    close(prediction.reward_logits, RECORDED["forward/reward_logits"])
    close(pre_activation, RECORDED["forward/pre_activation"])
    close(jnp.tanh(pre_activation), RECORDED["forward/action"])
    close(mrq.core.critic.apply(params["critic"], zsa), RECORDED["forward/q"])


def test_two_hot():
    bins = losses.symexp_bins(65, 10.0)
    close(bins, RECORDED["two_hot/bins"])
    close(losses.two_hot(RECORDED["two_hot/x"][:, 0], bins), RECORDED["two_hot/y"])


def test_critic_loss_and_gradient(mrq, state, rl_batch):
    params = state.params
    target = mrq.target(state, rl_batch, RECORDED["rl_batch/target_noise_unclipped"])
    zs = mrq.core.encoder.zs(params["encoder"], rl_batch.observation)
    zsa = mrq.core.encoder.zsa(params["encoder"], zs, rl_batch.action)
    (loss, values), grads = jax.value_and_grad(losses.critic_loss, has_aux=True)(
        params["critic"], mrq.core.critic, zsa, target
    )
    close(target[:, None], RECORDED["rl/q_target"])
    close(values, RECORDED["rl/q"])
    close(loss, RECORDED["rl/value_loss"])
    trees_close(grads, recorded_params("value_grad", "critic"))


def test_one_critic_and_actor_step(mrq, state, rl_batch):
    noise = jnp.asarray(RECORDED["rl_batch/target_noise_unclipped"])
    after, priorities, metrics = mrq.update_critic_and_actor(state, rl_batch, noise, jnp.asarray(0))
    close(priorities, RECORDED["rl/priority"])
    close(metrics["critic/loss"], RECORDED["rl/value_loss"])
    close(metrics["actor/loss"], RECORDED["rl/policy_loss"])
    trees_close(after.params["critic"], recorded_params("params_after/value", "critic"), 2e-5)
    trees_close(after.params["actor"], recorded_params("params_after/policy", "actor"), 2e-5)
    trees_close(after.params["encoder"], state.params["encoder"], 0)


def test_actor_gradient_uses_the_updated_critic(mrq, state, rl_batch):
    critic = recorded_params("params_after/value", "critic")
    zs = mrq.core.encoder.zs(state.params["encoder"], rl_batch.observation)
    grads = jax.grad(losses.actor_loss)(
        state.params["actor"],
        mrq.actor,
        mrq.core.critic,
        mrq.core.encoder,
        critic,
        state.params["encoder"],
        zs,
        CONFIG.pre_activation_weight,
    )
    trees_close(grads, recorded_params("policy_grad", "actor"))


def test_encoder_loss_gradient_and_step(mrq, state):
    action = jnp.asarray(RECORDED["encoder_batch/action"])
    reward = jnp.asarray(RECORDED["encoder_batch/reward"][..., 0])
    terminated = jnp.asarray(RECORDED["encoder_batch/not_done"][..., 0] == 0)
    assert terminated.any(), "the recorded batch has terminations"
    first = jnp.asarray(RECORDED["encoder_batch/state"][:, 0])
    following = jnp.asarray(RECORDED["encoder_batch/next_state"])
    params, weights = state.params["encoder"], losses.EncoderLossWeights(1.0, 0.1, 0.1)
    (loss, _), grads = jax.value_and_grad(losses.encoder_loss, has_aux=True)(
        params,
        mrq.core.encoder,
        first,
        action,
        reward,
        terminated,
        mrq.core.encoder.zs(state.target_params["encoder"], following),
        losses.symexp_bins(65, 10.0),
        weights,
    )
    close(loss, RECORDED["encoder/loss"])
    trees_close(grads, recorded_params("encoder_grad", "encoder"))

    batch = SimpleNamespace(
        observation=jnp.concatenate([first[:, None], following], axis=1),
        action=action,
        reward=reward,
        terminated=terminated,
    )
    (after, _), metrics = mrq.core.update_encoder(
        params,
        state.opt_state["encoder"],
        state.target_params["encoder"],
        batch,
        weights,
        jnp.asarray(0),
    )
    close(metrics["loss"], RECORDED["encoder/loss"])
    trees_close(after, recorded_params("params_after/encoder", "encoder"), 2e-5)
