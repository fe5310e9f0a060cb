"""Reads pixels, for everybody: a file becomes an upright image or, whatever a stranger put into it, one sentence."""

import contextlib
import errno
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from csvi.errors import CsviError
from csvi.paths import open_file, reason, status_of

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
"""Formats that are read; Pillow would open others under an image's name too, and run Ghostscript on PostScript."""
MOST_PIXELS = 89_478_485
"""A quarter of a gigabyte as RGB; a header that claims more is a decompression bomb's, or no person's."""
SHORTEST_SIDE = 8
"""Pixels; nobody can be seen on fewer."""
ORIENTATION = 0x0112
"""EXIF tag of the orientation."""
SWAPPED = (5, 6, 7, 8)
"""EXIF orientations that turn an image by 90°, so that width and height swap."""
NOT_ITS_FAULT = {errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""Errors of the machine, after which reading the same image may succeed."""


class BadImage(CsviError):
    """An image that cannot be read.

    Attributes:
        trouble: what is the matter with the file, to be read behind its name.
        missing: whether there is no such file.
    """

    def __init__(self, file: Path, trouble: str, missing: bool = False):
        super().__init__(f"cannot read the image {file}: it {trouble}")
        self.trouble, self.missing = trouble, missing


class TroubleReading(BadImage):
    """An image that may be whole: a disk fails, too many files are open, or memory is short."""


def read_image(file: Path, height: int, width: int, mode: Literal["RGB", "L"]) -> np.ndarray:
    """Decode and resize (antialiased, bilinear): (height, width, 3) uint8, for L (height, width); see `load_image`."""
    return np.asarray(load_image(file, mode).resize((width, height), Image.Resampling.BILINEAR))


def load_image(file: Path, mode: Literal["RGB", "L"]) -> Image.Image:
    """Decode an image, upright as its EXIF or XMP data say; of 16 bits a pixel the upper 8, and no transparency.

    Raises:
        BadImage: there is no such file, it cannot be read or breaks off, is no image, or not of a size for one.
        TroubleReading, MemoryError: it could not be read, which need not be the file's fault.
    """
    with _opened(file) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode == "F" or upright.mode.startswith("I"):
            return Image.fromarray(_upper_8_bits(file, np.asarray(upright))).convert(mode)
        return upright.convert(mode)


def size_of(file: Path) -> tuple[int, int]:
    """Width and height in pixels of the upright image that `load_image` gives, from its header; raises as it does."""
    with _opened(file) as image:
        if image.format == "PNG" and _has_metadata_behind_pixels(file):
            image.load()  # Pillow comes to them then
        if isinstance(image, TiffImageFile) and ORIENTATION in image.tag_v2:
            return image.size  # turned already
        orientation = Image.Image.getexif(image).get(ORIENTATION)  # that of a PNG would decode it
        return (image.height, image.width) if orientation in SWAPPED else image.size


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Image.Image]:
    """Open an image, whose header is read; any failure within the block is raised as `load_image` says."""
    try:
        if not status_of(file).st_size:
            raise BadImage(file, "is empty")
        with Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise BadImage(file, f"is of more than {MOST_PIXELS:,} pixels, or says so")
            if min(image.size) < SHORTEST_SIDE:
                raise BadImage(
                    file,
                    f"is of {image.width}x{image.height} pixels: at least {SHORTEST_SIDE} are needed on each side",
                )
            yield image
    except (CsviError, MemoryError):
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadImage(file, "is a link to nothing" if file.is_symlink() else "is not there", missing=True) from error
    except UnidentifiedImageError as error:
        raise BadImage(file, "is not an image") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImage(file, f"is of more than {MOST_PIXELS:,} pixels, or says so") from error
    except Exception as error:  # broken files fail in Pillow's decoders in every way
        number = getattr(error, "errno", None)
        if number in NOT_ITS_FAULT or "out of memory" in str(error):  # as Pillow's decoders say it
            raise TroubleReading(file, f"could not be read this time: {reason(error)}") from error
        raise BadImage(file, f"cannot be {'read' if number else 'decoded'}: {reason(error)}") from error


def _has_metadata_behind_pixels(file: Path) -> bool:
    """Whether a PNG has metadata behind its pixels, by the names of its chunks alone."""
    with open_file(file) as png:
        png.seek(8)
        pixels = False
        while len(header := png.read(8)) == 8:
            length, name = struct.unpack(">I4s", header)
            if pixels and name in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
                return True
            pixels |= name == b"IDAT"
            png.seek(length + 4, 1)
    return False


def _upper_8_bits(file: Path, pixels: np.ndarray) -> np.ndarray:
    """Scale 16 bits to 8, where Pillow would clip to 255."""
    if pixels.dtype.kind not in "iu" or pixels.min() < 0 or pixels.max() > 65_535:
        raise BadImage(file, "has pixels that are neither of 8 bits nor of 16")
    return (pixels >> 8).astype(np.uint8)
