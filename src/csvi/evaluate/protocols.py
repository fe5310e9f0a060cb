"""Evaluation protocols as data: the queries and the gallery of each trial, and the rules that they are scored by.

A layout of a dataset draws its protocols from the records of one split (`csvi.data.layout`); embeddings and images are
known here by their row alone. `docs/protocols.md` states each protocol precisely enough to be written again.
"""

import typing
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

GalleryDraw = Literal["seeded", "official", "all"]
"""A way to draw galleries. seeded: trial t draws with seed t; official: trial t takes row t of the permutations that
the dataset's authors published; all: every image is in the gallery."""

DISTRACTOR = -1
"""Identity of images that show nobody known, or junk: they are in galleries, where they are wrong answers to everybody,
are never asked for and never trained on."""


class LabelledImage(typing.Protocol):
    """An image as far as scoring knows it, such as a `csvi.data.ImageRecord`: numbers of its person and camera."""

    @property
    def identity(self) -> int:
        """Number of its person."""

    @property
    def camera(self) -> int:
        """Number of its camera."""


@dataclass(frozen=True)
class Rules:
    """Rules that a dataset's protocols add to the definition of the metrics."""

    same_place: tuple[tuple[int, int], ...] = ()
    """(query camera, gallery camera): a query of the one sees no gallery image of the other, whoever is in it."""
    same_camera: bool = False
    """Gallery images of the query's identity and camera are removed."""
    unique_identities: bool = False
    """CMC over identities: of each, only the first occurrence in the ranking is kept. mAP and mINP are over images."""

    @property
    def needs_cameras(self) -> bool:
        """Whether the ranking depends on cameras at all."""
        return bool(self.same_place) or self.same_camera

    def removes_match(self, query_camera: int, gallery_camera: int) -> bool:
        """Whether a query does not see images of its own identity from that camera."""
        return (query_camera, gallery_camera) in self.same_place or (
            self.same_camera and query_camera == gallery_camera
        )


NO_RULES = Rules()


@dataclass(frozen=True)
class Trial:
    """Queries and a gallery: indices into the images that the protocol was made from."""

    query: Sequence[int]
    gallery: Sequence[int]


@dataclass(frozen=True)
class Protocol:
    """Queries and galleries, and the rules that their rankings are scored by."""

    name: str
    """`all-search single-shot`"""
    rules: Rules
    gallery: GalleryDraw
    """Metrics of different draws cannot be compared."""
    trials: Sequence[Trial]
    """Metrics are means over them."""


def answerable(protocol: Protocol, images: Sequence[LabelledImage]) -> tuple[int, int]:
    """Count the queries of a trial, and those with something to find in its gallery: the fewest of all trials.

    Args:
        protocol: made from `images`.
        images: of one split; no embedding is needed.
    """
    valid = []
    for trial in protocol.trials:
        cameras: dict[int, set[int]] = {}  # identity → cameras that its gallery images are from
        for i in trial.gallery:
            cameras.setdefault(images[i].identity, set()).add(images[i].camera)
        asked = Counter((images[i].identity, images[i].camera) for i in trial.query)
        valid.append(
            sum(
                queries
                for (identity, camera), queries in asked.items()
                if identity != DISTRACTOR
                and any(not protocol.rules.removes_match(camera, other) for other in cameras.get(identity, ()))
            )
        )
    return min(len(trial.query) for trial in protocol.trials), min(valid)


def camera_pairs(protocol: Protocol, images: Sequence[LabelledImage]) -> dict[tuple[int, int], Protocol]:
    """(query camera, gallery camera) → the same protocol, asked by the one camera and answered by the other alone."""

    def only(indices: Sequence[int], camera: int) -> list[int]:
        return [i for i in indices if images[i].camera == camera]

    def cameras(indices: Iterable[int]) -> list[int]:
        return sorted({images[i].camera for i in indices})

    queries = {id(trial.query): trial.query for trial in protocol.trials}.values()  # most often one for all trials
    asked = {c: {id(q): only(q, c) for q in queries} for c in cameras(i for q in queries for i in q)}
    return {
        (a, b): Protocol(
            f"camera {a} to {b}",
            protocol.rules,
            protocol.gallery,
            [Trial(asked[a][id(trial.query)], only(trial.gallery, b)) for trial in protocol.trials],
        )
        for a in asked
        for b in cameras(i for trial in protocol.trials for i in trial.gallery)
    }
