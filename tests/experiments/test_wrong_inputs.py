"""Every wrong input to every launcher: one clear line, a bad exit status, and nothing changed."""

import errno
import hashlib
import json
import os
import re
import shlex
from pathlib import Path

import jax
import numpy as np
import pytest
from absl import flags
from launchers import flags_of, run
from small_runs import small_config, small_settings

from experiments import inputs
from experiments.launch.study_folder import StudyFolder
from experiments.studies import STUDIES
from mst_jax.agents import Sizes, make_agent
from mst_jax.envs import vector_spec
from mst_jax.runs import read_settings
from mst_jax.runs.config_file import write_settings
from mst_jax.runs.settings import LAST_SEED
from mst_jax.training import Policy

ROOT = Path(__file__).parents[2]
BENCHMARKS = (
    "same_speed",
    *("checkpoints", "diagnostics", "environments", "health"),
    *("seed_count", "simba", "sweep", "training"),
)


def a_run(folder, config=None, **files):
    """A run folder without checkpoints: settings and one evaluation."""
    folder.mkdir(parents=True)
    write_settings(folder, small_settings())
    for seed in (0, 1):
        row = {"step": 0, "kind": "eval", "healthy": True, "return": 1.0, "wall/seconds": 1.0}
        (folder / f"seed_{seed}").mkdir()
        (folder / f"seed_{seed}" / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    if config is not None:
        (folder / "config.json").write_bytes(config)
    for name, text in files.items():
        (folder / f"{name}.json").write_text(text)


def a_study(folder, change=lambda manifest: manifest):
    """A study that was planned, with its manifest changed."""
    study = StudyFolder(folder)
    study.join("reset", "smoke", STUDIES["reset"].cells("smoke"), "a command")
    path = folder / "study.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def setting(name, value):
    """Changes a setting of a study's first cell."""

    def change(manifest):
        manifest["cells"][0]["settings"][name] = value
        return manifest

    return change


def changed_setting(name, value):
    """config.json with another value of a setting."""
    settings = json.loads(SETTINGS)
    target = settings
    *groups, last = name.split(".")
    for group in groups:
        target = target[group]
    target[last] = value
    return json.dumps(settings).encode()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Runs and studies, whole and damaged, and a file; wrong inputs must leave them as they are."""
    global SETTINGS
    root = tmp_path_factory.mktemp("world")
    (root / "empty").mkdir()
    (root / "file").write_text("a file")
    (root / "full.png").symlink_to("/dev/full")
    (root / "table.csv").write_text("a,b\n1,2\n")
    a_run(root / "runs" / "task" / "run")
    SETTINGS = (root / "runs" / "task" / "run" / "config.json").read_bytes()
    a_run(root / "list", b"[]")
    a_run(root / "half", SETTINGS[:100])
    a_run(root / "latin", "{'\xe4'}".encode("latin-1"))
    a_run(root / "text", changed_setting("steps", "many"))
    a_run(root / "group", changed_setting("config.critic", 3))
    a_run(root / "float", changed_setting("config.batch_size", 2.5))
    a_run(root / "agent", changed_setting("agent", "mrqq"))
    a_run(root / "outside" / "task" / "run", program=json.dumps([".", "../../../../file"]))
    a_run(root / "etc" / "task" / "run", program='["/etc"]')
    a_run(root / "number" / "task" / "run", program="[3]")
    a_run(root / "dict" / "task" / "run", program="{}")
    a_study(root / "study")
    a_study(root / "other" / "reset-smoke", setting("steps", 999))
    a_study(root / "study_list", lambda manifest: [manifest])
    a_study(root / "study_empty", lambda manifest: {**manifest, "cells": []})
    a_study(root / "study_commands", lambda manifest: {**manifest, "commands": 3})
    a_study(root / "study_cell", lambda manifest: {**manifest, "cells": [3]})
    a_study(root / "study_other", lambda manifest: {**manifest, "study": "rest"})
    a_study(root / "study_up", setting("task", ".."))
    a_study(root / "study_type", setting("seeds", "two"))
    return root


def contents(folder):
    """What a folder holds: every path with its bytes."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else None
        for path in folder.rglob("*")
    }


def told(ended):
    """The lines that a user sees of an error."""
    return [line for line in ended.err.splitlines() if line.strip()]


def works(*_, **__):
    raise AssertionError("it was accepted and work began")


