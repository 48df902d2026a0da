"""Runs that differ in numbers share a program, and each looks as if it had been trained alone."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mst_jax.analysis import read_results
from mst_jax.training import (
    checkpoints,
    load_snapshot,
    make_program,
    plan_resume,
    plan_run,
    program_of,
    read_metrics,
    read_settings,
    resume_together,
    train,
    train_together,
    trainer,
)
from mst_jax.training.arrays import join, split
from tests.small_runs import small_config, small_settings, stop_after

VARIED = {
    "low": {"critic__sparsity": 0.3},
    "high": {"critic__sparsity": 0.8, "critic__drop_fraction": 0.5},
    "fast": {"critic__sparsity": 0.5, "actor__learning_rate": 3e-3},
}


def settings_of(name, **changes):
    config = small_config("mst", "ddpg", **VARIED[name])
    settings = small_settings(agent="ddpg", config=config, history_every=80)
    return dataclasses.replace(settings, recipe=name, **changes)


def jobs_in(logdir, names=VARIED, **changes):
    return [plan_run(settings_of(name, **changes), logdir) for name in names]


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    logdir = tmp_path_factory.mktemp("together")
    return train_together(make_program(jobs_in(logdir, diagnose_every=120, resets=1)))


def test_each_run_is_what_it_is_alone(together, tmp_path):
    """The mapped program rounds otherwise, so what is compared is what rounding cannot change."""
    settings = settings_of("high", diagnose_every=120, resets=1)
    alone = train(plan_run(settings, tmp_path)).folder
    folder = together[1].folder
    assert read_settings(folder) == settings
    here = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    there = {path.relative_to(alone) for path in alone.rglob("*") if path.is_file()}
    orbax_or_events = ("arrays", "events.out")  # names of these files are random
    names = lambda paths: {str(p) for p in paths if not any(n in str(p) for n in orbax_or_events)}  # noqa: E731
    assert names(here) - names(there) == {"program.json"}
    assert names(there) - names(here) == set()
    for seed in range(2):
        rows, same = (read_metrics(f / f"seed_{seed}") for f in (folder, alone))
        assert [(r["step"], r["kind"]) for r in rows] == [(r["step"], r["kind"]) for r in same]
        first, again = rows[0], same[0]
        np.testing.assert_allclose(first["returns"], again["returns"], rtol=1e-4)
        for row, other in zip(rows, same, strict=True):
            assert row.get("sparsity/critic") == other.get("sparsity/critic")
    initial = np.load(folder / trainer.INITIAL_TOPOLOGY), np.load(alone / trainer.INITIAL_TOPOLOGY)
    assert all(np.array_equal(initial[0][name], initial[1][name]) for name in initial[1].files)


def test_runs_differ_in_what_was_varied(together):
    found = {}
    for name, outcome in zip(VARIED, together, strict=True):
        last = [row for row in read_metrics(outcome.folder / "seed_0") if row["kind"] == "train"]
        found[name] = last[-1]["sparsity/critic"]
    assert found["low"] < found["fast"] < found["high"]
    rates = [
        np.unique([a for n, a in full(outcome.folder).items() if "actor" in n and "rate" in n])
        for outcome in together
    ]
    assert rates[2] == pytest.approx([3e-3])
    assert rates[0] == rates[1] == pytest.approx([1e-4])


def test_readers_take_each_folder(together):
    for outcome in together:
        assert {row["seed"] for row in read_results(outcome.folder)} == {0, 1}
        assert load_snapshot(outcome.folder).step == 240
        assert program_of(outcome.folder) == [one.folder for one in together]


def test_stopping_and_resuming_is_exact(together, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(trainer, "_stop_on_signal", stop_after(130))
        jobs = jobs_in(tmp_path, diagnose_every=120, resets=1)
        stopped = train_together(make_program(jobs))
    assert [outcome.finished for outcome in stopped] == [False] * 3
    again = resume_together([outcome.folder for outcome in stopped])
    resumed = train_together(make_program(again))
    assert [one.fingerprint for one in resumed] == [one.fingerprint for one in together]


@pytest.mark.slow
def test_one_run_can_go_on_alone(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(trainer, "_stop_on_signal", stop_after(130))
        stopped = train_together(make_program(jobs_in(tmp_path, ["low", "high"])))
    assert train(plan_resume(stopped[1].folder)).finished
    assert load_snapshot(stopped[1].folder).step == 240


def test_killed_between_checkpoints_goes_on_from_the_common_step(together, tmp_path):
    """The second run's newest checkpoint is lost, as if the process had died before writing it."""
    stores = []
    for outcome in together:
        shutil.copytree(outcome.folder, tmp_path / outcome.folder.name)
        stores.append(tmp_path / outcome.folder.name / "checkpoints")
    newest = checkpoints.load_newest(stores[0], checkpoints.FULL)
    later = {**newest.arrays, checkpoints.CLOCK: np.array(777, np.int32)}
    for store in stores[:2]:
        (store.parent / "fingerprint.txt").unlink()
        checkpoints.save(store, checkpoints.FULL, 777, later, newest.config)
    (stores[2].parent / "fingerprint.txt").unlink()
    jobs = resume_together([store.parent for store in stores])
    assert [job.checkpoint.step for job in jobs] == [240, 240, 240]


