"""Launchers run in this process: a new one would spend seconds importing jax to print one line."""

import contextlib
import io
import os
import runpy
import sys
import traceback
import warnings
from pathlib import Path
from typing import NamedTuple

import jax
from absl import flags

OURS = ("experiments.", "benchmarks.")
SHARED = "experiments.compilation"  # a module that all launchers import, with a flag of its own
CACHE = (  # a benchmark turns it off; tests after it would compile everything again
    "jax_compilation_cache_dir",
    "jax_enable_compilation_cache",
    "jax_persistent_cache_min_compile_time_secs",
)
FOUND = []  # the flags of the launcher that ran last


class Ended(NamedTuple):
    """How a launcher ended."""

    status: int
    out: str
    err: str


def run(module, *arguments):
    """What `python -m MODULE ARGUMENTS` prints and its exit status."""
    loaded = sys.modules.pop(module, None)  # another launcher may use its functions
    try:
        return _run(module, *arguments)
    finally:
        if loaded is not None:
            sys.modules[module] = loaded


def flags_of(module):
    """The flags that a launcher defines."""
    FOUND.clear()
    run(module, "--no_such_flag")
    return list(FOUND)


def _run(module, *arguments):
    out, err = io.StringIO(), io.StringIO()
    with (
        _no_flags_of_others(),
        _restored(),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(record=True) as warned,
    ):
        warnings.simplefilter("default")
        sys.argv = [module, *map(str, arguments)]
        status = _status(module, err)
        err.write("".join(warnings.formatwarning(w.message, w.category, "", 0) for w in warned))
    return Ended(status, out.getvalue(), err.getvalue())


def _status(module, err):
    """Runs the module as the main program and turns how it ends into an exit status."""
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if isinstance(ended.code, str):
            err.write(f"{ended.code}\n")
            return 1
        return int(ended.code or 0)
    except BaseException:
        err.write(traceback.format_exc())
        return 1
    return 0


@contextlib.contextmanager
def _no_flags_of_others():
    """Launchers define flags of equal names, so only those of the one that runs may be there."""
    before = _taken_out()
    try:
        yield
    finally:
        FOUND[:] = [flag for _, flag in _taken_out()]
        for module, flag in before:
            flags.FLAGS[flag.name] = flag
            flags.FLAGS.register_flag_by_module(module, flag)


def _taken_out():
    """Removes the flags of all launchers, and returns them with their modules."""
    found = [
        (module, flag)
        for module, own in flags.FLAGS.flags_by_module_dict().items()
        for flag in own
        if (module.startswith(OURS) and module != SHARED)
        or module.endswith(".py")
        or flag.name.startswith("config")
    ]
    for _, flag in found:
        delattr(flags.FLAGS, flag.name)
    flags.FLAGS.unparse_flags()
    return found


@contextlib.contextmanager
def _restored():
    """Puts back what a launcher changes in this process."""
    argv, path, folder, written = sys.argv, list(sys.path), Path.cwd(), warnings.formatwarning
    cache, variables = {name: getattr(jax.config, name) for name in CACHE}, dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(variables)
        for name, value in cache.items():
            jax.config.update(name, value)
        sys.argv, sys.path[:], warnings.formatwarning = argv, path, written
        os.chdir(folder)
