"""How fast csvi loads training batches, against decoding every image in every epoch; and how little memory it needs.

    python benchmarks/loading.py [--images 6400] [--workers 2] [--step-seconds 0.1]
    python benchmarks/loading.py --memory

The other loader is the usual one: Pillow opens, converts and resizes, torchvision's transforms augment and normalise
one image after the other, and the default collation stacks them. Both draw the same batches with as many workers, and
both end with normalised batches on the device. It loads no masks; csvi is measured without and with them.

The images are made here: 64 different ones, 100 to 400 pixels wide and two to three times as high, as those of
SYSU-MM01 are, each under many names. What is measured is decoding, not the disk.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import BenchmarkError, Finding, machine, parser_of, positive, run
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from csvi.config import Config, DataConfig
from csvi.data.batch import MEAN, STD, Batch, prepare
from csvi.data.records import Benchmark, ImageRecord, Modality
from csvi.data.sampler import CrossModalitySampler, Sample
from csvi.data.sysu import MODALITIES, images_per_camera
from csvi.data.training_set import TrainingSet
from csvi.data.views import standard_views
from csvi.fabric import choose_precision, keep_freed_memory, make_fabric
from csvi.methods.coseg import CoSeg
from csvi.train.cost import training

TARGET_RATIO = 3.0
"""How many times as many images a second as the other loader, from the second epoch on."""
TARGET_WAITED = 0.05
"""Share of a training step that is spent waiting for its batch, at most."""
TARGET_BYTES = 500e6
"""That loading SYSU-MM01's training images adds to what is resident, in all processes together, at most. The images
are 4.25 GB; PyTorch itself, before anything is loaded, takes more than this where it is built for CUDA."""

DIFFERENT = 64
"""Images that are really made."""


class DecodedImages(Dataset[dict[str, Tensor]]):
    """The usual way: an item is an image, decoded, resized, augmented and normalised whenever it is drawn."""

    def __init__(self, root: Path, records: list[ImageRecord], config: DataConfig):
        self.root, self.records = root, records
        self.transform = v2.Compose(
            [
                v2.Resize((config.height, config.width)),
                v2.RandomHorizontalFlip(config.flip),
                v2.RandomCrop((config.height, config.width), padding=config.pad),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD),
                v2.RandomErasing(config.erase),
            ]
        )

    def __getitem__(self, sample: Sample) -> dict[str, Tensor]:
        record = self.records[sample.image]
        with Image.open(self.root / record.path) as image:
            return {
                "image": self.transform(image.convert("RGB")),
                "modality": torch.tensor(int(record.modality)),
                "identity": torch.tensor(record.identity),
            }


def usual_loader(root: Path, records: list[ImageRecord], config: DataConfig) -> tuple[DataLoader, CrossModalitySampler]:
    """Decodes every image in every epoch; draws what csvi draws."""
    sampler = CrossModalitySampler(records, config.identities, config.images, seed=0)
    loader = DataLoader(
        DecodedImages(root, records, config),
        batch_sampler=sampler,
        num_workers=config.workers,
        persistent_workers=config.workers > 0,
        pin_memory=torch.cuda.is_available(),
    )
    return loader, sampler


def csvi_loader(
    root: Path, records: list[ImageRecord], config: DataConfig, masks: bool
) -> tuple[DataLoader, CrossModalitySampler]:
    """What `csvi train` uses."""
    training_set = TrainingSet(Benchmark("", root, records, [], []), config, masks)
    return training_set.loader(standard_views(config), seed=0)


def usual_to_device(batch: dict[str, Tensor], device: torch.device) -> Batch:
    """Move a batch that is normalised already."""
    moved = Batch(**{name: rows.to(device) for name, rows in batch.items()})
    return moved._replace(image=moved.image.contiguous(memory_format=torch.channels_last))


def time_epochs(
    make: Callable[[], tuple[DataLoader, CrossModalitySampler]],
    to_device: Callable[[Any, torch.device], Batch],
    device: torch.device,
    epochs: int,
) -> list[float]:
    """Seconds of each epoch until all its batches were on the device, one after the other; the first one includes
    making the loader and, where there is one, filling the cache.

    What this process computes it computes in one thread: more would wait for cores that the workers keep busy.
    """
    threads, seconds = torch.get_num_threads(), []
    torch.set_num_threads(1)
    start = time.perf_counter()
    loader, sampler = make()
    for epoch in range(epochs):
        sampler.start(epoch)
        for batch in loader:
            to_device(batch, device)
        _wait(device)
        seconds.append(time.perf_counter() - start)
        start = time.perf_counter()
    torch.set_num_threads(threads)
    return seconds


def waited_share(
    loader: DataLoader, sampler: CrossModalitySampler, step: Callable[[Batch], None], seconds: float
) -> tuple[float, int, float]:
    """Share of the time that is spent waiting for batches, the number of steps in about so many seconds, and seconds
    that each took without waiting. Every epoch begins with a wait, and an epoch here is shorter than a dataset's."""
    batches = _endless(loader, sampler)
    waited, whole, steps = 0.0, 0.0, 0
    start = time.perf_counter()
    while whole < seconds:
        before = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - before
        step(batch)
        steps += 1
        whole = time.perf_counter() - start
    return waited / whole, steps, (whole - waited) / steps


