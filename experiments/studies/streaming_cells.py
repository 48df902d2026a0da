"""The published cells of Stream AC(λ) that `streaming_width` lacks: other widths and sparsities.

Its protocol and its outcome; docs/claims.md compares each cell with its published return, within a
tolerance registered on 2026-11-27.
"""

from dataclasses import replace

from experiments.studies import scales
from experiments.studies.base import Study, Variant
from experiments.studies.published import STREAM, STREAM_WIDTHS, published_streams
from experiments.studies.results import Results
from experiments.studies.streaming import (
    AGENT,
    CELLS,
    OUTCOME,
    STEPS,
    TASK,
    WINDOWS,
    cell_of,
    every_seed,
    outcomes_of,
    scale_of,
    streaming_figure,
    variants_of,
)

SPARSITIES = (0.0, 0.4, 0.8)
OTHERS = [(w, s) for w in STREAM_WIDTHS for s in SPARSITIES if (w, s) not in CELLS]
# No two cells share a seed, and none one with `streaming_width`.
FIRST_SEEDS = {cell: 1_000 + 100 * index for index, cell in enumerate(OTHERS)}
WIDEST = {"smoke": 64, "small": 128, "paper": 512}


def _variants(_: str, size: str) -> list[Variant]:
    """Narrow ones first."""
    chosen = {cell: seed for cell, seed in FIRST_SEEDS.items() if cell[0] <= WIDEST[size]}
    return variants_of(chosen, size)


def _report(results: Results) -> str:
    """Every seed of every cell beside the published returns."""
    parts = [OUTCOME]
    for task, agent in results.panels:
        found = {cell_of(group): outcomes_of(group) for group in results.panel(task, agent)}
        parts.append(every_seed(f"{task} {agent}", found, published_streams(task)))
    return "\n\n".join(parts)


STREAMING_CELLS = Study(
    "streaming_cells",
    "Do returns of Stream AC(λ) at other widths and sparsities come out as published?",
    _variants,
    {
        "smoke": replace(scales.smoke(AGENT), rows=WINDOWS),
        "small": replace(scale_of(STEPS, 5, 5), tasks=(TASK,)),
        "paper": replace(scale_of(STEPS, 5, 5), tasks=tuple(STREAM)),
    },
    streaming_figure,
    {"width": 64, "sparsity": 0.0},
    judge=_report,
    settings={"with_time": "published"},
)
