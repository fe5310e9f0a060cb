"""The settings that every run has; those of a method stand in the method's own file.

Each setting has its place in the paper beside it; one whose docstring names no source is ours. Its default is what the
paper says, but for those that `departures` names: docs/paper-to-code.md has the reason of each, and configs/letter.yaml
sets them as the paper has them. Nothing here imports torch, so that `csvi --help` answers at once.
"""

import dataclasses
import math
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from csvi.errors import CsviError, in_one_line
from csvi.paths import expanded

MaskValues = Literal[255, 0, "nonzero", "alpha"]
"""What marks a person in a mask: grey 255, or grey 0 of an inverted mask; any pixel but 0, as the labels of a human
parser; or opacity, as in a cut-out."""

RANGES = "visible_range", "infrared_range"
"""Settings of `DataConfig` that say what is black and white in images of more than 8 bits; that of a modality is
`RANGES[modality]`."""

MOST_SIDE = 1024
"""Pixels of a side of the images, as a network is given them: larger ones would fill memory and the cache."""

Varies = Literal["machine", "repetition", "length"]
"""The ways in which a setting may differ between runs that count as the same.

machine: where and how the work is done; a resumed run may change it, and repetitions may differ in it.
repetition: repetitions of a run (seeds, folds) differ in it; a resumed run may not change it.
length: a resumed run may change it, unless its schedule depends on it.
"""


def setting(default: Any, varies: Varies | None = None, letter: Any = ...) -> Any:
    """A field of settings that may differ between runs, see `Varies`, or whose default is not the paper's.

    `letter` is then what the paper says to the letter, or None if it says nothing; see `departures`.
    """
    return field(default=default, metadata={"varies": varies} | ({} if letter is ... else {"letter": letter}))


@dataclass
class DataConfig:
    """The images: which are read, their size, how batches are drawn and augmented."""

    root: str = setting("", "machine")
    """Folder of the dataset."""
    layout: str = "sysu"
    """Layout of the folder: sysu, regdb, llcm, folder (people's own images, docs/data.md), or module:Class."""
    fold: int = setting(1, "repetition")
    """Fold of the dataset, from 1: a division of its identities into train and test. RegDB has ten, the others one."""
    masks: str | None = setting(None, "machine")
    """Folder of person masks that mirrors the images' tree; by default ROOT/masks where it exists. The paper's are
    predictions of its reference 8's network (Section 3.2.3)."""
    mask_values: MaskValues = 255
    """What marks a person in a mask: 255 (white), 0 (black: an inverted mask), nonzero (any value or palette entry but
    0, as the part labels of a human parser), alpha (opacity, as in a cut-out)."""
    visible_range: str = setting("auto", "repetition")
    """Values that become black and white in visible images of more than 8 bits a pixel; see `infrared_range`."""
    infrared_range: str = setting("auto", "repetition")
    """Values that become black and white in infrared images of more than 8 bits a pixel, as `7500,8400`. auto: measured
    on the training images (docs/data.md) and written to RUN/config.yaml, so that every image is read alike."""
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
    replacement: bool = False
    """Draw as most of the field's code does: N identities a batch, whichever came before, and K images of each modality
    with replacement. By default identities are drawn equally often, and images repeat only where there are too few."""
    workers: int = setting(2, "machine")
    """Loader processes; evaluation has none on a CPU, where they would take turns with what they load for."""
    on_error: Literal["stop", "skip"] = "stop"
    """What happens when a training image cannot be read, or its mask is missing or of another size. stop: the run ends
    before it begins; skip: the image is skipped and listed in RUN/skipped.json. Test images are never skipped."""
    without_mask: Literal["error", "train"] = "error"
    """What happens with a training image that has no usable mask, where the method learns from masks. error: what
    `on_error` says; train: it is trained on without the mask loss, and listed in RUN/without-mask.json."""
    cache: str = setting("~/.cache/csvi", "machine")
    """Folder of decoded and resized images, written once and read by every later epoch and run."""

    def __post_init__(self) -> None:
        check_range(self, 16, MOST_SIDE, "height", "width")
        check_range(self, 1, 10_000, "identities", "images", "fold")
        check_range(self, 0, 1, "flip", "erase", "grayscale")
        check_range(self, 0, 1000, "pad", "workers")
        for name in RANGES:
            if (found := parse_range(name, getattr(self, name))) is not None:
                setattr(self, name, written_range(*found))


