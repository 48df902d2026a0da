"""Rules, printed plans, and the counts of every regime by hand."""

import math

import jax
import numpy as np
import pytest

from mst_jax import topology
from mst_jax.topology import schedules


def tree(**shapes):
    return {
        name: {"kernel": jax.ShapeDtypeStruct(shape, np.float32), "bias": np.zeros(shape[-1])}
        for name, shape in shapes.items()
    }


SQUARE = tree(a=(20, 20), b=(20, 20))  # 400 weights each: equal densities under any allocation


def counts(regime, params=SQUARE, pattern=".*kernel"):
    plan = topology.plan(params, {pattern: regime})
    (group,) = plan.groups
    return group.table.keep[:, 0].tolist(), group.table.target[:, 0].tolist(), group


def test_first_match_wins_and_the_rest_is_dense():
    params = tree(enc=(8, 8), q1=(8, 8), q2=(8, 8), pi=(8, 8))
    plan = topology.plan(
        params,
        {
            "q2/.*": topology.dense(),
            "q[12]/kernel": topology.static(0.5),
            "pi/.*": topology.static(0.75),
        },
    )
    assert plan.names["q1/kernel"] == "static"
    assert plan.names["q2/kernel"] == plan.names["enc/kernel"] == plan.names["pi/bias"] == "dense"
    assert set(plan.entries()) == {"q1/kernel", "pi/kernel"}
    assert plan.tables[0].target.tolist() == [[32, 16]]


def test_a_rule_that_matches_nothing_names_the_nearest_paths():
    with pytest.raises(ValueError, match=r"'a/kernal' matches no.*\['a/kernel'") as error:
        topology.plan(SQUARE, {"a/kernal": topology.static(0.5)})
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="matches no parameter"):
        topology.plan(SQUARE, {"kernel": topology.static(0.5)})  # patterns match whole paths


def test_the_printed_plan():
    plan = topology.plan(SQUARE, {"a/kernel": topology.gradual_growth(0.6, end=100, interval=50)})
    assert str(plan).splitlines() == [
        "leaf      shape     regime                   density   non-zeros",
        "----------------------------------------------------------------",
        "a/bias    (20,)     dense                     1.0000          20",
        "a/kernel  (20, 20)  gradual_growth  0.4000 -> 1.0000  160 -> 400",
        "b/bias    (20,)     dense                     1.0000          20",
        "b/kernel  (20, 20)  dense                     1.0000         400",
        "total                               0.7143 -> 1.0000  600 -> 840",
    ]


def test_first_and_last_layer_switches_use_the_natural_order():
    params = tree(**{f"layer_{i}": (16, 16) for i in range(12)})
    for options, dense in (
        ({"dense_first": True}, {"layer_0/kernel"}),
        ({"dense_last": True}, {"layer_11/kernel"}),
        ({"dense_first": True, "dense_last": True}, {"layer_0/kernel", "layer_11/kernel"}),
    ):
        plan = topology.plan(params, {".*": topology.static(0.5, **options)})
        assert {f"layer_{i}/kernel" for i in range(12)} - set(plan.entries()) == dense


def test_set_drops_a_constant_share():
    keep, target, _ = counts(topology.set(0.5, end=30, interval=10, drop_fraction=0.3))
    assert keep == [200, 140, 140, 140]
    assert target == [200] * 4


def test_rigl_drops_a_cosine_share_rounded_down():
    keep, target, group = counts(topology.rigl(0.5, end=40, interval=10, drop_fraction=0.3))
    shares = [0.15 * (1 + math.cos(math.pi * t / 40)) for t in (10, 20, 30, 40)]
    assert keep == [200, *(200 - math.floor(200 * share) for share in shares)]
    assert keep == [200, 149, 170, 192, 200]
    assert target == [200] * 5
    assert list(group.timing.steps) == [10, 20, 30, 40]


def test_gradual_magnitude_pruning_is_cubic_and_ends_exactly():
    keep, target, group = counts(
        topology.gradual_magnitude_pruning(0.75, start=20, end=60, interval=10)
    )
    # s(t) = 0.75 (1 - (1 - x)^3), x = 0, 1/4, 1/2, 3/4, 1; kept = 400 - floor(400 s), two leaves.
    levels = [0.75 * (1 - (1 - x) ** 3) for x in (0, 0, 0.25, 0.5, 0.75, 1)]
    total = [800 - math.floor(800 * s) for s in levels]
    assert group.table.target.sum(1).tolist() == total
    assert keep == target  # nothing is regrown
    assert not any(entry.grows for entry in group.entries)
    assert target[-1] == 100


def test_an_interval_that_does_not_divide_still_completes_the_schedule():
    _, target, group = counts(
        topology.gradual_magnitude_pruning(0.75, start=20, end=59, interval=10)
    )
    assert group.timing.steps[-1] == 50
    assert target[-1] == 100


