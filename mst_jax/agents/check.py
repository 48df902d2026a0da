"""Whether an agent keeps the contract: what is wrong with a user's own, a line each.

It acts and learns for some calls on random transitions of a small task. Whether it learns anything
is for the probe environments to tell (`envs.make("probe:action_reward")` and others).
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mst_jax import replay, topology
from mst_jax.agents.base import (
    ROLES,
    Agent,
    Clock,
    Experience,
    Latest,
    Module,
    Occasional,
    Probe,
    Recycle,
    Sizes,
    acting_parts,
)
from mst_jax.agents.registry import UnmadeError, default_config, make_agent
from mst_jax.envs import Discrete
from mst_jax.names import kind_of
from mst_jax.user_code import one_line

TASK = Sizes.vector(3, 2, 20)
TOTAL_STEPS = 10_000
CALLS = 5  # of learn
_NO_LINE = (TypeError, ValueError, AttributeError, KeyError, IndexError)


def check(name: str, config: Any = None, task: Sizes = TASK) -> list[str]:
    """Lets an agent act and learn, and says where it breaks the contract of `Agent`.

    Args:
        name: one of ours, or the dotted name of a module.
        config: its settings; the defaults if None. Small networks compile sooner.
        task: what the environments show and take; `envs.make(...).spec` will do.

    Returns:
        What is wrong, a line each; an empty list if nothing was found.

    Raises:
        ValueError: there is no such agent, or its settings are impossible.
    """
    config = default_config(name) if config is None else config
    try:
        agent = make_agent(name, config, task, TOTAL_STEPS)
    except UnmadeError as error:
        return [str(error)]
    problems = list(_fields(agent))
    if problems:
        return problems
    try:
        problems.extend(_played(agent, task))  # what was found before an error stays
    except Exception as error:  # whatever a user's functions raise
        problems.append(f"{type(error).__name__}: {one_line(error)}")
    return list(dict.fromkeys(problems))


def _fields(agent: Agent) -> Iterator[str]:
    """What can be seen without running anything."""
    for name, module in agent.modules.items():
        if not isinstance(module, Module):
            yield f"modules[{name!r}] is {kind_of(module)}, not an agents.Module"
        elif module.role not in ROLES:
            yield f"modules[{name!r}] has the role {module.role!r}, none of {', '.join(ROLES)}"
        elif module.updates < 1:
            yield f"modules[{name!r}] takes {module.updates} updates in the whole run"
    if agent.learn_every < 1:
        yield f"learn_every is {agent.learn_every}"
    if agent.learning_starts < 0:
        yield f"learning_starts is {agent.learning_starts}"
    if not 0 <= agent.discount <= 1:
        yield f"discount is {agent.discount}, not in [0, 1]"


def _played(agent: Agent, task: Sizes) -> Iterator[str]:
    """Runs everything once, for one seed and for two."""
    keys = jax.random.split(jax.random.key(0), 2)
    states = jax.jit(jax.vmap(agent.init))(keys)
    state = jax.tree.map(lambda leaf: leaf[0], states)
    yield from _state(agent, state, states)
    yield from _acts(agent, state, task)
    experience = _experience(agent, task)
    learned = state
    learn = jax.jit(agent.learn)
    for number in range(CALLS):
        clock = Clock(jnp.int32(agent.learning_starts + 1), jnp.int32(number))
        learned, feedback, metrics = learn(learned, experience, keys[0], clock)
    yield from _same("learn", state, learned)
    yield from _learned(agent, state, learned, feedback, metrics)
    first = _alike(experience)
    clock = Clock(jnp.int32(agent.learning_starts + 1), jnp.int32(0))
    together = jax.jit(jax.vmap(agent.learn, (0, 0, 0, None)))(states, first, keys, clock)
    alone = learn(state, experience, keys[0], clock)
    if not _close(jax.tree.map(lambda leaf: leaf[0], together[2]), alone[2]):
        yield "learn gives other metrics under jax.vmap over seeds than alone"
    fresh = jax.jit(agent.reset)(learned, keys[1])
    yield from _same("reset", state, fresh)
    if not _equal(agent.masks(fresh), agent.masks(learned)):
        yield "reset changes the masks: the Reset baseline keeps them"
    yield from _values(agent, learned, task, experience, keys[0])


def _state(agent: Agent, state: Any, states: Any) -> Iterator[str]:
    for path, leaf in jax.tree_util.tree_leaves_with_path(states):
        if not isinstance(leaf, jax.Array):
            yield f"the state holds {kind_of(leaf)} at {_path(path)}: only arrays"
    for path in agent.acting:
        try:
            acting_parts(agent._replace(acting=(path,)), state)
        except LookupError:
            yield f"acting names {path!r}, which is no part of the state"
    params, masks = agent.parameters(state), agent.masks(state)
    for what, found in (("parameters", params), ("masks", masks)):
        missing = sorted(agent.modules.keys() - found.keys())
        if missing:
            yield f"{what}(state) has no {missing[0]!r}, which modules names"
    if all((leaf[0] == leaf[1]).all() for leaf in jax.tree.leaves(agent.parameters(states))):
        yield "two seeds have the same first parameters: init must use its key"
    buffers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(states) if leaf.size]
    if len(set(buffers)) < len(buffers):
        yield "the state holds one buffer twice, so it cannot be donated: copy it (jnp.copy)"
    yield from _masked(agent, state, "after init")


def _masked(agent: Agent, state: Any, when: str) -> Iterator[str]:
    params, masks = topology.densified(agent.parameters(state)), agent.masks(state)
    for name in agent.modules:
        if not _equal(topology.apply(masks[name], params[name]), params[name]):
            yield f"{when} {name} has weights outside its mask: use Trained, or topology.init"


def _acts(agent: Agent, state: Any, task: Sizes) -> Iterator[str]:
    observation = jnp.asarray(_observations(task, 1)[0])
    key, clock = jax.random.key(1), Clock(jnp.int32(0), jnp.int32(0))
    chosen = {
        "act": jax.jit(agent.act)(state, observation, key, clock),
        "act without key and clock": agent.act(state, observation, None, None),
    }
    if agent.evaluate is not None:
        chosen["evaluate"] = jax.jit(agent.evaluate)(state, observation, key)
    if agent.explore is not None:
        chosen["explore"] = jax.jit(agent.explore)(state, observation, key, clock)
    shape, dtype = task.action.shape, task.action.dtype
    for what, action in chosen.items():
        if action.shape != shape or action.dtype != np.dtype(dtype):
            yield (
                f"{what} returns {action.dtype}{list(action.shape)}, expected {dtype}{list(shape)}"
            )
        elif not np.isfinite(action).all():
            yield f"{what} returns an action that is not finite"
    again = agent.act(state, observation, None, None)
    if not _equal(again, chosen["act without key and clock"]):
        yield "act without a key returns another action the second time"
    shown = jnp.asarray(_observations(task, 2))
    observed = jax.jit(agent.observe)(state, shown, jnp.array([True, False]))
    yield from _same("observe", state, observed)


def _experience(agent: Agent, task: Sizes) -> Experience:
    """A full memory of random transitions, and the last of them."""
    memory = agent.memory
    generator = np.random.default_rng(0)
    span = 1 if memory is None else memory.span
    layout = replay.Layout(task.observation, task.action, span, capacity=8 * (span + 2) + 64)
    buffer = replay.create(layout)
    insert = jax.jit(replay.insert)
    shown = _observations(task, layout.capacity + 1)
    for number in range(layout.capacity):
        latest = Latest(
            observation=jnp.asarray(shown[number : number + 1]),
            action=jnp.asarray(_action(task, generator)),
            reward=jnp.asarray(generator.normal(size=1), jnp.float32),
            terminated=jnp.array([number % 17 == 16]),
            truncated=jnp.array([number % 17 == 8]),
            next_observation=jnp.asarray(shown[number + 1 : number + 2]),
        )
        buffer = insert(buffer, *latest)
    view = jax.tree.map(lambda leaf: leaf[0], replay.view(buffer))
    return Experience(latest, None if memory is None else view)


def _learned(agent: Agent, state: Any, learned: Any, feedback: Any, metrics: Any) -> Iterator[str]:
    if _equal(agent.parameters(state), agent.parameters(learned)):
        yield f"{CALLS} calls of learn change no parameter"
    finite = [np.isfinite(leaf).all() for leaf in jax.tree.leaves(agent.parameters(learned))]
    if not all(finite):
        yield f"parameters are not finite after {CALLS} calls of learn"
    yield from _masked(agent, learned, "after learning")
    prioritised = agent.memory is not None and agent.memory.prioritised
    if prioritised and feedback is None:
        yield "memory is prioritised, and learn returns no Feedback"
    if not prioritised and feedback is not None:
        yield "learn returns Feedback, and memory is not prioritised"
    for name, value in metrics.items():
        number = value.total if isinstance(value, Occasional) else value
        if jnp.shape(number) != () or not jnp.issubdtype(jnp.asarray(number).dtype, jnp.floating):
            yield f"metric {name!r} is no float scalar"


def _values(
    agent: Agent, state: Any, task: Sizes, experience: Experience, key: jax.Array
) -> Iterator[str]:
    if agent.value is not None:
        observation = jnp.asarray(_observations(task, 1)[0])
        action = agent.act(state, observation, None, None)
        value = jax.jit(agent.value)(state, observation, action)
        if value.shape != () or not np.isfinite(value):
            yield f"value returns {value.dtype}{list(value.shape)}, not a finite scalar"
    if agent.probe is None or experience.replay is None:
        return
    probes = agent.probe(state, Experience(None, experience.replay), key, 8)
    sound = True
    for name, probe in probes.items():
        if not isinstance(probe, Probe) or name not in agent.modules:
            yield f"probe returns {name!r}: give a Probe of each of {', '.join(agent.modules)}"
            sound = False
            continue
        sample = jax.tree.map(lambda leaf: leaf[0], probe.samples)
        try:
            loss = probe.loss(probe.params, sample)
        except _NO_LINE as error:
            yield f"probe[{name!r}].loss fails on one sample: {one_line(error)}"
            continue
        if jnp.shape(loss) != ():
            yield f"probe[{name!r}].loss returns shape {jnp.shape(loss)}, not a scalar"
    entries = [one for module in agent.modules.values() for one in module.plan.entries().values()]
    compact = any(entry.compact for _, _, entry in entries)  # cannot be recycled, see `program`
    if sound and agent.recycle is not None and not compact:
        yield from _recycled(agent, agent.recycle, state, probes, key)


def _recycled(
    agent: Agent, recycle: Recycle, state: Any, probes: Mapping[str, Probe], key: jax.Array
) -> Iterator[str]:
    """Units up to the mean begin again: some of every layer."""
    activities = {name: probe.activity for name, probe in probes.items()}
    fresh = jax.jit(recycle)(state, activities, key, 1.0)
    other = list(_same("recycle", state, fresh))
    yield from other
    if other:
        return
    if not _equal(agent.masks(fresh), agent.masks(state)):
        yield "recycle changes the masks: only weights begin again"
    yield from _masked(agent, fresh, "after recycle")


def _observations(task: Sizes, count: int) -> np.ndarray:
    """Random ones, (count, *O)."""
    generator, shown = np.random.default_rng(1), task.observation
    shape = (count, *shown.shape)
    if shown.dtype == "uint8":
        return generator.integers(0, 256, shape).astype(np.uint8)
    return generator.normal(size=shape).astype(np.float32)


def _action(task: Sizes, generator: np.random.Generator) -> np.ndarray:
    """A random one, (1, *A)."""
    if isinstance(task.action, Discrete):
        return generator.integers(0, task.action.count, (1,)).astype(np.int32)
    return generator.uniform(-1, 1, (1, *task.action.shape)).astype(np.float32)


def _same(what: str, before: Any, after: Any) -> Iterator[str]:
    """Whether a state kept its structure, shapes and dtypes."""
    if jax.tree.structure(before) != jax.tree.structure(after):
        yield f"{what} returns a state of another structure"
        return
    for (path, old), new in zip(
        jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True
    ):
        if old.shape != new.shape or old.dtype != new.dtype:
            yield (
                f"{what} turns {_path(path)} from {old.dtype}{list(old.shape)} into "
                f"{new.dtype}{list(new.shape)}"
            )


def _alike(experience: Experience) -> Experience:
    """The same for two seeds."""
    return jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), experience)


def _path(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _equal(one: Any, other: Any) -> bool:
    leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(a, b) for a, b in leaves)


def _close(one: Any, other: Any) -> bool:
    leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.allclose(a, b, rtol=1e-3, atol=1e-3) for a, b in leaves)
