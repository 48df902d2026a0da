"""What a study is: variants of an agent, and the scale at which they are run, as data."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from mst_jax.names import nearest
from mst_jax.presets import preset_overrides
from mst_jax.recipes import Overrides, make_config, override
from mst_jax.runs import Settings

Labels = dict[str, str | float]


class Variant(NamedTuple):
    """One way to train an agent.

    Attributes:
        labels: the study's factors with this variant's values; together they name it.
        recipe: of `mst_jax.recipes`.
        size: of the networks, as `--size`.
        architecture: of all modules, as `--architecture`.
        overrides: settings on top.
        resets: as `--resets`.
        recycles: how often dormant units are recycled, equally spaced (`--recycle_every`).
        first_seed: of its runs; variants that must not share random numbers differ in it.
    """

    labels: Labels
    recipe: str = "dense"
    size: str = ""
    architecture: str = ""
    overrides: Overrides = {}  # noqa: RUF012 (never changed)
    resets: int = 0
    recycles: int = 0
    first_seed: int = 0

    @property
    def name(self) -> str:
        """The labels' values in order: what the runs are called."""
        return "-".join(f"{v:g}" if isinstance(v, float) else str(v) for v in self.labels.values())


@dataclass(frozen=True)
class Scale:
    """How large a study is run.

    Attributes:
        tasks: full names.
        agents: names of `mst_jax.agents.AGENTS`.
        steps: agent steps of each seed.
        seeds: of each variant.
        block: seeds in one program; a seed block is part of a run's identity.
        evaluations: how many there are after step 0, equally spaced.
        eval_episodes: episodes of each, per seed.
        rows: metric rows of training over the run, equally spaced; None: as many as evaluations.
        checkpoints: full ones over the run, equally spaced; what a kill can lose.
        base: agent -> settings that replace the published ones before variants are made.
        preset: settings published for each task, as `--preset`; before `base`.
    """

    tasks: tuple[str, ...]
    agents: tuple[str, ...]
    steps: int
    seeds: int
    block: int
    evaluations: int = 10
    eval_episodes: int = 10
    checkpoints: int = 10
    rows: int | None = None
    base: Mapping[str, Overrides] = field(default_factory=dict)
    preset: str = ""

    def validate(self) -> None:
        """Raises ValueError with one line for the first impossible setting."""
        for name in ("steps", "seeds", "block", "evaluations", "eval_episodes", "checkpoints"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("tasks", "agents"):
            if not getattr(self, name):
                raise ValueError(f"a study needs {name}; there are none")

    def blocks(self) -> list[tuple[int, int]]:
        """(first seed, seeds) of each program."""
        starts = range(0, self.seeds, self.block)
        return [(start, min(self.block, self.seeds - start)) for start in starts]


class Cell(NamedTuple):
    """The unit of work: one variant of one agent on one task with one block of seeds."""

    labels: Labels
    settings: Settings

    @property
    def id(self) -> str:
        """Its name, distinct for each task, agent, variant and seed block."""
        return self.settings.folder_name.replace("/", "--")

    @property
    def group(self) -> tuple[str, str, str]:
        """(task, agent, variant): what its seeds belong to."""
        return self.settings.task, self.settings.agent, self.settings.recipe


@dataclass(frozen=True)
class Study:
    """A question, and the runs that answer it.

    Attributes:
        name: its name.
        question: what it asks.
        variants: (agent, size name) -> variants.
        scales: size name -> scale.
        figure: draws the study's own figure from its results; see `experiments.studies.figures`.
        baseline: labels of the variant that all others are compared with.
        judge: what its results say by a rule of the study's own, as Markdown, or None.
        settings: what all of its runs have besides, such as `with_time`.
        explores: labels -> whether a variant is exploratory: reported without a verdict, and not
            counted among the comparisons that p is corrected for.
    """

    name: str
    question: str
    variants: Callable[[str, str], Sequence[Variant]]
    scales: Mapping[str, Scale]
    figure: Callable[..., Any]
    baseline: Labels
    judge: Callable[[Any], str] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    explores: Callable[[Labels], bool] = lambda labels: False

    def cells(self, size: str, scale: Scale | None = None) -> list[Cell]:
        """All cells; `scale` replaces the one that `size` names.

        Raises:
            ValueError: unknown size, an impossible setting, or two cells of one name.
        """
        if size not in self.scales:
            raise ValueError(f"size {size!r} is unknown: {nearest(size, self.scales)}")
        scale = scale or self.scales[size]
        scale.validate()
        cells = [
            Cell(
                dict(variant.labels),
                replace(_settings(variant, scale, task, agent, *block), **self.settings),
            )
            for task in scale.tasks
            for agent in scale.agents
            for variant in self.variants(agent, size)
            for block in scale.blocks()
        ]
        for cell in cells:
            cell.settings.validate()
        check_distinct(cells)
        return cells


def check_distinct(cells: Sequence[Cell]) -> None:
    """Raises ValueError when two cells of a group share a seed: it would count twice."""
    owners: dict[tuple[tuple[str, str, str], int], str] = {}
    for cell in cells:
        for seed in cell.settings.seed_list:
            other = owners.get((cell.group, seed))
            if other is not None:
                raise ValueError(f"seed {seed} is in two cells, {other} and {cell.id}")
            owners[cell.group, seed] = cell.id


def _settings(
    variant: Variant, scale: Scale, task: str, agent: str, seed: int, seeds: int
) -> Settings:
    base = {**preset_overrides(agent, scale.preset, task), **scale.base.get(agent, {})}
    config = make_config(agent, variant.recipe, variant.size, variant.architecture, base)
    evaluate = max(1, scale.steps // scale.evaluations)
    return Settings(
        agent=agent,
        task=task,
        recipe=variant.name,
        config=override(config, variant.overrides),
        steps=scale.steps,
        seed=variant.first_seed + seed,
        seeds=seeds,
        eval_every=evaluate,
        eval_episodes=scale.eval_episodes,
        log_every=max(1, scale.steps // scale.rows) if scale.rows else evaluate,
        checkpoint_every=max(1, scale.steps // scale.checkpoints),
        resets=variant.resets,
        recycle_every=scale.steps // (variant.recycles + 1) if variant.recycles else 0,
        history_every=0,
        diagnose_every=0,
    )
