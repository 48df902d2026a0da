"""The Network Sparsity paper's studies (docs/specs/network-sparsity.md §1)."""

from experiments.studies import figures, scales
from experiments.studies.base import Study, Variant
from mst_jax.agents import ROLES, default_config
from mst_jax.recipes import Overrides, for_modules

AGENTS = ("sac", "ddpg")
PARITY = "network_sparsity_parity"  # static sparsity as its authors ran it
LARGE = "5x1"

# Sparsity that leaves as many weights as the best dense size, 2x1, has (§1.3: 17 M).
KEEPS_17M = {"3x1": 0.554, "4x1": 0.749, "5x1": 0.839, "2x2": 0.498, "2x3": 0.665, "2x4": 0.749}
JOINT = "4x3"  # the 208 M network
JOINT_SPARSITY = 0.916


def sparsity_of_all(agent: str, value: float) -> Overrides:
    """The same sparsity in every module."""
    return for_modules(default_config(agent), {role: {"sparsity": value} for role in ROLES})


def _network(agent: str, size: str, sparsity: float) -> Variant:
    """One size, dense or statically sparse."""
    if sparsity == 0:
        return Variant({"kind": "dense", "network": size}, size=size)
    labels = {"kind": "sparse", "network": size}
    return Variant(labels, PARITY, size, overrides=sparsity_of_all(agent, sparsity))


def _width(agent: str, size: str) -> list[Variant]:
    dense = ("1x1", "3x1") if size == "smoke" else ("0.5x1", "1x1", "2x1", "3x1", "4x1", "5x1")
    sparse = ("3x1",) if size == "smoke" else ("3x1", "4x1", "5x1")
    return [
        *(_network(agent, s, 0.0) for s in dense),
        *(_network(agent, s, KEEPS_17M[s]) for s in sparse),
    ]


def _depth(agent: str, size: str) -> list[Variant]:
    """Depth is scaled at twice the default width."""
    dense = ("2x1", "2x2") if size == "smoke" else ("2x1", "2x2", "2x3", "2x4")
    return [
        *(_network(agent, s, 0.0) for s in dense),
        *(_network(agent, s, KEEPS_17M[s]) for s in dense[1:]),
    ]


def _joint(agent: str, size: str) -> list[Variant]:
    """Both ways at once, beside the best dense size and the widest sparse one."""
    wide, joint = ("3x1", "2x2") if size == "smoke" else (LARGE, JOINT)
    return [
        *(_network(agent, s, 0.0) for s in ("2x1", joint)),
        _network(agent, wide, KEEPS_17M[wide]),
        _network(agent, joint, JOINT_SPARSITY),
    ]


def _sweep(agent: str, size: str) -> list[Variant]:
    levels = (0.0, 0.5, 0.9) if size == "smoke" else tuple(i / 10 for i in range(10))
    networks = {"default": "1x1", "large": "2x1" if size == "smoke" else LARGE}
    return [
        Variant(
            {"network": name, "sparsity": level},
            PARITY if level else "dense",
            shape,
            overrides=sparsity_of_all(agent, level) if level else {},
        )
        for name, shape in networks.items()
        for level in levels
    ]


def _reset(agent: str, size: str) -> list[Variant]:
    shape = "2x1" if size == "smoke" else JOINT
    return [
        Variant(
            {"kind": kind, "resets": "no_reset" if not resets else "reset"},
            recipe,
            shape,
            overrides=changes,
            resets=resets,
        )
        for kind, recipe, changes in (
            ("dense", "dense", {}),
            ("sparse", PARITY, sparsity_of_all(agent, JOINT_SPARSITY)),
        )
        for resets in (0, 1)
    ]


SCALING_WIDTH = Study(
    "scaling_width",
    "Does return grow with width, dense and statically sparse?",
    _width,
    {
        "smoke": scales.smoke("ddpg"),
        "small": scales.small("sac", steps=50_000),
        "paper": scales.paper(scales.DMC_HARD, AGENTS),
    },
    figures.against_size,
    {"kind": "dense", "network": "1x1"},
)
SCALING_DEPTH = Study(
    "scaling_depth",
    "Does return grow with depth, dense and statically sparse?",
    _depth,
    {
        "smoke": scales.smoke("ddpg"),
        "small": scales.small("sac", steps=50_000),
        "paper": scales.paper(scales.DMC_HARD, AGENTS),
    },
    figures.against_size,
    {"kind": "dense", "network": "2x1"},
)
SCALING_JOINT = Study(
    "scaling_joint",
    "Does return grow with width and depth together, dense and statically sparse?",
    _joint,
    {
        "smoke": scales.smoke("ddpg"),
        "small": scales.small("sac", steps=20_000),
        "paper": scales.paper(scales.HARDEST, AGENTS),
    },
    figures.against_size,
    {"kind": "dense", "network": "2x1"},
)
SPARSITY_SWEEP = Study(
    "sparsity_sweep",
    "Which sparsity is best for the default and for a large network?",
    _sweep,
    {
        "smoke": scales.smoke("ddpg"),
        "small": scales.small("sac", steps=20_000),
        "paper": scales.paper(scales.HARDEST, AGENTS),
    },
    figures.against_sparsity,
    {"network": "default", "sparsity": 0.0},
)
RESET = Study(
    "reset",
    "Does a large network need a reset, dense and statically sparse?",
    _reset,
    {
        "smoke": scales.smoke("ddpg"),
        "small": scales.small("sac", steps=40_000),
        "paper": scales.paper(("dmc:dog-run", "dmc:humanoid-run"), ("sac",)),
    },
    figures.bars("resets", "kind"),
    {"kind": "dense", "resets": "no_reset"},
)
