"""What an agent sees of the buffer: prioritised starts, n-step transitions, sub-trajectories."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mst_jax.replay import sum_tree


class Subtrajectory(NamedTuple):
    """`L` consecutive steps from each of `B` starts.

    Entries *after* the first `terminated` step of a row belong to other episodes: finite, but to be
    masked by the loss (mask_0 = 1, mask_{k+1} = mask_k · (1 − terminated_k);
    docs/specs/mst-and-mrq.md §6.3). The observation right after the terminated step is still the
    episode's own final one.

    Attributes:
      observation: float32[B, L+1, O].
      action: float32[B, L, A].
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
      observation: float32[B, O], at the start.
      action: float32[B, A], taken there.
      reward: float32[B, n].
      terminated: bool[B, n].
      next_observation: float32[B, O], n steps on.
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
      rows: row_dtype[N, O+A], observation and action of each slot.
      reward: float32[N].
      terminated: uint8[N].
      tree: sum tree over the N slots; zero where a slot is not sampleable.
      filled: int32, slots that hold a transition or the final observation of a finished episode.
      terminal_seen: bool, whether any terminated transition was ever inserted.
      observation_size: O.
      span: transitions that follow a sampleable start, itself included.
      environments: E, the rings of N / E slots that a window stays within.
    """

    rows: jax.Array
    reward: jax.Array
    terminated: jax.Array
    tree: sum_tree.Tree
    filled: jax.Array
    terminal_seen: jax.Array
    observation_size: int = dataclasses.field(metadata={"static": True})
    span: int = dataclasses.field(metadata={"static": True})
    environments: int = dataclasses.field(metadata={"static": True})

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
        rows = self.rows[window].astype(jnp.float32)
        steps = window[:, :-1]
        return Subtrajectory(
            observation=rows[..., : self.observation_size],
            action=rows[:, :-1, self.observation_size :],
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
        rows = self.rows[window[:, (0, -1)]].astype(jnp.float32)
        steps = window[:, :-1]
        return Transition(
            observation=rows[:, 0, : self.observation_size],
            action=rows[:, 0, self.observation_size :],
            reward=self.reward[steps],
            terminated=self.terminated[steps].astype(bool),
            next_observation=rows[:, 1, : self.observation_size],
        )

    def mean_absolute_reward(self) -> jax.Array:
        """Returns mean |reward| over all filled slots, float32; zero when there are none.

        The slot of an episode's final observation counts, with reward zero
        (docs/specs/mst-and-mrq.md §6.6); the next observation of an episode still going on does
        not.
        """
        self._check_one_seed()
        return sum_tree.total(jnp.abs(self.reward)) / jnp.maximum(self.filled, 1)

    def _window(self, indices: jax.Array, size: int) -> jax.Array:
        ring = self.reward.shape[0] // self.environments
        offset = indices % ring
        return (indices - offset)[:, None] + (offset[:, None] + jnp.arange(size)) % ring

    def _check_steps(self, steps: int) -> None:
        if not 1 <= steps <= self.span:
            raise ValueError(
                f"{steps} steps asked of a buffer whose span is {self.span}; "
                "create it with a span at least as long"
            )

    def _check_one_seed(self) -> None:
        if self.reward.ndim != 1:
            raise ValueError("a view's methods are for one seed: call them under jax.vmap")
