"""Full checkpoints of a buffer with frames: segments are written once, and all comes back."""

import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from mst_jax import replay
from mst_jax.envs import Discrete, Observation
from mst_jax.runs import checkpoints
from mst_jax.runs.arrays import split
from mst_jax.runs.checkpoints import FULL, SEGMENTS, DamagedCheckpointError
from mst_jax.runs.folder import CHECKPOINTS
from mst_jax.training import full_checkpoints

SEEDS = 2
LAYOUT = replay.Layout(Observation((2,), "uint8", history=2), Discrete(3), 1, 12, seeds=SEEDS)
insert = jax.jit(replay.insert)


class Loop:
    """A buffer that random transitions come into, as a run has it."""

    def __init__(self, folders):
        self.buffer, self.step = replay.create(LAYOUT), 0
        members = zip(folders, np.array_split(range(SEEDS), len(folders)), strict=True)
        rows = {folder: slice(own[0], own[-1] + 1) for folder, own in members}
        self.session = SimpleNamespace(folders=rows)

    def play(self, steps):
        for _ in range(steps):
            self.step += 1
            rng = np.random.default_rng(self.step)  # a resumed one goes on as this one
            shown, following = rng.integers(0, 256, (2, SEEDS, 2), np.uint8)
            ends = rng.random((2, SEEDS)) < 0.2
            action, reward = np.zeros(SEEDS, int), rng.normal(size=SEEDS)
            self.buffer = insert(self.buffer, shown, action, reward, *ends, following)
        return self

    def arrays(self, recent=None):
        packed = replay.pack(self.buffer, recent)
        return {"clock/step": np.int32(self.step)} | {f"buffer/{k}": a for k, a in packed.items()}

    def save(self):
        arrays = self.arrays(full_checkpoints.new_frames(self.session, self, self.step))
        folders = self.session.folders
        parts = split(arrays, [rows.stop - rows.start for rows in folders.values()])
        stores = [folder / CHECKPOINTS for folder in folders]
        checkpoints.save_together(stores, FULL, self.step, parts, [None] * len(folders))
        return self

    def check(self):
        """What is read is what there was."""
        counts = [rows.stop - rows.start for rows in self.session.folders.values()]
        wholes = split(self.arrays(), counts)
        stores = [folder / CHECKPOINTS for folder in self.session.folders]
        for checkpoint, whole in zip(checkpoints.load_together(stores, FULL), wholes, strict=True):
            assert checkpoint.step == self.step
            assert checkpoint.arrays.keys() == whole.keys()
            for name, array in whole.items():
                np.testing.assert_array_equal(checkpoint.arrays[name], array)


def segments(folder):
    return checkpoints.saved_steps(folder / CHECKPOINTS, SEGMENTS)


@pytest.mark.parametrize("runs", [1, 2])
def test_what_was_saved_comes_back_across_wraps(tmp_path, runs):
    folders = [tmp_path / str(run) for run in range(runs)]
    loop, seen = Loop(folders), {}
    for steps in (3, 1, 4, 0, 2, 30, 2, 2, 5, 1):
        loop.play(steps).save().check()
        for folder in folders:
            for step in segments(folder):
                path = folder / CHECKPOINTS / SEGMENTS / f"{step:012d}" / "manifest.json"
                written = path.stat().st_mtime_ns
                if step != loop.step:
                    assert written == seen[path], "only once"
                seen[path] = written
    for folder in folders:
        assert segments(folder) == [42, 44, 49, 50], "the ring has left the others behind"


def test_a_segment_has_only_what_is_new(tmp_path):
    loop = Loop([tmp_path]).play(8).save().play(1).save()
    path = tmp_path / CHECKPOINTS / SEGMENTS / f"{loop.step:012d}"
    assert checkpoints._load(path).arrays["buffer/recent"].shape[1] <= 3
    assert (
        "buffer/observation"
        not in checkpoints._manifest(tmp_path / CHECKPOINTS / FULL / f"{loop.step:012d}")["arrays"]
    )


def test_killed_between_segment_and_checkpoint(tmp_path, monkeypatch):
    loop = Loop([tmp_path]).play(5).save().play(3)
    write = checkpoints._write

    def killed(final, *args):
        if final.parent.name == FULL:
            raise KeyboardInterrupt
        write(final, *args)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(checkpoints, "_write", killed)
        loop.save()
    assert segments(tmp_path) == [5, 8]
    Loop([tmp_path]).play(5).check()
    checkpoints.cut_back(tmp_path / CHECKPOINTS, 5)
    assert segments(tmp_path) == [5]
    Loop([tmp_path]).play(9).save().check()


def test_falls_back_and_goes_on_from_the_one_before(tmp_path):
    loop = Loop([tmp_path])
    for _ in range(4):
        loop.play(4).save()
    newest = tmp_path / CHECKPOINTS / FULL / f"{16:012d}"
    (newest / "manifest.json").write_text("{")
    with pytest.warns(UserWarning, match="trying the one before"):
        Loop([tmp_path]).play(12).check()
    checkpoints.cut_back(tmp_path / CHECKPOINTS, 12)
    Loop([tmp_path]).play(15).save().check()
    Loop([tmp_path]).play(19).save().check()


def test_a_missing_or_damaged_segment_is_named(tmp_path):
    Loop([tmp_path]).play(4).save()
    path = tmp_path / CHECKPOINTS / SEGMENTS / f"{4:012d}"
    (path / "manifest.json").write_text("{}")
    with (
        pytest.warns(UserWarning, match=rf"checkpoint {path} cannot be read"),
        pytest.raises(DamagedCheckpointError, match="no intact full checkpoint"),
    ):
        checkpoints.load_newest(tmp_path / CHECKPOINTS, FULL)
    shutil.rmtree(path)
    with (
        pytest.warns(UserWarning, match=rf"checkpoint {path} cannot be read"),
        pytest.raises(DamagedCheckpointError, match="no intact full checkpoint"),
    ):
        checkpoints.load_newest(tmp_path / CHECKPOINTS, FULL)


def test_runs_without_frames_have_none(tmp_path):
    checkpoints.save(tmp_path, FULL, 7, {"clock/step": np.int32(7)})
    assert [path.name for path in (tmp_path / FULL).iterdir()] == [f"{7:012d}"]
    assert "segments" not in checkpoints._manifest(tmp_path / FULL / f"{7:012d}")
