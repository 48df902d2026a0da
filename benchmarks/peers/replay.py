"""Replay buffers in NumPy on the host, as the published programs keep them."""

import numpy as np


class PrioritizedReplay:
    """MR.Q's buffer: a flat ring, prioritised by a cumulative sum (docs/specs/mst-and-mrq.md §6.9).

    Observations are stored once and read by index, the final one of an episode in a slot of its
    own; a priority of zero marks what may not be sampled. Only the filled part is summed.
    """

    def __init__(self, capacity: int, observation_size: int, action_size: int, span: int) -> None:
        self.observation = np.zeros((capacity, observation_size), np.float32)
        self.action = np.zeros((capacity, action_size), np.float32)
        self.reward = np.zeros(capacity, np.float32)
        self.terminated = np.zeros(capacity, bool)
        self.priority = np.zeros(capacity, np.float32)
        self.capacity, self.span = capacity, span
        self.cursor = self.filled = self.episode_steps = 0
        self.max_priority = 1.0
        self.terminal_seen = False

    def add(
        self,
        observation: np.ndarray,
        action: np.ndarray,
        reward: float,
        terminated: bool,
        truncated: bool,
        next_observation: np.ndarray,
    ) -> None:
        """Stores one transition; a start is sampleable once `span` transitions are there."""
        slot = self.cursor
        self.observation[slot], self.action[slot] = observation, action
        self.reward[slot], self.terminated[slot] = reward, terminated
        self._advance(next_observation)
        self.episode_steps += 1
        self.terminal_seen |= terminated
        ready = min(self.span, self.episode_steps)
        if self.episode_steps >= self.span:
            self.priority[(slot - self.span + 1) % self.capacity] = self.max_priority
        if terminated:
            # The last starts run past the terminal step, where the losses mask them.
            self.priority[(slot - np.arange(ready)) % self.capacity] = self.max_priority
        if terminated or truncated:
            self.reward[self.cursor] = 0.0
            self._advance(next_observation)
            self.episode_steps = 0

    def _advance(self, next_observation: np.ndarray) -> None:
        """Moves to the next slot, which holds the next observation and cannot be a start yet."""
        self.filled = min(self.filled + 1, self.capacity)
        self.cursor = (self.cursor + 1) % self.capacity
        self.observation[self.cursor] = next_observation
        self.priority[self.cursor] = 0.0

    def sample(self, rng: np.random.Generator, batch_size: int) -> np.ndarray:
        """Start slots (B,), with replacement, proportional to priority."""
        sums = np.cumsum(self.priority[: self.filled], dtype=np.float64)
        return np.searchsorted(sums, rng.random(batch_size) * sums[-1], side="right")

    def window(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Slots (B, length) of consecutive steps."""
        return (starts[:, None] + np.arange(length)) % self.capacity

    def set_priority(self, starts: np.ndarray, priority: np.ndarray) -> None:
        """Stores the priorities (B,) of sampled starts and remembers the largest."""
        self.priority[starts] = priority
        self.max_priority = max(self.max_priority, float(priority.max()))

    def mean_absolute_reward(self) -> float:
        """Over all filled slots, those of final observations included."""
        return float(np.abs(self.reward[: self.filled]).mean())


class UniformReplay:
    """SAC's buffer: transitions with both observations, sampled uniformly."""

    def __init__(self, capacity: int, observation_size: int, action_size: int) -> None:
        self.observation = np.zeros((capacity, observation_size), np.float32)
        self.next_observation = np.zeros((capacity, observation_size), np.float32)
        self.action = np.zeros((capacity, action_size), np.float32)
        self.reward = np.zeros(capacity, np.float32)
        self.terminated = np.zeros(capacity, np.float32)
        self.capacity = capacity
        self.cursor = self.filled = 0

    def add(
        self,
        observation: np.ndarray,
        action: np.ndarray,
        reward: float,
        terminated: bool,
        next_observation: np.ndarray,
    ) -> None:
        """Stores one transition over the oldest."""
        slot = self.cursor
        self.observation[slot], self.next_observation[slot] = observation, next_observation
        self.action[slot], self.reward[slot] = action, reward
        self.terminated[slot] = terminated
        self.cursor = (slot + 1) % self.capacity
        self.filled = min(self.filled + 1, self.capacity)

    def sample(self, rng: np.random.Generator, batch_size: int) -> np.ndarray:
        """Slots (B,), with replacement."""
        return rng.integers(self.filled, size=batch_size)
