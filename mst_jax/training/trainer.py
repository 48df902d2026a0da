"""The training loop: chunks of steps, and between them metrics, evaluation and checkpoints."""

import itertools
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from mst_jax import topology
from mst_jax.agents import Agent, training_costs
from mst_jax.envs import EnvironmentFailedError
from mst_jax.program.arrays import loop_to_arrays
from mst_jax.program.cache import kept
from mst_jax.program.diagnosing import make_diagnose
from mst_jax.program.drivers import Driver, make_driver
from mst_jax.program.evaluation import Evaluator, make_evaluator
from mst_jax.program.recycling import make_recycle
from mst_jax.program.reviewing import make_review
from mst_jax.program.sharding import LOOP, SEEDS, TOTALS, over_devices, seed_mesh, seeds_per_device
from mst_jax.program.state import LoopState
from mst_jax.program.step import finish_chunk, make_reset, still_healthy
from mst_jax.runs import checkpoints, history
from mst_jax.runs.arrays import fingerprint, own_arrays, shapes_of, split
from mst_jax.runs.config_file import config_values, read_settings, write_settings
from mst_jax.runs.files import sync
from mst_jax.runs.folder import CHECKPOINTS, INITIAL_TOPOLOGY, finish, seed_folders
from mst_jax.runs.lock import held
from mst_jax.runs.settings import Settings
from mst_jax.runs.signals import on_stop_signal
from mst_jax.runs.sinks import JsonLines, Sink, TensorBoard, cut_back
from mst_jax.runs.task_file import write_spec
from mst_jax.runs.wandb_sink import WandB
from mst_jax.training.best import BestPolicies
from mst_jax.training.full_checkpoints import restore, save
from mst_jax.training.jobs import Job, Program, make_program, write_program
from mst_jax.training.limits import problem_of
from mst_jax.training.memory import describe_memory, replay_slots
from mst_jax.training.session import (
    Member,
    Session,
    describe_returns,
    diagnose,
    evaluate,
    evaluate_finally,
    log,
)

with warnings.catch_warnings():  # in a notebook without ipywidgets the bar is text
    warnings.simplefilter("ignore")
    from tqdm.auto import tqdm


class Outcome(NamedTuple):
    """How the training of a run ended."""

    folder: Path
    step: int
    fingerprint: str | None  # None when stopped by a signal; resuming then continues exactly

    @property
    def finished(self) -> bool:
        """Whether all steps were taken."""
        return self.fingerprint is not None


def checkpoint_fingerprint(folder: Path) -> str:
    """Hashes a run's newest full checkpoint; ValueError if there is none."""
    read_settings(folder)
    checkpoint = checkpoints.load_newest(folder / CHECKPOINTS, checkpoints.FULL)
    if checkpoint is None:
        raise ValueError(f"{folder} has no full checkpoint yet")
    return fingerprint(own_arrays(checkpoint.arrays))


def train(job: Job, *, verbose: bool = True, progress: bool = True) -> Outcome:
    """Trains a run to its end, or until a signal asks it to stop; see `train_together`."""
    return train_together(make_program([job]), verbose=verbose, progress=progress)[0]


def train_together(
    program: Program, *, verbose: bool = True, progress: bool = True
) -> list[Outcome]:
    """Trains runs in one program to their end, or until a signal asks them to stop.

    The signals are SIGTERM, SIGINT and SIGHUP; outside of the main thread Python hands out none.
    Finished runs stay as they are.

    Args:
        program: the runs.
        verbose: print topology plans and memory before, and the final evaluation.
        progress: show a progress bar.

    Raises:
        HeldError: another process trains one of them, or did since it was planned. Nothing was
            changed then, nor when a checkpoint does not fit (ValueError).
        DamagedCheckpointError: the disk does not keep what is written to it.
        EnvironmentFailedError: the environments cannot go on, or failed too often in training;
            checkpoints are saved before.
        OSError: the disk is full. The run can be resumed.
    """
    if all(job.finished for job in program.jobs):
        return [Outcome(job.folder, job.settings.steps, job.finished) for job in program.jobs]
    if verbose:
        _describe(program)
    with ExitStack() as stack:
        session, loop = _open(program, stack, verbose)
        loop, step = _loop(session, loop, program.step, progress)
        return _finish(program, session, loop, step)


