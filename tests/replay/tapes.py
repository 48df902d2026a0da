"""A slow NumPy model of the ring that keeps whole observations, and how both are played."""

import jax
import jax.numpy as jnp
import numpy as np

from mst_jax import replay
from mst_jax.envs import Continuous, Discrete, Observation

SEEDS = 3


class Tape:
    """One environment's history as an endless list of slots; the ring is its last M of them.

    It keeps whole observations. Of a history of h parts the ring keeps one, so that the h-1 oldest
    slots cannot be read any more.
    """

    def __init__(self, capacity, span, history=1):
        self.capacity, self.span, self.past = capacity, span, history - 1
        self.slots = []  # (episode, observation, action, reward, terminated), action None if final
        self.episode, self.ended_by = 0, {}
        self.provisional = None
        self.priority, self.max_priority = {}, np.float32(1)

    def insert(self, observation, action, reward, terminated, truncated, next_observation):
        self.slots.append((self.episode, observation, action, reward, bool(terminated)))
        self.provisional = next_observation
        if terminated or truncated:
            self.slots.append((self.episode, next_observation, None, np.float32(0), False))
            self.ended_by[self.episode] = "termination" if terminated else "truncation"
            self.episode += 1
            self.provisional = None
        for position in self.sampleable():
            self.priority.setdefault(position, self.max_priority)

    def first(self):
        """Tape position of the ring's oldest slot; negative as long as it is not full."""
        return len(self.slots) + (self.provisional is not None) - self.capacity

    def alive(self):
        """Tape positions of the slots still in the ring, the provisional one not included."""
        return range(max(0, self.first()), len(self.slots))

    def sampleable(self):
        readable = range(max(0, self.first() + self.past), len(self.slots))
        return [p for p in readable if self._sampleable(p)]

    def _sampleable(self, position):
        episode, _, action, _, _ = self.slots[position]
        if action is None:
            return False
        if self.ended_by.get(episode) == "termination":
            return True
        window = self.slots[position : position + self.span]
        return len(window) == self.span and all(
            s[0] == episode and s[2] is not None for s in window
        )

    def set_priorities(self, indices, priorities):
        positions = {p % self.capacity: p for p in self.sampleable()}
        best = {}
        for index, priority in zip(indices, priorities, strict=True):
            if index in positions and 1e-30 <= priority <= 1e30:
                best[index] = max(best.get(index, 0), priority)
        for index, priority in best.items():
            self.priority[positions[index]] = priority
            self.max_priority = max(self.max_priority, priority)

    def observation(self, position):
        return self.provisional if position == len(self.slots) else self.slots[position][1]

    def steps(self, position, length):
        """The window's transitions up to its end, and the observations around them."""
        window = []
        for slot in self.slots[position : position + length]:
            window.append(slot)
            if slot[4]:
                break
        observations = [self.observation(position + k) for k in range(len(window) + 1)]
        return window, observations


@jax.jit
def read(buffer):
    """Every slot as a start, for every length the span allows."""
    every = jnp.arange(buffer.reward.shape[1])

    def one(view):
        lengths = {1, min(3, view.layout.span), view.layout.span}
        return (
            {n: view.subtrajectory(every, n) for n in lengths},
            {n: view.transition(every, n) for n in lengths},
            view.mean_absolute_reward(),
        )

    return jax.vmap(one)(replay.view(buffer))


insert = jax.jit(replay.insert, donate_argnums=0)
set_priorities = jax.jit(replay.set_priorities, donate_argnums=0)


def give_priorities(tapes, indices, priorities):
    """Slots of a seed are numbered ring after ring; the running maximum is the seed's."""
    for number, tape in enumerate(tapes):
        own = indices // tape.capacity == number
        tape.set_priorities(indices[own] % tape.capacity, priorities[own])
    largest = max(tape.max_priority for tape in tapes)
    for tape in tapes:
        tape.max_priority = largest


def check_scalars_and_leaves(buffer, tapes):
    buffer = jax.device_get(buffer)
    for seed, own in enumerate(tapes):
        leaves = np.zeros(buffer.tree[0].shape[1], np.float32)
        for number, tape in enumerate(own):
            for position in tape.sampleable():
                slot = number * tape.capacity + position % tape.capacity
                leaves[slot] = tape.priority[position]
            assert buffer.cursor[seed, number] == len(tape.slots) % tape.capacity
            assert buffer.filled[seed, number] == len(tape.alive())
            assert buffer.max_priority[seed] == tape.max_priority
        np.testing.assert_array_equal(buffer.tree[0][seed], leaves)
        seen = any(slot[4] for tape in own for slot in tape.slots)
        assert buffer.terminal_seen[seed] == seen


