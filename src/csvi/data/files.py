"""The parts that readers share: image files, list files, masks beside the images."""

import hashlib
import io
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path, PurePath, PurePosixPath

from csvi.data.records import ImageRecord
from csvi.errors import CsviError
from csvi.paths import expanded, open_file

EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}
LARGEST_NUMBER = 999_999_999
"""Largest number of an identity, a label or a camera."""


def dataset_root(root: str | os.PathLike[str], title: str, holds: str) -> Path:
    """The absolute path of a dataset's folder.

    Raises:
        CsviError: it is no folder; the sentence says what the folder of `title` holds.
    """
    path = expanded(root).absolute()
    if not path.is_dir():
        raise CsviError(f"{path} is not a folder: give the folder of {title}, the one that holds {holds}")
    return path


def image_names(folder: Path) -> list[str]:
    """Names of the images in a folder, sorted, without hidden files (macOS leaves `._0001.jpg` behind).

    Raises:
        CsviError: the folder is there and cannot be listed, or an image has a name that is not UTF-8.
    """
    return _names(folder, lambda entry: is_image_name(entry.name))


def folder_names(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted, without hidden ones; raises as `image_names` does."""
    return _names(folder, lambda entry: not entry.name.startswith(".") and entry.is_dir())


def is_image_name(name: str) -> bool:
    """Whether a file of this name is read as an image."""
    return not name.startswith(".") and PurePath(name).suffix.lower() in EXTENSIONS


def _names(folder: Path, wanted: Callable[[os.DirEntry[str]], bool]) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if wanted(entry))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CsviError(f"cannot list {folder}: {error.strerror}") from error
    for name in names:
        if not _is_utf8(name):
            raise CsviError(f"{folder} holds {os.fsencode(name)!r}, a name that is not UTF-8: rename it")
    return names


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # the system hands such bytes over as lone surrogates
        return False
    return True


def read_text(file: Path, title: str) -> str:
    """Read a list file, with or without a byte order mark.

    Raises:
        CsviError: it is missing, cannot be read or is not UTF-8; `title` is the dataset that comes with it.
    """
    try:
        with open_file(file) as opened:
            return opened.read().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise CsviError(f"no {file}: {title} comes with it, copy it from there") from error
    except OSError as error:
        raise CsviError(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CsviError(f"cannot read {file} as text (byte {error.start} is not UTF-8): save it as UTF-8") from error


def read_ids(file: Path, title: str) -> list[int]:
    """Read the identities of a list file, sorted: non-negative integers between commas, spaces or line ends.

    Raises:
        CsviError: the file is missing, cannot be read, is empty, or holds something other than integers.
    """
    words = [word for word in re.split(r"[,\s]+", read_text(file, title)) if word]
    if not words:
        raise CsviError(f"{file} is empty: it must hold the identities of its split, one line with commas between them")
    for word in words:
        if not re.fullmatch(r"[0-9]{1,9}", word):
            raise CsviError(f"{file} holds {word[:40]!r}: it must be one line of integers with commas between them")
    return sorted({int(word) for word in words})


def read_labels(file: Path, title: str) -> dict[str, int]:
    """Read a list file with a line `path label` for each image: path relative to the root → label, in its order.

    Labels are non-negative integers. Paths may hold spaces and may be written with backslashes.

    Raises:
        CsviError: the file is missing or empty, or a line of it has no label, a label out of range, a path outside the
            root or the path of another line.
    """
    labels: dict[str, int] = {}
    for number, line in enumerate(io.StringIO(read_text(file, title), newline=None), start=1):
        place, words = f"line {number} of {file}", line.rsplit(maxsplit=1)
        if not words:
            continue
        if len(words) < 2:
            raise CsviError(f"{place} is {words[0][:60]!r}: it must be a path, a space and a label")
        path, label = path_inside(words[0].strip(), place), words[1]
        if not re.fullmatch(r"[0-9]{1,9}", label):
            raise CsviError(f"{place} has the label {label[:40]!r}: labels are integers from 0 to {LARGEST_NUMBER}")
        if path in labels:
            raise CsviError(f"{place} names {path} again: every image must be listed once")
        labels[path] = int(label)
    if not labels:
        raise CsviError(f"{file} is empty: it must hold a line with path and label for each image")
    return labels


def path_inside(path: str, place: str) -> str:
    """Write a path as records have it: relative to the root, with slashes, and never leading out of it.

    Raises:
        CsviError: it is absolute, climbs out with `..`, or is no path at all; `place` says where it stands.
    """
    parts = PurePosixPath(path.replace("\\", "/")).parts
    if not parts or parts[0].startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", parts[0]) or "\0" in path:
        raise CsviError(
            f"{place} names {path[:80]!r}: paths must be relative to the dataset's folder and stay inside it"
        )
    return "/".join(parts)


def attach_masks(
    root: Path, splits: Mapping[str, list[ImageRecord]], masks: str | os.PathLike[str] | None
) -> dict[str, list[ImageRecord]]:
    """Give each record its mask.

    The mask of `cam1/0006/0001.jpg` is the file `cam1/0006/0001.*` in the folder of masks, whatever its image format;
    an image without one has `mask=None`. A mask that a record has already is kept, but for one in a folder given here.

    Args:
        root: of the dataset.
        splits: images of each split.
        masks: folder of masks; by default ROOT/masks, where it exists.

    Raises:
        CsviError: `masks` is given, and is no folder or holds no mask of these images.
    """
    folder = root / "masks" if masks is None else expanded(masks).absolute()
    if masks is not None and not folder.is_dir():
        raise CsviError(f"{folder} is not a folder: give a folder of masks that mirrors the images' tree, or none")
    if not folder.is_dir():
        return dict(splits)
    found: dict[str, dict[str, Path]] = {}

    def with_mask(record: ImageRecord) -> ImageRecord:
        if masks is None and record.mask:
            return record
        path = PurePosixPath(record.path)
        parent = str(path.parent)
        if parent not in found:
            found[parent] = {PurePath(name).stem: folder / parent / name for name in image_names(folder / parent)}
        mask = found[parent].get(path.stem)
        return replace(record, mask=mask) if mask else record

    attached = {split: [with_mask(record) for record in records] for split, records in splits.items()}
    every = [record for records in attached.values() for record in records]
    if masks is not None and not any(record.mask and record.mask.is_relative_to(folder) for record in every):
        raise CsviError(f"no mask of any image in {folder}: it must mirror the images' tree, as in {_example(every)}")
    return attached


def is_synthetic(root: Path) -> bool:
    """Whether `csvi synth` rendered the dataset, by the first word of ROOT/README."""
    try:
        with open_file(root / "README") as readme:
            return readme.read(9) == b"SYNTHETIC"
    except OSError:
        return False


def title_of(root: Path, title: str) -> str:
    """Heading of results on this folder: `title`, or the synthetic benchmark's version, preset and seed."""
    if not is_synthetic(root):
        return title
    with open_file(root / "README") as file:
        readme = file.read().decode(errors="replace")
    version = re.search(r"^version +(\d+)$", readme, re.MULTILINE)
    preset, seed = re.search(r'"preset": "(\w+)"', readme), re.search(r'"seed": (\d+)', readme)
    which = f" {version[1]} {preset[1]} seed {seed[1]}" if version and preset and seed else ""
    return f"synthetic benchmark{which} in the layout of {title}"


def fingerprint(root: Path, records: Iterable[ImageRecord]) -> str:
    """Digest of the images, as far as names and lengths of files tell; the same wherever the copy lies.

    Raises:
        CsviError: an image is not there.
    """
    digest = hashlib.sha256()
    for record in sorted(records, key=lambda record: record.path):
        try:
            digest.update(f"{record.path} {(root / record.path).stat().st_size}\n".encode())
        except OSError as error:
            raise CsviError(f"cannot read the image {root / record.path}: {error.strerror}") from error
    return digest.hexdigest()[:16]


def check_disjoint(splits: Mapping[str, Iterable[int | str]], what: str, where: str) -> None:
    """Raises `CsviError` if two splits share an identity or image; `where`: pattern of the places, `{}_id.txt`."""
    before, _, after = where.rpartition("{}")  # no format(): a folder's name may have braces too
    seen: dict[int | str, str] = {}
    for split, members in splits.items():
        for member in members:
            if member in seen:
                raise CsviError(
                    f"{what} {member} is in {before}{seen[member]}{after} and in {before}{split}{after}: "
                    "splits may not share any, take it out of one"
                )
        seen |= dict.fromkeys(members, split)


def _example(records: list[ImageRecord]) -> str:
    return str(PurePosixPath(records[0].path).with_suffix(".png")) if records else "cam1/0001/0001.png"
