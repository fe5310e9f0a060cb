"""Files of embeddings, and of what is known of each image: .npz, or Parquet for other programs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from csvi.config import RANGES, parse_range
from csvi.data.crops import Crops
from csvi.data.files import path_inside
from csvi.data.records import ImageRecord, Modality
from csvi.data.tables import is_time
from csvi.errors import CsviError, in_one_line
from csvi.npz import read_arrays
from csvi.paths import open_file
from csvi.plain import printable
from csvi.plugins import imported
from csvi.writing import replacing

SUFFIXES = (".npz", ".parquet")
AGAIN = "write it again with csvi embed"


@dataclass(frozen=True)
class Features:
    """Embeddings of n images, and what is known of each."""

    embedding: np.ndarray
    """(n, d) float32 or float16."""
    path: np.ndarray
    """(n,) of strings, as all that follow: paths relative to `root` of the facts."""
    modality: np.ndarray
    """`visible` or `infrared`."""
    camera: np.ndarray
    """Name of the camera; empty if none is known."""
    time: np.ndarray
    """ISO 8601; empty if none is known."""
    track: np.ndarray
    """Name of the track; empty if none is known."""
    facts: Mapping[str, Any]
    """`fingerprint` and `name` of the model, `dim`, `root`, `version` of csvi. Of csvi embed also `model`, see
    `Embedder.model`, `visible_range` and `infrared_range`, see `Crops.ranges`, `key` and `left_out`."""

    @classmethod
    def of(
        cls, embedding: np.ndarray, crops: Crops, records: Sequence[ImageRecord], facts: Mapping[str, Any]
    ) -> "Features":
        """Embeddings (n, d) of n crops, beside what is known of these."""
        rows = [{"path": record.path, **metadata(crops, record)} for record in records]
        columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
        return cls(embedding=embedding, facts=facts, **columns)

    def __len__(self) -> int:
        return len(self.embedding)

    def check(self, where: str) -> None:
        """Raises `CsviError`, beginning with `where`, if arrays do not fit together, or hold what they must not."""
        if fault := next(self._faults(), None):
            raise CsviError(f"{where}: {fault}; {AGAIN}")
        for row, path in enumerate(self.path.tolist()):
            path_inside(path, f"path {row} of {where}")

    def _faults(self) -> Iterator[str]:
        """What is wrong; what comes after the first may make no sense."""
        if self.embedding.ndim != 2 or self.embedding.dtype not in (np.float16, np.float32):
            yield f"its embeddings are of shape {self.embedding.shape} and type {self.embedding.dtype}"
        if not self.embedding.size:
            yield "it holds no embedding"
        if not (np.isfinite(self.embedding.min()) and np.isfinite(self.embedding.max())):
            yield "its embeddings hold NaN or infinity"
        for name, column in self.columns.items():
            if column.dtype.kind != "U" or column.shape != self.embedding.shape[:1]:
                yield f"{name} is of shape {column.shape} and type {column.dtype}"
        if self.facts.get("dim") != self.embedding.shape[1]:
            yield f"its embeddings are not of dim {self.facts.get('dim')}"
        facts = {"model": "", **dict.fromkeys(RANGES, "auto")} | dict(self.facts)
        for name in ("fingerprint", "name", "root", "model", *RANGES):
            if not isinstance(facts.get(name), str):
                yield f"it does not say its {name}"
        try:
            for name in RANGES:
                parse_range(name, facts[name])
        except CsviError as error:
            yield str(error)
        if len(np.unique(self.path)) < len(self.path):
            yield "it has two embeddings of one image"
        if other := set(np.unique(self.modality).tolist()) - {each.word for each in Modality}:
            yield f"modality holds {min(other)[:40]!r}"
        if wrong := [time for time in np.unique(self.time).tolist() if time and not is_time(time)]:
            yield f"time holds {wrong[0][:40]!r}"

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """What is known of the images, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)[1:-1]}

    def same_columns(self, other: "Features") -> bool:
        """Whether the same is known of the same images."""
        return all(np.array_equal(column, other.columns[name]) for name, column in self.columns.items())


