"""What is to be trained, checked before anything is written: runs, and programs of several runs.

Runs whose settings differ only in seeds and in a module's sparsity, drop fraction or learning rate
can be trained in one compiled program. Each keeps its own run folder, which looks as if it had been
trained alone; `program.json` in it says which runs shared its program.
"""

import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mst_jax import envs
from mst_jax.agents import Agent, Numbers
from mst_jax.envs.check import faults_at_once
from mst_jax.program.cache import kept_agent, kept_sweep, kept_task
from mst_jax.program.diagnosing import check_metrics
from mst_jax.program.recycling import check_recyclable
from mst_jax.runs import checkpoints
from mst_jax.runs.arrays import SECONDS, Arrays, join
from mst_jax.runs.changed import refuse_changed
from mst_jax.runs.checkpoints import Checkpoint
from mst_jax.runs.config_file import read_settings
from mst_jax.runs.files import replace_text
from mst_jax.runs.folder import (
    CHECKPOINTS,
    PROGRAM,
    RunExistsError,
    fingerprint_of,
    is_blank,
    is_finished,
    seed_folder,
)
from mst_jax.runs.json_file import read_json
from mst_jax.runs.lock import HeldError, refuse_if_held
from mst_jax.runs.settings import ABOUT, Settings
from mst_jax.runs.sinks import kept_rows
from mst_jax.runs.wandb_sink import check_wandb
from mst_jax.training.grouping import shared_fields
from mst_jax.training.memory import replay_slots
from mst_jax.training.resuming import refuse_loss, refuse_misfit, shapes_of_run
from mst_jax.training.room import require_room


class Job(NamedTuple):
    """A run that was checked and can be trained; nothing was written or allocated yet.

    Attributes:
        settings: its settings.
        folder: its run folder.
        task: what it is trained on.
        agent: one-seed functions.
        checkpoint: what to continue from; None to begin.
        finished: the fingerprint of a run that needs no more training.
        seen: what the folder held when it was checked, to notice when it changes before training.
    """

    settings: Settings
    folder: Path
    task: envs.JaxEnv | envs.HostTask
    agent: Agent
    checkpoint: Checkpoint | None
    finished: str | None = None
    seen: tuple[object, ...] = ()

    def with_limits(self, **limits: float) -> "Job":
        """The job with other values of settings that may change when a run is resumed.

        Raises:
            ValueError: a setting that may not, or an impossible value.
        """
        for name in limits:
            if name not in ABOUT or not ABOUT[name].changeable:
                can = " and ".join(n for n, about in ABOUT.items() if about.changeable)
                raise ValueError(f"a resumed run cannot change {name}, only {can}")
        settings = dataclasses.replace(self.settings, **limits)
        if not self.finished:
            settings.validate()
        return self._replace(settings=settings)

    def check_machine(self) -> None:
        """Raises ValueError if the task's environments cannot be stepped on this machine."""
        preflight = getattr(self.task, "preflight", None)  # which a JaxEnv does not need
        if preflight is not None:
            preflight()

    def check_looks(self) -> None:
        """Raises ValueError for a user's own metric that fails, or an agent not to be recycled."""
        if self.settings.recycle_every:
            check_recyclable(self.agent)
        slots = replay_slots(self.settings, self.agent, self.task.spec)
        check_metrics(self.agent, self.task.spec, slots, self.settings.metrics)

    def check_unchanged(self) -> None:
        """Raises HeldError if somebody trained the run since it was checked."""
        if _contents(self.folder) != self.seen:
            raise HeldError(
                f"{self.folder} was changed by another process just now; give the command again"
            )


class Program(NamedTuple):
    """Runs that are trained together, seeds run by run.

    Attributes:
        jobs: the runs.
        agent: the one-seed functions that all share.
        numbers: (S, ...) arrays in which the runs differ; None if they do not.
    """

    jobs: tuple[Job, ...]
    agent: Agent
    numbers: Numbers | None

    @property
    def seeds(self) -> list[int]:
        """The seed of each row of the program's arrays; runs may have the same seeds."""
        return [seed for job in self.jobs for seed in job.settings.seed_list]

    @property
    def counts(self) -> list[int]:
        """Seeds of each run."""
        return [job.settings.seeds for job in self.jobs]

    @property
    def shared(self) -> Settings:
        """Settings of the first run with all runs' seeds counted: what is the same for all."""
        return dataclasses.replace(self.jobs[0].settings, seeds=sum(self.counts))

    @property
    def step(self) -> int | None:
        """Agent steps of those checkpoints; None for new runs."""
        checkpoint = self.jobs[0].checkpoint
        return None if checkpoint is None else checkpoint.step

    def take_arrays(self) -> Arrays:
        """The arrays of those checkpoints as one; can be called once.

        The jobs let them go, or whoever holds a job would hold a second replay buffer.
        """
        found = [job.checkpoint.arrays for job in self.jobs if job.checkpoint]
        arrays = dict(join(found))
        for part in found:
            part.clear()
        return arrays


