"""What the files of a dataset show, image by image and all together: for `csvi check`."""

import hashlib
import itertools
import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from csvi.config import RANGES, DataConfig, MaskValues
from csvi.data.depth import FEWEST, MOST_CLIPPED, Depth, grey_levels, halved, levels_of, levels_of_halved, measure
from csvi.data.files import masks_folder, why_no_mask
from csvi.data.findings import Finding
from csvi.data.images import BadImage, Levels, header_of, load_image
from csvi.data.masks import UNREADABLE, WRITE, Mask, MaskLook, judge_masks
from csvi.data.records import Benchmark, ImageRecord, Modality
from csvi.errors import CsviError
from csvi.paths import open_file
from csvi.progress import in_threads, progress
from csvi.ray_engine import RayEngine

PIECE = 1024
"""Files that a worker of Ray looks at in one go."""


class Look(NamedTuple):
    """What is known of a file once it was looked at."""

    length: int = 0
    """Bytes."""
    size: tuple[int, int] | None = None
    """Width and height in pixels."""
    deep: bool = False
    halved: bool = False
    """See `Header`."""
    trouble: str = ""
    """Kind of problem, if any."""
    message: str = ""
    mask: MaskLook | None = None
    """Of a mask that was decoded."""


def look_at_all(
    root: Path, records: Iterable[ImageRecord], decode: bool, ray: RayEngine | None = None
) -> dict[Path, Look]:
    """Look at the files of images and of masks, here or on Ray, with a bar of progress; `decode`: at every pixel."""
    files = {root / record.path: False for record in records} | {r.mask: True for r in records if r.mask}
    work, items = "Decoding images" if decode else "Reading headers", list(files.items())
    if ray is None:
        looks = _look_at(items, decode, work)
    else:
        pieces = [items[i : i + PIECE] for i in range(0, len(items), PIECE)]
        shared = [root]
        if masks := [file.parent for file, is_mask in items if is_mask]:
            shared.append(Path(os.path.commonpath(masks)))
        done = progress(ray.map(partial(_looking, decode), pieces, shared), work, len(pieces))
        looks = list(itertools.chain.from_iterable(done))
    return dict(zip(files, looks, strict=True))


def _looking(decode: bool) -> Callable[[Sequence[tuple[Path, bool]]], list[Look]]:
    """What a worker of Ray does."""
    return partial(_look_at, decode=decode)


