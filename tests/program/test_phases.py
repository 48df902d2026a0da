"""Agents that do not learn at every step, and agents without replay (docs/design.md §3.4)."""

import dataclasses
import functools
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fake_host_envs import Counter
from flax import struct
from small_runs import (
    by_default,
    metrics_without_wall_clock,
    resumed_exactly,
    small_config,
    small_settings,
)

from mst_jax import envs, networks
from mst_jax.agents import AGENTS, Agent, Experience, ModuleConfig, Occasional, make_agent
from mst_jax.agents.base import Probe, learn_calls
from mst_jax.agents.parts.modules import module
from mst_jax.agents.parts.trained import Trained, make_trained, replaced
from mst_jax.agents.parts.vectors import vector_sizes
from mst_jax.agents.registry import Entry
from mst_jax.envs.host.vector import WorkerVectorEnv
from mst_jax.envs.suites import probe
from mst_jax.program.arrays import loop_from_arrays, loop_to_arrays
from mst_jax.program.drivers import make_driver
from mst_jax.program.evaluation import make_evaluator
from mst_jax.program.state import init_loop
from mst_jax.program.step import Phase, phase_of
from mst_jax.runs import checkpoints
from mst_jax.runs.arrays import fingerprint
from mst_jax.training import plan_run


def host_task():
    return envs.HostTask(
        Counter.spec, functools.partial(WorkerVectorEnv, Counter.spec, functools.partial(Counter))
    )


def test_what_follows_a_step():
    agent = make_agent("ddpg", small_config("dense", "ddpg"), Counter.spec, 200)
    agent = agent._replace(learning_starts=3, learn_every=2)
    explore, act, learn = Phase.EXPLORE, Phase.ACT, Phase.LEARN
    assert [phase_of(agent, step) for step in range(8)] == [explore] * 3 + [learn, act] * 2 + [
        learn
    ]
    for steps in range(12):
        made = sum(phase_of(agent, step) is learn for step in range(steps))
        assert learn_calls(steps, 3, 2) == made


@pytest.mark.parametrize("task", by_default(["host"], ["probe:point", "host"]))
def test_learning_every_second_step_does_not_depend_on_log_periods(task):
    """Periods of 7 and 50 steps, and a kill at an odd step of each environment."""
    task = host_task() if task == "host" else envs.make(task)
    agent = make_agent("ddpg", small_config("mst", "ddpg"), task.spec, 200)
    agent = agent._replace(learn_every=2)
    driver, first = make_driver(agent, task, [0, 1], 500, np.float32)
    like, begin = jax.eval_shape(lambda: first), loop_to_arrays(first)
    start = driver.snapshot()

    def played(pieces, loop):
        for count in pieces:
            loop = driver.advance(loop, count, lambda: False, lambda _: None)
        return loop

    try:
        ends = []
        for pieces in ([7] * 16 + [2], [50, 50, 14]):
            driver.restore(start)
            ends.append(played(pieces, loop_from_arrays(begin, like)))
        driver.restore(start)
        odd = played([50, 41], loop_from_arrays(begin, like))
        saved, worlds = loop_to_arrays(odd), driver.snapshot()
        played([3], odd)
        driver.restore(worlds)
        ends.append(played([23], loop_from_arrays(saved, like)))
    finally:
        driver.close()
    assert {int(end.clock.step) for end in ends} == {114}
    assert {int(end.clock.update) for end in ends} == {25}
    assert len({fingerprint(loop_to_arrays(end)) for end in ends}) == 1


@dataclass
class Config:
    """Settings of `Tracker`."""

    policy: ModuleConfig = module("policy", partial(ModuleConfig, hidden=8, depth=1))
    learning_starts: int = 0

    def validate(self) -> None:
        self.policy.validate("policy")


@struct.dataclass
class State:
    """`shown` and `begun` count observations and first ones; `surprise` is the last |reward|."""

    params: Any
    opt_state: Any
    shown: Any
    begun: Any
    surprise: Any


@dataclass(frozen=True)
class Tracker:
    """Learns from the latest transition: its policy's first action goes towards the reward."""

    actor: networks.Actor
    trained: Trained

    def init(self, key, numbers=None):
        zero = jnp.zeros((), jnp.int32)
        return State(*self.trained.init(key, numbers), zero, zero, jnp.zeros(()))

    def observe(self, state, observation, first):
        begun = state.begun + jnp.sum(first, dtype=jnp.int32)
        return state.replace(shown=state.shown + len(observation), begun=begun)

    def act(self, state, observation, key, clock):
        action = 3.0 * jnp.tanh(self.actor.apply(state.params["policy"], observation))
        return action if key is None else action + jax.random.normal(key, action.shape)

    def loss(self, params, sample):
        observation, reward = sample
        return jnp.square(self.actor.apply(params, observation)[..., 0] - reward).mean()

    def learn(self, state, experience, key, clock):
        latest = experience.latest
        assert experience.replay is None
        sample = (latest.observation, latest.reward)
        params = state.params["policy"]
        loss, grads = jax.value_and_grad(self.loss)(params, sample)
        new = self.trained.step("policy", grads, params, state.opt_state["policy"], clock.update)
        state = replaced(state, "policy", *new)
        state = state.replace(surprise=jnp.abs(latest.reward).max())
        odd = clock.update % 2
        metrics = {"far": jnp.abs(latest.action).max(), "odd": Occasional(clock.update * odd, odd)}
        return state, None, {"policy/loss": loss, **metrics}