def _endless(loader: DataLoader, sampler: CrossModalitySampler) -> Iterator[Batch]:
    while True:
        sampler.start(sampler.epoch + 1)
        yield from loader


def training_step(config: Config, identities: int) -> Callable[[Batch], None]:
    """A step of training the paper's model, which ends when the device has done it."""
    _, step = training(config, identities)

    def wait(batch: Batch) -> None:
        float(torch.stack(list(step(batch).values())).sum().detach())

    return wait


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def make_images(root: Path, names: list[tuple[str, int, Modality]]) -> list[ImageRecord]:
    """Write images and masks under these paths, as links to a few files; returns their records in the same order.

    Args:
        root: folder, which the paths are relative to.
        names: path without suffix, identity and modality of each.
    """
    random = np.random.default_rng(0)
    (root / "different").mkdir(parents=True)
    for n in range(DIFFERENT):
        width = int(random.integers(100, 401))
        height = int(width * random.uniform(2, 3)) // 1
        coarse = random.integers(0, 256, (12, 6, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), float)
        image = (smooth + random.normal(0, 6, smooth.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(image).save(root / f"different/{n}.jpg", quality=90)
        Image.fromarray(np.where(smooth[..., 0] > 128, 255, 0).astype(np.uint8)).save(root / f"different/{n}.png")
    records = []
    for i, (name, identity, modality) in enumerate(names):
        image, mask = root / f"{name}.jpg", root / f"masks/{name}.png"
        for file in (image, mask):
            file.parent.mkdir(parents=True, exist_ok=True)
            os.link(root / f"different/{i % DIFFERENT}{file.suffix}", file)
        records.append(ImageRecord(f"{name}.jpg", identity, 1, modality, mask))
    return records


def some_names(images: int) -> list[tuple[str, int, Modality]]:
    """Half of them visible, twenty an identity and modality."""
    return [(f"{m.name}/{n // 20}/{n}", n // 20, m) for m in Modality for n in range(images // 2)]


def sysu_names() -> list[tuple[str, int, Modality]]:
    """Of SYSU-MM01's training images, val included: 34,167."""
    return [
        (f"cam{camera}/{int(row['id']):04d}/{n:04d}", int(row["id"]), modality)
        for camera, modality in MODALITIES.items()
        for row in images_per_camera()
        if row["split"] != "test"
        for n in range(int(row[f"cam{camera}"]))
    ]


def compare(
    config: Config, images: int, epochs: int, seconds: float, step_seconds: float | None, console: Console
) -> list[Finding]:
    """Measures and prints seconds of epochs, and the share of a training step that waits."""
    if epochs < 2:
        raise BenchmarkError("--epochs 1: give at least 2, as the fastest from the second on counts")
    device, data = make_fabric(config.precision).device, config.data
    console.print(
        f"{images:,} images, {data.height}×{data.width}, batches of {2 * data.identities * data.images}, "
        f"{data.workers} workers, {device}; {machine()}"
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        records = make_images(root / "images", some_names(images))

        def with_cache(name: str) -> DataConfig:
            return DataConfig(**vars(data) | {"cache": str(root / name)})

        usual = time_epochs(lambda: usual_loader(root / "images", records, data), usual_to_device, device, epochs)
        table = Table("", "first epoch, s", "later, s", "images/s", "× decoding")
        drawn = -(-images // (2 * data.identities * data.images)) * 2 * data.identities * data.images
        later = min(usual[1:])
        table.add_row("decoding every epoch", f"{usual[0]:.1f}", f"{later:.1f}", f"{drawn / later:.0f}", "1.0")
        findings = []
        for name, masks in (("csvi, images", False), ("csvi, images and masks", True)):
            settings = with_cache(f"cache-{masks}")
            taken = time_epochs(
                lambda masks=masks, settings=settings: csvi_loader(root / "images", records, settings, masks),
                prepare,
                device,
                epochs,
            )
            ratio = later / min(taken[1:])
            table.add_row(
                name,
                f"{taken[0]:.1f}",
                f"{min(taken[1:]):.2f}",
                f"{drawn / min(taken[1:]):.0f}",
                f"{ratio:.1f}",
            )
            if not masks:
                first = taken[0] / usual[0]
                findings = [
                    Finding("loading, first epoch", f"{first:.2f} × the common loader's time", "≤ 1 ×", first <= 1),
                    Finding(
                        "loading, later epochs", f"{ratio:.1f} × the common loader's images/s",
                        f"≥ {TARGET_RATIO:g} ×", ratio >= TARGET_RATIO,
                    ),
                ]  # fmt: skip
        console.print(table)

        loader, sampler = csvi_loader(root / "images", records, with_cache("cache-True"), masks=True)
        first = next(iter(loader))  # starts the workers
        if step_seconds is None:
            name = f"{config.method.backbone} with {config.method.name}, {choose_precision(config.precision)}"
            step = training_step(config, len({record.identity for record in records}))
            step(first)
        else:
            name = "doing nothing"

            def step(batch: Batch) -> None:
                time.sleep(step_seconds)

        share, steps, each = waited_share(loader, sampler, step, seconds)
        console.print(f"{steps} steps of {each:.3f} s ({name})")
        question, found = "waiting for batches", f"{100 * share:.2f} % of the time of training"
        return [*findings, Finding(question, found, f"< {100 * TARGET_WAITED:g} %", share < TARGET_WAITED)]


def measure_memory(data: DataConfig, names: list[tuple[str, int, Modality]], console: Console) -> list[Finding]:
    """Loads an epoch of SYSU-MM01's training images and masks, as bytes: what becomes of them is the step's."""
    pixels = len(names) * data.height * data.width
    console.print(
        f"{len(names):,} images of {data.height}×{data.width}, {3 * pixels / 1e9:.2f} GB, and masks, "
        f"{pixels / 1e9:.2f} GB; {data.workers} workers; {machine()}"
    )
    Path("/proc/self/clear_refs").write_text("5")  # peaks of before are forgotten
    before = resident(os.getpid())
    with tempfile.TemporaryDirectory() as folder:
        records = make_images(Path(folder) / "images", names)
        data.cache = str(Path(folder) / "cache")
        start = time.perf_counter()
        loader, sampler = csvi_loader(Path(folder) / "images", records, data, masks=True)
        filled = time.perf_counter() - start
        for batch in loader:
            keep_freed_memory(torch.device("cpu"))  # as in training
            batch.image.numpy().max(), batch.mask.numpy().max()  # what nobody reads need not be resident
        whole = time.perf_counter() - start
        after = {"training process": resident(os.getpid())}
        for number, worker in enumerate(multiprocessing.active_children(), 1):
            after[f"worker {number}"] = resident(worker.pid)

    table = Table("MB resident", *PARTS.values(), "of its own", "added")
    added = []
    for name, parts in {"before": before, **after}.items():
        own = parts["Private_Clean"] + parts["Private_Dirty"]
        if parts is not before:
            added.append(own if name.startswith("worker") else parts["VmHWM"] - before["VmRSS"])
        row = [*(parts[key] for key in PARTS), own, *(added[-1:])]
        table.add_row(name, *(f"{value / 1e6:.0f}" for value in row))
    total = sum(added)
    console.print(table)
    console.print(f"filling the cache took {filled:.0f} s, with the epoch of {sampler.batches} batches {whole:.0f} s")
    question, found = f"memory of loading {len(names):,} images", f"{total / 1e6:.0f} MB resident"
    return [Finding(question, found, f"< {TARGET_BYTES / 1e6:g} MB", total < TARGET_BYTES)]


PARTS = {"VmHWM": "peak", "VmRSS": "now", "RssAnon": "anonymous", "RssFile": "of files", "RssShmem": "shared"}
"""Of /proc/PID/status; what a worker has inherited from the training process counts here, though it is there once."""


def resident(process: int | None) -> dict[str, int]:
    """Bytes of each of `PARTS`, and `Private_Clean` and `Private_Dirty`, which no other process has."""
    lines = [
        line.split()
        for file in ("status", "smaps_rollup")
        for line in Path(f"/proc/{process}/{file}").read_text().splitlines()
    ]
    return {name.rstrip(":"): 1024 * int(rest[0]) for name, *rest in lines if rest[1:] == ["kB"]}


def make_parser() -> argparse.ArgumentParser:
    parser = parser_of(__doc__)
    parser.add_argument("--images", type=positive, default=6400)
    parser.add_argument("--epochs", type=positive, default=3, help="the fastest from the second on counts")
    parser.add_argument("--workers", type=int, default=DataConfig().workers)
    parser.add_argument("--seconds", type=float, default=60, help="in which waiting is measured")
    parser.add_argument("--step-seconds", type=float, help="of a step; by default those of training ResNet-50")
    parser.add_argument("--quick", action="store_true", help="a few small images only, to see that it runs")
    parser.add_argument("--memory", action="store_true", help="SYSU-MM01's 34,167 training images instead: memory")
    return parser


def measure(options: argparse.Namespace, console: Console) -> list[Finding]:
    """Measures and prints what is asked for."""
    config = Config(CoSeg.Settings(), data=DataConfig(workers=options.workers))
    if options.quick:
        config.data.height, config.data.width = 48, 24
        options.images, options.epochs, options.seconds = 320, 2, 0.5
    if options.memory:
        names = sysu_names()[:: 50 if options.quick else 1]
        return measure_memory(config.data, names, console)
    return compare(config, options.images, options.epochs, options.seconds, options.step_seconds, console)


if __name__ == "__main__":
    sys.exit(run(measure, make_parser()))
