"""What `csvi evaluate` saves and prints, and in which order."""

import json

import pytest

from csvi.cli import main
from csvi.config import save_config
from csvi.model import build_network
from csvi.model.saved import save_network


@pytest.fixture
def run(config, tmp_path):
    """A run folder of a network as it was born."""
    config.model.auxiliary = "none"
    folder = tmp_path / "run"
    folder.mkdir()
    save_network(build_network(config, identities=8), folder)
    save_config(config, folder / "config.yaml")
    return folder


def test_a_pipe_that_nobody_reads_loses_nothing(run, monkeypatch):
    def broken(evaluation):
        raise BrokenPipeError

    monkeypatch.setattr("csvi.evaluation.print_evaluation", broken)
    assert main(["evaluate", str(run)]) == 1
    assert (run / "evaluation.json").is_file()


def test_what_cannot_be_saved_is_printed_and_the_status_says_so(run, capsys):
    (run / "evaluation.json").mkdir()
    assert main(["evaluate", str(run)]) == 1
    printed = capsys.readouterr()
    assert "all single-shot" in printed.out
    assert "saved:" not in printed.out
    assert printed.err.count("\n") == 1
    assert "evaluation.json" in printed.err
    assert main(["evaluate", str(run), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["evaluations"][0]["model"] == str(run)


def test_the_next_command_takes_no_run_for_an_option(run, monkeypatch, capsys):
    monkeypatch.chdir(run.parent)
    run.rename("-r")
    assert main(["evaluate", "--", "-r"]) == 0
    assert capsys.readouterr().out.endswith("next: csvi report ./-r\n")
