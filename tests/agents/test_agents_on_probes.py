"""Every agent solves the probe environments, whose values and best actions are known exactly."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_runs import by_default, small_config, start_run

from mst_jax.agents import AGENTS, default_config
from mst_jax.envs import JaxEnv, vector_spec
from mst_jax.envs.suites import probe
from mst_jax.envs.timed import with_time
from mst_jax.names import dotted
from mst_jax.program.state import Purpose, keys_for, seed_keys
from mst_jax.recipes import override

FAST = {"critic__learning_rate": 1e-3, "actor__learning_rate": 1e-3, "buffer_size": 1000}
MR = {**FAST, "discount": 0.9, "target_period": 25, "encoder__learning_rate": 1e-3}
SIMBA = {**FAST, "discount": 0.9, "tau": 0.02}
# Targets that follow every second update take steps twice as large.
DELAYED = {"tau": 0.04}
# Next to no entropy in the values, so that they are those of the environment.
COLD = {"temperature__initial": 1e-3, "temperature__learning_rate": 1e-9}
STREAMING = {"stream_ac"}  # to which a truncation is an end
PICTURES = {"der", "drqv2"}  # test_der.py and test_drqv2.py have probes for them
EVERY_AGENT = pytest.mark.parametrize(
    "name", by_default({"sac"}, sorted(AGENTS.keys() - STREAMING - PICTURES))
)


def fast_config(name):
    """Settings with which an agent learns a probe in some thousand updates."""
    known = dotted(default_config(name))
    changes = {**(MR if "target_period" in known else SIMBA), **COLD}
    changes |= DELAYED if "policy_delay" in known else {}
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    config = small_config("mst", name)
    return override(config, {key: value for key, value in changes.items() if key in known})


class Case(NamedTuple):
    """A probe for agents whose observations are padded to two numbers."""

    probe: probe.KnownTask
    observations: np.ndarray


CASES = {
    "action": Case(probe.action_reward(length=20), np.array([[1.0]])),
    "truncated": Case(probe.constant_reward_truncated(length=20), np.array([[1.0]])),
    "terminated": Case(probe.constant_reward(length=10), np.array([[1.0], [0.5], [0.1]])),
    "delayed": Case(
        probe.delayed_reward(delay=2),
        np.array([[1.0, 1.0], [-1.0, 1.0], [1.0, 0.0], [-1.0, 0.0]]),
    ),
}
TIMED = probe.action_reward(length=4)
STREAM_CASES = {  # without the time an end that comes of itself would be noise
    "action": Case(TIMED._replace(env=with_time(TIMED.env)), np.array([[1.0, -0.5], [1.0, 0.25]])),
    "terminated": CASES["terminated"],
    "delayed": CASES["delayed"],
}
OWN = [0, 1]  # seeds of each case


class Cases(NamedTuple):
    """State of `all_cases`."""

    number: jax.Array
    states: tuple

    @property
    def errors(self):
        return sum(state.errors for state in self.states)


def padded(observation):
    return jnp.pad(
        observation, [(0, 0)] * (observation.ndim - 1) + [(0, 2 - observation.shape[-1])]
    )


def all_cases(seeds, cases=CASES):
    """One environment whose key decides which case it is: seed i of many has case i // 2.

    All are stepped, and one is shown: they take next to no time, and one program compiles sooner
    than four.
    """
    keys = keys_for(seed_keys(seeds), Purpose.ENVIRONMENT)
    known, parts = jax.random.key_data(keys), [case.probe.env for case in cases.values()]

    def chosen(number, options):
        return jax.tree.map(lambda *leaves: jnp.stack(leaves)[number], *options)

    def reset(key):
        number = (known == jax.random.key_data(key)).all(axis=1).argmax() // len(OWN)
        states, observations = zip(*(env.reset(key) for env in parts), strict=True)
        return Cases(number, states), chosen(number, [padded(one) for one in observations])

    def step(state, action):
        number, states = state
        made = [env.step(own, action) for env, own in zip(parts, states, strict=True)]
        timesteps = [
            row._replace(
                observation=padded(row.observation), next_observation=padded(row.next_observation)
            )
            for _, row in made
        ]
        return Cases(number, tuple(own for own, _ in made)), chosen(number, timesteps)

    return JaxEnv(vector_spec("probe:all", 2, 1, 20), reset, step)


def solved(name, config, cases=CASES, steps=2500):
    """Trains two seeds of every case with MST, in one program; case -> values and actions."""
    seeds = list(range(len(OWN) * len(cases)))
    env = all_cases(seeds, cases)
    _, agent, run = start_run(env, config, seeds, steps, total_steps=steps, agent=name)

    def ask(case):
        first = list(cases).index(case) * len(OWN)
        states = jax.tree.map(lambda leaf: leaf[first : first + len(OWN)], run.agent)
        shown = padded(jnp.asarray(cases[case].observations, jnp.float32))
        return answers(agent, states, shown)

    return ask


def answers(agent, states, observations):
    """Values and actions of policies (S, ...) for observations."""

    def of_seed(state, observation):
        action = agent.act(state, observation, None, None)
        return agent.value(state, observation, action), action

    return jax.vmap(jax.vmap(of_seed, (None, 0)), (0, None))(states, observations)


@EVERY_AGENT
def test_every_probe_is_solved(name):
    """Truncation bootstraps, termination does not, credit travels, the actor climbs."""
    ask = solved(name, fast_config(name))
    _, actions = ask("action")
    np.testing.assert_allclose(actions, probe.BEST_ACTION, atol=0.15)
    exact = exact_values("truncated", [10.0])
    np.testing.assert_allclose(ask("truncated")[0], [exact, exact], rtol=0.05)
    exact = exact_values("terminated", [6.513, 4.095, 1.0])
    np.testing.assert_allclose(ask("terminated")[0], [exact, exact], atol=0.6)
    check_credit(ask("delayed")[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(STREAMING))
def test_a_stream_solves_probes_without_remembering(name):
    """In the same way, but for the truncated one: its values are of the time that is left."""
    config = small_config("mst", name, discount=0.9, actor__kappa=6.0, critic__depth=2)
    config = override(config, {f"{module}.hidden": 32 for module in ("critic", "actor")})
    ask = solved(name, config, STREAM_CASES, steps=10_000)
    np.testing.assert_allclose(ask("action")[1], probe.BEST_ACTION, atol=0.15)
    exact = exact_values("terminated", [6.513, 4.095, 1.0])
    np.testing.assert_allclose(ask("terminated")[0], [exact, exact], atol=0.3)
    check_credit(ask("delayed")[0])


def exact_values(case, expected):
    values = CASES[case].probe.value(CASES[case].observations, 0.9)
    np.testing.assert_allclose(values, expected, atol=1e-3)
    return values


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mrq", "sac"])
def test_credit_with_several_environments(name):
    """Their cues differ: none is paid another's reward."""
    env, config = CASES["delayed"].probe.env, fast_config(name)
    _, agent, run = start_run(env, config, OWN, 2000, total_steps=2000, agent=name, environments=4)
    shown = jnp.asarray(CASES["delayed"].observations, jnp.float32)
    check_credit(answers(agent, run.agent, shown)[0])


def check_credit(values):
    exact = exact_values("delayed", [0.81, -0.81, 1.0, -1.0])
    np.testing.assert_allclose(values, np.broadcast_to(exact, values.shape), atol=0.2)
