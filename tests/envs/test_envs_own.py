"""Environments of a user's own: dotted names, and what `check` says of broken contracts."""

import functools
import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from broken_host_envs import Both, Careless, Gymnasiums, Hopeless, Informed, Lives, Wrong
from fake_host_envs import Counter, Endless, Faulty

from mst_jax import envs
from mst_jax.agents import default_config
from mst_jax.envs import Continuous, Discrete, Observation, host_task, vector_spec
from mst_jax.envs.device.episodic import Simulation, episodic
from mst_jax.runs import Settings
from mst_jax.training import jobs

OWN = """
import functools
import jax.numpy as jnp
from fake_host_envs import Counter
from mst_jax.envs import host_task, vector_spec
from mst_jax.envs.device.episodic import Simulation, episodic

CONSTANT = 3

def counter():
    return host_task(Counter.spec, Counter)

def drift(action_repeat=2):
    simulation = Simulation(
        lambda key: jnp.zeros(1),
        lambda world: world,
        lambda world, action: (world + action, -world[0], jnp.zeros((), bool)),
    )
    return episodic(vector_spec("whatever", 1, 1, 10, action_repeat), simulation)

def raises():
    raise OSError("no such\\nasset")

def nothing():
    return None
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A package of the user's own, `dmc` among its modules, on the path."""
    (tmp_path / "my_pkg").mkdir()
    (tmp_path / "my_pkg" / "envs.py").write_text(OWN)
    (tmp_path / "my_pkg" / "broken.py").write_text("import no_such_package")
    (tmp_path / "flat_module.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [n for n in sys.modules if n.split(".")[0] in ("my_pkg", "flat_module")]:
        del sys.modules[name]


def test_a_dotted_name_is_a_task(own):
    for name in ("my_pkg.envs:drift", "flat_module:drift"):
        assert envs.make(name).spec == vector_spec(name, 1, 1, 10, 2)
    assert envs.make("my_pkg.envs:drift", action_repeat=3).spec.action_repeat == 3
    assert envs.check("my_pkg.envs:drift") == []
    assert envs.check("my_pkg.envs:counter", steps=40) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_pgk.envs:drift", "there is no module 'my_pgk'"),
        ("my_pkg.env:drift", "there is no module 'my_pkg.env'"),
        ("my_pkg.broken:drift", "importing my_pkg.broken fails: ModuleNotFoundError: No module"),
        ("my_pkg.envs:drfit", "my_pkg.envs has no 'drfit': did you mean drift?"),
        ("my_pkg.envs:CONSTANT", "is an int, not a function"),
        ("my_pkg.envs:raises", "fails: OSError: no such; asset"),
        ("my_pkg.envs:nothing", "returns a NoneType, not a JaxEnv or HostTask"),
        ("dcm:cartpole-swingup", "unknown suite 'dcm': did you mean dmc?"),
    ],
)
def test_what_cannot_be_found_is_one_line(own, name, message):
    with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
        envs.make(name)
    assert message in str(caught.value)


def drifting(spec=None, start=None, observe=None, advance=None):
    simulation = Simulation(
        start or (lambda key: jnp.zeros(1)),
        observe or (lambda world: world),
        advance or (lambda world, action: (world + action, world[0], jnp.zeros((), bool))),
    )
    return episodic(spec or vector_spec("own:drift", 1, 1, 10), simulation)


def unlike(env, **changes):
    """An environment whose timesteps have other fields."""

    def step(state, action):
        state, timestep = env.step(state, action)
        return state, timestep._replace(**{k: change(timestep) for k, change in changes.items()})

    return env._replace(step=step)


def over_for_nothing(timestep):
    return jnp.ones_like(timestep.over)


JAX_FAULTS = [
    (drifting(vector_spec("own:drift", 2, 1, 10)), "the first observation is float32[1], expected"),
    (drifting(advance=lambda world, action: world[3, 4]), "cannot be traced: "),
    (
        unlike(drifting(), reward=lambda t: t.reward[None]),
        "reward is float32[1], expected",
    ),
    (unlike(drifting(), reward=lambda t: t.reward / 0 * 0), "reward is not finite"),
    (unlike(drifting(), over=over_for_nothing), "is over without being terminated or truncated"),
    (unlike(drifting(), observation=lambda t: t.observation + 1), "although no episode ended"),
    (
        drifting(vector_spec("own:drift", 1, 1, None))._replace(spec=drifting().spec),
        "an episode is longer than spec.episode_length=10",
    ),
    (
        drifting()._replace(step=lambda state, action: (state, jnp.zeros(()))),
        "beside the state, not a Timestep",
    ),
    (
        drifting()._replace(
            step=lambda state, action: (state.world, drifting().step(state, action)[1])
        ),
        "a state of other types or shapes than reset",
    ),
    (
        drifting(observe=lambda world: jnp.where(world == 0, world, jnp.nan)),
        "steps were lost: something was not finite",
    ),
]


