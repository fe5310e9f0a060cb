"""What every reader returns and everything else works on: image records and the benchmark they belong to."""

from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path


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
    """The dataset's own number of the person, unique within a benchmark (in training and test)."""
    camera: int
    """The dataset's own number of the camera; where a dataset names none, 1 for visible and 2 for infrared."""
    modality: Modality
    mask: Path | None = None
    """Absolute path of the person mask."""


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
    """Whose protocols it is tested under, a key of `csvi.data.READERS`."""
    synthetic: bool = False
    """Rendered, not photographed: results on it are headed as such."""

    def file(self, record: ImageRecord) -> Path:
        """Where the image of `record` is on this machine."""
        return self.root / record.path