def _describe(program: Program) -> None:
    """Prints the topology plans of all runs, and what memory they will take."""
    for job in program.jobs:
        for name, plan in job.agent.plans.items():
            tqdm.write(f"{job.settings.recipe} {name}\n{plan}")
        tqdm.write(f"{job.settings.recipe} {training_costs(job.agent)}")
    tqdm.write(describe_memory(program.agent, program.jobs[0].task.spec, program.shared))


def _open(program: Program, stack: ExitStack, verbose: bool) -> tuple[Session, LoopState]:
    """Owns the folders, starts the environments, and restores the loop or makes and evaluates it.

    What must be closed at the end is put on the stack.
    """
    began = time.perf_counter()
    settings, agent, task = program.shared, program.agent, program.jobs[0].task
    for job in program.jobs:
        stack.enter_context(held(job.folder))
        job.check_unchanged()
    stop = stack.enter_context(_stop_on_signal())
    best, seconds = BestPolicies(settings.seeds), np.zeros(settings.seeds)
    slots = replay_slots(settings, agent, task.spec)
    driver, loop = make_driver(
        *(agent, task, program.seeds, slots, np.dtype(settings.row_dtype), program.numbers),
        environments=settings.environments,
        worker_timeout=settings.worker_timeout,
        stale_actions=settings.stale_actions,
    )
    stack.enter_context(closing(driver))
    if program.step is not None:
        like = shapes_of(loop)
        del loop  # or there would be two replay buffers
        loop, seconds = restore(like, program, driver, best)
        folders = ", ".join(str(job.folder) for job in program.jobs)
        if verbose:
            tqdm.write(f"resumed {folders} at step {program.step:,}")
    else:
        for job in program.jobs:
            write_spec(job.folder, task.spec)
            write_settings(job.folder, job.settings)
        write_program([job.folder for job in program.jobs])
    evaluator = make_evaluator(
        agent, task, program.seeds, settings.eval_episodes, settings.worker_timeout
    )
    stack.enter_context(closing(evaluator))
    members = _members(program, seconds)
    # Only a program that took a step shows that training can go on, and what it made after the
    # checkpoint can be cut off.
    open_files = cache(partial(_open_files, members, program.step, stack))
    session = _session(program, members, driver, evaluator, best, stop, open_files, began, verbose)
    return session, _begun(session, loop) if program.step is None else loop


def _begun(session: Session, loop: LoopState) -> LoopState:
    """A new loop after its masks were written and it was evaluated."""
    session.open_files()
    for folder, rows in session.folders.items():
        masks = jax.tree.map(lambda mask, rows=rows: mask[rows], session.agent.masks(loop.agent))
        topology.save_masks(folder / INITIAL_TOPOLOGY, masks, history.tied_leaves(session.agent))
        sync(folder / INITIAL_TOPOLOGY)
    return evaluate(session, loop, 0)[0]


def _finish(program: Program, session: Session, loop: LoopState, step: int) -> list[Outcome]:
    """The final evaluation and the fingerprints, unless the runs were asked to stop before."""
    settings, folders = session.settings, list(session.folders)
    final = settings.final_eval_episodes
    if step < settings.steps or (final and session.stop()):
        return [Outcome(folder, step, None) for folder in folders]
    session.open_files()
    if final:
        # The environments of training and its evaluations are not needed any more.
        session.driver.close()
        session.evaluator.close()
        task, seeds = program.jobs[0].task, program.seeds
        evaluator = make_evaluator(session.agent, task, seeds, final, settings.worker_timeout)
        with closing(evaluator):
            evaluate_finally(session, loop, evaluator)
    session.sync()
    parts = split(loop_to_arrays(loop), program.counts)
    outcomes = [
        Outcome(folder, step, fingerprint(part))
        for folder, part in zip(folders, parts, strict=True)
    ]
    for outcome in outcomes:
        finish(outcome.folder, outcome.fingerprint)  # ty: ignore[invalid-argument-type] - set above
    return outcomes


