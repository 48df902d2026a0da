"""Runs a study: python -m experiments.sweep --study=mst_vs_uniform --size=smoke --logdir=studies.

Start it again with the same flags and it goes on where it stopped; --dry_run prints the plan only.
"""

import dataclasses
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from typing import Any

import jax
from absl import flags

from experiments.cli import command, launch, one_line_errors, said
from experiments.inputs import define_path, known_name, require_writable
from experiments.launch.cluster import make_executor, submit
from experiments.launch.forecast import CPU, GPU, forecast_groups
from experiments.launch.grouping import Cells, group_cells, title
from experiments.launch.pool import Summary, run_pool
from experiments.launch.process import Silence
from experiments.launch.study_folder import Status, StudyFolder, drop_full_checkpoints
from experiments.setting_flags import define_setting
from experiments.studies import STUDIES, Cell, Scale, Study
from mst_jax.agents import AGENTS
from mst_jax.training.memory import human

STUDY = flags.DEFINE_string("study", None, f"What to run: {', '.join(sorted(STUDIES))}.")
SIZE = flags.DEFINE_string(
    "size", "smoke", "smoke (minutes on two cores), small (one GPU-hour) or paper."
)
LOGDIR = define_path("logdir", "studies", "The study gets the folder STUDY-SIZE in it.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the plan and stop; nothing is written.")
WORKERS = flags.DEFINE_integer(
    "workers", None, "Processes at a time; default: one for each GPU, or one.", lower_bound=1
)
EXECUTOR = flags.DEFINE_enum(
    "executor", "pool", ["pool", "slurm", "local"], "Local processes, or submitit's clusters."
)
SUBMITIT = flags.DEFINE_list(
    "submitit", [], "Parameters of submitit, such as slurm_partition=gpu,timeout_min=600."
)
TASKS = flags.DEFINE_list("tasks", None, "Instead of the size's tasks.")
AGENT_NAMES = flags.DEFINE_list(
    "agents", None, f"Instead of the size's agents: {', '.join(sorted(AGENTS))}."
)
STEPS = define_setting("steps", None, "Instead of the size's agent steps.")
SEEDS = define_setting("seeds", None, "Instead of the size's seeds.")
TOGETHER = flags.DEFINE_integer(
    "together",
    32,
    "Most runs (seeds) in one program: cells that differ in sparsities, drop fractions or learning "
    "rates only share one. Lower it when the memory does not suffice.",
    lower_bound=1,
)
BLOCK = flags.DEFINE_integer("block", None, "Seeds in one program.", lower_bound=1)
CELL_TIMEOUT = flags.DEFINE_integer(
    "cell_timeout",
    None,
    "Seconds without a line or a row after which a cell is stopped and counts as failed; default: "
    "it is only told. Longer than compiling takes.",
    lower_bound=1,
)


def main(_: list[str]) -> None:
    """Prints the plan, runs what is not finished, and says how each cell ended."""
    jax.config.update("jax_platforms", "cpu")  # this process only plans: devices are for cells
    with one_line_errors():
        if STUDY.value is None:
            raise ValueError(f"name a study with --study: {', '.join(sorted(STUDIES))}")
        study = STUDIES[known_name("study", STUDY.value, STUDIES)]
        cells = study.cells(SIZE.value, _scale(study))
        folder = StudyFolder(LOGDIR.value / f"{study.name}-{SIZE.value}")
        if not DRY_RUN.value:
            require_writable(folder.path)
        gpus = visible_gpus()
        todo = [cell for cell in cells if folder.status(cell) is not Status.FINISHED]
        groups = group_cells(todo, TOGETHER.value)
        executor = _executor(folder, len(groups))
        print_plan(study.question, folder, cells, groups, bool(gpus))
        if DRY_RUN.value:
            return
        folder.join(study.name, SIZE.value, cells, said("experiments.sweep"))
        for cell in cells:
            if cell not in todo:  # a process may have been killed before it did this
                drop_full_checkpoints(folder.run(cell))
        if executor is not None:
            _submit(executor, folder, groups)
            return
    began = time.monotonic()
    workers = WORKERS.value or max(1, len(gpus))
    summary = run_pool(
        *(folder, groups, workers, gpus, lambda line: print(line, flush=True)),
        limit=CELL_TIMEOUT.value,
    )
    sys.exit(conclude(folder, summary, time.monotonic() - began))


