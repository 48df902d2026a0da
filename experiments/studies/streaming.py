"""Does static sparsity let Stream AC(λ) grow wider? A published claim, registered before it is run.

Registered 2026-11-27, before any run of the study. Published (Ma et al., 2025,
docs/specs/streaming.md §2): on Walker2d-v4, after 2 M steps, going from width 128 to 512 costs the
dense agent 379 of return and brings the one of sparsity 0.8 another 1472. The same in words is in
docs/studies.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.studies import scales
from experiments.studies.base import Scale, Study, Variant
from experiments.studies.figures import mark_diverged, name_missing
from experiments.studies.published import published_streams
from experiments.studies.results import Results, VariantRuns
from mst_jax.analysis import Estimate, TrainingReturns, estimate, iqm, mean
from mst_jax.figures.curves import draw_mean
from mst_jax.figures.style import PALETTE, plain
from mst_jax.recipes import Overrides

AGENT, TASK, STEPS = "stream_ac", "gym:Walker2d-v4", 2_000_000
NARROW, WIDE = 128, 512
DENSE, SPARSE = 0.0, 0.8
PUBLISHED = published_streams(TASK)
EFFECT = 1851.0  # published: (512 - 128 at 0.8) - (512 - 128 at 0)
GATE = 750.0  # how far the first cell may be from its published return
WINDOWS = 40  # of a run, each with the mean return of the training episodes that end in it
LAST = 2  # windows whose episodes are the outcome: 100,000 of 2 M steps
LOOKS = {5: 0.99, 10: 0.96}  # seeds a cell -> confidence of the interval
OUTCOME = (
    "## The registered outcome\n\nMean return of training episodes that ended in the last "
    f"{LAST / WINDOWS:.0%} of steps."
)
CELLS = ((NARROW, DENSE), (WIDE, DENSE), (WIDE, SPARSE), (NARROW, SPARSE))
FIRST_SEEDS = {cell: 100 * index for index, cell in enumerate(CELLS)}  # no two cells share a seed


class Judgement(NamedTuple):
    """What the registered rule says.

    Attributes:
        outcomes: cell -> mean training return of each seed over the last steps, (S,); a seed that
            diverged counts as 0.
        interaction: (IQM at 512 - IQM at 128 with sparsity 0.8) - (the same without).
        verdict: `supported`, `contradicted`, `undecided`; or `no look` with other numbers of seeds.
    """

    outcomes: dict[tuple[int, float], np.ndarray]
    interaction: Estimate
    verdict: str


def judged(outcomes: dict[tuple[int, float], np.ndarray], looks: dict[int, float]) -> Judgement:
    """The registered test on outcomes of all four cells."""
    counts = {len(values) for values in outcomes.values()}
    look = counts.pop() if len(counts) == 1 else 0
    order = ((WIDE, SPARSE), (NARROW, SPARSE), (WIDE, DENSE), (NARROW, DENSE))
    found = estimate(
        _interaction,
        *([outcomes[cell]] for cell in order),
        confidence=looks.get(look, 0.95),
        resamples=20_000,
    )
    return Judgement(outcomes, found, _verdict(found) if look in looks else "no look")


def _interaction(
    wide_sparse: Sequence[np.ndarray],
    narrow_sparse: Sequence[np.ndarray],
    wide: Sequence[np.ndarray],
    narrow: Sequence[np.ndarray],
) -> np.ndarray:
    return (iqm(wide_sparse) - iqm(narrow_sparse)) - (iqm(wide) - iqm(narrow))


def _verdict(found: Estimate) -> str:
    if found.low > 0:
        return "supported"
    return "contradicted" if found.high < EFFECT / 2 else "undecided"


def cell_of(group: VariantRuns) -> tuple[int, float]:
    """(width, sparsity)."""
    return int(group.labels["width"]), float(group.labels["sparsity"])


def outcomes_of(group: VariantRuns) -> dict[int, float]:
    """Seed -> mean return of the training episodes that ended in the last windows."""
    return {
        int(seed): 0.0 if np.isnan(value) else float(value)
        for block in group.training
        for seed, value in zip(block.seeds, _last(block), strict=True)
    }


def _last(block: TrainingReturns) -> np.ndarray:
    begins = np.concatenate([[0], block.steps[:-1]])
    return block.over_last(int(block.steps[-1] - begins[-LAST:][0]))


def registered_report(results: Results) -> str:
    """The study's own section of its report: every seed, and for the registered task the verdict.

    What is of another agent, task or length has returns here, but no gate, no test and no verdict.
    """
    parts = [OUTCOME]
    for task, agent in results.panels:
        groups = results.panel(task, agent)
        found = {cell_of(group): outcomes_of(group) for group in groups}
        as_registered = _registered(groups)
        parts.append(every_seed(f"{task} {agent}", found, PUBLISHED if as_registered else {}))
        if as_registered:
            parts += _judged(found)
        else:
            parts.append(f"Not what was registered ({AGENT}, {TASK}, {STEPS:,} steps): no verdict.")
    return "\n\n".join(parts)


def _registered(groups: Sequence[VariantRuns]) -> bool:
    return all(
        (group.task, group.agent) == (TASK, AGENT)
        and all(block.steps[-1] == STEPS for block in group.training)
        for group in groups
    )


def every_seed(
    name: str,
    found: dict[tuple[int, float], dict[int, float]],
    known: dict[tuple[int, float], float],
) -> str:
    """A row for each cell that has seeds; `known` are its published returns."""
    rows = [
        f"| {name}: width | sparsity | seeds | mean | IQM | published mean | every seed |",
        "|" + 7 * "---|",
    ]
    for cell, own in found.items():
        if not own:
            continue
        values = np.array(list(own.values()))
        published = f"{known[cell]:.0f}" if cell in known else "-"
        shown = ", ".join(f"{own[seed]:.0f}" for seed in sorted(own))
        rows.append(
            f"| {cell[0]} | {cell[1]} | {len(own)} | {values.mean():.0f} | "
            f"{iqm([values]):.0f} | {published} | {shown} |"
        )
    return "\n".join(rows)


def _judged(found: dict[tuple[int, float], dict[int, float]]) -> list[str]:
    """The gate and the test."""
    outcomes = {cell: np.array([own[s] for s in sorted(own)]) for cell, own in found.items() if own}
    if not set(outcomes) >= set(CELLS):
        return [_gate(outcomes), "Not all four cells are there: no test."]
    return [_gate(outcomes), _test(judged({cell: outcomes[cell] for cell in CELLS}, LOOKS))]


def _gate(outcomes: dict[tuple[int, float], np.ndarray]) -> str:
    first = outcomes.get(CELLS[0])
    if first is None:
        return "Gate: the cell of width 128 without sparsity is not there yet."
    off = first.mean() - PUBLISHED[CELLS[0]]
    within = "within" if abs(off) <= GATE else "OUTSIDE"
    return f"Gate: cell (128, 0) is {off:+.0f} from its published return, {within} ±{GATE:.0f}."


def _test(judgement: Judgement) -> str:
    count, found = len(judgement.outcomes[CELLS[0]]), judgement.interaction
    level = LOOKS.get(count)
    if level is None:
        planned = " and ".join(map(str, LOOKS))
        return (
            f"Interaction {found.value:.0f} [{found.low:.0f}, {found.high:.0f}] (95 %). "
            f"No verdict: looks are planned at {planned} seeds of every cell."
        )
    return (
        "Interaction (R512 - R128 at S = 0.8) - (R512 - R128 at S = 0), of IQMs: "
        f"{found.value:.0f}, {level:.0%} interval [{found.low:.0f}, {found.high:.0f}]; published "
        f"{EFFECT:.0f}.\n\n**The published claim is {judgement.verdict}** at the look with "
        f"{count} seeds a cell "
        f"(supported: the interval lies above 0; contradicted: it ends below {EFFECT / 2:.0f}; "
        "otherwise undecided)."
    )


def streaming_figure(results: Results) -> Figure:
    """Training returns against steps, a panel for each width, and all outcomes beside them."""
    widths = sorted({cell_of(group)[0] for group in results.groups})
    levels = sorted({cell_of(group)[1] for group in results.groups})
    colours = dict(zip(levels, PALETTE, strict=False))
    figure = Figure(figsize=(4.0 * (len(widths) + 1), 3.8), layout="constrained")
    axes = figure.subplots(1, len(widths) + 1, sharey=True, squeeze=False)[0]
    for axis, width in zip(axes, widths, strict=False):
        for group in results.groups:
            own, sparsity = cell_of(group)
            if own == width and group.training:
                _draw_windows(axis, group, colours[sparsity])
        axis.set(title=f"width {width}", xlabel="agent steps")
    _draw_outcomes(axes[-1], results, widths, colours)
    name_missing(axes[-1], results.groups)
    axes[0].set_ylabel("return of training episodes")
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=7, framealpha=0.7, edgecolor="none")
    return figure


def _draw_windows(axis: Axes, group: VariantRuns, colour: str) -> None:
    """Every seed's windows, thin, and their mean."""
    steps = group.training[0].steps
    returns = np.concatenate([block.returns for block in group.training])
    axis.plot(steps, returns.T, color=colour, alpha=0.3, linewidth=0.8)
    label = plain(f"sparsity {cell_of(group)[1]:g} ({len(returns)} seeds)")
    draw_mean(axis, steps, returns, color=colour, linewidth=2.2, label=label)


