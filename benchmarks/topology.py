"""Speed and memory of sparse training: the rewire, the selection, the masked step, many seeds.

    python -m benchmarks.topology [--sizes 1 17 100] [--sections ...] [--output FILE]

All rivals of a table are timed in turn within each round; a ratio is the median over rounds of the
ratio within a round. CPU seconds are of the whole process, all threads.

* `rewire`: one RigL update of a SimBa-like network of 1, 17 and 100 million parameters, against the
  straightforward version of the published method (a stable argsort of the float scores for what
  to keep and one for what to grow) and against the memory floor (weights, gradients and masks read
  once, masks written once); `memory` is XLA's temporary bytes over the parameters' bytes
* `structures`: the same update of networks of 1 and 17 million parameters under every kind of
  structure, against the unstructured one
* `selection`: ways to choose k of 1,048,576, alone and as 4 vmapped quarters
* `optimizer`: an AdamW step by itself, plain, with static masks, with RigL when no rewire is due
* `training`: a step of a three-layer critic (batch 256): static against plain, RigL amortised over
  an interval of 100 against static, and a step without rewire for 8 vmapped seeds
"""

from __future__ import annotations

import argparse
import datetime
import functools
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
import optax

from benchmarks.topology_rivals import (
    argsort_rewire,
    counting_threshold,
    histogram_threshold,
    touch_once,
)
from mst_jax import topology
from mst_jax.topology.selection import sort_keys

SPARSITY, DROP = 0.8, 0.3
SIMBA = {1: (256, 2), 17: (1024, 2), 100: (2048, 3)}  # millions -> hidden width, blocks
Row = dict[str, Any]


def timed(rivals: dict[str, Callable[[], Any]], rounds: int, repeat: int = 1) -> dict[str, Row]:
    """Median wall and CPU seconds of each rival per call, and its ratio to the first rival.

    Args:
        rivals: name -> function to time; the first is the reference.
        rounds: rounds in which every rival is timed once.
        repeat: calls per timing.

    Returns:
        name -> row with ``wall``, ``cpu``, ``wall_ratio``, ``cpu_ratio``.
    """
    for call in rivals.values():
        jax.block_until_ready(call())  # compiles
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in rivals}
    for _ in range(rounds):
        for name, call in rivals.items():
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(repeat):
                result = call()
            jax.block_until_ready(result)
            samples[name].append(
                ((time.perf_counter() - wall) / repeat, (time.process_time() - cpu) / repeat)
            )
    reference = samples[next(iter(rivals))]
    rows = {}
    for name, taken in samples.items():
        ratios = [
            [mine / max(other, 1e-9) for mine, other in zip(a, b, strict=True)]
            for a, b in zip(taken, reference, strict=True)
        ]
        rows[name] = {
            "wall": statistics.median(wall for wall, _ in taken),
            "cpu": statistics.median(cpu for _, cpu in taken),
            "wall_ratio": statistics.median(wall for wall, _ in ratios),
            "cpu_ratio": statistics.median(cpu for _, cpu in ratios),
        }
    return rows


def simba(hidden: int, blocks: int) -> dict[str, Any]:
    """Shapes of a residual network of ``blocks`` times hidden-4 hidden-hidden."""
    shapes: dict[str, tuple[int, ...]] = {"in": (88, hidden), "head": (hidden, 1)}
    for i in range(blocks):
        shapes |= {f"b{i}/up": (hidden, 4 * hidden), f"b{i}/down": (4 * hidden, hidden)}
    return {
        name: {"kernel": jax.ShapeDtypeStruct(shape, jnp.float32)} for name, shape in shapes.items()
    }


def normal(shapes: Any, seed: int) -> Any:
    """Normal values of these shapes."""
    key = jax.random.key(seed)
    return jax.jit(
        lambda: jax.tree.map(lambda s: jax.random.normal(key, s.shape, s.dtype), shapes)
    )()


