"""How large studies are run: `smoke`, `small` and `paper`, before each study's own changes."""

from experiments.studies.base import Scale
from mst_jax.agents import AGENTS, ROLES, default_config, roles_of
from mst_jax.names import dotted
from mst_jax.recipes import ByRole, Overrides, for_modules

# docs/specs/network-sparsity.md §1.2 and docs/specs/mst-and-mrq.md §4.3.
HARDEST = ("dmc:dog-run", "dmc:dog-trot", "dmc:humanoid-run", "dmc:humanoid-walk")
DMC_HARD = (*HARDEST, "dmc:dog-walk", "dmc:humanoid-stand")

_MOVING: Overrides = {"interval": 20, "learning_rate": 1e-3}
_ON_LATENTS: ByRole = {role: {"hidden": 16, **_MOVING} for role in ROLES}
_ON_SIMBA: ByRole = {
    "value": {"hidden": 16, "depth": 1, **_MOVING},
    "policy": {"hidden": 8, **_MOVING},
}
_SMALL: Overrides = {
    "batch_size": 16,
    "learning_starts": 64,
    "zs_size": 16,
    "za_size": 8,
    "zsa_size": 16,
    "reward_bins": 17,
    "target_period": 20,
}


def tiny(agent: str) -> Overrides:
    """Settings that make an agent small enough to show in minutes that everything runs."""
    config = default_config(agent)
    latent = "representation" in roles_of(config).values()
    own = dotted(config)
    shared = {name: value for name, value in _SMALL.items() if name in own}
    return {**for_modules(config, _ON_LATENTS if latent else _ON_SIMBA), **shared}


TINY = {agent: tiny(agent) for agent in AGENTS}


def smoke(agent: str) -> Scale:
    """Tiny networks on a probe: shows that everything runs, in minutes on two cores."""
    return Scale(
        tasks=("probe:point",),
        agents=(agent,),
        steps=400,
        seeds=2,
        block=2,
        evaluations=2,
        eval_episodes=4,
        checkpoints=4,
        base=TINY,
    )


def small(agent: str, steps: int, seeds: int = 4) -> Scale:
    """Published networks on one task inside the device program, for one hour of one GPU."""
    return Scale(
        tasks=("brax:halfcheetah",),
        agents=(agent,),
        steps=steps,
        seeds=seeds,
        block=seeds,
        checkpoints=2,
    )


def paper(tasks: tuple[str, ...], agents: tuple[str, ...], seeds: int = 8) -> Scale:
    """As published: 500,000 agent steps (1 M frames), 10 episodes every 5,000."""
    return Scale(
        tasks=tasks,
        agents=agents,
        steps=500_000,
        seeds=seeds,
        block=seeds,
        evaluations=100,
        checkpoints=10,
    )
