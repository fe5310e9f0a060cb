"""Images for figures: those that runs share, their true masks, and the masks that a run predicts."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from csvi.data import ImageRecord
from csvi.data.cache import EMPTY, cached_masks
from csvi.data.masks import read_mask
from csvi.data.records import paired_images
from csvi.errors import CsviError
from csvi.methods.decode import Decode
from csvi.runs import Run


def same_test_images(runs: Sequence[Run]) -> list[ImageRecord]:
    """List the test images of all runs; raises `CsviError` if two of them differ."""
    roots = [run.benchmark.root.resolve() for run in runs]
    images = [[(record.path, record.identity) for record in run.benchmark.test] for run in runs]
    for run, root, of_run in zip(runs, roots, images, strict=True):
        if (root, of_run) != (roots[0], images[0]):
            raise CsviError(
                f"{runs[0].path} and {run.path} have different test images (of {roots[0]} and of {root}): this "
                "figure compares runs on the same ones, the same fold of one dataset in one folder"
            )
    return runs[0].benchmark.test


def both_modalities(records: Sequence[ImageRecord]) -> dict[int, tuple[list[int], list[int]]]:
    """Find the images of people, see `paired_images`; the smallest identity first."""
    return dict(sorted(paired_images(records).items()))


def images_with_person(run: Run) -> list[ImageRecord]:
    """List the test images whose true mask shows a person.

    Raises:
        CsviError: a test image has no true mask, or as `cached_masks`.
    """
    test = run.benchmark.test
    if not all(record.mask for record in test):
        raise CsviError(
            f"not all test images of {run.benchmark.root} have a mask, with which this figure compares what is "
            "predicted"
        )
    return _with_person(run, test)


def training_images_with_person(run: Run) -> list[ImageRecord]:
    """List the images of a run's classes that have a mask, if it shows a person; raises as `Run.training_set`."""
    images = run.training_set
    unused = images.skipped.keys() | images.without_mask.keys()
    of_classes = [r for i, r in enumerate(images.records) if i not in unused and r.identity in images.labels]
    return _with_person(run, [record for record in of_classes if record.mask])


def _with_person(run: Run, records: Sequence[ImageRecord]) -> list[ImageRecord]:
    empty = set(cached_masks(run.benchmark.root, records, run.data).marked(EMPTY))
    return [record for i, record in enumerate(records) if i not in empty]


def true_masks(run: Run, records: Sequence[ImageRecord]) -> Tensor:
    """Read the masks of images that have one: (n, H, W) bool, at the size that the network sees."""
    size, values = (run.data.height, run.data.width), run.data.mask_values
    masks = [read_mask(record.mask, *size, values) for record in records if record.mask]
    return torch.from_numpy(np.stack(masks)) > 127


def predicts_masks(run: Run) -> bool:
    """Whether a run can be asked for masks: its method predicts them and is still there."""
    return run.has_method and run.method.predicts_masks


def has_channels_of_identities(run: Run) -> bool:
    """Whether the masks that a run predicts have a channel for each of its classes (Eq. 14)."""
    return predicts_masks(run) and isinstance(run.method, Decode) and run.method.decoder.by_identity


def predict_sets(
    run: Run,
    records: Sequence[ImageRecord],
    sets: Sequence[Sequence[int]],
    asked: Sequence[int | None] | None = None,
) -> list[Tensor]:
    """Predict masks for sets of images, each set given as one identity, whoever is in it.

    Args:
        run: one that predicts masks.
        records: the images.
        sets: each some of them, by index.
        asked: label of the class that each set is asked for, see `has_channels_of_identities`; by default anybody.

    Returns:
        For each set the probability of that person, (images, H, W) float32 on the CPU, at the size of the images.

    Raises:
        CsviError: the run predicts no masks.
    """
    if not predicts_masks(run):
        method = "" if run.config is None else f" (it was trained with {run.config.method.name})"
        reason = "its method predicts none" if run.has_method else "its method.safetensors is gone"
        raise CsviError(
            f"{run.path} predicts no masks, as {reason}{method}: this figure needs coseg, decode or segment"
        )
    batch = run.batch(records)
    masks = []
    with torch.inference_mode(), run.fabric.autocast():
        for members, label in zip(sets, asked or [None] * len(sets), strict=True):
            of_set = batch.subset(torch.tensor(list(members), device=batch.modality.device))
            of_set = of_set._replace(identity=torch.zeros_like(of_set.identity))
            if label is None:
                predicted = run.method.predict_masks(of_set)
            else:
                assert isinstance(run.method, Decode)
                predicted = run.method.predict_masks_of(of_set, label)
            assert predicted is not None
            masks.append(predicted[:, 0].cpu())
    return masks
