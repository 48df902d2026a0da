"""The state of the loop as named arrays, as checkpoints and fingerprints see it, and back."""

from dataclasses import replace

from mst_jax import replay
from mst_jax.program.state import LoopState
from mst_jax.runs.arrays import (
    BUFFER,
    Arrays,
    compare,
    expected,
    flatten,
    unflatten,
    with_prefix,
)


def loop_to_arrays(loop: LoopState, recent: int | None = None) -> Arrays:
    """All arrays of a loop; of the buffer, if there is one, only its filled rows.

    Args:
        loop: of a run.
        recent: see `replay.pack`.
    """
    buffer = {} if loop.buffer is None else replay.pack(loop.buffer, recent)
    packed = {f"{BUFFER}{name}": value for name, value in buffer.items()}
    return {**flatten(replace(loop, buffer=None)), **packed}


def loop_from_arrays(arrays: Arrays, like: LoopState) -> LoopState:
    """The inverse of `loop_to_arrays`; raises ValueError when the arrays are of another run."""
    rest, packed = _parts(arrays, like)
    loop = unflatten(rest, replace(like, buffer=None))
    if like.buffer is None:
        return loop
    return replace(loop, buffer=replay.unpack(packed, like=like.buffer))


def check_loop(arrays: Arrays, like: LoopState) -> None:
    """Raises ValueError unless `loop_from_arrays` would take the arrays; nothing is allocated."""
    rest, packed = _parts(arrays, like)
    compare(rest, expected(replace(like, buffer=None)))
    if like.buffer is not None:
        replay.check(packed, like=like.buffer)


def _parts(arrays: Arrays, like: LoopState) -> tuple[Arrays, Arrays]:
    """A loop's arrays apart from the buffer's, and those; without a buffer all are the loop's."""
    if like.buffer is None:
        return arrays, {}
    rest = {name: value for name, value in arrays.items() if not name.startswith(BUFFER)}
    return rest, with_prefix(arrays, BUFFER)
