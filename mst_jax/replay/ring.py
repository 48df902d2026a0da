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

Where an observation holds a history of h parts, a slot keeps the newest one and its age, the
position in its episode counted up to h-1; a read finds the others in the slots before. A write
therefore also ends the h-1 slots after those that it overwrites: their parts are gone.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from mst_jax.replay import sum_tree
from mst_jax.replay.layout import Layout
from mst_jax.replay.views import View

# Finite but absurd priorities would overflow the sums; those below would be flushed to zero.
SMALLEST_PRIORITY, LARGEST_PRIORITY = 1e-30, 1e30


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Buffer:
    """Replay buffer of S seeds, N slots each in E rings; every leaf has the leading axis S.

    Attributes:
        fields: the layout's fields by name, dtype[S, N, ...]: `rows` (row_dtype[S, N, O+A],
            observation and action), or `observation`, `action` and, with a history, `age`.
        reward: float32[S, N], exact whatever the row dtype.
        terminated: uint8[S, N].
        tree: levels of the sum tree, float32[S, n_l], leaves first.
        cursor: int32[S, E], slot of the next transition, counted from the ring's first.
        filled: int32[S, E], slots that hold a transition or a finished episode's final observation.
        steps: int32[S, E], transitions of the current episode so far, counted up to the larger of
            `span` and the history before an observation.
        max_priority: float32[S], largest priority ever set (1 at first), given to new starts.
        terminal_seen: bool[S], whether a terminated transition was ever inserted.
        written: int32[S, E], slots that the cursor has passed since the beginning, for checkpoints;
            None unless the layout has frames.
        layout: sizes and dtypes, of one seed: how many there are is the arrays' leading axis.
    """

    fields: dict[str, jax.Array]
    reward: jax.Array
    terminated: jax.Array
    tree: sum_tree.Tree
    cursor: jax.Array
    filled: jax.Array
    steps: jax.Array
    max_priority: jax.Array
    terminal_seen: jax.Array
    written: jax.Array | None
    layout: Layout = dataclasses.field(metadata={"static": True})

    @property
    def environments(self) -> int:
        """E, of each seed."""
        return self.layout.environments


def create(layout: Layout) -> Buffer:
    """Allocates an empty buffer, all zeros."""

    def zeros(*shape: int, dtype: DTypeLike = jnp.int32) -> jax.Array:
        return jnp.zeros((layout.seeds, *shape), dtype)

    capacity, environments = layout.capacity, layout.environments
    return Buffer(
        fields={
            name: zeros(capacity, *field.shape, dtype=field.dtype)
            for name, field in layout.fields.items()
        },
        reward=zeros(capacity, dtype=jnp.float32),
        terminated=zeros(capacity, dtype=jnp.uint8),
        tree=tuple(zeros(size, dtype=jnp.float32) for size in sum_tree.level_sizes(capacity)),
        cursor=zeros(environments),
        filled=zeros(environments),
        steps=zeros(environments),
        max_priority=jnp.ones(layout.seeds, jnp.float32),
        terminal_seen=zeros(dtype=bool),
        written=zeros(environments) if layout.has_frames else None,
        # Of one seed, so that buffers of several are trees of one kind with those of one.
        layout=dataclasses.replace(layout, seeds=1),
    )


