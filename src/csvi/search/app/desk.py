"""What the page can be asked, without the page: searches, what is said of the answers, heatmaps, lists, counts."""

import csv
import io
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from csvi.data.crops import detected_modality
from csvi.data.depth import levels_of
from csvi.data.images import BadImage, load_image, resized
from csvi.data.records import Modality
from csvi.errors import CsviError
from csvi.progress import in_threads, progress
from csvi.search.app.pictures import as_source, heatmaps_of, read_crop, small
from csvi.search.embedder import Embedder
from csvi.search.feedback import rocchio
from csvi.search.gallery import Gallery, Hit
from csvi.search.query import Where, average, search

MOST_PROBES, MOST_ANSWERS = 32, 100
MOST_COUNTED = 1_000_000
"""Images that statistics are of, at most: counting them means reading what is known of each."""
COLUMNS = ("rank", "path", "modality", "camera", "time", "track", "similarity", "verdict")
"""Columns of a list of answers."""


@dataclass(frozen=True)
class Probe:
    """An image that is asked with."""

    picture: Image.Image
    """To be shown."""
    pixels: np.ndarray
    """(H, W, 3) uint8, as the network takes it."""
    modality: Modality


@dataclass(frozen=True)
class Verdict:
    """What was said of an answer."""

    hit: Hit
    right: bool

    @property
    def word(self) -> str:
        """Say it in a word."""
        return "right" if self.right else "wrong"


@dataclass
class Session:
    """What a visitor has asked, and said of the answers."""

    asked: tuple[Sequence[str], str] = ((), "")
    """Files of the probes, and the modality that was given for them."""
    probes: list[Probe] = field(default_factory=list)
    embeddings: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.float32))
    """Of the probes, (n, dim)."""
    answers: list[Hit] = field(default_factory=list)
    """Best first."""
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    """Path of an image → what was said of it."""
    seconds: float = 0.0
    """Time that the last search took."""

    def answer(self, rank: object) -> Hit:
        """The answer of a rank, from 1; raises `CsviError` if there is none, as ranks come from a browser."""
        if not (isinstance(rank, int) and 0 < rank <= len(self.answers)):
            raise CsviError("there is no such answer any more: search again")
        return self.answers[rank - 1]

    def judge(self, rank: object, right: bool | None) -> None:
        """Note that an answer is right or wrong, or neither any more."""
        hit = self.answer(rank)
        self.verdicts.pop(hit.path, None)
        if right is not None:
            self.verdicts[hit.path] = Verdict(hit, right)

    def judged(self, right: bool) -> list[str]:
        """Paths of the images that are right, or wrong."""
        return [path for path, verdict in self.verdicts.items() if verdict.right == right]

    def as_csv(self) -> str:
        """List the answers, and behind them the images that were judged and are no answers any more, without a rank."""
        written = io.StringIO()
        table = csv.writer(written, lineterminator="\n")
        table.writerow(COLUMNS)
        ranked = [(str(rank), hit) for rank, hit in enumerate(self.answers, 1)]
        there = {hit.path for hit in self.answers}
        ranked += [("", verdict.hit) for path, verdict in self.verdicts.items() if path not in there]
        for rank, hit in ranked:
            verdict = self.verdicts[hit.path].word if hit.path in self.verdicts else ""
            known = hit.path, hit.modality, hit.camera, hit.time, hit.track
            table.writerow([rank, *known, f"{hit.similarity:.4f}", verdict])
        return written.getvalue()


@dataclass(frozen=True)
class Card:
    """A picture on the page."""

    source: str
    """Of the `img`; empty if the image cannot be shown."""
    trouble: str = ""
    """Why it cannot be."""


@dataclass(frozen=True)
class Statistics:
    """Counts of the images of a gallery."""

    images: int
    counted: int
    """Those that the counts below are of."""
    modalities: Counter[tuple[str, str]]
    """(camera, modality) → images."""
    hours: Counter[int]
    """Hour of the day, as the clock of the camera showed it → images, of those whose time is known."""
    days: Counter[str]
    """Day, as 2024-05-01 → images."""

    @property
    def cameras(self) -> list[str]:
        """Names of the cameras, numbers first; without the empty one of images whose camera is not known."""
        names = {camera for camera, _ in self.modalities if camera}
        return sorted(names, key=lambda name: (not name.isdecimal(), len(name) if name.isdecimal() else 0, name))


