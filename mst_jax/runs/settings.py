"""What a run is: its settings, saved as config.json, and where and under which versions it ran."""

import dataclasses
import importlib.metadata
import json
import math
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from mst_jax.agents import default_config
from mst_jax.envs import WORKER_TIMEOUT
from mst_jax.runs.files import replace_text
from mst_jax.runs.folder import CONFIG, VERSIONS
from mst_jax.runs.json_file import read_json

# Environments are seeded with 32 bits, those of evaluations by a seed SEED_OFFSET = 100 above; and
# `jax.random.key` drops higher bits, so that seed 2**32 would be seed 0 again.
LAST_SEED = 2**32 - 101
MOST_SEEDS, MOST_ENVIRONMENTS, MOST_EPISODES = 10_000, 1_000_000, 1_000_000
MOST_UPDATES = 2**31 - 1  # clocks are int32
WANDB_MODES = ("off", "offline", "online")
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "dm_control", "mujoco")


@dataclasses.dataclass(frozen=True)
class Settings:
    """One run: everything that decides its results, and where they go.

    Attributes:
        agent: a name of `mst_jax.agents.AGENTS`.
        task: `suite:name`.
        recipe: the recipe the configuration began from; a label once the run exists.
        config: the agent's configuration dataclass.
        steps: agent steps of each seed.
        seed: the first seed.
        seeds: how many consecutive seeds run in one program.
        eval_every: agent steps between evaluations.
        eval_episodes: episodes of each.
        log_every: agent steps between rows of training metrics.
        diagnose_every: agent steps between rows of rank and plasticity metrics; 0 for none.
        gradient_covariance: with these rows, also save cosines between samples' gradients.
        checkpoint_every: agent steps between full checkpoints; 0 for only the last.
        row_dtype: dtype of stored observations and actions.
        resets: times that networks and optimizers begin again, equally spaced over the run; buffer,
            masks and observation statistics stay (docs/specs/network-sparsity.md §4 "Reset").
        final_eval_episodes: episodes that judge the last and the best policies of a finished run; 0
            for no such evaluation.
        wandb: `off`, `offline` or `online`; metrics go to Weights & Biases as well.
        history_every: agent steps between snapshots of the masks that move; 0 for none.
        environments: environments of each seed, stepped together. An agent step takes one step in
            each, stores that many transitions and learns once; every number of steps counts those
            of one environment, so a seed collects `environments * steps` transitions.
        max_environment_errors: training steps that the run may lose to environments that fail,
            over all seeds; with one more it saves and stops.
        worker_timeout: seconds without an answer after which a worker process counts as dead; 0:
            never.
    """

    agent: str
    task: str
    recipe: str
    config: Any
    steps: int
    seed: int
    seeds: int
    eval_every: int
    eval_episodes: int
    log_every: int
    checkpoint_every: int
    row_dtype: str = "float32"
    diagnose_every: int = 0
    gradient_covariance: bool = False
    resets: int = 0
    final_eval_episodes: int = 0
    wandb: str = "off"
    history_every: int = 10_000
    environments: int = 1
    max_environment_errors: int = 100
    worker_timeout: float = WORKER_TIMEOUT

    def validate(self) -> None:
        """Raises ValueError with one line for the first impossible setting."""
        positive = ("steps", "seeds", "environments", "eval_every", "eval_episodes", "log_every")
        for name in positive:
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        counts = ("seed", "checkpoint_every", "resets", "final_eval_episodes")
        limits = ("max_environment_errors", "worker_timeout")
        for name in (*counts, "history_every", "diagnose_every", *limits):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative")
        self._check_range()
        if self.wandb not in WANDB_MODES:
            raise ValueError(f"wandb={self.wandb!r} is none of {', '.join(WANDB_MODES)}")
        if self.gradient_covariance and not self.diagnose_every:
            raise ValueError("gradient_covariance needs diagnose_every above 0")
        self.config.validate()
        if self.steps <= self.config.learning_starts:
            raise ValueError(
                f"steps={self.steps} must exceed learning_starts={self.config.learning_starts}; "
                "lower config.learning_starts or raise steps"
            )
        if self.resets and self.reset_period <= self.config.learning_starts:
            raise ValueError(
                f"resets={self.resets} would come every {self.reset_period} steps, before "
                f"learning_starts={self.config.learning_starts}; choose fewer or raise steps"
            )

    def _check_range(self) -> None:
        """Raises ValueError for a number that is not finite, or more than can be counted."""
        for name, value in _numbers(self):
            if not math.isfinite(value):
                raise ValueError(f"{name}={value} must be a finite number")
            if isinstance(value, int) and name != "seed" and value > MOST_UPDATES:
                raise ValueError(f"{name}={value} must be below 2**31")
        last = self.seed + self.seeds - 1
        updates = self.steps * getattr(self.config, "updates_per_step", 1)
        most = {
            "seed": (last, LAST_SEED),
            "seeds": (self.seeds, MOST_SEEDS),
            "environments": (self.seeds * self.environments, MOST_ENVIRONMENTS),
            "eval_episodes": (self.eval_episodes, MOST_EPISODES),
            "final_eval_episodes": (self.final_eval_episodes, MOST_EPISODES),
            "steps": (updates, MOST_UPDATES),
        }
        for name, (value, limit) in most.items():
            if value > limit:
                given = getattr(self, name)
                raise ValueError(f"{name}={given} is too large: {value:,} exceeds {limit:,}")

    @property
    def seed_list(self) -> list[int]:
        """The seeds, consecutive from `seed`."""
        return list(range(self.seed, self.seed + self.seeds))

    def index_of(self, seed: int | None) -> int:
        """Position of a seed in `seed_list`, the first by default; ValueError if not held."""
        if seed is None:
            return 0
        if seed not in self.seed_list:
            raise ValueError(f"this run holds the seeds {self.seed_list}, not {seed}")
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
    def folder_name(self) -> str:
        """suite-task/agent-recipe-seedsA-B, distinct for each task, recipe and seed block.

        With E environments of each seed, -envsE comes before the seeds.
        """
        several = f"-envs{self.environments}" if self.environments > 1 else ""
        block = f"{self.seed}-{self.seed + self.seeds - 1}"
        return f"{self.task.replace(':', '-')}/{self.agent}-{self.recipe}{several}-seeds{block}"


