"""Host environments that break the contract; apart, so that workers that play them start soon."""

import numpy as np
from fake_host_envs import Counter

from mst_jax.envs.spaces import Discrete, Observation


class Careless(Counter):
    """A counter that remembers what happened before its episode."""

    lives = 0

    def reset(self, seed):
        self.lives += 1
        observation = super().reset(seed)
        observation[0] = self.lives
        return observation


class Wrong(Counter):
    """A counter whose steps show less than its spec says."""

    def step(self, action):
        observation, *rest = super().step(action)
        return observation[:1], *rest


class Gymnasiums(Counter):
    """A counter with Gymnasium's `reset`."""

    def reset(self, seed):
        return super().reset(seed), {}


class Informed(Counter):
    """A counter with the flags of the old Gym: done, and the information."""

    def step(self, action):
        observation, reward, terminated, truncated = super().step(action)
        return observation, reward, terminated or truncated, {}


class Both(Counter):
    """A counter that terminates and truncates at once."""

    def step(self, action):
        observation, reward, terminated, truncated = super().step(action)
        return observation, reward, terminated or truncated, terminated or truncated


class Lives(Counter):
    """A game of two lives of which the first is lost in the second step."""

    spec = Counter.spec._replace(
        observation=Observation((2, 4), "uint8", history=2), action=Discrete(3)
    )

    def step(self, action):
        self.steps += 1
        lost = self.steps == 2
        self.frames = np.concatenate([self.frames[:, 2:], np.full((2, 2), self.steps, np.uint8)], 1)
        return (
            self.frames,
            float(action),
            lost or self.steps == self.end,
            False,
            self.steps == self.end,
        )

    def _observe(self):
        self.frames = np.zeros((2, 4), np.uint8)
        return self.frames


class Hopeless(Counter):
    """A counter that cannot count."""

    def step(self, action):
        raise RuntimeError("no simulator")
