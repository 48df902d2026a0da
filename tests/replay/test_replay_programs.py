"""The buffer inside compiled programs: seeds independent, nothing copied, nothing communicated."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mst_jax import replay
from mst_jax.envs import Continuous, Observation

SEEDS, OBSERVATION, ACTION, BATCH = 3, 5, 2, 16


VECTORS = Observation((OBSERVATION,)), Continuous(ACTION)
PICTURES = Observation((4, 4, 6), "uint8", history=3), Continuous(ACTION)


def create(num_seeds=SEEDS, capacity=50, environments=1, spaces=VECTORS):
    return replay.create(replay.Layout(*spaces, 6, capacity, num_seeds, environments))


def transitions(steps, num_seeds=SEEDS):
    rng = np.random.default_rng(0)
    return (
        rng.normal(size=(steps, num_seeds, OBSERVATION)).astype(np.float32),
        rng.normal(size=(steps, num_seeds, ACTION)).astype(np.float32),
        rng.normal(size=(steps, num_seeds)).astype(np.float32),
        rng.random((steps, num_seeds)) < 0.05,
        rng.random((steps, num_seeds)) < 0.05,
        rng.normal(size=(steps, num_seeds, OBSERVATION)).astype(np.float32),
    )


def step(buffer, transition, keys, due):
    """A fused step as the trainer's: insert, learn (a burst under a conditional), priorities."""
    buffer = replay.insert(buffer, *transition)

    def learn(view, key):
        def burst():
            def body(carry, key):
                sample = view.subtrajectory(view.sample(key, BATCH), 5)
                return carry + sample.observation.sum() + sample.reward.sum(), None

            return jax.lax.scan(body, jnp.float32(0), jax.random.split(key, 3))[0]

        extra = jax.lax.cond(due, burst, lambda: jnp.float32(0))
        indices = view.sample(key, BATCH)
        sample = view.transition(indices, 3)
        return indices, 1 + jnp.abs(sample.reward.sum(-1)) + 0 * extra

    indices, priorities = jax.vmap(learn)(replay.view(buffer), keys)
    return replay.set_priorities(buffer, indices, priorities), indices


def play(buffer, data, keys):
    """Runs `step` over data [T, S, ...]; keys [S]. Returns the buffer and indices [T, S, B]."""
    steps = len(data[0])
    every = jax.vmap(lambda t: jax.vmap(lambda key: jax.random.fold_in(key, t))(keys))(
        jnp.arange(steps)
    )

    def body(buffer, inputs):
        transition, keys, t = inputs
        return step(buffer, transition, keys, t % 10 == 0)

    return jax.lax.scan(body, buffer, (data, every, jnp.arange(steps)))


def test_a_seed_alone_equals_the_seed_among_others_bit_for_bit():
    data, keys = transitions(200), jax.random.split(jax.random.key(0), SEEDS)
    together, indices = jax.jit(play)(create(), data, keys)
    alone = jax.jit(play)
    for i in range(SEEDS):
        own = tuple(array[:, i : i + 1] for array in data)
        buffer, own_indices = alone(create(num_seeds=1), own, keys[i : i + 1])
        np.testing.assert_array_equal(own_indices[:, 0], indices[:, i])
        jax.tree.map(lambda a, b, i=i: np.testing.assert_array_equal(a[0], b[i]), buffer, together)
    assert not np.array_equal(indices[:, 0], indices[:, 1])


def compiled(function, capacity, environments, spaces):
    sizes = {"capacity": capacity, "environments": environments, "spaces": spaces}
    buffer = jax.eval_shape(lambda: create(**sizes))
    transition = [array[0] for array in transitions(1, SEEDS * environments)]
    shown = spaces[0]
    for i in (0, -1):
        transition[i] = np.zeros((SEEDS * environments, *shown.shape), shown.dtype)
    if function is step:
        arguments = (transition, jax.random.split(jax.random.key(0), SEEDS), True)
    else:
        arguments = transition
    return jax.jit(function, donate_argnums=0).lower(buffer, *arguments).compile()


@pytest.mark.parametrize(
    ("function", "environments", "spaces"),
    [
        *((replay.insert, 1, VECTORS), (step, 1, VECTORS), (step, 4, VECTORS)),
        *((replay.insert, 4, PICTURES), (step, 1, PICTURES)),
    ],
)
def test_a_donated_buffer_is_updated_in_place(function, environments, spaces):
    """Aliased whole; scratch memory does not depend on the capacity, so nothing is copied."""
    scratch = []
    for capacity in (2**13, 2**16):  # as many tree levels
        memory = compiled(function, capacity, environments, spaces).memory_analysis()
        shape = jax.eval_shape(lambda size=capacity: create(capacity=size, spaces=spaces))
        bytes_ = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shape))
        assert memory.alias_size_in_bytes >= bytes_
        scratch.append(memory.temp_size_in_bytes)
    assert abs(scratch[1] - scratch[0]) < 2**13, scratch


def test_donation_consumes_the_old_buffer():
    insert = jax.jit(replay.insert, donate_argnums=0)
    buffer = create()
    insert(buffer, *(array[0] for array in transitions(1)))
    assert buffer.reward.is_deleted()


def test_the_conditional_stays_and_its_predicate_has_no_seed_axis():
    keys = jax.random.split(jax.random.key(0), SEEDS)
    transition = tuple(array[0] for array in transitions(1))
    jaxpr = jax.make_jaxpr(step)(create(), transition, keys, True)
    conditionals = [e for e in jaxpr.jaxpr.eqns if e.primitive.name == "cond"]
    assert [e.invars[0].aval.shape for e in conditionals] == [()]
    largest = max(v.aval.size for e in conditionals for v in e.outvars)
    assert largest <= SEEDS, "the buffer must never come out of a conditional"


SHARDED = """
    import jax, re
    import numpy as np
    from jax.sharding import AxisType, NamedSharding, PartitionSpec
    from mst_jax import replay
    from test_replay_programs import create, step, transitions

    assert jax.device_count() == 4
    mesh = jax.make_mesh((4,), ("seed",), axis_types=(AxisType.Auto,))
    seed = NamedSharding(mesh, PartitionSpec("seed"))
    inputs = create(num_seeds=8), tuple(x[0] for x in transitions(1, 8))
    keys = jax.random.split(jax.random.key(0), 8)
    buffer, transition, sharded_keys = jax.device_put((*inputs, keys), seed)
    run = jax.jit(step, static_argnums=3)
    text = run.lower(buffer, transition, sharded_keys, True).compile().as_text()
    found = re.findall(r"all-(?:gather|reduce|to-all)|collective-permute|reduce-scatter", text)
    assert not found, found
    sharded, alone = run(buffer, transition, sharded_keys, True), run(*inputs, keys, True)
    for a, b in zip(jax.tree.leaves(sharded), jax.tree.leaves(alone)):
        np.testing.assert_array_equal(a, b)
        assert a.sharding.is_equivalent_to(seed, a.ndim)
    restored = replay.unpack(replay.pack(buffer), like=buffer)
    for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(buffer)):
        np.testing.assert_array_equal(a, b)
        assert a.sharding.is_equivalent_to(seed, a.ndim)
"""


@pytest.mark.slow
def test_sharded_seeds_need_no_communication():
    """Four virtual devices must be asked for before jax starts, hence a process of its own."""
    here = str(Path(__file__).parent)
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": here,
    }
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SHARDED)], env=environment, check=True, timeout=300
    )
