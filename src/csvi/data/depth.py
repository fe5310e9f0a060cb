"""Images of more than 8 bits a pixel, as thermal cameras write them: which values become black and white.

One range holds for a whole dataset, so that the same temperature has the same grey in every image. It is measured on
the training images, stands in the settings of the run as numbers, and is the same wherever the run reads images.
"""

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from csvi.config import RANGES, DataConfig, parse_range, written_range
from csvi.data.images import BadImage, Levels, TroubleReading, deep_values, header_of, load_image
from csvi.data.records import Benchmark, ImageRecord, Modality
from csvi.errors import CsviError
from csvi.progress import in_threads

log = logging.getLogger(__name__)

LOOKED_AT = 256
"""Images that are measured, evenly spaced over those that there are."""
PIXELS = 16_384
"""Pixels of an image that are measured, at most, on a grid."""
PERCENTILES = 0.5, 99.5
"""Of the values, those that become black and white: a dead pixel and the sun do not decide."""
FEWEST = 32
"""Grey levels; with fewer, little can be told apart."""
MOST_CLIPPED = 0.5
"""Share of the pixels outside a range; with more, the range is that of other images."""


@dataclass(frozen=True)
class Depth:
    """The values in images of more than 8 bits a pixel, and what a range makes of them; by a sample."""

    images: int
    """Images that were looked at."""
    deep: int
    """Those of them that have more than 8 bits."""
    bits: int
    """16, or 32 for values that are not whole or no 16 bits hold."""
    lowest: float
    highest: float
    black: float
    """The value that becomes black, and below that of white."""
    white: float
    levels: int
    """Grey levels, of 256, that are left."""
    clipped: float
    """Share of the pixels below black or above white."""

    @property
    def range(self) -> str:
        """The range as it stands in the settings: `7512,8391`."""
        return written_range(self.black, self.white)

    def __str__(self) -> str:
        lowest, highest, black, white = (
            f"{value:,.10g}" for value in (self.lowest, self.highest, self.black, self.white)
        )
        return (
            f"{self.bits} bits a pixel, values {lowest} to {highest}: {black} becomes black and {white} white, "
            f"{grey_levels(self.levels)}, {self.clipped:.0%} of the pixels clipped"
        )


def grey_levels(number: int) -> str:
    """Write a number of grey levels."""
    return f"{number} grey level{'s' * (number != 1)}"


def levels_of(data: DataConfig, modality: Modality) -> Levels | None:
    """Which values become black and white in images of a modality; None if they must not have more than 8 bits."""
    known = parse_range(RANGES[modality], getattr(data, RANGES[modality]))
    return known and Levels(*known)


def with_measured_ranges(benchmark: Benchmark, data: DataConfig) -> DataConfig:
    """Copy the settings with numbers for each range that is `auto`, where training images have more than 8 bits.

    They are measured on `train` (without one, on all images), and the log says what is done.

    Raises:
        CsviError: as `measure` does, or a range that is given leaves nothing to see.
    """
    records = benchmark.train or [*benchmark.val, *benchmark.test]
    files = {modality: _files(benchmark.root, records, modality) for modality in Modality}
    data, depths = measured_ranges(files, data)
    for modality in Modality:
        if modality in depths:
            _say(benchmark.root, modality, depths[modality])
        left = levels_of_halved(files[modality])
        if left is not None and left < FEWEST:
            log.warning("%s images %s", modality.word, halved(left))
    return data


def measured_ranges(
    files: Mapping[Modality, Sequence[Path]], data: DataConfig
) -> tuple[DataConfig, dict[Modality, Depth]]:
    """Copy the settings with numbers for each modality whose files have more than 8 bits, see `measure`."""
    data, depths = dataclasses.replace(data), {}
    for modality, of_modality in files.items():
        depth = measure(of_modality, levels_of(data, modality))
        if depth is not None:
            setattr(data, RANGES[modality], depth.range)
            depths[modality] = depth
    return data, depths


def check_ranges(root: Path, records: Sequence[ImageRecord], data: DataConfig) -> None:
    """Raises `CsviError` if most pixels of images of more than 8 bits lie outside the range that the settings have."""
    for modality in Modality:
        levels = levels_of(data, modality)
        depth = levels and measure(_files(root, records, modality), levels)
        if depth:
            _say(root, modality, depth)


