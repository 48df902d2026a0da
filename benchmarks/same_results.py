"""Trains the same runs in two checkouts and compares what they leave behind, bit for bit.

    git worktree add ../before REVISION
    python -m benchmarks.same_results ../before [--only=mrq,brax] [--optimised]

For a change of contract or layout that must not change any result. Runs are small; both checkouts
use this interpreter and its packages. Compared are the fingerprint, and where that differs every
array of the newest checkpoints that both have, the masks at the start and in the history, and every
row of metrics less times. What is new in the later checkout is no difference. Without `--optimised`
XLA compiles at its lowest level, where two programs of the same operations round alike whatever the
compiler fuses.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from absl import app, flags, logging

from mst_jax.runs import checkpoints
from mst_jax.runs.sinks import read_metrics

AGENTS = ("ddpg", "mrq", "mrsac", "sac")
TASKS = (
    "probe:point",
    "brax:inverted_pendulum",
    "dmc:cartpole-swingup",
    "gym:InvertedPendulum-v5",
)
MR = ("encoder.hidden=16", "zs_size=16", "za_size=8", "zsa_size=16", "target_period=10")
SHARED = ("critic.hidden=16", "actor.hidden=16", "batch_size=16", "learning_starts=64")

ONLY = flags.DEFINE_list("only", [], "Only runs whose names contain all of these words.")
OPTIMISED = flags.DEFINE_bool("optimised", False, "Compile as users do.")
STEPS = flags.DEFINE_integer("steps", 403, "Agent steps; no multiple of any period on purpose.")


def cases() -> dict[str, list[str]]:
    """{name: flags} of every run; a name that ends in `killed` is killed once and resumed."""
    runs = {
        f"{agent} {task} {seeds} seeds": [f"--agent={agent}", f"--task={task}", f"--seeds={seeds}"]
        for agent in AGENTS
        for task in TASKS
        for seeds in (1, 2)
    }
    pair = ["--agent=mrq", "--task=probe:point", "--seeds=2"]
    runs["mrq probe:point 2 environments"] = [*pair, "--environments=2"]
    runs["mrq probe:point killed"] = pair
    runs["sac gym:InvertedPendulum-v5 killed"] = [
        *("--agent=sac", "--task=gym:InvertedPendulum-v5", "--seeds=2"),
    ]
    runs["mrq probe:point all_rigl"] = [*pair, "--recipe=all_rigl"]
    return {k: v for k, v in runs.items() if all(word in k for word in ONLY.value)}


def arguments(own: list[str]) -> list[str]:
    """The flags of a run at test size."""
    agent = next(flag for flag in own if flag.startswith("--agent=")).partition("=")[2]
    sizes = (*SHARED, *(MR if agent.startswith("mr") else ()), "critic.interval=20")
    return [
        *own,
        *(f"--config.{size}" for size in sizes),
        f"--steps={STEPS.value}",
        *("--eval_every=100", "--eval_episodes=2", "--log_every=50", "--checkpoint_every=70"),
        *("--history_every=100", "--diagnose_every=100"),
    ]


def trained(checkout: Path, name: str, own: list[str], logdir: Path, programs: str) -> Path:
    """Trains a run in a checkout; the run folder. `programs` is the cache of compiled programs."""
    command = [sys.executable, "-m", "experiments.train"]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "JAX_COMPILATION_CACHE_DIR": programs}
    if not OPTIMISED.value:
        environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
    started = subprocess.Popen(
        [*command, *arguments(own), f"--logdir={logdir}"],
        cwd=checkout,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    if name.endswith("killed"):
        whole = f"*/*/checkpoints/full/{12 * '[0-9]'}"  # not one that is being written
        while started.poll() is None and not list(logdir.glob(whole)):
            time.sleep(0.02)
        os.killpg(started.pid, signal.SIGKILL)
    _, errors = started.communicate()
    (folder,) = logdir.glob("*/*")
    if name.endswith("killed"):
        again = subprocess.run(
            [*command, f"--resume={folder}"],
            cwd=checkout,
            env=environment,
            capture_output=True,
            check=False,
        )
        errors = again.stderr
    if not (folder / "fingerprint.txt").is_file():
        raise SystemExit(f"{name} did not finish in {checkout}:\n{errors.decode()[-2000:]}")
    return folder


def differences(before: Path, after: Path) -> Iterator[str]:
    """What differs between two run folders, a line each; nothing when they are equal."""
    if (before / "fingerprint.txt").read_text() != (after / "fingerprint.txt").read_text():
        for tier in (checkpoints.FULL, checkpoints.LIGHT, checkpoints.BEST):
            yield from _of_arrays(
                tier,
                *(checkpoints.load_newest(f / "checkpoints", tier).arrays for f in (before, after)),
            )
    for path in sorted(before.rglob("*.npz")):
        yield from _of_arrays(
            path.name, *(dict(np.load(f / path.relative_to(before))) for f in (before, after))
        )
    for path in sorted(before.glob("seed_*")):
        ours, theirs = (_rows(f / path.name) for f in (before, after))
        if len(ours) != len(theirs):
            yield f"{path.name}: {len(ours)} rows became {len(theirs)}"
        for row, other in zip(ours, theirs, strict=False):
            changed = [name for name in row if json.dumps(row[name]) != json.dumps(other.get(name))]
            if changed:
                yield f"{path.name} step {row['step']} {row['kind']}: {', '.join(changed)}"


def _of_arrays(what: str, before: dict, after: dict) -> Iterator[str]:
    for name in sorted(before.keys() & after.keys()):
        a, b = np.asarray(before[name]), np.asarray(after[name])
        if a.shape != b.shape or a.dtype != b.dtype:
            yield f"{what} {name}: {a.dtype}{a.shape} became {b.dtype}{b.shape}"
        elif a.tobytes() != b.tobytes():
            far = np.max(np.abs(a.astype(np.float64) - b.astype(np.float64)))
            yield f"{what} {name}: differs by up to {far:.3g}"
    for name in sorted(before.keys() - after.keys()):
        yield f"{what} {name}: only before"


def _rows(folder: Path) -> list[dict]:
    keep = lambda name: not name.startswith("wall/")  # noqa: E731
    return [{k: v for k, v in row.items() if keep(k)} for row in read_metrics(folder)]


def main(argv: list[str]) -> None:
    """Compares every run and ends with status 1 if any differs."""
    if len(argv) != 2 or not (Path(argv[1]) / "mst_jax").is_dir():
        raise SystemExit("usage: python -m benchmarks.same_results CHECKOUT [--only=WORDS]")
    here, before = Path(__file__).parents[1], Path(argv[1]).resolve()
    logging.set_verbosity(logging.WARNING)  # orbax narrates what it reads
    unequal = 0
    programs = tempfile.TemporaryDirectory()
    for name, own in cases().items():
        with tempfile.TemporaryDirectory() as scratch:
            folders = [
                trained(checkout, name, own, Path(scratch) / side, programs.name)
                for side, checkout in (("before", before), ("after", here))
            ]
            lines = list(differences(*folders))
        unequal += bool(lines)
        print(f"{name}: {'equal' if not lines else f'{len(lines)} differences'}", flush=True)
        for line in lines[:8]:
            print(f"    {line}", flush=True)
    print(f"{len(cases()) - unequal} runs equal, {unequal} differ")
    sys.exit(1 if unequal else 0)


if __name__ == "__main__":
    app.run(main)
