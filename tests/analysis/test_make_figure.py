"""Figures by name, from the command line, on a run of two steps."""

import errno
import json
import os

import pytest
from PIL import Image

from csvi import cli
from csvi.analysis.make_figure import FIGURES
from csvi.cli import main
from csvi.config import ModelConfig
from csvi.train.loop import train


@pytest.fixture
def run(config, tmp_path):
    train(config, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def baseline(config, tmp_path):
    config.model = ModelConfig(backbone="mobilenet_v2", weights="none", parts=3, part_dim=16, auxiliary="none")
    train(config, tmp_path / "baseline")
    return tmp_path / "baseline"


def test_the_command_line_knows_every_figure():
    assert tuple(FIGURES) == cli.FIGURES


def test_every_figure_is_a_picture_numbers_and_part_of_the_report(run, capsys):
    for name in FIGURES:
        assert main(["figure", name, str(run)]) == 0
        assert f"written: {run / 'figures' / name}.png" in capsys.readouterr().out.replace("\n", "")
        with Image.open(run / "figures" / f"{name}.png") as image:
            assert min(image.size) > 300
        assert (run / "figures" / f"{name}.svg").read_text().lstrip().startswith("<?xml")
        assert isinstance(json.loads((run / "figures" / f"{name}.json").read_text()), list)
    assert main(["report", str(run), "--figures", "gradients"]) == 0
    page = (run / "report.html").read_text()
    assert page.count('class="figure"') == len(FIGURES)


@pytest.mark.parametrize("command", ["figure gradients", "report", "evaluate"])
def test_a_full_disk_leaves_the_results_before(command, run, monkeypatch, capsys):
    arguments = [*command.split(), str(run)]
    assert main(arguments) == 0
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}

    def fsync(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    assert main(arguments) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


def test_runs_side_by_side_and_what_cannot_be_shown(run, baseline, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["figure", "gradients", str(run), str(baseline), f"--out={out}"]) == 0
    assert len(json.loads((out / "gradients.json").read_text())) == 2
    for arguments, message in (
        (["leak", str(baseline)], "has no auxiliary"),
        (["cosegmentation", str(run), str(run)], "shows one run, and 2 were given"),
        (["tsne", str(tmp_path / "nowhere")], "not the folder of a run"),
    ):
        capsys.readouterr()
        assert main(["figure", *arguments, f"--out={out / 'none'}"]) == 1
        error = capsys.readouterr().err
        assert message in error
        assert error.strip().count("\n") == 0
    assert not (out / "none").exists()
