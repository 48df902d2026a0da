"""What all forms of an exported policy share: its operations, and a description that is JSON."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mst_jax.envs import Continuous, Spec
from mst_jax.export.play_policy import VERSION, Policy
from mst_jax.names import kind_of
from mst_jax.networks.operations import Bounded, Dense, Operation, Scale, Shift

DTYPES = ("float32", "float16")  # of kernels; everything else is float32, and so is arithmetic
UNITS = ("agent", "task")
FORMAT = "mst_jax policy"


class PolicyFile(NamedTuple):
    """A policy that can be written in any form.

    Attributes:
        operations: from a whole observation to an action.
        description: what the file says of itself, JSON's types only.
    """

    operations: tuple[Operation, ...]
    description: dict[str, Any]

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """{"3/kernel": array}, the arrays of every operation by its place in the program."""
        return {
            f"{index}/{name}": value
            for index, operation in enumerate(self.operations)
            for name, value in vars(operation).items()
            if isinstance(value, np.ndarray)
        }

    @property
    def active(self) -> int:
        """Parameters that are not zero."""
        return sum(int(np.count_nonzero(array)) for array in self.arrays.values())

    @property
    def parameters(self) -> int:
        """Numbers that the policy holds, zeros among them."""
        return sum(array.size for array in self.arrays.values())

    def player(self) -> Policy:
        """The policy as the NumPy interpreter plays it; ValueError if sizes do not fit."""
        return Policy(self.description, self.arrays)


def policy_file(
    operations: Sequence[Operation],
    spec: Spec,
    *,
    with_time: str = "off",
    dtype: str = "float32",
    units: str = "agent",
    source: Mapping[str, Any] | None = None,
) -> PolicyFile:
    """A policy with what its task needs around it.

    Args:
        operations: from an observation, as the agent sees it, to an action as it is drawn.
        spec: of the task as the agent sees it, with the time if there is one.
        with_time: where the last entry of an observation comes from; `mst_jax.envs.with_time`.
        dtype: of kernels, one of `DTYPES`.
        units: `agent`, actions in [-1, 1], or `task`, in the task's own range.
        source: where the policy comes from.

    Raises:
        ValueError: the task is not one that can be exported, or has no range of its own, or a
            weight is too large for float16.
    """
    seen, space = spec.observation, spec.action
    if not isinstance(space, Continuous):
        raise ValueError("only policies with continuous actions can be exported")
    if len(seen.shape) != 1 or seen.dtype != "float32":
        raise ValueError(
            "only policies of flat float32 observations can be exported, and the task shows "
            f"{seen.dtype}{list(seen.shape)}"
        )
    program = [*(_stored(operation, dtype) for operation in operations), Bounded(-1.0, 1.0)]
    action = {"size": space.size, "units": units, "low": space.low, "high": space.high}
    if units == "task":
        if space.low is None or space.high is None:
            raise ValueError(
                f"{spec.task} has no action range of its own, only [-1, 1]: leave units='task' out"
            )
        half, middle = range_of(action)
        program += [Scale(half), Shift(middle)]
    description = {
        "format": FORMAT,
        "version": VERSION,
        "task": spec.task,
        "deterministic": True,
        "observation": {
            "size": (seen.size - (with_time != "off")) // seen.history,
            "history": seen.history,
            "fill": seen.fill,
            "time": with_time,
            "limit": spec.episode_length,
        },
        "action": action,
        "dtype": dtype,
        "source": dict(source or {}),
        "operations": [(type(operation).__name__, _numbers(operation)) for operation in program],
    }
    return PolicyFile(tuple(program), description)


def _stored(operation: Operation, dtype: str) -> Operation:
    """An operation with arrays as they are written."""
    if not isinstance(operation, Operation):
        raise ValueError(
            f"the agent's operations hold {kind_of(operation)}, and only those of "
            "mst_jax.networks.operations can be exported"
        )
    fields: dict[str, Any] = {
        name: value if isinstance(value, float) else np.asarray(value, np.float32)
        for name, value in vars(operation).items()
    }
    if isinstance(operation, Dense) and dtype != "float32":
        if np.abs(fields["kernel"]).max(initial=0.0) > np.finfo(dtype).max:
            raise ValueError(f"a weight is too large for {dtype}: choose float32")
        fields["kernel"] = fields["kernel"].astype(dtype)
    return type(operation)(**fields)


def _numbers(operation: Operation) -> dict[str, float]:
    """The fields that are no arrays."""
    return {name: value for name, value in vars(operation).items() if isinstance(value, float)}


def range_of(action: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Half of the range that actions are given in, and its middle, float32 (A,)."""
    own = action["units"] == "task"
    low, high = action["low"] if own else -1.0, action["high"] if own else 1.0
    low, high = (np.full(action["size"], bound, np.float64) for bound in (low, high))
    return ((high - low) / 2).astype(np.float32), ((high + low) / 2).astype(np.float32)
