"""For agents whose networks take pictures."""

from mst_jax.agents.base import Sizes
from mst_jax.agents.parts.vectors import action_size


def picture_sizes(sizes: Sizes) -> tuple[tuple[int, int, int], int]:
    """Shape (H, W, C) of what the task shows, and how many numbers an action has.

    Raises:
        ValueError: as of `picture_shape`, or the task takes discrete actions.
    """
    return picture_shape(sizes), action_size(sizes)


def picture_shape(sizes: Sizes) -> tuple[int, int, int]:
    """Shape (H, W, C) of what the task shows.

    Raises:
        ValueError: the task shows no pictures, or holds no history of them.
    """
    shown = sizes.observation
    if shown.dtype != "uint8" or len(shown.shape) != 3:  # height, width, channels
        raise ValueError(
            "this agent takes pictures, uint8 [height, width, channels], and the task shows "
            f"{shown.dtype}{list(shown.shape)}: choose another of the two"
        )
    if shown.history < 1 or shown.shape[-1] % shown.history:
        raise ValueError(
            f"a picture's {shown.shape[-1]} channels cannot be a history of {shown.history}: the "
            "task must show at least one frame, and all of the same channels"
        )
    height, width, channels = shown.shape
    return height, width, channels
