import json
import shutil
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest

from mst_jax.runs import checkpoints, files
from mst_jax.runs.arrays import blocks, fingerprint, flatten, unflatten
from mst_jax.runs.checkpoints import FULL, LIGHT, DamagedCheckpointError


def arrays(value=1.0, clock=7):
    return {
        "params/kernel": np.full((3, 4), value, np.float32),
        "masks/kernel": np.arange(12).reshape(3, 4) % 2 == 0,
        "clock/step": np.array(clock, np.int32),
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


def test_two_full_and_the_last_light_ones_are_kept(tmp_path):
    for step in range(8):
        checkpoints.save(tmp_path, FULL, step, arrays(step, clock=step))
        checkpoints.save(tmp_path, LIGHT, step, arrays(step, clock=step))
    full = sorted(p.name for p in (tmp_path / FULL).iterdir())
    assert full == ["000000000006", "000000000007"]
    kept = sorted(int(p.name) for p in (tmp_path / LIGHT).iterdir())
    assert kept == list(range(8 - checkpoints.KEPT[LIGHT], 8))


def test_one_in_flight_does_not_count(tmp_path):
    checkpoints.save(tmp_path, FULL, 7, arrays())
    shutil.copytree(tmp_path / FULL / "000000000007", tmp_path / FULL / "000000000008.partial")
    assert checkpoints.load_newest(tmp_path, FULL).step == 7
    checkpoints.cut_back(tmp_path, 7)
    assert [path.name for path in (tmp_path / FULL).iterdir()] == ["000000000007"]
    checkpoints.cut_back(tmp_path, 6)
    assert list((tmp_path / FULL).iterdir()) == []


def test_damaged_newest_falls_back_with_a_warning(tmp_path):
    """Fault A11: of full ones too there is one before."""
    for tier in (LIGHT, FULL):
        checkpoints.save(tmp_path, tier, 1, arrays(1.0, clock=1))
        checkpoints.save(tmp_path, tier, 2, arrays(2.0, clock=2))
        damage(tmp_path / tier / "000000000002")
        with pytest.warns(UserWarning, match="000000000002.*trying the one before"):
            loaded = checkpoints.load_newest(tmp_path, tier)
        assert loaded.step == 1
        equal(loaded.arrays, arrays(1.0, clock=1))


def test_the_older_one_goes_only_when_the_newer_one_is_intact(tmp_path, monkeypatch):
    """Fault A11: a disk that does not keep what is written to it."""
    for step in (1, 2):
        checkpoints.save(tmp_path, FULL, step, arrays(clock=step))

    def write_badly(path, *rest):
        write(path, *rest)
        damage(path)

    write = checkpoints._write
    monkeypatch.setattr(checkpoints, "_write", write_badly)
    with pytest.raises(DamagedCheckpointError, match=r"000000000003 (is not what|cannot be read)"):
        checkpoints.save(tmp_path, FULL, 3, arrays(clock=3))
    assert checkpoints.saved_steps(tmp_path, FULL) == [1, 2, 3]


@pytest.mark.parametrize("known", [True, False], ids=["asked before", "told by orbax"])
def test_a_full_disk_is_one_error_and_the_older_ones_stay(tmp_path, monkeypatch, known):
    """Fault D18."""

    def full(*_):
        raise ValueError("RESOURCE_EXHAUSTED: Failed to write 45187 bytes to file 22")

    for step in (1, 2):
        checkpoints.save(tmp_path, FULL, step, arrays(clock=step))
    if known:
        free = shutil.disk_usage(tmp_path)._replace(free=10)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    else:
        monkeypatch.setattr(ocp.PyTreeCheckpointer, "save", full)
    with pytest.raises(OSError, match=r"No space left on device: .*000000000003.partial"):
        checkpoints.save(tmp_path, FULL, 3, arrays(clock=3))
    assert checkpoints.saved_steps(tmp_path, FULL) == [1, 2]
    assert checkpoints.load_newest(tmp_path, FULL).step == 2


def test_everything_is_on_the_disk_before_the_rename(tmp_path, monkeypatch):
    """Fault A11: files, their folders, and then the folder that has the new name."""
    done = []

    def record(name, act):
        return lambda path, *to: (done.append((name, Path(path))), act(path, *to))[1]

    monkeypatch.setattr(Path, "rename", record("rename", Path.rename))
    sync = record("sync", files.sync)
    monkeypatch.setattr(files, "sync", sync)
    monkeypatch.setattr(checkpoints, "sync", sync)
    checkpoints.save(tmp_path, FULL, 7, arrays())
    final = tmp_path / FULL / "000000000007"
    partial = final.with_name("000000000007.partial")
    renamed = done.index(("rename", partial))
    before = {path for name, path in done[:renamed] if name == "sync"}
    written = {partial / path.relative_to(final) for path in [final, *final.rglob("*")]}
    assert written <= before
    assert ("sync", final.parent) in done[renamed:]


@pytest.mark.parametrize("largest", [1, 8, 40, 10_000])
def test_blocks_hold_an_array_in_order(largest):
    """Also of views that are not contiguous, as the filled part of a replay buffer is."""
    whole = np.arange(3 * 7 * 5, dtype=np.float32).reshape(3, 7, 5)
    for array in (whole, whole[:, :4], whole[..., 2], whole.T, np.float32(3.0), whole[:0]):
        cut = list(blocks(np.asarray(array), largest))
        assert all(block.nbytes <= max(largest, 4) and block.flags.c_contiguous for block in cut)
        joined = np.concatenate([*(block.ravel() for block in cut), np.zeros(0, np.float32)])
        np.testing.assert_array_equal(joined, np.ravel(array))


def test_large_arrays_are_written_and_read_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "SMALLEST_PIECE", 1_000)
    rng = np.random.default_rng(0)
    large = {
        "rows": rng.normal(size=(2, 500, 9)).astype(np.float32)[:, :300],
        "wide": rng.normal(size=(1, 4_000)),
        **arrays(),
    }
    checkpoints.save(tmp_path, FULL, 7, large)
    pieces = list((tmp_path / FULL / "000000000007" / "arrays").iterdir())
    assert len(pieces) > checkpoints.PIECES
    equal(checkpoints.load_newest(tmp_path, FULL).arrays, large)
    assert fingerprint(large) == fingerprint({name: a.copy() for name, a in large.items()})


