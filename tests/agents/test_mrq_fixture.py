"""MR.Q against a recorded step of the reference program (tests/data/mrq_step.npz).

Tolerances: arrays to 1e-4 of their largest entry, parameters after a step to 2e-5 absolute.
"""

import jax
import jax.numpy as jnp
import pytest
import recordings
from recordings import close, mrq_params, mrq_subtrajectory, mrq_transition, part, trees_close

from mst_jax.agents.mr import losses
from mst_jax.agents.mr.policies import Noise

RECORDED = recordings.load("mrq_step")
BATCH, ENCODER_BATCH = part(RECORDED, "rl_batch"), part(RECORDED, "encoder_batch")
SIZES = {
    "batch_size": BATCH["reward"].shape[0],
    "n_step": BATCH["reward"].shape[1],
    "horizon": ENCODER_BATCH["reward"].shape[1],
    "learning_starts": 10,
}


@pytest.fixture(scope="module")
def recorded():
    built, agent, state = recordings.mrq_agent(RECORDED, **SIZES)
    return (
        built,
        agent,
        state.replace(
            reward_scale=jnp.asarray(BATCH["reward_scale"]),
            target_reward_scale=jnp.asarray(BATCH["target_reward_scale"]),
        ),
    )


@pytest.fixture(scope="module")
def mrq(recorded):
    return recorded[0]


@pytest.fixture(scope="module")
def state(recorded):
    return recorded[2]


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
    bins = losses.symexp_bins(len(RECORDED["two_hot/bins"]), 10.0)
    close(bins, RECORDED["two_hot/bins"])
    close(losses.two_hot(RECORDED["two_hot/x"][:, 0], bins), RECORDED["two_hot/y"])


def test_critic_loss_and_gradient(mrq, state):
    params, rl_batch = state.params, mrq_transition(BATCH)
    noise = Noise((jnp.asarray(BATCH["target_noise_unclipped"] / 0.2),), None)
    target = mrq.target(state, rl_batch, noise)
    zsa = mrq.core.embedded(state, rl_batch)

    def loss_of(critic):
        values = mrq.core.critic.apply(critic, zsa)
        return losses.critic_loss(values, target), values

    (loss, values), grads = jax.value_and_grad(loss_of, has_aux=True)(params["critic"])
    close(target[:, None], RECORDED["rl/q_target"])
    close(values, RECORDED["rl/q"])
    close(loss, RECORDED["rl/value_loss"])
    trees_close(grads, mrq_params(RECORDED, "value_grad", "critic"))


@pytest.mark.slow
def test_one_critic_and_actor_step(recorded, monkeypatch):
    """Through `learn`, at an update without an encoder burst."""
    _, agent, state = recorded
    view = recordings.RecordedView([mrq_transition(BATCH)])
    # Recorded in units of the policy's noise, which is drawn in units of one.
    with recordings.drawing(monkeypatch, [BATCH["target_noise_unclipped"] / 0.2]):
        after, feedback, metrics = recordings.played(agent, state, view, 1)
    close(feedback.priorities, RECORDED["rl/priority"])
    close(metrics["critic/loss"], RECORDED["rl/value_loss"])
    close(metrics["actor/loss"], RECORDED["rl/policy_loss"])
    trees_close(after.params["critic"], mrq_params(RECORDED, "params_after/value", "critic"), 2e-5)
    trees_close(after.params["actor"], mrq_params(RECORDED, "params_after/policy", "actor"), 2e-5)
    trees_close(after.params["encoder"], state.params["encoder"], 0)


def test_actor_gradient_uses_the_updated_critic(mrq, state):
    critic = mrq_params(RECORDED, "params_after/value", "critic")
    zs = mrq.core.encoder.zs(state.params["encoder"], BATCH["state"])
    grads = jax.grad(losses.actor_loss)(
        state.params["actor"],
        mrq.actor,
        mrq.core.critic,
        mrq.core.encoder,
        critic,
        state.params["encoder"],
        zs,
        jnp.tanh,
        mrq.core.config.pre_activation_weight,
    )
    trees_close(grads, mrq_params(RECORDED, "policy_grad", "actor"))


@pytest.mark.slow
def test_encoder_loss_gradient_and_step(mrq, state):
    """Its recorded target is another network's, so the burst of `learn` cannot be played here."""
    batch, weights = mrq_subtrajectory(ENCODER_BATCH), losses.EncoderLossWeights(1.0, 0.1, 0.1)
    assert batch.terminated.any(), "the recorded batch has terminations"
    params, target = state.params["encoder"], state.target_params["encoder"]
    (loss, _), grads = jax.value_and_grad(losses.encoder_loss, has_aux=True)(
        params,
        mrq.core.encoder,
        batch.observation[:, 0],
        batch.action,
        batch.reward,
        batch.terminated,
        mrq.core.encoder.zs(target, batch.observation[:, 1:]),
        losses.symexp_bins(mrq.core.config.reward_bins, 10.0),
        weights,
    )
    close(loss, RECORDED["encoder/loss"])
    trees_close(grads, mrq_params(RECORDED, "encoder_grad", "encoder"))
    (after, _), metrics = mrq.core.update_encoder(
        params, state.opt_state["encoder"], target, batch, weights, jnp.asarray(0)
    )
    close(metrics["loss"], RECORDED["encoder/loss"])
    trees_close(after, mrq_params(RECORDED, "params_after/encoder", "encoder"), 2e-5)
