"""Speed of the replay buffer against its capacity and against simpler designs.

    python -m benchmarks.replay [--output FILE]

Every variant runs `--steps` times inside one compiled scan with a donated state, so neither
dispatch nor transfers count. All variants of a capacity are timed in turn within each round; a
ratio is the median over rounds of the ratio within a round, so a slow moment of the machine hits
both sides.

* `insert`, `sample`, `set_priorities`, `subtrajectory`, `transition`: the library, as agents use it
* `draw_tree` / `draw_flat`: one prioritised draw and its priority update, by the fan-out-16 tree
  and by a cumulative sum over all N leaves with a binary search
* `write_scatter` / `write_shared`: two packed rows of each seed, at per-seed cursors (one scatter,
  as the library does) and at one cursor for all seeds (`dynamic_update_slice`), without the tree
"""

import argparse
import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from mst_jax import replay
from mst_jax.replay import sum_tree

SPAN, HORIZON, N_STEP = 6, 5, 3
STATE = tuple[replay.Buffer, jax.Array]  # the buffer, and a sum that keeps results alive
RATIOS = (
    ("draw_tree", "draw_flat"),
    ("write_scatter", "write_shared"),
    ("insert", "write_shared"),
)


def variants(settings: argparse.Namespace) -> dict[str, Callable[[STATE, jax.Array], STATE]]:
    """Returns the functions to time, each (state, key) -> state."""
    seeds, batch = settings.seeds, settings.batch
    observation = jnp.ones((seeds, settings.observation_size))
    action = jnp.ones((seeds, settings.action_size))
    number, flag = jnp.ones(seeds), jnp.zeros(seeds, bool)
    pair = jnp.ones((seeds, 2, settings.observation_size + settings.action_size))

    def keys(key: jax.Array) -> jax.Array:
        return jax.random.split(key, seeds)

    def uniform_indices(buffer: replay.Buffer, key: jax.Array) -> jax.Array:
        return jax.random.randint(key, (seeds, batch), 0, buffer.reward.shape[1])

    def priorities(indices: jax.Array) -> jax.Array:
        return 1.0 + (indices % 7).astype(jnp.float32)

    def keep(state: STATE, result: Any) -> STATE:
        total = sum(leaf.sum(dtype=jnp.float32) for leaf in jax.tree.leaves(result))
        return state[0], state[1] + total

    def insert(state: STATE, key: jax.Array) -> STATE:
        del key
        buffer = replay.insert(state[0], observation, action, number, flag, flag, observation)
        return buffer, state[1]

    def sample(state: STATE, key: jax.Array) -> STATE:
        draw = jax.vmap(lambda view, key: view.sample(key, batch))
        return keep(state, draw(replay.view(state[0]), keys(key)))

    def set_priorities(state: STATE, key: jax.Array) -> STATE:
        indices = uniform_indices(state[0], key)
        return replay.set_priorities(state[0], indices, priorities(indices)), state[1]

    def subtrajectory(state: STATE, key: jax.Array) -> STATE:
        read = jax.vmap(lambda view, indices: view.subtrajectory(indices, HORIZON))
        return keep(state, read(replay.view(state[0]), uniform_indices(state[0], key)))

    def transition(state: STATE, key: jax.Array) -> STATE:
        read = jax.vmap(lambda view, indices: view.transition(indices, N_STEP))
        return keep(state, read(replay.view(state[0]), uniform_indices(state[0], key)))

    def draw_tree(state: STATE, key: jax.Array) -> STATE:
        draw = jax.vmap(lambda view, key: view.sample(key, batch))
        indices = draw(replay.view(state[0]), keys(key))
        return replay.set_priorities(state[0], indices, priorities(indices)), state[1]

    def draw_flat(state: STATE, key: jax.Array) -> STATE:
        leaves = state[0].tree[0]

        def draw(leaves: jax.Array, key: jax.Array) -> jax.Array:
            sums = jnp.cumsum(leaves)
            return jnp.searchsorted(sums, jax.random.uniform(key, batch) * sums[-1], side="right")

        indices = jnp.minimum(jax.vmap(draw)(leaves, keys(key)), leaves.shape[1] - 1)
        leaves = leaves.at[jnp.arange(seeds)[:, None], indices].set(priorities(indices))
        return dataclasses.replace(state[0], tree=(leaves, *state[0].tree[1:])), state[1]

    def write_scatter(state: STATE, key: jax.Array) -> STATE:
        del key
        buffer = state[0]
        capacity = buffer.reward.shape[1]

        def write(rows: jax.Array, cursor: jax.Array, values: jax.Array) -> jax.Array:
            slots = (cursor + jnp.arange(2)) % capacity
            return rows.at[slots].set(values, unique_indices=True)

        rows = jax.vmap(write)(buffer.rows, buffer.cursor, pair)
        cursor = (buffer.cursor + 1) % capacity
        return dataclasses.replace(buffer, rows=rows, cursor=cursor), state[1]

    def write_shared(state: STATE, key: jax.Array) -> STATE:
        del key
        buffer = state[0]
        cursor = buffer.cursor[0, 0]
        rows = jax.lax.dynamic_update_slice(buffer.rows, pair, (0, cursor, 0))
        cursors = (buffer.cursor + 1) % (buffer.reward.shape[1] - 1)  # two rows never wrap
        return dataclasses.replace(buffer, rows=rows, cursor=cursors), state[1]

    functions = (
        insert,
        sample,
        set_priorities,
        subtrajectory,
        transition,
        draw_tree,
        draw_flat,
        write_scatter,
        write_shared,
    )
    return {function.__name__: function for function in functions}