@pytest.mark.parametrize("change", ["manifest", "folder"])
def test_a_step_that_is_not_the_clocks_is_damage(tmp_path, change):
    """Fault A9: the manifest's step, the folder's name and the clock must be the same."""
    checkpoints.save(tmp_path, FULL, 7, arrays())
    path = tmp_path / FULL / "000000000007"
    if change == "folder":
        path.rename(path.with_name("000000000009"))
    else:
        manifest = json.loads((path / "manifest.json").read_text())
        (path / "manifest.json").write_text(json.dumps({**manifest, "step": 5}))
    with (
        pytest.warns(UserWarning, match="says it is of step ., and its clock and name"),
        pytest.raises(DamagedCheckpointError),
    ):
        checkpoints.load_newest(tmp_path, FULL)


def test_checkpoints_of_earlier_versions_are_read(tmp_path):
    """One orbax checkpoint of whole arrays, and a manifest without a configuration."""
    path = tmp_path / LIGHT / "000000000007"
    path.mkdir(parents=True)
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(path / "arrays", {n: a for n, a in arrays().items() if a.size})
    listed = {name: checkpoints._describe(array) for name, array in arrays().items()}
    (path / "manifest.json").write_text(json.dumps({"step": 7, "arrays": listed}))
    loaded = checkpoints.load_newest(tmp_path, LIGHT)
    assert loaded.config is None
    equal(loaded.arrays, arrays())


@pytest.mark.parametrize("lost", ["manifest.json", "arrays"])
def test_missing_files_are_damage(tmp_path, lost):
    checkpoints.save(tmp_path, FULL, 7, arrays())
    path = tmp_path / FULL / "000000000007"
    victim = path / lost
    shutil.rmtree(victim) if victim.is_dir() else victim.unlink()
    with (
        pytest.warns(UserWarning, match="cannot be read"),
        pytest.raises(DamagedCheckpointError, match="no intact full checkpoint"),
    ):
        checkpoints.load_newest(tmp_path, FULL)


def test_arrays_that_are_not_those_written_are_damage(tmp_path):
    checkpoints.save(tmp_path, FULL, 7, arrays())
    path = tmp_path / FULL / "000000000007"
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["arrays"]["half"][0] = "float32"
    (path / "manifest.json").write_text(json.dumps(manifest))
    with (
        pytest.warns(UserWarning, match="not what was written"),
        pytest.raises(DamagedCheckpointError),
    ):
        checkpoints.load_newest(tmp_path, FULL)


def test_saving_the_same_step_again_replaces_it(tmp_path):
    checkpoints.save(tmp_path, FULL, 7, arrays(1.0))
    checkpoints.save(tmp_path, FULL, 7, arrays(2.0))
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
