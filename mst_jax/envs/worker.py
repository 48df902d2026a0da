"""A worker process: steps several host environments, one message a step.

`python -m mst_jax.envs.worker FD` serves the pipe at file descriptor FD until it closes, which
also happens when the parent is killed. Messages, after the first, which is a pickled
`(factory, seeds [e, 2])`:

* a non-empty request is the actions of one step, float32 [e, A]; an empty one announces a pickled
  `(episodes, actions)`: start these episodes and replay these actions;
* a non-empty reply is the records of e environments (`record_dtype`); an empty one announces the
  text of an error, after which the worker only waits for the pipe to close.

The process never imports jax. SIGINT and SIGTERM are blocked by the parent before it is born: who
interrupts a run wants the parent to write its checkpoint first.
"""

import contextlib
import sys
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection

import numpy as np

from mst_jax.envs.base import HostEnv, Timestep, episode_seed


def record_dtype(observation_size: int) -> np.dtype:
    """One environment's `Timestep` as a packed record, in the order of its fields."""
    observation = (np.float32, (observation_size,))
    kinds = (observation, np.float32, np.bool_, np.bool_, observation)
    return np.dtype(list(zip(Timestep._fields, map(np.dtype, kinds), strict=True)))


class Block:
    """Several environments stepped in turn, each restarting by itself.

    Attributes:
      environments: the e environments.
      seeds: [e, 2], the (seed, environment index) of each.
      episodes: the number of each one's current episode.
    """

    def __init__(self, environments: Sequence[HostEnv], seeds: np.ndarray) -> None:
        self.environments = environments
        self.seeds = seeds.tolist()
        self.episodes = [0] * len(environments)
        self._records: np.ndarray | None = None

    def start(self, episodes: Sequence[int], actions: Sequence[np.ndarray]) -> np.ndarray:
        """Starts an episode everywhere and replays actions in it.

        Args:
          episodes: the episode number of each environment.
          actions: float32 [t, A] for each environment, t >= 0; none may end the episode.

        Returns:
          Records of which only the observations mean anything.
        """
        self.episodes = list(episodes)
        observations = [self._replay(i, log) for i, log in enumerate(actions)]
        self._records = np.zeros(len(observations), record_dtype(len(observations[0])))
        for name in ("observation", "next_observation"):
            self._records[name] = observations
        return self._records

    def step(self, actions: np.ndarray) -> np.ndarray:
        """Takes one agent step everywhere: actions [e, A] to records [e], reused by later calls."""
        for i, (environment, action) in enumerate(zip(self.environments, actions, strict=True)):
            final, reward, terminated, truncated = environment.step(action)
            observation = final
            if terminated or truncated:
                self.episodes[i] += 1
                observation = self._reset(i)
            self._records[i] = (observation, reward, terminated, truncated, final)
        return self._records

    def _reset(self, i: int) -> np.ndarray:
        return self.environments[i].reset(episode_seed(*self.seeds[i], self.episodes[i]))

    def _replay(self, i: int, actions: np.ndarray) -> np.ndarray:
        observation = self._reset(i)
        for action in actions:
            observation, _, terminated, truncated = self.environments[i].step(action)
            if terminated or truncated:
                raise RuntimeError("a replayed episode ended early: it is not deterministic")
        return observation


def serve(connection: Connection) -> None:
    """Answers requests until the pipe closes (EOFError or another OSError)."""
    try:
        factory, seeds = connection.recv()
        block = Block([factory() for _ in seeds], seeds)
        while True:
            request = connection.recv_bytes()
            if request:
                actions = np.frombuffer(request, np.float32).reshape(len(seeds), -1)
                records = block.step(actions)
            else:
                records = block.start(*connection.recv())
            connection.send_bytes(records.tobytes())
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise
    except Exception:
        connection.send_bytes(b"")
        connection.send(traceback.format_exc())
        while True:
            connection.recv_bytes()


def main() -> None:
    """Serves the pipe whose file descriptor is the first argument."""
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        serve(Connection(int(sys.argv[1])))


if __name__ == "__main__":
    main()
