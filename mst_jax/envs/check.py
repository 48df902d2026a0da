"""Whether an environment keeps the contract: what is wrong with a user's own, a line each.

A few hundred random steps are taken; what these do not meet is not seen.
"""

import contextlib
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from mst_jax.envs.base import EnvironmentFailedError, HostTask, JaxEnv, Spec, Timestep
from mst_jax.envs.registry import make
from mst_jax.envs.spaces import FILLS, Continuous, Discrete, Observation
from mst_jax.names import kind_of
from mst_jax.user_code import one_line

if TYPE_CHECKING:
    import jax

STEPS = 200
SEEDS = ((0, 0), (0, 1), (7, 0))
UNCOUNTED = "the state has no int32 `errors` that counts lost steps: `envs.episodic` adds it"


def check(task: str | JaxEnv | HostTask, steps: int = STEPS) -> list[str]:
    """Takes random steps in a task and says where it breaks the contract.

    Args:
        task: a name, or what `make` would return.
        steps: how many steps to take in each of three environments.

    Returns:
        What is wrong, a line each; an empty list if nothing was found.

    Raises:
        ValueError: if the name is unknown, its code cannot be loaded, or the machine lacks what
            it needs.
    """
    made = make(task) if isinstance(task, str) else task
    problems = list(_spec(made.spec))
    if problems:
        return problems
    if isinstance(made, HostTask) and made.preflight is not None:
        made.preflight()
    with contextlib.redirect_stdout(io.StringIO()) as printed:  # a line of each of many lost steps
        played = _jax(made, steps) if isinstance(made, JaxEnv) else _host(made, steps, printed)
        return list(dict.fromkeys(played))  # in order, each once


def faults_at_once(task: JaxEnv | HostTask) -> list[str]:
    """What can be said of a task without a step of it, a line each: its spec, types and shapes."""
    problems = list(_spec(task.spec))
    return problems or (list(_misshapen(task)) if isinstance(task, JaxEnv) else [])


def _spec(spec: Spec) -> Iterator[str]:
    observation, action = spec.observation, spec.action
    if not isinstance(observation, Observation):
        yield f"spec.observation is {kind_of(observation)}, not an Observation"
        return
    if not observation.shape or min(observation.shape) < 1:
        yield f"spec.observation.shape is {observation.shape}: give at least one axis, none empty"
        return
    if observation.dtype not in ("float32", "uint8"):
        yield f"spec.observation.dtype is {observation.dtype!r}, not 'float32' or 'uint8'"
    if observation.history < 1 or observation.shape[-1] % observation.history:
        yield (
            f"spec.observation.history is {observation.history}, and the last axis of "
            f"{observation.shape} does not hold as many equal parts"
        )
    if observation.fill not in FILLS:
        yield f"spec.observation.fill is {observation.fill!r}, none of {', '.join(FILLS)}"
    if not 0 <= observation.unscaled < observation.shape[-1]:
        yield f"spec.observation.unscaled is {observation.unscaled} of {observation.shape[-1]}"
    if not isinstance(action, (Continuous, Discrete)):
        yield f"spec.action is {kind_of(action)}, not Continuous or Discrete"
    elif (action.count if isinstance(action, Discrete) else action.size) < 1:
        yield f"spec.action is {action}: there is no action to choose"
    elif isinstance(action, Continuous):
        yield from _units(action)
    if spec.episode_length is not None and spec.episode_length < 1:
        yield f"spec.episode_length is {spec.episode_length}; None stands for no time limit"
    if spec.action_repeat < 1:
        yield f"spec.action_repeat is {spec.action_repeat}"


def _units(action: Continuous) -> Iterator[str]:
    """Whether -1 and 1 stand for numbers that make sense."""
    low, high = action.low, action.high
    if low is None and high is None:
        return
    if not (_is_bound(low, action.size) and _is_bound(high, action.size)):
        yield (
            f"spec.action.low and high are {low} and {high}: give a tuple of {action.size} for "
            "each, or neither"
        )
    elif not (np.isfinite([low, high]).all() and (np.diff([low, high], axis=0) > 0).all()):
        yield f"spec.action.low {low} must be below high {high}, and all finite"


