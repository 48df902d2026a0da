"""Speed of MR.Q from pictures: python -m benchmarks.mrq_pictures [--output=FILE] (extra: peers).

Both sides take one step of every module after the other from batches of stored pictures: the
encoder's, on sub-trajectories, and critic's and actor's, with their shifts and noise. Target copies
and the encoder's burst come once in a repeat, which is as long as a period. Drawing the batches is
left out; `step` is what the training program takes in all for a step that learns: store, draw both
batches, update, new priorities, and act. PyTorch runs eagerly and one seed at a time, so its
updates per second do not depend on their number.
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
from benchmarks.peers.torch_mrq import Batch
from benchmarks.peers.torch_mrq_pictures import PictureMRQ
from benchmarks.peers.torch_mrq_policies import GumbelPolicy, TanhPolicy
from benchmarks.programs import random_observations
from experiments.cli import one_line_errors
from experiments.inputs import define_list, one_of, positive_integer
from mst_jax.agents import Clock, MRQConfig, Sizes
from mst_jax.envs import Continuous, Discrete, Observation
from mst_jax.recipes import Overrides, make_config, override
from mst_jax.replay import Subtrajectory, Transition


class Size(NamedTuple):
    """What is measured.

    Attributes:
        pixels: height and width of the pictures.
        network: as `--size`.
        changes: of the published settings.
        updates: of one repeat, and of a target period.
        filled: agent steps in the buffer of a `step`.
    """

    pixels: int
    network: str
    changes: Overrides
    updates: int
    filled: int


REDUCED: Overrides = {
    "pictures.channels": 16,
    "pictures.depth": 3,
    "pictures.strided": 2,
    "pictures.shift": 1,
    "zs_size": 128,
    "za_size": 64,
    "zsa_size": 128,
    "batch_size": 64,
}
SIZES = {
    "reduced": Size(32, "0.25x1", REDUCED, updates=20, filled=500),
    "published": Size(84, "", {}, updates=2, filled=200),
}
SUITES = {  # pictures that are shown together, their channels in all, and actions
    "dmc_pixels": (3, 9, Continuous(1)),  # of cartpole-swingup
    "atari": (4, 4, Discrete(6)),
}

SUITE = define_list("suites", list(SUITES), one_of(SUITES), "Pictures and actions.")
SIZE = define_list("sizes", list(SIZES), one_of(SIZES), "Pictures, networks and batches.")
SEEDS = define_list("seeds", [1, 2], positive_integer, "Seeds in a program.")
CORES = define_cores()
CLOCK = define_clock()
REPEATS = define_repeats(3)
OUTPUT = define_output()


def main(_: list[str]) -> None:
    """Measures every suite and size and prints one line for each number of cores."""
    rows = []
    for suite in SUITE.value:
        for name in SIZE.value:
            for cores in CORES.value:
                with one_line_errors():
                    given = (suite, name, SEEDS.value, REPEATS.value, CLOCK.value)
                    found = on_cores(cores, compare, *given)
                rows.append({"suite": suite, "size": name, "cores": cores, **found})
    record = {"torch": torch.__version__, "clock": CLOCK.value, "comparisons": rows}
    write_results(OUTPUT.value, "benchmarks.mrq_pictures", record)


def compare(suite: str, name: str, counts: list[int], repeats: int, clock: str) -> dict[str, float]:
    """See `beside`, of a suite and a size."""
    size, (history, channels, action) = SIZES[name], SUITES[suite]
    period = {"target_period": size.updates}
    config = override(make_config("mrq", "mrq_stock", size.network), {**size.changes, **period})
    shown = Observation((size.pixels, size.pixels, channels), "uint8", history=history)
    sizes = Sizes(shown, action, 500)
    first = Clock(step=jnp.int32(10_000), update=jnp.int32(0))  # a burst
    views = partial(stored, config, sizes)
    task = Task("mrq", config, sizes, first, size.updates, size.filled, views)
    row = beside(in_torch(config, sizes, size.updates), task, counts, repeats, clock)
    return show(f"{suite} {name}", {"torch_threads": torch.get_num_threads(), **row})


def in_torch(config: MRQConfig, sizes: Sizes, updates: int) -> Callable[[], None]:
    """A period of one seed in PyTorch."""
    if isinstance(sizes.action, Discrete):
        policy = GumbelPolicy(config, sizes.action.count)
    else:
        policy = TanhPolicy(config, sizes.action.size)
    agent = PictureMRQ(config, sizes.observation.shape, policy)
    own = jax.tree.map(lambda x: x[0], stored(config, sizes, 1))
    code = partial(coded, size=policy.size)
    ends = np.stack([own.batch.observation, own.batch.next_observation], axis=1)
    action = own.batch.action[:, None]
    steps = Batch(shown(ends), code(action), *numbers(own.batch))
    path = Batch(shown(own.path.observation), code(own.path.action), *numbers(own.path))

    def execute() -> None:
        agent.renew_targets(1.0)
        for _ in range(updates):
            agent.learn(path, steps)

    return execute


def shown(pictures: np.ndarray) -> torch.Tensor:
    """Pictures (..., H, W, C) as PyTorch takes them."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(pictures, -1, -3)))


def coded(action: np.ndarray, size: int) -> torch.Tensor:
    """Actions as the networks take them: choices are one-hot."""
    taken = np.eye(size, dtype=np.float32)[action] if action.dtype == np.int32 else action
    return torch.from_numpy(taken)


def numbers(batch: Transition | Subtrajectory) -> tuple[torch.Tensor, torch.Tensor]:
    """Rewards and ends (B, L)."""
    return torch.from_numpy(batch.reward), torch.from_numpy(batch.terminated.astype(np.float32))


def stored(config: MRQConfig, sizes: Sizes, count: int) -> AtHand:
    """Random batches of each of `count` seeds, in NumPy."""
    rng, lead = np.random.default_rng(0), (count, config.batch_size)
    path, pictures = (*lead, config.horizon), random_observations(sizes, *lead, config.horizon + 1)

    def taken(*shape: int) -> np.ndarray:
        if isinstance(sizes.action, Discrete):
            return rng.integers(0, sizes.action.count, shape, np.int32)
        return rng.uniform(-1.0, 1.0, (*shape, sizes.action.size)).astype(np.float32)

    def outcome(*shape: int) -> dict[str, np.ndarray]:
        reward = rng.uniform(size=shape).astype(np.float32)
        return {"reward": reward, "terminated": np.zeros(shape, bool)}

    batch = Transition(
        observation=pictures[:, :, 0],
        action=taken(*lead),
        **outcome(*lead, config.n_step),
        next_observation=pictures[:, :, config.n_step],
    )
    return AtHand(batch, Subtrajectory(pictures, taken(*path), **outcome(*path)))


if __name__ == "__main__":
    launch_benchmark(main, OUTPUT)
