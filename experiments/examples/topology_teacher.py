"""Can sparse training find a sparse teacher? Static, SET and RigL on a problem with a known answer.

A linear teacher uses one in ten of its weights. Students with twice as many active weights learn
from noisy examples; the score is the share of the teacher's support inside the student's topology.
All seeds of a regime train in one program:

    python -m experiments.examples.topology_teacher
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from mst_jax import topology

INPUTS, OUTPUTS, BATCH = 64, 16, 32
TEACHER_SPARSITY, STUDENT_SPARSITY = 0.9, 0.8
NOISE = 1.0


def regimes(steps: int) -> dict[str, topology.Regime]:
    """The three regimes compared, from worst to best."""
    end = 3 * steps // 4
    return {
        "static": topology.static(STUDENT_SPARSITY),
        "set": topology.set(STUDENT_SPARSITY, end=end, interval=20),
        "rigl": topology.rigl(STUDENT_SPARSITY, end=end, interval=20),
    }


def recovered(regime: topology.Regime, key: jax.Array, steps: int) -> jax.Array:
    """Trains one student and returns the share of the teacher's support that it found.

    Args:
        regime: how the student's topology evolves.
        key: typed key of this seed.
        steps: optimizer steps.

    Returns:
        float32 scalar in [0, 1].
    """
    teacher_key, student_key, data_key = jax.random.split(key, 3)
    size = jax.random.uniform(teacher_key, (INPUTS, OUTPUTS), minval=0.5, maxval=1.5)
    order = jax.random.uniform(jax.random.fold_in(teacher_key, 1), size.shape)
    support = topology.top_k(order, int(order.size * (1 - TEACHER_SPARSITY)), order >= 0)
    teacher = jnp.where(support, size, 0.0)

    params = {"kernel": 0.1 * jax.random.normal(student_key, teacher.shape)}
    plan = topology.plan(params, {"kernel": regime})
    tx = topology.sparse(optax.adam(1e-2), plan)

    def step(carry: tuple, i: jax.Array) -> tuple[tuple, None]:
        params, state = carry
        x, noise = jax.random.normal(jax.random.fold_in(data_key, i), (2, BATCH, INPUTS))
        y = x @ teacher + NOISE * noise[:, :OUTPUTS]
        grads = jax.grad(lambda p: jnp.mean((x @ p["kernel"] - y) ** 2))(params)
        updates, state = tx.update(grads, state, params, step=i)
        return (topology.apply_updates(params, updates, topology.masks(state)), state), None

    start = topology.init(tx, params, student_key)
    (_, state), _ = jax.lax.scan(step, start, jnp.arange(steps))
    return jnp.sum(topology.masks(state)["kernel"] & support) / jnp.sum(support)


def compare(seeds: int = 16, steps: int = 1000) -> dict[str, jax.Array]:
    """Support recovered by every regime.

    Args:
        seeds: students of each regime, vmapped.
        steps: optimizer steps.

    Returns:
        regime name -> float32 ``[seeds]``.
    """
    keys = jax.random.split(jax.random.key(0), seeds)
    return {
        name: jax.jit(jax.vmap(lambda key, regime=regime: recovered(regime, key, steps)))(keys)
        for name, regime in regimes(steps).items()
    }


if __name__ == "__main__":
    print("share of the teacher's support in the student's topology (16 seeds)")
    for name, shares in compare().items():
        print(f"{name:7s} mean {shares.mean():.3f}  min {shares.min():.3f}  max {shares.max():.3f}")
