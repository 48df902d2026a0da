"""Fault C15: every wrong call ends in one line that says what is wrong and what to do."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mst_jax import topology
from mst_jax.topology import allocation, schedules

PARAMS = {"k": jnp.ones((4, 6)), "b": jnp.ones(6)}
OTHER = {"k": jnp.ones((4, 6)), "c": jnp.ones(6)}
TALLER = {"k": jnp.ones((8, 6)), "b": jnp.ones(6)}
PLAN = topology.plan(PARAMS, {"k": topology.rigl(0.5, end=100, interval=10)})
STATIC = topology.plan(PARAMS, {"k": topology.static(0.5)})
KEY = jax.random.key(0)
TX = topology.sparse(optax.adam(1e-2), PLAN)
MASKED, STATE = topology.init(TX, PARAMS, KEY)
MASKS = topology.masks(STATE)
RULE = topology.static(0.5)


def update(grads=MASKED, state=STATE, params=MASKED, **step):
    return TX.update(grads, state, params, **(step or {"step": 1}))


def rule(**options):
    return topology.plan(PARAMS, {"k": topology.set(0.5, end=100, **options)})


CALLS = {
    "rules as a list": (lambda: topology.plan(PARAMS, [("k", RULE)]), TypeError, "be a mapping"),
    "a regime as text": (lambda: topology.plan(PARAMS, {"k": "static"}), TypeError, r"static\(0.5"),
    "a regime not called": (
        lambda: topology.plan(PARAMS, {"k": topology.dense}),
        TypeError,
        "made by a call",
    ),
    "no pattern": (lambda: topology.plan(PARAMS, {"(": RULE}), ValueError, "regular expression"),
    "a number for a pattern": (lambda: topology.plan(PARAMS, {0: RULE}), TypeError, "be text"),
    "a pattern of sparsities": (lambda: topology.static({"*": 0.5}), ValueError, "regular expres"),
    "a misspelt path": (
        lambda: topology.plan({"q": {"kernel": PARAMS["k"]}}, {"q/kernal": RULE}),
        ValueError,
        r"nearest paths.*q/kernel",
    ),
    "text for sparsity": (lambda: topology.static("0.5"), TypeError, "sparsity must be a number"),
    "a misspelt option": (
        lambda: topology.static(0.5, strcuture=topology.n_of_m(4)),
        TypeError,
        "static has no option 'strcuture': did you mean structure?",
    ),
    "a misspelt argument": (
        lambda: topology.rigl(0.5, end=75, intervall=5),
        TypeError,
        "did you mean interval?",
    ),
    "a fraction of steps": (lambda: topology.rigl(0.5, end=75.0), TypeError, "whole number of"),
    "an end before the first rewire": (lambda: topology.rigl(0.6, end=50), ValueError, "no rewire"),
    "a number for a schedule": (lambda: topology.Regime("r", 0.5), TypeError, "constant\\(0.5"),
    "text for a structure": (lambda: rule(structure="2:4"), TypeError, r"n_of_m\(4\)"),
    "groups of none": (lambda: topology.n_of_m(0), ValueError, "at least 1"),
    "a drop above one": (
        lambda: rule(drop_fraction=schedules.constant(1.5)),
        ValueError,
        r"in \[0, 1\], got 1.5 at step 100",
    ),
    "a drop that is NaN": (
        lambda: rule(drop_fraction=schedules.constant(np.nan)),
        ValueError,
        "got nan",
    ),
    "an unknown allocation": (lambda: allocation.named("er0"), ValueError, "use one of"),
    "no plan": (lambda: topology.sparse(optax.adam(1e-2), None), TypeError, r"topology.plan\("),
    "no optimizer": (lambda: topology.sparse(optax.adam, PLAN), TypeError, "got a function"),
    "swapped": (lambda: topology.sparse(PLAN, optax.adam(1e-2)), TypeError, "wraps an optimizer"),
    "init without sparse": (
        lambda: topology.init(optax.adam(1e-2), PARAMS, KEY),
        ValueError,
        r"contains no sparse\(\): wrap it",
    ),
    "init without a key": (lambda: topology.init(TX, PARAMS, 0), TypeError, r"random.key\(0\)"),
    "init of others": (lambda: topology.init(TX, OTHER, KEY), ValueError, "not the plan's: 'c'"),
    "masks of no sparse": (
        lambda: topology.masks(optax.adam(1e-2).init(PARAMS)),
        ValueError,
        "wrap the optimizer",
    ),
    "masks not drawn": (lambda: update(state=TX.init(PARAMS)), ValueError, "not drawn"),
    "no parameters": (lambda: update(params=None), ValueError, "needs the parameters"),
    "no step": (lambda: update(step=None), ValueError, "unbatched integer"),
    "half a step": (lambda: update(step=0.5), ValueError, "unbatched integer"),
    "a float step": (lambda: update(step=jnp.float32(3)), ValueError, "unbatched integer"),
    "many steps": (lambda: update(step=jnp.arange(2)), ValueError, "unbatched integer"),
    "half a step of a static plan": (
        lambda: topology.sparse(optax.sgd(0.1), STATIC).update(MASKED, STATE, MASKED, step=0.5),
        ValueError,
        "unbatched integer",
    ),
    "gradients of others": (lambda: update(OTHER), ValueError, "gradients are not those.*'b'"),
    "gradients of another shape": (lambda: update(TALLER), ValueError, r"'k' has shape \(8, 6\)"),
    "parameters of others": (lambda: update(OTHER, params=OTHER), ValueError, "not the plan's"),
    "summary of others": (lambda: topology.summary({"c": 0}, MASKS), ValueError, r"\['k'\]"),
    "summary of another shape": (lambda: topology.summary(TALLER, MASKS), ValueError, "its mask"),
    "masks of another shape": (lambda: topology.apply(MASKS, TALLER), ValueError, "its mask"),
    "updates of others": (
        lambda: topology.apply_updates(PARAMS, OTHER, MASKS),
        ValueError,
        "updates are not those",
    ),
    "a target of others": (
        lambda: topology.update_target(OTHER, PARAMS, MASKS, 0.1),
        ValueError,
        "targets are not those",
    ),
    "an overlap with others": (
        lambda: topology.overlap(MASKS, {"k": MASKS["k"]}),
        ValueError,
        "other masks are not those",
    ),
    "a check of others": (lambda: topology.check({"c": 0}, STATE), ValueError, r"\['k'\]"),
    "a check before init": (lambda: topology.check(PARAMS, STATE), ValueError, "outside its mask"),
    "a check of another plan": (
        lambda: topology.check(
            MASKED, STATE, topology.plan(PARAMS, {"b": topology.static(0.5, leaves="all")})
        ),
        ValueError,
        "'b' is sparse in this plan",
    ),
    "restart of another optimizer": (
        lambda: topology.restart(optax.adam(1e-2), PARAMS, STATE),
        ValueError,
        "not of this optimizer",
    ),
    "a sweep of rules": (lambda: topology.sweep([{"k": RULE}]), TypeError, "takes plans"),
    "positions of others": (
        lambda: topology.costs(PLAN, 100, {"q": 9}),
        ValueError,
        "positions of 'q'",
    ),
    "scores of another shape": (
        lambda: topology.top_k(jnp.ones(3), 1, jnp.ones((3, 3), bool)),
        ValueError,
        "one number for every entry",
    ),
    "whole scores": (
        lambda: topology.top_k(jnp.ones(3, jnp.int32), 1, jnp.ones(3, bool)),
        TypeError,
        "floats or unsigned",
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_wrong_calls_end_in_one_line(name):
    call, kind, says = CALLS[name]
    with pytest.raises(kind, match=says) as error:
        call()
    assert "\n" not in str(error.value)
