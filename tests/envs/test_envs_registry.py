"""Names: what is made, what is refused, and with which words."""

import sys

import pytest

from mst_jax import envs
from mst_jax.envs import registry


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (
            "cartpole-swingup",
            f"must read 'suite:name'; suites are {', '.join(registry.SUITES)}",
        ),
        ("dm:cartpole-swingup", "unknown suite 'dm': did you mean dmc?"),
        (
            "nintendo:pong",
            f"unknown suite 'nintendo': there are {', '.join(registry.SUITES)}",
        ),
        ("dmc:cartpole-swingpu", "unknown task 'cartpole-swingpu' in suite 'dmc': did you mean "),
        ("dmc:cartpole_swingup", "did you mean cartpole-swingup"),
        ("probe:xyz", "unknown task 'xyz' in suite 'probe': there are constant_reward, "),
        ("dmc:", "unknown task '' in suite 'dmc': there are acrobot-swingup, "),
    ],
)
def test_unknown_names_say_what_exists(task, message):
    with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
        envs.make(task)
    assert message in str(caught.value)


def test_tasks_of_every_suite_have_their_own_names():
    expected = ["atari", "brax", "dmc", "dmc_pixels", "envpool", "gym", "playground", "probe"]
    assert sorted(envs.SUITES) == expected
    names = envs.tasks("dmc")
    assert {"dog-run", "ball_in_cup-catch", "humanoid_CMU-run", "cartpole-swingup"} <= set(names)
    assert len(names) == len(set(names)) > 50
    assert "point" in envs.tasks("probe")
    with pytest.raises(ValueError, match="unknown suite"):
        envs.tasks("dmv")


def test_make_returns_one_of_the_two_protocols():
    host, device = envs.make("dmc:cartpole-swingup"), envs.make("probe:point")
    assert isinstance(host, envs.HostTask)
    assert isinstance(device, envs.JaxEnv)
    same_length = envs.vector_spec("dmc:cartpole-swingup", 5, 1, 500, 2)._replace(ends_early=False)
    assert host.spec == same_length
    assert device.spec == envs.vector_spec("probe:point", 4, 2, 100, 1)


def test_action_repeat():
    assert envs.make("dmc:cartpole-swingup", action_repeat=4).spec[3:5] == (250, 4)
    with pytest.raises(ValueError, match="at least 1; got 0"):
        envs.make("dmc:cartpole-swingup", action_repeat=0)
    with pytest.raises(ValueError, match="probe environments have action repeat 1; got 2"):
        envs.make("probe:point", action_repeat=2)


def test_a_missing_package_is_named_with_its_remedy(monkeypatch):
    monkeypatch.delitem(sys.modules, "mst_jax.envs.suites.dmc", raising=False)
    monkeypatch.setitem(sys.modules, "dm_control", None)
    with pytest.raises(ValueError, match=r"'dmc' needs the package 'dm_control': pip install"):
        envs.make("dmc:cartpole-swingup")


@pytest.mark.parametrize(
    ("task", "package"),
    [
        ("atari:Pong", "ale_py"),
        ("gym:Ant-v5", "gymnasium"),
        ("envpool:dog-run", "envpool"),
        ("playground:WalkerWalk", "mujoco_playground"),
    ],
)
def test_an_optional_package_is_named_with_its_extra(task, package, monkeypatch):
    suite = task.partition(":")[0]
    monkeypatch.delitem(sys.modules, f"mst_jax.envs.suites.{suite}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=rf"'{package}': pip install 'mst_jax\[{suite}\]'"):
        envs.make(task)


def test_a_suite_is_one_module_and_one_line(monkeypatch):
    monkeypatch.setitem(registry.SUITES, "mine", registry.Suite("fake_suite", "pip install mine"))
    assert envs.tasks("mine") == ["nothing"]
    assert envs.make("mine:nothing", action_repeat=3) == ("nothing", 3)
