"""Evaluation protocols as data: which images are queries and gallery of each trial, and which rules hold.

Protocols are drawn from the records of one split, test or val, and know embeddings only by their row.
`docs/protocols.md` states each of them precisely enough to be written again.
"""

import os
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import scipy.io
from numpy.typing import NDArray

from csvi.data.records import Benchmark, ImageRecord, Modality
from csvi.data.sysu_mm01 import PERMUTATIONS
from csvi.errors import CsviError
from csvi.paths import expanded

Draw = Literal["seeded", "official", "all"]
"""How galleries come about: trial t draws with seed t; or takes row t of the authors' permutations; or takes all."""

SYSU_CAMERAS = {"all-search": (1, 2, 4, 5), "indoor-search": (1, 2)}
"""Mode → cameras of the gallery."""
SYSU_SHOTS = {"single-shot": 1, "multi-shot": 10}
"""Shots → gallery images of each identity and camera."""


@dataclass(frozen=True)
class Trial:
    """Queries and a gallery: indices into the records that the protocol was made from."""

    query: Sequence[int]
    gallery: Sequence[int]


@dataclass(frozen=True)
class Protocol:
    """What is asked of whom, and by which rules it is scored."""

    name: str
    """`all-search single-shot`"""
    rules: str
    """A key of `csvi.evaluate.RULES`."""
    gallery: Draw
    """Figures of different draws cannot be compared."""
    trials: Sequence[Trial]
    """Figures are means over them."""


def protocols_of(
    benchmark: Benchmark, split: Literal["val", "test"] = "test", gallery: Draw | None = None, trials: int = 10
) -> list[Protocol]:
    """The protocols of a benchmark's layout on one of its splits; the first is the one that results are headed by.

    Args:
        benchmark: the dataset.
        split: whose images.
        gallery: how galleries are drawn; by default as the layout's first choice.
        trials: of protocols that draw.

    Raises:
        CsviError: the layout's protocols have no such draw; or as the function of the layout does.
    """
    draws, make = PROTOCOLS[benchmark.layout]
    if gallery is not None and gallery not in draws:
        raise CsviError(
            f"the galleries of {benchmark.name} are {' or '.join(draws)}, not {gallery} (docs/protocols.md)"
        )
    records = benchmark.test if split == "test" else benchmark.val
    return make(records, gallery or draws[0], benchmark.root, trials)


def sysu_protocols(
    records: Sequence[ImageRecord],
    gallery: Draw = "seeded",
    permutations: str | os.PathLike[str] | None = None,
    trials: int = 10,
) -> list[Protocol]:
    """SYSU-MM01's four settings: all-search and indoor-search, each single-shot and multi-shot.

    Every infrared image is a query, in both modes. Of each identity and each visible camera of the mode, a trial's
    gallery holds one image (single-shot) or ten (multi-shot; all where there are fewer). A mode whose cameras saw
    nobody is left out: on SYSU-MM01's val identities all-search remains.

    Args:
        records: images of one split, in any order.
        gallery: `seeded`: trial t draws with seed t, as most public code does. `official`: trial t takes its images
            from row t of the authors' permutations.
        permutations: the authors' rand_perm_cam.mat, needed for `official`.
        trials: galleries a setting; at most ten are official.

    Raises:
        CsviError: no infrared or no visible images; or the permutations are missing, unreadable or of other images.
    """
    query = _of(records, Modality.INFRARED, "SYSU-MM01's queries are the images of cameras 3 and 6")
    _of(records, Modality.VISIBLE, "SYSU-MM01's galleries are drawn from cameras 1, 2, 4 and 5")
    if gallery not in ("seeded", "official"):
        raise CsviError(f"unknown gallery {gallery!r}: choose seeded or official")
    _check_trials(trials)
    visible = _by_identity_and_camera(records, Modality.VISIBLE)
    rows = _official_rows(permutations, visible, trials) if gallery == "official" else None
    protocols = []
    for mode, cameras in SYSU_CAMERAS.items():
        images = {key: indices for key, indices in visible.items() if key[1] in cameras}
        if not images:  # SYSU-MM01's val identities were never in cameras 1 and 2
            continue
        for shots, count in SYSU_SHOTS.items():
            galleries = [
                _seeded(images, count, trial) if rows is None else _official(images, count, rows, trial)
                for trial in range(trials)
            ]
            protocols.append(
                Protocol(f"{mode} {shots}", "sysu", gallery, [Trial(query, images) for images in galleries])
            )
    return protocols


