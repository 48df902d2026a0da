"""What a run folder holds, judged before anything in it is changed.

A run that ended is finished; one that began goes on from its newest full checkpoint, if that is its
own and nothing after it would be lost for good; a folder in which nothing began is blank.
"""

from functools import partial
from pathlib import Path

import jax

from mst_jax import envs
from mst_jax.agents import Agent
from mst_jax.program.arrays import check_loop
from mst_jax.program.state import LoopState, init_loop
from mst_jax.runs import checkpoints, sinks
from mst_jax.runs.arrays import own_arrays
from mst_jax.runs.checkpoints import Checkpoint
from mst_jax.runs.folder import CHECKPOINTS, seed_folder
from mst_jax.runs.settings import Settings
from mst_jax.training.memory import replay_slots


def refuse_misfit(checkpoint: Checkpoint, folder: Path, like: LoopState) -> None:
    """Refuses a full checkpoint of another agent or of other sizes than a run has.

    Raises:
        ValueError: the message names the first arrays that differ.
    """
    try:
        check_loop(own_arrays(checkpoint.arrays), like)
    except ValueError as error:
        at = f"{checkpoint.step:,}"
        raise ValueError(f"the checkpoint of step {at} in {folder}: {error}") from error


def refuse_loss(folder: Path, settings: Settings, *, begin_anew: bool) -> None:
    """Refuses to begin a run anew where that deletes what training made.

    Args:
        folder: of a run without full checkpoints.
        settings: of the run.
        begin_anew: go ahead where no full checkpoint can have been there yet, so that what is lost
            could not have been continued anyway.

    Raises:
        ValueError: the message says what would be lost.
    """
    rows = [max(_steps(seed_folder(folder, seed)), default=0) for seed in settings.seed_list]
    light = checkpoints.saved_steps(folder / CHECKPOINTS, checkpoints.LIGHT)
    reached = max([*rows, *light, 0])
    first = settings.checkpoint_every or settings.steps
    if reached == 0 or (begin_anew and reached <= first):
        return
    policies = f" and {len(light)} policies" if light else ""
    raise ValueError(
        f"{folder} has no full checkpoint to continue from; beginning anew would delete its "
        f"metrics up to step {max(rows):,}{policies}: delete the folder if that is what you want"
    )


def shapes_of_run(task: envs.JaxEnv | envs.HostTask, agent: Agent, settings: Settings) -> LoopState:
    """The shapes of a run's state; nothing is allocated or compiled."""
    count = settings.seeds * settings.environments
    start = partial(
        init_loop,
        agent,
        settings.seed_list,
        replay_slots(settings, agent, task.spec),
        sizes=task.spec,
        row_dtype=settings.row_dtype,
    )
    environment = None
    observation = jax.ShapeDtypeStruct(
        (count, *task.spec.observation.shape), task.spec.observation.dtype
    )
    if isinstance(task, envs.JaxEnv):
        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), count))
        environment, observation = jax.eval_shape(jax.vmap(task.reset), keys)
    return jax.eval_shape(start, observation=observation, environment=environment)


def _steps(seed_folder: Path) -> list[int]:
    if not (seed_folder / sinks.METRICS).exists():
        return []
    return [row["step"] for row in sinks.readable_rows(seed_folder)[0]]