def _draw_outcomes(
    axis: Axes, results: Results, widths: Sequence[int], colours: dict[float, str]
) -> None:
    """Every seed's outcome, their mean with its interval, and the published mean as a cross."""
    for group in results.groups:
        (width, sparsity), values = cell_of(group), list(outcomes_of(group).values())
        if not values:
            continue
        at, colour = widths.index(width) + 0.24 * list(colours).index(sparsity), colours[sparsity]
        axis.plot([at] * len(values), values, "o", color=colour, alpha=0.45, markersize=4)
        found = estimate(mean, [np.array(values)])
        spread = [[found.value - found.low], [found.high - found.value]]
        axis.errorbar(at + 0.07, found.value, spread, fmt="s", color=colour, markersize=6)
        mark_diverged(axis, [at + 0.07], [found], [group])
        if (width, sparsity) in PUBLISHED:
            axis.plot(at - 0.07, PUBLISHED[width, sparsity], "x", color=colour, markersize=8)
    axis.set(title=f"last {LAST / WINDOWS:.0%}; x: published mean", xlabel="width")
    axis.set_xticks([index + 0.1 for index in range(len(widths))], [str(w) for w in widths])


def of_both(**settings: float | str) -> Overrides:
    """The same settings in both networks."""
    return {f"{m}.{key}": value for m in ("critic", "actor") for key, value in settings.items()}


