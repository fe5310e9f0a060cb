"""Decoded and resized images on disk, so that no epoch decodes or resizes twice, and no process holds them all."""

import contextlib
import hashlib
import json
import logging
import os
import re
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import numpy as np

from csvi.data.images import read_image, size_of
from csvi.data.records import ImageRecord
from csvi.errors import CsviError
from csvi.paths import expanded
from csvi.progress import progress
from csvi.writing import put_in_place

log = logging.getLogger(__name__)

DAYS = 30
"""A cache that nobody opened for so long goes when the next one is written."""

NAME = re.compile(r"(images|masks)-[0-9a-f]{24}(\.bad\.json|\.npy)(\.[0-9a-f]{32}\.part)?")
"""Of our files, alone: the folder may hold others."""


class CachedPixels:
    """Images of one size, or masks, in a file; built with `cached_images` and `cached_masks`.

    They are read one at a time and never mapped: mapped pages count as memory of every process that touches them.

    Attributes:
        file: .npy; what has opened it may go on reading after it is removed.
        shape: (n, H, W, 3), or (n, H, W) of masks.
        bad: number of an image that could not be read -> why not; its pixels are 0.

    Raises:
        CsviError: the file is not what was written.
    """

    def __init__(self, file: Path):
        try:
            array = np.load(file, mmap_mode="r")
        except (ValueError, EOFError) as error:
            raise CsviError(
                f"the image cache {file} is damaged ({error}): remove it, and it is written anew"
            ) from error
        self.file, self.shape, self._start = file, array.shape, array.offset
        self.bad = _read_bad(file)
        self._descriptor = os.open(file, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)

    def __reduce__(self) -> tuple[type["CachedPixels"], tuple[Path]]:
        return CachedPixels, (self.file,)  # a loader process opens the file itself instead of receiving its bytes

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int) -> np.ndarray:
        """(H, W, 3), or (H, W) of a mask, uint8; an array of its own.

        Raises:
            IndexError: there are not so many.
            CsviError: the file was cut since it was opened.
        """
        pixels = np.empty(self.shape[1:], np.uint8)
        start = self._start + range(len(self))[index] * pixels.nbytes
        if (
            os.preadv(self._descriptor, [pixels.data], start) < pixels.nbytes
        ):  # at no shared position: processes may fork
            raise CsviError(f"the image cache {self.file} ends too early: remove it, and it is written anew")
        return pixels


def cached_images(
    root: Path, records: Sequence[ImageRecord], height: int, width: int, folder: Path, skip: bool = False
) -> CachedPixels:
    """Open the cache of these images, or decode and resize them into it first, on all cores.

    The cache is named after the files (path, length and time of change) and the size asked for, so that it is
    written anew when any of them changes, and shared by all runs for which none has.

    Args:
        root: of the records' paths.
        records: the images.
        height, width: size in pixels.
        folder: where caches lie.
        skip: an image that cannot be read is noted as `bad` in place of an error.

    Returns:
        (n, height, width, 3), in the order of the records.

    Raises:
        CsviError: an image cannot be read, unless skipped, or the cache cannot be written.
    """
    files = [root / record.path for record in records]
    key = _key(files, height, width)

    def decode(i: int) -> np.ndarray:
        return read_image(files[i], height, width, "RGB")

    return _open_or_fill(folder, f"images-{key}.npy", (len(files), height, width, 3), decode, skip=skip)


def cached_masks(
    root: Path, records: Sequence[ImageRecord], height: int, width: int, folder: Path, skip: bool = False
) -> CachedPixels:
    """The same for the masks of these images: (n, height, width), 255 = person.

    Raises:
        CsviError: an image has no mask, or a mask has not the size of its image or cannot be read, unless skipped; no
            mask is brighter than 1; or the cache cannot be written.
    """
    images = [root / record.path for record in records]
    masks = [record.mask for record in records]
    key = _key(
        [*filter(None, masks), *images], height, width
    )  # of the images too, whose sizes the masks were compared with
    brightest = []

    def decode(i: int) -> np.ndarray:
        file = masks[i]
        if file is None:
            raise CsviError(f"the image {images[i]} has no mask")
        mask = read_image(file, height, width, "L")
        _check_same_size(images[i], file)
        brightest.append(mask.max())
        return mask

    def check() -> None:
        if max(brightest, default=255) <= 1:
            raise CsviError(
                f"no mask is brighter than 1 (such as {next(filter(None, masks))}): write the person as 255"
            )

    return _open_or_fill(folder, f"masks-{key}.npy", (len(masks), height, width), decode, check, skip)


