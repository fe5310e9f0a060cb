"""Loaders: from records to batches, in processes of their own that leave signals to the main one."""

import contextlib
import multiprocessing.queues
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._utils import ExceptionWrapper
from torch.utils.data import DataLoader, Dataset, get_worker_info
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from csvi.config import DataConfig
from csvi.data.batch import Batch
from csvi.data.cache import CachedPixels, cached_images, cached_masks
from csvi.data.records import ImageRecord, Modality
from csvi.data.sampler import Sample
from csvi.data.views import Views, augment
from csvi.errors import CsviError, in_one_line
from csvi.signals import held_back, leave_to_the_main_process

EVALUATION_BATCH = 64

ROOM = (
    "--data.workers 0 takes no such processes, which want room in memory and in /dev/shm, and a TMPDIR of a short path"
)
"""What helps where loader processes fail for something else than their images."""


class ImageDataset(Dataset[Batch]):
    """Batches of images as they are, in bytes and `channels_last`; an item is a whole batch, its index image numbers.

    Args:
        records, images, masks: the images, their pixels and, if batches are to have any, their masks, 255 = person.
        labels: dataset's identity -> label, -1 for others; by default the dataset's own number.
        without_mask: indices of images whose mask is none; where there are any, batches say who has one.
    """

    def __init__(
        self,
        records: Sequence[ImageRecord],
        images: CachedPixels,
        masks: CachedPixels | None = None,
        labels: Mapping[int, int] | None = None,
        without_mask: Collection[int] = (),
    ):
        self.images, self.masks = images, masks
        self.has_mask = torch.tensor([i not in without_mask for i in range(len(records))]) if without_mask else None
        self.modality = torch.tensor([record.modality for record in records])
        self.identity = torch.tensor(
            [record.identity if labels is None else labels.get(record.identity, -1) for record in records]
        )

    def __getitem__(self, index: Sequence[int]) -> Batch:
        return self.batch(index, [self.pixels(i) for i in index])

    def pixels(self, index: int) -> tuple[Tensor, Tensor | None]:
        """One image (3, H, W) and its mask (1, H, W), both uint8 and the caller's own."""
        image = torch.from_numpy(self.images[index]).permute(2, 0, 1)
        return image, None if self.masks is None else torch.from_numpy(self.masks[index])[None]

    def batch(self, index: Sequence[int], pixels: Iterable[tuple[Tensor, Tensor | None]]) -> Batch:
        """Put pixels of these images together to a batch."""
        images, masks = zip(*pixels, strict=True)
        index = list(index)
        return Batch(
            torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2),
            self.modality[index],
            self.identity[index],
            None if self.masks is None else torch.stack(masks),
            has_mask=None if self.has_mask is None else self.has_mask[index],
        )


class AugmentedDataset(Dataset[Batch]):
    """Batches of sampled images in the views of their modality, each augmented as its sample says.

    A batch has the visible images first: all of them in the first view, then in the second, and so on; then the
    infrared images in theirs. The first view of an image follows from its seed, and view v from (seed, v).
    """

    def __init__(self, plain: ImageDataset, views: Views):
        self.plain, self.views = plain, views

    def __getitem__(self, samples: Sequence[Sample]) -> Batch:
        modalities = self.plain.modality[[sample.image for sample in samples]].tolist()
        rows = [
            (sample, number, view)
            for modality in Modality
            for number, view in enumerate(self.views[modality])
            for sample, own in zip(samples, modalities, strict=True)
            if own == modality
        ]
        pixels = (
            augment(view, *self.plain.pixels(image), (seed, number) if number else seed, epoch)
            for (image, seed, epoch), number, view in rows
        )
        batch = self.plain.batch([sample.image for sample, _, _ in rows], pixels)
        return batch._replace(view=torch.tensor([number for _, number, _ in rows]))


def batch_loader(dataset: Dataset[Batch], batches: Iterable[Any], workers: int, persistent: bool) -> DataLoader[Batch]:
    """A loader of these batches by so many processes, which live on for another epoch if they are `persistent`."""
    return _Loader(
        dataset,
        batch_size=None,  # the index is of a batch: nothing is left to collate
        sampler=batches,
        num_workers=workers,
        persistent_workers=persistent and workers > 0,
        collate_fn=_packed,
        worker_init_fn=_begin,
        pin_memory=torch.cuda.is_available(),
    )


