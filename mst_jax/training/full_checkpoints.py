"""What full checkpoints hold: the loop, environments on the host, best policies and seconds."""

import numpy as np

from mst_jax.program.arrays import loop_from_arrays, loop_to_arrays
from mst_jax.program.drivers import Driver
from mst_jax.program.state import LoopState
from mst_jax.replay import frames
from mst_jax.runs import checkpoints
from mst_jax.runs.arrays import BEST, HOST, SECONDS, own_arrays, with_prefix
from mst_jax.runs.folder import CHECKPOINTS
from mst_jax.training.best import BestPolicies
from mst_jax.training.jobs import Program
from mst_jax.training.session import Session


def save(session: Session, loop: LoopState, step: int) -> None:
    """Writes the full checkpoints of all runs and their best policies."""
    session.sync()
    snapshot = {f"{HOST}{k}": v for k, v in session.driver.snapshot().items()}
    best = {f"{BEST}{k}": v for k, v in session.best.to_arrays().items()}
    arrays = loop_to_arrays(loop, new_frames(session, loop, step))
    seconds = {SECONDS: np.array([session.seconds(i) for i in range(session.settings.seeds)])}
    session.save(checkpoints.FULL, step, {**arrays, **snapshot, **best, **seconds})
    session.save(checkpoints.BEST, step, session.best.policies)


def new_frames(session: Session, loop: LoopState, step: int) -> int | None:
    """Slots before each cursor whose frames no checkpoint has; None of a buffer without frames."""
    if loop.buffer is None or loop.buffer.written is None:
        return None
    written = np.asarray(loop.buffer.written)
    return max(
        frames.slots_since(
            written[rows].ravel(),
            checkpoints.written_before(folder / CHECKPOINTS, step),
            loop.buffer.layout.ring,
        )
        for folder, rows in session.folders.items()
    )


def restore(
    like: LoopState, program: Program, driver: Driver, best: BestPolicies
) -> tuple[LoopState, np.ndarray]:
    """Puts environments and best policies back where full checkpoints were written.

    Args:
        like: gives the loop's shapes.
        program: what goes on; its jobs let the checkpoints' arrays go.
        driver: whose environments are put back.
        best: the policies that are put back.

    Returns:
        The loop, and the seconds of training up to there (S,).
    """
    arrays = program.take_arrays()
    loop = driver.place(loop_from_arrays(own_arrays(arrays), like))
    driver.restore(with_prefix(arrays, HOST))
    best.restore(with_prefix(arrays, BEST))
    return loop, arrays[SECONDS]
