"""Brax environments: pure JAX, stepped on the device, with episodes of our own (`episodic`).

Names are `<environment>`, which takes the backend in `DEFAULT_BACKEND`, or
`<environment>@<backend>`. Each backend is a physics of its own: returns do not compare across them.
"""

from mst_jax.envs.base import JaxEnv
from mst_jax.envs.device.physics import make_episodic
from mst_jax.envs.quiet import quiet

with quiet():
    from brax import envs

EPISODE_LENGTH = 1000  # control steps, as in brax's own training

# Spring is the fastest, but brax does not adjust time step and gears for it everywhere; with it the
# pusher takes 50 substeps, and the inverted pendulum's control step is another one.
DEFAULT_BACKEND = {
    "ant": "spring",
    "halfcheetah": "spring",
    "hopper": "generalized",
    "humanoid": "spring",
    "humanoidstandup": "spring",
    "inverted_double_pendulum": "generalized",
    "inverted_pendulum": "generalized",
    "pusher": "generalized",
    "reacher": "spring",
    "swimmer": "generalized",
    "walker2d": "generalized",
}
BACKENDS = ("generalized", "mjx", "positional", "spring")


def tasks() -> list[str]:
    """Lists the environments, and each with every backend that it loads with."""
    return [*DEFAULT_BACKEND, *(f"{n}@{b}" for n in DEFAULT_BACKEND for b in backends(n))]


def backends(environment: str) -> tuple[str, ...]:
    """The backends that an environment loads with."""
    return ("generalized",) if environment == "swimmer" else BACKENDS


def make(
    name: str, action_repeat: int | None = None, episode_length: int = EPISODE_LENGTH
) -> JaxEnv:
    """Makes one of `tasks()`.

    Every environment takes actions in [-1, 1] and maps them to its actuators itself.

    Args:
        name: one of `tasks()`.
        action_repeat: control steps per agent step; None means 1.
        episode_length: time limit in control steps.

    Raises:
        ValueError: if the action repeat does not divide the time limit.
    """
    return make_episodic(f"brax:{name}", load(name), action_repeat, episode_length)


def load(name: str) -> envs.Env:
    """Brax's own environment, without wrappers."""
    environment, _, backend = name.partition("@")
    with quiet():
        return envs.get_environment(environment, backend=backend or DEFAULT_BACKEND[environment])
