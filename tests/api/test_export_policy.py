"""A run's policy as a file, from Python and from the launchers."""

import json
import shutil

import numpy as np
import pytest
from launchers import run

import mst_jax
from mst_jax.api import exporting
from mst_jax.training import policy as policies


def test_a_run_is_exported_played_and_evaluated(finished_run, tmp_path):
    """What the file earns is what the run's policy earns on the same episodes."""
    path = tmp_path / "policy.npz"
    done = run("experiments.export", finished_run, path, "--seed=1")
    assert done.status == 0, done.err
    assert done.out.splitlines()[0] == (
        f"probe:point, {mst_jax.load(finished_run).settings.folder_name}, seed 1, step 120"
    )
    assert f"{path.stat().st_size:,} bytes" in done.out
    own, policy = mst_jax.load_policy(finished_run, 1), mst_jax.load_exported(path)
    observations = np.random.default_rng(0).normal(size=(20, 4))
    np.testing.assert_allclose(policy.act(observations), own.act(observations), atol=1e-5)
    played = run("experiments.evaluate", f"--policy={path}", "--episodes=3")
    assert played.status == 0, played.err
    found = json.loads((tmp_path / "policy.npz.evaluation.json").read_text())
    assert (found["task"], found["seed"], found["step"]) == ("probe:point", 1, 120)
    copy = shutil.copytree(finished_run, tmp_path / "run")
    assert run("experiments.evaluate", copy, "--episodes=3").status == 0
    wanted = json.loads((copy / "evaluation.json").read_text())["returns"]["1"]
    np.testing.assert_allclose(found["returns"]["1"], wanted, rtol=1e-4)
    again = run("experiments.export", finished_run, path)
    assert (again.status, again.out) == (1, "")
    assert again.err == f"error: {path} exists: choose another name, or set overwrite\n"
    assert run("experiments.export", finished_run, path, "--overwrite").status == 0
    assert mst_jax.load_exported(path).description["source"]["seed"] == 0


def test_what_an_export_says_of_itself(finished_run, tmp_path):
    whole, half, source = (
        mst_jax.export_policy(finished_run, tmp_path / name, dtype=dtype)
        for name, dtype in (
            ("policy.npz", "float32"),
            ("half.npz", "float16"),
            ("policy.c", "float32"),
        )
    )
    assert whole.difference <= 1e-5 < half.difference < 0.1
    assert half.bytes < whole.bytes
    assert [path.name for path in whole.paths] == ["policy.npz", "play_policy.py"]
    assert [path.name for path in source.paths] == ["policy.c"]
    snapshot = policies.load_snapshot(finished_run)
    zeros = [~mask[0] for name, mask in snapshot.masks.items() if name.startswith("actor/")]
    absent = whole.parameters - whole.active
    assert 0 < sum(mask.sum() for mask in zeros) <= absent < 0.9 * whole.parameters
    assert whole.description["deterministic"]
    assert whole.description["source"]["policy"] == "last"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"units": "degrees"}, "units 'degrees' is unknown"),
        ({"units": "task"}, "probe:point has no action range of its own"),
        ({"seed": 7}, "this run holds the seeds"),
        ({"form": "c"}, r"policy.npz does not end in .c"),
    ],
)
def test_what_cannot_be_exported(finished_run, tmp_path, options, match):
    with pytest.raises(ValueError, match=match):
        mst_jax.export_policy(finished_run, tmp_path / "policy.npz", **options)
    assert not list(tmp_path.iterdir())


def test_the_best_policy_of_a_seed(finished_run, tmp_path):
    path = tmp_path / "best.npz"
    done = mst_jax.export_policy(finished_run, path, best=True)
    assert done.description["source"]["policy"] == "best"
    observation = np.full(4, 0.3, np.float32)
    wanted = mst_jax.load_policy(finished_run, best=True).act(observation)
    np.testing.assert_allclose(mst_jax.load_exported(path).act(observation), wanted, atol=1e-5)


def test_agents_whose_operations_are_others_or_none(finished_run, tmp_path, monkeypatch):
    snapshot = policies.load_snapshot(finished_run)
    for operations, match in (
        (lambda state: snapshot.agent.operations(state)[:-1], "its operations are not what evalu"),
        (lambda state: ["tanh"], "the agent's operations hold a str, and only those of"),
        (None, "agent 'sac' does not write its policies as operations"),
    ):
        other = snapshot._replace(agent=snapshot.agent._replace(operations=operations))
        monkeypatch.setattr(exporting, "load_snapshot", lambda *_, other=other: other)
        with pytest.raises(ValueError, match=match):
            mst_jax.export_policy(finished_run, tmp_path / "policy.npz")
    assert not list(tmp_path.iterdir())


def test_files_that_the_evaluation_refuses(finished_run, tmp_path):
    path = tmp_path / "policy.npz"
    mst_jax.export_policy(finished_run, path)
    for arguments, match in (
        ((f"--policy={path}", "--task=probe:constant_reward"), "the policy takes 4 numbers, and"),
        ((f"--policy={path}", finished_run), "--policy plays one file"),
        ((f"--policy={tmp_path / 'absent.npz'}",), "No such file or directory"),
        ((finished_run, "--task=probe:point"), "--task goes with --policy"),
    ):
        ended = run("experiments.evaluate", *arguments)
        assert (ended.status, ended.out) == (1, "")
        assert ended.err.startswith("error: ")
        assert match in ended.err
        assert ended.err.count("\n") == 1
