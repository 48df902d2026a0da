"""What exact resume on the host needs: episode numbers, and the actions of the current episodes."""

import numpy as np

from mst_jax.envs.base import Spec


class EpisodeLog:
    """The current episode of each of E environments, from which it can be played again.

    Attributes:
      seeds: [E, 2] int64, the (seed, environment index) of each environment.
      episode: [E] int64, number of the current episode; -1 before the first.
      length: [E] int64, agent steps taken in it.
    """

    def __init__(self, spec: Spec, seeds: np.ndarray) -> None:
        """An empty log.

        Args:
          spec: sizes of the task.
          seeds: as `base.check_seeds` returns them.
        """
        count = len(seeds)
        self.seeds = seeds
        self.episode = np.full(count, -1, np.int64)
        self.length = np.zeros(count, np.int64)
        self._limit = spec.episode_length
        self._actions = np.zeros((count, spec.episode_length or 1024, spec.action_size), np.float32)
        self._everyone = np.arange(count)

    def check(self, actions: np.ndarray) -> np.ndarray:
        """Returns actions [E, A] float32, contiguous.

        Raises:
          ValueError: if the shape or dtype is wrong.
          RuntimeError: if no episode was begun yet.
        """
        actions = np.ascontiguousarray(actions)
        shape = (len(self.seeds), self._actions.shape[2])
        if actions.shape != shape or actions.dtype != np.float32:
            raise ValueError(
                f"actions must be float32 {shape}; got {actions.dtype} {actions.shape}"
            )
        self.require_begun()
        return actions

    def require_begun(self) -> None:
        """Raises RuntimeError if no episode was begun yet."""
        if self.episode[0] < 0:
            raise RuntimeError("call reset() or restore() first")

    def begin(self, episode: int) -> None:
        """Notes that every environment has begun episode number `episode`."""
        self.episode = np.full_like(self.episode, episode)
        self.length = np.zeros_like(self.length)

    def append(self, actions: np.ndarray, ended: np.ndarray) -> None:
        """Notes a step that succeeded; forgets the actions of episodes that it ended."""
        if self.length.max() == self._actions.shape[1]:
            self._actions = np.concatenate([self._actions, np.zeros_like(self._actions)], axis=1)
        self._actions[self._everyone, self.length] = actions
        self.length = np.where(ended, 0, self.length + 1)
        self.episode = self.episode + ended

    def actions(self, environment: int) -> np.ndarray:
        """The actions of one environment's current episode, [length, A] float32."""
        return self._actions[environment, : self.length[environment]]

    def snapshot(self) -> dict[str, np.ndarray]:
        """Everything as arrays.

        Returns:
          `seeds` [E, 2] int64, `episode` [E] int64, `length` [E] int64 and `actions` [E, T, A]
          float32 (those taken in the current episodes, then zeros; T is the episode length, or
          grows if there is none).

        Raises:
          RuntimeError: if no episode was begun yet.
        """
        self.require_begun()
        taken = np.arange(self._actions.shape[1]) < self.length[:, None]
        return {
            "seeds": self.seeds.copy(),
            "episode": self.episode.copy(),
            "length": self.length.copy(),
            "actions": np.where(taken[..., None], self._actions, np.float32(0)),
        }

    def load(self, snapshot: dict[str, np.ndarray]) -> None:
        """Takes over a snapshot.

        Raises:
          ValueError: if it was taken of other environments; nothing is changed then.
        """
        if not np.array_equal(snapshot["seeds"], self.seeds):
            raise ValueError("the snapshot was taken with other seeds than these environments have")
        actions = np.array(snapshot["actions"], np.float32)
        count, _, size = self._actions.shape
        shape = (count, self._limit or actions.shape[1], size)
        if actions.shape != shape:
            raise ValueError(
                f"the snapshot holds actions {actions.shape}, these environments need {shape}: "
                "was it taken of another task or action repeat?"
            )
        self._actions = actions
        self.episode, self.length = (
            np.array(snapshot[name], np.int64) for name in ("episode", "length")
        )