@dataclass
class MethodSettings:
    """The settings of a method; each method derives its own (`csvi train --method NAME --help`)."""

    name: str = ""
    """Name of the method: one of `csvi methods`, or module:Class."""


@dataclass
class TrainConfig:
    """Optimiser, schedule and length (Section 4.3)."""

    epochs: int = setting(24, "length", letter=None)
    """The paper gives no end; three decays of its schedule."""
    optimizer: Literal["sgd", "adamw", "adam"] = "sgd"
    """SGD in the paper. adamw decays weights by themselves, adam through the gradient."""
    momentum: float = setting(0.9, letter=None)
    """Momentum of sgd; the paper names none, the code of the field has 0.9."""
    nesterov: bool = False
    """Nesterov's momentum, as in most of the field's code; the paper does not say so."""
    lr: float = 0.01
    """Initial learning rate."""
    lr_pretrained: float = 1.0
    """Factor on the learning rate of the pretrained backbone; the paper names one rate for all."""
    weight_decay: float = 5e-4
    """Weight decay of every parameter."""
    lr_min: float = 0.0
    """Learning rate that every schedule ends at, between which and the initial one it runs; a group of parameters whose
    initial rate is lower keeps that."""
    schedule: Literal["step", "cosine", "table", "epoch-cosine"] = "step"
    """step: a tenth every `decay_every` epochs; table: the factors of `factors`; cosine: to `lr_min` at the end, step
    by step; epoch-cosine: one rate an epoch, `lr_min` in the last."""
    decay_every: int = 8
    """Epochs between two decays of `step`."""
    factors: dict[int, float] = field(default_factory=lambda: {0: 1.0})
    """Of `table`: epoch, from 0, and the factor on the learning rate from there on, as {20: 0.1, 50: 0.01}."""
    warmup: int = 0
    """Steps of linear warm-up."""
    warmup_epochs: int = 0
    """n: the schedule begins with the n-th epoch; those before it, e from 1, have e/n of the initial learning rate."""
    ema: float = 0.0
    """Keep a moving average of the weights: this share of it stays at each step, as 0.99; 0 keeps the last weights.
    The average is what is validated and saved. Ours; the field's code does not."""
    global_identities: int = 0
    """Identities in the batch of all processes together, which are divided equally among these, whatever
    `data.identities` says; a run may then be resumed on another number of processes. 0: every process draws
    `data.identities`. The learning rate is the one that is set, however many there are (docs/scaling.md)."""
    gather: bool = False
    """Compute the losses on the images of all processes together, as one process with the whole batch would. By default
    each process computes them on its own identities, as the method's paper does on one GPU, and gradients are averaged.
    """
    sync_batchnorm: bool = False
    """Normalise batches by the mean and variance of all processes together; by default each has its own."""
    accumulate: int = 1
    """Micro-batches of a step, of equally many identities each, for GPUs on which a batch does not fit. Batch norms and
    losses that compare identities see one micro-batch at a time (docs/scaling.md)."""
    checkpoint_activations: bool = setting(False, "machine")
    """Keep only what goes into each block of the backbone, and compute the rest again for the gradient: less memory,
    and about a third more arithmetic."""
    compile: bool = setting(False, "machine")
    """Let torch.compile write code for this network, in the first step. On CPUs it gains nothing."""
    validate_every: int = setting(2, "machine")
    """Epochs between two validations on the val identities, if `data.train_on` leaves them out; 0 for never."""
    checkpoint_every: float = setting(5.0, "machine")
    """Minutes between two checkpoints within an epoch, all that a kill can lose; 0 for none but at its end."""
    on_nonfinite: Literal["stop", "skip"] = setting("stop", "machine")
    """What happens when a loss or gradient is not finite. stop: the run ends, checked every few steps without waiting
    for the device; skip: the step is skipped, which waits for the device at every step, and the run stops if it happens
    often."""

    def __post_init__(self) -> None:
        check_range(self, 1, 100_000, "epochs", "decay_every", "accumulate")
        check_range(self, 0, 1_000_000, "global_identities")
        check_range(self, 0, 1, "momentum")
        check_range(self, 0, 0.999999, "ema")
        check_range(
            self, 0, math.inf, "lr", "lr_pretrained", "lr_min", "weight_decay", "warmup", "warmup_epochs",
            "validate_every", "checkpoint_every",
        )  # fmt: skip
        if self.nesterov and not (self.optimizer == "sgd" and self.momentum > 0):
            raise CsviError("nesterov is set: it takes optimizer sgd and a momentum")
        if self.schedule != "table" and self.factors != {0: 1.0}:
            raise CsviError(f"factors are set and the schedule is {self.schedule}: they are those of schedule table")
        if self.lr_min > self.lr:
            raise CsviError(
                f"lr_min is {self.lr_min}, and lr {self.lr}: rates fall to lr_min, it cannot be the greater"
            )
        if self.warmup_epochs > self.epochs:
            raise CsviError(f"warmup_epochs is {self.warmup_epochs}, and epochs {self.epochs}: nothing follows it")
        if min(self.factors, default=-1) < 0 or not all(0 <= factor < math.inf for factor in self.factors.values()):
            raise CsviError(f"factors are {self.factors}: they must be epochs from 0 and factors of at least 0")