def check_contents(buffer, tapes):
    subtrajectories, transitions, mean = jax.device_get(read(buffer))
    for sample in (*subtrajectories.values(), *transitions.values()):
        assert sample.observation.dtype == buffer.layout.observation.dtype
        assert sample.action.dtype == buffer.layout.action.dtype
    for seed, own in enumerate(tapes):
        rewards = [abs(float(tape.slots[p][3])) for tape in own for p in tape.alive()]
        np.testing.assert_allclose(mean[seed], np.mean(rewards), rtol=1e-6)
        starts = [(number, tape, p) for number, tape in enumerate(own) for p in tape.sampleable()]
        for number, tape, position in starts:
            at = (seed, number * tape.capacity + position % tape.capacity)
            for length, sample in subtrajectories.items():
                window, observations = tape.steps(position, length)
                k = len(window)
                np.testing.assert_array_equal(sample.observation[at][: k + 1], observations)
                np.testing.assert_array_equal(sample.action[at][:k], [s[2] for s in window])
                np.testing.assert_array_equal(sample.reward[at][:k], [s[3] for s in window])
                np.testing.assert_array_equal(sample.terminated[at][:k], [s[4] for s in window])
            for n, sample in transitions.items():
                window, observations = tape.steps(position, n)
                k = len(window)
                np.testing.assert_array_equal(sample.observation[at], observations[0])
                np.testing.assert_array_equal(sample.action[at], window[0][2])
                np.testing.assert_array_equal(sample.reward[at][:k], [s[3] for s in window])
                np.testing.assert_array_equal(sample.terminated[at][:k], [s[4] for s in window])
                if not window[-1][4] or k == n:
                    np.testing.assert_array_equal(sample.next_observation[at], observations[n])


VECTORS = Observation((3,)), Continuous(2)


def play(ring, span, flags, rng, check_every=1, environments=1, spaces=VECTORS, row="float32"):
    """Inserts random transitions with the given episode ends, and priorities, into both.

    `flags` has a pair of [SEEDS * environments] for each step; `ring` is the slots of each ring.
    Of what terminates, one half goes on as a game does after a lost life.
    """
    sizes = {"seeds": SEEDS, "environments": environments, "row_dtype": row}
    layout = replay.Layout(*spaces, span, environments * ring, **sizes)
    buffer = replay.create(layout)
    space, history = layout.observation, layout.history
    tapes = [[Tape(ring, span, history) for _ in range(environments)] for _ in range(SEEDS)]
    rows = SEEDS * environments

    def picture():
        """What an environment sees at one moment, after nothing else."""
        if space.dtype == "uint8":
            return space.fresh(rng.integers(0, 256, (rows, *space.shape)).astype(np.uint8))
        return space.fresh(rng.normal(size=(rows, *space.shape)).astype(row).astype(np.float32))

    def taken():
        if isinstance(layout.action, Discrete):
            return rng.integers(0, layout.action.count, rows).astype(np.int32)
        return rng.normal(size=(rows, *layout.action.shape)).astype(row).astype(np.float32)

    observation = picture()
    for t, (terminated, truncated) in enumerate(flags):
        newest = space.newest(picture())
        following = np.concatenate([observation[..., newest.shape[-1] :], newest], axis=-1)
        reward = rng.normal(size=rows).astype(np.float32)
        transition = (observation, taken(), reward, terminated, truncated, following)
        buffer = insert(buffer, *transition)
        for row_number, tape in enumerate(tape for own in tapes for tape in own):
            tape.insert(*(array[row_number] for array in transition))
        indices = rng.integers(0, environments * ring, (SEEDS, 4)).astype(np.int32)
        priorities = rng.lognormal(sigma=2, size=(SEEDS, 4)).astype(np.float32)
        priorities[rng.random((SEEDS, 4)) < 0.1] = rng.choice([np.nan, np.inf, -1.0, 0.0])
        if t % 3 == 0:
            buffer = set_priorities(buffer, indices, priorities)
            for seed, own in enumerate(tapes):
                give_priorities(own, indices[seed], priorities[seed])
        check_scalars_and_leaves(buffer, tapes)
        if t % check_every == 0 or t == len(flags) - 1:
            check_contents(buffer, tapes)
        ended = np.asarray(terminated) | np.asarray(truncated)
        life_lost = np.asarray(terminated) & (rng.random(rows) < 0.5)
        where = lambda mask, x, y: np.where(np.expand_dims(mask, (*range(1, x.ndim),)), x, y)  # noqa: E731
        begun = where(life_lost, space.fresh(following), picture())
        observation = where(ended, begun, following)
    return buffer, tapes
