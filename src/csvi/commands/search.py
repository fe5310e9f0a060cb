"""`csvi search`: find a person in a gallery, by one image or several."""

import dataclasses
import json
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from csvi.commands.options import (
    MODALITIES,
    add_gallery_options,
    add_model_options,
    add_range_options,
    add_where_options,
    embedder_for,
    ranges_of,
    where_of,
)
from csvi.commands.parser import Parser
from csvi.errors import CsviError
from csvi.paths import expanded

if TYPE_CHECKING:
    from csvi.config import DataConfig
    from csvi.search.gallery import Facts, Hit

MOST = 4096
"""Images to find."""
SUMMARY = "Find a person in a gallery of embeddings, by day and by night."


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

    if not 0 < settings.top <= MOST:
        raise CsviError(f"--top {settings.top}: ask for 1 to {MOST:,} images")
    if settings.strip and not settings.strip.endswith(".png"):
        raise CsviError(f"--strip {settings.strip}: the name must end in .png")
    if settings.strip and expanded(settings.strip).resolve() in [expanded(p).resolve() for p in settings.probes]:
        raise CsviError(f"--strip {settings.strip} is a probe, which it would replace: name another file")
    where = where_of(settings)
    with open_gallery(settings.gallery, settings.collection) as gallery:
        if not len(gallery):
            raise CsviError(f"the gallery {gallery.name} is empty: add images with csvi index add")
        if settings.strip and gallery.holds(expanded(settings.strip)):
            raise CsviError(
                f"--strip {settings.strip} is an image of the gallery, which it would replace: name another file"
            )
        embedder = embedder_for(settings, gallery.facts)
        of_gallery = gallery.facts.read_as(embedder.data)
        embedder.data = dataclasses.replace(embedder.data, **ranges_of(settings, of_gallery))
        gallery.check_model(embedder.fingerprint, embedder.name, embedder.dim)
        vectors = embedder.embed([expanded(probe) for probe in settings.probes], settings.probe_modality)
        hits = search(gallery, vectors, settings.top, where, by_track=settings.by == "track")
    if not hits:
        raise CsviError(f"no image of {gallery.name} meets the conditions: csvi index info shows its cameras")
    if settings.strip:
        _write_strip(settings, hits, embedder.data, of_gallery, gallery.facts)
    if settings.json:
        found = {"gallery": gallery.name, "root": gallery.facts.root, "probes": settings.probes}
        print(json.dumps(found | {"hits": [dataclasses.asdict(hit) for hit in hits]}, indent=1))
        return
    _print(hits)
    if settings.strip:
        print(f"strip: {settings.strip}")


def _print(hits: "list[Hit]") -> None:
    from rich.table import Column

    from csvi.analysis.plain_table import plain_console, plain_table

    known = [name for name in ("camera", "modality", "time", "track") if any(getattr(hit, name) for hit in hits)]
    table = plain_table("rank", "similarity", *known, Column("path", overflow="fold"))
    for rank, hit in enumerate(hits, 1):
        table.add_row(str(rank), f"{hit.similarity:.4f}", *(getattr(hit, name) for name in known), hit.path)
    plain_console().print(table)


def _write_strip(
    settings: Namespace, hits: "list[Hit]", of_probes: "DataConfig", of_gallery: "DataConfig", facts: "Facts"
) -> None:
    from csvi.data.records import Modality
    from csvi.search.strip import write_strip

    likely = Modality.VISIBLE if settings.probe_modality == "visible" else Modality.INFRARED
    probes = [(expanded(probe), likely) for probe in settings.probes]
    write_strip(probes, hits, expanded(facts.root), of_gallery, expanded(settings.strip), of_probes)
