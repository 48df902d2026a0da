"""MR.Q with discrete actions, as the reference program made a step (tests/data/mrq_steps.npz).

Tolerances as in test_mrq_steps.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import recordings
from recordings import close, mrq_params, mrq_subtrajectory, mrq_transition, part, trees_close

from mst_jax.agents.mr import losses
from mst_jax.agents.mr.config import DiscreteConfig

RECORDED = part(recordings.load("mrq_steps"), "discrete")
BATCH, BURST = part(RECORDED, "rl_batch"), part(RECORDED, "encoder_batch")
# Recorded in units of the policy's noise, which is drawn in units of one.
TARGET_NOISE = BATCH["target_noise_unclipped"] / DiscreteConfig().target_noise


def chosen(batch):
    """The batch with the choices that its one-hot actions stand for."""
    return batch._replace(action=jnp.argmax(batch.action, axis=-1).astype(jnp.int32))


@pytest.fixture(scope="module")
def recorded():
    settings = DiscreteConfig(epsilon=0.0)
    built, agent, state = recordings.mrq_agent(
        RECORDED,
        settings,
        batch_size=len(BATCH["reward"]),
        n_step=BATCH["reward"].shape[1],
        horizon=BURST["reward"].shape[1],
        learning_starts=10,
    )
    return (
        built,
        agent,
        state.replace(
            reward_scale=jnp.asarray(RECORDED["reward_scale"]),
            target_reward_scale=jnp.asarray(RECORDED["target_reward_scale"]),
        ),
    )


def test_published_noise_is_the_default():
    own = DiscreteConfig()
    noise = own.exploration_noise, own.target_noise, own.target_noise_clip, own.temperature
    np.testing.assert_allclose(noise, RECORDED["noise"], rtol=1e-6)


def test_forward(recorded):
    mrq, _, state = recorded
    encoder, params = mrq.core.encoder, state.params
    zs = encoder.zs(params["encoder"], BATCH["state"])
    zsa = encoder.zsa(params["encoder"], zs, BATCH["action"])
    close(zs, RECORDED["forward/zs"])
    close(zsa, RECORDED["forward/zsa"])
    close(mrq.actor.apply(params["actor"], zs), RECORDED["forward/logits"])
    close(mrq.core.critic.apply(params["critic"], zsa), RECORDED["forward/q"])


@pytest.mark.slow
def test_one_critic_and_actor_step(recorded, monkeypatch):
    """Through `learn`, at an update without an encoder burst."""
    _, agent, state = recorded
    view = recordings.RecordedView([chosen(mrq_transition(BATCH))])
    gumbels = [BATCH["target_gumbel"], BATCH["policy_gumbel"]]
    with recordings.drawing(monkeypatch, [TARGET_NOISE], gumbels):
        after, feedback, metrics = recordings.played(agent, state, view, 1)
    close(feedback.priorities, RECORDED["rl/priority"])
    close(metrics["critic/loss"], RECORDED["rl/value_loss"])
    close(metrics["critic/gradient_norm"], RECORDED["rl/value_gradient_norm"])
    close(metrics["actor/gradient_norm"], RECORDED["rl/policy_gradient_norm"])
    # A mean near zero of values near one.
    np.testing.assert_allclose(metrics["actor/loss"], RECORDED["rl/policy_loss"], atol=5e-6)
    trees_close(after.params["critic"], mrq_params(RECORDED, "params_after/value", "critic"), 2e-5)
    trees_close(after.params["actor"], mrq_params(RECORDED, "params_after/policy", "actor"), 2e-5)


def test_target_takes_the_largest_smoothed_choice(recorded):
    mrq, _, state = recorded
    zs = mrq.core.encoder.zs(state.target_params["encoder"], BATCH["next_state"])
    outputs = mrq.actor.apply(state.target_params["actor"], zs)
    noise = jnp.asarray(BATCH["target_gumbel"]), jnp.asarray(TARGET_NOISE)
    np.testing.assert_array_equal(mrq.policy.target(outputs, noise), RECORDED["rl/next_action"])


@pytest.mark.slow
def test_encoder_step(recorded):
    mrq, _, state = recorded
    batch = mrq_subtrajectory(BURST)
    weights = losses.EncoderLossWeights(1.0, 0.1, 0.1)
    (after, _), metrics = mrq.core.update_encoder(
        state.params["encoder"],
        state.opt_state["encoder"],
        state.target_params["encoder"],
        batch,
        weights,
        jnp.asarray(0),
    )
    close(metrics["loss"], RECORDED["encoder/loss"])
    trees_close(after, mrq_params(RECORDED, "params_after/encoder", "encoder"), 2e-5)


def test_acting(recorded, monkeypatch):
    """Exploring, and the published judgement, which is random."""
    _, agent, state = recorded
    for row, observation in enumerate(RECORDED["act/observation"]):
        own = {name: RECORDED[f"act/{name}"][row] for name in ("gumbel", "noise_unscaled")}
        with recordings.drawing(monkeypatch, [own["noise_unscaled"]], [own["gumbel"]]):
            action = agent.act(state, observation, jax.random.key(0), None)
        assert action == RECORDED["act/action"][row]
        with recordings.drawing(monkeypatch, [], [RECORDED["act/evaluation_gumbel"][row]]):
            action = agent.evaluate(state, observation, jax.random.key(0))
        assert action == RECORDED["act/evaluation_action"][row]
        assert agent.act(state, observation, None, None) == np.argmax(RECORDED["act/logits"][row])
