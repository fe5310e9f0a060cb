"""Every setting, with the paper's value as its default and its place in the paper beside it.

Nothing here imports torch, so that `csvi --help` answers at once. A setting whose docstring names no source is ours.
"""

import dataclasses
import json
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from csvi.errors import CsviError
from csvi.writing import replacing


@dataclass
class DataConfig:
    """What is read, how large, how it is drawn and how it is varied."""

    root: str = ""
    """Folder of the dataset."""
    dataset: Literal["sysu", "regdb", "llcm", "folder"] = "sysu"
    """Layout of the folder; folder: people's own images (docs/data.md)."""
    trial: int = 1
    """Which split of the dataset, from 1; RegDB has ten, the others one."""
    masks: str | None = None
    """Folder of person masks, 255 = person, that mirrors the images' tree; by default ROOT/masks where it exists."""
    train_on: Literal["train", "train+val"] = "train+val"
    """Identities to train on. The field trains on train+val (395 in SYSU-MM01); only with `train` can val validate."""
    height: int = 288
    """Image height in pixels."""
    width: int = 144
    """Image width in pixels."""
    identities: int = 8
    """N, identities a batch (Section 4.2)."""
    images: int = 4
    """K, visible and as many infrared images of each identity in a batch (Section 4.2)."""
    flip: float = 0.5
    """Probability of a horizontal flip (Section 4.3)."""
    pad: int = 10
    """Pixels of padding before the random crop (Section 4.3; the number is the field's)."""
    erase: float = 0.5
    """Probability of random erasing (Section 4.3; the number is the field's)."""
    grayscale: float = 0.0
    """Probability of turning a visible image grey; the paper does not."""
    workers: int = 2
    """Loader processes; evaluation has none on a CPU, where they would take turns with what they load for."""
    on_error: Literal["stop", "skip"] = "stop"
    """What a training image does that cannot be read, or whose mask is missing or not of its size: end the run before
    it begins, or be left out and listed in RUN/skipped.json. Test images are never left out."""
    cache: str = "~/.cache/csvi"
    """Folder of decoded and resized images, written once and read by every later epoch and run."""

    def __post_init__(self) -> None:
        _check(self, 16, 4096, "height", "width")
        _check(self, 1, 10_000, "identities", "images", "trial")
        _check(self, 0, 1, "flip", "erase", "grayscale")
        _check(self, 0, 1000, "pad", "workers")


@dataclass
class ModelConfig:
    """The network that is kept for testing (Section 3.1) and the auxiliary that training adds (Section 3.2)."""

    backbone: str = "resnet50"
    """A torchvision ResNet (resnet18, 34, 50, ...) or mobilenet_v2 (Eq. 1, 2)."""
    weights: str = "imagenet"
    """Initial weights of the backbone: imagenet (torchvision's download), packaged (mobilenet_v2, from csvi[demo]),
    none, or the path of a state dict (.pth or .safetensors)."""
    parts: int = 6
    """Horizontal strips (Eq. 3)."""
    part_dim: int = 512
    """C2, length of a part's embedding (Eq. 3)."""
    part_norm: bool = True
    """BatchNorm1d after the embedding's Linear: not in Eq. 3, but in the code it descends from."""
    share_classifier: bool = False
    """One classifier for all parts, as the subscript of gamma_s in Eq. 3 can be read."""
    auxiliary: Literal["none", "select", "segment", "decode", "coseg", "coseg+"] = "coseg"
    """The rows of Table 3. none: Baseline; select: features times the true masks, in training; segment: a segmentation
    sub-network beside the shared layers, kept for testing (after the paper's reference 8); decode: a mask decoder on
    the shared features; coseg: co-segmentation, the paper's model. Ours: coseg+, co-segmentation where the
    weights of an image come from the other modality."""

    def __post_init__(self) -> None:
        _check(self, 1, 100, "parts")
        _check(self, 1, 100_000, "part_dim")


