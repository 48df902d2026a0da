"""Every agent solves the probe environments, whose values and best actions are known exactly."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_runs import small_config, start_run

from mst_jax.agents import AGENTS
from mst_jax.agents.actor_critic.ddpg import build_ddpg
from mst_jax.agents.actor_critic.sac import build_sac
from mst_jax.agents.mr.mrq import build_mrq
from mst_jax.agents.mr.mrsac import build_mrsac
from mst_jax.envs.suites import probe

FAST = {"critic__learning_rate": 1e-3, "actor__learning_rate": 1e-3, "buffer_size": 1000}
MR = {**FAST, "discount": 0.9, "target_period": 25, "encoder__learning_rate": 1e-3}
SIMBA = {**FAST, "discount": 0.9, "tau": 0.02}
# Next to no entropy in the values, so that they are those of the environment.
COLD = {"temperature__initial": 1e-3, "temperature__learning_rate": 1e-9}
SETTINGS = {
    "mrq": MR,
    "mrsac": {**MR, **COLD},
    "sac": {**SIMBA, **COLD},
    "ddpg": SIMBA,
}


def mr_value(agent, state, observation, action):
    core = agent.core
    zs = core.encoder.zs(state.params["encoder"], observation)
    zsa = core.encoder.zsa(state.params["encoder"], zs, action)
    return core.critic.apply(state.params["critic"], zsa).mean(-1) * state.reward_scale


def simba_value(agent, state, observation, action):
    features = agent.core.normalize(state, observation)
    return agent.core.values(state.params["critic"], features, action).mean(-1)


PARTS = {
    "mrq": (build_mrq, mr_value),
    "mrsac": (build_mrsac, mr_value),
    "sac": (build_sac, simba_value),
    "ddpg": (build_ddpg, simba_value),
}
EVERY_AGENT = pytest.mark.parametrize("name", sorted(AGENTS))


def learned(name, env, steps, environments=1):
    """Trains two seeds with MST; returns observations -> values and actions of the policy."""
    config = small_config("mst", name, **SETTINGS[name])
    _, agent, run = start_run(
        env, config, [0, 1], steps, total_steps=steps, agent=name, environments=environments
    )
    build, value_of = PARTS[name]
    parts = build(config, env.spec, steps)

    def of_seed(state, observation):
        action = agent.act(state, observation, None, None)
        return value_of(parts, state, observation, action), action

    return SimpleNamespace(
        run=run,
        ask=lambda observations: jax.vmap(of_seed, (0, None))(
            run.agent, jnp.asarray(observations, jnp.float32)
        ),
    )


def test_every_agent_is_listed():
    assert set(PARTS) == set(SETTINGS) == set(AGENTS)


@EVERY_AGENT
def test_truncation_bootstraps(name):
    case = probe.constant_reward_truncated(length=20)
    values, _ = learned(name, case.env, 1500).ask([[1.0]])
    exact = float(case.value(np.array([1.0]), 0.9))
    assert exact == pytest.approx(10.0)
    np.testing.assert_allclose(values, exact, rtol=0.05)


@EVERY_AGENT
def test_termination_does_not_bootstrap(name):
    case = probe.constant_reward(length=10)
    observations = np.array([[1.0], [0.5], [0.1]])
    values, _ = learned(name, case.env, 2500).ask(observations)
    exact = case.value(observations, 0.9)
    np.testing.assert_allclose(exact, [6.513, 4.095, 1.0], atol=1e-3)
    np.testing.assert_allclose(values, np.broadcast_to(exact, values.shape), atol=0.6)


@pytest.mark.parametrize(
    ("name", "environments"),
    [
        *((name, 1) for name in sorted(AGENTS)),
        ("mrq", 4),
        pytest.param("sac", 4, marks=pytest.mark.slow),
    ],
)
def test_credit_travels_over_two_steps(name, environments):
    """With several environments, whose cues differ: none is paid another's reward."""
    case = probe.delayed_reward(delay=2)
    observations = np.array([[1.0, 1.0], [-1.0, 1.0], [1.0, 0.0], [-1.0, 0.0]])
    values, _ = learned(name, case.env, 2000, environments).ask(observations)
    exact = case.value(observations, 0.9)
    np.testing.assert_allclose(exact, [0.81, -0.81, 1.0, -1.0], atol=1e-6)
    np.testing.assert_allclose(values, np.broadcast_to(exact, values.shape), atol=0.2)


@EVERY_AGENT
def test_the_actor_finds_the_best_action(name):
    _, actions = learned(name, probe.action_reward(length=20).env, 2500).ask([[1.0]])
    np.testing.assert_allclose(actions, probe.BEST_ACTION, atol=0.15)
