"""Seeds over four virtual devices; jax must see them from its start, so in another process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def on_four_devices(*arguments):
    script = Path(__file__).with_name("four_devices.py")
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
    path = os.pathsep.join([str(script.parents[2]), str(script.parents[1])])
    done = subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": path},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_every_device_has_its_seeds_and_none_talks_to_another():
    found = on_four_devices("collectives")
    assert found["devices"] == 4
    assert found["on"] == [4]
    assert found["seeds_on_each"] == [1]
    assert found["environments_on_each"] == 2
    assert found["collectives"] == []
    # 3 seeds use 3 devices, 6 use 3, 8 use 4, and one seed is left as it is.
    assert found["meshes"] == [None, 2, 3, 3, 4]


@pytest.mark.slow
def test_each_device_is_sent_its_own_host_environments():
    assert on_four_devices("host") is True


@pytest.mark.slow
def test_four_devices_compute_what_one_does():
    """docs/design.md rule 5: start, keys, masks bit-equal, parameters to 1e-4 over 50 updates."""
    found = on_four_devices("one_device")
    assert found["initial_equal"]
    assert found["masks_equal"]
    assert found["worst"] < 1e-4


@pytest.mark.slow
def test_a_run_on_four_devices_is_resumed_exactly(tmp_path):
    """Fault B2: no program is compiled again."""
    found = on_four_devices("resumed", tmp_path)
    assert found == {"stopped": True, "same": True, "missed": []}
