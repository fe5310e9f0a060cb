"""`csvi embed`: images to a file of embeddings."""

from collections.abc import Mapping

from jsonargparse import Namespace

from csvi.commands.options import (
    SOURCE,
    add_crop_options,
    add_engine_options,
    add_model_options,
    crops_of,
    embedder_of,
    engine_of,
)
from csvi.commands.parser import Parser
from csvi.paths import as_argument, expanded

SUMMARY = "Embed crops of people with a trained model."
NAMED = 10
"""Images that cannot be read and are named on the terminal."""


def add_arguments(parser: Parser) -> None:
    parser.add_argument("source", help=SOURCE)
    parser.add_argument("--out", required=True, help="file to write, .npz or .parquet")
    add_model_options(parser)
    parser.add_argument("--half", action="store_true", help="keep embeddings in 16 bits")
    add_crop_options(parser, "by default the model's, or measured")
    add_engine_options(parser)


def run(settings: Namespace) -> None:
    from csvi.search.embed import embed_to_file, left_out_file
    from csvi.search.features import check_suffix

    out = expanded(settings.out)
    check_suffix(out)
    engine = engine_of(settings)
    embedder = embedder_of(settings)
    crops = crops_of(settings, settings.source, own=embedder.data)
    print(f"modality: {crops.source_of_modality}")
    made = embed_to_file(embedder, crops, out, settings.half, engine)
    print_left_out(made.left_out)
    if made.left_out:
        print(f"left out: {left_out_file(out)}")
    speed = f"{made.new:,} now, {made.images_per_second:,.1f} images/s" if made.new else "all of them were there"
    bits = 8 * made.features.embedding.itemsize
    print(f"embedded: {len(made.features):,} images, {embedder.dim:,} numbers of {bits} bits each; {speed}")
    print(f"features: {out}")
    print(f"next: csvi index add {as_argument(out)} --gallery gallery.db")


def print_left_out(left_out: Mapping[str, str]) -> None:
    """Name images that are left out: path → what is the matter with it."""
    if left_out:
        print(f"{len(left_out):,} images cannot be read and are left out:")
        for path, why in list(left_out.items())[:NAMED]:
            print(f"  {path}: it {why}")
        if len(left_out) > NAMED:
            print(f"  and {len(left_out) - NAMED:,} more")
