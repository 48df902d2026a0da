"""Whether a regime works: what is wrong with one of your own, a line each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mst_jax.topology.mask_tree import apply_updates, named_leaves
from mst_jax.topology.planning import Group, Plan, plan
from mst_jax.topology.regime import Regime
from mst_jax.topology.registry import MakesRegime
from mst_jax.topology.rewire import draw, rewire_group
from mst_jax.topology.scores import Leaf
from mst_jax.topology.state import check, masks
from mst_jax.topology.transform import init, sparse

STEPS = 60  # of the training that a regime is tried on
SPARSITY, INTERVAL, START, END, DROP_FRACTION = 0.5, 5, 10, 45, 0.3
SHAPES = {"first": (12, 16), "middle": (16, 16), "last": (16, 4)}


def check_regime(regime: Regime | MakesRegime) -> list[str]:
    """Trains a small network under a regime and says what is wrong with it.

    A function is called as settings would call it, for a run of 60 steps whose topology is frozen
    after step 45.

    Args:
        regime: a regime, or a function that makes one; see `MakesRegime`.

    Returns:
        What is wrong, a line each; an empty list if nothing was found.
    """
    if not isinstance(regime, Regime):
        made, problems = _made(regime)
        if made is None:
            return problems
        regime, own = made, True
    else:
        own = False
    params = {name: {"kernel": jnp.ones(shape)} for name, shape in SHAPES.items()}
    problems = list(_scores(regime))
    if problems:
        return problems
    try:
        resolved = plan(params, {".*kernel": replace(regime, storage="masked")})
        return list(dict.fromkeys(_trained(params, resolved, own)))
    except Exception as error:  # whatever a user's function raises
        return [f"training under it fails: {_one_line(error)}"]


def trace_rewires(resolved: Plan) -> None:
    """Draws and rewires every masked leaf of a plan on shapes alone: nothing is computed.

    Whatever a score or structure of one's own raises, or a score of another shape than its leaf, is
    met here rather than in training.
    """

    def of_group(key: jax.Array, group: Group) -> dict[str, jax.Array]:
        counts = jax.tree.map(jnp.asarray, group.table)
        leaves = {}
        for column, entry in enumerate(group.entries):
            regime, weight = entry.regime, jnp.zeros(entry.shape)
            leaves[entry.path] = Leaf(
                weight,
                gradient=weight,
                average=None if regime.average is None else weight,
                mask=draw(regime, weight, counts.target[0, column], key),
                key=key,
                square=None if regime.average_square is None else weight,
                activity=jnp.zeros(entry.shape[-1]) if regime.reads_activity else None,
            )
        if group.timing is None:
            return {path: leaf.mask for path, leaf in leaves.items()}
        return rewire_group(group, counts, jnp.int32(1), leaves)

    for group in resolved.groups:
        jax.eval_shape(partial(of_group, group=group), jax.random.key(0))


def _made(make: MakesRegime) -> tuple[Regime | None, list[str]]:
    """What a user's function makes, or why it makes nothing."""
    try:
        found = make(
            sparsity=SPARSITY,
            interval=INTERVAL,
            start=START,
            end=END,
            drop_fraction=DROP_FRACTION,
        )
    except Exception as error:  # whatever a user's function raises
        return None, [
            "called with sparsity=, interval=, start=, end= and drop_fraction= it fails: "
            f"{_one_line(error)}"
        ]
    if not isinstance(found, Regime):
        return None, [f"it makes a {type(found).__name__}, not a topology.Regime"]
    return found, []


