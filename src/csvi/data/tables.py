"""Tables of images: a header and a line an image, with commas, semicolons or tabs between fields."""

import csv
import io
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

from csvi.data.files import as_on_disk, path_inside, read_text
from csvi.data.records import Modality
from csvi.errors import CsviError

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
"""What stands between the fields of a table → its name; Excel writes semicolons where a comma is in decimal numbers."""

log = logging.getLogger(__name__)


def read_table(
    file: Path, title: str, needed: Iterable[str], optional: Iterable[str], others: bool = False
) -> Iterator[tuple[str, dict[str, str]]]:
    """Read a table of images in UTF-8, or UTF-16 with the mark that it begins with.

    Args:
        file: in the folder that its paths are relative to.
        title: what comes with such a file, for errors.
        needed, optional: columns, in any order and any case; `path` is one of those needed.
        others: whether there may be other columns, which are passed over and named in the log.

    Yields:
        Where a line stands, for errors, and its fields without blanks around them; `path` as it is on disk. Lines
        without any field are passed over.

    Raises:
        CsviError: it cannot be read, lacks a column, a line has not as many fields as the header, or a path leads out
            of the folder or was there before.
    """
    text = read_text(file, title)
    before, separator = _separator(text)
    skipped = len(re.findall(r"\r\n|\r|\n", text[:before]))
    reader = csv.DictReader(io.StringIO(text[before:], newline=""), strict=True, delimiter=separator)
    try:
        header = reader.fieldnames = [name.strip().casefold() for name in reader.fieldnames or ()]
        _check_header(file, header, separator, tuple(needed), tuple(optional), others)
        seen: set[str] = set()
        for fields in reader:
            place = f"line {reader.line_num + skipped} of {file}"
            if None in fields or None in fields.values():
                raise CsviError(f"{place} has not as many fields as the header, {len(header)}")
            line = {name: value.strip() for name, value in fields.items()}
            if not any(line.values()):  # spreadsheets leave such lines behind
                continue
            line["path"] = as_on_disk(file.parent, path_inside(line["path"], place))
            if line["path"] in seen:
                raise CsviError(f"{place} names {line['path']} again: every image must be listed once")
            seen.add(line["path"])
            yield place, line
    except csv.Error as error:
        place = f"line {reader.reader.line_num + skipped} of {file}"
        raise CsviError(f"{place} is not one of a table with {SEPARATORS[separator]}: {error}") from error


def one_of(line: Mapping[str, str], name: str, choices: Iterable[str], place: str, default: str = "") -> str:
    """The value of a column that has some choices, in small letters; raises `CsviError` if it is none of them."""
    text = line.get(name) or default
    if text.casefold() not in choices:
        raise CsviError(f"{place} has the {name} {text[:40]!r}: choose one of {', '.join(choices)}")
    return text.casefold()


def modality_of(line: Mapping[str, str], place: str) -> Modality:
    """The modality of a line; raises `CsviError` if it is neither visible nor infrared."""
    return Modality[one_of(line, "modality", [modality.word for modality in Modality], place).upper()]


def time_of(line: Mapping[str, str], place: str) -> str | None:
    """The time of a line, ISO 8601, if it has one; raises `CsviError` if it is written in another way."""
    time = line.get("time") or None
    if time and not is_time(time):
        raise CsviError(f"{place} has the time {time[:40]!r}: write it as 2024-05-01T12:00:00")
    return time


def is_time(text: str) -> bool:
    """Whether a text is a time in ISO 8601."""
    try:
        return bool(datetime.fromisoformat(text))
    except ValueError:
        return False


def is_number(name: str) -> bool:
    """Whether a name is that of a camera or an identity that stays as it is: up to nine digits."""
    return bool(re.fullmatch(r"[0-9]{1,9}", name))


def numbers_of(names: Iterable[str], first: int) -> dict[str, int]:
    """Number names: by themselves if all are integers, and different ones; else from `first` on in their order."""
    names = sorted(names)
    if all(map(is_number, names)) and len({int(name) for name in names}) == len(names):
        return {name: int(name) for name in names}
    return {name: n for n, name in enumerate(names, start=first)}


def _check_header(
    file: Path, header: list[str], separator: str, needed: tuple[str, ...], optional: tuple[str, ...], others: bool
) -> None:
    unknown = [name for name in header if name not in (*needed, *optional)]
    refused = [] if others else unknown
    missing = [name for name in needed if name not in header]
    if missing or refused or len(set(header)) < len(header):
        wrong = f"no column {missing[0]}" if missing else f"the column {refused[0]!r}" if refused else "one twice"
        raise CsviError(
            f"{file} has {wrong}: with {SEPARATORS[separator]} between fields, its first line must hold "
            f"{', '.join(needed)} and, if you like, {', '.join(optional)}, and holds {', '.join(header)[:80]!r}"
        )
    if unknown:
        log.info("%s: not read: %s", file, ", ".join(unknown))


def _separator(text: str) -> tuple[int, str]:
    """Where the header of a table begins, and what stands between fields: as `sep=;` before it says, or it shows."""
    blank = re.match(r"\s*", text)
    begin = blank.end() if blank else 0
    if said := re.match(r'"?sep=([,;\t])"?[,;\t]*(\r\n|\r|\n)', text[begin:], re.IGNORECASE):
        return begin + said.end(), said[1]
    header = re.split(r"[\r\n]", text[begin:], maxsplit=1)[0]
    return begin, max(SEPARATORS, key=header.count)
