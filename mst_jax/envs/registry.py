"""Task names: `"suite:name"` to the module that makes it.

A new suite is one module with `tasks() -> list[str]` and `make(name, action_repeat)` that returns
a `JaxEnv` or a `HostTask`, and one line here (docs/environments.md). With `accepts(name) -> bool`
it takes names that it does not list, and `OWN_TASKS` says how users get at theirs.

A task of one's own needs neither: its name is `package.module:function`, of a function without
arguments that returns a `JaxEnv` or a `HostTask`. The name of a suite wins.
"""

from collections.abc import Iterable
from importlib import import_module
from types import ModuleType
from typing import NamedTuple

from mst_jax.envs.base import HostTask, JaxEnv
from mst_jax.envs.pictures import USUAL, Pictures
from mst_jax.envs.timed import with_time as timed
from mst_jax.names import kind_of, nearest
from mst_jax.user_code import is_dotted, one_line, resolve


class Suite(NamedTuple):
    """Where a suite lives.

    Attributes:
        module: imported when one of its tasks is first asked for.
        install: what to type when a package it needs is missing.
        pictures: whether its tasks show pictures, whose size and quality `make` then takes too.
    """

    module: str
    install: str
    pictures: bool = False


SUITES = {
    "atari": Suite("mst_jax.envs.suites.atari", "pip install 'mst_jax[atari]'"),
    "brax": Suite("mst_jax.envs.suites.brax", "pip install brax==0.14.2"),
    "dmc": Suite("mst_jax.envs.suites.dmc", "pip install dm_control 'mujoco>=3.17,<4'"),
    "dmc_pixels": Suite(
        "mst_jax.envs.suites.dmc_pixels", "pip install dm_control 'mujoco>=3.17,<4'", pictures=True
    ),
    "envpool": Suite("mst_jax.envs.suites.envpool", "pip install 'mst_jax[envpool]'"),
    "gym": Suite("mst_jax.envs.suites.gym", "pip install 'mst_jax[gym]'"),
    "playground": Suite("mst_jax.envs.suites.playground", "pip install 'mst_jax[playground]'"),
    "probe": Suite("mst_jax.envs.suites.probe", "pip install mst_jax"),
}


def make(
    task: str,
    *,
    action_repeat: int | None = None,
    with_time: str = "off",
    picture_size: int = USUAL.size,
    quality: str = USUAL.quality,
) -> JaxEnv | HostTask:
    """Makes a task by name.

    Args:
        task: `"suite:name"`, such as `"dmc:cartpole-swingup"` or `"probe:constant_reward"`, or the
            dotted name of a function of your own, such as `"my_pkg.envs:drift"`.
        action_repeat: environment steps per agent step; None takes the suite's own default. A
            function of your own gets it as `action_repeat=`, if it is given.
        with_time: `exact` or `published` put the episode's time behind the observations; see
            `mst_jax.envs.timed.with_time`.
        picture_size: height and width of a task's pictures, in pixels.
        quality: how they are drawn: `exact`, `fast` or `plain`; see `mst_jax.envs.pictures`.

    Returns:
        A `JaxEnv` or a `HostTask`; its `spec.task` is `task`.

    Raises:
        ValueError: if the suite or the name is unknown, a package is missing, the repeat is
            impossible, the task can have no time, it has no pictures whose size or quality could be
            chosen, or a function of your own fails or returns something else; the message says what
            exists or what to install.
    """
    return timed(_plain(task, action_repeat, Pictures(picture_size, quality)), with_time)


def _plain(task: str, action_repeat: int | None, pictures: Pictures) -> JaxEnv | HostTask:
    """The task as its suite or its user makes it."""
    suite, separator, name = task.partition(":")
    if pictures != USUAL and not (suite in SUITES and SUITES[suite].pictures):
        raise ValueError(f"{task} has no pictures to choose: leave out picture_size and quality")
    if separator and suite not in SUITES and is_dotted(task):
        return _own(task, action_repeat)
    if not separator:
        raise ValueError(f"task {task!r} must read 'suite:name'; suites are {', '.join(SUITES)}")
    module = _load(suite)
    if not (hasattr(module, "accepts") and module.accepts(name)):
        _check_known("task", name, module.tasks(), suite, getattr(module, "OWN_TASKS", ""))
    if action_repeat is not None and action_repeat < 1:
        raise ValueError(f"action_repeat must be at least 1; got {action_repeat}")
    if SUITES[suite].pictures:
        return module.make(name, action_repeat, pictures)
    return module.make(name, action_repeat)


def tasks(suite: str) -> list[str]:
    """Lists the task names of a suite, without the prefix `"suite:"`.

    Raises:
        ValueError: if the suite is unknown or a package it needs is missing.
    """
    return _load(suite).tasks()


def _own(task: str, action_repeat: int | None) -> JaxEnv | HostTask:
    """What a user's function makes, under the task's name."""
    function = resolve("task", task)
    if not callable(function):
        raise ValueError(f"task {task!r} is {kind_of(function)}, not a function")
    arguments = {} if action_repeat is None else {"action_repeat": action_repeat}
    try:
        made = function(**arguments)
    except Exception as error:  # whatever a user's function raises
        raise ValueError(
            f"task {task!r} fails: {type(error).__name__}: {one_line(error)}"
        ) from error
    if not isinstance(made, (JaxEnv, HostTask)):
        raise ValueError(
            f"task {task!r} returns {kind_of(made)}, not a JaxEnv or HostTask "
            "(mst_jax.envs.host_task makes one of a HostEnv)"
        )
    return made._replace(spec=made.spec._replace(task=task))


def _load(suite: str) -> ModuleType:
    _check_known("suite", suite, SUITES)
    try:
        return import_module(SUITES[suite].module)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"suite {suite!r} needs the package {error.name!r}: {SUITES[suite].install}"
        ) from error


def _check_known(
    kind: str, name: str, known: Iterable[str], suite: str | None = None, more: str = ""
) -> None:
    """Raises ValueError naming the nearest names, or all of them when nothing is near."""
    known = list(known)
    if name in known:
        return
    where = f" in suite {suite!r}" if suite else ""
    near = nearest(name, known)
    link = "" if not more else " " if near.endswith("?") else "; "
    raise ValueError(f"unknown {kind} {name!r}{where}: {near}{link}{more}")
