"""config.json of this version, of earlier ones and of a later one; flags and docs say the same."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest
from launchers import flags_of
from small_runs import small_settings

from mst_jax.runs import read_settings
from mst_jax.runs.config_file import SCHEMA, write_settings
from mst_jax.runs.settings import ABOUT, FIELDS, Settings, settings_table
from mst_jax.training import plan_resume

ROOT = Path(__file__).parents[2]
RESULTS = sorted((ROOT / "docs" / "results").rglob("config.json"))
OLD = [path for path in RESULTS if "schema" not in json.loads(path.read_text())]


def changed(folder, change):
    path = folder / "config.json"
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))


def test_what_is_written_is_read_and_has_the_number_of_its_schema(tmp_path):
    settings = small_settings(agent="sac", final_eval_episodes=3, worker_timeout=5)
    write_settings(tmp_path, settings)
    assert json.loads((tmp_path / "config.json").read_text())["schema"] == SCHEMA
    assert read_settings(tmp_path) == settings


@pytest.mark.parametrize("path", OLD, ids=lambda path: path.parent.name)
def test_runs_of_earlier_versions_are_read(path):
    """What they lack, they did not do, whatever a new run does by default."""
    settings = read_settings(path.parent)
    assert (settings.diagnose_every, settings.history_every, settings.environments) == (0, 0, 1)
    assert Settings.diagnose_every == 5_000


def test_there_are_runs_of_before_and_since_there_was_a_schema():
    assert len(OLD) > 15
    for path in set(RESULTS) - set(OLD):
        assert read_settings(path.parent).diagnose_every > 0


def test_a_setting_of_the_agent_that_did_not_exist_yet_has_the_published_value(tmp_path):
    shutil.copy(OLD[0], tmp_path / "config.json")
    before = read_settings(tmp_path)

    def remove(raw):
        del raw["config"]["critic"]["end_fraction"], raw["config"]["tau"]

    changed(tmp_path, remove)
    settings = read_settings(tmp_path)
    assert settings == before
    assert (settings.config.critic.end_fraction, settings.config.tau) == (0.75, 0.005)


WRONG = {
    "newer": (lambda raw: raw.update(schema=SCHEMA + 1), r"a newer version wrote them \(schema"),
    "unknown": (lambda raw: raw.update(eval_evry=3), "no setting eval_evry: did you mean eval_e"),
    "nested": (
        lambda raw: raw["config"]["critic"].update(sparcity=0.5),
        "no setting config.critic.sparcity: did you mean sparsity",
    ),
    "missing": (lambda raw: raw.pop("steps"), "there is no 'steps'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_not_known_is_refused_in_one_line(name, tmp_path):
    change, told = WRONG[name]
    write_settings(tmp_path, small_settings())
    changed(tmp_path, change)
    with pytest.raises(ValueError, match=told) as refused:
        read_settings(tmp_path)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith(f"{tmp_path / 'config.json'} cannot be read")


def test_a_run_of_an_earlier_version_is_resumed(finished_run, tmp_path):
    """Its checkpoint recorded the settings as its config.json has them: without those of today."""
    folder = tmp_path / "run"
    shutil.copytree(finished_run, folder)
    (folder / "fingerprint.txt").unlink()

    def remove(raw):
        del raw["schema"], raw["worker_timeout"], raw["config"]["critic"]["end_fraction"]

    changed(folder, remove)
    for path in folder.glob("checkpoints/*/*/manifest.json"):
        manifest = json.loads(path.read_text())
        remove(manifest["config"])
        path.write_text(json.dumps(manifest))
    job = plan_resume(folder)
    assert job.checkpoint.step == 120
    assert job.settings == read_settings(finished_run)


def test_flags_are_the_settings():
    found = {flag.name: flag for flag in flags_of("experiments.train")}
    for name, about in ABOUT.items():
        assert found[name].default == FIELDS[name].default, name
        assert about.text in found[name].help  # absl lists choices before it
    assert found["steps"].parser.lower_bound == 1


def test_the_table_in_the_docs_says_what_the_fields_say():
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"^\| setting \|.*?(?=\n\n)", text, flags=re.MULTILINE | re.DOTALL)
    assert table == settings_table(), "put settings_table() there"
    assert settings_table() in Settings.__doc__
    names = {field.name for field in dataclasses.fields(Settings)}
    assert names == {*ABOUT, "config"}
