"""A worker process: steps several host environments, one message a step.

`vector` starts it; it serves the pipe at a file descriptor until that closes, which also happens
when the parent is killed. Messages, after the first, which is a pickled
`(factory, seeds [e, 2], spec)`:

* a non-empty request is the actions of one step, [e, A] or [e]; an empty one announces a pickled
  `(episodes, actions)`: start these episodes and replay these actions;
* a non-empty reply is the records of e environments (`record_dtype`) and then text, a line for each
  environment that failed; an empty one announces the text of an error that concerns all, after
  which the worker only waits for the pipe to close.

The process never imports jax. SIGINT and SIGTERM are blocked by the parent before it is born: who
interrupts a run wants the parent to write its checkpoint first.
"""

import contextlib
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

import numpy as np

from mst_jax.envs.base import HostEnv, Timestep, episode_seed
from mst_jax.envs.spaces import Observation
from mst_jax.names import kind_of

LARGEST = float(np.finfo(np.float32).max)
RECORDED = (*Timestep._fields, "idle")


def record_dtype(observation: Observation) -> np.dtype:
    """One environment's step as a packed record: the fields of `Timestep` in their order, `idle`.

    `idle` says that the environment has no episode to go on with, so that its observation means
    nothing and its next step will be lost.
    """
    shown, flag = (observation.dtype, observation.shape), np.bool_
    kinds = (shown, np.float32, flag, flag, shown, flag, flag, flag)
    return np.dtype(list(zip(RECORDED, map(np.dtype, kinds), strict=True)))


class WrongShapeError(Exception):
    """What the contract or the task's spec does not allow of any episode."""


