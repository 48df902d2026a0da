"""What a run has learned, read from its light checkpoints."""

import itertools
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mst_jax import envs
from mst_jax.agents import Agent, player
from mst_jax.program.cache import kept, kept_task
from mst_jax.program.health import finite_policy
from mst_jax.program.state import Purpose, keys_for, seed_keys
from mst_jax.runs import checkpoints
from mst_jax.runs.folder import as_folder
from mst_jax.runs.health import healthy_at, read_diverged
from mst_jax.runs.light import from_light, masks_in, read_light
from mst_jax.runs.settings import Settings
from mst_jax.training.jobs import prepare


@kept
def _finite(agent: Agent) -> Callable[[Any], jax.Array]:
    return jax.jit(partial(finite_policy, agent))


class Snapshot(NamedTuple):
    """A light checkpoint of a run.

    Attributes:
        settings: of the run.
        agent: one-seed functions.
        states: agent states of all seeds; what acting does not read is zeros.
        masks: {path: bool (S, ...)} of every masked leaf; paths begin with the module's name.
        step: agent steps taken when it was written.
        diverged: seed -> the step by which the run's rows show that it had diverged; empty where
            the policies are of before.
    """

    settings: Settings
    agent: Agent
    states: Any
    masks: dict[str, np.ndarray]
    step: int
    diverged: Mapping[int, int]

    @property
    def healthy(self) -> np.ndarray:
        """Which seeds have a policy, (S,) bool: all that it reads is finite, and so was its run."""
        known = [healthy_at(self.step, self.diverged.get(s)) for s in self.settings.seed_list]
        return np.asarray(_finite(self.agent)(self.states)) & known

    def policy(self, seed: int | None = None) -> "Policy":
        """The policy of a seed, the first by default.

        Raises:
            ValueError: when the run does not hold the seed, or it has diverged.
        """
        index = self.settings.index_of(seed)
        if not self.healthy[index]:
            raise ValueError(
                f"seed {self.settings.seed_list[index]} has diverged: it has no policy at step "
                f"{self.step:,}; best=True loads its best and evaluate "
                "--best plays or films it, if it has one"
            )
        task = kept_task(self.settings.task, **self.settings.task_options)
        return Policy(self.agent, self.state(seed), task.spec)

    def state(self, seed: int | None = None) -> Any:
        """The agent state of a seed, the first by default; ValueError for one it does not hold."""
        index = self.settings.index_of(seed)
        return jax.tree.map(lambda leaf: leaf[index], self.states)


class Policy:
    """The policy of one seed as it is judged, without exploration noise.

    If it draws random numbers, they depend on a key, or on the number of calls before.
    """

    def __init__(self, agent: Agent, state: Any, spec: envs.Spec) -> None:
        self._act = jax.jit(_over_batch(partial(player(agent), state), len(spec.observation.shape)))
        self._spec, self._calls = spec, itertools.count()

    def act(self, observation: np.ndarray, key: jax.Array | None = None) -> np.ndarray:
        """Actions within the action space: (*O) to (*A,), or a batch (..., *O) to (..., *A).

        Raises:
            ValueError: when the last axes are not O; they would be broadcast silently.
        """
        wanted = self._spec.observation
        seen = jnp.asarray(observation, wanted.dtype)
        if seen.shape[max(0, seen.ndim - len(wanted.shape)) :] != wanted.shape:
            shape = ", ".join(str(size) for size in wanted.shape)
            raise ValueError(
                f"this policy takes observations of {wanted.size} numbers, (..., {shape}), not of "
                f"shape {seen.shape}"
            )
        if key is None:
            key = jax.random.fold_in(jax.random.key(0), next(self._calls))
        space = self._spec.action
        return space.bounded(space.safe(np.asarray(self._act(seen, key))))


def _over_batch(
    act: Callable[[jax.Array, jax.Array], jax.Array], rank: int
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """(observations (..., *O) of this rank of O, key) -> actions (..., *A), each its own key."""

    def acts(observation: jax.Array, key: jax.Array) -> jax.Array:
        lead = observation.shape[: observation.ndim - rank]
        if not lead:
            return act(observation, key)
        flat = observation.reshape(-1, *observation.shape[len(lead) :])
        action = jax.vmap(act)(flat, jax.random.split(key, len(flat)))
        return action.reshape(*lead, *action.shape[1:])

    return acts


def load_policy(folder: str | Path, seed: int | None = None, *, best: bool = False) -> Policy:
    """Reads the newest policy of a run.

    Args:
        folder: run folder.
        seed: one of the run's seeds; the first by default.
        best: the policy of the seed's best evaluation instead.

    Returns:
        The policy of that seed.

    Raises:
        TypeError: the folder is neither text nor a path.
        ValueError: when the folder is not a run, has no checkpoint yet or does not hold the seed,
            or the seed has diverged.
    """
    tier = checkpoints.BEST if best else checkpoints.LIGHT
    return load_snapshot(as_folder(folder), tier).policy(seed)


def load_snapshot(folder: Path, tier: str = checkpoints.LIGHT) -> Snapshot:
    """Reads the newest light checkpoint, or with tier `best` each seed's best policy so far.

    Raises:
        ValueError: when the folder is not a run, there is no checkpoint of that tier yet, or its
            config.json was changed since the run began.
    """
    settings, loaded = read_light(folder, tier)
    _, agent = prepare(settings)
    keys = keys_for(seed_keys(settings.seed_list), Purpose.AGENT)
    blank = jax.tree.map(_zeros, jax.eval_shape(jax.vmap(agent.init), keys))
    states = from_light(agent, loaded.arrays, blank)
    diverged = {} if tier == checkpoints.BEST else read_diverged(folder)  # chosen before that
    return Snapshot(settings, agent, states, masks_in(loaded.arrays), loaded.step, diverged)


def _zeros(shape: jax.ShapeDtypeStruct) -> Any:
    if jnp.issubdtype(shape.dtype, jax.dtypes.prng_key):
        return jax.vmap(jax.random.key)(jnp.zeros(shape.shape, jnp.uint32))
    return jnp.zeros(shape.shape, shape.dtype)
