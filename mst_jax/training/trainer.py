"""The training loop: chunks of steps, and between them metrics, evaluation and checkpoints."""

import itertools
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from mst_jax import topology
from mst_jax.envs import EnvironmentFailedError
from mst_jax.training import checkpoints, history
from mst_jax.training.arrays import Arrays, fingerprint, run_from_arrays, run_to_arrays, split
from mst_jax.training.best import BestPolicies
from mst_jax.training.diagnosing import make_diagnose
from mst_jax.training.drivers import Driver, make_driver
from mst_jax.training.evaluation import Evaluator, make_evaluator
from mst_jax.training.jobs import Job, Program, make_program, write_program
from mst_jax.training.limits import problem_of
from mst_jax.training.memory import describe_memory, replay_slots
from mst_jax.training.run_state import Run
from mst_jax.training.session import (
    Member,
    Session,
    diagnose,
    evaluate,
    evaluate_finally,
    log,
)
from mst_jax.training.settings import Settings, read_settings, write_settings
from mst_jax.training.sharding import (
    RUN,
    SEEDS,
    TOTALS,
    over_devices,
    seed_mesh,
    seeds_per_device,
)
from mst_jax.training.sinks import JsonLines, Sink, TensorBoard, cut_back
from mst_jax.training.step import finish_chunk, make_reset
from mst_jax.training.wandb_sink import WandB

# Prefixes of array names in full checkpoints; the other arrays are the run's.
HOST, BEST = "host/", "best/"
INITIAL_TOPOLOGY = "topology_initial.npz"
FINGERPRINT = "fingerprint.txt"


class Outcome(NamedTuple):
    """How the training of a run ended."""

    folder: Path
    step: int
    fingerprint: str | None  # None when stopped by a signal; resuming then continues exactly

    @property
    def finished(self) -> bool:
        """Whether all steps were taken."""
        return self.fingerprint is not None


def is_finished(folder: Path) -> bool:
    """Whether a run wrote its fingerprint, which it does last."""
    path = folder / FINGERPRINT
    return path.is_file() and len(path.read_text().strip()) == 64


def checkpoint_fingerprint(folder: Path) -> str:
    """Hashes a run's newest full checkpoint into fingerprint.txt; ValueError if there is none."""
    read_settings(folder)
    checkpoint = checkpoints.load_newest(folder / "checkpoints", checkpoints.FULL)
    if checkpoint is None:
        raise ValueError(f"{folder} has no full checkpoint yet")
    return _write_fingerprint(folder, _of_run(checkpoint.arrays))


def train(job: Job) -> Outcome:
    """Trains a run to its end, or until SIGTERM or SIGINT asks it to stop.

    Raises:
        ValueError: when the checkpoint is of another run; nothing is changed then.
        EnvironmentFailedError: see `train_together`.
    """
    return train_together(make_program([job]))[0]


def train_together(program: Program) -> list[Outcome]:
    """Trains runs in one program to their end, or until SIGTERM or SIGINT asks them to stop.

    Raises:
        ValueError: when a checkpoint is of another run; nothing is changed then.
        EnvironmentFailedError: when the environments cannot go on, or failed too often in training;
            checkpoints are saved before.
    """
    began = time.perf_counter()
    settings, agent, task = program.shared, program.agent, program.jobs[0].task
    folders, since = [job.folder for job in program.jobs], program.step
    for job in program.jobs:
        for name, plan in job.agent.plans.items():
            tqdm.write(f"{job.settings.recipe} {name}\n{plan}")
    tqdm.write(describe_memory(agent, task.spec, settings))
    with ExitStack() as stack:
        best = BestPolicies(settings.seeds)
        slots = replay_slots(settings, agent)
        row_dtype = np.dtype(settings.row_dtype)
        driver, run = make_driver(
            *(agent, task, program.seeds, slots, row_dtype, program.numbers),
            environments=settings.environments,
            worker_timeout=settings.worker_timeout,
        )
        stack.enter_context(closing(driver))
        if since is not None:
            like = jax.eval_shape(lambda: run)
            del run  # or there would be two replay buffers
            run = _restore(like, program.arrays, driver, best)
            tqdm.write(f"resumed {', '.join(map(str, folders))} at step {since:,}")
        else:
            for job in program.jobs:
                job.folder.mkdir(parents=True, exist_ok=True)
                write_settings(job.folder, job.settings)
            write_program(folders)
        evaluator = make_evaluator(
            agent, task, program.seeds, settings.eval_episodes, settings.worker_timeout
        )
        stack.enter_context(closing(evaluator))
        members = _members(program)
        for member in members:
            for sink in member.sinks:
                stack.enter_context(closing(sink))
        stop = stack.enter_context(_stop_on_signal())
        session = _session(program, members, driver, evaluator, best, stop, began)
        if since is None:
            for folder, rows in session.folders.items():
                masks = jax.tree.map(lambda mask, rows=rows: mask[rows], agent.masks(run.agent))
                topology.save_masks(folder / INITIAL_TOPOLOGY, masks)
            evaluate(session, run, 0)
        run, step = _loop(session, run, since or 0)
        final = settings.final_eval_episodes
        if step < settings.steps or (final and stop()):
            return [Outcome(folder, step, None) for folder in folders]
        if final:
            # The environments of training and its evaluations are not needed any more.
            driver.close()
            evaluator.close()
            evaluator = make_evaluator(agent, task, program.seeds, final, settings.worker_timeout)
            stack.enter_context(closing(evaluator))
            evaluate_finally(session, run, evaluator)
        parts = split(run_to_arrays(run), program.counts)
        return [
            Outcome(folder, step, _write_fingerprint(folder, part))
            for folder, part in zip(folders, parts, strict=True)
        ]


