"""Dataclasses from JSON, as strangers may have written it."""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Literal

import pytest

from csvi.plain import from_plain


@dataclass
class Inner:
    value: float
    kind: Literal["a", "b"] = "a"


@dataclass
class Outer:
    name: str
    count: int
    found: dict[str, Inner]
    flags: list[bool] = field(default_factory=list)
    inner: Inner | None = None


WHOLE = Outer("n", 3, {"x": Inner(0.5, "b"), "y": Inner(1.0)}, [True, False], Inner(2.0))


def test_there_and_back():
    assert from_plain(Outer, json.loads(json.dumps(dataclasses.asdict(WHOLE)))) == WHOLE


def test_what_has_a_default_may_be_left_out():
    assert from_plain(Outer, {"name": "n", "count": 3, "found": {}}) == Outer("n", 3, {})


def test_whole_numbers_are_numbers():
    found = from_plain(Inner, {"value": 2})
    assert found == Inner(2.0)
    assert type(found.value) is float


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": None}, "name is 'None'"),
        ({"count": 3.0}, "count is '3.0'"),
        ({"count": True}, "count is 'True'"),
        ({"count": "3"}, "count is '3'"),
        ({"count": 10**30}, "count is '1000"),
        ({"found": []}, r"found is '\[\]'"),
        ({"found": {"x": {}}}, "found has no value"),
        ({"found": {"x": {"value": float("nan")}}}, "value is 'nan'"),
        ({"found": {"x": {"value": float("inf")}}}, "value is 'inf'"),
        ({"found": {"x": {"value": True}}}, "value is 'True'"),
        ({"found": {"x": {"value": 1, "kind": "c"}}}, "kind is 'c'"),
        ({"found": {"x": {"value": 1, "kind": ["a"]}}}, r"kind is \S\['a'\]"),
        ({"flags": [1]}, "flags is '1'"),
        ({"flags": {}}, "flags is"),
        ({"inner": 3}, "inner is '3'"),
        ({"more": 1}, "it has more"),
    ],
)
def test_everything_else_is_refused_and_named(change, message):
    with pytest.raises(ValueError, match=message):
        from_plain(Outer, dataclasses.asdict(WHOLE) | change)


def test_something_missing_is_named():
    with pytest.raises(ValueError, match="it has no found"):
        from_plain(Outer, {"name": "n", "count": 3})


@pytest.mark.parametrize("value", [None, 3, "text", [], [{}]])
def test_no_object_at_all(value):
    with pytest.raises(ValueError, match="it is"):
        from_plain(Outer, value)
