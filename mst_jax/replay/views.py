"""What an agent sees of the buffer: prioritised starts, n-step transitions, sub-trajectories."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mst_jax.replay import sum_tree
from mst_jax.replay.layout import Layout


class Subtrajectory(NamedTuple):
    """`L` consecutive steps from each of `B` starts.

    Entries *after* the first `terminated` step of a row belong to other episodes: finite, but to be
    masked by the loss (mask_0 = 1, mask_{k+1} = mask_k · (1 − terminated_k);
    docs/specs/mst-and-mrq.md §6.3). The observation right after the terminated step is still the
    episode's own final one.

    Attributes:
        observation: [B, L+1, *O], in the space's dtype, as are the actions.
        action: [B, L, *A].
        reward: float32[B, L].
        terminated: bool[B, L].
    """

    observation: jax.Array
    action: jax.Array
    reward: jax.Array
    terminated: jax.Array


class Transition(NamedTuple):
    """An n-step transition from each of `B` starts; the agent forms the return.

    Rewards after the first `terminated` step, and `next_observation` if there is one, are to be
    masked: R = Σ γ^k r_k Π_{j<k} (1 − terminated_j) (docs/specs/mst-and-mrq.md §6.9).

    Attributes:
        observation: [B, *O], at the start, in the space's dtype, as are the others.
        action: [B, *A], taken there.
        reward: float32[B, n].
        terminated: bool[B, n].
        next_observation: [B, *O], n steps on.
    """

    observation: jax.Array
    action: jax.Array
    reward: jax.Array
    terminated: jax.Array
    next_observation: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class View:
    """Read-only view of the buffer of one seed.

    `replay.view` returns it with a leading seed axis on every leaf; its methods are for one seed,
    so call them under `jax.vmap` over axis 0.

    Attributes:
        fields: the layout's fields by name, dtype[N, ...].
        reward: float32[N].
        terminated: uint8[N].
        tree: sum tree over the N slots; zero where a slot is not sampleable.
        filled: int32, slots that hold a transition or the final observation of a finished episode.
        terminal_seen: bool, whether any terminated transition was ever inserted.
        layout: sizes and dtypes; a window stays within its ring.
    """

    fields: dict[str, jax.Array]
    reward: jax.Array
    terminated: jax.Array
    tree: sum_tree.Tree
    filled: jax.Array
    terminal_seen: jax.Array
    layout: Layout = dataclasses.field(metadata={"static": True})

    def sample(self, key: jax.Array, batch_size: int) -> jax.Array:
        """Draws starts with replacement, with probability proportional to their priority.

        Args:
            key: a typed key, of this seed.
            batch_size: B.

        Returns:
            int32[B]. Before anything is sampleable: some slot in range, of no meaning.
        """
        self._check_one_seed()
        indices = sum_tree.sample(self.tree, key, batch_size)
        return jnp.minimum(indices, self.reward.shape[0] - 1)

    def subtrajectory(self, indices: jax.Array, length: int) -> Subtrajectory:
        """Reads `length` steps from each start.

        Args:
            indices: int32[B], from `sample`.
            length: L, at most the buffer's span.

        Returns:
            The sub-trajectories.

        Raises:
            ValueError: if the length is outside [1, span].
        """
        self._check_one_seed()
        self._check_steps(length)
        window = self._window(indices, length + 1)
        observation, action = self._read(window)
        steps = window[:, :-1]
        return Subtrajectory(
            observation=observation,
            action=action,
            reward=self.reward[steps],
            terminated=self.terminated[steps].astype(bool),
        )

    def transition(self, indices: jax.Array, n: int) -> Transition:
        """Reads an n-step transition from each start.

        Args:
            indices: int32[B], from `sample`.
            n: number of steps, at most the buffer's span.

        Returns:
            The transitions.

        Raises:
            ValueError: if n is outside [1, span].
        """
        self._check_one_seed()
        self._check_steps(n)
        window = self._window(indices, n + 1)
        observation, action = self._read(window[:, (0, -1)])
        steps = window[:, :-1]
        return Transition(
            observation=observation[:, 0],
            action=action[:, 0],
            reward=self.reward[steps],
            terminated=self.terminated[steps].astype(bool),
            next_observation=observation[:, 1],
        )

    def probability(self, indices: jax.Array) -> jax.Array:
        """Returns the probability with which `sample` draws each start, for importance weights.

        Args:
            indices: int32[B], from `sample`.

        Returns:
            float32[B], the start's share of the total priority; zero while nothing is sampleable.
        """
        self._check_one_seed()
        # The last level, 16 sums, has the total without reading the others.
        total = sum_tree.total(self.tree[-1])
        return jnp.where(total > 0, self.tree[0][indices] / total, 0.0)

    def mean_absolute_reward(self) -> jax.Array:
        """Returns mean |reward| over all filled slots, float32; zero when there are none.

        The slot of an episode's final observation counts, with reward zero
        (docs/specs/mst-and-mrq.md §6.6); the next observation of an episode still going on does
        not.
        """
        self._check_one_seed()
        return sum_tree.total(jnp.abs(self.reward)) / jnp.maximum(self.filled, 1)

    def _read(self, slots: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Observations [B, K, *O] in slots [B, K], and actions [B, K-1, *A] in all but the last."""
        fields, size = self.fields, self.layout.observation.size
        if self.layout.packed:
            rows = fields["rows"][slots].astype(jnp.float32)
            return rows[..., :size], rows[:, :-1, size:]
        action = fields["action"][slots[:, :-1]].astype(self.layout.action.dtype)
        return self._stacks(slots), action

    def _stacks(self, slots: jax.Array) -> jax.Array:
        """Observations [B, K, *O] in slots [B, K], of parts that are in these and earlier slots."""
        space, part = self.layout.observation, self.layout.part
        back = jnp.arange(space.history - 1, -1, -1)  # oldest first
        if space.history == 1:
            parts = self.fields["observation"][slots][:, :, None]
        else:
            age = self.fields["age"][slots].astype(jnp.int32)[..., None]
            parts = self.fields["observation"][self._moved(slots, -jnp.minimum(back, age))]
            if space.fill == "zeros":
                parts = jnp.where((back <= age)[..., None], parts, 0)
        parts = parts.astype(space.dtype).reshape(*slots.shape, space.history, *part)
        return jnp.moveaxis(parts, 2, -2).reshape(*slots.shape, *space.shape)

    def _window(self, indices: jax.Array, size: int) -> jax.Array:
        return self._moved(indices, jnp.arange(size))

    def _moved(self, slots: jax.Array, steps: jax.Array) -> jax.Array:
        """The slots so many steps on within the ring of each: [..., K] of slots [...]."""
        ring = self.layout.ring
        offset = slots % ring
        return (slots - offset)[..., None] + (offset[..., None] + steps) % ring

    def _check_steps(self, steps: int) -> None:
        if not 1 <= steps <= self.layout.span:
            raise ValueError(
                f"{steps} steps asked of a buffer whose span is {self.layout.span}; "
                "create it with a span at least as long"
            )

    def _check_one_seed(self) -> None:
        if self.reward.ndim != 1:
            raise ValueError("a view's methods are for one seed: call them under jax.vmap")
