"""What `csvi check` found, for the terminal."""

from itertools import groupby

from rich import box
from rich.console import Console
from rich.table import Table

from csvi.data.check import Check, Finding, Split

HEADINGS = {
    "split": "splits that cannot be read",
    "count": "splits that do not hold what they should",
    "missing": "missing files",
    "broken": "broken files",
    "mask": "wrong masks",
    "no split": "splits that are not there",
    "duplicate": "duplicates",
    "one modality": "identities that training cannot use",
    "no mask": "images without a mask",
    "unnamed": "images that nothing names",
}
"""Kind of finding → how its list is headed."""
SHOWN = 5
"""Findings of a kind that are named."""
MOST_CAMERAS = 12
"""Of a modality, that are counted one by one."""


def print_check(check: Check) -> None:
    """Counts, cameras, masks, the first findings of each kind, and the verdict; fits 80 columns."""
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(f"{check.title}, {_printable(check.root)}", style="bold")
    console.print(_split_table(check.splits))
    for modality, cameras in check.cameras.items():
        console.print(f"{modality} cameras: {_cameras(cameras)}")
    console.print(f"masks: {check.masks:,} of {check.images:,} images have one")
    for style, findings in (("red", check.problems), ("yellow", check.notes)):
        for kind, heading in HEADINGS.items():
            named = [finding for finding in findings if finding.kind == kind]
            if named:
                _print_findings(console, f"{heading}: {len(named):,}", named, style)
    problems = f"{len(check.problems):,} problem{'s' * (len(check.problems) > 1)}" if check.problems else "ok"
    read = "every image was decoded" if check.decoded else "every header was read; --decode decodes every image"
    console.print(f"\n{problems} ({read})", style="bold red" if check.problems else "bold green")


def _split_table(splits: list[Split]) -> Table:
    """A row for trials that hold the same; what is expected stands beside what is found where they differ."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("split", no_wrap=True)
    for column in ("identities", "visible images", "infrared images"):
        table.add_column(column, justify="right", no_wrap=True)
    many = len({split.trial for split in splits}) > 1
    splits = [
        split
        for split in splits
        if split.name != "val" or any(split.found.values()) or any((split.expected or {}).values())
    ]
    for name, of_name in groupby(
        sorted(splits, key=lambda s: ["train", "val", "test"].index(s.name)), lambda s: s.name
    ):
        for cells, alike in groupby(of_name, _cells):
            trials = [split.trial for split in alike]
            table.add_row(f"{name} {_numbers(trials)}" if many else name, *cells)
    return table


def _numbers(trials: list[int]) -> str:
    """`1–3, 5` for 1, 2, 3, 5."""
    runs = [[trial for _, trial in run] for _, run in groupby(enumerate(trials), lambda at: at[1] - at[0])]
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def _cells(split: Split) -> list[str]:
    return [
        f"{n:,}" if not split.expected or n == split.expected[what] else f"{n:,} of {split.expected[what]:,}"
        for what, n in split.found.items()
    ]


def _cameras(cameras: dict[int, int]) -> str:
    if len(cameras) > MOST_CAMERAS:
        return f"{len(cameras):,} with {sum(cameras.values()):,} images"
    return ", ".join(f"{camera} ({images:,})" for camera, images in cameras.items()) or "none"


def _print_findings(console: Console, heading: str, findings: list[Finding], style: str) -> None:
    console.print(f"\n{heading}", style=style)
    for finding in findings[:SHOWN]:
        console.print(f"  {_printable(finding.path)} {_printable(finding.message)}", soft_wrap=True)
    if len(findings) > SHOWN:
        console.print(f"  and {len(findings) - SHOWN:,} more (--json lists all)")


def _printable(text: str) -> str:
    """Without bytes that are no text, and without what a terminal would obey."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
