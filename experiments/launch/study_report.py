"""The report of a study as Markdown: what was run, what came of it, and what that supports."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.launch.comparisons import FEWEST_SEEDS, LEVEL, Comparison, compare_all
from experiments.launch.study_folder import Status, StudyFolder
from experiments.studies import Cell, Study
from experiments.studies.results import Results, VariantRuns, scores
from mst_jax.analysis import Estimate, estimate, iqm, mean, meaning, median, optimality_gap
from mst_jax.runs.json_file import read_json


def study_report(
    study: Study,
    folder: StudyFolder,
    manifest: Mapping[str, Any],
    cells: Sequence[Cell],
    results: Results,
    pictures: Mapping[str, str],
) -> str:
    """The whole report; `pictures` are titles and file names of figures beside it."""
    parts = [
        f"# {study.name}, size {manifest['size']}\n\n{study.question}",
        _what_was_run(folder, manifest, cells),
        _what_is_missing(folder, cells, results),
    ]
    if results.rows and study.judge is not None:
        parts.append(study.judge(results))
    if results.rows:
        parts += [_per_task(results), _over_tasks(results), _comparisons(study, results)]
        parts += [f"## Figures\n\n{_pictures(pictures)}"]
    return "\n\n".join(part for part in parts if part) + "\n"


def _what_was_run(folder: StudyFolder, manifest: Mapping[str, Any], cells: Sequence[Cell]) -> str:
    counts = Counter(folder.status(cell).value for cell in cells)
    settings = cells[0].settings
    commands = "\n".join(manifest["commands"])
    lines = [
        "## What was run",
        f"```sh\n{commands}\n```",
        f"{len(cells)} cells: {', '.join(f'{n} {name}' for name, n in counts.items())}. "
        f"{settings.steps:,} agent steps a seed, {settings.eval_episodes} episodes an evaluation; "
        "results are of the last evaluation.",
        _machines(folder, cells),
    ]
    return "\n\n".join(line for line in lines if line)


def _machines(folder: StudyFolder, cells: Sequence[Cell]) -> str:
    """Versions and hardware, one line for each distinct set of them."""
    found: Counter[str] = Counter()
    for cell in cells:
        path = folder.run(cell) / "versions.json"
        if folder.status(cell) is not Status.FINISHED or not path.is_file():
            continue
        try:
            found[_machine(read_json(path))] += 1
        except (ValueError, KeyError, AttributeError, TypeError):
            found["versions.json is damaged"] += 1
    return "\n".join(f"- {count} cells: {text}" for text, count in found.items())


def _machine(v: Mapping[str, Any]) -> str:
    packages = ", ".join(f"{name} {number}" for name, number in v["packages"].items() if number)
    return (
        f"Python {v['python']}, {packages}; git {v['git']}; {v['platform']}; "
        f"{v['backend']}: {', '.join(v['devices'])}"
    )


def _what_is_missing(folder: StudyFolder, cells: Sequence[Cell], results: Results) -> str:
    if not results.missing and not results.problems:
        return "## What is missing\n\nNothing: every planned seed is in the results."
    lines = [f"- {line}" for line in results.missing]
    lines += [f"- {name} cannot be read: {why}" for name, why in results.problems.items()]
    for cell in cells:
        failure = folder.failure(cell)
        if failure is not None and folder.status(cell) is Status.FAILED:
            lines.append(f"- {cell.id} failed {failure['attempts']} times: {failure['message']}")
    return "## What is missing\n\n" + "\n".join(lines)


def _per_task(results: Results) -> str:
    """One row a group: mean and IQM over the seeds that have a return, and every seed's."""
    rows = []
    for group in results.groups:
        if not group.outcomes:
            continue
        low_n = "" if len(group.final) >= FEWEST_SEEDS else " (few seeds)"
        over = [group.returns]
        rows.append(
            [
                group.task,
                group.agent,
                group.variant,
                f"{len(group.final)}/{len(group.planned)}{low_n}",
                _show(estimate(mean, over)) if group.final else "-",
                _show(estimate(iqm, over)) if group.final else "-",
                ", ".join(_outcome(group, seed) for seed in sorted(group.outcomes)),
                f"{group.column('parameters'):,}",
                f"{group.column('active_parameters'):,}",
                f"{max(row['flops'] for row in group.rows):.2e}",
                f"{max(row['wall_seconds'] for row in group.rows):.0f}",
            ]
        )
    head = ["task", "agent", "variant", "seeds", "mean [95 %]", "IQM [95 %]", "every seed"]
    head += ["parameters", "active", "operations", "seconds"]
    return (
        "## Return on each task\n\n"
        + _table(head, rows)
        + "\n\nMean and IQM are of the seeds that have a return. Operations are theoretical (masks "
        "on dense arrays save none); seconds are of the longest block and all its seeds."
    )


