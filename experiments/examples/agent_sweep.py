"""Twenty runs of MR.Q in one compiled program: five sparsities of the critic, four seeds each.

Each run has budgets and learning rates of its own; widths, regimes and intervals are shared:

    python -m experiments.examples.agent_sweep
"""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from mst_jax import topology
from mst_jax.agents import Agent, sweep
from mst_jax.envs import JaxEnv
from mst_jax.envs.suites import probe
from mst_jax.program.state import LoopState, Purpose, init_loop, keys_for, over_seeds, seed_keys
from mst_jax.program.step import Phase, make_advance, make_step
from mst_jax.recipes import make_config, override

SPARSITIES = (0.3, 0.5, 0.7, 0.8, 0.9)
SEEDS = 4
STEPS = 600
SIZES = {
    **{f"{module}.hidden": 32 for module in ("encoder", "critic", "actor")},
    "zs_size": 32,
    "za_size": 16,
    "zsa_size": 32,
    "batch_size": 32,
    "learning_starts": 100,
    "target_period": 50,
    "critic.interval": 50,
}


def start(env: JaxEnv, steps: int) -> tuple[list[tuple[float, int]], Agent, LoopState]:
    """The runs as (sparsity, seed), their common agent, and the state of all of them."""
    runs = list(itertools.product(SPARSITIES, range(SEEDS)))
    base = override(make_config("mrq", "mst"), SIZES)
    rate = {s: 3e-4 * (1 + i) for i, s in enumerate(SPARSITIES)}
    configs = [
        override(base, {"critic.sparsity": s, "critic.learning_rate": rate[s]}) for s, _ in runs
    ]
    spec = env.spec
    agent, numbers = sweep("mrq", configs, spec, steps)
    seeds = [seed for _, seed in runs]
    keys = keys_for(seed_keys(seeds), Purpose.ENVIRONMENT)
    environment, observation = jax.vmap(env.reset)(keys)
    make = partial(init_loop, agent, seeds, 2 * steps + 2, sizes=spec)
    run = jax.jit(make)(observation=observation, environment=environment, numbers=numbers)
    return runs, agent, run


def train(env: JaxEnv, agent: Agent, run: LoopState, steps: int) -> LoopState:
    """All runs for `steps` steps: one program for the warm-up, one for learning."""
    count = run.healthy.shape[0]
    warm_up = agent.learning_starts
    for phase, number in ((Phase.EXPLORE, warm_up), (Phase.LEARN, steps - warm_up)):
        advance = make_advance(make_step(agent, env.spec.action, count, phase), env, count)
        run = jax.jit(advance, donate_argnums=0)(run, jnp.int32(number))
    return run


def active_weights(agent: Agent, run: LoopState) -> np.ndarray:
    """Active weights of each run's critic, (runs,)."""
    masks = agent.masks(run.agent)["critic"]
    return np.asarray(over_seeds(topology.count, run.healthy.shape[0])(masks))


if __name__ == "__main__":
    task = probe.make("point")
    runs, agent, run = start(task, STEPS)
    run = train(task, agent, run, STEPS)
    losses = np.asarray(run.totals.metrics["critic/loss"]) / int(run.totals.updates)
    for (sparsity, seed), count, loss in zip(runs, active_weights(agent, run), losses, strict=True):
        print(f"sparsity {sparsity:.1f}  seed {seed}  active {count:5d}  critic loss {loss:.4f}")
