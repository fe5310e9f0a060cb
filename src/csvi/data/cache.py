"""Decoded and resized images on disk, memory-mapped, so that no epoch decodes or resizes twice."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from csvi.data.records import ImageRecord
from csvi.errors import CsviError
from csvi.progress import progress


class ImageCache:
    """Images, and masks where every record has one, in the order of the records; built with `cached_images`.

    Attributes:
        images: (n, H, W, 3) uint8, a read-only memory map.
        masks: (n, H, W) uint8, 255 = person, or None.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.images = np.load(folder / "images.npy", mmap_mode="r")
        masks = folder / "masks.npy"
        self.masks = np.load(masks, mmap_mode="r") if masks.exists() else None

    def __reduce__(self) -> tuple[type["ImageCache"], tuple[Path]]:
        return ImageCache, (self.folder,)  # a loader process maps the files again instead of receiving their bytes

    def __len__(self) -> int:
        return len(self.images)


def cached_images(
    root: Path, records: Sequence[ImageRecord], height: int, width: int, folder: Path, masks: bool = True
) -> ImageCache:
    """Open the cache of these images, or decode and resize them into it first, on all cores.

    The cache is named after the files (path, length and time of change) and the size asked for, so that it is
    written anew when any of them changes, and shared by all runs for which none has.

    Args:
        root: of the records' paths.
        records: the images.
        height, width: size in pixels.
        folder: where caches lie.
        masks: with their masks, if all have one.

    Raises:
        CsviError: an image cannot be read, a mask has not the size of its image, or the cache cannot be written.
    """
    with_masks = masks and all(record.mask for record in records)
    folder = folder.expanduser()
    target = folder / _key(root, records, height, width, with_masks)
    if not target.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=folder))
            try:
                _fill(partial, root, records, height, width, with_masks)
                partial.rename(target)
            except OSError:
                if not target.exists():  # or another process was faster
                    raise
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        except OSError as error:
            raise CsviError(
                f"cannot write the image cache in {folder} ({error}): choose another with --data.cache"
            ) from error
    return ImageCache(target)


def _fill(partial: Path, root: Path, records: Sequence[ImageRecord], height: int, width: int, with_masks: bool) -> None:
    shape = (len(records), height, width)
    images = _new_array(partial / "images.npy", (*shape, 3))
    masks = _new_array(partial / "masks.npy", shape) if with_masks else None

    def fill(i: int) -> None:
        images[i] = read_image(root / records[i].path, height, width, "RGB")
        if masks is not None:
            mask = Path(str(records[i].mask))
            masks[i] = read_image(mask, height, width, "L")
            _check_same_size(root / records[i].path, mask)

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes and resizes without the interpreter's lock
        done = pool.map(fill, range(len(records)))
        try:
            for _ in progress(done, "Decoding images", len(records)):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    images.flush()
    if masks is not None:
        if masks.max() <= 1:
            raise CsviError(f"no mask is brighter than 1 (such as {records[0].mask}): write the person as 255")
        masks.flush()


def _new_array(file: Path, shape: tuple[int, ...]) -> np.memmap:
    array = np.lib.format.open_memmap(file, "w+", np.uint8, shape)
    if hasattr(os, "posix_fallocate"):  # a full disk is an error now, and not a signal while pixels are written
        with file.open("r+b") as written:
            os.posix_fallocate(written.fileno(), 0, file.stat().st_size)
    return array


def read_image(file: Path, height: int, width: int, mode: str) -> np.ndarray:
    """Decode and resize (antialiased, bilinear): (height, width, 3) uint8 for mode RGB, (height, width) for L.

    Raises:
        CsviError: there is no such file or it is not an image.
    """
    try:
        with Image.open(file) as image:
            return np.asarray(image.convert(mode).resize((width, height), Image.Resampling.BILINEAR))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise CsviError(f"cannot read the image {file}: {error}") from error


def _check_same_size(image: Path, mask: Path) -> None:
    with Image.open(image) as a, Image.open(mask) as b:
        if a.size != b.size:
            raise CsviError(
                f"the mask {mask} is of {b.width}x{b.height} pixels and its image {image} of {a.width}x{a.height}: "
                "they must be of one size"
            )


def _key(root: Path, records: Sequence[ImageRecord], height: int, width: int, with_masks: bool) -> str:
    digest = hashlib.sha256(f"1 {root.resolve()} {height} {width} {with_masks}".encode())
    for record in records:
        for file in (root / record.path, record.mask if with_masks else None):
            if file is None:
                continue
            try:
                stat = file.stat()
            except OSError as error:
                raise CsviError(f"cannot read the image {file}: {error.strerror}") from error
            digest.update(f"{file} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:24]
