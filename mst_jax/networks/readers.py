"""Which kernels read the units of a hidden layer, by the names that our networks give layers."""

import re
from collections.abc import Mapping

Shape = tuple[int, ...]

_NUMBERED = re.compile(r"layer_(\d+)")


def readers(shapes: Mapping[str, Shape]) -> dict[str, list[str]]:
    """Path of a hidden layer's kernel -> paths of the kernels that its units are inputs of.

    Layers whose units go elsewhere are left out: what is added to a residual stream (SimBa's
    embedding and projections), latents that other modules read, and inputs that are concatenated
    with others. A shortcut carries no weights and does not count.

    Args:
        shapes: path -> shape of a module's parameters; the last two axes of a kernel are inputs and
            outputs, before them those of a window or of a tied weight.

    Returns:
        Hidden layers with at least one reader, in the order of ``shapes``.
    """
    found = {}
    for path, shape in shapes.items():
        if not path.endswith("kernel"):
            continue
        own = [other for other in _next(path, shapes) if _reads(shapes[other], shape)]
        if own:
            found[path] = own
    return found


def _next(path: str, shapes: Mapping[str, Shape]) -> list[str]:
    """Kernels behind this one, by their names."""
    *above, layer, _ = path.split("/")
    if layer == "expand":
        return _there([*above, "project"], shapes)
    numbered = _NUMBERED.fullmatch(layer)
    if not numbered:
        return []
    following = _there([*above, f"layer_{int(numbered[1]) + 1}"], shapes)
    if following:
        return following
    # The last one of a trunk, or of layers beside their heads.
    node = above[:-1] if above and above[-1] == "trunk" else above
    prefix = "/".join([*node, ""]) if node else ""
    heads = [p for p in shapes if p.startswith(prefix) and p.endswith("/kernel")]
    return [
        p
        for p in heads
        if (name := p.removeprefix(prefix).removesuffix("/kernel")).isidentifier()
        and not _NUMBERED.fullmatch(name)
    ]


def _there(parts: list[str], shapes: Mapping[str, Shape]) -> list[str]:
    path = "/".join([*parts, "kernel"])
    return [path] if path in shapes else []


def _reads(reader: Shape, layer: Shape) -> bool:
    """Whether a kernel's inputs are this layer's units: all places of them, after a convolution."""
    if len(reader) < 2 or len(layer) < 2:
        return False
    flattened = len(layer) == 4 and len(reader) == 2
    return reader[-2] % layer[-1] == 0 if flattened else reader[-2] == layer[-1]
