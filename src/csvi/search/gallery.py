"""A gallery: embeddings of crops in a collection of Milvus, with what is known of each crop.

One image is one row, whose key is the path of the image relative to the gallery's root: adding it again replaces it.
What `add` has returned from is kept, also if the process is killed the next instant: Milvus logs before it answers.
Which model the embeddings are of stands in the properties of the collection; those of another model are refused.
"""

import dataclasses
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

import csvi
from csvi.config import RANGES, DataConfig
from csvi.errors import CsviError
from csvi.paths import expanded
from csvi.plain import from_plain, printable
from csvi.search.features import in_16_bits
from csvi.search.milvus import Milvus, is_local, quoted

log = logging.getLogger(__name__)

COLLECTION = "csvi"
COLLECTIONS = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
"""Names that a collection may have; those of Milvus."""
PROPERTY = "csvi"
"""Property of a collection that holds its facts, as JSON; so does its description, as it was made."""
SENT_BYTES = 2**22
"""Embeddings that are sent at once; Milvus takes 64 MB."""
PAGE = 10_000
"""Rows that are read at once; Milvus gives 16,384."""
NAMED = 1000
"""Images that one condition names, at most."""
MANY = 50_000
"""Images beyond which an approximate index is worth the minutes that it takes to build."""
NO_TIME = -(2**53)
"""Seconds of an image whose time is not known: before all others."""
ENOUGH = 16
"""Embeddings that are not all of one length by chance."""
LONGEST_PATH, LONGEST_NAME = 4096, 1024
"""Bytes of a path, and of the name of a camera or a track."""

Metric = Literal["cosine", "l2"]
Index = Literal["FLAT", "HNSW", "HNSW_SQ", "DISKANN"]
METRICS: dict[Metric, str] = {"cosine": "IP", "l2": "L2"}
"""Metric → Milvus's. Its COSINE would have Milvus Lite bring all embeddings to length 1 for every search."""
BUILD: dict[Index, dict[str, int]] = {
    "FLAT": {},
    "HNSW": {"M": 16, "efConstruction": 200},
    "HNSW_SQ": {"M": 16, "efConstruction": 200},
    "DISKANN": {},
}
"""Index → the settings that it is built with. FLAT is exact; DISKANN is of servers alone."""
CANDIDATES = 128
"""Images that an approximate index looks at more closely, at least."""
CANDIDATES_IF_FILTERED = 4096
"""The same where conditions leave out images: the graph of HNSW also leads through these, and they count."""
LONGEST_LIST = 65_535
"""The same of DISKANN, at most: a server keeps the list in order in its memory for every search, and versions of Milvus
limit it (2.2 to this number)."""
GONE = {"metric": ["ip"], "index": ["IVF_FLAT", "IVF_SQ8"]}
"""Facts that a gallery of an earlier csvi may have."""


@dataclass(frozen=True)
class Facts:
    """What a gallery is of, and how it is kept."""

    fingerprint: str
    """Of the model; see `Embedder.fingerprint`."""
    name: str
    """Of the model, for people to read."""
    dim: int
    """Numbers of an embedding."""
    metric: Metric
    index: Index
    half: bool
    """Whether embeddings are kept in 16 bits."""
    root: str
    """Folder that the paths of the images are relative to."""
    model: str = ""
    """What embedded the images, see `Embedder.model`; empty if that is not known."""
    version: str = csvi.__version__
    visible_range: str = "auto"
    """Range that visible images of more than 8 bits were read in; `auto` if there were none."""
    infrared_range: str = "auto"

    def read_as(self, data: DataConfig) -> DataConfig:
        """Copy settings of images with the ranges that those of the gallery were read in, where it has some."""
        return dataclasses.replace(data, **{name: own for name in RANGES if (own := getattr(self, name)) != "auto"})


@dataclass(frozen=True)
class Entry:
    """An image of a gallery, and what is known of it; empty where nothing is."""

    path: str
    """Relative to the root of the gallery."""
    modality: str
    """`visible` or `infrared`."""
    camera: str
    time: str
    """ISO 8601."""
    track: str


@dataclass(frozen=True)
class Hit(Entry):
    """An image that was found."""

    similarity: float
    """Larger is more alike: the cosine; for l2, 1 / (1 + distance)."""
    distance: float
    """Smaller is more alike: 1 - cosine, or the Euclidean distance."""


