"""Names of people: which are one name, which only look so, and which are nobody's; and names of cameras."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

CAMERA = re.compile(r"cam(?:era)?(?:[ _-](\w+)|(\d\w*))", re.IGNORECASE)
"""Name of a folder of a camera: cam3, camera_north; not campus."""
DISTRACTORS = ("-1", "0000")
"""Names of folders of distractors, as in the field: images of nobody known, and junk of a detector."""


def one_form(name: str) -> str:
    """The name in NFC: a Mac writes `é` as a letter and an accent, Linux as one sign, and both mean one name."""
    return unicodedata.normalize("NFC", name)


def likeness(name: str) -> str:
    """What names share that look alike: `anna` and `Anna`, `1` and `0001`, `a b` and `a  b `."""
    key = " ".join(one_form(one_form(name).casefold()).split())
    return (key.lstrip("0") or "0") if re.fullmatch("[0-9]+", key) else key


def look_alikes(names: Iterable[str]) -> list[list[str]]:
    """Groups of different names that look alike, each sorted."""
    groups: dict[str, set[str]] = defaultdict(set)
    for name in names:
        groups[likeness(name)].add(name)
    return [sorted(group) for group in groups.values() if len(group) > 1]
