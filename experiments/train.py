"""Trains one agent with one recipe on one task: many seeds in one program.

A new run:       python -m experiments.train --task=dmc:dog-run --recipe=mst --seeds=8
Any setting:     ... --config.critic.sparsity=0.8 --config.batch_size=128   (wins over the recipe)
Several values:  ... --vary=critic.sparsity=0.5,0.7,0.9   (a run each, all in one program)
                 ... --vary=critic.structure=unstructured,2:4   (a program each, in turn)
Continue a run:  python -m experiments.train --resume=RUN_FOLDER   (with those of its program)
"""

import dataclasses
import itertools
import sys
from typing import Any

from absl import flags
from ml_collections import config_flags

from experiments.cli import command, launch, one_line_errors
from experiments.inputs import define_path, finite_number, require_writable
from experiments.setting_flags import define_settings
from mst_jax import envs
from mst_jax.agents import SIMBA_SIZES, SWEPT, idle_settings
from mst_jax.names import dotted, nearest
from mst_jax.presets import PRESETS, describe_preset, preset_overrides
from mst_jax.recipes import ARCHITECTURES, label, make_config, override
from mst_jax.runs import DamagedCheckpointError, Settings, is_finished
from mst_jax.runs.lock import HeldError
from mst_jax.runs.settings import ABOUT
from mst_jax.training import (
    Job,
    Program,
    grouped,
    make_program,
    plan_run,
    resume_together,
    train_together,
    unfinished,
)

SETTINGS = define_settings()
PRESET = flags.DEFINE_string(
    "preset",
    "",
    f"Settings published for the task: {', '.join(sorted(set().union(*PRESETS.values())))}.",
)
SIZE = flags.DEFINE_string(
    "size",
    "",
    f"Networks: WIDTHxDEPTH times the published size; SimBa: also {', '.join(SIMBA_SIZES)}.",
)
ARCHITECTURE = flags.DEFINE_string(
    "architecture", "", f"Of every module, instead of the recipe's: {', '.join(ARCHITECTURES)}."
)
LOGDIR = define_path("logdir", "runs", "Folder in which the run gets a folder of its own.")
VARY = flags.DEFINE_multi_string(
    "vary",
    [],
    "SETTING=VALUE,VALUE,...: a run for each value. For a module's sparsity, drop_fraction or "
    "learning_rate, all in one program, or its structure, a program each; given again, for each "
    "combination.",
)
CHANGEABLE = [name for name in SETTINGS if ABOUT[name].changeable]
RESUME = define_path(
    "resume",
    None,
    f"Run folder to continue; of the other flags only {' and '.join(CHANGEABLE)}.",
)


def main(_: list[str]) -> None:
    """Starts or continues runs of one program and says where they are."""
    with one_line_errors():
        programs = [make_program(jobs) for jobs in _jobs()]
    if RESUME.value is None:
        _tell()
    for number, program in enumerate(programs, start=1):
        if not _trained(program):
            left = [str(job.folder) for later in programs[number:] for job in later.jobs]
            if left:
                print(f"not begun, to be started again: {', '.join(left)}")
            return


def _tell() -> None:
    """Says what a preset sets, and which of the given settings do nothing."""
    varied_names = (text.partition("=")[0] for text in VARY.value)
    given = dict.fromkeys([*_given(), *varied_names])  # each once
    if PRESET.value:
        task = SETTINGS["task"].value
        changes = preset_overrides(SETTINGS["agent"].value, PRESET.value, task)
        kept = {name: value for name, value in changes.items() if name not in given}
        print(describe_preset(PRESET.value, task, kept))
    for idle in idle_settings(flags.FLAGS.config, given):
        print(f"note: {idle}")


def _trained(program: Program) -> bool:
    """Trains runs of one program and says where they are; whether to the end."""
    for job in program.jobs:
        print(f"run folder: {job.folder}", flush=True)
    try:
        outcomes = train_together(program)
    except (HeldError, DamagedCheckpointError, envs.EnvironmentFailedError) as error:
        sys.exit(f"error: {error}")
    if not outcomes[0].finished:
        go_on = command("train", f"--resume={outcomes[0].folder}")
        print(f"stopped at step {outcomes[0].step:,}; continue with {go_on}")
        return False
    for outcome in outcomes:
        print(f"finished {outcome.step:,} steps; fingerprint {outcome.fingerprint}")
        for module in ("evaluate", "plot", "inspect"):
            print(command(module, outcome.folder))
    return True