def regdb_protocols(records: Sequence[ImageRecord]) -> list[Protocol]:
    """RegDB's two directions: every image of the one modality against every image of the other, in a single trial.

    The field's ten trials are ten splits of the dataset, each with a model of its own (`csvi evaluate RUN RUN …`).

    Raises:
        CsviError: a modality has no images.
    """
    visible = _of(records, Modality.VISIBLE, "RegDB's test lists name visible and thermal ones")
    thermal = _of(records, Modality.INFRARED, "RegDB's test lists name visible and thermal ones")
    return [
        Protocol("visible to thermal", "regdb", "all", [Trial(visible, thermal)]),
        Protocol("thermal to visible", "regdb", "all", [Trial(thermal, visible)]),
    ]


def llcm_protocols(records: Sequence[ImageRecord], trials: int = 10) -> list[Protocol]:
    """LLCM's two directions, and the one that public code prints in place of the second.

    Every image of the one modality is a query; trial t's gallery holds one image of each identity and camera of the
    other, drawn with seed t. `llcm-swapped` asks the other way round: its queries are infrared images drawn so, and its
    gallery is every visible image. Public code prints that as "VIS to NIR"; it is an infrared to visible search with a
    larger gallery, and its figures compare with nothing else.

    Raises:
        CsviError: a modality has no images, or there are no trials.
    """
    _check_trials(trials)
    every = {modality: _of(records, modality, "LLCM is tested on both modalities") for modality in Modality}
    drawn = {
        modality: [_seeded(_by_identity_and_camera(records, modality), 1, trial) for trial in range(trials)]
        for modality in Modality
    }
    visible, infrared = Modality.VISIBLE, Modality.INFRARED
    return [
        Protocol("infrared to visible", "llcm", "seeded", [Trial(every[infrared], g) for g in drawn[visible]]),
        Protocol("visible to infrared", "llcm", "seeded", [Trial(every[visible], g) for g in drawn[infrared]]),
        Protocol("llcm-swapped", "llcm", "seeded", [Trial(q, every[visible]) for q in drawn[infrared]]),
    ]


def folder_protocols(records: Sequence[ImageRecord]) -> list[Protocol]:
    """People's own images: every image of the one modality against every image of the other, in both directions.

    Gallery images of the query's own identity and camera are removed, as one camera that takes both spectra sees the
    same moment twice; where no cameras are named, none is.

    Raises:
        CsviError: a modality has no images.
    """
    why = "a split needs visible and infrared ones to be searched (docs/data.md)"
    visible, infrared = _of(records, Modality.VISIBLE, why), _of(records, Modality.INFRARED, why)
    return [
        Protocol("infrared to visible", "folder", "all", [Trial(infrared, visible)]),
        Protocol("visible to infrared", "folder", "all", [Trial(visible, infrared)]),
    ]


PROTOCOLS: dict[str, tuple[tuple[Draw, ...], Callable[[Sequence[ImageRecord], Draw, Path, int], list[Protocol]]]] = {
    "sysu": (
        ("seeded", "official"),
        lambda records, gallery, root, trials: sysu_protocols(records, gallery, root / PERMUTATIONS, trials),
    ),
    "regdb": (("all",), lambda records, *_: regdb_protocols(records)),
    "llcm": (("seeded",), lambda records, gallery, root, trials: llcm_protocols(records, trials)),
    "folder": (("all",), lambda records, *_: folder_protocols(records)),
}
"""Layout → the draws it knows, and its protocols, called with the records, the draw, the dataset's root and trials."""


