"""SparseInit on and off, dense and statically sparse: a published ablation of wide Stream AC(λ)."""

from dataclasses import replace
from itertools import product

from experiments.studies import figures, scales
from experiments.studies.base import Study, Variant
from experiments.studies.published import STREAM
from experiments.studies.streaming import (
    AGENT,
    DENSE,
    SPARSE,
    STEPS,
    TASK,
    WIDE,
    WINDOWS,
    of_both,
    scale_of,
)

SHARES = {"sparse": 0.9, "dense": 0.0}  # of each unit's inputs that begin at zero
# No two cells share a seed, and none one with the other studies of streams.
FIRST_SEEDS = {
    cell: 2_000 + 100 * index for index, cell in enumerate(product(SHARES, (DENSE, SPARSE)))
}


def _variants(_: str, size: str) -> list[Variant]:
    width = WIDE // 8 if size == "smoke" else WIDE
    return [
        Variant(
            {"init": init, "sparsity": level},
            overrides=of_both(
                hidden=width, regime="static", sparsity=level, init_sparsity=SHARES[init]
            ),
            first_seed=first_seed,
        )
        for (init, level), first_seed in FIRST_SEEDS.items()
    ]


STREAMING_INIT = Study(
    "streaming_init",
    "Does a wide Stream AC(λ) need SparseInit, dense and statically sparse?",
    _variants,
    {
        "smoke": replace(scales.smoke(AGENT), rows=WINDOWS),
        "small": replace(scale_of(500_000, 5, 5), tasks=(TASK,)),
        "paper": replace(scale_of(STEPS, 5, 5), tasks=tuple(STREAM)),
    },
    figures.bars("sparsity", "init"),
    {"init": "sparse", "sparsity": DENSE},
    settings={"with_time": "published"},
)