def _members(program: Program) -> list[Member]:
    """The runs of a program with their files opened; what comes after the step is cut off."""
    bounds = itertools.pairwise([0, *itertools.accumulate(program.counts)])
    members = []
    for job, bound in zip(program.jobs, bounds, strict=True):
        history.cut_back(job.folder, -1 if program.step is None else program.step)
        sinks = _open_sinks(job.settings, job.folder, program.step)
        members.append(Member(job.settings, job.folder, slice(*bound), sinks))
    return members


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
    finish = over_devices(partial(finish_chunk, agent), mesh, (RUN,), (RUN, TOTALS, SEEDS))
    reset = over_devices(make_reset(agent, seeds_per_device(count, mesh)), mesh, (RUN,), RUN)
    covariances_to = {member.folder: member.rows for member in members}
    return Session(
        settings=program.shared,
        members=members,
        agent=agent,
        driver=driver,
        evaluator=evaluator,
        best=best,
        finish_chunk=jax.jit(finish, donate_argnums=0),
        reset=jax.jit(reset, donate_argnums=0),
        diagnose=make_diagnose(
            agent, count, covariances_to if program.shared.gradient_covariance else None
        ),
        stop=stop,
        began=began,
    )


def _loop(session: Session, run: Run, step: int) -> tuple[Run, int]:
    """Trains to the last step or a signal; returns the run and the step it is at."""
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
            run = session.driver.advance(run, target - step, learning, stop, bar.update)
            step = int(run.clock.step)
            if step == target and _due(step, settings.log_every, settings):
                run = log(session, run, step)
            if step == target and _due(step, settings.eval_every, settings):
                returns = evaluate(session, run, step)
                bar.set_postfix_str(f"return {returns.mean():.1f}")
            if step == target and learning and _wanted(step, settings.diagnose_every, settings):
                diagnose(session, run, step)
            if step == target and _wanted(step, settings.history_every, settings):
                history.save(session.folders, session.agent, run.agent, step)
            if step == target and step in settings.reset_steps:
                run = session.reset(run)
            stopping = stop()
            if stopping or _due(step, settings.checkpoint_every, settings):
                _save(session, run, step)
    problem = problem_of(session)
    if problem:
        folder = session.members[0].folder
        raise EnvironmentFailedError(
            f"{problem}; saved at step {step:,}, go on with --resume={folder}"
        )
    return run, step


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


def _save(session: Session, run: Run, step: int) -> None:
    snapshot = {f"{HOST}{k}": v for k, v in session.driver.snapshot().items()}
    best = {f"{BEST}{k}": v for k, v in session.best.to_arrays().items()}
    session.save(checkpoints.FULL, step, {**run_to_arrays(run), **snapshot, **best})
    session.save(checkpoints.BEST, step, session.best.policies)


def _restore(like: Run, arrays: Arrays, driver: Driver, best: BestPolicies) -> Run:
    """The run and the environments of a full checkpoint; `like` gives shapes only."""
    run = driver.place(run_from_arrays(_of_run(arrays), like))
    driver.restore(_with_prefix(arrays, HOST))
    best.restore(_with_prefix(arrays, BEST))
    return run


def _write_fingerprint(folder: Path, arrays: Arrays) -> str:
    digest = fingerprint(arrays)
    (folder / FINGERPRINT).write_text(digest + "\n")
    return digest


def _of_run(arrays: Arrays) -> Arrays:
    return {name: a for name, a in arrays.items() if not name.startswith((HOST, BEST))}


def _with_prefix(arrays: Arrays, prefix: str) -> Arrays:
    return {name[len(prefix) :]: a for name, a in arrays.items() if name.startswith(prefix)}


def _open_sinks(settings: Settings, folder: Path, step: int | None) -> list[Sink]:
    """Opens the sinks; rows after the step to resume from are cut off, all if it is None."""
    folders = [folder / f"seed_{seed}" for seed in settings.seed_list]
    for seed_folder in folders:
        seed_folder.mkdir(exist_ok=True)
        cut_back(seed_folder, -1 if step is None else step)
    sinks: list[Sink] = [JsonLines(folders), TensorBoard(folders, step or 0)]
    if settings.wandb != "off":
        sinks.append(WandB(settings, folder, folders))
    return sinks


@contextmanager
def _stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Turns SIGTERM and SIGINT into a request to save and end; a second one ends at once."""
    received: list[int] = []

    def request(signum: int, _: Any) -> None:
        if received:
            signal.default_int_handler(signum, None)
        received.append(signum)
        tqdm.write(f"{signal.Signals(signum).name}: writing a checkpoint, then stopping")

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # only the main thread may set signal handlers
        return
    previous = {s: signal.signal(s, request) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(received)
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
