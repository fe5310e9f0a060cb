"""Embeddings of many crops: read in threads while the network runs; to a file, in pieces that a kill leaves whole.

FEATS.npz               the embeddings of all images that can be read, once they are all there
FEATS.npz.left-out.csv  path of each image that cannot be read, and why
.FEATS.npz.pieces/      embeddings of 1,024 images a file, until then: a job that was killed resumes behind them
"""

import contextlib
import csv
import dataclasses
import hashlib
import itertools
import json
import shutil
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import csvi
from csvi.data.cache import key_of_files
from csvi.data.crops import Crops
from csvi.data.depth import check_ranges, levels_of
from csvi.data.images import BadImage, TroubleReading, resized
from csvi.data.records import ImageRecord, Modality
from csvi.errors import CsviError
from csvi.lock import locked
from csvi.npz import read_arrays
from csvi.progress import progress
from csvi.ray_engine import RayEngine
from csvi.search.embedder import BATCH, Embedder, open_embedder
from csvi.search.features import Features, check_suffix, in_16_bits, read_features, write_features
from csvi.threads import reading_threads
from csvi.writing import replacing

PIECE = 1024
"""Images whose embeddings are kept at once: what a kill can lose."""
AHEAD = 3
"""Batches that are read before the network is ready for them."""


@dataclass(frozen=True)
class Embedded:
    """Embeddings of some crops, and those of them that cannot be read."""

    records: list[ImageRecord]
    """Those that can, m of them."""
    embedding: np.ndarray
    """(m, D) float32."""
    left_out: dict[str, str]
    """Path of an image → what is the matter with it, to be read behind its name."""


@dataclass(frozen=True)
class Made:
    """The embeddings of all crops of a source, and the speed of those that are new."""

    features: Features
    left_out: dict[str, str]
    """Path of an image that cannot be read → what is the matter with it."""
    new: int
    images_per_second: float


def in_batches(records: Sequence[ImageRecord]) -> list[list[ImageRecord]]:
    """Put crops into batches for `embedded`, each of one modality."""
    of_modality = ([record for record in records if record.modality == modality] for modality in Modality)
    return [some[i : i + BATCH] for some in of_modality for i in range(0, len(some), BATCH)]