@dataclass
class CosegConfig:
    """The co-segmentation branch (Section 3.2)."""

    activation: Literal["none", "sigmoid"] = "none"
    """On the weights of Eq. 12; the paper has none."""
    weights_from: Literal["own", "leave-one-out", "other-modality"] = "own"
    """Images of the identity whose center gives an image its weights (Eq. 10): all, as in the paper; all but the image
    itself; or those of the other modality."""
    weights_to: Literal["both", "decoder", "head"] = "both"
    """Who reads the selected features (Eq. 13); the other reads the shared ones. Both in the paper."""
    head: bool = True
    """The extra part module on the selected features (Eq. 15, 16)."""
    head_weight: float = 1.0
    """Weight of its losses; 1 in Eq. 18."""
    detach: bool = False
    """The extra part module's losses do not reach the weights w."""
    mask_channels: Literal["one", "identity"] = "one"
    """one: a person mask, binary cross-entropy; identity: the N channels of Eq. 14, each person in the channel of its
    identity, cross-entropy over identities and background."""
    widths: tuple[int, int] | None = None
    """Channels of the decoder's two blocks (Eq. 14); by default a quarter and a sixteenth of the backbone's,
    which gives the paper's Table 4."""

    def __post_init__(self) -> None:
        _check(self, 0, math.inf, "head_weight")
        if self.widths is not None and min(self.widths) < 1:
            raise CsviError(f"widths are {self.widths}: both must be at least 1")


@dataclass
class LossConfig:
    """Weights and readings of Eq. 4-9 and 15-19.

    The hetero-center loss is by default that of the code of the paper's reference 24, which Eq. 7 names. Eq. 7 to the
    letter is center 1, center_squared false, center_normalize false; with `part_norm` it leaves nothing to the identity
    loss (docs/demo.md).
    """

    identity: float = 1.0
    """Weight of the identity losses (Eq. 4, 15)."""
    center: float = 0.5
    """Weight of the hetero-center losses (Eq. 6, 16)."""
    center_squared: bool = True
    """Square the norm of Eq. 7."""
    center_normalize: bool = True
    """L2-normalise features before Eq. 8."""
    center_reduction: Literal["sum", "mean"] = "sum"
    """Over the identities of a batch; the paper sums (Eq. 7)."""
    center_ramp: int = 0
    """Steps over which the weight of the hetero-center losses grows from 0; training from scratch may else collapse."""
    segmentation: float = 1.0
    """Weight of the segmentation loss (Eq. 17)."""

    def __post_init__(self) -> None:
        _check(self, 0, math.inf, "identity", "center", "center_ramp", "segmentation")


@dataclass
class TrainConfig:
    """Optimiser, schedule and length (Section 4.3)."""

    epochs: int = 24
    """The paper gives no end; three decays of its schedule."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum 0.9 in the paper."""
    lr: float = 0.01
    """Initial learning rate."""
    lr_pretrained: float = 1.0
    """Factor on the learning rate of the pretrained backbone; the paper names one rate for all."""
    weight_decay: float = 5e-4
    """On every parameter."""
    schedule: Literal["step", "cosine"] = "step"
    """step: a tenth every `decay_every` epochs; cosine: to zero at the end."""
    decay_every: int = 8
    """Epochs between two decays of `step`."""
    warmup: int = 0
    """Steps of linear warm-up."""
    compile: bool = False
    """Let torch.compile write code for this network, in the first step. On CPUs it gains nothing."""
    validate_every: int = 2
    """Epochs between two validations on the val identities, if `data.train_on` leaves them out; 0 for never."""
    checkpoint_every: float = 5.0
    """Minutes between two checkpoints within an epoch, all that a kill can lose; 0 for none but at its end."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """What a loss or gradient that is not finite does. stop: end the run, checked every few steps without waiting for
    the device; skip: leave the step out, which waits for the device at every step, and stop if it happens often."""

    def __post_init__(self) -> None:
        _check(self, 1, 100_000, "epochs", "decay_every")
        _check(self, 0, math.inf, "lr", "lr_pretrained", "weight_decay", "warmup", "validate_every", "checkpoint_every")


@dataclass
class SynthConfig:
    """The open synthetic benchmark (ours; not in the paper)."""

    layout: Literal["sysu", "regdb", "llcm", "folder"] = "sysu"
    """Whose layout the files are written in."""
    preset: Literal["tiny", "demo", "study", "paper"] = "demo"
    """tiny: 12 identities, for tests; demo: 246 identities with 10 + 10 images; study: 480 such, of them 220
    to test; paper: the size of the dataset that the layout is named after, SYSU-MM01's 491 identities and 44,745 images
    (docs/synthetic-benchmark.md)."""
    seed: int = 0
    """Fixes everything: the same version, settings and seed give the same bytes."""
    height: int | None = None
    """Image height in pixels; by default the preset's."""
    width: int | None = None
    """Image width in pixels; by default the preset's."""
    rho_min: float = 0.5
    """Least share of a material's infrared reflectance that comes from its visible luminance; the rest is its own."""
    rho_max: float = 0.8
    """Greatest such share."""
    processes: int | None = None
    """Processes that render; by default one a core."""


