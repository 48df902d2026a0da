"""Every agent's operations against how it acts, in every form."""

import functools

import numpy as np
import pytest
from policies import acts, compiled, exported, needs_c, random_agent
from small_runs import by_default

from mst_jax.agents import AGENTS
from mst_jax.agents.actor_critic.ddpg import DDPG
from mst_jax.export import TOLERANCE, largest_difference, load_exported, write_policy
from mst_jax.networks import RESIDUALS

RELATIVES = {"ddpg", "mrsac", "td3"}  # made of the same parts as others
NOT_WRITTEN = {"der", "drqv2"}  # convolutions are no operations
EVERY_AGENT = pytest.mark.parametrize(
    "name", by_default(AGENTS.keys() - RELATIVES, sorted(AGENTS.keys() - NOT_WRITTEN))
)
EVERY_RESIDUAL = pytest.mark.parametrize("residual", RESIDUALS)
OBSERVATIONS = np.random.default_rng(1).normal(size=(50, 5)).astype(np.float32)


@functools.cache
def policy_of(name, residual):
    """How an agent acts, its actions for `OBSERVATIONS`, and its policy as a file."""
    agent, state = random_agent(name, residual)
    act = acts(agent, state)
    return act, act(OBSERVATIONS), exported(agent, state)


@EVERY_RESIDUAL
@EVERY_AGENT
def test_a_file_of_numpy_acts_as_its_agent(name, residual, tmp_path):
    act, wanted, file = policy_of(name, residual)
    assert largest_difference(file, act) <= TOLERANCE
    assert np.unique(wanted).size > 50, "an action that is always the same tells nothing"
    write_policy(file, tmp_path / "policy.npz", "npz")
    played = load_exported(tmp_path / "policy.npz").act(OBSERVATIONS)
    np.testing.assert_allclose(played, wanted, rtol=0, atol=TOLERANCE)


@needs_c
@EVERY_RESIDUAL
@EVERY_AGENT
def test_a_file_of_c_acts_as_its_agent(name, residual, tmp_path):
    _, wanted, file = policy_of(name, residual)
    policy = compiled(file, tmp_path)
    played = np.stack([policy.act(observation) for observation in OBSERVATIONS])
    np.testing.assert_allclose(played, wanted, rtol=0, atol=TOLERANCE)


def test_what_an_agent_does_not_normalise_is_not_shifted():
    agent, state = random_agent("sac", normalize_observations=False)
    assert type(agent.operations(state)[0]).__name__ == "Dense"
    assert largest_difference(exported(agent, state), acts(agent, state)) <= TOLERANCE


def test_operations_that_are_not_what_the_agent_does_are_found(monkeypatch):
    monkeypatch.setattr(
        DDPG, "operations", lambda self, state: self.actor.operations(state.params["actor"])
    )
    agent, state = random_agent("ddpg")
    assert largest_difference(exported(agent, state), acts(agent, state)) > 0.1
