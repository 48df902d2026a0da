"""docs/extending.md, executed in a folder of the user's own, by every way in."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from small_runs import small_settings

from experiments.cli import fresh_process
from experiments.launch.pool import run_pool
from experiments.launch.study_folder import StudyFolder
from experiments.studies import Cell
from mst_jax.recipes import override

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "extending.md"
TINY = [
    *("--steps=240", "--eval_every=120", "--log_every=60", "--checkpoint_every=60"),
    *("--eval_episodes=2", "--config.batch_size=16", "--config.learning_starts=64"),
    *("--config.critic.hidden=16", "--config.actor.hidden=8", "--config.critic.depth=1"),
    *("--config.critic.interval=20", "--config.buffer_size=1000"),
]


def blocks():
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder with the page's `my_pkg`, and an `experiments` that is not ours."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "experiments").mkdir()
    (folder / "experiments" / "__init__.py").write_text("raise RuntimeError('not this one')\n")
    (folder / "my_pkg").mkdir()
    for block in blocks():
        name = re.match(r"# (my_pkg/\w+\.py)\n", block)
        if name:
            with (folder / name[1]).open("a") as file:
                file.write(block)
    return folder


def launch(own, module, *arguments, installed=True):
    """A launcher as a console script starts it, or by `-m` with the checkout on the path."""
    command = fresh_process(module)
    environment = {**os.environ}
    if not installed:
        command = [sys.executable, "-P", "-m", f"experiments.{module}"]
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(own)])
    return subprocess.run(
        [*command, *arguments],
        cwd=own,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


@pytest.mark.slow
def test_the_page_s_blocks_run(own, monkeypatch):
    """In one process: environments, agent, regime, metric and recipe, and a run of all of them."""
    monkeypatch.chdir(own)
    monkeypatch.syspath_prepend(own)
    namespace, text = {}, PAGE.read_text(encoding="utf-8")
    run = [block for block in blocks() if not block.startswith("# my_pkg/")]
    assert len(run) == 4
    for block in run:
        line = text[: text.index(block)].count("\n")
        exec(compile("\n" * line + block, str(PAGE), "exec"), namespace)
    rows = namespace["run"].metrics
    assert {"critic/spread", "actor/spread"} <= {*rows}
    for name in [name for name in sys.modules if name.split(".")[0] == "my_pkg"]:
        del sys.modules[name]


@pytest.mark.slow
def test_launchers_workers_and_resumed_runs_find_the_code(own):
    own_names = [
        *("--task=my_pkg.envs:walk", "--agent=my_pkg.quiet", "--seeds=2"),
        *("--recipe=my_pkg.recipes:salient", "--metrics=my_pkg.metrics:spread", *TINY),
    ]
    done = launch(own, "train", *own_names)
    assert done.returncode == 0, done.stderr
    folder = own / "runs" / "my_pkg.envs-walk" / "my_pkg.quiet-my_pkg.recipes-salient-seeds0-1"
    assert (folder / "fingerprint.txt").is_file()
    for module in ("evaluate", "plot", "inspect"):
        ended = launch(own, module, str(folder))
        assert ended.returncode == 0, (module, ended.stderr)
    again = launch(own, "train", *own_names, f"--logdir={own}/module", installed=False)
    assert again.returncode == 0, again.stderr
    other = own / "module" / folder.relative_to(own / "runs")
    assert (other / "fingerprint.txt").read_text() == (folder / "fingerprint.txt").read_text()
    (other / "fingerprint.txt").unlink()  # as if it had been killed at the very end
    resumed = launch(own, "train", f"--resume={other}")
    assert resumed.returncode == 0, resumed.stderr
    assert (other / "fingerprint.txt").read_text() == (folder / "fingerprint.txt").read_text()


@pytest.mark.slow
def test_cells_of_a_study_find_the_code(own, monkeypatch):
    """A cell is a fresh process, started in the folder that its launcher was started in."""
    monkeypatch.chdir(own)
    monkeypatch.syspath_prepend(own)
    settings = small_settings(task="my_pkg.envs:walk", agent="sac", recipe="mst", steps=120)
    regime = {"critic.regime": "my_pkg.regimes:saliency"}
    settings = dataclasses.replace(settings, config=override(settings.config, regime))
    folder = StudyFolder(own / "study")
    cells = folder.join("own", "smoke", [Cell({}, settings)], "a test")
    summary = run_pool(folder, [tuple(cells)], 1)
    assert summary.finished == [cells[0].id], summary


@pytest.mark.parametrize(
    ("flag", "line"),
    [
        (
            "--task=my_pkg.env:walk",
            "error: task 'my_pkg.env:walk': there is no module 'my_pkg.env'",
        ),
        ("--agent=my_pkg.envs", "error: agent 'my_pkg.envs' has no Config"),
        ("--recipe=my_pkg.recipes:salty", "my_pkg.recipes has no 'salty': did you mean salient?"),
        ("--metrics=my_pkg.metrics:sprea", "my_pkg.metrics has no 'sprea': did you mean spread?"),
        ("--config.critic.regime=my_pkg.regimes:salt", "my_pkg.regimes has no 'salt'"),
        ("--config.critic.optimizer=my_pkg.envs:lion", "my_pkg.envs has no 'lion'"),
    ],
)
@pytest.mark.slow
def test_what_cannot_be_found_is_one_line(own, flag, line):
    done = launch(own, "train", "--task=probe:point", "--agent=sac", flag)
    assert done.returncode == 1
    assert line in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
