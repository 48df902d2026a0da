"""The ring: where transitions are written, and which of them may start a sample.

Every environment has a ring and a cursor of its own, because environments end episodes at different
times. The N slots of a seed are cut into E equal rings of M = N / E slots, one behind the other;
sampling does not know of them, as a seed has one sum tree over all its slots.

A transition is written at the cursor, and its next observation, provisionally, in the slot after
it: the next transition of the episode will overwrite that slot with the same observation, and if
there is none the slot stays as the episode's final observation. Hence the observation after slot i
is always in slot i+1 (modulo the ring), nothing is stored twice, and a finished episode costs one
extra slot.

A slot is *sampleable* when `span` consecutive transitions beginning with it belong to its episode.
A truncated episode leaves its last span−1 slots unsampleable for ever; a terminated one makes them
sampleable (what lies beyond the end is masked by the losses; docs/specs/mst-and-mrq.md §6.9).
Validity is not stored: the leaf of the sum tree is the slot's priority if it is sampleable, else
zero.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from mst_jax.replay import sum_tree
from mst_jax.replay.view import View

ROW_DTYPES = ("float32", "bfloat16", "float16")

# Finite but absurd priorities would overflow the sums; those below would be flushed to zero.
SMALLEST_PRIORITY, LARGEST_PRIORITY = 1e-30, 1e30


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Buffer:
    """Replay buffer of S seeds, N slots each in E rings; every leaf has the leading axis S.

    Attributes:
      rows: row_dtype[S, N, O+A], observation and action.
      reward: float32[S, N], exact whatever the row dtype.
      terminated: uint8[S, N].
      tree: levels of the sum tree, float32[S, n_l], leaves first.
      cursor: int32[S, E], slot of the next transition, counted from the ring's first.
      filled: int32[S, E], slots that hold a transition or a finished episode's final observation.
      steps: int32[S, E], transitions of the current episode so far, counted up to `span`.
      max_priority: float32[S], largest priority ever set (1 at first), given to new starts.
      terminal_seen: bool[S], whether a terminated transition was ever inserted.
      observation_size: O.
      span: transitions that follow a sampleable start, itself included.
      environments: E.
    """

    rows: jax.Array
    reward: jax.Array
    terminated: jax.Array
    tree: sum_tree.Tree
    cursor: jax.Array
    filled: jax.Array
    steps: jax.Array
    max_priority: jax.Array
    terminal_seen: jax.Array
    observation_size: int = dataclasses.field(metadata={"static": True})
    span: int = dataclasses.field(metadata={"static": True})
    environments: int = dataclasses.field(metadata={"static": True})


def create(
    *,
    num_seeds: int,
    capacity: int,
    observation_size: int,
    action_size: int,
    span: int,
    row_dtype: DTypeLike = jnp.float32,
    environments: int = 1,
) -> Buffer:
    """Allocates an empty buffer.

    Args:
      num_seeds: S.
      capacity: N, slots of each seed; a finished episode of T transitions takes T+1 of them.
      observation_size: O.
      action_size: A.
      span: transitions that must follow a start, itself included, before it is sampleable. MR.Q:
        max(horizon, n)+1; one-step methods: 1. Samples may be up to `span` steps long.
      row_dtype: dtype of stored observations and actions (float32, bfloat16 or float16); they are
        always read as float32.
      environments: E, each with a ring of N / E slots.

    Returns:
      The buffer, all zeros.

    Raises:
      ValueError: if a size is not positive, the capacity too small or no multiple of E, or the
        dtype none of these.
    """
    sizes = {
        "num_seeds": num_seeds,
        "observation_size": observation_size,
        "action_size": action_size,
        "span": span,
        "environments": environments,
    }
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, not {size}")
    if capacity % environments:
        raise ValueError(
            f"capacity {capacity} cannot be shared evenly by {environments} environments: "
            f"use {capacity - capacity % environments} or another multiple"
        )
    smallest = environments * (span + 2)
    if capacity < smallest:
        for_all = "" if environments == 1 else f" and {environments} environments"
        raise ValueError(
            f"capacity {capacity} is too small for a span of {span}{for_all}: "
            f"use at least {smallest}"
        )
    if jnp.dtype(row_dtype).name not in ROW_DTYPES:
        raise ValueError(f"row_dtype must be one of {', '.join(ROW_DTYPES)}, not {row_dtype}")

    def zeros(*shape: int, dtype: DTypeLike = jnp.int32) -> jax.Array:
        return jnp.zeros((num_seeds, *shape), dtype)

    return Buffer(
        rows=zeros(capacity, observation_size + action_size, dtype=row_dtype),
        reward=zeros(capacity, dtype=jnp.float32),
        terminated=zeros(capacity, dtype=jnp.uint8),
        tree=tuple(zeros(size, dtype=jnp.float32) for size in sum_tree.level_sizes(capacity)),
        cursor=zeros(environments),
        filled=zeros(environments),
        steps=zeros(environments),
        max_priority=jnp.ones(num_seeds, jnp.float32),
        terminal_seen=zeros(dtype=bool),
        observation_size=observation_size,
        span=span,
        environments=environments,
    )


def nbytes(
    *,
    num_seeds: int,
    capacity: int,
    observation_size: int,
    action_size: int,
    span: int,
    row_dtype: DTypeLike = jnp.float32,
    environments: int = 1,
) -> int:
    """Returns the bytes that `create` with the same arguments would allocate; allocates nothing."""
    shapes = jax.eval_shape(
        functools.partial(
            create,
            num_seeds=num_seeds,
            capacity=capacity,
            observation_size=observation_size,
            action_size=action_size,
            span=span,
            row_dtype=row_dtype,
            environments=environments,
        )
    )
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))


def insert(
    buffer: Buffer,
    observation: ArrayLike,
    action: ArrayLike,
    reward: ArrayLike,
    terminated: ArrayLike,
    truncated: ArrayLike,
    next_observation: ArrayLike,
) -> Buffer:
    """Inserts one transition of every environment, in place when the buffer is donated.

    Environment e of seed s is row s*E+e of every array. `next_observation` must be the next call's
    `observation` unless the episode ended here. A start that becomes sampleable gets the largest
    priority of its seed so far.

    Args:
      buffer: the buffer.
      observation: [S*E, O].
      action: [S*E, A].
      reward: [S*E].
      terminated: bool[S*E], true end of the episode.
      truncated: bool[S*E], cut off by a limit. If both are set the episode counts as terminated.
      next_observation: [S*E, O]; the final observation if the episode ended.

    Returns:
      The buffer with the transitions.

    Raises:
      ValueError: if a shape does not fit the buffer.
    """
    seeds, _, width = buffer.rows.shape
    size, rows = buffer.observation_size, seeds * buffer.environments
    expected = {
        "observation": (observation, (rows, size)),
        "action": (action, (rows, width - size)),
        "reward": (reward, (rows,)),
        "terminated": (terminated, (rows,)),
        "truncated": (truncated, (rows,)),
        "next_observation": (next_observation, (rows, size)),
    }
    for name, (array, shape) in expected.items():
        _check_shape(name, array, shape)

    def by_seed(array: ArrayLike, dtype: DTypeLike | None = None) -> jax.Array:
        array = jnp.asarray(array, dtype)
        return array.reshape(seeds, buffer.environments, *array.shape[1:])

    return jax.vmap(_insert)(
        buffer,
        by_seed(observation),
        by_seed(action),
        by_seed(reward),
        by_seed(terminated, bool),
        by_seed(truncated, bool),
        by_seed(next_observation),
    )


def set_priorities(buffer: Buffer, indices: ArrayLike, priorities: ArrayLike) -> Buffer:
    """Gives sampled starts new priorities, in place when the buffer is donated.

    Priorities that are NaN, infinite or outside [1e-30, 1e30] are ignored, and so are slots no
    longer sampleable and indices out of range. If an index occurs more than once its largest
    priority counts.

    Args:
      buffer: the buffer.
      indices: int32[S, B], from `View.sample`.
      priorities: float32[S, B], final values (for LAP max(|δ|, 1)**0.4).

    Returns:
      The buffer with those priorities and the running maximum brought up to date.

    Raises:
      ValueError: if the shapes are not [S, B].
    """
    if jnp.ndim(indices) != 2 or jnp.shape(indices)[0] != buffer.reward.shape[0]:
        raise ValueError(
            f"indices must have shape ({buffer.reward.shape[0]}, batch), not {jnp.shape(indices)}"
        )
    _check_shape("priorities", priorities, jnp.shape(indices))
    return jax.vmap(_set_priorities)(
        buffer, jnp.asarray(indices), jnp.asarray(priorities, jnp.float32)
    )


def view(buffer: Buffer) -> View:
    """Returns the read-only view that agents sample from; map over axis 0 of all its leaves."""
    return View(
        rows=buffer.rows,
        reward=buffer.reward,
        terminated=buffer.terminated,
        tree=buffer.tree,
        filled=buffer.filled.sum(axis=1),
        terminal_seen=buffer.terminal_seen,
        observation_size=buffer.observation_size,
        span=buffer.span,
        environments=buffer.environments,
    )


def _insert(
    buffer: Buffer,
    observation: jax.Array,
    action: jax.Array,
    reward: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array,
    next_observation: jax.Array,
) -> Buffer:
    """`insert` for one seed, [E, ...] each."""
    ring = buffer.reward.shape[0] // buffer.environments
    first = ring * jnp.arange(buffer.environments)[:, None]  # of each ring's slots
    cursor = buffer.cursor[:, None]
    ended = (terminated | truncated).astype(jnp.int32)
    written = (first + (cursor + jnp.arange(2)) % ring).ravel()
    transition = jnp.concatenate([observation, action], axis=1)
    provisional = jnp.concatenate([next_observation, jnp.zeros_like(action)], axis=1)

    # The slots touched: `span` starts ending at this one, and the two overwritten slots.
    age = jnp.arange(buffer.span - 1, -2, -1)  # span-1 ... 0 for this transition, -1 for the next
    in_episode = (age >= 0) & (age <= buffer.steps[:, None])
    ripe = (in_episode & (terminated[:, None] | (age == buffer.span - 1))).ravel()
    overwritten = jnp.tile(age <= 0, buffer.environments)

    def write(array: jax.Array, transition: jax.Array, provisional: jax.Array) -> jax.Array:
        values = jnp.stack([transition, provisional], axis=1).reshape(-1, *array.shape[1:])
        return array.at[written].set(values.astype(array.dtype), unique_indices=True)

    return dataclasses.replace(
        buffer,
        rows=write(buffer.rows, transition, provisional),
        reward=write(buffer.reward, reward, jnp.zeros_like(reward)),
        terminated=write(buffer.terminated, terminated, jnp.zeros_like(terminated)),
        tree=sum_tree.replace(
            buffer.tree,
            (first + (cursor - age) % ring).ravel(),
            jnp.where(ripe, buffer.max_priority, 0.0),
            where=ripe | overwritten,
        ),
        cursor=(buffer.cursor + 1 + ended) % ring,
        # While an episode goes on, one slot is taken by its provisional next observation.
        filled=jnp.minimum(buffer.filled + 1 + ended, ring - 1 + ended),
        steps=jnp.where(ended, 0, jnp.minimum(buffer.steps + 1, buffer.span)),
        terminal_seen=buffer.terminal_seen | terminated.any(),
    )


def _set_priorities(buffer: Buffer, indices: jax.Array, priorities: jax.Array) -> Buffer:
    """`set_priorities` for one seed."""
    usable = (priorities >= SMALLEST_PRIORITY) & (priorities <= LARGEST_PRIORITY)
    # An index beyond the tree would read its last leaf.
    in_range = (indices >= 0) & (indices < buffer.reward.shape[0])
    applies = usable & in_range & (buffer.tree[0][indices] > 0)
    priorities = jnp.where(applies, priorities, 0.0)
    return dataclasses.replace(
        buffer,
        tree=sum_tree.replace(buffer.tree, indices, priorities, where=applies),
        max_priority=jnp.maximum(buffer.max_priority, priorities.max()),
    )


def _check_shape(name: str, array: ArrayLike, shape: tuple[int, ...]) -> None:
    if jnp.shape(array) != shape:
        raise ValueError(f"{name} must have shape {shape}, not {jnp.shape(array)}")
