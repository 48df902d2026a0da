"""A run folder has one owner, and what is refused leaves every byte of it as it was."""

import json
import os
import re
import shutil
import socket

import pytest
from small_runs import content, small_config, small_settings

from mst_jax.envs import EnvironmentFailedError
from mst_jax.program.drivers import JaxDriver
from mst_jax.runs import checkpoints, is_finished, read_metrics, read_settings
from mst_jax.runs.config_file import write_settings
from mst_jax.runs.folder import METRICS, is_blank
from mst_jax.runs.lock import HeldError, held
from mst_jax.training import (
    load_snapshot,
    make_program,
    plan_resume,
    plan_run,
    prepare,
    resume_together,
    train,
)
from mst_jax.training.memory import checkpoint_bytes, describe_memory, human

STEP = 120  # of the only full checkpoint of the shared run, its last step
ME = f"process {os.getpid()} on {re.escape(socket.gethostname())}"


@pytest.fixture
def unfinished(finished_run, tmp_path):
    """The shared run as if it had been killed before it wrote its fingerprint."""
    folder = tmp_path / "run"
    shutil.copytree(finished_run, folder)
    (folder / "fingerprint.txt").unlink()
    return folder


def change_config(folder, change):
    path = folder / "config.json"
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw, indent=2))


def forget_config(folder):
    """Makes the full checkpoint one of an earlier version, which did not record its settings."""
    (manifest,) = folder.glob("checkpoints/full/*/manifest.json")
    raw = json.loads(manifest.read_text())
    del raw["config"]
    manifest.write_text(json.dumps(raw))


def change_line(folder, number, line):
    path = folder / "seed_1" / METRICS
    lines = path.read_text().splitlines()
    lines[number:number] = [line]
    path.write_text("\n".join(lines) + "\n")


def test_a_finished_run_is_recognised_and_left_alone(finished_run, tmp_path):
    """Fault A2, also where a sweep deleted the full checkpoints."""
    folder = tmp_path / "cell"
    shutil.copytree(finished_run, folder)
    shutil.rmtree(folder / "checkpoints" / "full")
    before = content(folder)
    job = plan_resume(folder)
    outcome = train(job)
    assert outcome == (folder, STEP, (folder / "fingerprint.txt").read_text().strip())
    assert outcome.finished
    assert content(folder) == before
    with pytest.raises(ValueError, match="is finished; continue the others without it"):
        make_program([job, job._replace(finished=None, folder=tmp_path / "other")])


def no_full_checkpoint(folder):
    shutil.rmtree(folder / "checkpoints" / "full")


REFUSED = {
    "A2: no full checkpoint": (
        no_full_checkpoint,
        r"has no full checkpoint to continue from; beginning anew would delete its metrics up to "
        r"step 120 and 3 policies: delete the folder",
    ),
    "A7: a setting was changed": (
        lambda folder: change_config(
            folder, lambda raw: raw["config"]["critic"].update(sparsity=0.25)
        ),
        r"config.json was changed since the run began: config.critic.sparsity is 0.25, was 0.6;",
    ),
    "D2: sizes were changed": (
        lambda folder: (
            forget_config(folder),
            change_config(folder, lambda raw: raw["config"]["actor"].update(hidden=24)),
        ),
        r"the checkpoint of step 120 in .*: the arrays do not fit this run: agent/.*, expected ",
    ),
    "D2: another agent": (
        lambda folder: (
            forget_config(folder),
            write_settings(
                folder,
                small_settings(
                    agent="ddpg", config=small_config("mst", "ddpg"), steps=STEP, checkpoint_every=0
                ),
            ),
        ),
        r"the checkpoint of step 120 in .*: the arrays do not fit this run: ",
    ),
    "D7: a damaged line among the rows to keep": (
        lambda folder: change_line(folder, 2, "\0\0\0\0"),
        r"line 3 of .*metrics.jsonl cannot be read, and the run would go on after it",
    ),
}


