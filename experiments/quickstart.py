"""The front door: what a sparse recipe learns, in minutes on two cores, with dense beside it.

make quickstart, or: python -m experiments.quickstart --agent=mrq --task=dmc:cartpole-swingup
"""

import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from experiments.cli import command, launch, one_line_errors
from experiments.inputs import define_path, require_writable
from experiments.setting_flags import define_setting
from mst_jax import envs
from mst_jax.agents import modules_of
from mst_jax.analysis import Curve, read_curve, read_layers
from mst_jax.figures import (
    draw_curves,
    draw_topology,
    save_figure,
    title_of,
    write_report,
)
from mst_jax.presets import DER
from mst_jax.recipes import Overrides, make_config, override
from mst_jax.runs import Settings, read_metrics
from mst_jax.runs.health import mean_of_known
from mst_jax.training import Job, plan_run, train


class Show(NamedTuple):
    """What a quickstart of an agent trains.

    Attributes:
        task: unless another is given.
        steps: agent steps, unless others are given.
        recipes: a sparse one and, where there is time for it, a dense one beside it.
        small: settings of the agent that differ from the published ones.
        evaluations: after the first one, at step 0.
        seeds: of each recipe, unless another number is given.
        of_run: settings of the run that are not the default ones.
        of_pictures: the same for tasks of which it is told how they are drawn.
        sparsity: of every sparse module; None for the recipes' own.
    """

    task: str
    steps: int
    recipes: tuple[str, ...]
    small: Overrides
    evaluations: int
    seeds: int = 4
    of_run: Mapping[str, Any] = {"eval_episodes": 3}
    of_pictures: Mapping[str, Any] = {}
    sparsity: float | None = None


# Small enough for two cores. Narrow networks need larger steps to move as fast, and with few
# updates the targets must be renewed more often; all that is not named here is as published.
SMALL: Overrides = {
    **{f"{module}.hidden": 64 for module in ("encoder", "critic", "actor")},
    "zs_size": 64,
    "za_size": 32,
    "zsa_size": 64,
    "batch_size": 64,
    "learning_starts": 1_000,
    "target_period": 100,
    "encoder.learning_rate": 1e-3,
    "critic.learning_rate": 2e-3,
    "actor.learning_rate": 1e-3,
}
WIDE: Overrides = {f"{module}.hidden": 256 for module in ("critic", "actor")}
# Pictures that cost little to draw and to convolve. Noise must last for longer than luck takes.
PIXELS: Overrides = {
    "encoder.hidden": 16,
    "encoder.depth": 3,
    "encoder.strided": 2,
    **{f"{module}.hidden": 256 for module in ("critic", "actor")},
    **{f"{module}.learning_rate": 5e-4 for module in ("encoder", "critic")},
    "actor.learning_rate": 1e-4,  # with more, tanh saturates in some seeds, for good
    "pad": 1,
    "batch_size": 64,
    "buffer_size": 50_000,
    "learning_starts": 1_000,
    "learn_every": 1,
    "noise_steps": 15_000,
}
SMALL_PICTURES = {"picture_size": 32, "quality": "plain", "action_repeat": 8}
SHOWS = {
    "der": Show(
        *("probe:catch", 5_000, ("mst", "all_static", "dense"), DER["small"], 10),
        of_run={"eval_episodes": 50},
        sparsity=0.8,
    ),
    "drqv2": Show(
        *("dmc_pixels:cartpole-swingup", 40_000, ("mst",), PIXELS, 8),
        seeds=3,
        of_run={"eval_episodes": 10},
        of_pictures=SMALL_PICTURES,
    ),
    "mrq": Show("dmc:cartpole-swingup", 14_000, ("mst", "dense"), SMALL, 7),
    "stream_ac": Show(
        "gym:InvertedPendulum-v4", 6_000, ("network_sparsity_streaming", "dense"), WIDE, 3
    ),
}
AGENT = flags.DEFINE_enum(
    "agent", None, sorted(SHOWS), "Which agent to show; by default one for what the task shows."
)
TASK = define_setting("task", None, "Task, as suite:name; by default one that the agent solves.")
SEEDS = define_setting("seeds", None, "Seeds of each recipe, in one program.")
STEPS = define_setting("steps", None, "Agent steps of each seed; by default enough to see it.")
LOGDIR = define_path("logdir", "runs/quickstart", "Each quickstart gets a folder in it.")


