"""Every agent's operations against how it acts, in every form."""

import numpy as np
import pytest
from policies import acts, compiled, exported, needs_c, random_agent

from mst_jax.agents import AGENTS
from mst_jax.export import TOLERANCE, largest_difference, load_exported, write_policy
from mst_jax.networks import RESIDUALS

RELATIVES = {"ddpg", "mrsac", "td3"}  # made of the same parts as others
AGENT_NAMES = [
    pytest.param(name, marks=pytest.mark.slow) if name in RELATIVES else name
    for name in sorted(AGENTS)
]


@pytest.mark.parametrize("residual", RESIDUALS)
@pytest.mark.parametrize("name", AGENT_NAMES)
def test_a_file_acts_as_its_agent(name, residual, tmp_path):
    agent, state = random_agent(name, residual)
    act, file = acts(agent, state), exported(agent, state)
    assert largest_difference(file, act) <= TOLERANCE
    observations = np.random.default_rng(1).normal(size=(50, 5)).astype(np.float32)
    wanted = act(observations)
    assert np.unique(wanted).size > 50, "an action that is always the same tells nothing"
    write_policy(file, tmp_path / "policy.npz", "npz")
    played = load_exported(tmp_path / "policy.npz").act(observations)
    np.testing.assert_allclose(played, wanted, rtol=0, atol=TOLERANCE)
