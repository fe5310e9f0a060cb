"""Code that is found by its name: classes, of the package and of other people, and packages of an extra."""

import importlib
import importlib.util
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from csvi.errors import CsviError, in_one_line
from csvi.paths import digest_of


def find(name: str, known: Mapping[str, str], kind: type, what: str) -> type[Any]:
    """Import a class.

    A module of other people is looked for where Python looks. csvi does not add the current folder (`python -m csvi`
    does): it may be a stranger's, and so may the file that names the class.

    Args:
        name: a key of `known` (short name → `module:Class`), or `module:Class`.
        kind: class that it must derive from, called `what` in errors.

    Raises:
        CsviError: no such name, module or class, or it derives from something else.
    """
    module, _, attribute = known.get(name, name).partition(":")
    if not attribute or not module.replace(".", "").isidentifier():
        raise CsviError(f"unknown {what} {name!r}: choose one of {', '.join(known)}, or name a class as module:Class")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except Exception as error:  # a module of somebody else may raise anything
        not_found = isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}.")
        advice = ": put its folder on PYTHONPATH" if not_found else ""
        raise CsviError(f"cannot import the {what} {name} ({failure(error, module)}){advice}") from error
    if not isinstance(found, type) or not issubclass(found, kind):
        raise CsviError(
            f"{name} is no {what}: it must name a class that derives from {kind.__module__}.{kind.__name__}"
        )
    return found


def digest_of_code(name: str, known: Mapping[str, str]) -> str:
    """Digest the file of a class of other people, `module:Class`; empty for one of `known`, and where there is no file.

    What that file imports is not looked at.
    """
    if name in known:
        return ""
    try:
        found = importlib.util.find_spec(name.partition(":")[0])
        return digest_of(Path(found.origin)) if found and found.has_location and found.origin else ""
    except (ImportError, ValueError, CsviError):
        return ""


def failure(error: BaseException, name: str) -> str:
    """Say in one line what code of somebody else has raised, and where: `KeyError: 'e', corridor.py:15`.

    The place is the innermost line of the package of `name` (`module` or `module:Class`), if any of it took part.
    """
    package = name.partition(":")[0].partition(".")[0]
    places = [
        f"{Path(frame.f_code.co_filename).name}:{line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__")).partition(".")[0] == package
    ]
    said = filter(None, (type(error).__name__, in_one_line(error)))
    return ", ".join([": ".join(said), *places[-1:]])


def imported(module: str, extra: str, what: str) -> Any:
    """Import a module that an extra of csvi installs; raises `CsviError` if it is not there: `what` needs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise CsviError(f"{what} needs {module.partition('.')[0]}: pip install 'csvi[{extra}]'") from error
