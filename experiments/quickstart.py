"""The front door: MST beside a dense baseline, four seeds each, in a few minutes on two cores.

make quickstart, or: python -m experiments.quickstart --task=dmc:cartpole-swingup --logdir=runs
"""

import sys
from datetime import datetime
from pathlib import Path

import numpy as np

from experiments.cli import command, launch, one_line_errors
from experiments.inputs import define_path, require_writable
from experiments.setting_flags import define_setting
from mst_jax.analysis import Curve, read_curve, read_layers
from mst_jax.figures import (
    draw_curves,
    draw_topology,
    save_figure,
    title_of,
    write_report,
)
from mst_jax.recipes import make_config, override
from mst_jax.runs import Settings, read_metrics
from mst_jax.runs.health import mean_of_known
from mst_jax.training import plan_run, train

TASK = define_setting("task")
SEEDS = define_setting("seeds", 4, "Seeds of each recipe, in one program.")
STEPS = define_setting("steps", 14_000)
LOGDIR = define_path("logdir", "runs/quickstart", "Each quickstart gets a folder in it.")

RECIPES = ("mst", "dense")
# Small enough for two cores. Narrow networks need larger steps to move as fast, and with few
# updates the targets must be renewed more often; all that is not named here is as published.
SMALL = {
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


def main(_: list[str]) -> None:
    """Trains both recipes and shows what came of them."""
    logdir = LOGDIR.value / datetime.now().strftime("%Y%m%d-%H%M%S")
    with one_line_errors():
        jobs = [plan_run(settings_of_recipe(recipe), logdir) for recipe in RECIPES]
        require_writable(logdir)
    for job in jobs:
        with one_line_errors():
            outcome = train(job)
        if not outcome.finished:
            sys.exit(f"stopped; continue: {command('train', f'--resume={job.folder}')}")
    _report([job.folder for job in jobs], logdir)


def settings_of_recipe(recipe: str) -> Settings:
    """What a quickstart trains under a recipe, as its flags say."""
    config = override(make_config("mrq", recipe), SMALL)
    return Settings(
        task=TASK.value,
        recipe=recipe,
        config=config,
        steps=STEPS.value,
        seeds=SEEDS.value,
        eval_every=max(STEPS.value // 7, 1),
        eval_episodes=3,
        log_every=500,
        history_every=500,
        checkpoint_every=max(STEPS.value // 2, 1),
        diagnose_every=max(STEPS.value // 14, 1),
    )


def _report(folders: list[Path], logdir: Path) -> None:
    curves = [read_curve(folder) for folder in folders]
    print(f"\nReturn on {TASK.value} after {STEPS.value:,} agent steps, each seed from -> to:")
    for folder, curve in zip(folders, curves, strict=True):
        _print_curve(folder, curve)
    save_figure(draw_curves(curves), logdir / "learning_curve.png")
    found = read_layers(folders[0])
    save_figure(draw_topology(found.layers, title_of(found)), logdir / "topology.png")
    print(f"\n{logdir / 'learning_curve.png'}\n{logdir / 'topology.png'}")
    for folder in folders:
        print(f"\n{folder}")
        print(f"  resume:   {command('train', f'--resume={folder}')}")
        print(f"  evaluate: {command('evaluate', folder)}")
        print(f"  inspect:  {command('inspect', folder)}")
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
