"""Exported policies from their files."""

from pathlib import Path

from mst_jax.export import play_policy
from mst_jax.export.compiled import CompiledPolicy
from mst_jax.export.play_policy import Policy

LIBRARIES = (".so", ".dylib", ".dll")


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
        return play_policy.load(path)
    if path.suffix in LIBRARIES:
        return CompiledPolicy(path)
    if path.suffix == ".c":
        compiled = path.with_suffix(".so")
        raise ValueError(
            f"{path} is to be compiled first: "
            f"cc -std=c99 -O3 -march=native -shared -fPIC -o {compiled} {path} -lm"
        )
    raise ValueError(f"{path} is no policy that is played here: a .npz file or a .so library is")
