"""The launchers as a user meets them: help, errors in one line, settings over recipes."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import launchers
import pytest
from absl import flags
from ml_collections import config_flags
from small_runs import ATARI_SIZES, CLI, sizes_of

from mst_jax.agents import AGENTS, Sizes, default_config, make_agent
from mst_jax.names import dotted
from mst_jax.recipes import ARCHITECTURES, RECIPES, make_config, override
from mst_jax.runs import read_metrics, read_settings


def run(module, *arguments, **variables):
    """A process of its own; `launchers.run` is the same without the seconds of its imports."""
    command = [sys.executable, "-m", f"experiments.{module}", *map(str, arguments)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | variables,
    )


@pytest.mark.parametrize("agent", AGENTS)
def test_every_setting_of_an_agent_can_be_given(agent, monkeypatch):
    config, values = default_config(agent), flags.FlagValues()
    known = {name: value for name, value in dotted(config).items() if value is not None}
    argv = ["", *(f"--config.{name}={value}" for name, value in known.items())]
    monkeypatch.setattr(sys, "argv", argv)  # where the flag looks for what it is to define
    config_flags.DEFINE_config_dataclass("config", config, flag_values=values)
    values(argv)
    assert dotted(values.config) == dotted(config)


REGIMES = {  # of encoder, critic and actor
    "mrq_stock": ("dense", "dense", "dense"),
    "dense": ("dense", "dense", "dense"),
    "mst": ("dense", "rigl", "static"),
    "swap": ("dense", "static", "rigl"),
    "all_static": ("static", "static", "static"),
    "all_rigl": ("rigl", "rigl", "rigl"),
    "gmp": ("gradual_magnitude_pruning",) * 3,
    "growth": ("gradual_growth",) * 3,
    "tar": ("topology_aware_revival",) * 3,
    "set_by_sign": ("set_by_sign",) * 3,
    "snfs_redistributed_adam": ("snfs_redistributed_adam",) * 3,
    "gmp_global": ("gradual_magnitude_pruning_global",) * 3,
    "granet_global": ("granet_global",) * 3,
    "ne_dormancy": ("neuroplastic_expansion_dormancy",) * 3,
    "network_sparsity_parity": (None, "network_sparsity", "network_sparsity"),
    "network_sparsity_streaming": (None, "static", "static"),
    "static_critic": ("dense", "static", "dense"),
    "rnm_2_4": (None, "rigl", "rigl"),
    "rnm_1_4": (None, "rigl", "rigl"),
    "rlx2": (None, "rigl", "rigl"),
}
# Not for noisy layers, whose weights are pairs.
OF_SINGLE_WEIGHTS = {
    *("set_by_sign", "snfs_redistributed_adam", "gmp_global", "granet_global", "ne_dormancy"),
}
IN_PLACE_OF = {"stream_ac": {"rigl": "rigl_averaged"}}


@pytest.mark.parametrize(("agent", "recipe"), [(a, r) for a in RECIPES for r in RECIPES[a]])
def test_every_recipe_builds_its_agent(agent, recipe):
    config = make_config(agent, recipe)
    if agent == "der" and recipe in OF_SINGLE_WEIGHTS:
        with pytest.raises(ValueError, match=r"counts single weights .*; choose another regime"):
            make_agent(agent, config, ATARI_SIZES, 50_000)
        config = override(config, {"noisy": False})
    plans = make_agent(agent, config, sizes_of(agent, Sizes.vector(223, 38)), 50_000).plans
    other = IN_PLACE_OF.get(agent, {})
    regimes = [other.get(regime, regime) for regime in REGIMES[recipe]]
    expected = dict(zip(("encoder", "critic", "actor"), regimes, strict=True))
    for module, plan in plans.items():
        assert getattr(config, module).regime == expected[module]
        used = {regime for regime in plan.names.values() if regime != "dense"}
        assert used == {expected[module]} - {"dense"}


def test_every_agent_has_mst_and_its_rivals():
    rivals = {"mst", "dense", "all_static", "all_rigl", "swap", "gmp", "growth"}
    for agent in AGENTS:
        assert rivals <= set(RECIPES[agent]), agent
    for agent in ("sac", "ddpg", "td3"):
        assert "network_sparsity_parity" in RECIPES[agent]


@pytest.mark.parametrize("name", ["relu", "elu", "relu_ln", "elu_ln", "relu_ln_res", "elu_ln_res"])
def test_the_six_architectures_replace_simba_layer_for_layer(name):
    assert name in ARCHITECTURES
    assert len(ARCHITECTURES) == 6
    config = make_config("sac", "mst", architecture=name)
    for module, depth in ((config.critic, 5), (config.actor, 3)):
        assert module.activation == name.split("_")[0]
        assert module.norm == ("ln" in name)
        assert module.residual == ("pre" if "res" in name else "none")
        assert module.depth == depth
    agent = make_agent("sac", config, Sizes.vector(5, 1), 500_000)
    layers = jax.eval_shape(agent.init, jax.random.key(0)).params["critic"]["q1"]["trunk"]
    assert sorted(layers) == [f"layer_{i}" for i in range(1, 6)]


def test_sizes_by_name_and_by_factor():
    config = make_config("sac", "dense", size="208M")
    shape = [(m.hidden, m.depth) for m in (config.critic, config.actor)]
    assert shape == [(2048, 6), (512, 3)]
    small = make_config("mrq", "mst", size="0.25")
    assert (small.critic.hidden, small.critic.depth, small.zs_size) == (128, 3, 512)
    with pytest.raises(ValueError, match="WIDTHxDEPTH"):
        make_config("sac", "dense", size="huge")
    with pytest.raises(ValueError, match="names a SimBa network"):
        make_config("mrq", "dense", size="17M")
    with pytest.raises(ValueError, match="without hidden units"):
        make_config("sac", "dense", size="0.001x1")


def test_dense_and_mst_share_one_architecture():
    def shape(recipe):
        flat = dotted(make_config("mrq", recipe))
        return {n: v for n, v in flat.items() if not n.endswith(("regime", "sparsity"))}

    assert shape("dense") == shape("mst") == shape("all_rigl") == shape("all_static")
    assert shape("mrq_stock") != shape("dense")
    assert dotted(default_config("mrq")) == dotted(make_config("mrq", "mrq_stock"))


def test_every_agent_has_recipes():
    assert set(RECIPES) == set(AGENTS)


def test_override_copies_and_refuses_unknown_settings():
    base = default_config("mrq")
    changed = override(base, {"critic.sparsity": 0.8, "batch_size": 32})
    assert (changed.critic.sparsity, changed.batch_size) == (0.8, 32)
    assert (base.critic.sparsity, base.batch_size) == (0.0, 256)
    assert dataclasses.is_dataclass(changed.critic)
    with pytest.raises(ValueError, match=r"critic\.sparcity"):
        override(base, {"critic.sparcity": 0.8})


def test_help_is_readable_and_lists_settings_with_the_recipes_values():
    output = run("train", "--recipe=mst", "--help").stdout
    run_flags = ["agent", "task", "recipe", "seeds", "seed", "steps", "logdir", "resume"]
    for flag in [*run_flags, "eval_every", "eval_episodes", "checkpoint_every"]:
        assert f"--{flag}:" in output or f"--[no]{flag}" in output, flag
    assert "--config.critic.sparsity=0.6" in output
    assert "--config.critic.regime=rigl" in output


def test_an_error_is_one_clear_line_in_a_process_of_its_own(tmp_path):
    """Every other one is in test_wrong_inputs.py, without the process."""
    result = run("train", "--task=dmc:cartpole-swingupp", f"--logdir={tmp_path}")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("error: unknown task 'cartpole-swingupp'")
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_settings_win_over_the_recipe(tmp_path, monkeypatch):
    jobs = []

    def stand_in(program):
        jobs.extend(program.jobs)
        return [SimpleNamespace(finished=False, folder=tmp_path, step=0)]

    monkeypatch.setattr("mst_jax.training.train_together", stand_in)
    changes = ["--config.critic.sparsity=0.8", "--config.actor.regime=dense"]
    result = launchers.run(
        "experiments.train",
        "--task=probe:point",
        "--recipe=mst",
        f"--logdir={tmp_path}",
        *CLI,
        *changes,
        "--config.actor.sparsity=0",
    )
    assert result.status == 0, result.err
    (config,) = (job.settings.config for job in jobs)
    assert (config.critic.sparsity, config.critic.regime) == (0.8, "rigl")
    assert (config.actor.sparsity, config.actor.regime) == (0.0, "dense")
    assert config.critic.residual == "simba", "what neither says is the agent's own"


@pytest.mark.slow
def test_varied_settings_are_runs_of_one_program(tmp_path):
    small = ["--task=probe:point", "--steps=100", "--eval_episodes=1", f"--logdir={tmp_path}", *CLI]
    varied = ["--vary=critic.sparsity=0.5,0.8", "--vary=actor.learning_rate=0.001"]
    result = launchers.run("experiments.train", *small, *varied)
    assert result.status == 0, result.err
    names = [f"sac-mst-critic.sparsity={s}-actor.learning_rate=0.001-seeds0-0" for s in (0.5, 0.8)]
    folders = [tmp_path / "probe-point" / name for name in names]
    assert sorted(tmp_path.glob("*/*")) == folders
    for folder, sparsity in zip(folders, (0.5, 0.8), strict=True):
        config = read_settings(folder).config
        assert (config.critic.sparsity, config.actor.learning_rate) == (sparsity, 0.001)
        assert f"experiments.plot {folder}\n" in result.out
    told = [line for line in result.out.splitlines() if line.startswith("finished 100 steps")]
    assert len(set(told)) == 2

    (folders[1] / "fingerprint.txt").unlink()  # as if it had been killed before the end
    result = launchers.run("experiments.train", f"--resume={folders[1]}")
    assert result.status == 0, result.err
    assert told[1] in result.out
    assert told[0] not in result.out


@pytest.mark.slow
def test_varied_structures_are_programs_in_turn(tmp_path):
    small = ["--task=probe:point", "--steps=100", "--eval_episodes=1", f"--logdir={tmp_path}", *CLI]
    result = run("train", *small, "--vary=critic.structure=fan_in,2:4")
    assert result.returncode == 0, result.stderr
    found = {}
    for folder in tmp_path.glob("*/*"):
        critic = read_settings(folder).config.critic
        found[folder.name] = (critic.structure, critic.sparsity)
        assert f"experiments.plot {folder}\n" in result.stdout
    assert found == {
        "sac-mst-critic.structure=fan_in-seeds0-0": ("fan_in", 0.6),
        "sac-mst-critic.structure=2-4-seeds0-0": ("2:4", 0.5),
    }


DIVERGES = """
import gymnasium
from gymnasium.envs.classic_control import PendulumEnv


