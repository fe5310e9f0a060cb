"""Progress bars on stderr, so that what a program prints can be piped; they vanish when they are done."""

import contextlib
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TextIO, TypeVar

from rich.console import Console
from rich.progress import track

from csvi.threads import reading_threads

Item = TypeVar("Item")
Result = TypeVar("Result")


class _MayBeGone:
    """A terminal that may be gone when a run is to be saved, as of an SSH connection that dropped."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self.stream.flush()


def console_on_stderr() -> Console:
    """Make a console for bars of progress on stderr, which ends no work when its terminal is gone."""
    return Console(file=_MayBeGone(sys.stderr))  # type: ignore[arg-type]


def progress(items: Iterable[Item], description: str, total: int | None = None) -> Iterable[Item]:
    """Yield the items, while a bar says how many there have been; only where someone looks at it.

    Args:
        items: to go through.
        description: beside the bar.
        total: how many, if they cannot say themselves.
    """
    console = console_on_stderr()
    return track(items, description, total, transient=True, console=console, disable=not console.is_terminal)


def in_threads(
    function: Callable[[Item], Result], items: Sequence[Item], description: str | None = None
) -> list[Result]:
    """Call a function of each item on all cores, with a bar of progress if it has a description.

    Returns what it returns, in the order of the items.
    """
    with ThreadPoolExecutor(reading_threads()) as pool:
        done = pool.map(function, items)
        try:
            return list(done if description is None else progress(done, description, len(items)))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