def plan_run(settings: Settings, logdir: Path) -> Job:
    """Checks a new run, which will live in `logdir` / `settings.folder_name`.

    Raises:
        ValueError: when a setting is impossible, the task is unknown, the folder exists, or wandb
            is asked for and cannot be used.
    """
    folder = logdir / settings.folder_name
    if not is_blank(folder):
        raise RunExistsError(folder, "logdir")
    return plan_in(settings, folder)


def plan_in(settings: Settings, folder: Path) -> Job:
    """Checks a new run, which will live in `folder` itself.

    Raises:
        ValueError: as `plan_run`.
    """
    settings.validate()
    check_wandb(settings.wandb)
    if not is_blank(folder):
        raise RunExistsError(folder)
    job = Job(settings, folder, *prepare(settings), checkpoint=None, seen=_contents(folder))
    job.check_machine()
    job.check_looks()
    return job


def plan_resume(folder: Path, *, begin_anew: bool = False) -> Job:
    """Checks a run to continue from its newest full checkpoint, or to begin if it had not yet.

    A finished run is a job with nothing to do.

    Args:
        folder: run folder.
        begin_anew: begin anew also when that deletes what was written before the first full
            checkpoint.

    Raises:
        HeldError: another process trains it.
        ValueError: the folder is not a run, the checkpoint is not of its settings, beginning anew
            would delete results, or wandb is asked for and cannot be used.
        DamagedCheckpointError: there are checkpoints and none is intact.
    """
    return resume_together([folder], begin_anew=begin_anew)[0]


def resume_together(folders: Sequence[Path], *, begin_anew: bool = False) -> list[Job]:
    """Checks runs to continue from the newest full checkpoints of one step that all have.

    Without such a step, runs that began in one program begin anew if that is allowed: they were
    killed while they wrote their first checkpoints.

    Raises:
        ValueError: as `plan_resume`, or the runs have no step in common.
        DamagedCheckpointError: there are checkpoints and none is intact.
    """
    for folder in folders:
        refuse_if_held(folder)
    seen = [_contents(folder) for folder in folders]
    settings = [read_settings(folder) for folder in folders]
    jobs = [
        Job(one, folder, *prepare(one), None, fingerprint_of(folder), contents)
        for one, folder, contents in zip(settings, folders, seen, strict=True)
    ]
    found = _newest([job for job in jobs if not job.finished], begin_anew)
    return [job if job.finished else _continued(job, next(found)) for job in jobs]


def _newest(jobs: Sequence[Job], begin_anew: bool) -> Iterator[Checkpoint | None]:
    """What each of several unfinished runs goes on from, read when all are known to have it."""
    for job in jobs:
        check_wandb(job.settings.wandb)
        job.check_machine()
        job.check_looks()
    folders = [job.folder for job in jobs]
    stores = [folder / CHECKPOINTS for folder in folders]
    have = [bool(checkpoints.saved_steps(store, checkpoints.FULL)) for store in stores]
    if any(have) and not all(have) and not _began_together(folders):
        raise ValueError(
            f"{folders[have.index(False)]} has no checkpoint and {folders[have.index(True)]} has "
            "one: continue them one by one"
        )
    for job, has_one in zip(jobs, have, strict=True):
        if not has_one:
            refuse_loss(job.folder, job.settings, begin_anew=begin_anew)
    if not jobs or not all(have):
        return iter([None] * len(jobs))
    return iter(checkpoints.load_together(stores, checkpoints.FULL))


def _continued(job: Job, checkpoint: Checkpoint | None) -> Job:
    """The job with a checkpoint that was found to be its own."""
    if checkpoint is None:
        return job
    refuse_changed(checkpoint, job.folder)
    refuse_misfit(checkpoint, job.folder, shapes_of_run(job.task, job.agent, job.settings))
    for seed in job.settings.seed_list:
        kept_rows(seed_folder(job.folder, seed), checkpoint.step)
    # Until 2026-11-28 it had none: `analysis.curves` adds up what its rows know.
    checkpoint.arrays.setdefault(SECONDS, np.zeros(job.settings.seeds))
    return job._replace(checkpoint=checkpoint)