def metadata(crops: Crops, record: ImageRecord) -> dict[str, str]:
    """What is known of a crop, in words; empty where nothing is."""
    return {
        "modality": record.modality.word,
        "camera": crops.name_of_camera(record.camera),
        "time": record.time or "",
        "track": record.track or "",
    }


def in_16_bits(embedding: np.ndarray) -> np.ndarray:
    """Round finite embeddings to float16; raises `CsviError` if one is beyond it."""
    with np.errstate(over="ignore"):
        rounded = embedding.astype(np.float16)
    if not np.isfinite(rounded).all():
        raise CsviError("embeddings hold numbers beyond 65,504, which 16 bits cannot hold: leave --half out")
    return rounded


def check_suffix(file: Path) -> None:
    """Raises `CsviError` if a file is of no kind that is written and read, or what does so is not installed."""
    if file.suffix not in SUFFIXES:
        raise CsviError(f"{file} must end in {' or '.join(SUFFIXES)}")
    if file.suffix == ".parquet":
        imported("pyarrow.parquet", "search", file.name)


def write_features(file: Path, features: Features) -> None:
    """Write a file of embeddings, completely or not at all; raises `CsviError` if it cannot be written."""
    check_suffix(file)
    features.check("the embeddings")
    facts = json.dumps(dict(features.facts))
    with replacing(file) as partial:
        if file.suffix == ".npz":
            arrays: dict[str, Any] = features.columns
            with partial.open("wb") as opened:
                np.savez(opened, embedding=features.embedding, facts=np.array(facts), **arrays)
        else:
            _write_parquet(partial, features, facts, file)


def read_features(file: Path) -> Features:
    """Read a file of embeddings; raises `CsviError` if there is none, or it is damaged or another's."""
    check_suffix(file)
    arrays = _read_npz(file) if file.suffix == ".npz" else _read_parquet(file)
    try:
        facts = json.loads(str(arrays.pop("facts")))
        features = Features(**arrays, facts=printable(dict(facts)))
    except (ValueError, TypeError, RecursionError) as error:
        raise CsviError(f"{file} does not say which model its embeddings are of: {AGAIN}") from error
    features.check(str(file))
    return features


def _read_npz(file: Path) -> dict[str, np.ndarray]:
    shapes = {field.name: "(n,)" for field in fields(Features)} | {"embedding": "(n, d)", "facts": "()"}
    return read_arrays(file, shapes)


def _write_parquet(partial: Path, features: Features, facts: str, file: Path) -> None:
    arrow, parquet = (imported(name, "search", file.name) for name in ("pyarrow", "pyarrow.parquet"))
    values = arrow.array(features.embedding.reshape(-1))
    try:
        columns = {name: arrow.array(column.tolist()) for name, column in features.columns.items()}
    except UnicodeEncodeError as error:  # of a file system whose names are not
        raise CsviError(f"{file} holds UTF-8 alone, and the name of an image is none: write an .npz") from error
    columns["embedding"] = arrow.FixedSizeListArray.from_arrays(values, features.embedding.shape[1])
    table = arrow.table(columns).replace_schema_metadata({"csvi": facts})
    parquet.write_table(table, partial, use_dictionary=["modality", "camera"])


def _read_parquet(file: Path) -> dict[str, Any]:
    parquet = imported("pyarrow.parquet", "search", file.name)
    try:
        with open_file(file) as opened:
            table = parquet.read_table(opened)
        arrays: dict[str, Any] = {"facts": (table.schema.metadata or {})[b"csvi"].decode()}
        for field in fields(Features)[1:-1]:
            arrays[field.name] = np.array(table[field.name].to_pylist(), str)
        chunks = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in table["embedding"].chunks]
        arrays["embedding"] = np.concatenate(chunks).reshape(len(table), -1)
    except OSError as error:
        if error.strerror:
            raise CsviError(f"cannot read {file}: {error.strerror}") from error
        raise CsviError(f"{file} is damaged or no Parquet file: {in_one_line(error)}") from error
    except Exception as error:  # of pyarrow's own, or of columns that are missing or others
        raise CsviError(f"{file} is no Parquet file of csvi ({in_one_line(error)}): {AGAIN}") from error
    return arrays
