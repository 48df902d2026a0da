"""What a run is: its settings. Defaults, limits and what each is for are written here, once.

The launchers' flags, `help(Settings)` and the table in docs/training.md are made from the fields.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from mst_jax.agents import AGENTS
from mst_jax.diagnostics import find_metrics
from mst_jax.envs import WORKER_TIMEOUT
from mst_jax.envs.pictures import LARGEST, QUALITIES, SMALLEST, USUAL
from mst_jax.envs.protocols import PROTOCOLS
from mst_jax.envs.protocols import USUAL as USUAL_PROTOCOL
from mst_jax.envs.timed import TIMES
from mst_jax.networks import PRECISIONS
from mst_jax.recipes import RECIPES

# Environments are seeded with 32 bits, those of evaluations by a seed SEED_OFFSET = 100 above; and
# `jax.random.key` drops higher bits, so that seed 2**32 would be seed 0 again.
LAST_SEED = 2**32 - 101
_IN_A_NAME = str.maketrans(":/", "--")  # what names of tasks and of a user's code have besides
MOST_SEEDS, MOST_ENVIRONMENTS, MOST_EPISODES = 10_000, 1_000_000, 1_000_000
MOST_UPDATES = 2**31 - 1  # clocks are int32
WANDB_MODES = ("off", "offline", "online")
ROW_DTYPES = ("float32", "bfloat16", "float16")


class About(NamedTuple):
    """What is known of a setting besides its name, type and default.

    Attributes:
        text: what it is, in a sentence or two.
        least: smallest value.
        most: largest value; what is counted by several settings together is limited elsewhere.
        choices: all values that it may have; any, if empty.
        before: what runs did that were written before the setting existed.
        changeable: whether a run that is resumed may have another value from there on.
    """

    text: str
    least: int | None
    most: int | None
    choices: tuple[str, ...]
    before: Any
    changeable: bool


def _setting(
    default: Any,
    text: str,
    *,
    least: int | None = None,
    most: int | None = None,
    choices: tuple[str, ...] = (),
    changeable: bool = False,
    before: Any = dataclasses.MISSING,
) -> Any:
    """A field with its default; runs of before it have the default too, unless `before=` says."""
    before = default if before is dataclasses.MISSING else before
    about = About(text, least, most, choices, before, changeable)
    return dataclasses.field(default=default, metadata={"about": about})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """One run: everything that decides its results, and where they go.

    `config` is the agent's configuration dataclass (`mst_jax.recipes.make_config`). All else has a
    default; the settings are described in docs/training.md, and by `help(Settings)`.
    """

    config: Any
    agent: str = _setting("mrq", f"Algorithm: {', '.join(sorted(AGENTS))}.")
    task: str = _setting("dmc:cartpole-swingup", "Task, as suite:name.")
    with_time: str = _setting(
        "off",
        "The episode's time behind the observations, -0.5 at its start and 0.5 at its limit; "
        "`published` lags by one step, as in Stream AC's program.",
        choices=TIMES,
    )
    action_repeat: int = _setting(
        0,
        "Environment steps of an agent step, over which rewards are summed; 0: as many as the "
        "suite does.",
        least=0,
    )
    picture_size: int = _setting(
        USUAL.size, "Height and width of a task's pictures.", least=SMALLEST, most=LARGEST
    )
    quality: str = _setting(
        USUAL.quality,
        "How pictures are drawn: `fast` with coarser shadows, `plain` without shadows, sky and "
        "reflections.",
        choices=QUALITIES,
    )
    protocol: str = _setting(
        USUAL_PROTOCOL,
        "How an Atari game is played: `sticky` with sticky actions, one life a game and no start "
        "without action.",
        choices=tuple(PROTOCOLS),
    )
    recipe: str = _setting(
        "mst",
        f"Which modules are sparse: {', '.join(sorted(set().union(*RECIPES.values())))}. "
        "A label once the run exists.",
    )
    steps: int = _setting(500_000, "Agent steps of each seed.", least=1)
    seeds: int = _setting(1, "Seeds trained in one program.", least=1, most=MOST_SEEDS)
    seed: int = _setting(0, "First seed.", least=0)
    environments: int = _setting(
        1,
        "Environments of each seed, stepped together: a step stores one transition of each and "
        "learns once. All numbers of steps count those of one environment.",
        least=1,
    )
    stale_actions: int = _setting(
        0,
        "Updates that the parameters choosing an action are behind: with 1, environments on the "
        "host step while the device learns.",
        least=0,
        most=1,
    )
    precision: str = _setting(
        "float32",
        "Products of layers while learning: `bf16` rounds their operands to bfloat16 and sums in "
        "float32; all else, and acting, stays float32.",
        choices=PRECISIONS,
    )
    eval_every: int = _setting(5_000, "Agent steps between evaluations.", least=1)
    eval_episodes: int = _setting(
        10, "Episodes of an evaluation, per seed.", least=1, most=MOST_EPISODES
    )
    final_eval_episodes: int = _setting(
        0,
        "Fresh episodes, per seed, for the last and the best policy of a finished run; 0: none.",
        least=0,
        most=MOST_EPISODES,
    )
    log_every: int = _setting(1_000, "Agent steps between metric rows.", least=1)
    checkpoint_every: int = _setting(
        50_000, "Agent steps between full checkpoints; 0: only the last.", least=0
    )
    history_every: int = _setting(
        10_000, "Agent steps between snapshots of the masks that move; 0: none.", least=0, before=0
    )
    row_dtype: str = _setting(
        "float32", "Storage of replayed observations and actions.", choices=ROW_DTYPES
    )
    diagnose_every: int = _setting(
        5_000,
        "Agent steps between rank, plasticity and gradient metrics; 0: none.",
        least=0,
        before=0,
    )
    metrics: str = _setting(
        "",
        "With them, metrics of your own: dotted names of functions, such as my_pkg.metrics:spread, "
        "separated by commas.",
    )
    gradient_covariance: bool = _setting(
        False, "With them, save cosines between 64 samples' gradients."
    )
    resets: int = _setting(
        0,
        "Times that networks and optimizers begin again, equally spaced; buffer, masks and "
        "observation statistics stay.",
        least=0,
    )
    recycle_every: int = _setting(
        0,
        "Agent steps between recyclings of dormant units (ReDo): their incoming weights begin "
        "again, their outgoing ones at zero; masks stay. 0: never.",
        least=0,
    )
    recycle_threshold: float = _setting(
        0.1, "Share of its layer's mean activity up to which a unit is dormant then.", least=0
    )
    wandb: str = _setting(
        "off", "Send metrics to Weights & Biases too, a run for each seed.", choices=WANDB_MODES
    )
    max_environment_errors: int = _setting(
        100,
        "Steps that a run may lose to environments that fail, over all seeds; with one more it "
        "saves and stops.",
        least=0,
        changeable=True,
    )
    worker_timeout: float = _setting(
        WORKER_TIMEOUT,
        "Seconds without an answer after which a worker process is replaced; 0: wait for ever.",
        least=0,
        changeable=True,
    )

    def validate(self) -> None:
        """Raises ValueError with one line for the first impossible setting."""
        for name, about in ABOUT.items():
            value = getattr(self, name)
            if about.least is not None and value < about.least:
                least = f"be at least {about.least}" if about.least else "not be negative"
                raise ValueError(f"{name}={value} must {least}")
        self._check_range()
        for name, about in ABOUT.items():
            if about.choices and getattr(self, name) not in about.choices:
                choices = ", ".join(about.choices)
                raise ValueError(f"{name}={getattr(self, name)!r} is none of {choices}")
        if self.gradient_covariance and not self.diagnose_every:
            raise ValueError("gradient_covariance needs diagnose_every above 0")
        if find_metrics(self.metrics) and not self.diagnose_every:
            raise ValueError("metrics needs diagnose_every above 0")
        if hasattr(self.config, "validate"):
            self.config.validate()
        if self.steps <= self.learning_starts:
            raise ValueError(
                f"steps={self.steps} must exceed learning_starts={self.learning_starts}; "
                "lower config.learning_starts or raise steps"
            )
        if self.resets >= self.steps:
            raise ValueError(f"resets={self.resets} in {self.steps} steps: choose fewer")
        if self.resets and self.reset_period <= self.learning_starts:
            raise ValueError(
                f"resets={self.resets} would come every {self.reset_period} steps, before "
                f"learning_starts={self.learning_starts}; choose fewer or raise steps"
            )

    def _check_range(self) -> None:
        """Raises ValueError for a number that is not finite, or more than can be counted."""
        for name, value in _numbers(self):
            if not math.isfinite(value):
                raise ValueError(f"{name}={value} must be a finite number")
            if isinstance(value, int) and name != "seed" and value > MOST_UPDATES:
                raise ValueError(f"{name}={value} must be below 2**31")
        updates = self.steps * getattr(self.config, "updates_per_step", 1)
        own = {k: (getattr(self, k), about.most) for k, about in ABOUT.items() if about.most}
        together = {
            "seed": (self.seed + self.seeds - 1, LAST_SEED),
            "environments": (self.seeds * self.environments, MOST_ENVIRONMENTS),
            "steps": (updates, MOST_UPDATES),
        }
        for name, (value, limit) in {**own, **together}.items():
            if value > limit:
                given = getattr(self, name)
                raise ValueError(f"{name}={given} is too large: {value:,} exceeds {limit:,}")

    @property
    def learning_starts(self) -> int:
        """Steps before the first update; 0 for an agent whose settings do not speak of any."""
        return getattr(self.config, "learning_starts", 0)

    @property
    def task_options(self) -> dict[str, Any]:
        """How `envs.make` makes the task besides its name: what differs from its defaults."""
        names = ("action_repeat", "with_time", "picture_size", "quality", "protocol")
        return {n: getattr(self, n) for n in names if getattr(self, n) != FIELDS[n].default}

    @property
    def seed_list(self) -> list[int]:
        """The seeds, consecutive from `seed`."""
        return list(range(self.seed, self.seed + self.seeds))

    def index_of(self, seed: int | None) -> int:
        """Position of a seed in `seed_list`, the first by default; ValueError if not held."""
        if seed is None:
            return 0
        if seed not in self.seed_list:
            raise ValueError(f"this run holds the seeds {self.seed_list}, not {seed!r}")
        return seed - self.seed

    @property
    def reset_period(self) -> int:
        """Agent steps between resets, and from the last one to the end."""
        return self.steps // (self.resets + 1)

    @property
    def reset_steps(self) -> list[int]:
        """The agent steps at which networks are reset."""
        return [number * self.reset_period for number in range(1, self.resets + 1)]

    @property
    def review_every(self) -> int:
        """Agent steps between reviews of old memories; 0 for an agent whose settings have none."""
        return getattr(self.config, "review_every", 0)

    def reviews_at(self, step: int) -> bool:
        """Whether old memories are reviewed after this step, if learning had begun before it."""
        return self.review_every > 0 and step % self.review_every == 0 and step < self.steps

    def recycles_at(self, step: int) -> bool:
        """Whether dormant units are recycled after this step, if learning had begun before it."""
        return self.recycle_every > 0 and step % self.recycle_every == 0 and step < self.steps

    @property
    def folder_name(self) -> str:
        """suite-task/agent-recipe-seedsA-B, distinct for each task, recipe and seed block.

        Before the seeds comes -bf16 if that is the precision, and -envsE with E environments of
        each seed.
        """
        precision = "" if self.precision == "float32" else f"-{self.precision}"
        several = f"-envs{self.environments}" if self.environments > 1 else ""
        block = f"{self.seed}-{self.seed + self.seeds - 1}"
        task, run = self.task, f"{self.agent}-{self.recipe}{precision}{several}-seeds{block}"
        return "/".join(name.translate(_IN_A_NAME) for name in (task, run))


FIELDS = {field.name: field for field in dataclasses.fields(Settings) if field.name != "config"}
ABOUT: dict[str, About] = {name: field.metadata["about"] for name, field in FIELDS.items()}


def settings_table() -> str:
    """Every setting with its default and what it is, as a Markdown table."""
    lines = [
        f"| `{name}` | `{FIELDS[name].default}` | {about.text}"
        f"{' One of ' + ', '.join(about.choices) + '.' if about.choices else ''} |"
        for name, about in ABOUT.items()
    ]
    return "\n".join(["| setting | default | what it is |", "|---|---|---|", *lines])


Settings.__doc__ = f"{Settings.__doc__}\n{settings_table()}\n"


def _numbers(settings: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every numeric setting by dotted name."""
    for field in dataclasses.fields(settings):
        name, value = f"{prefix}{field.name}", getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            yield from _numbers(value, f"{name}.")
        elif isinstance(value, (int, float)):
            yield name, value
