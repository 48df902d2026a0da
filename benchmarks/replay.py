"""Speed and size of the replay buffer against its capacity and against simpler designs.

    python -m benchmarks.replay [--part vectors|frames] [--output FILE]

Vectors. Every variant runs `--steps` times inside one compiled scan with a donated state, so that
dispatch and transfers do not count. All variants of a capacity are timed in turn within each round;
a ratio is the median over rounds of the ratio within a round, so a slow moment of the machine hits
both sides.

* `insert`, `sample`, `set_priorities`, `subtrajectory`, `transition`: the library, as agents use it
* `draw_tree` / `draw_flat`: one prioritised draw and its priority update, by the fan-out-16 tree
  and by a cumulative sum over all N leaves with a binary search
* `write_scatter` / `write_shared`: two packed rows of each seed, at per-seed cursors (one scatter,
  as the library does) and at one cursor for all seeds (`dynamic_update_slice`), without the tree

Frames. One seed; pictures 84x84x3 of uint8 with a history of three, `_parts` stored once and
stacked when read, as the library does, `_stacks` stored whole, as observations without a history:

* `insert_*`, 1,000 in one scan
* `transition_*` (three steps, so two stacks each) and `subtrajectory_*` (five steps, so six), one
  call after another, because a scan would fuse the read into whatever uses it
* bytes of 100,000 slots of either kind
"""

import argparse
import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import mst_jax
from mst_jax import replay
from mst_jax.envs import Continuous, Observation
from mst_jax.replay import sum_tree

SPAN, HORIZON, N_STEP = 6, 5, 3
STATE = tuple[replay.Buffer, jax.Array]  # the buffer, and a sum that keeps results alive
RATIOS = (
    ("draw_tree", "draw_flat"),
    ("write_scatter", "write_shared"),
    ("insert", "write_shared"),
)
FRAMES = {
    "parts": Observation((84, 84, 9), "uint8", history=3),
    "stacks": Observation((84, 84, 9), "uint8"),
}
FRAME_ACTION, FRAME_SLOTS, FRAME_INSERTS = 6, 100_000, 1_000
FRAME_CALLS = ("insert", "transition", "subtrajectory")
FRAME_RATIOS = tuple((f"{call}_parts", f"{call}_stacks") for call in FRAME_CALLS)
Function = Callable[[Any, jax.Array], Any]  # (state, key) -> state


def variants(settings: argparse.Namespace) -> dict[str, Function]:
    """Returns the functions to time on vectors."""
    seeds, batch = settings.seeds, settings.batch
    observation = jnp.ones((seeds, settings.observation_size))
    action = jnp.ones((seeds, settings.action_size))
    number, flag = jnp.ones(seeds), jnp.zeros(seeds, bool)
    pair = jnp.ones((seeds, 2, settings.observation_size + settings.action_size))

    def keys(key: jax.Array) -> jax.Array:
        return jax.random.split(key, seeds)

    def uniform_indices(buffer: replay.Buffer, key: jax.Array) -> jax.Array:
        return jax.random.randint(key, (seeds, batch), 0, buffer.layout.capacity)

    def priorities(indices: jax.Array) -> jax.Array:
        return 1.0 + (indices % 7).astype(jnp.float32)

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

        rows = jax.vmap(write)(buffer.fields["rows"], buffer.cursor, pair)
        cursor = (buffer.cursor + 1) % capacity
        return dataclasses.replace(buffer, fields={"rows": rows}, cursor=cursor), state[1]

    def write_shared(state: STATE, key: jax.Array) -> STATE:
        del key
        buffer = state[0]
        cursor = buffer.cursor[0, 0]
        rows = jax.lax.dynamic_update_slice(buffer.fields["rows"], pair, (0, cursor, 0))
        cursors = (buffer.cursor + 1) % (buffer.reward.shape[1] - 1)  # two rows never wrap
        return dataclasses.replace(buffer, fields={"rows": rows}, cursor=cursors), state[1]

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


