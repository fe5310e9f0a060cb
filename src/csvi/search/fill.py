"""Filling a gallery: with crops, which are embedded, or with embeddings from a file.

Images that are there already, with all that is known of them, are skipped; a job that was killed goes on where it was.
"""

import dataclasses
import os
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from csvi.config import RANGES
from csvi.data.crops import Crops
from csvi.data.depth import check_ranges
from csvi.data.records import Modality
from csvi.errors import CsviError
from csvi.progress import progress
from csvi.ray_engine import RayEngine
from csvi.search.embed import embedded_on, in_batches
from csvi.search.embedder import Embedder
from csvi.search.features import Features, metadata
from csvi.search.gallery import (
    COLLECTION,
    KNOWN,
    LONGEST_NAME,
    LONGEST_PATH,
    Entry,
    Facts,
    Gallery,
    Index,
    Metric,
    absolute,
    default_index,
    facts_of,
    make_gallery,
    metric_of,
    path_in,
)

Key = TypeVar("Key")
BATCH = 256
"""Embeddings of a file that are added at once."""
LEARNT = "model", *RANGES
"""Facts that a gallery may learn later than it is made, as when the first images of more than 8 bits are added."""
UNKNOWN = "", "auto"
"""Their values until then."""


@dataclass(frozen=True)
class Choices:
    """Settings of a gallery that may be chosen as it is made; None leaves the choice to csvi, or to what is there."""

    metric: Metric | None = None
    index: Index | None = None
    half: bool = False
    root: Path | None = None


@dataclass(frozen=True)
class Added:
    """What was added to a gallery."""

    new: int
    """Images that were not there."""
    replaced: int
    """Images that were there and were embedded again: something is known of them now that was not, or is another."""
    there: int
    """Images that were there already, and were skipped."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Path of an image that cannot be added → what is the matter with it."""
    seconds: float = 0.0

    @property
    def images_per_second(self) -> float:
        """Images a second, new and replaced."""
        return (self.new + self.replaced) / max(self.seconds, 1e-9)


def gallery_for_crops(
    uri: str | os.PathLike[str], crops: Crops, embedder: Embedder, choices: Choices, collection: str = COLLECTION
) -> Gallery:
    """Open the gallery that crops are to be added to, which is made if it is not there yet; see `make_gallery`.

    Args:
        uri: of the gallery.
        crops: the images.
        embedder: the network.
        choices: settings of the gallery.
        collection: name of the gallery there.

    Raises:
        CsviError: the gallery is of another model, range, metric or root, or cannot be opened or made; or most pixels
            of images of more than 8 bits lie outside of their range; or the images lie outside of the root chosen.
    """
    uri = os.fspath(uri)
    check_ranges(crops.root, crops.records, crops.data)  # before the gallery learns them
    there = facts_of(uri, collection)
    metric = choices.metric or (there.metric if there else metric_of(_embed_trial_images(embedder)))
    facts = _facts(uri, embedder.fingerprint, embedder.name, embedder.dim, metric, crops.root, choices)
    known: dict[str, Any] = {"model": embedder.model, **crops.ranges}
    return _made(uri, dataclasses.replace(facts, **known), choices, collection)


def gallery_for_features(uri: str, features: Features, choices: Choices, collection: str = COLLECTION) -> Gallery:
    """Open the gallery that embeddings are to be added to, which is made if it is not there yet."""
    of = features.facts
    metric = choices.metric or metric_of(features.embedding)
    facts = _facts(uri, of["fingerprint"], of["name"], features.embedding.shape[1], metric, Path(of["root"]), choices)
    known = {name: of[name] for name in LEARNT if name in of}
    return _made(uri, dataclasses.replace(facts, **known), choices, collection)


def add_crops(
    gallery: Gallery, crops: Crops, embedder: Embedder, again: bool = False, ray: RayEngine | None = None
) -> Added:
    """Embed crops and add them, with a bar of progress.

    What is known of an image that is there stays where nothing is known of it now, or names of folders or its colours
    alone say otherwise.

    Args:
        gallery: of the same model.
        crops: the images.
        embedder: the network.
        again: embed those, too, that are there already.
        ray: where to embed; this process adds. By default it embeds, too.

    Raises:
        CsviError: an image lies outside of the gallery's root, or could not be read this time; the same call goes on.
    """
    entries = {r: Entry(path_in(gallery.root, crops.root / r.path), **metadata(crops, r)) for r in crops.records}
    left_out = {r.path: why for r, entry in entries.items() if (why := _unfit(entry))}
    fit = {r: entry for r, entry in entries.items() if r.path not in left_out}
    guessed = {r: crops.guessed.get(r.path, ()) for r in fit}
    wanted, there = _wanted(gallery, fit, again, guessed)
    to_embed = {dataclasses.replace(r, modality=Modality[e.modality.upper()]): e for r, e in wanted.items()}
    batches = in_batches(list(to_embed))
    start, added = time.perf_counter(), list[str]()
    for done in progress(embedded_on(ray, embedder, crops, batches), "Embedding", len(batches)):
        gallery.add(done.embedding, [to_embed[r] for r in done.records])
        added += [to_embed[r].path for r in done.records]
        left_out |= done.left_out
    gallery.settle()
    replaced = len(there.intersection(added))
    return Added(len(added) - replaced, replaced, len(fit) - len(wanted), left_out, time.perf_counter() - start)


