"""What runs work with on the host, and the rows of metrics they write between chunks."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from mst_jax.agents import Agent, Metrics, Occasional
from mst_jax.envs import EnvironmentFailedError
from mst_jax.program.drivers import Driver
from mst_jax.program.evaluation import Evaluator
from mst_jax.program.health import finite_policy
from mst_jax.program.state import LoopState
from mst_jax.runs import checkpoints
from mst_jax.runs.arrays import Arrays, split
from mst_jax.runs.folder import CHECKPOINTS
from mst_jax.runs.health import mean_of_known
from mst_jax.runs.light import from_light, to_light
from mst_jax.runs.settings import Settings
from mst_jax.runs.sinks import Sink
from mst_jax.training.best import BestPolicies, evaluate_final


class Member(NamedTuple):
    """One run of a program: where its rows and files go.

    Attributes:
        settings: its settings.
        folder: its run folder.
        rows: which of the program's seeds are its own.
        sinks: take its rows, by the position of a seed in the run.
        config: what its config.json holds.
        seconds_before: of its training, before this process.
    """

    settings: Settings
    folder: Path
    rows: slice
    sinks: list[Sink]
    config: dict[str, Any]
    seconds_before: float


class Session(NamedTuple):
    """What a program of runs works with on the host; arrays hold the seeds of all members."""

    settings: Settings  # what the members share, with all their seeds
    members: list[Member]
    agent: Agent
    action_repeat: int  # frames of an agent step
    driver: Driver
    evaluator: Evaluator
    best: BestPolicies
    check: Callable[[LoopState], jax.Array]
    finish_chunk: Callable[[LoopState], Any]
    reset: Callable[[LoopState], LoopState]
    recycle: Callable[[LoopState], LoopState] | None  # None where the settings never do
    review: Callable[[LoopState], LoopState] | None  # None where the agent's memory has none
    diagnose: Callable[[LoopState, int], Metrics]
    stop: Callable[[], bool]  # true once a signal asked to stop
    open_files: Callable[[], None]  # opens the members' sinks, once
    began: float  # time.perf_counter() at the start of this process's part
    verbose: bool  # whether to print the final evaluation

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

    def owner(self, index: int) -> tuple[Member, int]:
        """Whose one seed of the program is, and its position in that run."""
        member = next(member for member in self.members if index < member.rows.stop)
        return member, index - member.rows.start

    def name(self, index: int) -> str:
        """What to call one seed of the program."""
        member, position = self.owner(index)
        seed = f"seed {member.settings.seed_list[position]}"
        return seed if len(self.members) == 1 else f"{member.folder.name}, {seed}"

    def seconds(self, index: int) -> float:
        """Wall-clock seconds that training has taken one seed of the program until now."""
        return self.owner(index)[0].seconds_before + time.perf_counter() - self.began

    def write(
        self, index: int, step: int, kind: str, healthy: bool, values: dict[str, Any]
    ) -> None:
        """Writes one row of one seed of the program."""
        member, position = self.owner(index)
        seed = member.settings.seed_list[position]
        wall = {"wall/seconds": self.seconds(index)}
        row = {"step": step, "kind": kind, "seed": seed, "healthy": healthy, **values, **wall}
        for sink in member.sinks:
            sink.write(position, row)

    def tell_diverged(self, before: np.ndarray, healthy: np.ndarray, step: int) -> None:
        """Says, once, which seeds a check found no longer healthy; (S,) bool before and after."""
        for index in np.flatnonzero(before & ~healthy):
            tqdm.write(
                f"{self.name(int(index))} is not finite any more at step {step:,}: its actions are "
                "0 and it has no return from here on"
            )


def log(session: Session, loop: LoopState, step: int) -> LoopState:
    """Fetches the chunk's metric sums in one transfer and writes one row per seed."""
    before = np.asarray(loop.healthy)
    loop, totals, sparsities = session.finish_chunk(loop)
    totals, sparsities, healthy = jax.device_get((totals, sparsities, loop.healthy))
    session.tell_diverged(before, healthy, step)
    clocks, updates = session.driver.clocks, max(int(totals.updates), 1)
    errors, restarts = session.driver.errors(), session.driver.restarts()
    for index in range(session.settings.seeds):
        row: dict[str, Any] = {f"sparsity/{name}": s[index] for name, s in sparsities.items()}
        row["transitions"] = session.settings.environments * step
        row["frames"] = row["transitions"] * session.action_repeat
        row["environment_errors"] = errors[index]
        if restarts is not None:
            row["worker_restarts"] = restarts
        if totals.updates:
            row |= {
                name: mean
                for name, value in totals.metrics.items()
                if (mean := _mean(value, index, updates)) is not None
            }
        row["episodes"] = totals.episodes[index]
        if totals.episodes[index]:
            mean = totals.returns[index] / totals.episodes[index]
            row["return"] = mean if healthy[index] else np.nan
        row |= clocks.row(totals.updates)
        session.write(index, step, "train", bool(healthy[index]), row)
    clocks.clear()
    return loop


