"""Queries and galleries, drawn from the records of a split."""

import random
from collections.abc import Sequence

import numpy as np

from csvi.data.records import DISTRACTOR, ImageRecord, Modality
from csvi.errors import CsviError


def images_of(records: Sequence[ImageRecord], modality: Modality, why: str) -> list[int]:
    """Indices of the images of a modality; raises `CsviError` if there are none, with `why` they are needed."""
    indices = [i for i, record in enumerate(records) if record.modality == modality]
    if not indices:
        raise CsviError(f"no {modality.word} images: {why}")
    return indices


def queries_of(records: Sequence[ImageRecord], modality: Modality, why: str) -> list[int]:
    """Indices of the images of a modality that may be asked for: all but distractors; raises as `images_of` does."""
    people = [i for i in images_of(records, modality, why) if records[i].identity != DISTRACTOR]
    if not people:
        raise CsviError(f"no {modality.word} images but distractors: {why}")
    return people


def by_identity_and_camera(records: Sequence[ImageRecord], modality: Modality) -> dict[tuple[int, int], list[int]]:
    """(identity, camera) → its records by path; keys sorted, which is the order that galleries are drawn in."""
    images: dict[tuple[int, int], list[int]] = {}
    of_modality = (i for i, record in enumerate(records) if record.modality == modality)
    for i in sorted(of_modality, key=lambda i: (records[i].identity, records[i].camera, records[i].path)):
        images.setdefault((records[i].identity, records[i].camera), []).append(i)
    return images


def draw_seeded(images: dict[tuple[int, int], list[int]], shots: int, trial: int) -> list[int]:
    """Draw a gallery of so many images of each identity and camera, all where there are fewer, with the trial as seed.

    A single shot is drawn by Python's generator, as public code does; several by NumPy's legacy one, whose stream never
    changes.
    """
    if shots == 1:
        choose = random.Random(trial)
        return [choose.choice(indices) for indices in images.values()]
    draw = np.random.RandomState(trial)
    return [
        indices[i]
        for indices in images.values()
        for i in draw.choice(len(indices), min(shots, len(indices)), replace=False)
    ]
