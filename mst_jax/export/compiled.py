"""Plays the C form of a policy, compiled as a shared library."""

import ctypes
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from mst_jax.export.play_policy import VERSION

FUNCTIONS = ("version", "observation_size", "action_size", "description", "reset", "act")


class CompiledPolicy:
    """A library made of a policy's C file; acts as `play_policy.Policy` does.

    Loading it runs its code: do not load a stranger's.

    Attributes:
        description: what it takes and gives, and where it comes from.
    """

    def __init__(self, path: Path) -> None:
        """Raises ValueError if it is no policy of this version, OSError if it is not there."""
        self._path = path
        _try_loading(path)
        self._libraries = [_opened(path)]
        self.description = _description(self._libraries[0], path)

    def reset(self) -> None:
        """An episode begins."""
        for library in self._libraries:
            library.policy_reset()

    def act(self, observation: np.ndarray) -> np.ndarray:
        """The next action, float32 (..., A), for (..., O).

        Leading axes are of environments whose episodes began together. Each has a copy of the
        library, whose memory is of one episode.

        Raises:
            ValueError: the last axis is not O.
        """
        size = self.description["observation"]["size"]
        x = np.ascontiguousarray(observation, np.float32)
        if x.ndim == 0 or x.shape[-1] != size:
            raise ValueError(f"the policy takes {size} numbers, (..., {size}), not {x.shape}")
        rows = x.reshape(-1, size)
        while len(self._libraries) < len(rows):
            self._libraries.append(_opened(self._path))
        actions = np.empty((len(rows), self.description["action"]["size"]), np.float32)
        for row, action, library in zip(rows, actions, self._libraries, strict=False):
            library.policy_act(_pointer(row), _pointer(action))
        return actions.reshape(*x.shape[:-1], -1)


def compiling(path: Path) -> str:
    """The command that makes a library of a C file, beside it."""
    parts = ["cc", "-std=c99", "-O3", "-march=native", "-shared", "-fPIC", "-o"]
    return shlex.join([*parts, str(path.with_suffix(".so")), str(path), "-lm"])


def _try_loading(path: Path) -> None:
    """Raises ValueError for a library that ends the process that loads it, as a cut one does."""
    program = "import ctypes, sys\ntry: ctypes.CDLL(sys.argv[1])\nexcept OSError: pass"
    tried = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, str(path.absolute())],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if tried.returncode < 0:
        raise ValueError(f"{path} is damaged: loading it ends in signal {-tried.returncode}")


def _opened(path: Path) -> Any:
    """A library with memory of its own, and safe from being compiled anew while it is used."""
    with tempfile.NamedTemporaryFile(suffix=path.suffix) as copy:
        shutil.copyfile(path, copy.name)
        try:
            library = ctypes.CDLL(copy.name)
        except OSError as error:
            why = str(error).replace(copy.name, path.name)
            raise ValueError(
                f"{path} is no library for this machine, or is damaged: {why}"
            ) from error
    missing = [name for name in FUNCTIONS if not hasattr(library, f"policy_{name}")]
    if missing:
        raise ValueError(f"{path} is no exported policy: it has no policy_{missing[0]}")
    library.policy_description.restype = ctypes.c_char_p
    library.policy_act.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    return library


def _description(library: Any, path: Path) -> dict[str, Any]:
    """What the library says of itself, if it is of our version."""
    version = library.policy_version()
    if version != VERSION:
        raise ValueError(f"{path} is of version {version}, and this program plays {VERSION}")
    description = json.loads(library.policy_description())
    told = (description["observation"]["size"], description["action"]["size"])
    own = (library.policy_observation_size(), library.policy_action_size())
    if told != own:
        raise ValueError(f"{path} is damaged: it is of sizes {own} and says {told}")
    return description


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return array.ctypes.data_as(ctypes.c_void_p)
