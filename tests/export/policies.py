"""Agents' policies of any shape without training, and the C compiler."""

import dataclasses
import shutil
import subprocess

import jax
import numpy as np
import pytest
from small_runs import small_config

from mst_jax.agents import make_agent, player
from mst_jax.agents.base import acting_parts, with_acting_parts
from mst_jax.agents.parts.modules import modules_of
from mst_jax.envs import Observation, vector_spec
from mst_jax.envs.spaces import Continuous
from mst_jax.export import load_exported, policy_file, write_policy

SPEC = vector_spec("probe:point", 5, 3, 100)
needs_c = pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no gcc")


def random_agent(name, residual="simba", spec=SPEC, **changes):
    """An agent and a state of random numbers, of which many weights are masked."""
    config = small_config("dense", name, **changes)
    modules = {
        key: dataclasses.replace(module, residual=residual, depth=2)
        for key, module in modules_of(config).items()
    }
    agent = make_agent(name, dataclasses.replace(config, **modules), spec, 1000)
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        if jax.numpy.issubdtype(leaf.dtype, jax.numpy.integer):
            return np.full(leaf.shape, 100, leaf.dtype)
        numbers = rng.standard_normal(leaf.shape)
        if str(path[-1]).strip("['].") == "kernel":
            numbers *= (rng.random(leaf.shape) < 0.3) / np.sqrt(0.3 * leaf.shape[0])
        if "variance" in str(path[-1]):
            numbers = np.square(numbers) + 0.1
        return np.asarray(numbers, leaf.dtype)

    shapes = jax.eval_shape(agent.init, jax.random.key(0))
    acting = jax.tree_util.tree_map_with_path(fill, acting_parts(agent, shapes))
    return agent, with_acting_parts(shapes, acting)


def acts(agent, state):
    """What a run's policy gives: (B, O) -> (B, A) within the action space."""
    act = jax.jit(jax.vmap(lambda x: player(agent)(state, x, jax.random.key(0))))
    return lambda observation: np.clip(np.asarray(act(observation)), -1, 1)


def exported(agent, state, spec=SPEC, **options):
    """Its policy as a file in memory."""
    return policy_file(agent.operations(state), spec, **options)


def compiled(file, folder, name="policy"):
    """Its policy in C, compiled without a warning."""
    source, library = folder / f"{name}.c", folder / f"{name}.so"
    write_policy(file, source, "c")
    strict = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-Wno-overlength-strings"]
    subprocess.run(
        ["gcc", *strict, "-O1", "-shared", "-fPIC", "-o", library, source, "-lm"], check=True
    )
    return load_exported(library)


def with_history(history, fill, action=3):
    """A task that shows its last frames."""
    seen = Observation((2 * history,), history=history, fill=fill)
    return SPEC._replace(observation=seen, action=Continuous(action))
