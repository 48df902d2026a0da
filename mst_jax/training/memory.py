"""How many bytes a run will take, known before anything is allocated."""

import math
from typing import Any

import jax

from mst_jax import replay
from mst_jax.agents import Agent
from mst_jax.agents.base import acting_parts
from mst_jax.envs import Spec
from mst_jax.program.cache import kept
from mst_jax.program.state import Purpose, keys_for, replay_layout, seed_keys, stored
from mst_jax.runs import checkpoints, history
from mst_jax.runs.settings import Settings


def replay_slots(settings: Settings, agent: Agent, spec: Spec) -> int:
    """Slots per seed: the agent's capacity, or what the run can fill if that is less; 0 for none.

    Every environment has as many slots as the others, so up to E - 1 of the capacity are left out.

    Raises:
        ValueError: when an environment's share is too short to sample from.
    """
    count, memory = settings.environments, stored(agent)
    if memory is None:
        return 0
    fewest = replay.fewest_slots(memory.span, spec.observation.history)
    slots = min(memory.capacity // count, max(_most_slots(settings.steps, spec), fewest))
    if slots < fewest:
        raise ValueError(
            f"config.buffer_size={memory.capacity} is too small for environments={count}, "
            f"which need {fewest} slots each; raise it to {count * fewest} or more"
        )
    return count * slots


def _most_slots(steps: int, spec: Spec) -> int:
    """Slots that one environment can fill: a step takes one, and an episode's last observation too.

    An episode of one step takes two. Where all have the same length, only frames make use of it: it
    would move the slots that runs of vectors sample. Failures end episodes early, so that a run
    with many may lose as many of its oldest steps.
    """
    length, history = spec.episode_length, spec.observation.history
    if history == 1 or length is None or spec.ends_early:
        return 2 * steps + 2
    return steps + math.ceil(steps / length) + history  # a write ends those before it in the ring


def memory_bytes(agent: Agent, spec: Spec, settings: Settings) -> tuple[int, int]:
    """Bytes of the agent states and of the replay buffer, for all seeds of a run."""
    layout = _layout(agent, spec, settings)
    return _nbytes(_states(agent, settings.seeds)), 0 if layout is None else replay.nbytes(layout)


def describe_memory(agent: Agent, spec: Spec, settings: Settings) -> str:
    """One line: bytes of agent states and replay buffer, and the most that goes to disk.

    Of pictures it says what a million of them take, whatever the run's length.
    """
    agents, buffer = memory_bytes(agent, spec, settings)
    slots = replay_slots(settings, agent, spec)
    rings = f" for {settings.environments} environments" if settings.environments > 1 else ""
    replay_text = f"replay {human(buffer)} ({settings.seeds} seeds x {slots:,} slots{rings}"
    if slots and spec.observation.dtype == "uint8":
        million = human(1e6 * buffer / (settings.seeds * slots))
        replay_text += f", {million} for a million pictures"
    return (
        f"memory: agents {human(agents)}, {f'{replay_text})' if slots else 'no replay'}; on disk: "
        f"checkpoints up to {human(checkpoint_bytes(agent, spec, settings))}, topology history "
        f"{human(history.total_bytes(agent, settings))}"
    )


def checkpoint_bytes(agent: Agent, spec: Spec, settings: Settings) -> int:
    """The most that the checkpoints of a run take at once, one of each tier being written."""
    kept = checkpoints.KEPT
    full = kept[checkpoints.FULL] + 1
    layout = _layout(agent, spec, settings)
    # Best policies are in full checkpoints too.
    policies = full + sum(kept[tier] + 1 for tier in (checkpoints.LIGHT, checkpoints.BEST))
    whole = sum(memory_bytes(agent, spec, settings)) - _frame_bytes(layout)
    return (
        full * whole
        + _segment_bytes(layout, settings, full)
        + policies * light_bytes(agent, settings)
    )


def light_bytes(agent: Agent, settings: Settings) -> int:
    """Bytes of a light checkpoint."""
    seen = jax.eval_shape(
        lambda states: (acting_parts(agent, states), agent.masks(states)),
        _states(agent, settings.seeds),
    )
    return _nbytes(seen)


def human(count: float) -> str:
    """Bytes in a unit that reads well."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.3g} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def _layout(agent: Agent, spec: Spec, settings: Settings) -> replay.Layout | None:
    """Of the replay buffer of all seeds, if there is one."""
    slots = replay_slots(settings, agent, spec)
    sizes = settings.seeds, settings.environments, settings.row_dtype
    return replay_layout(agent, spec, slots, *sizes)


def _frame_bytes(layout: replay.Layout | None) -> int:
    """Bytes of the pictures in the buffer, which checkpoints share."""
    if layout is None or not layout.has_frames:
        return 0
    return layout.seeds * layout.capacity * math.prod(layout.part)


def _segment_bytes(layout: replay.Layout | None, settings: Settings, full: int) -> int:
    """The most that segments of pictures take for so many full checkpoints.

    A ring for the oldest, and what came since or reaches beyond it: a step writes two slots at
    most, and a segment one more.
    """
    if layout is None or not layout.has_frames:
        return 0
    each = min(2 * settings.checkpoint_every or layout.ring, layout.ring) + 1
    return _frame_bytes(layout) * (layout.ring + full * each) // layout.ring


@kept
def _states(agent: Agent, seeds: int) -> Any:
    """The shapes of the agent states of all seeds."""
    keys = keys_for(seed_keys(list(range(seeds))), Purpose.AGENT)
    return jax.eval_shape(jax.vmap(agent.init), keys)


def _nbytes(tree: Any) -> int:
    return sum(
        leaf.size
        * (8 if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf.dtype.itemsize)
        for leaf in jax.tree.leaves(tree)
    )
