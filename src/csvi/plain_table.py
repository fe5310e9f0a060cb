"""Tables on the terminal, in which nothing is markup: names of folders may hold anything."""

from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.table import Column, Table
from rich.text import Text


def plain_console() -> Console:
    """Make a console that prints every text as it is."""
    return Console(markup=False, emoji=False, highlight=False)


class PlainTable(Table):
    """A table whose cells are shown as they are on any console."""

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        """Add a row, of which text is no markup."""
        super().add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in cells), **options)


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
