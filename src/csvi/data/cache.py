"""Decoded and resized images on disk, so that no epoch decodes or resizes twice, and no process holds them all."""

import contextlib
import hashlib
import io
import logging
import math
import os
import re
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from csvi.config import DataConfig
from csvi.data.depth import levels_of
from csvi.data.images import TroubleReading, read_image, size_of
from csvi.data.masks import Mask, MaskLook, judge_masks
from csvi.data.records import ImageRecord, Modality
from csvi.errors import CsviError
from csvi.paths import expanded, open_file
from csvi.progress import in_threads
from csvi.writing import placing

log = logging.getLogger(__name__)

DAYS = 30
"""Days after which a cache that nobody opened is removed, when another one is written."""

NAME = re.compile(r"\.?(images|masks)-[0-9a-f]{24}\.npy(\.[0-9a-f]{32}\.partial)?")
"""Names of our files: the folder may hold others."""

UNREAD, EMPTY = 1, 2
"""Marks behind the array: the image could not be read; the mask marks nobody, as no pixel of it is above 127."""


class DamagedCache(CsviError):
    """A cache file that is not what was written."""


class CachedPixels:
    """Images of one size, or masks, in a file; made by `cached_images` and `cached_masks`.

    They are read one at a time and never mapped: mapped pages count as memory of every process that touches them.

    Args:
        file: an .npy file, open from now on; behind its array is a byte for each image, `UNREAD`, `EMPTY` or 0.
        shape: (n, H, W, 3), or (n, H, W) of masks.
        bad: index of an image that could not be read -> why not; its pixels are 0.

    Raises:
        DamagedCache: the file has another length, type or shape.
        OSError: there is no such file, or it cannot be read.
    """

    def __init__(self, file: Path, shape: tuple[int, ...], bad: Mapping[int, str] | None = None):
        self.file, self.shape, self.bad = file, shape, dict(bad or {})
        header = _header(shape)
        self._start = len(header)
        self._opened = open_file(file)
        weakref.finalize(self, self._opened.close)
        length = self._start + math.prod(shape) + len(self)
        if os.fstat(self._descriptor).st_size != length or os.pread(self._descriptor, self._start, 0) != header:
            raise DamagedCache(f"the image cache {file} is not what was written: remove it, and it is written anew")

    @property
    def _descriptor(self) -> int:
        return self._opened.fileno()

    def marked(self, mark: int) -> list[int]:
        """Indices of the images that had this mark, `UNREAD` or `EMPTY`, when the file was written."""
        marks = os.pread(self._descriptor, len(self), self._start + math.prod(self.shape))
        return np.flatnonzero(np.frombuffer(marks, np.uint8) == mark).tolist()

    def __reduce__(self) -> tuple[type["CachedPixels"], tuple[Path, tuple[int, ...], dict[int, str]]]:
        # a loader process opens the file itself instead of receiving its bytes
        return CachedPixels, (self.file, self.shape, self.bad)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int) -> np.ndarray:
        """Pixels of one image, (H, W, 3), or (H, W) of a mask, uint8; an array of the caller's own."""
        pixels = np.empty(self.shape[1:], np.uint8)
        start = self._start + range(len(self))[index] * pixels.nbytes
        read = os.preadv(self._descriptor, [pixels.data], start)  # at no shared position: processes may fork
        if read < pixels.nbytes:
            raise DamagedCache(f"the image cache {self.file} ends too early: remove it, and it is written anew")
        return pixels


def cached_images(root: Path, records: Sequence[ImageRecord], data: DataConfig, skip: bool = False) -> CachedPixels:
    """Open the cache of these images, (n, height, width, 3), or decode and resize them into it first, on all cores.

    A cache is named after its files (path, length and time of change), the size in pixels and what is black and white
    in images of more than 8 bits, so that runs share it until any of them changes. It is written anew when it is
    damaged or an image that could not be read now can be.

    Args:
        root: folder that the records' paths are relative to.
        records: the images.
        data: their size in pixels, ranges (see `levels_of`), and the folder of the caches.
        skip: an image that cannot be read is noted as `bad` in place of an error, unless the machine is to blame.

    Raises:
        CsviError: an image cannot be read, unless skipped, or the cache cannot be opened or written.
    """
    files, size = [root / record.path for record in records], (data.height, data.width)
    levels = {modality: levels_of(data, modality) for modality in Modality}
    name = f"images-{key_of_files(files, *size, *levels.values())}.npy"

    def decode(i: int) -> np.ndarray:
        return read_image(files[i], *size, levels[records[i].modality])

    return _open_or_fill(Path(data.cache), name, (len(files), *size, 3), decode, skip=skip)