def test_granet_prunes_then_replaces():
    keep, target, _ = counts(
        topology.granet(
            0.75, start=0, end=40, interval=20, drop_fraction=0.5, final_drop_fraction=0.0
        )
    )
    assert target[0] == 400
    assert target[-1] == 100
    middle = math.ceil((800 - math.floor(800 * 0.75 * (1 - 0.5**3))) / 2)
    assert target[2] == middle
    assert keep[2] == middle - math.floor(0.25 * middle)  # half way of the cosine from 0.5 to 0
    assert keep[-1] == 100


def test_gradual_growth_drops_nothing_and_ends_dense():
    keep, target, group = counts(topology.gradual_growth(0.6, end=40, interval=10))
    assert target[0] == 160
    assert target[-1] == 400
    assert keep[1:] == target[:-1]
    assert not any(entry.drops for entry in group.entries)
    assert group.table.target[1].sum() == 800 - math.floor(800 * (0.6 * 0.75**3))


def test_neuroplastic_expansion_pays_for_growth_then_rewires():
    keep, target, _ = counts(
        topology.neuroplastic_expansion(0.8, growth_end=40, end=80, final=0.25, interval=10)
    )
    assert target[0] == 80
    assert target[4:] == [300] * 5
    for row in range(1, 5):  # net growth is 0.6 of what is grown, 0.4 replaces dropped weights
        growth = target[row] - target[row - 1]
        assert target[row - 1] - keep[row] == math.floor(growth * 0.4 / 0.6)
    assert 300 - keep[6] == math.floor(300 * 0.2 * 0.5)  # RigL's cosine, half way
    assert keep[-1] == 300


def test_dense_then_rigl():
    keep, target, _ = counts(topology.dense_then_rigl(0.75, start=20, end=40, interval=10))
    assert target == [400, 100, 100, 100]
    assert keep == [400, 100, 85, 100]
    with pytest.raises(ValueError, match="start must be at least 1"):
        topology.dense_then_rigl(0.75, start=0, end=40)


def test_snfs_is_rigl_with_an_average():
    regime = topology.snfs(0.5, end=100, momentum=0.8)
    assert regime.average == 0.8
    assert regime.grow_score is topology.average_gradient
    assert counts(regime)[0] == counts(topology.rigl(0.5, end=100))[0]
    with pytest.raises(ValueError, match="needs average"):
        topology.rigl(0.5, end=100, grow_score=topology.average_gradient)


def test_sparsity_by_leaf():
    plan = topology.plan(SQUARE, {".*kernel": topology.static({"a/.*": 0.9, "b/.*": 0.5})})
    assert plan.tables[0].target.tolist() == [[40, 200]]
    gradual = topology.gradual_growth({"a/.*": 0.9, "b/.*": 0.5}, end=40, interval=20)
    group = topology.plan(SQUARE, {".*kernel": gradual}).groups[0]
    assert group.table.target[0].tolist() == [40, 200]
    assert group.table.target[-1].tolist() == [400, 400]


def test_presets_are_the_table_of_the_specification():
    regime = topology.rigl_preset("sac", steps=100_000)
    assert (regime.timing.interval, regime.timing.end) == (1000, 80_000)
    assert regime.drop(0) == 0.5
    assert regime.sparsity(0) == 0.9
    assert regime.allocation.name == "ERK"
    assert topology.rigl_preset("mst", steps=1000, sparsity=0.3).sparsity(0) == 0.3
    with pytest.raises(ValueError, match="unknown preset"):
        topology.rigl_preset("atari", steps=100)


def test_leaves_that_stay_full_are_never_rewired():
    plan = topology.plan(tree(a=(64, 64), head=(64, 1)), {".*kernel": topology.rigl(0.6, end=300)})
    flags = {path: (e.drops, e.grows) for path, (_, _, e) in plan.entries().items()}
    assert flags == {"a/kernel": (True, True), "head/kernel": (False, False)}
    nothing = topology.plan(SQUARE, {".*kernel": topology.rigl(0.0, end=100)})
    assert not any(e.drops or e.grows for _, _, e in nothing.entries().values())


