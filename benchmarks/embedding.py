"""How fast csvi embeds a folder of images: files on a disk to embeddings, against the bare network on random numbers.

    python benchmarks/embedding.py [--pictures 2048] [--backbone resnet50]

`bare` is torchvision's network with the strides of csvi's (the last stage keeps its resolution), in csvi's precision,
memory format and batch size, on one batch of random numbers again and again: no files, no parts, no streams. csvi
embeds JPEGs of the sizes of SYSU-MM01's, from a cold cache, which decodes and resizes them first, and from a warm one.
All three take turns, so that what else the machine does hits them all alike.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import BenchmarkError, Finding, machine, parser_of, positive, ratio, run, take_turns
from lightning_fabric import Fabric
from PIL import Image
from rich.console import Console
from rich.table import Table

from csvi.config import Config, DataConfig
from csvi.data.loader import EVALUATION_BATCH, evaluation_loader
from csvi.data.records import ImageRecord, Modality
from csvi.fabric import choose_precision, make_fabric
from csvi.methods import build_method
from csvi.methods.baseline import Baseline
from csvi.model.net import EmbeddingNet
from csvi.model.two_stream import TwoStream
from csvi.runs.embeddings import embed

Caches = tuple[dict[str, Callable[[], None]], dict[str, torch.Tensor]]
TARGET = 0.95
"""Share of the bare network's images a second that csvi reaches, at least."""


def write_images(root: Path, count: int, seed: int = 0) -> list[ImageRecord]:
    """So many JPEGs, a quarter of them infrared, of 100 to 400 pixels in height as SYSU-MM01's, and their records."""
    random = np.random.default_rng(seed)
    records = []
    for n in range(count):
        modality = Modality.INFRARED if 4 * n >= 3 * count else Modality.VISIBLE
        height = int(random.integers(100, 400))
        coarse = Image.fromarray(random.integers(0, 255, (12, 5, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((int(0.4 * height), height), Image.Resampling.BICUBIC), np.float32)
        pixels = smooth + random.normal(0, 6, smooth.shape)  # as much noise as makes files as long as a camera's
        path = Path(f"{n:05d}.jpg")
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / path, quality=90)
        records.append(ImageRecord(str(path), n // 20, 3 if modality else 1, modality))
    return records


def bare(config: Config, fabric: Fabric, images: int, compiled: bool = False) -> Callable[[], object]:
    """As many images as there are, through one stream of the backbone and its shared layers."""
    backbone = TwoStream(config.method.backbone)
    network = torch.nn.Sequential(backbone.visible, backbone.shared).eval()
    network.to(fabric.device).to(memory_format=torch.channels_last)
    if compiled:
        network.compile()
    image = torch.randn(EVALUATION_BATCH, 3, config.data.height, config.data.width, device=fabric.device)
    image = image.contiguous(memory_format=torch.channels_last)

    def run() -> None:
        with torch.inference_mode(), fabric.autocast():
            starts = range(0, images, EVALUATION_BATCH)
            torch.cat([network(image[: images - start]).mean((2, 3)).float() for start in starts]).cpu()

    return run


def caches(net: EmbeddingNet, root: Path, records: list[ImageRecord], data: DataConfig, fabric: Fabric) -> Caches:
    """To embed the images from a cold cache, which is emptied before, and from a warm one; and what each found last."""
    found: dict[str, torch.Tensor] = {}

    def warm() -> None:
        found["warm"] = embed(net, evaluation_loader(root, records, data), fabric)

    def cold() -> None:
        shutil.rmtree(data.cache, ignore_errors=True)
        found["cold"] = embed(net, evaluation_loader(root, records, data), fabric)

    return {"cold cache": cold, "warm cache": warm}, found


def compare(config: Config, pictures: int, turns: int, console: Console) -> list[Finding]:
    """Measures and prints.

    Raises:
        BenchmarkError: a cold and a warm cache did not give the same embeddings, one for each image.
    """
    fabric = make_fabric(config.precision)
    torch.manual_seed(0)
    net = build_method(config, 395).net.to(fabric.device).to(memory_format=torch.channels_last)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "images")
        root.mkdir()
        records = write_images(root, pictures)
        config.data.cache = str(Path(folder, "cache"))
        length = sum(file.stat().st_size for file in root.iterdir()) / pictures
        console.print(
            f"{config.method.backbone} on {config.data.height}×{config.data.width}, "
            f"{choose_precision(config.precision)} on {fabric.device}, {pictures} JPEGs of {length / 1e3:.0f} kB; "
            f"{machine()}"
        )

        embedding, found = caches(net, root, records, config.data, fabric)
        seconds = take_turns({"bare": bare(config, fabric, pictures)} | embedding, turns, warm_up=1)

    table = Table("", "seconds", "images/s", "× bare's images/s")
    findings = []
    for name, all_taken in seconds.items():
        taken, share = statistics.median(all_taken), ratio(seconds, "bare", name)
        table.add_row(name, f"{taken:.2f}", f"{pictures / taken:.1f}", f"{share:.2f}")
        if name != "bare":
            question = f"embedding, {name}"
            findings.append(Finding(question, f"{share:.2f} × bare's images/s", f"≥ {TARGET} ×", share >= TARGET))
    console.print(table)
    if len(found["cold"]) != pictures or not torch.allclose(found["cold"], found["warm"]):
        raise BenchmarkError("embeddings from a cold and from a warm cache differ")
    return findings


def make_parser() -> argparse.ArgumentParser:
    parser = parser_of(__doc__)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--height", type=positive, default=288)
    parser.add_argument("--width", type=positive, default=144)
    parser.add_argument("--pictures", type=positive, default=2048)
    parser.add_argument("--turns", type=positive, default=3)
    parser.add_argument("--workers", type=int, default=DataConfig().workers, help="on a GPU")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--quick", action="store_true", help="a small network and few images, to see that it runs")
    return parser


def measure(options: argparse.Namespace, console: Console) -> list[Finding]:
    """Measures and prints what is asked for."""
    if options.quick:
        options.backbone, options.height, options.width, options.workers = "resnet18", 48, 24, 0
        options.pictures, options.turns = 80, 1
    data = DataConfig(height=options.height, width=options.width, workers=options.workers)
    config = Config(
        Baseline.Settings(backbone=options.backbone, weights="none"), data=data, precision=options.precision
    )
    return compare(config, options.pictures, options.turns, console)


if __name__ == "__main__":
    sys.exit(run(measure, make_parser()))
