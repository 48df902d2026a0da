"""Whether an exported policy acts as the agent does, on 1,000 observations."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mst_jax.envs import Observation
from mst_jax.envs.timed import time_after
from mst_jax.export.policy_file import PolicyFile, range_of
from mst_jax.networks.operations import Operation, Scale, Shift

TOLERANCE = 1e-5  # of a float32 policy, in units of half the action range
EPISODES, STEPS = 50, 20


def largest_difference(file: PolicyFile, act: Callable[[np.ndarray], np.ndarray]) -> float:
    """How far the policy as it is played is from the agent's, in units of half the action range.

    Both see 1,000 observations, in episodes of which the policy keeps time and frames itself. They
    are standard normal in the units that the network sees.

    Args:
        file: the policy.
        act: the agent's: whole observations (B, O) to actions (B, A) in [-1, 1].
    """
    policy, seen = file.player(), file.description["observation"]
    half, middle = range_of(file.description["action"])
    frames = _frames(file.operations, seen)
    differences = [
        np.abs((policy.act(frame) - middle) / half - act(whole)).max()
        for frame, whole in zip(frames, _whole(frames, seen), strict=True)
    ]
    return float(np.max(differences))


def _frames(operations: Sequence[Operation], seen: Mapping[str, Any]) -> np.ndarray:
    """What the environments show, (STEPS, EPISODES, size)."""
    shown = np.random.default_rng(0).standard_normal((STEPS, EPISODES, seen["size"]))
    newest = slice((seen["history"] - 1) * seen["size"], seen["history"] * seen["size"])
    normaliser = list(itertools.takewhile(lambda o: isinstance(o, (Scale, Shift)), operations))
    for operation in reversed(normaliser):
        if isinstance(operation, Scale):
            shown = shown / operation.factor[newest]
        elif isinstance(operation, Shift):
            shown = shown - operation.offset[newest]
    return shown.astype(np.float32)


def _whole(frames: np.ndarray, seen: Mapping[str, Any]) -> Iterator[np.ndarray]:
    """What an agent is shown of these frames, step by step, as the environments make it."""
    size = seen["size"] * seen["history"]
    space = Observation((size,), history=seen["history"], fill=seen["fill"])
    stack = np.zeros((EPISODES, size), np.float32)
    for step, frame in enumerate(frames):
        stack = np.concatenate([stack[:, seen["size"] :], frame], axis=1)
        stack = stack if step else space.fresh(stack)
        if seen["time"] == "off":
            yield stack
        else:
            now = time_after(np.full((EPISODES, 1), step), seen["limit"], seen["time"])
            yield np.concatenate([stack, now.astype(np.float32)], axis=1)
