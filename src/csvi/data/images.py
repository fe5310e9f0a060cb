"""Reads pixels, for everybody: a file becomes an upright image or, whatever a stranger put into it, one sentence."""

import contextlib
import errno
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile

from csvi.errors import CsviError
from csvi.paths import open_file, reason, status_of

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM")
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


class Header(NamedTuple):
    """What an image says of itself before its pixels."""

    size: tuple[int, int]
    """Width and height in pixels of the upright image."""
    deep: bool
    """Whether it is of one channel of more than 8 bits, whose values `Levels` make black and white."""
    halved: bool
    """Whether it is of several channels of 16 bits, of which Pillow reads the upper 8."""


class Levels(NamedTuple):
    """Values of an image of more than 8 bits a pixel that become black and white, the lower one first."""

    black: float
    white: float

    def applied_to(self, values: np.ndarray) -> np.ndarray:
        """Map values of any shape and type to 0 … 255, uint8: linearly and rounded, those outside clipped."""
        return np.rint(np.interp(values, self, (0, 255))).astype(np.uint8)


def read_image(file: Path, height: int, width: int, levels: Levels | None = None) -> np.ndarray:
    """Decode and resize: (height, width, 3) uint8, RGB; see `load_image` and `resized`."""
    return resized(load_image(file, levels), height, width)


def resized(image: Image.Image, height: int, width: int) -> np.ndarray:
    """Resize an RGB image as networks take it (antialiased, bilinear): (height, width, 3) uint8."""
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def load_image(file: Path, levels: Levels | None = None) -> Image.Image:
    """Decode an image to RGB of 8 bits, upright as its EXIF or XMP data say, and without transparency.

    `levels` say what is black and white in an image of one channel of more than 8 bits, and change no other.

    Raises:
        BadImage: there is no such file, it cannot be read or breaks off, is no image, or not of a size for one; or it
            has more than 8 bits a pixel and there are no levels, or has values that are no numbers.
        TroubleReading, MemoryError: it could not be read, which need not be the file's fault.
    """
    with _opened(file) as image:
        upright = _upright(image)
        if not is_deep(upright):
            return upright.convert("RGB")
        values = _values(file, upright)
        if levels is None:
            raise BadImage(
                file,
                "has more than 8 bits a pixel: say which values are black and white, as --data.infrared_range "
                "7500,8400, or for visible images --data.visible_range (csvi check ROOT measures them)",
            )
        return Image.fromarray(levels.applied_to(values)).convert("RGB")


def upright_image(file: Path) -> Image.Image:
    """Decode an image in its own mode (L, P, I;16, …), upright; raises as `load_image`."""
    with _opened(file) as image:
        return _upright(image)


def deep_values(file: Path) -> np.ndarray | None:
    """Values of an image of one channel of more than 8 bits, (H, W), upright; None of any other image, undecoded.

    Raises as `load_image`.
    """
    with _opened(file) as image:
        return _values(file, _upright(image)) if is_deep(image) else None


def size_of(file: Path) -> tuple[int, int]:
    """Width and height in pixels of the upright image that `load_image` gives, from its header; raises as it does."""
    return header_of(file).size


def header_of(file: Path) -> Header:
    """Read the header of an image; raises as `load_image`."""
    with _opened(file) as image:
        return Header(_upright_size(file, image), is_deep(image), _is_halved(image))


def _upright_size(file: Path, image: ImageFile.ImageFile) -> tuple[int, int]:
    if image.format == "PNG" and _has_metadata_behind_pixels(file):
        image.load()  # Pillow comes to them then
    if isinstance(image, TiffImageFile) and ORIENTATION in image.tag_v2:
        return image.size  # turned already
    orientation = Image.Image.getexif(image).get(ORIENTATION)  # that of a PNG would decode it
    return (image.height, image.width) if orientation in SWAPPED else image.size


def _upright(image: ImageFile.ImageFile) -> Image.Image:
    """Decode an opened image, turned as its metadata say; a PGM of more than 8 bits has its own values."""
    most = _most_of_netpbm(image)
    upright = ImageOps.exif_transpose(image)
    if most is None or upright.mode != "I":
        return upright
    return Image.fromarray(np.rint(np.asarray(upright) * (most / 65_535)).astype(np.int32))


def _most_of_netpbm(image: ImageFile.ImageFile) -> int | None:
    """The greatest value that an undecoded Netpbm image says it has, if Pillow will scale that to what a mode holds."""
    if not (isinstance(image, PpmImageFile) and image.tile):
        return None
    decoder, _, _, arguments = image.tile[0]
    return int(arguments[1]) if decoder.startswith("ppm") and isinstance(arguments, tuple) else None


def _is_halved(image: ImageFile.ImageFile) -> bool:
    read_as = [str(arguments) for _, _, _, arguments in image.tile]
    return len(image.getbands()) > 1 and (any(";16" in a for a in read_as) or (_most_of_netpbm(image) or 0) > 255)


def is_deep(image: Image.Image) -> bool:
    """Whether an opened image is of one channel of more than 8 bits."""
    return image.mode == "F" or image.mode.startswith("I")


def _values(file: Path, image: Image.Image) -> np.ndarray:
    """Values of an image of more than 8 bits, (H, W); raises `BadImage` if some are no numbers."""
    values = np.asarray(image)
    if not np.isfinite(values).all():
        raise BadImage(file, "has pixels that are not finite (NaN or infinity)")
    return values


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[ImageFile.ImageFile]:
    """Open an image, whose header is read; any failure within the block is raised as `load_image` says."""
    try:
        if not status_of(file).st_size:
            raise BadImage(file, "is empty")
        # opened by us: Pillow would map a TIFF by its name, and so scramble one that its metadata turn by 90°
        with open_file(file) as opened, Image.open(opened, formats=FORMATS) as image:
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
