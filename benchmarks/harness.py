"""What every benchmark shares: medians of interleaved repeats, and a record of where they ran."""

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import jax

from mst_jax.training import describe_machine

# What compiling takes is measured; programs of an earlier benchmark must not spare it.
jax.config.update("jax_enable_compilation_cache", False)


def interleave(programs: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each program, run in turn so that a slow spell hits all alike.

    Each program must end only when its work is done; the first round is not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for round_number in range(repeats + 1):
        for name, program in programs.items():
            before = time.perf_counter()
            program()
            if round_number:
                seconds[name].append(time.perf_counter() - before)
    return {name: statistics.median(values) for name, values in seconds.items()}


def show(part: str, result: dict[str, float]) -> dict[str, float]:
    """Prints a result on one line and returns it."""
    print(part, ", ".join(f"{name} {value:.4g}" for name, value in result.items()), flush=True)
    return result


def write_results(path: str | None, command: str, results: Any) -> None:
    """Writes results with command, machine, versions and date; nothing without a path."""
    if path is None:
        return
    record = {
        "command": command,
        "date": date.today().isoformat(),
        "processor": _processor(),
        "machine": describe_machine(),
        "results": results,
    }
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(path)


def _processor() -> str:
    import os

    cores = f"{os.cpu_count()} cores"
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{platform.processor()}, {cores}"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {cores}"
