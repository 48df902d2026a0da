"""The training loop: chunks of steps, and between them metrics, evaluation and checkpoints."""

import itertools
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from mst_jax import topology
from mst_jax.envs import EnvironmentFailedError
from mst_jax.program.arrays import loop_from_arrays, loop_to_arrays
from mst_jax.program.diagnosing import make_diagnose
from mst_jax.program.drivers import Driver, make_driver
from mst_jax.program.evaluation import Evaluator, make_evaluator
from mst_jax.program.sharding import LOOP, SEEDS, TOTALS, over_devices, seed_mesh, seeds_per_device
from mst_jax.program.state import LoopState
from mst_jax.program.step import finish_chunk, make_reset, still_healthy
from mst_jax.replay import frames
from mst_jax.runs import checkpoints, history
from mst_jax.runs.arrays import BEST, HOST, fingerprint, own_arrays, shapes_of, split, with_prefix
from mst_jax.runs.files import sync
from mst_jax.runs.folder import CHECKPOINTS, INITIAL_TOPOLOGY, finish, seed_folders
from mst_jax.runs.lock import held
from mst_jax.runs.settings import Settings, config_values, read_settings, write_settings
from mst_jax.runs.signals import on_stop_signal
from mst_jax.runs.sinks import JsonLines, Sink, TensorBoard, cut_back
from mst_jax.runs.wandb_sink import WandB
from mst_jax.training.best import BestPolicies
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


def train(job: Job) -> Outcome:
    """Trains a run to its end, or until a signal asks it to stop; see `train_together`."""
    return train_together(make_program([job]))[0]


