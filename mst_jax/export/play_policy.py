"""Plays a policy that `mst_jax.export_policy` wrote; needs NumPy and nothing else.

    policy = load("policy.npz")
    policy.reset()  # at the start of every episode
    action = policy.act(observation)

For one observation at a time one thread is fastest: set OPENBLAS_NUM_THREADS=1 (MKL_NUM_THREADS=1)
before NumPy is imported.
"""

import json
from typing import Any

import numpy as np

VERSION = 1  # of the file's format
OPERATIONS = {
    "Dense": lambda x, pile, kernel, bias: x @ kernel + bias,
    "LayerNorm": lambda x, pile, epsilon: _centred(x) / np.sqrt(_variance(x) + epsilon),
    "Scale": lambda x, pile, factor: x * factor,
    "Shift": lambda x, pile, offset: x + offset,
    "Elu": lambda x, pile: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "Relu": lambda x, pile: np.maximum(x, 0),
    "LeakyRelu": lambda x, pile, slope: np.where(x > 0, x, slope * x),
    "Tanh": lambda x, pile: np.tanh(x),
    "Keep": lambda x, pile: (pile.append(x), x)[1],
    "Add": lambda x, pile: x + pile.pop(),
    "Bounded": lambda x, pile, low, high: np.clip(np.where(np.isfinite(x), x, 0), low, high),
}


class Policy:
    """A deterministic policy, without exploration noise.

    Attributes:
        description: what it takes and gives, and where it comes from.
    """

    def __init__(self, description: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        self.description = description
        self._program = [
            (OPERATIONS[name], {**numbers, **_of(index, arrays)})
            for index, (name, numbers) in enumerate(description["operations"])
        ]
        self.reset()
        self.act(np.zeros(description["observation"]["size"]))  # raises if sizes do not fit
        self.reset()

    def reset(self) -> None:
        """An episode begins: forgets the time and the frames that were seen."""
        self._steps, self._frames = 0, []

    def act(self, observation: np.ndarray) -> np.ndarray:
        """The next action, float32 (..., A).

        Args:
            observation: (..., O) what the environment shows: without the time, and the newest frame
                alone. Leading axes are of environments whose episodes began together.

        Raises:
            ValueError: the last axis is not O.
        """
        x = np.asarray(observation, np.float32)
        if x.ndim == 0 or x.shape[-1] != self.description["observation"]["size"]:
            wanted = self.description["observation"]["size"]
            raise ValueError(f"the policy takes {wanted} numbers, (..., {wanted}), not {x.shape}")
        x, pile = self._complete(x), []
        with np.errstate(all="ignore"):  # what is not finite is made an action of zero
            for operation, fields in self._program:
                x = operation(x, pile, **fields)
        if x.shape[-1] != self.description["action"]["size"]:
            raise ValueError("the last operation does not give an action")
        return x

    def _complete(self, x: np.ndarray) -> np.ndarray:
        """What the network sees: the last frames, and the time behind them."""
        seen, steps = self.description["observation"], self._steps
        self._steps += 1
        if seen["history"] > 1:
            before = x if seen["fill"] == "repeat" else np.zeros_like(x)
            frames = self._frames or [before] * seen["history"]
            self._frames = [*frames[1:], x]
            x = np.concatenate(self._frames, axis=-1)
        if seen["time"] != "off":
            steps = max(steps - (seen["time"] == "published"), 0)
            now = np.full((*x.shape[:-1], 1), steps / seen["limit"] - 0.5, np.float32)
            x = np.concatenate([x, now], axis=-1)
        return x


def load(path: Any) -> Policy:
    """Reads a policy from a .npz file.

    Raises:
        OSError: the file is not there or cannot be read.
        ValueError: it is damaged, of another version, or no exported policy.
    """
    try:
        with open(path, "rb") as source, np.load(source) as file:  # noqa: PTH123
            arrays = {name: file[name] for name in file.files}
        description = json.loads(str(arrays.pop("description")))
        version = description["version"]
        policy = Policy(description, arrays) if version == VERSION else None
    except OSError:
        raise
    except Exception as error:  # whatever a damaged file leads to
        why = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path} is no exported policy, or is damaged ({why})") from error
    if policy is None:
        raise ValueError(f"{path} is of version {version}, and this program plays {VERSION}")
    return policy


def _of(index: int, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of one operation by name, float32."""
    prefix = f"{index}/"
    own = {name: array for name, array in arrays.items() if name.startswith(prefix)}
    return {name[len(prefix) :]: array.astype(np.float32) for name, array in own.items()}


def _centred(x: np.ndarray) -> np.ndarray:
    return x - x.mean(axis=-1, keepdims=True)


def _variance(x: np.ndarray) -> np.ndarray:
    return np.square(_centred(x)).mean(axis=-1, keepdims=True)
