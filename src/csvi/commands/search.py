"""`csvi search`: find a person in a gallery, by one image or several."""

import dataclasses
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from csvi.commands.options import (
    MODALITIES,
    add_gallery_options,
    add_model_options,
    add_range_options,
    add_where_options,
    embedder_of,
    ranges_of,
    where_of,
)
from csvi.commands.parser import Parser
from csvi.errors import CsviError
from csvi.paths import as_argument, expanded

if TYPE_CHECKING:
    from csvi.config import DataConfig
    from csvi.search.gallery import Hit

MOST = 4096
"""Images to find."""
SUMMARY = "Find a person in a gallery of embeddings, by day and by night."

log = logging.getLogger(__name__)


def add_arguments(parser: Parser) -> None:
    parser.add_argument("probes", nargs="+", help="images of one person, whose embeddings are averaged")
    add_gallery_options(parser)
    add_model_options(parser)
    parser.add_argument(
        "--probe_modality",
        choices=["visible", "infrared", "detect"],
        default="detect",
        help="of the probes; detect, the default, tells it by their colours",
    )
    parser.add_argument("--top", type=int, default=20, help="images to find; 20")
    parser.add_argument("--modality", choices=MODALITIES, help="of the images to find")
    add_where_options(parser)
    add_range_options(parser, "by default the gallery's, or the model's")
    parser.add_argument("--by", choices=["track"], help="of each track show the best image alone")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser.add_argument("--strip", help="picture to write of probes and images, .png")


def run(settings: Namespace) -> None:
    from csvi.search.gallery import open_gallery
    from csvi.search.query import search
    from csvi.search.strip import check_strip

    if not 0 < settings.top <= MOST:
        raise CsviError(f"--top {settings.top}: ask for 1 to {MOST:,} images")
    if settings.strip:
        if not settings.strip.endswith(".png"):
            raise CsviError(f"--strip {settings.strip}: the name must end in .png")
        check_strip(expanded(settings.strip))
    where = where_of(settings)
    with open_gallery(settings.gallery, settings.collection) as gallery:
        if not len(gallery):
            raise CsviError(f"the gallery {gallery.name} is empty: add images with csvi index add")
        embedder = embedder_of(settings, gallery.facts)
        of_gallery = gallery.facts.read_as(embedder.data)
        embedder.data = dataclasses.replace(embedder.data, **ranges_of(settings, of_gallery))
        gallery.check_model(embedder.fingerprint, embedder.name, embedder.dim)
        vectors = embedder.embed([expanded(probe) for probe in settings.probes], settings.probe_modality)
        hits = search(gallery, vectors, settings.top, where, by_track=settings.by == "track")
    if not hits:
        raise CsviError(f"no image of {gallery.name} meets the conditions: csvi index info shows its cameras")
    root = expanded(gallery.facts.root)
    unread = _write_strip(settings, hits, root, embedder.data, of_gallery) if settings.strip else 0
    if not root.is_dir():
        move = f"csvi index move --gallery {as_argument(settings.gallery)} --root NEW"
        log.warning("%s, the folder of the images, is not there any more: %s", root, move)
    elif unread:
        log.warning("%d of the %d images that were found cannot be read", unread, len(hits))
    if settings.json:
        found = {"gallery": gallery.name, "root": gallery.facts.root, "probes": settings.probes}
        print(json.dumps(found | {"hits": [dataclasses.asdict(hit) for hit in hits]}, indent=1))
        return
    _print(hits)
    if settings.strip:
        print(f"strip: {settings.strip}")


def _print(hits: "list[Hit]") -> None:
    from rich.table import Column

    from csvi.plain_table import plain_console, plain_table

    known = [name for name in ("camera", "modality", "time", "track") if any(getattr(hit, name) for hit in hits)]
    table = plain_table("rank", "similarity", *known, Column("path", overflow="fold"))
    for rank, hit in enumerate(hits, 1):
        table.add_row(str(rank), f"{hit.similarity:.4f}", *(getattr(hit, name) for name in known), hit.path)
    plain_console().print(table)


def _write_strip(
    settings: Namespace, hits: "list[Hit]", root: Path, of_probes: "DataConfig", of_gallery: "DataConfig"
) -> int:
    """Write the picture; returns how many of the images that were found cannot be read."""
    from csvi.data.records import Modality
    from csvi.search.strip import write_strip

    likely = Modality.VISIBLE if settings.probe_modality == "visible" else Modality.INFRARED
    probes = [(expanded(probe), likely) for probe in settings.probes]
    return write_strip(probes, hits, root, of_gallery, expanded(settings.strip), of_probes)