class Desk:
    """A gallery that is open, and the model that embeds probes; raises `CsviError` if it is of another model."""

    def __init__(self, gallery: Gallery, embedder: Embedder):
        gallery.check_model(embedder.fingerprint, embedder.name, embedder.dim)
        self.gallery, self.embedder, self.root = gallery, embedder, gallery.root
        self.data = gallery.facts.read_as(embedder.data)
        """Ranges of images of more than 8 bits."""

    def search(
        self, session: Session, files: Sequence[str], spectrum: str, where: Where, top: int, by_track: bool
    ) -> None:
        """Find the person of the probes; what was said of earlier answers for the same probes refines the query.

        Args:
            session: takes the answers.
            files: of the probes.
            spectrum: modality of the probes, `visible`, `infrared` or `detect`.
            where: conditions that answers meet.
            top: how many answers.
            by_track: of each track give the best image alone.

        Raises:
            CsviError: there is no probe, or one that is no image, or too many; the gallery is empty; or nothing meets
                the conditions.
        """
        session.answers = []
        if not 0 < top <= MOST_ANSWERS:
            raise CsviError(f"ask for 1 to {MOST_ANSWERS} answers")
        if not len(self.gallery):
            raise CsviError(f"the gallery {self.gallery.name} is empty: add images with csvi index add")
        start = time.perf_counter()
        if session.asked != (tuple(files), spectrum):
            self._take(session, files, spectrum)
        right, wrong = (self.gallery.embeddings(session.judged(each)) for each in (True, False))
        query = rocchio(average(session.embeddings), right, wrong)
        session.answers = search(self.gallery, query[None], top, where, by_track)
        session.seconds = time.perf_counter() - start
        if not session.answers:
            raise CsviError("no image meets these conditions: choose other cameras, times or another modality")

    def _take(self, session: Session, files: Sequence[str], spectrum: str) -> None:
        """Read and embed probes; verdicts on answers for other probes are forgotten."""
        if not files:
            raise CsviError("there is no probe: drop an image of the person to look for")
        if len(files) > MOST_PROBES:
            raise CsviError(f"there are {len(files)} probes: give at most {MOST_PROBES}, all of one person")
        probes = in_threads(lambda file: self._read(Path(file), spectrum), files)
        session.embeddings = self.embedder.embed([p.pixels for p in probes], [p.modality for p in probes])
        if session.asked[0] != tuple(files):
            session.verdicts = {}
        session.asked, session.probes = (tuple(files), spectrum), probes

    def _read(self, file: Path, spectrum: str) -> Probe:
        likely = Modality.VISIBLE if spectrum == "visible" else Modality.INFRARED  # images of one deep channel are
        try:
            image = load_image(file, levels_of(self.data, likely))
        except BadImage as error:
            raise CsviError(f"the probe {file.name} {error.trouble}: drop another image") from error
        modality = detected_modality(image) if spectrum == "detect" else likely
        return Probe(small(image), self._pixels(image), modality)

    def _pixels(self, image: Image.Image) -> np.ndarray:
        return resized(image, self.embedder.height, self.embedder.width)

    def cards(self, hits: Sequence[Hit]) -> list[Card]:
        """Make the pictures of answers."""

        def card(hit: Hit) -> Card:
            try:
                return Card(as_source(small(self.crop(hit))))
            except BadImage as error:
                return Card("", f"the image {hit.path} {error.trouble}")
            except CsviError as error:
                return Card("", str(error))

        return in_threads(card, hits)

    def crop(self, hit: Hit) -> Image.Image:
        """Read the image of an answer; raises as `read_crop`."""
        return read_crop(self.root, hit.path, hit.modality, self.data)

    def look(self, session: Session, rank: object) -> list[Card]:
        """Make the pictures of an answer and of the probes, each followed by its heatmap.

        Raises:
            CsviError: there is no such answer, its image cannot be read, or the network shows no heatmaps.
        """
        hit = session.answer(rank)
        image = self.crop(hit)
        shown = [Probe(small(image), self._pixels(image), Modality[hit.modality.upper()]), *session.probes]
        heat = heatmaps_of(self.embedder, np.stack([p.pixels for p in shown]), [p.modality for p in shown])
        pairs = [
            (probe.picture, Image.fromarray(laid).resize(probe.picture.size))
            for probe, laid in zip(shown, heat, strict=True)
        ]
        return [Card(as_source(picture)) for pair in pairs for picture in pair]

    def statistics(self) -> Statistics:
        """Count the images by camera, modality, hour and day."""
        modalities, hours, days = Counter[tuple[str, str]](), Counter[int](), Counter[str]()
        images = len(self.gallery)
        entries = islice(self.gallery.entries(), MOST_COUNTED)
        for entry in progress(entries, "Counting images", min(images, MOST_COUNTED)):
            modalities[entry.camera, entry.modality] += 1
            if entry.time:
                moment = datetime.fromisoformat(entry.time)
                hours[moment.hour] += 1
                days[moment.date().isoformat()] += 1
        return Statistics(images, modalities.total(), modalities, hours, days)