def variants_of(first_seeds: Mapping[tuple[int, float], int], size: str) -> list[Variant]:
    """A variant of each cell; all are static, since a mask that keeps everything is dense.

    Args:
        first_seeds: (width, sparsity) -> first seed; no two cells share one.
        size: of the study; `smoke` has an eighth of the widths.
    """
    shrink = 8 if size == "smoke" else 1
    return [
        Variant(
            {"width": width, "sparsity": sparsity},
            overrides=of_both(hidden=width // shrink, regime="static", sparsity=sparsity),
            first_seed=first_seed,
        )
        for (width, sparsity), first_seed in first_seeds.items()
    ]


def scale_of(steps: int, seeds: int, block: int) -> Scale:
    """The published protocol, shorter or longer."""
    return Scale(
        tasks=(TASK,),
        agents=(AGENT,),
        steps=steps,
        seeds=seeds,
        block=block,
        evaluations=4,
        eval_episodes=5,
        checkpoints=40,
        rows=WINDOWS,
    )


STREAMING_WIDTH = Study(
    "streaming_width",
    "Does static sparsity let Stream AC(λ) gain from width, as published for Walker2d-v4?",
    lambda _, size: variants_of(FIRST_SEEDS, size),
    {
        "smoke": replace(scales.smoke(AGENT), rows=WINDOWS),
        "small": scale_of(500_000, 5, 5),
        "paper": scale_of(STEPS, 10, 5),
    },
    streaming_figure,
    {"width": NARROW, "sparsity": DENSE},
    judge=registered_report,
    settings={"with_time": "published"},
)
