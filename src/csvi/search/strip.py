"""A picture of a search: the probes, then the images that were found, best first."""

from collections.abc import Callable, Sequence
from io import BufferedReader
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps
from PIL.PngImagePlugin import PngInfo

from csvi.config import DataConfig
from csvi.data.depth import levels_of
from csvi.data.images import load_image
from csvi.data.records import Modality
from csvi.errors import CsviError
from csvi.paths import check_ours
from csvi.search.gallery import Hit, absolute, path_in
from csvi.writing import replacing

WIDTH, HEIGHT, GAP, LINE = 112, 224, 8, 15
"""Pixels of a picture, between pictures, and of a line of text."""
COLUMNS = 10
PROBE, FOUND, MISSING = "#e8590c", "#adb5bd", "#f1f3f5"
"""Colours of the frame of a probe and of an image that was found, and of one that cannot be read."""
NOTE = "Software", "csvi"
"""What a strip holds beside its pixels, so that the next one may replace it."""


def check_strip(file: Path) -> None:
    """Raises `CsviError` if a file is there that is no strip, see `csvi.paths.check_ours`."""
    check_ours(file, _is_strip)


def write_strip(
    probes: Sequence[tuple[Path, Modality]],
    hits: Sequence[Hit],
    root: Path,
    data: DataConfig,
    file: Path,
    of_probes: DataConfig | None = None,
) -> int:
    """Write a picture of the probes and of what was found, each with its rank, similarity, camera, time and track.

    Args:
        probes: image files, and the modality whose range is theirs if they have more than 8 bits.
        hits: best first.
        root: folder that their paths are relative to.
        data: ranges of images of more than 8 bits.
        file: to write, .png.
        of_probes: ranges of the probes, if they are others.

    Returns:
        How many of the images that were found cannot be read.

    Raises:
        CsviError: it cannot be written.
    """
    words = [_words(rank, hit) for rank, hit in enumerate(hits, 1)]
    lines = max(map(len, words), default=1)
    asked = [_or_none(load_image, probe, levels_of(of_probes or data, modality)) for probe, modality in probes]
    cells = [_cell(image, ["probe"], PROBE, lines) for image in asked]
    found = [_or_none(_found, root, hit, data) for hit in hits]
    cells += [_cell(image, below, FOUND, lines) for image, below in zip(found, words, strict=True)]
    width, height = cells[0].size
    columns = min(COLUMNS, len(cells))
    rows = -(-len(cells) // columns)
    strip = Image.new("RGB", (columns * (width + GAP) + GAP, rows * (height + GAP) + GAP), "white")
    for i, cell in enumerate(cells):
        strip.paste(cell, (GAP + i % columns * (width + GAP), GAP + i // columns * (height + GAP)))
    note = PngInfo()
    note.add_text(*NOTE)
    with replacing(file) as partial:
        strip.save(partial, "PNG", pnginfo=note)
    return found.count(None)


def _is_strip(file: BufferedReader) -> bool:
    try:
        with Image.open(file, formats=["PNG"]) as image:
            return image.info.get(NOTE[0]) == NOTE[1]
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # as Pillow raises on what is no PNG
        return False


def _words(rank: int, hit: Hit) -> list[str]:
    """What stands below an image."""
    place = f"camera {hit.camera}" if hit.camera else ""
    track = f"track {hit.track}" if hit.track else ""
    when = hit.time.replace("T", " ")[:19]
    return [f"{rank}    {hit.similarity:.3f}", *filter(None, (place, when, track))]


def _or_none(read: Callable[..., Image.Image], *of: object) -> Image.Image | None:
    """Read an image; None if it cannot be, as where the folder has been moved."""
    try:
        return read(*of)
    except CsviError:
        return None


def _found(root: Path, hit: Hit, data: DataConfig) -> Image.Image:
    """Read an image of a gallery; links on its way may lead out of the root, as where a camera has its own disk."""
    inside = path_in(Path(absolute(root)), root / hit.path)
    return load_image(root / inside, levels_of(data, Modality[hit.modality.upper()]))


def _cell(image: Image.Image | None, words: Sequence[str], colour: str, lines: int) -> Image.Image:
    """A picture in its frame, and words below it, in a space for so many lines."""
    cell = Image.new("RGB", (WIDTH, HEIGHT + lines * LINE), "white")
    draw, font = ImageDraw.Draw(cell), ImageFont.load_default(size=12)
    if image is None:
        draw.rectangle((0, 0, WIDTH - 1, HEIGHT - 1), MISSING, colour)
        draw.text((8, HEIGHT // 2), "cannot be read", "black", font)
    else:
        framed = ImageOps.pad(image, (WIDTH - 6, HEIGHT - 6), Image.Resampling.BILINEAR, "white")
        draw.rectangle((0, 0, WIDTH - 1, HEIGHT - 1), colour)
        cell.paste(framed, (3, 3))
    for i, line in enumerate(words):
        draw.text((1, HEIGHT + 1 + i * LINE), line, "black", font)
    return cell
