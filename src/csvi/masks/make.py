"""Masks of all images of a dataset: predicted, judged, written as a tree like the images', and listed.

    MASKS/cam1/0006/0001.png        8-bit soft mask, 255 = person, where `data` looks for that of cam1/0006/0001.jpg
    MASKS/doubtful/cam1/...         masks that are not used; masks.csv says why
    MASKS/masks.csv                 a line an image: path, modality, camera, scores, verdict
    MASKS/masks.json                the segmenter that wrote them, the folder of the images, and how these were read
    MASKS/least-sure.png            the masks of which the segmenter is least sure, to look at

Every mask is whole at every instant, and its line is written after it: a job that was killed resumes where it was.
"""

import contextlib
import csv
import dataclasses
import io
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

import csvi
from csvi.data.crops import Crops
from csvi.data.files import without_suffix
from csvi.data.images import BadImage, TroubleReading
from csvi.data.records import ImageRecord
from csvi.errors import CsviError
from csvi.lock import locked
from csvi.masks.find import find_segmenter
from csvi.masks.quality import GOOD, Prediction, Scores, predict
from csvi.masks.segmenter import Segmenter
from csvi.progress import in_threads, progress
from csvi.ray_engine import RayEngine
from csvi.writing import placing, replacing, written_at

BATCH = 64
DOUBTFUL, LIST, FACTS = "doubtful", "masks.csv", "masks.json"
ANY_NAME: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape"}
"""How the list is written and read: names of files need not be UTF-8."""
UNREADABLE = "unreadable"
"""Verdict on an image that cannot be read."""
COLUMNS = ("path", "modality", "camera", *(field.name for field in dataclasses.fields(Scores)), "verdict")


@dataclass(frozen=True)
class Line:
    """What `masks.csv` says of an image."""

    path: str
    modality: str
    camera: str
    """Its name; empty if none is known."""
    scores: Scores | None
    """None if the image cannot be read."""
    verdict: str

    @property
    def mask(self) -> str | None:
        """Path of its mask in the folder of masks."""
        return None if self.scores is None else _places(self.path)[self.verdict != GOOD]


def _places(path: str) -> tuple[str, str]:
    """Paths in a folder of masks at which the mask of an image lies if it is used, and if it is not."""
    mask = PurePosixPath(path).with_suffix(".png")
    return str(mask), str(DOUBTFUL / mask)


@dataclass(frozen=True)
class Made:
    """All masks of a folder, and the speed of those that are new."""

    lines: list[Line]
    new: int
    images_per_second: float


def make_masks(crops: Crops, out: Path, segmenter: Segmenter, ray: RayEngine | None = None) -> Made:
    """Write the masks of images that have none in this folder yet, or an older one, with a bar of progress.

    Args:
        crops: the images.
        out: folder of masks; an empty one, a new one, or one that the same segmenter has begun of the same images.
        segmenter: who predicts them.
        ray: where to predict and write them; this process writes the list. By default it does all.

    Raises:
        CsviError: the folder holds something else, cannot be written, or another process writes it; or two images
            differ in their suffix alone.
    """
    check_names(crops.records)
    ranges = {name: of_deep for name, of_deep in crops.ranges.items() if of_deep != "auto"}
    try:
        with claimed(out, segmenter.name, crops.root, ranges):
            return _make(crops, out, segmenter, ray)
    except OSError as error:
        raise CsviError(f"cannot write masks into {out}: {error.strerror or error}") from error


