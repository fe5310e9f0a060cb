"""What a layout asks of the renderer: the images, the lists beside them, and what is to be said about them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from csvi.data.records import Counts, Modality
from csvi.synth.cameras import CAMERAS


@dataclass(frozen=True)
class Shot:
    """One image that a layout wants. Identity, camera and index, with the seed, fix its pixels; the path does not."""

    identity: int
    """From 1. The same number and seed are the same person in every layout."""
    camera: int
    """Of the renderer, a key of `csvi.synth.cameras.CAMERAS`; a layout may call it otherwise."""
    index: int
    """From 1, within the identity and camera."""
    path: str
    """Relative to the root, with the suffix .jpg."""

    @property
    def mask(self) -> str:
        """Where the mask of this image lies, relative to the root."""
        return str(PurePosixPath("masks", self.path).with_suffix(".png"))


@dataclass(frozen=True)
class Structure:
    """Identities of each split, and the number of images for each identity and camera of the renderer."""

    splits: dict[str, list[int]]
    images: dict[tuple[int, int], int]

    @property
    def split_of(self) -> dict[int, str]:
        """The split of each identity."""
        return {identity: split for split, identities in self.splits.items() for identity in identities}

    def shots(self, path: Callable[[int, int, int], str]) -> list[Shot]:
        """Every image, identity by identity; `path` is called with identity, camera and index."""
        return [
            Shot(identity, camera, index, path(identity, camera, index))
            for (identity, camera), count in sorted(self.images.items())
            for index in range(1, count + 1)
        ]

    def counts(self) -> dict[str, Counts]:
        """What each split holds."""
        split_of = self.split_of
        totals = {split: [0, 0] for split in self.splits}
        for (identity, camera), count in self.images.items():
            totals[split_of[identity]][CAMERAS[camera].infrared] += count
        return {split: Counts(len(identities), *totals[split]) for split, identities in self.splits.items()}


@dataclass(frozen=True)
class Plan:
    """Everything that a layout decides about a benchmark, before anything is rendered."""

    title: str
    """What the layout is of, and the benchmark is not: `SYSU-MM01`."""
    about: str
    """Lines for the README: which file is what."""
    views: dict[int, str]
    """Cameras that a contact sheet shows, visible ones first, and what it writes beside them."""
    shots: list[Shot]
    """Identity by identity."""
    lists: dict[str, bytes]
    """Path relative to the root -> content of a file beside the images."""
    counts: dict[str, Counts]
    """`train`, `val`, `test` -> what it holds, in each of the layout's splits."""


def consecutive(**sizes: int) -> dict[str, list[int]]:
    """Splits of so many identities each, numbered from 1 throughout."""
    ends = np.cumsum(list(sizes.values())).tolist()
    return {split: list(range(end - size + 1, end + 1)) for (split, size), end in zip(sizes.items(), ends, strict=True)}


def generator(*key: int) -> np.random.Generator:
    """A random generator of its own for every key."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


def lines(rows: list[str]) -> bytes:
    """The content of a text file."""
    return "".join(f"{row}\n" for row in rows).encode()


def labelled(shots: list[Shot], identities: list[int], modality: Modality) -> bytes:
    """A list file with a line `path label` for each image of these identities; labels count them from 0."""
    label = {identity: number for number, identity in enumerate(identities)}
    wanted = [shot for shot in shots if shot.identity in label and CAMERAS[shot.camera].infrared == modality]
    return lines([f"{shot.path} {label[shot.identity]}" for shot in wanted])
