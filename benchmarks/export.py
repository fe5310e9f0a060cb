"""What an exported network costs: its file, its speed, and its metrics, in every format.

    python benchmarks/export.py RUN [--data.root ROOT]

All take the same batch of decoded images by turns, so that what else the machine does hits them all alike; onnxruntime
and PyTorch have the cores that they take by themselves. Metrics are of the dataset that the run was trained on, or of
ROOT, under its first protocol.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from common import Finding, parser_of, positive, run, take_turns
from rich.console import Console
from rich.table import Table

from csvi.data.records import Modality
from csvi.export.make import TOLERANCE, export_file
from csvi.progress import in_threads
from csvi.runs import Options, Run, evaluate_features
from csvi.runs.trained import Trained
from csvi.search.embedder import BATCH, open_embedder

EmbedPixels = Callable[[np.ndarray, Modality], np.ndarray]
"""As `csvi.search.embedder.Embedder.embed_pixels`."""


def metrics_of(embed: EmbedPixels, opened: Run, pixels: np.ndarray, folder: Path) -> list[str]:
    """R1 and mAP in %, under the first protocol, of embeddings of the test images."""
    records = opened.benchmark.test
    rows = {one: [i for i, record in enumerate(records) if record.modality == one] for one in Modality}
    batches = [some[i : i + BATCH] for some in rows.values() for i in range(0, len(some), BATCH)]
    embedded = np.concatenate([embed(pixels[batch], records[batch[0]].modality) for batch in batches])
    paths = np.array([records[i].path for batch in batches for i in batch])
    np.savez(folder / "features.npz", embedding=embedded, path=paths)
    data = opened.data
    options = Options(root=str(opened.benchmark.root), layout=data.layout, fold=data.fold)
    metrics = evaluate_features(folder / "features.npz", options).protocols[0].metrics
    return [f"{100 * metrics[name].mean:.2f}" for name in ("R1", "mAP")]


def measure(options: argparse.Namespace, console: Console) -> list[Finding]:
    """Exports, measures and prints."""
    opened, model = Run.open(options.run, Options(root=getattr(options, "data.root"))), Trained.open(options.run)
    pixels = np.stack(in_threads(opened.image, opened.benchmark.test, "Reading images"))
    batch = pixels[:BATCH]
    embeds: dict[str, EmbedPixels] = {}
    sizes, differences = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        embeds[f"PyTorch, {opened.precision}"] = open_embedder(options.run).embed_pixels
        for weights in options.weights:
            name, file = f"ONNX, weights in {weights}", Path(folder) / f"{weights}.onnx"
            differences[name] = export_file(model, "onnx", file, weights)
            sizes[name] = f"{file.stat().st_size / 1e6:.1f}"
            embeds[name] = open_embedder(file).embed_pixels
        calls = {name: partial(embed, batch, Modality.VISIBLE) for name, embed in embeds.items()}
        seconds = take_turns(calls, options.turns)
        table = Table("", "MB", "images/s", "largest difference", "R1", "mAP")
        for name, embed in embeds.items():
            speed = len(batch) / statistics.median(seconds[name])
            difference = f"{differences[name]:.1e}" if name in differences else ""
            metrics = metrics_of(embed, opened, pixels, Path(folder))
            table.add_row(name, sizes.get(name, ""), f"{speed:.0f}", difference, *metrics)
    console.print(table)
    console.print(
        f"{opened.benchmark.name}, {len(pixels)} images of {model.net.height} × {model.net.width}; {model.net.method}; "
        f"median of {options.turns} turns of a batch of {len(batch)}; difference of a number of an embedding from "
        "PyTorch in float32"
    )
    return [
        Finding(f"{name}: largest difference", f"{difference:.1e}", f"≤ {TOLERANCE:.0e}", difference <= TOLERANCE)
        for name, difference in differences.items()
        if name.endswith("float32")
    ]


def make_parser() -> argparse.ArgumentParser:
    """The options of this script."""
    parser = parser_of(__doc__)
    parser.add_argument("run")
    parser.add_argument("--data.root", help="dataset; by default that of the run")
    parser.add_argument("--weights", nargs="+", default=["float32", "float16", "int8"])
    parser.add_argument("--turns", type=positive, default=15)
    return parser


if __name__ == "__main__":
    sys.exit(run(measure, make_parser()))
