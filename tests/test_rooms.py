"""The rooms of the house: who may import whom (docs/design.md §3.1)."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "mst_jax"
# A room may import those before it.
FLOORS = (
    *("names", "user_code", "topology", "networks", "envs", "replay", "agents", "recipes"),
    *("presets", "diagnostics", "export", "runs", "analysis", "figures", "program"),
    *("training", "api"),
)
ALONE = {"topology": set(), "replay": {"envs"}, "envs": {"names", "user_code"}}
ALONE["networks"] = {"topology"}  # for kernels in compact storage
ALONE["export"] = {"names", "networks", "envs"}
APART = {(room, other) for room in ("program", "training") for other in ("analysis", "figures")}


def imports(path):
    """The modules that a file imports anywhere: in functions, for types, and by name in quotes."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and str(node.value).startswith("mst_jax."):
            yield node.value  # of `import_module`
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if not isinstance(node, ast.ImportFrom):
            continue
        for alias in node.names:
            deeper = ROOT.parent / f"{node.module}.{alias.name}".replace(".", "/")
            inner = deeper.is_dir() or deeper.with_suffix(".py").is_file()
            yield f"{node.module}.{alias.name}" if inner else node.module


def name_of(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}
IMPORTS = {
    name: {m for m in imports(path) if m in FILES and m != "mst_jax"}
    for name, path in FILES.items()
}


def room_of(name):
    return name.split(".")[1]


@pytest.mark.parametrize("room", FLOORS)
def test_no_arrow_runs_back_up(room):
    below = set(FLOORS[: FLOORS.index(room)])
    allowed = ALONE.get(room, below - {other for own, other in APART if own == room}) | {room}
    for name, found in IMPORTS.items():
        if name != "mst_jax" and room_of(name) == room:
            assert {room_of(other) for other in found} <= allowed, name


def test_there_is_no_circle():
    """`from package import name` loads the package, whose `__init__` is not counted as an arrow."""
    packages = {name for name, path in FILES.items() if path.name == "__init__.py"}
    TopologicalSorter(
        {name: found - packages for name, found in IMPORTS.items() if name not in packages}
    ).prepare()


def test_every_room_is_on_a_floor():
    assert {room_of(name) for name in FILES if name != "mst_jax"} == set(FLOORS)