class Diverges(PendulumEnv):
    def step(self, action):
        if self.state[1] > 1.5:
            raise FloatingPointError("the pendulum has left")
        return super().step(action)


gymnasium.register("Diverges-v0", Diverges, max_episode_steps=40)
"""


@pytest.mark.slow
def test_a_run_past_its_limit_is_one_line_and_goes_on_with_a_larger_one(tmp_path):
    """Faults A5 and D11."""
    (tmp_path / "my_module.py").write_text(DIVERGES)
    path = {"PYTHONPATH": f"{tmp_path}:{Path.cwd()}"}
    task = ["--task=gym:my_module:Diverges-v0", "--steps=120", "--eval_episodes=2"]
    limit = "--max_environment_errors"
    logdir = tmp_path / "runs"
    stopped = run("train", *task, f"{limit}=2", f"--logdir={logdir}", *CLI, **path)
    assert stopped.returncode == 1
    assert "\nTraceback" not in stopped.stderr
    words = "error: environments failed 3 times, more than max_environment_errors=2 (which may be"
    assert stopped.stderr.splitlines()[-1].startswith(words)
    assert "FloatingPointError: the pendulum has left (my_module.py:9)" in stopped.stdout
    (folder,) = logdir.glob("*/*")
    again = run("train", f"--resume={folder}", **path)
    assert again.returncode == 1
    ended = run("train", f"--resume={folder}", f"{limit}=120", **path)
    assert ended.returncode == 0, ended.stderr
    rows = read_metrics(folder / "seed_0")
    assert [row["environment_errors"] for row in rows if row["kind"] == "train"][-1] > 3


def test_evaluate_plot_and_inspect(finished_run):
    finished = finished_run
    evaluated = launchers.run("experiments.evaluate", finished, "--episodes=2")
    assert "seed 1:" in evaluated.out, evaluated.err
    best = launchers.run("experiments.evaluate", finished, "--episodes=3", "--best", "--index=7")
    assert "best policies until step 120" in best.out, best.err
    for name, policy, episodes, index in (  # fault A12
        ("evaluation", "last", 2, 1_000_000),
        ("evaluation_best", "best", 3, 7),
    ):
        written = json.loads((finished / f"{name}.json").read_text())
        returns = written.pop("returns")
        assert [len(returns[seed]) for seed in ("0", "1")] == [episodes] * 2
        assert written == {
            "run": "probe-point/sac-mst-seeds0-1",
            "policy": policy,
            "step": 120,
            "episodes": episodes,
            "index": index,
        }
    plotted = launchers.run("experiments.plot", finished)
    assert str(finished / "learning_curve.png") in plotted.out, plotted.err
    inspected = launchers.run("experiments.inspect", finished, "--seed=1", "--fingerprint")
    assert "critic/q1/trunk/block_1/expand   16 x 64" in inspected.out, inspected.err
    assert "not drawn: Gradient covariance, early and late" in inspected.out
    assert inspected.out.splitlines()[-2] == str(finished / "inspect.html")
    assert (finished / "fingerprint.txt").read_text().strip() in inspected.out
    assert (finished / "inspect.html").is_file()
    for name in ("learning_curve.png", "pictures/masks.png", "pictures/survival.png"):
        assert (finished / name).read_bytes().startswith(b"\x89PNG")
