"""Classes by name: the package's own, and module:Class of anybody's."""

import sys
from collections import OrderedDict

import pytest

from csvi.data.layout import LAYOUTS, Layout, find_layout
from csvi.errors import CsviError
from csvi.methods import METHODS, Method, find_method
from csvi.plugins import find

KNOWN = {"ordered": "collections:OrderedDict"}


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The folder of a module of somebody's, in which Python looks."""
    (tmp_path / "somebodys.py").write_text(
        "class Mapping(dict):\n    pass\n\n\nclass Other:\n    pass\n\n\nthing = {}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "somebodys"]:
        del sys.modules[name]


def test_a_short_name_is_looked_up():
    assert find("ordered", KNOWN, dict, "mapping") is OrderedDict


@pytest.mark.usefixtures("module")
def test_a_class_of_somebody_s():
    found = find("somebodys:Mapping", KNOWN, dict, "mapping")
    assert (found.__module__, found.__name__) == ("somebodys", "Mapping")
    assert find("somebodys:Mapping", KNOWN, dict, "mapping") is found


def test_the_current_folder_is_not_looked_in(tmp_path, monkeypatch):
    """It may be a stranger's, and so may the file that names the class."""
    (tmp_path / "strangers.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CsviError, match=r"cannot import the mapping strangers:Mapping .*put its folder on PYTHONPATH"):
        find("strangers:Mapping", KNOWN, dict, "mapping")
    assert not (tmp_path / "ran").exists()


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("disordered", "unknown mapping 'disordered': choose one of ordered, or name a class as module:Class"),
        ("", "unknown mapping ''"),
        (":Mapping", "unknown mapping ':Mapping'"),
        ("somebodys:", "unknown mapping 'somebodys:'"),
        ("some/bodys:Mapping", "unknown mapping 'some/bodys:Mapping'"),
        ("..somebodys:Mapping", "(unknown|cannot import the) mapping"),
        ("nobodys:Mapping", r"cannot import the mapping nobodys:Mapping \(ModuleNotFoundError: .*on PYTHONPATH"),
        ("somebodys:Other", "somebodys:Other is no mapping: it must name a class that derives from builtins.dict"),
        ("somebodys:thing", "somebodys:thing is no mapping"),
        ("somebodys:Nothing", "somebodys:Nothing is no mapping"),
    ],
)
def test_what_is_wrong_is_one_sentence(name, message):
    with pytest.raises(CsviError, match=message) as caught:
        find(name, KNOWN, dict, "mapping")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "code", ["raise RuntimeError('first\\nsecond')", "1 / 0", "def f(:", "import nothing_of_that_name"]
)
def test_whatever_a_module_raises_is_one_sentence(module, code):
    (module / "somebodys.py").write_text(code)
    with pytest.raises(CsviError, match=r"^cannot import the mapping somebodys:Mapping \(\w+: ") as caught:
        find("somebodys:Mapping", KNOWN, dict, "mapping")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("files", "name", "message"),
    [
        ({"somebodys.py": "\n\n{}['e']\n"}, "somebodys:Mapping", r"(KeyError: 'e', somebodys.py:3)"),
        ({"somebodys.py": "\nassert 0\n"}, "somebodys:Mapping", r"(AssertionError, somebodys.py:2)"),
        (
            {"somebodys.py": "\nclass = Mapping\n"},
            "somebodys:Mapping",
            "(SyntaxError: invalid syntax (somebodys.py, line 2))",
        ),
        (
            {"somebodys.py": "import json\n\njson.loads('')"},
            "somebodys:Mapping",
            "(JSONDecodeError: Expecting value: line 1 column 1 (char 0), somebodys.py:3)",
        ),
        (
            {"somebodys.py": "import nobodys"},
            "somebodys:Mapping",
            "(ModuleNotFoundError: No module named 'nobodys', somebodys.py:1)",
        ),
        (
            {
                "somebodys/__init__.py": "",
                "somebodys/own.py": "from somebodys import other",
                "somebodys/other.py": "1 / 0",
            },
            "somebodys.own:Mapping",
            "(ZeroDivisionError: division by zero, other.py:1)",
        ),
        (
            {"somebodys/__init__.py": ""},
            "somebodys.own:Mapping",
            "(ModuleNotFoundError: No module named 'somebodys.own'): put its folder on PYTHONPATH",
        ),
        (
            {},
            "nobodys.own:Mapping",
            "(ModuleNotFoundError: No module named 'nobodys'): put its folder on PYTHONPATH",
        ),
    ],
)
def test_what_fails_in_a_module_is_said_with_its_line_and_what_is_not_found_with_advice(module, files, name, message):
    (module / "somebodys.py").unlink()
    for file, code in files.items():
        (module / file).parent.mkdir(exist_ok=True)
        (module / file).write_text(code)
    with pytest.raises(CsviError) as caught:
        find(name, KNOWN, dict, "mapping")
    assert str(caught.value) == f"cannot import the mapping {name} {message}"


@pytest.mark.parametrize(("names", "finder", "kind"), [(METHODS, find_method, Method), (LAYOUTS, find_layout, Layout)])
def test_every_name_of_the_package_is_found(names, finder, kind):
    for name in names:
        found = finder(name)
        assert issubclass(found if isinstance(found, type) else type(found), kind)
