"""What holds for every agent: whole runs, exact resume, seeds, conditionals, resets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_runs import (
    POINT,
    advance,
    by_default,
    conditionals_of_a_step,
    metrics_without_wall_clock,
    resumed_exactly,
    run_shapes,
    small_config,
    small_settings,
    start_run,
    stop_after,
    task_of,
)

from mst_jax import envs, topology
from mst_jax.agents import AGENTS, default_config, make_agent, roles_of
from mst_jax.agents.parts import trained
from mst_jax.networks import strengths
from mst_jax.program.arrays import loop_from_arrays, loop_to_arrays
from mst_jax.runs.arrays import fingerprint
from mst_jax.training import plan_resume, plan_run, train, trainer

# Regimes that count single weights are not for noisy layers, whose weights are pairs.
WITHOUT_NOISE = {"der": {"noisy": False}}
# These compile soonest: contracts are theirs by default, and everyone's in `make test-all`.
SOONEST = {"sac", "stream_ac"}
EVERY_AGENT = pytest.mark.parametrize("name", by_default(SOONEST, sorted(AGENTS)))


@pytest.mark.parametrize("name", by_default(SOONEST, sorted(AGENTS)))
@pytest.mark.parametrize("recipe", by_default(["mst"], ["mst", "dense"]))
def test_two_seeds_run_and_resume_exactly(name, recipe):
    """In one program; tests/training has the same through files and signals, for MR.Q."""
    config = small_config(recipe, name)
    driver, agent, run = start_run(task_of(name), config, [0, 1], 90, agent=name)
    saved, like = loop_to_arrays(run), jax.eval_shape(lambda: run)
    run = advance(driver, run, 20)
    whole, losses = fingerprint(loop_to_arrays(run)), run.totals.metrics
    sparse = 0.0 if recipe == "dense" else 0.6
    moving = [name for name, one in agent.modules.items() if one.role != "representation"]
    for module in moving:
        masks = jax.tree.map(lambda m: m[0], agent.masks(run.agent)[module])
        density = float(topology.density(masks)) if jax.tree.leaves(masks) else 1.0
        assert density == pytest.approx(1 - sparse, abs=0.02)
        own = {name: value for name, value in losses.items() if name.startswith(f"{module}/")}
        assert own
        assert np.isfinite(jax.tree.leaves(own)).all()
    resumed = advance(driver, loop_from_arrays(saved, like), 20)
    assert fingerprint(loop_to_arrays(resumed)) == whole


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(name for name in AGENTS if task_of(name) is POINT))
@pytest.mark.parametrize("recipe", ["mst", "dense"])
def test_two_seeds_resume_exactly_on_dm_control(name, recipe, tmp_path, monkeypatch):
    settings = small_settings(
        "dmc:cartpole-swingup",
        recipe,
        name,
        steps=700,
        eval_every=500,
        eval_episodes=1,
        log_every=100,
        checkpoint_every=300,
    )
    resumed_exactly(settings, tmp_path, monkeypatch, 130, 400)


@pytest.mark.slow
def test_a_run_with_a_reset_and_diagnostics_resumes_exactly(tmp_path, monkeypatch):
    """Stopped before and just after the reset and a recycling, each of which comes once."""
    settings = small_settings(
        agent="sac",
        steps=200,
        eval_every=100,
        log_every=50,
        checkpoint_every=0,
        resets=1,
        diagnose_every=100,
        gradient_covariance=True,
        recycle_every=100,
        recycle_threshold=0.5,
    )
    assert settings.reset_steps == [100]
    calls = []
    make_reset = trainer.make_reset
    monkeypatch.setattr(trainer, "make_reset", lambda *args: counted(make_reset(*args), calls))
    whole = train(plan_run(settings, tmp_path / "whole"))
    job = plan_run(settings, tmp_path / "stopped")
    stops = []
    for steps in (80, 20):
        with monkeypatch.context() as patch:
            patch.setattr(trainer, "_stop_on_signal", stop_after(steps))
            job = plan_resume(train(job).folder)
        stops.append(job.checkpoint.step)
    assert stops[0] < 100 <= stops[1] < 200
    resumed = train(job)
    assert resumed.fingerprint == whole.fingerprint
    assert metrics_without_wall_clock(resumed.folder) == metrics_without_wall_clock(whole.folder)
    check_diagnostics(whole.folder)
    assert len(calls) == 1, "made once for all runs of a process"


def check_diagnostics(folder):
    rows = metrics_without_wall_clock(folder)["seed_1"]
    found = [row for row in rows if row["kind"] == "diagnostics"]
    assert [row["step"] for row in found] == [100, 200]
    for row in found:
        assert 1 <= row["critic/srank"] <= 16
        assert 0 <= row["actor/dormant_0.1"] <= 100
        with np.load(folder / "diagnostics" / f"covariance_{row['step']}.npz") as matrices:
            critic = matrices["critic"]
        assert critic.shape == (2, 64, 64)
        np.testing.assert_allclose(np.diagonal(critic[1]), 1, atol=1e-3)
        off = critic[1][~np.eye(64, dtype=bool)]
        assert row["critic/gradient_cosine"] == pytest.approx(off.mean(), abs=1e-4)
        assert row["critic/opposed_gradients"] == pytest.approx((off < 0).mean(), abs=1e-4)
    evaluations = [row for row in rows if row["kind"] == "eval"]
    assert all(np.isfinite(row["value_bias"]) for row in evaluations)


def counted(function, calls):
    def counting(run):
        calls.append(1)
        return function(run)

    return counting


@EVERY_AGENT
def test_a_reset_renews_networks_and_optimizers_only(name):
    config = small_config("mst", name)
    driver, agent, run = start_run(task_of(name), config, [0, 1], 110, agent=name)
    before = jax.device_get(run.agent)
    keys = jax.random.split(jax.random.key(5), 2)
    state = jax.jit(jax.vmap(agent.reset))(run.agent, keys)
    for a, b in zip(
        jax.tree.leaves(agent.masks(before)), jax.tree.leaves(agent.masks(state)), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    for module, params in agent.parameters(state).items():
        topology.check(params, state.opt_state[module])
        kernels = [
            (a, b)
            for (path, a), b in zip(
                jax.tree_util.tree_flatten_with_path(params)[0],
                jax.tree.leaves(agent.parameters(before)[module]),
                strict=True,
            )
            if path[-1].key == "kernel"
        ]
        assert all((np.asarray(a) != b).any() for a, b in kernels)
        assert all((np.asarray(a)[0] != np.asarray(a)[1]).any() for a, _ in kernels)
        slots = jax.tree_util.tree_flatten_with_path(state.opt_state[module].inner)[0]
        fresh = [leaf for path, leaf in slots if "learning_rate" not in str(path[-1])]
        assert not any(np.asarray(leaf).any() for leaf in fresh), "moments and counts are zero"
    if hasattr(before, "statistics"):
        np.testing.assert_array_equal(before.statistics.mean, state.statistics.mean)
        assert int(state.statistics.count[0]) == int(before.statistics.count[0]) >= 110
    # The schedule goes on: the next rewiring comes when it would have come.
    run = advance(driver, run.replace(agent=state), 40)
    for module, params in agent.parameters(run.agent).items():
        topology.check(params, run.agent.opt_state[module])


# MR.SAC is made of the same parts
@pytest.mark.parametrize("name", by_default(["sac", "der"], ["ddpg", "der", "drqv2", "mrq", "sac"]))
def test_units_are_measured_at_rewires_only(name):
    """Fault C14: agents tell NE how active their units are, under the conditional."""
    config = small_config("ne_dormancy", name, **WITHOUT_NOISE.get(name, {}))
    agent, run = run_shapes(task_of(name), config, 2, name)
    hidden = {
        module: {p for p, (_, _, e) in plan.entries().items() if e.regime.reads_activity}
        for module, plan in agent.plans.items()
    }
    asked = []

    def recording(activity):
        asked.append(set(strengths(activity)))
        return strengths(activity)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trained.networks, "strengths", recording)
        found = conditionals_of_a_step(agent, run)
    masks = [c for c in found if {v.aval.dtype for v in c.outvars} == {np.dtype(bool)}]
    assert len(masks) == len(hidden)
    assert [c.invars[0].aval.shape for c in found] == [()] * len(found)
    for equation in masks:
        branches = [str(branch) for branch in equation.params["branches"]]
        assert any(
            work in branch for branch in branches for work in ("dot_general", "conv_general")
        )
    # All kernels but those of output layers.
    outputs = {"value", "advantage", "output", "mean", "log_std", "std", "head", "layer_3"}
    for module, paths in hidden.items():
        known = max(asked, key=lambda own, paths=paths: len(own & paths))
        assert known <= set(agent.plans[module].names)
        assert {path.split("/")[-2] for path in paths - known} <= outputs, module


@pytest.mark.slow
@EVERY_AGENT
@pytest.mark.parametrize(
    "recipe",
    ["set_by_sign", "snfs_redistributed_adam", "gmp_global", "granet_global", "ne_dormancy"],
)
def test_published_variants_train(name, recipe):
    """Fault C14: counts as planned, for two seeds, through rewires of every module."""
    modules = roles_of(default_config(name))
    changes = {f"{module}__interval": 20 for module in modules}
    changes |= {f"{module}__start_fraction": 0.05 for module in modules}
    config = small_config(recipe, name, **changes, **WITHOUT_NOISE.get(name, {}))
    _, agent, run = start_run(task_of(name), config, [0, 1], 164, total_steps=500, agent=name)
    for module, params in agent.parameters(run.agent).items():
        topology.check(params, run.agent.opt_state[module], agent.plans[module])
    again = loop_from_arrays(loop_to_arrays(run), jax.eval_shape(lambda: run))
    assert fingerprint(loop_to_arrays(again)) == fingerprint(loop_to_arrays(run))


@pytest.mark.parametrize("name", by_default(SOONEST | {"der"}, sorted(AGENTS)))
def test_seeds_differ_in_every_leaf_that_should(name):
    agent = make_agent(name, small_config("all_rigl", name), task_of(name).spec, 1000)
    states = jax.jit(jax.vmap(agent.init))(jax.random.split(jax.random.key(0), 3))
    for path, leaf in jax.tree_util.tree_flatten_with_path(agent.parameters(states))[0]:
        if path[-1].key == "kernel":
            assert not (leaf[0] == leaf[1]).all(), path
            assert not (leaf[1] == leaf[2]).all(), path
    for path, leaf in jax.tree_util.tree_flatten_with_path(agent.masks(states))[0]:
        if not leaf.all():
            assert (leaf[0] != leaf[1]).any(), path
            assert leaf[0].sum() == leaf[1].sum() == leaf[2].sum(), path


# MR.Q's encoder burst, TD3's delayed actor, DER's copies of targets
OWN = {"der": 1, "mrq": 1, "mrsac": 1, "td3": 1}


@pytest.mark.parametrize(  # nothing is compiled; relatives trace the same parts
    "name", by_default(AGENTS.keys() - {"ddpg", "mrsac", "td3"}, sorted(AGENTS))
)
@pytest.mark.parametrize(
    ("recipe", "rewired"),
    [
        *(pytest.param(*row, marks=pytest.mark.slow) for row in (("dense", 0), ("mst", 1))),
        pytest.param("all_static", 0, marks=pytest.mark.slow),
        ("all_rigl", 9),
    ],
)
def test_conditionals_of_the_program(name, recipe, rewired):
    """One for each rewired module, and the agent's own; none carries the seed axis."""
    agent, run = run_shapes(task_of(name), small_config(recipe, name), 3, name)
    found = conditionals_of_a_step(agent, run)
    assert len(found) == OWN.get(name, 0) + min(rewired, len(agent.plans))
    assert all(equation.invars[0].aval.shape == () for equation in found)


@pytest.mark.slow  # test_mrq_agent.py has more of MR.Q, by default
@pytest.mark.parametrize("name", ["ddpg", "mrsac", "sac"])
def test_a_program_of_one_seed_equals_itself_among_others(name):
    """docs/design.md rule 5, over the first updates: same keys and masks, parameters to 1e-4."""
    env, config = envs.make("probe:observation_reward"), small_config("mst", name)
    states = []
    for seeds in ([1], [0, 1]):
        _, agent, run = start_run(env, config, seeds, 74, agent=name)
        states.append(jax.tree.map(lambda leaf, s=seeds: leaf[s.index(1)], run.agent))
    for a, b in zip(*(jax.tree.leaves(agent.masks(s)) for s in states), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(*(jax.tree.leaves(agent.parameters(s)) for s in states), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * float(jnp.abs(b).max()) + 1e-7)