def camera_pairs(protocol: Protocol, records: Sequence[ImageRecord]) -> dict[tuple[int, int], Protocol]:
    """(query camera, gallery camera) → the same protocol, asked by the one camera and answered by the other alone."""

    def only(indices: Sequence[int], camera: int) -> list[int]:
        return [i for i in indices if records[i].camera == camera]

    def cameras(indices: Iterable[int]) -> list[int]:
        return sorted({records[i].camera for i in indices})

    queries = {id(trial.query): trial.query for trial in protocol.trials}.values()  # most often one for all trials
    asked = {c: {id(q): only(q, c) for q in queries} for c in cameras(i for q in queries for i in q)}
    return {
        (a, b): Protocol(
            f"camera {a} to {b}",
            protocol.rules,
            protocol.gallery,
            [Trial(asked[a][id(trial.query)], only(trial.gallery, b)) for trial in protocol.trials],
        )
        for a in asked
        for b in cameras(i for trial in protocol.trials for i in trial.gallery)
    }


def _of(records: Sequence[ImageRecord], modality: Modality, why: str) -> list[int]:
    indices = [i for i, record in enumerate(records) if record.modality == modality]
    if not indices:
        raise CsviError(f"no {modality.name.lower()} images: {why}")
    return indices


def _check_trials(trials: int) -> None:
    if trials < 1:
        raise CsviError(f"{trials} trials: at least one is needed")


def _by_identity_and_camera(records: Sequence[ImageRecord], modality: Modality) -> dict[tuple[int, int], list[int]]:
    """(identity, camera) → its records by path; keys sorted, which is the order that galleries are drawn in."""
    images: dict[tuple[int, int], list[int]] = {}
    of_modality = (i for i, record in enumerate(records) if record.modality == modality)
    for i in sorted(of_modality, key=lambda i: (records[i].identity, records[i].camera, records[i].path)):
        images.setdefault((records[i].identity, records[i].camera), []).append(i)
    return images


def _seeded(images: dict[tuple[int, int], list[int]], shots: int, trial: int) -> list[int]:
    """One shot by Python's generator, as public code draws; more by NumPy's legacy one, whose stream never changes."""
    if shots == 1:
        choose = random.Random(trial)
        return [choose.choice(indices) for indices in images.values()]
    draw = np.random.RandomState(trial)
    return [
        indices[i]
        for indices in images.values()
        for i in draw.choice(len(indices), min(shots, len(indices)), replace=False)
    ]


def _official(
    images: dict[tuple[int, int], list[int]], shots: int, rows: dict[tuple[int, int], NDArray[np.int64]], trial: int
) -> list[int]:
    return [indices[i - 1] for key, indices in images.items() for i in rows[key][trial, :shots]]


def _official_rows(
    file: str | os.PathLike[str] | None, images: dict[tuple[int, int], list[int]], trials: int
) -> dict[tuple[int, int], NDArray[np.int64]]:
    """(identity, camera) → (at least trials, images) permutations of 1…images, checked against the images there are."""
    if file is None:
        raise CsviError("official galleries need the permutations of SYSU-MM01, exp/rand_perm_cam.mat: give its path")
    file = expanded(file)
    if not file.is_file():
        raise CsviError(f"no {file}: copy it from SYSU-MM01, or evaluate on seeded galleries")
    try:
        cameras = scipy.io.loadmat(file)["rand_perm_cam"].ravel()
    except Exception as error:  # scipy raises whatever its parser stumbles on
        raise CsviError(f"cannot read rand_perm_cam in {file} ({error}): copy it from SYSU-MM01 again") from error
    rows = {}
    for (identity, camera), indices in images.items():
        try:
            row = np.asarray(cameras[camera - 1].ravel()[identity - 1])
        except (IndexError, AttributeError) as error:
            raise CsviError(
                f"{file} has nothing of identity {identity} in cam{camera}: is it of this dataset?"
            ) from error
        expected = np.arange(1, len(indices) + 1)
        if row.dtype.kind not in "iuf" or row.shape[1:] != expected.shape or (np.sort(row) != expected).any():
            raise CsviError(
                f"{file} holds no permutations of the {len(indices)} images of cam{camera}/{identity:04d}: "
                "are images missing, or is it of another dataset?"
            )
        if len(row) < trials:
            raise CsviError(f"{file} has {len(row)} official trials, not {trials}: ask for {len(row)} at most")
        rows[identity, camera] = row.astype(np.int64)
    return rows