def parse(argv: list[str]) -> list[str]:
    """Parses flags in two passes: the agent and recipe decide what `--config.*` there is."""
    first = [arg for arg in argv if not arg.lstrip("-").startswith(("help", "config"))]
    flags.FLAGS(first, known_only=True)
    _refuse_beside_resume()
    agent, recipe = SETTINGS["agent"].value, SETTINGS["recipe"].value
    base = preset_overrides(agent, PRESET.value, SETTINGS["task"].value)
    config = make_config(agent, recipe, SIZE.value, ARCHITECTURE.value, base)
    known = dotted(config)
    _check_names(argv, list(known))
    lines = [f"    --config.{name}={value}" for name, value in known.items()]
    title = f"Settings of {agent} under recipe {recipe}:"
    config_flags.DEFINE_config_dataclass("config", config, help_string="\n".join([title, *lines]))
    flags.FLAGS.unparse_flags()
    return flags.FLAGS(argv)


def _check_names(argv: list[str], known: list[str]) -> None:
    """Raises ValueError naming the nearest settings when a `--config.*` does not exist."""
    for arg in argv[1:]:
        name, dot, setting = arg.lstrip("-").partition("=")[0].partition(".")
        if arg.startswith("-") and name == "config" and setting not in known:
            raise ValueError(f"there is no setting {name}{dot}{setting}: {nearest(setting, known)}")


def _refuse_beside_resume() -> None:
    """Raises ValueError for flags that say anew what a run to be continued is."""
    if RESUME.value is None:
        return
    decided = [flag for name, flag in SETTINGS.items() if name not in CHANGEABLE]
    given = [
        f"--{f.name}" for f in (*decided, PRESET, SIZE, ARCHITECTURE, LOGDIR, VARY) if f.present
    ]
    given += [arg for arg in sys.argv if arg.lstrip("-").startswith("config.")]
    if given:
        raise ValueError(f"--resume continues a run as it was set up; leave out {', '.join(given)}")


def _jobs() -> list[list[Job]]:
    """The runs of each program."""
    if RESUME.value is None:
        runs = varied(_settings())
        jobs = [plan_run(settings, LOGDIR.value) for settings in runs]
        for job in jobs:
            require_writable(job.folder)
        together = grouped(runs, sum(settings.seeds for settings in runs))
        return [[jobs[index] for index in own] for own in together]
    folder = RESUME.value
    left = unfinished(folder)
    if is_finished(folder):
        others = left != [folder]
        told = "going on with the others of its program" if others else "there is nothing to do"
        print(f"{folder} is finished: {told}")
    limits = {name: SETTINGS[name].value for name in CHANGEABLE if SETTINGS[name].present}
    jobs = [job.with_limits(**limits) for job in resume_together(left)]
    for job in jobs:
        if not job.finished:
            require_writable(job.folder)
    return [jobs]


def varied(settings: Settings) -> list[Settings]:
    """The settings with every combination of `--vary`'s values; only themselves without any."""
    values = [_values(text) for text in VARY.value]
    if not values:
        return [settings]
    return [
        dataclasses.replace(
            settings,
            recipe="-".join(
                [settings.recipe, *(f"{name}={_text(value)}" for name, value in chosen)]
            ),
            config=override(settings.config, {**_given(), **dict(chosen)}),
        )
        for chosen in itertools.product(*values)
    ]


def _values(text: str) -> list[tuple[str, float | str]]:
    """(setting, value) for each value of one `--vary`."""
    name, equals, values = text.partition("=")
    setting = name.rpartition(".")[2]
    if setting == "structure" and equals:
        return [(name, value) for value in values.split(",")]
    try:
        if not equals or setting not in SWEPT:
            raise ValueError
        return [(name, finite_number(value)) for value in values.split(",")]
    except ValueError:
        raise ValueError(
            f"--vary={text} is not MODULE.SETTING=NUMBER,NUMBER,... with one of {', '.join(SWEPT)} "
            "and finite numbers, or MODULE.structure=NAME,NAME,..."
        ) from None


def _settings() -> Settings:
    given = {name: flag.value for name, flag in SETTINGS.items()}
    given["recipe"] = label(given["recipe"], SIZE.value, ARCHITECTURE.value, PRESET.value)
    return Settings(**given, config=override(flags.FLAGS.config, _given()))


def _given() -> dict[str, Any]:
    """The settings of the configuration that were given as flags, over those of the recipe."""
    values = dotted(flags.FLAGS.config)
    return {name: value for name, value in values.items() if f"config.{name}" in flags.FLAGS}


def _text(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"


if __name__ == "__main__":
    launch(main, flags_parser=parse)
