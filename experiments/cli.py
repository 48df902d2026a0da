"""What the launchers share: errors of the user end in one line, not in a traceback."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from absl import app, flags, logging

from experiments.compilation import use_cache
from mst_jax.envs import EnvironmentFailedError
from mst_jax.training import DamagedCheckpointError


def command(module: str, *arguments: object) -> str:
    """How to run a launcher with the interpreter that runs this one, to be shown to the user."""
    here = Path(sys.executable)
    if here.is_relative_to(Path.cwd()):
        here = here.relative_to(Path.cwd())
    return " ".join([str(here), "-m", f"experiments.{module}", *map(str, arguments)])


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Ends the program with `error: ...` when what was asked for cannot be done."""
    try:
        yield
    except (ValueError, flags.Error, DamagedCheckpointError, EnvironmentFailedError) as error:
        sys.exit(f"error: {error}")


def run_folders(argv: list[str], at_most: int | None = None) -> list[Path]:
    """The run folders named on the command line.

    Raises:
        ValueError: when there is none, or there are too many.
    """
    folders = [Path(arg) for arg in argv[1:]]
    if not folders:
        raise ValueError("name a run folder, such as runs/dmc-cartpole-swingup/mrq-mst-seeds0-3")
    if at_most is not None and len(folders) > at_most:
        raise ValueError(f"name {at_most} run folder, not {len(folders)}")
    return folders


def launch(main: Callable[[list[str]], None], **kwargs: Any) -> None:
    """`app.run` with the compilation cache, and without the narration of jax and orbax."""

    def quiet_main(argv: list[str]) -> None:
        logging.set_verbosity(logging.WARNING)  # only now: parsing the flags sets it
        with one_line_errors():
            use_cache()
        main(argv)

    app.run(quiet_main, **kwargs)
