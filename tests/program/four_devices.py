"""What test_sharding.py runs on four virtual devices; prints a line of JSON."""

import json
import re
import sys
from pathlib import Path
from unittest import mock

import jax
import numpy as np
from small_runs import advance, cache_misses, small_config, small_settings, stop_after

from mst_jax import envs
from mst_jax.agents import make_agent
from mst_jax.program import drivers, sharding
from mst_jax.program.arrays import loop_to_arrays
from mst_jax.program.drivers import make_driver
from mst_jax.program.step import Phase
from mst_jax.runs.arrays import flatten
from mst_jax.training import plan_resume, plan_run, train, trainer

COLLECTIVE = re.compile(
    r"(all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute|collective-broadcast)"
    r"(-start)?\("
)


def collectives():
    """Compiles the learning program of four seeds, one on each device."""
    env, config = envs.make("probe:point"), small_config("mst", "ddpg")
    agent = make_agent("ddpg", config, env.spec, 1_000)
    driver, run = make_driver(agent, env, [0, 1, 2, 3], 500, np.float32, environments=2)
    text = driver._programs._jitted[Phase.LEARN].lower(run, np.int32(1)).compile().as_text()
    return {
        "devices": len(jax.local_devices()),
        "seeds_on_each": sorted(
            {leaf.addressable_shards[0].data.shape[0] for leaf in jax.tree.leaves(run.agent)}
        ),
        "on": sorted({len(leaf.sharding.device_set) for leaf in jax.tree.leaves(run)}),
        "collectives": sorted({found[0] for found in COLLECTIVE.findall(text)}),
        "environments_on_each": run.observation.addressable_shards[0].data.shape[0],
        "meshes": [getattr(sharding.seed_mesh(n), "size", None) for n in (1, 2, 3, 6, 8)],
    }


def host_environments():
    """Whether each device is sent the steps of its own seeds' host environments only."""
    task, config = envs.make("dmc:cartpole-swingup"), small_config("dense", "ddpg")
    agent = make_agent("ddpg", config, task.spec, 1_000)
    driver, run = make_driver(agent, task, [0, 1, 2, 3], 500, np.float32)
    timestep = driver._env.step(np.asarray(run.action))
    program = driver._programs._jitted[Phase.EXPLORE].lower(run, timestep).compile()
    driver.close()
    places = jax.tree.leaves(program.input_shardings[0][1])
    return len(places) == len(timestep) and all(place.spec == sharding.SEEDS for place in places)


def same_as_one_device():
    """Four seeds of two environments on four devices and on one; 25 updates, one rewiring."""
    ends = []
    for mesh in (sharding.seed_mesh, lambda _: None):
        with mock.patch.object(drivers, "seed_mesh", mesh):
            env, config = envs.make("probe:point"), small_config("mst", "ddpg")
            agent = make_agent("ddpg", config, env.spec, 1_000)
            driver, run = make_driver(agent, env, [0, 1, 2, 3], 500, np.float32, environments=2)
            first = loop_to_arrays(run)
            run = advance(driver, run, 64 + 25)
            masks = flatten(agent.masks(run.agent))
            params = flatten(run.agent.params)
            ends.append((first, masks, params))
    exact = [
        all(np.array_equal(ends[0][i][name], value) for name, value in ends[1][i].items())
        for i in (0, 1)
    ]
    worst = max(
        float(np.abs(ends[0][2][name] - value).max() / (np.abs(value).max() + 1e-8))
        for name, value in ends[1][2].items()
    )
    return {"initial_equal": exact[0], "masks_equal": exact[1], "worst": worst}


def resumed(folder):
    """A whole run on four devices, and the same stopped half-way and resumed.

    All programs of the whole run are in the persistent cache.
    """
    settings = small_settings(agent="ddpg", config=small_config("mst", "ddpg"), seeds=4, resets=1)
    with cache_misses():
        whole = train(plan_run(settings, folder / "whole"))
    with mock.patch.object(trainer, "_stop_on_signal", stop_after(150)):
        part = train(plan_run(settings, folder / "parts"))
    with cache_misses() as missed:
        end = train(plan_resume(part.folder))
    same = end.fingerprint == whole.fingerprint
    return {"stopped": not part.finished, "same": same, "missed": missed}


if __name__ == "__main__":
    what = sys.argv[1]
    parts = {
        "collectives": collectives,
        "host": host_environments,
        "one_device": same_as_one_device,
        "resumed": resumed,
    }
    print(json.dumps(parts[what](*map(Path, sys.argv[2:]))))  # noqa: T201
