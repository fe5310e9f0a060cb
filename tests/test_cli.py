"""The commands as a user types them."""

import subprocess
import sys

import pytest

from csvi.cli import main


def run(*arguments):
    return main([str(argument) for argument in arguments])


def test_help_answers_without_importing_torch():
    code = "import sys, csvi.cli; csvi.cli._parser(); sys.exit('torch' in sys.modules or 'numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("command", [[], ["synth"], ["train"], ["evaluate"], ["report"], ["demo"]])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as exit:
        run(*command, "--help")
    assert exit.value.code == 0
    assert "usage: csvi" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["trian"], "trian"),
        (["train", "--data.rot", "x"], "--data.rot"),
        (["train", "--train.lr", "fast"], "train.lr"),
        (["train", "--config", "missing.yaml"], "missing.yaml"),
        (["synth", "--preset", "huge"], "preset"),
        (["evaluate"], "runs"),
        (["evaluate", "run", "--gallery", "lucky"], "gallery"),
    ],
)
def test_wrong_arguments_are_named_in_one_sentence(arguments, word, capsys):
    with pytest.raises(SystemExit) as exit:
        run(*arguments)
    assert exit.value.code == 2
    message = capsys.readouterr().err
    assert word in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["train"], "--data.root"),
        (["train", "--data.root", "nowhere"], "nowhere"),
        (["evaluate", "nowhere"], "nowhere"),
        (["report", "nowhere"], "nowhere"),
        (["synth"], "--sheet"),
    ],
)
def test_bad_input_is_one_sentence_and_status_1(arguments, word, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 1
    message = capsys.readouterr().err
    assert word in message
    assert message.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_whole_job_on_the_tiny_benchmark(tmp_path, capsys):
    """synth, train, stop, resume, evaluate, report: each says what to type next; the report is whole."""
    data, folder = tmp_path / "data", tmp_path / "run"
    small = ["--data.height=96", "--data.width=48", "--data.identities=4", "--data.images=2", "--data.workers=0"]
    settings = ["--data.root", data, "--data.cache", tmp_path / "cache", "--data.train_on=train", *small]
    settings += ["--model.backbone=mobilenet_v2", "--model.weights=packaged", "--model.part_dim=32"]
    settings += ["--train.epochs=1", "--train.validate_every=1", "--run", folder]

    assert run("synth", data, "--preset", "tiny") == 0
    assert f"--data.root {data}" in capsys.readouterr().out
    assert run("train", *settings) == 0
    assert f"csvi evaluate {folder}" in capsys.readouterr().out
    assert run("train", *settings) == 1
    assert "--resume auto" in capsys.readouterr().err
    assert run("train", *settings, "--train.epochs=2", "--resume=auto") == 0
    assert run("evaluate", folder) == 0
    table = capsys.readouterr().out
    assert "all single-shot" in table
    assert "Synthetic data" in table
    assert run("evaluate", folder, "--gallery", "official", "--data.masks", "nowhere") == 1
    assert "nowhere" in capsys.readouterr().err
    (folder / "auxiliary.safetensors").rename(tmp_path / "auxiliary.safetensors")  # as in a model that was passed on
    assert run("evaluate", folder, "--gallery", "official") == 0
    table = capsys.readouterr().out
    assert "official galleries" in table
    assert "masks (IoU)" not in table
    (tmp_path / "auxiliary.safetensors").rename(folder / "auxiliary.safetensors")
    assert run("report", folder) == 0
    page = (folder / "report.html").read_text()
    assert "Synthetic data." in page
    assert page.count('class="list"') == 10
    assert page.count('class="triple"') == 10
    for kind in ("right", "wrong", "removed"):
        assert f'<figure class="{kind}">' in page
    expected = {"config.yaml", "metrics.jsonl", "last.ckpt", "model.safetensors", "config.json", "evaluation.json"}
    expected.add("evaluation-official.json")
    assert expected <= {file.name for file in folder.iterdir()}


def test_an_error_is_all_that_a_failing_command_prints():
    """In a process of its own: libraries print when they are imported."""
    command = [sys.executable, "-c", "import csvi.cli; csvi.cli.main(['train', '--data.root', 'nowhere'])"]
    assert subprocess.run(command, check=False, capture_output=True, text=True).stderr.count("\n") == 1