RUN, STUDY, SMALL = "{world}/runs/task/run", "{world}/study", "--task=probe:point --seeds=1"
TABLE = [
    # Fault D1: places that cannot be written to.
    (f"train {SMALL} --logdir={{world}}/file", "file is not a folder"),
    (f"train {SMALL} --logdir=/proc/nope", "/proc cannot be written to"),
    (f"train {SMALL} --logdir={{world}}/{'a' * 300}", "File name too long"),
    ("sweep --study=reset --logdir={world}/file", "file is not a folder"),
    ("sweep --study=reset --logdir=/proc/nope", "/proc cannot be written to"),
    ("quickstart --task=probe:point --logdir={world}/file", "file is not a folder"),
    (f"plot {RUN} --output=/nope/x.png", "there is no folder /nope"),
    (f"plot {RUN} --output={{world}}/empty", "must end in .eps or"),
    (f"plot {RUN} --output={{world}}/full.png", "No space left on device"),
    (f"plot {RUN} --published={{world}}/nope.csv", "No such file or directory: "),
    (f"plot {RUN} --published={{world}}/table.csv", "not a table of published curves"),
    (f"inspect {RUN} --output={{world}}/file", "file is not a folder"),
    (f"report {STUDY} --output={{world}}/file", "file is not a folder"),
    (f"evaluate {RUN} --video=/nope/x.gif", "there is no folder /nope"),
    (f"evaluate {RUN} --video={{world}}/x.avi", "must end in .mp4 or .gif"),
    (f"video {RUN} /nope/x.gif", "there is no folder /nope"),
    # Fault D3: `~` of somebody who does not exist.
    (f"train {SMALL} --logdir=~nosuchuser/runs", "home directory"),
    ("plot ~nosuchuser/run", "home directory"),
    # Fault D4: a variable that was not set.
    ("train --resume=", "the path is empty"),
    ("train --logdir=", "the path is empty"),
    ("train --size=", "--size= is empty"),
    ("train --architecture=", "--architecture= is empty"),
    ("train --task=", "--task= is empty"),
    ("plot ''", "the path is empty"),
    ("train --task=dmc:lqr-lqr_2_1 --with_time=exact", "dmc:lqr-lqr_2_1 has none: leave it off"),
    ("train --task=dmc_pixels:walker-walk --with_time=exact", "shows others: leave it off"),
    ("train --task=dmc_pixels:walker-walk --agent=sac", "takes flat observations of float32"),
    ("train --task=dmc_pixels:walker-walk --quality=nice", "one of <exact|fast|plain>"),
    ("train --task=dmc_pixels:walker-walk --picture_size=8", "in the range [16, 512]"),
    ("train --task=dmc:walker-walk --quality=fast", "has no pictures to choose"),
    ("train --task=dmc_pixels:walker-walk --protocol=sticky", "leave out protocol=sticky"),
    ("train --task=dmc_pixels:walker-walk --protocol=mrq", "<atari100k|sticky>"),
    ("train --task=dmc_pixels:walker-walk --picture_size=24", "24x24 are too small for pictures"),
    ("train --task=probe:catch", "pictures of 10x5 are too small for pictures.depth=4"),
    ("train --agent=mrsac --task=probe:catch", "actions are continuous"),
    ("train --task=probe:point --action_repeat=2", "probe environments have action repeat 1"),
    # Fault D5: words that are no flags.
    ("train dmc:dog-run", "'dmc:dog-run' is not a flag"),
    ("quickstart dmc:dog-run", "'dmc:dog-run' is not a flag"),
    ("sweep --study=reset smoke", "'smoke' is not a flag"),
    ("video", "name a run folder"),
    (f"video {RUN} a.gif b.gif", "name a run folder, and"),
    (f"evaluate {RUN} {RUN}", "name 1 run folder, not 2"),
    (f"report {STUDY} {STUDY}", "name 1 run folder, not 2"),
    ("evaluate", "name a run folder"),
    ("plot", "name a run folder"),
    ("inspect", "name a run folder"),
    ("report", "name a run folder"),
    ("run_cell {world}/study", "name a study folder and cells"),
    # Fault D9: numbers.
    ("train --vary=critic.learning_rate=inf,1e-3", "finite"),
    ("train --vary=critic.sparsity=nan", "finite"),
    ("train --vary=critic.sparsity=0.5,x", "is not MODULE.SETTING="),
    ("train --vary=critic.interval=50,100", "with one of sparsity, drop_fraction, learning_rate"),
    ("train --vary=critic.sparsity=0.5,1.5", "critic.sparsity=1.5"),
    (f"train {SMALL} --vary=critic.sparsity=0.5,0.5", "two runs would write to"),
    ("train --vary=critc.sparsity=0.5", "did you mean critic.sparsity"),
    (
        "train --vary=critic.structure=2:4,shard16",
        "critic.structure=shard16: there is no structure",
    ),
    (f"train {SMALL} --vary=critic.structure=2:4,2:4", "two runs would write to"),
    ("train --config.critic.structure=2-4", "critic.structure=2-4: there is no structure '2-4'"),
    (
        "train --config.critic.structure=2:4 --config.critic.sparsity=0.8",
        "critic.sparsity=0.8 contradicts critic.structure=2:4, which is a sparsity of 0.5",
    ),
    (
        "train --vary=critic.structure=2:4 --config.critic.sparsity=0.8",
        "critic.sparsity=0.8 contradicts critic.structure=2:4",
    ),
    ("train --config.encoder.structure=2:4", "encoder.structure=2:4 has no effect"),
    ("train --size=infx1", "size 'infx1' is neither"),
    ("train --size=nanx1", "size 'nanx1' is neither"),
    ("train --size=-1x1", "size '-1x1' is neither"),
    ("train --size=1e9x1", "hidden="),
    ("train --size=1x1000000000", "depth="),
    ("train --agent=sac --size=big", "size 'big' is neither one of 4.5M"),
    (f"train {SMALL} --seed={LAST_SEED + 1}", f"exceeds {LAST_SEED:,}"),
    (f"train {SMALL} --seed={LAST_SEED} --seeds=2", f"exceeds {LAST_SEED:,}"),
    (f"train {SMALL} --seed=99999999999999999999999", "seed="),
    (f"train {SMALL} --seeds=1000000000", "seeds=1000000000"),
    ("train --config.critic.learning_rate=inf", "learning_rate=inf must be a finite number"),
    ("train --config.critic.learning_rate=nan", "learning_rate=nan"),
    ("train --config.max_grad_norm=-1", "max_grad_norm=-1"),
    ("train --config.dynamics_weight=-1", "dynamics_weight=-1"),
    ("train --config.batch_size=99999999999", "batch_size=99999999999"),
    ("train --config.batch_size=many", "batch_size"),
    ("train --config.critic.sparsity=1.5", "critic.sparsity=1.5"),
    ("train --agent=sac --steps=2000000000", "steps=2000000000"),
    (f"evaluate {RUN} --index=4294967296", "--index=4294967296 is too large"),
    (f"inspect {RUN} --seed=x", "--seed=x"),
    ("sweep --study=reset --seeds=99999999999999", "--seeds=99999999999999"),
    # Fault D10: a sweep's lists and parameters; damaged JSON, here and in runs.
    ("sweep --study=modules --tasks=", "--tasks= is empty"),
    ("sweep --study=modules --agents=", "--agents= is empty"),
    ("sweep --study=modules --submitit=foo --executor=local", "takes name=value, not 'foo'"),
    ("sweep --study=modules --submitit=timeout_min=5", "--submitit needs --executor"),
    ("sweep", "name a study with --study: atari_width, modules"),
    ("sweep --study=modles", "study 'modles' is unknown: did you mean modules"),
    ("sweep --study=modules --size=tiny", "size 'tiny' is unknown: there are smoke, small"),
    ("sweep --study=modules --tasks=probe:pint", "did you mean point"),
    ("sweep --study=reset --agents=sacc", "agent 'sacc' is unknown: did you mean sac"),
    ("sweep --study=reset --logdir={world}/other", "choose another logdir"),
    ("report {world}/study_list", "it holds a list, not a dict"),
    ("report {world}/study_empty", "it has no cells"),
    ("report {world}/study_commands", "its 'commands' is not a list"),
    ("report {world}/study_cell", "a cell cannot be read"),
    ("report {world}/study_type", "seeds is 'two', not an int"),
    ("report {world}/study_other", "study 'rest' is unknown: did you mean reset"),
    ("report {world}/empty", "is not a study folder"),
    ("run_cell {world}/study nobody", "has no cell 'nobody'"),
    *(
        (f"plot {{world}}/{name}", "cannot be read as a run's settings")
        for name in ("list", "half")
    ),
    ("plot {world}/latin", "cannot be read as a run's settings"),
    ("plot {world}/text", "steps is 'many', not an int"),
    ("evaluate {world}/group", "critic is 3, not a dict"),
    ("inspect {world}/float", "batch_size is 2.5, not an int"),
    ("train --resume={world}/agent", "did you mean mrq"),
    ("train --resume={world}/number/task/run", "program.json names 3"),
    ("train --resume={world}/dict/task/run", "it holds a dict, not a list"),
    # Fault D19: a study or a run from a stranger that names places outside.
    ("report {world}/study_up", "which is not in"),
    ("run_cell {world}/study_up x", "which is not in"),
    ("train --resume={world}/outside/task/run", "which is no run in"),
    ("train --resume={world}/etc/task/run", "program.json names '/etc'"),
    # Names, and what else a hand may write.
    ("train --recipe=mts", "recipe 'mts' is unknown for mrq: did you mean mst?"),
    ("train --agent=mrqq", "agent 'mrqq' is unknown: did you mean mrq?"),
    ("train --task=dmc:cartpole-swingupp", "did you mean cartpole-swingup or"),
    ("train --architecture=gelu", "architecture 'gelu' is unknown: did you mean elu"),
    ("train --recipe=dense --config.critic.sparsity=0.5", "no effect"),
    ("train --steps=100", "steps=100 must exceed learning_starts=10000"),
    ("train --resets=100", "before learning_starts"),
    ("train --flavour=mild", "Unknown command line flag 'flavour'"),
    ("train --config.critic.sparcity=0.5", "did you mean critic.sparsity"),
    ("train --resume=/nowhere", "/nowhere is not a run folder"),
    ("train --resume=/nowhere --steps=5", "leave out --steps"),
    ("train --resume=/nowhere --preset=easy", "leave out --preset"),
    ("train --resume=/nowhere --recipe=static_critic --size=109M", "leave out --recipe, --size"),
    ("quickstart --agent=drqv2 --task=probe:point", "this agent takes pictures"),
    ("train --agent=der --task=probe:point", "this agent takes pictures"),
    ("train --agent=der --task=probe:picture_motion", "this agent chooses one of several actions"),
    ("train --agent=der --task=probe:catch", "n_step=10 is more than the 9 steps of an episode"),
    ("train --agent=der --task=probe:catch --config.n_step=3", "pictures of 10x5 are too small"),
    ("train --agent=drqv2 --task=probe:catch", "this agent's actions are continuous"),
    ("train --resume=/nowhere -config.batch_size=5", "leave out -config.batch_size"),
    ("evaluate /nowhere", "/nowhere is not a run folder"),
    ("plot /nowhere", "/nowhere is not a run folder"),
    ("inspect /nowhere", "/nowhere is not a run folder"),
    ("video /nowhere", "/nowhere is not a run folder"),
    (f"evaluate {RUN}", "has no light checkpoint yet"),
    (f"inspect {RUN}", "has no light checkpoint yet"),
    (f"video {RUN}", "has no light checkpoint yet"),
    *((f"benchmarks.{name} stray", "'stray' is not a flag") for name in BENCHMARKS),
    *((f"benchmarks.{name} --output=/proc/x/y", "/proc cannot be written") for name in BENCHMARKS),
    ("benchmarks.sweep --output={world}/empty", "is a folder; name a file"),
    ("benchmarks.sweep --parts=programms", "name 'programms' is unknown: did you mean programs"),
    ("benchmarks.simba --seeds=1,x", "'x' is not a whole number"),
    ("benchmarks.seed_count --seeds=0", "'0' is not a whole number"),
    ("benchmarks.simba --sizes=1x1 --steps=1,2", "a number for each"),
]


