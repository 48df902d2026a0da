"""Speed of DrQ-v2's update: python -m benchmarks.drqv2 [--output=FILE] (extra: peers).

Both sides make one update after the other from a batch of stored pictures: shifts, noise, critic
with encoder, actor, target. Drawing the batch is left out, which published programs do in processes
beside; `step` is what the training program takes in all for a step that learns: store, draw, update
and act. PyTorch runs eagerly and one seed at a time, so its updates per second do not depend on
their number.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

try:
    import torch
except ModuleNotFoundError:
    sys.exit("error: this benchmark needs PyTorch: pip install 'mst_jax[peers]'")

from benchmarks.at_hand import AtHand, Task, beside
from benchmarks.harness import (
    define_clock,
    define_cores,
    define_output,
    define_repeats,
    launch_benchmark,
    on_cores,
    show,
    write_results,
)
from benchmarks.peers.torch_drqv2 import TorchDrQv2
from benchmarks.peers.torch_drqv2 import Transition as TorchTransition
from benchmarks.programs import random_observations
from experiments.cli import one_line_errors
from experiments.inputs import define_list, one_of, positive_integer
from mst_jax.agents import Clock, DrQv2Config, Sizes
from mst_jax.envs import Continuous, Observation
from mst_jax.recipes import Overrides, make_config, override
from mst_jax.replay import Transition


class Size(NamedTuple):
    """What is measured.

    Attributes:
        pixels: height and width of the pictures.
        changes: of the published settings.
        updates: of one repeat.
        filled: agent steps in the buffer of a `step`.
    """

    pixels: int
    changes: Overrides
    updates: int
    filled: int


SMALL: Overrides = {
    "encoder.hidden": 16,
    "encoder.depth": 3,
    "encoder.strided": 2,
    "critic.hidden": 256,
    "actor.hidden": 256,
    "batch_size": 64,
}
SIZES = {"quickstart": Size(32, SMALL, 20, 500), "published": Size(84, {}, 1, 300)}
ACTION = 1  # of cartpole-swingup

SIZE = define_list("sizes", list(SIZES), one_of(SIZES), "Pictures, networks and batches.")
SEEDS = define_list("seeds", [1, 2, 4], positive_integer, "Seeds in a program.")
CORES = define_cores()
CLOCK = define_clock()
REPEATS = define_repeats(3)
OUTPUT = define_output()


def main(_: list[str]) -> None:
    """Measures every size and prints one line for each number of cores."""
    rows = []
    for name in SIZE.value:
        for cores in CORES.value:
            with one_line_errors():
                given = (name, SEEDS.value, REPEATS.value, CLOCK.value)
                row = {"size": name, "cores": cores, **on_cores(cores, compare, *given)}
            rows.append(row)
    record = {"torch": torch.__version__, "clock": CLOCK.value, "comparisons": rows}
    write_results(OUTPUT.value, "benchmarks.drqv2", record)


def compare(name: str, counts: list[int], repeats: int, clock: str) -> dict[str, float]:
    """See `beside`, of a size."""
    size = SIZES[name]
    config = override(make_config("drqv2", "dense"), size.changes)
    shown = Observation((size.pixels, size.pixels, 9), "uint8", history=3)
    sizes = Sizes(shown, Continuous(ACTION), 500)
    now = Clock(step=jnp.int32(10_000), update=jnp.int32(4_000))
    views = partial(stored, config, sizes)
    task = Task("drqv2", config, sizes, now, size.updates, size.filled, views)
    row = beside(in_torch(config, sizes, size.updates), task, counts, repeats, clock)
    return show(name, {"torch_threads": torch.get_num_threads(), **row})


def in_torch(config: DrQv2Config, sizes: Sizes, updates: int) -> Callable[[], None]:
    """Updates of one seed in PyTorch."""
    agent = TorchDrQv2(config, sizes.observation.shape, ACTION)
    own = jax.tree.map(lambda x: x[0], stored(config, sizes, 1).batch)
    first, following = (
        torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))
        for pictures in (own.observation, own.next_observation)
    )
    returns = torch.from_numpy(own.reward.sum(axis=1))
    bootstrap = torch.full_like(returns, config.discount**config.n_step)
    batch = TorchTransition(first, torch.from_numpy(own.action), returns, bootstrap, following)

    def execute() -> None:
        for _ in range(updates):
            agent.learn(batch, 0.5)

    return execute


def stored(config: DrQv2Config, sizes: Sizes, count: int) -> AtHand:
    """A random batch of each of `count` seeds, in NumPy."""
    rng, lead = np.random.default_rng(0), (count, config.batch_size)
    pictures = random_observations(sizes, 2, *lead)
    batch = Transition(
        observation=pictures[0],
        action=rng.uniform(-1.0, 1.0, (*lead, ACTION)).astype(np.float32),
        reward=rng.uniform(size=(*lead, config.n_step)).astype(np.float32),
        terminated=np.zeros((*lead, config.n_step), bool),
        next_observation=pictures[1],
    )
    return AtHand(batch)


if __name__ == "__main__":
    launch_benchmark(main, OUTPUT)
