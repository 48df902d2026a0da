"""Host environments for tests of the worker machinery; imported by worker processes too."""

import os
import sys
import time

import numpy as np

from mst_jax.envs.base import vector_spec


class Counter:
    """Observation: (random number of the episode, steps taken, sum of its actions).

    Episodes last a random 3 to 8 steps and end in turn by termination and truncation.
    """

    spec = vector_spec("fake:counter", 3, 2, 8, 1)

    def reset(self, seed):
        generator = np.random.default_rng(seed)
        self.tag, self.steps, self.total = generator.random(), 0, np.float32(0)
        self.end, self.terminates = int(generator.integers(3, 9)), bool(generator.integers(2))
        return self._observe()

    def step(self, action):
        self.steps += 1
        self.total += action.sum()
        ended = self.steps == self.end
        reward = float(action[0])
        return self._observe(), reward, ended and self.terminates, ended and not self.terminates

    def _observe(self):
        return np.array([self.tag, self.steps, self.total], np.float32)


class Endless(Counter):
    """A counter whose episodes never end."""

    spec = vector_spec("fake:endless", 3, 2, None, 1)

    def reset(self, seed):
        super().reset(seed)
        self.end = -1
        return self._observe()


class Slow(Counter):
    """Very slow when its first action is below -1/2."""

    def step(self, action):
        if action[0] < -0.5:
            time.sleep(60)
        return super().step(action)


class Faulty(Counter):
    """A counter that fails where it is told to; after that this instance is of no use.

    `faults` says what happens by (seed, environment index, episode, step), step 0 being the reset;
    they begin to happen when the file `since` exists, if one is given.
    """

    def __init__(self, faults, since=None):
        self.faults, self.since, self.worn = faults, since, False

    def reset(self, seed):
        if self.worn:
            raise RuntimeError("a reset does not help: it must be made again")
        self.place = seed.entropy
        return self.spoil(super().reset(seed), 0.0)[0]

    def step(self, action):
        observation, reward, terminated, truncated = super().step(action)
        return *self.spoil(observation, reward), terminated, truncated

    def spoil(self, observation, reward):
        fault = self.faults.get((*self.place, self.steps))
        if fault is None or (self.since and not self.since.exists()):
            return observation, reward
        self.worn = True
        match fault:
            case "raises":
                raise FloatingPointError("the sky\nis falling")
            case "exits":
                os._exit(3)
            case "sleeps":
                time.sleep(60)
            case "wrong shape":
                observation = observation[:2]
            case "NaN observation":
                observation[1] = np.nan
            case "infinite observation":
                observation[0] = -np.inf
            case "huge observation":
                observation = np.array([1e300, 0.0, 0.0])
            case _:
                rewards = {"NaN": np.nan, "infinite": np.inf, "huge": 1e300, "no": None}
                reward = rewards[fault.removesuffix(" reward")]
        return observation, reward


class Mortal(Counter):
    """A counter that cannot be made while a file exists."""

    def __init__(self, marker):
        if marker.exists():
            os._exit(3)


class SeesJax(Counter):
    """Observation: whether jax, dm_control and the parent's __main__ are imported here."""

    def _observe(self):
        main = getattr(sys.modules["__main__"], "__spec__", None)
        return np.array(
            ["jax" in sys.modules, "dm_control" in sys.modules, main.name == WORKER], np.float32
        )


WORKER = "mst_jax.envs.host.worker"


def broken():
    raise OSError("no such asset")
