import json

import numpy as np
import pytest

from mst_jax.envs import Continuous, Discrete, Observation, Spec, vector_spec
from mst_jax.runs.task_file import read_spec, write_spec

PIXELS = Observation((84, 84, 9), "uint8", 3, "zeros", 0)
UNITS = Continuous(2, (-0.4, -1.0), (0.4, 2.0))


@pytest.mark.parametrize(
    "spec",
    [
        vector_spec("dmc:dog-run", 223, 38, None, 2),
        Spec("gym:Humanoid-v4", Observation((3,), unscaled=1), UNITS, 1000, 1),
        Spec("atari:Pong", PIXELS, Discrete(6), 27_000, 4, ends_early=False),
    ],
)
def test_what_is_written_is_read(spec, tmp_path):
    write_spec(tmp_path, spec)
    assert read_spec(tmp_path) == spec
    assert hash(read_spec(tmp_path)) == hash(spec)


def test_a_users_numpy_numbers_are_written_as_numbers(tmp_path):
    write_spec(tmp_path, vector_spec("mine:task", np.int64(3), np.int32(2), np.int64(7)))
    assert read_spec(tmp_path) == vector_spec("mine:task", 3, 2, 7)


def test_a_file_of_before_episodes_were_said_to_end_early(tmp_path):
    write_spec(tmp_path, vector_spec("probe:point", 3, 2, 7))
    path = tmp_path / "task.json"
    values = json.loads(path.read_text())
    del values["ends_early"]
    path.write_text(json.dumps(values))
    assert read_spec(tmp_path) == vector_spec("probe:point", 3, 2, 7)


def test_older_runs_have_no_file_and_damage_is_one_line(tmp_path):
    assert read_spec(tmp_path) is None
    write_spec(tmp_path, vector_spec("probe:point", 3, 2, 7))
    whole = (tmp_path / "task.json").read_text()
    for old, new in (("continuous", "knob"), ('"shape"', '"form"'), ('"kind"', '"sort"')):
        (tmp_path / "task.json").write_text(whole.replace(old, new))
        with pytest.raises(ValueError, match=r"task\.json is damaged") as refused:
            read_spec(tmp_path)
        assert "\n" not in str(refused.value)
