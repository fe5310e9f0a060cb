"""Masks that others made, converted into a tree like the images': 8-bit PNG, 255 = person, of the size of their image.

They come as files of other names, suffixes and values, or as arrays of public preprocessing (`csvi.masks.stacks`). They
are judged as training judges masks before anything is written. Each is whole at every instant, and what is there is not
written again.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from csvi.config import DataConfig
from csvi.data.crops import Crops, read_crops
from csvi.data.files import is_image_name, other_mask, walk
from csvi.data.images import BadImage, TroubleReading, size_of
from csvi.data.layout import read_benchmark
from csvi.data.masks import Mask, MaskLook, judge_masks
from csvi.data.names import one_form
from csvi.data.records import ImageRecord, Modality
from csvi.errors import CsviError
from csvi.masks.make import check_folder, check_names, claimed, write_mask
from csvi.masks.stacks import Stack, check_order, images_beside, in_order, is_of_masks, mask_stacks
from csvi.paths import expanded, reason
from csvi.progress import in_threads
from csvi.writing import written_at

RARE = 0.05
"""Files of a pattern, in parts of those of another one, below which they are no second set of masks."""


@dataclass(frozen=True)
class Theirs:
    """A mask that somebody made of an image."""

    record: ImageRecord
    name: str
    """Its file, or its place in an array, for people to read."""
    read: Callable[[], Mask]
    changed: float
    """Time when its file was changed."""


@dataclass(frozen=True)
class Found:
    """Masks that are to be converted."""

    masks: list[Theirs]
    spare: list[str]
    """Files that are the mask of no image."""
    notes: list[str]
    """Sentences on how sure it is that masks and images belong together."""
    read: dict[str, str]
    """What the masks of each modality are read from, see `claimed`."""


@dataclass(frozen=True)
class Imported:
    """Which masks are there now."""

    images: list[ImageRecord]
    """All images."""
    converted: list[ImageRecord]
    """Images whose mask is there."""
    new: int
    """Masks that were not there before, or of an older file."""
    resized: int
    """Masks that were of another size than their image."""
    empty: int
    """Masks that mark nobody."""
    spare: list[str]
    """Masks without an image."""
    unreadable: list[str]
    """Sentences on masks, or their images, that cannot be read."""
    notes: list[str]
    """See `Found`."""
    layout: str | None
    """Layout of the images, if any."""


def import_masks(source: Path, out: Path, data: DataConfig, layout: str | None = None, files: str = "*") -> Imported:
    """Convert masks that others made, with bars of progress on standard error.

    Args:
        source: folder of mask files or of arrays, or one array.
        out: folder of masks to write; a new one, or one that was begun from the same source; another array of it may
            add masks of the other modality.
        data: root of the images, the fold of it that arrays are of, and what marks a person in the masks.
        layout: of the images, by default the one that they look like, if any.
        files: pattern of the names of mask files, as `*_mask.png`; others are passed over.

    Raises:
        CsviError: there is no mask of any image, or two of one; the masks are none as `data.mask_values` reads them;
            an array holds other images; or `out` holds something else or cannot be written.
    """
    source, out, values = source.absolute(), out.absolute(), data.mask_values
    if not source.exists():
        raise CsviError(f"{source} is not there: give a folder of masks, or an array of them (.npy)")
    maker = f"the import of {source.parent if source.is_file() else source}, read as {values}"
    check_folder(out, maker, expanded(data.root), {})
    crops = read_crops(data, layout, without=[source, out])
    found = _find(source, out, crops, data, files)
    check_names([theirs.record for theirs in found.masks])
    looks = in_threads(lambda theirs: _look(theirs, crops), found.masks, "Looking at masks")
    readable = {theirs.record: look for theirs, look in zip(found.masks, looks, strict=True) if isinstance(look, _Look)}
    unreadable = [look for look in looks if isinstance(look, str)]
    if not readable:
        raise CsviError(f"no mask can be read, such as this one: {unreadable[0]}")
    for modality in Modality:
        of_modality = {look.name: look.mask for record, look in readable.items() if record.modality == modality}
        if fault := judge_masks(of_modality, values):
            raise CsviError(f"the {modality.word} masks {fault}")

    def convert(theirs: Theirs) -> bool:
        file = out / PurePosixPath(theirs.record.path).with_suffix(".png")
        if (written_at(file) or 0) >= theirs.changed:
            return False
        width, height = readable[theirs.record].size
        write_mask(theirs.read().resized(height, width, values), file)
        return True

    try:
        with claimed(out, maker, crops.root, found.read):
            new = sum(in_threads(convert, [m for m in found.masks if m.record in readable], "Converting masks"))
    except OSError as error:
        raise CsviError(f"cannot write masks into {out}: {reason(error)}") from error
    return Imported(
        images=crops.records,
        converted=list(readable),
        new=new,
        resized=sum(look.resized for look in readable.values()),
        empty=sum(values in look.mask.empty for look in readable.values()),
        spare=found.spare,
        unreadable=unreadable,
        notes=found.notes,
        layout=crops.layout,
    )


class _Look(NamedTuple):
    name: str
    mask: MaskLook
    size: tuple[int, int]
    """Width and height of the image."""
    resized: bool


def _look(theirs: Theirs, crops: Crops) -> _Look | str:
    """Look at a mask and the header of its image; a sentence if one of them cannot be read."""
    try:
        mask, size = theirs.read(), size_of(crops.root / theirs.record.path)
        return _Look(theirs.name, mask.look(), size, mask.image.size != size)
    except TroubleReading:
        raise
    except BadImage as error:
        return str(error)


def _find(source: Path, out: Path, crops: Crops, data: DataConfig, files: str) -> Found:
    """Find the masks: arrays that say that they are of masks, or else files, or else other arrays."""
    images = {crops.root / record.path for record in crops.records}
    there = [file for file in walk(source) if is_image_name(file.name)]
    there = [file for file in there if file not in images and not file.is_relative_to(out)]
    if source.is_file() or any(map(is_of_masks, source.glob("*.npy"))) or not there:
        stacks = mask_stacks(source)
        if stacks:
            return _in_stacks(stacks, crops, data)
    chosen = [file for file in there if fnmatch(file.name, files)]
    masks, spare = _in_tree(chosen, crops.records)
    if not masks:
        example = crops.records[0].path
        instead = other_mask(source, example, any_name=True) or f"found no {files} in its place"
        raise CsviError(f"no mask of any image in {source}, whose tree must be that of the images: {instead}")
    return Found(masks, spare, [], {_source_of(theirs.record.modality): files for theirs in masks})


def _source_of(modality: Modality) -> str:
    return f"{modality.word} masks from"


def _in_stacks(stacks: Mapping[Modality, Path], crops: Crops, data: DataConfig) -> Found:
    """Give each mask of arrays its image; see `csvi.masks.stacks`."""
    if crops.layout is None:
        raise CsviError(f"{crops.root} is no dataset, and arrays name no images: write each mask to a file")
    benchmark = read_benchmark(replace(data, layout=crops.layout))
    masks, notes, read = [], [], {}
    for modality, file in stacks.items():
        stack = Stack(file)
        records = in_order(stack, benchmark, modality)
        beside = images_beside(file, crops.root, modality)
        name = f"the {len(records):,} {modality.word} masks"
        if beside:
            compared = check_order(Stack(beside), records, crops.load)
            notes.append(f"{name} are in the order of {beside}: {compared} of its images were compared with the files")
        else:
            notes.append(
                f"{name} are taken to be in the order of public code, which nothing could be compared with: "
                "look at some, or put the array of images beside them"
            )
        read[_source_of(modality)] = file.name if data.fold == 1 else f"{file.name} (fold {data.fold})"
        changed = file.stat().st_mtime
        masks += [Theirs(r, stack.name(i), partial(stack.mask, i), changed) for i, r in enumerate(records)]
    return Found(masks, [], notes, read)


class _Pattern(NamedTuple):
    """How the files of masks are named after their images: TOP/cam1/0006/BEFORE0001AFTER.png."""

    top: tuple[str, ...]
    before: str
    after: str


def _in_tree(files: Sequence[Path], records: Sequence[ImageRecord]) -> tuple[list[Theirs], list[str]]:
    """Give each file its image: in folders of the same names, below any others, by a name around the image's own.

    Of several images that a file may be named after it is that for which most other files are named alike.

    Returns:
        The masks, and the files that are the mask of no image.

    Raises:
        CsviError: two files are the mask of one image, and neither is a rare exception.
    """
    images: dict[tuple[str, ...], dict[str, ImageRecord]] = defaultdict(dict)
    for record in records:
        path = PurePosixPath(one_form(record.path))
        images[path.parent.parts][path.stem] = record
    named = {file: list(_named_after(file, images)) for file in files}
    votes = Counter(pattern for candidates in named.values() for pattern, _ in candidates)
    found: dict[ImageRecord, list[tuple[int, Path]]] = defaultdict(list)
    for file, candidates in named.items():
        if candidates:
            pattern, record = max(candidates, key=lambda c: (votes[c[0]], len(c[1].path)))
            found[record].append((votes[pattern], file))
    chosen = {}
    for record, several in found.items():
        (most, first), *others = sorted(several, key=lambda counted: -counted[0])
        if others and others[0][0] > RARE * most:
            raise CsviError(
                f"{first} and {others[0][1]} may both be the mask of {record.path}: give the folder that holds the "
                "masks alone, or a pattern of their names, as --files '*_mask.png'"
            )
        chosen[record] = first
    spare = sorted(set(files) - set(chosen.values()))
    masks = [Theirs(r, str(file), partial(Mask, file), file.stat().st_mtime) for r, file in chosen.items()]
    return masks, list(map(str, spare))


def _named_after(
    file: Path, images: Mapping[tuple[str, ...], Mapping[str, ImageRecord]]
) -> Iterator[tuple[_Pattern, ImageRecord]]:
    """Find the images that a file may be named after; signs stand around their names, or nothing."""
    folders, name = tuple(map(one_form, file.parent.parts)), one_form(file.stem)
    cuts = [i for i in range(len(name) + 1) if not name[i - 1 : i + 1].isalnum() or i in (0, len(name))]
    for depth in sorted({len(folder) for folder in images}):
        top = len(folders) - depth
        stems = images.get(folders[top:]) if top > 0 else None
        for start, end in itertools.combinations(cuts if stems else [], 2):
            if stems and (record := stems.get(name[start:end])):
                yield _Pattern(folders[:top], name[:start], name[end:]), record
