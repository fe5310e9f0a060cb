"""Segmenters of others: a model file, and a short YAML that says what it takes and gives.

    file: pose_landmark_lite.tflite
    input: {size: [256, 256], content: [224, 112], layout: nhwc}
    output: {shape: [1, 256, 256, 1], activation: sigmoid}

`Description` is that YAML; docs/masks.md has a table of its names.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np
from PIL import Image
from scipy.special import expit, softmax

from csvi.config import read_settings, shipped_config
from csvi.errors import CsviError, in_one_line
from csvi.masks.runtimes import Graph, Port, open_graph
from csvi.masks.segmenter import Segmenter
from csvi.paths import as_argument, expanded, reason, status_of

Layout = Literal["nchw", "nhwc"]
Colour = Literal["rgb", "bgr", "grey"]
Activation = Literal["sigmoid", "softmax", "none"]
FLOATS = ("float32", "float16")
"""Types that a model may take."""
T = TypeVar("T")


@dataclass(frozen=True)
class Input:
    """What a model takes: a crop, resized and perhaps with a border, as (pixels · scale - mean) / std."""

    size: Sequence[int]
    """Height and width in pixels."""
    layout: Layout
    """Order of the axes: nchw or nhwc."""
    content: Sequence[int] | None = None
    """Height and width of the crop in the middle of it; what is left is border. By default the crop fills all."""
    border: Literal["replicate"] | float = "replicate"
    """replicate: the edge of the crop goes on; or a grey level from 0 to 255."""
    colour: Colour = "rgb"
    """Order of the channels; grey is a single one."""
    scale: float = 1 / 255
    """Factor on pixels of 0 … 255."""
    mean: float | Sequence[float] = 0.0
    """Subtracted after that; a number, or one a channel."""
    std: float | Sequence[float] = 1.0
    """Divides after that; a number, or one a channel."""

    def __post_init__(self) -> None:
        _check_choice("input.layout", self.layout, Layout)
        _check_choice("input.colour", self.colour, Colour)
        for name, size in (("size", self.size), ("content", self.crop)):
            right = _are(size, _is_whole, 2) and all(8 <= side <= 4096 for side in size)
            _check(f"input.{name}", size, right, "height and width from 8 to 4096 pixels, as [256, 128]")
        fits = all(inner <= outer for inner, outer in zip(self.crop, self.size, strict=True))
        _check("input.content", self.content, fits, f"no larger than input.size, {self.size}")
        grey = _is_number(self.border) and 0 <= float(self.border) <= 255
        right = self.border == "replicate" or grey
        _check("input.border", self.border, right, "replicate, or a grey level from 0 to 255")
        _check("input.scale", self.scale, _is_number(self.scale), "a number, as 0.0039")
        for name, value in (("mean", self.mean), ("std", self.std)):
            right = _is_number(value) or _are(value, _is_number, self.channels)
            _check(f"input.{name}", value, right, f"a number, as 0.5, or a list of {self.channels}")
        _check("input.std", self.std, bool(np.all(self.std)), "something else than 0, which divides")

    @property
    def crop(self) -> Sequence[int]:
        """Height and width that a crop is resized to."""
        return self.size if self.content is None else self.content

    @property
    def corner(self) -> tuple[int, int]:
        """Row and column at which the crop begins."""
        return (self.size[0] - self.crop[0]) // 2, (self.size[1] - self.crop[1]) // 2

    @property
    def channels(self) -> int:
        """Number of channels."""
        return 1 if self.colour == "grey" else 3

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array that the model takes."""
        height, width = self.size
        return (1, self.channels, height, width) if self.layout == "nchw" else (1, height, width, self.channels)

    def values_of(self, image: np.ndarray) -> np.ndarray:
        """Bring a crop, (h, w, 3) uint8 RGB, to what the model takes: an array of `shape`, float32."""
        (height, width), (top, left) = self.crop, self.corner
        pixels = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        if self.colour == "grey":
            pixels = pixels.convert("L")
        values = np.asarray(pixels, np.float32).reshape(height, width, self.channels)
        if self.colour == "bgr":
            values = values[..., ::-1]
        around = ((top, self.size[0] - height - top), (left, self.size[1] - width - left), (0, 0))
        if self.border == "replicate":
            values = np.pad(values, around, mode="edge")
        else:
            values = np.pad(values, around, constant_values=float(self.border))
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        taken = (values * np.float32(self.scale) - mean) / std
        return np.ascontiguousarray((taken.transpose(2, 0, 1) if self.layout == "nchw" else taken)[None])

    def back(self, probability: np.ndarray, height: int, width: int) -> np.ndarray:
        """Resize the part of an output map (H, W) that shows the crop to the crop's own size, bilinearly."""
        rows, columns = (
            (start * given / taken, (start + part) * given / taken)
            for start, part, given, taken in zip(self.corner, self.crop, probability.shape, self.size, strict=True)
        )
        box = columns[0], rows[0], columns[1], rows[1]
        resized = Image.fromarray(probability).resize((width, height), Image.Resampling.BILINEAR, box=box)
        return np.asarray(resized).clip(0, 1)


