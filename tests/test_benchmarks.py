"""The benchmarks run, and notice when what they compare is not the same."""

import importlib.util
from pathlib import Path

import pytest

SMALL = ["--quick", "--trials", "2", "--dimensions", "16"]


FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """A benchmark by its name, as a module."""
    monkeypatch.syspath_prepend(FOLDER)  # where `common` is, as for a script that is run

    def load(name):
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def evaluation(benchmark):
    return benchmark("evaluation")


def test_three_ways_to_evaluate_agree(evaluation, capsys):
    assert evaluation.main(SMALL) == 0
    assert "1 of 2 trials, scaled" in capsys.readouterr().out


def test_a_difference_is_noticed(evaluation, monkeypatch, capsys):
    monkeypatch.setattr(evaluation, "by_query", lambda *inputs, right=evaluation.by_query: [0.5, *right(*inputs)[1:]])
    assert evaluation.main(SMALL) == 1
    assert "differ by more than" in capsys.readouterr().out


def test_large(evaluation, monkeypatch, capsys):
    monkeypatch.setattr(
        evaluation, "TARGET_BYTES", float("inf")
    )  # the process that runs the tests has done other things
    assert evaluation.main(["--large", *SMALL]) == 0
    assert "GB resident" in capsys.readouterr().out
