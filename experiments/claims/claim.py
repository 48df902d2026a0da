"""A published claim as data, and the files that hold them."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from mst_jax.names import nearest

Arm = Mapping[str, str | float]  # labels of a study's variant, or what names the rows of a run
EXPECTS = ("more", "less", "same")
KINDS = ("difference", "change", "metric", "scores", "registered", "count", "share")
FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Evidence:
    """Where committed results answer a claim.

    Attributes:
        kind: `difference` of mean returns x - y; `change`, the same in percent of y; `metric`, a
            difference of a diagnostic between folders of runs; `scores`, of lists of numbers in a
            benchmark's record (`file`, `of`); `registered`, the test of
            `experiments.studies.streaming`; `count`, parameters of a network; `share`, the percent
            of network y that must be zero for it to keep the weights of network x.
        study: whose results.csv, in docs/results or benchmarks/results/gpu*.
        agent: algorithm of the rows; of several, with spaces between, the mean is taken.
        tasks: of the rows; a difference is the mean over them.
        steps: of the rows; a run of another length is another claim.
        x: labels of the variant, a network, or a pattern of run folders (`runs`).
        y: what x is compared with; without it the number is the mean of x.
        metric: name of a column of run folders, for `metric`.
        rows: their kind.
        differs: what differs from what was published, or empty.
    """

    kind: str
    study: str = ""
    agent: str = ""
    tasks: tuple[str, ...] = ()
    steps: int = 0
    x: Arm = field(default_factory=dict)
    y: Arm = field(default_factory=dict)
    metric: str = ""
    rows: str = "diagnostics"
    differs: str = ""


@dataclass(frozen=True)
class Cost:
    """Agent steps to be made.

    Attributes:
        network: agent and size, and of a streaming agent the task: a case of `benchmarks.rates`.
        steps: of one seed.
        runs: seeds, of all tasks and arms together.
    """

    network: str
    steps: float
    runs: int


@dataclass(frozen=True)
class Claim:
    """A row of the ledger.

    Attributes:
        id: its name.
        place: where the source says it.
        text: the claim, in our words.
        expects: `more` or `less` than `than`, or the `same` as the published number or `than`.
        than: see there.
        published: its number; None where it has none that can be compared.
        said: the number as it is shown, where `published` is not all of it.
        digitised: whether the number was read off a figure.
        tolerance: how far ours may be from it; registered here, where the page says when.
        comparisons: of the family that the claim is one of; the interval's level is corrected.
        command: name of one of `COMMANDS`.
        seeds: that the command trains.
        differs: what differs from what was published when the command is run.
        evidence: tried in order; the first that is there counts.
        cost: of the command for this claim, where it does not follow from the first evidence.
    """

    id: str
    place: str
    text: str
    expects: str = "more"
    than: float = 0.0
    published: float | None = None
    said: str = ""
    digitised: bool = False
    tolerance: float | None = None
    comparisons: int = 1
    command: str = ""
    seeds: int = 0
    differs: str = ""
    evidence: tuple[Evidence, ...] = ()
    cost: tuple[Cost, ...] = ()

    def validate(self) -> None:
        """Raises ValueError in one line for what no row can be."""
        where = f"claim {self.id!r}"
        if self.expects not in EXPECTS:
            raise ValueError(f"{where}: expects={self.expects!r}: {nearest(self.expects, EXPECTS)}")
        if (self.published is not None or self.expects == "same") and self.tolerance is None:
            raise ValueError(f"{where} needs a registered tolerance")
        for one in self.evidence:
            if one.kind not in KINDS:
                raise ValueError(f"{where}: kind={one.kind!r}: {nearest(one.kind, KINDS)}")


def read_claims(path: Path) -> list[Claim]:
    """The claims of a TOML file: tables `claim`, over the file's table `all`.

    Raises:
        ValueError: in one line, a field that does not exist or a row that cannot be.
    """
    content = tomllib.loads(path.read_text())
    shared = content.get("all", {})
    return [_claim(path.name, {**shared, **row}) for row in content["claim"]]


def _claim(name: str, row: dict[str, Any]) -> Claim:
    parts = {key: row.pop(key, []) for key in ("evidence", "cost")}
    made = _made(
        Claim,
        f"{name}, claim {row.get('id')}",
        row
        | {
            "evidence": tuple(_made(Evidence, name, one) for one in parts["evidence"]),
            "cost": tuple(_made(Cost, name, one) for one in parts["cost"]),
        },
    )
    made.validate()
    return made


def _made(kind: Any, where: str, values: dict[str, Any]) -> Any:
    known = [one.name for one in fields(kind)]
    for key in values:
        if key not in known:
            raise ValueError(f"{where}: there is no {key!r}: {nearest(key, known)}")
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
