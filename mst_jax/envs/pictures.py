"""How tasks of pictures are drawn: size and quality, and what may be asked for.

Nothing here imports MuJoCo, because settings are checked without it.
"""

from numbers import Integral
from typing import NamedTuple

SIZE = 84  # pixels, as DrQ-v2 and its successors have it
SMALLEST, LARGEST = 16, 512
QUALITIES = ("exact", "fast", "plain")


class Pictures(NamedTuple):
    """What pictures of a task look like.

    Attributes:
        size: height and width in pixels.
        quality: `exact`: what dm_control draws, byte for byte. `fast`: a shadow map of 512 pixels
            instead of 2048, so that edges of shadows differ. `plain`: no shadows, reflections, sky
            and haze, and one sample a pixel; another task.
    """

    size: int = SIZE
    quality: str = "exact"

    def check(self) -> None:
        """Raises ValueError for a size or quality that there is not, TypeError for no number."""
        if not isinstance(self.size, Integral):
            raise TypeError(f"picture_size is {self.size!r}, not an int")
        if not SMALLEST <= self.size <= LARGEST:
            raise ValueError(f"picture_size={self.size} must lie in [{SMALLEST}, {LARGEST}]")
        if self.quality not in QUALITIES:
            raise ValueError(f"quality={self.quality!r} is none of {', '.join(QUALITIES)}")


USUAL = Pictures()
