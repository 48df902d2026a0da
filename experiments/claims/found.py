"""What committed results say about a claim: numbers of every seed, and their interval."""

import csv
import json
import math
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.claims.claim import Arm, Claim, Evidence
from experiments.studies.streaming import CELLS, LOOKS, STEPS, TASK, judged
from mst_jax.agents import Sizes, make_agent
from mst_jax.analysis import Estimate, estimate, mean
from mst_jax.recipes import make_config

HUMANOID = (67, 21, 500)  # observations, actions, agent steps of an episode

Returns = dict[str, dict[int, float]]  # agent and task -> seed -> return


class Found(NamedTuple):
    """An answer to a claim.

    Attributes:
        estimate: the number with its interval.
        seeds: of the arm that has fewest; 0 for what is counted and not trained.
        level: of the interval.
        where: the file, relative to the repository.
        differs: what differs from what was published.
        verdict: what a registered rule of a study's own says; empty for the ledger's.
    """

    estimate: Estimate
    seeds: int
    level: float
    where: str
    differs: str
    verdict: str = ""


def find(claim: Claim, root: Path) -> Found | None:
    """The first evidence of a claim that is among the committed results; None without any."""
    level = 1.0 - 0.05 / claim.comparisons
    for evidence in claim.evidence:
        if evidence.kind in ("count", "share"):
            return _counted(evidence)
        for path in _files(evidence, root):
            found = _in_file(evidence, path, root, level)
            if found is not None:
                return found
    return None


def _files(evidence: Evidence, root: Path) -> list[Path]:
    """Files that may hold it, the newest machine's first."""
    if evidence.kind == "metric":
        return [root]
    if evidence.kind == "scores":
        return [path] if (path := root / str(evidence.x["file"])).is_file() else []
    name = "README.md" if evidence.kind == "registered" else "results.csv"
    own = root / "docs/results" / evidence.study / name
    folder = "report.md" if evidence.kind == "registered" else name
    others = sorted(root.glob(f"benchmarks/results/gpu*/{evidence.study}/{folder}"), reverse=True)
    return [path for path in (*others, own) if path.is_file()]


def _in_file(evidence: Evidence, path: Path, root: Path, level: float) -> Found | None:
    where = path.relative_to(root).as_posix()
    if evidence.kind == "registered":
        return _registered(evidence, path, where)
    if evidence.kind == "metric":
        arms = [_metrics(evidence, arm, root) for arm in (evidence.x, evidence.y) if arm]
        where = str(evidence.x["runs"])
    elif evidence.kind == "scores":
        arms = [_scores(path, arm) for arm in (evidence.x, evidence.y)]
    else:
        rows = _rows(path)
        arms = [_returns(evidence, arm, rows) for arm in (evidence.x, evidence.y) if arm]
    if not all(arms):
        return None
    scores = [[np.array(list(seeds.values())) for seeds in arm.values()] for arm in arms]
    seeds = min(len(task) for arm in scores for task in arm)
    function = _change if evidence.kind == "change" else _difference if evidence.y else mean
    return Found(
        estimate(function, *scores, confidence=level), seeds, level, where, evidence.differs
    )


def _difference(x: Sequence[np.ndarray], y: Sequence[np.ndarray]) -> np.ndarray:
    return mean(x) - mean(y)


def _change(x: Sequence[np.ndarray], y: Sequence[np.ndarray]) -> np.ndarray:
    """In percent of y."""
    return 100.0 * (mean(x) / mean(y) - 1.0)


@cache
def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _returns(evidence: Evidence, arm: Arm, rows: Iterable[dict[str, str]]) -> Returns:
    """Returns of every seed of a variant at a step; nothing unless all tasks have some.

    A seed that diverged has no return in a report; here it counts as 0, on both sides.
    """
    agents = evidence.agent.split()
    found: Returns = {f"{agent} {task}": {} for agent in agents for task in evidence.tasks}
    for row in rows:
        panel = f"{row['agent']} {row['task']}"
        if (
            panel in found
            and int(row["step"]) == evidence.steps
            and all(_is(row.get(f"label.{name}"), value) for name, value in arm.items())
        ):
            value = float(row["return"] or "nan")
            found[panel][int(row["seed"])] = value if math.isfinite(value) else 0.0
    return found if found and all(found.values()) else {}


def _is(cell: str | None, value: str | float) -> bool:
    if cell is None:
        return False
    return cell == value if isinstance(value, str) else float(cell) == value


def _metrics(evidence: Evidence, arm: Arm, root: Path) -> Returns:
    """A diagnostic at the evidence's step of every seed of run folders."""
    found: dict[int, float] = {}
    for path in sorted(root.glob(f"{arm['runs']}/seed_*/metrics.jsonl")):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            if (row["kind"], row["step"]) == (evidence.rows, evidence.steps):
                found[row["seed"]] = float(row[evidence.metric])
    return {"": found} if found else {}


def _scores(path: Path, arm: Arm) -> Returns:
    """Numbers of a benchmark's record, in their order."""
    scores = json.loads(path.read_text())["results"].get(arm["of"])
    return {"": dict(enumerate(scores))} if scores else {}


def _registered(evidence: Evidence, path: Path, where: str) -> Found | None:
    """The registered test, or one cell of it, from the report's table of every seed."""
    (task,) = evidence.tasks
    text = path.read_text()
    if f"{STEPS:,} agent steps a seed" not in text:
        return None
    cells = _cells(text).get(task, {})
    if evidence.x:
        own = cells.get((int(evidence.x["width"]), float(evidence.x["sparsity"])))
        if own is None:
            return None
        return Found(estimate(mean, [own]), len(own), 0.95, where, evidence.differs)
    if not set(cells) >= set(CELLS):
        return None
    judgement = judged({cell: cells[cell] for cell in CELLS}, LOOKS)
    verdict = judgement.verdict if task == TASK else ""  # the rule was registered for one task
    seeds = len(cells[CELLS[0]])
    return Found(
        judgement.interaction,
        seeds,
        LOOKS.get(seeds, 0.95),
        where,
        evidence.differs,
        verdict,
    )


def _cells(report: str) -> dict[str, dict[tuple[int, float], np.ndarray]]:
    """Task -> cell -> returns of its seeds, of the section "The registered outcome"."""
    section = report.partition("## The registered outcome")[2].partition("\n## ")[0]
    found: dict[str, dict[tuple[int, float], np.ndarray]] = {}
    task = ""
    for line in section.splitlines():
        columns = [cell.strip() for cell in line.strip("| ").split("|")]
        if columns[0].endswith(": width"):
            task = columns[0].split()[0]
        elif len(columns) == 7 and columns[0].isdigit():
            values = np.array([float(value) for value in columns[6].split(",")])
            found.setdefault(task, {})[int(columns[0]), float(columns[1])] = values
    return found


def _counted(evidence: Evidence) -> Found:
    """Parameters of networks, from their shapes; nothing is trained."""
    found = float(_parameters(evidence.agent, str(evidence.x["network"])))
    if evidence.kind == "share":
        found = 100.0 * (1.0 - found / _parameters(evidence.agent, str(evidence.y["network"])))
    number = np.asarray(found)
    return Found(Estimate(number, number, number), 0, 1.0, "computed", evidence.differs)


@cache
def _parameters(agent: str, size: str) -> int:
    """Of the online networks on the humanoid."""
    built = make_agent(agent, make_config(agent, "dense", size), Sizes.vector(*HUMANOID), 100_000)
    return sum(math.prod(shape) for plan in built.plans.values() for shape in plan.dense.values())
