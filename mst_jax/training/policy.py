"""A trained policy from a run folder, for use in Python."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mst_jax.agents import Agent
from mst_jax.training import checkpoints
from mst_jax.training.arrays import unflatten
from mst_jax.training.run_state import Purpose, keys_for, seed_keys
from mst_jax.training.settings import Settings, read_settings
from mst_jax.training.trainer import prepare


class Policy:
    """The policy of one seed, without exploration noise."""

    def __init__(self, agent: Agent, state: Any) -> None:
        self._act = jax.jit(lambda observation: agent.act(state, observation, None))

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Actions in [-1, 1] for one observation (O,) or several (..., O); (A,) or (..., A) float32."""
        return np.asarray(self._act(jnp.asarray(observation, jnp.float32)))


def load_policy(folder: str | Path, seed: int | None = None) -> Policy:
    """Reads the newest light checkpoint of a run.

    Args:
        folder: run folder.
        seed: one of the run's seeds; the first by default.

    Returns:
        The policy of that seed.

    Raises:
        ValueError: when the folder is not a run, has no checkpoint yet or does not hold the seed.
    """
    settings = read_settings(Path(folder))
    seed = settings.seed if seed is None else seed
    if seed not in settings.seed_list:
        raise ValueError(f"{folder} holds seeds {settings.seed_list}, not {seed}")
    _, agent, states, _ = load_agent_states(Path(folder))
    index = settings.seed_list.index(seed)
    return Policy(agent, jax.tree.map(lambda x: x[index], states))


def load_agent_states(folder: Path) -> tuple[Settings, Agent, Any, int]:
    """Settings, agent, the acting part of all seeds' states and the step of the newest light checkpoint.

    The fields of the state that acting does not read are zeros.
    """
    settings = read_settings(folder)
    _, agent = prepare(settings)
    loaded = checkpoints.load_newest(folder / "checkpoints", checkpoints.LIGHT)
    if loaded is None:
        raise ValueError(f"{folder} has no checkpoint yet; let it train to its first evaluation")
    keys = keys_for(seed_keys(settings.seed_list), Purpose.AGENT)
    shapes = jax.eval_shape(jax.vmap(agent.init), keys)
    acting = {name: getattr(shapes, name) for name in agent.acting}
    found = {name: a for name, a in loaded.arrays.items() if not name.startswith("masks/")}
    states = jax.tree.map(_zeros, shapes).replace(**unflatten(found, acting))
    return settings, agent, states, loaded.step


def _zeros(shape: jax.ShapeDtypeStruct) -> Any:
    if jnp.issubdtype(shape.dtype, jax.dtypes.prng_key):
        return jax.vmap(jax.random.key)(jnp.zeros(shape.shape, jnp.uint32))
    return jnp.zeros(shape.shape, shape.dtype)
