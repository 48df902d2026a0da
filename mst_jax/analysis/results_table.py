"""The tidy table of results: one row for every evaluation of every seed, as plain dictionaries."""

import csv
import dataclasses
import json
import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mst_jax import envs, topology
from mst_jax.agents import Agent, make_agent
from mst_jax.analysis.curves import total_seconds
from mst_jax.names import dotted
from mst_jax.runs import Settings, read_metrics, read_settings
from mst_jax.runs.folder import seed_folder
from mst_jax.runs.health import diverged_by, healthy_at, return_of, returns_of
from mst_jax.runs.task_file import read_spec

Row = dict[str, Any]


class Cost(NamedTuple):
    """What a run's networks cost in theory (`topology.costs`), all modules together.

    Attributes:
        parameters: of the online networks, masked positions included.
        active_parameters: those inside the final masks, as planned.
        flops: operations of one gradient step: every module's forward and backward pass on one
            batch, a convolution at each of its places, its sparsity averaged over the run. A module
            that is updated every second time counts half. Targets, unrolling and the policy's
            gradient through the values are left out, so compare these numbers, do not add them up
            to a bill.
        dense_flops: the same without sparsity.
        updates: gradient steps in the whole run, of the module with most of them.
        learning_starts: agent steps before the first of them.
    """

    parameters: int
    active_parameters: int
    flops: float
    dense_flops: float
    updates: int
    learning_starts: int


def cost_of(settings: Settings, spec: envs.Spec | None = None) -> Cost:
    """Parameters and operations of a run, from its settings alone; nothing is allocated.

    Args:
        settings: the run's.
        spec: the sizes of its task; None makes the task to see them.

    Raises:
        ValueError: for a task or settings that cannot be made.
    """
    spec = spec or spec_of(settings)
    config = json.dumps(dataclasses.asdict(settings.config), sort_keys=True)
    return _cost_of(_Key(settings, (settings.agent, spec, settings.steps, config)))


def cost_of_agent(agent: Agent, settings: Settings) -> Cost:
    """Parameters and operations of a run whose agent is there already."""
    modules = agent.modules.values()
    costs = [topology.costs(one.plan, one.updates, one.positions) for one in modules]
    most = max(module.updates for module in modules)
    shares = [module.updates / most for module in modules]
    batch = getattr(settings.config, "batch_size", 1)  # an agent without replay has none
    return Cost(
        parameters=sum(cost.dense_bytes for cost in costs) // 4,
        active_parameters=sum(_active(module.plan) for module in modules),
        flops=batch * sum(c.training * share for c, share in zip(costs, shares, strict=True)),
        dense_flops=batch
        * sum(c.dense_training * share for c, share in zip(costs, shares, strict=True)),
        updates=most,
        learning_starts=agent.learning_starts,
    )


@lru_cache
def _spec(task: str, options: tuple[tuple[str, Any], ...]) -> envs.Spec:
    return envs.make(task, **dict(options)).spec


def spec_of(settings: Settings) -> envs.Spec:
    """The sizes of a run's task; ValueError for one that cannot be made."""
    return _spec(settings.task, tuple(settings.task_options.items()))


def updates_at(cost: Cost, steps: int, step: int) -> int:
    """Gradient steps after `step` of a run's `steps` agent steps, of the module with most."""
    learning = max(steps - cost.learning_starts, 1)
    return cost.updates * max(0, step - cost.learning_starts) // learning


def read_results(folder: Path) -> list[Row]:
    """The rows of one run folder, by seed and then step; ValueError when it is not a run.

    Columns: `run` (folder name), `task`, `agent`, `recipe`, `seed`, `step` (agent steps), `return`
    (mean over the evaluation's episodes that have one; NaN if none has or the seed is not healthy),
    `episodes` (how many have one), `healthy` (whether the seed had not diverged until then),
    `diverged` (the step by which it had; None if it never did), `wall_seconds` (of training up to
    there, over all processes of the run; the seeds of a run share it),
    `block` (runs in the program), `updates`, those of `Cost` with `flops` and `dense_flops` times
    the updates so far, and every setting as `config.NAME`.
    """
    settings = read_settings(folder)
    cost = cost_of(settings, read_spec(folder))
    common = {
        "run": folder.name,
        "task": settings.task,
        "agent": settings.agent,
        "recipe": settings.recipe,
        "block": settings.seeds,
        "parameters": cost.parameters,
        "active_parameters": cost.active_parameters,
        **dotted(settings.config, "config."),
    }
    rows = []
    for seed in settings.seed_list:
        own = seed_folder(folder, seed)
        metrics = read_metrics(own) if own.is_dir() else []
        diverged = diverged_by(metrics)
        for row, seconds in zip(metrics, total_seconds(metrics), strict=True):
            if row["kind"] != "eval":
                continue
            updates = updates_at(cost, settings.steps, row["step"])
            rows.append(
                {
                    **common,
                    "seed": seed,
                    "step": row["step"],
                    "return": return_of(row, diverged),
                    "episodes": len(returns_of(row, diverged)),
                    "healthy": healthy_at(row["step"], diverged),
                    "diverged": diverged,
                    "wall_seconds": seconds,
                    "updates": updates,
                    "flops": cost.flops * updates,
                    "dense_flops": cost.dense_flops * updates,
                }
            )
    return rows


def last_rows(rows: Iterable[Row]) -> list[Row]:
    """The last evaluation of every seed of every run."""
    last: dict[tuple[str, str, int], Row] = {}
    for row in rows:
        key = (row["task"], row["run"], row["seed"])
        if key not in last or row["step"] >= last[key]["step"]:
            last[key] = row
    return list(last.values())


def by_task(rows: Iterable[Row], value: str = "return") -> dict[str, dict[int, float]]:
    """Task -> {seed: value}; ValueError when a task and seed occur twice."""
    tasks: dict[str, dict[int, float]] = {}
    for row in rows:
        seeds = tasks.setdefault(row["task"], {})
        if row["seed"] in seeds:
            raise ValueError(f"seed {row['seed']} of {row['task']} occurs twice in these rows")
        seeds[row["seed"]] = row[value]
    return tasks


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Writes rows with the columns of all of them; an absent value is empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


@dataclasses.dataclass(frozen=True)
class _Key:
    """Settings that are cached by what their cost depends on: agent, spec, steps, configuration."""

    settings: Settings = dataclasses.field(compare=False)
    identity: tuple[str, envs.Spec, int, str]


@lru_cache(maxsize=4096)
def _cost_of(key: _Key) -> Cost:
    name, spec, steps, _ = key.identity
    agent = make_agent(name, key.settings.config, spec, steps)
    return cost_of_agent(agent, key.settings)


def _active(plan: topology.Plan) -> int:
    masked = sum(int(np.sum(group.table.target[-1])) for group in plan.groups)
    return masked + sum(math.prod(shape) for shape in plan.dense.values())
