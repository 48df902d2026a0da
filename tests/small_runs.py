"""Small settings and runs that several test files share."""

import hashlib
import json
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from mst_jax.agents import AGENTS, default_config, make_agent
from mst_jax.envs import Continuous, Timestep
from mst_jax.program.drivers import make_driver
from mst_jax.program.state import init_loop
from mst_jax.program.step import Phase, make_step
from mst_jax.recipes import make_config, override, settings_of
from mst_jax.runs import Settings

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
SMALL = {
    name: MR_SMALL if "zs_size" in settings_of(default_config(name)) else SIMBA_SMALL
    for name in AGENTS
}
CLI = [f"--config.{name}={value}" for name, value in MR_SMALL.items()]


def small_config(recipe="mst", agent="mrq", **changes):
    """An agent's configuration at test size; keyword names have __ for dots."""
    named = {name.replace("__", "."): value for name, value in changes.items()}
    return override(make_config(agent, recipe), {**SMALL[agent], **named})


def small_settings(task="probe:point", recipe="mst", agent="mrq", **changes):
    """Settings of a run of a few hundred steps."""
    defaults = {
        "agent": agent,
        "task": task,
        "recipe": recipe,
        "config": small_config(recipe, agent),
        "steps": 240,
        "seed": 0,
        "seeds": 2,
        "eval_every": 100,
        "eval_episodes": 2,
        "log_every": 40,
        "checkpoint_every": 60,
    }
    return Settings(**{**defaults, **changes})


def start_run(
    env, config, seeds, steps, total_steps=10_000, capacity=2_000, agent="mrq", environments=1
):
    """A driver, the agent and the run after `steps` steps on a pure-JAX environment."""
    agent = make_agent(agent, config, env.spec, total_steps)
    driver, run = make_driver(agent, env, seeds, capacity, np.float32, environments=environments)
    return driver, agent, advance(driver, run, steps)


def run_shapes(env, config, num_seeds, agent="mrq"):
    """The agent and the shapes of a run before its first step; nothing is compiled."""
    spec = env.spec
    agent = make_agent(agent, config, spec, 10_000)
    environment, observation = jax.eval_shape(
        jax.vmap(env.reset), jax.random.split(jax.random.key(0), num_seeds)
    )
    start = partial(init_loop, agent, list(range(num_seeds)), 500, action=spec.action)
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


def conditionals(jaxpr):
    """The equations of all conditionals in a jaxpr and everything inside it."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "cond":
            yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from conditionals(inner)


def conditionals_of_a_step(agent, run):
    num_seeds, size = run.observation.shape
    ended, observation = jnp.zeros(num_seeds, bool), jnp.zeros((num_seeds, size))
    timestep = Timestep(observation, jnp.zeros(num_seeds), ended, ended, observation, ended, ended)
    step = make_step(agent, Continuous(2), num_seeds, Phase.LEARN)
    return list(conditionals(jax.make_jaxpr(step)(run, timestep).jaxpr))


def content(folder: Path):
    """A hash over all names and bytes in a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(str(path.relative_to(folder)).encode())
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()


@contextmanager
def cache_misses():
    """A list that grows by one with every program that jax's persistent cache does not have.

    As in a new process: what was compiled in this one is forgotten first. Every program counts,
    however fast it compiles.
    """
    missed = []

    def listen(event, **_):
        if event == "/jax/compilation_cache/cache_misses":
            missed.append(event)

    least = "jax_persistent_cache_min_compile_time_secs"
    before = getattr(jax.config, least)
    jax.clear_caches()
    jax.config.update(least, 0.0)
    jax.monitoring.register_event_listener(listen)
    try:
        yield missed
    finally:
        jax.monitoring.unregister_event_listener(listen)
        jax.config.update(least, before)


def stop_after(steps):
    """A stand-in for the signal handlers that asks to stop at the n-th look."""

    @contextmanager
    def handlers():
        looks = iter(range(10**9))
        yield lambda: next(looks) >= steps // 25

    return handlers
