"""How Atari games are played: what differs between the studies that play them.

Nothing here imports the emulator, because settings are checked without it.
"""

from typing import Literal, NamedTuple


class Protocol(NamedTuple):
    """How a game is played; games and agents are compared under one protocol only.

    Attributes:
        frames: of the emulator in an agent step, all with one action.
        steps: agent steps after which a game is cut.
        no_ops: a game begins with fewer than so many agent steps of doing nothing, as many as its
            seed says; their rewards are not counted.
        lives_terminate: whether a lost life is a terminal state.
        sticky: probability with which a frame repeats the action of the one before.
        fill: what stands for pictures before the first; see `Observation`.
    """

    frames: int = 4
    steps: int = 27_000
    no_ops: int = 30
    lives_terminate: bool = True
    sticky: float = 0.0
    fill: Literal["repeat", "zeros"] = "zeros"


# Atari-100k as Dopamine's program has it; and as Machado et al. (2018) advise, and MR.Q has it.
PROTOCOLS = {
    "atari100k": Protocol(),
    "sticky": Protocol(no_ops=1, lives_terminate=False, sticky=0.25, fill="repeat"),
}
USUAL = "atari100k"
