"""EnvPool against dm_control from the same states, and our seeding, restarts and resume."""

import functools

import numpy as np
import pytest

library = pytest.importorskip("envpool")

from mst_jax import envs  # noqa: E402
from mst_jax.envs.suites import dmc, envpool  # noqa: E402

from dm_control import suite  # noqa: E402  isort: skip  (after dmc, which chooses the renderer)

NAMES = [name for name in dmc.tasks() if not name.startswith("lqr-")]
PAIRS = [(7, 0), (7, 1)]


def random_actions(steps, count, size, seed=0):
    generator = np.random.default_rng(seed)
    return generator.uniform(-1, 1, (steps, count, size)).astype(np.float32)


def equal(one, other):
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def check_sizes(name):
    """EnvPool has all of dm_control's fields, in the same sizes, and the same actions."""
    fields = dmc.load(name, 2).fields
    assert envpool.make(name).vector.args[1].fields == tuple(field for field, _ in fields)
    spec = library.make_spec(envpool.identifier(name))
    theirs = spec.observation_spec()
    for field, slot in fields:
        assert np.prod(getattr(theirs, field).shape, dtype=int) == slot.stop - slot.start
    action = suite.load(*name.split("-", 1)).action_spec()
    np.testing.assert_array_equal(spec.action_spec().minimum, action.minimum)
    np.testing.assert_array_equal(spec.action_spec().maximum, action.maximum)
    assert spec.config.max_episode_steps == 1000


@pytest.mark.parametrize("name", ["dog-run", "humanoid-run", "fish-swim", "ball_in_cup-catch"])
def test_fields_and_actions_are_dm_controls(name):
    check_sizes(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_fields_and_actions_of_every_task_are_dm_controls(name):
    check_sizes(name)


def cartpole(physics, read):
    position, cosine, sine = read("position")
    physics.data.qpos[:] = position, np.arctan2(sine, cosine)
    physics.data.qvel[:] = read("velocity")


def planar(physics, read):
    """The root's horizontal position is not observed, and nothing depends on it."""
    physics.data.qpos[1:] = read("position")
    physics.data.qvel[:] = read("velocity")


def full(physics, read):
    physics.data.qpos[:], physics.data.qvel[:] = read("position"), read("velocity")


def dog(physics, read):
    """Default pose; the heading does not matter; three root velocities are solved for.

    The fields are linear in them.
    """
    physics.data.act[:] = read("actuator_state")
    observed = np.concatenate([read("torso_com_velocity"), read("inertial_sensors")])

    def fields(velocity):
        physics.data.qvel[[0, 1, 5]] = velocity
        physics.forward()
        return np.concatenate([physics.torso_com_velocity(), physics.inertial_sensors()])

    moving = [0, 1, 2, 6, 7, 8, 9, 10, 11]  # velocities; 3 to 5 are accelerations
    still = fields(np.zeros(3))[moving]
    columns = np.stack([fields(unit)[moving] - still for unit in np.eye(3)], axis=1)
    fields(np.linalg.lstsq(columns, observed[moving] - still, rcond=None)[0])


def check_physics(name, put, source=None, steps=25, tolerance=1e-5):
    """Puts dm_control into EnvPool's start state and compares both from there on.

    The state is that of episode 1, from `source` if `name` does not observe all of it (the same
    seed gives the same state).
    """
    with envs.make(f"envpool:{source or name}").vector([(7, 0)]) as twin:
        twin.reset()
        state = twin._pool.reset(np.array([0])).observation
    theirs = suite.load(*name.split("-", 1))
    theirs.reset()
    with theirs.physics.reset_context():
        put(theirs.physics, lambda field: np.array(getattr(state, field)[0]))
    task = envs.make(f"envpool:{name}")
    rewards = []
    with task.vector([(7, 0)]) as environments:
        environments.reset()
        mine = environments.restore({**environments.snapshot(), "episode": np.array([1])})
        close(mine[0], theirs.task.get_observation(theirs.physics), tolerance)
        for action in random_actions(steps, 1, task.spec.action.size):
            own = [theirs.step(np.float64(action[0])) for _ in range(2)]
            timestep = environments.step(action)
            close(timestep.next_observation[0], own[-1].observation, tolerance)
            rewards.append(sum(step.reward for step in own))
            np.testing.assert_allclose(timestep.reward[0], rewards[-1], tolerance, tolerance)
    return rewards


def close(mine, theirs, tolerance):
    flat = np.concatenate([np.ravel(value) for value in theirs.values()])
    np.testing.assert_allclose(mine, flat, tolerance, tolerance)


@pytest.mark.parametrize(("name", "put"), [("cartpole-swingup", cartpole), ("cheetah-run", planar)])
def test_from_the_same_state_observations_and_rewards_are_dm_controls(name, put):
    assert np.ptp(check_physics(name, put)) > 0


def test_humanoid_run_is_dm_controls():
    assert np.ptp(check_physics("humanoid-run", full, "humanoid-run_pure_state")) > 0


def test_dog_run_is_dm_controls_as_far_as_its_solver_converges():
    assert np.ptp(check_physics("dog-run", dog, steps=4, tolerance=1e-3)) > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "put", "settings"),
    [
        ("hopper-stand", planar, {}),
        ("ball_in_cup-catch", full, {}),
        ("humanoid-stand", full, {"source": "humanoid-run_pure_state"}),
        ("humanoid-walk", full, {"source": "humanoid-run_pure_state"}),
        ("dog-stand", dog, {"steps": 4, "tolerance": 1e-3}),
        ("dog-walk", dog, {"steps": 4, "tolerance": 1e-3}),
        ("dog-trot", dog, {"steps": 4, "tolerance": 1e-3}),
    ],
)
def test_further_tasks_are_dm_controls(name, put, settings):
    check_physics(name, put, **settings)


