"""Studies as data: which runs answer which question."""

from experiments.studies.atari import ATARI_WIDTH
from experiments.studies.base import Cell, Labels, Scale, Study, Variant, check_distinct
from experiments.studies.modules import MODULES, MST_VS_UNIFORM, RIGL_SETTINGS
from experiments.studies.pixels import VISUAL_WIDTH
from experiments.studies.replay_ratio import REPLAY_RATIO
from experiments.studies.sizes import (
    RESET,
    SCALING_DEPTH,
    SCALING_JOINT,
    SCALING_WIDTH,
    SPARSITY_SWEEP,
)
from experiments.studies.streaming import STREAMING_WIDTH
from experiments.studies.streaming_cells import STREAMING_CELLS
from experiments.studies.streaming_init import STREAMING_INIT
from experiments.studies.structures import STRUCTURE_COST

STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
        MODULES,
        SCALING_WIDTH,
        SCALING_DEPTH,
        SCALING_JOINT,
        SPARSITY_SWEEP,
        MST_VS_UNIFORM,
        RIGL_SETTINGS,
        RESET,
        STREAMING_WIDTH,
        STREAMING_CELLS,
        STREAMING_INIT,
        VISUAL_WIDTH,
        ATARI_WIDTH,
        REPLAY_RATIO,
        STRUCTURE_COST,
    )
}

__all__ = ["STUDIES", "Cell", "Labels", "Scale", "Study", "Variant", "check_distinct"]
