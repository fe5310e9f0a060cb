"""Searching a gallery: conditions on the images, several probes as one, and the ranking."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

from csvi.errors import CsviError
from csvi.search.gallery import NO_TIME, Gallery, Hit, seconds_of
from csvi.search.milvus import quoted

MOST = 16_384
"""Images that Milvus ranks at once, at most."""


@dataclass(frozen=True)
class Where:
    """Conditions that images must meet, all of them."""

    cameras: Sequence[str] = ()
    """Names; all cameras if empty."""
    modality: str | None = None
    """`visible` or `infrared`."""
    since: int | None = None
    """Seconds since 1970, UTC: not before. Images without a time meet neither this nor `until`."""
    until: int | None = None
    """The same: not after."""
    tracks: Sequence[str] = ()
    """Names; all tracks if empty."""

    @property
    def condition(self) -> str:
        """In the filter language of Milvus; empty if there is none."""
        parts = []
        for name, values in (("camera", self.cameras), ("track", self.tracks)):
            if values:
                parts.append(f"{name} in [{', '.join(map(quoted, values))}]")
        if self.modality is not None:
            parts.append(f"modality == {quoted(self.modality)}")
        if self.since is not None or self.until is not None:
            parts.append(f"seconds >= {NO_TIME + 1 if self.since is None else self.since}")
        if self.until is not None:
            parts.append(f"seconds <= {self.until}")
        return " and ".join(parts)


def moment(text: str, end: bool = False) -> int:
    """Read a date or a time in ISO 8601: seconds since 1970, UTC, which it is taken for if it names no zone.

    Args:
        text: as given.
        end: of a date, take the last second and not the first.

    Raises:
        CsviError: it is neither.
    """
    seconds = NO_TIME
    with contextlib.suppress(ValueError):
        seconds = seconds_of(f"{text}T23:59:59" if end and _is_day(text) else text)
    if seconds == NO_TIME:
        raise CsviError(f"{text!r} is no time: write it as 2024-05-01 or 2024-05-01T12:00:00")
    return seconds


def _is_day(text: str) -> bool:
    try:
        return bool(date.fromisoformat(text))
    except ValueError:  # it has a time of day
        return False


def average(vectors: np.ndarray) -> np.ndarray:
    """Average the embeddings of one person, (n, dim), and scale the mean to their mean length: (dim,).

    What a method normalises part by part is normalised as a whole: a gallery does not know the parts.
    """
    mean = vectors.mean(0)
    length = np.linalg.norm(mean)
    return mean * (np.linalg.norm(vectors, axis=1).mean() / length) if length else mean


def search(
    gallery: Gallery, vectors: np.ndarray, top: int, where: Where | None = None, by_track: bool = False
) -> list[Hit]:
    """Find the images most alike, best first; equally alike ones by path.

    Args:
        gallery: an open one.
        vectors: (n, dim), embeddings of one person by the gallery's model; their average is looked for.
        top: how many images.
        where: conditions that they meet.
        by_track: of each track give the best image alone; an image without a track is one.

    Returns:
        At most so many; fewer if no more meet the conditions, or if the 16,384 most alike are of fewer tracks.

    Raises:
        CsviError: Milvus cannot read the gallery, or the embeddings are not of its length or hold NaN or infinity.
            Whether they are by its model `Gallery.check_model` says.
    """
    best: dict[tuple[str, str], Hit] = {}
    ranked = _ranked(gallery, average(vectors), (4 if by_track else 1) * top + 1, where.condition if where else "")
    for hit in ranked:
        best.setdefault(("track", hit.track) if by_track and hit.track else ("path", hit.path), hit)
        if len(best) == top:
            break
    return list(best.values())


def _ranked(gallery: Gallery, vector: np.ndarray, first: int, condition: str) -> Iterator[Hit]:
    """Yield images, best first and equally alike ones by path; more and more are asked for as they are needed."""
    limit, given = min(first, MOST), set[str]()
    while True:
        hits = sorted(gallery.nearest(vector, limit, condition), key=lambda hit: (hit.distance, hit.path))
        last = len(hits) < limit or limit == MOST
        for hit in hits:
            if hit.path not in given and (last or hit.distance < hits[-1].distance):  # those behind it may tie with it
                given.add(hit.path)
                yield hit
        if last:
            return
        limit = min(4 * limit, MOST)