def cached_masks(root: Path, records: Sequence[ImageRecord], data: DataConfig, skip: bool = False) -> CachedPixels:
    """Open the cache of the masks of these images, (n, height, width), 255 = person; see `cached_images`.

    Raises:
        CsviError: as `cached_images`; an image has no mask or one of another size, unless skipped; or the masks of a
            modality are no masks as `data.mask_values` reads them, see `judge_masks`.
    """
    images = [root / record.path for record in records]
    masks = [record.mask for record in records]
    # of the images too, whose sizes the masks were compared with; each beside its mask, or None
    size = data.height, data.width
    key = key_of_files((file for both in zip(images, masks, strict=True) for file in both), *size, data.mask_values)
    looks: dict[int, MaskLook] = {}

    def decode(i: int) -> np.ndarray:
        file = masks[i]
        if file is None:
            raise CsviError(f"the image {images[i]} has no mask")
        mask = Mask(file)
        if (of_image := size_of(images[i])) != (of_mask := mask.image.size):
            raise CsviError(
                f"the mask {file} is of {of_mask[0]}x{of_mask[1]} pixels and its image {images[i]} of "
                f"{of_image[0]}x{of_image[1]}: they must be of one size"
            )
        looks[i] = mask.look()
        return mask.resized(*size, data.mask_values)

    def check() -> None:
        for modality in Modality:
            of_modality = {masks[i]: looks[i] for i in sorted(looks) if records[i].modality == modality}
            if fault := judge_masks(of_modality, data.mask_values):
                raise CsviError(f"the {modality.word} masks {fault}")

    return _open_or_fill(Path(data.cache), f"masks-{key}.npy", (len(masks), *size), decode, check, skip)


def _open_or_fill(
    folder: Path,
    name: str,
    shape: tuple[int, ...],
    decode: Callable[[int], np.ndarray],
    check: Callable[[], None] = lambda: None,
    skip: bool = False,
) -> CachedPixels:
    """Open the cache of this name, or fill one with what `decode` returns, unless `check` raises then."""
    target = expanded(folder) / name
    bad: dict[int, str] = {}

    def decoded(i: int) -> np.ndarray | None:
        """Decode an image; None if it cannot be read and may be skipped."""
        try:
            return decode(i)
        except CsviError as error:
            if not skip or isinstance(error, TroubleReading):
                raise
            bad[i] = str(error)
            return None

    try:
        cache = _open(target, shape)
        # none is bad because it once was
        if cache is not None and all(decoded(i) is None for i in cache.marked(UNREAD)):
            cache.bad = bad
            with contextlib.suppress(OSError):  # the file system may be only read
                os.utime(target)
            return cache
        bad.clear()
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_unused(target.parent)
        with placing(target) as partial:  # another process may be faster; it writes the same
            _fill(partial, shape, decoded)
            check()
            cache = CachedPixels(partial, shape, dict(sorted(bad.items())))
        cache.file = target
        return cache
    except OSError as error:
        raise CsviError(
            f"cannot write the image cache in {target.parent} ({error}): choose another with --data.cache"
        ) from error


def _open(file: Path, shape: tuple[int, ...]) -> CachedPixels | None:
    """Open a cache; None if there is none, or it is damaged and has to be written anew."""
    try:
        return CachedPixels(file, shape)
    except FileNotFoundError:
        return None
    except DamagedCache:
        log.warning("the image cache %s is not what was written: it is written anew", file)
        return None


def _header(shape: tuple[int, ...]) -> bytes:
    """The first bytes of an .npy file of uint8."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return header.getvalue()


def _fill(partial: Path, shape: tuple[int, ...], decoded: Callable[[int], np.ndarray | None]) -> None:
    """Write what `decoded` returns into a cache file; behind it `UNREAD` for each None, `EMPTY` for an empty mask."""
    header = _header(shape)
    behind = len(header) + math.prod(shape)
    with partial.open("wb", buffering=0) as file:
        if hasattr(os, "posix_fallocate"):  # a full disk is an error now, and not when most images are decoded
            os.posix_fallocate(file.fileno(), 0, behind + shape[0])
        file.truncate(behind + shape[0])
        file.write(header)

        def fill(i: int) -> None:
            pixels = decoded(i)
            if pixels is None:
                _write(file.fileno(), bytes([UNREAD]), behind + i)
                return
            _write(file.fileno(), np.ascontiguousarray(pixels).data, len(header) + i * pixels.nbytes)
            if pixels.ndim == 2 and pixels.max() <= 127:
                _write(file.fileno(), bytes([EMPTY]), behind + i)

        in_threads(fill, range(shape[0]), "Decoding images")  # Pillow decodes without the interpreter's lock


def _write(descriptor: int, content: bytes | memoryview, start: int) -> None:
    if os.pwrite(descriptor, content, start) < memoryview(content).nbytes:
        raise OSError("an image was written in part")


def _remove_unused(folder: Path) -> None:
    removed = []
    for file in folder.iterdir():
        with contextlib.suppress(OSError):  # gone since, or not ours to remove
            stat = file.stat()
            if NAME.fullmatch(file.name) and time.time() - stat.st_mtime > DAYS * 24 * 3600:
                file.unlink()
                removed.append(stat.st_size)
    if removed:
        freed = sum(removed) / 1e9
        log.info("%s: removed %d caches not used for %d days, %.1f GB", folder, len(removed), DAYS, freed)


def key_of_files(files: Iterable[Path | None], *read_as: object) -> str:
    """Digest files, by path, length and time of change, and how they are read: 24 hexadecimal digits."""
    digest = hashlib.sha256(f"4 {read_as}\n".encode())
    for file in files:
        digest.update(f"{file and str(file.absolute())!r}\n".encode())  # a name may hold a line's end, or be no text
        if file:
            with contextlib.suppress(OSError):  # decoding will say what is the matter
                stat = file.stat()
                digest.update(f"{stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:24]