@dataclass(frozen=True)
class Output:
    """What a model gives: which of its outputs, and how that becomes the probability of a person."""

    activation: Activation
    """Still to be applied: sigmoid or softmax to logits, none to probabilities."""
    name: str | None = None
    """Name of the output; needed if there are several, and their shapes do not tell."""
    shape: Sequence[int] | None = None
    """Its shape, in place of a name."""
    channel: int | None = None
    """Channel of the person, from 0; needed if there are several."""

    def __post_init__(self) -> None:
        _check_choice("output.activation", self.activation, Activation)
        _check("output.name", self.name, self.name is None or isinstance(self.name, str), "a name")
        right = self.shape is None or (isinstance(self.shape, list) and all(map(_is_whole, self.shape)))
        _check("output.shape", self.shape, right, "a list of sizes, as [1, 256, 256, 1]")
        right = self.channel is None or (_is_whole(self.channel) and self.channel >= 0)
        _check("output.channel", self.channel, right, "a whole number from 0")

    def which(self, outputs: Sequence[Port]) -> int:
        """Find the number of the output; raises `CsviError` if none or several may be meant."""
        found = [
            number
            for number, port in enumerate(outputs)
            if self.name in (None, port.name) and (self.shape is None or port.fits(tuple(self.shape)))
        ]
        if len(found) != 1:
            many = "several outputs" if found else "no output"
            raise CsviError(
                f"{many} of the model may be meant: give output.name or output.shape of one of these: "
                + ", ".join(map(str, outputs))
            )
        return found[0]

    def probability(self, answer: np.ndarray, layout: Layout) -> np.ndarray:
        """Compute the probability of a person, (H, W) float32, of the model's answer to one image."""
        if answer.ndim == 3:
            answer = np.expand_dims(answer, 1 if layout == "nchw" else 3)
        if answer.ndim != 4 or len(answer) != 1:
            raise CsviError(f"the output has the shape {answer.shape}: it must be that of an image, {layout}")
        maps = (answer[0] if layout == "nchw" else answer[0].transpose(2, 0, 1)).astype(np.float32)  # (C, H, W)
        channel = self.channel or 0
        if (self.channel is None and len(maps) > 1) or channel >= len(maps):
            raise CsviError(f"the output has {len(maps)} channels: set output.channel to that of the person, from 0")
        if self.activation == "softmax":
            if len(maps) == 1:
                raise CsviError(
                    "the output has one channel, of which softmax makes 1: set output.activation to sigmoid"
                )
            found = softmax(maps, 0)[channel]
        elif self.activation == "sigmoid":
            found = expit(maps[channel])
        else:
            found = maps[channel].clip(0, 1)
        if not np.isfinite(found).all():
            raise CsviError("the output holds values that are no numbers: input.scale, mean or std may be wrong")
        return np.ascontiguousarray(found, np.float32)


@dataclass(frozen=True)
class Description:
    """A model file of others."""

    file: str
    """Path of the model, .onnx or .tflite, relative to the YAML."""
    input: Input
    output: Output
    sureness: float = 0.0
    """Least sureness of a mask that is used."""
    source: str = ""
    """Where to get the file."""
    licence: str = ""
    """Its licence."""
    citation: str = ""
    """Who made it."""
    measured: str = "not measured"
    """How good its masks are."""

    def __post_init__(self) -> None:
        for name in ("file", "source", "licence", "citation", "measured"):
            _check(name, getattr(self, name), isinstance(getattr(self, name), str), "text")
        _check("sureness", self.sureness, _is_number(self.sureness) and 0 <= self.sureness <= 1, "a number from 0 to 1")


