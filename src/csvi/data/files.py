"""The parts that readers share: image files, list files, masks beside the images."""

import codecs
import hashlib
import io
import os
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path, PurePath, PurePosixPath

from csvi.data.names import one_form
from csvi.data.records import ImageRecord
from csvi.errors import CsviError
from csvi.paths import expanded, open_file

EXTENSIONS = {".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".pnm"}
SYSTEM_FILES = {"Thumbs.db", "desktop.ini"}
"""Files that systems leave beside images; hidden ones too."""
SYSTEM_FOLDERS = {
    "@eaDir", "#recycle", "@Recycle", "@Recently-Snapshot", "$RECYCLE.BIN", "System Volume Information", "__MACOSX",
    "lost+found",
}  # fmt: skip
"""Folders of thumbnails, deleted files and archives, which file servers and systems leave; hidden ones too."""
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
"""How a text in UTF-16 begins, as Excel saves "Unicode text"."""
MOST_MASKS = 1000
"""Files that are looked through for a mask with another name than expected."""
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
    """Names of the folders in a folder, sorted, without those of the system; raises as `image_names` does."""
    return _names(folder, lambda entry: not is_of_system(entry.name) and entry.is_dir())


def is_of_system(name: str) -> bool:
    """Whether a file or folder of this name belongs to a system or a file server, and not to the dataset."""
    return name.startswith(".") or name in SYSTEM_FILES or name in SYSTEM_FOLDERS


def is_image_name(name: str) -> bool:
    """Whether a file of this name is read as an image."""
    return not name.startswith(".") and PurePath(name).suffix.lower() in EXTENSIONS


class Folders:
    """Lists the folders of people in a dataset, and keeps what lies there and is not read.

    Attributes:
        unread: suffix -> files beside images that are not read, relative to the root.
        misplaced: images that lie in no person's folder, or in a folder within it, relative to the root.
    """

    def __init__(self, root: Path):
        self.root = root
        self.unread: dict[str, list[str]] = {}
        self.misplaced: list[str] = []

    def people(self, folder: str) -> list[str]:
        """Names of the folders in a folder, see `folder_names`; images that lie directly in it are misplaced."""
        self.misplaced += [f"{folder}/{name}" for name in image_names(self.root / folder)]
        return folder_names(self.root / folder)

    def images(self, folder: str) -> list[str]:
        """Paths of the images in a person's folder, relative to the root; see `image_names`."""
        names = _list(self.root / folder, lambda entry: not is_of_system(entry.name))
        for name in names:
            path = f"{folder}/{name}"
            if is_image_name(name):
                continue
            if (self.root / path).is_dir():
                self.misplaced += self._images_within(path)
            else:
                self.unread.setdefault(PurePath(name).suffix.lower(), []).append(path)
        return [f"{folder}/{name}" for name in _checked(self.root / folder, filter(is_image_name, names))]

    def of_identities(self, folder: str, identities: Iterable[int]) -> Iterator[tuple[int, str]]:
        """Each of these identities and the path of each of its images, in folders of four digits: `0006`.

        Raises:
            CsviError: as `images`, or a folder has another name for one of them, as `6`, and would be passed over.
        """
        names = {f"{identity:04d}": identity for identity in identities}
        for name in folder_names(self.root / folder):
            if name not in names and name.isdecimal() and (right := f"{int(name):04d}") in names:
                raise CsviError(f"{self.root / folder / name} should be named {right}: rename it")
        for name, identity in names.items():
            for path in self.images(f"{folder}/{name}"):
                yield identity, path

    def _images_within(self, folder: str) -> list[str]:
        top = self.root / folder
        if top.is_symlink() and top.resolve().is_relative_to(self.root.resolve()):
            return []  # they are listed where they are
        return [file.relative_to(self.root).as_posix() for file in walk(top) if is_image_name(file.name)]


def walk(top: Path, below: bool = True, denied: list[OSError] | None = None) -> Iterator[Path]:
    """Files in a folder and, if `below`, in those below it, sorted by folder, without those of the system.

    Follows links, but into every folder once. What cannot be listed is added to `denied`.
    """
    seen: set[str] = set()
    for folder, folders, names in os.walk(top, onerror=None if denied is None else denied.append, followlinks=True):
        real = os.path.realpath(folder)
        if real not in seen:
            yield from (Path(folder, name) for name in sorted(names) if not is_of_system(name))
        within = sorted(name for name in folders if not is_of_system(name))
        folders[:] = within if below and real not in seen else []
        seen.add(real)


def _names(folder: Path, wanted: Callable[[os.DirEntry[str]], bool]) -> list[str]:
    return _checked(folder, _list(folder, wanted))


def _list(folder: Path, wanted: Callable[[os.DirEntry[str]], bool]) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if wanted(entry))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CsviError(f"cannot list {folder}: {error.strerror}") from error


