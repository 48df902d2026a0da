"""Speed of DER's update: python -m benchmarks.der [--output=FILE] (extra: peers).

Both sides make one update after the other from a batch of stored pictures and importance weights:
noise, the double target, encoder and critic, new priorities. Drawing the batch is left out; `step`
is what the training program takes in all for a step that learns: store, draw, update, new
priorities, and act. PyTorch runs eagerly and one seed at a time, so its updates per second do not
depend on their number.
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
from benchmarks.peers.torch_der import TorchDer
from benchmarks.peers.torch_der import Transition as TorchTransition
from benchmarks.programs import random_observations
from experiments.cli import one_line_errors
from experiments.inputs import define_list, one_of, positive_integer
from mst_jax.agents import Clock, DERConfig, Sizes
from mst_jax.envs import Discrete, Observation
from mst_jax.recipes import Overrides, make_config, override
from mst_jax.replay import Transition

ACTIONS, FRAMES, PIXELS = 6, 4, 84
SIZES = Sizes(
    Observation((PIXELS, PIXELS, FRAMES), "uint8", history=FRAMES, fill="zeros"),
    Discrete(ACTIONS),
    27_000,
)


class Network(NamedTuple):
    """What is measured.

    Attributes:
        changes: of the published settings.
        updates: of one repeat.
    """

    changes: Overrides
    updates: int


NETWORKS = {
    "nature": Network({}, 8),
    "impala": Network({"encoder.body": "impala"}, 4),
    "impala_x3": Network({"encoder.body": "impala", "encoder.hidden": 48}, 1),
}
FILLED = 200  # steps in the buffer of a `step`

NETWORK = define_list("networks", ["nature", "impala"], one_of(NETWORKS), "Encoders.")
SEEDS = define_list("seeds", [1, 4], positive_integer, "Seeds in a program.")
CORES = define_cores()
CLOCK = define_clock()
REPEATS = define_repeats(3)
OUTPUT = define_output()


def main(_: list[str]) -> None:
    """Measures every network and prints one line for each number of cores."""
    rows = []
    for name in NETWORK.value:
        for cores in CORES.value:
            with one_line_errors():
                given = (name, SEEDS.value, REPEATS.value, CLOCK.value)
                row = {"network": name, "cores": cores, **on_cores(cores, compare, *given)}
            rows.append(row)
    record = {"torch": torch.__version__, "clock": CLOCK.value, "comparisons": rows}
    write_results(OUTPUT.value, "benchmarks.der", record)


def compare(name: str, counts: list[int], repeats: int, clock: str) -> dict[str, float]:
    """See `beside`, of a network."""
    changes, updates = NETWORKS[name]
    config = override(make_config("der", "dense"), changes)
    now = Clock(step=jnp.int32(2_001), update=jnp.int32(400))  # no new targets
    task = Task("der", config, SIZES, now, updates, FILLED, partial(stored, config))
    row = beside(in_torch(config, updates), task, counts, repeats, clock)
    return show(name, {"torch_threads": torch.get_num_threads(), **row})


def in_torch(config: DERConfig, updates: int) -> Callable[[], None]:
    """Updates of one seed in PyTorch."""
    agent = TorchDer(config, FRAMES, PIXELS, ACTIONS)
    own = jax.tree.map(lambda x: x[0], stored(config, 1).batch)
    first, following = (
        torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))
        for pictures in (own.observation, own.next_observation)
    )
    returns = torch.from_numpy(own.reward.sum(axis=1))
    bootstrap = torch.full_like(returns, config.discount**config.n_step)
    action = torch.from_numpy(own.action).long()
    batch = TorchTransition(first, action, returns, bootstrap, following)
    weights = torch.ones_like(returns)

    def execute() -> None:
        for _ in range(updates):
            agent.learn(batch, weights)

    return execute


def stored(config: DERConfig, count: int) -> AtHand:
    """A random batch of each of `count` seeds, in NumPy."""
    rng, lead = np.random.default_rng(0), (count, config.batch_size)
    pictures = random_observations(SIZES, 2, *lead)
    batch = Transition(
        observation=pictures[0],
        action=rng.integers(0, ACTIONS, lead, np.int32),
        reward=rng.uniform(size=(*lead, config.n_step)).astype(np.float32),
        terminated=np.zeros((*lead, config.n_step), bool),
        next_observation=pictures[1],
    )
    return AtHand(batch)


if __name__ == "__main__":
    launch_benchmark(main, OUTPUT)