def bench_rewire(settings: argparse.Namespace) -> list[Row]:
    """One RigL update of whole networks."""
    rows = []
    for size in settings.sizes:
        shapes = simba(*SIMBA[size])
        rule = topology.rigl(SPARSITY, end=10**6, drop_fraction=DROP)
        plan = topology.plan(shapes, {".*": rule})
        tx = topology.sparse(optax.identity(), plan)
        params, state = jax.jit(lambda p, tx=tx: topology.init(tx, p, jax.random.key(0)))(
            normal(shapes, 0)
        )
        gradients, masks = normal(shapes, 1), topology.masks(state)
        budgets = {path: plan.groups[g].table for path, (g, _, _) in plan.entries().items()}
        entries = plan.entries()

        def ours(params: Any, gradients: Any, state: Any, step: jax.Array, tx: Any = tx) -> Any:
            return tx.update(gradients, state, params, step=step)[1].masks

        def baseline(
            params: Any, gradients: Any, masks: Any, entries: Any = entries, budgets: Any = budgets
        ) -> Any:
            return {
                name: argsort_rewire(
                    params[name]["kernel"],
                    gradients[name]["kernel"],
                    masks[name]["kernel"],
                    int(budgets[f"{name}/kernel"].keep[1, entries[f"{name}/kernel"][1]]),
                )
                for name in params
            }

        def floor(params: Any, gradients: Any, masks: Any) -> Any:
            return jax.tree.map(touch_once, params, gradients, masks)

        compiled = {
            "ours": (jax.jit(ours), (params, gradients, state, jnp.int32(100))),
            "argsort": (jax.jit(baseline), (params, gradients, masks)),
            "floor": (jax.jit(floor), (params, gradients, masks)),
        }
        memory, calls = {}, {}
        for name, (function, arguments) in compiled.items():
            program = function.lower(*arguments).compile()
            memory[name] = program.memory_analysis().temp_size_in_bytes
            calls[name] = lambda program=program, arguments=arguments: program(*arguments)
        count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
        measured = timed(calls, rounds=settings.rounds if size < 50 else settings.large_rounds)
        rows += [
            {"what": f"{size} M", "rival": name, **row, "memory": memory[name] / (4 * count)}
            for name, row in measured.items()
        ]
    return rows


def bench_structures(settings: argparse.Namespace) -> list[Row]:
    """One RigL update under every kind of structure."""
    rows = []
    names = ("unstructured", "fan_in", "2:4", "1:4", "1:16", "shared16", "shared64", "block16x16")
    for size in [size for size in settings.sizes if size < 50]:
        shapes = simba(*SIMBA[size])
        params, gradients = normal(shapes, 0), normal(shapes, 1)
        memory, calls = {}, {}
        for name in names:
            structure, sparsity = topology.structure_named(name)
            rule = topology.rigl(
                SPARSITY if sparsity is None else sparsity,
                end=10**6,
                drop_fraction=DROP,
                allocation="er" if sparsity is None else "uniform",
                structure=structure,
            )
            tx = topology.sparse(optax.identity(), topology.plan(shapes, {".*": rule}))
            start = jax.jit(lambda p, tx=tx: topology.init(tx, p, jax.random.key(0)))
            own, state = start(params)

            def rewire(params: Any, gradients: Any, state: Any, step: Any, tx: Any = tx) -> Any:
                return tx.update(gradients, state, params, step=step)[1].masks

            arguments = (own, gradients, state, jnp.int32(100))
            program = jax.jit(rewire).lower(*arguments).compile()
            memory[name] = program.memory_analysis().temp_size_in_bytes
            calls[name] = functools.partial(program, *arguments)
        count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
        measured = timed(calls, rounds=settings.rounds)
        rows += [
            {"what": f"{size} M", "rival": name, **row, "memory": memory[name] / (4 * count)}
            for name, row in measured.items()
        ]
    return rows


