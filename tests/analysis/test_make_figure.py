"""Figures by name, from the command line, on a run of two steps."""

import errno
import io
import json
import os
import shutil

import pytest
from matplotlib.figure import Figure
from PIL import Image

from csvi import catalogue
from csvi.analysis.canvas import write
from csvi.analysis.make_figure import FIGURES, make_figure
from csvi.cli import main
from csvi.config import DataConfig
from csvi.errors import CsviError
from csvi.runs import Options, Run


@pytest.fixture
def run(coseg_run, tmp_path):
    return shutil.copytree(coseg_run, tmp_path / "run")


def test_the_command_line_knows_every_figure():
    assert tuple(FIGURES) == catalogue.FIGURES


@pytest.mark.slow
def test_every_figure_is_a_picture_numbers_and_part_of_the_report(run, capsys):
    for name in FIGURES:
        assert main(["figure", name, str(run)]) == 0
        printed = capsys.readouterr()
        assert f"written: {run / 'figures' / name}.png" in printed.out.replace("\n", "")
        assert "━" not in printed.out  # of a progress bar
        assert not printed.err
        with Image.open(run / "figures" / f"{name}.png") as image:
            assert min(image.size) > 300
        assert (run / "figures" / f"{name}.svg").read_text().lstrip().startswith("<?xml")
        assert isinstance(json.loads((run / "figures" / f"{name}.json").read_text()), list)
    assert main(["report", str(run), "--figures", "gradients"]) == 0
    page = (run / "report.html").read_text()
    assert page.count('class="figure"') == len(FIGURES)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cosegmentation", "heatmaps", "gradients", "leak"])
def test_on_a_terminal_progress_is_shown_beside_what_is_printed(run, monkeypatch, capsys, name):
    monkeypatch.setenv("FORCE_COLOR", "1")  # Rich takes both streams for terminals
    assert main(["figure", name, str(run)]) == 0
    printed = capsys.readouterr()
    assert "━" in printed.err
    assert "━" not in printed.out


@pytest.mark.slow
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


@pytest.mark.slow
def test_runs_side_by_side_and_what_cannot_be_shown(run, baseline_run, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["figure", "gradients", str(run), str(baseline_run), f"--out={out}"]) == 0
    assert len(json.loads((out / "gradients.json").read_text())) == 2
    for arguments, message in (
        (["leak", str(baseline_run)], "has no co-segmentation"),
        (["cosegmentation", str(run), str(run)], "shows one run, and 2 were given"),
        (["tsne", str(run), "--seed=-1"], "seed is -1"),
        (["tsne", str(tmp_path / "nowhere")], "not the folder of a run"),
    ):
        capsys.readouterr()
        assert main(["figure", *arguments, f"--out={out / 'none'}"]) == 1
        error = capsys.readouterr().err
        assert message in error
        assert error.strip().count("\n") == 0
    assert not (out / "none").exists()


def test_figures_of_a_model_of_the_hub_need_a_folder_to_write_to(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CsviError, match="owner/name has no folder for its figures: say where to write with --out"):
        make_figure("tsne", [Run("owner/name", Options(), DataConfig(), None)])
    assert list(tmp_path.iterdir()) == []


def test_a_name_with_dollars_is_no_formula():
    figure = Figure()
    write(figure, 1, 1, r"id $\anna$")
    figure.savefig(io.BytesIO(), format="svg")
