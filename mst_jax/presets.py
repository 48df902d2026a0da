"""Presets as data: settings published for a task beside an agent's defaults (`--preset=drqv2`).

A recipe says which modules are sparse, whatever the task; a preset what the authors ran on a task.
"""

from collections.abc import Mapping

from mst_jax.names import nearest
from mst_jax.recipes import Overrides

# By the difficulty of a task (docs/specs/drqv2.md §1.4).
DIFFICULTIES: dict[str, Overrides] = {
    "easy": {"noise_steps": 100_000},
    "medium": {"noise_steps": 500_000},
    "hard": {
        "noise_steps": 2_000_000,
        "feature_dim": 100,
        **{f"{module}.learning_rate": 8e-5 for module in ("encoder", "critic", "actor")},
    },
}
# The tasks of DrQ-v2 but for one of dm_control's manipulation suite.
DRQV2_TASKS = {
    "easy": (
        *("cartpole-balance", "cartpole-balance_sparse", "cartpole-swingup", "ball_in_cup-catch"),
        *("finger-spin", "hopper-stand", "pendulum-swingup", "walker-stand", "walker-walk"),
    ),
    "medium": (
        *("acrobot-swingup", "cartpole-swingup_sparse", "cheetah-run", "finger-turn_easy"),
        *("finger-turn_hard", "hopper-hop", "quadruped-run", "quadruped-walk", "reacher-easy"),
        *("reacher-hard", "walker-run"),
    ),
    "hard": ("humanoid-stand", "humanoid-walk", "humanoid-run"),
}
_ONE_STEP: Overrides = {"n_step": 1, "batch_size": 512}
DRQV2_EXCEPTIONS: dict[str, Overrides] = {
    "walker-stand": _ONE_STEP,
    "walker-walk": _ONE_STEP,
    "walker-run": _ONE_STEP,
    "quadruped-run": {"buffer_size": 100_000},
}
DRQV2: dict[str, Overrides] = {
    task: {**DIFFICULTIES[difficulty], **DRQV2_EXCEPTIONS.get(task, {})}
    for difficulty, tasks in DRQV2_TASKS.items()
    for task in tasks
}
# The Network Sparsity paper's two, with one replay for both (docs/specs/drqv2.md §2).
NETSPARSITY: dict[str, Overrides] = {
    task: {**DIFFICULTIES["medium"], "buffer_size": 1_000_000}
    for task in ("quadruped-run", "hopper-hop")
}
# Of DER (docs/specs/der.md §1.5, §3): the Network Sparsity paper's, its width apart (`--size=3x1`);
# Rainbow without its parts; and what suffices for pictures of a few pixels.
DER: dict[str, Overrides] = {
    "netsparsity": {"encoder.body": "impala", "noisy_std": 0.5},
    "dqn": {
        **dict.fromkeys(("double", "dueling", "distributional", "noisy", "prioritised"), False),
        "n_step": 1,
    },
    "small": {
        "encoder.hidden": 8,
        "encoder.channels": "1",
        "encoder.kernels": "3",
        "encoder.strides": "1",
        "critic.hidden": 32,
        **{f"{module}.learning_rate": 1e-3 for module in ("encoder", "critic")},
        "atoms": 21,
        "v_min": -2.0,
        "v_max": 2.0,
        "n_step": 3,
        "learning_starts": 200,
        "target_period": 200,
    },
}
# MR.Q on pictures of a few pixels: small networks, and losses in which latents weigh less, rewards
# and the actor's outputs more than published (docs/results, "Why catch was not learned").
MRQ: dict[str, Overrides] = {
    "small": {
        "pictures.channels": 16,
        "pictures.depth": 2,
        "pictures.strided": 0,
        "pictures.padding": "same",
        "pictures.shift": 0,
        **{f"{module}.hidden": 128 for module in ("encoder", "critic", "actor")},
        "zs_size": 128,
        "za_size": 32,
        "zsa_size": 128,
        **{f"{module}.learning_rate": 1e-3 for module in ("encoder", "critic")},
        "dynamics_weight": 0.01,
        "reward_weight": 1.0,
        "pre_activation_weight": 0.01,
        "batch_size": 64,
        "learning_starts": 1_000,
        "target_period": 50,
        "discrete.greedy": True,
    },
}
ANY = ""  # the task of a preset that holds for all of them
PRESETS: dict[str, dict[str, Mapping[str, Overrides]]] = {
    "der": {name: {ANY: changes} for name, changes in DER.items()},
    "mrq": {name: {ANY: changes} for name, changes in MRQ.items()},
    "drqv2": {
        "drqv2": DRQV2,
        "netsparsity": NETSPARSITY,
        **{difficulty: {ANY: changes} for difficulty, changes in DIFFICULTIES.items()},
    },
}


def preset_overrides(agent: str, preset: str, task: str) -> Overrides:
    """The settings that a preset changes in an agent's defaults, for `make_config(base=...)`.

    Args:
        agent: a name of `mst_jax.agents.AGENTS`.
        preset: one of `PRESETS[agent]`; empty for none.
        task: as suite:name.

    Raises:
        ValueError: there is no such preset, or it was not published for this task.
    """
    if not preset:
        return {}
    known = PRESETS.get(agent, {})
    if preset not in known:
        why = nearest(preset, known) if known else f"{agent} has none"
        raise ValueError(f"preset {preset!r} is unknown: {why}")
    by_task, name = known[preset], task.partition(":")[2]
    if ANY in by_task:
        return by_task[ANY]
    if name not in by_task:
        others = ", ".join(other for other in known if ANY in known[other])
        raise ValueError(
            f"preset {preset!r} has nothing for the task {task!r}: {nearest(name, by_task)}; for "
            f"any task there are {others}"
        )
    return by_task[name]


def describe_preset(preset: str, task: str, changes: Overrides) -> str:
    """One line: what a preset sets."""
    values = ", ".join(f"{name}={value}" for name, value in changes.items()) or "nothing"
    return f"preset {preset} of {task}: {values}"