def main(_: list[str]) -> None:
    """Trains the recipes and shows what came of them."""
    logdir = LOGDIR.value / datetime.now().strftime("%Y%m%d-%H%M%S")
    with one_line_errors():
        agent = _agent()
        jobs = [plan_run(job, logdir) for job in settings_of(agent)]
        require_writable(logdir)
    chosen_for = SHOWS[agent].task
    if jobs[0].settings.task != chosen_for:
        print(f"note: sizes and steps are those for {chosen_for}; another task may need more")
    for job in jobs:
        with one_line_errors():
            outcome = train(job)
        if not outcome.finished:
            sys.exit(f"stopped; continue: {command('train', f'--resume={job.folder}')}")
    _report(jobs, logdir)


def _agent() -> str:
    """The agent to show; raises ValueError for a task that there is not."""
    if AGENT.value is not None or TASK.value is None:
        return AGENT.value or "mrq"
    spec = envs.make(TASK.value).spec
    if isinstance(spec.action, envs.Discrete):
        return "der"
    return "drqv2" if spec.observation.dtype == "uint8" else "mrq"


def settings_of(agent: str) -> list[Settings]:
    """What a quickstart trains, as its flags say, recipe by recipe."""
    show = SHOWS[agent]
    task = TASK.value or show.task
    steps = show.steps if STEPS.value is None else STEPS.value
    suite = envs.SUITES.get(task.partition(":")[0])
    drawn = show.of_pictures if suite and suite.pictures else {}
    return [
        Settings(
            agent=agent,
            task=task,
            recipe=recipe,
            config=_config(agent, recipe),
            steps=steps,
            seeds=show.seeds if SEEDS.value is None else SEEDS.value,
            eval_every=max(steps // show.evaluations, 1),
            log_every=500,
            history_every=500,
            checkpoint_every=max(steps // 2, 1),
            diagnose_every=max(steps // 14, 1),
            **show.of_run,
            **drawn,
        )
        for recipe in show.recipes
    ]


def _config(agent: str, recipe: str) -> Any:
    """An agent's configuration under a recipe, small and as sparse as is shown."""
    show = SHOWS[agent]
    config = override(make_config(agent, recipe), show.small)
    if show.sparsity is None:
        return config
    sparse = [name for name, own in modules_of(config).items() if own.regime != "dense"]
    return override(config, {f"{name}.sparsity": show.sparsity for name in sparse})


def _report(jobs: list[Job], logdir: Path) -> None:
    shown, folders = jobs[0].settings, [job.folder for job in jobs]
    curves = [read_curve(folder) for folder in folders]
    print(f"\nReturn on {shown.task} after {shown.steps:,} agent steps, each seed from -> to:")
    for folder, curve in zip(folders, curves, strict=True):
        _print_curve(folder, curve)
    save_figure(draw_curves(curves), logdir / "learning_curve.png")
    found = read_layers(folders[0])
    save_figure(draw_topology(found.layers, title_of(found)), logdir / "topology.png")
    print(f"\n{logdir / 'learning_curve.png'}\n{logdir / 'topology.png'}")
    for job, folder in zip(jobs, folders, strict=True):
        print(f"\n{folder}")
        print(f"  resume:   {command('train', f'--resume={folder}')}")
        print(f"  evaluate: {command('evaluate', folder)}")
        print(f"  inspect:  {command('inspect', folder)}")
        if job.agent.operations is not None:
            print(f"  export:   {command('export', folder, folder / 'policy.npz')}")
        print(f"  look:     {write_report(folder).page.absolute().as_uri()}")


def _print_curve(folder: Path, curve: Curve) -> None:
    first, last = curve.returns[:, 0], curve.returns[:, -1]
    sparsity = [row for row in read_metrics(folder / "seed_0") if row["kind"] == "train"][-1]
    modules = [name for name in sparsity if name.startswith("sparsity/")]
    shares = ", ".join(f"{name.removeprefix('sparsity/')} {sparsity[name]:.2f}" for name in modules)
    known = np.isfinite(last).sum()
    some = "" if known == len(last) else f" of {known} of {len(last)} seeds"
    mean = mean_of_known(last)
    print(f"  {curve.label:6s} mean {mean:6.1f}{some}   wall time {curve.seconds:.0f} s")
    print(f"         sparsity: {shares}")
    for seed, (before, after) in enumerate(zip(first, last, strict=True)):
        if seed in curve.diverged:
            verdict = f"DIVERGED by step {curve.diverged[seed]:,}, it has no return"
        else:
            verdict = f"{after:6.1f}  {'improved' if after > before else 'NOT improved'}"
        print(f"         seed {seed}: {before:6.1f} -> {verdict}")


if __name__ == "__main__":
    launch(main)
