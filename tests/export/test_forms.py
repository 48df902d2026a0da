"""What the forms of an exported policy have in common, and each of its own."""

import json
import subprocess
import sys

import numpy as np
import pytest
from policies import SPEC, compiled, needs_c, with_history

from mst_jax.envs import Continuous
from mst_jax.envs.timed import time_after
from mst_jax.export import (
    c,
    largest_difference,
    load_exported,
    play_policy,
    policy_file,
    write_policy,
)
from mst_jax.export.forms import FORMS
from mst_jax.networks import operations
from mst_jax.networks.operations import Dense, Operation, Relu, Scale, Shift, Tanh

RNG = np.random.default_rng(0)


def dense(inputs, outputs, active=1.0, rows=1):
    """A layer of which tiles of `rows` outputs share their inputs."""
    mask = np.repeat(RNG.random((inputs, outputs // rows)) < active, rows, axis=1)
    kernel = np.where(mask, RNG.normal(size=mask.shape), 0) / np.sqrt(inputs * active)
    return Dense(kernel.astype(np.float32), RNG.normal(size=outputs).astype(np.float32))


def network(inputs, outputs=3):
    return [dense(inputs, 16), Relu(), dense(16, outputs), Tanh()]


def forms(file, folder):
    """The policy as every form plays it."""
    write_policy(file, folder / "policy.npz", "npz")
    yield load_exported(folder / "policy.npz")
    yield compiled(file, folder)


def test_every_operation_has_every_form():
    names = {kind.__name__ for kind in Operation.__args__}
    assert names == {
        name
        for name, kind in vars(operations).items()
        if isinstance(kind, type) and kind.__module__ == operations.__name__
    }
    assert set(play_policy.OPERATIONS) == names
    assert all(set(form.operations) <= names for form in FORMS.values())
    assert set(FORMS["c"].operations) == names


def test_the_program_beside_a_file_needs_numpy_alone(tmp_path):
    """The file that is written is the one that the package plays with."""
    file = policy_file(network(5), SPEC)
    _, beside = write_policy(file, tmp_path / "policy.npz", "npz")
    code = (
        "import sys, numpy as np, play_policy; policy = play_policy.load('policy.npz'); "
        "policy.reset(); print(policy.act(np.arange(5.0)).tolist()); "
        "assert not {'jax', 'mst_jax', 'flax'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    np.testing.assert_array_equal(json.loads(done.stdout), file.player().act(np.arange(5.0)))
    beside.write_text("print('mine')")
    with pytest.raises(
        ValueError, match=r"play_policy.py is another program, or of another version"
    ):
        write_policy(file, tmp_path / "other.npz", "npz")
    assert not (tmp_path / "other.npz").exists()


@needs_c
@pytest.mark.parametrize(
    ("active", "rows", "function"),
    [
        (1.0, 1, "dense"),
        (0.5, 1, "dense"),
        (0.2, 1, "rows_16"),
        (0.5, 16, "tiles_16_16"),
        (0.2, 64, "tiles_64_16"),
        (0.0, 1, "rows_16"),
    ],
)
def test_layouts_of_a_matrix_in_c(active, rows, function, tmp_path, monkeypatch):
    """All give the same actions, whatever is zero; small matrices stay dense."""
    first = dense(37, 128, active or 0.1, rows)
    if not active:
        first = Dense(np.zeros_like(first.kernel), first.bias)
    file = policy_file(
        [first, Relu(), dense(128, 3), Tanh()],
        SPEC._replace(observation=SPEC.observation._replace(shape=(37,))),
    )
    assert "    dense(first" in c.c_source(file)
    monkeypatch.setattr(c, "SMALLEST", 0)
    assert f"    {function}(first" in c.c_source(file)
    policy = compiled(file, tmp_path)
    for observation in RNG.normal(size=(10, 37)).astype(np.float32):
        wanted = file.player().act(observation)
        np.testing.assert_allclose(policy.act(observation), wanted, rtol=0, atol=1e-6)


@needs_c
def test_a_matrix_of_many_inputs_has_wide_indices(tmp_path):
    spec = SPEC._replace(observation=SPEC.observation._replace(shape=(70_000,)))
    file = policy_file([dense(70_000, 16, 0.01), dense(16, 3), Tanh()], spec)
    assert "static void rows_32(" in c.c_source(file)
    observation = RNG.normal(size=70_000)
    np.testing.assert_allclose(
        compiled(file, tmp_path).act(observation), file.player().act(observation), atol=1e-5
    )


def test_numbers_in_c_are_exact():
    numbers = np.concatenate(
        [
            RNG.integers(0, 2**32, 5_000, dtype=np.uint32).view(np.float32),
            np.array([0.0, -0.0, 1.0, 1e-45, 3.4028235e38, 0.1, 16777217], np.float32),
        ]
    )
    numbers = numbers[np.isfinite(numbers)]
    for number in numbers:
        text = c._number(float(number))
        assert np.float32(text.removesuffix("f")).tobytes() == number.tobytes()
        assert "." in text


@needs_c
@pytest.mark.parametrize("time", ["exact", "published"])
def test_the_time_is_kept_by_the_file(time, tmp_path):
    spec = SPEC._replace(observation=SPEC.observation._replace(shape=(6,), unscaled=1))
    file = policy_file(network(6), spec, with_time=time)
    assert file.description["observation"]["size"] == 5
    whole = seen_whole(file, spec)
    for policy in forms(file, tmp_path):
        for _ in range(2):
            policy.reset()
            for step in range(5):
                shown = RNG.normal(size=5).astype(np.float32)
                now = time_after(np.array([step]), 100, time)
                wanted = whole.act(np.append(shown, now))
                np.testing.assert_allclose(policy.act(shown), wanted, rtol=0, atol=1e-6)


def seen_whole(file, spec):
    """The same network as it plays what an agent sees, frames and time included."""
    plain = spec._replace(observation=spec.observation._replace(history=1))
    return policy_file(file.operations[:-1], plain).player()


@needs_c
@pytest.mark.parametrize("fill", ["repeat", "zeros"])
def test_frames_are_kept_by_the_file(fill, tmp_path):
    """Two environments whose episodes begin together, twice."""
    spec = with_history(3, fill)
    file = policy_file(network(6), spec)
    assert file.description["observation"]["size"] == 2
    whole = seen_whole(file, spec)
    for policy in forms(file, tmp_path):
        for _ in range(2):
            policy.reset()
            frames = RNG.normal(size=(5, 2, 2)).astype(np.float32)
            stack = spec.observation.fresh(np.tile(frames[0], 3))
            for step, frame in enumerate(frames):
                stack = np.concatenate([stack[:, 2:], frame], axis=1) if step else stack
                np.testing.assert_allclose(policy.act(frame), whole.act(stack), rtol=0, atol=1e-6)


@pytest.mark.parametrize("fill", ["repeat", "zeros"])
def test_the_check_sees_frames_and_time_as_an_agent_does(fill):
    """An agent that sees the wrong ones is not what was exported."""
    spec = with_history(3, fill)
    file = policy_file(network(6), spec)
    whole = seen_whole(file, spec)
    assert largest_difference(file, whole.act) < 1e-6
    assert largest_difference(file, lambda x: whole.act(np.roll(x, 2, axis=1))) > 0.1


@needs_c
def test_what_is_not_finite_is_an_action_of_zero(tmp_path):
    file = policy_file([*network(5), Scale(np.full(3, 5.0)), Shift(np.full(3, 0.5))], SPEC)
    for policy in forms(file, tmp_path):
        np.testing.assert_array_equal(policy.act(np.full(5, np.nan)), np.zeros(3))
        action = policy.act(RNG.normal(size=5) * 100)
        assert (np.abs(action) <= 1).all()
        assert (np.abs(action) == 1).any(), "carried out within [-1, 1], as a run's are"


@needs_c
def test_the_range_of_a_task(tmp_path):
    space = Continuous(3, (-2.0, 0.0, -0.4), (2.0, 1.0, 0.4))
    spec, layers = SPEC._replace(action=space), network(5)
    own = policy_file(layers, spec)
    file = policy_file(layers, spec, units="task")
    observations = RNG.normal(size=(20, 5))
    inner = own.player().act(observations)
    low, high = np.array(space.low), np.array(space.high)
    for policy in forms(file, tmp_path):
        wanted = low + (inner + 1) / 2 * (high - low)
        played = np.stack([policy.act(observation) for observation in observations])
        np.testing.assert_allclose(played, wanted, rtol=0, atol=1e-6)
    assert largest_difference(file, own.player().act) < 1e-6
    with pytest.raises(ValueError, match=r"has no action range of its own, only \[-1, 1\]"):
        policy_file(layers, SPEC, units="task")


def test_half_precision_is_of_weights_alone(tmp_path):
    layers = [Shift(np.full(5, 100_000.0)), *network(5)]
    whole, half = (policy_file(layers, SPEC, dtype=dtype) for dtype in ("float32", "float16"))
    for file, name in ((whole, "whole.npz"), (half, "half.npz")):
        write_policy(file, tmp_path / name, "npz")
    with np.load(tmp_path / "half.npz") as arrays:
        kinds = {name.partition("/")[2]: arrays[name].dtype for name in arrays.files}
    assert (kinds["kernel"], kinds["bias"], kinds["offset"]) == (np.float16, np.float32, np.float32)
    observation = RNG.normal(size=5) - 100_000
    action = load_exported(tmp_path / "half.npz").act(observation)
    assert 0 < np.abs(action - whole.player().act(observation)).max() < 1e-2
    huge = Dense(np.full((5, 3), 1e5, np.float32), np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="a weight is too large for float16: choose float32"):
        policy_file([huge], SPEC, dtype="float16")
