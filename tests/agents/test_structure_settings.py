"""Structures of modules as settings: plans of every agent, refusals, training under them."""

import math

import jax
import numpy as np
import pytest
from small_runs import advance, sizes_of, small_config, small_settings, start_run

from mst_jax import envs, topology
from mst_jax.agents import AGENTS, Sizes, make_agent, roles_of, training_costs
from mst_jax.recipes import make_config, override, recipes_of
from mst_jax.runs import rebuild_settings, settings_values

SIZES = Sizes.vector(6, 2, 500)
NAMES = ("fan_in", "2:4", "1:4", "shared16", "block4x8")


def of_all_modules(config, **settings):
    names = roles_of(config)
    return override(config, {f"{m}.{key}": v for m in names for key, v in settings.items()})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("agent", sorted(AGENTS))
def test_every_agent_has_plans_under_every_structure(agent, name):
    config = of_all_modules(make_config(agent, "all_rigl"), structure=name, hidden=64)
    named = topology.structure_named(name)
    if named.sparsity is not None:
        assert {getattr(config, m).sparsity for m in roles_of(config)} == {named.sparsity}
    sizes = sizes_of(agent, SIZES)
    for module, plan in make_agent(agent, config, sizes, 20_000).plans.items():
        entries = [entry for _, _, entry in plan.entries().values()]
        structures = [entry.regime.structure for entry in entries]
        assert {named.structure, topology.tied(-3, named.structure)} & {*structures}, module
        for path, (g, column, entry) in plan.entries().items():
            structure, size = entry.regime.structure, np.prod(entry.shape)
            noisy = (agent, module) == ("der", "critic")  # its kernels are pairs
            fits = named.structure.fits(entry.shape[1:] if noisy else entry.shape)
            wanted = named.structure if fits else topology.unstructured()
            assert structure == (topology.tied(-3, wanted) if noisy else wanted), path
            assert f"{named.structure.name} does not fit" in entry.remarks or fits
            target = plan.groups[g].table.target[:, column]
            unit = structure.groups(entry.shape) * structure.unit_of(entry.shape)
            assert (target % unit == 0).all()
            if fits and named.sparsity is not None:
                assert (target == (1 - named.sparsity) * size).all()


def test_a_structure_that_is_a_sparsity_brings_it_along():
    base = make_config("sac", "mst")
    assert (base.critic.sparsity, base.critic.structure) == (0.6, "unstructured")
    alone = override(base, {"critic.structure": "1:4"}).critic
    assert (alone.structure, alone.sparsity, alone.regime) == ("1:4", 0.75, "rigl")
    both = override(base, {"critic.sparsity": 0.8, "critic.structure": "shared16"}).critic
    assert (both.structure, both.sparsity) == ("shared16", 0.8)
    contradiction = override(base, {"critic.sparsity": 0.8, "critic.structure": "2:4"})
    with pytest.raises(
        ValueError, match=r"critic\.sparsity=0\.8 contradicts critic\.structure=2:4"
    ):
        contradiction.validate()
    override(base, {"critic.sparsity": 0.667, "critic.structure": "1:3"}).validate()


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        (
            {"encoder.structure": "2:4"},
            r"encoder\.structure=2:4 has no effect with encoder\.regime",
        ),
        (
            {"critic.structure": "shared8192"},
            "critic: the structure shared8192 fits no leaf",
        ),
        (
            {"critic.structure": "fan_in", "critic.regime": "set_by_sign"},
            r"critic\.structure=fan_in with critic\.regime=set_by_sign: by_sign counts single",
        ),
        (
            {"critic.structure": "fan_in", "critic.regime": "network_sparsity"},
            "a Bernoulli draw counts single weights",
        ),
        (
            {"critic.structure": "block512x16", "critic.sparsity": 0.9},
            "critic: sparsity 0.9 leaves .* with fewer weights than the",
        ),
        ({"critic.structure": "2;4"}, r"critic\.structure=2;4: there is no structure '2;4'"),
        ({"critic.allocation": "erdos"}, "critic.allocation='erdos' is unknown"),
        (
            {"encoder.allocation": "erk"},
            r"encoder\.allocation=erk has no effect with encoder\.regime",
        ),
        (
            {"critic.structure": "2:4", "critic.allocation": "erk"},
            "critic.allocation=erk contradicts critic.structure=2:4, which has the same sparsity",
        ),
    ],
)
def test_impossible_structures_are_one_line(changes, what):
    with pytest.raises(ValueError, match=what) as error:
        make_agent("mrq", override(make_config("mrq", "mst"), changes), SIZES, 20_000)
    assert "\n" not in str(error.value)