KNOWN = [field.name for field in dataclasses.fields(Entry)]


class Gallery:
    """A gallery that is open; a context manager, which closes it. Made by `open_gallery` and `make_gallery`."""

    def __init__(self, milvus: Milvus, collection: str, facts: Facts):
        self._milvus, self._client, self._collection = milvus, milvus.client, collection
        self.facts = facts
        self.name = milvus.name
        """For people to read."""
        self.settle()

    def __enter__(self) -> "Gallery":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the gallery; another process may then open one of Milvus Lite."""
        self._milvus.close()

    @property
    def root(self) -> Path:
        """Folder that the paths of the images are relative to."""
        return Path(self.facts.root)

    @property
    def bytes_on_disk(self) -> int | None:
        """Length of the files of Milvus Lite; None for a server, which does not say."""
        if self._milvus.local is None:
            return None
        return sum(file.stat().st_size for file in self._milvus.local.rglob("*") if file.is_file())

    def is_slow(self, images: int) -> bool:
        """Whether so many images are so many that another index than none would answer much faster."""
        return self._milvus.local is not None and self.facts.index == "FLAT" and images > MANY

    def check_model(self, fingerprint: str, name: str, dim: int) -> None:
        """Raises `CsviError` unless embeddings of this model can be compared with the gallery's."""
        own = self.facts
        if (fingerprint, dim) != (own.fingerprint, own.dim):
            raise CsviError(
                f"the gallery {self.name} holds embeddings by {own.name} ({own.fingerprint}, {own.dim} numbers), which "
                f"cannot be compared with those by {name} ({fingerprint}, {dim} numbers): use its model, or another "
                "gallery"
            )

    def __len__(self) -> int:
        """Count the images."""
        with self._milvus.speaking("read"):
            (answer,) = self._client.query(self._collection, filter="", output_fields=["count(*)"])
        return int(answer["count(*)"])

    def add(self, embeddings: np.ndarray, entries: Sequence[Entry]) -> None:
        """Add images, or replace them; it returns when they are kept.

        Args:
            embeddings: (n, dim) float16 or float32.
            entries: of the same images.

        Raises:
            CsviError: embeddings are of another length or hold NaN, infinity or what 16 bits cannot hold, or Milvus
                refuses them.
        """
        vectors = self._kept(embeddings)
        rows = [
            dataclasses.asdict(entry) | {"seconds": seconds_of(entry.time), "embedding": vector}
            for entry, vector in zip(entries, vectors, strict=True)
        ]
        step = max(1, SENT_BYTES // (vectors.itemsize * self.facts.dim))
        for start in range(0, len(rows), step):
            with self._milvus.speaking("add images to"):
                self._client.upsert(self._collection, rows[start : start + step])

    def there(self, paths: Sequence[str]) -> dict[str, Entry]:
        """Look up images by their paths, which need not be there."""
        found: dict[str, Entry] = {}
        for named in _naming(paths):
            with self._milvus.speaking("read"):
                rows = self._client.query(self._collection, filter=named, output_fields=KNOWN)
            found |= {row["path"]: _entry(row) for row in rows}
        return found

    def embeddings(self, paths: Sequence[str]) -> np.ndarray:
        """Look up the embeddings of those images that are there: (n, dim) float32, in their order."""
        found: dict[str, Any] = {}
        for named in _naming(paths):
            with self._milvus.speaking("read"):
                rows = self._client.query(self._collection, filter=named, output_fields=["path", "embedding"])
            found |= {row["path"]: row["embedding"] for row in rows}
        vectors = [found[path] for path in paths if path in found]
        if self.facts.half:  # each comes as bytes
            vectors = [np.frombuffer(b"".join(vector), np.float16) for vector in vectors]
        return np.array(vectors, np.float32).reshape(-1, self.facts.dim)

    def entries(self, condition: str = "") -> Iterator[Entry]:
        """List images by path.

        Args:
            condition: in Milvus's filter language, see `Where.condition`; by default all images are listed.
        """
        after, more = "", True
        while more:  # pymilvus's own iterator does not escape the path that it goes on behind
            behind = f"path > {quoted(after)}" + (f" and ({condition})" if condition else "")
            with self._milvus.speaking("read"):
                rows = self._client.query(
                    self._collection, filter=behind, output_fields=KNOWN, limit=PAGE, iterator="True"
                )  # fmt: skip
            yield from map(_entry, rows)
            more = len(rows) == PAGE
            after = rows[-1]["path"] if rows else after

    def counts(self) -> Counter[tuple[str, str]]:
        """Count the images of each modality and camera."""
        return Counter((entry.modality, entry.camera) for entry in self.entries())

    def nearest(self, vector: np.ndarray, limit: int, condition: str = "") -> list[Hit]:
        """Find the nearest images, nearest first; equally near ones in any order.

        Args:
            vector: (dim,).
            limit: how many, at most 16,384.
            condition: that they meet, see `Where.condition`.
        """
        hits = self._search(vector, limit, condition, CANDIDATES_IF_FILTERED if condition else CANDIDATES)
        if len(hits) < limit and self.facts.index != "FLAT":
            count = len(self)  # as many candidates as there are images miss none
            if len(hits) < count:
                hits = self._search(vector, limit, condition, count)
        return hits

    def remove(self, paths: Sequence[str]) -> None:
        """Remove images."""
        for named in _naming(paths):
            with self._milvus.speaking("remove images from"):
                self._client.delete(self._collection, filter=named)

    def drop(self) -> None:
        """Remove the gallery with everything that it holds; it cannot be used any more."""
        with self._milvus.speaking("remove"):
            self._client.drop_collection(self._collection)

    def move(self, root: Path) -> None:
        """Take another folder for the one that paths are relative to; raises `CsviError` if it is none."""
        if not root.is_dir():
            raise CsviError(f"no folder {root}: --root is where the images of the gallery {self.name} lie now")
        self.change(root=absolute(root))

    def change(self, **what: Any) -> None:
        """Change facts; another index takes effect with `settle`."""
        facts = dataclasses.replace(self.facts, **what)
        _check_lite(self._milvus.local is not None, facts)
        with self._milvus.speaking("write"):
            self._client.alter_collection_properties(self._collection, {PROPERTY: _as_json(facts)})
        self.facts = facts

    def settle(self) -> None:
        """Make what was added quick to search: build the index that the facts name, if it is another or none yet.

        Milvus Lite answers exactly without an index, and would keep all embeddings twice for FLAT. It is slow to search
        what is only in its log; and a kill may leave it an index that is cut off, which is then built anew.
        """
        with self._milvus.speaking("read"):
            local = self._milvus.local is not None
            if local:
                self._client.flush(self._collection)
            built = self._client.list_indexes(self._collection)
            kind = self._client.describe_index(self._collection, built[0])["index_type"] if built else None
            wanted = None if local and self.facts.index == "FLAT" else self.facts.index
            if kind != wanted:
                self._build(built, wanted)
            try:
                self._client.load_collection(self._collection)
            except Exception:
                if not (local and wanted):
                    raise
                self._build(self._client.list_indexes(self._collection), wanted)
                self._client.load_collection(self._collection)

    def _build(self, built: Sequence[str], wanted: Index | None) -> None:
        """Drop an index, and build another."""
        if built:
            self._client.release_collection(self._collection)
            self._client.drop_index(self._collection, built[0])
        if wanted:
            log.info("building the index %s", wanted)
            self._client.create_index(self._collection, _index_of(self._client, wanted, self.facts.metric))

    def _search(self, vector: np.ndarray, limit: int, condition: str, candidates: int) -> list[Hit]:
        names = {"HNSW": "ef", "HNSW_SQ": "ef", "DISKANN": "search_list"}
        most = min(candidates, LONGEST_LIST) if self.facts.index == "DISKANN" else candidates
        own = {names[self.facts.index]: max(most, limit)} if self.facts.index in names else {}
        with self._milvus.speaking("search"):
            (found,) = self._client.search(
                self._collection,
                list(self._kept(vector[None])),
                limit=limit,
                filter=condition,
                output_fields=KNOWN,
                search_params={"metric_type": METRICS[self.facts.metric], "params": own},
            )
        return [self._hit(row) for row in found]

    def _kept(self, embeddings: np.ndarray) -> np.ndarray:
        """Embeddings as they are kept, (n, dim) float32 or float16; those that are compared by cosine at length 1.

        Raises `CsviError` if they are of another length, or hold NaN or infinity, which would rank anywhere, or what 16
        bits cannot hold.
        """
        if embeddings.shape[1:] != (self.facts.dim,):
            raise CsviError(
                f"the gallery {self.name} holds embeddings of {self.facts.dim} numbers, and these have the shape "
                f"{embeddings.shape}: use its model"
            )
        if not np.isfinite(embeddings).all():
            raise CsviError(f"{self.facts.name} made embeddings that hold NaN or infinity: the model is damaged")
        if self.facts.metric == "cosine":
            lengths = np.linalg.norm(embeddings.astype(np.float32, copy=False), axis=1, keepdims=True)
            embeddings = embeddings / np.maximum(lengths, np.finfo(np.float32).tiny)
        return in_16_bits(embeddings) if self.facts.half else embeddings.astype(np.float32, copy=False)

    def _hit(self, row: Mapping[str, Any]) -> Hit:
        value = float(row["distance"])  # as Milvus calls it: the inner product, or the squared distance
        if self.facts.metric == "l2":
            distance = max(value, 0.0) ** 0.5
            similarity = 1 / (1 + distance)
        else:
            distance, similarity = 1 - value, value
        known = {"path": row["path"]} | {name: row["entity"][name] for name in KNOWN[1:]}
        return Hit(**known, similarity=similarity, distance=distance)


def open_gallery(uri: str | os.PathLike[str], collection: str = COLLECTION) -> Gallery:
    """Open a gallery.

    Args:
        uri: a file name that ends in .db, or the address of a server; see `Milvus`.
        collection: name of the gallery there.

    Raises:
        CsviError: there is none, it is damaged or in use, or the collection is not one of csvi.
    """
    _check_name(collection)
    milvus = Milvus(os.fspath(uri))
    try:
        with milvus.speaking("read"):
            there = milvus.client.has_collection(collection)
        if not there:
            raise CsviError(f"no gallery {collection!r} in {milvus.name}: make it with csvi index add")
        return Gallery(milvus, collection, _facts_of(milvus, collection))
    except BaseException:
        milvus.close()
        raise


def facts_of(uri: str, collection: str = COLLECTION) -> Facts | None:
    """Read what a gallery is of, and leave its images alone; None if it is not there yet; raises as `open_gallery`."""
    _check_name(collection)
    if is_local(uri) and uri.endswith(".db") and not expanded(uri).exists():
        return None
    with Milvus(uri) as milvus:
        with milvus.speaking("read"):
            there = milvus.client.has_collection(collection)
        return _facts_of(milvus, collection) if there else None


def make_gallery(uri: str | os.PathLike[str], facts: Facts, collection: str = COLLECTION) -> Gallery:
    """Open a gallery of these facts, which is made if it is not there yet.

    Raises:
        CsviError: there is one of another model, metric or precision; Milvus Lite cannot keep one of these facts; or as
            `open_gallery`.
    """
    uri = os.fspath(uri)
    _check_name(collection)
    _check_lite(is_local(uri), facts)
    milvus = Milvus(uri, new=True)
    try:
        with milvus.speaking("write"):
            if not milvus.client.has_collection(collection):
                _create(milvus, collection, facts)
        gallery = Gallery(milvus, collection, _facts_of(milvus, collection))
        gallery.check_model(facts.fingerprint, facts.name, facts.dim)
        return gallery
    except BaseException:
        milvus.close()
        raise


def default_index(uri: str) -> Index:
    """Choose the index of a new gallery: exact in a file, approximate on a server, where there will be many images."""
    return "FLAT" if is_local(uri) else "HNSW"


def metric_of(embeddings: np.ndarray) -> Metric:
    """Choose the metric that ranks as the Euclidean distance does, by which models of csvi are compared.

    l2 always does. The cosine does if all embeddings are of one length, as those of csvi's methods are: their lengths
    differ by less than 1 % of how far the embeddings lie from their mean (root mean square). That leaves room for
    networks that round the length which they divide by to bfloat16.

    Args:
        embeddings: (n, dim) float16 or float32, of images that differ.
    """
    if len(embeddings) < ENOUGH:
        return "l2"
    vectors = embeddings.astype(np.float32, copy=False)
    lengths, scatter = np.linalg.norm(vectors, axis=1), np.linalg.norm(vectors[:4096].std(axis=0))
    return "cosine" if np.ptp(lengths) < 0.01 * scatter else "l2"


def seconds_of(time: str) -> int:
    """Convert a time in ISO 8601 to whole seconds since 1970, UTC, which it is taken for if it names no zone."""
    if not time:
        return NO_TIME
    moment = datetime.fromisoformat(time)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() // 1)


def absolute(path: str | os.PathLike[str]) -> str:
    """Write a path in full, without `..`; links stay."""
    return os.path.normpath(Path(path).absolute())


def path_in(root: Path, file: str | os.PathLike[str]) -> str:
    """Path of an image relative to the root of a gallery; raises `CsviError` if it lies outside."""
    path = Path(absolute(file))
    if not path.is_relative_to(root):
        raise CsviError(
            f"{path} lies outside of {root}, the root of the gallery: make another gallery, with --root at a folder "
            "above all images, or say with csvi index move where its images have been moved to"
        )
    return path.relative_to(root).as_posix()


def _create(milvus: Milvus, collection: str, facts: Facts) -> None:
    kind, client = milvus.types, milvus.client
    schema = client.create_schema(auto_id=False, description=_as_json(facts))
    schema.add_field("path", kind.VARCHAR, is_primary=True, max_length=LONGEST_PATH)
    schema.add_field("embedding", kind.FLOAT16_VECTOR if facts.half else kind.FLOAT_VECTOR, dim=facts.dim)
    for name in KNOWN[1:]:
        schema.add_field(name, kind.VARCHAR, max_length=LONGEST_NAME)
    schema.add_field("seconds", kind.INT64)
    client.create_collection(
        collection, schema=schema, consistency_level="Strong", properties={PROPERTY: _as_json(facts)}
    )


def _index_of(client: Any, index: Index, metric: Metric) -> Any:
    parameters = client.prepare_index_params()
    parameters.add_index("embedding", index_type=index, metric_type=METRICS[metric], params=BUILD[index])
    return parameters


def _check_lite(local: bool, facts: Facts) -> None:
    """Raises `CsviError` if this is a gallery of Milvus Lite, and that cannot keep one of these facts."""
    if local and facts.half:
        raise CsviError(
            "Milvus Lite keeps embeddings in 32 bits alone: leave --half out (--dimensions saves as much), or name a "
            "server"
        )
    if local and facts.index == "DISKANN":
        raise CsviError("Milvus Lite has no index DISKANN: choose another, or name a server")


def _check_name(collection: str) -> None:
    """Raises `CsviError` if Milvus has no collections of such a name."""
    if not COLLECTIONS.fullmatch(collection):
        raise CsviError(
            f"{collection!a} is no name of a collection: it must be of letters from A to Z, digits and "
            "underscores, and begin with no digit"
        )


def _as_json(facts: Facts) -> str:
    return json.dumps(dataclasses.asdict(facts))


def _facts_of(milvus: Milvus, collection: str) -> Facts:
    with milvus.speaking("read"):
        described = milvus.client.describe_collection(collection)
    try:
        kept = described["properties"].get(PROPERTY) or described["description"]  # Milvus Lite has no description
        plain = printable(json.loads(kept))
        if gone := [f"{name} {plain[name]}" for name, values in GONE.items() if plain[name] in values]:
            raise CsviError(
                f"the gallery {collection!r} in {milvus.name} is of an earlier csvi ({', '.join(gone)}): fill it anew, "
                "in another file or --collection"
            )
        facts: Facts = from_plain(Facts, plain)
        return facts
    except (KeyError, ValueError, AttributeError) as error:
        raise CsviError(
            f"the collection {collection!r} in {milvus.name} is none of csvi: name another with --collection"
        ) from error


def _naming(paths: Sequence[str]) -> Iterator[str]:
    """Conditions that name these images, some at a time."""
    for start in range(0, len(paths), NAMED):
        yield f"path in [{', '.join(map(quoted, paths[start : start + NAMED]))}]"


def _entry(row: Mapping[str, Any]) -> Entry:
    return Entry(**{name: row[name] for name in KNOWN})