def frame_variants(settings: argparse.Namespace) -> dict[str, Function]:
    """Returns the functions to time on frames, each (buffers by kind, key) -> (buffers, result)."""
    picture, no = jnp.ones((1, 84, 84, 9), jnp.uint8), jnp.zeros(1, bool)
    action, reward = jnp.ones((1, FRAME_ACTION)), jnp.ones(1)

    def of_kind(call: str, kind: str) -> Function:
        def insert(buffer: replay.Buffer, key: jax.Array) -> tuple[replay.Buffer, Any]:
            del key
            return replay.insert(buffer, picture, action, reward, no, no, picture), ()

        def read(buffer: replay.Buffer, key: jax.Array) -> tuple[replay.Buffer, Any]:
            indices = jax.random.randint(key, (1, settings.batch), 0, buffer.layout.capacity)
            length = N_STEP if call == "transition" else HORIZON
            one = lambda view, indices: getattr(view, call)(indices, length)  # noqa: E731
            return buffer, jax.vmap(one)(replay.view(buffer), indices)

        function = insert if call == "insert" else read

        def run(buffers: dict[str, replay.Buffer], key: jax.Array) -> tuple[Any, Any]:
            buffer, result = function(buffers[kind], key)
            return buffers | {kind: buffer}, result

        return run

    return {f"{call}_{kind}": of_kind(call, kind) for call in FRAME_CALLS for kind in FRAMES}


def keep(state: STATE, result: Any) -> STATE:
    """The state, its sum with all of a result in it."""
    total = sum(leaf.sum(dtype=jnp.float32) for leaf in jax.tree.leaves(result))
    return state[0], state[1] + total


def filled_state(layout: replay.Layout) -> STATE:
    """Returns a full buffer of ones in which every slot is sampleable."""

    @jax.jit  # one program, so that the zeros of `create` are never allocated
    def build() -> replay.Buffer:
        buffer = replay.create(layout)
        return dataclasses.replace(
            buffer,
            fields=jax.tree.map(jnp.ones_like, buffer.fields),
            reward=jnp.ones_like(buffer.reward),
            tree=jax.vmap(sum_tree.from_leaves)(jnp.ones_like(buffer.tree[0])),
            filled=jnp.full_like(buffer.filled, layout.capacity - 1),
            steps=jnp.full_like(buffer.steps, layout.span),
        )

    return build(), jnp.float32(0)


def vectors(settings: argparse.Namespace, capacity: int) -> replay.Layout:
    """The layout of the vectors."""
    spaces = Observation((settings.observation_size,)), Continuous(settings.action_size)
    return replay.Layout(*spaces, SPAN, capacity, settings.seeds)


def frames(kind: str, capacity: int) -> replay.Layout:
    """The layout of frames stored as parts or as stacks."""
    return replay.Layout(FRAMES[kind], Continuous(FRAME_ACTION), SPAN, capacity)


class Calls(NamedTuple):
    """Many calls of a function: `run(state, key) -> state`, and how many."""

    run: Function
    count: int


def in_one_scan(function: Function, steps: int) -> Calls:
    """Many calls in one program."""

    def run(state: Any, key: jax.Array) -> Any:
        keys = jax.random.split(key, steps)
        return jax.lax.scan(lambda state, key: (function(state, key), None), state, keys)[0]

    return Calls(jax.jit(run, donate_argnums=0), steps)


def one_by_one(function: Callable[[Any, jax.Array], tuple[Any, Any]], steps: int) -> Calls:
    """Many calls of one program, whose results are all written to memory."""
    call = jax.jit(function, donate_argnums=0)

    def run(state: Any, key: jax.Array) -> Any:
        for step in range(steps):
            state, result = call(state, jax.random.fold_in(key, step))
            jax.block_until_ready(result)
        return state

    return Calls(run, steps)


def measure(calls: dict[str, Calls], state: Any, rounds: int) -> dict[str, list[float]]:
    """Returns microseconds a call, one number for each round."""
    times = {name: [] for name in calls}
    for turn in range(rounds + 1):
        key = jax.random.fold_in(jax.random.key(0), turn)
        for name, (run, count) in calls.items():
            state = jax.block_until_ready(state)
            start = time.perf_counter()
            state = jax.block_until_ready(run(state, key))
            if turn:  # the first round compiles
                times[name].append((time.perf_counter() - start) / count * 1e6)
    return times