def _open_or_fill(
    folder: Path,
    name: str,
    shape: tuple[int, ...],
    decode: Callable[[int], np.ndarray],
    check: Callable[[], None] = lambda: None,
    skip: bool = False,
) -> CachedPixels:
    """The cache of this name; if there is none, one of what `decode` gives, provided that `check` does not raise."""
    target = expanded(folder) / name
    try:
        with contextlib.suppress(FileNotFoundError):
            return _open(target, skip)
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_unused(target.parent)
        partial = target.with_name(f"{name}.{uuid4().hex}.part")
        try:
            bad = _fill(partial, shape, decode, skip)
            check()
            _write_bad(target, bad)  # before the pixels, which are never opened without it
            put_in_place(partial, target)  # another process may have been faster; it wrote the same
        finally:
            partial.unlink(missing_ok=True)
        return _open(target, skip)
    except OSError as error:
        raise CsviError(
            f"cannot write the image cache in {target.parent} ({error}): choose another with --data.cache"
        ) from error


def _open(file: Path, skip: bool) -> CachedPixels:
    cache = CachedPixels(file)
    if cache.bad and not skip:
        raise CsviError(next(iter(cache.bad.values())))
    for used in (file, _bad_file(file)):
        with contextlib.suppress(OSError):  # there need not be one, and the file system may be only read
            os.utime(used)
    return cache


def _bad_file(file: Path) -> Path:
    return file.with_suffix(".bad.json")


def _read_bad(file: Path) -> dict[int, str]:
    with contextlib.suppress(FileNotFoundError):
        return {int(number): why for number, why in json.loads(_bad_file(file).read_text()).items()}
    return {}


def _write_bad(file: Path, bad: dict[int, str]) -> None:
    if bad:
        partial = file.with_name(f"{_bad_file(file).name}.{uuid4().hex}.part")
        partial.write_text(json.dumps(bad))
        put_in_place(partial, _bad_file(file))
    else:
        _bad_file(file).unlink(missing_ok=True)


def _fill(partial: Path, shape: tuple[int, ...], decode: Callable[[int], np.ndarray], skip: bool) -> dict[int, str]:
    """Writes what `decode` gives; returns what it could not decode and why, if that may be skipped."""
    bad: dict[int, str] = {}
    start = np.lib.format.open_memmap(partial, "w+", np.uint8, shape).offset
    with partial.open("r+b", buffering=0) as file, ThreadPoolExecutor(os.cpu_count()) as pool:
        if hasattr(os, "posix_fallocate"):  # a full disk is an error now, and not when most images are decoded
            os.posix_fallocate(file.fileno(), 0, partial.stat().st_size)

        def fill(i: int) -> None:
            try:
                pixels = np.ascontiguousarray(decode(i))
            except CsviError as error:
                if not skip:
                    raise
                bad[i] = str(error)
                return
            if os.pwrite(file.fileno(), pixels.data, start + i * pixels.nbytes) < pixels.nbytes:
                raise OSError("an image was written in part")

        done = pool.map(fill, range(shape[0]))  # Pillow decodes and resizes without the interpreter's lock
        try:
            for _ in progress(done, "Decoding images", shape[0]):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return dict(sorted(bad.items()))


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


def _check_same_size(image: Path, mask: Path) -> None:
    (width, height), (width_of_mask, height_of_mask) = size_of(image), size_of(mask)
    if (width, height) != (width_of_mask, height_of_mask):
        raise CsviError(
            f"the mask {mask} is of {width_of_mask}x{height_of_mask} pixels and its image {image} of {width}x{height}: "
            "they must be of one size"
        )


def _key(files: Sequence[Path], height: int, width: int) -> str:
    digest = hashlib.sha256(f"2 {height} {width}\n".encode())
    for file in files:
        digest.update(f"{file.absolute()}\n".encode())
        with contextlib.suppress(OSError):  # decoding will say what is the matter
            stat = file.stat()
            digest.update(f"{stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:24]
