"""The Network Sparsity paper's study from pixels (docs/specs/drqv2.md §2)."""

from dataclasses import replace

from experiments.studies import figures, scales
from experiments.studies.base import Scale, Study, Variant

AGENT = "drqv2"
TASKS = ("dmc_pixels:quadruped-run", "dmc_pixels:hopper-hop")
FACTORS = {512: "0.5x1", 1024: "1x1", 2048: "2x1", 4096: "4x1"}  # of the critic's heads
SPARSITIES = (0.0, 0.4, 0.8)


def _variants(agent: str, size: str) -> list[Variant]:
    widths = tuple(FACTORS)[:2] if size == "smoke" else tuple(FACTORS)
    return [
        Variant(
            {"width": width, "sparsity": sparsity},
            recipe="static_critic" if sparsity else "dense",
            size=FACTORS[width],
            overrides={"critic.sparsity": sparsity} if sparsity else {},
        )
        for width in widths
        for sparsity in SPARSITIES
    ]


VISUAL_WIDTH = Study(
    "visual_width",
    "Does static sparsity of the critic let DrQ-v2 gain from its width?",
    _variants,
    {
        "smoke": replace(
            scales.smoke(AGENT),
            tasks=("probe:picture_motion",),  # of 12x12 pixels
            base={AGENT: {**scales.TINY[AGENT], "encoder.depth": 2, "feature_dim": 8, "pad": 1}},
        ),
        # 100 k frames, with cartpole-swingup's own settings.
        "small": Scale(
            tasks=("dmc_pixels:cartpole-swingup",),
            agents=(AGENT,),
            steps=50_000,
            seeds=3,
            block=3,
            checkpoints=2,
            preset="drqv2",
        ),
        # 2 M frames, 10 episodes every 10,000 of them. A seed's pictures are 21 GB.
        "paper": Scale(
            tasks=TASKS,
            agents=(AGENT,),
            steps=1_000_000,
            seeds=5,
            block=1,
            evaluations=200,
            preset="netsparsity",
        ),
    },
    figures.bars("width", "sparsity"),
    {"width": 1024, "sparsity": 0.0},
)
