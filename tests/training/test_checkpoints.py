import json
import shutil

import numpy as np
import pytest

from mst_jax.training import checkpoints
from mst_jax.training.arrays import fingerprint, flatten, unflatten
from mst_jax.training.checkpoints import FULL, LIGHT, DamagedCheckpointError


def arrays(value=1.0):
    return {
        "params/kernel": np.full((3, 4), value, np.float32),
        "masks/kernel": np.arange(12).reshape(3, 4) % 2 == 0,
        "clock/step": np.array(7, np.int32),
        "keys": np.array([[1, 2]], np.uint32),
        "half": np.ones(3, np.float16),
        "empty": np.zeros((0, 5), np.int32),
    }


def equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype, name
        np.testing.assert_array_equal(a[name], b[name])


def damage(path):
    """Flips bytes in the largest file, as a bad disk would."""
    largest = max(path.rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else 0)
    raw = bytearray(largest.read_bytes())
    raw[len(raw) // 2 :] = bytes(b ^ 0xFF for b in raw[len(raw) // 2 :])
    largest.write_bytes(raw)


def test_round_trip_is_exact(tmp_path):
    checkpoints.save(tmp_path, FULL, 7, arrays())
    loaded = checkpoints.load_newest(tmp_path, FULL)
    assert loaded.step == 7
    equal(loaded.arrays, arrays())


def test_nothing_there_is_none(tmp_path):
    assert checkpoints.load_newest(tmp_path, FULL) is None


def test_one_full_and_the_last_light_ones_are_kept(tmp_path):
    for step in range(8):
        checkpoints.save(tmp_path, FULL, step, arrays(step))
        checkpoints.save(tmp_path, LIGHT, step, arrays(step))
    assert [p.name for p in (tmp_path / FULL).iterdir()] == ["000000000007"]
    kept = sorted(int(p.name) for p in (tmp_path / LIGHT).iterdir())
    assert kept == list(range(8 - checkpoints.KEPT[LIGHT], 8))


def test_one_in_flight_does_not_count(tmp_path):
    checkpoints.save(tmp_path, FULL, 1, arrays())
    shutil.copytree(tmp_path / FULL / "000000000001", tmp_path / FULL / "000000000002.partial")
    assert checkpoints.load_newest(tmp_path, FULL).step == 1


def test_damaged_newest_falls_back_with_a_warning(tmp_path):
    checkpoints.save(tmp_path, LIGHT, 1, arrays(1.0))
    checkpoints.save(tmp_path, LIGHT, 2, arrays(2.0))
    damage(tmp_path / LIGHT / "000000000002")
    with pytest.warns(UserWarning, match="000000000002.*trying the one before"):
        loaded = checkpoints.load_newest(tmp_path, LIGHT)
    assert loaded.step == 1
    equal(loaded.arrays, arrays(1.0))


@pytest.mark.parametrize("lost", ["manifest.json", "arrays"])
def test_missing_files_are_damage(tmp_path, lost):
    checkpoints.save(tmp_path, FULL, 1, arrays())
    path = tmp_path / FULL / "000000000001"
    victim = path / lost
    shutil.rmtree(victim) if victim.is_dir() else victim.unlink()
    with (
        pytest.warns(UserWarning, match="cannot be read"),
        pytest.raises(DamagedCheckpointError, match="no intact full checkpoint"),
    ):
        checkpoints.load_newest(tmp_path, FULL)


def test_arrays_that_are_not_those_written_are_damage(tmp_path):
    checkpoints.save(tmp_path, FULL, 1, arrays())
    path = tmp_path / FULL / "000000000001"
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["arrays"]["half"][0] = "float32"
    (path / "manifest.json").write_text(json.dumps(manifest))
    with (
        pytest.warns(UserWarning, match="not what was written"),
        pytest.raises(DamagedCheckpointError),
    ):
        checkpoints.load_newest(tmp_path, FULL)


def test_saving_the_same_step_again_replaces_it(tmp_path):
    checkpoints.save(tmp_path, FULL, 3, arrays(1.0))
    checkpoints.save(tmp_path, FULL, 3, arrays(2.0))
    equal(checkpoints.load_newest(tmp_path, FULL).arrays, arrays(2.0))


def test_unflatten_says_what_differs():
    tree = {"a": np.zeros((2, 3), np.float32), "b": np.zeros(4, np.int32)}
    flat = flatten(tree)
    equal(flatten(unflatten(flat, tree)), flat)
    with pytest.raises(ValueError, match=r"b is missing"):
        unflatten({"a": flat["a"]}, tree)
    with pytest.raises(ValueError, match=r"c is not expected"):
        unflatten({**flat, "c": flat["a"]}, tree)
    with pytest.raises(ValueError, match=r"a is float32\[3, 2\], expected float32\[2, 3\]"):
        unflatten({**flat, "a": flat["a"].T}, tree)
    with pytest.raises(ValueError, match=r"b is int64\[4\], expected int32\[4\]"):
        unflatten({**flat, "b": flat["b"].astype(np.int64)}, tree)


def test_typed_keys_round_trip():
    import jax

    tree = {"keys": jax.random.split(jax.random.key(3), 2)}
    restored = unflatten(flatten(tree), tree)
    assert restored["keys"].dtype == tree["keys"].dtype
    np.testing.assert_array_equal(
        jax.random.normal(restored["keys"][1]), jax.random.normal(tree["keys"][1])
    )


def test_fingerprint_sees_values_names_shapes_and_dtypes():
    base = fingerprint(arrays())
    assert base == fingerprint(dict(reversed(arrays().items())))
    changed = arrays()
    changed["params/kernel"][0, 0] = np.nextafter(np.float32(1), np.float32(2))
    assert fingerprint(changed) != base
    assert fingerprint({**arrays(), "keys": arrays()["keys"].T}) != base
    assert fingerprint({**arrays(), "half": arrays()["half"].view(np.uint16)}) != base
    renamed = {("x" if n == "half" else n): a for n, a in arrays().items()}
    assert fingerprint(renamed) != base
