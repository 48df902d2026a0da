"""MR.Q's losses on numbers computed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mst_jax.agents.mr import losses
from mst_jax.agents.mr.config import MRQConfig
from mst_jax.agents.mr.policies import TanhPolicy
from mst_jax.agents.parts import losses as shared
from mst_jax.networks import Actor, Critic, Encoder, Prediction


def test_n_step_return_without_termination():
    returns, bootstrap = shared.n_step_return(
        jnp.array([[1.0, 2.0, 3.0]]), jnp.zeros((1, 3), bool), 0.5
    )
    assert float(returns[0]) == 1.0 + 1.0 + 0.75
    assert float(bootstrap[0]) == 0.125


@pytest.mark.parametrize(
    ("terminated_at", "expected"), [(0, 1.0), (1, 2.0), (2, 2.75)], ids=["first", "second", "last"]
)
def test_n_step_return_keeps_the_terminal_reward_and_drops_what_follows(terminated_at, expected):
    terminated = jnp.arange(3)[None] == terminated_at
    returns, bootstrap = shared.n_step_return(jnp.array([[1.0, 2.0, 3.0]]), terminated, 0.5)
    assert float(returns[0]) == expected
    assert float(bootstrap[0]) == 0.0


def test_critic_target_takes_the_smaller_head_and_both_scales():
    target = losses.critic_target(
        returns=jnp.array([2.0, 2.0]),
        bootstrap=jnp.array([0.5, 0.0]),
        next_values=jnp.array([[3.0, 4.0], [3.0, 4.0]]),
        reward_scale=jnp.array(4.0),
        target_reward_scale=jnp.array(8.0),
    )
    np.testing.assert_allclose(target, [(2 + 0.5 * 3 * 8) / 4, 2 / 4])


def test_critic_loss_is_huber_averaged_over_batch_and_heads():
    values, target = jnp.array([[1.5, 4.0], [-1.0, 0.25]]), jnp.array([1.0, 0.0])
    by_hand = (0.5 * 0.5**2 + (3.0 - 0.5) + (1.0 - 0.5) + 0.5 * 0.25**2) / 4
    assert float(losses.critic_loss(values, target)) == pytest.approx(by_hand)
    grads = jax.grad(losses.critic_loss)(values, target)
    np.testing.assert_allclose(grads, np.array([[0.5, 1.0], [-1.0, 0.25]]) / 4)


def test_critic_loss_ignores_what_follows_a_termination():
    bootstrap = shared.n_step_return(jnp.ones((1, 3)), jnp.array([[False, True, False]]), 0.9)
    for next_value in (0.0, 1e6):
        target = losses.critic_target(*bootstrap, jnp.full((1, 2), next_value), 1.0, 1.0)
        assert float(losses.critic_loss(jnp.zeros((1, 2)), target)) == pytest.approx(1.9 - 0.5)


def test_lap_priority():
    values, target = jnp.array([[1.0, 6.0], [0.2, 0.1]]), jnp.array([2.0, 0.0])
    np.testing.assert_allclose(losses.lap_priority(values, target, 1.0, 0.4), [4.0**0.4, 1.0])


def test_two_hot_interpolates_between_neighbours_and_clips_outside():
    bins = jnp.array([-2.0, 0.0, 1.0, 5.0])
    codes = losses.two_hot(jnp.array([0.25, 1.0, 5.0, 4.0, -9.0, 9.0]), bins)
    expected = [
        [0, 0.75, 0.25, 0],
        [0, 0, 1, 0],
        [0, 0, 0, 1],
        [0, 0, 0.25, 0.75],
        [1, 0, 0, 0],
        [0, 0, 0, 1],
    ]
    np.testing.assert_allclose(codes, expected, atol=1e-7)


@pytest.mark.parametrize("value", [-300.0, -1.7, 0.0, 0.02, 3.3, 5000.0])
def test_two_hot_decodes_to_the_value(value):
    bins = losses.symexp_bins(65, 10.0)
    code = losses.two_hot(jnp.array(value), bins)
    assert float(code.sum()) == pytest.approx(1.0)
    assert float(code @ bins) == pytest.approx(value, rel=1e-4, abs=1e-5)


def test_symexp_bins_of_the_published_size():
    bins = np.asarray(losses.symexp_bins(65, 10.0), np.float64)
    assert bins[32] == 0.0
    assert bins[33] == pytest.approx(np.expm1(20 / 64), rel=1e-5)
    assert bins[-1] == pytest.approx(22025.5, rel=1e-5)
    np.testing.assert_allclose(bins, -bins[::-1])


def identity_encoder():
    """zs is the observation, zsa adds the action; the head predicts zsa and a constant reward."""
    return Encoder(
        init=None,
        zs=lambda params, observation: observation,
        zsa=lambda params, zs, action: zs + action,
        predict=lambda params, zsa: Prediction(
            terminal=jnp.full(zsa.shape[:-1], params["terminal"]),
            next_zs=zsa,
            reward_logits=jnp.zeros((*zsa.shape[:-1], 2)),
        ),
        activity=None,
        zs_operations=None,
    )


def encoder_terms(terminated, terminal=0.25, **changes):
    weights = losses.EncoderLossWeights(1.0, 0.1, 0.1)
    arrays = {
        "observation": jnp.array([[1.0]]),
        "action": jnp.array([[[1.0], [2.0]]]),
        "reward": jnp.array([[0.0, 1.0]]),
        "terminated": jnp.array([terminated]),
        "target_zs": jnp.array([[[1.5], [7.0]]]),
    }
    return losses.encoder_loss(
        {"terminal": jnp.array(terminal)},
        identity_encoder(),
        **{**arrays, **changes},
        bins=jnp.array([0.0, 1.0]),
        weights=weights,
    )


def test_encoder_loss_sums_over_the_unrolled_steps():
    loss, terms = encoder_terms([False, False])  # predictions 2 and 4 against 1.5 and 7
    assert float(terms["dynamics"]) == pytest.approx(0.25 + 9.0)
    assert float(terms["reward"]) == pytest.approx(2 * np.log(2.0), rel=1e-6)
    assert float(terms["terminal"]) == pytest.approx(2 * 0.0625)
    assert float(loss) == pytest.approx(9.25 + 0.1 * 2 * np.log(2.0) + 0.1 * 0.125, rel=1e-6)


def test_encoder_loss_counts_the_terminal_step_and_nothing_after_it():
    _, terms = encoder_terms([True, False])
    assert float(terms["dynamics"]) == pytest.approx(0.25)
    assert float(terms["reward"]) == pytest.approx(np.log(2.0), rel=1e-6)
    assert float(terms["terminal"]) == pytest.approx(0.75**2)


def actor_loss(zs):
    critic = Critic(
        init=None, apply=lambda params, zsa: jnp.concatenate([zsa, 3 * zsa], -1), activity=None
    )
    actor = Actor(init=None, apply=lambda params, zs: params * zs, activity=None, operations=None)
    encoder = identity_encoder()
    return losses.actor_loss(jnp.array(2.0), actor, critic, encoder, None, None, zs, jnp.tanh, 0.5)


def test_actor_loss_means_both_heads_and_penalises_the_pre_activation():
    loss = actor_loss(jnp.ones((4, 1)))
    zsa = 1 + np.tanh(2.0)
    assert float(loss) == pytest.approx(-2 * zsa + 0.5 * 4.0, rel=1e-6)


def test_target_action_clips_noise_and_action():
    outputs, noise = jnp.array([[0.0], [5.0], [0.0]]), jnp.array([[0.9], [0.2], [-0.1]])
    policy = TanhPolicy(1, MRQConfig(target_noise=1.0))
    actions = policy.target(outputs, (noise,))
    np.testing.assert_allclose(actions[:, 0], [0.3, 1.0, -0.1], atol=1e-7)


def test_published_returns_lose_the_reward_of_the_terminating_step():
    reward, terminated = jnp.array([[1.0, 10.0, 100.0]]), jnp.array([[False, True, False]])
    returns = losses.published_return(reward, terminated, 0.5)
    np.testing.assert_allclose(returns, [1.0 + 25.0])


COLUMN, ROW, TWO = jnp.ones((4, 1)), jnp.ones(4), jnp.ones((4, 2))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: shared.critic_loss(COLUMN, COLUMN),
        lambda: shared.critic_loss(TWO, jnp.ones(3)),
        lambda: shared.td_target(COLUMN, ROW, TWO, 0.0, 0.9),
        lambda: shared.td_target(ROW, COLUMN, TWO, 0.0, 0.9),
        lambda: shared.td_target(ROW, ROW, TWO, COLUMN, 0.9),
        lambda: shared.actor_loss(ROW),
        lambda: shared.actor_loss(TWO, COLUMN),
        lambda: shared.temperature_loss(jnp.zeros(()), ROW, -1.0),
        lambda: losses.critic_loss(TWO, COLUMN),
        lambda: losses.critic_target(COLUMN, ROW, TWO, jnp.ones(()), jnp.ones(())),
        lambda: losses.critic_target(ROW, ROW, TWO, ROW, jnp.ones(())),
        lambda: shared.n_step_return(TWO, jnp.zeros(4, bool), 0.9),
        lambda: losses.lap_priority(TWO, COLUMN, 1.0, 0.4),
        lambda: encoder_terms([False, False], observation=jnp.ones((1, 1, 1))),
        lambda: encoder_terms([False, False], observation=jnp.ones(1)),
        lambda: encoder_terms([False, False], action=jnp.ones((1, 2))),
        lambda: encoder_terms([False, False], reward=jnp.ones((1, 2, 1))),
        lambda: encoder_terms([[False], [False]]),
        lambda: encoder_terms([False, False], target_zs=jnp.ones((1, 2))),
        lambda: encoder_terms([False, False, False]),
        lambda: actor_loss(ROW),
        lambda: actor_loss(jnp.ones((2, 4, 1))),
    ],
)
def test_a_loss_refuses_arrays_of_another_rank(wrong):
    """Fault E3: they would broadcast, and every number would be wrong in silence."""
    with pytest.raises(AssertionError):
        wrong()
