"""What an exported policy takes and saves: python -m benchmarks.export [--output=FILE].

1. `bytes`: files of the actor of SAC 109M, dense and at 0.8, against a light checkpoint of the same
   agent as it is written.
2. `latency`: one action at batch 1 on that actor and smaller ones, in C with sparse layouts and
   without, in NumPy and as `Policy.act`; with caches warm, as in a loop that does nothing else, and
   cold, as where other work runs between two actions.

Everything uses one thread but `Policy.act`, whose threads are jax's. Processor time is printed: it
does not see waiting for a core; wall clock is saved with it.
"""

import ctypes
import math
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy is imported

import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
import numpy as np
from absl import flags

from benchmarks.harness import define_output, launch_benchmark, show, write_results
from experiments.inputs import define_list, one_of
from experiments.quickstart import SMALL
from mst_jax.agents import make_agent
from mst_jax.envs import Spec, vector_spec
from mst_jax.export import CompiledPolicy, PolicyFile, policy_file, write_policy
from mst_jax.export import c as c_form
from mst_jax.networks.operations import Dense, Operation
from mst_jax.recipes import make_config, override
from mst_jax.runs import checkpoints
from mst_jax.runs.light import to_light
from mst_jax.training import Policy

PARTS = ("bytes", "latency")
PART = define_list("parts", PARTS, one_of(PARTS), "Which parts to run.")
SIZE = flags.DEFINE_string("size", "109M", "Size of SAC's networks.")
SPARSITIES = flags.DEFINE_list("sparsities", ["0.6", "0.8", "0.9", "0.95"], "Of SAC's actor.")
ROUNDS = flags.DEFINE_integer("rounds", 40, "Rounds; medians are reported.", lower_bound=1)
OUTPUT = define_output()

DOG = vector_spec("dmc:dog-run", 223, 38, 1000)
WALKER = vector_spec("dmc:walker-walk", 24, 6, 1000)
FLUSH = np.ones(32_000_000, np.float32)  # 128 MB, more than any cache
RECIPES = {"dense": {}, "all_static": {"critic.sparsity": 0.8, "actor.sparsity": 0.8}}
CALLS = 20  # with warm caches, in a row
LAYOUTS = {"sparse": {}, "dense": dict.fromkeys(c_form.COSTS, math.inf)}
OPTIONS = {"c": ["-O3", "-march=native"], "c_o2": ["-O2"]}


def main(_: list[str]) -> None:
    """Runs the parts asked for and prints one line per measurement."""
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        if "bytes" in PART.value:
            results["bytes"] = [bytes_of(Path(scratch), *recipe) for recipe in RECIPES.items()]
        if "latency" in PART.value:
            results["latency"] = [
                latency(Path(scratch) / f"policy_{number}", *case)
                for number, case in enumerate(cases())
            ]
    write_results(OUTPUT.value, "benchmarks.export", results)


