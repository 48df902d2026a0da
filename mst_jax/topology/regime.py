"""What a regime is: the settings of the one rewire step, and when it happens.

Every ``interval`` steps, leaf by leaf, with integers computed on the host:

    keep = top(n_keep   | active,   by drop_score)
    grow = top(n_target - n_keep | not kept, by grow_score)

A regime says how ``n_keep`` and ``n_target`` come about (sparsity and drop-fraction schedules,
allocation), when (interval, start, end) and by which scores. With a `Sharing` the plan fixes
the counts of all leaves together, and scores decide each leaf's at the rewire. Defaults:
``docs/specs/mst-and-mrq.md`` §3.
"""

import difflib
import math
import operator
from dataclasses import dataclass, field
from fractions import Fraction
from inspect import signature
from types import FunctionType
from typing import TypedDict

from mst_jax.topology import allocation as allocations
from mst_jax.topology import schedules, scores
from mst_jax.topology.allocation import Allocation
from mst_jax.topology.schedules import Schedule
from mst_jax.topology.scores import Score
from mst_jax.topology.structures import Block, Structure, Tied

STORAGES = ("masked", "compact")


@dataclass(frozen=True)
class Timing:
    """Steps at which a topology is rewired: ``start, start + interval, ...`` up to ``end``.

    Attributes:
        interval: optimizer steps between rewires.
        start: first step.
        end: last step, inclusive.
    """

    interval: int
    start: int
    end: int

    def __post_init__(self) -> None:
        for name in ("interval", "start", "end"):
            value = getattr(self, name)
            try:
                operator.index(value)
            except TypeError:
                raise TypeError(f"{name} must be a whole number of steps, got {value!r}") from None
        if self.interval < 1 or self.start < 0:
            raise ValueError(f"interval must be >= 1 and start >= 0, got {self}")
        if self.end < self.start:
            raise ValueError(
                f"no rewire would ever happen: end={self.end} is before start={self.start}; give a "
                f"later end or use static()"
            )

    @property
    def steps(self) -> range:
        """All steps at which a rewire happens."""
        return range(self.start, self.end + 1, self.interval)


_EXAMPLE = {"allocation": "uniform()", "structure": "n_of_m(4)"}


@dataclass(frozen=True)
class Sharing:
    """How the leaves of a rule share its counts, where scores decide at each rewire.

    The counts of all leaves together are exact; a leaf's follow from the scores. First the weights
    below one threshold go, then every leaf drops the same share, then weights grow.

    Attributes:
        threshold: score by which all active weights of the rule are compared; the largest survive.
            None: no threshold.
        spared: what scores above it survives, however many weights the plan would drop.
        growth: ``own``: every leaf regrows as many as it has just dropped; ``score``: leaves get
            shares in proportion to the mean grow score of their active weights; ``plan``: every
            leaf's count is the plan's.
    """

    threshold: Score | None = None
    spared: float = math.inf
    growth: str = "own"

    def __post_init__(self) -> None:
        if self.growth not in ("own", "score", "plan"):
            raise ValueError(f"growth must be own, score or plan, got {self.growth!r}")