def _members(program: Program, seconds: np.ndarray) -> list[Member]:
    """The runs of a program, their files not opened yet; (S,) seconds they were trained before."""
    bounds = itertools.pairwise([0, *itertools.accumulate(program.counts)])
    return [
        Member(
            *(job.settings, job.folder, slice(start, stop), [], config_values(job.folder)),
            seconds_before=float(seconds[start]),
        )
        for job, (start, stop) in zip(program.jobs, bounds, strict=True)
    ]


def _open_files(members: list[Member], since: int | None, stack: ExitStack) -> None:
    """Cuts off what comes after the step to go on from, all if it is None, and opens the sinks."""
    step = -1 if since is None else since
    for member in members:
        checkpoints.cut_back(member.folder / CHECKPOINTS, step)
        history.cut_back(member.folder, step)
        for sink in _open_sinks(member.settings, member.folder, step):
            stack.enter_context(closing(sink))
            member.sinks.append(sink)


def _session(
    program: Program,
    members: list[Member],
    driver: Driver,
    evaluator: Evaluator,
    best: BestPolicies,
    stop: Callable[[], bool],
    open_files: Callable[[], None],
    began: float,
    verbose: bool,
) -> Session:
    """The session with its programs between chunks, which are compiled at their first use."""
    agent, count = program.agent, program.shared.seeds
    check, end, reset = _between_chunks(agent, count)
    covariances_to = {member.folder: member.rows for member in members}
    return Session(
        settings=program.shared,
        members=members,
        agent=agent,
        action_repeat=program.jobs[0].task.spec.action_repeat,
        driver=driver,
        evaluator=evaluator,
        best=best,
        check=check,
        finish_chunk=end,
        reset=reset,
        recycle=_recycler(program),
        review=_reviewer(program),
        diagnose=make_diagnose(
            agent,
            count,
            covariances_to if program.shared.gradient_covariance else None,
            program.shared.metrics,
        ),
        stop=stop,
        open_files=open_files,
        began=began,
        verbose=verbose,
    )


def _recycler(program: Program) -> Callable[[LoopState], LoopState] | None:
    """What recycles dormant units; None where the settings never do."""
    settings = program.shared
    if not settings.recycle_every:
        return None
    return make_recycle(program.agent, settings.seeds, settings.recycle_threshold)


def _reviewer(program: Program) -> Callable[[LoopState], LoopState] | None:
    """What lets old memories go; None for an agent whose memory is not reviewed."""
    memory = program.agent.memory
    if memory is None or memory.review is None:
        return None
    return make_review(program.agent, program.shared.seeds)


@kept
def _between_chunks(agent: Agent, count: int) -> tuple[Callable, Callable, Callable]:
    """Jitted programs of all seeds: the check, what ends a chunk, and the reset."""
    mesh = seed_mesh(count)
    check = over_devices(partial(still_healthy, agent), mesh, (LOOP,), SEEDS)
    end = over_devices(partial(finish_chunk, agent), mesh, (LOOP,), (LOOP, TOTALS, SEEDS))
    reset = over_devices(make_reset(agent, seeds_per_device(count, mesh)), mesh, (LOOP,), LOOP)
    return (
        jax.jit(check),
        jax.jit(end, donate_argnums=0),
        jax.jit(reset, donate_argnums=0),
    )


