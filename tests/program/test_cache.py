"""What a process has compiled it does not compile again, and no two configurations share it."""

import dataclasses

import numpy as np
from small_runs import compilations, small_config, small_settings

from mst_jax.program.cache import forget, kept, kept_agent, kept_sweep, kept_task
from mst_jax.runs import read_settings
from mst_jax.training import load_snapshot, plan_run, prepare, train


def test_a_second_run_of_the_same_shapes_compiles_nothing(finished_run, tmp_path):
    """Seeds and labels are numbers and text: no program depends on them."""
    settings = dataclasses.replace(read_settings(finished_run), seed=7, recipe="again")
    before = dataclasses.replace(settings, seed=5, recipe="before")  # it may have been let go since
    first = train(plan_run(before, tmp_path), verbose=False, progress=False)
    assert load_snapshot(first.folder).healthy.all()
    with compilations() as seconds:
        outcome = train(plan_run(settings, tmp_path), verbose=False, progress=False)
        assert load_snapshot(outcome.folder).healthy.all()
    assert outcome.finished
    assert seconds == []
    first, second = (np.load(f / "topology_initial.npz") for f in (finished_run, outcome.folder))
    name = "bits/critic/q1/trunk/block_1/expand/kernel"
    assert (first[name] != second[name]).any(), "each seed has masks of its own"


def test_equal_settings_share_an_agent_and_others_do_not():
    settings = small_settings()
    _, agent = prepare(settings)
    assert prepare(dataclasses.replace(settings, seed=3, recipe="a label"))[1] is agent
    other = dataclasses.replace(settings, config=small_config(critic__sparsity=0.5))
    assert prepare(other)[1] is not agent, "its counts are tables of its own"
    assert prepare(dataclasses.replace(settings, steps=250))[1] is not agent, "its plan ends later"


def test_a_configuration_that_is_changed_later_changes_no_agent():
    config, spec = small_config("dense", "ddpg"), kept_task("probe:point").spec
    agent = kept_agent("ddpg", config, spec, 500)
    config.buffer_size = 77
    assert kept_agent("ddpg", config, spec, 500).memory.capacity == 77
    assert agent.memory.capacity == 1_000_000


def test_a_sweep_is_kept_by_all_of_its_configurations():
    spec = kept_task("probe:point").spec
    configs = [small_config("mst", "ddpg", critic__sparsity=s) for s in (0.3, 0.5, 0.7)]
    first = kept_sweep("ddpg", configs[:2], spec, 500)
    assert kept_sweep("ddpg", configs[:2], spec, 500)[0] is first[0]
    assert kept_sweep("ddpg", configs[1:], spec, 500)[0] is not first[0]


def test_tasks_of_the_device_are_kept_and_those_of_the_host_made_anew():
    assert kept_task("probe:point") is kept_task("probe:point")
    assert kept_task("dmc:cartpole-swingup") is not kept_task("dmc:cartpole-swingup")
    timed = kept_task("probe:point", with_time="exact")
    assert kept_task("probe:point", with_time="exact") is timed
    assert kept_task("probe:point").spec != timed.spec


def test_what_is_kept_is_bounded_typed_and_can_be_let_go():
    made = []

    @kept
    def make(thing, number):
        made.append((thing, number))
        return len(made)

    one, equal = {"a": 1}, {"a": 1}
    assert [make(one, 1), make(one, 1), make(equal, 1), make(one, 1.0)] == [1, 1, 2, 3]
    for number in range(100):
        make(one, number + 10)
    assert make(one, 1) == 104, "the oldest went"
    forget()
    assert make(one, 109) == 105


def test_a_runs_task_is_the_plain_one_unless_its_settings_say_otherwise():
    assert prepare(small_settings())[0] is kept_task("probe:point")
    changed = {"action_repeat": 4, "picture_size": 32, "quality": "plain"}
    settings = small_settings("dmc_pixels:cartpole-swingup", **changed)
    assert settings.task_options == changed
    spec = kept_task(settings.task, **settings.task_options).spec
    assert (spec.observation.shape, spec.episode_length) == ((32, 32, 9), 250)
    assert prepare(small_settings("dmc:cartpole-swingup", action_repeat=5))[0].spec[3:5] == (200, 5)
