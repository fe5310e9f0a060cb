"""What every reader returns and everything else works on: image records and the benchmark they belong to."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
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
    """When it was taken, ISO 8601, where a dataset tells."""


@dataclass(frozen=True)
class Benchmark:
    """A dataset as one run sees it: one split of its identities.

    A dataset of several splits (RegDB has ten) is as many benchmarks. Identities of `train`, `val` and `test` differ.
    `val` may be empty, where a dataset has none.
    """

    name: str
    root: Path
    train: list[ImageRecord]
    val: list[ImageRecord]
    test: list[ImageRecord]
    layout: str = "sysu"
    """Whose protocols it is tested under, a key of `csvi.data.LAYOUTS`."""
    synthetic: bool = False
    """Rendered, not photographed: results on it are headed as such."""
    trial: int = 1
    """Which of the dataset's splits this is, from 1."""

    def file(self, record: ImageRecord) -> Path:
        """Where the image of `record` is on this machine."""
        return self.root / record.path

    @property
    def splits(self) -> dict[str, list[ImageRecord]]:
        """`train`, `val` and `test` by name."""
        return {"train": self.train, "val": self.val, "test": self.test}


class Counts(NamedTuple):
    """How much a split holds."""

    identities: int
    visible: int
    infrared: int

    @classmethod
    def of(cls, records: Iterable[ImageRecord]) -> "Counts":
        """Count these images."""
        records = list(records)
        infrared = sum(record.modality == Modality.INFRARED for record in records)
        return cls(len({record.identity for record in records}), len(records) - infrared, infrared)


@dataclass(frozen=True)
class Layout:
    """A way to lay a dataset out on disk, and what the dataset that it is named after holds."""

    title: str
    """Of the dataset: `SYSU-MM01`."""
    read: Callable[[Path, Path | None, int], Benchmark]
    """Called with the root, the folder of masks (or None) and the number of the split, from 1."""
    recognise: Callable[[Path], bool]
    """Whether a folder looks like this layout; never raises."""
    trials: int = 1
    """Splits of the dataset, each a benchmark of its own."""
    counts: Mapping[str, Counts] = field(default_factory=dict)
    """`train`, `val`, `test` -> what the dataset holds, in each of its splits; empty for people's own data."""
    paths: Callable[[], Iterable[str]] | None = None
    """All images of the dataset, where no list file on disk names them."""
