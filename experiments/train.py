"""Trains one agent with one recipe on one task: many seeds in one program.

A new run:       python -m experiments.train --task=dmc:dog-run --recipe=mst --seeds=8
Any setting:     ... --config.critic.sparsity=0.8 --config.batch_size=128   (wins over the recipe)
Several values:  ... --vary=critic.sparsity=0.5,0.7,0.9   (a run each, all in one program)
Continue a run:  python -m experiments.train --resume=RUN_FOLDER   (with those of its program)
"""

import dataclasses
import itertools
import sys

from absl import flags
from ml_collections import config_flags

from experiments.cli import command, launch, one_line_errors
from experiments.inputs import define_path, finite_number, require_writable
from mst_jax import envs
from mst_jax.agents import AGENTS, SIMBA_SIZES, SWEPT
from mst_jax.names import dotted, nearest
from mst_jax.recipes import ARCHITECTURES, RECIPES, label, make_config, override
from mst_jax.runs import WANDB_MODES, DamagedCheckpointError, Settings, is_finished
from mst_jax.runs.lock import HeldError
from mst_jax.training import (
    Job,
    make_program,
    plan_run,
    program_of,
    resume_together,
    train_together,
)

AGENT = flags.DEFINE_string("agent", "mrq", f"Algorithm: {', '.join(sorted(AGENTS))}.")
TASK = flags.DEFINE_string("task", "dmc:cartpole-swingup", "Task, as suite:name.")
RECIPE = flags.DEFINE_string(
    "recipe",
    "mst",
    f"Which modules are sparse: {', '.join(sorted(set().union(*RECIPES.values())))}.",
)
SIZE = flags.DEFINE_string(
    "size",
    "",
    f"Networks: WIDTHxDEPTH times the published size; SimBa: also {', '.join(SIMBA_SIZES)}.",
)
ARCHITECTURE = flags.DEFINE_string(
    "architecture", "", f"Of every module, instead of the recipe's: {', '.join(ARCHITECTURES)}."
)
SEEDS = flags.DEFINE_integer("seeds", 1, "Seeds trained in one program.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "First seed.", lower_bound=0)
ENVIRONMENTS = flags.DEFINE_integer(
    "environments",
    1,
    "Environments of each seed, stepped together: a step stores one transition of each and learns "
    "once. All numbers of steps count those of one environment.",
    lower_bound=1,
)
STEPS = flags.DEFINE_integer("steps", 500_000, "Agent steps of each seed.", lower_bound=1)
LOGDIR = define_path("logdir", "runs", "Folder in which the run gets a folder of its own.")
EVAL_EVERY = flags.DEFINE_integer("eval_every", 5_000, "Agent steps between evaluations.")
EVAL_EPISODES = flags.DEFINE_integer("eval_episodes", 10, "Episodes of an evaluation, per seed.")
FINAL_EVAL_EPISODES = flags.DEFINE_integer(
    "final_eval_episodes",
    0,
    "Fresh episodes, per seed, for the last and the best policy of a finished run; 0: none.",
)
LOG_EVERY = flags.DEFINE_integer("log_every", 1_000, "Agent steps between metric rows.")
CHECKPOINT_EVERY = flags.DEFINE_integer(
    "checkpoint_every", 50_000, "Agent steps between full checkpoints; 0: only the last."
)
HISTORY_EVERY = flags.DEFINE_integer(
    "history_every", 10_000, "Agent steps between snapshots of the masks that move; 0: none."
)
ROW_DTYPE = flags.DEFINE_enum(
    "row_dtype", "float32", ["float32", "bfloat16", "float16"], "Storage of replayed observations."
)
DIAGNOSE_EVERY = flags.DEFINE_integer(
    "diagnose_every", 5_000, "Agent steps between rank, plasticity and gradient metrics; 0: none."
)
GRADIENT_COVARIANCE = flags.DEFINE_bool(
    "gradient_covariance", False, "With them, save cosines between 64 samples' gradients."
)
RESETS = flags.DEFINE_integer(
    "resets", 0, "Times that networks and optimizers begin again, equally spaced; masks stay."
)
WANDB = flags.DEFINE_enum(
    "wandb", "off", WANDB_MODES, "Send metrics to Weights & Biases too, a run for each seed."
)
MAX_ENVIRONMENT_ERRORS = flags.DEFINE_integer(
    "max_environment_errors",
    100,
    "Steps that a run may lose to environments that fail; with one more it saves and stops.",
    lower_bound=0,
)
WORKER_TIMEOUT = flags.DEFINE_float(
    "worker_timeout",
    envs.WORKER_TIMEOUT,
    "Seconds without an answer after which a worker process is replaced; 0: wait for ever.",
    lower_bound=0.0,
)
VARY = flags.DEFINE_multi_string(
    "vary",
    [],
    "SETTING=VALUE,VALUE,...: a run for each value, all in one program. For a module's sparsity, "
    "drop_fraction or learning_rate; given again, for each combination.",
)
RESUME = define_path(
    "resume",
    None,
    "Run folder to continue; of the other flags only max_environment_errors and worker_timeout.",
)
LIMITS = (MAX_ENVIRONMENT_ERRORS, WORKER_TIMEOUT)
DECIDED_BY_THE_RUN = (
    *(AGENT, TASK, RECIPE, SIZE, ARCHITECTURE, SEEDS, SEED, STEPS, LOGDIR, ROW_DTYPE, RESETS),
    *(DIAGNOSE_EVERY, GRADIENT_COVARIANCE),
    *(EVAL_EVERY, EVAL_EPISODES, FINAL_EVAL_EPISODES, LOG_EVERY, CHECKPOINT_EVERY, WANDB),
    *(HISTORY_EVERY, VARY, ENVIRONMENTS),
)


def main(_: list[str]) -> None:
    """Starts or continues runs of one program and says where they are."""
    with one_line_errors():
        program = make_program(_jobs())
    for job in program.jobs:
        print(f"run folder: {job.folder}", flush=True)
    try:
        outcomes = train_together(program)
    except (HeldError, DamagedCheckpointError, envs.EnvironmentFailedError) as error:
        sys.exit(f"error: {error}")
    if not outcomes[0].finished:
        go_on = command("train", f"--resume={outcomes[0].folder}")
        print(f"stopped at step {outcomes[0].step:,}; continue with {go_on}")
        return
    for outcome in outcomes:
        print(f"finished {outcome.step:,} steps; fingerprint {outcome.fingerprint}")
        for module in ("evaluate", "plot", "inspect"):
            print(command(module, outcome.folder))


def parse(argv: list[str]) -> list[str]:
    """Parses flags in two passes: the agent and recipe decide what `--config.*` there is."""
    first = [arg for arg in argv if not arg.lstrip("-").startswith(("help", "config"))]
    flags.FLAGS(first, known_only=True)
    config = make_config(AGENT.value, RECIPE.value, SIZE.value, ARCHITECTURE.value)
    known = dotted(config)
    _check_names(argv, list(known))
    lines = [f"    --config.{name}={value}" for name, value in known.items()]
    title = f"Settings of {AGENT.value} under recipe {RECIPE.value}:"
    config_flags.DEFINE_config_dataclass("config", config, help_string="\n".join([title, *lines]))
    flags.FLAGS.unparse_flags()
    return flags.FLAGS(argv)


def _check_names(argv: list[str], known: list[str]) -> None:
    """Raises ValueError naming the nearest settings when a `--config.*` does not exist."""
    for arg in argv[1:]:
        name, dot, setting = arg.lstrip("-").partition("=")[0].partition(".")
        if arg.startswith("-") and name == "config" and setting not in known:
            raise ValueError(f"there is no setting {name}{dot}{setting}: {nearest(setting, known)}")


def _jobs() -> list[Job]:
    if RESUME.value is None:
        jobs = [plan_run(settings, LOGDIR.value) for settings in varied(_settings())]
        for job in jobs:
            require_writable(job.folder)
        return jobs
    given = [f"--{flag.name}" for flag in DECIDED_BY_THE_RUN if flag.present]
    given += [arg for arg in sys.argv if arg.lstrip("-").startswith("config.")]
    if given:
        raise ValueError(f"--resume continues a run as it was set up; leave out {', '.join(given)}")
    folder = RESUME.value
    begun = [other for other in program_of(folder) if not is_finished(other)]
    if is_finished(folder):
        left = "going on with the others of its program" if begun else "there is nothing to do"
        print(f"{folder} is finished: {left}")
    limits = {flag.name: flag.value for flag in LIMITS if flag.present}
    jobs = [
        job._replace(settings=dataclasses.replace(job.settings, **limits))
        for job in resume_together(begun or [folder])
    ]
    for job in jobs:
        if not job.finished:
            job.settings.validate()
            require_writable(job.folder)
    return jobs


def varied(settings: Settings) -> list[Settings]:
    """The settings with every combination of `--vary`'s values; only themselves without any."""
    values = [_values(text) for text in VARY.value]
    if not values:
        return [settings]
    return [
        dataclasses.replace(
            settings,
            recipe="-".join([settings.recipe, *(f"{name}={value:g}" for name, value in chosen)]),
            config=override(settings.config, dict(chosen)),
        )
        for chosen in itertools.product(*values)
    ]


def _values(text: str) -> list[tuple[str, float]]:
    """(setting, value) for each value of one `--vary`."""
    name, equals, values = text.partition("=")
    try:
        if not equals or name.rpartition(".")[2] not in SWEPT:
            raise ValueError
        return [(name, finite_number(value)) for value in values.split(",")]
    except ValueError:
        raise ValueError(
            f"--vary={text} is not MODULE.SETTING=NUMBER,NUMBER,... with one of {', '.join(SWEPT)} "
            "and finite numbers"
        ) from None


def _settings() -> Settings:
    return Settings(
        agent=AGENT.value,
        task=TASK.value,
        recipe=label(RECIPE.value, SIZE.value, ARCHITECTURE.value),
        config=flags.FLAGS.config,
        steps=STEPS.value,
        seed=SEED.value,
        seeds=SEEDS.value,
        eval_every=EVAL_EVERY.value,
        eval_episodes=EVAL_EPISODES.value,
        log_every=LOG_EVERY.value,
        checkpoint_every=CHECKPOINT_EVERY.value,
        row_dtype=ROW_DTYPE.value,
        resets=RESETS.value,
        diagnose_every=DIAGNOSE_EVERY.value,
        gradient_covariance=GRADIENT_COVARIANCE.value,
        final_eval_episodes=FINAL_EVAL_EPISODES.value,
        wandb=WANDB.value,
        history_every=HISTORY_EVERY.value,
        environments=ENVIRONMENTS.value,
        max_environment_errors=MAX_ENVIRONMENT_ERRORS.value,
        worker_timeout=WORKER_TIMEOUT.value,
    )


if __name__ == "__main__":
    launch(main, flags_parser=parse)