def bytes_of(scratch: Path, recipe: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Bytes of the files of one seed's agent."""
    config = override(make_config("sac", recipe, SIZE.value), changes)
    agent = make_agent("sac", config, DOG, 1_000_000)
    state = jax.jit(agent.init)(jax.random.key(0))
    light = scratch / recipe
    states = jax.tree.map(lambda leaf: leaf[None], state)
    arrays = to_light(agent, states)
    checkpoints.save(light, checkpoints.LIGHT, 0, arrays)
    sizes = {
        "light_arrays": sum(array.nbytes for array in arrays.values()),
        "light_checkpoint": sum(p.stat().st_size for p in light.rglob("*") if p.is_file()),
    }
    file = policy_file(agent.operations(state), DOG)
    half = policy_file(agent.operations(state), DOG, dtype="float16")
    for name, own, form in (("npz", file, "npz"), ("npz_float16", half, "npz"), ("c", file, "c")):
        path = scratch / f"{recipe}_{name}.{form}"
        write_policy(own, path, form)
        sizes[name] = path.stat().st_size
        if form == "c":
            sizes["library"] = compiled(path, "c", OPTIONS["c"]).stat().st_size
    ratio = sizes["light_checkpoint"] / sizes["npz"]
    numbers = {"parameters": file.parameters, "active": file.active}
    found = {**numbers, **sizes, "light_over_npz": ratio}
    return {"recipe": recipe, **show(f"bytes of {recipe}", found)}


class Case(NamedTuple):
    """A policy that acts.

    Attributes:
        file: as it is exported.
        act: as a run plays it; None for a file that no run made.
    """

    file: PolicyFile
    act: Callable[[np.ndarray], np.ndarray] | None


def cases() -> Iterator[tuple[str, Case]]:
    """Policies of initialised agents: widths and masks decide how long an action takes."""
    small_critic = {"critic.hidden": 8, "critic.depth": 1}
    for sparsity in SPARSITIES.value:
        changes = {"actor.sparsity": float(sparsity), **small_critic}
        config = override(make_config("sac", "all_static", SIZE.value), changes)
        yield f"sac {SIZE.value} {sparsity}", initialised("sac", config, DOG)
    dense = initialised("sac", override(make_config("sac", "dense", SIZE.value), small_critic), DOG)
    tiled = policy_file([shared(operation) for operation in dense.file.operations[:-1]], DOG)
    yield f"sac {SIZE.value} 0.8 shared16", Case(tiled, None)
    stock = override(make_config("mrq", "mst"), {"actor.sparsity": 0.9})
    yield "mrq stock, actor 0.9", initialised("mrq", stock, WALKER)
    quick = override(make_config("mrq", "mst"), SMALL)
    yield "mrq quickstart", initialised("mrq", quick, WALKER)


def initialised(name: str, config: Any, spec: Spec) -> Case:
    """The policy of an agent that has not learned."""
    agent = make_agent(name, config, spec, 1_000_000)
    state = jax.jit(agent.init)(jax.random.key(0))
    return Case(policy_file(agent.operations(state), spec), Policy(agent, state, spec).act)


def shared(operation: Operation) -> Operation:
    """A wide layer at 0.8 of which 16 neighbouring outputs share their inputs."""
    if not isinstance(operation, Dense) or operation.kernel.size < 1e5:
        return operation
    inputs, outputs = operation.kernel.shape
    seen = np.random.default_rng(0).random((inputs, outputs // 16)) < 0.2
    return Dense(operation.kernel * np.repeat(seen, 16, axis=1), operation.bias)


def latency(scratch: Path, name: str, case: Case) -> dict[str, Any]:
    """Microseconds of one action: medians of wall clock and of processor time."""
    scratch.mkdir()
    programs = programs_of(scratch, case)
    result: dict[str, Any] = {"policy": name, "active": case.file.active}
    for caches in ("warm", "cold"):
        found = timed(programs, warm=caches == "warm")
        result[caches] = found
        show(f"{name}, {caches}", {n: times["processor"] for n, times in found.items()})
    return result


def programs_of(scratch: Path, case: Case) -> dict[str, Callable[[], Any]]:
    """One action in every way; all give the same."""
    size = case.file.description["observation"]["size"]
    observation = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    player = case.file.player()
    programs: dict[str, Callable[[], Any]] = {"numpy": lambda: player.act(observation)}
    if (act := case.act) is not None:
        programs["policy_act"] = lambda: act(observation)
    for layout, costs in LAYOUTS.items():
        path = scratch / f"{layout}.c"
        with mock.patch.dict(c_form.COSTS, costs):
            write_policy(case.file, path, "c")
        for name, options in OPTIONS.items():
            programs[f"{name}_{layout}"] = action_of(compiled(path, name, options), observation)
    for name, program in programs.items():
        np.testing.assert_allclose(program(), player.act(observation), atol=2e-5, err_msg=name)
    return programs


def action_of(library: Path, observation: np.ndarray) -> Callable[[], np.ndarray]:
    """An action by a library, called as a program in C would: without looking at arrays."""
    act = ctypes.CDLL(str(library)).policy_act
    action = np.empty(DOG.action.size, np.float32)
    seen, done = (ctypes.c_void_p(array.ctypes.data) for array in (observation, action))
    size = CompiledPolicy(library).description["action"]["size"]

    def call() -> np.ndarray:
        act(seen, done)
        return action[:size]

    return call


def compiled(source: Path, name: str, options: list[str]) -> Path:
    """The library of a C file."""
    library = source.with_name(f"{source.stem}_{name}.so")
    command = ["cc", "-std=c99", *options, "-shared", "-fPIC", "-o", library, source, "-lm"]
    subprocess.run(command, check=True)
    return library


def timed(programs: Mapping[str, Callable[[], Any]], warm: bool) -> dict[str, dict[str, float]]:
    """Median microseconds of an action, in turn; warm ones after another of the same program."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
    for _ in range(ROUNDS.value):
        for name, program in programs.items():
            if warm:
                program()
            else:
                FLUSH.sum()
            wall, processor = time.perf_counter(), time.process_time()
            for _ in range(calls := CALLS if warm else 1):
                program()
            spent = time.perf_counter() - wall, time.process_time() - processor
            found[name].append((spent[0] / calls * 1e6, spent[1] / calls * 1e6))
    return {
        name: {
            "wall": statistics.median(wall for wall, _ in times),
            "processor": statistics.median(processor for _, processor in times),
        }
        for name, times in found.items()
    }


if __name__ == "__main__":
    launch_benchmark(main, OUTPUT)
