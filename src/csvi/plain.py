"""Dataclasses from what JSON holds, with every type checked."""

import dataclasses
import re
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""Characters that a terminal obeys and does not show."""


def printable(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Copy what a stranger's file says of itself, with a `?` for each control character of its texts."""
    return {name: CONTROL.sub("?", value) if isinstance(value, str) else value for name, value in facts.items()}


def from_plain(kind: Any, value: Any, where: str = "it") -> Any:
    """Build a value of this type: the inverse of `dataclasses.asdict` and JSON.

    Args:
        kind: a dataclass, or a list, dict by names, Literal, union, str, bool, int or finite float.
        value: of dicts, lists and plain values.
        where: the name of the value in errors.

    Raises:
        ValueError: it is of another type, lacks something, or has something more.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        hints = get_type_hints(kind)
        needed = {f.name for f in dataclasses.fields(kind) if f.default is f.default_factory is dataclasses.MISSING}
        if missing := needed - value.keys():
            raise ValueError(f"{where} has no {min(missing)}")
        if unknown := value.keys() - {f.name for f in dataclasses.fields(kind)}:
            raise ValueError(f"{where} has {min(map(str, unknown))}")
        return kind(**{name: from_plain(hints[name], item, name) for name, item in value.items()})  # type: ignore[operator]
    if origin is list and isinstance(value, list):
        return [from_plain(arguments[0], item, where) for item in value]
    if origin is dict and isinstance(value, dict):
        return {str(name): from_plain(arguments[1], item, where) for name, item in value.items()}
    if origin is Literal and value in arguments:
        return value
    if origin in (Union, types.UnionType):
        for each in arguments:
            if (value is None) == (each is type(None)):
                return value if value is None else from_plain(each, value, where)
    if kind is float and type(value) in (int, float) and abs(value) < 1e15:  # which NaN is not, either
        return float(value)
    if kind is int and type(value) is int and abs(value) < 10**15:
        return value
    if kind in (str, bool) and type(value) is kind:
        return value
    raise ValueError(f"{where} is {str(value)[:40]!r}")
