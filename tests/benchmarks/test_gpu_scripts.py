import subprocess
import zipfile
from pathlib import Path

import pytest

from benchmarks.gpu import slim_wheels

ROOT = Path(__file__).parents[2]
KEPT = {
    "dm_control/suite/dog.py": "physics",
    "dm_control/suite/dog_assets/skin_texture.png": "needed to load the dog",
    "dm_control/viewer_of_ours.py": "only the folder of that name is dropped",
}
UNUSED = {"dm_control/locomotion/big.png": "x" * 5000, "dm_control/suite/dog_test.py": "test"}


def make_wheel(path, files):
    info = "dm_control-1.0.dist-info"
    record = "".join(f"{name},sha256=abc,{len(text)}\n" for name, text in files.items())
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in {**files, f"{info}/METADATA": "m", f"{info}/RECORD": record}.items():
            wheel.writestr(name, text)


def test_slim_wheels_lose_what_is_unused_and_nothing_else(tmp_path, capsys):
    source, target = tmp_path / "whole", tmp_path / "slim"
    source.mkdir()
    make_wheel(source / "dm_control-1.0-py3-none-any.whl", {**KEPT, **UNUSED})
    make_wheel(source / "other-1.0-py3-none-any.whl", {**KEPT, **UNUSED})
    slim_wheels.main([str(source), str(target)])
    with zipfile.ZipFile(target / "dm_control-1.0-py3-none-any.whl") as wheel:
        record = wheel.read("dm_control-1.0.dist-info/RECORD").decode().splitlines()
        assert {line.split(",")[0] for line in record} == set(KEPT)
        packed = {name: wheel.read(name).decode() for name in KEPT}
        assert packed == KEPT
        assert len(wheel.namelist()) == len(KEPT) + 2
    with zipfile.ZipFile(target / "other-1.0-py3-none-any.whl") as wheel:
        assert set(UNUSED) < set(wheel.namelist())
    assert "MiB in" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["a"], ["/nowhere", "b"]])
def test_slim_wheels_explains_wrong_arguments(arguments):
    with pytest.raises(SystemExit, match=r"error: (name the folder|there are no wheels in)"):
        slim_wheels.main(arguments)


def test_without_a_gpu_one_line_says_so_and_nothing_runs(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho cpu\n")
    python.chmod(0o755)
    result = subprocess.run(
        [ROOT / "benchmarks" / "gpu" / "run.sh"],
        env={"PATH": "/usr/bin:/bin", "PYTHON": str(python), "OUT": str(tmp_path / "out")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr == "no GPU: jax sees the backend cpu only; nothing was run\n"
    assert not (tmp_path / "out").exists()


def test_every_part_of_the_gpu_run_names_a_benchmark_that_exists():
    import re

    text = (ROOT / "benchmarks" / "gpu" / "run.sh").read_text()
    for module in set(re.findall(r"-m (benchmarks\.\w+|experiments\.\w+)", text)):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module
    (parts,) = re.findall(r"^parts=\(([^)]+)\)", text, re.MULTILINE)
    for part in parts.split():
        assert re.search(rf"^{part}\(\)", text, re.MULTILINE), part


# Writes down how it was called; a run begins unfinished, and the call that resumes it finishes it.
STAND_IN = """#!/bin/sh
case "$*" in
*"import jax"*) echo cpu ;;
*) echo "$*" >>"$CALLS" ;;
esac
for flag in "$@"; do
    case "$flag" in
    --logdir=*)
        mkdir -p "${flag#--logdir=}/task/run/checkpoints"
        touch "${flag#--logdir=}/task/run/config.json" ;;
    --resume=*) touch "${flag#--resume=}/fingerprint.txt" ;;
    --output=*broken*) exit 3 ;;
    esac
done
"""


def run_parts(tmp_path, *parts, **variables):
    """Exit status, what was printed, and the calls of Python that were made."""
    python, calls = tmp_path / "python", tmp_path / "calls"
    python.write_text(STAND_IN)
    python.chmod(0o755)
    calls.write_text("")
    own = {"PATH": "/usr/bin:/bin", "PYTHON": str(python), "CALLS": str(calls)}
    result = subprocess.run(
        [ROOT / "benchmarks" / "gpu" / "run.sh", *parts],
        env={"OUT": str(tmp_path / "out"), "ANY_DEVICE": "1", "SIZE": "tiny", **own, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    return result.returncode, result.stdout + result.stderr, calls.read_text().splitlines()


def test_what_is_done_is_skipped_and_what_was_stopped_goes_on(tmp_path):
    out = tmp_path / "out"
    status, text, calls = run_parts(tmp_path, "topology", "srank")
    assert status == 1
    assert "not done: srank" in text
    assert [call.split()[1] for call in calls] == ["benchmarks.topology", "experiments.train"]
    assert "--size=0.125x1" in calls[1]
    assert (out / "topology.done").read_text().startswith("tiny, ")
    assert not (out / "srank.done").exists()
    # The dense run goes on and is finished, so its checkpoints go and the sparse one begins.
    status, text, calls = run_parts(tmp_path, "topology", "srank")
    assert "== topology: done before" in text
    first, second = calls
    folder = out / "srank/dense/task/run"
    assert first == f"-m experiments.train --resume={folder}"
    assert "--recipe=network_sparsity_parity" in second
    assert not (folder / "checkpoints").exists()
    assert status == 1
    status, text, calls = run_parts(tmp_path, "topology", "srank")
    assert (status, len(calls)) == (0, 1)
    assert run_parts(tmp_path, "topology", "srank")[2] == []
    assert len(run_parts(tmp_path, "topology", AGAIN="1")[2]) == 1


def test_a_part_that_fails_does_not_stop_the_others(tmp_path):
    status, text, calls = run_parts(tmp_path, "topology", "der", OUT=str(tmp_path / "broken"))
    assert (status, len(calls)) == (1, 2)
    assert "not done: topology der" in text


@pytest.mark.parametrize(
    ("parts", "variables", "words"),
    [
        (["nothing"], {}, "there is no part nothing"),
        ([], {"SIZE": "huge"}, "neither full nor tiny"),
    ],
)
def test_wrong_calls_are_told_before_anything_runs(tmp_path, parts, variables, words):
    status, text, calls = run_parts(tmp_path, *parts, **variables)
    assert (status, calls) == (2, [])
    assert words in text
