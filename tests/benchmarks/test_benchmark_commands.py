"""The benchmarks as commands, at the smallest sizes: they run, and their records add up."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


def run(module, path, *flags):
    command = [sys.executable, "-m", f"benchmarks.{module}", f"--output={path}", *flags]
    subprocess.run(command, check=True, timeout=600)
    record = json.loads(path.read_text())
    assert record["command"].startswith(f"python -m benchmarks.{module} --output=")
    return record["results"]


@pytest.mark.parametrize("task", ["probe:point", "dmc:cartpole-swingup"])
def test_seed_count(task, tmp_path):
    flags = ("--seeds=1,2", "--steps=20", "--repeats=1", "--width=8", "--batch=4")
    results = run("seed_count", tmp_path / "seeds.json", f"--task={task}", *flags)
    assert (tmp_path / "seeds.png").read_bytes().startswith(b"\x89PNG")
    assert [row["seeds"] for row in results["counts"]] == [1, 2]
    for row in results["counts"]:
        assert row["seed_steps_per_second"] == row["seeds"] * row["steps_per_second"]
        parts = ("environment", "transfer", "update", "other")
        seconds = sum(row[f"{part}_seconds"] for part in parts)
        assert seconds == pytest.approx(row["steps"] / row["steps_per_second"])
        assert (row["environment_seconds"] > 0) == task.startswith("dmc")
        assert row["evaluation_seconds_for_1_episode_each"] > 0


def test_peers(tmp_path):
    pytest.importorskip("torch")
    flags = ("--sizes=0.03125x1", "--steps=10", "--repeats=1", "--batch=8", "--seeds=2")
    results = run("peers", tmp_path / "peers.json", *flags)
    assert [row["agent"] for row in results["comparisons"]] == ["mrq", "sac"]
    for row in results["comparisons"]:
        ratio = row["mst_jax_2_seed_updates_per_second"] / row["torch_updates_per_second"]
        assert row["mst_jax_2_over_torch"] == pytest.approx(ratio)


def test_streaming(tmp_path):
    flags = ("--widths=16", "--agents=1,2", "--share_widths=16", "--share_agents=2")
    results = run("streaming", tmp_path / "streaming.json", *flags, "--steps=16", "--repeats=1")
    assert [(row["sparsity"], row["agents"]) for row in results["updates"]] == [
        (0.0, 1),
        (0.0, 2),
        (0.8, 1),
        (0.8, 2),
    ]
    for row in results["updates"]:
        ratio = row["scan_updates_per_second"] / row["host_updates_per_second"]
        assert row["host_over_scan_time"] == pytest.approx(ratio)
        if results["torch"]:
            ratio = row["scan_updates_per_second"] / row["torch_updates_per_second"]
            assert row["scan_over_torch"] == pytest.approx(ratio)
    (row,) = results["shares"]
    parts = ("environment", "arithmetic", "python")
    assert min(row[f"{part}_ms"] for part in parts) > 0
    call = row["dispatch_ms"] + row["arithmetic_ms"]
    assert row["device_call_over_scan_time"] == pytest.approx(call / row["arithmetic_ms"])


def test_precision(tmp_path):
    flags = ("--cases=sac:0.03125x1,drqv2:0.03125x1", "--steps=2,1", "--seeds=1")
    flags += ("--side=64", "--repeats=1")
    results = run("precision", tmp_path / "precision.json", *flags)
    assert [row["case"] for row in results["cases"]] == ["sac:0.03125x1", "drqv2:0.03125x1"]
    for row in results["cases"]:
        ratio = row["float32_seconds"] / row["bf16_seconds"]
        assert row["bf16_over_float32"] == pytest.approx(ratio)
    assert results["product"]["bf16_gigaflops"] > 0


def test_convolutions(tmp_path):
    flags = ("--cases=quickstart", "--seeds=2", "--loop_seeds=1", "--cores=1", "--repeats=1")
    results = run("convolutions", tmp_path / "convolutions.json", *flags)
    (seeds,), (loops,) = results["seeds"], results["loops"]
    assert (seeds["cores"], seeds["seeds"], loops["seeds"]) == (1, 2, 1)
    forms = ("plain", "in_turn", "slices")
    assert all(0 < seeds[f"{form}_forward_ms"] < seeds[f"{form}_gradient_ms"] for form in forms)
    assert loops["in_turn_scan_ms"] < loops["plain_scan_ms"]  # twenty times, not a close call
    assert [row["stack"] for row in results["pooling"]] == ["stack_1", "stack_2", "stack_3"]
    for row in results["pooling"]:
        assert row["max_pool_gradient_ms"] < row["reduce_window_gradient_ms"]


def test_drqv2(tmp_path):
    pytest.importorskip("torch")
    flags = ("--sizes=quickstart", "--cores=1", "--seeds=1,2", "--repeats=1")
    results = run("drqv2", tmp_path / "drqv2.json", *flags)
    (row,) = results["comparisons"]
    assert row["torch_threads"] == row["cores"] == 1
    for count in (1, 2):
        ratio = count * row["torch_ms"] / row[f"{count}_seeds_ms"]
        assert row[f"{count}_seeds_over_torch"] == pytest.approx(ratio)


def test_mrq_pictures(tmp_path):
    pytest.importorskip("torch")
    flags = ("--sizes=reduced", "--cores=1", "--seeds=1,2", "--repeats=1")
    results = run("mrq_pictures", tmp_path / "mrq_pictures.json", *flags)
    assert [row["suite"] for row in results["comparisons"]] == ["dmc_pixels", "atari"]
    for row in results["comparisons"]:
        assert row["torch_threads"] == row["cores"] == 1
        for count in (1, 2):
            ratio = count * row["torch_ms"] / row[f"{count}_seeds_ms"]
            assert row[f"{count}_seeds_over_torch"] == pytest.approx(ratio)


def test_sweep(tmp_path):
    flags = ("--runs=1,2", "--devices=1,2", "--seeds=2", "--steps=600", "--width=8")
    results = run("sweep", tmp_path / "sweep.json", *flags)
    assert [row["runs"] for row in results["programs"]] == [1, 2]
    for row in results["programs"]:
        updates = row["runs"] * (600 - 250)
        assert row["one_program_seed_updates_per_second"] == pytest.approx(
            updates / row["one_program_seconds"]
        )
        ratio = row["process_per_run_seconds"] / row["one_program_seconds"]
        assert row["speedup"] == pytest.approx(ratio)
    assert [row["devices"] for row in results["devices"]] == [1, 2]
    launcher = results["launcher"]
    assert launcher["training_seconds_of_a_cell"] > 0 < launcher["other_seconds_of_a_cell"]


def test_compact(tmp_path):
    flags = ("--sizes=0.0625x1", "--sparsities=0.5", "--structure=shared4", "--cores=1")
    more = ("--steps=2", "--interval=4", "--repeats=1")
    (row,) = run("compact", tmp_path / "compact.json", *flags, *more)["cases"]
    for kind in ("static", "rigl"):
        ratio = row[f"{kind}_updates_per_second"] / row["dense_updates_per_second"]
        assert row[f"{kind}_over_dense"] == pytest.approx(ratio)
        assert row[f"{kind}_bytes_of_dense"] == row[f"{kind}_bytes"] / row["dense_bytes"]
    assert row["static_bytes_of_dense"] < 0.8  # RigL's table of so many rewires is larger here
    ratio = row["static_updates_per_second"] / row["rigl_updates_per_second"]
    assert row["rigl_over_static_time"] == pytest.approx(ratio)


def test_stale_actions(tmp_path):
    flags = ("--tasks=dmc:pendulum-swingup", "--seeds=2", "--width=8", "--batch=8", "--steps=20")
    (row,) = run("stale_actions", tmp_path / "stale.json", *flags, "--repeats=1")["cases"]
    ratio = row["stale_ms"] / max(row["environment_ms"], row["device_ms"])
    assert row["stale_to_longer"] == pytest.approx(ratio)
    assert row["ordinary_to_stale"] == pytest.approx(row["ordinary_ms"] / row["stale_ms"])


def test_memory(tmp_path):
    flags = ("--sizes=0.25x1", "--sparsities=0.8", "--regimes=static", "--seeds=1,2")
    results = run("memory", tmp_path / "memory.json", *flags)
    rows = results["cases"]
    assert [row["kind"] for row in rows[::2]] == ["dense", "masked", "compact"]
    for one, two in zip(rows[::2], rows[1::2], strict=True):
        assert two["state_bytes"] == 2 * one["state_bytes"]
        assert one["temporary_bytes"] > 0
    dense, masked, _ = rows[::2]
    assert masked["state_bytes"] > dense["state_bytes"], "masks come on top"


def test_rates(tmp_path):
    results = run("rates", tmp_path / "rates.json", "--cases=mrq tiny", "--repeats=1")
    (row,) = results["rates"].values()
    assert (row["seeds"], row["repeats"]) == (8, 1)
    assert row["steps_per_second"] > 0


def test_simplicity(tmp_path):
    flags = ("--size=0.0625x1", "--inits=2", "--grid=20")
    results = run("simplicity", tmp_path / "scores.json", *flags)
    names = ["actor dense", "actor sparse", "critic dense", "critic sparse"]
    assert list(results) == names
    for name in names:
        assert len(set(results[name])) == 2, "two networks"
        assert all(score > 1 for score in results[name])
    assert results["actor dense"] != results["actor sparse"]
