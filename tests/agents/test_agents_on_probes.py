"""Every agent solves the probe environments, whose values and best actions are known exactly."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_runs import small_config, start_run

from mst_jax.agents import AGENTS, default_config
from mst_jax.envs.suites import probe
from mst_jax.names import dotted
from mst_jax.recipes import override

FAST = {"critic__learning_rate": 1e-3, "actor__learning_rate": 1e-3, "buffer_size": 1000}
MR = {**FAST, "discount": 0.9, "target_period": 25, "encoder__learning_rate": 1e-3}
SIMBA = {**FAST, "discount": 0.9, "tau": 0.02}
# Targets that follow every second update take steps twice as large.
DELAYED = {"tau": 0.04}
# Next to no entropy in the values, so that they are those of the environment.
COLD = {"temperature__initial": 1e-3, "temperature__learning_rate": 1e-9}
SLOW = {"ddpg"}  # TD3 is made of its parts
NAMES = [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in sorted(AGENTS)]
EVERY_AGENT = pytest.mark.parametrize("name", NAMES)


def fast_config(name):
    """Settings with which an agent learns a probe in some thousand updates."""
    known = dotted(default_config(name))
    changes = {**(MR if "target_period" in known else SIMBA), **COLD}
    changes |= DELAYED if "policy_delay" in known else {}
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    config = small_config("mst", name)
    return override(config, {key: value for key, value in changes.items() if key in known})


def learned(name, env, steps, environments=1):
    """Trains two seeds with MST; returns observations -> values and actions of the policy."""
    config = fast_config(name)
    _, agent, run = start_run(
        env, config, [0, 1], steps, total_steps=steps, agent=name, environments=environments
    )

    def of_seed(state, observation):
        action = agent.act(state, observation, None, None)
        return agent.value(state, observation, action), action

    of_all = jax.vmap(jax.vmap(of_seed, (None, 0)), (0, None))
    return SimpleNamespace(
        run=run,
        ask=lambda observations: of_all(run.agent, jnp.asarray(observations, jnp.float32)),
    )


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
        *((name, 1) for name in sorted(set(AGENTS) - SLOW)),
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
