"""Brax's manner turned into ours, on a simulation that can be computed by hand; lazy restarts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from mst_jax.envs.base import vector_spec
from mst_jax.envs.device.episodic import episodic
from mst_jax.envs.device.physics import simulation_of
from mst_jax.envs.suites import probe


@struct.dataclass
class State:
    obs: jax.Array
    reward: jax.Array
    done: jax.Array
    metrics: dict


class Counter:
    """Counts up by the action from a random start in [0, 1); done above 5, reward = count."""

    def reset(self, key):
        zero = jnp.zeros(())
        return State(jax.random.uniform(key, (1,)), zero, zero, {"steps": zero})

    def step(self, state, action):
        count = state.obs + action
        state.metrics.update(steps=state.metrics["steps"] + 1)  # brax writes into its input
        return state.replace(obs=count, reward=count[0], done=jnp.where(count[0] > 5, 1.0, 0.0))


class Flat(Counter):
    """A reward and a flag that are plain numbers, as in some of brax's."""

    def step(self, state, action):
        return super().step(state, action).replace(reward=1, done=0.0)


def start_at(count):
    return State(jnp.array([count]), jnp.zeros(()), jnp.zeros(()), {"steps": jnp.zeros(())})


@pytest.mark.parametrize(
    ("repeat", "steps", "reward", "count", "terminated"),
    [
        (1, 1, 1.5, 1.5, False),
        (3, 3, 1.5 + 2.5 + 3.5, 3.5, False),
        (5, 5, 1.5 + 2.5 + 3.5 + 4.5 + 5.5, 5.5, True),
        (8, 5, 1.5 + 2.5 + 3.5 + 4.5 + 5.5, 5.5, True),  # nothing happens after the end
    ],
)
def test_an_action_repeat_sums_rewards_and_stops_at_the_end(
    repeat, steps, reward, count, terminated
):
    advance = simulation_of(Counter(), repeat).advance
    world, total, ended = jax.jit(advance)(start_at(0.5), jnp.ones(1))
    assert (float(total), bool(ended)) == (reward, terminated)
    assert float(world.obs[0]) == count
    assert float(world.metrics["steps"]) == steps


def test_the_given_state_is_not_written_into():
    state = start_at(0.5)
    simulation_of(Counter(), 1).advance(state, jnp.ones(1))
    assert float(state.metrics["steps"]) == 0


def test_plain_numbers_become_arrays_of_the_states_types():
    world, reward, terminated = simulation_of(Flat(), 2).advance(start_at(0.5), jnp.ones(1))
    assert (reward.dtype, terminated.dtype) == (jnp.float32, jnp.bool_)
    assert (world.reward.dtype, world.done.dtype) == (jnp.float32, jnp.float32)
    assert float(reward) == 2


def rollout(env, keys, steps):
    def one(key):
        state, first = env.reset(key)
        actions = jax.random.uniform(jax.random.fold_in(key, 9), (steps, 1), maxval=1.6)
        return first, jax.lax.scan(env.step, state, actions)

    return jax.jit(jax.vmap(one))(keys)


@pytest.mark.parametrize("seeds", [1, 4])
def test_lazy_restarts_change_nothing(seeds):
    simulation, spec = simulation_of(Counter(), 1), vector_spec("fake:counter", 1, 1, 7, 1)
    keys = jax.random.split(jax.random.key(3), seeds)
    eager, lazy = (rollout(episodic(spec, simulation, lazy=z), keys, 80) for z in (False, True))
    timesteps = lazy[1][1]
    assert timesteps.terminated.any()
    assert timesteps.truncated.any()
    jax.tree.map(np.testing.assert_array_equal, key_data(eager), key_data(lazy))


def key_data(tree):
    typed = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)  # noqa: E731
    return jax.tree.map(lambda x: np.asarray(jax.random.key_data(x) if typed(x) else x), tree)


def test_a_lazy_start_is_drawn_only_in_steps_where_an_episode_ends():
    drawn = []

    class Watched(Counter):
        def reset(self, key):
            jax.debug.callback(lambda: drawn.append(1))
            return super().reset(key)

    env = episodic(vector_spec("fake:counter", 1, 1, 7, 1), simulation_of(Watched(), 1), lazy=True)
    states, _ = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 3))
    step = jax.jit(jax.vmap(env.step))
    ends = 0
    for number in range(30):
        drawn.clear()
        states, timestep = step(states, jnp.array([[0.1], [1.4], [0.9]]) * (number % 3))
        jax.effects_barrier()
        ended = bool((timestep.terminated | timestep.truncated).any())
        assert bool(drawn) == ended
        ends += ended
    assert 0 < ends < 30


def test_probes_restart_by_select():
    env = probe.make("point")
    state, _ = env.reset(jax.random.key(0))
    assert "while[" not in str(jax.make_jaxpr(env.step)(state, jnp.zeros(2)))