class _Loader(DataLoader[Batch]):
    """A loader whose processes leave signals to the main one from the start."""

    def __iter__(self) -> Any:
        try:
            with held_back():
                return super().__iter__()
        except OSError as error:
            _MultiProcessingDataLoaderIter._shutdown = True  # which it asks for when it is collected, half made
            raise CsviError(
                f"cannot start loader processes ({in_one_line(error)}): {ROOM}, or there may be too many processes"
            ) from error


class _Parcel:
    """A batch on its way from a loader process, where it is unpacked as a `Batch` again.

    It travels as bytes through the pipe. PyTorch would put it into shared memory (/dev/shm, 64 MB in a container) and
    hand over the file through a socket in TMPDIR, whose path must be short.
    """

    def __init__(self, batch: Batch):
        self.batch = batch

    def __reduce__(self) -> Any:
        image, *others = self.batch[:-1]
        rows = (None if rows is None else rows.numpy() for rows in others)
        return _unpacked, (image.permute(0, 2, 3, 1).numpy(), *rows)  # in the order in which it lies in memory


def _unpacked(image: np.ndarray, *others: np.ndarray | None) -> Batch:
    rows = (None if rows is None else torch.from_numpy(rows) for rows in others)
    return Batch(torch.from_numpy(image).permute(0, 3, 1, 2), *rows)  # type: ignore[arg-type]


def _packed(batch: Any) -> Any:
    """Make a batch ready to be sent, in a loader process; the main process has it already."""
    return batch if get_worker_info() is None else _Parcel(batch)


def _begin(worker: int) -> None:
    """Begin a loader process, which leaves signals to the main one and says there why a batch cannot be sent."""
    leave_to_the_main_process()
    multiprocessing.queues.Queue._on_queue_feeder_error = _send_the_reason  # type: ignore[attr-defined]


def _send_the_reason(queue: Any, error: Exception, unsent: Any) -> None:
    """Send why a batch could not be sent in its place; Python prints it, and the main process would wait for ever."""
    try:
        number, _ = unsent
        raise CsviError(f"a loader process cannot send its batch ({in_one_line(error)}): {ROOM}") from error
    except CsviError:
        queue.put((number, ExceptionWrapper(where=f"in DataLoader worker process {os.getpid()}")))
    except (TypeError, ValueError):  # it was bytes already, of no number: the pipe failed
        os._exit(1)


@contextlib.contextmanager
def loader_errors() -> Iterator[None]:
    """Raise `CsviError` if the process of a loader that is iterated inside was ended, or raised one, in its words."""
    try:
        yield
    except RuntimeError as error:  # raised by a handler of SIGCHLD, wherever the main thread is
        if "DataLoader worker (pid" not in str(error) and "Pin memory thread exited" not in str(error):
            raise
        raise CsviError(
            "a loader process was ended, perhaps for want of memory: give the same command again (csvi train resumes "
            f"with --resume auto, and --data.workers 0 takes no such processes) [{in_one_line(error)}]"
        ) from error
    except (CsviError, OSError) as error:  # PyTorch puts the process and its traceback before the words
        if " in DataLoader worker process " not in str(error):
            raise
        raise CsviError(str(error).rpartition(f"{type(error).__name__}: ")[2].strip()) from error


def evaluation_loader(
    root: Path,
    records: Sequence[ImageRecord],
    data: DataConfig,
    batches: Sequence[Sequence[int]] | None = None,
    masks: bool = False,
) -> DataLoader[Batch]:
    """A loader of images as they are; raises as `cached_images` and, with masks, as `cached_masks`.

    On a CPU it has no processes: reading from the cache is no work to share, and what a process has in memory when it
    is forked has to be copied, page by page, as it is written again.

    Args:
        root, records: the images, and the folder that their paths are relative to.
        data: their size and ranges, the cache, and the number of processes beside a GPU.
        batches: indices of the images of each batch; by default all images in the order of the records.
        masks: batches have the masks too; images without one are whole if `data.without_mask` is train.
    """
    images = cached_images(root, records, data)
    masks_of = cached_masks(root, records, data, data.without_mask == "train") if masks else None
    order = range(len(records))
    if batches is None:
        batches = [order[i : i + EVALUATION_BATCH] for i in order[::EVALUATION_BATCH]]
    workers = data.workers if torch.cuda.is_available() else 0
    dataset = ImageDataset(records, images, masks_of, without_mask=masks_of.bad if masks_of else ())
    return batch_loader(dataset, batches, workers, persistent=False)
