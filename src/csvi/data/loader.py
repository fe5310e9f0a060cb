"""Records to batches: one flat dictionary of tensors each."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from csvi.config import DataConfig
from csvi.data.cache import CachedPixels, cached_images, cached_masks
from csvi.data.records import ImageRecord
from csvi.data.sampler import CrossModalitySampler, Draw
from csvi.data.transforms import draw_variation, vary
from csvi.errors import CsviError

EVALUATION_BATCH = 64


class ImageDataset(Dataset[dict[str, Tensor]]):
    """Batches of images: `image` (B, 3, H, W) uint8, `modality`, `identity` (B,), perhaps `mask` (B, 1, H, W) uint8.

    An item is a whole batch, so that nothing is left to collate. Pixels are bytes, and become four times as many in
    `csvi.data.transforms.normalize` where the network is; they lie in memory as the networks want, `channels_last`.

    Args:
        records: the images.
        images: their pixels, in the same order.
        masks: theirs, 255 = person.
        labels: dataset's identity -> label, -1 for others; by default the dataset's own number.
    """

    def __init__(
        self,
        records: Sequence[ImageRecord],
        images: CachedPixels,
        masks: CachedPixels | None = None,
        labels: Mapping[int, int] | None = None,
    ):
        self.images, self.masks = images, masks
        self.modality = torch.tensor([record.modality for record in records])
        self.identity = torch.tensor(
            [record.identity if labels is None else labels.get(record.identity, -1) for record in records]
        )

    def __getitem__(self, index: Sequence[int]) -> dict[str, Tensor]:
        index = list(index)
        images = torch.from_numpy(np.stack([self.images[i] for i in index]))
        batch = {
            "image": images.permute(0, 3, 1, 2),
            "modality": self.modality[index],
            "identity": self.identity[index],
        }
        if self.masks is not None:
            batch["mask"] = torch.from_numpy(np.stack([self.masks[i] for i in index]))[:, None]
        return batch


class VariedDataset(Dataset[dict[str, Tensor]]):
    """The same of images that are drawn by a sampler, each varied as its draw and the settings say."""

    def __init__(self, plain: ImageDataset, config: DataConfig):
        self.plain, self.config = plain, config

    def __getitem__(self, draws: Sequence[Draw]) -> dict[str, Tensor]:
        batch = self.plain[[draw.image for draw in draws]]
        modalities = batch["modality"].tolist()
        return vary(batch, [draw_variation(d.seed, m, self.config) for d, m in zip(draws, modalities, strict=True)])


def training_loader(
    root: Path,
    records: Sequence[ImageRecord],
    config: DataConfig,
    seed: int,
    masks: bool,
    rank: int = 0,
    world_size: int = 1,
) -> tuple[DataLoader[dict[str, Tensor]], CrossModalitySampler, list[int]]:
    """Endless supply of training batches, epoch by epoch.

    Args:
        root, records: the images.
        config: what a batch is, and how images are varied.
        seed: of what is drawn and how it is varied.
        masks: whether batches have them, as co-segmentation needs and the Baseline does not.
        rank, world_size: of this process.

    Returns:
        The loader; its sampler, whose `start` says which epoch and step come next; and the identities in the order
        of their labels. Batches are those of `ImageDataset`; visible images first, then infrared.

    Raises:
        CsviError: see `CrossModalitySampler`, `cached_images` and `cached_masks`.
    """
    cached = root, records, config.height, config.width, Path(config.cache), config.on_error == "skip"
    images = cached_images(*cached)
    masks_of = cached_masks(*cached) if masks else None
    bad = (masks_of.bad if masks_of else {}) | images.bad
    sampler = CrossModalitySampler(
        records, config.identities, config.images, seed, rank, world_size, skipped={i: bad[i] for i in sorted(bad)}
    )
    identities = sorted({records[i].identity for both in sampler.members for i in both[0]})
    labels = {identity: label for label, identity in enumerate(identities)}
    plain = ImageDataset(records, images, masks_of, labels)
    loader = _Loader(
        VariedDataset(plain, config),
        batch_size=None,  # the sampler gives batches, and the dataset takes them
        sampler=sampler,
        num_workers=config.workers,
        persistent_workers=config.workers > 0,
        worker_init_fn=_leave_signals_to_the_main_process,
        pin_memory=torch.cuda.is_available(),
    )
    return loader, sampler, identities


class _Loader(DataLoader[dict[str, Tensor]]):
    """Its processes are born with SIGTERM blocked: one that came while they start would end them."""

    def __iter__(self) -> Any:
        if not hasattr(signal, "sigtimedwait"):
            return super().__iter__()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            return super().__iter__()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave_signals_to_the_main_process(worker: int) -> None:
    """Ctrl-C reaches every process of the terminal, and so does the SIGTERM of `timeout`, SLURM or systemd; the main
    process decides what they mean, and may want this batch. It ends its workers by SIGTERM itself.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    main = multiprocessing.parent_process()
    if main is not None and hasattr(signal, "sigtimedwait"):  # elsewhere any SIGTERM ends it
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with, args=(main.pid, os.getppid()), daemon=True).start()


def _end_with(main: int | None, started_by: int) -> None:
    """End this process when the main one says so, or is gone."""
    while os.getppid() == started_by:
        received = signal.sigtimedwait({signal.SIGTERM}, 5)
        if received is not None and received.si_pid == main:
            break
    os._exit(0)


@contextlib.contextmanager
def loader_errors() -> Iterator[None]:
    """For what iterates a loader: says in one sentence what happened to, or in, its processes.

    Raises:
        CsviError: a process was ended; or one raised it, and this has the same words.
    """
    try:
        yield
    except RuntimeError as error:  # raised by a handler of SIGCHLD, wherever the main thread is
        if "DataLoader worker (pid" not in str(error):
            raise
        raise CsviError(
            "a loader process was ended, perhaps for want of memory: give the same command again (csvi train goes on "
            f"with --resume auto, and --data.workers 0 takes no such processes) [{' '.join(str(error).split())}]"
        ) from error
    except (CsviError, OSError) as error:  # PyTorch puts the process and its traceback before the words
        if " in DataLoader worker process " not in str(error):
            raise
        raise CsviError(str(error).rpartition(f"{type(error).__name__}: ")[2].strip()) from error


def evaluation_loader(
    root: Path, records: Sequence[ImageRecord], config: DataConfig, batches: Sequence[Sequence[int]] | None = None
) -> DataLoader[dict[str, Tensor]]:
    """Images as they are, without masks: these batches of indices, or by default all in the order of the records.

    On a CPU there are no loader processes: reading from the cache is no work to share, and what a process has in memory
    when it is forked has to be copied, page by page, as it is written again.
    """
    images = cached_images(root, records, config.height, config.width, Path(config.cache))
    order = range(len(records))
    return _Loader(
        ImageDataset(records, images),
        batch_size=None,
        sampler=batches or [order[i : i + EVALUATION_BATCH] for i in order[::EVALUATION_BATCH]],
        num_workers=config.workers if torch.cuda.is_available() else 0,
        worker_init_fn=_leave_signals_to_the_main_process,
        pin_memory=torch.cuda.is_available(),
    )