def make(config, sizes, total_steps, plans=None):
    actor = networks.make_actor(*vector_sizes(sizes), config.policy.architecture())
    trained = make_trained(config, {"policy": actor.init}, {"policy": total_steps}, plans)
    tracker = Tracker(actor, trained)
    return Agent(
        init=tracker.init,
        observe=tracker.observe,
        act=tracker.act,
        reset=lambda state, key: state,
        learn=tracker.learn,
        parameters=lambda state: state.params,
        acting=("params",),
        masks=lambda state: trained.masks(state.opt_state),
        modules=trained.modules,
        discount=0.99,
        learning_starts=config.learning_starts,
        observes_start=True,
    )


@pytest.fixture
def tracker(monkeypatch):
    monkeypatch.setitem(AGENTS, "tracker", Entry(Config, make))
    static = ModuleConfig(hidden=8, depth=1, regime="static", sparsity=0.5)
    return dataclasses.replace(
        small_settings(agent="ddpg"),
        agent="tracker",
        config=Config(static),
        steps=60,
        eval_every=30,
        log_every=20,
        checkpoint_every=0,
        diagnose_every=30,
    )


@pytest.mark.slow
def test_an_agent_without_replay_runs_and_resumes_exactly(tracker, tmp_path, monkeypatch):
    folder = resumed_exactly(tracker, tmp_path, monkeypatch, 20)
    rows = metrics_without_wall_clock(folder)
    arrays = checkpoints.load_newest(folder / "checkpoints", checkpoints.FULL).arrays
    assert not [name for name in arrays if name.startswith("buffer")], "nothing is stored"
    assert arrays["agent/shown"].tolist() == [61, 61], "with the very first observation"
    assert (arrays["agent/begun"] >= 1).all()
    assert np.isfinite(arrays["agent/surprise"]).all()
    assert arrays["clock/update"] == 60
    kinds = {kind: [r for r in rows["seed_0"] if r["kind"] == kind] for kind in ("eval", "train")}
    assert all("value_bias" not in row for row in kinds["eval"])
    assert [row["odd"] for row in kinds["train"]] == [10, 30, 50], "means over odd updates alone"
    assert max(row["far"] for row in kinds["train"]) > 1, "what was drawn, not what was carried out"
    (row, _) = [row for row in rows["seed_0"] if row["kind"] == "diagnostics"]
    assert {name for name in row if "/" in name} == {"policy/dead_inputs", "policy/dead_outputs"}


def test_what_an_agent_does_not_have_is_refused_in_one_line(tracker, tmp_path, monkeypatch):
    asked = dataclasses.replace(tracker, gradient_covariance=True)
    with pytest.raises(ValueError, match="needs an agent that can be probed, which tracker cannot"):
        plan_run(asked, tmp_path)
    late = lambda *args: make(*args)._replace(learning_starts=60)  # noqa: E731
    monkeypatch.setitem(AGENTS, "late", Entry(Config, late))
    with pytest.raises(ValueError, match="steps=60 must exceed 60, after which late begins"):
        plan_run(dataclasses.replace(tracker, agent="late"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_run_that_learns_at_once_begins_with_the_agents_own_action(tracker):
    """And a probe alone has a small ring kept for it, which `learn` is not shown."""
    env = envs.make("probe:point")
    agent = make(tracker.config, env.spec, 60)

    def probes(state, experience: Experience, key, batch_size):
        view = experience.replay
        batch = view.transition(view.sample(key, batch_size), 1)
        params = state.params["policy"]
        masks = agent.masks(state)["policy"]
        return {"policy": Probe(params, masks, None, batch, None)}

    keys = jax.random.split(jax.random.key(0), 2)
    environment, observation = jax.vmap(env.reset)(keys)
    start = partial(init_loop, seeds=[0, 1], sizes=env.spec)
    bare = start(agent, capacity=0, observation=observation, environment=environment)
    assert bare.buffer is None
    mean = jax.vmap(lambda s, o: agent.act(s, o, None, None))(bare.agent, observation)
    assert np.abs(bare.action - mean).max() < 5
    assert np.abs(bare.action).max() > 1 or (np.asarray(bare.action) != np.asarray(mean)).any()
    looked_at = agent._replace(probe=probes)
    kept = start(looked_at, capacity=50, observation=observation, environment=environment)
    assert kept.buffer.reward.shape == (2, 50)
    np.testing.assert_array_equal(kept.action, bare.action)
    waiting = agent._replace(learning_starts=5)
    uniform = start(waiting, capacity=0, observation=observation, environment=environment)
    assert np.abs(uniform.action).max() <= 1
    still = waiting._replace(explore=lambda state, observation, key, clock: 7 + 0 * observation[:2])
    still = start(still, capacity=0, observation=observation, environment=environment)
    assert (np.asarray(still.action) == 7).all()


def test_an_evaluation_has_random_numbers_of_its_own(tracker):
    """Equal when it is repeated, different in another evaluation, episode and seed."""
    env = probe.action_reward(length=2).env
    agent = make(tracker.config, env.spec, 60)
    agent = agent._replace(evaluate=lambda state, observation, key: jax.random.uniform(key, (1,)))
    states = jax.vmap(agent.init)(jax.random.split(jax.random.key(0), 2))
    play = make_evaluator(agent, env, [0, 1], 2)
    first, again, other = (play(states, index) for index in (0, 0, 1))
    np.testing.assert_array_equal(first.returns, again.returns)
    assert len(np.unique([first.returns, other.returns])) == 8
    assert np.isnan(first.value_bias).all()
