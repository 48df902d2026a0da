"""DER's parts on hand-computed numbers, and that it learns."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from der_recording import agent_of, noises_of, view_of
from der_tiny import DQN, KEY, SMALL, TINY, tiny, with_values
from recordings import drawing, load
from small_runs import CATCH, advance, start_run

from mst_jax import networks, replay, topology
from mst_jax.agents import Clock, DERConfig, Experience, check
from mst_jax.agents.rainbow import losses
from mst_jax.agents.rainbow.der import Batch
from mst_jax.envs import Discrete, Observation
from mst_jax.presets import preset_overrides
from mst_jax.program.evaluation import make_evaluator
from mst_jax.recipes import make_config, override

# Returns, targets, losses -------------------------------------------------------------------------


def filled(rewards, *, terminated, span, size=6):
    """The view of a memory with one episode, whose k-th picture has brightness k, and its end."""
    shown, last = Observation((size, 5, 1), "uint8"), len(rewards) - 1
    buffer = replay.create(replay.Layout(shown, Discrete(3), span, capacity=32))
    picture, insert = lambda k: np.full((1, size, 5, 1), k, np.uint8), jax.jit(replay.insert)
    for k, reward in enumerate(rewards):
        buffer = insert(
            buffer,
            picture(k),
            np.array([k % 3], np.int32),
            np.array([reward], np.float32),
            np.array([terminated and k == last]),
            np.array([not terminated and k == last]),
            picture(k + 1),
        )
    return buffer, jax.tree.map(lambda leaf: leaf[0], replay.view(buffer))


def test_every_step_before_an_end_is_a_sample_with_its_own_return():
    """Rewards of 10**k tell which are in a return; a lost life is such an end too."""
    _, view = filled([10.0**k for k in range(6)], terminated=True, span=3)
    agent = tiny(clip_rewards=False, discount=1.0)
    batch = jax.jit(agent.batch)(view, jnp.arange(6), KEY)
    wanted = [111, 1_110, 11_100, 111_000, 110_000, 100_000]
    np.testing.assert_array_equal(batch.returns, wanted)
    np.testing.assert_array_equal(batch.bootstrap, [1, 1, 1, 0, 0, 0])
    np.testing.assert_array_equal(batch.next_observation[:3, 0, 0, 0], [3, 4, 5])
    assert (view.tree[0][:6] > 0).all()
    for name, own in batch.noise.items():  # the loss and the target have a draw each
        assert (own.inputs != batch.next_noise[name].inputs).all()


def test_a_time_limit_is_no_end():
    _, view = filled([1.0] * 6, terminated=False, span=3)
    np.testing.assert_array_equal(view.tree[0][:6] > 0, [True] * 4 + [False] * 2)
    batch = jax.jit(tiny(discount=0.5).batch)(view, jnp.arange(4), KEY)
    np.testing.assert_allclose(batch.returns, 1.75)
    np.testing.assert_allclose(batch.bootstrap, 0.125)


def test_rewards_are_clipped_one_by_one_for_the_learner_alone():
    _, view = filled([5.0, -3.0, 0.5, 7.0], terminated=True, span=3)
    batch = jax.jit(tiny(discount=0.5).batch)(view, jnp.arange(4), KEY)
    np.testing.assert_allclose(batch.returns, [1 - 0.5 + 0.125, -1 + 0.25 + 0.25, 0.5 + 0.5, 1])
    np.testing.assert_array_equal(view.reward[:4], [5.0, -3.0, 0.5, 7.0])


def test_weights_are_those_of_the_sum_tree():
    buffer, _ = filled([0.0] * 9, terminated=True, span=3)
    given = np.array([0.5, 3.0, 0.1, 2.0, 1.0], np.float32)
    indices = jnp.array([[0, 2, 3, 5, 8]])
    buffer = replay.set_priorities(buffer, indices, given[None])
    view = jax.tree.map(lambda leaf: leaf[0], replay.view(buffer))
    leaves = np.ones(9)
    leaves[np.asarray(indices[0])] = given
    probability = leaves / leaves.sum()
    chosen = np.array([2, 0, 2, 1])
    weights = 1 / np.sqrt(probability[chosen] + 1e-10)
    batch = jax.jit(tiny().batch)(view, jnp.asarray(chosen), KEY)
    np.testing.assert_allclose(batch.weight, weights / weights.max(), rtol=1e-6)
    uniform = jax.jit(tiny(prioritised=False).batch)(view, jnp.asarray(chosen), KEY)
    np.testing.assert_array_equal(uniform.weight, 1)
    # A new start has the largest priority that there ever was, also after it has fallen again.
    buffer = replay.set_priorities(buffer, jnp.array([[2]]), jnp.array([[0.2]], jnp.float32))
    assert float(buffer.max_priority[0]) == 3.0


def dqn_batch(returns, bootstrap):
    shown = jnp.zeros((1, 6, 5, 1), jnp.uint8)
    return Batch(
        *(shown, jnp.array([1]), jnp.array([returns]), jnp.array([bootstrap]), shown),
        *(jnp.ones(1), None, None),
    )


@pytest.mark.parametrize(("double", "target"), [(False, 0.5 + 0.9 * 3), (True, 0.5 + 0.9 * 1)])
def test_without_its_parts_it_is_dqn(double, target):
    """A target network that says [1, 3, 2], an online network that says [5, 0.2, 0]."""
    agent = tiny(**DQN | {"double": double})
    state = jax.jit(agent.init)(KEY)
    state = state.replace(
        params=with_values(agent, state, [5.0, 0.2, 0.0]),
        target_params=with_values(agent, state, [1.0, 3.0, 2.0]),
    )
    batch = dqn_batch(0.5, 0.9)
    np.testing.assert_allclose(jax.jit(agent.target)(state, batch), [[target]], rtol=1e-6)
    after, priorities, metrics = jax.jit(agent.update)(state, batch, jnp.int32(0))
    # Huber: |error| - 1/2 beyond 1, with a gradient of -1, of which Adam's mean holds a tenth.
    assert float(metrics["critic/loss"]) == pytest.approx(target - 0.2 - 0.5)
    mean = optax.tree.get(after.opt_state["critic"], "mu")
    np.testing.assert_allclose(mean["value"]["bias"], [0, -0.1, 0], rtol=1e-6)
    np.testing.assert_allclose(priorities, [target - 0.2], rtol=1e-5)
    assert float(metrics["critic/value"]) == pytest.approx(0.2)
    assert agent.act(state, batch.observation[0], None, None) == 0


def test_the_online_network_chooses_among_distributions():
    agent = tiny(noisy=False, dueling=False)
    state, atoms = agent.init(KEY), agent.config.atoms
    at = lambda *places: 50.0 * np.eye(atoms)[list(places)].ravel()  # noqa: E731
    state = state.replace(
        params=with_values(agent, state, at(9, 2, 1)),  # says the first action
        target_params=with_values(agent, state, at(3, 10, 4)),  # that it is worth the fourth atom
    )
    target = agent.target(state, dqn_batch(0.0, 1.0))
    np.testing.assert_allclose(target[0], np.eye(atoms)[3], atol=1e-6)
    plain = dataclasses.replace(agent, config=dataclasses.replace(agent.config, double=False))
    target = plain.target(state, dqn_batch(0.0, 1.0))
    np.testing.assert_allclose(target[0], np.eye(atoms)[10], atol=1e-6)


def test_dueling_adds_the_mean_advantage_to_nothing():
    agent = tiny(noisy=False, distributional=False)
    critic = jax.tree.map(jnp.zeros_like, agent.init(KEY).params["critic"])
    critic["value"]["bias"] = jnp.array([10.0])
    critic["advantage"]["bias"] = jnp.array([1.0, 2.0, 6.0])
    found = agent.critic.apply(critic, jnp.zeros(agent.encoder.size), None)[:, 0]
    np.testing.assert_allclose(found, [8.0, 9.0, 13.0])


# Variants that are wrong, and that the recording tells from the right one -------------------------


def nearest(places, probabilities, support):
    """Each place's probability to the nearest atom alone."""
    index = jnp.argmin(jnp.abs(places[..., None] - support), axis=-1)
    return jnp.einsum("bj,bji->bi", probabilities, jax.nn.one_hot(index, len(support)))