class ModelFile(Segmenter):
    """A graph, used as its description says; one image at a time, since many files fix that.

    Raises:
        CsviError: the graph takes or gives something else than the description says.
    """

    def __init__(self, name: str, description: Description, graph: Graph):
        self.name, self.sureness = name, description.sureness
        self._input, self._output, self._graph = description.input, description.output, graph
        right = [port for port in graph.inputs if port.type in FLOATS and port.fits(self._input.shape)]
        if len(right) != 1 or len(graph.inputs) != 1:
            takes = " and ".join(f"{port} of {port.type}" for port in graph.inputs) or "nothing"
            raise CsviError(
                f"{name}: the model takes {takes}, and its "
                f"description makes {' × '.join(map(str, self._input.shape))} of float32: see input.size and layout"
            )
        with _about(name):
            self._number = self._output.which(graph.outputs)

    def probabilities(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run the model on each crop, and interpolate what it says to the crop's size."""
        return [self._of_one(image) for image in images]

    def _of_one(self, image: np.ndarray) -> np.ndarray:
        values = self._input.values_of(image).astype(self._graph.inputs[0].type)
        with _about(self.name):
            try:
                answer = self._graph.run(values, self._number)
            except Exception as error:  # each runtime has exceptions of its own
                raise CsviError(f"the model cannot be run: {in_one_line(error)}") from error
            return self._input.back(self._output.probability(answer, self._input.layout), *image.shape[:2])


def read_description(file: Path) -> Description:
    """Read a YAML that describes a model; raises `CsviError` if a name or value in it is wrong."""
    settings = read_settings(file)
    with _about(str(file)):
        for name, kind in (("input", Input), ("output", Output)):
            if name in settings:
                settings[name] = _built(kind, settings[name], f"{name}.")
        return _built(Description, settings)


def open_model_file(description: Path, file: Path | None = None) -> ModelFile:
    """Open the model that a YAML describes.

    Args:
        description: the YAML.
        file: the model, in place of the one that the YAML names.

    Raises:
        CsviError: the YAML or the model is wrong, the model is missing, or what runs it is not installed.
    """
    described = read_description(description)
    model = file or description.parent / expanded(described.file)
    try:
        status_of(model)
    except FileNotFoundError as error:
        origin = f" from {described.source}" if described.source else ""
        licence = f" (licence: {described.licence})" if described.licence else ""
        shipped = description == shipped_config(f"segmenters/{description.stem}")
        name = as_argument(f"{description.stem if shipped else description}=FILE")
        raise CsviError(
            f"the model file {model} is missing: get it{origin}{licence} and name it, --segmenter {name}"
        ) from error
    except (OSError, ValueError) as error:
        raise CsviError(f"cannot read the model file {model}: {reason(error)}") from error
    return ModelFile(description.stem, described, open_graph(model))


def _built(kind: type[T], values: object, prefix: str = "") -> T:
    """Build a dataclass of a YAML's names and values; raises `CsviError` if one is unknown or missing."""
    if not isinstance(values, dict):
        raise CsviError(f"{prefix.rstrip('.')} is {values!r}: it must hold names and values")
    fields = {each.name: each for each in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for name in values:
        if name not in fields:
            raise CsviError(f"unknown name {prefix}{name}: choose from {', '.join(fields)}")
    for name, each in fields.items():
        if name not in values and each.default is dataclasses.MISSING:
            raise CsviError(f"{prefix}{name} is missing: see docs/masks.md")
    return kind(**values)


@contextlib.contextmanager
def _about(what: str) -> Iterator[None]:
    try:
        yield
    except CsviError as error:
        raise CsviError(f"{what}: {error}") from error


def _check(name: str, value: object, right: bool, must: str) -> None:
    if not right:
        raise CsviError(f"{name} is {value!r}: it must be {must}")


def _check_choice(name: str, value: object, choices: Any) -> None:
    _check(name, value, value in get_args(choices), " or ".join(get_args(choices)))


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _are(value: object, kind: Callable[[object], bool], count: int) -> bool:
    """Whether it is a list of so many values of a kind."""
    return isinstance(value, list | tuple) and len(value) == count and all(map(kind, value))
