"""Settings: defaults and what the paper says, ranges, and which may differ between runs."""

import dataclasses
import inspect
import math
import re
import subprocess
import sys

import pytest

from csvi.config import (
    Config,
    DataConfig,
    TrainConfig,
    check_range,
    departures,
    flatten,
    read_settings,
    shipped_config,
    varying,
)
from csvi.errors import CsviError
from csvi.methods.baseline import Baseline
from csvi.methods.coseg import CoSeg
from csvi.methods.decode import Decode
from csvi.methods.select import Select
from csvi.synth import SynthConfig


def test_defaults_depart_from_the_paper_in_what_the_documentation_gives_a_reason_for():
    assert departures(Config(CoSeg.Settings())) == {
        "method.part_norm": (True, False),
        "method.share_classifier": (False, True),
        "method.class_mean": (False, True),
        "method.center_weight": (0.5, 1),
        "method.center_squared": (True, False),
        "method.center_normalize": (True, False),
        "method.mask_channels": ("one", "identity"),
    }


def test_silence_of_the_paper_and_the_way_the_work_is_done_are_no_departures():
    ours = Config(Select.Settings(test_masks=True), train=TrainConfig(epochs=6, momentum=0.5, compile=True))
    assert departures(ours).keys() == departures(Config(Baseline.Settings())).keys()
    other = departures(Config(Baseline.Settings(parts=3), train=TrainConfig(optimizer="adamw", lr=0.003)))
    assert other["method.parts"] == (3, 6)
    assert (other["train.optimizer"], other["train.lr"]) == (("adamw", "sgd"), (0.003, 0.01))


def test_defaults():
    config = Config(CoSeg.Settings())
    assert (config.data.height, config.data.width) == (288, 144)
    assert (config.data.identities, config.data.images) == (8, 4)  # N and K, Section 4.2
    assert config.data.train_on == "train+val"  # 395 identities
    assert (config.data.flip, config.data.pad, config.data.erase, config.data.grayscale) == (0.5, 10, 0.5, 0)
    method = config.method
    assert (method.name, method.backbone, method.weights) == ("coseg", "resnet50", "imagenet")
    assert (method.parts, method.part_dim) == (6, 512)  # Eq. 3
    assert (method.part_norm, method.share_classifier) == (True, False)
    assert (method.activation, method.ccwg_bias, method.head, method.mask_channels) == ("none", 1, True, "one")
    assert (method.weights_from, method.weights_to, method.head_weight, method.detach) == ("own", "both", 1, False)
    assert (method.identity_weight, method.segmentation_weight) == (1, 1)  # Eq. 9, 18, 19
    assert (method.center_squared, method.center_normalize, method.center_reduction) == (True, True, "sum")  # ref. 24
    assert (method.center_weight, method.center_ramp) == (0.5, 0)
    train = config.train
    assert (train.optimizer, train.lr, train.weight_decay) == ("sgd", 0.01, 5e-4)  # Section 4.3
    assert (train.schedule, train.decay_every, train.epochs, train.momentum) == ("step", 8, 24, 0.9)
    assert (train.lr_pretrained, train.warmup) == (1, 0)


def test_settings_within_settings_have_the_names_of_all_that_they_are_in():
    inner = dataclasses.make_dataclass("Inner", [("x", int, dataclasses.field(default=3))])
    outer = dataclasses.make_dataclass("Outer", [("inner", inner, dataclasses.field(default_factory=inner))])
    assert flatten(Config(outer()))["method.inner.x"] == 3


@pytest.mark.parametrize(
    ("section", "setting"),
    [
        (DataConfig, {"height": 8}),
        (DataConfig, {"identities": 0}),
        (DataConfig, {"flip": 2.0}),
        (DataConfig, {"workers": -1}),
        (DataConfig, {"fold": 0}),
        (Baseline.Settings, {"parts": 0}),
        (Baseline.Settings, {"center_weight": -1.0}),
        (Baseline.Settings, {"center_weight": math.nan}),
        (Decode.Settings, {"segmentation_weight": -1.0}),
        (CoSeg.Settings, {"head_weight": -1.0}),
        (TrainConfig, {"epochs": 0}),
        (TrainConfig, {"lr": -0.1}),
        (TrainConfig, {"momentum": 1.5}),
        (TrainConfig, {"lr": math.inf}),
        (CoSeg.Settings, {"widths": (0, 8)}),
        (CoSeg.Settings, {"ccwg_bias": math.nan}),
        (Config, {"method": Baseline.Settings(), "seed": -1}),
        (Config, {"method": Baseline.Settings(), "devices": 0}),
    ],
)
def test_impossible_values_are_named(section, setting):
    with pytest.raises(CsviError, match=f"^{list(setting)[-1]} (is|are) "):
        section(**setting)


