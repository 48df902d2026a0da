"""Agents in compact storage: as in masked storage, alone and among seeds; refusals; whole runs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_runs import (
    POINT,
    conditionals_of_a_step,
    resumed_exactly,
    sizes_of,
    small_config,
    small_settings,
    start_run,
)

import mst_jax
from mst_jax import diagnostics, topology
from mst_jax.agents import AGENTS, Clock, Sizes, check, make_agent, roles_of, shared_settings
from mst_jax.analysis import read_layers
from mst_jax.export import load_exported
from mst_jax.program.state import between_steps
from mst_jax.recipes import make_config, override
from mst_jax.runs.history import read_history
from mst_jax.training import load_policy, plan_run, train

SIZES = Sizes.vector(6, 2, 500)
UPDATES, INTERVAL = 50, 10
SHARED = {"critic.structure": "shared8", "actor.structure": "shared8", "actor.hidden": 16}


def config_of(agent, recipe, storage):
    config = override(small_config(recipe, agent), SHARED | {"critic.interval": INTERVAL})
    config = override(config, {f"{name}.storage": storage for name in ("critic", "actor")})
    return override(config, {f"{name}.sparsity": 0.6 for name in ("critic", "actor")})


def learned(agent, recipe, storage):
    """Two seeds after each of 25 calls of `learn`, two updates each, on the same experience."""
    config = config_of(agent, recipe, storage)
    _, agent, run = start_run(POINT, config, [0, 1], config.learning_starts, agent=agent)
    experience = between_steps(run)
    learn = jax.jit(jax.vmap(agent.learn, (0, 0, 0, None)))
    keys = jax.random.split(jax.random.key(0), 2)
    states = [run.agent]
    for number in range(UPDATES // config.updates_per_step):
        clock = Clock(jnp.int32(config.learning_starts), jnp.int32(number))
        states.append(learn(states[-1], experience, keys, clock)[0])
    return agent, run, states


def whole(state):
    """Parameters and targets of all modules, and masks."""
    targets = [getattr(state, name, ()) for name in ("target_critic", "target_actor")]
    masks = {name: topology.masks(own) for name, own in state.opt_state.items() if name in MODULES}
    return topology.densified((state.params, targets)), topology.densified(masks)


MODULES = ("critic", "actor")


@pytest.mark.parametrize(
    "agent", ["sac", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ddpg", "td3"))]
)
def test_fifty_updates_are_those_of_masked_storage(agent):
    """RigL in the critic and static in the actor; two seeds."""
    built, run, compact = learned(agent, "mst", "compact")
    _, _, masked = learned(agent, "mst", "masked")
    assert isinstance(
        compact[0].params["critic"]["q1"]["trunk"]["block_1"]["expand"]["kernel"], topology.Shared
    )
    moved = 0
    for one, other, before in zip(compact[1:], masked[1:], compact, strict=False):
        (params, masks), (wanted, wanted_masks) = whole(one), whole(other)
        jax.tree.map(np.testing.assert_array_equal, masks, wanted_masks)
        close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
        jax.tree.map(close, params, wanted)
        old = whole(before)[1]
        moved += any(
            (a != b).any()
            for a, b in zip(jax.tree.leaves(old), jax.tree.leaves(masks), strict=True)
        )
    assert moved == UPDATES // INTERVAL - 1
    for name in MODULES:
        topology.check(compact[-1].params[name], compact[-1].opt_state[name], built.plans[name])
    predicates = {c.invars[0].aval.shape for c in conditionals_of_a_step(built, run)}
    assert predicates == {()}


@pytest.mark.parametrize("agent", sorted(AGENTS))
def test_every_agent_takes_it_or_says_why_not(agent):
    names = roles_of(make_config(agent, "dense"))
    base = override(make_config(agent, "dense"), {f"{name}.hidden": 64 for name in names})
    of_critic = {"critic.regime": "rigl", "critic.sparsity": 0.8, "critic.structure": "shared16"}
    config = override(base, {**of_critic, "critic.storage": "compact"})
    refused = {"stream_ac": "eligibility traces", "der": "is noisy"}
    build = functools.partial(make_agent, agent, config, sizes_of(agent, SIZES), 20_000)
    if agent in refused:
        with pytest.raises(ValueError, match=refused[agent]) as error:
            build()
        assert "\n" not in str(error.value)
        return
    built = build()
    assert "compact" in str(built.plans["critic"])
    shapes = jax.eval_shape(built.init, jax.random.key(0))
    masked = make_agent(
        agent, override(config, {"critic.storage": "masked"}), sizes_of(agent, SIZES), 20_000
    )
    sizes = [
        sum(leaf.size for leaf in jax.tree.leaves(state.opt_state["critic"]) if leaf.ndim > 1)
        for state in (shapes, jax.eval_shape(masked.init, jax.random.key(0)))
    ]
    assert sizes[0] < 0.6 * sizes[1]


@pytest.mark.parametrize(
    ("agent", "changes", "line"),
    [
        (
            "sac",
            {"critic.structure": "fan_in"},
            r"critic\.storage=compact needs neurons that share",
        ),
        (
            "sac",
            {"critic.structure": "shared1"},
            r"critic\.storage=compact needs neurons that share",
        ),
        ("sac", {"critic.regime": "snfs"}, r"is for critic\.regime=static, set, rigl"),
        ("sac", {"critic.regime": "granet"}, "and not granet"),
        ("sac", {"critic.storage": "csr"}, r"critic\.storage='csr' is unknown"),
        (
            "sac",
            {"critic.regime": "dense", "critic.structure": "unstructured", "critic.sparsity": 0.0},
            r"critic\.storage=compact has no effect with critic\.regime=dense",
        ),
        (
            "mrq",
            {
                f"encoder.{k}": v
                for k, v in (
                    ("regime", "rigl"),
                    ("sparsity", 0.5),
                    ("structure", "shared16"),
                    ("storage", "compact"),
                )
            },
            "the encoder is unrolled",
        ),
        (
            "drqv2",
            {
                f"encoder.{k}": v
                for k, v in (
                    ("regime", "static"),
                    ("sparsity", 0.5),
                    ("structure", "shared16"),
                    ("storage", "compact"),
                )
            },
            "no kernel of a linear layer",
        ),
    ],
)
def test_impossible_settings_are_one_line(agent, changes, line):
    base = override(make_config(agent, "mst"), {"critic.structure": "shared16"})
    config = override(base, {"critic.storage": "compact", **changes})
    with pytest.raises(ValueError, match=line) as error:
        make_agent(agent, config, sizes_of(agent, SIZES), 20_000)
    assert "\n" not in str(error.value)


def test_runs_of_other_sparsities_are_programs_of_their_own():
    compact, masked = (config_of("sac", "mst", storage) for storage in ("compact", "masked"))
    sparser = [override(config, {"critic.sparsity": 0.8}) for config in (compact, masked)]
    assert shared_settings(compact) != shared_settings(sparser[0])
    assert shared_settings(masked) == shared_settings(sparser[1])


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["sac", "td3", "mrq", "drqv2"])
def test_the_contract_holds_in_compact_storage(agent):
    base = small_config("mst", agent)
    own = {"critic.structure": "shared4", "critic.storage": "compact", "critic.sparsity": 0.5}
    config = override(base, {**own, "critic.interval": 1, "critic.regime": "rigl"})
    assert check(agent, config, sizes_of(agent, SIZES)) == []


@pytest.mark.slow
def test_a_run_resumes_is_exported_and_looked_at_as_with_masks(tmp_path, monkeypatch):
    config = config_of("sac", "mst", "compact")
    settings = small_settings(config=config, history_every=60, diagnose_every=100)
    folder = resumed_exactly(settings, tmp_path / "exact", monkeypatch, 100)
    masked = train(
        plan_run(
            small_settings(config=config_of("sac", "mst", "masked"), history_every=60),
            tmp_path / "masked",
        )
    ).folder
    ours, theirs = read_history(folder), read_history(masked)
    assert (ours.layers, ours.sizes) == (theirs.layers, theirs.sizes)
    for layer in ours.layers:  # before the first update nothing can differ
        np.testing.assert_array_equal(ours.masks(layer)[:, 0], theirs.masks(layer)[:, 0])
        assert (ours.masks(layer)[:, 0] != ours.masks(layer)[:, -1]).any()
    shapes = {path: mask.shape for path, mask in read_layers(folder).masks.items()}
    assert shapes == {path: mask.shape for path, mask in read_layers(masked).masks.items()}
    policy = load_policy(folder)
    exported = mst_jax.export_policy(folder, tmp_path / "policy.npz")
    observation = np.random.default_rng(0).normal(size=(POINT.spec.observation.size,))
    own = np.asarray(policy.act(observation.astype(np.float32)))
    played = load_exported(exported).act(observation.astype(np.float32))
    np.testing.assert_allclose(own, played, atol=1e-5)


@pytest.mark.slow
def test_diagnostics_are_those_of_masked_storage():
    rows = {}
    for storage in ("compact", "masked"):
        agent, run, states = learned("sac", "mst", storage)
        one = jax.tree.map(lambda leaf: leaf[0], (states[2], between_steps(run)))
        rows[storage] = jax.jit(functools.partial(diagnostics.diagnose, agent))(
            *one, jax.random.key(1)
        )
    assert rows["compact"].keys() == rows["masked"].keys()
    for name, value in rows["masked"].items():
        np.testing.assert_allclose(rows["compact"][name], value, rtol=1e-3, atol=1e-4, err_msg=name)
