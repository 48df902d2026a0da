"""Three consecutive steps of MR.Q as the reference program made them (tests/data/mrq_steps.npz).

Through `learn` itself: gradients that are clipped and that are not, a refresh of targets and scales
with its encoder burst, and every pattern of terminations inside the return.
Tolerances: arrays to 1e-4 of their largest entry, parameters after k steps to 2e-5 k absolute.
"""

import jax.numpy as jnp
import numpy as np
import pytest
import recordings
from recordings import close, mrq_params, mrq_subtrajectory, mrq_transition, part, trees_close

from mst_jax.agents.parts.losses import n_step_return

RECORDED = recordings.load("mrq_steps")
PERIOD = int(RECORDED["sizes"][-1])
STEPS = sorted({int(k.split("/")[0][5:]) for k in RECORDED if k.startswith("step_")})


def agent_and_state(**changes):
    batch = part(RECORDED, "step_1/rl_batch")
    burst = next(k for k in RECORDED if k.endswith("encoder_batch_1/reward"))
    sizes = {
        "batch_size": batch["reward"].shape[0],
        "n_step": batch["reward"].shape[1],
        "horizon": RECORDED[burst].shape[1],
        "target_period": PERIOD,
    }
    _, agent, state = recordings.mrq_agent(RECORDED, **{**sizes, **changes})
    return agent, state.replace(
        reward_scale=jnp.asarray(RECORDED["step_1/reward_scale"]),
        target_reward_scale=jnp.asarray(RECORDED["step_1/target_reward_scale"]),
    )


def play(agent, state, step, monkeypatch, **changes):
    """One recorded step through `learn`; returns what it returns."""
    batch, prefix = part(RECORDED, f"step_{step}/rl_batch"), f"step_{step}"
    bursts = [
        part(RECORDED, f"{prefix}/encoder_batch_{number + 1}")
        for number in range(PERIOD if RECORDED[f"{prefix}/refreshed"] else 0)
    ]
    view = recordings.RecordedView(
        [mrq_transition(batch, **changes)],
        [mrq_subtrajectory(burst) for burst in bursts],
        RECORDED[f"{prefix}/reward_scale"],
    )
    # Recorded in units of the policy's noise, which is drawn in units of one.
    noise = batch["target_noise_unclipped"] / 0.2
    with recordings.drawing(monkeypatch, [noise]):
        return recordings.played(agent, state, view, step)


def check_step(step, bursts, state, feedback, metrics):
    """Compares what `learn` returned with the recording; `bursts` encoder steps were made."""
    prefix = f"step_{step}"
    if RECORDED[f"{prefix}/refreshed"]:
        after = f"{prefix}/params_after_encoder_{PERIOD}/encoder"
        trees_close(state.params["encoder"], mrq_params(RECORDED, after, "encoder"), 2e-5 * bursts)
        losses_of_burst = [RECORDED[f"{prefix}/encoder_{j + 1}/loss"] for j in range(PERIOD)]
        close(metrics["encoder/loss"], np.mean(losses_of_burst))
        # The target is the critic of before this step.
        before = mrq_params(RECORDED, f"step_{step - 1}/params_after/value", "critic")
        trees_close(state.target_params["critic"], before, 2e-5 * step)
    for name, value in (
        ("reward_scale", state.reward_scale),
        ("target_reward_scale", state.target_reward_scale),
        ("rl/value_loss", metrics["critic/loss"]),
        ("rl/policy_loss", metrics["actor/loss"]),
        ("rl/value_gradient_norm", metrics["critic/gradient_norm"]),
        ("rl/policy_gradient_norm", metrics["actor/gradient_norm"]),
        ("rl/priority", feedback.priorities),
    ):
        close(value, RECORDED[f"{prefix}/{name}"], name=name)
    for module, group in (("critic", "value"), ("actor", "policy")):
        after = mrq_params(RECORDED, f"{prefix}/params_after/{group}", module)
        trees_close(state.params[module], after, 2e-5 * step)


def play_all(agent, state, monkeypatch, **changes):
    bursts = 0
    for step in STEPS:
        state, feedback, metrics = play(agent, state, step, monkeypatch, **changes)
        bursts += PERIOD if RECORDED[f"step_{step}/refreshed"] else 0
        check_step(step, bursts, state, feedback, metrics)
    assert bursts


def test_every_step_equals_the_reference_program(monkeypatch):
    play_all(*agent_and_state(), monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["no clip", "no refresh of scales", "no terminations"])
def test_the_recording_notices_a_broken_program(broken, monkeypatch):
    """Each of these must fail the comparison, or it would not see such a fault either."""
    agent, state = agent_and_state(**({"max_grad_norm": 1e9} if broken == "no clip" else {}))
    if broken == "no refresh of scales":
        monkeypatch.setattr(
            recordings.RecordedView, "mean_absolute_reward", lambda _: state.reward_scale
        )
    alive = jnp.zeros(RECORDED["step_1/rl_batch/not_done"].shape[:2], bool)
    changes = {"terminated": alive} if broken == "no terminations" else {}
    with pytest.raises(AssertionError):
        play_all(agent, state, monkeypatch, **changes)


def test_rewards_count_until_the_episode_ends_and_no_further(monkeypatch):
    """Step 1 with rewards at and behind the ends, against the form that counts to the end."""
    agent, state = agent_and_state()
    reward = jnp.asarray(RECORDED["ends/reward"][..., 0])
    _, feedback, metrics = play(agent, state, 1, monkeypatch, reward=reward)
    close(metrics["critic/loss"], RECORDED["ends/until_termination/value_loss"])
    norm = RECORDED["ends/until_termination/value_gradient_norm"]
    close(metrics["critic/gradient_norm"], norm)
    error = RECORDED["ends/until_termination/error"]
    close(feedback.priorities, np.maximum(error, 1.0) ** 0.4)
    assert abs(RECORDED["ends/published/value_loss"] - metrics["critic/loss"]) > 1e-2


def test_returns():
    reward, not_done = (RECORDED[f"returns/{name}"][..., 0] for name in ("reward", "not_done"))
    returns, bootstrap = n_step_return(jnp.asarray(reward), jnp.asarray(not_done == 0), 0.99)
    close(returns, RECORDED["returns/return_until_termination"][:, 0])
    close(bootstrap, RECORDED["returns/mask"][:, 0] * 0.99 ** reward.shape[1])
