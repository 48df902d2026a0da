"""What one slot of the buffer holds and how many slots there are: the only place of its sizes.

Flat float32 observations with continuous actions are one packed row, which one gather reads. All
others are named fields with dtypes of their own: a picture stays uint8, and a discrete action an
integer, which a row of half precision would round. Where an observation holds a history, a slot
keeps its newest part only, and how far it is from its episode's first.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from mst_jax.envs import Action, Observation

ROW_DTYPES = ("float32", "bfloat16", "float16")
OBSERVATION_DTYPES = ("float32", "uint8")
LONGEST_HISTORY = 256  # an age is a uint8


class Field(NamedTuple):
    """One array of the buffer, as it is in each slot.

    Attributes:
        shape: of a slot.
        dtype: name of the stored dtype.
    """

    shape: tuple[int, ...]
    dtype: str


@dataclasses.dataclass(frozen=True)
class Layout:
    """Sizes and dtypes of a buffer.

    Attributes:
        observation: what the environments show.
        action: the space of what they take.
        span: transitions that must follow a start, itself included, before it is sampleable. MR.Q:
            max(horizon, n)+1; one-step methods: 1. Samples may be up to `span` steps long.
        capacity: N, slots of each seed; a finished episode of T transitions takes T+1 of them.
        seeds: S.
        environments: E, each with a ring of N / E slots.
        row_dtype: stored dtype of float32 observations and of continuous actions (float32,
            bfloat16 or float16); they are always read as float32.

    Raises:
        ValueError: if a size is not positive, the capacity too small or no multiple of E, the last
            axis of an observation no multiple of its history, or a dtype not one of these.
    """

    observation: Observation
    action: Action
    span: int
    capacity: int
    seeds: int = dataclasses.field(default=1, compare=False)  # a part of a buffer is laid out alike
    environments: int = 1
    row_dtype: str = "float32"

    def __post_init__(self) -> None:
        self._check_sizes()
        self._check_observation()
        self._check_capacity()
        if self.row_dtype not in ROW_DTYPES:
            raise ValueError(
                f"row_dtype must be one of {', '.join(ROW_DTYPES)}, not {self.row_dtype}"
            )

    @property
    def ring(self) -> int:
        """Slots of each environment."""
        return self.capacity // self.environments

    @property
    def history(self) -> int:
        """Parts of an observation; only the newest is stored."""
        return self.observation.history

    @property
    def packed(self) -> bool:
        """Whether observation and action are one row."""
        return self.observation.is_vector and self.action.dtype == "float32"

    @property
    def has_frames(self) -> bool:
        """Whether observations are pictures, which checkpoints hold in segments."""
        return self.observation.dtype == "uint8"

    @property
    def part(self) -> tuple[int, ...]:
        """Shape of an observation's newest part."""
        *outer, last = self.observation.shape
        return (*outer, last // self.history)

    @property
    def fields(self) -> dict[str, Field]:
        """What a slot holds besides its reward, its flag and its priority, by name."""
        if self.packed:
            return {"rows": Field((self.observation.size + self.action.shape[0],), self.row_dtype)}
        fields = {
            # Flat: some devices pad a last axis of three.
            "observation": Field(
                (self.observation.size // self.history,), self._stored(self.observation.dtype)
            ),
            "action": Field(self.action.shape, self._stored(self.action.dtype)),
        }
        return fields | ({"age": Field((), "uint8")} if self.history > 1 else {})

    @property
    def numbers(self) -> dict[str, int]:
        """What tells this layout from others of as many seeds, for a checkpoint to remember."""
        observation, action = self.observation, self.action
        numbers = {
            "capacity": self.capacity,
            "observation_size": observation.size,
            "action_size": sum(action.shape),
            "span": self.span,
        }
        if self.packed:
            return numbers
        return numbers | {
            "history": self.history,
            "fill with zeros": int(observation.fill == "zeros"),
            **_axes("observation", observation.shape),
        }

    def split(self, observation: jax.Array, action: jax.Array) -> dict[str, jax.Array]:
        """What is stored of observations (E, *O) and actions (E, *A), by field, but for ages."""
        if self.packed:
            return {"rows": jnp.concatenate([observation, action], axis=1)}
        newest = self.observation.newest(observation)
        return {"observation": newest.reshape(len(newest), -1), "action": action}

    def _stored(self, dtype: str) -> str:
        return self.row_dtype if dtype == "float32" else dtype

    def _check_sizes(self) -> None:
        sizes = {
            "seeds": self.seeds,
            **_axes("observation", self.observation.shape),
            **_axes("action", self.action.shape),
            "span": self.span,
            "environments": self.environments,
        }
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} must be at least 1, not {size}")

    def _check_observation(self) -> None:
        shape, dtype, history = self.observation.shape, self.observation.dtype, self.history
        if dtype not in OBSERVATION_DTYPES:
            raise ValueError(
                f"observations must be {' or '.join(OBSERVATION_DTYPES)} to be stored, not {dtype}"
            )
        if not shape:
            raise ValueError("an observation needs at least one axis to be stored: use (1,)")
        if not 1 <= history <= LONGEST_HISTORY or shape[-1] % history:
            raise ValueError(
                f"observations {shape} cannot hold a history of {history}: it must divide the last "
                f"axis and be at most {LONGEST_HISTORY}"
            )

    def _check_capacity(self) -> None:
        capacity, environments = self.capacity, self.environments
        if capacity % environments:
            raise ValueError(
                f"capacity {capacity} cannot be shared evenly by {environments} environments: "
                f"use {capacity - capacity % environments} or another multiple"
            )
        smallest = environments * fewest_slots(self.span, self.history)
        if capacity < smallest:
            parts = "" if self.history == 1 else f", a history of {self.history}"
            rings = "" if environments == 1 else f" and {environments} environments"
            raise ValueError(
                f"capacity {capacity} is too small for a span of {self.span}{parts}{rings}: "
                f"use at least {smallest}"
            )


def _axes(name: str, shape: tuple[int, ...]) -> dict[str, int]:
    return {f"{name} axis {i}": size for i, size in enumerate(shape)}


def fewest_slots(span: int, history: int = 1) -> int:
    """Slots that a ring needs for a start to become sampleable before it is overwritten."""
    return span + 2 + history - 1
