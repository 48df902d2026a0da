"""What a rewire may know of neurons: how active they are on the batch at hand."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mst_jax.topology.planning import Group

Neurons = Mapping[str, jax.Array]  # path of a kernel -> mean absolute activation of its outputs
Activity = Neurons | Callable[[], Neurons]


def required(group: Group) -> bool:
    """Whether a rewire of these leaves reads the activity of neurons."""
    return any(entry.regime.reads_activity for entry in group.entries)


def neurons(group: Group, activity: Activity | None) -> Neurons:
    """The activity of the neurons behind a group's leaves; nothing if no score reads it.

    Args:
        group: the leaves to rewire.
        activity: what ``update`` was given; a function is called here, under the conditional.

    Returns:
        path -> float ``[outputs]``, of those leaves that have any.

    Raises:
        ValueError: none of the leaves has one, or one has another number of outputs.
    """
    if not required(group):
        return {}
    given: Any = activity() if callable(activity) else activity
    found = {e.path: jnp.asarray(given[e.path]) for e in group.entries if e.path in given}
    if not found:
        raise ValueError(
            f"activity has no entry for any leaf that is rewired by it ({group.entries[0].path!r}, "
            f"...), only for {sorted(given)[:3]}"
        )
    outputs = {entry.path: entry.shape[-1:] for entry in group.entries}
    for path, own in found.items():
        if own.shape != outputs[path]:
            raise ValueError(
                f"activity[{path!r}] has shape {own.shape}, expected {outputs[path]}: one number "
                f"for each output of the kernel"
            )
    return found


def require(group: Group, activity: Activity | None) -> None:
    """Raises ``ValueError`` if the activity is needed and missing."""
    if required(group) and activity is None:
        raise ValueError(
            "this plan looks at the activity of neurons: tx.update(..., step=step, activity={path "
            "of a kernel: mean absolute activation of its outputs}), or a function returning that"
        )
