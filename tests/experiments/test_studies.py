"""Plans expand to the right cells, and no two cells are the same work."""

import dataclasses
import itertools

import numpy as np
import pytest

from experiments.launch.grouping import group_cells
from experiments.studies import STUDIES, check_distinct, replay_ratio
from experiments.studies.modules import EXPLORED, REGIMES
from experiments.studies.published import published_points
from mst_jax import envs
from mst_jax.agents import AGENTS, sweep
from mst_jax.analysis import cost_of
from mst_jax.names import dotted
from mst_jax.recipes import ARCHITECTURES, make_config

VARIANTS = {  # at the paper's size
    "modules": 3 * 6 * 5,
    "scaling_width": 6 + 3,
    "scaling_depth": 4 + 3,
    "scaling_joint": 2 + 2,
    "sparsity_sweep": 2 * 10,
    "mst_vs_uniform": 5 * 3 + 5,
    "rigl_settings": 5 + 2 + 2,
    "reset": 2 * 2,
    "streaming_width": 2 * 2,
    "streaming_cells": 4 * 3 - 4,
    "streaming_init": 2 * 2,
    "visual_width": 4 * 3,
    "atari_width": 2 * 3,
    "replay_ratio": 4,
    "structure_cost": 3 * 6,
}
STEPS = {  # of the others 500,000
    "streaming_width": 2_000_000,
    "streaming_cells": 2_000_000,
    "streaming_init": 2_000_000,
    "visual_width": 1_000_000,
    "atari_width": 100_000,
}


def test_there_is_every_study_of_the_plan():
    assert STUDIES.keys() == VARIANTS.keys()


