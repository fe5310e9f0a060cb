"""`csvi index`: galleries of embeddings, which `csvi search` searches."""

import dataclasses
import fnmatch
import json
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from jsonargparse import Namespace

from csvi.commands.options import (
    FOR_RAY,
    MODALITIES,
    SOURCE,
    add_crop_options,
    add_engine_options,
    add_gallery_options,
    add_model_options,
    add_where_options,
    crops_of,
    embedder_of,
    engine_of,
    where_of,
)
from csvi.commands.parser import Parser
from csvi.config import RANGES
from csvi.errors import CsviError
from csvi.paths import as_argument, expanded

if TYPE_CHECKING:
    from csvi.search.gallery import Entry, Gallery

SUMMARY = "Fill galleries of embeddings to search, in a file or on a Milvus server."
WORDS = ("add", "info", "list", "move", "remove")
CONDITIONS = ("path", "modality", "camera", "since", "until", "track")
"""Options of `list` and `remove` that choose images."""
FOR_IMAGES = (
    "run", "dimensions", "modality", "infrared_cameras", "data.layout", *(f"data.{name}" for name in RANGES),
    "engine", *FOR_RAY,
)  # fmt: skip
"""Options of `add` that say how images are read and embedded."""


def add_arguments(parser: Parser) -> None:
    word = next((word for word in parser.arguments if word in WORDS), "")  # options may stand before it
    helps = {
        "add": "embed images and add them",
        "info": "what a gallery is of, and how many images of each camera it holds",
        "list": "its images",
        "move": "say where the folder of its images has been moved to",
        "remove": "remove images from it",
    }
    told = helps.get(word, "; ".join(f"{name}: {what}" for name, what in helps.items()))
    parser.add_argument("word", choices=WORDS, help=told)
    if word == "add":
        from csvi.search.gallery import Index, Metric

        parser.add_argument("source", help=f"{SOURCE}; or embeddings of csvi embed, .npz or .parquet")
        add_model_options(parser)
        parser.add_argument("--again", action="store_true", help="embed images, too, that are there already")
        parser.add_argument("--metric", choices=get_args(Metric), help="by default the one that ranks as l2 does")
        parser.add_argument(
            "--index_type",
            choices=get_args(Index),
            help="FLAT is exact; by default FLAT in a file and HNSW on a server; another than before is built anew",
        )
        parser.add_argument("--half", action="store_true", help="keep embeddings in 16 bits; on a server alone")
        parser.add_argument("--root", help="folder that paths are relative to; by default the source's")
        add_crop_options(parser, "by default the gallery's, the model's, or measured")
        add_engine_options(parser)
    elif word == "move":
        parser.add_argument("--root", required=True, help="folder that the gallery's paths are relative to now")
    elif word in ("list", "remove"):
        parser.add_argument("--path", help="pattern of paths, as 'north/*'")
        parser.add_argument("--modality", choices=MODALITIES, help="of the images")
        add_where_options(parser)
    if word == "remove":
        parser.add_argument("--all", action="store_true", help="remove the gallery with all images")
    if word in ("info", "list"):
        parser.add_argument("--json", action="store_true", help="print as JSON")
    add_gallery_options(parser)


def run(settings: Namespace) -> None:
    {"add": _add, "info": _info, "list": _list, "move": _move, "remove": _remove}[settings.word](settings)


