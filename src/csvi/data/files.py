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
    """The absolute path of a dataset's folder; raises `CsviError` if it is none, saying what that of `title` holds."""
    path = expanded(root).absolute()
    if not path.is_dir():
        raise CsviError(f"{path} is not a folder: give the folder of {title}, the one that holds {holds}")
    return path


def image_names(folder: Path) -> list[str]:
    """Names of the images in a folder, if it is there; sorted, without hidden files (such as macOS's `._0001.jpg`).

    Raises:
        CsviError: the folder cannot be listed, or an image has a name that is not UTF-8.
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
        if re.search(r"[\ud800-\udfff]", name):  # the system hands bytes that are no text over as lone surrogates
            raise CsviError(f"{folder} holds {os.fsencode(name)!r}, a name that is not UTF-8: rename it")
    return names


def read_text(file: Path, title: str) -> str:
    """Read a list file of the dataset `title`; raises `CsviError` if it is missing, cannot be read or is not UTF-8."""
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
        CsviError: as `read_text`, or the file is empty or holds something other than integers.
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
        CsviError: as `read_text`, or the file is empty, or a line has no label, a label out of range, a path outside
            the root or the path of another line.
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
    """Write a path as records have it: relative to the root, with slashes; raises `CsviError` if it leads out of it."""
    parts = PurePosixPath(path.replace("\\", "/")).parts
    if not parts or parts[0].startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", parts[0]) or "\0" in path:
        raise CsviError(
            f"{place} names {path[:80]!r}: paths must be relative to the dataset's folder and stay inside it"
        )
    return "/".join(parts)


def attach_masks(
    root: Path, splits: Mapping[str, list[ImageRecord]], masks: str | os.PathLike[str] | None
) -> dict[str, list[ImageRecord]]:
    """Give each record its mask, if there is one: that of `cam1/0006/0001.jpg` is `cam1/0006/0001.*` in their folder.

    Args:
        root: of the dataset.
        splits: images of each split.
        masks: folder whose masks replace those that records have; by default ROOT/masks, for records without one.

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
        example = PurePosixPath(every[0].path).with_suffix(".png") if every else "cam1/0001/0001.png"
        raise CsviError(f"no mask of any image in {folder}: it must mirror the images' tree, as in {example}")
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
    """Digest of the names and lengths of images; raises `CsviError` if one is not there."""
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