@dataclass
class Config:
    """A whole run; written to RUN/config.yaml."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    coseg: CosegConfig = field(default_factory=CosegConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    seed: int = 0
    """Fixes initial weights, batches and augmentation."""
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    """auto: bfloat16 where the hardware multiplies it, else 32-true."""
    devices: int = 1
    """Accelerators a machine."""
    nodes: int = 1
    """Machines."""

    def __post_init__(self) -> None:
        _check(self, 0, 2**32 - 1, "seed")
        _check(self, 1, 10_000, "devices", "nodes")


def _check(settings: object, least: float, most: float, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if not least <= value <= min(most, sys.float_info.max):
            limits = f"at least {least}" if most == math.inf else f"from {least} to {most}"
            raise CsviError(f"{name} is {value}: it must be {limits}")


def save_config(config: Config, file: Path) -> None:
    """Write a configuration as YAML, readable by `load_config` and by `csvi train --config`."""
    plain = json.loads(json.dumps(dataclasses.asdict(config)))  # tuples as lists
    with replacing(file) as partial:
        partial.write_text(yaml.safe_dump(plain, sort_keys=False))


def shipped_config(name: str) -> Path:
    """A file of settings that comes with csvi: in the package once installed, in `configs/` of a checkout."""
    package = Path(__file__).parent
    installed = package / "configs" / f"{name}.yaml"
    return installed if installed.exists() else package.parents[1] / "configs" / f"{name}.yaml"


def flatten(config: Config) -> dict[str, object]:
    """Every setting under the name that the command line gives it, such as `data.height`."""
    sections = dataclasses.asdict(config)
    flat = {
        f"{name}.{key}": value
        for name in sections
        if isinstance(sections[name], dict)
        for key, value in sections[name].items()
    }
    return flat | {name: value for name, value in sections.items() if not isinstance(value, dict)}


class _SettingsLoader(yaml.SafeLoader):
    """Without aliases, of which a few lines can fill any memory, and without names that stand twice."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias (*) is not read")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := [name for name in names if names.count(name) > 1]:
            raise yaml.YAMLError(f"{twice[0]} stands twice")
        return super().construct_mapping(node, deep)


def read_settings(file: Path) -> dict[str, Any]:
    """The settings of a YAML file by name, of a section or of one setting; their names and values may be wrong.

    Raises:
        CsviError: no such file, or it holds something else.
    """
    if not file.is_file():
        raise CsviError(f"no such file: {file}")
    try:
        settings = yaml.load(file.read_text(encoding="utf-8"), _SettingsLoader)
    except OSError as error:
        raise CsviError(f"cannot read {file}: {error.strerror}") from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise CsviError(f"{file} is not a configuration of csvi: {_in_one_line(error)}") from error
    settings = settings or {}
    if not isinstance(settings, dict):
        raise CsviError(f"{file} is not a configuration of csvi: it must hold names and values")
    for section in dataclasses.fields(Config):
        if dataclasses.is_dataclass(section.type) and not isinstance(settings.get(section.name, {}), dict):
            raise CsviError(f"{file} is not a configuration of csvi: {section.name} must hold names and values")
    return settings


def load_config(file: Path) -> Config:
    """Read a configuration; what it leaves out has its default.

    Raises:
        CsviError: no such file, an unknown setting or a value of the wrong type.
    """
    settings = read_settings(file)
    try:
        return _parsed(lambda parser: parser.parse_object(settings))
    except Exception as error:  # jsonargparse raises several of its own
        raise CsviError(f"{file} is not a configuration of csvi: {_in_one_line(error)}") from error


def with_settings(config: Config, settings: Mapping[str, str]) -> Config:
    """A copy with other values, given as on the command line: name such as `data.height` -> text.

    Raises:
        CsviError: an unknown setting or a value of the wrong type.
    """
    plain = dataclasses.asdict(config)
    for name in settings:
        if name not in flatten(config):
            raise CsviError(f"unknown setting {name!r}: see csvi train --help")
    try:
        for name, text in settings.items():
            section, _, key = name.rpartition(".")
            (plain[section] if section else plain)[key] = yaml.safe_load(text)
        return _parsed(lambda parser: parser.parse_object(plain))
    except CsviError:
        raise
    except Exception as error:
        raise CsviError(f"{dict(settings)} are no settings of csvi: {_in_one_line(error)}") from error


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:500]


def _parsed(parse: Callable[[Any], Any]) -> Config:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Config)
    return Config(**vars(parser.instantiate(parse(parser))))
