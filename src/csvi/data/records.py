"""Image records and the benchmark they belong to, which every reader returns and everything else works on."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple


class Modality(IntEnum):
    """The spectrum that an image was taken in; visible comes first wherever both are in one tensor."""

    VISIBLE = 0
    INFRARED = 1


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image of one person; nothing is decoded."""

    path: str
    """POSIX path relative to the root of the benchmark, its name everywhere: `cam1/0006/0025.jpg`."""
    identity: int
    """Number of the person, unique within a benchmark (in training and test)."""
    camera: int
    """The dataset's own number of the camera; where a dataset names none, 1 for visible and 2 for infrared."""
    modality: Modality
    mask: Path | None = None
    """Absolute path of the person mask."""
    time: str | None = None
    """Time of the photograph, ISO 8601, where a dataset tells."""


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

    def file(self, record: ImageRecord) -> Path:
        """Path of a record's image on this machine."""
        return self.root / record.path

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
        return cls(len({record.identity for record in records}), len(records) - infrared, infrared)
