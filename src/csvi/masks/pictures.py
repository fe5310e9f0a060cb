"""Pictures to look at: samples that a segmenter is trained on, and the masks that it is least sure of."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from csvi.data.crops import Crops
from csvi.masks.make import Line
from csvi.masks.scenes import People, draw_sample
from csvi.writing import replacing

GAP, LABEL = 4, 14
"""Pixels between pictures, and of a line of text below them."""
TINT = np.array([255, 40, 90])
"""Colour of what is marked as person."""
SAMPLES, LEAST_SURE = 40, 24
"""Samples in their picture, in four rows, and least sure masks in theirs, in six."""


def write_samples(people: People, file: Path, seed: int) -> None:
    """Write a PNG of randomised samples, each above its mask."""
    cells = []
    for i in range(SAMPLES):
        picture, mask = draw_sample(people, np.random.default_rng((seed, i)))
        cells.append(np.concatenate([picture, np.repeat(mask[..., None], 3, axis=2)]))
    _save(_grid(cells, [], SAMPLES // 4), file)


def write_least_sure(lines: Sequence[Line], crops: Crops, out: Path) -> Path:
    """Write MASKS/least-sure.png: the images of the least sure masks, as they are and tinted by their mask.

    Args:
        lines: what is known of each mask.
        crops: their images.
        out: the folder of masks.
    """
    known = {line.path: line for line in lines if line.scores is not None}
    order = sorted((r for r in crops.records if r.path in known), key=lambda r: _sureness(known[r.path]))[:LEAST_SURE]
    cells, labels = [], []
    for record in order:
        line = known[record.path]
        image = crops.load(record).resize((96, 192), Image.Resampling.BILINEAR)
        mask = Image.open(out / (line.mask or "")).resize((96, 192), Image.Resampling.BILINEAR)
        share = np.asarray(mask, np.float32)[..., None] / 255 * 0.55
        tinted = np.asarray(image) * (1 - share) + TINT * share
        cells.append(np.concatenate([np.asarray(image), tinted.astype(np.uint8)], axis=1))
        labels.append(f"{_sureness(line):.2f} {line.verdict} {'/'.join(PurePosixPath(line.path).parts[-2:])}")
    file = out / "least-sure.png"
    _save(_grid(cells, labels, LEAST_SURE // 6), file)
    return file


def _sureness(line: Line) -> float:
    return line.scores.sureness if line.scores else 0.0


def _grid(cells: Sequence[np.ndarray], labels: Sequence[str], columns: int) -> Image.Image:
    """Put pictures of one size into rows, each with its label below it."""
    height, width = cells[0].shape[:2] if cells else (1, 1)
    step = height + GAP + (LABEL if labels else 0)
    rows = -(-len(cells) // columns)
    grid = Image.new("RGB", (columns * (width + GAP), max(rows, 1) * step), "white")
    draw, font = ImageDraw.Draw(grid), ImageFont.load_default(size=11)
    for i, cell in enumerate(cells):
        x, y = i % columns * (width + GAP), i // columns * step
        grid.paste(Image.fromarray(cell), (x, y))
        if labels:
            draw.text((x + 2, y + height + 1), labels[i][: width // 6], "black", font)
    return grid


def _save(image: Image.Image, file: Path) -> None:
    with replacing(file) as partial:
        image.save(partial, "PNG")
