"""One compiled program, twenty runs: five sparsities, four seeds, a learning rate each.

Interval, start and end of the rewiring are shared, because they decide *whether* work happens;
budgets and learning rates are arrays:

    python -m experiments.examples.topology_sweep
"""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import optax

from mst_jax import topology

SPARSITIES = (0.3, 0.5, 0.7, 0.8, 0.9)
SEEDS = 4
STEPS = 300


def make_params(key: jax.Array) -> dict[str, dict[str, jax.Array]]:
    """A small critic: observation and action to value, two hidden layers."""
    shapes = {"l1": (6, 32), "l2": (32, 32), "head": (32, 1)}
    return {
        name: {
            "kernel": jax.random.normal(jax.random.fold_in(key, i), shape) / shape[0] ** 0.5,
            "bias": jnp.zeros(shape[1]),
        }
        for i, (name, shape) in enumerate(shapes.items())
    }


def value(params: dict, x: jax.Array) -> jax.Array:
    """Values ``[batch]`` of inputs ``[batch, 6]``."""
    for name in ("l1", "l2"):
        x = jax.nn.elu(x @ params[name]["kernel"] + params[name]["bias"])
    return (x @ params["head"]["kernel"] + params["head"]["bias"])[:, 0]


def make_plan(sparsity: float) -> topology.Plan:
    """RigL on the hidden layers."""
    shapes = jax.eval_shape(make_params, jax.random.key(0))
    rule = topology.rigl(sparsity, end=3 * STEPS // 4, interval=20)
    return topology.plan(shapes, {"l[12]/kernel": rule})


def train(
    plan: topology.Plan, key: jax.Array, tables: tuple[topology.Table, ...], rate: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """One run.

    Args:
        plan: the plan of the sweep, shared.
        key: typed key of the seed.
        tables: this run's counts.
        rate: this run's learning rate.

    Returns:
        Losses ``[STEPS]`` and the number of active weights after every step, ``[STEPS]``.
    """
    tx = topology.sparse(optax.adam(rate), plan)
    params, state = topology.init(tx, make_params(key), key, tables)

    def loss(params: dict, x: jax.Array) -> jax.Array:
        return jnp.mean((value(params, x) - jnp.sin(x.sum(1))) ** 2)

    def step(carry: tuple, i: jax.Array) -> tuple[tuple, tuple[jax.Array, jax.Array]]:
        params, state = carry
        x = jax.random.uniform(jax.random.fold_in(key, i), (64, 6), minval=-1, maxval=1)
        error, grads = jax.value_and_grad(loss)(params, x)
        updates, state = tx.update(grads, state, params, step=i)
        masks = topology.masks(state)
        params = topology.apply_updates(params, updates, masks)
        return (params, state), (error, topology.count(masks))

    return jax.lax.scan(step, (params, state), jnp.arange(STEPS))[1]


def sweep() -> tuple[list[tuple[float, int]], jax.Array, jax.Array]:
    """All runs in one program.

    Returns:
        The runs as (sparsity, seed), their losses and active weights, ``[runs, STEPS]`` each.
    """
    runs = list(itertools.product(SPARSITIES, range(SEEDS)))
    plan, tables = topology.sweep([make_plan(sparsity) for sparsity, _ in runs])
    keys = jnp.stack([jax.random.fold_in(jax.random.key(0), seed) for _, seed in runs])
    rates = jnp.array([3e-3 / (1 + sparsity) for sparsity, _ in runs])
    mapped = jax.vmap(lambda *run: train(plan, *run))
    losses, active = jax.jit(mapped)(keys, tables, rates)
    return runs, losses, active


if __name__ == "__main__":
    runs, losses, active = sweep()
    for (sparsity, seed), loss, n in zip(runs, losses[:, -50:].mean(1), active[:, -1], strict=True):
        print(f"sparsity {sparsity:.1f}  seed {seed}  active weights {n:5d}  loss {loss:.4f}")
