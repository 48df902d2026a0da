"""Training from Python: one run, or several, as many as possible in one program."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mst_jax.api.given import own_label, settings_from, warn_of_idle
from mst_jax.api.run import Run
from mst_jax.runs import Settings, is_blank
from mst_jax.runs.folder import as_folder
from mst_jax.training import grouped, make_program, plan_in, train_together

LOGDIR = Path("runs")  # in the folder that Python was started in, as the launchers have it


def train(
    task: str = Settings.task,
    agent: str = Settings.agent,
    recipe: str = Settings.recipe,
    steps: int = Settings.steps,
    seeds: int = Settings.seeds,
    folder: str | Path | None = None,
    *,
    verbose: bool = False,
    progress: bool = True,
    **settings: Any,
) -> Run:
    """Trains an agent: many seeds in one program.

    A stop (Ctrl-C, or a notebook's stop button) ends it with a checkpoint and returns what there
    is; `run.resume()` goes on, exactly. A second one ends it at once. In other threads than the
    main one Python hears of no stop.

    Args:
        task: as suite:name, or the dotted name of a function of your own (docs/extending.md).
        agent: a name of `mst_jax.agents.AGENTS`, or the dotted name of a module.
        recipe: which modules are sparse; a name of `mst_jax.recipes.RECIPES[agent]`, or the dotted
            name of a function.
        steps: agent steps of each seed.
        seeds: how many, trained in one program.
        folder: the run's own folder, which must not be there yet. By default a fresh one,
            `runs/SUITE-TASK/AGENT-RECIPE-seedsA-B`, with -2, -3, ... after it if that is taken.
        verbose: print topology plans, memory and the final evaluation too.
        progress: show a progress bar.
        **settings: anything else: fields of `Settings`, the `preset` of settings published for the
            task, `size` and `architecture` of the networks, settings of the agent's configuration
            (`batch_size=64`) and of its modules (`**{"critic.sparsity": 0.8}`), which win over the
            recipe.

    Returns:
        The run. What is given and not read by the regime of its module is a warning.

    Raises:
        TypeError: a value of another type. Nothing was written.
        ValueError: an unknown name, an impossible value, or the folder exists. Nothing was written.
        EnvironmentFailedError: the environments cannot go on; a checkpoint was saved before.
    """
    named = {"task": task, "agent": agent, "recipe": recipe, "steps": steps, "seeds": seeds}
    made = settings_from({**named, **settings})
    warn_of_idle(made, settings, stacklevel=2)
    place = _fresh(LOGDIR, made, set()) if folder is None else as_folder(folder)
    program = make_program([plan_in(made, place)])
    train_together(program, verbose=verbose, progress=progress)
    return Run(place, made)


def train_many(
    runs: Sequence[Mapping[str, Any]],
    *,
    folder: str | Path | None = None,
    together: int = 32,
    verbose: bool = False,
    progress: bool = True,
    **shared: Any,
) -> list[Run]:
    """Trains several runs.

    Those that differ only in seeds and in a module's sparsity, drop fraction or learning rate share
    one program; the others follow one after the other. A stop ends all of them; `run.resume()`
    goes on with one and those of its program, or begins it.

    Args:
        runs: what each has of its own, as `train` takes it; it is part of the run's label.
        folder: in which each run gets a fresh folder; `runs` by default.
        together: most seeds in one program; fewer take less memory.
        verbose: as `train`.
        progress: as `train`.
        **shared: what all have, as `train` takes it.

    Returns:
        The runs, in the order given.

    Raises:
        TypeError, ValueError: as `train`; nothing was written.
    """
    logdir = LOGDIR if folder is None else as_folder(folder)
    made = [_member(own, shared) for own in runs]
    for settings, own in zip(made, runs, strict=True):
        warn_of_idle(settings, own, stacklevel=2)
    taken: set[Path] = set()
    found = [Run(_fresh(logdir, settings, taken), settings) for settings in made]
    jobs = [plan_in(run.settings, run.folder) for run in found]
    for members in grouped(made, together):
        program = make_program([jobs[index] for index in members])
        outcomes = train_together(program, verbose=verbose, progress=progress)
        if not all(outcome.finished for outcome in outcomes):
            break
    return found


def _member(own: Mapping[str, Any], shared: Mapping[str, Any]) -> Settings:
    """Settings of one of several runs, labelled by what it has of its own."""
    if not isinstance(own, Mapping):
        raise TypeError(f"of a run's own there is {own!r}: give a mapping such as {{'seed': 4}}")
    settings = settings_from({**shared, **own})
    return dataclasses.replace(settings, recipe=own_label(settings, own))


def _fresh(logdir: Path, settings: Settings, taken: set[Path]) -> Path:
    """A folder in which no run is, nor will be of those planned beside it; it is taken then."""
    name = logdir / settings.folder_name
    numbered = (name.with_name(f"{name.name}-{number}") for number in itertools.count(2))
    free = next(p for p in itertools.chain([name], numbered) if p not in taken and is_blank(p))
    taken.add(free)
    return free
