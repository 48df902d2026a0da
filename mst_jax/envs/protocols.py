"""How Atari games are played: what differs between the studies that play them.

Nothing here imports the emulator, because settings are checked without it.
"""

from typing import Literal, NamedTuple


class Protocol(NamedTuple):
    """One way to play.

    Attributes:
        sticky: probability with which a frame repeats the action before.
        lives: whether a lost life terminates what is learned from.
        noops: a game begins with fewer agent steps without action than that, drawn uniformly.
        fill: what stands for pictures before the first; see `Observation`.
    """

    sticky: float
    lives: bool
    noops: int
    fill: Literal["repeat", "zeros"]


# Dopamine's program for Atari-100k; and Machado et al. (2018), as MR.Q has it.
PROTOCOLS = {
    "atari100k": Protocol(0.0, lives=True, noops=30, fill="zeros"),
    "sticky": Protocol(0.25, lives=False, noops=1, fill="repeat"),
}
USUAL = "atari100k"