@pytest.mark.parametrize(
    ("name", "size"), list(itertools.product(VARIANTS, ("smoke", "small", "paper")))
)
def test_cells_are_tasks_by_agents_by_variants_by_blocks(name, size):
    study = STUDIES[name]
    scale = study.scales[size]
    cells = study.cells(size)
    variants = {cell.settings.recipe for cell in cells}
    blocks = -(-scale.seeds // scale.block)
    own = sum(len(study.variants(agent, size)) for agent in scale.agents)
    assert len(cells) == len(scale.tasks) * own * blocks
    assert len({cell.id for cell in cells}) == len(cells)
    assert len({cell.settings.folder_name for cell in cells}) == len(cells)
    if size == "paper":
        assert len(variants) == VARIANTS[name]
        assert scale.steps == STEPS.get(name, 500_000)
    assert any(cell.labels == study.baseline for cell in cells)
    # Variants of one name are one configuration; of two names, two.
    first = [c for c in cells if c.settings.task == scale.tasks[0] and c.settings.seed == 0]
    made = [
        (s.agent, str(dotted(s.config)), s.resets, s.recycle_every)
        for s in (c.settings for c in first)
    ]
    assert len(set(made)) == len(made) or name in ("modules", "mst_vs_uniform")


@pytest.mark.slow
def test_a_modules_cell_changes_one_module_only():
    (cell,) = (
        cell
        for cell in STUDIES["modules"].cells("paper")
        if cell.labels
        == {"module": "actor", "architecture": "relu_ln", "regime": "sparse_to_dense"}
        and cell.settings.task == "dmc:dog-run"
    )
    stock, ours = dotted(make_config("mrq", "mrq_stock")), dotted(cell.settings.config)
    changed = {name: value for name, value in ours.items() if value != stock[name]}
    assert changed == {"actor.regime": "gradual_growth", "actor.sparsity": 0.6}
    assert len(REGIMES) == 5
    assert len(ARCHITECTURES) == 6


def test_sparse_sizes_keep_the_weights_of_the_best_dense_one():
    cells = {
        (cell.labels["kind"], cell.labels["network"]): cell.settings
        for name in ("scaling_width", "scaling_depth")
        for cell in STUDIES[name].cells("paper")
        if cell.settings.task == "dmc:humanoid-run" and cell.settings.agent == "sac"
    }
    kept = cost_of(cells["dense", "2x1"]).parameters
    assert kept == 17_440_555  # docs/specs/network-sparsity.md §1.3
    for key in (("sparse", "5x1"), ("sparse", "2x4")):
        assert cost_of(cells[key]).active_parameters == pytest.approx(kept, rel=0.01)


def test_seed_blocks_cover_the_seeds_once():
    study = STUDIES["reset"]
    scale = dataclasses.replace(study.scales["smoke"], seeds=5, block=2)
    assert scale.blocks() == [(0, 2), (2, 2), (4, 1)]
    names = [cell.id for cell in study.cells("smoke", scale)]
    assert "probe-point--ddpg-sparse-reset-seeds4-4" in names
    assert len(set(names)) == 4 * 3


def test_a_seed_in_two_blocks_would_count_twice():
    study = STUDIES["reset"]
    scale = study.scales["smoke"]
    once = study.cells("smoke", scale)
    again = study.cells("smoke", dataclasses.replace(scale, seeds=3, block=3))
    with pytest.raises(ValueError, match="seed 0 is in two cells"):
        check_distinct([*once, *again])


def test_impossible_plans_are_refused():
    study = STUDIES["reset"]
    with pytest.raises(ValueError, match="there are smoke, small, paper"):
        study.cells("huge")
    with pytest.raises(ValueError, match="must exceed learning_starts"):
        study.cells("smoke", dataclasses.replace(study.scales["smoke"], steps=10))
    with pytest.raises(ValueError, match="seeds=0"):
        study.cells("smoke", dataclasses.replace(study.scales["smoke"], seeds=0))


def test_a_study_gives_all_of_its_cells_its_own_settings():
    study = dataclasses.replace(STUDIES["reset"], settings={"with_time": "published"})
    cells = study.cells("smoke")
    assert {cell.settings.with_time for cell in cells} == {"published"}
    plain = [dataclasses.replace(cell.settings, with_time="off") for cell in cells]
    assert plain == [cell.settings for cell in STUDIES["reset"].cells("smoke")]


def test_rivals_are_exploratory_and_change_one_thing():
    study = STUDIES["mst_vs_uniform"]
    cells = [
        cell
        for cell in study.cells("paper")
        if cell.settings.task == "dmc:dog-run" and cell.settings.agent == "sac"
    ]
    named = {(c.labels["recipe"], c.labels["network"]): c.settings for c in cells}
    explored = [cell.labels for cell in cells if study.explores(cell.labels)]
    assert {labels["network"] for labels in explored} == {"4x1"}
    assert [labels["recipe"] for labels in explored] == list(EXPLORED)
    dense, redo = named["dense", "4x1"], named["dense_redo", "4x1"]
    assert redo == dataclasses.replace(dense, recipe="dense_redo-4x1", recycle_every=20_000)
    assert named["dense_reset", "4x1"].reset_steps == [250_000]
    bare = dotted(named["dense_no_norm", "4x1"].config)
    changed = {k for k, v in dotted(dense.config).items() if bare[k] != v}
    assert changed == {"critic.norm", "actor.norm"}
    assert named["rlx2", "4x1"].config.review_every == 10_000
    assert named["tar", "4x1"].config.critic.regime == "topology_aware_revival"
    of_mrq = {
        v.labels["recipe"] for v in study.variants("mrq", "small") if study.explores(v.labels)
    }
    assert of_mrq == {*EXPLORED} - {"rlx2"}
    assert not any(study.explores(cell.labels) for cell in study.cells("smoke"))


def test_a_reset_cell_resets_and_a_smoke_size_is_small():
    cells = {cell.settings.recipe: cell.settings for cell in STUDIES["reset"].cells("smoke")}
    assert cells["sparse-reset"].reset_steps == [200]
    assert cells["dense-no_reset"].reset_steps == []
    for study in STUDIES.values():
        for cell in study.cells("smoke"):
            assert cell.settings.steps <= 1_000
            assert cell.settings.agent in AGENTS


def test_published_numbers_are_those_of_the_tables():
    at = published_points
    assert at("dmc:dog-run", "sac", {"kind": "sparse", "network": "5x1"}) == 614
    assert at("dmc:dog-run", "sac", {"kind": "dense", "network": "2x3"}) == 364
    assert at("dmc:humanoid-run", "ddpg", {"network": "large", "sparsity": 0.7}) == 212
    assert at("dmc:dog-trot", "sac", {"network": "default", "sparsity": 0.9}) is None
    assert at("dmc:cheetah-run", "sac", {"kind": "dense", "network": "1x1"}) is None
    assert at("brax:ant", "sac", {"kind": "dense", "network": "1x1"}) is None
    assert at("dmc:dog-run", "sac", {"kind": "dense", "network": "4x3"}) is None


def test_cells_that_differ_in_numbers_share_programs():
    groups = group_cells(STUDIES["sparsity_sweep"].cells("small"), most=36)
    names = [{cell.labels["network"] for cell in group} for group in groups]
    assert all(len(own) == 1 for own in names)
    # Sparsity 0 is dense, another structure; the other sparsities of a network share one.
    assert sorted(len(group) for group in groups) == [1, 1, 9, 9]
    narrow = group_cells(STUDIES["sparsity_sweep"].cells("small"), most=10)
    assert max(sum(cell.settings.seeds for cell in group) for group in narrow) == 8
    assert [c.id for g in group_cells(STUDIES["reset"].cells("smoke"), 32) for c in g] == [
        cell.id for cell in STUDIES["reset"].cells("smoke")
    ]


@pytest.mark.parametrize("name", VARIANTS)
def test_programs_can_train_their_cells(name):
    groups = group_cells(STUDIES[name].cells("smoke"), most=32)
    assert sorted(cell.id for group in groups for cell in group) == sorted(
        cell.id for cell in STUDIES[name].cells("smoke")
    )
    for group in groups:
        configs = [cell.settings.config for cell in group]
        settings = group[0].settings
        spec = envs.make(settings.task).spec
        agent, numbers = sweep(settings.agent, configs, spec, settings.steps)
        assert set(numbers.tables) == set(agent.plans)


def test_a_study_has_what_was_published_for_each_of_its_tasks():
    study = STUDIES["visual_width"]

    def config(size, task):
        scale = dataclasses.replace(study.scales[size], tasks=(task,))
        return study.cells(size, scale)[0].settings.config

    assert config("small", "dmc_pixels:cartpole-swingup").noise_steps == 100_000
    assert config("small", "dmc_pixels:hopper-hop").noise_steps == 500_000
    walker = config("small", "dmc_pixels:walker-walk")
    assert (walker.n_step, walker.batch_size) == (1, 512)
    assert config("paper", "dmc_pixels:quadruped-run").buffer_size == 1_000_000
    with pytest.raises(ValueError, match="has nothing for the task 'dmc_pixels:walker-walk'"):
        config("paper", "dmc_pixels:walker-walk")


def test_the_pilot_of_replay_ratios_by_hand():
    flat = {ratio: np.full(4, 100.0) for ratio in replay_ratio.RATIOS}
    assert "nothing to compare" in replay_ratio._verdict(flat)
    lost = flat | {8: np.array([0.0, 70.0, 80.0, 300.0]), 16: np.full(4, 10.0)}
    assert replay_ratio.losses_of(lost) == pytest.approx({4: 0.0, 8: 0.25, 16: 0.9})
    assert "made at 8 updates a step" in replay_ratio._verdict(lost)
    assert "no verdict" in replay_ratio._verdict({1: flat[1], 4: flat[4]})
    assert "no verdict" in replay_ratio._verdict(flat | {1: np.full(4, -1.0)})
