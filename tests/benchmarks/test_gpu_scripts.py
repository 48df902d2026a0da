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
    (parts,) = re.findall(r"set -- (.+)", text)
    for part in parts.split():
        assert re.search(rf"^{part}\(\)", text, re.MULTILINE), part