def _loop(
    session: Session, loop: LoopState, since: int | None, progress: bool
) -> tuple[LoopState, int]:
    """Trains to the last step or a signal; returns the loop and the step it is at.

    `since` is the step of the checkpoint that the run goes on from; None if it begins.
    """
    settings, step = session.settings, int(loop.clock.step)
    stopping = False
    stop = lambda: session.stop() or problem_of(session) is not None  # noqa: E731
    with _bar(session, step, progress) as bar:
        while step < settings.steps and not stopping:
            target = next_boundary(step, settings, session.agent.learning_starts)
            learning = step >= session.agent.learning_starts
            loop = session.driver.advance(loop, target - step, stop, bar.update)
            step = int(loop.clock.step)
            if step == since:  # the environments failed at once, and the folder keeps what it has
                break
            session.open_files()
            if step == target and _due(step, settings.log_every, settings):
                loop = log(session, loop, step)
            if step == target and _due(step, settings.eval_every, settings):
                loop, returns = evaluate(session, loop, step)
                bar.set_postfix_str(describe_returns(returns))
            if step == target and learning and _wanted(step, settings.diagnose_every, settings):
                diagnose(session, loop, step)
            if step == target and _wanted(step, settings.history_every, settings):
                history.save(session.folders, session.agent, loop.agent, step)
            if step == target and step in settings.reset_steps:
                loop = session.reset(loop)
            if session.recycle and step == target and learning and settings.recycles_at(step):
                loop = session.recycle(loop)
            if session.review and step == target and learning and settings.reviews_at(step):
                loop = session.review(loop)
            stopping = stop()
            if stopping or _due(step, settings.checkpoint_every, settings):
                save(session, loop, step)
    problem = problem_of(session)
    if problem:
        folder = session.members[0].folder
        raise EnvironmentFailedError(
            f"{problem}; saved at step {step:,}, resume the run in {folder}"
        )
    return loop, step


def _bar(session: Session, step: int, progress: bool) -> tqdm:
    """The progress bar: in a notebook the one that it has for that."""
    watched = sys.stdout.isatty() or "ipykernel" in sys.modules
    return tqdm(
        total=session.settings.steps,
        initial=step,
        unit="step",
        desc=" ".join(member.settings.recipe for member in session.members),
        file=sys.stdout,
        mininterval=0.5 if watched else 20.0,
        dynamic_ncols=True,
        disable=not progress,
    )


def next_boundary(step: int, settings: Settings, learning_starts: int) -> int:
    """The next step at which the host has something to do."""
    periods = (
        settings.log_every,
        settings.eval_every,
        settings.checkpoint_every,
        settings.diagnose_every,
        settings.history_every,
        settings.recycle_every,
        settings.review_every,
    )
    stops = [(step // period + 1) * period for period in periods if period]
    stops += [at for at in (learning_starts, *settings.reset_steps) if step < at]
    return min(*stops, settings.steps)


def _due(step: int, period: int, settings: Settings) -> bool:
    return step == settings.steps or (period > 0 and step % period == 0)


def _wanted(step: int, period: int, settings: Settings) -> bool:
    """As `_due`, but with a period of 0 never."""
    return period > 0 and _due(step, period, settings)


def _open_sinks(settings: Settings, folder: Path, step: int) -> list[Sink]:
    """Opens the sinks; rows after `step` are cut off."""
    folders = seed_folders(folder, settings.seed_list)
    for seed_folder in folders:
        seed_folder.mkdir(exist_ok=True)
        cut_back(seed_folder, step)
    sinks: list[Sink] = [JsonLines(folders), TensorBoard(folders)]
    if settings.wandb != "off":
        sinks.append(WandB(settings, folder, folders))
    return sinks


@contextmanager
def _stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Turns a signal into a request to save and end; a second one ends at once."""
    received: list[signal.Signals] = []

    def request(name: signal.Signals) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(name)
        tqdm.write(f"{name.name}: writing a checkpoint, then stopping")

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # only the main thread may set signal handlers
        return
    with on_stop_signal(request):
        yield lambda: bool(received)