@pytest.mark.filterwarnings("ignore:.*does not say of which settings it is:UserWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_go_on_is_refused_untouched(unfinished, name):
    """Faults A2, A7, D2 and D7."""
    damage, told = REFUSED[name]
    damage(unfinished)
    before = content(unfinished)
    with pytest.raises(ValueError, match=told) as refused:
        plan_resume(unfinished)
    assert "\n" not in str(refused.value)
    assert content(unfinished) == before


def test_policies_of_other_settings_are_not_read(unfinished):
    """Fault A7: what looks at a run believes an edited config.json no more than what resumes it."""
    damage, told = REFUSED["A7: a setting was changed"]
    damage(unfinished)
    with pytest.raises(ValueError, match=told):
        load_snapshot(unfinished)


def test_a_run_that_somebody_trains_is_refused_untouched(unfinished, tmp_path):
    """Fault A3: when it is planned, and when two were planned at once."""
    planned = plan_resume(unfinished)
    new = plan_run(small_settings(), tmp_path)
    with held(unfinished), held(new.folder):
        before = content(unfinished), content(new.folder)
        for attempt in (
            lambda: plan_resume(unfinished),
            lambda: train(planned),
            lambda: train(new),
        ):
            with pytest.raises(HeldError, match=f"is in use by {ME}; wait for it to end, or"):
                attempt()
        assert (content(unfinished), content(new.folder)) == before


def test_a_run_that_was_trained_since_it_was_planned_is_refused_untouched(unfinished, tmp_path):
    """Fault A3: the second of two has what the first was given, but not what it made."""
    planned = plan_resume(unfinished)
    (unfinished / "fingerprint.txt").write_text("f" * 64)
    new = plan_run(small_settings(), tmp_path)
    new.folder.mkdir(parents=True)
    write_settings(new.folder, new.settings)
    for job in (planned, new):
        before = content(job.folder)
        with pytest.raises(HeldError, match="was changed by another process just now"):
            train(job)
        assert content(job.folder) == before


def test_a_checkpoint_that_cannot_be_restored_changes_nothing(unfinished):
    job, before = plan_resume(unfinished), content(unfinished)
    del job.checkpoint.arrays["best/returns"]
    with pytest.raises(ValueError, match="holds no best policies"):
        train(job)
    assert content(unfinished) == before


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*does not say of which settings it is:UserWarning")
def test_environments_that_fail_at_once_after_a_resume_change_nothing(unfinished, monkeypatch):
    """Fault A2: nothing is cut off before a step shows that training can go on."""

    def one_step_is_left(raw):
        raw["steps"] = STEP + 1
        raw["config"]["buffer_size"] = 2 * STEP + 2  # as many slots as there were

    def fails(driver, run, *_):
        driver.failure = "it is broken"
        return run

    monkeypatch.setattr(JaxDriver, "advance", fails)
    forget_config(unfinished)
    change_config(unfinished, one_step_is_left)
    change_line(unfinished, 99, '{"step": 121, "kind": "eval", "healthy": true}')
    before = content(unfinished)
    with pytest.raises(EnvironmentFailedError, match=rf"^it is broken; saved at step {STEP},"):
        train(plan_resume(unfinished))
    assert content(unfinished) == before


def test_a_run_without_a_record_of_its_settings_goes_on_with_a_warning(unfinished):
    """Fault A7: full checkpoints of earlier versions."""
    forget_config(unfinished)
    with pytest.warns(UserWarning, match=r"does not say of which settings it is.*config.json is"):
        assert plan_resume(unfinished).checkpoint.step == STEP


def test_what_comes_after_the_checkpoint_is_dropped_when_the_run_goes_on(unfinished):
    """Fault D7: NUL bytes of a file system that lost its power; A11: half-written checkpoints."""
    rows = {seed: read_metrics(unfinished / f"seed_{seed}") for seed in (0, 1)}
    number = len(rows[1])
    change_line(unfinished, number, "\0\0\0\0")
    left = unfinished / "checkpoints" / "light" / "000000000999.partial"
    left.mkdir()
    with pytest.raises(
        ValueError, match=rf"line {number + 1} of .*metrics.jsonl cannot be read as a row"
    ):
        read_metrics(unfinished / "seed_1")
    with pytest.warns(UserWarning, match=r"1 lines of .*metrics.jsonl after step 120 cannot be"):
        outcome = train(plan_resume(unfinished))
    assert outcome.finished
    assert {seed: read_metrics(unfinished / f"seed_{seed}") for seed in (0, 1)} == rows
    assert not left.exists()


def test_a_run_can_begin_where_one_was_killed_before_it_had_settings(tmp_path):
    """Fault D6: in an empty folder, and with what is written before config.json."""
    settings = small_settings()
    folder = tmp_path / settings.folder_name
    assert is_blank(folder)
    folder.mkdir(parents=True)
    for name in ("task.json", "versions.json", "config.json.partial", "lock.json", "config.json"):
        (folder / name).touch()
        assert is_blank(folder)
        assert plan_run(settings, tmp_path).checkpoint is None
    write_settings(folder, settings)
    assert not is_blank(folder)
    with pytest.raises(ValueError, match="exists: resume that run"):
        plan_run(settings, tmp_path)
    (folder / "config.json").unlink()
    (folder / "notes.txt").touch()
    with pytest.raises(ValueError, match="exists"):
        plan_run(settings, tmp_path)


def test_a_sweep_begins_a_cell_anew_only_before_its_first_full_checkpoint(unfinished):
    """Fault A2: rows beyond the first full checkpoint say that there was one."""
    no_full_checkpoint(unfinished)
    assert plan_resume(unfinished, begin_anew=True).checkpoint is None  # checkpoint_every=0
    change_config(unfinished, lambda raw: raw.update(checkpoint_every=60))
    with pytest.raises(ValueError, match="has no full checkpoint to continue from"):
        plan_resume(unfinished, begin_anew=True)
    change_config(unfinished, lambda raw: raw.update(checkpoint_every=STEP))
    assert plan_resume(unfinished, begin_anew=True).checkpoint is None


def test_the_disk_that_is_announced_suffices(finished_run):
    """Two full checkpoints, five light ones, a best one, and one of each being written."""
    settings = read_settings(finished_run)
    task, agent = prepare(settings)
    size = {
        tier: sum(array.nbytes for array in loaded.arrays.values())
        for tier in ("full", "light", "best")
        if (loaded := checkpoints.load_newest(finished_run / "checkpoints", tier))
    }
    most = 3 * size["full"] + 6 * size["light"] + 2 * size["best"]
    announced = checkpoint_bytes(agent, task.spec, settings)
    assert most <= announced <= 1.5 * most  # half of the slots were filled
    assert f"checkpoints up to {human(announced)}, " in describe_memory(agent, task.spec, settings)


def test_runs_that_are_not_of_one_program_are_not_begun_anew(unfinished, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(unfinished, other)
    no_full_checkpoint(other)
    with pytest.raises(ValueError, match=r"has no checkpoint and .* continue them one by one"):
        resume_together([unfinished, other], begin_anew=True)


def test_a_half_written_fingerprint_is_not_a_finished_run(tmp_path):
    (tmp_path / "fingerprint.txt").write_text("abc")
    assert not is_finished(tmp_path)
