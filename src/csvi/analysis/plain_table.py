"""The form of all tables on the terminal."""

from rich import box
from rich.table import Column, Table


def plain_table(first: str | Column, *others: str | Column) -> Table:
    """Names to the left, figures to the right, no line but the one below the head.

    Args:
        first: heading of the names.
        others: headings of the figures.

    A `Column` in place of a heading is taken as it is: for long names, which fold, or for text among the figures.
    """
    names = first if isinstance(first, Column) else Column(first, no_wrap=True)
    figures = [c if isinstance(c, Column) else Column(c, justify="right", no_wrap=True) for c in others]
    return Table(names, *figures, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
