"""Image records and the benchmark they belong to, which every reader returns and everything else works on."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from csvi.evaluate.protocols import DISTRACTOR


class Modality(IntEnum):
    """The spectrum that an image was taken in; visible comes first wherever both are in one tensor."""

    VISIBLE = 0
    INFRARED = 1

    @property
    def word(self) -> str:
        """`visible` or `infrared`, as files and options have it."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image of one person; nothing is decoded."""

    path: str
    """POSIX path relative to the root of the benchmark, its name everywhere: `cam1/0006/0025.jpg`."""
    identity: int
    """Number of the person, unique within a benchmark (in training and test); `DISTRACTOR` if it is nobody known."""
    camera: int
    """The dataset's own number of the camera; where a dataset names none, 1 for visible and 2 for infrared."""
    modality: Modality
    mask: Path | None = None
    """Absolute path of the person mask."""
    time: str | None = None
    """Time of the photograph, ISO 8601, where a dataset tells."""
    track: str | None = None
    """Name of the track, the images of one person in one video of one camera, where a dataset tells."""


@dataclass(frozen=True)
class Benchmark:
    """A dataset as one run sees it: one fold of it.

    A dataset of several folds (RegDB has ten) is as many benchmarks. Identities of `train`, `val` and `test` differ.
    `val` may be empty, where a dataset has none.
    """

    name: str
    root: Path
    train: list[ImageRecord]
    val: list[ImageRecord]
    test: list[ImageRecord]
    layout: str = ""
    """Layout whose protocols it is tested under, see `csvi.data.find_layout`."""
    synthetic: bool = False
    """Whether its images are rendered, not photographed: results on it are headed as such."""
    fold: int = 1
    """Number of the fold, from 1."""
    names: Mapping[int, str] = field(default_factory=dict)
    """Identity → the name that the dataset has for it, where that is not the number itself; see `name_of`."""
    cameras: Mapping[int, str] = field(default_factory=dict)
    """Camera → its name, where that is not the number itself."""
    unread: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Suffix → files beside the images that have it and are not read; paths as records have them."""
    misplaced: Sequence[str] = ()
    """Images that lie in no person's folder, or deeper, and are not read."""

    def file(self, record: ImageRecord) -> Path:
        """Path of a record's image on this machine."""
        return self.root / record.path

    def name_of(self, identity: int) -> str:
        """Name of a person as the dataset has it, for people to read."""
        return self.names.get(identity, str(identity))

    def name_of_camera(self, camera: int) -> str:
        """Name of a camera as the dataset has it: `cam3`, or what a table calls it."""
        return self.cameras.get(camera, f"cam{camera}")

    def label_of(self, record: ImageRecord) -> str:
        """Person and camera of an image, for people to read: `id anna, cam3`."""
        return f"id {self.name_of(record.identity)}, {self.name_of_camera(record.camera)}"

    @property
    def splits(self) -> dict[str, list[ImageRecord]]:
        """`train`, `val` and `test` by name."""
        return {"train": self.train, "val": self.val, "test": self.test}


class Counts(NamedTuple):
    """Numbers of identities, and of images of each modality, in a split."""

    identities: int
    visible: int
    infrared: int

    @classmethod
    def of(cls, records: Iterable[ImageRecord]) -> "Counts":
        """Count these images."""
        records = list(records)
        infrared = sum(record.modality == Modality.INFRARED for record in records)
        people = {record.identity for record in records} - {DISTRACTOR}
        return cls(len(people), len(records) - infrared, infrared)


def paired_images(
    records: Sequence[ImageRecord], skipped: Container[int] = ()
) -> dict[int, tuple[list[int], list[int]]]:
    """Indices of the visible and of the infrared images of each person who has both, without the skipped images."""
    found: dict[int, tuple[list[int], list[int]]] = {}
    for index, record in enumerate(records):
        if index not in skipped and record.identity != DISTRACTOR:
            found.setdefault(record.identity, ([], []))[record.modality].append(index)
    return {identity: both for identity, both in found.items() if all(both)}