def train_together(program: Program) -> list[Outcome]:
    """Trains runs in one program to their end, or until a signal asks them to stop.

    The signals are SIGTERM, SIGINT and SIGHUP. Finished runs stay as they are.

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
    began = time.perf_counter()
    settings, agent, task = program.shared, program.agent, program.jobs[0].task
    folders, since = [job.folder for job in program.jobs], program.step
    for job in program.jobs:
        for name, plan in job.agent.plans.items():
            tqdm.write(f"{job.settings.recipe} {name}\n{plan}")
    tqdm.write(describe_memory(agent, task.spec, settings))
    with ExitStack() as stack:
        for job in program.jobs:
            stack.enter_context(held(job.folder))
            job.check_unchanged()
        best = BestPolicies(settings.seeds)
        slots = replay_slots(settings, agent, task.spec)
        row_dtype = np.dtype(settings.row_dtype)
        driver, loop = make_driver(
            *(agent, task, program.seeds, slots, row_dtype, program.numbers),
            environments=settings.environments,
            worker_timeout=settings.worker_timeout,
        )
        stack.enter_context(closing(driver))
        if since is not None:
            like = shapes_of(loop)
            del loop  # or there would be two replay buffers
            loop = _restore(like, program, driver, best)
            tqdm.write(f"resumed {', '.join(map(str, folders))} at step {since:,}")
        else:
            for job in program.jobs:
                write_settings(job.folder, job.settings)
            write_program(folders)
        evaluator = make_evaluator(
            agent, task, program.seeds, settings.eval_episodes, settings.worker_timeout
        )
        stack.enter_context(closing(evaluator))
        members = _members(program)
        # Only a program that took a step shows that training can go on, and what it made after the
        # checkpoint can be cut off.
        open_files = cache(partial(_open_files, members, since, stack))
        stop = stack.enter_context(_stop_on_signal())
        session = _session(program, members, driver, evaluator, best, stop, began)
        if since is None:
            open_files()
            for folder, rows in session.folders.items():
                masks = jax.tree.map(lambda mask, rows=rows: mask[rows], agent.masks(loop.agent))
                topology.save_masks(folder / INITIAL_TOPOLOGY, masks)
                sync(folder / INITIAL_TOPOLOGY)
            loop, _ = evaluate(session, loop, 0)
        loop, step = _loop(session, loop, since or 0, open_files)
        final = settings.final_eval_episodes
        if step < settings.steps or (final and stop()):
            return [Outcome(folder, step, None) for folder in folders]
        open_files()
        if final:
            # The environments of training and its evaluations are not needed any more.
            driver.close()
            evaluator.close()
            evaluator = make_evaluator(agent, task, program.seeds, final, settings.worker_timeout)
            stack.enter_context(closing(evaluator))
            evaluate_finally(session, loop, evaluator)
        session.sync()
        parts = split(loop_to_arrays(loop), program.counts)
        outcomes = [
            Outcome(folder, step, fingerprint(part))
            for folder, part in zip(folders, parts, strict=True)
        ]
        for outcome in outcomes:
            finish(outcome.folder, outcome.fingerprint)
        return outcomes


def _members(program: Program) -> list[Member]:
    """The runs of a program, their files not opened yet."""
    bounds = itertools.pairwise([0, *itertools.accumulate(program.counts)])
    return [
        Member(job.settings, job.folder, slice(*bound), [], config_values(job.folder))
        for job, bound in zip(program.jobs, bounds, strict=True)
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
    began: float,
) -> Session:
    """The session with its programs between chunks, which are compiled at their first use."""
    agent, count = program.agent, program.shared.seeds
    mesh = seed_mesh(count)
    check = over_devices(partial(still_healthy, agent), mesh, (LOOP,), SEEDS)
    finish = over_devices(partial(finish_chunk, agent), mesh, (LOOP,), (LOOP, TOTALS, SEEDS))
    reset = over_devices(make_reset(agent, seeds_per_device(count, mesh)), mesh, (LOOP,), LOOP)
    covariances_to = {member.folder: member.rows for member in members}
    return Session(
        settings=program.shared,
        members=members,
        agent=agent,
        driver=driver,
        evaluator=evaluator,
        best=best,
        check=jax.jit(check),
        finish_chunk=jax.jit(finish, donate_argnums=0),
        reset=jax.jit(reset, donate_argnums=0),
        diagnose=make_diagnose(
            agent, count, covariances_to if program.shared.gradient_covariance else None
        ),
        stop=stop,
        began=began,
    )


def _loop(
    session: Session, loop: LoopState, step: int, open_files: Callable[[], None]
) -> tuple[LoopState, int]:
    """Trains to the last step or a signal; returns the loop and the step it is at."""
    settings, total = session.settings, session.settings.steps
    bar = tqdm(
        total=total,
        initial=step,
        unit="step",
        desc=" ".join(member.settings.recipe for member in session.members),
        file=sys.stdout,
        mininterval=0.5 if sys.stdout.isatty() else 20.0,
        dynamic_ncols=True,
    )
    stopping = False
    stop = lambda: session.stop() or problem_of(session) is not None  # noqa: E731
    with bar:
        while step < total and not stopping:
            target = next_boundary(step, settings, session.agent.learning_starts)
            learning = step >= session.agent.learning_starts
            loop = session.driver.advance(loop, target - step, learning, stop, bar.update)
            step = int(loop.clock.step)
            open_files()
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
            stopping = stop()
            if stopping or _due(step, settings.checkpoint_every, settings):
                _save(session, loop, step)
    problem = problem_of(session)
    if problem:
        folder = session.members[0].folder
        raise EnvironmentFailedError(
            f"{problem}; saved at step {step:,}, go on with --resume={folder}"
        )
    return loop, step


def next_boundary(step: int, settings: Settings, learning_starts: int) -> int:
    """The next step at which the host has something to do."""
    periods = (
        settings.log_every,
        settings.eval_every,
        settings.checkpoint_every,
        settings.diagnose_every,
        settings.history_every,
    )
    stops = [(step // period + 1) * period for period in periods if period]
    stops += [at for at in (learning_starts, *settings.reset_steps) if step < at]
    return min(*stops, settings.steps)


def _due(step: int, period: int, settings: Settings) -> bool:
    return step == settings.steps or (period > 0 and step % period == 0)


def _wanted(step: int, period: int, settings: Settings) -> bool:
    """As `_due`, but with a period of 0 never."""
    return period > 0 and _due(step, period, settings)


def _save(session: Session, loop: LoopState, step: int) -> None:
    session.sync()
    snapshot = {f"{HOST}{k}": v for k, v in session.driver.snapshot().items()}
    best = {f"{BEST}{k}": v for k, v in session.best.to_arrays().items()}
    arrays = loop_to_arrays(loop, _new_frames(session, loop, step))
    session.save(checkpoints.FULL, step, {**arrays, **snapshot, **best})
    session.save(checkpoints.BEST, step, session.best.policies)


def _new_frames(session: Session, loop: LoopState, step: int) -> int | None:
    """Slots before each cursor whose frames no checkpoint has; None of a buffer without frames."""
    if loop.buffer.written is None:
        return None
    written = np.asarray(loop.buffer.written)
    return max(
        frames.slots_since(
            written[rows].ravel(),
            checkpoints.written_before(folder / CHECKPOINTS, step),
            loop.buffer.layout.ring,
        )
        for folder, rows in session.folders.items()
    )


def _restore(like: LoopState, program: Program, driver: Driver, best: BestPolicies) -> LoopState:
    """The loop and the environments of full checkpoints; `like` gives shapes only."""
    arrays = program.take_arrays()
    loop = driver.place(loop_from_arrays(own_arrays(arrays), like))
    driver.restore(with_prefix(arrays, HOST))
    best.restore(with_prefix(arrays, BEST))
    return loop


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
