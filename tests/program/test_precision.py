"""`--precision=bf16`: what learns multiplies in bfloat16; all else is as in float32."""

import jax
import numpy as np
import pytest
from small_runs import (
    POINT,
    advance,
    by_default,
    equations,
    jaxpr_of_a_step,
    resumed_exactly,
    run_shapes,
    small_config,
    small_settings,
    start_run,
    task_of,
)

from mst_jax import topology
from mst_jax.agents import AGENTS
from mst_jax.program.arrays import loop_from_arrays, loop_to_arrays
from mst_jax.program.cache import kept_agent, kept_sweep
from mst_jax.program.drivers import make_driver
from mst_jax.program.step import Phase
from mst_jax.runs.arrays import fingerprint
from mst_jax.training import plan_run, prepare
from mst_jax.training.jobs import make_program

TOTAL = 10_000
OWN = {"der": 1}  # sharing out a target distribution multiplies in float32
SHOWS = {"der": "probe:catch", "drqv2": "probe:picture_motion"}  # others: probe:point


def products(jaxpr):
    """How many matrix products have float32 operands, and how many have bfloat16."""
    types = [
        {str(operand.aval.dtype) for operand in one.invars}
        for one in equations(jaxpr, "dot_general")
    ]
    assert all(len(both) == 1 for both in types)
    return types.count({"float32"}), types.count({"bfloat16"})


@pytest.mark.parametrize("name", by_default({"der", "sac"}, sorted(AGENTS)))
def test_every_matrix_product_of_learning_is_in_bf16_and_none_of_acting(name):
    config, spec = small_config("mst", name), task_of(name).spec
    lowered, exact = (kept_agent(name, config, spec, TOTAL, one) for one in ("bf16", "float32"))
    _, run = run_shapes(task_of(name), config, 2, name)
    acting, none = products(jaxpr_of_a_step(lowered, run, Phase.ACT))
    assert acting > 0
    assert none == 0
    untouched, in_bf16 = products(jaxpr_of_a_step(lowered, run))
    assert untouched == acting + OWN.get(name, 0)
    # Besides, gradients that nobody asks for, which JAX leaves out in float32 and XLA in bf16.
    assert in_bf16 >= products(jaxpr_of_a_step(exact, run))[0] - untouched


def test_a_run_learns_in_the_precision_of_its_settings(tmp_path):
    """Alone, and beside another in one program."""
    settings = small_settings(precision="bf16")
    assert settings.folder_name == "probe-point/sac-mst-bf16-seeds0-1"
    agent = prepare(settings)[1]
    spec = POINT.spec
    assert agent is kept_agent("sac", settings.config, spec, settings.steps, "bf16")
    assert agent is not prepare(small_settings())[1]
    configs = [small_config("mst", critic__sparsity=level) for level in (0.5, 0.7)]
    runs = [
        small_settings(precision="bf16", config=config, seed=2 * number)
        for number, config in enumerate(configs)
    ]
    program = make_program([plan_run(one, tmp_path) for one in runs])
    assert program.agent is kept_sweep("sac", configs, spec, settings.steps, "bf16")[0]
    assert program.agent is not kept_sweep("sac", configs, spec, settings.steps)[0]
    _, run = run_shapes(POINT, configs[0], 2)
    assert products(jaxpr_of_a_step(program.agent, run))[1] > 0


def test_learning_in_bf16_is_near_and_all_numbers_stay_float32():
    """From one loop a step in both precisions; then rewires with exact counts, and exact resume."""
    driver, _, run = start_run(POINT, small_config("mst"), [0, 1], 66, total_steps=TOTAL)
    arrays, like = loop_to_arrays(run), jax.eval_shape(lambda: run)
    agent = kept_agent("sac", small_config("mst"), POINT.spec, TOTAL, "bf16")
    lowered, _ = make_driver(agent, POINT, [0, 1], 2_000, np.float32)
    exact = advance(driver, run, 1)
    run = advance(lowered, loop_from_arrays(arrays, like), 1)
    assert jax.tree.map(lambda leaf: leaf.dtype, jax.eval_shape(lambda: run)) == jax.tree.map(
        lambda leaf: leaf.dtype, like
    )
    for name, wanted in exact.totals.metrics.items():
        found = run.totals.metrics[name]
        np.testing.assert_allclose(
            *(jax.tree.leaves(one) for one in (found, wanted)), rtol=0.02, atol=1e-3, err_msg=name
        )
    moments = [jax.tree.leaves(one.agent.opt_state) for one in (run, exact)]
    assert any((a != b).any() for a, b in zip(*moments, strict=True)), "nothing was rounded"
    run = advance(lowered, run, 20)
    saved = loop_to_arrays(run)
    run = advance(lowered, run, 20)
    for module, params in agent.parameters(run.agent).items():
        topology.check(params, run.agent.opt_state[module], agent.plans[module])
    first = loop_from_arrays(arrays, like).agent
    moved = [
        a != b
        for a, b in zip(*map(jax.tree.leaves, map(agent.masks, (first, run.agent))), strict=True)
    ]
    assert any(map(np.any, moved)), "no mask was rewired"
    again = advance(lowered, loop_from_arrays(saved, like), 20)
    assert fingerprint(loop_to_arrays(again)) == fingerprint(loop_to_arrays(run))


def test_another_precision_is_refused(tmp_path):
    with pytest.raises(ValueError, match="precision='bf8' is none of float32, bf16"):
        plan_run(small_settings(precision="bf8"), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(AGENTS))
def test_a_run_in_bf16_resumes_exactly(name, tmp_path, monkeypatch):
    settings = small_settings(SHOWS.get(name, "probe:point"), "mst", name, precision="bf16")
    resumed_exactly(settings, tmp_path, monkeypatch, 90)


@pytest.mark.slow
def test_compact_storage_rewires_in_bf16():
    """Scores of what may grow come through a probe."""
    shape = {"structure": "shared4", "storage": "compact", "regime": "rigl", "interval": 20}
    config = small_config("mst", **{f"critic__{name}": value for name, value in shape.items()})
    agent = kept_agent("sac", config, POINT.spec, 500, "bf16")
    driver, run = make_driver(agent, POINT, [0, 1], 2_000, np.float32)
    before = loop_to_arrays(run)
    like = jax.eval_shape(lambda: run)
    run = advance(driver, run, 160)
    first = agent.masks(loop_from_arrays(before, like).agent)["critic"]
    now = agent.masks(run.agent)["critic"]
    assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (first, now)), strict=True))
    for module, params in agent.parameters(run.agent).items():
        topology.check(params, run.agent.opt_state[module], agent.plans[module])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(agent.parameters(run.agent)))
