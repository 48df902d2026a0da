"""Convolutions in their forms: equal to the plain one, and in the layout that a CPU is fast in."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from small_runs import equations

from mst_jax.networks import convolution
from mst_jax.networks.convolution import (
    LAYOUT,
    Convolution,
    form_for,
    in_turn,
    plain,
    same_padding,
)

rng = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)


def assert_close(one, other):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max()),
        one,
        other,
    )


def gradients(form, stride):
    """Of a loss that is not linear, with respect to pictures and kernel."""
    loss = lambda x, kernel: jnp.sum(jnp.sin(form(x, kernel, stride)))  # noqa: E731
    return jax.grad(loss, argnums=(0, 1))


@pytest.mark.parametrize(("height", "stride"), [(7, 1), (7, 2), (8, 2), (8, 3), (9, 3)])
def test_gradients_where_kernels_do_not_reach_the_last_pixels(height, stride):
    x, kernel = normal(2, height, 6, 3), normal(3, 3, 3, 4)
    assert_close(in_turn(x, kernel, stride), plain(x, kernel, stride))
    assert_close(gradients(in_turn, stride)(x, kernel), gradients(plain, stride)(x, kernel))


@pytest.mark.parametrize("height", [5, 6])
@pytest.mark.parametrize(("stride", "channels"), [(1, 17), (2, 17), (1, 16)])
def test_many_channels_have_a_row_more_inside_only(height, stride, channels):
    x, kernel = normal(20, height, 5, 3), normal(3, 3, 3, channels)
    out = in_turn(x, kernel, stride)
    assert_close(out, plain(x, kernel, stride))
    assert_close(gradients(in_turn, stride)(x, kernel), gradients(plain, stride)(x, kernel))
    padded = "padding=((0, 1), (0, 0))" in str(jax.make_jaxpr(in_turn, 2)(x, kernel, stride))
    assert padded == (channels > 16)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_other_kernels_and_one_picture_alone(size):
    x, kernel = normal(8, 8, 3), normal(size, size, 3, 4)
    assert in_turn(x, kernel, 2).shape == plain(x, kernel, 2).shape
    assert_close(gradients(in_turn, 2)(x, kernel), gradients(plain, 2)(x, kernel))


@pytest.mark.parametrize("sides", [(7, 6), (5, 1)])
@pytest.mark.parametrize(("size", "stride"), [(3, 1), (3, 2), (4, 2), (8, 4), (2, 3)])
def test_padding_and_its_gradients(sides, size, stride):
    padding = same_padding(sides, size, stride)
    x, kernel = normal(2, *sides, 3), normal(size, size, 3, 4)
    padded = partial(in_turn, padding=padding)
    wanted = lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=LAYOUT)
    assert_close(padded(x, kernel, stride), wanted)
    of_xla = gradients(partial(plain, padding=padding), stride)
    assert_close(gradients(padded, stride)(x, kernel), of_xla(x, kernel))
    two = jax.vmap(gradients(padded, stride))(jnp.stack([x, x]), jnp.stack([kernel, 2 * kernel]))
    assert_close(jax.tree.map(lambda leaf: leaf[0], two), of_xla(x, kernel))


PICTURES, KERNELS, BOTH = (0, None), (None, 0), (0, 0)
VMAPS = {
    "seeds": (BOTH,),
    "one picture for all seeds": (KERNELS,),
    "environments of one seed": (PICTURES,),
    "environments of seeds": (BOTH, PICTURES),  # outer first
    "seeds for each environment": (PICTURES, BOTH),
    "seeds of seeds": (BOTH, BOTH),
    "pictures and kernels apart": (KERNELS, PICTURES),
    "kernels and pictures apart": (PICTURES, KERNELS),
}


@pytest.mark.parametrize("vmaps", VMAPS.values(), ids=VMAPS)
def test_under_vmaps(vmaps):
    lead = [
        tuple(n for n, axes in zip((2, 3), vmaps, strict=False) if axes[i] == 0) for i in range(2)
    ]
    x, kernel = normal(*lead[0], 2, 5, 5, 3), normal(*lead[1], 3, 3, 3, 4)

    def batched(fn):
        for axes in reversed(vmaps):
            fn = jax.vmap(fn, axes)
        return fn

    def of(form):
        convolve = batched(lambda x, kernel: form(x, kernel, 2))
        loss = lambda x, kernel: jnp.sum(jnp.sin(convolve(x, kernel)))  # noqa: E731
        return (
            convolve(x, kernel),
            batched(gradients(form, 2))(x, kernel),
            jax.grad(loss, argnums=(0, 1))(x, kernel),
        )

    assert_close(jax.jit(partial(of, in_turn))(), jax.jit(partial(of, plain))())


@pytest.mark.parametrize("seeds", [1, 2, 3, convolution.UNROLLED + 3])
def test_any_number_of_seeds(seeds):
    x, kernel = normal(seeds, 2, 5, 5, 3), normal(seeds, 3, 3, 3, 4)
    of = lambda form: jax.jit(jax.vmap(gradients(form, 1)))(x, kernel)  # noqa: E731
    assert_close(of(in_turn), of(plain))


@pytest.mark.parametrize(("count", "blocks"), [(12, 3), (5, 5), (1, None), (17, None)])
def test_large_batches_are_convolved_in_blocks(count, blocks, monkeypatch):
    """Of at most 5 pictures here, or 1; 17 could only be shared out one by one."""
    most = 5 if count > 5 else 1
    monkeypatch.setattr(convolution, "BLOCK", most * 5 * 6 * 3 * 4)
    x, kernel = normal(count, 5, 6, 3), normal(3, 3, 3, 2)
    both = gradients(in_turn, 1)
    assert_close(both(x, kernel), gradients(plain, 1)(x, kernel))
    assert_close(in_turn(x, kernel, 1), plain(x, kernel, 1))
    scans = list(equations(jax.make_jaxpr(both)(x, kernel).jaxpr, "scan"))
    assert {e.params["length"] for e in scans} == ({blocks} if blocks else set())


def test_a_constant_gradient_is_not_summed_over_seeds():
    x, kernel = normal(2, 1, 4, 4, 3), normal(3, 3, 3, 4)
    of = lambda form: jax.vmap(  # noqa: E731
        jax.grad(lambda kernel, x: form(x, kernel, 1).sum()), (None, 0)
    )(kernel, x)
    assert_close(of(in_turn), of(plain))


def test_gradients_are_dense_where_weights_are_masked():
    x, kernel = normal(2, 5, 5, 3), normal(3, 3, 3, 4)
    masked = kernel * (rng.random(kernel.shape) < 0.2)
    of_kernel = gradients(in_turn, 1)(x, masked)[1]
    assert (of_kernel[masked == 0] != 0).all()


def convolutions(form, seeds, in_loop):
    """Layout and groups of each convolution in one step of gradient descent."""
    x, kernel = normal(seeds, 2, 5, 5, 3), normal(seeds, 3, 3, 3, 4)
    both = jax.vmap(gradients(form, 2))

    def program(x, kernel):
        if in_loop:
            return lax.fori_loop(0, 2, lambda _, pair: both(*pair), (x, kernel))
        return both(x, kernel)

    spec = lax.conv_dimension_numbers(x.shape[1:], kernel.shape[1:], LAYOUT)
    jaxpr = jax.make_jaxpr(program)(x, kernel).jaxpr
    found = [equation.params for equation in equations(jaxpr, "conv_general_dilated")]
    return [(p["dimension_numbers"] == spec, p["feature_group_count"]) for p in found]


@pytest.mark.parametrize("in_loop", [False, True])
@pytest.mark.parametrize("seeds", [1, 3])
def test_every_convolution_is_in_the_fast_layout_and_of_one_kernel(seeds, in_loop):
    assert set(convolutions(in_turn, seeds, in_loop)) == {(True, 1)}
    assert set(convolutions(plain, seeds, in_loop)) != {(True, 1)}, "what the test looks for"


def test_only_a_cpu_takes_kernels_in_turn():
    assert form_for("cpu") is in_turn
    assert form_for("gpu") is form_for("tpu") is plain


def test_the_layer():
    layer, pictures = Convolution(4, stride=2), normal(2, 3, 9, 9, 6)
    params = layer.init(jax.random.key(0), pictures[0, 0])["params"]
    assert {name: p.shape for name, p in params.items()} == {"kernel": (3, 3, 6, 4), "bias": (4,)}
    by_input = params["kernel"].reshape(-1, 4)
    np.testing.assert_allclose(by_input.T @ by_input, 2 * np.eye(4), atol=1e-5)
    shifted = {**params, "bias": jnp.arange(4.0)}
    out = layer.apply({"params": shifted}, pictures)
    assert out.shape == (2, 3, 4, 4, 4)
    assert out.dtype == jnp.float32
    assert_close(out, plain(pictures, params["kernel"], 2) + jnp.arange(4.0))


def test_half_precision_stays():
    x, kernel = normal(2, 5, 5, 3).astype(jnp.bfloat16), normal(3, 3, 3, 4).astype(jnp.bfloat16)
    out = in_turn(x, kernel, 1)
    assert {out.dtype, *(g.dtype for g in gradients(in_turn, 1)(x, kernel))} == {
        jnp.dtype(jnp.bfloat16)
    }


def test_a_second_call_traces_nothing():
    traces = 0

    @jax.jit
    def program(x, kernel):
        nonlocal traces
        traces += 1
        return jax.vmap(gradients(in_turn, 1))(x, kernel)

    for _ in range(2):
        program(normal(2, 1, 4, 4, 3), normal(2, 3, 3, 3, 4))
    assert traces == 1
