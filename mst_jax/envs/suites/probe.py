"""Probe environments: pure JAX, tiny, with values known exactly, to prove that an agent learns.

Each `KnownTask` isolates one thing that a learner can get wrong: terminal states, bootstrapping at
a time limit, credit over time, the gradient of the policy, and the use of the observation.
`KnownTask.value(observation, discount)` is the value of the *optimal* policy (which matters in
`action_reward`, `matching_reward`, `picture_motion` and `catch` alone: elsewhere every policy has
that value).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mst_jax.envs.base import JaxEnv, Spec, vector_spec
from mst_jax.envs.device.episodic import Simulation, episodic
from mst_jax.envs.spaces import Continuous, Discrete, Observation

BEST_ACTION = 0.5  # optimal in `action_reward`


class KnownTask(NamedTuple):
    """An environment and its exact values.

    Attributes:
        env: the environment.
        value: `value(observation[..., O], discount) -> [...]`, the optimal discounted sum of the
            rewards to come (works on NumPy and jax arrays), or None where it has no closed form.
    """

    env: JaxEnv
    value: Callable[[jax.Array, float], jax.Array] | None


def constant_reward(length: int = 10) -> KnownTask:
    """Reward 1 for `length` steps, then a terminal state. Observation: share of steps left.

    With n steps left the value is 1 + g + ... + g^(n-1) = (1 - g^n) / (1 - g).
    """
    simulation = Simulation(
        start=lambda key: jnp.full((), length, jnp.int32),
        observe=lambda left: jnp.array([left / length], jnp.float32),
        advance=lambda left, action: (left - 1, jnp.ones(()), left <= 1),
    )
    return KnownTask(
        episodic(vector_spec("probe:constant_reward", 1, 1, length, 1), simulation),
        lambda observation, g: (1 - g ** (observation[..., 0] * length)) / (1 - g),
    )


def constant_reward_truncated(length: int = 20) -> KnownTask:
    """Reward 1 for ever, cut by a time limit after `length` steps. Observation: always 1.

    The value is 1 / (1 - g): who takes the time limit for an end learns less.
    """
    simulation = Simulation(
        start=lambda key: jnp.ones(()),
        observe=lambda world: world[None],
        advance=lambda world, action: (world, jnp.ones(()), jnp.zeros((), bool)),
    )
    return KnownTask(
        episodic(vector_spec("probe:constant_reward_truncated", 1, 1, length, 1), simulation),
        lambda observation, g: observation[..., 0] / (1 - g),
    )


def delayed_reward(delay: int = 2) -> KnownTask:
    """A cue, +1 or -1, seen at the start is paid `delay` steps later, and the episode terminates.

    Observation: the cue and the share of the delay still to wait, w. With d steps to wait before
    the paying one the value is cue * g^d.
    """

    def start(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        return _sign(key), jnp.full((), delay, jnp.int32)

    def advance(
        world: tuple[jax.Array, jax.Array], action: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array, jax.Array]:
        cue, wait = world
        pays = wait <= 0
        return (cue, wait - 1), jnp.where(pays, cue, 0.0), pays

    def observe(world: tuple[jax.Array, jax.Array]) -> jax.Array:
        cue, wait = world
        return jnp.stack([cue, wait / delay])

    return KnownTask(
        episodic(
            vector_spec("probe:delayed_reward", 2, 1, delay + 1, 1),
            Simulation(start, observe, advance),
        ),
        lambda observation, g: observation[..., 0] * g ** (observation[..., 1] * delay),
    )


def action_reward(length: int = 20) -> KnownTask:
    """Reward 1 - (a - 0.5)^2, cut after `length` steps. Observation: always 1.

    The best action is 0.5 (`BEST_ACTION`), and with it the value is 1 / (1 - g).
    """
    simulation = Simulation(
        start=lambda key: jnp.ones(()),
        observe=lambda world: world[None],
        advance=lambda world, action: (
            world,
            1 - (action[0] - BEST_ACTION) ** 2,
            jnp.zeros((), bool),
        ),
    )
    return KnownTask(
        episodic(vector_spec("probe:action_reward", 1, 1, length, 1), simulation),
        lambda observation, g: observation[..., 0] / (1 - g),
    )


def observation_reward(length: int = 20) -> KnownTask:
    """Reward = observation x, which changes sign at every step; cut after `length` steps.

    The first sign is drawn at random. The value is x - g x + g^2 x - ... = x / (1 + g).
    """
    simulation = Simulation(
        start=_sign,
        observe=lambda sign: sign[None],
        advance=lambda sign, action: (-sign, sign, jnp.zeros((), bool)),
    )
    return KnownTask(
        episodic(vector_spec("probe:observation_reward", 1, 1, length, 1), simulation),
        lambda observation, g: observation[..., 0] / (1 + g),
    )


def matching_reward(length: int = 20) -> KnownTask:
    """Reward 1 - (a - x / 2)^2 for an observation x, +1 or -1, that changes sign at every step.

    The best action is half the observation, and with it the value is 1 / (1 - g).
    """
    simulation = Simulation(
        start=_sign,
        observe=lambda sign: sign[None],
        advance=lambda sign, action: (
            -sign,
            1 - (action[0] - sign / 2) ** 2,
            jnp.zeros((), bool),
        ),
    )
    return KnownTask(
        episodic(vector_spec("probe:matching_reward", 1, 1, length, 1), simulation),
        lambda observation, g: observation[..., 0] ** 2 / (1 - g),
    )


def point(length: int = 100) -> KnownTask:
    """A damped point mass in the plane, to be driven to the origin from a random place.

    Observation: position [2] and velocity [2]; action: force [2]. Reward 1 - |position| / 2, cut
    after `length` steps; leaving the square of half-width 1.5 terminates.
    """
    time_step, damping, force, half_width = 0.1, 1.0, 2.0, 1.5

    def start(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0), jnp.zeros(2)

    def advance(
        world: tuple[jax.Array, jax.Array], action: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array, jax.Array]:
        position, velocity = world
        velocity = velocity + time_step * (force * action - damping * velocity)
        position = position + time_step * velocity
        reward = 1 - jnp.sqrt(jnp.sum(position**2)) / 2
        return (position, velocity), reward, jnp.any(jnp.abs(position) > half_width)

    simulation = Simulation(start, jnp.concatenate, advance)
    return KnownTask(episodic(vector_spec("probe:point", 4, 2, length, 1), simulation), None)


def picture_motion(length: int = 20, size: int = 12) -> KnownTask:
    """Reward 1 - (a - x / 2)^2 for the direction x, +1 or -1, in which a bar moves in a picture.

    Observation: the last two pictures, uint8 [size, size, 2]. The bar, two pixels wide, moves by
    two pixels a step and comes back on the other side; its direction is drawn for an episode, which
    is cut after `length` steps. One picture does not show the direction, nor do the two of an
    episode's start, which are the same: there the best action is 0, with a reward of 0.75 on the
    average. The value is 1 / (1 - g), and 0.25 less at a start.
    """

    def start(key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        direction, place = jax.random.split(key)
        left = 2 * jax.random.randint(place, (), 0, size // 2)
        return left, left, _sign(direction)

    def advance(
        world: tuple[jax.Array, jax.Array, jax.Array], action: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array, jax.Array], jax.Array, jax.Array]:
        _, left, direction = world
        moved = (left + 2 * direction.astype(left.dtype)) % size
        reward = 1 - (action[0] - direction / 2) ** 2
        return (left, moved, direction), reward, jnp.zeros((), bool)

    def observe(world: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        columns = jnp.arange(size)[None, :, None]
        bright = columns // 2 == jnp.stack(world[:2]) // 2
        return jnp.broadcast_to(jnp.where(bright, 255, 0), (size, size, 2)).astype(jnp.uint8)

    def value(observation: jax.Array, g: float) -> jax.Array:
        start = (observation[..., 0] == observation[..., 1]).all(axis=(-2, -1))
        return 1 / (1 - g) - 0.25 * start

    shown = Observation((size, size, 2), "uint8", history=2)
    spec = Spec("probe:picture_motion", shown, Continuous(1), length, 1)
    return KnownTask(episodic(spec, Simulation(start, observe, advance)), value)


def catch(rows: int = 10, columns: int = 5) -> KnownTask:
    """A ball falls through a picture, straight down, and a paddle at the bottom is to catch it.

    As in bsuite (Osband et al. 2020): the ball starts in a column drawn for the episode, the paddle
    in the middle. Each step moves the paddle by action - 1 columns (left, stay, right) and then the
    ball by one row. When it is at the bottom the episode terminates, with reward 1 if the paddle is
    there and -1 if not; every other reward is 0.

    Observation: uint8 [rows, columns, 1], 255 for ball and paddle and 0 elsewhere. With d steps to
    fall the value is g^(d-1) where the paddle can get there in time, and -g^(d-1) where not.
    """

    def start(key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        column = jax.random.randint(key, (), 0, columns)
        return jnp.zeros((), jnp.int32), column, jnp.full((), columns // 2, jnp.int32)

    def advance(
        world: tuple[jax.Array, jax.Array, jax.Array], action: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array, jax.Array], jax.Array, jax.Array]:
        row, column, paddle = world
        paddle = jnp.clip(paddle + action - 1, 0, columns - 1)
        row = row + 1
        fallen = row >= rows - 1
        paid = jnp.where(paddle == column, 1.0, -1.0)
        return (row, column, paddle), jnp.where(fallen, paid, 0.0), fallen

    def observe(world: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        row, column, paddle = world
        picture = jnp.zeros((rows, columns, 1), jnp.uint8)
        return picture.at[row, column].set(255).at[rows - 1, paddle].set(255)

    def value(observation: jax.Array, g: float) -> jax.Array:
        bright = observation[..., 0] > 0
        ball, paddle = bright[..., :-1, :], bright[..., -1, :].argmax(axis=-1)
        steps = rows - 1 - ball.any(axis=-1).argmax(axis=-1)
        away = abs(ball.any(axis=-2).argmax(axis=-1) - paddle)
        return (1 - 2.0 * (away > steps)) * g ** (steps - 1)

    shown = Observation((rows, columns, 1), "uint8")
    spec = Spec("probe:catch", shown, Discrete(3), rows - 1, 1, ends_early=False)
    return KnownTask(episodic(spec, Simulation(start, observe, advance)), value)


PROBES: dict[str, Callable[..., KnownTask]] = {
    probe.__name__: probe
    for probe in (
        constant_reward,
        constant_reward_truncated,
        delayed_reward,
        action_reward,
        observation_reward,
        matching_reward,
        point,
        picture_motion,
        catch,
    )
}


def tasks() -> list[str]:
    """Lists the probes."""
    return list(PROBES)


def make(name: str, action_repeat: int | None = None) -> JaxEnv:
    """Makes a probe with its default length; call the functions above for other lengths.

    Raises:
        ValueError: if the action repeat is not 1: the values hold for single steps.
    """
    if action_repeat not in (None, 1):
        raise ValueError(f"probe environments have action repeat 1; got {action_repeat}")
    return PROBES[name]().env


def _sign(key: jax.Array) -> jax.Array:
    """+1 or -1, float32."""
    return jax.random.rademacher(key, (), jnp.float32)
