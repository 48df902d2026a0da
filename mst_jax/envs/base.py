"""What an environment is: the types that every suite provides and the trainer uses.

Nothing here imports jax, because worker processes import this module.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from mst_jax.envs.spaces import Action, Continuous, Observation

if TYPE_CHECKING:
    import jax

WORKER_TIMEOUT = 600.0  # seconds; the largest environments load in less than a minute


class Spec(NamedTuple):
    """What a task shows, takes and how long it lasts.

    Attributes:
        task: full name, `"suite:name"`.
        observation: shape and dtype of what it shows.
        action: the space of what it takes.
        episode_length: agent steps of the longest episode (the time limit); None if unlimited.
        action_repeat: environment steps per agent step; rewards are summed over them.
        ends_early: whether an episode may be over before the time limit, failures aside.
    """

    task: str
    observation: Observation
    action: Action
    episode_length: int | None
    action_repeat: int
    ends_early: bool = True


def vector_spec(
    task: str,
    observation_size: int,
    action_size: int,
    episode_length: int | None,
    action_repeat: int = 1,
) -> Spec:
    """The spec of a task with flat float32 observations and continuous actions."""
    observation, action = Observation((observation_size,)), Continuous(action_size)
    return Spec(task, observation, action, episode_length, action_repeat)


A = TypeVar("A", bound="np.ndarray | jax.Array")


class Timestep(NamedTuple, Generic[A]):
    """What one agent step led to. Arrays lead with E on the host, with nothing in a `JaxEnv`.

    `terminated` and `truncated` are for replay and losses, `over` for resets, returns, episode
    numbers and logs. They differ where a lost life ends what is learned from, and not the game.

    Attributes:
        observation: [..., *O], what to act on next: the first observation of the next episode when
            this step ended one, else the same as `next_observation`. Where the step terminated and
            the game goes on, the history in it begins anew.
        reward: [...] float32, summed over the action repeat.
        terminated: [...] bool, the episode reached a terminal state: do not bootstrap.
        truncated: [...] bool, the episode was cut by the time limit, or is lost: do bootstrap.
        next_observation: [..., *O], what this transition led to: the final observation when the
            episode ended.
        lost: [...] bool, the environment failed in this step: it raised, diverged, or could not
            start the episode. The step is truncated, its reward is 0, its next observation is the
            last one that was finite, and the next episode begins.
        over: [...] bool, the episode is over: the next one begins with `observation`.
    """

    observation: A
    reward: A
    terminated: A
    truncated: A
    next_observation: A
    lost: A
    over: A


class EnvironmentFailedError(RuntimeError):
    """Environments that cannot go on: not set up rightly, or they could not be started again."""


class JaxEnv(NamedTuple):
    """One environment as pure JAX functions; the caller vmaps them over seeds.

    Episodes restart inside `step`, each from a start state of its own. Nothing that `reset` and
    `step` hand out is ever non-finite: `episodic` sees to it.

    Attributes:
        spec: of the task.
        reset: `reset(key) -> (state, observation[*O])`; `key` is one typed key.
        step: `step(state, action) -> (state, Timestep)`; `state.errors`, int32, counts the steps
            that were lost so far.
    """

    spec: Spec
    reset: Callable[[jax.Array], tuple[Any, jax.Array]]
    step: Callable[[Any, jax.Array], tuple[Any, Timestep[jax.Array]]]


class HostEnv(Protocol):
    """One environment on the host: what a suite writes to be run by worker processes.

    An episode must depend on its seed and its actions alone, bit for bit, whatever the instance
    did before: exact resume replays the actions of the current episode. An exception, or an
    observation or reward that is not finite, costs the episode: the instance is thrown away and
    another one is made.

    It may have `skip(action)` too: a step whose observation nobody looks at, so that any will do.
    Replayed actions are skipped up to the last `Observation.history` of them.
    """

    def reset(self, seed: np.random.SeedSequence) -> np.ndarray:
        """Starts the episode of `seed` and returns its first observation, [*O]."""

    def step(
        self, action: np.ndarray
    ) -> tuple[np.ndarray, float, bool, bool] | tuple[np.ndarray, float, bool, bool, bool]:
        """Takes one agent step.

        Args:
            action: [A] float32 in [-1, 1], or an int32 scalar.

        Returns:
            observation [*O] (a fresh array), reward, terminated, truncated, and whether the episode
            is over, which may be left out where it is over exactly when it terminated or truncated.
        """


class HostVectorEnv(Protocol):
    """E environments on the host, stepped together; usable as a context manager.

    Attributes:
        spec: of the task.
        errors: [E] int64, steps that each environment has lost so far.
        restarts: how often a worker process had to be started again.
    """

    spec: Spec

    @property
    def errors(self) -> np.ndarray:
        """See the class."""

    @property
    def restarts(self) -> int:
        """See the class."""

    def reset(self, episode: int = 0) -> np.ndarray:
        """Starts episode number `episode` everywhere; returns the observations, [E, *O]."""

    def step(self, actions: np.ndarray) -> Timestep[np.ndarray]:
        """Takes one agent step everywhere with actions [E, A] in [-1, 1], or [E]."""

    def snapshot(self) -> dict[str, np.ndarray]:
        """Returns all that `restore` needs to continue from this very step."""

    def restore(self, snapshot: dict[str, np.ndarray]) -> np.ndarray:
        """Continues from a snapshot; returns the current observations, [E, *O]."""

    def close(self) -> None:
        """Releases everything; may be called again."""

    def __enter__(self) -> HostVectorEnv:
        """Returns itself."""

    def __exit__(self, *exception: object) -> None:
        """Closes it."""


class HostTask(NamedTuple):
    """A task that runs on the host.

    Attributes:
        spec: of the task.
        vector: `vector(seeds, workers=None, timeout=WORKER_TIMEOUT, label=None) -> HostVectorEnv`
            with one environment for each (seed, environment index) pair in `seeds`; `workers` is
            the number of processes, by default one per core and never more than environments.
            Results do not depend on it. A process that does not answer for `timeout` seconds counts
            as dead;
            0: never. `label` is what messages call the environments, instead of the task's name.
        preflight: raises ValueError, in one line, if the machine lacks what the environments need
            to be stepped, although their spec is known; None if nothing can be missing.
    """

    spec: Spec
    vector: Callable[..., HostVectorEnv]
    preflight: Callable[[], None] | None = None


def episode_seed(seed: int, index: int, episode: int) -> np.random.SeedSequence:
    """The randomness of one episode, from (seed, environment index, episode number) alone."""
    return np.random.SeedSequence((seed, index, episode))


def check_seeds(seeds: Sequence[tuple[int, int]]) -> np.ndarray:
    """Validates (seed, environment index) pairs.

    Returns:
        The pairs as int64 [E, 2].

    Raises:
        ValueError: if there is none, or a number is outside [0, 2**32): a larger one would fill
            two of the seed sequence's words and could collide with another triple.
    """
    pairs = np.asarray(seeds, dtype=np.int64)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or len(pairs) == 0:
        raise ValueError(f"seeds must be (seed, environment index) pairs; got {seeds!r}")
    if (pairs < 0).any() or (pairs >= 2**32).any():
        raise ValueError(f"seeds and environment indices must lie in [0, 2**32); got {seeds!r}")
    return pairs


def check_episode(episode: int) -> None:
    """Raises ValueError if an episode number is outside [0, 2**32), as in `check_seeds`."""
    if not 0 <= episode < 2**32:
        raise ValueError(f"episode must lie in [0, 2**32); got {episode}")


def core_count() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


def worker_count(workers: int | None, environments: int) -> int:
    """How many processes or threads to start: by default one per core, at most one each.

    Raises:
        ValueError: if `workers` is not positive.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1; got {workers}")
    return min(workers or core_count(), environments)