def filled_state(settings: argparse.Namespace, capacity: int) -> STATE:
    """Returns a full buffer of ones in which every slot is sampleable."""

    @jax.jit  # one program, so that the zeros of `create` are never allocated
    def build() -> replay.Buffer:
        buffer = replay.create(
            num_seeds=settings.seeds,
            capacity=capacity,
            observation_size=settings.observation_size,
            action_size=settings.action_size,
            span=SPAN,
        )
        return dataclasses.replace(
            buffer,
            rows=jnp.ones_like(buffer.rows),
            reward=jnp.ones_like(buffer.reward),
            tree=jax.vmap(sum_tree.from_leaves)(jnp.ones_like(buffer.tree[0])),
            filled=jnp.full_like(buffer.filled, capacity - 1),
            steps=jnp.full_like(buffer.steps, SPAN),
        )

    return build(), jnp.float32(0)


def measure(settings: argparse.Namespace, capacity: int) -> dict[str, list[float]]:
    """Returns microseconds a call of every variant, one number for each round."""

    def many(function: Callable[[STATE, jax.Array], STATE]) -> Callable[..., STATE]:
        def run(state: STATE, key: jax.Array) -> STATE:
            steps = jax.random.split(key, settings.steps)
            return jax.lax.scan(lambda state, key: (function(state, key), None), state, steps)[0]

        return jax.jit(run, donate_argnums=0)

    programs = {name: many(function) for name, function in variants(settings).items()}
    times = {name: [] for name in programs}
    state = filled_state(settings, capacity)
    for turn in range(settings.rounds + 1):
        key = jax.random.fold_in(jax.random.key(0), turn)
        for name, program in programs.items():
            state = jax.block_until_ready(state)
            start = time.perf_counter()
            state = jax.block_until_ready(program(state, key))
            if turn:  # the first round compiles
                times[name].append((time.perf_counter() - start) / settings.steps * 1e6)
    return times


def median_ratio(numerator: list[float], denominator: list[float]) -> float:
    """Returns the median over rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))


def environment() -> dict[str, Any]:
    """Returns what a reader needs to judge the numbers: machine, versions, date."""
    device = jax.devices()[0]
    packages = ("jax", "jaxlib", "numpy", "mst_jax")
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": platform.platform(),
        "cpus": os.cpu_count(),
        "load_average": os.getloadavg(),
        "device": f"{device.platform}: {device.device_kind}",
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }


def main() -> None:
    """Measures, prints tables and writes JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="write all numbers here, as JSON")
    parser.add_argument("--capacities", type=int, nargs="+", default=[2**16, 2**18, 10**6])
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--observation_size", type=int, default=223, help="dm_control dog: 223")
    parser.add_argument("--action_size", type=int, default=38, help="dm_control dog: 38")
    parser.add_argument("--steps", type=int, default=50, help="calls in one compiled scan")
    parser.add_argument("--rounds", type=int, default=15)
    settings = parser.parse_args()

    results = {capacity: measure(settings, capacity) for capacity in settings.capacities}
    medians = {
        capacity: {name: statistics.median(values) for name, values in times.items()}
        for capacity, times in results.items()
    }
    ratios = {
        capacity: {f"{a} / {b}": median_ratio(times[a], times[b]) for a, b in RATIOS}
        for capacity, times in results.items()
    }
    print(f"microseconds a call, {settings.seeds} seeds, batch {settings.batch}")
    print_table(medians, "{:.1f}")
    print("\nratios")
    print_table(ratios, "{:.2f}")
    if settings.output:
        numbers = vars(settings) | {"output": str(settings.output)}
        report = {
            "environment": environment(),
            "settings": numbers,
            "median_us": medians,
            "ratios": ratios,
            "rounds_us": results,
        }
        settings.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def print_table(columns: dict[int, dict[str, float]], number: str) -> None:
    """Prints one row a name and one column a capacity."""
    names = list(next(iter(columns.values())))
    print(f"{'capacity':32s}" + "".join(f"{capacity:>12d}" for capacity in columns))
    for name in names:
        cells = "".join(f"{number.format(column[name]):>12s}" for column in columns.values())
        print(f"{name:32s}" + cells)


if __name__ == "__main__":
    main()