def _is_bound(bound: object, size: int) -> bool:
    return isinstance(bound, tuple) and len(bound) == size


def _host(task: HostTask, steps: int, printed: io.StringIO) -> Iterator[str]:
    """Steps, the same again in other company, and from a snapshot in the middle.

    What the environments print of steps they lose is in `printed`.
    """
    spec, actions = task.spec, _actions(task.spec, steps)
    try:
        with task.vector(SEEDS, workers=1) as env:
            first, rows, snapshot = _play(env, actions, steps // 2)
            lost = int(env.errors.sum())
        if lost:
            line = printed.getvalue().partition("\n")[0]
            yield f"{lost} of {len(SEEDS) * steps} steps were lost; the first: {line}"
        if lost == len(SEEDS) * steps:
            return
        yield from _shapes(spec, first, rows)
        too_long = list(_lengths(spec, rows))
        yield from too_long
        if too_long:
            return  # snapshots have room for episodes of that length
        with task.vector(SEEDS[::-1], workers=1) as env:
            other, again, _ = _play(env, actions[:, ::-1], 0)
        mirrored = [_reversed(row) for row in again]
        if not _equal([other[::-1], *mirrored], [first, *rows]):
            yield (
                "the same seeds and actions led to something else in another order of "
                "environments: an episode must depend on its seed and actions alone"
            )
        with task.vector(SEEDS, workers=1) as env:
            env.restore(snapshot)
            rest = [env.step(action) for action in actions[steps // 2 :]]
        if not _equal(rest, rows[steps // 2 :]):
            yield (
                "going on from a snapshot led to something else: an episode must depend on its "
                "seed and actions alone, whatever the instance did before"
            )
    except EnvironmentFailedError as error:
        yield str(error)


def _play(env: Any, actions: np.ndarray, half: int) -> tuple[np.ndarray, list[Timestep], dict]:
    """The first observations, all steps, and a snapshot after `half` of them."""
    first, rows, snapshot = env.reset(), [], {}
    for number, action in enumerate(actions):
        if number == half:
            snapshot = env.snapshot()
        rows.append(env.step(np.ascontiguousarray(action)))
    return first, rows, snapshot


def _misshapen(env: JaxEnv) -> Iterator[str]:
    """What can be said of an environment in JAX without a step: types and shapes, a line each."""
    import jax

    try:
        state, shown = jax.eval_shape(env.reset, jax.random.key(0))
        following, timestep = jax.eval_shape(env.step, state, _actions(env.spec, 1)[0, 0])
    except Exception as error:  # whatever a user's functions raise
        why = f"{type(error).__name__}: {one_line(error)}"
        yield f"reset or step cannot be traced: {why}"
        return
    if not isinstance(timestep, Timestep):
        yield f"step returns {kind_of(timestep)} beside the state, not a Timestep"
        return
    if _types(state) != _types(following):
        yield "step returns a state of other types or shapes than reset: a loop must keep them"
        return
    if getattr(getattr(state, "errors", None), "dtype", None) != np.int32:
        yield UNCOUNTED
    yield from _shapes(env.spec, shown, [timestep], lead=())


def _jax(env: JaxEnv, steps: int) -> Iterator[str]:
    """Shapes first, then steps, and the same of one environment alone."""
    import jax

    wrong = list(_misshapen(env))
    yield from wrong
    if any(line != UNCOUNTED for line in wrong):
        return
    keys = jax.vmap(jax.random.key)(np.arange(len(SEEDS), dtype=np.uint32))
    actions = _actions(env.spec, steps)

    def play(key: "jax.Array", actions: "jax.Array") -> tuple["jax.Array", Timestep]:
        state, first = env.reset(key)
        return first, jax.lax.scan(env.step, state, actions)[1]

    first, many = jax.device_get(jax.jit(jax.vmap(play, (0, 1)))(keys, actions))
    rows = [Timestep(*(field[:, number] for field in many)) for number in range(steps)]
    yield from _flags(rows)
    if not all(np.isfinite(field).all() for field in (first, many.reward, many.observation)):
        yield "an observation or reward is not finite: `envs.episodic` makes such a step a lost one"
    lost = int(many.lost.sum())
    if lost:
        yield (
            f"{lost} of {len(SEEDS) * steps} steps were lost: something was not finite, in what "
            "was shown or in the state"
        )
    yield from _lengths(env.spec, rows)
    alone_first, alone = jax.device_get(jax.jit(play)(keys[-1], actions[:, -1]))
    close = lambda a, b: np.allclose(a, b, rtol=1e-3, atol=1e-3)  # noqa: E731
    begins = int(np.argmax(many.over[-1])) if many.over[-1].any() else steps
    if not (
        close(alone_first, first[-1])
        and close(alone.reward[:begins], many.reward[-1, :begins])
        and np.array_equal(alone.over[: begins + 1], many.over[-1, : begins + 1])
    ):
        yield "an environment alone does something else than among others (jax.vmap)"


def _shapes(
    spec: Spec, first: Any, rows: list[Timestep], lead: tuple[int, ...] = (len(SEEDS),)
) -> Iterator[str]:
    """Shapes and dtypes of what was returned, and on the host what the flags say."""
    shown = ((*lead, *spec.observation.shape), spec.observation.dtype)
    wanted = {
        **dict.fromkeys(("observation", "next_observation"), shown),
        "reward": (lead, "float32"),
        **dict.fromkeys(("terminated", "truncated", "lost", "over"), (lead, "bool")),
    }
    found = {name: getattr(rows[0], name) for name in wanted}
    found, wanted = (
        {"the first observation": first, **found},
        {"the first observation": shown, **wanted},
    )
    for name, array in found.items():
        shape, dtype = wanted[name]
        if tuple(array.shape) != shape or array.dtype != np.dtype(dtype):
            yield f"{name} is {array.dtype}{list(array.shape)}, expected {dtype}{list(shape)}"
    if lead:
        yield from _flags(rows)


def _flags(rows: list[Timestep]) -> Iterator[str]:
    for row in rows:
        ended = row.terminated | row.truncated
        if (row.terminated & row.truncated).any():
            yield "a step is terminated and truncated: a terminal state is only terminated"
        if (row.over & ~ended).any():
            yield "an episode is over without being terminated or truncated"
        same = (row.observation == row.next_observation).reshape(len(ended), -1).all(axis=1)
        if not same[~ended & ~row.lost].all():
            yield "observation and next_observation differ although no episode ended"


def _lengths(spec: Spec, rows: list[Timestep]) -> Iterator[str]:
    """Whether no episode is longer than the spec says."""
    length = np.zeros(len(SEEDS), int)
    for row in rows if spec.episode_length is not None else ():
        length += 1
        if (length > spec.episode_length).any():
            yield (
                f"an episode is longer than spec.episode_length={spec.episode_length}: "
                "step must say truncated at the time limit"
            )
            return
        length[np.asarray(row.over)] = 0


def _actions(spec: Spec, steps: int) -> np.ndarray:
    """Random actions (steps, environments, ...), of which some are at the bounds."""
    generator = np.random.default_rng(0)
    shape = (steps, len(SEEDS), *spec.action.shape)
    if isinstance(spec.action, Discrete):
        return generator.integers(0, spec.action.count, shape).astype(np.int32)
    return np.clip(generator.uniform(-1.2, 1.2, shape), -1, 1).astype(np.float32)


def _types(tree: Any) -> tuple:
    import jax

    leaves = [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)]
    return jax.tree.structure(tree), leaves


def _reversed(row: Timestep) -> Timestep:
    return Timestep(*(field[::-1] for field in row))


def _equal(one: list[Any], other: list[Any]) -> bool:
    """Whether arrays and timesteps are equal bit for bit."""
    flat = lambda items: [a for i in items for a in (i if isinstance(i, tuple) else (i,))]  # noqa: E731
    return all(np.array_equal(a, b) for a, b in zip(flat(one), flat(other), strict=True))
