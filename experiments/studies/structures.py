"""What neurons that share their inputs cost in return, and 2:4: registered before any run.

Registered 2026-11-27. The same in words is in docs/studies.md.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from experiments.studies import figures, scales
from experiments.studies.base import Scale, Study, Variant
from experiments.studies.results import Results, VariantRuns
from experiments.studies.sizes import sparsity_of_all
from mst_jax.agents import ROLES, default_config
from mst_jax.recipes import for_modules

AGENT, TASK, STEPS = "sac", "dmc:walker-walk", 10_000
MARGIN = 100.0  # of return, whose largest is 1000: what a structure may cost
LEVEL = 1 - 0.05 / 3  # of each interval, for three comparisons
NETWORKS = ("1x1", "2x1", "5x1")  # critics of width 512, 1024 and 2560
KINDS = (  # structure, sparsity
    ("dense", 0.0),
    ("unstructured", 0.8),
    ("shared16", 0.8),
    ("shared64", 0.8),
    ("unstructured", 0.5),
    ("2:4", 0.5),
)


class Difference(NamedTuple):
    """Mean return of a structure less that of unstructured masks, and its interval."""

    value: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """Whether the structure costs less than the margin."""
        if self.low > -MARGIN:
            return "not inferior"
        return "inferior" if self.high < -MARGIN else "undecided"


def difference(own: np.ndarray, other: np.ndarray) -> Difference:
    """Welch's interval, at `LEVEL`, of two groups' means: own less other, two seeds or more."""
    value = float(own.mean() - other.mean())
    parts = [x.var(ddof=1) / len(x) for x in (own, other)]
    total = sum(parts)
    if total == 0:
        return Difference(value, value, value)
    freedom = total**2 / sum(p**2 / (len(x) - 1) for p, x in zip(parts, (own, other), strict=True))
    half = float(stdtrit(freedom, (1 + LEVEL) / 2) * np.sqrt(total))
    return Difference(value, value - half, value + half)


def registered_report(results: Results) -> str:
    """Every structure beside unstructured masks of its sparsity; a verdict where registered."""
    parts = ["## The registered outcome", _RULE]
    for task, agent in results.panels:
        groups = results.panel(task, agent)
        as_registered = (task, agent) == (TASK, AGENT) and _finished(groups)
        parts.append(_table(f"{task} {agent}", groups, as_registered))
        if not as_registered:
            parts.append(
                f"Not what was registered ({AGENT}, {TASK}, {STEPS:,} steps, 4 seeds or more of "
                "all variants of 1x1): no verdict."
            )
    return "\n\n".join(parts)


_RULE = (
    f"Returns of the last evaluation; a seed that diverged counts as 0. Differences of means from "
    f"unstructured masks of the same sparsity, with Welch's {LEVEL:.1%} intervals. *Not inferior*: "
    f"the interval lies above -{MARGIN:.0f}; *inferior*: it ends below it; else *undecided*."
)


def _finished(groups: Sequence[VariantRuns]) -> bool:
    own = [group for group in groups if group.labels["network"] == "1x1"]
    at_end = all(max((row["step"] for row in group.rows), default=0) == STEPS for group in own)
    return at_end and len(own) == len(KINDS) and min(len(_outcomes(g)) for g in own) >= 4


def _outcomes(group: VariantRuns) -> np.ndarray:
    return np.nan_to_num(np.array([group.outcomes[seed] for seed in sorted(group.outcomes)]))


def _table(name: str, groups: Sequence[VariantRuns], as_registered: bool) -> str:
    """A row for each variant that has seeds."""
    found = {
        tuple(group.labels[key] for key in ("network", "structure", "sparsity")): _outcomes(group)
        for group in groups
    }
    rows = [
        f"| {name}: network | structure | sparsity | seeds | mean | difference | verdict |",
        "|" + 7 * "---|",
    ]
    for (network, structure, sparsity), own in found.items():
        other = found.get((network, "unstructured", sparsity), np.empty(0))
        compared = structure not in ("dense", "unstructured") and min(len(own), len(other)) > 1
        shown, verdict = "-", "-"
        if compared:
            apart = difference(own, other)
            shown = f"{apart.value:.0f} [{apart.low:.0f}, {apart.high:.0f}]"
            verdict = apart.verdict if as_registered else "-"
        mean = f"{own.mean():.0f}" if len(own) else "-"
        cells = (network, structure, sparsity, len(own), mean, shown, verdict)
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(rows)


def _variants(agent: str, size: str) -> list[Variant]:
    networks = NETWORKS if size == "paper" else NETWORKS[:1]
    return [_variant(agent, network, *kind) for network in networks for kind in KINDS]


def _variant(agent: str, network: str, structure: str, sparsity: float) -> Variant:
    """Static masks in both networks; what can be in compact storage is, for its speed."""
    labels = {"network": network, "structure": structure, "sparsity": sparsity}
    if structure == "dense":
        return Variant(labels, "dense", network)
    storage = "compact" if structure.startswith("shared") else "masked"
    own = for_modules(
        default_config(agent),
        {role: {"structure": structure, "storage": storage} for role in ROLES},
    )
    return Variant(
        labels, "all_static", network, overrides={**sparsity_of_all(agent, sparsity), **own}
    )


STRUCTURE_COST = Study(
    "structure_cost",
    "Do neurons that share their inputs, or 2:4, cost return?",
    _variants,
    {
        "smoke": replace(
            scales.smoke(AGENT), base={AGENT: {**scales.TINY[AGENT], "actor.hidden": 16}}
        ),
        "small": Scale(
            tasks=(TASK,),
            agents=(AGENT,),
            steps=STEPS,
            seeds=4,
            block=4,
            evaluations=5,
            checkpoints=4,
            base={AGENT: {"learning_starts": 1_000, "batch_size": 128}},
        ),
        "paper": scales.paper(scales.HARDEST, (AGENT,)),
    },
    figures.bars("structure", "sparsity", "network"),
    {"network": "1x1", "structure": "unstructured", "sparsity": 0.8},
    judge=registered_report,
)