@pytest.fixture(scope="module")
def pendulum():
    """Two episodes and 20 steps of two environments: task, actions, observations, timesteps."""
    task = envs.make("envpool:pendulum-swingup")
    actions = random_actions(1020, 2, 1)
    with task.vector(PAIRS, workers=1) as environments:
        first = environments.reset()
        return task, actions, first, [environments.step(action) for action in actions]


def test_episodes_end_by_truncation_and_restart_afresh(pendulum):
    task, _, first, steps = pendulum
    wanted = envs.vector_spec("envpool:pendulum-swingup", 3, 1, 500, 2)
    assert task.spec == wanted._replace(ends_early=False)
    truncated = np.array([step.truncated for step in steps])
    np.testing.assert_array_equal(np.flatnonzero(truncated[:, 0]), [499, 999])
    np.testing.assert_array_equal(truncated[:, 0], truncated[:, 1])
    assert not any(step.terminated.any() for step in steps)
    kinds = [np.float32, np.float32, np.bool_, np.bool_, np.float32, np.bool_, np.bool_]
    assert [field.dtype for field in steps[0]] == kinds
    starts = np.concatenate([first, steps[499].observation, steps[999].observation])
    assert len(np.unique(starts[:, 0])) == 6
    assert (starts[:, 2] == 0).all()  # at rest
    assert (steps[499].next_observation[:, 2] != 0).all()  # still moving at the end
    np.testing.assert_array_equal(steps[498].observation, steps[498].next_observation)


@pytest.mark.parametrize("workers", [1, 2])
def test_restored_bit_for_bit_in_a_later_episode(pendulum, workers):
    task, actions, _, steps = pendulum
    with task.vector(PAIRS, workers=workers) as environments:
        environments.reset()
        for action, step in zip(actions[:1010], steps, strict=False):
            equal(environments.step(action), step)
        snapshot = environments.snapshot()
    assert snapshot["episode"].tolist() == [2, 2]
    assert snapshot["length"].tolist() == [10, 10]
    with task.vector(PAIRS, workers=3 - workers) as environments:
        environments.reset(episode=9)  # another life
        np.testing.assert_array_equal(environments.restore(snapshot), steps[1009].observation)
        for action, step in zip(actions[1010:], steps[1010:], strict=True):
            equal(environments.step(action), step)


