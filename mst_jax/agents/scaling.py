"""Network sizes: one rule for width and depth, and the published sizes by name."""

import dataclasses
import math
from typing import Any

from mst_jax.agents.parts.modules import modules_of, require, scaled_modules

# Nominal parameters of SimBa's actor and one critic on dog (docs/specs/network-sparsity.md §1.3).
SIMBA_SIZES = {"4.5M": (1.0, 1), "17M": (2.0, 1), "109M": (5.0, 1), "208M": (4.0, 3)}


def scaled(config: Any, width: float, depth: int = 1) -> Any:
    """An agent's configuration with its modules `width` times as wide and `depth` times as deep.

    Depth counts hidden layers, or blocks. From SimBa's defaults this is the rule of
    docs/specs/network-sparsity.md §1.3: actor hidden 128 w with d blocks, critic hidden 512 w with
    2 d blocks. MR.Q's latents keep their sizes (docs/specs/mst-and-mrq.md §2.5), and of DrQ-v2 the
    critic alone grows, as published.

    Raises:
        ValueError: a factor that leaves a module without units or layers.
    """
    require(depth >= 1, f"the depth factor {depth} must be at least 1")
    resized = {
        name: dataclasses.replace(
            module, hidden=round(module.hidden * width), depth=module.depth * depth
        )
        for name, module in modules_of(config).items()
        if name in scaled_modules(config)
    }
    for name, module in resized.items():
        require(module.hidden >= 1, f"width factor {width} leaves {name} without hidden units")
    return dataclasses.replace(config, **resized)


def size_factors(size: str) -> tuple[float, int]:
    """Width and depth factor of a published size (`17M`) or of `WIDTHxDEPTH` (`0.25x1`).

    Raises:
        ValueError: for anything else.
    """
    if size in SIMBA_SIZES:
        return SIMBA_SIZES[size]
    width, times, depth = size.partition("x")
    try:
        factors = float(width), int(depth) if times else 1
        if not 0 < factors[0] < math.inf:
            raise ValueError
        return factors
    except ValueError:
        raise ValueError(
            f"size {size!r} is neither one of {', '.join(SIMBA_SIZES)} (SimBa networks) nor "
            "WIDTHxDEPTH (positive numbers), such as 2x1"
        ) from None
