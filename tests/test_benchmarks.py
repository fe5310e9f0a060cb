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


def test_training(benchmark, capsys):
    training = benchmark("training")
    assert training.main(["--quick", "--variants", "none", "coseg", "--peak", "1"]) == 0
    out = capsys.readouterr().out
    for row in ("bare", "× bare", "coseg", "as usual", "≥ 2.0", "SGD fused"):
        assert row in out
    assert training.main(["--quick", "--variants", "none", "--no-usual", "--profile"]) == 0
    assert "Self CPU" in capsys.readouterr().out


def test_training_notices_another_baseline(benchmark, monkeypatch, capsys):
    training = benchmark("training")
    monkeypatch.setattr(
        training, "losses_as_usual", lambda *inputs, right=training.losses_as_usual: 1.01 * right(*inputs)
    )
    assert training.main(["--quick", "--variants", "none"]) == 1
    assert "losses of the two Baselines differ" in capsys.readouterr().out


def test_the_usual_way_needs_parts_of_one_height(benchmark, capsys):
    with pytest.raises(SystemExit):
        benchmark("training").main(["--height", "100"])
    assert "give a height" in capsys.readouterr().err


def test_embedding(benchmark, capsys):
    assert benchmark("embedding").main(["--quick"]) == 0
    out = capsys.readouterr().out
    for row in ("bare", "cold cache", "warm cache", "≥ 0.95"):
        assert row in out


def test_growth(benchmark, tmp_path, capsys):
    assert benchmark("growth").main(["--quick", "--out", str(tmp_path / "performance.png")]) == 0
    assert (tmp_path / "performance.png").stat().st_size > 1000
    out = capsys.readouterr().out
    for row in ("training, coseg", "embedding", "evaluation", "64×32"):
        assert row in out
