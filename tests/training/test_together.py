"""Runs that differ in numbers share a program, and each looks as if it had been trained alone."""

import dataclasses
import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from experiments.launch.collect import collect
from experiments.launch.study_folder import StudyFolder
from experiments.launch.study_report import study_report
from experiments.studies import STUDIES, Cell
from experiments.studies.figures import bars
from mst_jax import export_policy
from mst_jax.analysis import read_layers, read_results
from mst_jax.figures import title_of
from mst_jax.figures.run_report import Sources
from mst_jax.runs import checkpoints, read_metrics, read_settings
from mst_jax.runs.arrays import join, split
from mst_jax.runs.health import read_diverged
from mst_jax.training import (
    load_policy,
    load_snapshot,
    make_program,
    plan_resume,
    plan_run,
    program_of,
    resume_together,
    train,
    train_together,
    trainer,
)
from tests.small_runs import small_config, small_settings, stop_after

VARIED = {
    "low": {"critic__sparsity": 0.3},
    "high": {"critic__sparsity": 0.8, "critic__drop_fraction": 0.5},
    "fast": {"critic__sparsity": 0.5, "actor__learning_rate": 3e-3},
    "diverged": {"critic__learning_rate": 1e30},
}


def settings_of(name, **changes):
    config = small_config("mst", "ddpg", **VARIED[name])
    settings = small_settings(agent="ddpg", config=config, history_every=80, eval_every=70)
    return dataclasses.replace(settings, recipe=name, **changes)


def jobs_in(logdir, names=VARIED, **changes):
    return [plan_run(settings_of(name, **changes), logdir) for name in names]


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    logdir = tmp_path_factory.mktemp("together") / "runs"
    return train_together(make_program(jobs_in(logdir, diagnose_every=120, resets=1)))


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_a_diverged_run_has_no_return_from_the_evaluation_that_finds_it(together):
    """Faults A1 and A4: the evaluation at 70 finds it, between the log rows at 40 and 80; the new
    networks of the reset at 120 do not bring the seed back, and the others are left alone."""
    lost, folder = together[-1].folder, together[0].folder
    for seed in range(2):
        rows = [row for row in read_metrics(lost / f"seed_{seed}") if row["step"] >= 70]
        assert {row["kind"] for row in rows} >= {"train", "eval", "diagnostics"}
        assert not any(row["healthy"] for row in rows)
        assert all(row.get("return") is None for row in rows)
        evaluations = [row for row in rows if row["kind"] == "eval"]
        assert [row["step"] for row in evaluations] == [70, 140, 210, 240]
        assert {row["episodes"] for row in evaluations} == {0}
        assert {str(row["returns"]) for row in evaluations} == {"[None, None]"}
        well = [row for row in read_metrics(folder / f"seed_{seed}") if row["kind"] == "eval"]
        assert all(row["return"] == pytest.approx(np.mean(row["returns"])) for row in well)
        assert {(row["healthy"], row["episodes"]) for row in well} == {(True, 2)}
    assert read_diverged(lost) == {0: 70, 1: 70}
    assert read_diverged(folder) == {}
    best = load_snapshot(lost, checkpoints.BEST)
    assert best.healthy.all(), "the best policy is the one before training"
    assert load_policy(lost, best=True).act(np.zeros(4)).shape == (2,)
    assert not load_snapshot(lost).healthy.any()
    with pytest.raises(ValueError, match=r"seed 1 has diverged: .* best=True loads its best"):
        load_policy(lost, 1)
    assert "DIVERGED" in title_of(read_layers(lost))
    assert Sources(lost, None).title.endswith(
        "; seed 0 diverged by step 70, seed 1 diverged by step 70"
    )


def test_a_seed_that_diverged_has_no_policy_though_its_actor_is_finite(together, tmp_path):
    """A light checkpoint holds the actor alone: the rows say that the critic was lost."""
    run = shutil.copytree(together[0].folder, tmp_path / "run")
    metrics = run / "seed_1" / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace('"healthy": true', '"healthy": false'))
    assert load_snapshot(run).healthy.tolist() == [True, False]
    assert load_policy(run, 0).act(np.zeros(4)).shape == (2,)
    for refused in (load_policy, partial(export_policy, path=tmp_path / "policy.npz")):
        with pytest.raises(ValueError, match="seed 1 has diverged: it has no policy at step 240"):
            refused(run, seed=1)
    assert "DIVERGED" in title_of(read_layers(run, 1))
    assert "DIVERGED" not in title_of(read_layers(run, 0))


QUICKSTART = """
import sys
from pathlib import Path
from experiments import quickstart
from mst_jax.analysis import read_curve

quickstart._print_curve(Path(sys.argv[1]), read_curve(Path(sys.argv[1])))
"""