def _make(crops: Crops, out: Path, segmenter: Segmenter, ray: RayEngine | None) -> Made:
    done = {line.path: line for line in read_list(out)} if (out / LIST).is_file() else {}
    missing = [r for r in crops.records if r.path not in done or not _is_there(out, done[r.path], r, crops.root)]
    start = time.perf_counter()
    _write_list(out, list(done.values()))  # anew: a kill may have cut the last line off
    with (out / LIST).open("a", newline="", **ANY_NAME) as file:
        table = csv.writer(file, lineterminator="\n")
        batches = [missing[i : i + BATCH] for i in range(0, len(missing), BATCH)]
        for lines in progress(_on(ray, batches, crops, out, segmenter), "Predicting masks", len(batches)):
            for line in lines:
                table.writerow(_cells(line))
                done[line.path] = line
            file.flush()
    seconds = time.perf_counter() - start
    asked = [
        dataclasses.replace(done.pop(record.path), camera=crops.name_of_camera(record.camera))  # as it is known now
        for record in crops.records
    ]
    others = [line for line in done.values() if (crops.root / line.path).is_file()]  # of another table
    _write_list(out, asked + others)
    return Made(read_list(out)[: len(asked)], len(missing), len(missing) / max(seconds, 1e-9))


def read_list(folder: Path) -> list[Line]:
    """Read MASKS/masks.csv; of several lines about an image the last one, and no line that a kill cut off.

    Raises:
        CsviError: it is not as csvi writes it.
    """
    lines: dict[str, Line] = {}
    file = folder / LIST
    try:
        text = file.read_text(**ANY_NAME)
        for row in csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline="")):
            numbers = [row[field.name] for field in dataclasses.fields(Scores)]
            scores = Scores(*map(float, numbers)) if all(numbers) else None
            lines[row["path"]] = Line(row["path"], row["modality"], row["camera"], scores, row["verdict"])
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise CsviError(
            f"{file} is not as csvi wrote it: bring that back, or remove it, and all masks are made again"
        ) from error
    return list(lines.values())


@dataclass(frozen=True)
class _Masking:
    """What a worker of Ray is told: builds the segmenter there, and writes masks."""

    crops: Crops
    """Without records, which come with the batches."""
    out: Path
    segmenter: str

    def __call__(self) -> Callable[[Sequence[ImageRecord]], list[Line]]:
        """Give the function of a batch."""
        segmenter = find_segmenter(self.segmenter)
        return lambda batch: list(_of_batch(batch, self.crops, self.out, segmenter))


def _on(
    ray: RayEngine | None, batches: Sequence[Sequence[ImageRecord]], crops: Crops, out: Path, segmenter: Segmenter
) -> Iterator[Iterable[Line]]:
    """Predict and write the masks of batches, in workers of Ray or, without, in this process; see `_of_batch`."""
    if ray is None:
        return (_of_batch(batch, crops, out, segmenter) for batch in batches)
    work = _Masking(dataclasses.replace(crops, records=[], guessed={}), out.absolute(), segmenter.spec)
    return ray.map(work, batches, [crops.root, out.absolute() / FACTS])


def _of_batch(batch: Sequence[ImageRecord], crops: Crops, out: Path, segmenter: Segmenter) -> Iterator[Line]:
    """Predict and write the masks of some images; yields their lines, each when its mask is there."""

    def loaded(record: ImageRecord) -> np.ndarray | None:
        try:
            return np.asarray(crops.load(record))
        except TroubleReading:  # of the disk, and not of the image
            raise
        except BadImage:
            return None

    images = dict(zip(batch, in_threads(loaded, batch), strict=True))
    readable = {record: image for record, image in images.items() if image is not None}
    predictions: Mapping[ImageRecord, Prediction] = dict(
        zip(readable, predict(segmenter, list(readable.values())), strict=True)
    )
    for record in batch:
        prediction = predictions.get(record)
        scores, verdict = (prediction.scores, prediction.verdict) if prediction else (None, UNREADABLE)
        camera = crops.name_of_camera(record.camera)
        line = Line(record.path, record.modality.word, camera, scores, verdict)
        if prediction and line.mask:
            write_mask((prediction.probability * 255 + 0.5).astype(np.uint8), out / line.mask)
        for place in _places(record.path):
            if place != line.mask:  # an older mask, on which the verdict was another
                (out / place).unlink(missing_ok=True)
        yield line


