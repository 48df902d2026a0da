"""The studies of MST: one module at a time, MST against its rivals, and RigL's settings."""

from experiments.studies import figures, scales
from experiments.studies.base import Study, Variant
from mst_jax.agents import ROLES, default_config, roles_of
from mst_jax.recipes import ARCHITECTURES, SPARSITY, Overrides, for_modules, recipes_of
from mst_jax.topology import RIGL_PRESETS

REGIMES = {  # by the names of docs/specs/mst-and-mrq.md §3
    "dense": "dense",
    "static": "static",
    "rigl": "rigl",
    "dense_to_sparse": "gradual_magnitude_pruning",
    "sparse_to_dense": "gradual_growth",
}
RIVALS = ("mst", "dense", "all_static", "all_rigl", "swap")
# Exploratory, beside the largest network: label -> how dense or a recipe is changed. RLx2's recipe
# is for some agents only.
EXPLORED = ("tar", "rlx2", "dense_redo", "dense_reset", "dense_no_norm")
RECYCLES = 24  # of dormant units in a run: every 20,000 of 500,000 steps


def _modules(agent: str, size: str) -> list[Variant]:
    """One module in every architecture and regime; the others are stock and dense (§7 row 11)."""
    smoke = size == "smoke"
    architectures = ("relu", "elu_ln") if smoke else tuple(ARCHITECTURES)
    regimes = ("dense", "rigl") if smoke else tuple(REGIMES)
    return [
        Variant(
            {"module": module, "architecture": architecture, "regime": regime},
            "mrq_stock",
            overrides=_module(module, architecture, regime),
        )
        for module in roles_of(default_config(agent))
        for architecture in architectures
        for regime in regimes
    ]


def _module(module: str, architecture: str, regime: str) -> Overrides:
    changes = {**ARCHITECTURES[architecture], "regime": REGIMES[regime]}
    if regime != "dense":
        changes["sparsity"] = SPARSITY
    return {f"{module}.{name}": value for name, value in changes.items()}


def _rivals(agent: str, size: str) -> list[Variant]:
    networks = ("1x1", "2x1", "4x1") if size == "paper" else ("1x1",)
    variants = [
        Variant({"recipe": recipe, "network": network}, recipe, network)
        for network in networks
        for recipe in RIVALS
    ]
    return variants if size == "smoke" else variants + _explored(agent, networks[-1])


def _explored(agent: str, network: str) -> list[Variant]:
    """Rivals of one size: TAR, RLx2, and dense networks with ReDo, a reset or without norms."""
    config = default_config(agent)
    without_norms = for_modules(config, {role: {"norm": False} for role in ROLES})
    made = {
        "tar": Variant({}, "tar"),
        "rlx2": Variant({}, "rlx2"),
        "dense_redo": Variant({}, recycles=RECYCLES),
        "dense_reset": Variant({}, resets=1),
        "dense_no_norm": Variant({}, overrides=without_norms),
    }
    return [
        made[name]._replace(labels={"recipe": name, "network": network}, size=network)
        for name in EXPLORED
        if made[name].recipe in recipes_of(agent)
    ]


def _rigl(agent: str, size: str) -> list[Variant]:
    """MST's critic under published presets, then one setting at a time away from `vision`.

    Sparsity and allocation stay MST's, so that only when and how much is rewired differs.
    """
    if size == "smoke":
        settings = {"vision": (20, 0.3, 0.75), "sac": (60, 0.5, 0.8)}  # in 300 updates, not 500,000
    else:
        vision = RIGL_PRESETS["vision"]
        settings = {
            name: (
                RIGL_PRESETS[name].interval,
                RIGL_PRESETS[name].drop_fraction,
                RIGL_PRESETS[name].end,
            )
            for name in ("vision", "ppo", "sac", "dqn", "rlx2")
        }
        settings |= {
            f"vision_drop_{drop}": (vision.interval, drop, vision.end) for drop in (0.1, 0.5)
        }
        settings |= {
            f"vision_end_{end}": (vision.interval, vision.drop_fraction, end) for end in (0.5, 1.0)
        }
    return [
        Variant(
            {"settings": name},
            "mst",
            overrides=for_modules(
                default_config(agent),
                {"value": {"interval": interval, "drop_fraction": drop, "end_fraction": end}},
            ),
        )
        for name, (interval, drop, end) in settings.items()
    ]


MODULES = Study(
    "modules",
    "Which architecture and training regime suits encoder, critic and actor?",
    _modules,
    {
        "smoke": scales.smoke("mrq"),
        "small": scales.small("mrq", steps=15_000, seeds=2),
        "paper": scales.paper(scales.DMC_HARD, ("mrq",)),
    },
    figures.bars("architecture", "regime", panel="module"),
    {"module": "critic", "architecture": "elu_ln", "regime": "dense"},
)
MST_VS_UNIFORM = Study(
    "mst_vs_uniform",
    "Is module-specific training better than one regime for all modules, or the reverse one?",
    _rivals,
    {
        "smoke": scales.smoke("mrq"),
        "small": scales.small("mrq", steps=60_000),
        "paper": scales.paper(scales.DMC_HARD, ("mrq", "sac", "ddpg")),
    },
    figures.bars("network", "recipe"),
    {"recipe": "mst", "network": "1x1"},
    explores=lambda labels: labels["recipe"] in EXPLORED,
)
RIGL_SETTINGS = Study(
    "rigl_settings",
    "Do RigL's settings from supervised learning suit the critic?",
    _rigl,
    {
        "smoke": scales.smoke("mrq"),
        "small": scales.small("mrq", steps=40_000),
        "paper": scales.paper(scales.HARDEST, ("mrq",)),
    },
    figures.bars("settings", None),
    {"settings": "vision"},
)
