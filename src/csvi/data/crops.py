"""Crops of people that nobody has named: the images of a dataset of any layout, or of a folder that is none."""

import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image

from csvi.config import DataConfig
from csvi.data.depth import levels_of, measured_ranges
from csvi.data.files import is_image_name, walk
from csvi.data.images import load_image
from csvi.data.layout import find_layout, read_benchmark, recognise
from csvi.data.records import DISTRACTOR, ImageRecord, Modality
from csvi.errors import CsviError
from csvi.paths import expanded
from csvi.progress import in_threads

NO_CAMERA = 0
"""Camera of a crop of which none is known."""
ALIKE = 2.0
"""Mean difference of the colour channels, of 255, below which an image is grey, and taken for infrared."""


@dataclasses.dataclass(frozen=True)
class Crops:
    """Images of people, and how they are read."""

    root: Path
    layout: str | None
    """Name of its layout; None of a folder that is none."""
    records: list[ImageRecord]
    data: DataConfig
    """Settings that say what is black and white in images of more than 8 bits."""

    def load(self, record: ImageRecord) -> Image.Image:
        """Open an image, upright and as RGB; raises as `load_image` does."""
        return load_image(self.root / record.path, levels_of(self.data, record.modality))


def read_crops(data: DataConfig, layout: str | None = None) -> Crops:
    """List the images of a dataset, of all its folds and splits, or of a folder that looks like no dataset.

    Args:
        data: root, masks and ranges; ranges that are `auto` are measured.
        layout: name of the layout, by default the one that the folder looks like, if any.

    Raises:
        CsviError: there is no such folder, no image in it, or its reader finds something wrong.
    """
    root = expanded(data.root).absolute()
    if not root.is_dir():
        raise CsviError(f"{root} is not a folder: give the folder of a dataset, or of crops of people")
    name = layout or recognise(root)
    records = _of_dataset(data, name) if name else _of_folder(root)
    if not records:
        raise CsviError(f"no images in {root}")
    files = {modality: [root / r.path for r in records if r.modality == modality] for modality in Modality}
    return Crops(root, name, records, measured_ranges(files, data)[0])


def modality_of(image: Image.Image) -> Modality:
    """Tell the modality of an image by its colours: infrared if its channels are alike."""
    pixels = np.asarray(image.convert("RGB").resize((32, 64)), np.float32)
    difference = (pixels.max(2) - pixels.min(2)).mean()
    return Modality.INFRARED if difference < ALIKE else Modality.VISIBLE


def _of_dataset(data: DataConfig, layout: str) -> list[ImageRecord]:
    folds = find_layout(layout).folds
    found: dict[str, ImageRecord] = {}
    for fold in range(1, folds + 1):
        if find_layout(layout).has_fold(expanded(data.root), fold):
            benchmark = read_benchmark(dataclasses.replace(data, layout=layout, fold=fold))
            found |= {record.path: record for split in benchmark.splits.values() for record in split}
    return list(found.values())


def _of_folder(root: Path) -> list[ImageRecord]:
    files = [file for file in walk(root) if is_image_name(file.name)]

    def record(file: Path) -> ImageRecord:
        try:
            modality = modality_of(load_image(file))
        except CsviError:  # of more than 8 bits, or broken, which those who read it will say
            modality = Modality.INFRARED
        return ImageRecord(file.relative_to(root).as_posix(), DISTRACTOR, NO_CAMERA, modality)

    return in_threads(record, files, "Looking at images")