def _outcome(group: VariantRuns, seed: int) -> str:
    """A seed's final return, or the step by which it had diverged."""
    value = group.outcomes[seed]
    return f"diverged by {group.diverged[seed]:,}" if np.isnan(value) else f"{value:.4g}"


def _over_tasks(results: Results) -> str:
    """Aggregates of each variant over tasks, if there are several and all have scores."""
    rows, tasks = [], []
    for groups in results.over_tasks:
        tasks += [group.task for group in groups]
        values = scores(groups)
        shown = ["-"] * 4  # a task without any return cannot be left out of an average over tasks
        if all(group.final for group in groups):
            shown = [_show(estimate(e, values)) for e in (iqm, mean, median, optimality_gap)]
        planned = sum(len(group.planned) for group in groups)
        name = [groups[0].agent, groups[0].variant]
        rows.append([*name, *shown, f"{sum(map(len, values))}/{planned}"])
    if not rows:
        return ""
    head = ["agent", "variant", "IQM", "mean", "median", "optimality gap", "runs"]
    explained = (
        f"Of a score {'; of others '.join(dict.fromkeys(map(meaning, tasks)))}. IQM is the mean of "
        "the middle half of all runs, mean and median are over tasks; intervals are of a bootstrap "
        "that draws runs within each task."
    )
    title = "## Normalised scores over all tasks, with 95 % intervals"
    return f"{title}\n\n{_table(head, rows)}\n\n{explained}"


def _comparisons(study: Study, results: Results) -> str:
    """Every variant against the study's baseline, and what that supports."""
    found, impossible = compare_all(results, study.baseline)
    head = ["agent", "variant", "tasks", "difference [95 %]", "pairs", "wins", "p"]
    head += ["P(better) [95 %]", "seeds to resolve it"]
    rows = [
        [
            c.agent,
            c.variant,
            _tasks(c),
            f"{_show(c.paired.difference)} ({c.unit})",
            str(c.pairs) if c.paired.pairs == c.pairs else f"{c.paired.pairs} of {c.pairs}",
            f"{c.wins:.0%}",
            f"{c.paired.p_value:.3g}",
            _show(c.better),
            "-" if c.needed is None else str(c.needed),
        ]
        for c in found
    ]
    explained = (
        "Differences are paired by seed and averaged over tasks, if all have scores; p is of the "
        "sign-flip test over pairs, before any correction. A pair in which a run diverged has no "
        "difference; wins and P(better) count it, with a diverged run worse than every other. The "
        "last column is the seeds a side with which a t-test finds the measured difference, were "
        "it true, with probability 0.8."
    )
    explored = {group.variant for group in results.groups if study.explores(group.labels)}
    tested = [c for c in found if c.variant not in explored]
    verdicts = [
        f"- {c.agent} {c.variant} on {_tasks(c)}: {c.verdict(len(tested))}." for c in tested
    ]
    verdicts += [
        f"- {c.agent} {c.variant} on {_tasks(c)}: exploratory, no verdict."
        for c in found
        if c.variant in explored
    ]
    verdicts += [f"- {line}." for line in impossible]
    rule = (
        f"A difference counts as supported with at least {FEWEST_SEEDS} seeds a task, an interval "
        f"without zero, and p times the number of comparisons at most {LEVEL}. Sizes other than "
        "`paper` say nothing about published claims."
    )
    parts = [f"## Against the baseline: {_name(study.baseline)}"]
    parts += [_table(head, rows), explained] if rows else []
    return "\n\n".join([*parts, "## What the data support", "\n".join(verdicts), rule])


def _tasks(comparison: Comparison) -> str:
    tasks = comparison.tasks
    return tasks[0] if len(tasks) == 1 else f"{len(tasks)} tasks"


def _name(labels: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in labels.items())


def _show(found: Estimate) -> str:
    return f"{found.value:.4g} [{found.low:.4g}, {found.high:.4g}]"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; what the text of users would mean in Markdown is taken from it."""
    cells = [[cell.replace("|", r"\|").replace("$", r"\$") for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _pictures(pictures: Mapping[str, str]) -> str:
    return "\n\n".join(f"{title}\n\n![{title}]({name})" for title, name in pictures.items())