def _add(settings: Namespace) -> None:
    from csvi.commands.embed import print_left_out
    from csvi.search.features import SUFFIXES, read_features
    from csvi.search.fill import Choices, add_crops, add_features, gallery_for_crops, gallery_for_features
    from csvi.search.gallery import facts_of

    root = expanded(settings.root) if settings.root else None
    choices = Choices(settings.metric, settings.index_type, settings.half, root)
    target = settings.gallery, settings.collection
    source = expanded(settings.source)
    if source.suffix in SUFFIXES:
        given = [name for name in FOR_IMAGES if settings[name] is not None]
        if given:
            raise CsviError(f"--{given[0]} is for images, and {source} holds embeddings: leave it out")
        features = read_features(source)
        with gallery_for_features(target[0], features, choices, target[1]) as gallery:
            added, count = add_features(gallery, features, settings.again), len(gallery)
    else:
        engine = engine_of(settings)
        facts = facts_of(*target)
        embedder = embedder_of(settings, facts)
        own = facts.read_as(embedder.data) if facts else embedder.data
        crops = crops_of(settings, settings.source, own=own, top=Path(facts.root) if facts else root)
        print(f"modality: {crops.source_of_modality}")
        with gallery_for_crops(target[0], crops, embedder, choices, target[1]) as gallery:
            added, count = add_crops(gallery, crops, embedder, settings.again, engine), len(gallery)
    print_left_out(added.left_out)
    replaced = f"; {added.replaced:,} were replaced" if added.replaced else ""
    speed = f", {added.images_per_second:,.0f} images/s" if added.new or added.replaced else ""
    there = f"; {added.there:,} were there already" if added.there else ""
    print(f"added: {added.new:,} images{replaced}{speed}{there}")
    print(f"gallery: {gallery.name}, {count:,} images, {gallery.facts.metric}")
    if gallery.is_slow(count):
        print("hint: it is searched exactly, image by image; --index_type HNSW is built once, and answers faster")
    model = "" if gallery.facts.model else " --run RUN"
    print(f"next: csvi search PROBE --gallery {as_argument(settings.gallery)}{model}")


def _opened(settings: Namespace) -> "Gallery":
    from csvi.search.gallery import open_gallery

    return open_gallery(settings.gallery, settings.collection)


def _info(settings: Namespace) -> None:
    from csvi.plain_table import plain_console, plain_table

    with _opened(settings) as gallery:
        counts, size, facts = gallery.counts(), gallery.bytes_on_disk, gallery.facts
    images = sum(counts.values())
    if settings.json:
        cameras = [
            {"modality": modality, "camera": camera, "images": count}
            for (modality, camera), count in sorted(counts.items())
        ]
        found = {"gallery": gallery.name, "images": images, "cameras": cameras, "bytes": size}
        print(json.dumps(found | {"facts": dataclasses.asdict(facts)}, indent=1))
        return
    console = plain_console()
    table = plain_table("modality, camera", "images")
    for (modality, camera), count in sorted(counts.items()):
        table.add_row(f"{modality}, {camera or 'not known'}", f"{count:,}")
    if images:
        console.print(table)
    bits = 16 if facts.half else 32
    disk = f", {size / 1e6:,.1f} MB" if size is not None else ""
    for line in (
        f"gallery: {gallery.name}, {images:,} images{disk}",
        f"model: {facts.name} ({facts.fingerprint}), {facts.dim:,} numbers of {bits} bits each",
        f"metric: {facts.metric}; index: {facts.index}",
        f"root: {facts.root}",
        *(f"{name}: {value}" for name in RANGES if (value := getattr(facts, name)) != "auto"),
    ):
        console.print(line, soft_wrap=True)


def _list(settings: Namespace) -> None:
    from rich.table import Column

    from csvi.plain_table import plain_console, plain_table

    with _opened(settings) as gallery:
        entries = _chosen(gallery, settings)
    if settings.json:
        print(json.dumps([dataclasses.asdict(entry) for entry in entries], indent=1))
        return
    table = plain_table(Column("path", overflow="fold"), "modality", "camera", "time", "track")
    for entry in entries:
        table.add_row(entry.path, entry.modality, entry.camera, entry.time, entry.track)
    console = plain_console()
    if entries:
        console.print(table)
    console.print(f"{len(entries):,} images")


def _move(settings: Namespace) -> None:
    with _opened(settings) as gallery:
        gallery.move(expanded(settings.root))
    print(f"root: {gallery.facts.root}")


def _remove(settings: Namespace) -> None:
    conditions = [name for name in CONDITIONS if settings[name] is not None]
    if bool(conditions) == settings.all:
        raise CsviError("say which images to remove: --path, --camera, --until, --track or others, or --all alone")
    with _opened(settings) as gallery:
        if settings.all:
            count = len(gallery)
            gallery.drop()
        else:
            paths = [entry.path for entry in _chosen(gallery, settings)]
            gallery.remove(paths)
            count = len(paths)
    print(f"removed: {count:,} images from {gallery.name}")


def _chosen(gallery: "Gallery", settings: Namespace) -> "list[Entry]":
    """List the images that meet the conditions."""
    entries = gallery.entries(where_of(settings).condition)
    return [entry for entry in entries if settings.path is None or fnmatch.fnmatchcase(entry.path, settings.path)]
