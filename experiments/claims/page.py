"""The ledger as Markdown."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.claims.claim import Claim
from experiments.claims.costs import RATES, RESULTS, costs_of, hours
from experiments.claims.found import Found, find
from experiments.claims.verdicts import FEWEST_SEEDS, NOT_RUN, VERDICTS, verdict_of

DAY = 24.0  # hours
_FILES = ", ".join(f"`{RESULTS}/{name}`" for name in RATES)
INTRODUCTION = f"""# Claims

What was published, and what our committed results say about it. **This page is made by**
`python -m experiments.claims` from `experiments/claims` (claims, published numbers, tolerances and
commands), `docs/results` and `benchmarks/results`; a test makes it again and compares. Results of
a machine with a GPU enter by the same command once they lie in
`benchmarks/results/gpu*/STUDY/results.csv`, or as run folders in `benchmarks/results/gpu*`: a
command with such a `--logdir` trains one side, and the other lies beside it.
Tolerances were registered there on 2026-11-27, before any result but those of `streaming_width` and
`mst_tiny`, which were known: of `streaming_width` the test of its interaction and the ±750 of its
first cell were registered before its runs, the same ±750 of its other three cells was not.

- **reproduced**: the interval lies on the claimed side of zero and the number within the tolerance
  of the published one; **contradicted**: the interval lies on the other side, or wholly outside the
  tolerance; **not supported by these data**: neither, or fewer than {FEWEST_SEEDS} seeds;
  **not run**: no committed result. A study that registered a rule of its own is judged by that.
- Intervals are of the bootstrap over seeds, 95 % unless said; where a claim is one of a family,
  corrected for as many comparisons. A seed that diverged counts as 0. `~` before a published
  number: it was read off a figure.
- Where the task, the size or the length is another than the published one, at most the direction
  can be compared, and the column *differs* says so.
- *Cost*: hours of a machine with 2 cores (AMD EPYC, no GPU) for all seeds of both sides: agent
  steps, over steps a second that `python -m benchmarks.rates` measured ({_FILES}),
  without evaluations, and without environments but those of Stream AC(λ), which take most of its
  time. No number: nothing is trained."""


class Row:
    """A claim with what was found."""

    def __init__(self, claim: Claim, root: Path) -> None:
        self.claim = claim
        self.found = find(claim, root)
        self.verdict = verdict_of(claim, self.found)
        self.hours = hours(costs_of(claim), root)

    def cells(self) -> list[str]:
        """As the table shows it."""
        claim, found = self.claim, self.found
        command = f"`{claim.command}`" if claim.command else "none"
        seeds = f", {claim.seeds} seeds" if claim.seeds else ""
        return [
            f"{claim.text} ({claim.place})",
            _published(claim),
            "" if found is None else _found(found),
            self.verdict if found is None else f"**{self.verdict}**",
            (claim.differs if found is None else found.differs) or "",
            f"{command}{seeds}",
            "" if self.hours is None else _hours(self.hours),
        ]


def _hours(number: float) -> str:
    return f"{number:,.0f} h" if number >= 10 else f"{number:.2g} h"


def _left(rows: Sequence[Row]) -> str:
    """What it would cost to answer what was not run."""
    costs = [row.hours for row in rows if row.verdict == NOT_RUN and row.hours is not None]
    short = [hours for hours in costs if hours <= DAY]
    text = f"Of those not run, {len(short)} would cost at most a day of that machine each"
    if len(short) == len(costs):
        return f"{text}."
    dearer = min(hours for hours in costs if hours > DAY)
    return f"{text}, the others from {_hours(dearer)} on."


def _published(claim: Claim) -> str:
    if claim.said:
        return claim.said
    if claim.published is None:
        if claim.expects == "same":
            return f"{claim.than:g} ± {claim.tolerance:g}"
        return f"{'>' if claim.expects == 'more' else '<'} {claim.than:g}"
    number = f"{'~' if claim.digitised else ''}{claim.published:,.10g}"
    return f"{number} ± {claim.tolerance:g}" if claim.tolerance else number


def _found(found: Found) -> str:
    value, low, high = (float(number) for number in found.estimate)
    if not found.seeds:
        return f"{value:,.10g} (computed)"
    seeds = "1 seed" if found.seeds == 1 else f"{found.seeds} seeds"
    level = "" if round(found.level, 4) == 0.95 else f", {found.level:.4g} interval"
    return f"{value:.4g} [{low:.4g}, {high:.4g}], {seeds}{level}, {found.where}"


def page(sections: Mapping[str, Sequence[Claim]], commands: Mapping[str, str], root: Path) -> str:
    """The whole page.

    Args:
        sections: title -> claims.
        commands: name -> what to type.
        root: of the repository.

    Raises:
        ValueError: two claims of one name, or a command that is none.
    """
    claims = [claim for section in sections.values() for claim in section]
    _check(claims, commands)
    rows = {title: [Row(claim, root) for claim in section] for title, section in sections.items()}
    counted = Counter(row.verdict for section in rows.values() for row in section)
    told = ", ".join(f"{counted[verdict]} {verdict}" for verdict in VERDICTS)
    left = _left([row for section in rows.values() for row in section])
    by_hand = "; ".join(claim.text for claim in claims if not claim.evidence)
    parts = [
        INTRODUCTION,
        f"{len(claims)} claims: {told}. {left}",
        f"No single number answers these, so no result enters by itself: {by_hand}.",
    ]
    for title, section in rows.items():
        parts += [f"## {title}", _table(section)]
    listed = [f"| `{name}` | `{text}` |" for name, text in commands.items()]
    parts += ["## Commands", "\n".join(["| name | command |", "|---|---|", *listed])]
    return "\n\n".join(parts) + "\n"


def _table(rows: Sequence[Row]) -> str:
    head = "| claim | published | ours | verdict | differs | command | cost |"
    return "\n".join([head, "|" + 7 * "---|", *(f"| {' | '.join(row.cells())} |" for row in rows)])


def _check(claims: Sequence[Claim], commands: Mapping[str, str]) -> None:
    twice = [name for name, count in Counter(claim.id for claim in claims).items() if count > 1]
    if twice:
        raise ValueError(f"two claims are called {twice[0]!r}")
    for claim in claims:
        claim.validate()
        if claim.command and claim.command not in commands:
            raise ValueError(f"claim {claim.id!r}: there is no command {claim.command!r}")
