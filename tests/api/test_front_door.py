"""Training from Python: the programs are those of the shared run, so nothing is compiled here."""

import dataclasses
import os
import signal
import threading
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from small_runs import SIMBA_SMALL, compilations, content, small_config, small_settings

import mst_jax
from mst_jax.api.given import settings_from, warn_of_idle
from mst_jax.api.run import Run
from mst_jax.runs.config_file import write_settings
from mst_jax.runs.lock import held
from mst_jax.training import trainer

SMALL = {
    **SIMBA_SMALL,
    "agent": "sac",
    "recipe": "mst",
    "steps": 120,
    "seeds": 2,
    "eval_episodes": 2,
    "eval_every": 60,
    "log_every": 60,
    "checkpoint_every": 0,
    "history_every": 20,
    "diagnose_every": 0,
}
POINT = ("probe:point",)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_is_trained_looked_at_and_loaded_again(finished_run, home, capsys):
    run = mst_jax.train(*POINT, **SMALL, progress=False)
    assert capsys.readouterr().out == "", "no tables of plans unless they are asked for"
    assert run.folder.resolve() == home / "runs" / "probe-point" / "sac-mst-seeds0-1"
    assert run.finished
    assert (run.returns.shape, run.steps.tolist(), run.diverged) == ((2, 3), [0, 60, 120], {})
    for one in (run, mst_jax.load(str(run.folder))):
        assert one.masks["critic/q1/trunk/block_1/expand/kernel"].mean(axis=(1, 2)).shape == (2,)
        assert one.policy(seed=1, best=True).act(np.zeros(4)).shape == (2,)
        assert one.settings == mst_jax.load(finished_run).settings
    assert (run.metric("critic/loss").steps.tolist(), len(run.rows)) == ([120], 10)
    np.testing.assert_array_equal(run.metric("return", kind="eval").values, run.returns)
    with pytest.raises(ValueError, match="rows of the kinds eval, train have 'return': choose"):
        run.metric("return")
    assert {"return", "critic/loss", "sparsity/critic"} <= set(run.metrics)
    assert run.history.masks(run.history.layers[0]).shape[:2] == (2, 7)
    assert run.resume().finished, "nothing is done"
    again = mst_jax.train(*POINT, **SMALL, progress=False)
    assert again.folder.name == "sac-mst-seeds0-1-2", "a second call is another run"
    np.testing.assert_array_equal(again.returns, run.returns)


def test_a_run_shows_itself(finished_run):
    run = mst_jax.load(finished_run)
    words = ("sac mst on probe:point", "finished 120 steps", "at step 120, mean over seeds")
    for text in (repr(run), run._repr_html_()):
        assert all(word in text for word in words)
    assert "critic/q1" not in repr(run.tables)
    for text in (str(run.tables), run.tables._repr_html_()):
        assert "q1/trunk/block_1/expand/kernel" in text
        assert "rigl" in text
    (axis,) = run.plot(run).axes
    assert [text.get_text()[:3] for text in axis.get_legend().get_texts()] == ["mst", "mst"]
    assert plt.get_fignums() == [], "the figure is the caller's alone"


def test_runs_of_one_call_share_programs_where_they_can(finished_run, home, monkeypatch):
    """The programs are not run here; test_together trains such ones."""
    programs = []

    def train_together(program, **_):
        programs.append([job.folder.name for job in program.jobs])
        return [trainer.Outcome(job.folder, 120, "f" * 64) for job in program.jobs]

    monkeypatch.setattr("mst_jax.api.training.train_together", train_together)
    own = [
        {"critic.sparsity": 0.5},
        {"recipe": "dense"},
        {"critic.sparsity": 0.8, "actor.learning_rate": 1e-3},
        {"seed": 2},
        {"log_every": 50},
        {"seed": 2},
    ]
    runs = mst_jax.train_many(own, task="probe:point", **SMALL)
    names = [
        "sac-mst-critic.sparsity=0.5-seeds0-1",
        "sac-dense-seeds0-1",
        "sac-mst-critic.sparsity=0.8-actor.learning_rate=0.001-seeds0-1",
        "sac-mst-seeds2-3",
        "sac-mst-log_every=50-seeds0-1",
        "sac-mst-seeds2-3-2",
    ]
    assert [run.folder.name for run in runs] == names
    assert [[names.index(name) for name in program] for program in programs] == [
        [0, 2, 3, 5],
        [1],
        [4],
    ]
    assert list(home.rglob("*")) == [], "nothing is written before training"
    assert "not begun" in repr(runs[0])