def unmasked(reward, terminated, discount):
    """Rewards beyond an end count, and so does what follows."""
    steps = reward.shape[1]
    return reward @ discount ** jnp.arange(steps), jnp.full(len(reward), discount**steps)


def differs(found, wanted):
    """By much more than the recording's tolerance."""
    return np.abs(np.asarray(found) - wanted).max() > 1e-3


def test_the_recording_tells_wrong_variants(monkeypatch):
    recorded = {
        name: array.astype(np.float32) if array.dtype == np.float64 else array
        for name, array in load("der_step").items()
    }
    agent, state = agent_of(recorded)
    view, indices = view_of(recorded), jnp.arange(len(recorded["states"]))

    def batch():
        with drawing(monkeypatch, noises_of(recorded, agent, "loss", "target")):
            return jax.jit(lambda: agent.batch(view, indices, KEY))()

    def targets(batch):
        return jax.jit(lambda *args: agent.target(*args))(state, batch)

    right = batch()
    assert not differs(right.returns, recorded["n_step_return"])
    assert not differs(targets(right), recorded["target_distribution"])
    with monkeypatch.context() as patch:
        patch.setattr(losses, "projected", nearest)
        assert differs(targets(right), recorded["target_distribution"])
    with monkeypatch.context() as patch:
        patch.setattr("mst_jax.agents.rainbow.der.n_step_return", unmasked)
        wrong = batch()
    assert differs(wrong.bootstrap, right.bootstrap)
    assert differs(targets(wrong), recorded["target_distribution"])
    logits_of = jax.jit(lambda noise: agent.logits(state.params, right.observation, noise))
    logits = logits_of(right.noise)
    assert not differs(logits, recorded["logits"])
    first = right.noise["layer_1"]
    shared = jnp.resize(first.inputs, max(map(max, agent.critic.noisy.values())))
    same = {
        name: networks.Noise(shared[:inputs], shared[:outputs])
        for name, (inputs, outputs) in agent.critic.noisy.items()
    }
    assert differs(logits_of(same), recorded["logits"])