def make_program(jobs: Sequence[Job]) -> Program:
    """Puts runs into one program; nothing is compiled yet.

    Raises:
        ValueError: when the runs differ in more than seeds, sparsity, drop fraction and learning
            rate, are at different steps, have one folder, or do not fit into this machine.
    """
    first = jobs[0]
    done = [job.folder for job in jobs if job.finished]
    if done and len(done) < len(jobs):
        raise ValueError(f"{done[0]} is finished; continue the others without it")
    shared = [shared_fields(job.settings) for job in jobs]
    for other in shared[1:]:
        different = [name for name in other if other[name] != shared[0][name]]
        if different:
            raise ValueError(f"runs of one program must agree in {different[0]}")
    if len({job.checkpoint.step if job.checkpoint else 0 for job in jobs}) > 1:
        raise ValueError("runs of one program must continue from the same step")
    folders = [job.folder for job in jobs]
    if len(set(folders)) < len(folders):
        raise ValueError(f"two runs would write to {max(folders, key=folders.count)}")
    if not done:
        seeds = sum(job.settings.seeds for job in jobs)
        together = dataclasses.replace(first.settings, seeds=seeds)
        require_room(first.agent, first.task.spec, together, folders)
    configs = [job.settings.config for job in jobs]
    if all(config == configs[0] for config in configs):
        return Program(tuple(jobs), first.agent, None)
    agent, numbers = kept_sweep(
        first.settings.agent,
        configs,
        first.task.spec,
        first.settings.steps,
        first.settings.precision,
    )
    rows = jnp.repeat(jnp.arange(len(jobs)), jnp.array([job.settings.seeds for job in jobs]))
    return Program(tuple(jobs), agent, jax.tree.map(lambda leaf: jnp.asarray(leaf)[rows], numbers))


def write_program(folders: Sequence[Path]) -> None:
    """Records in each run folder which runs are trained in its program, if others are."""
    for folder in folders if len(folders) > 1 else ():
        names = [os.path.relpath(other, folder) for other in folders]
        replace_text(folder / PROGRAM, json.dumps(names, indent=1) + "\n")


def program_of(folder: Path) -> list[Path]:
    """The runs of a run's program that are still there, itself included.

    Raises:
        ValueError: program.json is damaged, or names a folder outside of the run's logdir.
    """
    path = folder / PROGRAM
    if not path.is_file():
        return [folder]
    names = read_json(path, list)
    logdir = folder.resolve().parents[1]
    for name in names:
        if not isinstance(name, str) or not (folder / name).resolve().is_relative_to(logdir):
            raise ValueError(f"{path} names {name!r}, which is no run in {logdir}")
    there = [Path(os.path.normpath(folder / name)) for name in names]
    return [other for other in there if other.is_dir()]


def unfinished(folder: Path) -> list[Path]:
    """The runs of a run's program that are not finished; the run itself if all are."""
    return [other for other in program_of(folder) if not is_finished(other)] or [folder]


def prepare(settings: Settings) -> tuple[envs.JaxEnv | envs.HostTask, Agent]:
    """Task and agent of a run; raises ValueError for unknown names and impossible settings."""
    task = kept_task(settings.task, **settings.task_options)
    own = settings.task.partition(":")[0] not in envs.SUITES
    faults = faults_at_once(task) if own else []
    if faults:
        raise ValueError(f"task {settings.task!r}: {faults[0]}")
    agent = kept_agent(
        settings.agent, settings.config, task.spec, settings.steps, settings.precision
    )
    replay_slots(settings, agent, task.spec)  # refuses a capacity that is too small
    _refuse_beyond(agent, task, settings)
    return task, agent


def _refuse_beyond(agent: Agent, task: envs.JaxEnv | envs.HostTask, settings: Settings) -> None:
    """Raises ValueError for what a run asks of an agent or a task that does not have it."""
    if settings.steps <= agent.learning_starts:
        raise ValueError(
            f"steps={settings.steps} must exceed {agent.learning_starts}, after which "
            f"{settings.agent} begins to learn; raise steps"
        )
    most = agent.most_environments
    if most is not None and settings.environments > most:
        raise ValueError(
            f"environments={settings.environments}: {settings.agent} learns from {most} of each "
            "seed; raise seeds for more of them"
        )
    if settings.stale_actions and isinstance(task, envs.JaxEnv):
        raise ValueError(
            f"stale_actions={settings.stale_actions}: environments of {settings.task} are part of "
            "the device's program and wait for nothing: leave it out"
        )
    if settings.gradient_covariance and agent.probe is None:
        raise ValueError(
            f"gradient_covariance=True needs an agent that can be probed, which {settings.agent} "
            "cannot: leave it out"
        )


def _contents(folder: Path) -> tuple[object, ...]:
    """What changes when a run is trained: whether it began or ended, and its checkpoints."""
    steps = checkpoints.saved_steps(folder / CHECKPOINTS, checkpoints.FULL)
    return (is_blank(folder), fingerprint_of(folder), *steps)


def _began_together(folders: Sequence[Path]) -> bool:
    wanted = {os.path.normpath(folder) for folder in folders}
    return all({str(other) for other in program_of(folder)} == wanted for folder in folders)