@pytest.mark.parametrize("raises", [False, True])
def test_a_failure_costs_the_episode_and_the_others_continue_bit_for_bit(
    pendulum, raises, monkeypatch, capfd
):
    """Fault A5: the pool is made again and the healthy environment's actions are replayed."""
    task, actions, _, steps = pendulum
    with task.vector(PAIRS) as environments:
        environments.reset()
        advance = environments._advance
        for action, step in zip(actions[:5], steps, strict=False):
            equal(environments.step(action), step)

        def fail(*given):
            monkeypatch.undo()
            moved = advance(*given)
            moved[0][0] = np.nan
            if raises:
                raise RuntimeError("somewhere")
            return moved

        monkeypatch.setattr(environments, "_advance", fail)
        lost = environments.step(actions[5])
        snapshot = environments.snapshot()
        later = [environments.step(action) for action in actions[6:10]]
    assert lost.lost.tolist() == lost.truncated.tolist() == [True, raises]
    assert lost.reward[0] == 0
    np.testing.assert_array_equal(lost.next_observation[0], steps[4].observation[0])
    np.testing.assert_array_equal(lost.observation[0], steps[499].observation[0])  # episode 1
    assert snapshot["errors"].tolist() == [1, int(raises)]
    if not raises:
        equal([field[1] for field in lost], [field[1] for field in steps[5]])
        for mine, theirs in zip(later, steps[6:10], strict=True):
            equal([field[1] for field in mine], [field[1] for field in theirs])
    cause = "RuntimeError: somewhere" if raises else "an observation or reward is not finite"
    line = f"envpool:pendulum-swingup, seed 7, environment 0, episode 0: {cause}; the episode is "
    assert capfd.readouterr().out.startswith(line)
    with task.vector(PAIRS) as environments:
        np.testing.assert_array_equal(environments.restore(snapshot), lost.observation)
        for action, step in zip(actions[6:10], later, strict=True):
            equal(environments.step(action), step)


def test_an_environment_plays_the_same_alone_and_in_company(pendulum):
    task, actions, first, steps = pendulum
    with task.vector(PAIRS[1:]) as environments:
        np.testing.assert_array_equal(environments.reset(), first[1:])
        for action, step in zip(actions[:20], steps, strict=False):
            equal(environments.step(action[1:]), [field[1:] for field in step])


def test_start_states_follow_the_seed_the_index_and_the_episode_asked_for(pendulum):
    task, *_ = pendulum
    pairs = [(7, 0), (7, 1), (8, 0), (0, 7)]
    with task.vector(pairs) as environments:
        starts = [environments.reset(episode) for episode in (0, 1, 1_000_000)]
        np.testing.assert_array_equal(environments.reset(1), starts[1])
    assert len(np.unique(np.concatenate(starts)[:, 0])) == 12


def check_resume(name):
    """In mid-episode and in the episode after, where a reset may write the model."""
    task = envs.make(f"envpool:{name}", action_repeat=10)
    actions = random_actions(115, 2, task.spec.action.size)
    vectors = functools.partial(task.vector, PAIRS)
    with vectors() as environments:
        environments.reset(episode=3)
        for action in actions[:105]:
            current = environments.step(action).observation
        snapshot = environments.snapshot()
        expected = [environments.step(action) for action in actions[105:]]
    with vectors() as environments:
        np.testing.assert_array_equal(environments.restore(snapshot), current)
        for action, step in zip(actions[105:], expected, strict=True):
            equal(environments.step(action), step)


@pytest.mark.parametrize("name", ["reacher-hard", "point_mass-hard"])
def test_restored_bit_for_bit_even_where_a_reset_writes_the_model(name):
    check_resume(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", envpool.tasks())
def test_every_task_is_restored_bit_for_bit(name):
    check_resume(name)


def test_wrong_calls_are_named(pendulum):
    task, actions, *_ = pendulum
    with task.vector(PAIRS) as environments:
        with pytest.raises(RuntimeError, match="reset"):
            environments.step(actions[0])
        with pytest.raises(RuntimeError, match="reset"):
            environments.snapshot()
        environments.reset()
        with pytest.raises(ValueError, match=r"actions must be float32 \(2, 1\)"):
            environments.step(np.zeros((2, 1)))
        snapshot = environments.snapshot()
        other = {name: value for name, value in snapshot.items() if name != "first"}
        with pytest.raises(ValueError, match="not taken of EnvPool"):
            environments.restore(other)
        with pytest.raises(ValueError, match="other seeds"):
            environments.restore({**snapshot, "seeds": snapshot["seeds"] + 1})
        with pytest.raises(ValueError, match="episode must lie in"):
            environments.reset(-1)
    environments.close()  # may be repeated
    for call in (environments.reset, lambda: environments.step(actions[0])):
        with pytest.raises(RuntimeError, match="closed"):
            call()
    equal(environments.snapshot().values(), snapshot.values())
    with pytest.raises(ValueError, match="workers must be at least 1"):
        task.vector(PAIRS, workers=0)


def test_names_are_dm_controls():
    assert set(NAMES) < set(envpool.tasks())
    assert envpool.identifier("humanoid_CMU-run") == "HumanoidCMURun-v1"
    assert envpool.identifier("finger-turn_hard") == "FingerTurnHard-v1"
    known = library.list_all_envs()
    assert all(envpool.identifier(name) in known for name in NAMES)
    with pytest.raises(ValueError, match="there are acrobot-swingup"):
        envs.make("envpool:DogRun-v1")
