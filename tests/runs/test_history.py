"""Topology history: what is written, how large it is, and that a resumed run has the same one."""

import math

import numpy as np
import pytest
from small_runs import small_config, small_settings, stop_after

from mst_jax import envs, topology
from mst_jax.agents import make_agent
from mst_jax.recipes import make_config
from mst_jax.runs import history
from mst_jax.runs.config_file import read_settings, write_settings
from mst_jax.runs.folder import INITIAL_TOPOLOGY, TOPOLOGY
from mst_jax.training import load_snapshot, plan_resume, plan_run, prepare, train, trainer


def unpacked(path):
    """{leaf: bool (S, ...)} of a snapshot, with NumPy alone."""
    with np.load(path) as file:
        return {
            name.removeprefix("bits/"): np.unpackbits(
                file[name], count=math.prod(file[name.replace("bits", "shape", 1)])
            ).reshape(file[name.replace("bits", "shape", 1)])
            for name in file.files
            if name.startswith("bits/")
        }


def test_only_moving_masks_are_written_and_the_last_are_those_of_the_checkpoint(finished_run):
    snapshots = history.saved(finished_run)
    assert list(snapshots) == [20, 40, 60, 80, 100, 120]
    last, newest = unpacked(snapshots[120]), load_snapshot(finished_run).masks
    critic = {path: masks for path, masks in newest.items() if path.startswith("critic/")}
    assert last.keys() == {path for path, masks in critic.items() if not masks.all()}
    for path, masks in last.items():
        np.testing.assert_array_equal(masks, newest[path])
    first = unpacked(snapshots[20])  # still warming up
    initial = unpacked(finished_run / "topology_initial.npz")
    assert all((initial[path] == mask).all() for path, mask in first.items())
    assert any((first[path] != mask).any() for path, mask in last.items())


@pytest.mark.slow
def test_a_resumed_run_has_the_same_history(finished_run, tmp_path, monkeypatch):
    """Stopped on the way; what a killed process left behind is gone."""
    job = plan_run(read_settings(finished_run), tmp_path)
    monkeypatch.setattr(trainer, "_stop_on_signal", stop_after(75))
    stopped = train(job)
    monkeypatch.undo()
    assert not stopped.finished
    folder = stopped.folder
    assert 0 < stopped.step < 120
    (folder / TOPOLOGY / "000000000110.npz").write_bytes(b"a future that will not come")
    (folder / TOPOLOGY / "000000000120.npz.partial").write_bytes(b"half")
    train(plan_resume(folder))
    files = sorted((finished_run / TOPOLOGY).iterdir())
    again = sorted((folder / TOPOLOGY).iterdir())
    assert [path.name for path in again] == [path.name for path in files]
    for path, other in zip(files, again, strict=True):
        one, two = unpacked(path), unpacked(other)
        assert one.keys() == two.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], two[name])


def make(recipe, config=None, **changes):
    settings = small_settings(recipe=recipe, config=config or small_config(recipe), **changes)
    spec = envs.make(settings.task).spec
    return make_agent(settings.agent, settings.config, spec, settings.steps), settings


def test_nothing_is_written_where_nothing_moves(tmp_path):
    agent, settings = make("all_static")
    assert history.moving_leaves(agent) == {}
    assert history.total_bytes(agent, settings) == 0
    history.save({tmp_path: slice(None)}, agent, None, 10)
    assert list(tmp_path.iterdir()) == []
    history.cut_back(tmp_path, 0)


def test_a_full_size_run_takes_tens_of_megabytes(finished_run):
    """Two heads of 3 x 512 x 512 weights, 1 bit each; their full output layers never move."""
    agent, settings = make("mst", make_config("mrq", "mst"), agent="mrq", steps=500_000, seeds=1)
    assert settings.history_every == 10_000
    assert history.total_bytes(agent, settings) == 50 * 196_608
    tiny = read_settings(finished_run)
    agent = prepare(tiny)[1]
    written = sum(path.stat().st_size for path in history.saved(finished_run).values())
    leaves = len(history.moving_leaves(agent))
    assert written - history.total_bytes(agent, tiny) < 6 * (leaves + 1) * 1000


def test_without_history_there_is_none(tmp_path):
    agent, settings = make("mst", history_every=0)
    assert history.total_bytes(agent, settings) == 0


def test_parts_of_one_weight_are_one_connection(tmp_path):
    """A noisy kernel's mean and scale: degrees, churn and pictures see one weight."""
    agent, _ = make("dense")
    noisy = topology.plan(
        {"kernel": np.ones((2, 5, 4)), "bias": np.ones((2, 4))},
        {"kernel": topology.rigl(0.5, end=900)},
        tied={".*": 0},
    )
    critic = agent.modules["critic"]._replace(plan=noisy)
    agent = agent._replace(modules={**agent.modules, "critic": critic})
    ties = history.tied_leaves(agent)
    assert ties == {"critic/kernel": -3, "critic/bias": -2}
    write_settings(tmp_path, small_settings())
    (tmp_path / TOPOLOGY).mkdir()
    one = np.random.default_rng(0).random((2, 5, 4)) < 0.5
    masks = {"critic": {"kernel": np.stack([one, one], axis=1), "bias": topology.DenseLeaf()}}
    for path in (tmp_path / INITIAL_TOPOLOGY, tmp_path / TOPOLOGY / "000000000010.npz"):
        topology.save_masks(path, masks, ties)
        assert history.read_ties(path) == {"critic/kernel": -3}
        np.testing.assert_array_equal(history.read_leaf(path, "critic/kernel"), one)
        whole = topology.load_masks(path)["critic"]["kernel"]
        np.testing.assert_array_equal(whole, masks["critic"]["kernel"])
    found = history.read_history(tmp_path)
    assert found.sizes == {"critic/kernel": (5, 4)}
    np.testing.assert_array_equal(found.masks("critic/kernel"), np.stack([one, one], axis=1))