def _scores(regime: Regime) -> Iterator[str]:
    """What scores return, looked at alone."""
    key, size = jax.random.key(0), (12, 16)
    weight, gradient = jax.random.normal(key, (2, *size))
    mask = jax.random.bernoulli(key, 0.5, size)
    squares = None if regime.average_square is None else gradient**2
    average = None if regime.average is None else gradient
    activity = jnp.ones(size[1]) if regime.reads_activity else None
    leaf = Leaf(weight * mask, gradient, average, mask, key, squares, activity)
    for name in ("drop_score", "grow_score"):
        try:
            score = jax.jit(lambda leaf, name=name: getattr(regime, name)(leaf))(leaf)
        except Exception as error:  # whatever a user's function raises
            yield f"{name} fails: {_one_line(error)}"
            continue
        if getattr(score, "shape", None) != size:
            yield f"{name} returns shape {jnp.shape(score)}, not that of the leaf, {size}"
        elif not jnp.issubdtype(score.dtype, jnp.number):
            yield f"{name} returns {score.dtype}: give numbers, of which the largest are chosen"
        elif jnp.isnan(score).any():
            yield f"{name} is NaN for finite weights and gradients"


def _trained(params: Any, resolved: Plan, own: bool) -> Iterator[str]:
    """Trains, and looks at the masks after every step."""
    tx = sparse(optax.adam(1e-2), resolved)
    target = jax.random.normal(jax.random.key(1), (32, SHAPES["last"][1]))
    inputs = jax.random.normal(jax.random.key(2), (32, SHAPES["first"][0]))

    def loss(params: Any) -> tuple[jax.Array, dict]:
        first = jax.nn.relu(inputs @ params["first"]["kernel"])
        middle = jax.nn.relu(first @ params["middle"]["kernel"])
        units = {"first/kernel": jnp.abs(first).mean(0), "middle/kernel": jnp.abs(middle).mean(0)}
        return jnp.mean((middle @ params["last"]["kernel"] - target) ** 2), units

    @jax.jit
    def step(params: Any, state: Any, number: jax.Array) -> tuple[Any, Any]:
        grads, units = jax.grad(loss, has_aux=True)(params)
        extra = {"activity": lambda: units} if resolved.reads_activity else {}
        updates, state = tx.update(grads, state, params, step=number, **extra)
        return apply_updates(params, updates, masks(state)), state

    draws = jax.random.split(jax.random.key(3), len(SHAPES))
    dense = {
        name: {"kernel": jax.random.normal(key, SHAPES[name]) / 4}
        for name, key in zip(SHAPES, draws, strict=True)
    }
    params, state = init(tx, dense, jax.random.key(4))
    exact = all(entry.regime.draw != "bernoulli" for g in resolved.groups for entry in g.entries)
    history = [_masks(state)]
    for number in range(STEPS):
        params, state = step(params, state, jnp.int32(number))
        history.append(_masks(state))
        try:
            check(params, state, resolved if exact else None)
        except ValueError as error:
            yield f"after step {number}: {_one_line(error)}"
            return
    moves = [not _same(a, b) for a, b in itertools.pairwise(history)]
    if own and any(moves[END + 1 :]):
        yield f"the topology still moves after end={END}: give Timing(end=end)"
    shares = [_density(one) for one in history]
    if (
        own
        and resolved.groups
        and all(abs(s - (1 - SPARSITY)) > 0.02 for s in (shares[0], shares[-1]))
    ):
        yield (
            f"asked for a sparsity of {SPARSITY} it begins at {1 - shares[0]:.2f} and ends at "
            f"{1 - shares[-1]:.2f}"
        )
    timed = [group for group in resolved.groups if group.timing is not None]
    if timed and not any(moves):
        yield (
            f"it never moves a weight in {STEPS} steps, although its timing is {timed[0].timing}: "
            "does the drop schedule round to nothing?"
        )


def _masks(state: Any) -> dict[str, np.ndarray]:
    return {path: np.asarray(mask) for path, mask in named_leaves(masks(state)).items()}


def _same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(one[path], other[path]) for path in one)


def _density(found: dict[str, np.ndarray]) -> float:
    """Over all kernels; those without a mask are dense."""
    total = sum(int(np.prod(shape)) for shape in SHAPES.values())
    missing = total - sum(mask.size for mask in found.values())
    return (missing + sum(int(mask.sum()) for mask in found.values())) / total


def _one_line(error: BaseException) -> str:
    text = "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
    return f"{type(error).__name__}: {text}"
