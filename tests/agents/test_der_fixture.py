"""Three updates of DER as the reference program made them (tests/data/der_step.npz).

It was recorded in float64, where the agent's functions agree to 5e-8: the reference rounds the
discount of n steps to float32. In float32, as runs have it, they agree to 2e-5.
"""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from der_recording import agent_of, masked, noises_of, params_of, view_of
from recordings import drawing, load
from small_runs import by_default

from mst_jax.agents import Clock, Experience
from mst_jax.agents.rainbow import losses

RECORDED = load("der_step")
KEY, INDICES = jax.random.key(0), np.arange(len(RECORDED["states"]))
TOLERANCE = {"float64": 5e-8, "float32": 2e-5}
EVERY_DTYPE = pytest.mark.parametrize("dtype", by_default(["float64"], TOLERANCE))


def close(found, wanted, dtype):
    """Leaf by leaf."""
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for own, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert np.asarray(own).dtype == dtype
        np.testing.assert_allclose(own, theirs, rtol=0, atol=TOLERANCE[dtype])


def recorded_as(dtype):
    """The recording, its numbers in this dtype."""
    cast = lambda array: array.astype(dtype) if array.dtype == np.float64 else array  # noqa: E731
    return {name: cast(array) for name, array in RECORDED.items()}


def host(tree):
    return jax.tree.map(np.asarray, tree)


@cache
def computed(dtype):
    """What the agent makes of the recorded batch and noise."""
    with jax.enable_x64(dtype == "float64"), pytest.MonkeyPatch.context() as patch:
        recorded = recorded_as(dtype)
        agent, state = agent_of(recorded)
        with drawing(patch, noises_of(recorded, agent, "loss", "target")):
            batch = agent.batch(view_of(recorded), jnp.asarray(INDICES), KEY)

        def forward(state, batch):
            following = [
                agent.logits(params, batch.next_observation, batch.next_noise)
                for params in (state.params, state.target_params)
            ]
            logits = agent.logits(state.params, batch.observation, batch.noise)
            still = agent.logits(state.params, batch.observation, None)
            target = agent.target(state, batch)
            (loss, (_, of_action)), grads = jax.value_and_grad(agent.loss, has_aux=True)(
                state.params, batch, target
            )
            return {
                "logits": logits,
                "probabilities": jax.nn.softmax(logits),
                "q_values": agent.values(logits),
                "q_values_no_noise": agent.values(still),
                "next_q_online": agent.values(following[0]),
                "next_probabilities_target": jax.nn.softmax(following[1]),
                "target_distribution": target,
                "loss_1": agent.sample_losses(of_action, target),
                "mean_loss_1": loss,
                "gradient": grads,
                "priorities": agent.priorities(of_action, target),
                "n_step_return": batch.returns,
                "bootstrap": batch.bootstrap,
                "loss_weights": batch.weight,
            }

        return host(jax.jit(forward)(state, batch))


@EVERY_DTYPE
@pytest.mark.parametrize(
    "name",
    [
        *("logits", "probabilities", "q_values", "q_values_no_noise", "next_q_online"),
        *("next_probabilities_target", "target_distribution", "loss_1", "mean_loss_1"),
        *("priorities", "n_step_return", "loss_weights"),
    ],
)
def test_numbers_of_one_update(dtype, name):
    close(computed(dtype)[name], RECORDED[name], dtype)


@EVERY_DTYPE
def test_its_gradient(dtype):
    close(computed(dtype)["gradient"], host(params_of(RECORDED, "gradient")), dtype)


@EVERY_DTYPE
def test_the_online_network_chooses_the_next_action(dtype):
    """As the target network would here: test_der.py tells them apart."""
    chosen = computed(dtype)["next_q_online"].argmax(axis=-1)
    np.testing.assert_array_equal(chosen, RECORDED["next_action"])


@EVERY_DTYPE
def test_windows_end_at_terminations(dtype):
    bootstrap = RECORDED["discount"] ** RECORDED["n"] * ~RECORDED["terminal"]
    close(computed(dtype)["bootstrap"], bootstrap, dtype)


