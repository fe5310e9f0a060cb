"""People's own images: two folders, or one table.

    ROOT/visible/IDENTITY/*.jpg   ROOT/infrared/IDENTITY/*.jpg      either every image below
    ROOT/images.csv                                                 or a table that says where they are
    ROOT/masks/visible/...                                          optional: person masks, a tree like the images'

IDENTITY is any name of a folder; two Unicode forms of one name are one person. With no table, a checksum of the name
puts an identity into train, val or test: 6 in 10 train, 1 validates, 3 test. It stays there when others join, so that
nobody whom an earlier model was trained on is ever tested on a later one; names that look alike (`anna` and `Anna`, `1`
and `0001`) share their split. The camera is 1 for visible and 2 for infrared. The folders `-1` and `0000` are no people
but distractors, which are in galleries alone: in test, where no table says otherwise.

The table has a header and a line an image, with commas, semicolons or tabs between fields. `path` (relative to ROOT),
`identity` and `modality` (visible or infrared) are needed; `camera` (a number or a name), `split` (train, val or test),
`mask` (relative to ROOT) and `time` (ISO 8601) may be left out:

    path,identity,camera,modality,split,mask,time
    a/0001.jpg,anna,1,visible,train,a/0001.png,2024-05-01T12:00:00
"""

import csv
import io
import itertools
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from csvi.data.files import (
    Folders,
    as_on_disk,
    attach_masks,
    check_disjoint,
    dataset_root,
    is_synthetic,
    path_inside,
    read_text,
    title_of,
)
from csvi.data.layout import Layout
from csvi.data.names import DISTRACTORS, likeness, one_form
from csvi.data.records import DISTRACTOR, Benchmark, ImageRecord, Modality
from csvi.errors import CsviError
from csvi.evaluate.protocols import Rules

TITLE = "a folder of people"
TABLE = "images.csv"
NEEDED = ("path", "identity", "modality")
OPTIONAL = ("camera", "split", "mask", "time")
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
"""What stands between the fields of a table → its name; Excel writes semicolons where a comma is in decimal numbers."""
SPLITS = ("train", "val", "test")
FOLDERS = {
    "visible": ("rgb", "vis", "color", "colour", "day"),
    "infrared": ("ir", "thermal", "nir", "lwir", "tir", "fir", "night"),
}
RULES = Rules(same_camera=True)
"""A camera that takes both spectra sees the same moment twice; where no cameras are named, none is the query's."""


class Line(NamedTuple):
    """An image as a table or a folder names it: identity and camera are still to be numbered."""

    path: str
    identity: str
    """In the Unicode form that it has there."""
    camera: str
    modality: Modality
    split: str
    mask: Path | None = None
    time: str | None = None


class Folder(Layout):
    """People's own images: one fold, tested in both directions on all images."""

    title = TITLE
    rules = RULES
    folders = FOLDERS
    writer = "csvi.synth.folder:plan"

    def recognise(self, root: Path) -> bool:
        """Whether there is the table, or are the folders of both modalities."""
        return (root / TABLE).is_file() or all((root / modality.name.lower()).is_dir() for modality in Modality)

    def read(self, root: Path, masks: Path | None = None, fold: int = 1) -> Benchmark:
        """List the images of the three splits, in the order of the table or sorted by path; see `Layout.read`.

        Identities whose names are all integers keep them; else they are numbered from 0 in the order of their names.
        So are cameras, from 1.

        Raises:
            CsviError: there is neither table nor folder, a line of the table is wrong, an identity is in two splits,
                there are no images, or `masks` holds no mask of these images.
        """
        root = dataset_root(root, "your images", f"visible and infrared, or {TABLE}")
        folders = Folders(root)
        lines = list(_table(root) if (root / TABLE).is_file() else _tree(folders))
        if not lines:
            unread = [*folders.misplaced, *itertools.chain(*folders.unread.values())]
            but = f" but {unread[0]}, which is not read" if unread else ""
            raise CsviError(
                f"no images in {root}{but}: put them into visible/IDENTITY and infrared/IDENTITY, or list them"
            )
        _check_splits(lines, root)
        number = _numbers({one_form(line.identity) for line in lines} - {*DISTRACTORS}, 0)
        number |= dict.fromkeys(DISTRACTORS, DISTRACTOR)
        cameras = {line.camera for line in lines}
        numbered = all(map(_is_number, cameras))
        camera = {name: int(name) for name in cameras} if numbered else _numbers(cameras, 1)
        records: dict[str, list[ImageRecord]] = {split: [] for split in SPLITS}
        for line in lines:
            identity = number[one_form(line.identity)]
            records[line.split].append(
                ImageRecord(line.path, identity, camera[line.camera], line.modality, line.mask, line.time)
            )
        distractors = sorted({one_form(line.identity) for line in lines} & {*DISTRACTORS})
        train, val, test = attach_masks(root, records, masks).values()
        return Benchmark(
            title_of(root, TITLE) if is_synthetic(root) else root.name, root, train, val, test,
            synthetic=is_synthetic(root),
            names={n: name for name, n in number.items() if n != DISTRACTOR and name != str(n)}
            | ({DISTRACTOR: " and ".join(distractors)} if distractors else {}),
            cameras={} if numbered else {n: name for name, n in camera.items()},
            unread=folders.unread, misplaced=folders.misplaced,
        )  # fmt: skip


def split_of(identity: str) -> str:
    """Split of an identity that no table puts anywhere, by its name alone; the same for names that look alike."""
    if one_form(identity) in DISTRACTORS:
        return "test"
    share = zlib.crc32(likeness(identity).encode()) % 10
    return "train" if share < 6 else "val" if share < 7 else "test"