class Block:
    """Several environments stepped in turn, each restarting by itself.

    An environment that raises, or returns something non-finite, is thrown away. A new one begins
    the next episode; if that fails too, the environment is idle, and its next step is lost as well.

    Attributes:
        failures: a line for each failure since it was last cleared.
    """

    def __init__(
        self, factory: Callable[[], HostEnv], seeds: np.ndarray, observation: Observation
    ) -> None:
        """Makes the environments.

        Args:
            factory: makes one.
            seeds: [e, 2], the (seed, environment index) of each.
            observation: what the task's spec says of it.
        """
        self.failures: list[str] = []
        self._factory, self._seeds = factory, seeds.tolist()
        self._environments: list[HostEnv | None] = [factory() for _ in self._seeds]
        self._episodes = [0] * len(self._seeds)
        self._idle = [True] * len(self._seeds)
        self._records = np.zeros(len(self._seeds), record_dtype(observation))
        self._observation = observation
        self._nothing = np.zeros(observation.shape, observation.dtype)

    def start(self, episodes: Sequence[int], actions: Sequence[np.ndarray | None]) -> np.ndarray:
        """Starts an episode everywhere and replays actions in it.

        Args:
            episodes: the episode number of each environment.
            actions: [t, ...] for each environment, t >= 0; None leaves it idle.

        Returns:
            Records of which only the observations and `idle` mean anything.
        """
        for i, (episode, log) in enumerate(zip(episodes, actions, strict=True)):
            self._episodes[i] = episode
            observation = None if log is None else self._begin(i, log)
            self._write(i, observation, 0.0, False, False, self._nothing, False, False)
        return self._records

    def step(self, actions: np.ndarray) -> np.ndarray:
        """Takes one agent step everywhere; the records [e] are those of the next call as well."""
        for i, action in enumerate(actions):
            taken = None if self._idle[i] else self._take(i, action)
            final, *rest, over = taken or (self._nothing, 0.0, False, True, True)
            _, terminated, truncated = rest
            observation: np.ndarray | None = final
            if over:
                self._episodes[i] += 1
                observation = self._begin(i)
            elif terminated or truncated:  # a lost life: the game goes on
                observation = self._observation.fresh(final)
            self._write(i, observation, *rest, final, taken is None, over)
        return self._records

    def _write(self, i: int, observation: np.ndarray | None, *others: object) -> None:
        self._idle[i] = observation is None
        self._records[i] = (self._nothing if self._idle[i] else observation, *others, self._idle[i])

    def _begin(self, i: int, actions: np.ndarray | Sequence[np.ndarray] = ()) -> np.ndarray | None:
        """Starts the current episode, replays actions in it; None if it cannot be done."""
        try:
            environment = self._environments[i]
            if environment is None:
                environment = self._environments[i] = self._factory()
            seed = episode_seed(*self._seeds[i], self._episodes[i])
            observation = self._checked(environment.reset(seed))
        except WrongShapeError:
            raise
        except Exception as error:
            return self._fail(i, error)
        unseen = len(actions) - self._observation.history  # what is shown last holds no more
        for number, action in enumerate(actions):
            taken = self._take(i, action, unseen=number < unseen)
            if taken is None:
                return None
            observation, _, terminated, truncated, over = taken
            if over:
                return self._fail(
                    i, RuntimeError("the episode ends early when it is replayed: not deterministic")
                )
            if terminated or truncated:
                observation = self._observation.fresh(observation)
        return observation

    def _take(
        self, i: int, action: np.ndarray, *, unseen: bool = False
    ) -> tuple[np.ndarray, float, bool, bool, bool] | None:
        """One step of one environment, with whether its episode is over; None if it fails."""
        try:
            environment = cast("HostEnv", self._environments[i])  # its episode has begun
            take = getattr(environment, "skip", environment.step) if unseen else environment.step
            observation, reward, *ends = take(action)
            if any(isinstance(end, dict) for end in ends):
                raise WrongShapeError(
                    "step returns a dict among its flags; it is (observation, reward, terminated, "
                    "truncated), without Gymnasium's info"
                )
            reward = float(reward)
            if not abs(reward) <= LARGEST:
                raise FloatingPointError(f"the reward is {reward}")
            terminated, truncated, over = ends if len(ends) > 2 else (*ends, any(ends))
            return self._checked(observation), reward, terminated, truncated, over
        except WrongShapeError:
            raise
        except Exception as error:
            return self._fail(i, error)

    def _fail(self, i: int, error: Exception) -> None:
        self._environments[i] = None
        seed, index = self._seeds[i]
        self.failures.append(
            f"seed {seed}, environment {index}, episode {self._episodes[i]}: {describe(error)}"
        )

    def _checked(self, observation: np.ndarray) -> np.ndarray:
        if isinstance(observation, (tuple, dict)):
            raise WrongShapeError(
                f"an observation is {kind_of(observation)}, not an array; reset returns it "
                "alone, without Gymnasium's info"
            )
        observation = np.asarray(observation)
        if observation.shape != self._nothing.shape:
            raise WrongShapeError(
                f"an observation has shape {observation.shape}, the task's spec says "
                f"{self._nothing.shape}"
            )
        if self._nothing.dtype.kind == "u":
            if observation.dtype != self._nothing.dtype:
                raise WrongShapeError(
                    f"an observation is {observation.dtype}, the task's spec says "
                    f"{self._nothing.dtype}"
                )
            return observation
        observation = observation.astype(self._nothing.dtype, copy=False)
        if not np.isfinite(observation).all():
            raise FloatingPointError("an observation is not finite")
        return observation


def describe(error: Exception) -> str:
    """An exception in one line: its type, the first line of its text, where it was raised."""
    text = (str(error).splitlines() or [""])[0]
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__]
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{place}"


def serve(connection: Connection) -> None:
    """Answers requests until the pipe closes (EOFError or another OSError)."""
    try:
        factory, seeds, spec = connection.recv()
        block = Block(factory, seeds, spec.observation)
        while True:
            block.failures.clear()
            request = connection.recv_bytes()
            if request:
                actions = np.frombuffer(request, spec.action.dtype)
                actions = actions.reshape(len(seeds), *spec.action.shape)
                records = block.step(actions)
            else:
                records = block.start(*connection.recv())
            connection.send_bytes(records.tobytes() + "\n".join(block.failures).encode())
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise
    except Exception as error:
        connection.send_bytes(b"")
        connection.send((describe(error), traceback.format_exc()))
        while True:
            connection.recv_bytes()


def main() -> None:
    """Serves the pipe whose file descriptor is the first argument."""
    # Numbers too large for float32 are reported as a failure of the environment.
    warnings.filterwarnings("ignore", "overflow encountered in cast", RuntimeWarning)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        serve(Connection(int(sys.argv[1])))


if __name__ == "__main__":
    main()
