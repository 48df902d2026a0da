"""Does a dense agent lose return when it learns more from each step? A pilot, registered first.

Registered 2026-11-27, before any of its runs: where dense networks lose nothing from more updates
(Nikishin et al., 2022; D'Oro et al., 2023), there is no plasticity to be saved by sparse training,
and nothing to compare. The same in words is in docs/studies.md.
"""

from dataclasses import replace

import numpy as np

from experiments.studies import figures, scales
from experiments.studies.base import Scale, Study, Variant
from experiments.studies.results import Results, VariantRuns
from mst_jax.analysis import iqm
from mst_jax.recipes import Overrides

AGENT = "sac"
RATIOS = (1, 4, 8, 16)  # updates of each agent step
LOSS = 0.2  # share of the return at one update that dense must lose at a higher ratio
FIRST_SEED = 1_000  # of the pilot, so that what follows from it has seeds of its own
ROWS = 20  # windows of a run; the outcome is of the last two
LAST = 2
# Two layers without norm, as in the work on plasticity; small, so that a CPU can run them.
PLAIN: Overrides = {
    **{f"{module}.hidden": 128 for module in ("critic", "actor")},
    "batch_size": 128,
    "learning_starts": 1_000,
    "twin": True,
}


def outcomes_of(group: VariantRuns) -> np.ndarray:
    """Mean return of the training episodes that ended in the last windows, a value for each seed.

    A seed that diverged counts as 0.
    """
    values = [
        block.over_last(int(block.steps[-1] - block.steps[-1 - LAST])) for block in group.training
    ]
    return np.nan_to_num(np.concatenate(values))


def pilot_report(results: Results) -> str:
    """Every seed's outcome at every ratio, and whether dense loses enough for a comparison."""
    parts = [
        "## The pilot's outcome",
        f"Mean return of training episodes that ended in the last {LAST / ROWS:.0%} of steps.",
    ]
    for task, agent in results.panels:
        groups = [group for group in results.panel(task, agent) if group.training]
        found = {int(group.labels["updates"]): outcomes_of(group) for group in groups}
        parts += [_table(f"{task} {agent}", found), _verdict(found)]
    return "\n\n".join(parts)


def losses_of(found: dict[int, np.ndarray]) -> dict[int, float]:
    """Ratio above one -> share of the IQM at one update a step that is lost there."""
    base = iqm([found[RATIOS[0]]])
    return {ratio: float(1 - iqm([own]) / base) for ratio, own in found.items() if ratio > 1}


def _table(name: str, found: dict[int, np.ndarray]) -> str:
    rows = [f"| {name}: updates a step | IQM | mean | every seed |", "|" + 4 * "---|"]
    rows += [
        f"| {ratio} | {iqm([own]):.0f} | {own.mean():.0f} | {', '.join(f'{x:.0f}' for x in own)} |"
        for ratio, own in found.items()
    ]
    return "\n".join(rows)


def _verdict(found: dict[int, np.ndarray]) -> str:
    if set(found) < set(RATIOS):
        return "Not all ratios are there: no verdict."
    if iqm([found[RATIOS[0]]]) <= 0:
        return "Nothing is gained at one update a step, so nothing can be lost: no verdict."
    losses = losses_of(found)
    shown = ", ".join(f"{0 - loss:+.0%} at {ratio}" for ratio, loss in losses.items())
    told = f"Dense, beside one update a step: {shown}"
    enough = [ratio for ratio, loss in losses.items() if loss >= LOSS]
    if enough:
        return f"{told}: **the comparison is made at {enough[0]} updates a step.**"
    return f"{told}. No loss of {LOSS:.0%} anywhere: **there is nothing to compare here.**"


def _variants(agent: str, size: str) -> list[Variant]:
    del agent
    return [
        Variant(
            {"updates": ratio},
            architecture="" if size == "paper" else "relu",
            overrides={"updates_per_step": ratio},
            first_seed=0 if size == "paper" else FIRST_SEED,
        )
        for ratio in RATIOS
    ]


REPLAY_RATIO = Study(
    "replay_ratio",
    "Does a dense agent lose return when it learns more from each step?",
    _variants,
    {
        "smoke": replace(scales.smoke(AGENT), rows=ROWS),
        "small": Scale(
            tasks=("gym:Hopper-v4",),
            agents=(AGENT,),
            steps=30_000,
            seeds=4,
            block=4,
            evaluations=6,
            eval_episodes=5,
            rows=ROWS,
            checkpoints=6,
            base={AGENT: PLAIN},
        ),
        "paper": scales.paper(scales.HARDEST, (AGENT,)),
    },
    figures.bars("updates", None),
    {"updates": RATIOS[0]},
    judge=pilot_report,
)
