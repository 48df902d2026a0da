"""What the user is told of environments that fail, without a line for every one of thousands."""

from collections.abc import Iterable

from tqdm import tqdm

_MOST_LINES = 10


class Notices:
    """Prints the first failures of a task's environments."""

    def __init__(self, task: str) -> None:
        self._task, self._told = task, 0

    def tell(self, failures: Iterable[str]) -> None:
        """Prints a line for each failure, as long as there are few."""
        for failure in failures:
            self._told += 1
            if self._told <= _MOST_LINES:
                tqdm.write(f"{self._task}, {failure}; the episode is lost")
            if self._told == _MOST_LINES:
                tqdm.write(f"{self._task}: further failures are counted and not printed")
