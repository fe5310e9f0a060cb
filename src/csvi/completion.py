"""Completion of the command line in a shell, by argcomplete: which parser it asks, and what jsonargparse tells it."""

import os
from argparse import ArgumentParser
from collections.abc import Collection, Iterator
from importlib.util import find_spec
from typing import Any, Literal, get_args, get_origin

from csvi.catalogue import METHODS
from csvi.config import shipped_names

OF_METHODS = {"--method", "--methods", "--variants"}
"""Options that take names of methods."""


def completes() -> bool:
    """Whether somebody has pressed TAB and argcomplete is to answer, rather than that a command is to run."""
    return "_ARGCOMPLETE" in os.environ and find_spec("argcomplete") is not None


def words_to_complete(commands: Collection[str]) -> list[str]:
    """Read the words before the cursor, without the program's name, and tell argcomplete which parser it asks.

    Behind the name of one of these commands, that is its parser alone. There is a --help among the words, with which
    no command loads what only running it needs.
    """
    from argcomplete.lexers import split_line

    words = split_line(os.environ["COMP_LINE"], int(os.environ["COMP_POINT"]))[3]
    words = words[int(os.environ["_ARGCOMPLETE"]) :]  # it counts those that start the program
    if words and words[0] in commands:
        os.environ["_ARGCOMPLETE"] = str(int(os.environ["_ARGCOMPLETE"]) + 1)
    return [*words[:1], "--help", *words[1:]]


def add_completers(parser: ArgumentParser) -> None:
    """Let argcomplete offer the values of a Literal, methods, settings, and files where any text will do."""
    from argcomplete.completers import ChoicesCompleter, FilesCompleter

    def settings(**asked: Any) -> list[str]:
        return [*shipped_names(), *FilesCompleter()(**asked)]

    for action in parser._actions:
        kind: Any = getattr(action, "_typehint", None)
        completer: Any = None
        if OF_METHODS & {*action.option_strings}:
            completer = ChoicesCompleter(METHODS)
        elif "--config" in action.option_strings:
            completer = settings
        elif values := list(_values(kind)):
            completer = ChoicesCompleter(values)  # type: ignore[arg-type]
        elif kind in (str, str | None):
            completer = FilesCompleter()
        if completer:
            action.completer = completer  # type: ignore[attr-defined]


def _values(kind: Any) -> Iterator[str]:
    """What a type that is a Literal, or one or something else, takes."""
    if get_origin(kind) is Literal:
        yield from map(str, get_args(kind))
    else:
        for one in get_args(kind):
            yield from _values(one)