def _look_at(files: Sequence[tuple[Path, bool]], decode: bool, work: str | None = None) -> list[Look]:
    """Look at files, each an image or a mask; with a bar of progress if the work has a name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata
        return in_threads(lambda file: _look(*file, decode), files, work)


def _look(file: Path, mask: bool, whole: bool) -> Look:
    try:
        seen = Look(file.stat().st_size if file.is_file() else 0, *header_of(file))
        if whole and mask:
            return seen._replace(mask=Mask(file).look())
        if whole:
            load_image(file, Levels(0, 255))  # whatever becomes of its values
        return seen
    except BadImage as error:
        return Look(trouble="missing" if error.missing else "broken", message=error.trouble)


def wrong_masks(
    root: Path, records: Collection[ImageRecord], looks: Mapping[Path, Look], values: MaskValues
) -> tuple[list[Finding], list[Finding]]:
    """Judge the masks of each modality together: what is wrong with them, and which mark nobody."""
    wrong: list[Finding] = []
    empty: list[Finding] = []
    for modality in Modality:
        files = {r.mask: looks[r.mask].mask for r in records if r.mask and r.modality == modality}
        masks = {short_path(root, file): look for file, look in files.items() if look}
        nobody = [name for name, look in masks.items() if values in look.empty]
        if fault := judge_masks(masks, values):
            wrong.append(Finding("mask", f"{modality.word} masks", fault))
        elif nobody and len(nobody) == len(masks):
            wrong.append(Finding("mask", f"{modality.word} masks", f"mark no person: {WRITE}"))
        else:
            empty += [Finding("no person", name, "marks no person") for name in nobody]
            faults = {name: look.faults.get(values, "") for name, look in masks.items()}
            wrong += [Finding("mask", name, UNREADABLE[fault]) for name, fault in faults.items() if fault in UNREADABLE]
    return wrong, empty


def depths_of(
    root: Path,
    records: Collection[ImageRecord],
    training: Collection[ImageRecord],
    looks: Mapping[Path, Look],
    ranges: DataConfig,
) -> tuple[dict[str, Depth], list[Finding], list[Finding]]:
    """Measure a sample of the images of more than 8 bits; what is wrong with them, and what may be intended.

    Training samples all its images, deep or not, so that its range may differ a little.
    """
    depths: dict[str, Depth] = {}
    wrong: list[Finding] = []
    odd: list[Finding] = []
    for modality in Modality:
        option, images = f"--data.{RANGES[modality]}", f"{modality.word} images"
        files, of_training = (
            [root / r.path for r in some if r.modality == modality and looks[root / r.path].size]
            for some in (records, training)
        )
        deep = [file for file in files if looks[file].deep]
        try:
            depth = measure([f for f in of_training if looks[f].deep] or deep, levels_of(ranges, modality))
            left = levels_of_halved([file for file in files if looks[file].halved])
        except CsviError as error:
            wrong.append(Finding("depth", images, f"show nothing: {error}"))
            continue
        if left is not None and left < FEWEST:
            wrong.append(Finding("depth", images, halved(left)))
        if depth is None:
            continue
        depths[modality.word] = depth
        if depth.clipped > MOST_CLIPPED or depth.levels < FEWEST:
            message = f"keep {grey_levels(depth.levels)}, {depth.clipped:.0%} clipped: set {option}"
            wrong.append(Finding("depth", images, message))
        if len(deep) < len(files):
            message = (
                f"has more than 8 bits, as {len(deep):,} of {len(files):,} {images}: the range changes these alone"
            )
            odd.append(Finding("depth", short_path(root, deep[0]), message))
    return depths, wrong, odd


def masks_of_other_size(root: Path, records: Iterable[ImageRecord], looks: Mapping[Path, Look]) -> Iterator[Finding]:
    """Masks of another size than their image."""
    for record in records:
        if record.mask:
            image, mask = looks[root / record.path].size, looks[record.mask].size
            if image and mask and image != mask:
                sizes = f"is of {mask[0]}x{mask[1]} pixels and its image {record.path} of {image[0]}x{image[1]}"
                yield Finding("mask", short_path(root, record.mask), sizes)


def duplicates(
    root: Path, benchmarks: list[Benchmark], records: Mapping[str, ImageRecord], looks: Mapping[Path, Look]
) -> list[Finding]:
    """Images of the same bytes as an earlier one; those of another identity, split or modality come first."""
    by_length: dict[int, list[str]] = defaultdict(list)
    for path in records:
        if looks[root / path].size:
            by_length[looks[root / path].length].append(path)
    alike = [path for paths in by_length.values() if len(paths) > 1 for path in paths]
    digests = in_threads(lambda path: _digest(root / path), alike, "Comparing files")
    places = [
        {record.path: (name, record.identity) for name, split in benchmark.splits.items() for record in split}
        for benchmark in benchmarks
    ]
    firsts: dict[bytes, str] = {}
    grave: list[Finding] = []
    plain: list[Finding] = []
    for path, digest in zip(alike, digests, strict=True):
        first = firsts.setdefault(digest, path) if digest else path
        if first == path:
            continue
        both = [(place[first], place[path]) for place in places if first in place and path in place]
        differences = [
            what
            for what, differ in (
                ("of another identity", any(a[1] != b[1] for a, b in both)),
                ("in another split", any(a[0] != b[0] for a, b in both)),
                ("of the other modality", records[first].modality != records[path].modality),
            )
            if differ
        ]
        message = ", ".join([f"is byte for byte {first}", *differences])
        (grave if differences else plain).append(Finding("duplicate", path, message))
    return grave + plain


def _digest(file: Path) -> bytes:
    try:
        with open_file(file) as opened:
            return hashlib.blake2b(opened.read(), digest_size=16).digest()
    except OSError:
        return b""  # gone since its header was read


def without_mask(root: Path, records: Collection[ImageRecord], masks: Path | None) -> list[Finding]:
    """Images without a mask where others have one; or the folder of masks, if it has none of any image."""
    without = [record for record in records if not record.mask]
    folder = masks_folder(root, masks)
    if len(without) < len(records):
        return [Finding("no mask", r.path, _lacks_mask(root, folder, r.path)) for r in without]
    instead = why_no_mask(root, folder, without[0].path, any_name=True) if without else ""
    return [Finding("no mask", short_path(root, folder), f"holds none of any image: {instead}")] if instead else []


def _lacks_mask(root: Path, folder: Path, path: str) -> str:
    instead = why_no_mask(root, folder, path)
    return f"has none: {instead}" if instead else "has none"


def short_path(root: Path, file: Path) -> str:
    """Write a path as findings have it: relative to the root, if it lies there."""
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file)
