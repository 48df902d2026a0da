"""What exact resume on the host needs: episode numbers, and the actions of the current episodes."""

import numpy as np

from mst_jax.envs.base import Spec, Timestep


class EpisodeLog:
    """The current episode of each of E environments, from which it can be played again.

    Attributes:
        seeds: [E, 2] int64, the (seed, environment index) of each environment.
        episode: [E] int64, number of the current episode; -1 before the first.
        length: [E] int64, agent steps taken in it.
        observation: [E, *O], what is to be acted on: the last one that was finite.
        idle: [E] bool, the current episode could not be started: the next step will be lost.
        errors: [E] int64, steps lost so far.
        restarts: worker processes started again so far.
    """

    def __init__(self, spec: Spec, seeds: np.ndarray) -> None:
        """An empty log.

        Args:
            spec: of the task.
            seeds: as `base.check_seeds` returns them.
        """
        count = len(seeds)
        self.seeds = seeds
        self.episode = np.full(count, -1, np.int64)
        self.length = np.zeros(count, np.int64)
        self.observation = np.zeros((count, *spec.observation.shape), spec.observation.dtype)
        self.idle = np.zeros(count, bool)
        self.errors = np.zeros(count, np.int64)
        self.restarts = 0
        self._limit = spec.episode_length
        self._actions = spec.action.zeros(count, spec.episode_length or 1024)
        self._everyone = np.arange(count)

    def check(self, actions: np.ndarray) -> np.ndarray:
        """Returns actions [E, A] float32, or [E] int32, contiguous.

        Raises:
            ValueError: if the shape or dtype is wrong.
            RuntimeError: if no episode was begun yet.
        """
        actions = np.ascontiguousarray(actions)
        shape, dtype = (len(self.seeds), *self._actions.shape[2:]), self._actions.dtype
        if actions.shape != shape or actions.dtype != dtype:
            raise ValueError(
                f"actions must be {dtype} {shape}; got {actions.dtype} {actions.shape}"
            )
        self.require_begun()
        return actions

    def require_begun(self) -> None:
        """Raises RuntimeError if no episode was begun yet."""
        if self.episode[0] < 0:
            raise RuntimeError("call reset() or restore() first")

    def begin(self, episode: int, observation: np.ndarray, idle: np.ndarray) -> np.ndarray:
        """Notes that every environment has begun episode number `episode`.

        Args:
            episode: its number.
            observation: [E, *O], the first ones.
            idle: [E], where there is none because the episode could not be started.

        Returns:
            The observations to act on, [E, *O]: zeros where there is none.
        """
        self.episode = np.full_like(self.episode, episode)
        self.length = np.zeros_like(self.length)
        self.observation = np.zeros_like(self.observation)
        return self.resume(observation, idle)

    def resume(self, observation: np.ndarray, idle: np.ndarray) -> np.ndarray:
        """Notes that the current episodes were started again and played up to the present.

        Args:
            observation: [E, *O], the current ones.
            idle: [E], where there is none because that failed.

        Returns:
            The observations to act on, [E, *O]: the logged ones where there is none.
        """
        self.idle = np.array(idle)
        self.observation = np.where(_rows(self.idle, observation), self.observation, observation)
        return self.observation.copy()

    def step(
        self, actions: np.ndarray, timestep: Timestep[np.ndarray], idle: np.ndarray
    ) -> Timestep[np.ndarray]:
        """Notes a step and puts the last finite observation where the step has none.

        Args:
            actions: [E, A] or [E], what was done.
            timestep: what came of it; of lost steps only the observation and the flags mean
                anything.
            idle: [E], where the next episode could not be started: there is no observation.

        Returns:
            The timestep, finite everywhere.
        """
        if timestep.lost.any() or idle.any():
            lost, shown = timestep.lost, timestep.observation
            final = np.where(_rows(lost, shown), self.observation, timestep.next_observation)
            timestep = timestep._replace(
                observation=np.where(_rows(idle, shown), final, shown),
                next_observation=final,
            )
        self._append(actions, timestep.over)
        self.errors = self.errors + timestep.lost
        self.idle = np.array(idle)
        self.observation = timestep.observation.copy()
        return timestep

    def _append(self, actions: np.ndarray, over: np.ndarray) -> None:
        """Adds actions, and forgets those of episodes that are over."""
        if self.length.max() == self._actions.shape[1]:
            self._actions = np.concatenate([self._actions, np.zeros_like(self._actions)], axis=1)
        self._actions[self._everyone, self.length] = actions
        self.length = np.where(over, 0, self.length + 1)
        self.episode = self.episode + over

    def actions(self, environment: int) -> np.ndarray:
        """The actions of one environment's current episode, [length, A] or [length]."""
        return self._actions[environment, : self.length[environment]]

    def snapshot(self) -> dict[str, np.ndarray]:
        """Everything as arrays.

        Returns:
            The attributes by their names, and `actions` [E, T, A] or [E, T] (those taken in the
            current episodes, then zeros; T is the episode length, or grows if there is none).

        Raises:
            RuntimeError: if no episode was begun yet.
        """
        self.require_begun()
        taken = np.arange(self._actions.shape[1]) < self.length[:, None]
        return {
            "seeds": self.seeds.copy(),
            "episode": self.episode.copy(),
            "length": self.length.copy(),
            "observation": self.observation.copy(),
            "idle": self.idle.copy(),
            "errors": self.errors.copy(),
            "restarts": np.array(self.restarts, np.int64),
            "actions": np.where(
                _rows(taken, self._actions), self._actions, np.zeros_like(self._actions)
            ),
        }

    def load(self, snapshot: dict[str, np.ndarray]) -> None:
        """Takes over a snapshot.

        Raises:
            ValueError: if it was taken of other environments or by an earlier version; nothing is
                changed then.
        """
        missing = {"observation", "idle", "errors", "restarts"} - snapshot.keys()
        if missing:
            raise ValueError(
                f"the snapshot has no {min(missing)}: an earlier version of mst_jax took it, and "
                "its run can only be continued by that version"
            )
        if not np.array_equal(snapshot["seeds"], self.seeds):
            raise ValueError("the snapshot was taken with other seeds than these environments have")
        actions = np.array(snapshot["actions"], self._actions.dtype)
        count, _, *size = self._actions.shape
        shape = (count, self._limit or actions.shape[1], *size)
        observation = np.array(snapshot["observation"], self.observation.dtype)
        if actions.shape != shape or observation.shape != self.observation.shape:
            raise ValueError(
                f"the snapshot holds actions {actions.shape} and observations {observation.shape}, "
                f"these environments need {shape} and {self.observation.shape}: was it taken of "
                "another task or action repeat?"
            )
        self._actions, self.observation = actions, observation
        self.episode, self.length, self.errors = (
            np.array(snapshot[name], np.int64) for name in ("episode", "length", "errors")
        )
        self.idle = np.array(snapshot["idle"], bool)
        self.restarts = int(snapshot["restarts"])


def _rows(flags: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Flags of rows with as many axes as the rows' array has."""
    return flags.reshape(flags.shape + (1,) * (like.ndim - flags.ndim))
