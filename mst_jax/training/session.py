"""What runs work with on the host, and the rows of metrics they write between chunks."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from mst_jax.agents import Agent, Metrics
from mst_jax.training import checkpoints
from mst_jax.training.arrays import Arrays, split
from mst_jax.training.best import BestPolicies, evaluate_final
from mst_jax.training.drivers import Driver
from mst_jax.training.evaluation import Evaluator
from mst_jax.training.light import from_light, to_light
from mst_jax.training.resuming import CHECKPOINTS
from mst_jax.training.run_state import Run
from mst_jax.training.settings import Settings
from mst_jax.training.sinks import Sink


class Member(NamedTuple):
    """One run of a program: where its rows and files go.

    Attributes:
        settings: its settings.
        folder: its run folder.
        rows: which of the program's seeds are its own.
        sinks: take its rows, by the position of a seed in the run.
        config: what its config.json holds.
    """

    settings: Settings
    folder: Path
    rows: slice
    sinks: list[Sink]
    config: dict[str, Any]


class Session(NamedTuple):
    """What a program of runs works with on the host; arrays hold the seeds of all members."""

    settings: Settings  # what the members share, with all their seeds
    members: list[Member]
    agent: Agent
    driver: Driver
    evaluator: Evaluator
    best: BestPolicies
    finish_chunk: Callable[[Run], Any]
    reset: Callable[[Run], Run]
    diagnose: Callable[[Run, int], Metrics]
    stop: Callable[[], bool]  # true once a signal asked to stop
    began: float  # time.perf_counter() at the start of this process's part

    @property
    def folders(self) -> dict[Path, slice]:
        """Run folders, and which seeds are theirs."""
        return {member.folder: member.rows for member in self.members}

    def save(self, tier: str, step: int, arrays: Arrays) -> None:
        """Writes each member's part of the arrays into its folder, as a checkpoint."""
        stores = [member.folder / CHECKPOINTS for member in self.members]
        parts = split(arrays, [member.settings.seeds for member in self.members])
        configs = [member.config for member in self.members]
        checkpoints.save_together(stores, tier, step, parts, configs)

    def sync(self) -> None:
        """Brings all rows to the disk."""
        for member in self.members:
            for sink in member.sinks:
                sink.sync()

    def write(self, index: int, step: int, kind: str, healthy: bool, values: dict[str, Any]) -> str:
        """Writes one row of one seed of the program; returns what to call the seed."""
        member = next(member for member in self.members if index < member.rows.stop)
        position = index - member.rows.start
        seed = member.settings.seed_list[position]
        wall = {"wall/seconds": time.perf_counter() - self.began}
        row = {"step": step, "kind": kind, "seed": seed, "healthy": healthy, **values, **wall}
        for sink in member.sinks:
            sink.write(position, row)
        return f"seed {seed}" if len(self.members) == 1 else f"{member.folder.name}, seed {seed}"


def log(session: Session, run: Run, step: int) -> Run:
    """Fetches the chunk's metric sums in one transfer and writes one row per seed."""
    run, totals, sparsities = session.finish_chunk(run)
    totals, sparsities, healthy = jax.device_get((totals, sparsities, run.healthy))
    clocks, updates = session.driver.clocks, max(int(totals.updates), 1)
    for index in range(session.settings.seeds):
        row: dict[str, Any] = {f"sparsity/{name}": s[index] for name, s in sparsities.items()}
        row["transitions"] = session.settings.environments * step
        if totals.updates:
            row |= {name: value[index] / updates for name, value in totals.metrics.items()}
        if totals.episodes[index]:
            row["return"] = totals.returns[index] / totals.episodes[index]
        row |= clocks.row(totals.updates)
        name = session.write(index, step, "train", bool(healthy[index]), row)
        if not healthy[index]:
            tqdm.write(
                f"{name} has non-finite parameters since before step {step}: its actions are 0"
            )
    clocks.clear()
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
        session.write(index, step, "eval", bool(healthy[index]), row)
    light = to_light(session.agent, run.agent)
    session.save(checkpoints.LIGHT, step, light)
    session.best.update(light, returns.mean(axis=1), healthy, step)
    return returns


def diagnose(session: Session, run: Run, step: int) -> None:
    """Writes a row of kind `diagnostics` per seed."""
    before = time.perf_counter()
    metrics, healthy = jax.device_get((session.diagnose(run, step), run.healthy))
    seconds = {"wall/diagnostics_seconds": time.perf_counter() - before}
    for index in range(session.settings.seeds):
        row = {name: values[index] for name, values in metrics.items()}
        session.write(index, step, "diagnostics", bool(healthy[index]), row | seconds)


def evaluate_finally(session: Session, run: Run, evaluator: Evaluator) -> None:
    """Writes a row of kind `final` per seed: the last and the best policy on fresh episodes."""
    best = from_light(session.agent, session.best.policies, run.agent)
    healthy = np.asarray(run.healthy)
    rows = evaluate_final(evaluator, run.agent, best, session.best)
    for index, row in enumerate(rows):
        step = session.settings.steps
        name = session.write(index, step, "final", bool(healthy[index]), row)
        last, best_return, chosen = row["last/return"], row["best/return"], row["best/step"]
        tqdm.write(f"final, {name}: last {last:.1f}, best (step {chosen:,}) {best_return:.1f}")