def add_features(gallery: Gallery, features: Features, again: bool = False) -> Added:
    """Add embeddings from a file, with a bar of progress; see `add_crops`."""
    root = Path(features.facts["root"])
    columns = [column.tolist() for column in features.columns.values()]
    entries = [Entry(path_in(gallery.root, root / path), *known) for path, *known in zip(*columns, strict=True)]
    left_out = {entry.path: why for entry in entries if (why := _unfit(entry))}
    fit = {row: entry for row, entry in enumerate(entries) if entry.path not in left_out}
    wanted, there = _wanted(gallery, fit, again)
    rows = list(wanted)
    start = time.perf_counter()
    batches = [rows[i : i + BATCH] for i in range(0, len(rows), BATCH)]
    for batch in progress(batches, "Adding"):
        gallery.add(features.embedding[batch], [wanted[row] for row in batch])
    gallery.settle()
    replaced = sum(entry.path in there for entry in wanted.values())
    return Added(len(rows) - replaced, replaced, len(fit) - len(rows), left_out, time.perf_counter() - start)


def _wanted(
    gallery: Gallery, entries: Mapping[Key, Entry], again: bool, guessed: Mapping[Key, Collection[str]] | None = None
) -> tuple[dict[Key, Entry], set[str]]:
    """Choose the images to add: those that are not there, or of which more or something else is known; or all.

    Args:
        gallery: to add to.
        entries: of the images, by any key.
        again: all of them.
        guessed: key → what is a guess, see `Crops.guessed`: it counts only where the gallery knows nothing.

    Returns:
        What is known of them, here or there; and the paths of the images that are there.
    """
    there = gallery.there([entry.path for entry in entries.values()])
    known: dict[Key, Entry] = {}
    for key, entry in entries.items():
        before = there.get(entry.path, entry)
        guesses = guessed[key] if guessed else ()
        kept = [name for name in KNOWN if not getattr(entry, name) or (name in guesses and getattr(before, name))]
        known[key] = dataclasses.replace(entry, **{name: getattr(before, name) for name in kept})
    return {key: entry for key, entry in known.items() if again or there.get(entry.path) != entry}, set(there)


def _unfit(entry: Entry) -> str | None:
    """Say why Milvus cannot keep what is known of an image."""
    try:
        lengths = {name: len(value.encode()) for name, value in dataclasses.asdict(entry).items()}
    except UnicodeEncodeError:
        return "has a name that is not UTF-8"
    too_long = [name for name, length in lengths.items() if length > (LONGEST_PATH if name == "path" else LONGEST_NAME)]
    return f"has a {too_long[0]} that is too long" if too_long else None


def _embed_trial_images(embedder: Embedder) -> np.ndarray:
    """Embed 16 images, to see whether all embeddings of a network are of one length: (16, D).

    They are black, white, one colour, mosaics and noise, in both modalities. Noise alone would not do: to a network it
    all looks alike, and its embeddings are nearly of one length even where those of crops are not.
    """
    height, width = embedder.height, embedder.width
    rng = np.random.default_rng(0)
    tiles = [np.full((1, 1, 3), level, np.uint8) for level in (0, 255)]
    tiles += [rng.integers(256, size=(n, n, 3), dtype=np.uint8) for n in (1, 2, 4, 8, 16, width)]
    rows, columns = np.arange(height)[:, None], np.arange(width)
    images = np.stack([tile[rows * len(tile) // height, columns * len(tile) // width] for tile in tiles])
    grey = images[..., :1].repeat(3, axis=3)
    visible, infrared = (embedder.embed_pixels(*of) for of in ((images, Modality.VISIBLE), (grey, Modality.INFRARED)))
    return np.concatenate([visible, infrared])


def _facts(uri: str, fingerprint: str, name: str, dim: int, metric: Metric, root: Path, choices: Choices) -> Facts:
    """The facts of a new gallery; raises `CsviError` if its images lie outside of its root."""
    within = absolute(choices.root or root)
    if not Path(absolute(root)).is_relative_to(within):
        raise CsviError(
            f"the images are in {root}, outside of --root {within}: name a folder above all images, or none"
        )
    return Facts(
        fingerprint,
        name,
        dim=dim,
        metric=metric,
        index=choices.index or default_index(uri),
        half=choices.half,
        root=within,
    )


def _made(uri: str, facts: Facts, choices: Choices, collection: str) -> Gallery:
    """Open or make a gallery; raises `CsviError` if one is there that cannot be as is chosen now."""
    gallery = make_gallery(uri, facts, collection)
    try:
        own = gallery.facts
        if choices.metric not in (None, own.metric):
            raise CsviError(f"the gallery {gallery.name} has the metric {own.metric}: make another for {facts.metric}")
        if choices.half and not own.half:
            raise CsviError(f"the gallery {gallery.name} keeps embeddings in 32 bits: make another for --half")
        if choices.root and absolute(choices.root) != own.root:
            raise CsviError(f"the gallery {gallery.name} has the root {own.root}: leave --root out, or make another")
        learnt = {name: new for name in LEARNT if (new := getattr(facts, name)) not in UNKNOWN}
        for name in RANGES:
            kept = getattr(own, name)
            if name in learnt and kept not in (*UNKNOWN, learnt[name]):
                raise CsviError(
                    f"the images of the gallery {gallery.name} were read in --data.{name} {kept}, not in "
                    f"{learnt[name]}: read these in it, too, or make another"
                )
        changed = {name: new for name, new in learnt.items() if getattr(own, name) in UNKNOWN}
        if choices.index not in (None, own.index):
            changed["index"] = choices.index
        if changed:
            gallery.change(**changed)
        return gallery
    except BaseException:
        gallery.close()
        raise
