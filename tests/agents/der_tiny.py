"""A small DER and its pictures, which several test files share."""

import jax
import jax.numpy as jnp

from mst_jax.agents import Sizes
from mst_jax.agents.rainbow.der import build_der
from mst_jax.envs import Discrete, Observation
from mst_jax.presets import preset_overrides
from mst_jax.recipes import make_config, override

ATARI = Observation((84, 84, 4), "uint8", history=4, fill="zeros")
TINY = Sizes(Observation((6, 5, 1), "uint8"), Discrete(3), 20)
PARTS = ("double", "dueling", "distributional", "noisy", "prioritised")
DQN = dict.fromkeys(PARTS, False)
SMALL = preset_overrides("der", "small", "any:task") | {
    "encoder.hidden": 4,
    "critic.hidden": 16,
    "atoms": 11,
    "batch_size": 8,
}
KEY = jax.random.key(0)


def tiny(recipe="dense", **changes):
    """DER's functions on pictures of 6x5."""
    return build_der(override(make_config("der", recipe), {**SMALL, **changes}), TINY, 1_000)


def with_values(agent, state, values):
    """The state with a plain critic that says these values of every picture."""
    critic = jax.tree.map(jnp.zeros_like, state.params["critic"])
    critic["value"]["bias"] = jnp.asarray(values, jnp.float32)
    return {**state.params, "critic": critic}