# Acting and learning ------------------------------------------------------------------------------


def choices(agent, state, act, count=2_000):
    """How often each action is chosen with different keys.

    The state is an argument, as in every run: where kernels are constants of a program, jaxlib
    0.10.2 reads other memory in noisy layers of 512 samples and more on a CPU (YNNPACK's fusions).
    """
    picture = jnp.zeros((6, 5, 1), jnp.uint8)
    keys = jax.random.split(KEY, count)
    actions = jax.jit(jax.vmap(act, (None, None, 0)))(state, picture, keys)
    assert actions.dtype == jnp.int32
    return np.bincount(actions, minlength=3) / count


def test_an_evaluation_is_without_noise_and_almost_always_greedy():
    assert DERConfig().evaluation_epsilon == 0.001
    for epsilon in (0.0, 0.3):
        agent = tiny(evaluation_epsilon=epsilon, noisy_std=3.0)  # with it no action would be sure
        state = agent.init(KEY)
        best = int(agent.act(state, jnp.zeros((6, 5, 1), jnp.uint8), None, None))
        shares = choices(agent, state, agent.evaluate)
        wanted = np.full(3, epsilon / 3) + (1 - epsilon) * np.eye(3)[best]
        np.testing.assert_allclose(shares, wanted, atol=0.03 if epsilon else 0)


def test_noise_explores_before_learning_starts_too():
    agent = tiny(noisy_std=3.0)
    state, clock = agent.init(KEY), Clock(jnp.int32(0), jnp.int32(0))
    shares = choices(agent, state, lambda *args: agent.agent().explore(*args, clock))
    assert (shares < 1).all()
    np.testing.assert_array_equal(
        shares, choices(agent, state, lambda *args: agent.act(*args, clock))
    )


def test_without_noise_random_actions_grow_rare():
    agent = tiny(noisy=False, epsilon_end=0.1, epsilon_steps=100, learning_starts=200)
    shares = {step: float(agent.epsilon(jnp.int32(step))) for step in (0, 200, 250, 300, 10**6)}
    assert shares == pytest.approx({0: 1, 200: 1, 250: 0.55, 300: 0.1, 10**6: 0.1})
    assert agent.agent().explore is None, "uniform actions before learning starts"
    state, clock = agent.init(KEY), Clock(jnp.int32(250), jnp.int32(0))
    shares = choices(agent, state, lambda *args: agent.act(*args, clock))
    np.testing.assert_allclose(sorted(shares)[:2], 0.55 / 3, atol=0.03)


@pytest.mark.parametrize(("every", "starts"), [(1, 5), (4, 7), (4, 8)])
def test_targets_are_copied_once_in_a_period(every, starts):
    agent = tiny(target_period=10, learn_every=every)
    state = agent.init(KEY)
    state = state.replace(target_params=jax.tree.map(jnp.zeros_like, state.params))
    steps = jnp.arange(starts + 1, 100, every)

    @jax.vmap
    def copied(step):
        after = agent.refreshed(state, Clock(step, jnp.int32(0))).target_params
        return jnp.array([(leaf != 0).any() for leaf in jax.tree.leaves(after["critic"])]).any()

    due = np.asarray(steps)[np.asarray(copied(steps))]
    first = [min(s for s in np.asarray(steps) if s >= t) for t in range(10, 91, 10)]
    np.testing.assert_array_equal(due, first)


