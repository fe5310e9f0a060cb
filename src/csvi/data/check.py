"""Finds what is wrong with a dataset on disk, before training does."""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from csvi.config import DataConfig
from csvi.data.depth import Depth
from csvi.data.files import folder_names, is_image_name, is_synthetic, read_text, walk
from csvi.data.findings import (
    MISPLACED,
    Finding,
    alike,
    distractors,
    not_read,
    one_modality,
    place,
    searches,
    trainable,
)
from csvi.data.layout import LAYOUTS, Layout, advice_on, check_layout, find_layout, read_fold, recognise
from csvi.data.looks import (
    depths_of,
    duplicates,
    look_at_all,
    masks_of_other_size,
    short_path,
    without_mask,
    wrong_masks,
)
from csvi.data.records import Benchmark, Counts, ImageRecord, Modality
from csvi.errors import CsviError
from csvi.paths import expanded
from csvi.ray_engine import RayEngine

COUNTS = "counts.json"
"""A file in a dataset's folder that says what it should hold, if it is not the dataset its layout is named after."""


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
    depths: dict[str, Depth]
    """Modality → the values of its images of more than 8 bits, where there are any."""
    problems: list[Finding]
    """Findings that must be mended."""
    notes: list[Finding]
    """Findings that may be intended."""
    camera_names: dict[int, str] = field(default_factory=dict)
    """Camera → its name, where cameras have names."""


def check_dataset(
    data: DataConfig, layout: str | None = None, decode: bool = False, ray: RayEngine | None = None
) -> Check:
    """Look at every list, every file and every mask of a dataset, with a bar of progress on standard error.

    Args:
        data: root, masks, their values, ranges, and the people of a batch; every fold is looked at.
        layout: name of the layout, see `find_layout`; by default the one that the folder looks like, whatever `data`
            says.
        decode: decode every image and mask, and not only read its header.
        ray: where to look at the files; by default in this process.

    Raises:
        CsviError: there is no such folder, it looks like no layout, or its reader can make nothing of it.
    """
    root, masks = expanded(data.root).absolute(), Path(data.masks) if data.masks else None
    if not root.is_dir():
        raise CsviError(f"{root} is not a folder: give the folder of a dataset")
    name = layout or _recognised(root)
    of_dataset = find_layout(name)
    check_layout(root, name)
    benchmarks, unreadable, absent = _read(root, name, masks)
    splits = list(_splits(benchmarks, _expected(root, of_dataset)))
    records = {r.path: r for benchmark in benchmarks for split in benchmark.splits.values() for r in split}
    images = records.values()
    looks = look_at_all(root, images, decode, ray)
    bad_masks, empty_masks = wrong_masks(root, images, looks, data.mask_values)
    training = benchmarks[0].train or list(images)
    depths, wrong_depths, odd_depths = depths_of(root, images, training, looks, data)
    searched = [finding for benchmark in benchmarks for finding in searches(benchmark)]
    trained = [finding for benchmark in benchmarks for finding in trainable(benchmark, data.identities)]
    beside, unlisted = _beside(root, benchmarks, records)
    problems = [
        *unreadable,
        *_wrong_counts(splits, of_dataset),
        *(Finding(look.trouble, short_path(root, f), look.message) for f, look in looks.items() if look.trouble),
        *_not_there(root, of_dataset, records),
        *masks_of_other_size(root, images, looks),
        *bad_masks,
        *wrong_depths,
        *(finding for finding in trained if finding.kind == "nothing to train"),
        *(finding for finding in searched if finding.kind == "nothing to score"),
        *unlisted,
    ]
    notes = [
        *absent,
        *odd_depths,
        *(finding for benchmark in benchmarks for finding in alike(benchmark)),
        *(finding for finding in trained if finding.kind != "nothing to train"),
        *(finding for finding in searched if finding.kind != "nothing to score"),
        *duplicates(root, benchmarks, records, looks),
        *(finding for benchmark in benchmarks for finding in one_modality(benchmark)),
        *(finding for benchmark in benchmarks for finding in distractors(benchmark)),
        *without_mask(root, images, masks),
        *empty_masks,
        *beside,
    ]
    cameras = Counter((record.modality, record.camera) for record in images)
    return Check(
        layout=name,
        title=benchmarks[0].name,
        root=str(root),
        synthetic=is_synthetic(root),
        decoded=decode,
        splits=splits,
        cameras={m.word: {c: n for (of, c), n in sorted(cameras.items()) if of == m} for m in Modality},
        images=len(records),
        masks=sum(record.mask is not None for record in images),
        depths=depths,
        problems=problems,
        notes=notes,
        camera_names=dict(benchmarks[0].cameras),
    )


def _recognised(root: Path) -> str:
    name = recognise(root)
    if name is None:
        layouts = ", ".join(f"{name} ({find_layout(name).title})" for name in LAYOUTS)
        holds = ", ".join(folder_names(root)[:5]) or "no folders"
        advice = advice_on(root) or f"it holds {holds}; name its layout with --data.layout, {layouts}"
        raise CsviError(f"{root} looks like no dataset that csvi knows: {advice}")
    return name


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
            yield Finding("count", place(layout, split.fold, split.name), f"has {', '.join(wrong)}")


def _not_there(root: Path, layout: Layout, records: Mapping[str, ImageRecord]) -> Iterator[Finding]:
    """Images that the dataset has and this copy lacks, where no list names them."""
    if not is_synthetic(root) and not (root / COUNTS).is_file():
        for path in layout.paths():
            if path not in records and not os.path.lexists(root / path):
                yield Finding("missing", path, f"is in {layout.title} and not here")


def _beside(
    root: Path, benchmarks: Sequence[Benchmark], records: Mapping[str, ImageRecord]
) -> tuple[list[Finding], list[Finding]]:
    """Files in the dataset's folders that no list and no split names or that are not read; folders not to be listed."""
    known = {root / path for path in records} | {record.mask for record in records.values()}
    tops = {path.split("/")[0] if "/" in path else "" for path in records}  # "": images beside the table
    denied: list[OSError] = []
    unread: dict[str, set[str]] = defaultdict(set)
    misplaced = [path for benchmark in benchmarks for path in benchmark.misplaced]
    unnamed: dict[str, None] = {}
    for top in sorted(tops):
        for file in walk(root / top, below=bool(top), denied=denied):
            if is_image_name(file.name) and file not in known:
                unnamed[short_path(root, file)] = None
            elif not is_image_name(file.name) and top:
                unread[file.suffix.lower()].add(short_path(root, file))
    for benchmark in benchmarks:
        for suffix, paths in benchmark.unread.items():
            unread[suffix].update(paths)
    unnamed |= dict.fromkeys(misplaced)  # where no image is read, no top is looked into
    nowhere, in_no_folder = "is in no list and no split", set(misplaced)
    notes = [Finding("unnamed", path, MISPLACED if path in in_no_folder else nowhere) for path in unnamed]
    notes += not_read({suffix: sorted(paths) for suffix, paths in unread.items()})
    return (
        notes,
        [Finding("broken", short_path(root, Path(e.filename)), f"cannot be listed: {e.strerror}") for e in denied],
    )
