"""The Network Sparsity paper's study on Atari with 100,000 steps (docs/specs/der.md §3).

The encoder is IMPALA, three times as wide or not, and static Erdős–Rényi masks share one budget
over the whole network. The paper does not say which layers are pruned, or by which allocation: by
this one no convolution is, at any sparsity here.
"""

from dataclasses import replace

from experiments.studies import scales
from experiments.studies.base import Labels, Scale, Study, Variant
from experiments.studies.published_atari import CHANGES, RETURNS
from experiments.studies.results import Results, VariantRuns
from experiments.studies.score_figures import change, changes
from mst_jax.agents import default_config, modules_of
from mst_jax.analysis import normalised
from mst_jax.recipes import Overrides

AGENT = "der"
GAMES = tuple(f"atari:{game}" for game in RETURNS)
FEW = ("atari:Boxing", "atari:KungFuMaster", "atari:RoadRunner")
SPARSITIES = (0.0, 0.4, 0.8)
BASELINE: Labels = {"width": 1, "sparsity": 0.0}
JOINT: Overrides = {"joint": True}
SMOKE: Overrides = {
    "encoder.channels": "1,2",  # two stacks: three are too many for 10x5 pixels
    "encoder.hidden": 4,
    "encoder.depth": 1,
    "n_step": 3,
    "atoms": 21,
}


def _variants(agent: str, _: str) -> list[Variant]:
    """Both widths at all sparsities; all are static: a mask that keeps everything is dense."""
    modules = modules_of(default_config(agent))
    return [
        Variant(
            {"width": width, "sparsity": sparsity},
            size=f"{width}x1",
            overrides={
                f"{module}.{key}": value
                for module in modules
                for key, value in (("regime", "static"), ("sparsity", sparsity))
            },
        )
        for width in (1, 3)
        for sparsity in SPARSITIES
    ]


def published_change(task: str, labels: Labels) -> float | None:
    """Percent by which the paper's network of width 3 is above the dense one of width 1."""
    found = CHANGES.get(task.removeprefix("atari:"))
    if found is None or labels["width"] != 3:
        return None
    return dict(zip(SPARSITIES, found, strict=True)).get(labels["sparsity"])


def beside_published(results: Results) -> str:
    """Markdown: each game's return of the baseline, and changes against it; published ones too."""
    rows = [
        "| game | width 1, dense | human-normalised | DER as published | 3, dense | 3, S = 0.4 | "
        "3, S = 0.8 |",
        "|" + 7 * "---|",
    ]
    for task in dict.fromkeys(group.task for group in results.groups):
        groups = {tuple(group.labels.values()): group for group in results.panel(task, AGENT)}
        base = groups.get(tuple(BASELINE.values()))
        if base is None or not base.final or task not in GAMES:
            continue
        game, value = task.removeprefix("atari:"), base.returns.mean()
        cells = [f"{value:.4g}", f"{float(normalised(task, value)):.3f}", f"{RETURNS[game]:g}"]
        cells += [_beside(groups.get((3, sparsity)), base) for sparsity in SPARSITIES]
        rows.append(f"| {game} | {' | '.join(cells)} |")
    if len(rows) == 2:
        return ""
    told = (
        "Means over seeds of the last evaluation. Changes are in percent of the dense network of "
        "width 1, in brackets those of arXiv 2506.17204 (read off its figure). Returns of DER as "
        "published are of the original program, with 20 steps a return."
    )
    return "\n\n".join(["## Beside what was published", "\n".join(rows), told])


def _beside(group: VariantRuns | None, base: VariantRuns) -> str:
    """A change, and the published one."""
    found = None if group is None else change(group, base)
    known = None if group is None else published_change(group.task, group.labels)
    own = "-" if found is None else f"{found.value:+.0f}"
    return own if known is None else f"{own} ({known:+g})"


def _scale(tasks: tuple[str, ...], steps: int, seeds: int) -> Scale:
    """The paper's protocol at some length: one evaluation after training, of 100 games."""
    return Scale(
        tasks=tasks,
        agents=(AGENT,),
        steps=steps,
        seeds=seeds,
        block=seeds,
        evaluations=1,
        eval_episodes=100,
        rows=20,
        base={AGENT: JOINT},
        preset="netsparsity",
    )


ATARI_WIDTH = Study(
    "atari_width",
    "Does static sparsity of the whole network let DER gain from a wider IMPALA encoder?",
    _variants,
    {
        "smoke": replace(
            scales.smoke(AGENT),
            tasks=("probe:catch",),
            base={AGENT: {**scales.TINY[AGENT], **JOINT, **SMOKE}},
            preset="netsparsity",
        ),
        "small": _scale(FEW, steps=30_000, seeds=3),
        "paper": _scale(GAMES, steps=100_000, seeds=5),
    },
    changes(BASELINE, published_change),
    BASELINE,
    judge=beside_published,
)
