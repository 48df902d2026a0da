"""What every benchmark shares: medians of interleaved repeats, and a record of where they ran."""

import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags

from experiments.cli import launch, one_line_errors, said
from experiments.inputs import define_list, define_path, positive_integer, require_writable
from mst_jax.envs import HostVectorEnv
from mst_jax.runs import describe_machine


class Cost(NamedTuple):
    """Seconds of one repeat: by the wall clock, and of processor time."""

    wall: float
    processor: float


def once(program: Callable[[], Any]) -> Cost:
    """Runs a program that ends when its work is done."""
    wall, processor = time.perf_counter(), processor_seconds()
    program()
    return Cost(time.perf_counter() - wall, processor_seconds() - processor)


def processor_seconds() -> float:
    """Processor time so far of this process and of the children that are running."""
    ticks = 0
    for child in children():
        fields = Path(f"/proc/{child}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # utime and stime, see proc(5)
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def children() -> list[str]:
    """The processes that this one started and that are running."""
    path = Path(f"/proc/self/task/{os.getpid()}/children")
    return path.read_text(encoding="ascii").split()


def play(environments: HostVectorEnv, steps: int) -> None:
    """Steps host environments by random actions."""
    shape = (len(environments.errors), environments.spec.action.size)
    draw = np.random.default_rng(0).uniform
    for _ in range(steps):
        environments.step(draw(-1, 1, shape).astype(np.float32))


def interleave(
    programs: Mapping[str, Callable[[], Any]],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds of each program, run in turn so that a slow spell hits all alike.

    Each program must end only when its work is done; the first round is not counted. Beside other
    work, `clock=time.process_time` counts this process's own seconds, of all its threads together.
    """
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for round_number in range(repeats + 1):
        for name, program in programs.items():
            before = clock()
            program()
            if round_number:
                seconds[name].append(clock() - before)
    return {name: statistics.median(values) for name, values in seconds.items()}


def on_cores(count: int, measure: Callable[..., Any], *args: Any) -> Any:
    """What `measure` returns in a process of its own, which has the first `count` cores.

    XLA and PyTorch take as many threads as there are cores when they start.

    Raises:
        ValueError: there are fewer.
    """
    cores = os.sched_getaffinity(0)
    if count > len(cores):
        raise ValueError(f"{count} cores were asked for, and there are {len(cores)}")
    os.sched_setaffinity(0, sorted(cores)[:count])  # inherited by what is started next
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return pool.submit(measure, *args).result()
    finally:
        os.sched_setaffinity(0, cores)


def show(part: str, result: dict[str, Any]) -> dict[str, Any]:
    """Prints a result, of numbers and text, on one line and returns it."""
    text = ", ".join(f"{k} {v if isinstance(v, str) else f'{v:.4g}'}" for k, v in result.items())
    print(part, text, flush=True)
    return result


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def define_clock() -> flags.FlagHolder:
    """Defines the flag `clock`, a name of `CLOCKS`."""
    text = "What is measured; cpu on a busy machine."
    return flags.DEFINE_enum("clock", "wall", list(CLOCKS), text)


def define_cores() -> flags.FlagHolder:
    """Defines the flag `cores`, numbers for `on_cores`."""
    return define_list("cores", [1, 2], positive_integer, "Cores; each number in its own process.")


def define_repeats(default: int) -> flags.FlagHolder:
    """Defines the flag `repeats`."""
    text = "Repeats of each measurement; medians are reported."
    return flags.DEFINE_integer("repeats", default, text, lower_bound=1)


def define_output(text: str = "JSON file to write.") -> flags.FlagHolder:
    """Defines the flag `--output` of a benchmark."""
    return define_path("output", None, text)


def launch_benchmark(main: Callable[[list[str]], None], output: flags.FlagHolder) -> None:
    """Runs a benchmark; an output that cannot be written is told before hours of measuring."""

    def checked(argv: list[str]) -> None:
        with one_line_errors():
            if output.value is not None:
                require_writable(output.value.parent)
                if output.value.is_dir():
                    raise ValueError(f"--output={output.value} is a folder; name a file")
        # What compiling takes is measured; programs of an earlier benchmark must not spare it.
        jax.config.update("jax_enable_compilation_cache", False)
        main(argv)

    launch(checked)


def write_results(path: Path | None, module: str, results: Any) -> None:
    """Writes results with command, machine, versions and date; nothing without a path."""
    if path is None:
        return
    record = {
        "command": said(module),
        "date": date.today().isoformat(),
        "processor": _processor(),
        "machine": describe_machine(),
        "results": results,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(path)


def _processor() -> str:
    cores = f"{os.cpu_count()} cores"
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{platform.processor()}, {cores}"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {cores}"
