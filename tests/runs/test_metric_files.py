import json
import resource
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from small_runs import small_config, small_settings
from tensorboardX.proto.event_pb2 import Event

from mst_jax.program.evaluation import episodes_together
from mst_jax.runs import read_metrics, read_settings
from mst_jax.runs.config_file import write_settings
from mst_jax.runs.folder import METRICS
from mst_jax.runs.sinks import JsonLines, TensorBoard, cut_back, scalars
from mst_jax.runs.versions import _git_revision
from mst_jax.training.trainer import next_boundary


def test_rows_are_plain_json_and_non_finite_values_are_null(tmp_path):
    sink = JsonLines([tmp_path])
    sink.write(0, {"step": np.int64(3), "x": np.float32(0.5), "bad": np.nan, "ok": np.True_})
    sink.write(0, {"step": 4, "returns": np.array([1.0, np.inf])})
    sink.close()
    rows = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    assert rows == [
        {"step": 3, "x": 0.5, "bad": None, "ok": True},
        {"step": 4, "returns": [1.0, None]},
    ]


def test_cut_back_drops_later_rows_and_a_half_written_line(tmp_path):
    text = "".join(json.dumps({"step": step}) + "\n" for step in (0, 5, 5, 10))
    (tmp_path / METRICS).write_text(text + '{"step": 1')
    cut_back(tmp_path, 5)
    assert [row["step"] for row in read_metrics(tmp_path)] == [0, 5, 5]
    cut_back(tmp_path, -1)
    assert read_metrics(tmp_path) == []


def test_cut_back_of_a_run_without_metrics_does_nothing(tmp_path):
    cut_back(tmp_path, 5)
    assert list(tmp_path.iterdir()) == []


def row(step, value, kind="train"):
    return {"step": step, "kind": kind, "seed": 3, "healthy": True, "loss": value, "returns": [1.0]}


def events(folder):
    """(step, tag, value) of all events in a folder, in the order of the files."""
    found = []
    for path in sorted(folder.glob("events*")):
        raw, position = path.read_bytes(), 0
        while position < len(raw):  # length, its checksum, an event, its checksum
            (length,) = struct.unpack_from("<Q", raw, position)
            event = Event.FromString(raw[position + 12 : position + 12 + length])
            found += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
            position += length + 16
    return found


def test_tensorboard_equals_the_metric_files_after_any_number_of_kills(tmp_path):
    """Fault A6: events that were never written, and events of rows that are made again."""
    # The step to go on from, the rows written until the kill, and of how many events were lost.
    for kill, (since, count, lost) in enumerate([(-1, 3, 1), (1, 4, 0), (0, 2, 2), (2, 3, 0)]):
        cut_back(tmp_path, since)
        sinks = [JsonLines([tmp_path]), TensorBoard([tmp_path])]
        for number in range(count):
            step = since + 1 + number
            value = np.float32(10 * kill + step) if step != 2 else np.nan
            for sink in sinks[: 1 if number >= count - lost else 2]:
                sink.write(0, row(step, value))
        for sink in sinks:
            sink.close()
        with (tmp_path / METRICS).open("a") as file:
            file.write('{"step": 9')
    rows = read_metrics(tmp_path)
    assert [one["step"] for one in rows] == [0, 1, 2, 3, 4, 5]
    wanted = [(one["step"], tag, value) for one in rows for tag, value in scalars(one).items()]
    np.testing.assert_equal(events(tmp_path), wanted)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_full_disk_is_told_with_its_place_and_stops_nobody_for_ever(tmp_path):
    """Fault D18: a thread of tensorboardX died of it, and the run waited for that thread."""
    (tmp_path / METRICS).symlink_to("/dev/full")
    sink = JsonLines([tmp_path])
    with pytest.raises(OSError, match=r"No space left on device: .*metrics.jsonl"):
        sink.write(0, row(1, 2.0))
    sink.close()
    (tmp_path / METRICS).unlink()
    (tmp_path / METRICS).touch()
    sink = TensorBoard([tmp_path])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, before[1]))
    try:
        with pytest.raises(OSError, match=f"File too large: '{tmp_path}'"):
            for step in range(100):
                sink.write(0, row(step, 2.0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    sink.close()


@pytest.mark.parametrize("tracked", [True, False])
def test_a_revision_is_that_of_our_own_repository(tmp_path, tracked):
    """Fault A8: a virtual environment inside somebody's repository."""
    package = tmp_path / ".venv" / "package" / "settings.py"
    package.parent.mkdir(parents=True)
    package.touch()
    (tmp_path / "theirs.py").touch()
    git = ["git", "-C", tmp_path, "-c", "user.name=n", "-c", "user.email=e@x"]
    for arguments in (["init", "-q"], ["add", "." if tracked else "theirs.py"], ["commit", "-qmx"]):
        subprocess.run([*git, *arguments], check=True, capture_output=True)
    revision = _git_revision(package)
    assert (revision is not None) == tracked
    assert revision is None or len(revision) == 40
    assert _git_revision(Path("/settings.py")) is None


def test_settings_round_trip(tmp_path):
    settings = small_settings(config=small_config(critic__sparsity=0.8))
    write_settings(tmp_path, settings)
    assert read_settings(tmp_path) == settings
    versions = json.loads((tmp_path / "versions.json").read_text())
    assert versions["packages"]["jax"]
    assert versions["devices"]


def test_settings_that_cannot_be_read_are_explained(tmp_path):
    with pytest.raises(ValueError, match="not a run folder"):
        read_settings(tmp_path)
    write_settings(tmp_path, small_settings())
    path = tmp_path / "config.json"
    raw = json.loads(path.read_text())
    raw["config"]["critic"]["hiden"] = raw["config"]["critic"].pop("hidden")
    path.write_text(json.dumps(raw))
    with pytest.raises(ValueError, match="hidden"):
        read_settings(tmp_path)
    path.write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        read_settings(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 64}, "must exceed learning_starts=64"),
        ({"seeds": 0}, "seeds=0"),
        ({"eval_every": 0}, "eval_every=0"),
        ({"eval_episodes": -1}, "eval_episodes=-1"),
        ({"checkpoint_every": -1}, "checkpoint_every=-1"),
    ],
)
def test_impossible_run_settings_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        small_settings(**changes).validate()


def test_next_boundary_stops_at_everything_that_is_due():
    settings = small_settings(steps=250, log_every=40, eval_every=100, checkpoint_every=60)
    stops, step = [], 0
    while step < 250:
        step = next_boundary(step, settings, learning_starts=64)
        stops.append(step)
    assert stops == [40, 60, 64, 80, 100, 120, 160, 180, 200, 240, 250]


@pytest.mark.parametrize(
    ("seeds", "episodes", "expected"),
    [(1, 10, 10), (4, 10, 5), (8, 10, 2), (4, 3, 3), (8, 7, 1), (64, 10, 1), (1, 100, 25)],
)
def test_episodes_together_divides_and_limits_environments(seeds, episodes, expected):
    assert episodes_together(seeds, episodes) == expected
