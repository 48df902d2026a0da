"""What the launchers share: how they start, and errors that end in one line, not in a traceback."""

import errno
import os
import runpy
import shlex
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from absl import app, flags, logging

from experiments.compilation import use_cache
from experiments.inputs import user_path
from mst_jax.envs import EnvironmentFailedError
from mst_jax.runs import DamagedCheckpointError, RunExistsError

SCRIPT = "mst-"  # console scripts: mst-train runs experiments.train

_HINTS = {
    errno.ENOSPC: "free some space and start again",
    errno.EDQUOT: "free some space and start again",
    errno.EACCES: "choose a place where you may write, or ask for the permission",
    errno.EPERM: "choose a place where you may write, or ask for the permission",
    errno.EROFS: "choose a place where you may write",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EMFILE: "raise the limit (ulimit -n) or lower the number of seeds",
}


def command(module: str, *arguments: object) -> str:
    """How to run a launcher, to be shown to the user, in the form in which this one was started."""
    return shlex.join([*_program(module), *map(str, arguments)])


def said(module: str) -> str:
    """The command line that was given to this launcher, for records: without the machine's paths.

    Args:
        module: its full name, such as `experiments.sweep`.
    """
    return shlex.join(["python", "-m", module, *sys.argv[1:]])


def _program(module: str) -> list[str]:
    started = Path(sys.orig_argv[1] if len(sys.orig_argv) > 1 else "")
    if started.name.startswith(SCRIPT):
        name = f"{SCRIPT}{module}"
        return [name if shutil.which(name) else str(started.with_name(name))]
    here = Path(sys.executable)
    if here.is_relative_to(Path.cwd()):
        here = here.relative_to(Path.cwd())
    return [str(here), "-m", f"experiments.{module}"]


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Ends the program with `error: ...` when what was asked for cannot be done."""
    try:
        yield
    except OSError as error:
        _end(explain(error))
    except RunExistsError as error:
        _end(f"{error}; to resume it: {command('train', f'--resume={error.folder}')}")
    except (ValueError, flags.Error, DamagedCheckpointError, EnvironmentFailedError) as error:
        _end(str(error))


def explain(error: OSError) -> str:
    """What the operating system refused, where, and what to do about it."""
    if error.errno is None:
        return str(error)
    where = error.filename2 or error.filename
    place = "" if where is None else f": {os.fsdecode(where) if where else where}"
    hint = f"; {_HINTS[error.errno]}" if error.errno in _HINTS else ""
    return f"{error.strerror}{place}{hint}"


def _end(message: str) -> None:
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    sys.exit(f"error: {'; '.join(lines)}")


def run_folders(argv: list[str], at_most: int | None = None) -> list[Path]:
    """The run folders named on the command line.

    Raises:
        ValueError: when there is none, or there are too many.
    """
    folders = [user_path(arg) for arg in argv[1:]]
    if not folders:
        raise ValueError("name a run folder, such as runs/dmc-cartpole-swingup/mrq-mst-seeds0-3")
    if at_most is not None and len(folders) > at_most:
        raise ValueError(f"name {at_most} run folder, not {len(folders)}")
    return folders


def launch(
    main: Callable[[list[str]], None],
    flags_parser: Callable[[list[str]], list[str]] = flags.FLAGS,
    *,
    arguments: bool = False,
) -> None:
    """`app.run` with the compilation cache, without narration, and with errors in one line.

    What the operating system refuses (a full disk, a missing permission) ends in one line whenever
    it happens; other exceptions only where `main` says so with `one_line_errors`, since after the
    checks they are mistakes of this program.

    Args:
        main: takes the arguments that are not flags, after the program's name.
        flags_parser: turns all arguments into those.
        arguments: whether there may be any; elsewhere a stray word is refused, never dropped.
    """

    def parse(argv: list[str]) -> list[str]:
        with one_line_errors():
            rest = flags_parser(argv)
            _refuse_empty_flags()
            if len(rest) > 1 and not arguments:
                raise ValueError(f"{rest[1]!r} is not a flag; settings are given as --name=value")
            return rest

    def quiet_main(argv: list[str]) -> None:
        logging.set_verbosity(logging.WARNING)  # only now: parsing the flags sets it
        warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"  # ty: ignore[invalid-assignment]
        with one_line_errors():
            use_cache()
        try:
            main(argv)
        except OSError as error:
            if error.errno is None:
                raise
            _end(explain(error))

    app.run(quiet_main, flags_parser=parse)


def _refuse_empty_flags() -> None:
    """Raises ValueError for `--name=`: most likely a variable that was not set."""
    for name in flags.FLAGS:
        flag = flags.FLAGS[name]
        if flag.present and flag.value in ("", []):
            raise ValueError(f"--{name}= is empty: give a value or leave the flag out")


def script() -> None:
    """What the console scripts call: `mst-train` does what `python -m experiments.train` does.

    The folder it is started in comes last on the path, not first: a user's tasks are found there,
    but a folder that happens to be named like one of ours does not hide it.
    """
    start(Path(sys.argv[0]).stem.removeprefix(SCRIPT))


def start(module: str) -> None:
    """Runs a launcher as the main program, as `python -m` would."""
    sys.path.append(str(Path.cwd()))
    runpy.run_module(f"experiments.{module}", run_name="__main__", alter_sys=True)


def fresh_process(module: str) -> list[str]:
    """The command that runs a launcher in another process, whatever the folder it starts in holds.

    `python -m` looks there first. The path of this very package is given instead, because it need
    not be installed.
    """
    root = str(Path(__file__).resolve().parents[1])
    code = f"import sys; sys.path.insert(0, {root!r})"
    return [
        sys.executable,
        "-P",
        "-c",
        f"{code}; from experiments.cli import start; start({module!r})",
    ]
