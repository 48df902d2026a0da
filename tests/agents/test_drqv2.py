"""DrQ-v2 beyond its recorded update: plans, refusals, shifts, returns, learning from pictures."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_runs import (
    PICTURE_SIZES,
    PICTURES,
    metrics_without_wall_clock,
    resumed_exactly,
    small_config,
    small_settings,
    start_run,
)

import mst_jax
from mst_jax import agents, replay, topology
from mst_jax.agents import make_agent, training_costs
from mst_jax.agents.base import Sizes
from mst_jax.agents.parts.augmentation import random_shift, shifted
from mst_jax.agents.pixels.drqv2 import build_drqv2, within_bounds
from mst_jax.envs import Continuous, Discrete, Observation
from mst_jax.envs.suites import probe
from mst_jax.presets import PRESETS, preset_overrides
from mst_jax.recipes import make_config, override

SHOWN = PICTURE_SIZES.observation


@functools.cache
def plans(actions, size="", recipe="dense", **changes):
    named = {name.replace("__", "."): value for name, value in changes.items()}
    config = override(make_config("drqv2", recipe, size), named)
    return make_agent("drqv2", config, Sizes(SHOWN, Continuous(actions), 500), 1_000_000).plans


def counted(plan):
    """Parameters of a plan."""
    active = sum(int(plan.groups[g].table.target[-1, c]) for g, c, _ in plan.entries().values())
    shapes = {path: entry.shape for path, (_, _, entry) in plan.entries().items()} | plan.dense
    return sum(int(np.prod(shape)) for shape in shapes.values()), active


WIDTHS = {512: "0.5", 1024: "1", 2048: "2", 4096: "4"}


@pytest.mark.parametrize(
    ("actions", "actor", "critics"),
    [
        (1, 3_062_999, (2_539_736, 4_167_896, 10_569_944, 35_956_952)),
        (4, 3_066_074, (2_542_808, 4_174_040, 10_582_232, 35_981_528)),
        (6, 3_068_124, (2_544_856, 4_178_136, 10_590_424, 35_997_912)),
        (12, 3_074_274, (2_551_000, 4_190_424, 10_615_000, 36_047_064)),
    ],
    ids=["cartpole", "hopper", "walker", "quadruped"],
)
def test_parameters_are_those_of_the_reference(actions, actor, critics):
    for size, critic in zip(WIDTHS.values(), critics, strict=True):
        found = {name: counted(plan)[0] for name, plan in plans(actions, size).items()}
        assert found == {"encoder": 30_368, "critic": critic, "actor": actor}


@pytest.mark.parametrize(
    ("width", "heads", "all_kernels"),
    [
        (512, 117_760, 509_760),
        (1024, 445_236, 837_236),
        (2048, 1_729_332, 2_121_332),
        (4096, 6_814_106, 7_206_106),
    ],
)
def test_active_weights_of_a_static_critic(width, heads, all_kernels):
    """quadruped-run at 0.8: the heads alone by default, the trunk in the budget on request.

    A fifth of the heads' kernels is 445,235.2 at width 1024. Both hidden kernels are the same and
    have 158,105.6 of them each; each is rounded.
    """
    alone = plans(12, WIDTHS[width], "static_critic")["critic"]
    assert counted(alone)[1] == heads
    assert not [path for path in alone.entries() if path.startswith("trunk")]
    both = plans(12, WIDTHS[width], "static_critic", critic__where=".*kernel")["critic"]
    assert counted(both)[1] == all_kernels
    (group, column, entry) = both.entries()["trunk/layer_1/kernel"]
    share = both.groups[group].table.target[0, column] / np.prod(entry.shape)
    assert share == pytest.approx({512: 0.240, 1024: 0.367, 2048: 0.821, 4096: 1}[width], abs=1e-3)
    dense = plans(12, WIDTHS[width], "static_critic")
    assert not dense["encoder"].entries()
    assert not dense["actor"].entries()


def test_size_is_the_critics_alone():
    config = make_config("drqv2", "mst", size="4")
    assert [m.hidden for m in (config.encoder, config.critic, config.actor)] == [32, 4096, 1024]
    assert config.critic.where == "(q1|q2)/.*kernel"


def test_what_training_costs_counts_every_place_of_a_convolution():
    agent = make_agent("drqv2", make_config("drqv2", "dense"), PICTURE_SIZES, 1_000_000)
    encoder = agent.modules["encoder"]
    cost = topology.costs(encoder.plan, encoder.updates, encoder.positions)
    assert cost.dense_inference == pytest.approx(84.6e6, rel=1e-3)
    assert training_costs(agent).shares["encoder"] > 0.8


def test_presets_are_the_published_settings():
    assert len(PRESETS["drqv2"]["drqv2"]) == 23
    hop = preset_overrides("drqv2", "drqv2", "dmc_pixels:hopper-hop")
    assert hop == {"noise_steps": 500_000}
    run = preset_overrides("drqv2", "drqv2", "dmc_pixels:quadruped-run")
    assert run == {"noise_steps": 500_000, "buffer_size": 100_000}
    paper = preset_overrides("drqv2", "netsparsity", "dmc_pixels:quadruped-run")
    assert paper == {**run, "buffer_size": 1_000_000}
    walk = preset_overrides("drqv2", "drqv2", "dmc_pixels:walker-walk")
    assert walk == {"noise_steps": 100_000, "n_step": 1, "batch_size": 512}
    hard = preset_overrides("drqv2", "hard", "my_pkg.envs:any")
    config = make_config("drqv2", "static_critic", base=hard)
    assert (config.noise_steps, config.feature_dim) == (2_000_000, 100)
    assert {config.encoder.learning_rate, config.actor.learning_rate} == {8e-5}
    assert config.critic.sparsity == 0.8
    for by_task in PRESETS["drqv2"].values():
        for changes in by_task.values():
            make_config("drqv2", "mst", base=changes).validate()


@pytest.mark.parametrize(
    ("sizes", "changes", "what"),
    [
        ({"observation": Observation((24,))}, {}, r"takes pictures, .* shows float32\[24\]"),
        ({"observation": Observation((84, 84, 9), "float32")}, {}, "takes pictures"),
        ({"action": Discrete(4)}, {}, "actions are continuous, and the task takes one of 4"),
        ({"observation": SHOWN._replace(history=0)}, {}, "9 channels cannot be a history of 0"),
        ({"observation": SHOWN._replace(history=2)}, {}, "9 channels cannot be a history of 2"),
        ({"episode_length": 2}, {}, "n_step=3 is more than the 2 steps of an episode"),
        (
            {"observation": Observation((14, 80, 9), "uint8", 3)},
            {},
            r"14x80 are too small for encoder\.depth=4 with encoder\.strided=1: convolution 4",
        ),
        ({}, {"encoder.strided": 5}, r"encoder\.strided=5 must be in 0 to encoder\.depth=4"),
        ({}, {"encoder.residual": "pre"}, r"encoder\.residual=pre: convolutions have no"),
        ({}, {"learning_starts": 2}, "learning_starts=2 must be at least n_step=3"),
        ({}, {"noise_steps": 0}, "noise_steps=0 must be at least 1"),
        ({}, {"pad": -1}, "pad=-1 must not be negative"),
        ({}, {"buffer_size": 100}, "buffer_size=100 must be at least batch_size=256"),
    ],
)
def test_impossible_tasks_and_settings_are_one_line(sizes, changes, what):
    config = override(make_config("drqv2", "dense"), changes)
    with pytest.raises(ValueError, match=what) as error:
        make_agent("drqv2", config, PICTURE_SIZES._replace(**sizes), 10_000)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("agent", ["sac", "td3"])
def test_pictures_are_refused_by_agents_of_vectors(agent):
    with pytest.raises(ValueError, match=r"flat observations .* shows uint8\[84, 84, 9\]"):
        make_agent(agent, make_config(agent, "dense"), PICTURE_SIZES, 10_000)


@pytest.mark.parametrize(
    ("preset", "task", "agent", "what"),
    [
        ("drqv2", "probe:picture_motion", "drqv2", "nothing for the task 'probe:picture_motion'"),
        ("netsparsity", "dmc_pixels:walker-walk", "drqv2", "for any task there are easy, medium"),
        ("netsparcity", "dmc_pixels:hopper-hop", "drqv2", "did you mean netsparsity?"),
        ("drqv2", "dmc:hopper-hop", "sac", "preset 'drqv2' is unknown: sac has none"),
    ],
)
def test_a_preset_that_is_not_there_is_one_line(preset, task, agent, what):
    with pytest.raises(ValueError, match=what):
        preset_overrides(agent, preset, task)


@pytest.mark.parametrize("shape", [(7, 7, 3), (5, 8, 2)])
def test_every_shift_is_a_cut_of_the_padded_picture(shape):
    """Corners among them; the first number is the column, the second the row."""
    rng, pad = np.random.default_rng(0), 2
    shifts = np.stack(np.meshgrid(range(5), range(5)), axis=-1).reshape(-1, 2)
    pictures = rng.integers(0, 256, (len(shifts), *shape)).astype(np.uint8)
    found = shifted(jnp.asarray(pictures), jnp.asarray(shifts), pad)
    padded = np.pad(pictures, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="edge")
    for own, picture, (column, row) in zip(found, padded, shifts, strict=True):
        cut = picture[row : row + shape[0], column : column + shape[1]]
        np.testing.assert_array_equal(own, cut)
    assert found.dtype == jnp.uint8


def test_shifts_are_drawn_for_each_picture_and_each_update():
    rng = np.random.default_rng(0)
    pictures = jnp.asarray(
        np.tile(rng.integers(0, 256, (1, 9, 9, 3)).astype(np.uint8), (200, 1, 1, 1))
    )
    first, second = (random_shift(jax.random.key(seed), pictures, 1) for seed in (0, 1))
    assert len(np.unique(np.asarray(first).reshape(200, -1), axis=0)) == 9, "all shifts occur"
    assert (np.asarray(first) != np.asarray(second)).any()
    np.testing.assert_array_equal(random_shift(jax.random.key(0), pictures, 0), pictures)


def filled(config, episodes):
    """A buffer of one seed with episodes of (length, whether they terminate); reward 1, 2, ...

    Every picture shows the number of its step, and its neighbour in the history the one before.
    """
    shown = Observation((12, 12, 2), "uint8", history=2)
    layout = replay.Layout(shown, Continuous(1), span=config.n_step, capacity=64)
    buffer, insert, step = replay.create(layout), jax.jit(replay.insert), 0
    for length, terminates in episodes:
        before = step
        for number in range(length):
            now, step = step, step + 1
            last = number == length - 1
            buffer = insert(
                buffer,
                picture(before, now),
                np.full((1, 1), now, np.float32) / 100,
                np.array([step], np.float32),
                np.array([last and terminates]),
                np.array([last and not terminates]),
                picture(now, step),
            )
            before = now
        step += 1  # the final observation has a number too
    return buffer


def picture(*numbers):
    return np.tile(np.array(numbers, np.uint8), (1, 12, 12, 1))


def test_returns_end_at_terminations_and_bootstrap_at_truncations():
    config = small_config("dense", "drqv2", pad=0)
    agent = build_drqv2(config, PICTURES.spec, 1000)
    buffer = filled(config, [(5, False), (4, True)])  # steps 0 to 4, and 6 to 9
    view = jax.tree.map(lambda leaf: leaf[0], replay.view(buffer))
    batch = jax.jit(agent.batch, static_argnums=3)(view, jax.random.key(0), jnp.int32(0), 200)
    starts = np.asarray(batch.observation[:, 0, 0, -1])
    # Of the truncated episode the last two starts have no three steps after them.
    assert sorted(set(starts.tolist())) == [0, 1, 2, 6, 7, 8, 9]
    for start, returns, bootstrap in zip(starts, batch.returns, batch.bootstrap, strict=True):
        end = {True: 5, False: 10}[start < 6]
        rewards = [start + 1 + k for k in range(3) if start + k < end]
        wanted = sum(0.99**k * reward for k, reward in enumerate(rewards))
        assert float(returns) == pytest.approx(wanted, rel=1e-6)
        ended = start >= 6 and start + 3 >= end
        assert float(bootstrap) == pytest.approx(0 if ended else 0.99**3)
    inside = starts < 6
    following = np.asarray(batch.next_observation[:, 0, 0])
    np.testing.assert_array_equal(following[inside, 1], starts[inside] + 3)
    np.testing.assert_array_equal(following[inside, 0], starts[inside] + 2)


def test_clamped_actions_let_gradients_pass():
    action = jnp.array([-3.0, 0.5, 3.0])
    limit = np.float32(1 - 1e-6)
    np.testing.assert_array_equal(within_bounds(action), np.array([-limit, 0.5, limit]))
    np.testing.assert_array_equal(jax.grad(lambda a: within_bounds(a).sum())(action), np.ones(3))


@pytest.mark.slow
def test_it_keeps_the_contract():
    assert agents.check("drqv2", small_config("mst", "drqv2"), PICTURES.spec) == []


def run_settings(**changes):
    return small_settings(
        agent="drqv2", task="probe:picture_motion", **{"history_every": 0, **changes}
    )


@pytest.mark.slow
def test_a_run_resumes_exactly_and_is_not_exported(tmp_path, monkeypatch):
    """With diagnostics of channels; two seeds of other masks."""
    settings = run_settings(
        steps=120, eval_every=60, log_every=20, checkpoint_every=40, diagnose_every=60
    )
    folder = resumed_exactly(settings, tmp_path, monkeypatch, 80)
    rows = metrics_without_wall_clock(folder)
    looked_at = [row for row in rows["seed_0"] if row["kind"] == "diagnostics"][-1]
    for name in ("srank", "dormant_active_0.1", "active_fraction", "gradient_norm"):
        assert np.isfinite(looked_at[f"encoder/{name}"])
    assert 0 <= looked_at["encoder/dormant_active_0.1"] <= 100
    with pytest.raises(ValueError, match="'drqv2' does not write its policies as operations"):
        mst_jax.export_policy(folder, tmp_path / "policy.npz")
    masks = mst_jax.load(folder).masks
    actor = next(mask for path, mask in masks.items() if path.startswith("actor/policy/layer_1"))
    assert (actor[0] != actor[1]).any()


@pytest.mark.slow
def test_it_sees_which_way_a_bar_moves():
    """Which one picture does not show."""
    config = small_config(
        "mst",
        "drqv2",
        **{f"{module}__learning_rate": 1e-3 for module in ("encoder", "critic", "actor")},
        critic__hidden=32,
        actor__hidden=32,
        feature_dim=16,
        batch_size=32,
        learn_every=1,
        n_step=1,
        discount=0.9,
        tau=0.05,
        noise_steps=1_000,
        buffer_size=2_000,
    )
    _, agent, run = start_run(PICTURES, config, [0, 1], 1_500, total_steps=1_500, agent="drqv2")
    state, shown = PICTURES.reset(jax.random.key(7))
    direction, step = float(state.world[2]), jax.jit(PICTURES.step)
    value = probe.picture_motion().value
    for number in range(4):
        actions, values = answers(agent, run.agent, shown)
        np.testing.assert_allclose(values, np.full(2, value(shown, 0.9)), rtol=0.1)
        if number:  # nothing moves before
            np.testing.assert_allclose(actions[:, 0], direction / 2, atol=0.2)
        state, timestep = step(state, jnp.zeros(1))
        shown = timestep.observation


def answers(agent, states, shown):
    """Actions and values of both seeds for one picture."""

    def of_seed(state):
        action = agent.act(state, shown, None, None)
        return action, agent.value(state, shown, action)

    return jax.jit(jax.vmap(of_seed))(states)