def embedded(embedder: Embedder, crops: Crops, batches: Iterable[Sequence[ImageRecord]]) -> Iterator[Embedded]:
    """Embed crops batch by batch, and read the next ones on all cores meanwhile.

    Args:
        embedder: the network.
        crops: where the records come from.
        batches: of crops of one modality, see `in_batches`.

    Raises:
        CsviError: most pixels of images of more than 8 bits lie outside of their range, or an embedding holds NaN or
            infinity.
        TroubleReading: an image could not be read, which need not be its fault.
    """

    def read(record: ImageRecord) -> np.ndarray | str:
        try:
            return resized(crops.load(record), embedder.height, embedder.width)
        except TroubleReading:
            raise
        except BadImage as error:
            return error.trouble

    def waited_for(batch: Sequence[ImageRecord], pixels: Iterable[np.ndarray | str]) -> Embedded:
        found = dict(zip(batch, pixels, strict=True))
        readable = {record: image for record, image in found.items() if isinstance(image, np.ndarray)}
        embedding = np.empty((0, embedder.dim), np.float32)
        if readable:
            embedding = embedder.embed_pixels(np.stack(list(readable.values())), batch[0].modality)
        if not np.isfinite(embedding).all():
            raise CsviError(f"{embedder.name} made embeddings that hold NaN or infinity: the model is damaged")
        left_out = {record.path: why for record, why in found.items() if isinstance(why, str)}
        return Embedded(list(readable), embedding, left_out)

    check_ranges(crops.root, crops.records, crops.data)
    pool = ThreadPoolExecutor(reading_threads())
    try:
        waiting = deque[tuple[Sequence[ImageRecord], Iterator[np.ndarray | str]]]()
        for batch in batches:
            waiting.append((batch, pool.map(read, batch)))
            if len(waiting) > AHEAD:
                yield waited_for(*waiting.popleft())
        while waiting:
            yield waited_for(*waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class _Embedding:
    """What a worker of Ray is told: opens the model there, and embeds batches."""

    model: str
    dimensions: int | None
    digest: str
    crops: Crops
    """Without records, which come with the batches."""

    def __call__(self) -> Callable[[Sequence[Sequence[ImageRecord]]], list[Embedded]]:
        """Give the function of some batches; raises `CsviError` if the model is another than the command has opened."""
        embedder = open_embedder(self.model, self.dimensions)
        if embedder.digest != self.digest:
            raise CsviError(
                f"{self.model} is another model on {socket.gethostname()}: all machines of Ray must have one"
            )
        return lambda batches: list(embedded(embedder, self.crops, batches))


def embedded_on(
    ray: RayEngine | None, embedder: Embedder, crops: Crops, batches: Sequence[Sequence[ImageRecord]]
) -> Iterator[Embedded]:
    """Embed crops batch by batch as `embedded` does, in workers of Ray or, without, in this process."""
    if ray is None:
        yield from embedded(embedder, crops, batches)
        return
    check_ranges(crops.root, crops.records, crops.data)
    work = _Embedding(
        embedder.model, embedder.dimensions, embedder.digest, dataclasses.replace(crops, records=[], guessed={})
    )
    size = PIECE // BATCH
    pieces = [batches[i : i + size] for i in range(0, len(batches), size)]
    yield from itertools.chain.from_iterable(ray.map(work, pieces, [crops.root]))


def embed_to_file(
    embedder: Embedder, crops: Crops, out: Path, half: bool = False, ray: RayEngine | None = None
) -> Made:
    """Write the embeddings of crops to a file, with a bar of progress; what an earlier process has done is kept.

    Args:
        embedder: the network.
        crops: the images.
        out: .npz or .parquet; one that is there already must be of the same model, images and settings.
        half: keep embeddings in 16 bits.
        ray: where to embed; this process writes. By default it embeds, too.

    Raises:
        CsviError: the file is of something else, cannot be written, or another process writes it; no image can be
            read, or one could not be read this time, after which the same call resumes.
    """
    check_suffix(out)
    pieces = [crops.records[i : i + PIECE] for i in range(0, len(crops.records), PIECE)]
    folder = _folder_of(out)
    files = {folder / f"{_key(embedder, crops, piece, half)}.npz": piece for piece in pieces}
    key = hashlib.sha256("".join(file.stem for file in files).encode()).hexdigest()[:24]
    with contextlib.ExitStack() as held:
        there = _already(out, embedder, key, crops.root)
        if there is None:
            held.enter_context(locked(folder, f"cannot write {out}", f"{out} is being written", "name another file"))
            held.callback(_remove_if_empty, folder)
            there = _already(out, embedder, key, crops.root)  # another process may have ended just now
        return _make(embedder, crops, out, half, files, key, there, ray)


def _make(
    embedder: Embedder,
    crops: Crops,
    out: Path,
    half: bool,
    files: Mapping[Path, Sequence[ImageRecord]],
    key: str,
    there: Features | None,
    ray: RayEngine | None,
) -> Made:
    """Write the file, see `embed_to_file`, unless what is there is as it would be."""
    new, seconds = 0, 0.0
    if there is not None:
        embedding, left_out = there.embedding, dict(there.facts["left_out"])
    else:
        start = time.perf_counter()
        new = _embed_missing(embedder, crops, files, half, ray)
        seconds = time.perf_counter() - start
        embedding, left_out = _joined(files, embedder.dim, half)
    if not len(embedding):
        path, why = next(iter(left_out.items()))
        raise CsviError(f"none of the {len(left_out)} images of {crops.root} can be read: {path} {why}")
    facts = {
        "fingerprint": embedder.fingerprint,
        "name": embedder.name,
        "dim": embedder.dim,
        "model": embedder.model,
        "root": str(crops.root),
        **crops.ranges,
        "version": csvi.__version__,
        "key": key,
        "left_out": left_out,
    }
    readable = [record for record in crops.records if record.path not in left_out]
    features = Features.of(embedding, crops, readable, facts)
    if there is None or not features.same_columns(there):  # as a table has been corrected
        write_features(out, features)
    _write_left_out(left_out_file(out), left_out)
    shutil.rmtree(_folder_of(out), ignore_errors=True)
    return Made(features, left_out, new, new / max(seconds, 1e-9))


def _folder_of(out: Path) -> Path:
    """The folder of the pieces of a file."""
    return out.with_name(f".{out.name}.pieces")


def _remove_if_empty(folder: Path) -> None:
    """Remove the folder of pieces, if it holds none."""
    if not any(folder.glob("*.npz")):
        shutil.rmtree(folder, ignore_errors=True)


def left_out_file(out: Path) -> Path:
    """The file that lists the images that have no embedding in this one."""
    return out.with_name(f"{out.name}.left-out.csv")


def _already(out: Path, embedder: Embedder, key: str, root: Path) -> Features | None:
    """Read the file, if it is there; raises `CsviError` if it is of something else."""
    if not out.exists():
        return None
    another = "name another file, or remove it"
    try:
        there = read_features(out)
    except CsviError as error:
        raise CsviError(f"{out} is there already, and no file of csvi embed: {another}") from error
    if there.facts["fingerprint"] != embedder.fingerprint:
        theirs = f"{there.facts['name']} ({there.facts['fingerprint']})"
        raise CsviError(
            f"{out} holds embeddings by {theirs}, not by {embedder.name} ({embedder.fingerprint}): {another}"
        )
    if there.facts.get("key") != key:
        raise CsviError(f"{out} holds embeddings of other images than {root} has now, or in other settings: {another}")
    return there


def _key(embedder: Embedder, crops: Crops, piece: Sequence[ImageRecord], half: bool) -> str:
    """Digest what the embeddings of a piece are computed from."""
    modalities = "".join(str(int(record.modality)) for record in piece)
    levels = [levels_of(crops.data, modality) for modality in Modality]
    size = embedder.height, embedder.width
    files = (crops.root / record.path for record in piece)
    return key_of_files(files, embedder.digest, size, levels, modalities, half)


def _embed_missing(
    embedder: Embedder,
    crops: Crops,
    files: Mapping[Path, Sequence[ImageRecord]],
    half: bool,
    ray: RayEngine | None,
) -> int:
    """Write the files of pieces that are not there yet; returns how many images were embedded."""
    count = 0
    work = [(file, batch) for file, piece in files.items() if not file.exists() for batch in in_batches(piece)]
    found = embedded_on(ray, embedder, crops, [batch for _, batch in work])
    for file, parts in itertools.groupby(
        zip(work, progress(found, "Embedding", len(work)), strict=True), key=lambda part: part[0][0]
    ):
        done = [part for _, part in parts]
        _write_piece(file, files[file], done, half)
        count += sum(len(part.records) for part in done)
    return count


def _write_piece(file: Path, piece: Sequence[ImageRecord], parts: Sequence[Embedded], half: bool) -> None:
    """Write embeddings of a piece, in its order."""
    rows = {record: row for part in parts for record, row in zip(part.records, part.embedding, strict=True)}
    whys = {path: why for part in parts for path, why in part.left_out.items()}
    left_out = {record.path: whys[record.path] for record in piece if record.path in whys}
    embedding = np.array([rows[record] for record in piece if record in rows], np.float32)
    if half:
        embedding = in_16_bits(embedding)
    with replacing(file) as partial, partial.open("wb") as opened:
        np.savez(opened, embedding=embedding, left_out=np.array(json.dumps(left_out)))


def _joined(files: Mapping[Path, Sequence[ImageRecord]], dim: int, half: bool) -> tuple[np.ndarray, dict[str, str]]:
    """Read the files of all pieces: embeddings of the images that can be read, (n, dim), and why others cannot."""
    embedding = np.empty((sum(map(len, files.values())), dim), np.float16 if half else np.float32)
    left_out: dict[str, str] = {}
    rows = 0
    for file in files:
        piece = read_arrays(file, {"embedding": "(n, d)", "left_out": "()"})
        found = piece["embedding"]
        if len(found):
            embedding[rows : rows + len(found)] = found
        rows += len(found)
        left_out |= json.loads(str(piece["left_out"]))
    return embedding[:rows], left_out


def _write_left_out(file: Path, left_out: Mapping[str, str]) -> None:
    """List the images that are left out, or remove the list of those that once were."""
    if not left_out:
        file.unlink(missing_ok=True)
        return
    with replacing(file) as partial, partial.open("w", newline="", errors="surrogateescape") as opened:
        csv.writer(opened, lineterminator="\n").writerows([("path", "reason"), *left_out.items()])