def _mean(metric: Any, index: int, updates: int) -> float | None:
    """A metric's mean over the updates that made it, of one seed; None where none did."""
    if not isinstance(metric, Occasional):
        return metric[index] / updates
    return metric.total[index] / metric.count[index] if metric.count[index] else None


def evaluate(session: Session, loop: LoopState, step: int) -> tuple[LoopState, np.ndarray]:
    """Evaluates, writes a row per seed and a light checkpoint.

    Seeds that are not finite are marked first, so that none gets a return for doing nothing.

    Returns:
        The loop, and the returns (S, episodes): NaN where there is none.
    """
    marked = replace(loop, healthy=session.check(loop))
    healthy = np.asarray(marked.healthy)
    session.tell_diverged(np.asarray(loop.healthy), healthy, step)
    before = time.perf_counter()
    every = session.settings.eval_every
    played = session.evaluator(loop.agent, -(-step // every)).of_healthy(healthy)
    seconds = time.perf_counter() - before
    for index, values in enumerate(played.returns):
        row = {
            "return": mean_of_known(values),
            "returns": values,
            "episodes": np.isfinite(values).sum(),
            "wall/evaluation_seconds": seconds,
        }
        if session.agent.value is not None:
            row["value_bias"] = mean_of_known(played.value_bias[index])
        session.write(index, step, "eval", bool(healthy[index]), row)
    light = to_light(session.agent, loop.agent)
    session.save(checkpoints.LIGHT, step, light)
    session.best.update(light, mean_of_known(played.returns), healthy, step)
    return marked, played.returns


def describe_returns(returns: np.ndarray) -> str:
    """The mean over the seeds that have a return, and of how many it is; (S, episodes)."""
    known = np.isfinite(returns).any(axis=1)
    some = "" if known.all() else f" ({known.sum()} of {known.size} seeds)"
    return f"return {mean_of_known(mean_of_known(returns)):.1f}{some}"


def diagnose(session: Session, loop: LoopState, step: int) -> None:
    """Writes a row of kind `diagnostics` per seed."""
    before = time.perf_counter()
    metrics, healthy = jax.device_get((session.diagnose(loop, step), loop.healthy))
    seconds = {"wall/diagnostics_seconds": time.perf_counter() - before}
    for index in range(session.settings.seeds):
        row = {name: values[index] for name, values in metrics.items()}
        session.write(index, step, "diagnostics", bool(healthy[index]), row | seconds)


def evaluate_finally(session: Session, loop: LoopState, evaluator: Evaluator) -> None:
    """Writes a row of kind `final` per seed: the last and the best policy on fresh episodes."""
    best = from_light(session.agent, session.best.policies, loop.agent)
    healthy = np.asarray(loop.healthy)
    # All else in `best` is of the last step; an older version may have chosen what is not finite.
    finite_best = np.asarray(finite_policy(session.agent, best))
    policies = {"last": healthy, "best": finite_best}
    rows = evaluate_final(evaluator, loop.agent, best, session.best, policies)
    if evaluator.failure:
        raise EnvironmentFailedError(f"in the final evaluation, {evaluator.failure}")
    for index, row in enumerate(rows):
        session.write(index, session.settings.steps, "final", bool(healthy[index]), row)
        if not session.verbose:
            continue
        last, best_return, chosen = row["last/return"], row["best/return"], row["best/step"]
        when = "never chosen" if chosen is None else f"step {chosen:,}"
        tqdm.write(
            f"final, {session.name(index)}: last {last:.1f}, best ({when}) {best_return:.1f}"
        )
