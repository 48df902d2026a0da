"""The best policy of each seed so far, and the final evaluation that judges it fairly."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mst_jax.program.evaluation import Evaluation
from mst_jax.runs.arrays import Arrays
from mst_jax.runs.health import mean_of_known

POLICY = "policy/"
# Far beyond the number of any evaluation during training, so the start states are fresh ones.
FINAL_INDEX = 500_000


class BestPolicies:
    """Each seed's light-checkpoint arrays at its evaluation with the highest mean return.

    Seeds choose independently, and of equal returns the earliest wins. The return that a policy was
    chosen by is its luckiest, not a fair estimate: `evaluate_final` plays it again.
    """

    def __init__(self, num_seeds: int) -> None:
        self.policies: Arrays = {}
        self.returns = np.full(num_seeds, -np.inf)
        self.steps = np.full(num_seeds, -1)

    def update(self, policies: Arrays, returns: np.ndarray, healthy: np.ndarray, step: int) -> None:
        """Takes over the seeds that are healthy, have a return, and are better than before.

        Args:
            policies: arrays of a light checkpoint, (S, ...) each.
            returns: mean evaluation return of each seed (S,); NaN for none.
            healthy: whether what the policies hold is finite (S,) bool.
            step: agent steps taken.
        """
        better = healthy & np.isfinite(returns) & (returns > self.returns)
        if not self.policies:
            self.policies = {name: np.array(value) for name, value in policies.items()}
        for name, value in policies.items():
            self.policies[name][better] = value[better]
        self.returns = np.where(better, returns, self.returns)
        self.steps = np.where(better, step, self.steps)

    def to_arrays(self) -> Arrays:
        """All of it as named arrays."""
        named = {f"{POLICY}{name}": value for name, value in self.policies.items()}
        return {**named, "returns": self.returns, "steps": self.steps}

    def restore(self, arrays: Arrays) -> None:
        """Takes over what `to_arrays` returned; ValueError when it is something else."""
        if not {"returns", "steps"} <= arrays.keys():
            raise ValueError("the checkpoint holds no best policies: an earlier version wrote it")
        self.returns, self.steps = arrays["returns"], arrays["steps"]
        self.policies = {
            # Copies: what a checkpoint was read into need not be writable.
            name.removeprefix(POLICY): np.array(value)
            for name, value in arrays.items()
            if name.startswith(POLICY)
        }


def evaluate_final(
    play: Callable[[Any, int], Evaluation],
    last: Any,
    best: Any,
    chosen: BestPolicies,
    healthy: Mapping[str, np.ndarray],
) -> list[dict[str, Any]]:
    """Plays the last and the best policies on the same episodes, which no choice was based on.

    Args:
        play: (agent states, index) -> episodes of every seed; an evaluator.
        last: agent states of all seeds after the last step.
        best: agent states of all seeds at their best evaluations.
        chosen: how the best ones were chosen.
        healthy: of the `last` and the `best` policies, (S,) bool each; the others have no return.

    Returns:
        One row for each seed.
    """
    healthy = {"last": healthy["last"], "best": healthy["best"] & (chosen.steps >= 0)}
    played = {
        name: play(states, FINAL_INDEX).of_healthy(healthy[name]).returns
        for name, states in (("last", last), ("best", best))
    }
    return [
        {
            **_judged("last", played["last"][index]),
            **_judged("best", played["best"][index]),
            "best/step": int(step) if step >= 0 else None,
            "best/return_when_chosen": chosen.returns[index],
        }
        for index, step in enumerate(chosen.steps)
    ]


def _judged(policy: str, returns: np.ndarray) -> dict[str, Any]:
    """What a row says of one policy's episodes, and how many of them have a return."""
    return {
        f"{policy}/return": mean_of_known(returns),
        f"{policy}/returns": returns,
        f"{policy}/episodes": np.isfinite(returns).sum(),
    }