def test_a_stop_saves_and_returns_what_there_is(finished_run, home, monkeypatch):
    def after_a_chunk(*arguments):
        found = advance(*arguments)
        os.kill(os.getpid(), signal.SIGINT)
        monkeypatch.setattr(trainer, "next_boundary", boundary)
        return found

    boundary = advance = trainer.next_boundary
    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(trainer, "next_boundary", after_a_chunk)
    run = mst_jax.train(*POINT, **SMALL, folder="mine", progress=False)
    assert not run.finished
    assert run.steps.tolist() == [0]
    assert "stopped; saved at step 20 of 120" in repr(run)
    assert signal.getsignal(signal.SIGINT) is handler
    with pytest.raises(ValueError, match="no row has 'critic/loss'"):
        run.metric("critic/loss")
    whole = mst_jax.load(finished_run)
    done = []
    thread = threading.Thread(target=lambda: done.append(mst_jax.load("mine").resume()))
    thread.start()  # where Python hands out no signals
    thread.join()
    assert done[0].finished
    np.testing.assert_array_equal(run.returns, whole.returns)
    assert (run.folder / "fingerprint.txt").read_text() == (
        finished_run / "fingerprint.txt"
    ).read_text()


def test_several_runs_stop_together_and_each_can_be_begun(home, monkeypatch):
    mst_jax.train(*POINT, **SMALL, folder="before", progress=False)
    monkeypatch.setattr(
        "mst_jax.api.training.train_together",
        lambda program, **_: [trainer.Outcome(job.folder, 60, None) for job in program.jobs],
    )
    runs = mst_jax.train_many([{}, {"log_every": 50}], task="probe:point", **SMALL, progress=False)
    assert ["not begun" in repr(run) for run in runs] == [True, True]
    with compilations() as seconds:
        assert runs[0].resume(progress=False).finished
    assert seconds == []


def test_what_is_not_there_yet_is_said_in_one_line(tmp_path):
    settings = small_settings()
    run = Run(tmp_path, settings)
    for look in (lambda: mst_jax.load(tmp_path), lambda: Run(tmp_path).settings):
        with pytest.raises(ValueError, match="is not a run folder"):
            look()
    write_settings(tmp_path, settings)
    for what, told in (
        ("returns", "has no metrics yet"),
        ("masks", "has no masks yet; let mst train to its first evaluation"),
        ("history", "holds no topology history"),
    ):
        with pytest.raises(ValueError, match=told) as refused:
            getattr(run, what)
        assert "\n" not in str(refused.value)
    with held(tmp_path):
        assert f"in training by process {os.getpid()}" in repr(mst_jax.load(tmp_path))