@dataclass(frozen=True)
class Regime:
    """One training regime; made by the functions of `regimes` and `gradual`, or your own.

    Attributes:
        name: shown in printed plans.
        sparsity: sparsity of the module at an optimizer step; None trains it dense, without masks.
        allocation: how the module's budget is shared among its leaves.
        timing: when the topology is rewired; None never.
        drop: share of the active weights dropped (and regrown) at a step.
        prune_ratio: of the weights grown beyond the old number, how many are dropped elsewhere.
        drop_score: the active weights with the largest are kept.
        grow_score: the inactive positions with the largest are grown.
        average: decay of the gradient average that scores may read; None keeps no average.
        average_square: the same for the average of squared gradients.
        by_sign: drop the same share of the positive and of the negative weights of a leaf.
        growth: net growth at a step, as a share of each leaf's way from its first count to the
            final sparsity, the same in every leaf; None: the sparsity schedule says how many.
        sharing: how leaves share the rule's counts by score; None: the plan has every leaf's.
        structure: which entries compete.
        storage: ``masked``: whole leaves and boolean masks; ``compact``: of kernels under
            `shared_fan_in` the active weights alone, as many throughout.
        draw: initial mask: ``random``, ``magnitude`` (largest initial weights) or ``bernoulli``
            (independent entries, so counts hold only on average; static regimes only).
        leaves: eligible leaves: ``kernels`` (two axes or more) or ``all``.
        dense_first: keep the first eligible leaf dense (paths in natural order, 2 before 10).
        dense_last: keep the last eligible leaf dense.
    """

    name: str
    sparsity: Schedule | None = None
    allocation: Allocation = field(default_factory=allocations.erdos_renyi)
    timing: Timing | None = None
    drop: Schedule = field(default_factory=lambda: schedules.constant(0.0))
    prune_ratio: float | Fraction = 0.0
    drop_score: Score = scores.magnitude
    grow_score: Score = scores.gradient
    average: float | None = None
    average_square: float | None = None
    by_sign: bool = False
    growth: Schedule | None = None
    sharing: Sharing | None = None
    structure: Structure = field(default_factory=Structure)
    storage: str = "masked"
    draw: str = "random"
    leaves: str = "kernels"
    dense_first: bool = False
    dense_last: bool = False

    def __post_init__(self) -> None:
        for name in ("sparsity", "drop"):
            value = getattr(self, name)
            if value is not None and not callable(value):
                raise TypeError(
                    f"{name} must be a schedule, step -> number, such as "
                    f"topology.schedules.constant({value!r}); got {value!r}"
                )
        for name, kind in (("allocation", Allocation), ("structure", Structure)):
            if not isinstance(getattr(self, name), kind):
                raise TypeError(
                    f"{name} must be made by a call such as topology.{_EXAMPLE[name]}, got "
                    f"{getattr(self, name)!r}"
                )
        if self.draw not in ("random", "magnitude", "bernoulli"):
            raise ValueError(f"draw must be random, magnitude or bernoulli, got {self.draw!r}")
        if self.leaves not in ("kernels", "all"):
            raise ValueError(f"leaves must be 'kernels' or 'all', got {self.leaves!r}")
        if self._reads(scores.average_gradient, scores.adam_gradient) and self.average is None:
            raise ValueError("average_gradient needs average=, the decay of the average (say 0.9)")
        if self._reads(scores.adam_gradient) and self.average_square is None:
            raise ValueError("adam_gradient needs average_square=, a decay (say 0.999)")
        for name in ("average", "average_square"):
            decay = getattr(self, name)
            if decay is not None and not 0.0 <= decay < 1.0:
                raise ValueError(f"{name} must be a decay in [0, 1), got {decay}")
        alone = self.structure == Structure()
        tied = isinstance(self.structure, Tied) and self.structure.inside == Structure()
        single = {
            "by_sign": self.by_sign and not alone,
            "sharing": self.sharing is not None and not alone,
            "a Bernoulli draw": self.draw == "bernoulli" and not (alone or tied),
        }
        if any(single.values()):
            what = next(name for name, refused in single.items() if refused)
            raise ValueError(
                f"{what} counts single weights and takes no structure; got {self.structure.name}"
            )
        if self.sharing and self.timing is None:
            raise ValueError("sharing decides counts at rewires, so the regime needs a timing")
        if self.draw == "bernoulli" and self.timing is not None:
            raise ValueError("Bernoulli masks have no exact counts: only static regimes take them")
        if self.storage not in STORAGES:
            raise ValueError(f"storage must be {' or '.join(STORAGES)}, got {self.storage!r}")
        if self.storage == "compact":
            self._require_compact()

    def _require_compact(self) -> None:
        """Raises ``ValueError`` unless rewires need no more than compact storage keeps."""
        structure = self.structure
        if not (isinstance(structure, Block) and structure.rows == 1 and structure.columns > 1):
            raise ValueError(
                f"compact storage needs neurons that share their inputs, structure="
                f"shared_fan_in(16) or another number; got {structure.name}"
            )
        if self.average is not None or self.average_square is not None:
            raise ValueError(
                f"compact storage keeps no average of the dense gradient, which {self.name} asks "
                f"for: use rigl"
            )
        known = {"drop_score": (scores.magnitude,)}
        known["grow_score"] = (scores.gradient, scores.random)
        for name, choices in known.items():
            if self.timing is not None and getattr(self, name) not in choices:
                names = " or ".join(f"scores.{score.__name__}" for score in choices)
                raise ValueError(
                    f"compact storage takes {name}={names} only: {self.name} has its own"
                )

    @property
    def reads_activity(self) -> bool:
        """Whether rewires need the activity of neurons, which ``update`` must then be given."""
        return self._reads(scores.dormancy)

    def _reads(self, *wanted: Score) -> bool:
        threshold = self.sharing.threshold if self.sharing else None
        return any(score in wanted for score in (self.drop_score, self.grow_score, threshold))


class OptionsOfSet(TypedDict, total=False):
    """Fields of `Regime` that `regimes.set` takes besides its own arguments."""

    prune_ratio: float | Fraction
    drop_score: Score
    grow_score: Score
    average: float | None
    average_square: float | None
    growth: Schedule | None
    sharing: Sharing | None
    structure: Structure
    storage: str
    draw: str
    leaves: str
    dense_first: bool
    dense_last: bool


class Options(OptionsOfSet, total=False):
    """Fields of `Regime` that the other functions of `regimes` and `gradual` take."""

    by_sign: bool


def check_options(make: FunctionType, options: Options | OptionsOfSet) -> None:
    """Raises ``TypeError`` for an option that does not exist, naming the nearest.

    Args:
        make: the function that was given them.
        options: its ``**options``.
    """
    known = [
        *(name for name in signature(make).parameters if name != "options"),
        *Options.__annotations__,
    ]
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise TypeError(f"{make.__name__} has no option {name!r}: {hint}")
