"""mst_jax against eager PyTorch: python -m benchmarks.peers [--output=FILE] (extra: peers).

Both do what follows one environment step, over and over: store a transition, learn, choose the
next action. Networks, batch sizes and buffers are equal. PyTorch runs eagerly, with its fused AdamW
and a NumPy buffer on the host, on a GPU if it sees one; mst_jax in one device program. PyTorch
trains one seed at a time, so its seed-updates per second do not depend on the number of seeds.

Threads of PyTorch wait by spinning, so on a machine that does anything else its numbers collapse.
There, compare on one core: OMP_NUM_THREADS=1 taskset -c 0 python -m benchmarks.peers.
"""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import flags

try:
    import torch
except ModuleNotFoundError:
    sys.exit("error: this benchmark needs PyTorch: pip install 'mst_jax[peers]'")

from benchmarks.harness import (
    define_output,
    define_repeats,
    interleave,
    launch_benchmark,
    show,
    write_results,
)
from benchmarks.peers.replay import PrioritizedReplay, UniformReplay
from benchmarks.peers.torch_mrq import VectorMRQ
from benchmarks.peers.torch_sac import TorchSAC
from benchmarks.programs import ACTION, OBSERVATION, fused_program
from experiments.cli import one_line_errors
from experiments.inputs import define_list, one_of, positive_integer
from mst_jax.recipes import make_config, override

RECIPE = {"mrq": "mrq_stock", "sac": "dense"}
AGENTS = define_list("agents", list(RECIPE), one_of(RECIPE), "Algorithms.")
SIZES = flags.DEFINE_list("sizes", ["0.25x1", "1x1"], "WIDTHxDEPTH times the published networks.")
SEEDS = define_list("seeds", [1, 4], positive_integer, "Seeds of mst_jax's program.")
STEPS = flags.DEFINE_integer(
    "steps",
    250,
    "Environment steps of a repeat; for MR.Q 250 hold one encoder burst.",
    lower_bound=1,
)
BATCH = flags.DEFINE_integer("batch", 256, "Batch size.", lower_bound=1)
REPEATS = define_repeats(3)
OUTPUT = define_output()

FILLED, CAPACITY = 5_000, 20_000  # transitions in the buffer, as in `fused_program`


def main(_: list[str]) -> None:
    """Measures every agent and size and prints one line each."""
    with one_line_errors():
        configs = {
            (name, size): override(
                make_config(name, RECIPE[name], size), {"batch_size": BATCH.value}
            )
            for name in AGENTS.value
            for size in SIZES.value
        }
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_default_device(device)
    print(f"PyTorch {torch.__version__}, {device}, {torch.get_num_threads()} threads", flush=True)
    results = [compare(name, size, config) for (name, size), config in configs.items()]
    record = {
        "torch": torch.__version__,
        "torch_device": device,
        "torch_threads": torch.get_num_threads(),
        "comparisons": results,
    }
    write_results(OUTPUT.value, "benchmarks.peers", record)


def compare(name: str, size: str, config: Any) -> dict[str, Any]:
    """Seed-updates per second of both, and their ratio for each number of seeds."""
    programs = {"torch": torch_mrq(config) if name == "mrq" else torch_sac(config)}
    for count in SEEDS.value:
        programs[count], _ = fused_program(config, count, STEPS.value, name)
    seconds = interleave(programs, REPEATS.value)
    updates = STEPS.value * getattr(config, "updates_per_step", 1)
    rates = {key: (1 if key == "torch" else key) * updates / seconds[key] for key in seconds}
    result = {"torch_updates_per_second": rates["torch"]}
    for count in SEEDS.value:
        result[f"mst_jax_{count}_seed_updates_per_second"] = rates[count]
        result[f"mst_jax_{count}_over_torch"] = rates[count] / rates["torch"]
    show(f"{name} {size}", result)
    return {"agent": name, "size": size, **result}


def torch_mrq(config: Any) -> Callable[[], None]:
    """`STEPS` environment steps of MR.Q; the first repeat begins with an encoder burst, as ours."""
    rng = np.random.default_rng(0)
    agent = VectorMRQ(config, OBSERVATION, ACTION)
    # `config.span` counts the transitions that a sampled start needs, itself included.
    replay = PrioritizedReplay(CAPACITY, OBSERVATION, ACTION, config.span)
    observation = rng.normal(size=OBSERVATION).astype(np.float32)
    for _ in range(FILLED):
        action = rng.uniform(-1.0, 1.0, ACTION)
        replay.add(observation, action, 1.0, False, False, observation)

    def execute() -> None:
        action = agent.act(observation, rng)
        for _ in range(STEPS.value):
            replay.add(observation, action, 1.0, False, False, observation)
            agent.learn(replay, rng)
            action = agent.act(observation, rng)

    return execute


def torch_sac(config: Any) -> Callable[[], None]:
    """`STEPS` environment steps of SAC."""
    rng = np.random.default_rng(0)
    agent = TorchSAC(config, OBSERVATION, ACTION, config.discount_for(500))
    replay = UniformReplay(CAPACITY, OBSERVATION, ACTION)
    observation = rng.normal(size=OBSERVATION).astype(np.float32)
    for _ in range(FILLED):
        replay.add(observation, rng.uniform(-1.0, 1.0, ACTION), 1.0, False, observation)

    def execute() -> None:
        action = agent.act(observation)
        for _ in range(STEPS.value):
            replay.add(observation, action, 1.0, False, observation)
            agent.norm.observe(observation)
            agent.learn(replay, rng)
            action = agent.act(observation)

    return execute


if __name__ == "__main__":
    launch_benchmark(main, OUTPUT)
