"""Finds what is wrong with a dataset on disk, before training does."""

import hashlib
import json
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from csvi.data.files import is_image_name, is_synthetic, read_text
from csvi.data.images import BadImage, load_image, size_of
from csvi.data.layout import LAYOUTS, Layout, find_layout, read_fold, recognise
from csvi.data.records import Benchmark, Counts, ImageRecord, Modality
from csvi.errors import CsviError
from csvi.paths import expanded, open_file
from csvi.progress import in_threads

COUNTS = "counts.json"
"""A file in a dataset's folder that says what it should hold, if it is not the dataset its layout is named after."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found."""

    kind: str
    """Of a problem: fold, count, missing, broken or mask; of a note: no fold, duplicate, one modality, no mask or
    unnamed."""
    path: str
    """A file, relative to the root if it lies there, a fold or a split."""
    message: str
    """Predicate of which the path is the subject: `is empty`."""


@dataclass(frozen=True)
class Split:
    """The images of a split, found and expected."""

    fold: int
    name: str
    """train, val or test."""
    found: dict[str, int]
    """`identities`, `visible` and `infrared` (images) as the lists and folders have them."""
    expected: dict[str, int] | None
    """The same numbers as they should be; None where that is unknown."""


@dataclass(frozen=True)
class Check:
    """A dataset's health; `dataclasses.asdict` of it can be written as JSON."""

    layout: str
    """Name of the layout in the settings."""
    title: str
    root: str
    synthetic: bool
    decoded: bool
    """Whether every image was decoded, and not its header alone read."""
    splits: list[Split]
    cameras: dict[str, dict[int, int]]
    """Modality → camera → images."""
    images: int
    masks: int
    """Images that have one."""
    problems: list[Finding]
    """Findings that must be mended."""
    notes: list[Finding]
    """Findings that may be intended."""


def check_dataset(root: Path, layout: str | None = None, masks: Path | None = None, decode: bool = False) -> Check:
    """Look at every list, every file and every mask of a dataset, with a bar of progress on standard error.

    Args:
        root, masks: see `Layout.read`.
        layout: name of the layout, see `find_layout`; by default the one that the folder looks like.
        decode: decode every image and mask, and not only read its header.

    Raises:
        CsviError: there is no such folder, it looks like no layout, or its reader can make nothing of it.
    """
    root = expanded(root).absolute()
    if not root.is_dir():
        raise CsviError(f"{root} is not a folder: give the folder of a dataset")
    name = layout or recognise(root)
    if name is None:
        layouts = ", ".join(f"{name} ({find_layout(name).title})" for name in LAYOUTS)
        raise CsviError(f"{root} looks like no dataset that csvi knows: name its layout with --data.layout, {layouts}")
    of_dataset = find_layout(name)
    benchmarks, problems, notes = _read(root, name, masks)
    splits = list(_splits(benchmarks, _expected(root, of_dataset)))
    records = {r.path: r for benchmark in benchmarks for split in benchmark.splits.values() for r in split}
    looks = _look_at_all(root, records.values(), decode)

    problems += _wrong_counts(splits, of_dataset)
    problems += [Finding(look.trouble, _short(root, f), look.message) for f, look in looks.items() if look.trouble]
    problems += _not_there(root, of_dataset, records)
    problems += _masks_of_other_size(root, records.values(), looks)
    unnamed, unlisted = _unnamed(root, records)
    problems += unlisted
    notes += _duplicates(root, benchmarks, records, looks)
    notes += _one_modality(benchmarks, of_dataset)
    notes += _without_mask(records.values())
    notes += unnamed
    cameras = Counter((record.modality, record.camera) for record in records.values())
    return Check(
        layout=name,
        title=benchmarks[0].name,
        root=str(root),
        synthetic=is_synthetic(root),
        decoded=decode,
        splits=splits,
        cameras={m.name.lower(): {c: n for (of, c), n in sorted(cameras.items()) if of == m} for m in Modality},
        images=len(records),
        masks=sum(record.mask is not None for record in records.values()),
        problems=problems,
        notes=notes,
    )


def _read(root: Path, name: str, masks: Path | None) -> tuple[list[Benchmark], list[Finding], list[Finding]]:
    """Read every fold: those that can be read, what is wrong with the others, and which are not there at all."""
    layout, benchmarks = find_layout(name), []
    broken: dict[int, CsviError] = {}
    absent: dict[int, CsviError] = {}
    for fold in range(1, layout.folds + 1):
        try:
            benchmarks.append(read_fold(name, root, masks, fold))
        except CsviError as error:
            (broken if layout.has_fold(root, fold) else absent)[fold] = error
    if not benchmarks:
        raise next(iter((broken or absent).values()))
    return (
        benchmarks,
        [Finding("fold", f"fold {fold}", f"cannot be read: {error}") for fold, error in broken.items()],
        [Finding("no fold", f"fold {fold}", "is not there") for fold in absent],
    )


def _expected(root: Path, layout: Layout) -> Mapping[str, Counts]:
    file = root / COUNTS
    if not file.is_file():
        return {} if is_synthetic(root) else layout.counts
    try:
        return {
            split: Counts(**{what: int(number) for what, number in numbers.items()})
            for split, numbers in json.loads(read_text(file, layout.title)).items()
        }
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise CsviError(
            f'{file} must be like {{"train": {{"identities": 9, "visible": 90, "infrared": 90}}}}: {error}'
        ) from error