def printed(*arguments):
    command = [sys.executable, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    return [line.strip() for line in result.stdout.splitlines()]


@pytest.mark.slow
def test_launchers_name_diverged_seeds(together):
    """Fault A1: the quickstart's table, and an evaluation of the newest policies."""
    folder = together[-1].folder
    lines = printed("-c", QUICKSTART, folder)
    assert lines[0].startswith("diverged mean    nan of 0 of 2 seeds")
    assert lines[2].endswith("-> DIVERGED by step 70, it has no return")
    lines = printed("-m", "experiments.evaluate", folder, "--episodes=1")
    assert "seed 1: diverged: it has no return" in lines
    assert "mean  :      nan (0 of 2 seeds)" in lines
    written = json.loads((folder / "evaluation.json").read_text())
    assert written["returns"] == {"0": [None], "1": [None]}


def test_a_study_lists_its_diverged_cell_as_missing(together):
    """Fault A1: a policy that does nothing had the best return of the study."""
    cells = [
        Cell({"run": name}, read_settings(one.folder))
        for name, one in zip(VARIED, together, strict=True)
    ]
    study = dataclasses.replace(STUDIES["reset"], baseline={"run": "low"}, figure=bars("run", None))
    folder = StudyFolder(together[0].folder.parents[2])
    folder.join("reset", "smoke", cells, "a command")
    results = collect(folder, cells)
    assert results.missing == [
        "probe:point ddpg diverged: seed 0 diverged by step 70, seed 1 diverged by step 70"
    ]
    report = study_report(study, folder, folder.manifest(), cells, results, {})
    assert "- probe:point ddpg diverged: seed 0 diverged by step 70" in report
    assert "| probe:point | ddpg | diverged | 0/2 (few seeds) | - | - |" in report
    assert "- ddpg diverged on probe:point: no pair is left: 2 of 2 runs diverged" in report
    assert "| ddpg | diverged |" not in report.partition("## Against the baseline")[2]
    table = {(row["label.run"], row["step"]): row["return"] for row in results.rows}
    assert np.isfinite(table["diverged", 0])
    assert np.isnan(table["diverged", 240])
    assert np.isfinite(table["high", 240])


def test_stopping_and_resuming_is_exact(together, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(trainer, "_stop_on_signal", stop_after(130))
        jobs = jobs_in(tmp_path, diagnose_every=120, resets=1)
        stopped = train_together(make_program(jobs))
    assert not any(outcome.finished for outcome in stopped)
    without_seconds(stopped[0].folder)
    again = resume_together([outcome.folder for outcome in stopped])
    stops = seconds_at_the_stops(again)
    resumed = train_together(make_program(again))
    assert [one.fingerprint for one in resumed] == [one.fingerprint for one in together]
    for outcome, (step, seconds) in zip(resumed, stops, strict=True):
        rows = read_metrics(outcome.folder / "seed_1")
        later = [row["wall/seconds"] for row in rows if row["step"] > step]
        assert min(later) > seconds
        assert max(later) < seconds + 1e5, "each run counts on from its own"


def without_seconds(folder):
    """Makes the newest checkpoint one of a version that did not keep them."""
    store = folder / "checkpoints"
    (newest,) = checkpoints.load_together([store], checkpoints.FULL)
    del newest.arrays["wall/seconds"]
    checkpoints.save(store, checkpoints.FULL, *newest)


def seconds_at_the_stops(jobs):
    """Step and seconds of each job's checkpoint, after the second got 1e6 more, the third 2e6..."""
    found = []
    for number, job in enumerate(jobs):
        rows, seconds = read_metrics(job.folder / "seed_1"), job.checkpoint.arrays["wall/seconds"]
        if number == 0:
            assert (seconds == 0).all(), "an older version's"
        else:
            assert (seconds > rows[-1]["wall/seconds"]).all()
        job.checkpoint.arrays["wall/seconds"] = seconds + 1e6 * number
        found.append((job.checkpoint.step, seconds[1] + 1e6 * number))
    return found


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
    for store in stores:
        (store.parent / "fingerprint.txt").unlink()
    for store in stores[:2]:
        checkpoints.save(store, checkpoints.FULL, 777, later, newest.config)
    jobs = resume_together([store.parent for store in stores])
    assert [job.checkpoint.step for job in jobs] == [240] * len(jobs)


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
    with pytest.raises(ValueError, match=r"has no full checkpoint .* up to step 240 and"):
        resume_together(folders)
    jobs = resume_together(folders, begin_anew=True)
    assert [job.checkpoint for job in jobs] == [None] * len(folders)
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
