"""What lists and folders alone tell of a dataset: `csvi check` finds it, and training says it before its first step."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from csvi.data.layout import Layout, find_layout, protocols_of
from csvi.data.names import look_alikes
from csvi.data.records import DISTRACTOR, Benchmark, ImageRecord, Modality, paired_images
from csvi.errors import CsviError
from csvi.evaluate.protocols import NO_RULES, Protocol, answerable

UNPAIRED = "has images of both modalities: are the folders of people named alike in both?"
"""Predicate of nobody to train on."""
MISPLACED = "lies not directly in a person's folder and is not read"


@dataclass(frozen=True)
class Finding:
    """One thing that was found."""

    kind: str
    """One of `csvi.analysis.dataset_table.HEADINGS`; docs/data.md says which are problems and which are notes."""
    path: str
    """A file, relative to the root if it lies there, or people, cameras, a fold or a split."""
    message: str
    """Predicate of which the path is the subject: `is empty`."""


def before_training(benchmark: Benchmark) -> Iterator[str]:
    """Sentences on what a run would learn or be tested on otherwise than meant, for the log of training."""
    several: dict[str, list[Finding]] = defaultdict(list)
    for finding in (
        *_people_in_two_splits(benchmark),
        *distractors(benchmark),
        *searches(benchmark),
        *not_read(benchmark.unread),
        *misplaced(benchmark.misplaced),
    ):
        several[finding.kind].append(finding)
    for findings in several.values():
        more = f" (and {len(findings) - 1:,} more, which csvi check names)" if len(findings) > 1 else ""
        yield f"{findings[0].path} {findings[0].message}{more}"


def alike(benchmark: Benchmark) -> list[Finding]:
    """People, and cameras, that are two by their names and may be one; those in two splits come first."""
    across = _people_in_two_splits(benchmark)
    several = "look alike and count as several people: give them one name if they are one"
    people = [
        Finding("look-alike", _listed(names), several) for names, splits in _people_alike(benchmark) if len(splits) == 1
    ]
    cameras = [
        Finding("look-alike", f"cameras {_listed(names)}", "look alike and count as several cameras")
        for names in look_alikes(benchmark.cameras.values())
    ]
    return [*across, *people, *cameras]


def _people_in_two_splits(benchmark: Benchmark) -> list[Finding]:
    return [
        Finding(
            "look-alike",
            _listed(names),
            f"look alike and are in {_listed(splits)}: if they are one person, these share it and metrics are too "
            "good, so give them one name",
        )
        for names, splits in _people_alike(benchmark)
        if len(splits) > 1
    ]


def _people_alike(benchmark: Benchmark) -> list[tuple[list[str], list[str]]]:
    """Names that look alike, and the splits that they are in."""
    splits: dict[str, set[str]] = defaultdict(set)
    for split, records in benchmark.splits.items():
        for identity in {record.identity for record in records} - {DISTRACTOR}:
            splits[benchmark.name_of(identity)].add(split)
    return [
        (names, [split for split in benchmark.splits if any(split in splits[name] for name in names)])
        for names in look_alikes(splits)
    ]


def distractors(benchmark: Benchmark) -> Iterator[Finding]:
    """Splits with images of nobody known."""
    name = benchmark.name_of(DISTRACTOR)
    for split, records in benchmark.splits.items():
        images = sum(record.identity == DISTRACTOR for record in records)
        if images:
            where = "never trained on and in no gallery" if split == "train" else "in galleries alone"
            what = f"{images:,} image{'s' * (images > 1)} of {name}, distractors"
            message = f"has {what}, {where}: a person needs another name"
            yield Finding("distractor", _place(benchmark, split), message)


def searches(benchmark: Benchmark) -> Iterator[Finding]:
    """What the test split cannot answer: `nothing to score` if nothing, else `unanswerable` queries; or `no test`.

    Of each direction the first protocol is looked at, which heads results.
    """
    where = _place(benchmark, "test")
    if all(record.identity == DISTRACTOR for record in benchmark.test):
        yield Finding("no test", where, "has nobody to search for: what is trained cannot be evaluated here")
        return
    try:
        directions: dict[Modality, Protocol] = {}
        for protocol in protocols_of(benchmark, trials=1):
            for query in protocol.trials[0].query[:1]:
                directions.setdefault(benchmark.test[query].modality, protocol)
    except CsviError as error:
        yield Finding("nothing to score", where, f"cannot be searched: {error}")
        return
    counts = {protocol.name: answerable(protocol, benchmark.test) for protocol in directions.values()}
    known = [answerable(replace(protocol, rules=NO_RULES), benchmark.test)[1] for protocol in directions.values()]
    if not any(valid for _, valid in counts.values()):
        why = (
            "images of a person by the query's own camera do not count, so give each camera a number or name of its own"
            if any(known)
            else "people need visible and infrared images"
        )
        yield Finding("nothing to score", where, f"has no query with anything to find: {why}")
        return
    for name, (queries, valid) in counts.items():
        if valid < queries:
            message = f"has {queries - valid:,} of {queries:,} queries that find nothing and do not count, {name}"
            yield Finding("unanswerable", where, message)


def not_read(unread: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    """Files beside the images that are not read, by suffix → paths."""
    for suffix, paths in sorted(unread.items()):
        nor = _nor(paths, "file", suffix or "without a suffix")
        yield Finding("not read", paths[0], f"is not read{nor}: convert what is an image, to PNG say")


def misplaced(paths: Sequence[str]) -> Iterator[Finding]:
    """Images in no person's folder."""
    if paths:
        yield Finding("unnamed", paths[0], MISPLACED + _nor(paths, "image"))


def one_modality(benchmark: Benchmark) -> Iterator[Finding]:
    """People to train on with images of one modality alone, which training leaves out."""
    for split in ("train", "val"):  # val is trained on too, by default
        members: dict[int, list[ImageRecord]] = defaultdict(list)
        for record in benchmark.splits[split]:
            members[record.identity].append(record)
        members.pop(DISTRACTOR, None)
        for identity, images in members.items():
            if len({record.modality for record in images}) == 1:
                modality = images[0].modality.word
                message = f"has {modality} images only, such as {images[0].path}: training leaves it out"
                who = f"identity {benchmark.name_of(identity)} of {_place(benchmark, split)}"
                yield Finding("one modality", who, message)


def trainable(benchmark: Benchmark, batch: int) -> Iterator[Finding]:
    """A training set without anybody who has both modalities, or with `few people`: less than `batch`."""
    records = [*benchmark.train, *benchmark.val]
    if not records:  # a dataset to test on
        return
    people = len(paired_images(records))
    if not people:
        yield Finding("nothing to train", _place(benchmark, "train"), f"holds nobody who {UNPAIRED}")
    elif people < batch:
        message = f"counts {people} with both modalities, where a batch draws {batch} people: lower --data.identities"
        yield Finding("few people", _place(benchmark, "train"), message)


def place(layout: Layout, fold: int, split: str) -> str:
    """Name of a split, with its fold where the dataset has several."""
    return f"{split} of fold {fold}" if layout.folds > 1 else split


def _place(benchmark: Benchmark, split: str) -> str:
    return place(find_layout(benchmark.layout), benchmark.fold, split)


def _nor(paths: Sequence[str], what: str, suffix: str = "") -> str:
    more = len(paths) - 1
    number = f"are {more:,} more {what}s" if more > 1 else f"is 1 more {what}"
    return f", nor {number} {suffix}".rstrip() if more else ""


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names)
