"""Progress bars on stderr, so that what a program prints can be piped; they vanish when they are done."""

from collections.abc import Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import track

Item = TypeVar("Item")


def progress(items: Iterable[Item], description: str, total: int | None = None) -> Iterable[Item]:
    """Yield the items, while a bar says how many there have been; only where someone looks at it.

    Args:
        items: to go through.
        description: beside the bar.
        total: how many, if they cannot say themselves.
    """
    console = Console(stderr=True)
    return track(items, description, total, transient=True, console=console, disable=not console.is_terminal)