@dataclass
class Config:
    """A whole run; written to RUN/config.yaml."""

    method: MethodSettings
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    seed: int = setting(0, "repetition")
    """Fixes initial weights, batches and augmentation."""
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = setting("auto", "machine")
    """auto: bfloat16 where the hardware multiplies it, else 32-true."""
    tf32: bool = setting(False, "machine")
    """Let NVIDIA GPUs round the factors of 32-bit matrix products to 10 bits of mantissa (TF32); PyTorch does so in
    convolutions anyway."""
    devices: int = setting(1, "repetition")
    """Accelerators a machine."""
    nodes: int = setting(1, "repetition")
    """Machines."""

    def __post_init__(self) -> None:
        check_range(self, 0, 2**32 - 1, "seed")
        check_range(self, 1, 10_000, "devices", "nodes")
        together, processes, parts = self.train.global_identities, self.devices * self.nodes, self.train.accumulate
        if together % processes:
            raise CsviError(f"global_identities is {together}: it must be a multiple of the {processes} processes")
        if self.identities_each % parts:
            raise CsviError(f"accumulate is {parts}: it must divide the {self.identities_each} identities of a process")

    @property
    def identities_each(self) -> int:
        """N, the identities that each process draws for a step."""
        return self.train.global_identities // (self.devices * self.nodes) or self.data.identities


def parse_range(name: str, text: str) -> tuple[float, float] | None:
    """Parse `7500,8400`, the values that become black and white; None for auto; else raises `CsviError`."""
    if text == "auto":
        return None
    try:
        black, white = map(float, text.split(","))
    except (ValueError, AttributeError):
        black = white = math.nan
    if not -math.inf < black < white < math.inf:
        raise CsviError(f"{name} is {text!r}: it must be auto, or two numbers, the lower one first, as 7500,8400")
    return black, white


def written_range(black: float, white: float) -> str:
    """Write a range as `parse_range` reads it, and every range in one way: `7500,8400`."""
    return ",".join(repr(float(value)).removesuffix(".0") for value in (black, white))


def check_range(settings: object, least: float, most: float, *names: str) -> None:
    """Raises `CsviError` if one of these settings is below `least` or above `most`."""
    for name in names:
        value = getattr(settings, name)
        if not least <= value <= min(most, sys.float_info.max):
            limits = f"at least {least}" if most == math.inf else f"from {least} to {most}"
            raise CsviError(f"{name} is {value}: it must be {limits}")


def check_nulls(parser: Any, settings: Any) -> None:
    """Raises `CsviError` if one of the settings that a parser of jsonargparse has read is null and may not be."""
    for action in parser._actions:
        may_be_null = action.default is None or type(None) in get_args(getattr(action, "_typehint", None))
        if not may_be_null and settings.get(action.dest, action.default) is None:
            raise CsviError(f"{action.dest} is null: give it a value, or leave it out for its default")


def flatten(config: Config) -> dict[str, object]:
    """Every setting under the name that the command line gives it, such as `data.height`."""
    return {name: value for name, value, _ in _settings_of(config)}


def varying(config: Config, *kinds: Varies) -> set[str]:
    """Names of the settings that may differ in one of these ways, such as `data.root`."""
    return {name for name, _, varies in _settings_of(config) if varies in kinds}


