"""The training loop: chunks of steps, and between them metrics, evaluation and checkpoints."""

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

from mst_jax import envs, topology
from mst_jax.agents import Agent, make_agent
from mst_jax.training import checkpoints, history
from mst_jax.training.arrays import Arrays, fingerprint, run_from_arrays, run_to_arrays
from mst_jax.training.best import BestPolicies
from mst_jax.training.checkpoints import Checkpoint
from mst_jax.training.diagnosing import make_diagnose
from mst_jax.training.drivers import Driver, make_driver
from mst_jax.training.evaluation import make_evaluator
from mst_jax.training.memory import describe_memory, replay_slots
from mst_jax.training.run_state import Run
from mst_jax.training.session import Session, diagnose, evaluate, evaluate_finally, log
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
from mst_jax.training.wandb_sink import WandB, check_wandb

# Prefixes of array names in full checkpoints; the other arrays are the run's.
HOST, BEST = "host/", "best/"
INITIAL_TOPOLOGY = "topology_initial.npz"
FINGERPRINT = "fingerprint.txt"


class Outcome(NamedTuple):
    """How a call of `train` ended."""

    folder: Path
    step: int
    fingerprint: str | None  # None when stopped by a signal; resuming then continues exactly

    @property
    def finished(self) -> bool:
        """Whether all steps were taken."""
        return self.fingerprint is not None


class Job(NamedTuple):
    """A run that was checked and can be trained; nothing was written or allocated yet."""

    settings: Settings
    folder: Path
    task: envs.JaxEnv | envs.HostTask
    agent: Agent
    checkpoint: Checkpoint | None  # what to continue from


def plan_run(settings: Settings, logdir: Path) -> Job:
    """Checks a new run, which will live in `logdir` / `settings.folder_name`.

    Raises:
        ValueError: when a setting is impossible, the task is unknown, the folder exists, or wandb
            is asked for and cannot be used.
    """
    settings.validate()
    check_wandb(settings.wandb)
    folder = logdir / settings.folder_name
    if folder.exists():
        raise ValueError(
            f"{folder} exists; continue it with --resume={folder} or choose another logdir"
        )
    return Job(settings, folder, *prepare(settings), checkpoint=None)


def plan_resume(folder: Path) -> Job:
    """Checks a run to continue from its newest full checkpoint, or from its start if it has none.

    Raises:
        ValueError: when the folder is not a run, or wandb is asked for and cannot be used.
        DamagedCheckpointError: when there are checkpoints and none is intact.
    """
    settings = read_settings(folder)
    check_wandb(settings.wandb)
    checkpoint = checkpoints.load_newest(folder / "checkpoints", checkpoints.FULL)
    return Job(settings, folder, *prepare(settings), checkpoint=checkpoint)


def checkpoint_fingerprint(folder: Path) -> str:
    """Hashes a run's newest full checkpoint into fingerprint.txt; ValueError if there is none."""
    read_settings(folder)
    checkpoint = checkpoints.load_newest(folder / "checkpoints", checkpoints.FULL)
    if checkpoint is None:
        raise ValueError(f"{folder} has no full checkpoint yet")
    digest = fingerprint(_of_run(checkpoint.arrays))
    (folder / FINGERPRINT).write_text(digest + "\n")
    return digest


def prepare(settings: Settings) -> tuple[envs.JaxEnv | envs.HostTask, Agent]:
    """Task and agent of a run; raises ValueError for unknown names and impossible settings."""
    task = envs.make(settings.task)
    agent = make_agent(settings.agent, settings.config, task.spec, settings.steps)
    return task, agent


