"""Policies of runs as files that act without jax."""

from pathlib import Path
from typing import Any, NamedTuple

import mst_jax
from mst_jax.export import (
    TOLERANCE,
    UNITS,
    PolicyFile,
    form_of,
    largest_difference,
    policy_file,
    require_known,
    require_place,
    write_policy,
)
from mst_jax.names import nearest
from mst_jax.program.cache import kept_task
from mst_jax.runs import checkpoints
from mst_jax.runs.folder import as_folder
from mst_jax.training import Snapshot, load_snapshot


class Exported(NamedTuple):
    """What was written.

    Attributes:
        paths: the policy, and what came beside it.
        bytes: of the policy's file.
        parameters: numbers that it holds, masked ones among them.
        active: those that are not zero.
        difference: the largest from the run's policy over 1,000 observations, in units of half the
            action range.
        description: what the file says of itself.
    """

    paths: list[Path]
    bytes: int
    parameters: int
    active: int
    difference: float
    description: dict[str, Any]


def export_policy(
    folder: str | Path,
    path: str | Path,
    *,
    seed: int | None = None,
    best: bool = False,
    dtype: str = "float32",
    form: str | None = None,
    units: str = "agent",
    overwrite: bool = False,
) -> Exported:
    """Writes the newest policy of a run as a file that acts without jax.

    The policy is deterministic: without exploration noise, the mode of what it draws from. It takes
    what the environment itself shows; time and frames it keeps itself. Before it is written it is
    compared with the run's on 1,000 observations.

    Args:
        folder: run folder.
        path: file to write, which ends in `.npz` (NumPy; a program that plays it comes beside) or
            `.c` (C99).
        seed: one of the run's seeds; the first by default.
        best: the policy of the seed's best evaluation instead.
        dtype: of weights; `float16` halves the file, and moves actions by some thousandths.
        form: `npz` or `c`; what the path's suffix says by default.
        units: of actions: `agent`, within [-1, 1], or `task`, within the task's own range.
        overwrite: whether a file that is there may be replaced.

    Returns:
        What was written.

    Raises:
        TypeError: the folder is neither text nor a path.
        ValueError: the folder is not a run or has no such policy, the agent cannot write its policy
            as operations, the file exists, or it would not act as the run's policy does.
        OSError: the file cannot be written.
    """
    path = Path(path).expanduser()
    form = form_of(path, form, dtype)
    require_place(path, overwrite)
    if units not in UNITS:
        raise ValueError(f"units {units!r} is unknown: {nearest(units, UNITS)}")
    snapshot = load_snapshot(as_folder(folder), checkpoints.BEST if best else checkpoints.LIGHT)
    policy = snapshot.policy(seed)  # refuses a seed that has diverged
    file = _policy_file(snapshot, seed, best, dtype, units)
    require_known(file, form)
    difference = largest_difference(file, policy.act)
    if dtype == "float32" and not difference <= TOLERANCE:
        raise ValueError(
            f"the policy as {snapshot.settings.agent} writes it differs from how it acts by "
            f"{difference:.2g}: its operations are not what evaluate does"
        )
    paths = write_policy(file, path, form, overwrite=overwrite)
    size = path.stat().st_size
    return Exported(paths, size, file.parameters, file.active, difference, file.description)


def _policy_file(
    snapshot: Snapshot, seed: int | None, best: bool, dtype: str, units: str
) -> PolicyFile:
    """The policy of a seed, in any form."""
    settings, agent = snapshot.settings, snapshot.agent
    if agent.operations is None:
        raise ValueError(
            f"agent {settings.agent!r} does not write its policies as operations, which is what is "
            "exported: see docs/extending.md"
        )
    source = {
        "run": settings.folder_name,
        "agent": settings.agent,
        "recipe": settings.recipe,
        "action_repeat": settings.action_repeat,
        "seed": settings.seed_list[settings.index_of(seed)],
        "step": snapshot.step,
        "policy": "best" if best else "last",
        "mst_jax": mst_jax.__version__,
    }
    return policy_file(
        agent.operations(snapshot.state(seed)),
        kept_task(settings.task, **settings.task_options).spec,
        with_time=settings.with_time,
        dtype=dtype,
        units=units,
        source=source,
    )
