"""Simulations written in brax's manner (brax itself, MuJoCo Playground) as `Simulation`s.

In that manner `reset(key)` and `step(state, action)` return a dataclass with `obs`, `reward`,
`done` and whatever else the simulation needs.
"""

from typing import Any, Protocol

import jax
import jax.numpy as jnp

from mst_jax.envs.base import JaxEnv, vector_spec
from mst_jax.envs.device.episodic import Simulation, episodic
from mst_jax.envs.quiet import quiet


class Physics(Protocol):
    """What brax and Playground call an environment: neither time limit nor restarts.

    Attributes:
        action_size: A; every component lies in [-1, 1].
    """

    action_size: int

    def reset(self, key: jax.Array) -> Any:
        """Draws a start state."""

    def step(self, state: Any, action: jax.Array) -> Any:
        """Takes one control step; it may write into dictionaries of `state`."""


def make_episodic(
    task: str, physics: Physics, action_repeat: int | None, episode_length: int
) -> JaxEnv:
    """Cuts physics into episodes.

    Args:
        task: full task name.
        physics: the environment, free of wrappers.
        action_repeat: control steps per agent step; None means 1.
        episode_length: time limit in control steps.

    Raises:
        ValueError: if the action repeat does not divide the time limit.
    """
    repeat = action_repeat or 1
    if episode_length % repeat:
        raise ValueError(f"action_repeat must divide the time limit {episode_length}; got {repeat}")
    simulation = simulation_of(physics, repeat)
    (size,) = jax.eval_shape(simulation.start, jax.random.key(0)).obs.shape
    spec = vector_spec(task, size, physics.action_size, episode_length // repeat, repeat)
    return episodic(spec, simulation, lazy=True)


def simulation_of(physics: Physics, action_repeat: int) -> Simulation:
    """Turns brax's manner into ours; the world is the library's own state.

    An action repeat sums rewards and stops at a terminal state.

    Args:
        physics: the environment, free of wrappers.
        action_repeat: control steps per agent step.
    """

    def start(key: jax.Array) -> Any:
        with quiet():
            return physics.reset(key)

    def once(world: Any, action: jax.Array) -> tuple[Any, jax.Array, jax.Array]:
        copied = jax.tree.map(lambda leaf: leaf, world)  # `step` writes into its dictionaries
        with quiet():
            following = physics.step(copied, action)
        world = jax.tree.map(_as_before, following, world)
        return world, jnp.asarray(world.reward, jnp.float32), world.done > 0.5

    def repeated(world: Any, action: jax.Array) -> tuple[Any, jax.Array, jax.Array]:
        def again(carry: tuple, _: None) -> tuple[tuple, None]:
            world, total, terminated = carry
            following, reward, ends = once(world, action)
            kept = lambda new, old: jnp.where(terminated, old, new)  # noqa: E731
            world = jax.tree.map(kept, following, world)
            return (world, kept(total + reward, total), terminated | ends), None

        carry = (world, jnp.zeros(()), jnp.zeros((), bool))
        return jax.lax.scan(again, carry, length=action_repeat)[0]

    advance = once if action_repeat == 1 else repeated
    return Simulation(start, lambda world: world.obs, advance)


def _as_before(new: Any, old: jax.Array) -> jax.Array:
    """Some rewards and flags are plain numbers, but a loop's state must keep its types."""
    return new if getattr(new, "dtype", None) == old.dtype else jnp.asarray(new, old.dtype)
