"""What a plan in compact storage asks of its leaves and their counts."""

import math
from collections.abc import Mapping
from dataclasses import replace

from mst_jax.topology.count_tables import Table, Totals
from mst_jax.topology.regime import Regime


def require_linear(shapes: Mapping[str, tuple[int, ...]], ties: Mapping[str, int]) -> None:
    """Raises in one line unless the leaves of a rule are kernels of plain linear layers."""
    for path, shape in shapes.items():
        if path in ties or len(shape) != 2:
            kind = "noisy" if path in ties else "no kernel of a linear layer"
            raise ValueError(
                f"compact storage is for linear layers, and {path!r} of shape {shape} is {kind}: "
                f"leave it out of the rule, or choose masked storage"
            )


def stored(
    rule: Regime,
    regimes: Mapping[str, Regime],
    shapes: Mapping[str, tuple[int, ...]],
    counts: Table | Totals,
) -> dict[str, Regime]:
    """The regimes, with masked storage for leaves that keep all their weights."""
    if (counts.target != counts.target[0]).any():
        raise ValueError(
            f"compact storage keeps as many weights throughout, and {rule.name} changes how many "
            f"there are: use static, set or rigl, or masked storage"
        )

    def one(regime: Regime, shape: tuple[int, ...], count: int) -> Regime:
        full = count == math.prod(shape)
        return replace(regime, storage="masked") if full else regime

    cells = zip(regimes, shapes.values(), counts.target[0], strict=True)
    return {path: one(regimes[path], shape, count) for path, shape, count in cells}
