"""Arguments of commands, as they are to be typed."""

import shlex
from pathlib import Path


def as_argument(path: str | Path) -> str:
    """Write a path as a shell wants it typed, and so that no command takes it for an option."""
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)