@pytest.mark.parametrize(
    ("structure", "sparsity"),
    [
        (topology.fan_in(), 0.5),
        (topology.n_of_m(4), 0.5),
        (topology.n_of_m(4), 0.75),
        (topology.n_of_m(8), 0.75),
    ],
)
def test_groups_get_whole_numbers_and_lose_what_the_drop_fraction_says(structure, sparsity):
    """Fault C1: rounded down in every group, N:M never dropped anything."""
    regime = topology.set(sparsity, end=100, interval=10, structure=structure, drop_fraction=0.3)
    keep, target, group = counts(regime, tree(a=(24, 10)))
    active = round(240 * (1 - sparsity))
    assert active % structure.groups((24, 10)) == 0
    assert target == [active] * 11
    assert keep[1:] == [active - 3 * active // 10] * 10
    assert group.entries[0].drops


def test_leaves_that_do_not_fit_a_structure_are_unstructured_and_the_plan_says_so():
    """Fault C2."""
    params = tree(odd=(17, 64), even=(64, 64)) | {"bias": np.zeros(64)}
    rule = topology.static(0.5, structure=topology.n_of_m(4), allocation="uniform", leaves="all")
    plan = topology.plan(params, {"odd/kernel|even/.*|bias": rule})
    lines = {line.split()[0]: line for line in str(plan).splitlines()}
    assert "static (n:4) " in lines["even/kernel"]
    for path in ("odd/kernel", "even/bias", "bias"):
        assert "static (unstructured: n:4 does not fit)" in lines[path]
    assert dict(zip(plan.entries(), plan.tables[0].target[0].tolist(), strict=True)) == {
        "bias": 32,
        "even/bias": 32,
        "even/kernel": 2048,
        "odd/kernel": 544,
    }
    with pytest.raises(ValueError, match=r"n:7 fits no leaf .*even.kernel' of shape \(64, 64\)"):
        topology.plan(params, {".*kernel": topology.static(0.5, structure=topology.n_of_m(7))})


def test_empty_leaves_stay_dense():
    """Fault C9."""
    params = {"w": np.ones((0, 5)), "v": np.ones((4, 5))}
    plan = topology.plan(params, {".*": topology.static(0.5, leaves="all")})
    assert plan.names == {"v": "static", "w": "dense"}
    assert "total" in str(plan)


def test_leaves_with_one_path_are_refused():
    """Fault C8: they would share one mask."""
    params = {"a/b": np.ones((8, 8)), "a": {"b": np.ones((8, 8))}}
    with pytest.raises(ValueError, match="two leaves of this tree are called 'a/b'"):
        topology.plan(params, {".*": topology.static(0.5)})


@pytest.mark.parametrize("drop", [0.29, 0.35, 0.57, 0.7])
def test_drop_fractions_are_exact_decimals(drop):
    """Fault C11: 0.29 * 100 is 28.999999999999996 in floats."""
    regime = topology.set(0.5, end=10, interval=1, drop_fraction=drop)
    keep, _, _ = counts(regime, tree(a=(10, 20)))
    assert keep[1:] == [100 - round(100 * drop)] * 10
    # One in ten grown weights is paid for, 13 of 117 + 13: 0.1 / 0.9 * 117 is less in floats.
    expansion = topology.neuroplastic_expansion(0.9, growth_end=1, interval=1, prune_share=0.1)
    keep, target, _ = counts(expansion, tree(a=(2, 90)))
    assert target == [18, 135]
    assert target[0] - keep[1] == 13


@pytest.mark.parametrize("structure", [topology.unstructured(), topology.fan_in()])
def test_gradual_counts_only_go_one_way(structure):
    params = tree(a=(24, 10), b=(30, 7), c=(9, 9))
    options = {"interval": 1, "structure": structure, "end": 200}
    growth = topology.gradual_growth(0.6, **options)
    pruning = topology.gradual_magnitude_pruning(0.6, start=1, **options)
    for regime, sign in ((growth, 1), (pruning, -1)):
        target = topology.plan(params, {".*kernel": regime}).tables[0].target
        steps = np.diff(target, axis=0) * sign
        assert (steps >= 0).all()
        assert steps.any()


def test_timings():
    with pytest.raises(ValueError, match="no rewire would ever happen"):
        topology.rigl(0.5, end=50, interval=100)
    with pytest.raises(ValueError, match="interval must be"):
        topology.rigl(0.5, end=50, interval=0)
    with pytest.raises(ValueError, match="end after it starts"):
        topology.gradual_magnitude_pruning(0.5, start=50, end=50)
    with pytest.raises(ValueError, match="Bernoulli"):
        topology.rigl(0.5, end=500, draw="bernoulli")


@pytest.mark.parametrize(
    ("make", "middle"),
    [
        (schedules.linear, 0.5),
        (schedules.cosine, 0.5),
        (schedules.cubic, 0.875),
        (schedules.annealed_rate, 0.5 + 1 / math.pi),
    ],
)
def test_schedules_by_hand(make, middle):
    schedule = make(0.2, 0.8, 10, 30)
    assert (schedule(0), schedule(10), schedule(30), schedule(99)) == (0.2, 0.2, 0.8, 0.8)
    assert schedule(20) == pytest.approx(0.2 + 0.6 * middle)
    quarter = {
        "linear": 0.25,
        "cosine": 0.5 - math.sqrt(0.5) / 2,
        "cubic": 1 - 0.75**3,
        "annealed_rate": 0.25 + math.sqrt(0.5) / math.pi,
    }[make.__name__]
    assert schedule(15) == pytest.approx(0.2 + 0.6 * quarter)
