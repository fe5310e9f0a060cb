"""The form of what is printed on the terminal: nothing in it is markup, as names of folders may hold anything."""

from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.table import Column, Table
from rich.text import Text


def plain_console() -> Console:
    """Prints every text as it is."""
    return Console(markup=False, emoji=False, highlight=False)


class PlainTable(Table):
    """A table whose cells are shown as they are on any console."""

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        super().add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in cells), **options)


def plain_table(first: str | Column, *others: str | Column) -> Table:
    """Names to the left, figures to the right, no line but the one below the head.

    Args:
        first: heading of the names.
        others: headings of the figures.

    A `Column` in place of a heading is taken as it is: for long names, which fold, or for text among the figures.
    """
    names = first if isinstance(first, Column) else Column(first, no_wrap=True)
    figures = [c if isinstance(c, Column) else Column(c, justify="right", no_wrap=True) for c in others]
    return PlainTable(names, *figures, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
