"""The one place where pixels are read: whatever a stranger's file holds, it is an upright image, or one sentence."""

import stat
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from csvi.errors import CsviError

MOST_PIXELS = 89_478_485
"""A quarter of a gigabyte as RGB; what is said to be larger is a decompression bomb, or no picture of a person."""
SHORTEST_SIDE = 8
"""Pixels; nobody is to be seen on less."""
ORIENTATION = 0x0112
"""The EXIF tag; from 5 on the sides are swapped."""


class BadImage(CsviError):
    """An image that cannot be read.

    Attributes:
        trouble: what is the matter with the file, to be read behind its name.
        missing: whether there is no such file.
    """

    def __init__(self, file: Path, trouble: str, missing: bool = False):
        super().__init__(f"cannot read the image {file}: it {trouble}")
        self.trouble, self.missing = trouble, missing


def read_image(file: Path, height: int, width: int, mode: Literal["RGB", "L"]) -> np.ndarray:
    """Decode and resize (antialiased, bilinear): (height, width, 3) uint8 for mode RGB, (height, width) for L.

    Raises:
        BadImage: as `load_image`.
    """
    return np.asarray(load_image(file, mode).resize((width, height), Image.Resampling.BILINEAR))


def load_image(file: Path, mode: Literal["RGB", "L"]) -> Image.Image:
    """A whole image, upright as its EXIF data say; of 16 bits a pixel the upper 8; transparency is left out.

    Raises:
        BadImage: there is no such file, it cannot be read or breaks off, is no image, or not of a size for one.
    """
    try:
        with _opened(file) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode == "F" or upright.mode.startswith("I"):
                return Image.fromarray(_upper_8_bits(file, np.asarray(upright))).convert(mode)
            return upright.convert(mode)
    except BadImage:
        raise
    except OSError as error:
        raise BadImage(file, f"cannot be decoded: {error.strerror or error}") from error
    except Exception as error:  # broken files fail in Pillow's decoders in every way
        raise BadImage(file, f"cannot be decoded: {error or type(error).__name__}") from error


def size_of(file: Path) -> tuple[int, int]:
    """Width and height in pixels of the upright image, from its header.

    Raises:
        BadImage: as `load_image`, as far as the header tells.
    """
    with _opened(file) as image:
        try:
            # Pillow turns a TIFF itself, and decodes a PNG to look for EXIF data behind its pixels.
            may_be = image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info)
            swapped = may_be and image.getexif().get(ORIENTATION, 1) >= 5
        except Exception as error:
            raise BadImage(file, f"cannot be decoded: {error}") from error
        return (image.height, image.width) if swapped else image.size


def _opened(file: Path) -> Image.Image:
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
            raise BadImage(file, "is a folder" if stat.S_ISDIR(status.st_mode) else "is not a file")
        if not status.st_size:
            raise BadImage(file, "is empty")
        image = Image.open(file)
    except BadImage:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadImage(file, "is a link to nothing" if file.is_symlink() else "is not there", missing=True) from error
    except UnidentifiedImageError as error:
        raise BadImage(file, "is not an image") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImage(file, f"is of more than {MOST_PIXELS:,} pixels, or says so") from error
    except OSError as error:
        raise BadImage(file, f"cannot be read: {error.strerror or error}") from error
    except Exception as error:
        raise BadImage(file, f"cannot be decoded: {error or type(error).__name__}") from error
    trouble = ""
    if image.width * image.height > MOST_PIXELS:
        trouble = f"is of more than {MOST_PIXELS:,} pixels, or says so"
    elif min(image.size) < SHORTEST_SIDE:
        trouble = f"is of {image.width}x{image.height} pixels: at least {SHORTEST_SIDE} are needed on each side"
    if trouble:
        image.close()
        raise BadImage(file, trouble)
    return image


def _upper_8_bits(file: Path, pixels: np.ndarray) -> np.ndarray:
    """What Pillow would clip to 255 in place of scaling it."""
    if pixels.dtype.kind not in "iu" or pixels.min() < 0 or pixels.max() > 65_535:
        raise BadImage(file, "has pixels that are neither of 8 bits nor of 16")
    return (pixels >> 8).astype(np.uint8)
