"""What README.md and docs show must run as written."""

import re
from pathlib import Path

import pytest
from launchers import flags_of
from small_runs import SMALL

from mst_jax.api import training

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_sparse_transform_on_ones_own_loop(capsys):
    (code,) = [block for block in blocks("python") if "topology.sparse" in block]
    names = {}
    exec(code, names)
    assert "820" in capsys.readouterr().out
    kernel = names["params"]["kernel"]
    assert int((kernel != 0).sum()) <= 820  # a fifth of 64 x 64, rounded up


@pytest.mark.slow
def test_training_from_python(tmp_path, monkeypatch):
    """Every line as it is there; only what it trains is small."""
    (code,) = [block for block in blocks("python") if "mst_jax.train(" in block]
    settings_from = training.settings_from

    def small(given):
        size = {"steps": 120, "eval_every": 60, "eval_episodes": 1, "diagnose_every": 0}
        own = SMALL[given.get("agent", "mrq")]
        return settings_from({**own, **given, **size, "task": "probe:point"})

    monkeypatch.setattr(training, "settings_from", small)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    assert names["run"].returns.shape == (4, 3)
    assert names["again"].settings.config.critic.sparsity == 0.8
    assert names["policy"].act([0.1, 0.2, 0.3, 0.4]).shape == (2,)
    assert [run.settings.recipe for run in names["both"]] == ["mst", "dense"]
    assert all(run.finished for run in names["both"])


def test_first_screen_says_that_masks_do_not_make_training_faster():
    first_screen = "\n".join(README.splitlines()[:20])
    assert "masks on dense arrays" in first_screen
    assert "does **not** by" in first_screen


@pytest.mark.parametrize("line", [c for b in blocks("sh") for c in b.splitlines() if "-m exp" in c])
def test_commands_name_launchers_and_flags_that_exist(line):
    module = re.search(r"-m (experiments\.\w+)", line).group(1)
    assert set(re.findall(r"--(\w+)=", line)) <= {flag.name for flag in flags_of(module)}


def test_make_targets_named_in_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"(?:^|`)make ([a-z][\w-]+)", README, re.MULTILINE)
    assert {"quickstart", "test"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
