"""Small settings and runs that several test files share."""

import atexit
import functools
import hashlib
import json
import tempfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from mst_jax.agents import AGENTS, Sizes, default_config, make_agent
from mst_jax.envs import Continuous, Discrete, Observation, Timestep
from mst_jax.names import dotted
from mst_jax.presets import preset_overrides
from mst_jax.program import cache
from mst_jax.program.drivers import make_driver
from mst_jax.program.state import init_loop
from mst_jax.program.step import Phase, make_step
from mst_jax.recipes import make_config, override
from mst_jax.runs import Settings
from mst_jax.training import plan_resume, plan_run, train, trainer

# One object each, so that tests share its programs.
POINT = cache.kept_task("probe:point")
PICTURES = cache.kept_task("probe:picture_motion")
CATCH = cache.kept_task("probe:catch")

MR_SMALL = {
    **{f"{module}.hidden": 16 for module in ("encoder", "critic", "actor")},
    "zs_size": 16,
    "za_size": 8,
    "zsa_size": 16,
    "reward_bins": 17,
    "batch_size": 16,
    "learning_starts": 64,
    "target_period": 10,
    "critic.interval": 20,
}
SIMBA_SMALL = {
    "critic.hidden": 16,
    "actor.hidden": 8,
    "critic.depth": 1,
    "batch_size": 16,
    "learning_starts": 64,
    "critic.interval": 20,
}
STREAM_SMALL = {
    **{f"{module}.hidden": 16 for module in ("critic", "actor")},
    **{f"{module}.interval": 20 for module in ("critic", "actor")},
    **{f"{module}.init_sparsity": 0.5 for module in ("critic", "actor")},  # 0.9 of 4 inputs are 4
    "critic.depth": 1,
}
PIXEL_SMALL = {
    "encoder.hidden": 8,
    "encoder.depth": 2,
    "critic.hidden": 16,
    "actor.hidden": 8,
    "feature_dim": 8,
    "pad": 1,
    "batch_size": 16,
    "learning_starts": 64,
    "critic.interval": 10,
}
DER_SMALL = {
    **preset_overrides("der", "small", "probe:catch"),
    "encoder.hidden": 4,
    "critic.hidden": 16,
    "atoms": 11,
    "batch_size": 16,
    "learning_starts": 64,
    "target_period": 50,
    **{f"{module}.interval": 20 for module in ("encoder", "critic")},
}


PICTURE_SIZES = Sizes(Observation((84, 84, 9), "uint8", history=3), Continuous(6), 500)
ATARI_SIZES = Sizes(Observation((84, 84, 4), "uint8", 4, "zeros"), Discrete(6), 27_000)


def by_default(chosen, names):
    """Parameters of a test: those that are chosen, and the others in `make test-all` alone."""
    return [
        name if name in chosen else pytest.param(name, marks=pytest.mark.slow) for name in names
    ]


def task_of(name):
    """A small task that shows what an agent takes, and takes what it gives."""
    if SMALL[name] is DER_SMALL:
        return CATCH
    return PICTURES if SMALL[name] is PIXEL_SMALL else POINT


def sizes_of(name, vectors):
    """Sizes of a task for an agent: these, or those of published pictures."""
    if SMALL[name] is DER_SMALL:
        return ATARI_SIZES
    return PICTURE_SIZES if SMALL[name] is PIXEL_SMALL else vectors


def _small(name):
    known = dotted(default_config(name))
    if "encoder.strided" in known:
        return PIXEL_SMALL
    if "noisy_std" in known:
        return DER_SMALL
    if "critic.kappa" in known:
        return STREAM_SMALL
    return MR_SMALL if "zs_size" in known else SIMBA_SMALL


SMALL = {name: _small(name) for name in AGENTS}
# What holds for runs, whoever learns, is tested with SAC: it compiles in half the time of MR.Q.
CLI = ["--agent=sac", *(f"--config.{name}={value}" for name, value in SIMBA_SMALL.items())]


def small_config(recipe="mst", agent="sac", **changes):
    """An agent's configuration at test size; keyword names have __ for dots."""
    named = {name.replace("__", "."): value for name, value in changes.items()}
    return override(make_config(agent, recipe), {**SMALL[agent], **named})


def small_settings(task="probe:point", recipe="mst", agent="sac", **changes):
    """Settings of a run of a few hundred steps."""
    named = {"agent": agent, "task": task, "recipe": recipe, "config": small_config(recipe, agent)}
    sizes = {"steps": 240, "seeds": 2, "eval_episodes": 2}
    periods = {"eval_every": 100, "log_every": 40, "checkpoint_every": 60, "diagnose_every": 0}
    return Settings(**{**named, **sizes, **periods, **changes})


