"""RLx2's dynamic-capacity buffer: between chunks, what the policy has moved away from is let go."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from mst_jax import replay
from mst_jax.agents import Agent, Clock
from mst_jax.program.cache import kept
from mst_jax.program.sharding import LOOP, over_devices, seed_mesh, seeds_per_device
from mst_jax.program.state import LoopState, Purpose, keys_for, over_seeds

SAMPLES = 2048  # of the oldest: eight batches, as published


def policy_distance(
    agent: Agent,
    state: Any,
    observation: jax.Array,
    action: jax.Array,
    key: jax.Array,
    clock: Clock,
) -> jax.Array:
    """How far the policy has moved from what it did: half a mean square, less its own spread.

    Stored are actions as they were drawn, so the mean square of the policy's mode against them has
    the exploration of then in it. That of now, by one draw for each observation, is taken off.

    Args:
        agent: one-seed functions.
        state: of the seed.
        observation: (B, *O).
        action: (B, *A), taken there.
        key: one typed key.
        clock: of the run.

    Returns:
        float32 scalar, not negative.
    """
    keys = jax.random.split(key, len(observation))
    modes = jax.vmap(lambda o: agent.act(state, o, None, None))(observation)
    drawn = jax.vmap(lambda o, k: agent.act(state, o, k, clock))(observation, keys)
    spread = jnp.mean(jnp.square(drawn - modes))
    return jnp.maximum(jnp.mean(jnp.square(modes - action)) - spread, 0.0) / 2.0


@kept
def make_review(agent: Agent, num_seeds: int) -> Callable[[LoopState], LoopState]:
    """Lets go of the oldest tenth of a seed's replay where its policy has moved away; jitted.

    Args:
        agent: one-seed functions, whose memory has a review.
        num_seeds: S.

    Returns:
        Loop -> loop; the argument is donated.
    """
    memory = agent.memory
    assert memory is not None
    assert memory.review is not None
    review, mesh = memory.review, seed_mesh(num_seeds)
    count = seeds_per_device(num_seeds, mesh)

    def distance(
        state: Any, view: replay.View, slots: jax.Array, key: jax.Array, clock: Clock
    ) -> jax.Array:
        seen = view.transition(slots, 1)
        return policy_distance(agent, state, seen.observation, seen.action, key, clock)

    def of_run(loop: LoopState) -> LoopState:
        assert loop.buffer is not None
        slots, total = replay.oldest(loop.buffer, SAMPLES)
        keys = keys_for(loop.keys, Purpose.REVIEW, loop.clock.step)
        measure = over_seeds(distance, count, (0, 0, 0, 0, None))
        distances = measure(loop.agent, replay.view(loop.buffer), slots, keys, loop.clock)
        due = (distances > review.distance) & (total > review.fewest)
        return replace(loop, buffer=replay.without_oldest(loop.buffer, due))

    return jax.jit(over_devices(of_run, mesh, (LOOP,), LOOP), donate_argnums=0)
