"""Updates on a batch that is at hand, of ours beside a peer's: what is left out is drawing it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.harness import CLOCKS, interleave
from benchmarks.programs import fused
from mst_jax.agents import Clock, Experience, Sizes, make_agent
from mst_jax.program.state import over_seeds
from mst_jax.replay import Subtrajectory, Transition


class AtHand(NamedTuple):
    """A replay view that always hands out the same batch.

    Attributes:
        batch: steps of a return.
        path: steps of a model's horizon, for agents that have one.
    """

    batch: Transition
    path: Subtrajectory | None = None

    @property
    def terminal_seen(self) -> jax.Array:
        """See `replay.View`."""
        return jnp.array(True)

    def mean_absolute_reward(self) -> jax.Array:
        """See `replay.View`."""
        return jnp.ones(())

    def sample(self, key: jax.Array, batch_size: int) -> jax.Array:
        """See `replay.View`."""
        del key
        return jnp.arange(batch_size)

    def probability(self, indices: jax.Array) -> jax.Array:
        """See `replay.View`."""
        return jnp.full(indices.shape, 1e-3)

    def transition(self, indices: jax.Array, n: int) -> Transition:
        """See `replay.View`."""
        del indices, n
        return self.batch

    def subtrajectory(self, indices: jax.Array, length: int) -> Subtrajectory:
        """See `replay.View`."""
        del indices, length
        assert self.path is not None  # an agent with a horizon is given one
        return self.path


class Task(NamedTuple):
    """What is measured.

    Attributes:
        agent: its name.
        config: its settings.
        sizes: of its task.
        clock: of a repeat's first update; the others follow it.
        updates: of one repeat; as many as lie between two that do more than the others.
        filled: agent steps in the buffer of a whole step.
        views: number of seeds -> what each learns from, random, in NumPy.
    """

    agent: str
    config: Any
    sizes: Sizes
    clock: Clock
    updates: int
    filled: int
    views: Callable[[int], AtHand]


def beside(
    peer: Callable[[], None], task: Task, counts: list[int], repeats: int, clock: str
) -> dict[str, float]:
    """Milliseconds of an update by a peer and by programs of these numbers of seeds.

    `N_seeds` is the update alone, `N_seeds_step` all that the training program does for a step that
    learns.
    """
    programs = {"torch": peer}
    for count in counts:
        programs[f"{count}_seeds"] = _updates(task, count)
        step = fused(task.config, count, task.updates, task.agent, task.sizes, task.filled)
        programs[f"{count}_seeds_step"] = step.execute
    seconds = interleave(programs, repeats, CLOCKS[clock])
    row = {f"{name}_ms": 1e3 * value / task.updates for name, value in seconds.items()}
    for count in counts:
        row[f"{count}_seeds_over_torch"] = count * seconds["torch"] / seconds[f"{count}_seeds"]
    return row


def _updates(task: Task, count: int) -> Callable[[], None]:
    """Updates of `count` seeds, each on a batch of its own."""
    agent = make_agent(task.agent, task.config, task.sizes, 1_000_000)
    views = jax.tree.map(jnp.asarray, task.views(count))
    keys = jax.random.split(jax.random.key(0), count)

    def update(state: Any, own: AtHand, key: jax.Array, clock: Clock) -> Any:
        return agent.learn(state, Experience(None, own), key, clock)[:2]

    program = jax.jit(over_seeds(update, count, (0, 0, 0, None)), donate_argnums=0)
    held = [jax.jit(over_seeds(agent.init, count))(keys)]
    clocks = [jax.tree.map(lambda now, n=n: now + n, task.clock) for n in range(task.updates)]

    def execute() -> None:
        for clock in clocks:
            held[0], _ = program(held[0], views, keys, clock)
        jax.block_until_ready(held[0])

    return execute
