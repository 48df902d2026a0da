"""A run as an object: what its folder holds, read when it is asked for."""

import html
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mst_jax.analysis import Curve, Lines, TopologyHistory, read_curve, read_history, read_rows
from mst_jax.figures import draw_curves
from mst_jax.names import kind_of, nearest
from mst_jax.runs import Settings, checkpoints, is_blank, is_finished, read_settings
from mst_jax.runs.folder import CHECKPOINTS, as_folder
from mst_jax.runs.health import describe_diverged, mean_of_known
from mst_jax.runs.light import masks_in
from mst_jax.runs.lock import owner
from mst_jax.topology import Plan
from mst_jax.training import (
    Policy,
    load_policy,
    make_program,
    plan_in,
    prepare,
    resume_together,
    train_together,
    unfinished,
)


class Tables(dict[str, Plan]):
    """{module: topology plan}; text at a prompt, HTML in a notebook."""

    def __repr__(self) -> str:
        return "\n\n".join(f"{name}\n{plan}" for name, plan in self.items())

    __str__ = __repr__

    def _repr_html_(self) -> str:
        """What Jupyter shows."""
        return "".join(
            f"<h4>{html.escape(name)}</h4>{plan._repr_html_()}" for name, plan in self.items()
        )


class Run:
    """One run, whether it is finished, was stopped, or is being trained by somebody.

    Nothing but its place and settings is held in memory: everything else is read from the folder
    when it is asked for, and so is as new as the files are. What is not there yet is a ValueError
    that says so in one line.

    Attributes:
        folder: its run folder.
    """

    def __init__(self, folder: Path, settings: Settings | None = None) -> None:
        """With settings, the run may also be one that has not begun; it begins with `resume`."""
        self.folder = folder
        self._settings = settings

    @property
    def settings(self) -> Settings:
        """All settings, the agent's configuration among them."""
        if self._settings is None:
            self._settings = read_settings(self.folder)
        return self._settings

    @property
    def curve(self) -> Curve:
        """Evaluations of all seeds, as `mst_jax.analysis` and `mst_jax.figures` take them."""
        return read_curve(self.folder)

    @property
    def returns(self) -> np.ndarray:
        """Mean return of each seed's evaluations (S, T); NaN where a seed has none."""
        return self.curve.returns

    @property
    def steps(self) -> np.ndarray:
        """Agent steps of the evaluations (T,)."""
        return self.curve.steps

    @property
    def diverged(self) -> dict[int, int]:
        """Seed -> the step by which it had diverged, of those that did."""
        return self.curve.diverged

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All metric rows, seed by seed: `pandas.DataFrame(run.rows)` is a tidy table of them."""
        return [row for rows in read_rows(self.folder) for row in rows]

    @property
    def metrics(self) -> list[str]:
        """Names of the numbers in the rows, as `metric` takes them."""
        found = {name for row in self.rows for name in row if _is_number(row[name])}
        return sorted(found - {"step", "seed"})

    def metric(self, name: str, kind: str | None = None) -> Lines:
        """One quantity of all seeds over time.

        Args:
            name: one of `metrics`, such as `critic/loss`.
            kind: of rows: `train`, `eval`, `diagnostics`, `final`. Needed where several kinds have
                it, as of `return`.

        Returns:
            `steps` (T,) and `values` (S, T); NaN where a seed has none.

        Raises:
            ValueError: no row has it, or rows of several kinds and none was chosen.
        """
        of_seeds = read_rows(self.folder)
        having = [row for rows in of_seeds for row in rows if _is_number(row.get(name))]
        kinds = sorted({row["kind"] for row in having})
        if kind is None and len(kinds) > 1:
            raise ValueError(
                f"rows of the kinds {', '.join(kinds)} have {name!r}: choose, as in "
                f"kind={kinds[0]!r}"
            )
        seeds = [
            {
                row["step"]: row[name]
                for row in rows
                if name in row and kind in (None, row["kind"]) and _is_number(row[name])
            }
            for rows in of_seeds
        ]
        steps = sorted({step for seed in seeds for step in seed})
        if not steps:
            chosen = "" if kind is None else f" of kind {kind!r}"
            raise ValueError(f"no row{chosen} has {name!r}: {nearest(name, self.metrics)}")
        values = [[seed.get(step, np.nan) for step in steps] for seed in seeds]
        return Lines(np.array(steps), np.array(values, np.float64))

    @property
    def masks(self) -> dict[str, np.ndarray]:
        """{path: bool (S, ...)} of every masked leaf, at the newest evaluation."""
        settings = self.settings
        loaded = checkpoints.load_newest(self.folder / CHECKPOINTS, checkpoints.LIGHT)
        if loaded is None:
            raise ValueError(
                f"{self.folder} has no masks yet; let {settings.recipe} train to its first "
                "evaluation"
            )
        return masks_in(loaded.arrays)

    @property
    def history(self) -> TopologyHistory:
        """The masks that moved, over time."""
        return read_history(self.folder)

    @property
    def tables(self) -> Tables:
        """The topology plan of every module."""
        return Tables(prepare(self.settings)[1].plans)

    @property
    def finished(self) -> bool:
        """Whether all steps were taken."""
        return is_finished(self.folder)

    def policy(self, seed: int | None = None, *, best: bool = False) -> Policy:
        """The newest policy of a seed, the first by default, or that of its best evaluation."""
        return load_policy(self.folder, seed, best=best)

    def plot(self, *others: "Run") -> Figure:
        """The learning curves, those of other runs beside.

        Raises:
            TypeError: another is no run.
        """
        for other in others:
            if not isinstance(other, Run):
                raise TypeError(f"{other!r} is {kind_of(other)}, not a Run, as mst_jax.load gives")
        _teach_notebook()
        return draw_curves([run.curve for run in (self, *others)])

    def resume(self, *, verbose: bool = False, progress: bool = True, **limits: float) -> "Run":
        """Trains it to its end, with the others of its program, from the newest checkpoint.

        Args:
            verbose: as `mst_jax.train`.
            progress: as `mst_jax.train`.
            **limits: new values of settings that may change: `max_environment_errors` and
                `worker_timeout`.

        Returns:
            The run itself. If it is finished nothing is done.

        Raises:
            HeldError: somebody trains it.
            ValueError: it cannot go on; the folder was left as it was.
        """
        if self._settings is not None and is_blank(self.folder):
            jobs = [plan_in(self.settings, self.folder)]
        else:
            jobs = resume_together(unfinished(self.folder))
        jobs = [job.with_limits(**limits) for job in jobs]
        train_together(make_program(jobs), verbose=verbose, progress=progress)
        return self

    def __repr__(self) -> str:
        facts = ", ".join(f"{value}" for value in self._facts().values())
        return f"Run({str(self.folder)!r}: {facts})"

    def _repr_html_(self) -> str:
        """What Jupyter shows."""
        facts = {"folder": str(self.folder), **self._facts()}
        rows = "".join(
            f'<tr><th style="text-align:left">{html.escape(name)}</th>'
            f'<td style="text-align:left">{html.escape(value)}</td></tr>'
            for name, value in facts.items()
        )
        return f"<table>{rows}</table>"

    def _facts(self) -> Mapping[str, str]:
        """What it is and how far it has come, as text."""
        settings = self.settings
        facts = {
            "what": f"{settings.agent} {settings.recipe} on {settings.task}",
            "seeds": f"seeds {', '.join(map(str, settings.seed_list))}",
            "state": self._state(),
        }
        try:
            curve = self.curve
        except ValueError:  # nothing was evaluated yet
            return facts
        last = mean_of_known(curve.returns[:, -1])
        facts["return"] = f"return {last:.1f} at step {curve.steps[-1]:,}, mean over seeds"
        if curve.diverged:
            facts["diverged"] = describe_diverged(curve.diverged)
        return facts

    def _state(self) -> str:
        if self.finished:
            return f"finished {self.settings.steps:,} steps"
        holder = owner(self.folder)
        if holder is not None:
            return f"in training by {holder}"
        if is_blank(self.folder):
            return "not begun"
        saved = checkpoints.saved_steps(self.folder / CHECKPOINTS, checkpoints.FULL)
        return f"stopped; saved at step {max(saved, default=0):,} of {self.settings.steps:,}"


def load(folder: str | Path) -> Run:
    """A run by its folder, whatever state it is in.

    Raises:
        TypeError: the folder is neither text nor a path.
        ValueError: it is not a run.
    """
    run = Run(as_folder(folder))
    _ = run.settings
    return run


def _teach_notebook() -> None:
    """Makes a notebook show figures as pictures, as it does by itself once pyplot has drawn one."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is None or Figure in shell.display_formatter.formatters["image/png"]:
        return
    from IPython.core.pylabtools import select_figure_formats

    select_figure_formats(shell, {"png"})


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
