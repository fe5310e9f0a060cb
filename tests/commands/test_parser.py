"""What arguments mean, and what is said of wrong ones."""

import pytest
import yaml

from csvi.cli import main


@pytest.fixture
def trained_with(monkeypatch):
    """The settings that `csvi train` would train with under these arguments."""

    def parse(*arguments):
        seen = []
        monkeypatch.setattr("csvi.train.loop.train", lambda config, *_: seen.append(config))
        assert main(["train", *map(str, arguments), "--run=run"]) == 0
        return seen[0]

    return parse


def test_options_win_over_files_wherever_they_stand_and_later_files_over_earlier_ones(trained_with, tmp_path):
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text(yaml.safe_dump({"data": {"root": "of one", "height": 96, "width": 48}, "seed": 1}))
    two.write_text(yaml.safe_dump({"data": {"height": 144, "width": 72}, "method": {"weights": "of two"}}))
    options = ["--method=baseline", "--data.root", "mine", "--data.width=64", "--method.weights", "none"]
    for arguments in (
        [*options, "--config", one, f"--config={two}"],
        ["--config", one, *options, "--config", two],
        [f"--config={one}", "--config", two, *options],
    ):
        config = trained_with(*arguments)
        assert (config.data.root, config.data.width, config.method.weights) == ("mine", 64, "none")
        assert (config.data.height, config.seed, config.method.name) == (144, 1, "baseline")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("train --max-time 3h", "--max-time 3h, did you mean --max_time?"),
        ("train --train.epoch=3", "did you mean --train.epochs?"),
        ("train --lr 1", "did you mean --train.lr?"),
        ("train --conf demo", "did you mean --config?"),
        ("train --xyzzy", "unrecognized arguments: --xyzzy (see csvi train --method coseg --help)"),
        ("train --train.lr nan", "train.lr is nan: it must be a finite number"),
        ("train --train.epochs 2.5", "train.epochs is 2.5: it must be a whole number"),
        ("train --data.replacement maybe", "data.replacement is maybe: it must be true or false"),
        ("train --train.optimizer sgdd", "train.optimizer is sgdd: it must be one of sgd, adamw, adam"),
        ("train --data.mask_values 3", "data.mask_values is 3: it must be one of 255, 0, nonzero, alpha"),
        ("train --data.mask_values some", "data.mask_values is some: it must be one of 255, 0, nonzero, alpha"),
        ("ablate --grid train.lr", "grid is train.lr: it must be a mapping, as {NAME: VALUE}"),
        ('ablate --grid {"train.lr":3}', "grid is 3: it must be a list, as [VALUE, VALUE]"),
        ("synth data --height 3.5", "height is 3.5: it must be a whole number"),
        ("masks import masks --out M", "arguments are required: --data.root (see csvi masks import --help)"),
    ],
)
def test_wrong_arguments_are_said_in_plain_words(arguments, says, capsys):
    with pytest.raises(SystemExit) as exit:
        main(arguments.split())
    assert exit.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["train", "--run="], "--run"),
        (["check", ""], "root"),
        (["evaluate", "run", "--data.root="], "--data.root"),
        (["evaluate", ""], "runs"),
        (["train", "--data.cache", ""], "--data.cache"),
        (["train", "--data.masks="], "--data.masks"),
        (["index", "remove", "--gallery", "g.db", "--track="], "--track"),
    ],
)
def test_an_empty_argument_is_none(arguments, name, capsys):
    assert main(arguments) == 1
    says = f"csvi {arguments[0]}: {name} is empty: give it a value, or leave it out\n"
    assert capsys.readouterr().err == says
