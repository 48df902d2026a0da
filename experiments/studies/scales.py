"""How large studies are run: `smoke`, `small` and `paper`, before each study's own changes."""

from experiments.studies.base import Scale
from mst_jax.recipes import Overrides

# docs/specs/network-sparsity.md §1.2 and docs/specs/mst-and-mrq.md §4.3.
HARDEST = ("dmc:dog-run", "dmc:dog-trot", "dmc:humanoid-run", "dmc:humanoid-walk")
DMC_HARD = (*HARDEST, "dmc:dog-walk", "dmc:humanoid-stand")

_MR_TINY: Overrides = {
    **{f"{module}.hidden": 16 for module in ("encoder", "critic", "actor")},
    **{f"{module}.interval": 20 for module in ("encoder", "critic", "actor")},
    **{f"{module}.learning_rate": 1e-3 for module in ("encoder", "critic", "actor")},
    "zs_size": 16,
    "za_size": 8,
    "zsa_size": 16,
    "reward_bins": 17,
    "batch_size": 16,
    "learning_starts": 64,
    "target_period": 20,
}
_SIMBA_TINY: Overrides = {
    **{f"{module}.interval": 20 for module in ("critic", "actor")},
    **{f"{module}.learning_rate": 1e-3 for module in ("critic", "actor")},
    "critic.hidden": 16,
    "critic.depth": 1,
    "actor.hidden": 8,
    "batch_size": 16,
    "learning_starts": 64,
}
TINY = {"mrq": _MR_TINY, "mrsac": _MR_TINY, "sac": _SIMBA_TINY, "ddpg": _SIMBA_TINY}


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