def print_plan(
    question: str, folder: StudyFolder, cells: list[Cell], groups: list[Cells], on_gpu: bool
) -> None:
    """Prints what will be run and what it is estimated to take."""
    device = GPU if on_gpu else CPU
    plan = forecast_groups(groups, device)  # refuses unknown tasks, before anything is printed
    counts = Counter(folder.status(cell) for cell in cells)
    print(f"{folder.path}: {question}")
    for cell in cells:
        print(f"  {cell.id}: {folder.status(cell).value}")
    states = ", ".join(f"{count} {status.value}" for status, count in counts.items())
    steps = sorted({f"{cell.settings.steps:,}" for cell in cells})
    print(f"{len(cells)} cells ({states}) of {' or '.join(steps)} agent steps")
    print(
        f"to do: {plan.runs} runs in {len(groups)} programs, about {plan.hours:.2g} device-hours "
        f"on {'a GPU' if on_gpu else 'a CPU'} (speed: {device.source})"
    )
    print(
        f"memory of the largest program {human(plan.device_bytes)}; on disk about "
        f"{human(plan.disk_bytes)} in the end, and up to {human(3 * plan.device_bytes)} "
        "more for each running program"
    )


def conclude(folder: StudyFolder, summary: Summary, seconds: float) -> int:
    """Prints how the launch ended; the exit status is 1 when a cell failed."""
    print(
        f"{len(summary.finished)} finished, {len(summary.failed)} failed, "
        f"{len(summary.stopped)} stopped; {seconds:.0f} s"
    )
    for name, message in summary.failed.items():
        print(f"FAILED {name}: {message}")
    if summary.stopped:
        print("start the same command again to go on")
    print(command("report", folder.path))
    return 1 if summary.failed else 0


def visible_gpus() -> list[str]:
    """Values for CUDA_VISIBLE_DEVICES, one for each GPU that this process may use."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [gpu for gpu in given.split(",") if gpu not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, check=False, timeout=60
        )
    except subprocess.TimeoutExpired:
        raise ValueError("nvidia-smi does not answer; set CUDA_VISIBLE_DEVICES") from None
    lines = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")]
    return [str(number) for number in range(len(lines))]


def _scale(study: Study) -> Scale | None:
    """The size's scale with the flags that were given; None lets the study report a bad size."""
    scale = study.scales.get(SIZE.value)
    if scale is None:
        return None
    given: dict[str, Any] = {
        "tasks": None if TASKS.value is None else tuple(TASKS.value),
        "agents": None if AGENT_NAMES.value is None else tuple(AGENT_NAMES.value),
        "steps": STEPS.value,
        "seeds": SEEDS.value,
        "block": BLOCK.value,
    }
    return dataclasses.replace(scale, **{k: v for k, v in given.items() if v is not None})


def _executor(folder: StudyFolder, groups: int) -> Any:
    """Submitit's executor with the flags' parameters; None for the pool."""
    parameters = dict(_parameter(text) for text in SUBMITIT.value)
    if EXECUTOR.value == "pool":
        if parameters:
            raise ValueError("--submitit needs --executor=slurm or local")
        return None
    return make_executor(folder, EXECUTOR.value, WORKERS.value or groups, parameters)


def _submit(executor: Any, folder: StudyFolder, groups: list[Cells]) -> None:
    if not groups:
        print("everything is finished")
        return
    jobs = submit(executor, folder, groups, limit=CELL_TIMEOUT.value)
    print(f"submitted {len(jobs)} jobs: {jobs[0].job_id} to {jobs[-1].job_id}; logs in")
    print(f"{folder.path / 'logs'}; the same command with --dry_run shows how far they are")
    if EXECUTOR.value == "local":
        _wait(jobs, folder, groups)


def _wait(jobs: list[Any], folder: StudyFolder, groups: list[Cells]) -> None:
    """Waits for submitit's own processes and says how their cells ended."""
    began, silences = time.monotonic(), [Silence(folder, group) for group in groups]
    while not all(job.done() for job in jobs):
        for job, group, silence in zip(jobs, groups, silences, strict=True):
            if not job.done() and (news := silence.news()):
                print(f"{title(group)}: {news}", flush=True)
        time.sleep(0.5)
    summary = Summary([], {}, [])
    for cell in (cell for group in groups for cell in group):
        status = folder.status(cell)
        if status is Status.FINISHED:
            summary.finished.append(cell.id)
        elif status is Status.FAILED:
            summary.failed[cell.id] = (folder.failure(cell) or {})["message"]
        else:
            summary.stopped.append(cell.id)
    sys.exit(conclude(folder, summary, time.monotonic() - began))


def _parameter(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--submitit takes name=value, not {text!r}")
    return name, int(value) if value.removeprefix("-").isdecimal() else value


if __name__ == "__main__":
    launch(main)