def test_killed_before_all_have_a_checkpoint_begins_anew_if_that_is_wanted(together, tmp_path):
    """Rows and policies are there, so it is said what would be lost (fault A2)."""
    for outcome in together:
        shutil.copytree(outcome.folder, tmp_path / outcome.folder.name)
    folders = [tmp_path / outcome.folder.name for outcome in together]
    for folder in folders:
        (folder / "fingerprint.txt").unlink()
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "checkpoint_every": 0}))
    shutil.rmtree(folders[2] / "checkpoints" / "full")
    with pytest.raises(ValueError, match=r"fast.* has no full checkpoint .* up to step 240 and"):
        resume_together(folders)
    jobs = resume_together(folders, begin_anew=True)
    assert [job.checkpoint for job in jobs] == [None] * 3
    (folders[0] / "program.json").unlink()
    with pytest.raises(ValueError, match=r"has no checkpoint and .* continue them one by one"):
        resume_together(folders)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"steps": 400}, "agree in steps"),
        ({"task": "probe:constant_reward"}, "agree in task"),
        ({"config": small_config("all_static", "ddpg")}, "differ in critic.regime"),
        ({"config": small_config("mst", "ddpg", critic__interval=30)}, "in critic.interval"),
    ],
)
def test_what_cannot_share_a_program_is_told(tmp_path, change, told):
    jobs = jobs_in(tmp_path, ["low"])
    other = dataclasses.replace(settings_of("high"), **change)
    with pytest.raises(ValueError, match=told):
        make_program([*jobs, plan_run(other, tmp_path)])
    assert list(tmp_path.iterdir()) == []


def test_split_and_join_are_inverse():
    arrays = {
        "run/x": np.arange(12.0).reshape(6, 2),
        "host/length": np.arange(18),
        "buffer/layout": np.array([9, 9, 9, 9]),
        "clock/step": np.array(5),
    }
    parts = split(arrays, [1, 2, 3])
    assert [part["run/x"].shape[0] for part in parts] == [1, 2, 3]
    assert parts[1]["host/length"].tolist() == list(range(3, 9))
    whole = join(parts)
    assert whole.keys() == arrays.keys()
    assert all(np.array_equal(whole[name], arrays[name]) for name in arrays)
    parts[0]["run/x"] = np.ones((1, 3))
    padded = join(parts)["run/x"]
    assert padded.shape == (6, 3)
    assert padded[1:, 2].tolist() == [0.0] * 5
    with pytest.raises(ValueError, match="differ in run/x"):
        join([{}, {"run/x": np.ones(1)}])


def full(folder: Path) -> dict:
    return checkpoints.load_newest(folder / "checkpoints", checkpoints.FULL).arrays