def measure(files: Sequence[Path], levels: Levels | None = None) -> Depth | None:
    """Measure the values of images of more than 8 bits; None if there are none among those that are looked at.

    Without `levels`, black and white are 0 and 255 for whole numbers of 8 bits that are stored in 16; 0 and 65,535 for
    those that fill more than half of 16 bits; and else the `PERCENTILES` of all values together. Images that cannot be
    read are left out.

    Raises:
        CsviError: all values are the same, or an image could not be read this time.
    """
    looks = in_threads(_look, _some(files), "Measuring images")
    deep = [look for look in looks if look is not None]
    if not deep:
        return None
    values = np.concatenate([look.sample for look in deep])
    lowest, highest = min(look.lowest for look in deep), max(look.highest for look in deep)
    whole = bool((values == np.rint(values)).all())
    of_16_bits = whole and lowest >= 0 and highest <= 65_535
    if levels is None and of_16_bits and highest <= 255:
        levels = Levels(0.0, 255.0)
    if levels is None and lowest == highest:
        raise CsviError(
            f"all pixels of {len(deep)} images of more than 8 bits, such as {deep[0].file}, have the value "
            f"{lowest:,.10g}: nothing can be seen on them, write them anew"
        )
    black, white = levels or _levels(values, lowest, highest, whole, of_16_bits)
    return Depth(
        images=len(looks),
        deep=len(deep),
        bits=16 if of_16_bits else 32,
        lowest=lowest,
        highest=highest,
        black=black,
        white=white,
        levels=len(np.unique(Levels(black, white).applied_to(values))),
        clipped=float(((values < black) | (values > white)).mean()),
    )


def levels_of_halved(files: Sequence[Path]) -> int | None:
    """Count the grey levels of the images of 16 bits a colour, see `Header.halved`; None if none of a sample is one."""

    def grey(file: Path) -> np.ndarray | None:
        try:
            if not header_of(file).halved:
                return None
            return np.unique(np.asarray(load_image(file).convert("L")))
        except TroubleReading:
            raise
        except BadImage:
            return None

    found = [levels for levels in in_threads(grey, _some(files), "Measuring images") if levels is not None]
    return len(np.unique(np.concatenate(found))) if found else None


def halved(levels: int) -> str:
    """Say what is the matter with images of 16 bits a colour that have too few levels: a predicate."""
    return (
        f"have 16 bits a colour, of which the upper 8 are read: {grey_levels(levels)} left; write them with one "
        "channel of 16 bits"
    )


class _Look(NamedTuple):
    file: Path
    sample: np.ndarray
    """Some values, (n,)."""
    lowest: float
    """Of all values."""
    highest: float


def _look(file: Path) -> _Look | None:
    """Look at an image of more than 8 bits; None of any other."""
    try:
        values = deep_values(file)
    except TroubleReading:
        raise
    except BadImage:  # told by those who read every image
        return None
    if values is None:
        return None
    stride = math.ceil(math.sqrt(values.size / PIXELS))
    return _Look(file, values[::stride, ::stride].ravel(), float(values.min()), float(values.max()))


def _levels(values: np.ndarray, lowest: float, highest: float, whole: bool, of_16_bits: bool) -> Levels:
    black, white = map(float, np.percentile(values, PERCENTILES))
    if of_16_bits and white - black > 65_536 / 2:
        return Levels(0.0, 65_535.0)
    if black == white:
        black, white = lowest, highest
    if whole:
        return Levels(float(math.floor(black)), float(math.ceil(white)))
    digits = 3 - math.floor(math.log10(white - black))  # to a thousandth of the range
    return Levels(round(black, digits), round(white, digits))


def _some(files: Sequence[Path]) -> list[Path]:
    """At most `LOOKED_AT` of the files, evenly spaced."""
    return [files[i] for i in np.linspace(0, len(files) - 1, min(LOOKED_AT, len(files))).round().astype(int)]


def _files(root: Path, records: Sequence[ImageRecord], modality: Modality) -> list[Path]:
    return [root / record.path for record in records if record.modality == modality]


def _say(root: Path, modality: Modality, depth: Depth) -> None:
    """Log what becomes of the values; raises `CsviError` if most of them are clipped."""
    option, images = f"--data.{RANGES[modality]}", f"{modality.word} images of {root}"
    if depth.clipped > MOST_CLIPPED:
        raise CsviError(
            f"{depth.clipped:.0%} of the pixels of the {images} lie outside {option} {depth.range}, as they are "
            f"{depth.lowest:,.10g} to {depth.highest:,.10g}: give another range (csvi check ROOT measures it)"
        )
    log.info("%s images have %s (%s)", modality.word, depth, option)
    if depth.levels < FEWEST:
        log.warning("only %s left of the %s: give another %s", grey_levels(depth.levels), images, option)
    if depth.deep < depth.images:
        share = f"{depth.deep} of {depth.images}"
        log.warning("only %s %s looked at have more than 8 bits: the range changes these alone", share, images)