def random_batch(agent, key):
    size, generator = 8, np.random.default_rng(1)
    shown = jnp.asarray(generator.integers(0, 256, (2, size, 6, 5, 1), np.uint8))
    noises = [agent.noise(jax.random.fold_in(key, number)) for number in (1, 2)]
    returns = jnp.asarray(generator.normal(size=size), jnp.float32)
    action = jnp.arange(size, dtype=jnp.int32) % 3
    return Batch(
        *(shown[0], action, returns, jnp.full(size, 0.9), shown[1], jnp.ones(size)), *noises
    )


@pytest.mark.slow
def test_seeds_with_masks_of_their_own_learn_as_alone():
    agent = tiny("all_rigl", **{f"{m}.interval": 2 for m in ("encoder", "critic")})
    keys = jax.random.split(KEY, 2)
    states = jax.jit(jax.vmap(agent.init))(keys)
    masks = agent.trained.masks(states.opt_state)["critic"]["layer_1"]["kernel"]
    assert (masks[0] != masks[1]).any()
    assert (masks[:, 0] == masks[:, 1]).all(), "mean and scale of a weight share its mask"

    def update(state, key, step):  # of the clock, which has no seed axis
        return agent.update(state, random_batch(agent, key), step)[:2]

    alone, of_both = jax.jit(update), jax.jit(jax.vmap(update, (0, 0, None)))

    def updated(program, state, key):
        for step in range(4):
            state, priorities = program(state, key, jnp.int32(step))
        return state, priorities

    together = updated(of_both, states, keys)
    for seed in range(2):
        own, priorities = updated(
            alone, jax.tree.map(lambda leaf, s=seed: leaf[s], states), keys[seed]
        )
        among, among_priorities = jax.tree.map(lambda leaf, s=seed: leaf[s], together)
        np.testing.assert_allclose(priorities, among_priorities, rtol=1e-4)
        for one, other in zip(
            jax.tree.leaves(agent.trained.masks(own.opt_state)),
            jax.tree.leaves(agent.trained.masks(among.opt_state)),
            strict=True,
        ):
            np.testing.assert_array_equal(one, other)
        for one, other in zip(
            jax.tree.leaves(own.params), jax.tree.leaves(among.params), strict=True
        ):
            np.testing.assert_allclose(one, other, atol=1e-4 * float(jnp.abs(one).max()) + 1e-7)
        for name, params in own.params.items():
            topology.check(params, own.opt_state[name], agent.agent().plans[name])
    moved = agent.trained.masks(together[0].opt_state)["critic"]["layer_1"]["kernel"]
    assert (moved != masks).any(), "it was rewired"


@pytest.mark.slow  # test_every_agent.py trains it
@pytest.mark.parametrize("changes", [{}, DQN], ids=["all parts", "none"])
def test_it_keeps_the_contract(changes):
    config = override(make_config("der", "mst"), {**SMALL, **changes})
    assert check("der", config, TINY) == []


@pytest.mark.slow
def test_a_probe_measures_the_loss_that_is_trained():
    agent = tiny()
    state = agent.init(KEY)
    _, view = filled([1.0, 0.0, -1.0, 0.0, 1.0, 0.0], terminated=True, span=3)
    probes = agent.probe(state, Experience(None, view), KEY, 8)
    indices = view.sample(jax.random.fold_in(KEY, 0), 8)
    batch = agent.batch(view, indices, KEY)
    loss, grads = jax.value_and_grad(agent.loss, has_aux=True)(
        state.params, batch, agent.target(state, batch)
    )
    for name, probe in probes.items():
        each = jax.vmap(jax.value_and_grad(probe.loss), (None, 0))(probe.params, probe.samples)
        np.testing.assert_allclose(each[0].mean(), loss[0], rtol=1e-5)
        for one, other in zip(jax.tree.leaves(each[1]), jax.tree.leaves(grads[name]), strict=True):
            np.testing.assert_allclose(one.mean(axis=0), other, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("noisy", [True, False])
def test_it_learns_to_catch(noisy):
    """As it explores and as it is judged, in each of three seeds."""
    small = preset_overrides("der", "small", "probe:catch")
    changes = {"noisy": noisy, "epsilon_steps": 1_000}
    config, seeds = override(make_config("der", "dense"), {**small, **changes}), [0, 1, 2]
    driver, agent, run = start_run(CATCH, config, seeds, 3_500, total_steps=4_000, agent="der")
    before = jax.device_get((run.totals.returns, run.totals.episodes))
    run = advance(driver, run, 500)
    returns, episodes = jax.device_get((run.totals.returns, run.totals.episodes))
    assert ((returns - before[0]) / (episodes - before[1]) > 0.8).all()
    judged = make_evaluator(agent, CATCH, seeds, 50)(run.agent, 0)
    assert (judged.returns.mean(axis=1) > 0.9).all()
