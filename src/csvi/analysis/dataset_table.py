"""The findings of `csvi check`, for the terminal."""

import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import groupby, product

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table

from csvi.data.check import Check, Finding, Split
from csvi.plain_table import plain_console, plain_table

HEADINGS = {
    "fold": "folds that cannot be read",
    "count": "splits that do not hold what they should",
    "missing": "missing files",
    "broken": "broken files",
    "mask": "wrong masks",
    "depth": "images of more than 8 bits",
    "nothing to train": "training sets without anybody",
    "nothing to score": "tests that find nothing",
    "look-alike": "names that look alike",
    "few people": "training sets smaller than a batch",
    "no test": "tests without people",
    "unanswerable": "queries without anything to find",
    "not read": "files that are not read",
    "no fold": "folds that are not there",
    "duplicate": "duplicates",
    "one modality": "identities that training cannot use",
    "distractor": "distractors",
    "no mask": "images without a mask",
    "no person": "masks of nobody",
    "unnamed": "images that nothing names",
}
"""Kind of finding → how its list is headed."""
LINES = 24
"""Lines of a screen."""
SHOWN = 5
"""Findings of a kind that are named; fewer where many kinds were found."""
SHORTEST = 16
"""Characters that paths are cut to before a message loses its end."""
MOST_ROWS = 3
"""Rows for train, val or test; folds that hold the same share a row."""
MOST_CAMERAS = 12
"""Cameras of a modality that are counted one by one."""


def print_check(check: Check) -> None:
    """Print counts, cameras, masks, the first findings of each kind, and the verdict, on one screen of 80 columns."""
    console = plain_console()
    with console.capture() as counts:
        _print_counts(console, check)
    _print_counts(console, check)
    listed = [
        (f"{heading}: {len(named):,}", named, style)
        for style, findings in (("red", check.problems), ("yellow", check.notes))
        for kind, heading in HEADINGS.items()
        if (named := [finding for finding in findings if finding.kind == kind])
    ]
    for line, style in _findings(listed, LINES - len(counts.get().splitlines()) - 2, console.width):
        console.print(line, style=style, soft_wrap=True)
    problems = f"{len(check.problems):,} problem{'s' * (len(check.problems) > 1)}" if check.problems else "ok"
    read = "every image was decoded" if check.decoded else "every header was read; --decode decodes every image"
    console.print(f"\n{problems} ({read})", style="bold red" if check.problems else "bold green")


def _print_counts(console: Console, check: Check) -> None:
    console.print(_fit(f"{check.title}, {_printable(check.root)}", console.width), style="bold")
    console.print(_split_table(check.splits))
    for modality, cameras in check.cameras.items():
        console.print(_fit(f"{modality} cameras: {_cameras(cameras, check.camera_names)}", console.width))
    for modality, depth in check.depths.items():
        console.print(f"{modality} images: {depth}")
    console.print(f"masks: {check.masks:,} of {check.images:,} images have one")


def _split_table(splits: list[Split]) -> Table:
    """Make a row for folds that hold the same; where found and expected numbers differ, both are shown."""
    many = len({split.fold for split in splits}) > 1
    table = plain_table("split, folds" if many else "split", "identities", "visible images", "infrared images")
    for name in ("train", "val", "test"):
        alike: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for split in splits:
            if split.name == name and (
                name != "val" or any(split.found.values()) or any((split.expected or {}).values())
            ):
                alike[_cells(split)].append(split.fold)
        shown = sorted(sorted(alike, key=lambda cells: -len(alike[cells]))[:MOST_ROWS], key=lambda cells: alike[cells])
        for cells in shown:
            table.add_row(f"{name} {_numbers(alike[cells])}" if many else name, *cells)
        left = sum(map(len, alike.values())) - sum(len(alike[cells]) for cells in shown)
        if left:
            table.add_row(f"and {left} more fold{'s' * (left > 1)}")
    return table


def _numbers(folds: list[int]) -> str:
    """Shorten numbers: `1–3, 5` for 1, 2, 3, 5."""
    runs = [[fold for _, fold in run] for _, run in groupby(enumerate(folds), lambda at: at[1] - at[0])]
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def _cells(split: Split) -> tuple[str, ...]:
    return tuple(
        f"{n:,}" if not split.expected or n == split.expected[what] else f"{n:,} of {split.expected[what]:,}"
        for what, n in split.found.items()
    )


def _cameras(cameras: dict[int, int], names: dict[int, str]) -> str:
    if len(cameras) > MOST_CAMERAS:
        return f"{len(cameras):,} with {sum(cameras.values()):,} images"
    counted = {_printable(names.get(camera, str(camera))): images for camera, images in cameras.items()}
    return ", ".join(f"{camera} ({images:,})" for camera, images in counted.items()) or "none"


def _findings(listed: list[tuple[str, list[Finding], str]], lines: int, width: int) -> list[tuple[str, str | None]]:
    """Write so many lines, with styles: as many findings of each kind as fit, or a line for each kind."""
    for shown, apart in product(range(SHOWN, 0, -1), (True, False)):
        full = [line for kind in listed for line in _list(*kind, shown, apart, width)]
        if len(full) <= lines:
            return full
    room = max(lines - 1, 1)
    short: list[tuple[str, str | None]] = [
        (_fit(f"{heading}, {'such as ' if len(findings) > 1 else ''}{_sentence(findings[0])}", width), style)
        for heading, findings, style in listed[:room]
    ]
    more = len(listed) - len(short)
    left = f"and {more} more kind{'s' * (more > 1)} of findings (--json lists all)" if more else "--json lists all"
    return [*short, (left, None)]


def _list(
    heading: str, findings: list[Finding], style: str, shown: int, apart: bool, width: int
) -> Iterator[tuple[str, str | None]]:
    """Write the lines of one kind; `apart`: with a blank line before."""
    if apart:
        yield "", None
    yield heading, style
    if len(findings) == shown + 1:  # which takes no more room than to say so
        shown += 1
    for finding in findings[:shown]:
        yield _fit(f"  {_sentence(finding)}", width), None
    if len(findings) > shown:
        yield f"  and {len(findings) - shown:,} more (--json lists all)", None


def _sentence(finding: Finding) -> str:
    return f"{_printable(finding.path)} {_printable(finding.message)}"


def _fit(line: str, width: int) -> str:
    """Cut a line to a width: first the longest paths in their middle, then the end of the line."""
    words = re.split("( )", line)
    while (excess := cell_len(line) - width) > 0:
        at = max(range(len(words)), key=lambda i: ("/" in words[i]) * cell_len(words[i]))
        length = cell_len(words[at])
        if "/" not in words[at] or length <= SHORTEST:
            return f"{set_cell_size(line, width - 1).rstrip()}…"
        words[at] = _cut(words[at], max(SHORTEST, length - excess))
        line = "".join(words)
    return line


def _cut(path: str, length: int) -> str:
    """Cut out the middle of a path; two thirds of what is left is its end, which says most."""
    end = 2 * length // 3
    start = length - 1 - end
    tail = path
    while cell_len(tail) > end:
        tail = tail[1:]
    return f"{set_cell_size(path, start)}…{tail}"


def _printable(text: str) -> str:
    """Replace bytes that are no text, and characters that a terminal would obey."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
