"""What the runs that answer a claim cost: agent steps at measured rates."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from experiments.claims.claim import Arm, Claim, Cost, Evidence
from experiments.studies import STUDIES

RESULTS = "benchmarks/results"
RATES = ("rates_cpu.json", "rates_streaming_cpu.json")  # there; of two rates the later counts


def costs_of(claim: Claim) -> tuple[Cost, ...]:
    """The runs of both arms of a claim's first evidence, unless the claim says what they are."""
    if claim.cost or not claim.evidence or claim.evidence[0].study not in STUDIES:
        return claim.cost
    evidence = claim.evidence[0]
    runs = claim.seeds * len(evidence.tasks)
    arms = (arm for arm in (evidence.x, evidence.y) if arm)
    return tuple(Cost(_network(evidence, arm), evidence.steps, runs) for arm in arms)


def _network(evidence: Evidence, arm: Arm) -> str:
    """Agent and size of the variant of a study that has an arm's labels."""
    variants = STUDIES[evidence.study].variants(evidence.agent, "paper")
    size = next(variant.size for variant in variants if arm.items() <= variant.labels.items())
    return f"{evidence.agent} {size or '1x1'}"


def hours(costs: Sequence[Cost], root: Path) -> float | None:
    """Hours of the measured machine; None where there is nothing to run.

    Raises:
        ValueError: a network whose rate was not measured.
    """
    rates = _rates(root / RESULTS)
    for cost in costs:
        if cost.network not in rates:
            raise ValueError(
                f"{RESULTS} has no rate of {cost.network!r}: add it to benchmarks.rates"
            )
    seconds = (cost.steps * cost.runs / rates[cost.network] for cost in costs)
    return sum(seconds) / 3600.0 if costs else None


@cache
def _rates(folder: Path) -> dict[str, float]:
    """Agent and size -> agent steps a second of all seeds together."""
    rows: dict[str, dict[str, float]] = {}
    for name in RATES:
        rows |= json.loads((folder / name).read_text())["results"]["rates"]
    return {name: row["steps_per_second"] for name, row in rows.items()}
