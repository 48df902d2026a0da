"""Regimes, agents and optimizers of a user's own, by dotted names in settings."""

import sys

import jax
import jax.numpy as jnp
import pytest
from small_runs import small_config

from mst_jax import agents
from mst_jax.agents import Sizes, make_agent
from mst_jax.recipes import override

OWN = """
import jax.numpy as jnp

from mst_jax import topology

def half(*, sparsity, interval, start, end, drop_fraction):
    return topology.static(sparsity / 2)

def whole(**settings):
    raise ValueError("no such\\nthing")

def nothing(**settings):
    return None

def moving(**own):
    def make(*, sparsity, interval, start, end, drop_fraction):
        given = {"sparsity": topology.schedules.constant(sparsity), **own}
        timing = topology.Timing(interval, interval, end)
        drop = topology.schedules.constant(drop_fraction)
        return topology.Regime("mine", timing=timing, drop=drop, **given)
    return make

fine = moving(drop_score=lambda leaf: jnp.abs(leaf.weight * leaf.gradient))
misspelt = moving(drop_score=lambda leaf: leaf.weigth)
per_neuron = moving(grow_score=lambda leaf: leaf.gradient.sum(axis=0))
no_number = moving(sparsity=lambda step: 1 / 0)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the user's own, on the path."""
    (tmp_path / "my_regimes.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("my_regimes", None)


def plan_of(regime):
    config = small_config("dense", "sac", critic__regime=regime, critic__sparsity=0.8)
    return make_agent("sac", config, Sizes.vector(4, 2), 10_000).plans["critic"]


def test_a_dotted_name_is_a_regime(own):
    (table,) = plan_of("my_regimes:half").tables
    (static,) = plan_of("static").tables
    dense = static.target.sum() / 0.2
    assert table.target.sum() == pytest.approx(0.6 * dense, abs=1)


def test_a_regime_that_rewires_is_traced_and_planned(own):
    assert "mine" in plan_of("my_regimes:fine").names.values()


@pytest.mark.parametrize(
    ("regime", "message"),
    [
        ("my_regimes:hafl", "my_regimes has no 'hafl': did you mean half?"),
        ("my_regime:half", "critic.regime='my_regime:half' is unknown"),
        ("my_pkg.regimes:half", "critic.regime 'my_pkg.regimes:half': there is no module 'my_pkg'"),
        ("my_regimes:whole", "critic.regime=my_regimes:whole: no such; thing"),
        ("my_regimes:nothing", "made a NoneType, not a topology.Regime"),
        ("my_regimes:misspelt", "critic.regime=my_regimes:misspelt fails: AttributeError: 'Leaf'"),
        ("my_regimes:per_neuron", "fails: ValueError: scores have shape ("),
        ("my_regimes:no_number", "fails: ZeroDivisionError: division by zero"),
        ("rgil", "critic.regime='rgil' is unknown: did you mean rigl?"),
    ],
)
def test_what_is_no_regime_is_one_line(own, regime, message):
    with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
        plan_of(regime)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        ("lambda config: None", "agent 'my_lab.agent': make fails: TypeError: "),
        ("lambda *given: 1 / 0", "make fails: ZeroDivisionError: division by zero"),
        ("lambda *given: None", "make returned a NoneType, not an agents.Agent"),
    ],
)
def test_an_agent_that_cannot_be_made_is_one_line(make, message, tmp_path, monkeypatch):
    (tmp_path / "my_lab").mkdir()
    (tmp_path / "my_lab" / "agent.py").write_text(
        f"from mst_jax.agents import SACConfig as Config\nmake = {make}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("my_lab", "my_lab.agent"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (found,) = agents.check("my_lab.agent")
    assert message in found
    assert "\n" not in found
    with pytest.raises(ValueError, match=message.partition(":")[0]):
        make_agent("my_lab.agent", agents.SACConfig(), Sizes.vector(4, 2), 10_000)
    for name in ("my_lab", "my_lab.agent"):
        sys.modules.pop(name, None)


STEPS = """
from typing import Any, NamedTuple

import jax
import optax

from mst_jax.agents.parts.obgd import obgd
from mst_jax.agents.parts.optimizers import Optimizer

class State(NamedTuple):
    step_size: Any

def unbounded(config):
    def update(updates, state, params=None, *, td_error, **_):
        return jax.tree.map(lambda g: state.step_size * td_error * g, updates), state
    return optax.GradientTransformationExtraArgs(lambda params: State(0.1), update)

def halved(config):
    own = obgd(1.0, kappa=config.kappa, trace_decay=config.trace_decay)
    return optax.chain(own, optax.inject_hyperparams(optax.scale)(step_size=0.5))

ALL = ("td_error", "discount", "reset")
plain, chained = Optimizer(unbounded, ("td_error",)), Optimizer(halved, ALL)
deaf = Optimizer(halved, ("td_error",))
none = Optimizer(lambda config: None, ALL)
broken = Optimizer(lambda config: 1 / 0, ALL)
"""


def stream_agent(name, tmp_path, monkeypatch):
    (tmp_path / "my_steps.py").write_text(STEPS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_steps", raising=False)
    config = override(agents.default_config("stream_ac"), {"actor.optimizer": f"my_steps:{name}"})
    return make_agent("stream_ac", config, Sizes.vector(4, 2), 1_000)


@pytest.mark.parametrize(("name", "noted"), [("plain", False), ("chained", True)])
def test_an_optimizer_of_ones_own_steps_along_td_errors(name, noted, tmp_path, monkeypatch):
    """Whatever else its state holds; what is noted of a step is that of `obgd` or nothing."""
    agent = stream_agent(name, tmp_path, monkeypatch)
    zero, no = jnp.zeros(1), jnp.zeros(1, bool)
    latest = agents.Latest(jnp.zeros((1, 4)), jnp.zeros((1, 2)), zero, no, no, jnp.zeros((1, 4)))

    def metrics(key):
        clock = agents.Clock(jnp.int32(0), jnp.int32(0))
        return agent.learn(agent.init(key), agents.Experience(latest, None), key, clock)[2]

    found = jax.eval_shape(metrics, jax.random.key(0))
    assert ("actor/step_size" in found) == noted
    assert "critic/step_size" in found


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("deaf", "fails: TypeError: obgd.<locals>.update() missing 2 required keyword-only arg"),
        ("none", "fails: TypeError: it made a NoneType, not an optax transformation"),
        ("broken", "actor.optimizer='my_steps:broken' fails: ZeroDivisionError: division by zero"),
    ],
)
def test_an_optimizer_that_fails_is_one_line(name, message, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
        stream_agent(name, tmp_path, monkeypatch)
    assert message in str(caught.value)