@pytest.mark.parametrize(("line", "words"), TABLE, ids=[line[:60] for line, _ in TABLE])
def test_a_wrong_input_is_one_line_and_changes_nothing(line, words, world, monkeypatch):
    """Faults D1, D3, D4, D5, D9, D10, D19."""
    for work in ("mst_jax.training.train_together", "experiments.launch.pool.run_pool"):
        monkeypatch.setattr(work, works)
    monkeypatch.chdir(world / "empty")  # where `runs`, `studies` and other defaults would be
    module, *arguments = shlex.split(line.replace("{world}", str(world)))
    before = contents(world)
    ended = run(module if "." in module else f"experiments.{module}", *arguments)
    assert words in ended.err
    assert ended.status == 1
    assert told(ended)[-1].startswith("error: ")
    assert len(told(ended)) <= 3
    assert "Traceback" not in ended.err
    assert contents(world) == before


@pytest.mark.parametrize(
    ("flag", "told"),
    [
        ("--config.pad=1", "noise_steps=2000000, feature_dim=100, encoder.learning_rate=8e-05"),
        ("--config.noise_steps=7", "feature_dim=100, encoder.learning_rate=8e-05"),
        ("--vary=encoder.learning_rate=1e-3", "noise_steps=2000000, feature_dim=100, critic.learn"),
    ],
)
def test_a_preset_says_what_it_sets_and_no_flag_sets_anew(flag, told, tmp_path, monkeypatch):
    monkeypatch.setattr("mst_jax.training.train_together", works)  # after it is told
    where = f"--logdir={tmp_path}", "--task=probe:picture_motion", "--config.encoder.depth=2"
    ended = run("experiments.train", "--agent=drqv2", "--preset=hard", "--seeds=1", *where, flag)
    assert ended.out.startswith(f"preset hard of probe:picture_motion: {told}")