def bench_selection(settings: argparse.Namespace) -> list[Row]:
    """Ways to find the k-th largest of about a million keys."""
    size, k = 1 << 20, 150_000
    keys = sort_keys(
        jnp.abs(normal(jax.ShapeDtypeStruct((size,), jnp.float32), 0)), jnp.ones(size, bool)
    )
    ways: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
        "counting, 2 bits a pass (ours)": counting_threshold(2),
        "counting, 1 bit a pass": counting_threshold(1),
        "counting, 3 bits a pass": counting_threshold(3),
        "counting, 4 bits a pass": counting_threshold(4),
        "two histograms of 2^16": histogram_threshold,
        "sort of the integer keys": lambda keys, k: jnp.sort(keys)[keys.size - k],
        "top_k (k static)": lambda keys, k: jax.lax.top_k(
            jax.lax.bitcast_convert_type(keys >> 1, jnp.float32), round(k_share * keys.size)
        )[0][-1],
    }
    k_share = k / size
    rows = []
    for what, shape in (("2^20", (1, size)), ("4 vmapped quarters", (4, size // 4))):
        data, ks = keys.reshape(shape), jnp.full(shape[0], k // shape[0], jnp.int32)
        calls = {
            name: functools.partial(jax.jit(jax.vmap(way)), data, ks) for name, way in ways.items()
        }
        measured = timed(calls, settings.rounds, repeat=3)
        rows += [{"what": what, "rival": name, **row} for name, row in measured.items()]
    return rows


def plans(shapes: Any) -> dict[str, topology.Plan]:
    """Plans to compare, dense first."""
    rules = {
        "dense": topology.dense(),
        "static": topology.static(SPARSITY),
        "rigl": topology.rigl(SPARSITY, end=10**6, drop_fraction=DROP),
    }
    return {name: topology.plan(shapes, {".*kernel": rule}) for name, rule in rules.items()}


def donating(program: Callable[..., Any], carry: Any, *rest: Any) -> Callable[[], Any]:
    """A call that feeds a donated state back to the next one."""
    box = [carry]

    def call() -> Any:
        box[0] = program(*box[0], *rest)
        return box[0]

    return call


def bench_optimizer(settings: argparse.Namespace) -> list[Row]:
    """AdamW by itself."""
    rows = []
    for width in (512, 2048):
        shapes = {
            f"l{i}": {"kernel": jax.ShapeDtypeStruct((width, width), jnp.float32)} for i in range(4)
        }
        calls = {}
        for name, plan in plans(shapes).items():
            tx = topology.sparse(optax.adamw(3e-4), plan)

            def step(params: Any, state: Any, grads: Any, i: jax.Array, tx: Any = tx) -> Any:
                updates, state = tx.update(grads, state, params, step=i)
                return topology.apply_updates(params, updates, topology.masks(state)), state

            start = jax.jit(lambda p, tx=tx: topology.init(tx, p, jax.random.key(0)))
            program = jax.jit(step, donate_argnums=(0, 1))
            calls[name] = donating(
                program, start(normal(shapes, 0)), normal(shapes, 1), jnp.int32(3)
            )
        measured = timed(calls, settings.rounds, repeat=10)
        what = f"{4 * width * width / 1e6:.0f} M"
        rows += [{"what": what, "rival": name, **row} for name, row in measured.items()]
    return rows


def bench_training(settings: argparse.Namespace) -> list[Row]:
    """A critic's training step."""
    hidden, batch, seeds = settings.hidden, 256, 8
    shapes = {
        f"l{i}": {
            "kernel": jax.ShapeDtypeStruct((hidden, 1 if i == 3 else hidden), jnp.float32),
            "bias": jax.ShapeDtypeStruct((1 if i == 3 else hidden,), jnp.float32),
        }
        for i in range(4)
    }
    x = normal(jax.ShapeDtypeStruct((batch, hidden), jnp.float32), 2)

    def loss(params: Any, x: jax.Array) -> jax.Array:
        for i in range(3):
            x = jax.nn.elu(x @ params[f"l{i}"]["kernel"] * hidden**-0.5 + params[f"l{i}"]["bias"])
        return jnp.mean((x @ params["l3"]["kernel"] - 1.0) ** 2)

    def steps_of(tx: Any, first: int, count: int, many: bool) -> Callable[..., Any]:
        def step(params: Any, state: Any, i: jax.Array) -> tuple[Any, Any]:
            updates, state = tx.update(jax.grad(loss)(params, x), state, params, step=i)
            return topology.apply_updates(params, updates, topology.masks(state)), state

        one = jax.vmap(step, in_axes=(0, 0, None)) if many else step

        def run(params: Any, state: Any) -> tuple[Any, Any]:
            def body(carry: Any, i: jax.Array) -> tuple[Any, None]:
                return one(*carry, i), None

            return jax.lax.scan(body, (params, state), jnp.arange(first, first + count))[0]

        return jax.jit(run, donate_argnums=(0, 1))

    def calls(first: int, count: int, many: bool) -> dict[str, Callable[[], Any]]:
        made = {}
        for name, plan in plans(shapes).items():
            tx = topology.sparse(optax.adamw(3e-4), plan)

            def start(key: jax.Array, tx: Any = tx) -> Any:
                params = jax.tree.map(lambda s: jax.random.normal(key, s.shape, s.dtype), shapes)
                return topology.init(tx, params, key)

            key = jax.random.key(0)
            keys = jax.random.split(key, seeds)
            state = jax.jit(jax.vmap(start))(keys) if many else jax.jit(start)(key)
            made[name] = donating(steps_of(tx, first, count, many), state)
        return made

    rows = []
    for what, arguments in (
        ("100 steps, one rewire", (1, 100, False)),
        ("20 steps, no rewire", (1, 20, False)),
        (f"10 steps, no rewire, {seeds} seeds", (1, 10, True)),
    ):
        measured = timed(calls(*arguments), settings.rounds)
        rows += [{"what": what, "rival": name, **row} for name, row in measured.items()]
        static, rigl = measured["static"], measured["rigl"]
        ratios = {key: rigl[key] / static[key] for key in ("wall", "cpu")}
        rows.append(
            {"what": what, "rival": "rigl / static"}
            | {f"{key}_ratio": ratio for key, ratio in ratios.items()}
        )
    return rows


SECTIONS = {
    "rewire": bench_rewire,
    "structures": bench_structures,
    "selection": bench_selection,
    "optimizer": bench_optimizer,
    "training": bench_training,
}


def environment() -> Row:
    """Machine, versions and date."""
    device = jax.devices()[0]
    packages = ("jax", "jaxlib", "optax", "numpy")
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "device": f"{device.platform}: {device.device_kind}",
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }


def show(section: str, rows: list[Row]) -> None:
    """Prints a table; times in milliseconds."""
    print(
        f"\n{section:42s} {'wall ms':>10s} {'cpu ms':>10s} {'wall':>7s} {'cpu':>7s} {'memory':>7s}"
    )
    for row in rows:
        cells = [
            f"{1e3 * row[key]:10.2f}" if key in row else " " * 10 for key in ("wall", "cpu")
        ] + [
            f"{row[key]:7.2f}" if key in row else " " * 7
            for key in ("wall_ratio", "cpu_ratio", "memory")
        ]
        print(f"{row['what'] + ': ' + row['rival']:42s} {' '.join(cells)}")


def main() -> None:
    """Runs the chosen sections, prints tables, writes JSON if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", choices=SIMBA, default=list(SIMBA))
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--large_rounds", type=int, default=2, help="rounds at 100 M parameters")
    parser.add_argument("--hidden", type=int, default=512, help="width of the critic")
    parser.add_argument(
        "--output", type=Path, help="JSON file, say benchmarks/results/topology.json"
    )
    settings = parser.parse_args()
    results = {}
    for section in settings.sections:
        results[section] = SECTIONS[section](settings)
        show(section, results[section])
    if settings.output:
        settings.output.parent.mkdir(parents=True, exist_ok=True)
        report = {"environment": environment(), "results": results}
        settings.output.write_text(json.dumps(report, indent=1) + "\n")
        print(f"\nwritten to {settings.output}")


if __name__ == "__main__":
    main()