@pytest.mark.parametrize(("env", "line"), JAX_FAULTS, ids=[line[:30] for _, line in JAX_FAULTS])
def test_a_jax_environment_that_breaks_the_contract(env, line):
    found = envs.check(env, steps=30)
    assert any(line in problem for problem in found), found
    assert not any("\n" in problem for problem in found)


HOST_FAULTS = [
    (host_task(Counter.spec, Careless), "going on from a snapshot led to something else"),
    (host_task(Counter.spec, Wrong), "an observation has shape (1,), the task's spec says (3,)"),
    (host_task(Counter.spec, Gymnasiums), "an observation is a tuple, not an array; reset returns"),
    (host_task(Counter.spec, Informed), "step returns a dict among its flags"),
    (host_task(Counter.spec, Both), "a step is terminated and truncated"),
    (host_task(Counter.spec, Endless), "an episode is longer than spec.episode_length=8"),
    (
        host_task(Counter.spec, functools.partial(Faulty, {(0, 0, 1, 1): "NaN reward"})),
        "1 of 120 steps were lost; the first: fake:counter, seed 0, environment 0, episode 1: ",
    ),
]


@pytest.mark.parametrize(("task", "line"), HOST_FAULTS, ids=[line[:30] for _, line in HOST_FAULTS])
def test_a_host_environment_that_breaks_the_contract(task, line):
    found = envs.check(task, steps=40)
    assert any(line in problem for problem in found), found


def test_of_a_host_environment_that_always_fails_one_line_says_why(capsys):
    (found,) = envs.check(host_task(Counter.spec, Hopeless), steps=40)
    assert "120 of 120 steps were lost; the first: fake:counter, seed 0, environment 0," in found
    assert "RuntimeError: no simulator (broken_host_envs.py:" in found
    assert capsys.readouterr().out == ""


def test_a_lost_life_is_no_fault_and_empties_the_history():
    task = host_task(Lives.spec, Lives)
    assert envs.check(task, steps=40) == []
    with task.vector([(0, 0)]) as env:
        env.reset()
        env.step(np.array([1], np.int32))
        step = env.step(np.array([2], np.int32))
    assert (step.terminated, step.over, step.reward) == (True, False, 2.0)
    np.testing.assert_array_equal(step.next_observation[0], [[1, 1, 2, 2]] * 2)
    np.testing.assert_array_equal(step.observation[0], [[2, 2, 2, 2]] * 2)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"observation": 3}, "spec.observation is an int, not an Observation"),
        ({"observation": Observation(())}, "give at least one axis"),
        ({"observation": Observation((4,), "float64")}, "spec.observation.dtype is 'float64'"),
        ({"observation": Observation((4, 3), history=2)}, "does not hold as many equal parts"),
        ({"observation": Observation((4,), fill="ones")}, "spec.observation.fill is 'ones'"),
        ({"observation": Observation((4,), unscaled=4)}, "spec.observation.unscaled is 4 of 4"),
        ({"action": 2}, "spec.action is an int"),
        ({"action": Discrete(0)}, "there is no action to choose"),
        ({"action": Continuous(2, (0.0,), (1.0,))}, "give a tuple of 2 for each, or neither"),
        ({"action": Continuous(1, high=(1.0,))}, "low and high are None and (1.0,): give a tuple"),
        ({"action": Continuous(1, [0.0], [1.0])}, "low and high are [0.0] and [1.0]: give a tuple"),
        ({"action": Continuous(1, (1.0,), (1.0,))}, "low (1.0,) must be below high (1.0,)"),
        ({"action": Continuous(1, (0.0,), (math.inf,))}, "must be below high (inf,), and all fin"),
        ({"episode_length": 0}, "None stands for no time limit"),
        ({"action_repeat": 0}, "spec.action_repeat is 0"),
    ],
)
def test_a_spec_that_makes_no_sense(changes, line):
    env = drifting()
    (found,) = envs.check(env._replace(spec=env.spec._replace(**changes)))
    assert line in found


def test_a_run_on_a_misshapen_environment_is_refused_before_it_begins(monkeypatch):
    wrong = drifting(spec=vector_spec("own:drift", 2, 1, 10))
    monkeypatch.setattr(jobs, "kept_task", lambda name: wrong)
    with pytest.raises(ValueError, match=r"own:drift': the first observation is float32\[1\]"):
        jobs.prepare(Settings(config=default_config("sac"), task="own:drift"))


def test_the_suites_keep_the_contract():
    assert envs.check("probe:point", steps=120) == []
    assert envs.check("dmc:cartpole-swingup", steps=60) == []
    assert jax.eval_shape(envs.make("probe:point").reset, jax.random.key(0))[1].shape == (4,)
