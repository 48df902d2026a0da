"""What a run works with on the host, and the rows of metrics it writes between chunks."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from mst_jax.agents import Agent, Metrics
from mst_jax.training import checkpoints
from mst_jax.training.best import BestPolicies, evaluate_final
from mst_jax.training.drivers import Driver
from mst_jax.training.evaluation import Evaluator
from mst_jax.training.light import from_light, to_light
from mst_jax.training.run_state import Run
from mst_jax.training.settings import Settings
from mst_jax.training.sinks import Sink


class Session(NamedTuple):
    """What a run works with on the host."""

    settings: Settings
    folder: Path
    agent: Agent
    driver: Driver
    evaluator: Evaluator
    sinks: list[Sink]
    best: BestPolicies
    finish_chunk: Callable[[Run], Any]
    reset: Callable[[Run], Run]
    diagnose: Callable[[Run, int], Metrics]
    stop: Callable[[], bool]  # true once a signal asked to stop
    began: float  # time.perf_counter() at the start of this process's part

    @property
    def checkpoint_folder(self) -> Path:
        """Where both tiers of checkpoints go."""
        return self.folder / "checkpoints"


def log(session: Session, run: Run, step: int) -> Run:
    """Fetches the chunk's metric sums in one transfer and writes one row per seed."""
    run, totals, sparsities = session.finish_chunk(run)
    totals, sparsities, healthy = jax.device_get((totals, sparsities, run.healthy))
    clocks, updates = session.driver.clocks, max(int(totals.updates), 1)
    for index in range(session.settings.seeds):
        row: dict[str, Any] = {f"sparsity/{name}": s[index] for name, s in sparsities.items()}
        if totals.updates:
            row |= {name: value[index] / updates for name, value in totals.metrics.items()}
        if totals.episodes[index]:
            row["return"] = totals.returns[index] / totals.episodes[index]
        _write(
            session, index, step, "train", bool(healthy[index]), row | clocks.row(totals.updates)
        )
    clocks.clear()
    for index in np.flatnonzero(~healthy):
        seed = session.settings.seed_list[index]
        tqdm.write(
            f"seed {seed} has non-finite parameters since before step {step}: its actions are 0"
        )
    return run


def evaluate(session: Session, run: Run, step: int) -> np.ndarray:
    """Evaluates, writes a row per seed and a light checkpoint; returns (S, episodes)."""
    before = time.perf_counter()
    every = session.settings.eval_every
    returns, biases = session.evaluator(run.agent, -(-step // every))
    seconds = time.perf_counter() - before
    healthy = np.asarray(run.healthy)
    for index, values in enumerate(returns):
        row = {
            "return": values.mean(),
            "returns": values,
            "value_bias": biases[index].mean(),
            "wall/evaluation_seconds": seconds,
        }
        _write(session, index, step, "eval", bool(healthy[index]), row)
    light = to_light(session.agent, run.agent)
    checkpoints.save(session.checkpoint_folder, checkpoints.LIGHT, step, light)
    session.best.update(light, returns.mean(axis=1), healthy, step)
    return returns


def diagnose(session: Session, run: Run, step: int) -> None:
    """Writes a row of kind `diagnostics` per seed."""
    before = time.perf_counter()
    metrics, healthy = jax.device_get((session.diagnose(run, step), run.healthy))
    seconds = {"wall/diagnostics_seconds": time.perf_counter() - before}
    for index in range(session.settings.seeds):
        row = {name: values[index] for name, values in metrics.items()}
        _write(session, index, step, "diagnostics", bool(healthy[index]), row | seconds)


def evaluate_finally(session: Session, run: Run, evaluator: Evaluator) -> None:
    """Writes a row of kind `final` per seed: the last and the best policy on fresh episodes."""
    best = from_light(session.agent, session.best.policies, run.agent)
    healthy = np.asarray(run.healthy)
    rows = evaluate_final(evaluator, run.agent, best, session.best)
    for index, row in enumerate(rows):
        _write(session, index, session.settings.steps, "final", bool(healthy[index]), row)
        last, best_return, step = row["last/return"], row["best/return"], row["best/step"]
        seed = session.settings.seed_list[index]
        tqdm.write(f"final, seed {seed}: last {last:.1f}, best (step {step:,}) {best_return:.1f}")


def _write(
    session: Session, index: int, step: int, kind: str, healthy: bool, values: dict[str, Any]
) -> None:
    seed = session.settings.seed_list[index]
    wall = {"wall/seconds": time.perf_counter() - session.began}
    for sink in session.sinks:
        sink.write(
            index, {"step": step, "kind": kind, "seed": seed, "healthy": healthy, **values, **wall}
        )