def train(job: Job) -> Outcome:
    """Trains a run to its end, or until SIGTERM or SIGINT asks it to stop.

    Raises:
        ValueError: when the checkpoint is of another run; nothing is changed then.
    """
    settings, folder, task, agent, checkpoint = job
    began = time.perf_counter()
    for name, plan in agent.plans.items():
        tqdm.write(f"{name}\n{plan}")
    tqdm.write(describe_memory(agent, task.spec, settings))
    slots = replay_slots(settings, agent.buffer_size)
    row_dtype = np.dtype(settings.row_dtype)
    with ExitStack() as stack:
        best = BestPolicies(settings.seeds)
        driver, run = make_driver(agent, task, settings.seed_list, slots, row_dtype)
        stack.enter_context(closing(driver))
        if checkpoint is not None:
            like = jax.eval_shape(lambda: run)
            del run  # or there would be two replay buffers
            run = _restore(like, checkpoint.arrays, driver, best)
            tqdm.write(f"resumed {folder} at step {checkpoint.step:,}")
        else:
            folder.mkdir(parents=True, exist_ok=True)
            write_settings(folder, settings)
        evaluator = make_evaluator(agent, task, settings.seed_list, settings.eval_episodes)
        stack.enter_context(closing(evaluator))
        history.cut_back(folder, -1 if checkpoint is None else checkpoint.step)
        sinks = _open_sinks(settings, folder, None if checkpoint is None else checkpoint.step)
        for sink in sinks:
            stack.enter_context(closing(sink))
        stop = stack.enter_context(_stop_on_signal())
        mesh = seed_mesh(settings.seeds)
        session = Session(
            settings=settings,
            folder=folder,
            agent=agent,
            driver=driver,
            evaluator=evaluator,
            sinks=sinks,
            best=best,
            finish_chunk=jax.jit(
                over_devices(partial(finish_chunk, agent), mesh, (RUN,), (RUN, TOTALS, SEEDS)),
                donate_argnums=0,
            ),
            reset=jax.jit(
                over_devices(
                    make_reset(agent, seeds_per_device(settings.seeds, mesh)), mesh, (RUN,), RUN
                ),
                donate_argnums=0,
            ),
            diagnose=make_diagnose(
                agent, settings.seeds, folder if settings.gradient_covariance else None
            ),
            stop=stop,
            began=began,
        )
        if checkpoint is None:
            topology.save_masks(folder / INITIAL_TOPOLOGY, agent.masks(run.agent))
            evaluate(session, run, 0)
        run, step = _loop(session, run, 0 if checkpoint is None else checkpoint.step)
        final = settings.final_eval_episodes
        if step < settings.steps or (final and stop()):
            return Outcome(folder, step, None)
        if final:
            # The environments of training and its evaluations are not needed any more.
            driver.close()
            evaluator.close()
            evaluator = make_evaluator(agent, task, settings.seed_list, final)
            stack.enter_context(closing(evaluator))
            evaluate_finally(session, run, evaluator)
        digest = fingerprint(run_to_arrays(run))
        (folder / FINGERPRINT).write_text(digest + "\n")
        return Outcome(folder, step, digest)


def _loop(session: Session, run: Run, step: int) -> tuple[Run, int]:
    """Trains to the last step or a signal; returns the run and the step it is at."""
    settings, total = session.settings, session.settings.steps
    bar = tqdm(
        total=total,
        initial=step,
        unit="step",
        desc=settings.recipe,
        file=sys.stdout,
        mininterval=0.5 if sys.stdout.isatty() else 20.0,
        dynamic_ncols=True,
    )
    stopping = False
    with bar:
        while step < total and not stopping:
            target = next_boundary(step, settings, session.agent.learning_starts)
            learning = step >= session.agent.learning_starts
            run = session.driver.advance(run, target - step, learning, session.stop, bar.update)
            step = int(run.clock.step)
            if step == target and _due(step, settings.log_every, settings):
                run = log(session, run, step)
            if step == target and _due(step, settings.eval_every, settings):
                returns = evaluate(session, run, step)
                bar.set_postfix_str(f"return {returns.mean():.1f}")
            if step == target and learning and _wanted(step, settings.diagnose_every, settings):
                diagnose(session, run, step)
            if step == target and _wanted(step, settings.history_every, settings):
                history.save(session.folder, session.agent, run.agent, step)
            if step == target and step in settings.reset_steps:
                run = session.reset(run)
            stopping = session.stop()
            if stopping or _due(step, settings.checkpoint_every, settings):
                _save(session, run, step)
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
    arrays = {**run_to_arrays(run), **snapshot, **best}
    checkpoints.save(session.checkpoint_folder, checkpoints.FULL, step, arrays)
    checkpoints.save(session.checkpoint_folder, checkpoints.BEST, step, session.best.policies)


def _restore(like: Run, arrays: Arrays, driver: Driver, best: BestPolicies) -> Run:
    """The run and the environments of a full checkpoint; `like` gives shapes only."""
    run = driver.place(run_from_arrays(_of_run(arrays), like))
    driver.restore(_with_prefix(arrays, HOST))
    best.restore(_with_prefix(arrays, BEST))
    return run


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