def start_run(
    env, config, seeds, steps, total_steps=10_000, capacity=2_000, agent="sac", environments=1
):
    """A driver, the agent and the run after `steps` steps on a pure-JAX environment.

    Tests that ask for the same agent, environment and seeds share their compiled programs.
    """
    agent = cache.kept_agent(agent, config, env.spec, total_steps)
    driver, run = make_driver(agent, env, seeds, capacity, np.float32, environments=environments)
    return driver, agent, advance(driver, run, steps)


def run_shapes(env, config, num_seeds, agent="sac"):
    """The agent and the shapes of a run before its first step; nothing is compiled."""
    spec = env.spec
    agent = make_agent(agent, config, spec, 10_000)
    environment, observation = jax.eval_shape(
        jax.vmap(env.reset), jax.random.split(jax.random.key(0), num_seeds)
    )
    start = partial(init_loop, agent, list(range(num_seeds)), 500, sizes=spec)
    return agent, jax.eval_shape(start, observation=observation, environment=environment)


def advance(driver, run, steps):
    """Takes steps."""
    return driver.advance(run, steps, lambda: False, lambda _: None)


def metrics_without_wall_clock(folder: Path):
    """All rows of every seed, less the fields that time."""
    return {
        path.parent.name: [
            {k: v for k, v in json.loads(line).items() if not k.startswith("wall/")}
            for line in path.read_text().splitlines()
        ]
        for path in sorted(folder.glob("seed_*/metrics.jsonl"))
    }


def equations(jaxpr, primitive):
    """The equations of one primitive in a jaxpr and everything inside it."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == primitive:
            yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from equations(inner, primitive)


def jaxpr_of_a_step(agent, run, phase=Phase.LEARN):
    num_seeds, observation = len(run.observation), jnp.zeros_like(run.observation)
    ended = jnp.zeros(num_seeds, bool)
    timestep = Timestep(observation, jnp.zeros(num_seeds), ended, ended, observation, ended, ended)
    discrete = jnp.issubdtype(run.action.dtype, jnp.integer)
    space = Discrete(3) if discrete else Continuous(run.action.shape[-1])
    step = make_step(agent, space, num_seeds, phase)
    return jax.make_jaxpr(step)(run, timestep).jaxpr


def conditionals_of_a_step(agent, run):
    return list(equations(jaxpr_of_a_step(agent, run), "cond"))


def content(folder: Path):
    """A hash over all names and bytes in a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(str(path.relative_to(folder)).encode())
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()


@contextmanager
def cache_misses():
    """A list that grows by one with every program that a persistent cache does not have.

    As in a new process: what was compiled in this one is forgotten first. Every program counts,
    however fast it compiles. The cache is one of this process and of these calls alone: the one
    that tests share may know a program from an earlier session.
    """
    missed = []

    def listen(event, **_):
        if event == "/jax/compilation_cache/cache_misses":
            missed.append(event)

    own = {
        "jax_compilation_cache_dir": _own_programs(),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(jax.config, name) for name in own}
    cache.forget()
    jax.clear_caches()
    _use_cache(own)
    jax.monitoring.register_event_listener(listen)
    try:
        yield missed
    finally:
        jax.monitoring.unregister_event_listener(listen)
        _use_cache(before)


@functools.cache
def _own_programs():
    folder = tempfile.TemporaryDirectory(prefix="mst_jax_own_programs_")
    atexit.register(folder.cleanup)
    return folder.name


def _use_cache(settings):
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()  # it opens the folder it is given once


@contextmanager
def compilations():
    """A list that grows by the seconds of every program that is compiled, or found on the disk."""
    seconds = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            seconds.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seconds
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def stop_after(steps):
    """A stand-in for the signal handlers that asks to stop at the n-th look."""

    @contextmanager
    def handlers():
        looks = iter(range(10**9))
        yield lambda: next(looks) >= steps // 25

    return handlers


def resumed_exactly(settings, folder, monkeypatch, *stops):
    """A run that was stopped at these looks, each time before its end, equals the whole one.

    Returns the whole run's folder.
    """
    whole = train(plan_run(settings, folder / "whole"))
    job = plan_run(settings, folder / "stopped")
    for steps in stops:
        with monkeypatch.context() as patch:
            patch.setattr(trainer, "_stop_on_signal", stop_after(steps))
            job = plan_resume(train(job).folder)
        assert 0 < job.checkpoint.step < settings.steps
    resumed = train(job)
    assert resumed.fingerprint == whole.fingerprint
    rows = metrics_without_wall_clock(whole.folder)
    assert metrics_without_wall_clock(resumed.folder) == rows
    return whole.folder