@EVERY_DTYPE
def test_projections_of_distributions(dtype):
    """Beyond both ends, onto itself, shrunk and moved, and all at one point."""
    with jax.enable_x64(dtype == "float64"):
        names = ("projection_supports", "projection_weights", "support")
        places, weights, support = (jnp.asarray(RECORDED[name], dtype) for name in names)
        found = host(losses.projected(places, weights, support))
    close(found, RECORDED["projection"], dtype)
    totals = RECORDED["projection_weights"].sum(axis=1)
    np.testing.assert_allclose(found.sum(axis=1), totals, rtol=1e-6)


def learned(dtype, updates, **changes):
    """The state after so many calls of `learn` on the recorded batch, and what they returned."""
    with jax.enable_x64(dtype == "float64"), pytest.MonkeyPatch.context() as patch:
        recorded = recorded_as(dtype)
        agent, state = agent_of(recorded, **changes)
        masks = None
        if changes:
            state, masks = masked(recorded, state)
        view = view_of(recorded)
        learn = jax.jit(lambda state, clock: agent.learn(state, Experience(None, view), KEY, clock))
        states, outcomes = [state], []
        with drawing(patch, noises_of(recorded, agent, "loss", "target")):  # in the one trace
            for number in range(updates):
                clock = Clock(jnp.int32(number + 1), jnp.int32(number))
                state, *outcome = learn(state, clock)
                states.append(state)
                outcomes.append(outcome)
        return host(states), host(outcomes), host(masks)


three_updates = cache(lambda dtype: learned(dtype, 3))


@EVERY_DTYPE
def test_parameters_and_losses_of_three_updates(dtype):
    states, outcomes, _ = three_updates(dtype)
    for number in (1, 3):
        close(states[number].params, host(params_of(RECORDED, f"after_{number}")), dtype)
        close(states[number].target_params, host(params_of(RECORDED, "target")), dtype)
    for number, (feedback, metrics) in enumerate(outcomes, start=1):
        close(metrics["critic/loss"], RECORDED[f"mean_loss_{number}"], dtype)
        np.testing.assert_array_equal(feedback.indices, INDICES)
        wanted = np.sqrt(RECORDED[f"loss_{number}"] + 1e-10)
        close(feedback.priorities, wanted, dtype)


STATIC = {
    f"{module}.{name}": value
    for module in ("encoder", "critic")
    for name, value in (("regime", "static"), ("sparsity", 0.5))
}


@EVERY_DTYPE
def test_a_step_under_masks(dtype):
    """Mean and scale of a noisy weight have the same mask; the gradient is dense all the same."""
    (before, after), ((feedback, _),), masks = learned(dtype, 1, **STATIC)
    wanted = params_of(RECORDED, "sparse_after_1")
    close(after.params, host(wanted), dtype)
    for params, mask in zip(jax.tree.leaves(after.params), jax.tree.leaves(masks), strict=True):
        assert (params[~mask] == 0).all()
    close(feedback.priorities, np.sqrt(RECORDED["sparse_loss"] + 1e-10), dtype)
    with jax.enable_x64(dtype == "float64"), pytest.MonkeyPatch.context() as patch:
        recorded = recorded_as(dtype)
        agent, _ = agent_of(recorded)
        with drawing(patch, noises_of(recorded, agent, "loss", "target")):
            batch = agent.batch(view_of(recorded), jnp.asarray(INDICES), KEY)
        target = jax.jit(agent.target)(before, batch)
        grads = host(jax.jit(jax.grad(lambda p: agent.loss(p, batch, target)[0]))(before.params))
    close(host(target), RECORDED["sparse_target_distribution"], dtype)
    close(grads, host(params_of(RECORDED, "sparse_dense_gradient")), dtype)
    outside = [(g != 0)[~m] for g, m in zip(*map(jax.tree.leaves, (grads, masks)), strict=True)]
    assert np.concatenate(outside).mean() > 0.5