WRONG = {
    "argument": ({"recpe": "mst"}, "there is no setting 'recpe': did you mean recipe?"),
    "setting": ({"critic.sparcity": 0.5}, "no setting 'critic.sparcity': did you mean critic.sp"),
    "field": ({"eval_evry": 5}, "no setting 'eval_evry': did you mean eval_every"),
    "agent": ({"agent": "mrqq"}, "agent 'mrqq' is unknown: did you mean mrq?"),
    "task": ({"task": "probe:pint"}, "did you mean point?"),
    "value": ({"critic.sparsity": 1.5}, "critic.sparsity=1.5"),
    "choice": ({"row_dtype": "float8"}, "row_dtype='float8' is none of float32"),
    "type": ({"seeds": "two"}, "seeds is 'two', not an int"),
    "path": ({"critic.sparsity": "a lot"}, "config.critic.sparsity is 'a lot', not a float"),
    "none": ({"recipe": None}, "recipe is None, not a str"),
    "config": ({"config": {"batch_size": 4}}, "config is a dict, not an agent's configuration"),
    "vary": ({"vary": "critic.sparsity=0.3"}, "'vary': mst_jax.train_many trains runs that differ"),
    "place": ({"folder": 3}, "folder is 3, not a str or a Path"),
    "no place": ({"folder": ""}, "folder is empty: name the folder of one run"),
    "metrics": ({"metrics": "json:dumps"}, "metrics needs diagnose_every above 0"),
    "metric": (
        {"metrics": "json:dumps", "diagnose_every": 60},
        "metric 'dumps' of the critic fails: TypeError: Object of type",
    ),
    "steps": ({"steps": 20}, "steps=20 must exceed learning_starts=64"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_one_line_and_writes_nothing(name, home):
    given, told = WRONG[name]
    with pytest.raises((ValueError, TypeError)) as refused:
        mst_jax.train(**{"task": "probe:point", **SMALL, **given})
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    ("look", "told"),
    [
        (lambda: mst_jax.load(None), "folder is None, not a str or a Path"),
        (lambda: mst_jax.load_policy(None), "folder is None, not a str or a Path"),
        (lambda: mst_jax.train_many([], folder=3), "folder is 3, not a str or a Path"),
        (lambda: mst_jax.train_many({"seed": 4}), "there is 'seed': give a mapping such as"),
        (lambda: Run(Path("here")).plot("there"), "'there' is a str, not a Run"),
    ],
)
def test_what_is_no_folder_or_run_is_one_line(look, told):
    with pytest.raises(TypeError, match=r"^[^\n]*$") as refused:
        look()
    assert told in str(refused.value)


def test_a_folder_that_is_there_is_refused_untouched(finished_run):
    before = content(finished_run)
    with pytest.raises(ValueError, match="exists: resume that run, or choose another folder"):
        mst_jax.train(*POINT, **SMALL, folder=finished_run)
    with pytest.raises(ValueError, match="cannot change steps, only max_environment_errors and"):
        mst_jax.load(finished_run).resume(steps=500)
    assert content(finished_run) == before


def test_names_are_settings_of_the_run_or_of_its_agent():
    """Defaults are the launcher's; numbers of NumPy are taken; a given configuration stays."""
    settings = settings_from({"agent": "sac", "batch_size": np.int64(32), "size": "0.25"})
    assert (settings.config.batch_size, settings.config.critic.hidden) == (32, 128)
    assert (settings.recipe, settings.steps, settings.diagnose_every) == (
        "mst-0.25",
        500_000,
        5_000,
    )
    mine = small_config()
    changed = settings_from({"agent": "sac", "config": mine, "steps": 100, "critic.sparsity": 0.5})
    assert (changed.config.critic.sparsity, mine.critic.sparsity) == (0.5, 0.6)
    assert changed.config == dataclasses.replace(mine, critic=changed.config.critic)
    for beside in ({"preset": "easy"}, {"size": "1x1"}, {"architecture": "relu"}):
        with pytest.raises(
            ValueError, match=f"whole configuration: leave out {next(iter(beside))}"
        ):
            settings_from({"config": mine, **beside})


def test_a_setting_that_does_nothing_is_a_warning():
    idle = {"actor.interval": 50, "critic.interval": 50}
    with pytest.warns(UserWarning, match=r"actor\.interval has no effect with actor") as told:
        warn_of_idle(settings_from({"recipe": "mst", **idle}), idle, stacklevel=1)
    assert len(told) == 1


def test_a_run_too_short_for_the_published_warm_up_gets_a_shorter_one():
    with pytest.warns(UserWarning, match="learning_starts=200 instead"):
        assert settings_from({"steps": 2_000}).config.learning_starts == 200
    with pytest.raises(ValueError, match="must exceed learning_starts=2000"):
        settings_from({"steps": 2_000, "learning_starts": 2_000})


def test_dir_shows_the_product():
    assert {"train", "train_many", "load", "load_policy", "Run", "topology", "__version__"} <= set(
        dir(mst_jax)
    )
    assert all(hasattr(mst_jax, name) for name in dir(mst_jax))
    assert not {"Any", "TYPE_CHECKING"} & set(dir(mst_jax))
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = mst_jax.trian