def write_mask(mask: np.ndarray, file: Path) -> None:
    """Write a mask, (height, width) uint8, as a file that is whole at every instant."""
    with placing(file, sync=False) as partial:
        Image.fromarray(mask).save(partial, "PNG")


def _cells(line: Line) -> list[str]:
    scores = [""] * len(dataclasses.fields(Scores))
    if line.scores:
        scores = [f"{value:.4f}" for value in dataclasses.astuple(line.scores)]
    return [line.path, line.modality, line.camera, *scores, line.verdict]


def _write_list(out: Path, lines: Sequence[Line]) -> None:
    """Write the list anew, in the order of the images and without lines of images that are gone."""
    with replacing(out / LIST) as partial, partial.open("w", newline="", **ANY_NAME) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows(map(_cells, lines))


@contextlib.contextmanager
def claimed(out: Path, maker: str, images: Path, read: Mapping[str, str]) -> Iterator[None]:
    """Mark a folder as one of masks of these images by this maker, and keep other processes out of it.

    Args:
        out: the folder, which is made.
        maker: who makes the masks.
        images: folder of the images.
        read: name → value of what else decides what the masks are.

    Raises:
        CsviError: as `check_folder`, or another process writes there.
    """
    check_folder(out, maker, images, read)
    with locked(out, f"cannot write masks into {out}", f"{out} is being written", "name another folder"):
        read = check_folder(out, maker, images, read) | dict(read)
        facts = {"segmenter": maker, "images": str(images.absolute()), "read": read, "version": csvi.__version__}
        with replacing(out / FACTS) as partial:
            partial.write_text(json.dumps(facts, indent=1) + "\n")
        yield


def check_folder(out: Path, maker: str, images: Path, read: Mapping[str, str]) -> dict[str, str]:
    """Check that a folder is empty, not there yet, or of masks of these images by this maker, see `claimed`.

    Returns:
        What its masks were made of.

    Raises:
        CsviError: it holds something else.
    """
    facts = out / FACTS
    known, root, was_read = None, "", {}
    try:
        there = {file.name for file in out.iterdir()} if out.exists() else set()
        if facts.is_file():
            said = json.loads(facts.read_text())
            # earlier versions do not say the last two
            known, root, was_read = said["segmenter"], said.get("images", ""), dict(said.get("read", {}))
    except OSError as error:
        raise CsviError(f"cannot write masks into {out}: {error.strerror or error}") from error
    except (ValueError, TypeError, KeyError):  # a file of somebody else
        pass
    if known not in (None, maker):
        raise CsviError(f"{out} holds masks by {known}, not by {maker}: name another folder, or remove it")
    if root and Path(root).resolve() != images.resolve():
        raise CsviError(
            f"{out} holds masks of the images in {root}, not in {images.absolute()}: name another folder; if the "
            f'images were moved, write where they are as "images" into {facts}'
        )
    for name, value in read.items():
        if was_read.get(name, value) != value:
            raise CsviError(
                f"{out} was written with {name} {was_read[name]}, not {value}: take the same, or name another folder"
            )
    if known is None and not all(name.startswith(".") for name in there):  # as a kill may leave, and the lock
        raise CsviError(f"{out} holds something else than masks of csvi masks: name an empty or a new folder")
    return was_read


def _is_there(out: Path, line: Line, record: ImageRecord, images: Path) -> bool:
    """Whether an image has its mask, and was not replaced since or taken for one of the other modality."""
    made = None if line.mask is None else written_at(out / line.mask)
    newest = made is not None and (written_at(images / line.path) or 0) <= made
    return newest and line.modality == record.modality.word


def check_names(records: Sequence[ImageRecord]) -> None:
    """Raises `CsviError` if two images differ in their suffix alone, so that their masks would be one file."""
    first: dict[str, str] = {}
    for record in records:
        stem = without_suffix(record.path)
        if first.setdefault(stem, record.path) != record.path:
            raise CsviError(f"{first[stem]} and {record.path} would have the same mask: rename one of them")
