"""benchmarks/gpu.py, whose parts may fail on a machine that nobody has seen."""

import importlib.util
import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
PARTS = """
import json, pathlib, sys, time
out, part = (sys.argv[sys.argv.index(name) + 1] for name in ("--out", "--part"))
if part == "memory":
    sys.exit("no such device")
row = {"what": f"what {part} found", "value": 1.5, "unit": "s", "note": "", "goal": "", "met": None}
pathlib.Path(out, f"{part}.jsonl").write_text(json.dumps(row))
if part == "training":
    time.sleep(600)
"""


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """The script, whose parts are those of `PARTS`."""
    monkeypatch.syspath_prepend(FOLDER)  # where `common` is, as for a script that is run
    spec = importlib.util.spec_from_file_location("gpu", FOLDER / "gpu.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "parts.py").write_text(PARTS)
    monkeypatch.setattr(module, "__file__", str(tmp_path / "parts.py"))
    monkeypatch.setitem(module.PARTS, "training", (None, 6.0))
    return module


def run(gpu, *arguments):
    """As on a machine with a GPU."""
    return gpu.run_all(gpu.make_parser().parse_args(arguments), arguments)


@pytest.mark.long
def test_a_part_that_runs_over_or_fails_is_named_and_the_rest_goes_on(gpu, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(gpu, "--out", str(out), "--only", "training", "memory", "tests") == 1
    parts = json.loads((out / "gpu.json").read_text())["parts"]
    assert {name: part["outcome"] for name, part in parts.items()} == {
        "training": "ended after 6 s",
        "memory": "failed with status 1, see memory.log",
        "tests": "done",
    }
    assert (out / "memory.log").read_text() == "no such device\n"
    printed = capsys.readouterr().out
    for words in ("what training found", "ended after 6 s", "failed with status 1", "what tests found"):
        assert words in printed


@pytest.mark.long
def test_without_time_nothing_is_begun(gpu, tmp_path):
    assert run(gpu, "--out", str(tmp_path / "out"), "--seconds", "1", "--only", "tests") == 1
    parts = json.loads((tmp_path / "out" / "gpu.json").read_text())["parts"]
    assert parts["tests"]["outcome"] == "no time was left"
