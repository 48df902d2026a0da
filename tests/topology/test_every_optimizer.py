"""Any optimizer of optax inside the wrapper: exact counts, exact zeros, steps of a sane size."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_runs import by_default

from mst_jax import topology
from mst_jax.topology import moments as moments_lib

contrib, RATE = optax.contrib, 1e-2
BY_RATE = (
    *("adabelief", "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamaxw", "adamw"),
    *("adan", "amsgrad", "fromage", "lamb", "lars", "lion", "nadam", "nadamw"),
    *("novograd", "optimistic_adam_v2", "optimistic_gradient_descent", "radam", "rmsprop"),
    *("rprop", "sgd", "sign_sgd", "signum", "sm3", "yogi", "acprop", "ademamix", "adopt"),
    *("dadapt_adamw", "dog", "galore", "madgrad", "momo", "momo_adam", "muon", "prodigy"),
    *("schedule_free_adamw", "schedule_free_sgd", "simplified_ademamix", "sophia"),
)


def by_rate(name):
    return lambda: (getattr(optax, name, None) or getattr(contrib, name))(RATE)


OPTIMIZERS = {name: by_rate(name) for name in BY_RATE} | {
    "adopt without clipping": lambda: contrib.adopt(RATE, use_clipping=False),
    "cocob": lambda: contrib.cocob(),
    "dowg": lambda: contrib.dowg(),
    "flatten": lambda: optax.flatten(optax.adam(RATE)),
    "inject_hyperparams": lambda: optax.inject_hyperparams(optax.adamw)(learning_rate=RATE),
    "lbfgs": lambda: optax.lbfgs(),
    "mechanize": lambda: contrib.mechanize(optax.adam(RATE)),
    "noisy_sgd": lambda: optax.noisy_sgd(RATE, key=jax.random.key(0)),
    "polyak_sgd": lambda: optax.polyak_sgd(),
    "reduce_on_plateau": lambda: optax.chain(optax.adam(RATE), contrib.reduce_on_plateau()),
    "sam": lambda: contrib.sam(optax.sgd(RATE), optax.chain(contrib.normalize(), optax.sgd(0.1))),
    "schedule_free": lambda: contrib.schedule_free(optax.sgd(RATE), RATE),
}
DEFAULT = ("lbfgs", "sam", "sm3")  # one for each way to fail; the others run with the slow tests
NOT_ALONE = {  # of optax.contrib and optax's aliases, what is not an optimizer by itself
    *("complex_valued", "differentially_private_aggregate", "dpsgd", "optimistic_adam"),
    *("hutchinson_estimator_diag_hessian", "normalize", "split_real_and_imaginary"),
}
UNPROTECTED = ("acprop", "adopt without clipping")
NEEDS = {
    "lbfgs": ("value", "grad", "value_fn"),
    "sophia": ("obj_fn",),
    **dict.fromkeys(("momo", "momo_adam", "polyak_sgd", "reduce_on_plateau"), ("value",)),
}


def params_of(key):
    shapes = {"a": {"kernel": (8, 8), "bias": (8,)}, "b": {"kernel": (8, 4), "bias": (4,)}}
    is_shape = lambda x: isinstance(x, tuple)  # noqa: E731
    return jax.tree.map(lambda shape: jax.random.normal(key, shape), shapes, is_leaf=is_shape)


def stepper(tx, name, loss_of):
    """A compiled step ``(params, state, i) -> params, state, largest update``."""

    @jax.jit
    def step(params, state, i):
        loss = loss_of(i)
        value, grads = jax.value_and_grad(loss)(params)
        extras = {"value": value, "grad": grads, "value_fn": loss, "obj_fn": loss}
        extras = {key: extras[key] for key in NEEDS.get(name, ())}
        updates, state = tx.update(grads, state, params, step=i, **extras)
        params = topology.apply_updates(params, updates, topology.masks(state))
        return params, state

    return step


def random_quadratic(i):
    centre = params_of(jax.random.fold_in(jax.random.key(1), i))
    return lambda params: optax.tree.norm(optax.tree.sub(params, centre), squared=True) / 2


@pytest.mark.parametrize("moments", ["zero", pytest.param("keep", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", by_default(DEFAULT, OPTIMIZERS))
def test_counts_are_exact_and_what_is_outside_is_zero(name, moments):
    """Faults C3 (SAM, L-BFGS: `step` was handed on to them) and C4 (SM3, L-BFGS: their slots)."""
    params = params_of(jax.random.key(0))
    rules = {
        "a/kernel": topology.rigl(0.5, end=40, interval=4, drop_fraction=0.5),
        "b/kernel": topology.static(0.5),
    }
    plan = topology.plan(params, rules)
    tx = topology.sparse(OPTIMIZERS[name](), plan, moments=moments)
    params, state = jax.jit(lambda p: topology.init(tx, p, jax.random.key(0)))(params)
    first, step = topology.masks(state), stepper(tx, name, random_quadratic)
    for i in range(10):
        params, state = step(params, state, jnp.int32(i))
        topology.check(params, state, plan)
    assert float(topology.overlap(first, topology.masks(state))) < 1
    assert all(bool(jnp.isfinite(p).all()) for p in jax.tree.leaves(params))


def test_every_optimizer_of_optax_is_here():
    named = {name.split()[0] for name in OPTIMIZERS} | NOT_ALONE
    for module, home in ((optax, "optax._src.alias"), (contrib, "optax.contrib")):
        for name, made in inspect.getmembers(module, inspect.isfunction):
            returns = str(inspect.signature(made).return_annotation)
            if made.__module__.startswith(home) and "GradientTransformation" in returns:
                assert name in named or name.startswith("scale_by_"), name


@pytest.mark.parametrize(
    "name",  # on this linear loss L-BFGS has no steps
    by_default(UNPROTECTED[:1], [name for name in OPTIMIZERS if name != "lbfgs"]),
)
def test_first_steps_of_a_new_weight_are_of_the_size_of_the_others(name):
    """Fault C5: under an old optimizer, the size of its first three steps over the median one."""
    inner = optax.with_extra_args_support(OPTIMIZERS[name]())
    policy, mask = moments_lib.named("zero"), jnp.ones((8, 8), bool).at[0, 0].set(False)
    params = {"k": jnp.where(mask, 1.0, 0.0), "bias": jnp.ones(8)}

    @jax.jit
    def step(params, state, i, grown):
        masks = {"k": mask | grown, "bias": topology.DenseLeaf()}
        noise = 1 + 0.3 * jax.random.normal(jax.random.key(i), (8, 8))
        grads = topology.apply(masks, {"k": noise, "bias": jnp.ones(8)})
        loss = lambda p: optax.tree.vdot(p, grads)  # noqa: E731
        extras = {"value": loss(params), "grad": grads, "value_fn": loss, "obj_fn": loss}
        extras = {key: extras[key] for key in NEEDS.get(name, ())}
        state = moments_lib.confined(inner, policy, state, params, masks)
        updates, state = inner.update(grads, state, params, **extras)
        sizes = jnp.abs(updates["k"])
        return topology.apply_updates(params, updates, masks), state, sizes

    state, ratios = inner.init(params), []
    for i in range(103):
        params, state, sizes = step(params, state, i, i >= 100)
        if i >= 100:
            ratios.append(float(sizes[0, 0] / jnp.maximum(jnp.median(sizes), 1e-3 * RATE)))
    assert (max(ratios) > 1e4) == (name in UNPROTECTED), ratios
    assert max(ratios) < 20 or name in UNPROTECTED, ratios


OUTSIDE = {
    "SAM": lambda tx: contrib.sam(tx, optax.sgd(0.1)),
    "Mechanic": contrib.mechanize,
    "ScheduleFree": lambda tx: contrib.schedule_free(tx, 0.1),
    "ConditionallyTransform": lambda tx: optax.conditionally_transform(tx, lambda step: step > 0),
    "ConditionallyMask": lambda tx: optax.conditionally_mask(tx, lambda step: step > 0),
    "MultiSteps": lambda tx: optax.MultiSteps(tx, every_k_schedule=2),
    "ApplyIfFinite": lambda tx: optax.chain(optax.clip(1.0), optax.apply_if_finite(tx, 3)),
    "lookahead": lambda tx: optax.lookahead(tx, 5, 0.5),
    "sparse": lambda tx: topology.sparse(tx, ONE_STATIC),
}
ONE = {"k": jnp.ones((4, 4))}
ONE_STATIC = topology.plan(ONE, {"k": topology.static(0.5)})


@pytest.mark.parametrize("name", OUTSIDE)
def test_wrappers_that_would_break_the_promises_are_refused_by_name(name):
    """Fault C10: lookahead ended in a KeyError, others in weights outside the mask."""
    tx = OUTSIDE[name](topology.sparse(optax.adam(1e-2), ONE_STATIC))
    with pytest.raises(ValueError, match=name) as error:
        topology.init(tx, ONE, jax.random.key(0))
    assert "\n" not in str(error.value)
    if name == "lookahead":
        with pytest.raises(ValueError, match="lookahead cannot"):
            topology.init(
                topology.sparse(optax.lookahead(optax.sgd(0.1), 5, 0.5), ONE_STATIC),
                ONE,
                jax.random.key(0),
            )


def test_slots_with_axes_of_their_own_follow_the_mask():
    """L-BFGS keeps the last differences of the weights in one array."""
    masks = {"k": jnp.zeros((4, 4), bool).at[:2].set(True)}
    inner = optax.lbfgs(0.1, memory_size=3, linesearch=None)
    state = jax.tree.map(jnp.ones_like, inner.init(ONE))
    out = moments_lib.confined(inner, moments_lib.named("zero"), state, ONE, masks)
    memory = np.asarray(out[0].diff_params_memory["k"])
    assert memory.shape == (3, 4, 4)
    assert (memory[:, :2] == 1).all()
    assert (memory[:, 2:] == 0).all()
    assert out[0].count == 1
