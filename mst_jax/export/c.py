"""The C form: one file of C99 with static memory that needs the mathematics library alone.

A matrix of weights has one of three layouts: dense; rows, each output with inputs of its own; or
tiles, where neighbouring outputs share their inputs. Loops become vector instructions without
`-ffast-math`, which would not see that an action is not finite.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mst_jax.export.c_functions import BEFORE, FUNCTIONS, HEAD, ROWS, TILE, TIME
from mst_jax.export.policy_file import PolicyFile
from mst_jax.networks.operations import (
    Add,
    Bounded,
    Dense,
    Elu,
    Keep,
    LayerNorm,
    LeakyRelu,
    Operation,
    Relu,
    Scale,
    Shift,
    Tanh,
)

TILE_ROWS = (64, 16)
# What a stored weight costs beside one of a dense matrix (docs/export.md): the cheapest layout is
# taken, so rows where at most a third is active.
COSTS = {"rows": 3.0, "tiles": 1.5}
SMALLEST = 2**16  # weights; fewer stay in a core's cache, and a dense matrix is read faster there
PER_LINE = 8  # numbers of an array
LINE = 80  # characters of the description


class Call(NamedTuple):
    """One operation in C.

    Attributes:
        statement: what is done, with {x} for the buffer of the values and {y} for the other one.
        function: text of what it calls; empty for the standard library's.
        data: declarations of its arrays.
        size: of the values that are in {y} afterwards; None if they stay in {x}.
    """

    statement: str
    function: str = ""
    data: tuple[str, ...] = ()
    size: int | None = None


class Place(NamedTuple):
    """Where in the program an operation is.

    Attributes:
        index: its number.
        size: of the values that it gets.
        height: of the pile of kept values.
    """

    index: int
    size: int
    height: int


def write_c(file: PolicyFile, path: Path) -> None:
    """Writes the source."""
    path.write_text(c_source(file), encoding="utf-8")


def c_source(file: PolicyFile) -> str:
    """The text of the file."""
    seen = file.description["observation"]
    size = seen["size"] * seen["history"] + (seen["time"] != "off")
    height = 0
    sizes, heights, calls, statements = [size], [height], [], []
    x, y = "first", "second"
    for index, operation in enumerate(file.operations):
        call = CALLS[type(operation)](operation, Place(index, size, height))
        calls.append(call)
        statements.append(call.statement.format(x=x, y=y))
        if call.size is not None:
            size, x, y = call.size, y, x
        height += isinstance(operation, Keep) - isinstance(operation, Add)
        sizes.append(size)
        heights.append(height)
    functions = dict.fromkeys(call.function for call in calls if call.function)
    parts = [
        _head(file.description, max(sizes)),
        *functions,
        *(f"static float kept_{level}[WIDEST];" for level in range(max(heights))),
        *(declaration for call in calls for declaration in call.data),
        "void policy_act(const float *observation, float *action)\n{",
        "    complete(observation, first);",
        *(f"    {statement}" for statement in statements),
        f"    memcpy(action, {x}, sizeof(float) * POLICY_ACTION_SIZE);\n}}",
    ]
    return "\n".join(parts) + "\n"


def _head(description: Mapping[str, Any], widest: int) -> str:
    """What comes before the network."""
    seen, told = description["observation"], dict(description)
    del told["operations"]  # the program itself says it
    return HEAD.format(
        version=description["version"],
        observation=seen["size"],
        action=description["action"]["size"],
        history=seen["history"],
        widest=widest,
        description=_quoted(json.dumps(told)),
        before=BEFORE[seen["fill"]],
        time=TIME[seen["time"]].format(limit=seen["limit"]),
    )


def _dense(operation: Dense, place: Place) -> Call:
    """A matrix in its cheapest layout."""
    kernel, n = operation.kernel, place.index
    inputs, outputs = kernel.shape
    bias = _array("float", f"bias_{n}", operation.bias)
    rows = _tile_rows(kernel != 0)
    if rows is None:
        call = f"dense({{x}}, {inputs}, {outputs}, weights_{n}, bias_{n}, {{y}});"
        weights = _array("float", f"weights_{n}", kernel)
        return Call(call, FUNCTIONS["dense"], (bias, weights), outputs)
    used = _used(kernel != 0, rows).T
    tile, seen = np.nonzero(used)
    weights = kernel.T.reshape(len(used), rows, inputs)[tile, :, seen]
    bits = 16 if inputs <= 2**16 else 32
    data = (
        bias,
        _array("float", f"weights_{n}", weights),
        _array(f"uint{bits}_t", f"inputs_{n}", seen),
        _array("uint32_t", f"starts_{n}", np.append(0, np.cumsum(used.sum(axis=1)))),
    )
    name, text = (f"rows_{bits}", ROWS) if rows == 1 else (f"tiles_{rows}_{bits}", TILE)
    call = f"{name}({{x}}, {outputs}, weights_{n}, inputs_{n}, starts_{n}, bias_{n}, {{y}});"
    return Call(call, text.format(rows=rows, bits=bits), data, outputs)


def _tile_rows(active: np.ndarray) -> int | None:
    """How many neighbouring outputs (inputs, outputs) are stored together; None for all of them."""
    if active.size <= SMALLEST:
        return None
    costs: dict[int | None, float] = {
        None: active.size,
        1: COSTS["rows"] * int(np.count_nonzero(active)),
    }
    for rows in TILE_ROWS:
        if active.shape[1] % rows == 0:
            costs[rows] = COSTS["tiles"] * rows * int(np.count_nonzero(_used(active, rows)))
    return min(costs, key=lambda rows: costs[rows])


def _used(active: np.ndarray, rows: int) -> np.ndarray:
    """Which inputs any output of a tile reads, (inputs, tiles) bool."""
    return np.any(active.reshape(len(active), -1, rows), axis=2)


def _with_array(name: str, field: str) -> Callable[[Any, Place], Call]:
    """An operation with one number for each value."""

    def call(operation: Any, place: Place) -> Call:
        array = f"{field}_{place.index}"
        data = (_array("float", array, getattr(operation, field)),)
        return Call(f"{name}({{x}}, {place.size}, {array});", FUNCTIONS[name], data)

    return call


def _plain(name: str, *fields: str) -> Callable[[Any, Place], Call]:
    """An operation on each value alone, with numbers that are the same for all."""

    def call(operation: Any, place: Place) -> Call:
        numbers = [_number(getattr(operation, field)) for field in fields]
        arguments = ", ".join(["{x}", str(place.size), *numbers])
        return Call(f"{name}({arguments});", FUNCTIONS[name])

    return call


def _layer_norm(operation: LayerNorm, place: Place) -> Call:
    call = f"layer_norm({{x}}, {{y}}, {place.size}, {_number(operation.epsilon)});"
    return Call(call, FUNCTIONS["layer_norm"])


def _keep(operation: Keep, place: Place) -> Call:
    return Call(f"memcpy(kept_{place.height}, {{x}}, sizeof(float) * {place.size});")


def _add(operation: Add, place: Place) -> Call:
    return Call(f"shift({{x}}, {place.size}, kept_{place.height - 1});", FUNCTIONS["shift"])


CALLS: dict[type[Operation], Callable[[Any, Place], Call]] = {
    Dense: _dense,
    LayerNorm: _layer_norm,
    Scale: _with_array("scale", "factor"),
    Shift: _with_array("shift", "offset"),
    Elu: _plain("elu"),
    Relu: _plain("relu"),
    LeakyRelu: _plain("leaky_relu", "slope"),
    Tanh: _plain("hyperbolic"),
    Keep: _keep,
    Add: _add,
    Bounded: _plain("bounded", "low", "high"),
}


def _array(kind: str, name: str, values: np.ndarray) -> str:
    """The declaration of a constant array."""
    text = _number if kind == "float" else str
    numbers = [text(value) for value in values.ravel().tolist()] or ["0"]  # C has no empty array
    starts = range(0, len(numbers), PER_LINE)
    lines = (", ".join(numbers[start : start + PER_LINE]) for start in starts)
    return f"static const {kind} {name}[] = {{\n" + ",\n".join(lines) + "\n};"


def _number(value: float) -> str:
    """A literal from which every compiler makes this very float32."""
    return f"{value:#.9g}f"


def _quoted(text: str) -> str:
    """ASCII text as string literals of one line each."""
    parts = [text[start : start + LINE] for start in range(0, len(text), LINE)]
    escapes = str.maketrans({"\\": "\\\\", '"': '\\"', "?": "\\?"})  # "??(" is a trigraph
    return "\n           ".join(f'"{part.translate(escapes)}"' for part in parts)
