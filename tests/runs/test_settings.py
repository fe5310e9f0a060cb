"""Whole configurations: YAML there and back, changed setting by setting, and one sentence for what is wrong."""

import re
from pathlib import Path

import pytest

from csvi.config import Config, DataConfig, flatten
from csvi.errors import CsviError
from csvi.methods import METHODS, find_method
from csvi.methods.baseline import Baseline
from csvi.methods.coseg import CoSeg
from csvi.methods.coseg_plus import CoSegPlus
from csvi.methods.select import Select
from csvi.runs import load_config, save_config
from csvi.runs.settings import as_method, with_settings

CONFIGS = Path(__file__).parents[2] / "configs"


def test_written_and_read_again(tmp_path):
    method = CoSeg.Settings(widths=(128, 64), mask_channels="identity", center_squared=False)
    config = Config(method, seed=7, precision="bf16-mixed")
    config.data.root, config.data.masks, config.train.lr = "a b/ü", None, 3e-4
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config


@pytest.mark.parametrize("name", METHODS)
def test_the_settings_of_every_method_are_written_and_read_again(tmp_path, name):
    config = Config(find_method(name).Settings(weights="none"))
    save_config(config, tmp_path / "config.yaml")
    found = load_config(tmp_path / "config.yaml")
    assert found == config
    assert type(found.method) is type(config.method)


def test_what_a_file_leaves_out_has_its_default(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("train:\n  lr: 0.5\nseed: 3\n")
    expected = Config(CoSeg.Settings(), seed=3)
    expected.train.lr = 0.5
    assert load_config(file) == expected
    file.write_text("method:\n  name: select\n")
    assert load_config(file) == Config(Select.Settings())


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("train:\n  learning_rate: 0.1\n", "learning_rate"),
        ("trian:\n  lr: 0.1\n", "trian"),
        ("train:\n  lr: fast\n", "lr"),
        ("train:\n  epochs: 1.5\n", "epochs"),
        ("method:\n  widths: [128]\n", "widths"),
        ("method:\n  name: baseline\n  widths: [128, 64]\n", "widths"),  # of other methods
        ("method:\n  center_reduction: median\n", "center_reduction"),
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


MAY_BE_NULL = {"data.masks", "method.widths"}


@pytest.mark.parametrize("name", flatten(Config(CoSeg.Settings())))
def test_null_is_refused_by_name_where_a_setting_needs_a_value(tmp_path, name):
    section, _, key = name.rpartition(".")
    file = tmp_path / "config.yaml"
    file.write_text(f"{section}: {{{key}: null}}\n" if section else f"{key}: null\n")
    if name in MAY_BE_NULL:
        assert flatten(load_config(file))[name] is None
        return
    with pytest.raises(CsviError, match=f"^{file} is not a configuration of csvi: {name} is null: give it a value"):
        load_config(file)
    if name != "method.name":
        with pytest.raises(CsviError, match=f"^{name} is null: give it a value, or leave it out for its default$"):
            with_settings(Config(CoSeg.Settings()), {name: "null"})


@pytest.mark.parametrize("text", ["data:\n", "data: null\n", "data: {}\n", "method:\ntrain: ~\ndata:\n"])
def test_an_empty_section_is_all_defaults(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    assert load_config(tmp_path / "config.yaml") == Config(CoSeg.Settings())


@pytest.mark.parametrize("name", ["cosegment", "3", "nowhere:Method"])
def test_an_unknown_method_is_named(tmp_path, name):
    file = tmp_path / "config.yaml"
    file.write_text(f"method:\n  name: {name}\n")
    with pytest.raises(CsviError, match=f"(unknown method '{name}'|cannot import the method {name})"):
        load_config(file)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CsviError, match=re.escape(f"no such file: {tmp_path / 'none.yaml'}")):
        load_config(tmp_path / "none.yaml")


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda file: file.name)
def test_shipped_configurations_can_be_read(file):
    load_config(file)


def test_the_configuration_of_sysu_is_the_papers():
    """Masks aside, which the paper's authors had of every image."""
    assert load_config(CONFIGS / "sysu.yaml") == Config(CoSeg.Settings(), data=DataConfig(without_mask="train"))


@pytest.mark.parametrize("layout", ["regdb", "llcm"])
def test_the_configurations_of_the_others_differ_in_the_layout_alone(layout):
    sysu = load_config(CONFIGS / "sysu.yaml")
    sysu.data.layout = layout
    assert load_config(CONFIGS / f"{layout}.yaml") == sysu


@pytest.mark.parametrize(
    ("text", "name"), [("", "coseg"), ("method: {}", "coseg"), ("method: {name: select}", "select")]
)
def test_the_method_of_settings_as_a_file_holds_them(tmp_path, text, name):
    (tmp_path / "config.yaml").write_text(text)
    assert load_config(tmp_path / "config.yaml").method.name == name


def test_settings_are_changed_by_their_names():
    config = Config(CoSeg.Settings(parts=3))
    changed = with_settings(config, {"data.height": "96", "method.widths": "[8, 4]", "seed": "4", "train.lr": "1e-3"})
    differing = {name: value for name, value in flatten(changed).items() if value != flatten(config)[name]}
    assert differing == {"data.height": 96, "method.widths": (8, 4), "seed": 4, "train.lr": 1e-3}
    assert flatten(config) == flatten(Config(CoSeg.Settings(parts=3)))  # and the one before is as it was


def test_another_method_takes_the_settings_that_it_has():
    config = Config(CoSeg.Settings(parts=3, widths=(8, 4), activation="sigmoid", weights_from="leave-one-out"))
    plus = with_settings(config, {"method.name": "coseg+", "method.parts": "2"})
    assert plus.method == CoSegPlus.Settings(parts=2, widths=(8, 4), activation="sigmoid", weights_from="leave-one-out")
    assert with_settings(config, {"method.name": "baseline"}).method == Baseline.Settings(parts=3)
    assert as_method(config.method, "coseg") == config.method


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data.hieght": "96"}, "unknown setting 'data.hieght': see csvi train --method coseg --help"),
        (
            {"method.name": "baseline", "method.widths": "[8, 4]"},
            "unknown setting 'method.widths': .*--method base",
        ),
        ({"method.name": "cosegment"}, "unknown method 'cosegment'"),
        ({"data.height": "high"}, "are no settings of csvi: .*height"),
        ({"data.height": "8"}, "height is 8: it must be from 16"),
        ({"method.widths": "[1"}, "are no settings of csvi"),
    ],
)
def test_wrong_changes_are_one_sentence(settings, message):
    with pytest.raises(CsviError, match=message) as caught:
        with_settings(Config(CoSeg.Settings()), settings)
    assert "\n" not in str(caught.value)
