"""Host environments for tests of the worker machinery; imported by worker processes too."""

import sys
import time

import numpy as np

from mst_jax.envs.base import Spec


class Counter:
    """Observation: (random number of the episode, steps taken, sum of its actions).

    Episodes last a random 3 to 8 steps and end in turn by termination and truncation.
    """

    spec = Spec("fake:counter", 3, 2, 8, 1)

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

    spec = Spec("fake:endless", 3, 2, None, 1)

    def reset(self, seed):
        super().reset(seed)
        self.end = -1
        return self._observe()


class Fails(Counter):
    """Raises when the first action is above 1/2; is very slow when it is below -1/2."""

    def step(self, action):
        if action[0] > 0.5:
            raise FloatingPointError("the sky is falling")
        if action[0] < -0.5:
            time.sleep(60)
        return super().step(action)


class SeesJax(Counter):
    """Observation: whether jax, dm_control and the parent's __main__ are imported here."""

    def _observe(self):
        main = getattr(sys.modules["__main__"], "__spec__", None)
        return np.array(
            ["jax" in sys.modules, "dm_control" in sys.modules, main.name == WORKER], np.float32
        )


WORKER = "mst_jax.envs.worker"


def broken():
    raise OSError("no such asset")
