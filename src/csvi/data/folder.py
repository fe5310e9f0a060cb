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
`mask` (relative to ROOT), `time` (ISO 8601) and `track` (a name) may be left out:

    path,identity,camera,modality,split,mask,time
    a/0001.jpg,anna,1,visible,train,a/0001.png,2024-05-01T12:00:00
"""

import itertools
import zlib
from collections.abc import Iterable, Iterator
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
    title_of,
)
from csvi.data.layout import Layout
from csvi.data.names import DISTRACTORS, likeness, one_form
from csvi.data.records import DISTRACTOR, Benchmark, ImageRecord, Modality
from csvi.data.tables import is_number, modality_of, numbers_of, one_of, read_table, time_of
from csvi.errors import CsviError
from csvi.evaluate.protocols import Rules

TABLE = "images.csv"
NEEDED = ("path", "identity", "modality")
OPTIONAL = ("camera", "split", "mask", "time", "track")
SPLITS = ("train", "val", "test")
FOLDERS = {
    "visible": ("rgb", "vis", "color", "colour", "day"),
    "infrared": ("ir", "thermal", "nir", "lwir", "tir", "fir", "night"),
}


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
    track: str | None = None


class Folder(Layout):
    """People's own images: one fold, tested in both directions on all images."""

    title = "a folder of people"
    rules = Rules(same_camera=True)
    """A camera that takes both spectra sees the same moment twice; where no cameras are named, none is the query's."""
    folders = FOLDERS
    writer = "csvi.synth.folder:plan"

    def recognise(self, root: Path) -> bool:
        """Whether there is the table, or are the folders of both modalities."""
        return (root / TABLE).is_file() or all((root / modality.word).is_dir() for modality in Modality)

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
        number = numbers_of({one_form(line.identity) for line in lines} - {*DISTRACTORS}, 0)
        number |= dict.fromkeys(DISTRACTORS, DISTRACTOR)
        camera = numbers_of({line.camera for line in lines}, 1)
        numbered = all(is_number(name) and int(name) == n for name, n in camera.items())
        records: dict[str, list[ImageRecord]] = {split: [] for split in SPLITS}
        for line in lines:
            identity = number[one_form(line.identity)]
            records[line.split].append(
                ImageRecord(line.path, identity, camera[line.camera], line.modality, line.mask, line.time, line.track)
            )
        distractors = sorted({one_form(line.identity) for line in lines} & {*DISTRACTORS})
        train, val, test = attach_masks(root, records, masks).values()
        return Benchmark(
            title_of(root, self.title) if is_synthetic(root) else root.name, root, train, val, test,
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
        folder = modality.word
        if not (folders.root / folder).is_dir():
            raise CsviError(f"no {folders.root / folder}: give a folder that holds visible and infrared, or {TABLE}")
        for person in folders.people(folder):
            for path in folders.images(f"{folder}/{person}"):
                yield Line(path, person, str(int(modality) + 1), modality, split_of(person))


def _table(root: Path) -> Iterator[Line]:
    with_camera: set[bool] = set()
    for place, line in read_table(root / TABLE, Folder.title, NEEDED, OPTIONAL):
        with_camera.add(bool(line.get("camera")))
        if len(with_camera) > 1:
            raise CsviError(
                f"{place} and lines before it do not both name a camera: name it for all images or for none"
            )
        if not line["identity"]:
            raise CsviError(f"{place} names no identity")
        modality = modality_of(line, place)
        yield Line(
            line["path"],
            line["identity"],
            one_form(line.get("camera") or str(int(modality) + 1)),
            modality,
            one_of(line, "split", SPLITS, place, split_of(line["identity"])),
            root / as_on_disk(root, path_inside(line["mask"], place)) if line.get("mask") else None,
            time_of(line, place),
            line.get("track") or None,
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
