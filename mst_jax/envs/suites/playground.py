"""MuJoCo Playground's ports of the DeepMind Control Suite: MJX physics, stepped on the device.

Locomotion and manipulation are not offered: loading them clones a repository of robot models.
"""

from mst_jax.envs.base import JaxEnv
from mst_jax.envs.device.physics import make_episodic
from mst_jax.envs.quiet import quiet

with quiet():
    from mujoco_playground import MjxEnv, dm_control_suite

EPISODE_LENGTH = 1000  # control steps, as in Playground's own configurations

# Playground 0.2.0 builds these with a function that MuJoCo 3.17 no longer has.
BROKEN = ("ReacherEasy", "ReacherHard")


def tasks() -> list[str]:
    """Lists Playground's names of the ports that load."""
    return [name for name in dm_control_suite.ALL_ENVS if name not in BROKEN]


def make(
    name: str, action_repeat: int | None = None, episode_length: int = EPISODE_LENGTH
) -> JaxEnv:
    """Makes one of `tasks()`.

    Args:
        name: Playground's name.
        action_repeat: control steps per agent step; None means 1.
        episode_length: time limit in control steps.

    Raises:
        ValueError: if the action repeat does not divide the time limit.
    """
    return make_episodic(f"playground:{name}", load(name), action_repeat, episode_length)


def load(name: str) -> MjxEnv:
    """Playground's own environment, without wrappers."""
    with quiet():  # the default implementation, warp, is slow on a CPU and compiles at load
        return dm_control_suite.load(name, config_overrides={"impl": "jax"})
