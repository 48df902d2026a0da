"""What a run takes is known before anything is allocated, by hand; too much is refused."""

import dataclasses
import shutil
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
import small_runs
from small_runs import small_config, small_settings

from mst_jax import envs, replay
from mst_jax.agents import make_agent
from mst_jax.envs import Observation
from mst_jax.program.state import replay_layout
from mst_jax.replay import Layout
from mst_jax.training import make_program, plan_in, room
from mst_jax.training.jobs import prepare
from mst_jax.training.memory import checkpoint_bytes, describe_memory, memory_bytes, replay_slots

SETTINGS = small_settings(agent="mrq", steps=1_000, seeds=2, checkpoint_every=50)


def test_pictures_are_counted_once():
    task, agent = prepare(SETTINGS)
    pictures = Observation((84, 84, 9), "uint8", history=3)
    spec = task.spec._replace(observation=pictures)
    slots = replay_slots(SETTINGS, agent, spec)
    assert slots == 2_002
    layout = replay_layout(agent, spec, slots, 2)
    agents, buffer = memory_bytes(agent, spec, SETTINGS)
    assert buffer == replay.nbytes(layout)
    frames = 2 * slots * 84 * 84 * 3
    assert frames < buffer < 1.001 * frames
    told = "replay 84.8 MB (2 seeds x 2,002 slots, 21.2 GB for a million pictures)"
    assert told in describe_memory(agent, spec, SETTINGS)
    # Three full checkpoints share them: one ring, and three segments of two slots a step and one.
    without = checkpoint_bytes(agent, task.spec, SETTINGS)
    segments = frames * (slots + 3 * 101) / slots
    assert segments < checkpoint_bytes(agent, spec, SETTINGS) < segments + without + 3 * agents


@pytest.mark.parametrize(
    ("sizes", "ends_early", "steps", "told"),
    [
        # 84 * 84 * 3 bytes a step and episode; 84 * 84 in each of at most 1,000,000 slots.
        (small_runs.PICTURE_SIZES, False, 500_000, "10.6 GB (1 seeds x 501,003 slots, 21.2 GB"),
        (small_runs.ATARI_SIZES, True, 125_000, "1.77 GB (1 seeds x 250,002 slots, 7.07 GB"),
        (small_runs.ATARI_SIZES, True, 2_500_000, "7.07 GB (1 seeds x 1,000,000 slots, 7.07 GB"),
    ],
)
def test_pictures_of_published_runs_of_mrq(sizes, ends_early, steps, told):
    spec = envs.Spec("own:pictures", *sizes, 2, ends_early)
    config = small_config("dense", "mrq")
    settings = dataclasses.replace(SETTINGS, config=config, steps=steps, seeds=1)
    agent = make_agent("mrq", config, sizes, steps)
    assert f", replay {told} for a million pictures)" in describe_memory(agent, spec, settings)


def test_the_smallest_ring_has_room_for_the_history():
    task, agent = prepare(SETTINGS)
    spec = task.spec._replace(observation=Observation((4,), history=4))
    fewest = agent.memory.span + 5

    def with_capacity(slots):
        return agent._replace(memory=agent.memory._replace(capacity=slots))

    assert replay_slots(SETTINGS, with_capacity(fewest), spec) == fewest
    replay_layout(agent, spec, fewest, 2)
    with pytest.raises(ValueError, match=f"which need {fewest} slots each"):
        replay_slots(SETTINGS, with_capacity(fewest - 1), spec)


def test_frames_of_episodes_of_one_length_need_no_second_slot_for_each_step():
    task, agent = prepare(SETTINGS)
    pictures = Observation((4, 4, 9), "uint8", history=3)
    same = task.spec._replace(observation=pictures, ends_early=False, episode_length=100)
    assert replay_slots(SETTINGS, agent, same) == 1_000 + 10 + 3
    for other in (
        same._replace(ends_early=True),
        same._replace(episode_length=None),
        same._replace(observation=Observation((4,))),  # vectors keep what their runs had
    ):
        assert replay_slots(SETTINGS, agent, other) == 2_002


@pytest.mark.parametrize(("steps", "length"), [(15, 5), (16, 5), (9, 100)])
def test_those_slots_hold_a_whole_run(steps, length):
    """Nothing that a larger buffer would sample is missing at the end."""
    spec = envs.Spec(
        "own:bars", Observation((2, 2, 6), "uint8", history=3), envs.Continuous(1), length, 1, False
    )
    settings = dataclasses.replace(SETTINGS, steps=steps, seeds=1)
    _, agent = prepare(SETTINGS)
    slots = replay_slots(settings, agent, spec)
    starts = []
    for capacity in (slots, 4 * slots):
        layout = Layout(
            seeds=1, capacity=capacity, observation=spec.observation, action=spec.action, span=3
        )
        buffer = replay.create(layout)
        shown = jnp.zeros((1, 2, 2, 6), jnp.uint8)
        for step in range(1, steps + 1):
            over = jnp.array([step % length == 0])
            no, zero = jnp.zeros(1, bool), jnp.zeros(1)
            buffer = replay.insert(buffer, shown, zero[:, None], zero, no, over, shown)
        starts.append(np.flatnonzero(buffer.tree[0][0]))
    np.testing.assert_array_equal(*starts)
    assert len(starts[0]) > steps // 2


def test_a_run_beyond_memory_or_disk_is_refused_in_one_line(tmp_path, monkeypatch):
    folder = tmp_path / "runs" / "run"
    job = plan_in(SETTINGS, folder)
    monkeypatch.setattr(room, "free_memory", lambda: 100_000)
    told = r"^2 seeds with 2,002 slots of replay each take [\d.]+ .B of memory, and 100 KB are free"
    with pytest.raises(ValueError, match=told):
        make_program([job])
    monkeypatch.setattr(room, "free_memory", lambda: None)  # a system that does not say
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000))
    told = rf"^checkpoints will take [\d.]+ .B, and 1 KB are free in {tmp_path}: lower[^\n]*$"
    with pytest.raises(ValueError, match=told):
        make_program([job])
    assert not folder.parent.exists()
    held = folder / "checkpoints" / "full"  # a run that goes on has its checkpoints already
    held.mkdir(parents=True)
    (held / "data").write_bytes(bytes(10_000_000))
    make_program([job])


@pytest.mark.parametrize(
    ("stats", "free"), [({"bytes_limit": 900_000, "bytes_in_use": 100_000}, "800 KB"), (None, None)]
)
def test_an_accelerators_memory_counts_where_there_is_one(tmp_path, monkeypatch, stats, free):
    card = SimpleNamespace(platform="gpu", memory_stats=lambda: stats)
    monkeypatch.setattr(room.jax, "local_devices", lambda: [card])
    job = plan_in(SETTINGS, tmp_path / "run")
    if free is None:  # it does not say
        make_program([job])
        return
    monkeypatch.setattr(room, "free_memory", lambda: 0)  # of the host
    buffer = Observation((84, 84, 9), "uint8", history=3)
    spec = job.task.spec._replace(observation=buffer)
    with pytest.raises(ValueError, match=f"take 85.* MB of memory, and {free} are free"):
        room.require_room(job.agent, spec, SETTINGS, [job.folder])


def test_free_memory_is_what_linux_says():
    found = room.free_memory()
    assert found is None or 10**6 < found < 10**15