def _checked(folder: Path, names: Iterable[str]) -> list[str]:
    names = list(names)
    for name in names:
        if re.search(r"[\ud800-\udfff]", name):  # the system hands bytes that are no text over as lone surrogates
            utf_8 = sys.getfilesystemencoding() == "utf-8"
            why = "is not UTF-8: rename it" if utf_8 else "this locale cannot express: set LC_ALL=C.UTF-8"
            raise CsviError(f"{folder} holds {os.fsencode(name)!r}, a name that {why}")
    return names


def read_text(file: Path, title: str) -> str:
    """Read a list file of the dataset `title`: UTF-8, or UTF-16 with the mark that it begins with.

    Raises `CsviError` if it is missing, cannot be read or is in another encoding.
    """
    try:
        with open_file(file) as opened:
            content = opened.read()
        return content.decode("utf-16" if content.startswith(UTF_16) else "utf-8-sig")
    except FileNotFoundError as error:
        raise CsviError(f"no {file}: {title} comes with it, copy it from there") from error
    except OSError as error:
        raise CsviError(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        encoding = error.encoding.upper()
        raise CsviError(
            f"cannot read {file} as text (byte {error.start} is not {encoding}): save it as UTF-8"
        ) from error


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


def read_labels(root: Path, name: str, title: str) -> dict[str, int]:
    """Read a list file in a dataset with a line `path label` for each image: path relative to the root → label.

    They are in the order of the list. Labels are non-negative integers. Paths may hold spaces and may be written with
    backslashes, and in another Unicode form than on disk.

    Raises:
        CsviError: as `read_text`, or the file is empty, or a line has no label, a label out of range, a path outside
            the root or the path of another line.
    """
    file = root / name
    labels: dict[str, int] = {}
    for number, line in enumerate(io.StringIO(read_text(file, title), newline=None), start=1):
        place, words = f"line {number} of {file}", line.rsplit(maxsplit=1)
        if not words:
            continue
        if len(words) < 2:
            raise CsviError(f"{place} is {words[0][:60]!r}: it must be a path, a space and a label")
        path, label = as_on_disk(root, path_inside(words[0].strip(), place)), words[1]
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


def as_on_disk(root: Path, path: str) -> str:
    """Write a path in the Unicode form that its folders and its file have on disk, if it is there in any.

    A list from a Mac may name `é` as a letter and an accent (NFD) where the disk has one sign (NFC), or the reverse.
    """
    if path.isascii() or os.path.lexists(root / path):
        return path
    found = [""]
    for part in path.split("/"):
        forms = dict.fromkeys([part, one_form(part), unicodedata.normalize("NFD", part)])
        found = [f"{at}{form}/" for at in found for form in forms if os.path.lexists(root / at / form)]
    return found[0][:-1] if found else path


def attach_masks(
    root: Path, splits: Mapping[str, list[ImageRecord]], masks: str | os.PathLike[str] | None
) -> dict[str, list[ImageRecord]]:
    """Give each record its mask, if there is one: that of `cam1/0006/0001.jpg` is `cam1/0006/0001.*` in their folder.

    Two images, or two masks, that differ in their suffix alone tell of no mask whose it is: those images get none.

    Args:
        root: of the dataset.
        splits: images of each split.
        masks: folder whose masks replace those that records have; by default ROOT/masks, for records without one.

    Raises:
        CsviError: `masks` is given, and is no folder or holds no mask of these images.
    """
    folder = masks_folder(root, masks)
    if masks is not None and not folder.is_dir():
        raise CsviError(f"{folder} is not a folder: give a folder of masks that mirrors the images' tree, or none")
    if not folder.is_dir():
        return dict(splits)
    found: dict[str, dict[str, list[Path]]] = {}
    images = Counter(map(without_suffix, {record.path for records in splits.values() for record in records}))

    def with_mask(record: ImageRecord) -> ImageRecord:
        if masks is None and record.mask:
            return record
        path = PurePosixPath(record.path)
        parent = str(path.parent)
        if parent not in found:
            place, found[parent] = folder / as_on_disk(folder, parent), {}
            for name in image_names(place):
                found[parent].setdefault(one_form(PurePath(name).stem), []).append(place / name)
        named = found[parent].get(one_form(path.stem), [])
        return replace(record, mask=named[0]) if len(named) == images[without_suffix(record.path)] == 1 else record

    attached = {split: [with_mask(record) for record in records] for split, records in splits.items()}
    every = [record for records in attached.values() for record in records]
    if masks is not None and not any(record.mask and record.mask.is_relative_to(folder) for record in every):
        example = PurePosixPath(every[0].path).with_suffix(".png") if every else "cam1/0001/0001.png"
        instead = why_no_mask(root, folder, str(example), any_name=True)
        instead = instead or f"it must mirror the images' tree, as in {example}"
        raise CsviError(f"no mask of any image in {folder}: {instead}")
    return attached


def without_suffix(path: str) -> str:
    """Cut the suffix off the path of an image, in one Unicode form: what images share that would have the same mask."""
    return one_form(str(PurePosixPath(path).with_suffix("")))


def masks_folder(root: Path, masks: str | os.PathLike[str] | None) -> Path:
    """Name the folder of person masks: the one that is given, or ROOT/masks."""
    return root / "masks" if masks is None else expanded(masks).absolute()


def why_no_mask(root: Path, folder: Path, path: str, any_name: bool = False) -> str:
    """Say why `attach_masks` gives an image none: two images or two masks have its name; or as `other_mask` does."""
    image = PurePosixPath(path)
    images, masks = (
        [name for name in image_names(top / as_on_disk(top, str(image.parent))) if _is_of(name, image)]
        for top in (root, folder)
    )
    if len(masks) > 1:
        return f"found {image.parent / masks[0]} and {image.parent / masks[1]} where one mask was expected"
    if masks and len(images) > 1:
        return f"found {image.parent / masks[0]} for both {images[0]} and {images[1]}"
    return other_mask(folder, path, any_name)


def other_mask(folder: Path, path: str, any_name: bool = False) -> str:
    """Say what a folder of masks holds in place of that of an image: a file of nearly its name.

    Args:
        folder: of the masks.
        path: of the image, in whose place nothing has the right name.
        any_name: look in the other folders too and, if nothing has nearly that name, name any image.

    Returns:
        `found 0001_mask.png where 0001.png, or another suffix, was expected`; empty if there is no such file.
    """
    expected = PurePosixPath(path).with_suffix(".png")
    name = re.compile(rf"(?<![^\W_]){re.escape(one_form(expected.stem).casefold())}(?![^\W_])")
    place = folder / as_on_disk(folder, str(expected.parent))
    files = [place / name for name in image_names(place)]
    if any(_is_of(file.name, expected) for file in files):
        return ""
    if any_name:
        files += islice((file for file in walk(folder) if is_image_name(file.name)), MOST_MASKS)
    alike = [file for file in files if name.search(one_form(file.name).casefold())] or (files if any_name else [])
    if not alike:
        return ""
    return f"found {alike[0].relative_to(folder).as_posix()} where {expected}, or another suffix, was expected"


def _is_of(name: str, image: PurePosixPath) -> bool:
    """Whether a mask has the name of an image, but for the suffix."""
    return one_form(PurePath(name).stem) == one_form(image.stem)


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
