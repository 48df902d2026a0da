"""The ring against the reference program's buffer, insert by insert (tests/data/mrq_steps.npz)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from mst_jax import replay
from mst_jax.envs import Continuous, Observation

RECORDED = np.load(Path(__file__).parents[1] / "data" / "mrq_steps.npz")


def test_what_may_be_sampled_equals_the_reference_until_the_ring_wraps():
    """Right after an end the slot of the final observation counts here, there from the next insert.

    Once the ring is full the two differ by design: here the next observation is stored at once.
    """
    capacity = int(RECORDED["buffer/capacity"])
    reward, terminated, truncated, filled, sampleable, mean = (
        RECORDED[f"buffer/{name}"]
        for name in (
            *("reward", "terminated", "truncated", "filled", "sampleable"),
            "mean_absolute_reward",
        )
    )
    horizon = next(v for k, v in RECORDED.items() if k.endswith("encoder_batch_1/reward")).shape[1]
    buffer = replay.create(
        replay.Layout(Observation((1,)), Continuous(1), span=horizon + 1, capacity=capacity)
    )
    insert = jax.jit(replay.insert)
    compared = 0
    for step in range(len(reward)):
        row = (jnp.full((1, 1), float(step)), jnp.zeros((1, 1)))
        flags = [jnp.asarray(x[step : step + 1]) for x in (reward, terminated, truncated)]
        buffer = insert(buffer, *row, *flags, jnp.full((1, 1), step + 1.0))
        if filled[step] + 1 >= capacity:
            break
        view = jax.tree.map(lambda leaf: leaf[0], replay.view(buffer))
        ended = bool(terminated[step] or truncated[step])
        np.testing.assert_array_equal(np.asarray(view.tree[0]) > 0, sampleable[step])
        assert view.filled == filled[step] + ended
        if not ended:
            np.testing.assert_allclose(view.mean_absolute_reward(), mean[step], 1e-6, 1e-7)
        compared += 1
    assert compared > capacity // 2
    assert terminated[:compared].any()
    assert truncated[:compared].any()