def test_flattened_names_are_those_of_the_command_line():
    flat = flatten(Config(CoSeg.Settings(), data=DataConfig(height=99), seed=3))
    assert flat["data.height"] == 99
    assert flat["seed"] == 3
    assert (flat["method.name"], flat["method.parts"]) == ("coseg", 6)
    assert not {"data", "method"} & flat.keys()


def test_settings_that_may_differ_are_named_as_on_the_command_line():
    config = Config(CoSeg.Settings())
    assert varying(config, "repetition") == {
        "seed", "data.fold", "data.visible_range", "data.infrared_range", "devices", "nodes",
    }  # fmt: skip
    assert varying(config, "length") == {"train.epochs"}
    machine = varying(config, "machine")
    assert {"data.root", "data.cache", "data.workers", "precision", "train.validate_every"} <= machine
    assert varying(config, "machine", "length") == machine | {"train.epochs"}
    assert machine <= flatten(config).keys()


@pytest.mark.parametrize("value", [0.5, 2, 3.0])
def test_a_range_has_both_its_ends(value):
    check_range(TrainConfig(lr=value), 0.5, 3, "lr")


@pytest.mark.parametrize(
    ("value", "most", "message"), [(4, 3, "lr is 4: it must be from 1 to 3"), (0.5, math.inf, "must be at least 1")]
)
def test_a_range_is_told(value, most, message):
    with pytest.raises(CsviError, match=message):
        check_range(TrainConfig(lr=value), 1, most, "lr")


@pytest.mark.parametrize("name", ["sysu", "regdb", "llcm", "letter", "demo", "study"])
def test_settings_that_come_with_the_package(name):
    assert isinstance(read_settings(shipped_config(name)), dict)


@pytest.mark.parametrize(
    "text",
    [
        "a: &x [1]\nb: *x\n",
        "seed: 1\nseed: 2\n",
        "train: {lr: 1, lr: 2}\n",
        "[1, 2]\n",
        "data: 3\n",
        "{",
        "\0",
        "- &a [*a]",
    ],
)
def test_what_is_no_file_of_settings_is_one_sentence(tmp_path, text):
    """Aliases too: a few lines of them would fill any memory."""
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(CsviError, match=f"^{re.escape(str(file))} is not a configuration of csvi: ") as caught:
        read_settings(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("data:\n  width: [32\nseed: 1\n", "line 3: expected ',' or ']', but got ':'"),
        ("seed: 1\n\ttrain: 2\n", "line 2: found character '\\t' that cannot start any token"),
        ("a: \0", "unacceptable character #x0000: special characters are not allowed"),
    ],
)
def test_what_is_no_yaml_is_said_with_its_line(tmp_path, text, why):
    (tmp_path / "settings.yaml").write_text(text)
    with pytest.raises(CsviError) as caught:
        read_settings(tmp_path / "settings.yaml")
    assert str(caught.value).endswith(f"settings.yaml is not a configuration of csvi: {why}")


def test_an_empty_file_holds_no_settings(tmp_path):
    (tmp_path / "settings.yaml").write_text("# nothing\n")
    assert read_settings(tmp_path / "settings.yaml") == {}


def test_settings_are_known_without_torch():
    """So that --help answers at once."""
    code = "import sys, csvi.config, csvi.plugins; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_setting_says_what_it_is():
    """The command line's help is made of these; those of methods are in tests/methods/test_every_method.py."""
    for section in (DataConfig, TrainConfig, SynthConfig, Config):
        body = inspect.getsource(section)
        for field in dataclasses.fields(section):
            if section is Config and field.name in ("method", "data", "train"):
                continue
            assert re.search(rf'^    {field.name}: [^\n]+\n    """', body, re.M), f"{section.__name__}.{field.name}"
