"""The outcome of `csvi masks`, for the terminal."""

import math
import statistics
from collections import Counter, defaultdict

from csvi.data.records import Modality
from csvi.masks.imports import Imported
from csvi.masks.make import Line, Made
from csvi.masks.quality import GOOD
from csvi.masks.segmenter import Segmenter
from csvi.plain_table import plain_console, plain_table

GAP = 0.03
"""Fall of the median sureness, against rendered people, that is worth a sentence."""


def print_made(made: Made, segmenter: Segmenter) -> None:
    """Print medians by modality and camera, verdicts, speed, and how far the images are from rendered ones."""
    console = plain_console()
    groups: dict[tuple[str, str], list[Line]] = defaultdict(list)
    for line in made.lines:
        groups[line.modality, line.camera].append(line)
    table = plain_table("modality, camera", "images", "used", "area", "sureness", "unsure", "mirror")
    for (modality, camera), lines in sorted(groups.items()):
        scores = [line.scores for line in lines if line.scores]
        used = sum(line.verdict == GOOD for line in lines)
        names = ("area", "sureness", "unsure", "mirror")
        medians = [f"{statistics.median(getattr(s, n) for s in scores):.3f}" if scores else "–" for n in names]
        table.add_row(f"{modality}, {camera}" if camera else modality, f"{len(lines):,}", f"{used:,}", *medians)
    console.print(table)
    verdicts = Counter(line.verdict for line in made.lines)
    doubtful = ", ".join(f"{count:,} {verdict}" for verdict, count in verdicts.most_common() if verdict != GOOD)
    console.print(f"{verdicts[GOOD]:,} of {len(made.lines):,} masks are used" + (f"; {doubtful}" if doubtful else ""))
    known = [line.scores.sureness for line in made.lines if line.scores]
    sure = statistics.median(known) if known else math.nan
    if segmenter.usual and sure < segmenter.usual - GAP:
        console.print(
            f"median sureness {sure:.3f}, and {segmenter.usual:.3f} on the images that the segmenter was made for: "
            "these are far from them, look at the masks"
        )
    if made.new:
        console.print(f"{made.new:,} new masks, {made.images_per_second:.0f} images/s")


def print_imported(imported: Imported) -> None:
    """Print how many images have a mask now, what has no counterpart or cannot be read, and how sure the order is."""
    console = plain_console()
    table = plain_table("modality", "images", "masks", "without")
    converted = {record.path for record in imported.converted}
    for modality in Modality:
        images = [record for record in imported.images if record.modality == modality]
        there = sum(record.path in converted for record in images)
        table.add_row(modality.word, f"{len(images):,}", f"{there:,}", f"{len(images) - there:,}")
    console.print(table)
    lines = [f"{len(converted):,} masks, {imported.new:,} of them new"]
    if imported.resized:
        lines.append(f"{imported.resized:,} of another size than their image, to which they are resized")
    if imported.empty:
        lines.append(f"{imported.empty:,} that mark nobody")
    without = [record.path for record in imported.images if record.path not in converted]
    for left, what in ((without, "images without a mask"), (imported.spare, "masks without an image")):
        if left:
            lines.append(f"{len(left):,} {what}, such as {left[0]}")
    if imported.unreadable:
        lines.append(f"{len(imported.unreadable):,} left out, such as this one: {imported.unreadable[0]}")
    for line in (*lines, *imported.notes):
        console.print(line, soft_wrap=True)  # paths stay in one piece
