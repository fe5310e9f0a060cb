"""People's own images: two folders, or one table.

    ROOT/visible/IDENTITY/*.jpg   ROOT/infrared/IDENTITY/*.jpg      either every image below
    ROOT/images.csv                                                 or a table that says where they are
    ROOT/masks/visible/...                                          optional: person masks, a tree like the images'

IDENTITY is any name of a folder. With no table, an identity is put into train, val or test by a checksum of its name:
6 in 10 train, 1 validates, 3 test. It stays there when others join, so that nobody whom an earlier model was trained on
is ever tested on a later one. The camera is 1 for visible and 2 for infrared.

The table has a header and a line an image. `path` (relative to ROOT), `identity` and `modality` (visible or infrared)
are needed; `camera` (an integer), `split` (train, val or test), `mask` (relative to ROOT) and `time` (ISO 8601) may be
left out:

    path,identity,camera,modality,split,mask,time
    a/0001.jpg,anna,1,visible,train,a/0001.png,2024-05-01T12:00:00
"""

import csv
import io
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

from csvi.data.files import (
    LARGEST_NUMBER,
    attach_masks,
    check_disjoint,
    dataset_root,
    folder_names,
    image_names,
    is_synthetic,
    path_inside,
    read_text,
    title_of,
)
from csvi.data.layout import Layout
from csvi.data.records import Benchmark, ImageRecord, Modality
from csvi.errors import CsviError
from csvi.evaluate.protocols import Rules

TITLE = "a folder of people"
TABLE = "images.csv"
NEEDED = ("path", "identity", "modality")
OPTIONAL = ("camera", "split", "mask", "time")
SPLITS = ("train", "val", "test")
RULES = Rules(same_camera=True)
"""A camera that takes both spectra sees the same moment twice; where no cameras are named, none is the query's."""
TableLine = tuple[str, str, ImageRecord]
"""Split, name of the identity, and the record, whose identity is still to be numbered."""


class Folder(Layout):
    """People's own images: one fold, tested in both directions on all images."""

    title = TITLE
    rules = RULES
    writer = "csvi.synth.folder:plan"

    def recognise(self, root: Path) -> bool:
        """Whether there is the table, or are the folders of both modalities."""
        return (root / TABLE).is_file() or all((root / modality.name.lower()).is_dir() for modality in Modality)

    def read(self, root: Path, masks: Path | None = None, fold: int = 1) -> Benchmark:
        """List the images of the three splits, in the order of the table or sorted by path; see `Layout.read`.

        Identities whose names are all integers keep them; else they are numbered from 0 in the order of their names.

        Raises:
            CsviError: there is neither table nor folder, a line of the table is wrong, an identity is in two splits,
                there are no images, or `masks` holds no mask of these images.
        """
        root = dataset_root(root, "your images", f"visible and infrared, or {TABLE}")
        lines = list(_table(root) if (root / TABLE).is_file() else _tree(root))
        if not lines:
            raise CsviError(f"no images in {root}: put them into visible/IDENTITY and infrared/IDENTITY, or list them")
        names = {split: sorted({name for s, name, _ in lines if s == split}) for split in SPLITS}
        check_disjoint(names, "identity", f"{{}} of {root / TABLE}")
        number = _numbers({name for _, name, _ in lines})
        records: dict[str, list[ImageRecord]] = {split: [] for split in SPLITS}
        for split, name, record in lines:
            records[split].append(
                ImageRecord(record.path, number[name], record.camera, record.modality, record.mask, record.time)
            )
        train, val, test = attach_masks(root, records, masks).values()
        title = title_of(root, TITLE) if is_synthetic(root) else root.name
        return Benchmark(title, root, train, val, test, synthetic=is_synthetic(root))


def split_of(identity: str) -> str:
    """Split of an identity that no table puts anywhere, by its name alone."""
    share = zlib.crc32(identity.encode()) % 10
    return "train" if share < 6 else "val" if share < 7 else "test"


def _tree(root: Path) -> Iterator[TableLine]:
    folders = {modality: root / modality.name.lower() for modality in Modality}
    for modality, folder in folders.items():
        if not folder.is_dir():
            raise CsviError(f"no {folder}: give a folder that holds visible and infrared, or {TABLE}")
        for person in folder_names(folder):
            for image in image_names(folder / person):
                path = f"{folder.name}/{person}/{image}"
                yield split_of(person), person, ImageRecord(path, 0, int(modality) + 1, modality)


def _table(root: Path) -> Iterator[TableLine]:
    file = root / TABLE
    reader = csv.DictReader(io.StringIO(read_text(file, TITLE), newline=""), strict=True)
    try:
        header = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = header
        unknown = [name for name in header if name not in (*NEEDED, *OPTIONAL)]
        missing = [name for name in NEEDED if name not in header]
        if missing or unknown or len(set(header)) < len(header):
            wrong = f"no column {missing[0]}" if missing else f"the column {unknown[0]!r}" if unknown else "one twice"
            raise CsviError(
                f"{file} has {wrong}: its columns are {', '.join(NEEDED)} and, if you like, {', '.join(OPTIONAL)}"
            )
        seen: set[str] = set()
        with_camera: set[bool] = set()
        for line in reader:
            place = f"line {reader.line_num} of {file}"
            if None in line or None in line.values():
                raise CsviError(f"{place} has not as many fields as the header, {len(header)}")
            image = _read_line(root, {name: value.strip() for name, value in line.items()}, place)
            if image[2].path in seen:
                raise CsviError(f"{place} names {image[2].path} again: every image must be listed once")
            seen.add(image[2].path)
            with_camera.add(bool((line.get("camera") or "").strip()))
            if len(with_camera) > 1:
                raise CsviError(
                    f"{place} and lines before it do not both name a camera: name it for all images or for none"
                )
            yield image
    except csv.Error as error:
        place = f"line {reader.reader.line_num} of {file}"
        raise CsviError(f"{place} is not one of a table with commas: {error}") from error


def _read_line(root: Path, line: Mapping[str, str], place: str) -> TableLine:
    def number(name: str, default: int) -> int:
        text = line.get(name) or str(default)
        if not re.fullmatch(r"[0-9]{1,9}", text):
            raise CsviError(f"{place} has the {name} {text[:40]!r}: it must be an integer from 0 to {LARGEST_NUMBER}")
        return int(text)

    def one_of(name: str, default: str, choices: Iterable[str]) -> str:
        text = line.get(name) or default
        if text not in choices:
            raise CsviError(f"{place} has the {name} {text[:40]!r}: choose one of {', '.join(choices)}")
        return text

    if not line["identity"]:
        raise CsviError(f"{place} names no identity")
    modality = Modality[one_of("modality", "", [modality.name.lower() for modality in Modality]).upper()]
    split = one_of("split", split_of(line["identity"]), SPLITS)
    mask = root / path_inside(line["mask"], place) if line.get("mask") else None
    time = line.get("time") or None
    if time:
        try:
            datetime.fromisoformat(time)
        except ValueError as error:
            raise CsviError(f"{place} has the time {time[:40]!r}: write it as 2024-05-01T12:00:00") from error
    camera = number("camera", int(modality) + 1)
    return split, line["identity"], ImageRecord(path_inside(line["path"], place), 0, camera, modality, mask, time)


def _numbers(names: set[str]) -> dict[str, int]:
    if all(re.fullmatch(r"[0-9]{1,9}", name) for name in names) and len({int(name) for name in names}) == len(names):
        return {name: int(name) for name in names}
    return {name: n for n, name in enumerate(sorted(names))}
