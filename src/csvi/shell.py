"""What is said to be typed next."""

import shlex
from pathlib import Path


def as_argument(path: str | Path) -> str:
    """A path as a shell wants it typed, and as no command takes it for an option."""
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)
