"""What `csvi evaluate` saves and prints, and in which order."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from csvi.cli import main
from csvi.methods.baseline import Baseline
from csvi.plain_table import plain_table
from csvi.train.loop import train


@pytest.fixture
def run(baseline_run, tmp_path):
    """A run that was trained, and not evaluated."""
    run = shutil.copytree(baseline_run, tmp_path / "run")
    for name in ("evaluation.json", "embeddings.npz"):
        (run / name).unlink()
    return run


def test_a_pipe_that_nobody_reads_loses_nothing(run, monkeypatch, capsys):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as unread:
        monkeypatch.setattr("sys.stdout", unread)
        assert main(["evaluate", str(run)]) == 141
    assert capsys.readouterr().err == ""
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


def test_the_next_command_has_the_same_options(baseline_run, sysu_root, tmp_path, capsys):
    run = shutil.copytree(baseline_run, tmp_path / "run")
    options = [f"--data.root={sysu_root}", "--data.mask_values=0", "--expand=2", "--rerank"]
    assert main(["evaluate", str(run), *options]) == 0
    assert capsys.readouterr().out.endswith(f"next: csvi report {run} {' '.join(options)}\n")


@pytest.mark.parametrize("name", ["x[/blue]", "[bold]run :smile:"])
def test_the_name_of_a_run_is_shown_as_it_is(run, monkeypatch, capsys, name):
    monkeypatch.chdir(run.parent)
    Path(name).parent.mkdir(exist_ok=True)
    run.rename(name)
    assert main(["evaluate", name]) == 0
    assert name in capsys.readouterr().out.splitlines()


def test_names_in_any_table_are_no_markup_on_any_console(capsys):
    table = plain_table("run")
    table.add_row("x[/blue] :smile:")
    Console().print(table)
    assert "x[/blue] :smile:" in capsys.readouterr().out


def test_an_encoding_without_the_signs_of_a_table(run, monkeypatch):
    stdout = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr("sys.stdout", stdout)
    assert main(["evaluate", str(run)]) == 0
    assert b"100.0?0.0" in stdout.buffer.getvalue()


@pytest.mark.slow
def test_seeds_that_were_validated_at_other_times_have_a_mean(baseline_run, tmp_path, capsys):
    runs = [shutil.copytree(baseline_run, tmp_path / name) for name in ("0", "1")]
    settings = (runs[1] / "config.yaml").read_text()
    assert "seed: 0" in settings
    changed = settings.replace("seed: 0", "seed: 1").replace("validate_every: 0", "validate_every: 5")
    (runs[1] / "config.yaml").write_text(changed)
    assert main(["evaluate", *map(str, runs)]) == 0
    assert "mean of 2 runs" in capsys.readouterr().out
    (runs[1] / "config.yaml").write_text(changed.replace("lr: 0.001", "lr: 0.002"))
    assert main(["evaluate", *map(str, runs)]) == 0
    assert "no mean over these runs, as their settings differ: train.lr\n" in capsys.readouterr().out


def test_models_whose_settings_are_not_known_have_no_mean(run, baseline_run, sysu_root, tmp_path, capsys):
    alone = shutil.copytree(run, tmp_path / "alone")
    (alone / "config.yaml").unlink()
    trained = shutil.copytree(baseline_run, tmp_path / "trained")
    assert main(["evaluate", str(trained), str(alone), f"--data.root={sysu_root}"]) == 0
    said = f"no mean over these runs, as {alone} is a model alone, whose settings are not known\n"
    assert capsys.readouterr().out.endswith(said)


@pytest.mark.long
@pytest.mark.parametrize("devices", [2, 3])
def test_processes_evaluate_as_one_does_and_only_the_first_speaks(config, tmp_path, devices, real_trunk):
    """96 test images are two batches: of three processes one has none. Those of the other run are there already."""
    config.method = Baseline.Settings(backbone="mobilenet_v2", weights="none", parts=3, part_dim=16)
    run = tmp_path / "run"
    train(config, run)
    other = shutil.copytree(run, tmp_path / "other")
    assert main(["evaluate", str(other)]) == 0
    csvi = [sys.executable, "-m", "csvi", "evaluate", str(other), str(run), "--json"]
    environment = {name: value for name, value in os.environ.items() if name != "LOCAL_RANK"}
    found = []
    for number in (1, devices):
        (run / "embeddings.npz").unlink(missing_ok=True)
        ran = subprocess.run([*csvi, f"--devices={number}"], env=environment, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        assert ran.stderr == ""
        with np.load(run / "embeddings.npz") as arrays:
            found.append((json.loads(ran.stdout)["evaluations"], dict(arrays)))
    (alone, one), (together, several) = found
    assert one.keys() == several.keys()
    assert all(np.array_equal(one[name], several[name]) for name in one)
    for of_one, of_several in zip(alone, together, strict=True):
        assert of_several["protocols"] == of_one["protocols"]
    assert [evaluation["seconds"]["embedding"] > 0 for evaluation in together] == [False, True]


@pytest.mark.parametrize("arguments", [["--devices=0"], ["--devices=2", "--features=features.npz"]])
def test_devices_that_cannot_be(run, arguments, capsys):
    runs = [] if "--features" in arguments[-1] else [str(run)]
    assert main(["evaluate", *runs, *arguments]) == 1
    assert "it must be at least 1, and 1 with --features" in capsys.readouterr().err
