"""The examples: a sparse teacher is found, and one program runs a whole grid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.examples import topology_sweep, topology_teacher, topology_variants
from mst_jax import topology


@pytest.mark.slow
def test_rigl_finds_a_sparse_teacher_better_than_set_and_set_better_than_static():
    static, set_, rigl = (np.asarray(x) for x in topology_teacher.compare(seeds=16).values())
    assert abs(static.mean() - 0.2) < 0.05  # chance
    assert set_.mean() > static.mean() + 0.5
    assert rigl.mean() > set_.mean() + 0.02
    assert (rigl >= set_).all()
    assert (set_ > static).all()


@pytest.mark.slow
def test_one_program_runs_five_sparsities_of_four_seeds():
    runs, losses, active = topology_sweep.sweep()
    assert len(runs) == 20
    for (sparsity, _), counts in zip(runs, np.asarray(active), strict=True):
        (group,) = topology_sweep.make_plan(sparsity).groups
        assert set(counts) == {group.table.target[0].sum()}
    assert bool(jnp.isfinite(losses).all())
    assert len(np.unique(np.asarray(losses[:, -1]))) == 20
    # The first and the last run alone, each as a plan of its own.
    for i in (0, 19):
        sparsity, seed = runs[i]
        plan = topology_sweep.make_plan(sparsity)
        key = jax.random.fold_in(jax.random.key(0), seed)
        rate = jnp.float32(3e-3 / (1 + sparsity))
        alone, counts = jax.jit(lambda k, r, p=plan: topology_sweep.train(p, k, p.tables, r))(
            key, rate
        )
        np.testing.assert_array_equal(counts, active[i])
        np.testing.assert_allclose(alone[:50], losses[i][:50], rtol=1e-3)


def test_a_sweep_shares_everything_but_its_counts():
    plan = topology_sweep.make_plan
    shapes = jax.eval_shape(topology_sweep.make_params, jax.random.key(0))
    other = topology.plan(shapes, {"l[12]/kernel": topology.rigl(0.5, end=225, interval=10)})
    with pytest.raises(ValueError, match="sparsity and drop fraction only"):
        topology.sweep([plan(0.5), other])
    with pytest.raises(ValueError, match="at least one plan"):
        topology.sweep([])
    merged, tables = topology.sweep([plan(0.0), plan(0.5)])
    assert tables[0].target.shape[0] == 2
    entries = merged.entries()
    assert entries["l2/kernel"][2].drops  # not in the first, but in the second
    tx = topology.sparse(topology_sweep.optax.sgd(0.1), merged)
    params = topology_sweep.make_params(jax.random.key(0))
    with pytest.raises(ValueError, match="do not fit"):
        topology.init(tx, params, jax.random.key(0), tables)


def test_the_variants_numbers_are_those_of_the_page():
    """Fault C14: overlap of SET's survivors, and how far NE's own rate gets."""
    assert topology_variants.overlap_by_sign(0.0, 0.3, 2000) > 0.97
    assert 0.8 < topology_variants.overlap_by_sign(1.0, 0.3, 2000) < 0.9
    for rewires, active in ((100, 464_000), (208, 749_120), (209, 750_000)):
        assert topology_variants.growth(rewires).tables[0].target[-1].sum() == active
