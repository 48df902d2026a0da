"""Where launchers keep compiled programs: the user's place first, and never inside a run folder."""

import jax
import pytest
from absl import flags

from experiments import compilation

NAMES = ("jax_compilation_cache_dir", "jax_enable_compilation_cache")
LEAST = "jax_persistent_cache_min_compile_time_secs"


@pytest.fixture(autouse=True)
def fresh_jax(monkeypatch, tmp_path):
    """jax without a cache and a home that is ours; both are as before afterwards."""
    before = {name: getattr(jax.config, name) for name in (*NAMES, LEAST)}
    for variable in compilation.VARIABLES.values():
        monkeypatch.setenv(variable, "")  # what is set below is taken back as well
        monkeypatch.delenv(variable)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    flags.FLAGS["compilation_cache"].unparse()
    flags.FLAGS.unparse_flags()


def use(*arguments):
    flags.FLAGS(["program", *arguments], known_only=True)
    compilation.use_cache()
    return jax.config.jax_compilation_cache_dir


def test_without_a_word_it_is_in_the_users_cache_folder(tmp_path, monkeypatch):
    folder = use()
    assert folder.startswith(str(tmp_path / "caches" / "mst_jax" / "programs-"))
    assert compilation.default_folder().is_dir()
    assert jax.config.jax_persistent_cache_min_compile_time_secs == 0.5
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")  # to be ignored, by its specification
    monkeypatch.setenv("HOME", str(tmp_path))
    assert compilation.default_folder().parent == tmp_path / ".cache" / "mst_jax"


def test_the_users_own_is_left_alone(tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    assert use() == str(tmp_path / "own")
    assert list(tmp_path.iterdir()) == []


def test_a_flag_names_another_and_processes_that_are_started_hear_of_it(tmp_path):
    wanted = str(tmp_path / "here")
    assert use(f"--compilation_cache={wanted}") == wanted
    assert compilation.os.environ["JAX_COMPILATION_CACHE_DIR"] == wanted


def test_a_flag_turns_it_off_also_for_processes_that_are_started(tmp_path):
    assert use("--compilation_cache=off") is None
    assert not jax.config.jax_enable_compilation_cache
    assert compilation.os.environ["JAX_ENABLE_COMPILATION_CACHE"] == "false"
    assert not (tmp_path / "caches").exists()


def test_a_place_that_cannot_be_written_to(tmp_path, monkeypatch):
    """The default is left out; what the flag asks for is refused in one line."""
    (tmp_path / "caches").touch()
    assert use() is None
    assert jax.config.jax_enable_compilation_cache
    with pytest.raises(ValueError, match=r"--compilation_cache=.*caches/x: Not a directory"):
        use(f"--compilation_cache={tmp_path}/caches/x")
