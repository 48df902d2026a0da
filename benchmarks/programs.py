"""Programs that several benchmarks time."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import interleave
from mst_jax.agents import Agent, Sizes, roles_of
from mst_jax.envs import Timestep
from mst_jax.program.cache import kept_agent
from mst_jax.program.drivers import Driver
from mst_jax.program.state import LoopState, init_loop
from mst_jax.program.step import Phase, make_step
from mst_jax.recipes import make_config, override

OBSERVATION, ACTION = 17, 6
VECTORS = Sizes.vector(OBSERVATION, ACTION, 500)
FILLED = 5_000  # steps in the buffer
UPDATES = 250  # one target period of MR.Q, so exactly one encoder burst


def transfer_seconds(run: LoopState) -> float:
    """Seconds to move one step's observations up and its actions down, without computing."""
    host = [np.asarray(run.observation)] * 2 + [np.zeros(len(run.healthy), np.float32)] * 3
    copy = jax.jit(lambda action: action + 0.0)

    def once() -> None:
        jax.block_until_ready([jax.device_put(array) for array in host])
        np.asarray(copy(run.action))

    return interleave({"transfer": lambda: [once() for _ in range(200)]}, 5)["transfer"] / 200


class Fused(NamedTuple):
    """A compiled number of fused steps and the run that they go on from.

    Attributes:
        agent: one-seed functions.
        program: run -> run, donating its argument.
        run: a list of one, the present run.
        compile_seconds: what compiling took.
    """

    agent: Agent
    program: Callable[[LoopState], LoopState]
    run: list[LoopState]
    compile_seconds: float

    def execute(self) -> None:
        """Takes the steps, to their end."""
        self.run[0] = self.program(self.run[0])
        self.run[0].action.block_until_ready()


def fused(
    config: Any,
    count: int,
    updates: int = UPDATES,
    name: str = "mrq",
    sizes: Sizes = VECTORS,
    filled: int = FILLED,
    precision: str = "float32",
) -> Fused:
    """`updates` fused steps of `count` seeds on a constant environment, past the warm-up.

    Args:
        config: of the agent.
        count: seeds.
        updates: steps of one execution.
        name: of the agent.
        sizes: of the environment.
        filled: steps taken before; there are four times as many slots.
        precision: of learning.
    """
    ready = past_warm_up(config, count, name, sizes, filled, precision)

    def steps(run: LoopState) -> LoopState:
        return jax.lax.fori_loop(0, updates, lambda _, r: ready.step(r, ready.timestep), run)

    before = time.perf_counter()
    program = jax.jit(steps, donate_argnums=0).lower(ready.run).compile()
    return Fused(ready.agent, program, [ready.run], time.perf_counter() - before)


class Ready(NamedTuple):
    """A run on a constant environment that is about to learn.

    Attributes:
        agent: one-seed functions.
        step: (run, timestep) -> run, one that learns; not compiled.
        timestep: what the environment always answers.
        run: the buffer is filled.
    """

    agent: Agent
    step: Callable[[LoopState, Timestep], LoopState]
    timestep: Timestep
    run: LoopState


def past_warm_up(
    config: Any,
    count: int,
    name: str,
    sizes: Sizes,
    filled: int,
    precision: str = "float32",
) -> Ready:
    """A run of `count` seeds after `filled` random steps; see `fused`."""
    agent = kept_agent(name, config, sizes, 1_000_000, precision)
    observation = random_observations(sizes, count)
    start = partial(init_loop, agent, list(range(count)), 4 * filled, sizes=sizes)
    run = jax.jit(start)(observation=observation)
    ended = jnp.zeros(count, bool)
    timestep = Timestep(
        jnp.asarray(observation), jnp.ones(count), ended, ended, observation, ended, ended
    )
    explore, step = (
        make_step(agent, sizes.action, count, phase) for phase in (Phase.EXPLORE, Phase.LEARN)
    )

    def fill(run: LoopState) -> LoopState:
        return jax.lax.fori_loop(0, filled, lambda _, r: explore(r, timestep), run)

    return Ready(agent, step, timestep, jax.jit(fill, donate_argnums=0)(run))


def random_observations(sizes: Sizes, *lead: int) -> np.ndarray:
    """Observations (*lead, *O): pictures uint8, or normal numbers."""
    rng, shape = np.random.default_rng(0), (*lead, *sizes.observation.shape)
    if sizes.observation.dtype == "uint8":
        return rng.integers(0, 256, shape, np.uint8)
    return rng.normal(size=shape).astype(np.float32)


def fused_program(
    config: Any, count: int, updates: int = UPDATES, name: str = "mrq"
) -> tuple[Callable[[], None], float]:
    """What executes `fused`, and its compile time."""
    built = fused(config, count, updates, name)
    return built.execute, built.compile_seconds


def advance(driver: Driver, loop: LoopState, steps: int) -> LoopState:
    """Takes steps without a progress bar or a way to stop."""
    return driver.advance(loop, steps, lambda: False, lambda _: None)


def kept_going(program: Callable[[LoopState], LoopState], loop: LoopState) -> Callable[[], None]:
    """Goes on from where the last call ended."""
    held = [loop]

    def execute() -> None:
        held[0] = program(held[0])

    return execute


def sized(
    recipe: str, width: int, changes: dict[str, Any] | None = None, agent: str = "mrq"
) -> Any:
    """A recipe with one width for hidden layers and latents, and other settings changed."""
    config = make_config(agent, recipe)
    modules = roles_of(config)
    widths = {f"{module}.hidden": width for module in modules}
    latents = {"zs_size": width, "zsa_size": width, "za_size": width // 2}
    if "encoder" in modules:
        widths |= latents
    return override(config, {**widths, **(changes or {})})


def stored(kind: str, size: str, sparsity: float, structure: str, interval: int) -> Any:
    """SAC of a kind, sparse in both networks or dense.

    Args:
        kind: `dense`, a regime in compact storage, or the same with masks, `masked_REGIME`.
        size: as `--size`.
        sparsity: of both networks.
        structure: of both.
        interval: updates between two rewires.
    """
    if kind == "dense":
        return make_config("sac", "dense", size)
    masked, _, regime = kind.rpartition("_")
    config = make_config("sac", f"all_{regime}", size)
    own = {"sparsity": sparsity, "structure": structure, "interval": interval}
    own["storage"] = masked or "compact"
    changes = {f"{name}.{key}": value for name in roles_of(config) for key, value in own.items()}
    return override(config, changes)