def test_a_setting_that_does_nothing_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("mst_jax.training.train_together", works)
    where = f"--logdir={tmp_path}", "--task=probe:point", "--recipe=mst", "--seeds=1"
    idle = "--config.actor.interval=50", "--vary=actor.drop_fraction=0.1,0.2"
    ended = run("experiments.train", *where, *idle, "--config.critic.interval=50")
    assert ended.out.splitlines()[:2] == [
        "note: actor.interval has no effect with actor.regime=static",
        "note: actor.drop_fraction has no effect with actor.regime=static",
    ]
    assert "critic" not in ended.out.splitlines()[2]


LAUNCHERS = {  # with arguments that end it before it works, whatever the numbers are
    "experiments.train": "--task=probe:nope",
    "experiments.quickstart": "--task=probe:nope",
    "experiments.sweep": "--study=reset --dry_run --logdir=x",
    "experiments.evaluate": "/nowhere",
    "experiments.inspect": "/nowhere",
    "experiments.run_cell": "/nowhere cell",
    **{f"benchmarks.{name}": "stray" for name in BENCHMARKS},
}


@pytest.mark.parametrize("module", LAUNCHERS)
def test_no_numeric_flag_takes_what_it_cannot_use(module, tmp_path, monkeypatch):
    """Fault D9, for every numeric flag that there is: by kind, not by name."""
    monkeypatch.chdir(tmp_path)
    numeric = [
        (flag.name, ("1e3",) if isinstance(flag.parser, flags.IntegerParser) else ())
        for flag in flags_of(module)
        if isinstance(flag.parser, (flags.IntegerParser, flags.FloatParser))
    ]
    assert numeric
    for name, no_integer in numeric:
        for value in ("nan", "inf", "-1", *no_integer, "9" * 30):
            ended = run(module, f"--{name}={value}", *LAUNCHERS[module].split())
            assert "Traceback" not in ended.err, (name, value, ended.err)
            assert len(told(ended)) <= 3
            if value != "9" * 30:
                assert ended.status == 1
                assert name in ended.err, (name, value, ended.err)
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_run_is_refused_before_anything_is_played(world, monkeypatch):
    """Fault D1; permissions do not bind root, so the refusal is simulated."""

    def refuse(**_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(inputs.tempfile, "TemporaryFile", refuse)
    ended = run("experiments.evaluate", world / "runs" / "task" / "run")
    assert ended.err.endswith("run cannot be written to (Read-only file system)\n")


def test_the_home_folder_is_found_in_every_path(world, monkeypatch):
    """Fault D3: `--logdir=~/runs` made a folder of that name."""
    monkeypatch.setenv("HOME", str(world))
    monkeypatch.chdir(world / "empty")
    assert inputs.user_path("~/runs") == world / "runs"
    ended = run("experiments.plot", "~/runs/task/run", "--output=~/empty/curve.png")
    assert ended.status == 0, ended.err
    assert [path.name for path in (world / "empty").iterdir()] == ["curve.png"]
    (world / "empty" / "curve.png").unlink()
    ended = run("experiments.sweep", "--study=reset", "--dry_run", "--logdir=~")
    assert ended.out.startswith(f"{world}/reset-smoke: ")


def test_a_policy_takes_observations_of_its_own_size():
    """Fault D8: SAC's statistics broadcast a single number to an action."""
    agent = make_agent("sac", small_config("dense", "sac"), Sizes.vector(3, 1, 500), 1_000)
    policy = Policy(agent, agent.init(jax.random.key(0), None), vector_spec("fake:three", 3, 1, 8))
    assert policy.act(np.ones(3)).shape == (1,)
    for shape in ((1,), (), (3, 1), (4, 2)):
        with pytest.raises(ValueError, match=rf"3 numbers.*{re.escape(str(shape))}"):
            policy.act(np.ones(shape))


def test_old_settings_are_read_whatever_they_say(world):
    """Types are checked where runs are read, values where they are started."""
    run_folder = world / "runs" / "task" / "run"
    assert read_settings(run_folder) == small_settings()
