"""Forms of a convolution under seeds: python -m benchmarks.convolutions [--output=FILE].

Encoders of the quickstart's size, of one between and of the published one, each seed with kernels
of its own, on pictures uint8; forward, and the gradient with respect to the kernels. Forms:
`plain`, as JAX differentiates and batches a convolution by itself; `in_turn`, which this package
takes on a CPU; and `slices`, one matrix product with the pictures shifted to each place of the
kernel.

1. `seeds`: 1 to 4 of them in one program.
2. `loops`: the gradient within `lax.scan` against the same outside.
3. `pooling`: IMPALA's maximum of 3x3 pixels at every second one, as this package has it and as XLA
   has it, forward and with its gradient.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.harness import (
    CLOCKS,
    define_clock,
    define_cores,
    define_output,
    define_repeats,
    interleave,
    launch_benchmark,
    on_cores,
    show,
    write_results,
)
from experiments.cli import one_line_errors
from experiments.inputs import define_list, one_of, positive_integer
from mst_jax.networks.atari import max_pool
from mst_jax.networks.convolution import Form, in_turn, plain
from mst_jax.program.state import over_seeds

STACK = 9  # channels of a picture: three frames
STEPS = 4  # gradients of a loop


class Case(NamedTuple):
    """An encoder and what it sees.

    Attributes:
        pixels: height and width.
        channels: of each convolution.
        strides: of the convolutions, one after the other.
        batch: pictures of a seed.
    """

    pixels: int
    channels: int
    strides: tuple[int, ...]
    batch: int


CASES = {
    "quickstart": Case(32, 16, (2, 2, 1), 64),
    "between": Case(48, 16, (2, 2, 1, 1), 64),
    "published": Case(84, 32, (2, 1, 1, 1), 8),
    "published_batch": Case(84, 32, (2, 1, 1, 1), 256),
}


def slices(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """See the top; as `convolve`."""
    size = kernel.shape[0]
    height, width = ((side - size) // stride * stride + 1 for side in x.shape[-3:-1])
    shifted = [
        x[..., row : row + height : stride, column : column + width : stride, :]
        for row in range(size)
        for column in range(size)
    ]
    return jnp.concatenate(shifted, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


FORMS: dict[str, Form] = {"plain": plain, "in_turn": in_turn, "slices": slices}
PARTS = ("seeds", "loops", "pooling")
# What IMPALA's stacks take the maximum of, pixels of a side and channels, 32 pictures each.
POOLED = {"stack_1": (84, 16), "stack_2": (42, 32), "stack_3": (21, 32)}

PART = define_list("parts", PARTS, one_of(PARTS), "Which parts to run.")
CASE = define_list(
    "cases", list(CASES)[:-1], one_of(CASES), "Encoders; published_batch takes long."
)
SEEDS = define_list("seeds", [1, 2, 3, 4], positive_integer, "Seeds in a program of part 1.")
LOOP_SEEDS = define_list("loop_seeds", [1, 3], positive_integer, "Seeds in a program of part 2.")
CORES = define_cores()
CLOCK = define_clock()
REPEATS = define_repeats(5)
OUTPUT = define_output()


def main(_: list[str]) -> None:
    """Runs the parts asked for and prints one line per measurement."""
    counts = {"seeds": SEEDS.value, "loops": LOOP_SEEDS.value}
    results: dict[str, Any] = {"clock": CLOCK.value}
    for part in PART.value:
        rows = []
        for cores in CORES.value:
            with one_line_errors():
                if part == "pooling":
                    measured = on_cores(cores, measure_pooling, REPEATS.value, CLOCK.value)
                else:
                    given = (part, CASE.value, counts[part], REPEATS.value, CLOCK.value)
                    measured = on_cores(cores, measure, *given)
            rows += [{"cores": cores, **row} for row in measured]
        results[part] = rows
    write_results(OUTPUT.value, "benchmarks.convolutions", results)


def measure(
    part: str, names: list[str], counts: list[int], repeats: int, clock: str
) -> list[dict[str, Any]]:
    """Milliseconds of a gradient, or forward, by each form for each case and number of seeds."""
    programs_of, steps = {"seeds": (once, 1), "loops": (in_loops, STEPS)}[part]
    rows = []
    for name in names:
        for count in counts:
            programs = programs_of(CASES[name], count)
            seconds = interleave(programs, repeats, CLOCKS[clock])
            row = {program: 1e3 * value / steps for program, value in seconds.items()}
            show(f"{part}, {name}, {count} seeds:", row)
            rows.append({"case": name, **CASES[name]._asdict(), "seeds": count, **row})
    return rows


def measure_pooling(repeats: int, clock: str) -> list[dict[str, Any]]:
    """Milliseconds of both forms at the size of each stack."""
    rows = []
    for name, (pixels, channels) in POOLED.items():
        shape = (32, pixels, pixels, channels)
        x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
        programs = {}
        for form, pool in (("max_pool", max_pool), ("reduce_window", reduced)):
            loss = lambda x, pool=pool: jnp.mean(jnp.square(pool(x)))  # noqa: E731
            for what, fn in (("forward", pool), ("gradient", jax.grad(loss))):
                programs[f"{form}_{what}_ms"] = partial(finished, jax.jit(fn), x)
        row = {
            program: 1e3 * value
            for program, value in interleave(programs, repeats, CLOCKS[clock]).items()
        }
        show(f"pooling, {name}:", row)
        rows.append({"stack": name, "pixels": pixels, "channels": channels, **row})
    return rows


def reduced(x: jax.Array) -> jax.Array:
    """As `max_pool`, of pictures (B, H, W, C)."""
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")


def once(case: Case, count: int) -> dict[str, Callable[[], Any]]:
    """Forward and gradient of each form."""
    kernels, pictures = of_seeds(case, count)
    programs = {}
    for name, form in FORMS.items():
        for what, fn in (("forward", encode), ("gradient", gradient)):
            program = jax.jit(over_seeds(partial(fn, form, case), count))
            programs[f"{name}_{what}_ms"] = partial(finished, program, kernels, pictures)
    return programs


def in_loops(case: Case, count: int) -> dict[str, Callable[[], Any]]:
    """`STEPS` steps of gradient descent, each on a batch of its own."""
    kernels, pictures = of_seeds(case, count)
    batches = jnp.stack([jnp.roll(pictures, step, axis=1) for step in range(STEPS)])
    programs = {}
    for name in ("plain", "in_turn"):
        step = partial(descend, over_seeds(partial(gradient, FORMS[name], case), count))
        programs[f"{name}_outside_ms"] = partial(finished, one_by_one(step), kernels, batches)
        programs[f"{name}_scan_ms"] = partial(finished, scanned(step), kernels, batches)
    return programs


def descend(grads: Callable[..., Any], kernels: Any, pictures: jax.Array) -> tuple[Any, None]:
    """One step, as `lax.scan` takes it."""
    return jax.tree.map(lambda k, g: k - 1e-3 * g, kernels, grads(kernels, pictures)), None


def scanned(step: Callable[..., Any]) -> Callable[..., Any]:
    """All steps in one program."""
    return jax.jit(lambda kernels, batches: lax.scan(step, kernels, batches)[0])


def one_by_one(step: Callable[..., Any]) -> Callable[..., Any]:
    """A program for each step."""
    program = jax.jit(step)

    def steps(kernels: Any, batches: jax.Array) -> Any:
        for pictures in batches:
            kernels, _ = program(kernels, pictures)
        return kernels

    return steps


def of_seeds(case: Case, count: int) -> tuple[list[jax.Array], jax.Array]:
    """Random kernels [S, 3, 3, C, F] of each layer, and pictures (S, B, H, W, 9)."""
    rng = np.random.default_rng(0)
    kernels, channels = [], STACK
    for _ in case.strides:
        shape = (count, 3, 3, channels, case.channels)
        kernels.append(jnp.asarray(rng.normal(size=shape) / (9 * channels) ** 0.5, jnp.float32))
        channels = case.channels
    shape = (count, case.batch, case.pixels, case.pixels, STACK)
    return kernels, jnp.asarray(rng.integers(0, 256, shape, np.uint8))


def encode(form: Form, case: Case, kernels: list[jax.Array], pictures: jax.Array) -> jax.Array:
    """Features of pictures (B, H, W, 9)."""
    x = pictures.astype(jnp.float32) / 255.0 - 0.5
    for kernel, stride in zip(kernels, case.strides, strict=True):
        x = jax.nn.relu(form(x, kernel, stride))
    return x


def gradient(form: Form, case: Case, kernels: list[jax.Array], pictures: jax.Array) -> Any:
    """Of the features' mean square with respect to the kernels."""
    return jax.grad(lambda own: jnp.mean(jnp.square(encode(form, case, own, pictures))))(kernels)


def finished(program: Callable[..., Any], *args: Any) -> Any:
    """Runs to the end."""
    return jax.block_until_ready(program(*args))


if __name__ == "__main__":
    launch_benchmark(main, OUTPUT)
