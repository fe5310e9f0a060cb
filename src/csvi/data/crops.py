"""Crops of people whom nobody has named: images of a dataset of any layout, of a folder that is none, or of a table.

A table has a header and a line an image, and lies in the folder that its paths are relative to; `path` alone is needed:

    path,camera,time,modality,track
    north/0001.jpg,3,2024-05-01T12:00:00,infrared,3-17

A folder or a table may leave the rest to be found: the camera by a folder `cam3`, the modality by a folder `infrared`
(or any name that the layout `folder` knows for it), or by the colours of the image.
"""

import dataclasses
import logging
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from PIL import Image

from csvi.config import RANGES, DataConfig
from csvi.data.depth import levels_of, measured_ranges
from csvi.data.files import is_image_name, walk, without_suffix
from csvi.data.folder import FOLDERS
from csvi.data.images import load_image
from csvi.data.layout import find_layout, read_benchmark, recognise, what_is_lacking
from csvi.data.names import CAMERA, one_form
from csvi.data.records import DISTRACTOR, ImageRecord, Modality
from csvi.data.tables import modality_of, numbers_of, read_table, time_of
from csvi.errors import CsviError
from csvi.paths import expanded
from csvi.progress import in_threads

NO_CAMERA = -1
"""Camera of a crop of which none is known."""
ALIKE = 2.0
"""Mean difference of the colour channels, of 255, below which an image is grey, and taken for infrared."""
TABLES = {".csv", ".tsv", ".txt"}
"""Suffixes of a table."""
COLUMNS = ("camera", "time", "modality", "track")
"""Columns that a table may have beside `path`."""
SPECTRA = {name: modality for modality in Modality for name in (modality.word, *FOLDERS[modality.word])}
"""Name of a folder, or word in that of an array, in small letters → modality of the images in it."""
BY_FOLDER, BY_COLOURS = "by its folder", "by its colours"
"""What a modality is known by that nobody said."""
MASKS = "masks"
"""Name of a folder of person masks."""

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Crops:
    """Images of people, and how they are read."""

    root: Path
    layout: str | None
    """Name of its layout; None of a folder that is none."""
    records: list[ImageRecord]
    data: DataConfig
    """Settings that say what is black and white in images of more than 8 bits."""
    cameras: Mapping[int, str] = dataclasses.field(default_factory=dict)
    """Camera → its name, where that is not the number itself; that of `NO_CAMERA` is empty."""
    told: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """What the modality is known by → images."""
    ranges: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Name of `RANGES` → that of the images of more than 8 bits; `auto` if there are none."""
    guessed: Mapping[str, Collection[str]] = dataclasses.field(default_factory=dict)
    """Path of an image → which of its `camera` and `modality` names of folders or its colours tell, and nobody said."""

    def load(self, record: ImageRecord) -> Image.Image:
        """Open an image, upright and as RGB; raises as `load_image` does."""
        return load_image(self.root / record.path, levels_of(self.data, record.modality))

    def name_of_camera(self, camera: int) -> str:
        """Name of a camera, as the dataset has it; empty if none is known."""
        return self.cameras.get(camera, str(camera))

    @property
    def source_of_modality(self) -> str:
        """What the modality is known by, for people to read: `by its folder (30), by its colours (2)`."""
        return ", ".join(f"{what} ({count:,})" for what, count in self.told.items())


class _Line(NamedTuple):
    """A crop as a folder or a table names it; what it does not say is None."""

    path: str
    camera: str | None = None
    modality: Modality | None = None
    time: str | None = None
    track: str | None = None
    named: bool = False
    """Whether the table names the camera, and not a folder."""


def read_crops(
    data: DataConfig,
    layout: str | None = None,
    *,
    modality: Modality | None = None,
    infrared_cameras: Collection[str] = (),
    without: Collection[Path] = (),
    top: Path | None = None,
) -> Crops:
    """List the images of a dataset, of all its folds and splits; or of a folder that looks like none; or of a table.

    The modality of an image is the one given here, or its dataset's, or that of the table's column, or of its camera,
    or of the first of its folders that is named after one, or told by its colours: infrared if its channels are alike.
    In a folder that looks like no dataset, person masks that mirror the images, in a folder `masks`, are no crops.

    Args:
        data: root (a folder, or a table), masks and ranges; ranges that are `auto` are measured.
        layout: name of the layout, by default the one that the folder looks like, if any.
        modality: of all images of a folder or a table.
        infrared_cameras: names of the cameras of a folder or a table whose images are infrared; those of all others
            that have a name are visible.
        without: folders within the root whose images are no crops, as those of masks.
        top: folder above that of a folder or a table; names of folders tell cameras and modalities from there on, and
            by default from the folder itself on.

    Raises:
        CsviError: there is no such folder or table, no image in it, an unknown camera, or its reader finds something
            wrong, or none of the images that it names for a modality is there; or it seems to be a dataset that lacks a
            folder, and neither modality nor infrared cameras are given; or a dataset, which says itself what its images
            are, is given with a modality or infrared cameras, a table with a layout, or infrared cameras with a
            modality.
    """
    source = expanded(data.root).absolute()
    table = source.is_file() and source.suffix.lower() in TABLES
    if not table and not source.is_dir():
        raise CsviError(f"{source} is no folder and no table (.csv): give a dataset, a folder of crops, or their table")
    if table and layout:
        raise CsviError(f"{source} is a table of crops, which has no layout: leave --data.layout {layout} out")
    if modality is not None and infrared_cameras:
        raise CsviError("--modality is that of all images, and --infrared_cameras of some: leave one of them out")
    root = source.parent if table else source
    name = None if table else layout or recognise(root)
    left_out = [folder for folder in map(Path.absolute, without) if folder != root and folder.is_relative_to(root)]
    if name:
        if modality is not None or infrared_cameras:
            raise CsviError(f"{root} is laid out as {find_layout(name).title}, which says which images are infrared")
        crops = _of_dataset(root, data, name)
    else:
        if not (table or modality is not None or infrared_cameras) and (lacking := what_is_lacking(root)):
            raise CsviError(
                f"{root} {lacking}; or, if these are crops of your own, say which are infrared, with "
                "--infrared_cameras, --modality or a table (.csv)"
            )
        place = PurePosixPath(os.path.normpath(root))
        above = place.relative_to(top) if top and place.is_relative_to(top) else PurePosixPath()
        lines = list(_of_table(source, above) if table else _of_folder(root, left_out, above))
        crops = _numbered(root, lines, data, modality, infrared_cameras, above)
    if not crops.records:
        raise CsviError(f"no images in {source}")
    files = {modality: [root / r.path for r in crops.records if r.modality == modality] for modality in Modality}
    _check_there(crops)
    data, depths = measured_ranges(files, data)
    ranges = {RANGES[modality]: depths[modality].range if modality in depths else "auto" for modality in Modality}
    return dataclasses.replace(crops, data=data, ranges=ranges)


def detected_modality(image: Image.Image) -> Modality:
    """Tell the modality of an image by its colours: infrared if its channels are alike."""
    pixels = np.asarray(image.convert("RGB").resize((32, 64)), np.float32)
    difference = (pixels.max(2) - pixels.min(2)).mean()
    return Modality.INFRARED if difference < ALIKE else Modality.VISIBLE


def _of_dataset(root: Path, data: DataConfig, layout: str) -> Crops:
    records: dict[str, ImageRecord] = {}
    cameras: dict[int, str] = {}
    for fold in range(1, find_layout(layout).folds + 1):
        if find_layout(layout).has_fold(root, fold):
            benchmark = read_benchmark(dataclasses.replace(data, layout=layout, fold=fold))
            records |= {record.path: record for split in benchmark.splits.values() for record in split}
            cameras |= benchmark.cameras
    return Crops(root, layout, list(records.values()), data, cameras, {"by the dataset": len(records)})


def _check_there(crops: Crops) -> None:
    """Raises `CsviError` if there is no image of a modality that a dataset or a table names."""
    for modality in Modality:
        of_modality = [record.path for record in crops.records if record.modality == modality]
        named = [path for path in of_modality if "modality" not in crops.guessed.get(path, ())]
        if named and not any((crops.root / path).exists() for path in of_modality):
            name = modality.word
            raise CsviError(f"none of the {len(of_modality):,} {name} images is there, such as {crops.root / named[0]}")


def _of_folder(root: Path, without: Collection[Path], above: PurePosixPath) -> Iterator[_Line]:
    files = (file for file in walk(root) if is_image_name(file.name) and not any(map(file.is_relative_to, without)))
    paths = [PurePosixPath(file.relative_to(root)) for file in files]
    mirrors = _mirrors(paths)
    for folder, count in mirrors.items():
        log.info("%s: left out, as person masks of the images beside it: %d", root / folder, count)
    for path in paths:
        if not any(map(path.is_relative_to, mirrors)):
            yield _Line(str(path), _camera_of(above / path))


def _mirrors(paths: Collection[PurePosixPath]) -> dict[PurePosixPath, int]:
    """Folders of person masks → images: most of them are named as an image beside the folder, but for the suffix."""
    within: dict[PurePosixPath, list[PurePosixPath]] = {}
    for path in paths:
        if MASKS in path.parent.parts:
            tree = PurePosixPath(*path.parts[: path.parts.index(MASKS) + 1])
            within.setdefault(tree, []).append(tree.parent / path.relative_to(tree))
    names = {without_suffix(str(path)) for path in paths} if within else set()
    return {
        tree: len(images)
        for tree, images in within.items()
        if 2 * sum(without_suffix(str(image)) in names for image in images) > len(images)
    }


def _of_table(file: Path, above: PurePosixPath) -> Iterator[_Line]:
    for place, line in read_table(file, "a table of crops", ("path",), COLUMNS, others=True):
        modality = modality_of(line, place) if line.get("modality") else None
        named = one_form(line.get("camera") or "")
        camera = named or _camera_of(above / line["path"])
        yield _Line(line["path"], camera, modality, time_of(line, place), line.get("track") or None, bool(named))


def _camera_of(path: PurePosixPath) -> str | None:
    """Name of the camera of an image, by the last of its folders that is named after one."""
    named = map(CAMERA.fullmatch, reversed(path.parent.parts))
    return next((found[1] or found[2] for found in named if found), None)


def _numbered(
    root: Path,
    lines: Collection[_Line],
    data: DataConfig,
    modality: Modality | None,
    infrared: Collection[str],
    above: PurePosixPath,
) -> Crops:
    """Number the cameras, and find the modality of each image."""
    names = {line.camera for line in lines if line.camera is not None}
    if unknown := sorted(set(infrared) - names):
        there = ", ".join(sorted(names)) or "none"
        raise CsviError(f"no image is of the camera {unknown[0]!r}: the cameras of {root} are {there}")
    camera = numbers_of(names, 1)

    def by_what(line: _Line) -> tuple[str, Modality]:
        if modality is not None:
            return "as given", modality
        if line.modality is not None:
            return "by the table", line.modality
        if infrared and line.camera is not None:
            return "by its camera", Modality.INFRARED if line.camera in infrared else Modality.VISIBLE
        folders = (above / line.path).parent.parts
        if named := next((folder.casefold() for folder in folders if folder.casefold() in SPECTRA), None):
            return BY_FOLDER, SPECTRA[named]
        try:
            return BY_COLOURS, detected_modality(load_image(root / line.path))
        except CsviError:  # of more than 8 bits, or broken, which those who read it will say
            return BY_COLOURS, Modality.INFRARED

    found = in_threads(by_what, list(lines), "Looking at images")
    records = [
        ImageRecord(
            line.path,
            DISTRACTOR,
            NO_CAMERA if line.camera is None else camera[line.camera],
            spectrum,
            time=line.time,
            track=line.track,
        )
        for line, (_, spectrum) in zip(lines, found, strict=True)
    ]
    known = {number: name for name, number in camera.items() if name != str(number)}
    guessed = {
        line.path: ["camera"] * (not line.named) + ["modality"] * (what in (BY_FOLDER, BY_COLOURS))
        for line, (what, _) in zip(lines, found, strict=True)
    }
    told = Counter(what for what, _ in found)
    return Crops(root, None, records, data, {NO_CAMERA: ""} | known, told, guessed=guessed)