def nbytes(layout: Layout) -> int:
    """Returns the bytes that `create` would allocate; allocates nothing."""
    shapes = jax.eval_shape(lambda: create(layout))
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
    `observation` unless the episode ended here. Of a history only the newest part is kept: the
    first observation of an episode must be `layout.observation.fresh` (so it begins anew also
    after a lost life), and every next one must have moved on by one part; others are read as if
    they were. A start that becomes sampleable gets the largest priority of its seed so far.

    Args:
        buffer: the buffer.
        observation: [S*E, *O].
        action: [S*E, *A].
        reward: [S*E].
        terminated: bool[S*E], true end of the episode.
        truncated: bool[S*E], cut off by a limit. If both are set the episode counts as terminated.
        next_observation: [S*E, *O]; the final observation if the episode ended.

    Returns:
        The buffer with the transitions.

    Raises:
        ValueError: if a shape does not fit the buffer, or a dtype cannot be stored without loss: a
            number among flags, a fraction where the spaces have integers.
    """
    layout, seeds = buffer.layout, buffer.reward.shape[0]
    shown, taken = layout.observation, layout.action
    rows = seeds * layout.environments
    expected = {
        "observation": (observation, shown.shape, shown.dtype),
        "action": (action, taken.shape, taken.dtype),
        "reward": (reward, (), "float32"),
        "terminated": (terminated, (), "bool"),
        "truncated": (truncated, (), "bool"),
        "next_observation": (next_observation, shown.shape, shown.dtype),
    }
    for name, (array, shape, dtype) in expected.items():
        _check_array(name, array, (rows, *shape), dtype)

    def by_seed(array: ArrayLike, dtype: DTypeLike | None = None) -> jax.Array:
        array = jnp.asarray(array, dtype)
        return array.reshape(seeds, layout.environments, *array.shape[1:])

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
    _check_array("priorities", priorities, jnp.shape(indices), "float32")
    return jax.vmap(_set_priorities)(
        buffer, jnp.asarray(indices), jnp.asarray(priorities, jnp.float32)
    )


def view(buffer: Buffer) -> View:
    """Returns the read-only view that agents sample from; map over axis 0 of all its leaves."""
    return View(
        fields=buffer.fields,
        reward=buffer.reward,
        terminated=buffer.terminated,
        tree=buffer.tree,
        filled=buffer.filled.sum(axis=1),
        terminal_seen=buffer.terminal_seen,
        layout=buffer.layout,
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
    layout = buffer.layout
    ring, span, past = layout.ring, layout.span, layout.history - 1
    first = ring * jnp.arange(layout.environments)[:, None]  # of each ring's slots
    cursor = buffer.cursor[:, None]
    ended = (terminated | truncated).astype(jnp.int32)
    written = (first + (cursor + jnp.arange(2)) % ring).ravel()
    transition = layout.split(observation, action)
    provisional = layout.split(next_observation, jnp.zeros_like(action))
    if past:
        transition["age"] = jnp.minimum(buffer.steps, past)
        provisional["age"] = jnp.minimum(buffer.steps + 1, past)

    # The slots touched: `span` starts ending at this one, the two overwritten slots, and those
    # after them whose history reaches into these.
    # span-1 ... 0 for this transition, -1 for its next observation, -2 ... for those beyond
    behind = jnp.arange(span - 1, -2 - past, -1)
    in_episode = (behind >= 0) & (behind <= buffer.steps[:, None])
    ripe = (in_episode & (terminated[:, None] | (behind == span - 1))).ravel()
    overwritten = jnp.tile(behind <= 0, layout.environments)

    def write(array: jax.Array, transition: jax.Array, provisional: jax.Array) -> jax.Array:
        values = jnp.stack([transition, provisional], axis=1).reshape(-1, *array.shape[1:])
        return array.at[written].set(values.astype(array.dtype), unique_indices=True)

    return dataclasses.replace(
        buffer,
        fields={
            name: write(array, transition[name], provisional[name])
            for name, array in buffer.fields.items()
        },
        reward=write(buffer.reward, reward, jnp.zeros_like(reward)),
        terminated=write(buffer.terminated, terminated, jnp.zeros_like(terminated)),
        tree=sum_tree.replace(
            buffer.tree,
            (first + (cursor - behind) % ring).ravel(),
            jnp.where(ripe, buffer.max_priority, 0.0),
            where=ripe | overwritten,
        ),
        cursor=(buffer.cursor + 1 + ended) % ring,
        # While an episode goes on, one slot is taken by its provisional next observation.
        filled=jnp.minimum(buffer.filled + 1 + ended, ring - 1 + ended),
        steps=jnp.where(ended, 0, jnp.minimum(buffer.steps + 1, max(span, past))),
        terminal_seen=buffer.terminal_seen | terminated.any(),
        written=None if buffer.written is None else buffer.written + 1 + ended,
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


def _check_array(name: str, array: ArrayLike, shape: tuple[int, ...], dtype: str) -> None:
    found = jnp.result_type(array)
    if jnp.shape(array) != shape or not np.can_cast(found, dtype, "same_kind"):
        raise ValueError(
            f"{name} must be {dtype}{list(shape)}, not {found}{list(jnp.shape(array))}"
        )