def write_settings(folder: Path, settings: Settings) -> None:
    """Writes versions.json and then config.json, which makes a folder a run folder."""
    contents = {VERSIONS: describe_machine(), CONFIG: dataclasses.asdict(settings)}
    for name, values in contents.items():
        replace_text(folder / name, json.dumps(values, indent=2) + "\n")


def config_values(folder: Path) -> dict[str, Any]:
    """What config.json holds, as it is there."""
    return read_json(folder / CONFIG)


def read_settings(folder: Path) -> Settings:
    """Reads config.json; ValueError when the folder is not a run or holds other fields."""
    path = folder / CONFIG
    if not path.is_file():
        raise ValueError(f"{folder} is not a run folder: it has no {CONFIG}")
    try:
        return rebuild_settings(config_values(folder))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as a run's settings: {error}") from error


def rebuild_settings(raw: dict[str, Any]) -> Settings:
    """The settings that `dataclasses.asdict` made a dictionary of.

    Raises:
        TypeError: other fields, or a value of another type.
        KeyError: no agent or configuration.
        ValueError: an unknown agent.
    """
    config = _rebuild(default_config(raw["agent"]), raw["config"])
    settings = Settings(**{**raw, "config": config})
    for field in dataclasses.fields(Settings):
        if field.type is not Any:
            _require_type(field.name, getattr(settings, field.name), field.type)
    return settings


def describe_machine() -> dict[str, Any]:
    """Versions, git revision and hardware, for every saved result."""
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "git": _git_revision(),
        "platform": platform.platform(),
        "backend": jax.default_backend(),
        "devices": [str(device.device_kind) for device in jax.devices()],
    }


def _rebuild(default: Any, values: dict[str, Any]) -> Any:
    """Fills a (nested) configuration dataclass; an unknown or missing field is a TypeError."""
    fields = {field.name for field in dataclasses.fields(default)}
    if fields != set(values):
        raise TypeError(f"fields differ: {sorted(fields ^ set(values))}")
    for name, value in values.items():
        own = getattr(default, name)
        if own is not None:
            _require_type(name, value, dict if dataclasses.is_dataclass(own) else type(own))
    nested = {
        name: _rebuild(getattr(default, name), value) if isinstance(value, dict) else value
        for name, value in values.items()
    }
    return type(default)(**nested)


def _require_type(name: str, value: Any, kind: Any) -> None:
    """Raises TypeError unless a value has a setting's type; a whole number will do for a float."""
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise TypeError(f"{name} is {value!r}, not a {kind.__name__}")


def _numbers(settings: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every numeric setting by dotted name."""
    for field in dataclasses.fields(settings):
        name, value = f"{prefix}{field.name}", getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            yield from _numbers(value, f"{name}.")
        elif isinstance(value, (int, float)):
            yield name, value


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_revision(file: Path = Path(__file__)) -> str | None:
    """The revision of this source tree, with +changes if the work tree differs; else None.

    None also when another project's repository is around an installed package, as when a virtual
    environment lies in it: only a repository that tracks our own files says what we are.
    """
    run = lambda *args: subprocess.run(  # noqa: E731
        ["git", "-C", str(file.parent), *args], capture_output=True, text=True, check=True
    ).stdout.strip()
    try:
        run("ls-files", "--error-unmatch", file.name)
        return run("rev-parse", "HEAD") + ("+changes" if run("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
