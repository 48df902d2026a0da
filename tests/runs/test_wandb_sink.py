"""Metrics in wandb's offline files: one run per seed, each row once however often a run stops."""

import json
import struct
import sys

import pytest
from small_runs import metrics_without_wall_clock, small_settings

from mst_jax.runs.sinks import scalars
from mst_jax.runs.wandb_sink import RECORD, check_wandb
from mst_jax.training import plan_resume, plan_run, train, trainer


def test_without_the_package_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match=r"wandb=offline needs .*'mst_jax\[wandb\]'"):
        plan_run(small_settings(wandb="offline"), tmp_path)
    assert list(tmp_path.iterdir()) == []
    check_wandb("off")


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="wandb='on' is none of off, offline, online"):
        small_settings(wandb="on").validate()


def test_online_needs_a_login(monkeypatch, tmp_path):
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # no .netrc
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    with pytest.raises(ValueError, match=r"wandb=online: .*Or choose wandb=offline"):
        check_wandb("online")


def test_offline_runs_hold_every_row_once_although_the_run_was_killed(tmp_path, monkeypatch):
    """Killed at step 120, before its checkpoint: the rows after step 60 are made a second time."""
    pytest.importorskip("wandb")
    job = plan_run(small_settings(wandb="offline"), tmp_path)
    monkeypatch.setattr(trainer, "save", killed_at(120, trainer.save))
    with pytest.raises(KeyboardInterrupt):
        train(job)
    monkeypatch.undo()
    again = plan_resume(job.folder)
    assert again.settings == job.settings
    assert again.checkpoint.step == 60
    assert train(again).finished

    record = json.loads((job.folder / RECORD).read_text())
    for seed, rows in enumerate(metrics_without_wall_clock(job.folder).values()):
        parts = sorted(job.folder.glob(f"wandb/offline-run-*/run-{record['id']}-{seed}.wandb"))
        assert len(parts) == 2, "one for each process, with one id"
        sent = [row for part in parts for row in history(part)]
        assert sent == [{"step": row["step"], **scalars(row)} for row in rows]
        assert len(rows) == record["rows"][seed]


def killed_at(step, save):
    def save_unless_killed(session, run, at):
        if at == step:
            raise KeyboardInterrupt
        save(session, run, at)

    return save_unless_killed


def history(path):
    """The rows of a .wandb file, less wall-clock fields: a LevelDB log of protobuf records."""
    from wandb.proto import wandb_internal_pb2

    rows = []
    for data in log_records(path.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(data)
        if record.WhichOneof("record_type") == "history":
            items = {(i.key or "/".join(i.nested_key)): i.value_json for i in record.history.item}
            rows.append({name: json.loads(value) for name, value in items.items() if ours(name)})
    return rows


def ours(name):
    return not name.startswith("_") and "/wall/" not in name


def log_records(raw, header=7, block=32 * 1024):
    """LevelDB's log format after wandb's file header: each part has checksum, length and type."""
    position, parts = header, []
    while position + header <= len(raw):
        if block - position % block < header:  # too short for a header: padding
            position += block - position % block
        _, length, kind = struct.unpack_from("<IHB", raw, position)
        parts.append(raw[position + header : position + header + length])
        position += header + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield b"".join(parts)
            parts = []
