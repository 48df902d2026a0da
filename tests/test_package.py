"""What describes the project says the same everywhere, and the API reference misses no package."""

import ast
import re
import runpy
import subprocess
import sys
import types
from pathlib import Path

import pytest

import mst_jax

ROOT = Path(__file__).parents[1]


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def found(pattern, name):
    return re.findall(pattern, text(name), re.MULTILINE)


@pytest.fixture
def setup_arguments(monkeypatch):
    """What setup.py tells setuptools, which an environment need not have."""
    told = {}
    stand_in = types.ModuleType("setuptools")
    stand_in.setup = told.update
    stand_in.find_packages = lambda **_: []
    monkeypatch.setitem(sys.modules, "setuptools", stand_in)
    runpy.run_path(str(ROOT / "setup.py"))
    return told


def test_version_is_one(setup_arguments):
    version = mst_jax.__version__
    assert setup_arguments["version"] == version
    assert found(r"^version: (.+)$", "CITATION.cff") == [version]
    assert version in found(r"^## (\S+) - \d{4}-\d\d-\d\d$", "CHANGELOG.md")


def test_version_needs_no_jax():
    code = "import mst_jax, sys; assert mst_jax.__version__; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_ruff_is_one():
    assert found(r"rev: v(.+)$", ".pre-commit-config.yaml") == found(r'"ruff==(.+)"', "setup.py")


def test_hosted_ci_runs_what_users_run_on_every_supported_python():
    (pythons,) = found(r"python: \[(.+)\]", ".github/workflows/ci.yml")
    cells = found(r'CELLS:-"(.+)"\}', ".ci/matrix")[0].split()
    assert re.findall(r"[\d.]+", pythons) == sorted({cell.split("/")[0] for cell in cells})
    assert found(r"run: (\S+)$", ".github/workflows/ci.yml") == [".ci/run"]


def test_users_get_types(setup_arguments):
    assert (ROOT / "mst_jax/py.typed").exists()
    assert setup_arguments["package_data"]["mst_jax"] == ["py.typed"]


@pytest.mark.parametrize(
    "package", sorted(path.parent.name for path in (ROOT / "mst_jax").glob("*/__init__.py"))
)
def test_every_package_with_public_names_has_a_reference_page(package):
    tree = ast.parse(text(f"mst_jax/{package}/__init__.py"))
    targets = [t.id for n in tree.body if isinstance(n, ast.Assign) for t in n.targets]
    page = ROOT / "docs/reference" / f"{package}.md"
    assert page.exists() == ("__all__" in targets)
    if page.exists():
        assert f"\n::: mst_jax.{package}\n" in page.read_text(encoding="utf-8")
        assert f"- reference/{package}.md" in text("mkdocs.yml")
