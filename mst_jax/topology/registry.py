"""Regimes and structures by name, for settings. A new regime is one line of `REGIMES`.

What a name stands for is a function of the same five numbers for every regime, of which each takes
what it needs. A function of your own with these arguments can stand in its place.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Protocol

from mst_jax.topology import gradual, regimes, revival, structures
from mst_jax.topology.regime import Regime
from mst_jax.topology.structures import Structure

LONG_AVERAGE = 0.999  # about the last thousand steps
NE_RATE = 0.008  # of a layer's room, at every rewire: the constant in the authors' code


class MakesRegime(Protocol):
    """Makes a regime of a module's settings."""

    def __call__(
        self, *, sparsity: float, interval: int, start: int, end: int, drop_fraction: float
    ) -> Regime:
        """The regime.

        Args:
            sparsity: share of zeros in the end; for a regime that grows, in the beginning.
            interval: optimizer steps of the module between rewires.
            start: step of the first prune of a regime that begins dense, or of the one revival.
            end: step after which the topology is frozen.
            drop_fraction: share of the active weights replaced at a rewire.

        Raises:
            ValueError: no regime has such settings.
        """


@dataclass(frozen=True)
class Named:
    """A regime of some of those settings, by their names, and of fixed ones."""

    reads: tuple[str, ...]
    make: Callable[..., Regime]
    own: Mapping[str, Any]

    def __call__(self, **settings: Any) -> Regime:
        """The regime; see `MakesRegime`."""
        return self.make(**{name: settings[name] for name in self.reads}, **self.own)


def _taking(reads: str, make: Callable[..., Regime], **own: Any) -> Named:
    return Named(tuple(reads.split()), make, own)


_static = partial(_taking, "sparsity")
_growing = partial(_taking, "sparsity interval end")
_moving = partial(_taking, "sparsity interval end drop_fraction")
_pruning = partial(_taking, "sparsity interval start end")
_reviving = partial(_taking, "sparsity start")
_dense_first = partial(_taking, "sparsity interval start end drop_fraction")


def _rigl_averaged(**settings: Any) -> Regime:
    """SNFS without redistribution is RigL that grows by an average; here by a long one."""
    return replace(regimes.snfs(**settings, momentum=LONG_AVERAGE), name="rigl_averaged")


def _expansion(*, end: int, **settings: Any) -> Regime:
    """Neuroplastic Expansion, which calls its end the end of growth."""
    return gradual.neuroplastic_expansion(growth_end=end, **settings)


REGIMES: dict[str, Named] = {
    "dense": _taking("", regimes.dense),
    "static": _static(regimes.static),
    "network_sparsity": _static(regimes.network_sparsity),
    "set": _moving(regimes.set),
    "set_by_sign": _moving(regimes.set, by_sign=True),
    "rigl": _moving(regimes.rigl),
    "rigl_averaged": _moving(_rigl_averaged),
    "snfs": _moving(regimes.snfs),
    "snfs_redistributed": _moving(regimes.snfs, redistribute=True),
    "snfs_redistributed_adam": _moving(regimes.snfs, redistribute=True, adam=True),
    "gradual_magnitude_pruning": _pruning(gradual.gradual_magnitude_pruning),
    "gradual_magnitude_pruning_global": _pruning(
        gradual.gradual_magnitude_pruning, threshold="global"
    ),
    "granet": _dense_first(gradual.granet),
    "granet_global": _dense_first(gradual.granet, threshold="global"),
    "dense_then_rigl": _dense_first(gradual.dense_then_rigl),
    "gradual_growth": _growing(gradual.gradual_growth),
    "topology_aware_revival": _reviving(revival.topology_aware_revival),
    "neuroplastic_expansion": _growing(_expansion),
    "neuroplastic_expansion_dormancy": _growing(_expansion, rate=NE_RATE, prune="dormancy"),
}


class NamedStructure(NamedTuple):
    """What the name of a structure says.

    Attributes:
        structure: the structure.
        sparsity: the one that the name fixes (2:4 is 0.5); None where any will do.
    """

    structure: Structure
    sparsity: float | None = None


_N_OF_M = re.compile(r"(\d{1,6}):(\d{1,6})")
_SHARED = re.compile(r"shared(\d{1,6})")
_BLOCK = re.compile(r"block(\d{1,6})x(\d{1,6})")


def structure_named(name: str) -> NamedStructure:
    """The structure of a name.

    Args:
        name: ``unstructured``; ``fan_in``; ``N:M`` such as ``2:4``; ``sharedC``, C neighbouring
            neurons share their inputs, such as ``shared16``; or ``blockRxC``, tiles of R inputs
            times C outputs, such as ``block4x16``.

    Raises:
        ValueError: there is none of that name, or it has impossible numbers.
    """
    if name == "unstructured":
        return NamedStructure(structures.unstructured())
    if name == "fan_in":
        return NamedStructure(structures.fan_in())
    if found := _N_OF_M.fullmatch(name):
        n, m = map(int, found.groups())
        if not 0 < n < m:
            raise ValueError(f"{name} keeps {n} of {m} weights: N:M needs 0 < N < M")
        return NamedStructure(replace(structures.n_of_m(m), name=name), 1 - n / m)
    if found := _SHARED.fullmatch(name):
        return NamedStructure(structures.shared_fan_in(int(found[1])))
    if found := _BLOCK.fullmatch(name):
        return NamedStructure(structures.block(*map(int, found.groups())))
    raise ValueError(
        f"there is no structure {name!r}: choose unstructured, fan_in, N:M (2:4, 1:4), sharedC "
        "(shared16, shared64) or blockRxC (block4x16)"
    )
