"""Tables on the terminal, in which nothing is markup: names of folders may hold anything."""

import copy
import math
from collections.abc import Iterable
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Column, Table
from rich.text import Text

LEAST_FOLDED = 10
"""Characters of a line of text that may fold, where there is no room for all of it."""


def plain_console() -> Console:
    """Make a console that prints every text as it is."""
    return Console(markup=False, emoji=False, highlight=False)


class PlainTable(Table):
    """A table whose cells are shown as they are on any console, and whole: columns without room go on below."""

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        """Add a row, of which text is no markup."""
        super().add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in cells), **options)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render it in as few parts as fit the width, each with the first column and as many of the others."""
        first, *others = self.columns
        count, parts = 1, [self.columns]
        while count < len(others) and max(map(_width, parts)) > options.max_width:
            count += 1
            size = math.ceil(len(others) / count)
            parts = [[first, *others[start : start + size]] for start in range(0, len(others), size)]
        for columns in parts:
            part = copy.copy(self)
            part.columns = columns
            yield from Table.__rich_console__(part, console, options)


def _width(columns: Iterable[Column]) -> int:
    """Width of columns beside each other, two blanks between them, where all text folds that may."""
    longest = [(max(cell_len(str(cell)) for cell in (c.header, *c.cells)), c.no_wrap) for c in columns]
    return sum(2 + (length if whole else min(length, LEAST_FOLDED)) for length, whole in longest) - 1


def plain_table(first: str | Column, *others: str | Column) -> Table:
    """Make a table of names to the left and numbers to the right, with one line, below the head.

    Args:
        first: heading of the names.
        others: headings of the numbers. A `Column` in place of a heading is taken as it is: for long names, which fold,
            or for text among the numbers.
    """
    names = first if isinstance(first, Column) else Column(first, no_wrap=True)
    numbers = [c if isinstance(c, Column) else Column(c, justify="right", no_wrap=True) for c in others]
    return PlainTable(names, *numbers, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
