"""Policy files that are damaged, of other sizes, of another version, or none at all: one line."""

import re
import subprocess

import numpy as np
import pytest
from policies import SPEC, compiled, needs_c
from test_forms import network

from mst_jax.export import compiling, load_exported, policy_file, write_policy
from mst_jax.export.forms import form_of, require_known, require_place


@pytest.fixture
def path(tmp_path):
    write_policy(policy_file(network(5), SPEC), tmp_path / "policy.npz", "npz")
    return tmp_path / "policy.npz"


def refused(path, match):
    with pytest.raises(ValueError, match=match) as error:
        load_exported(path)
    assert "\n" not in str(error.value)


def rewritten(path, **changes):
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files} | changes
    np.savez_compressed(path, **{name: a for name, a in arrays.items() if a is not None})


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b"",
        lambda b: b[: len(b) // 2],
        lambda b: b"x" * 100,
        lambda b: b[:200] + b"!!!" + b[203:],
    ],
)
def test_bytes_that_are_not_what_was_written(path, damage):
    path.write_bytes(damage(path.read_bytes()))
    refused(path, "policy.npz is no exported policy, or is damaged")


def test_arrays_that_are_missing_or_of_other_sizes(path):
    rewritten(path, **{"0/kernel": np.zeros((6, 16), np.float32)})
    refused(path, "is damaged")
    rewritten(path, **{"0/kernel": None})
    refused(path, "is damaged")
    rewritten(path, description=None)
    refused(path, "is damaged")


def test_another_version_or_operation(path):
    with np.load(path) as file:
        text = str(file["description"])
    rewritten(path, description=text.replace('"version": 1', '"version": 2'))
    refused(path, re.escape(f"{path} is of version 2, and this program plays 1"))
    rewritten(path, description=text.replace('"Relu"', '"Swish"'))
    refused(path, "is damaged .KeyError: 'Swish'")
    rewritten(path, description=text.replace('"size": 3', '"size": 4'))
    refused(path, "the last operation does not give an action")


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ('"mst_jax policy"', '"policy"', "format"),
        ('"source": {}', '"source": {"seed": "0"}', "seed"),
        ('"source": {}', '"source": {"action_repeat": "2"}', "action_repeat"),
        ('"source": {}', '"source": []', "AttributeError"),
        ('"source"', '"sauce"', "KeyError: 'source'"),
        ('"task": "probe:point"', '"task": null', "task"),
        ('"history": 1', '"history": 0', "history"),
        ('"units": "agent"', '"units": "task"', "low and high"),
    ],
)
def test_a_description_that_says_something_else(path, old, new, match):
    with np.load(path) as file:
        text = str(file["description"])
    assert old in text
    rewritten(path, description=text.replace(old, new))
    refused(path, rf"is no exported policy, or is damaged \(its description: {match}")


def test_an_observation_of_another_size(path):
    policy = load_exported(path)
    for shape in ((4,), (2, 6), ()):
        with pytest.raises(ValueError, match=r"takes 5 numbers, \(..., 5\), not"):
            policy.act(np.zeros(shape))


@needs_c
def test_libraries_that_are_no_policies(tmp_path):
    policy = compiled(policy_file(network(5), SPEC), tmp_path)
    with pytest.raises(ValueError, match=r"takes 5 numbers, \(..., 5\), not"):
        policy.act(np.zeros(4))
    source, library = tmp_path / "policy.c", tmp_path / "policy.so"
    whole = source.read_text()

    def build(text):
        source.write_text(text)
        subprocess.run(["gcc", "-shared", "-fPIC", "-w", "-o", library, source, "-lm"], check=True)

    build(whole.replace("POLICY_VERSION 1", "POLICY_VERSION 2"))
    refused(library, "is of version 2, and this program plays 1")
    build(whole.replace("POLICY_ACTION_SIZE 3", "POLICY_ACTION_SIZE 2"))
    refused(library, r"is damaged: it is of sizes \(5, 2\) and says \(5, 3\)")
    build("int policy_version(void) { return 1; }")
    refused(library, "is no exported policy: it has no policy_observation_size")
    build(whole)
    library.write_bytes(library.read_bytes()[: library.stat().st_size // 2])
    refused(library, "is damaged")  # loading it here would end this process
    library.write_bytes(b"no library")
    refused(library, "policy.so is no library for this machine, or is damaged")
    refused(source, "policy.c is to be compiled first: cc -std=c99")


@needs_c
def test_the_command_that_compiles_takes_any_path(tmp_path):
    source = tmp_path / "my policy's.c"
    write_policy(policy_file(network(5), SPEC), source, "c")
    subprocess.run(compiling(source), shell=True, check=True)  # as a user pastes it
    load_exported(source.with_suffix(".so"))


def test_what_is_no_policy_file(tmp_path):
    refused(tmp_path / "policy.pt", "is no policy that is played here")
    with pytest.raises(FileNotFoundError):
        load_exported(tmp_path / "absent.npz")
    with pytest.raises(FileNotFoundError):
        load_exported(tmp_path / "absent.so")


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("policy.txt",), r"policy.txt must end in .npz or .c"),
        (("policy.npz", "c"), r"policy.npz does not end in .c"),
        (("policy.npz", "nzp"), "form 'nzp' is unknown: did you mean npz"),
        (("policy.npz", None, "float61"), "dtype 'float61' is unknown: did you mean float"),
        (("policy.c", None, "float16"), "a .c file has no float16: choose float32, or .npz"),
    ],
)
def test_forms_that_there_are_not(arguments, match, tmp_path):
    path, *rest = arguments
    with pytest.raises(ValueError, match=match):
        form_of(tmp_path / path, *rest)


def test_places_that_cannot_be_written(path, tmp_path):
    for place, match in (
        (path, "exists: choose another name, or set overwrite"),
        (tmp_path, "is a folder; name a file"),
        (tmp_path / "absent/policy.npz", "there is no folder .*absent for policy.npz"),
    ):
        with pytest.raises(ValueError, match=match):
            require_place(place, overwrite=False)
    require_place(path, overwrite=True)


def test_a_form_without_an_operation_of_the_policy(monkeypatch):
    from mst_jax.export import forms

    known = [name for name in forms.FORMS["c"].operations if name != "Tanh"]
    monkeypatch.setitem(forms.FORMS, "c", forms.FORMS["c"]._replace(operations=known))
    file = policy_file(network(5), SPEC)
    require_known(file, "npz")
    with pytest.raises(ValueError, match=r"a .c file has no Tanh: choose another form"):
        require_known(file, "c")