def _tree(folders: Folders) -> Iterator[Line]:
    for modality in Modality:
        folder = modality.name.lower()
        if not (folders.root / folder).is_dir():
            raise CsviError(f"no {folders.root / folder}: give a folder that holds visible and infrared, or {TABLE}")
        for person in folders.people(folder):
            for path in folders.images(f"{folder}/{person}"):
                yield Line(path, person, str(int(modality) + 1), modality, split_of(person))


def _table(root: Path) -> Iterator[Line]:
    file = root / TABLE
    text = read_text(file, TITLE)
    before, separator = _separator(text)
    skipped = len(re.findall(r"\r\n|\r|\n", text[:before]))
    reader = csv.DictReader(io.StringIO(text[before:], newline=""), strict=True, delimiter=separator)
    try:
        header = [name.strip().casefold() for name in reader.fieldnames or ()]
        reader.fieldnames = header
        unknown = [name for name in header if name not in (*NEEDED, *OPTIONAL)]
        missing = [name for name in NEEDED if name not in header]
        if missing or unknown or len(set(header)) < len(header):
            wrong = f"no column {missing[0]}" if missing else f"the column {unknown[0]!r}" if unknown else "one twice"
            raise CsviError(
                f"{file} has {wrong}: with {SEPARATORS[separator]} between fields, its first line must hold "
                f"{', '.join(NEEDED)} and, if you like, {', '.join(OPTIONAL)}, and holds {', '.join(header)[:80]!r}"
            )
        seen: set[str] = set()
        with_camera: set[bool] = set()
        for fields in reader:
            place = f"line {reader.line_num + skipped} of {file}"
            if None in fields or None in fields.values():
                raise CsviError(f"{place} has not as many fields as the header, {len(header)}")
            if not any(field.strip() for field in fields.values()):  # spreadsheets leave such lines behind
                continue
            line = _read_line(root, {name: value.strip() for name, value in fields.items()}, place)
            if line.path in seen:
                raise CsviError(f"{place} names {line.path} again: every image must be listed once")
            seen.add(line.path)
            with_camera.add(bool((fields.get("camera") or "").strip()))
            if len(with_camera) > 1:
                raise CsviError(
                    f"{place} and lines before it do not both name a camera: name it for all images or for none"
                )
            yield line
    except csv.Error as error:
        place = f"line {reader.reader.line_num + skipped} of {file}"
        raise CsviError(f"{place} is not one of a table with {SEPARATORS[separator]}: {error}") from error


def _separator(text: str) -> tuple[int, str]:
    """Where the header of a table begins, and what stands between fields: as `sep=;` before it says, or it shows."""
    blank = re.match(r"\s*", text)
    begin = blank.end() if blank else 0
    if said := re.match(r'"?sep=([,;\t])"?[,;\t]*(\r\n|\r|\n)', text[begin:], re.IGNORECASE):
        return begin + said.end(), said[1]
    header = re.split(r"[\r\n]", text[begin:], maxsplit=1)[0]
    return begin, max(SEPARATORS, key=header.count)


def _read_line(root: Path, line: Mapping[str, str], place: str) -> Line:
    def one_of(name: str, default: str, choices: Iterable[str]) -> str:
        text = line.get(name) or default
        if text.casefold() not in choices:
            raise CsviError(f"{place} has the {name} {text[:40]!r}: choose one of {', '.join(choices)}")
        return text.casefold()

    if not line["identity"]:
        raise CsviError(f"{place} names no identity")
    modality = Modality[one_of("modality", "", [modality.name.lower() for modality in Modality]).upper()]
    time = line.get("time") or None
    if time:
        try:
            datetime.fromisoformat(time)
        except ValueError as error:
            raise CsviError(f"{place} has the time {time[:40]!r}: write it as 2024-05-01T12:00:00") from error
    return Line(
        as_on_disk(root, path_inside(line["path"], place)),
        line["identity"],
        one_form(line.get("camera") or str(int(modality) + 1)),
        modality,
        one_of("split", split_of(line["identity"]), SPLITS),
        root / as_on_disk(root, path_inside(line["mask"], place)) if line.get("mask") else None,
        time,
    )


def _check_splits(lines: Iterable[Line], root: Path) -> None:
    """Raises `CsviError` if a person is in two splits; distractors may be."""
    splits: dict[str, set[str]] = {split: set() for split in SPLITS}
    forms: dict[str, set[str]] = {}
    for line in lines:
        name = one_form(line.identity)
        forms.setdefault(name, set()).add(line.identity)
        if name not in DISTRACTORS:
            splits[line.split].add(name)

    def shown(name: str) -> str:
        both = " and as ".join(ascii(form) for form in sorted(forms[name]))
        return f"{name} (written as {both}, two Unicode forms of one name)" if len(forms[name]) > 1 else name

    members = {split: [shown(name) for name in sorted(names)] for split, names in splits.items()}
    check_disjoint(members, "identity", f"{{}} of {root / TABLE}")


def _is_number(name: str) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,9}", name))


def _numbers(names: Iterable[str], first: int) -> dict[str, int]:
    """Number names: by themselves if all are integers, and different ones; else from `first` on in their order."""
    names = sorted(names)
    if all(map(_is_number, names)) and len({int(name) for name in names}) == len(names):
        return {name: int(name) for name in names}
    return {name: n for n, name in enumerate(names, start=first)}
