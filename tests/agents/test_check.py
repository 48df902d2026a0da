"""`agents.check` finds nothing wrong with our agents, and names what is wrong with broken ones."""

import sys

import pytest
from small_runs import small_config, task_of

from mst_jax import agents
from mst_jax.recipes import override

BROKEN = '''
import jax
import jax.numpy as jnp

from mst_jax.agents import SACConfig as Config
from mst_jax.agents.actor_critic.sac import build_sac


OTHER = jax.random.key(7)


def filled(state):
    """Weights everywhere, also outside the masks."""
    return state.replace(params=jax.tree.map(jnp.ones_like, state.params))


def rewired(state, other):
    return state.replace(opt_state=other.opt_state, params=other.params)


def make(config, sizes, total_steps, plans=None):
    own = build_sac(config, sizes, total_steps, plans).agent()
    return own._replace(**CHANGES(own))
'''
CASES = {
    "learn_every=0": "learn_every is 0",
    "discount=1.5": "discount is 1.5, not in [0, 1]",
    "acting=('params/policy',)": "acting names 'params/policy', which is no part of the state",
    "init=lambda key, numbers=None: own.init(jax.random.key(0), numbers)": (
        "two seeds have the same first parameters: init must use its key"
    ),
    "act=lambda s, o, k, c: own.act(s, o, k, c)[:1]": "act returns float32[1], expected float32[2]",
    "learn=lambda s, e, k, c: (s, *own.learn(s, e, k, c)[1:])": (
        "5 calls of learn change no parameter"
    ),
    "reset=lambda s, k: own.reset(own.init(k), k)": "reset changes the masks",
    "recycle=lambda s, a, k, t: filled(s)": "after recycle critic has weights outside its mask",
    "recycle=lambda s, a, k, t: rewired(s, own.init(OTHER))": "recycle changes the masks",
    "recycle=lambda s, a, k, t: s.params": "recycle returns a state of another structure",
}


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """A function: changes of an agent -> what the check finds in it."""
    monkeypatch.syspath_prepend(tmp_path)

    def found(changes):
        source = f"{BROKEN}\n\nCHANGES = lambda own: dict({changes})\n"
        (tmp_path / "broken_agent.py").write_text(source)
        monkeypatch.delitem(sys.modules, "broken_agent", raising=False)
        own = {"critic.hidden": 16, "actor.hidden": 8, "critic.depth": 1, "batch_size": 16}
        sparse = {f"{m}.{k}": v for m in ("critic", "actor") for k, v in SPARSE.items()}
        return agents.check("broken_agent", override(agents.SACConfig(), {**own, **sparse}))

    yield found
    sys.modules.pop("broken_agent", None)


SPARSE = {"regime": "static", "sparsity": 0.5}


@pytest.mark.slow
@pytest.mark.parametrize("agent", agents.AGENTS)
def test_ours_keep_the_contract(agent):
    assert agents.check(agent, small_config("mst", agent), task_of(agent).spec) == []


@pytest.mark.parametrize("changes", ["learn_every=0", "discount=1.5"])
def test_wrong_fields_are_told_before_anything_runs(broken, changes):
    assert broken(changes) == [CASES[changes]]


@pytest.mark.slow
@pytest.mark.parametrize("changes", list(CASES)[2:])
def test_what_is_wrong_is_a_line(broken, changes):
    problems = broken(changes)
    assert any(problem.startswith(CASES[changes]) for problem in problems), problems
    assert not any("\n" in problem for problem in problems)
