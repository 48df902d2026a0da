"""Allocation: how a module's budget of weights is shared among its leaves, exact to one weight.

Everything here runs on the host in integers and fractions: float32 would turn 17,000,001 into
17,000,000, and float64 0.29 * 100 into 28.999999999999996. Sources: uniform and Erdős–Rényi (ER):
Mocanu et al. 2018; Erdős–Rényi-kernel (ERK): Evci et al. 2020, §3; procedure:
``docs/specs/mst-and-mrq.md`` §3.2.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Allocation:
    """A rule that shares a budget among leaves.

    Attributes:
        name: shown in printed plans.
        densities: ``(paths, shapes, sparsity) -> real density of every leaf``, each in [0, 1];
            floats are read as the decimals they print as, fractions are exact.
        by_leaf: round every leaf on its own, instead of meeting the module's total.
        rebased: for a rule that begins with another one: itself, beginning with the one it is
            given; None for all others.
    """

    name: str
    densities: Callable[[Sequence[str], Sequence[Shape], float], list[float] | list[Fraction]]
    by_leaf: bool = False
    rebased: Callable[["Allocation"], "Allocation"] | None = None

    def with_base(self, base: "Allocation") -> "Allocation":
        """The rule for a module whose setting names ``base``: that, or itself begun with it."""
        return self.rebased(base) if self.rebased else base


def exact(value: float | Fraction) -> Fraction:
    """A number as the decimal it prints as: 0.29 is 29/100."""
    return value if isinstance(value, Fraction) else Fraction(repr(float(value)))


def total_budget(size: int, sparsity: float) -> int:
    """Non-zeros of a module: ``size - floor(sparsity * size)`` in exact decimal arithmetic.

    Args:
        size: number of weights.
        sparsity: share of zeros, in [0, 1].

    Returns:
        Number of weights kept.
    """
    return size - math.floor(exact(sparsity) * size)


def uniform() -> Allocation:
    """The same density everywhere."""
    return Allocation(
        "uniform", lambda paths, shapes, sparsity: [1 - exact(sparsity)] * len(shapes)
    )


def erdos_renyi() -> Allocation:
    """Density in proportion to ``(in + out) / (in * out)`` (ER, Mocanu et al. 2018).

    The two channel axes are the last two; kernel axes of convolutions are ignored. Leaves that
    would exceed density 1 become dense and the others share what is left.
    """
    return Allocation(
        "ER", lambda paths, shapes, sparsity: _scaled([s[-2:] for s in shapes], shapes, sparsity)
    )


def erdos_renyi_kernel() -> Allocation:
    """Density in proportion to ``sum(shape) / prod(shape)`` (ERK, Evci et al. 2020).

    Equal to `erdos_renyi` for matrices; convolutions count their kernel axes too.
    """
    return Allocation("ERK", lambda paths, shapes, sparsity: _scaled(shapes, shapes, sparsity))


def explicit(sparsities: Mapping[str, float] | Mapping[str, Fraction]) -> Allocation:
    """Sparsities given leaf by leaf.

    Args:
        sparsities: path pattern (regular expression, full match, first match wins) -> sparsity.
            A schedule in [0, 1] multiplies them: 0 is dense, 1 is the given value. Fractions are
            exact.

    Returns:
        Allocation that raises ``ValueError`` for a leaf no pattern matches.

    Raises:
        ValueError: a pattern is not a regular expression.
    """
    values = {pattern_of(pattern): exact(value) for pattern, value in sparsities.items()}

    def densities(paths: Sequence[str], shapes: Sequence[Shape], sparsity: float) -> list[Fraction]:
        level = exact(sparsity)
        return [1 - level * _lookup(values, path) for path in paths]

    return Allocation("explicit", densities, by_leaf=True)


def named(allocation: str | Allocation) -> Allocation:
    """Allocation from its name: ``uniform``, ``er`` or ``erk``; an allocation passes through.

    Args:
        allocation: name or `Allocation`.

    Returns:
        The allocation.

    Raises:
        ValueError: unknown name.
    """
    if isinstance(allocation, Allocation):
        return allocation
    known = {"uniform": uniform, "er": erdos_renyi, "erk": erdos_renyi_kernel}
    if allocation not in known:
        raise ValueError(f"unknown allocation {allocation!r}: use one of {sorted(known)}")
    return known[allocation]()


def budgets(
    allocation: Allocation,
    paths: Sequence[str],
    shapes: Sequence[Shape],
    sparsity: float,
    multiples: Sequence[int] | None = None,
    previous: Sequence[int] | None = None,
    growing: bool = False,
    untied: Sequence[Shape] | None = None,
) -> list[int]:
    """Integer budget of every leaf; they add up to `total_budget` exactly.

    Real budgets are rounded by largest remainder, ties going to the earlier leaf. Leaves with a
    structure (constant fan-in, N:M, tiles, ensembles) are rounded to a multiple of what it needs,
    and the total is then exact only up to those roundings. Budgets given leaf by leaf (`explicit`)
    are rounded each on its own. A leaf with a tied axis has the density of a leaf without it, in
    whole units: if all leaves are tied, what they would have without the axis, times its length.

    Args:
        allocation: how to share.
        paths: names of the leaves.
        shapes: their shapes.
        sparsity: sparsity of the module, in [0, 1).
        multiples: what the budget of each leaf is a multiple of: its structure's groups times the
            entries of a unit; 1 for unstructured.
        previous: budgets before this one; rounding then never shrinks a leaf while the module grows
            or grows one while it shrinks.
        growing: whether the module grows from ``previous``.
        untied: shapes of the leaves without tied axes; ``shapes`` by default.

    Returns:
        Number of active weights of each leaf.

    Raises:
        ValueError: if the sparsity is out of range or leaves a leaf without weights.
    """
    if not 0.0 <= sparsity <= 1.0:
        raise ValueError(f"sparsity must be in [0, 1], got {sparsity}")
    multiples = [1] * len(shapes) if multiples is None else list(map(int, multiples))
    sizes = [math.prod(shape) for shape in shapes]
    single = shapes if untied is None else untied
    ties = [size // math.prod(one) for size, one in zip(sizes, single, strict=True)]
    densities = _densities(allocation, paths, single, ties, sparsity)
    real = [density * size for density, size in zip(densities, sizes, strict=True)]
    total = total_budget(sum(sizes), sparsity)
    low = previous if previous and growing else [0] * len(sizes)
    high = previous if previous and not growing else sizes
    total = min(max(total, sum(low)), sum(high))  # multiples may have rounded beyond it before
    if allocation.by_leaf:
        whole = [round(x / tie) * tie for x, tie in zip(real, ties, strict=True)]
    else:
        whole = _largest_remainder(real, low, high, total, ties)
    whole = [
        n if m == 1 else min(max(round(n / m) * m, least), most)
        for n, m, least, most in zip(whole, multiples, low, high, strict=True)
    ]
    for path, n, m in zip(paths, whole, multiples, strict=True):
        if n < m:
            what = "no weights" if m == 1 else f"fewer weights than the {m} its structure needs"
            raise ValueError(
                f"sparsity {sparsity} leaves {path!r} with {what}: lower the sparsity or keep "
                f"that leaf dense with an earlier rule"
            )
    return whole


def pattern_of(text: str) -> re.Pattern[str]:
    """The compiled pattern of a rule; one line that says what is wrong if there is none."""
    if not isinstance(text, str):
        raise TypeError(f"a pattern must be text such as '.*kernel', got {text!r}")
    try:
        return re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is not a regular expression: {error}") from None


def _densities(
    allocation: Allocation,
    paths: Sequence[str],
    shapes: Sequence[Shape],
    ties: Sequence[int],
    sparsity: float,
) -> list[Fraction]:
    """Exact density of every leaf; one with a tied axis is told as that many leaves without it."""
    told = [i for i, tie in enumerate(ties) for _ in range(tie)]
    found = allocation.densities([paths[i] for i in told], [shapes[i] for i in told], sparsity)
    own = dict(zip(told, found, strict=True))
    return [exact(own[i]) for i in range(len(ties))]


def _lookup(values: Mapping[re.Pattern[str], Fraction], path: str) -> Fraction:
    for pattern, value in values.items():
        if pattern.fullmatch(path):
            return value
    raise ValueError(f"no explicit sparsity for {path!r}: add a pattern that matches it")


def _scaled(terms: Sequence[Shape], shapes: Sequence[Shape], sparsity: float) -> list[Fraction]:
    """Densities ``min(1, eps * sum(term) / prod(term))`` that spend the budget exactly."""
    raw = [Fraction(sum(term), math.prod(term)) for term in terms]
    sizes = [math.prod(shape) for shape in shapes]
    weights = [density * size for density, size in zip(raw, sizes, strict=True)]
    budget = (1 - exact(sparsity)) * sum(sizes)
    dense: set[int] = set()
    while len(dense) < len(raw):
        rest = [i for i in range(len(raw)) if i not in dense]
        scale = (budget - sum(sizes[i] for i in dense)) / sum(weights[i] for i in rest)
        largest = max(raw[i] for i in rest)
        if scale * largest <= 1:
            return [Fraction(1) if i in dense else scale * raw[i] for i in range(len(raw))]
        dense.update(i for i in rest if raw[i] == largest)
    return [Fraction(1)] * len(raw)


def _largest_remainder(
    real: Sequence[Fraction],
    low: Sequence[int],
    high: Sequence[int],
    total: int,
    ties: Sequence[int],
) -> list[int]:
    """Integers near ``real`` within bounds that add up to ``total`` (which the bounds allow).

    Each is a multiple of its leaf's tie, and so is the total if all are; where no leaf can take the
    last weights, they are left out, fewer than a tie.
    """
    common = math.gcd(*ties)
    total = -(-total // common) * common
    whole = [
        min(max(math.floor(x / tie) * tie, least), most)
        for x, least, most, tie in zip(real, low, high, ties, strict=True)
    ]
    order = sorted(range(len(real)), key=lambda i: ((whole[i] - real[i]) / ties[i], i))
    while (missing := total - sum(whole)) != 0:
        sign = 1 if missing > 0 else -1
        free = [i for i in order[::sign] if low[i] <= whole[i] + sign * ties[i] <= high[i]]
        if not any(ties[i] <= abs(missing) for i in free):
            break
        for i in free:
            if ties[i] <= abs(missing):
                whole[i] += sign * ties[i]
                missing -= sign * ties[i]
    return whole