def _splits(benchmarks: list[Benchmark], expected: Mapping[str, Counts]) -> Iterator[Split]:
    for benchmark in benchmarks:
        for name, records in benchmark.splits.items():
            known = expected[name]._asdict() if name in expected else None
            yield Split(benchmark.fold, name, Counts.of(records)._asdict(), known)


def _wrong_counts(splits: Iterable[Split], layout: Layout) -> Iterator[Finding]:
    for split in splits:
        if split.expected and split.found != split.expected:
            wrong = [
                f"{split.found[what]:,} {what if what == 'identities' else f'{what} images'} and not {number:,}"
                for what, number in split.expected.items()
                if split.found[what] != number
            ]
            yield Finding("count", _place(split.fold, split.name, layout), f"has {', '.join(wrong)}")


class _Look(NamedTuple):
    """What is known of a file once it was looked at."""

    length: int = 0
    """Bytes."""
    size: tuple[int, int] | None = None
    """Width and height in pixels."""
    trouble: str = ""
    """Kind of problem, if any."""
    message: str = ""


def _look_at_all(root: Path, records: Iterable[ImageRecord], decode: bool) -> dict[Path, _Look]:
    files = {root / record.path: False for record in records} | {r.mask: True for r in records if r.mask}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata
        work = "Decoding images" if decode else "Reading headers"
        looks = in_threads(lambda file: _look(*file, decode), list(files.items()), work)
    return dict(zip(files, looks, strict=True))


def _look(file: Path, mask: bool, whole: bool) -> _Look:
    try:
        seen = _Look(file.stat().st_size if file.is_file() else 0, size_of(file))
        if whole:
            pixels = load_image(file, "L" if mask else "RGB")
            brightest = np.asarray(pixels).max() if mask else 255
            if brightest <= 1:
                level = "marks no person" if brightest == 0 else "is nowhere brighter than 1"
                return seen._replace(trouble="mask", message=f"{level}: write the person as 255")
        return seen
    except BadImage as error:
        return _Look(trouble="missing" if error.missing else "broken", message=error.trouble)


def _not_there(root: Path, layout: Layout, records: Mapping[str, ImageRecord]) -> Iterator[Finding]:
    """Images that the dataset has and this copy lacks, where no list names them."""
    if not is_synthetic(root) and not (root / COUNTS).is_file():
        for path in layout.paths():
            if path not in records and not os.path.lexists(root / path):
                yield Finding("missing", path, f"is in {layout.title} and not here")


def _masks_of_other_size(root: Path, records: Iterable[ImageRecord], looks: Mapping[Path, _Look]) -> Iterator[Finding]:
    for record in records:
        if record.mask:
            image, mask = looks[root / record.path].size, looks[record.mask].size
            if image and mask and image != mask:
                sizes = f"is of {mask[0]}x{mask[1]} pixels and its image {record.path} of {image[0]}x{image[1]}"
                yield Finding("mask", _short(root, record.mask), sizes)


def _unnamed(root: Path, records: Mapping[str, ImageRecord]) -> tuple[list[Finding], list[Finding]]:
    """Images in the dataset's folders that no list and no split names, and folders that cannot be listed."""
    known = {root / path for path in records} | {record.mask for record in records.values()}
    tops = {path.split("/")[0] if "/" in path else "" for path in records}  # "": images beside the table
    denied: list[OSError] = []
    unnamed = [
        file
        for top in sorted(tops)
        for file in _image_files(root / top, below=bool(top), denied=denied)
        if file not in known
    ]
    return (
        [Finding("unnamed", _short(root, file), "is in no list and no split") for file in unnamed],
        [Finding("broken", _short(root, Path(e.filename)), f"cannot be listed: {e.strerror}") for e in denied],
    )


def _image_files(top: Path, below: bool, denied: list[OSError]) -> Iterator[Path]:
    """Image files sorted by folder, `below` the folder too; follows links, but into every folder once."""
    seen: set[str] = set()
    for folder, folders, names in os.walk(top, onerror=denied.append, followlinks=True):
        real = os.path.realpath(folder)
        if real not in seen:
            yield from (Path(folder, name) for name in sorted(names) if is_image_name(name))
        folders[:] = sorted(name for name in folders if name[0] != ".") if below and real not in seen else []
        seen.add(real)


def _duplicates(
    root: Path, benchmarks: list[Benchmark], records: Mapping[str, ImageRecord], looks: Mapping[Path, _Look]
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


def _one_modality(benchmarks: list[Benchmark], layout: Layout) -> Iterator[Finding]:
    for benchmark in benchmarks:
        for split in ("train", "val"):  # val is trained on too, by default
            members: dict[int, list[ImageRecord]] = defaultdict(list)
            for record in benchmark.splits[split]:
                members[record.identity].append(record)
            for identity, images in members.items():
                if len({record.modality for record in images}) == 1:
                    modality = images[0].modality.name.lower()
                    message = f"has {modality} images only, such as {images[0].path}: training leaves it out"
                    place = _place(benchmark.fold, split, layout)
                    yield Finding("one modality", f"identity {identity} of {place}", message)


def _without_mask(records: Collection[ImageRecord]) -> list[Finding]:
    without = [Finding("no mask", record.path, "has none") for record in records if not record.mask]
    return without if len(without) < len(records) else []


def _place(fold: int, split: str, layout: Layout) -> str:
    return f"{split} of fold {fold}" if layout.folds > 1 else split


def _short(root: Path, file: Path) -> str:
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file)