def median_ratio(numerator: list[float], denominator: list[float]) -> float:
    """Returns the median over rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))


def environment() -> dict[str, Any]:
    """Returns what a reader needs to judge the numbers: machine, versions, date."""
    device = jax.devices()[0]
    packages = ("jax", "jaxlib", "numpy")
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": platform.platform(),
        "cpus": os.cpu_count(),
        "load_average": os.getloadavg(),
        "device": f"{device.platform}: {device.device_kind}",
        "python": platform.python_version(),
        "versions": {
            "mst_jax": mst_jax.__version__,
            **{name: importlib.metadata.version(name) for name in packages},
        },
    }


def main() -> None:
    """Measures, prints tables and writes JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=("vectors", "frames"), default="vectors")
    parser.add_argument("--output", type=Path, help="write all numbers here, as JSON")
    parser.add_argument("--capacities", type=int, nargs="+", default=[2**16, 2**18, 10**6])
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--observation_size", type=int, default=223, help="dm_control dog: 223")
    parser.add_argument("--action_size", type=int, default=38, help="dm_control dog: 38")
    parser.add_argument("--frame_slots", type=int, default=10_000, help="of the timed frames")
    parser.add_argument("--steps", type=int, default=50, help="calls in one compiled scan")
    parser.add_argument("--rounds", type=int, default=15)
    settings = parser.parse_args()

    report = {
        "command": "python -m benchmarks.replay " + " ".join(sys.argv[1:]),
        "environment": environment(),
        "settings": vars(settings) | {"output": str(settings.output)},
        **(measure_frames(settings) if settings.part == "frames" else measure_vectors(settings)),
    }
    if settings.output:
        settings.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def measure_vectors(settings: argparse.Namespace) -> dict[str, Any]:
    """Measures and prints the part of vectors."""
    steps = settings.steps
    calls = {name: in_one_scan(function, steps) for name, function in variants(settings).items()}
    results = {
        capacity: measure(calls, filled_state(vectors(settings, capacity)), settings.rounds)
        for capacity in settings.capacities
    }
    print(f"microseconds a call, {settings.seeds} seeds, batch {settings.batch}")
    return summary(results, RATIOS)


def measure_frames(settings: argparse.Namespace) -> dict[str, Any]:
    """Measures and prints the part of frames."""
    bytes_ = {kind: replay.nbytes(frames(kind, FRAME_SLOTS)) for kind in FRAMES}
    print(f"bytes of {FRAME_SLOTS:,} slots: {bytes_}")
    capacity = settings.frame_slots
    calls = {
        name: in_one_scan(lambda buffers, key, call=call: call(buffers, key)[0], FRAME_INSERTS)
        if name.startswith("insert")
        else one_by_one(call, settings.steps)
        for name, call in frame_variants(settings).items()
    }
    buffers = {kind: filled_state(frames(kind, capacity))[0] for kind in FRAMES}
    results = {capacity: measure(calls, buffers, settings.rounds)}
    print(f"\nmicroseconds a call, 1 seed, batch {settings.batch}")
    return {"bytes": bytes_, **summary(results, FRAME_RATIOS)}


def summary(
    results: dict[int, dict[str, list[float]]], ratios: tuple[tuple[str, str], ...]
) -> dict[str, Any]:
    """Prints and returns medians and ratios of times by capacity."""
    medians = {
        capacity: {name: statistics.median(values) for name, values in times.items()}
        for capacity, times in results.items()
    }
    relative = {
        capacity: {f"{a} / {b}": median_ratio(times[a], times[b]) for a, b in ratios}
        for capacity, times in results.items()
    }
    print_table(medians, "{:.1f}")
    print("\nratios")
    print_table(relative, "{:.2f}")
    return {"median_us": medians, "ratios": relative, "rounds_us": results}


def print_table(columns: dict[int, dict[str, float]], number: str) -> None:
    """Prints one row a name and one column a capacity."""
    names = list(next(iter(columns.values())))
    print(f"{'capacity':32s}" + "".join(f"{capacity:>12d}" for capacity in columns))
    for name in names:
        cells = "".join(f"{number.format(column[name]):>12s}" for column in columns.values())
        print(f"{name:32s}" + cells)


if __name__ == "__main__":
    main()