def test_a_run_written_before_structures_is_unstructured():
    values = settings_values(small_settings())
    del values["config"]["critic"]["structure"]
    assert rebuild_settings(values).config.critic.structure == "unstructured"


def test_kernels_share_a_budget_as_the_setting_says():
    """Pixels, so that ER and ERK differ; the regime's own is ER."""
    base = override(make_config("drqv2", "dense"), {"encoder.regime": "static"})
    shares = {}
    for name in ("own", "er", "erk", "uniform"):
        config = override(base, {"encoder.sparsity": 0.9, "encoder.allocation": name})
        plan = make_agent("drqv2", config, sizes_of("drqv2", SIZES), 20_000).plans["encoder"]
        target = plan.groups[0].table.target[0]
        sizes = [math.prod(entry.shape) for entry in plan.groups[0].entries]
        assert sum(target) == math.ceil(sum(sizes) / 10)
        shares[name] = [round(float(n / size), 3) for n, size in zip(target, sizes, strict=True)]
    assert shares["own"] == shares["er"] != shares["erk"]
    assert set(shares["uniform"]) == {0.1}


def test_recipes_of_td3_are_n_of_m_in_all_networks():
    for name, structure, sparsity in (("rnm_2_4", "2:4", 0.5), ("rnm_1_4", "1:4", 0.75)):
        config = make_config("td3", name)
        for module in (config.critic, config.actor):
            own = (module.structure, module.sparsity, module.regime)
            assert own == (structure, sparsity, "rigl")
        assert name not in recipes_of("sac")


def trained(agent, config, steps=40):
    """Checks a small run before and after rewires; how many weights of each leaf changed."""
    driver, agent, run = start_run(envs.make("probe:point"), config, [0, 1], 90, agent=agent)
    before = jax.device_get(agent.masks(run.agent))
    run = advance(driver, run, steps)
    for module, params in agent.parameters(run.agent).items():
        topology.check(params, run.agent.opt_state[module], agent.plans[module])
    after = jax.device_get(agent.masks(run.agent))
    return jax.tree.map(lambda a, b: (a != b).any(axis=(1, 2)), before, after)


@pytest.mark.slow
def test_sac_trains_under_tiles_and_two_of_four():
    config = small_config(
        "all_rigl", "sac", critic__structure="shared8", actor__structure="2:4", actor__interval=20
    )
    changed = trained("sac", config)
    for block in (changed["critic"]["q1"], changed["actor"]):
        assert block["trunk"]["block_1"]["expand"]["kernel"].all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("agent", "recipe", "structure"),
    [
        ("td3", "rnm_2_4", "2:4"),
        ("td3", "rnm_1_4", "1:4"),
        ("mrq", "all_rigl", "fan_in"),
        ("mrsac", "gmp", "shared8"),
        ("ddpg", "all_rigl", "block4x8"),
        ("stream_ac", "all_rigl", "shared4"),
    ],
)
def test_agents_train_under_structures(agent, recipe, structure):
    base = small_config(recipe, agent)
    config = of_all_modules(base, structure=structure, interval=20, start_fraction=0.01)
    trained(agent, config)


def test_what_sparsity_could_save_of_mrq_and_of_sac():
    """An MST user reads the ceiling before asking: the encoder is dense and unrolled."""
    walker = Sizes.vector(24, 6, 1000)
    for sparsity, saving in ((0.6, 1.22), (0.8, 1.32), (0.9, 1.38)):
        changes = {"critic.sparsity": sparsity, "actor.sparsity": sparsity}
        config = override(make_config("mrq", "mst"), changes)
        costs = training_costs(make_agent("mrq", config, walker, 500_000))
        assert costs.saving == pytest.approx(saving, abs=0.005)
        assert costs.ceiling == pytest.approx(1.44, abs=0.005)
        assert sum(costs.shares.values()) == pytest.approx(1)
    assert "encoder 69%" in str(costs)
    assert "at most 1.44 times" in str(costs)
    sac = training_costs(make_agent("sac", make_config("sac", "all_static"), walker, 500_000))
    assert (sac.ceiling, round(sac.saving, 2)) == (float("inf"), 2.5)
    dense = training_costs(make_agent("sac", make_config("sac", "dense"), walker, 500_000))
    assert (dense.saving, dense.ceiling, str(dense).count("times")) == (1.0, 1.0, 0)


def test_an_agent_without_kernels_costs_nothing():
    agent = make_agent("sac", make_config("sac", "dense"), SIZES, 20_000)
    scales = topology.plan({"scale": np.ones(3)}, {})
    modules = {name: one._replace(plan=scales) for name, one in agent.modules.items()}
    assert str(training_costs(agent._replace(modules=modules))) == "operations of training: none"
