"""RigL's settings in the literature, by name. Source: ``docs/specs/mst-and-mrq.md`` §3.5."""

from typing import NamedTuple

from mst_jax.topology.regime import Regime
from mst_jax.topology.regimes import rigl


class Preset(NamedTuple):
    """One published setting.

    Attributes:
        sparsity: share of zeros.
        allocation: ``er`` or ``erk``.
        interval: optimizer steps between rewires.
        drop_fraction: share of active weights replaced at first.
        end: share of all optimizer steps after which the topology is frozen.
        source: where it comes from.
    """

    sparsity: float
    allocation: str
    interval: int
    drop_fraction: float
    end: float
    source: str


RIGL_PRESETS = {
    "mst": Preset(0.6, "er", 100, 0.3, 0.75, "this project's choice for the MST critic"),
    "mst_slow": Preset(0.6, "er", 1000, 0.5, 0.8, "this project's second choice"),
    "vision": Preset(0.9, "erk", 100, 0.3, 0.75, "Evci et al. 2020"),
    "sac": Preset(0.9, "erk", 1000, 0.5, 0.8, "SAC on MuJoCo, Graesser et al. 2022"),
    "ppo": Preset(0.9, "erk", 250, 0.3, 0.75, "PPO on MuJoCo, Graesser et al. 2022"),
    "dqn": Preset(0.9, "erk", 5000, 0.3, 0.8, "DQN on Atari, Graesser et al. 2022"),
    "rlx2": Preset(0.9, "erk", 10_000, 0.5, 1.0, "Tan et al. 2023 (sparsity is the user's)"),
}


def rigl_preset(name: str, steps: int, *, sparsity: float | None = None) -> Regime:
    """RigL as published.

    Args:
        name: a key of `RIGL_PRESETS`.
        steps: all optimizer steps of the module.
        sparsity: share of zeros, instead of the preset's.

    Returns:
        The regime.

    Raises:
        ValueError: unknown name, or fewer steps than one interval.
    """
    if name not in RIGL_PRESETS:
        raise ValueError(f"unknown preset {name!r}: use one of {sorted(RIGL_PRESETS)}")
    preset = RIGL_PRESETS[name]
    return rigl(
        preset.sparsity if sparsity is None else sparsity,
        end=int(preset.end * steps),
        interval=preset.interval,
        drop_fraction=preset.drop_fraction,
        allocation=preset.allocation,
    )
