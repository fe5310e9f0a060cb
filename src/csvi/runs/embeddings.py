"""Embeddings: made of images, and on disk, those that an evaluation leaves and those of any other code in one form."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, distributed

from csvi.data.batch import Batch, prepare
from csvi.data.files import path_inside
from csvi.data.loader import EVALUATION_BATCH
from csvi.data.records import ImageRecord
from csvi.errors import CsviError
from csvi.evaluate.scoring import check_embeddings
from csvi.fabric import keep_freed_memory, of_processes
from csvi.model.folding import folded
from csvi.model.net import EmbeddingNet
from csvi.npz import read_arrays
from csvi.progress import progress
from csvi.writing import replacing


def embed(net: EmbeddingNet, batches: Iterable[Batch], fabric: Fabric, flip: bool = False) -> Tensor:
    """Embed all images, in the order of the batches.

    Every image goes through the stream of its own modality, whichever images stand beside it.

    Args:
        net: on the device of `fabric`; left in evaluation mode.
        batches: as a loader gives them, with masks if the network takes them.
        fabric: device and precision.
        flip: average the embedding of each image with that of its mirror image, as the network does it.

    Returns:
        (n, D) float32 on the CPU.
    """
    net.eval()
    lean = folded(net)
    keep_freed_memory(fabric.device)
    embeddings: list[Tensor] = []
    with torch.inference_mode(), fabric.autocast():
        for batch in progress(batches, "Embedding") if fabric.is_global_zero else batches:
            batch = prepare(batch, fabric.device)
            embedding = _embedded(lean, batch)
            if flip:
                mask = batch.mask.flip(3) if batch.mask is not None else None
                mirrored = _embedded(lean, batch._replace(image=batch.image.flip(3), mask=mask))
                embedding = lean.average([embedding, mirrored])
            embeddings.append(embedding)  # on the device, which waits for nobody until it has done them all
    return torch.cat(embeddings).cpu()


def embed_together(
    net: EmbeddingNet,
    images: int,
    load: Callable[[Sequence[Sequence[int]]], Iterable[Batch]],
    fabric: Fabric,
    flip: bool = False,
) -> Tensor:
    """Embed all images, divided among the processes by batches; each has them all afterwards, in their order.

    Process r of W embeds the batches r, r + W, and so on, which it alone loads; one process embeds them all. The
    network gets the buffers of the first process: after a training step each has batch norms of its own images.

    Args:
        net, fabric, flip: see `embed`.
        images: n, at least 1.
        load: gives the batches of images with these numbers, as `evaluation_loader` does.

    Returns:
        (n, D) float32 on the CPU.
    """
    order, world_size = range(images), fabric.world_size
    batches = [order[i : i + EVALUATION_BATCH] for i in order[::EVALUATION_BATCH]]
    shares = [batches[rank::world_size] for rank in range(world_size)]
    own = shares[fabric.global_rank]  # empty where there are fewer batches than processes
    for buffer in net.buffers() if world_size > 1 else ():
        distributed.broadcast(buffer, 0)
    embedded = embed(net, load(own), fabric, flip) if own else None
    if world_size == 1:
        assert embedded is not None
        return embedded
    found = of_processes(fabric, embedded)
    embeddings = found[0].new_empty(images, found[0].shape[1])
    for share, rows in zip(shares, found, strict=True):
        if share:
            embeddings[[number for batch in share for number in batch]] = rows
    return embeddings


def _embedded(net: EmbeddingNet, batch: Batch) -> Tensor:
    masks = (batch.mask, batch.has_mask) if net.takes_masks else ()
    return net(batch.image, batch.streams, *masks).float()


def write_embeddings(file: Path, embeddings: Tensor, paths: Sequence[str], key: str) -> None:
    """Write embeddings (n, d) of the images at these paths; `key` says what they were computed from, see `key_of`."""
    with replacing(file) as partial, partial.open("wb") as opened:
        np.savez(opened, embedding=embeddings.numpy(), path=np.array(paths), key=np.array(key))


def kept_embeddings(file: Path, paths: Sequence[str], key: str) -> Tensor | None:
    """Read embeddings if they were computed from what this key says, and None if not, or if the file is damaged."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            same = str(arrays["key"]) == key
        return read_embeddings(file, paths) if same else None
    except Exception:  # a file that is missing, damaged or another's fails in NumPy and zipfile in every way
        return None


def key_of(weights: Path, root: Path, records: Iterable[ImageRecord], *settings: object) -> str:
    """Digest the weights of a network and its images (path, modality, length, time of change), and add settings."""
    with weights.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256")
    for record in records:
        try:
            status = (root / record.path).stat()
        except OSError as error:
            raise CsviError(f"cannot read the image {root / record.path}: {error.strerror}") from error
        line = f"{record.path} {int(record.modality)} {status.st_size} {status.st_mtime_ns}\n"
        digest.update(line.encode(errors="surrogateescape"))
    return f"{digest.hexdigest()[:24]} {' '.join(map(str, settings))}"


def read_embeddings(file: Path, paths: Sequence[str]) -> Tensor:
    """Read the embeddings of these images, in their order: (paths, d), in at least 32 bits.

    Args:
        file: .npz with the arrays `embedding` (n, d) and `path` (n,), in any order; other arrays are passed over.
        paths: of images, relative to the root of their dataset.

    Raises:
        CsviError: the file does not exist, holds no such arrays, lacks an image, or names one twice or a path outside
            the root.
    """
    arrays = read_arrays(file, {"embedding": "(n, d)", "path": "(n,)"})
    embedding, path = arrays["embedding"], arrays["path"]
    if path.ndim != 1 or path.dtype.kind not in "US":
        raise CsviError(f"path in {file} has shape {path.shape} and type {path.dtype}: it must be (n,) of strings")
    if embedding.dtype.kind != "f" or embedding.itemsize not in (2, 4, 8):
        raise CsviError(f"embedding in {file} has type {embedding.dtype}: it must be float16, float32 or float64")
    try:
        native = np.ascontiguousarray(embedding, f"f{embedding.itemsize}")
        embeddings = check_embeddings(torch.from_numpy(native), len(path))
    except CsviError as error:
        raise CsviError(f"{file}: {error}") from error
    rows: dict[str, int] = {}
    for row, name in enumerate(path.tolist()):
        name = path_inside(name.decode(errors="replace") if isinstance(name, bytes) else name, f"path {row} of {file}")
        if name in rows:
            raise CsviError(f"{file} has two embeddings of {name!r}: there must be one of each image")
        rows[name] = row
    missing = [name for name in paths if name not in rows]
    if missing:
        raise CsviError(
            f"{file} has no embedding of {len(missing)} of {len(paths)} test images, such as {missing[0]!r}: "
            "paths must be relative to the dataset's folder"
        )
    return embeddings[[rows[name] for name in paths]]