def shared_by_repetitions(config: Config) -> dict[str, str]:
    """Settings that repetitions of a run have in common, by name, each written as text."""
    return {name: str(value) for name, value, varies in _settings_of(config) if varies not in ("machine", "repetition")}


def _settings_of(config: object, prefix: str = "") -> Iterator[tuple[str, object, str | None]]:
    """Name, value and `Varies` of each setting, section by section."""
    for each in dataclasses.fields(config):  # type: ignore[arg-type]
        value = getattr(config, each.name)
        if dataclasses.is_dataclass(value):
            yield from _settings_of(value, f"{prefix}{each.name}.")
        else:
            yield prefix + each.name, value, each.metadata.get("varies")


def departures(config: Config) -> dict[str, tuple[object, object]]:
    """Settings of the method and of training that are not to the letter: name → value, and what the paper says.

    The paper is that of the method. What it says nothing about, and how the work is done, is left out.
    """
    found = {}
    for section in ("method", "train"):
        settings = getattr(config, section)
        for each in dataclasses.fields(settings):
            value, letter = getattr(settings, each.name), each.metadata.get("letter", each.default)
            silent = letter in (None, dataclasses.MISSING) or each.metadata.get("varies") == "machine"
            if not silent and each.name != "name" and value != letter:
                found[f"{section}.{each.name}"] = value, letter
    return found


def shipped_config(name: str) -> Path:
    """A file of settings that comes with csvi: in the package once installed, in `configs/` of a checkout."""
    package = Path(__file__).parent
    installed = package / "configs" / f"{name}.yaml"
    return installed if installed.exists() else package.parents[1] / "configs" / f"{name}.yaml"


def shipped_names() -> list[str]:
    """List the settings that come with csvi, as `--config` takes their names: `sysu`, `methods/agw`."""
    folder = shipped_config("sysu").parent
    files = [*folder.glob("*.yaml"), *folder.glob("methods/*.yaml")]
    names = [file.relative_to(folder).as_posix().removesuffix(".yaml") for file in files]
    return sorted(names, key=lambda name: ("/" in name, name))


def settings_file(given: str | os.PathLike[str]) -> Path:
    """Find the file that `--config` means: a path, or else one that comes with csvi, as `sysu` or `methods/agw`.

    Raises:
        CsviError: there is neither.
    """
    file, name = expanded(given), str(given)
    if file.is_file():
        return file
    names = shipped_names()
    if name in names:
        return shipped_config(name)
    whole = ", ".join(name for name in names if "/" not in name)
    of_methods = ", ".join(name.removeprefix("methods/") for name in names if "/" in name)
    what = "a folder" if file.is_dir() else "no such file"
    raise CsviError(f"{what}: {file}; csvi brings {whole}, and as methods/NAME: {of_methods}")


class _SettingsLoader(yaml.SafeLoader):
    """A YAML loader that refuses aliases, a few lines of which can fill any memory, and names that stand twice."""

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
    """Read a YAML file: name → value, or section → names and values, none checked; an empty section is left out.

    Raises:
        CsviError: the file does not exist, cannot be read, or is not a configuration of csvi.
    """
    if not file.is_file():
        raise CsviError(f"no such file: {file}")
    try:
        settings = _SettingsLoader(file.read_text(encoding="utf-8")).get_single_data()
    except OSError as error:
        raise CsviError(f"cannot read {file}: {error.strerror}") from error
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise CsviError(f"{file} is not a configuration of csvi: {line}{error.problem}") from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        why, *_ = in_one_line(error, 500).split(' in "<unicode string>"')  # as PyYAML names a text without a file
        raise CsviError(f"{file} is not a configuration of csvi: {why}") from error
    settings = settings or {}
    if not isinstance(settings, dict):
        raise CsviError(f"{file} is not a configuration of csvi: it must hold names and values")
    for section in dataclasses.fields(Config):
        if dataclasses.is_dataclass(section.type) and section.name in settings:
            if settings[section.name] is None:  # as `data:` with nothing below it
                del settings[section.name]
            elif not isinstance(settings[section.name], dict):
                raise CsviError(f"{file} is not a configuration of csvi: {section.name} must hold names and values")
    return settings
