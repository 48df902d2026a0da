"""Agents in compact storage: as in masked storage, alone and among seeds; refusals; whole runs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_runs import (
    POINT,
    equations,
    resumed_exactly,
    sizes_of,
    small_config,
    small_settings,
    start_run,
)

import mst_jax
from mst_jax import diagnostics, topology
from mst_jax.agents import AGENTS, Sizes, check, make_agent, roles_of, shared_settings
from mst_jax.agents.actor_critic.core import Batch
from mst_jax.agents.actor_critic.ddpg import build_ddpg
from mst_jax.agents.actor_critic.sac import build_sac
from mst_jax.agents.actor_critic.td3 import build_td3
from mst_jax.analysis import read_layers
from mst_jax.export import load_exported
from mst_jax.program.recycling import check_recyclable
from mst_jax.program.state import between_steps
from mst_jax.recipes import make_config, override
from mst_jax.runs.history import read_history
from mst_jax.topology.mask_tree import named_leaves
from mst_jax.training import load_policy, plan_run, train

MODULES = ("critic", "actor")
BUILD = {"sac": build_sac, "ddpg": build_ddpg, "td3": build_td3}
SIZES = Sizes.vector(6, 2, 500)
UPDATES, INTERVAL = 50, 10
KEYS = jax.random.split(jax.random.key(7), 2)
SHARED = {"critic.structure": "shared8", "actor.structure": "shared8", "actor.hidden": 16}


def config_of(agent, recipe, storage):
    config = override(small_config(recipe, agent), SHARED | {"critic.interval": INTERVAL})
    config = override(config, {f"{name}.storage": storage for name in ("critic", "actor")})
    return override(config, {f"{name}.sparsity": 0.6 for name in ("critic", "actor")})


def learned(agent, recipe, storage):
    """The algorithm, two seeds' last state, and what they stored before and after every update."""
    built = BUILD[agent](config_of(agent, recipe, storage), SIZES, 10_000)

    def update(state, number):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(1), number), 2)
        each = jax.vmap(built.update, (0, None, 0, None))
        new, _ = each(state, batch_of(keys[0]), keys, number)
        return new, (stored(state), stored(new))

    def run(keys):
        state = jax.vmap(built.agent().init)(keys)
        return jax.lax.scan(update, state, jnp.arange(UPDATES))

    return built, *jax.jit(run)(KEYS)


def batch_of(key, size=16):
    observation, following = jax.random.normal(key, (2, size, 6))
    action = jax.random.uniform(key, (size, 2), minval=-1, maxval=1)
    terminated = jnp.arange(size) == 3
    return Batch(observation, action, observation[:, 0], terminated, following)


def stored(state):
    """Parameters, targets and masks of all modules."""
    targets = [getattr(state, name, ()) for name in ("target_critic", "target_actor")]
    return state.params, targets, {n: topology.masks(state.opt_state[n]) for n in MODULES}


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["sac", "ddpg", "td3"])
def test_fifty_updates_are_those_of_masked_storage(agent):
    """RigL in the critic and static in the actor; two seeds."""
    built, last, compact = learned(agent, "mst", "compact")
    _, _, masked = learned(agent, "mst", "masked")
    kernel = last.params["critic"]["q1"]["trunk"]["block_1"]["expand"]["kernel"]
    assert isinstance(kernel, topology.Shared)
    (*params, masks), (*wanted, wanted_masks) = (
        topology.densified(seen[1]) for seen in (compact, masked)
    )
    jax.tree.map(np.testing.assert_array_equal, masks, wanted_masks)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
    jax.tree.map(close, params, wanted)
    before = jax.tree.leaves(topology.densified(compact[0][2]["critic"]))
    pairs = list(zip(before, jax.tree.leaves(masks["critic"]), strict=True))
    moves = [any((a[n] != b[n]).any() for a, b in pairs) for n in range(UPDATES)]
    assert moves == [n % INTERVAL == 0 < n for n in range(UPDATES)]
    for name in MODULES:
        plan = built.core.trained.modules[name].plan
        topology.check(last.params[name], last.opt_state[name], plan)
    one = jax.vmap(built.update, (0, None, 0, None))
    traced = jax.make_jaxpr(one)(last, batch_of(KEYS[0]), KEYS, jnp.int32(0))
    predicates = [equation.invars[0].aval.shape for equation in equations(traced.jaxpr, "cond")]
    assert set(predicates) == {()}


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
    plan, shapes = built.plans["critic"], jax.eval_shape(built.init, jax.random.key(0))
    counts = {
        f"{path}/values": int(plan.groups[g].table.target[0, column])
        for path, (g, column, entry) in plan.entries().items()
        if entry.compact
    }
    stored = named_leaves(built.parameters(shapes)["critic"])
    assert {path: stored[path].size for path in counts} == counts
    slots = [leaf.size for leaf in jax.tree.leaves(shapes.opt_state["critic"])]
    assert all(slots.count(count) >= 2 for count in counts.values())  # Adam's moments


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


def test_units_in_compact_storage_are_not_recycled():
    agent = make_agent("sac", config_of("sac", "all_static", "compact"), SIZES, 10_000)
    with pytest.raises(ValueError, match=r"critic is in compact storage: choose critic\.storage"):
        check_recyclable(agent)


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
    played = load_exported(exported.paths[0]).act(observation.astype(np.float32))
    np.testing.assert_allclose(own, played, atol=1e-5)


@pytest.mark.slow
def test_diagnostics_are_those_of_masked_storage():
    rows = {}
    for storage in ("compact", "masked"):
        config = config_of("sac", "mst", storage)
        _, agent, run = start_run(POINT, config, [0, 1], config.learning_starts + 20)
        one = jax.tree.map(lambda leaf: leaf[0], (run.agent, between_steps(run)))
        look = functools.partial(diagnostics.diagnose, agent)
        rows[storage] = jax.jit(look)(*one, jax.random.key(1))
    assert rows["compact"].keys() == rows["masked"].keys()
    for name, value in rows["masked"].items():
        np.testing.assert_allclose(rows["compact"][name], value, rtol=1e-3, atol=1e-4, err_msg=name)
