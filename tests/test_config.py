"""Settings: the paper's values as defaults, YAML there and back, and one sentence for what is wrong."""

import dataclasses
import math
import re
from pathlib import Path

import pytest

from csvi.config import (
    Config,
    CosegConfig,
    DataConfig,
    LossConfig,
    ModelConfig,
    TrainConfig,
    flatten,
    load_config,
    save_config,
)
from csvi.errors import CsviError

CONFIGS = Path(__file__).parents[1] / "configs"


def test_defaults_are_the_papers():
    config = Config()
    assert (config.data.height, config.data.width) == (288, 144)
    assert (config.data.identities, config.data.images) == (8, 4)  # N and K, Section 4.2
    assert config.data.train_on == "train+val"  # 395 identities
    assert (config.data.flip, config.data.pad, config.data.erase, config.data.grayscale) == (0.5, 10, 0.5, 0)
    assert (config.model.backbone, config.model.weights, config.model.auxiliary) == ("resnet50", "imagenet", "coseg")
    assert (config.model.parts, config.model.part_dim) == (6, 512)  # Eq. 3
    assert (config.model.part_norm, config.model.share_classifier) == (True, False)
    assert (config.coseg.activation, config.coseg.head, config.coseg.mask_channels) == ("none", True, "one")
    loss = config.loss
    assert (loss.identity, loss.segmentation) == (1, 1)  # Eq. 9, 18, 19
    assert (loss.center_squared, loss.center_normalize, loss.center_reduction) == (True, True, "sum")  # reference 24
    assert loss.center == 0.5
    assert loss.center_ramp == 0
    train = config.train
    assert (train.optimizer, train.lr, train.weight_decay) == ("sgd", 0.01, 5e-4)  # Section 4.3
    assert (train.schedule, train.decay_every, train.epochs) == ("step", 8, 24)
    assert (train.lr_pretrained, train.warmup) == (1, 0)


def test_written_and_read_again(tmp_path):
    config = Config(coseg=CosegConfig(widths=(128, 64), mask_channels="identity"), seed=7, precision="bf16-mixed")
    config.data.root, config.data.masks, config.train.lr, config.loss.center_squared = "a b/ü", None, 3e-4, False
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config


def test_what_a_file_leaves_out_has_its_default(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("train:\n  lr: 0.5\nseed: 3\n")
    expected = Config(seed=3)
    expected.train.lr = 0.5
    assert load_config(file) == expected


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("train:\n  learning_rate: 0.1\n", "learning_rate"),
        ("trian:\n  lr: 0.1\n", "trian"),
        ("train:\n  lr: fast\n", "lr"),
        ("train:\n  epochs: 1.5\n", "epochs"),
        ("model:\n  auxiliary: cosegment\n", "auxiliary"),
        ("coseg:\n  widths: [128]\n", "widths"),
        ("train: [1\n", ""),
        ("just text", ""),
    ],
)
def test_a_wrong_setting_is_named_in_one_sentence(tmp_path, text, named):
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(CsviError, match=f"^{re.escape(str(file))} is not a configuration of csvi: .*{named}") as caught:
        load_config(file)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CsviError, match=re.escape(f"no such file: {tmp_path / 'none.yaml'}")):
        load_config(tmp_path / "none.yaml")


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda file: file.name)
def test_shipped_configurations_can_be_read(file):
    load_config(file)


@pytest.mark.parametrize(
    ("section", "setting"),
    [
        (DataConfig, {"height": 8}),
        (DataConfig, {"identities": 0}),
        (DataConfig, {"flip": 2.0}),
        (DataConfig, {"workers": -1}),
        (ModelConfig, {"parts": 0}),
        (LossConfig, {"center": -1.0}),
        (LossConfig, {"center": math.nan}),
        (TrainConfig, {"epochs": 0}),
        (TrainConfig, {"lr": -0.1}),
        (TrainConfig, {"lr": math.inf}),
        (CosegConfig, {"widths": (0, 8)}),
        (Config, {"seed": -1}),
        (Config, {"devices": 0}),
    ],
)
def test_impossible_values_are_named(section, setting):
    with pytest.raises(CsviError, match=f"^{next(iter(setting))} (is|are) "):
        section(**setting)


def test_flattened_names_are_those_of_the_command_line():
    flat = flatten(Config(data=DataConfig(height=99), seed=3))
    assert flat["data.height"] == 99
    assert flat["seed"] == 3
    assert "data" not in flat


def test_the_configuration_of_sysu_is_the_papers():
    assert load_config(CONFIGS / "sysu.yaml") == Config()


@pytest.mark.parametrize("dataset", ["regdb", "llcm"])
def test_the_configurations_of_the_others_differ_in_the_dataset_alone(dataset):
    assert load_config(CONFIGS / f"{dataset}.yaml") == Config(data=DataConfig(dataset=dataset))


def test_every_setting_says_what_it_is():
    """The command line's help is made of these."""
    source = (Path(__file__).parents[1] / "src/csvi/config.py").read_text()
    sections = [field.default_factory for field in dataclasses.fields(Config) if callable(field.default_factory)]
    for section in [*sections, Config]:
        body = source.split(f"class {section.__name__}:")[1].split("\n@dataclass")[0]
        for field in dataclasses.fields(section):
            if section is Config and field.default_factory is not dataclasses.MISSING:
                continue
            assert re.search(rf'^    {field.name}: [^\n]+\n    """', body, re.M), f"{section.__name__}.{field.name}"
