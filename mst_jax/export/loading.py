"""Exported policies from their files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mst_jax.envs.timed import TIMES
from mst_jax.export import play_policy
from mst_jax.export.compiled import CompiledPolicy, compiling
from mst_jax.export.play_policy import Policy
from mst_jax.export.policy_file import FORMAT, UNITS

LIBRARIES = (".so", ".dylib", ".dll")
Played = TypeVar("Played", Policy, CompiledPolicy)


def load_exported(path: str | Path) -> Policy | CompiledPolicy:
    """A policy from a file that `export_policy` wrote, or from a library compiled of one.

    Args:
        path: a .npz file, or the compiled .so of a .c file.

    Raises:
        OSError: the file is not there or cannot be read.
        ValueError: it is damaged, of another version, or of a kind that is not played here.
    """
    path = Path(path).expanduser()
    if path.suffix == ".npz":
        return _described(play_policy.load(path), path)
    if path.suffix in LIBRARIES:
        return _described(CompiledPolicy(path), path)
    if path.suffix == ".c":
        raise ValueError(f"{path} is to be compiled first: {compiling(path)}")
    raise ValueError(f"{path} is no policy that is played here: a .npz file or a .so library is")


def _described(policy: Played, path: Path) -> Played:
    """The policy, if what it says of itself is what `policy_file` writes."""
    told = policy.description
    try:
        wrong = [name for name, right in _claims(told) if not right]
    except (AttributeError, KeyError, TypeError) as error:
        wrong = [f"{type(error).__name__}: {error}"]
    if wrong:
        raise ValueError(
            f"{path} is no exported policy, or is damaged (its description: {wrong[0]})"
        )
    return policy


def _claims(told: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """What a description must say, by name, and whether it does."""
    seen, action, source = told["observation"], told["action"], told["source"]
    own = (action["low"], action["high"]) if action["units"] == "task" else ()
    return [
        ("format", told["format"] == FORMAT),
        ("task", isinstance(told["task"], str)),
        ("history", _is_count(seen["history"], 1)),
        ("fill", seen["fill"] in ("repeat", "zeros")),
        ("time", seen["time"] in TIMES),
        ("units", action["units"] in UNITS),
        ("low and high", all(np.shape(bound) == (action["size"],) for bound in own)),
        ("seed", _is_count(source.get("seed", 0), 0)),
        ("action_repeat", _is_count(source.get("action_repeat", 0), 0)),
    ]


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and value >= least
