"""The bytes of pictures are known before anything is allocated, by hand."""

import pytest
from small_runs import small_settings

from mst_jax import replay
from mst_jax.envs import Observation
from mst_jax.program.state import replay_layout
from mst_jax.training.jobs import prepare
from mst_jax.training.memory import checkpoint_bytes, describe_memory, memory_bytes, replay_slots

SETTINGS = small_settings(steps=1_000, seeds=2, checkpoint_every=50)


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
    assert "replay 84.8 MB (2 seeds x 2,002 slots)" in describe_memory(agent, spec, SETTINGS)
    # Three full checkpoints share them: one ring, and three segments of two slots a step and one.
    without = checkpoint_bytes(agent, task.spec, SETTINGS)
    segments = frames * (slots + 3 * 101) / slots
    assert segments < checkpoint_bytes(agent, spec, SETTINGS) < segments + without + 3 * agents


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
