"""All claims in the order of the page, and the commands that would answer them."""

from experiments.claims import grids
from experiments.claims.claim import FOLDER, Claim, read_claims

_SWEEP = "python -m experiments.sweep --size=paper --logdir=studies --study="
_GPU = "--logdir=benchmarks/results/gpu"  # of one side; the other lies beside it
COMMANDS = {
    "modules": f"{_SWEEP}modules",
    "mst_vs_uniform": f"{_SWEEP}mst_vs_uniform",
    "mst_tiny": "python -m experiments.sweep --study=mst_vs_uniform --size=smoke "
    "--tasks=dmc:cartpole-swingup,brax:inverted_pendulum --steps=15000 --seeds=8 --block=8 "
    "--logdir=studies",
    "mst_small": "python -m experiments.sweep --study=mst_vs_uniform --size=small --seeds=8 "
    "--block=8 --logdir=studies",
    "scaling_width": f"{_SWEEP}scaling_width",
    "scaling_depth": f"{_SWEEP}scaling_depth",
    "scaling_joint": f"{_SWEEP}scaling_joint",
    "sparsity_sweep": f"{_SWEEP}sparsity_sweep",
    "reset": f"{_SWEEP}reset",
    "visual_width": f"{_SWEEP}visual_width",
    "streaming_width": f"{_SWEEP}streaming_width",
    "streaming_cells": f"{_SWEEP}streaming_cells",
    "streaming_init": f"{_SWEEP}streaming_init",
    "atari_width": f"{_SWEEP}atari_width",
    "residual": "python -m experiments.train --agent=mrq --recipe=mrq_stock --task=dmc:dog-run "
    f"--config.critic.residual=pre --seeds=8 {_GPU}/residual/pre",
    "srank": "python -m experiments.train --agent=sac --task=dmc:humanoid-run --size=5x1 "
    "--recipe=network_sparsity_parity --config.critic.sparsity=0.9 --config.actor.sparsity=0.9 "
    f"--steps=135000 --diagnose_every=5000 --seeds=8 {_GPU}/srank/sparse",
    "srank_late": "python -m experiments.train --agent=sac --task=dmc:humanoid-run --size=5x1 "
    "--recipe=network_sparsity_parity --config.critic.sparsity=0.9 --config.actor.sparsity=0.9 "
    f"--steps=500000 --diagnose_every=5000 --seeds=8 {_GPU}/srank_late/sparse",
    "diagnostics": "python -m experiments.train --agent=sac --task=dmc:humanoid-run --size=4x3 "
    "--recipe=network_sparsity_parity --config.critic.sparsity=0.916 --config.actor.sparsity=0.916 "
    f"--seeds=8 --gradient_covariance {_GPU}/diagnostics/sac-humanoid-run/sparse",
    "units": "python -m experiments.train --agent=drqv2 --task=dmc_pixels:quadruped-run --size=4x1 "
    "--preset=netsparsity --recipe=static_critic --config.critic.sparsity=0.8 --steps=1000000 "
    f"--seeds=5 {_GPU}/units/sparse",
    "simplicity": "python -m benchmarks.simplicity --inits=40 "
    "--output=benchmarks/results/simplicity_cpu.json",
    "ant": "python -m experiments.sweep --size=paper --logdir=studies --study=streaming_width "
    "--tasks=gym:Ant-v4",
    "mrq_stock": "python -m experiments.train --recipe=mrq_stock --task=dmc:cartpole-swingup "
    "--seeds=10 --steps=25000 --eval_every=2500",
    "tar": "python -m experiments.train --agent=td3 --recipe=tar --task=gym:HalfCheetah-v4 "
    "--steps=1000000 --seeds=8",
    "rlx2": "python -m experiments.train --agent=td3 --recipe=rlx2 --task=gym:HalfCheetah-v4 "
    "--steps=3000000 --seeds=8",
    "redo": "python -m experiments.train --agent=der --preset=dqn --recipe=dense --task=atari:Pong "
    f"--steps=100000 --recycle_every=1000 --seeds=5 {_GPU}/redo/redo",
    "rnm": "python -m experiments.train --agent=td3 --recipe=rnm_2_4 --task=gym:HalfCheetah-v4 "
    f"--steps=1000000 --seeds=8 {_GPU}/rnm/rnm_2_4",
}


def sections() -> dict[str, list[Claim]]:
    """Title of a section -> its claims."""
    return {
        "MST (Ma et al. 2025, arXiv 2510.12096)": [
            *read_claims(FOLDER / "mst.toml"),
            *grids.rival_claims(),
        ],
        "Network Sparsity (Ma et al., ICML 2025, arXiv 2506.17204)": read_claims(
            FOLDER / "network_sparsity.toml"
        ),
        "Network Sparsity, width by task": list(grids.width_claims()),
        "Network Sparsity, depth by task": list(grids.depth_claims()),
        "Network Sparsity, sparsity by task": list(grids.sweep_claims()),
        "Network Sparsity, pixels": list(grids.pixel_claims()),
        "Network Sparsity, streaming": [
            *read_claims(FOLDER / "streaming.toml"),
            *grids.stream_claims(),
        ],
        "Network Sparsity, games": list(grids.game_claims()),
        "Rivals": read_claims(FOLDER / "rivals.toml"),
    }
