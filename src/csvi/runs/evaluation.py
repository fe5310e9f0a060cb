"""Evaluations: a run, or anybody's embeddings, on the test split of a dataset; in memory and on disk one class."""

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import csvi
from csvi.config import DataConfig, shared_by_repetitions
from csvi.data import Benchmark, Modality, protocols_of, read_benchmark
from csvi.data.cache import CachedPixels, cached_masks
from csvi.data.files import fingerprint
from csvi.errors import CsviError
from csvi.evaluate.mask_iou import best_constant_mask, mask_iou
from csvi.evaluate.protocols import Protocol
from csvi.evaluate.refine import NO_REFINEMENT
from csvi.evaluate.scoring import CameraPair, Result, evaluate_camera_pairs, evaluate_protocols
from csvi.model.weights import METHOD, MODEL, fingerprint_of, noted
from csvi.paths import as_argument, expanded
from csvi.plain import from_plain
from csvi.runs.embeddings import read_embeddings, write_embeddings
from csvi.runs.run import EVALUATION, FLIP, Options, Run, fold_words, named
from csvi.writing import replacing

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MaskResult:
    """Predicted masks against the true ones, for the images of one modality; means of the intersection over union."""

    images: int
    """Images whose true mask shows a person; the others have no part in the intersection over union."""
    iou: float
    constant_iou: float
    """IoU of the best mask that is the same for all these images."""
    without_person: int
    """Images whose true mask shows nobody."""
    predicted_without: float
    """Share of their pixels that is predicted to be a person, a mean; 0 without such images."""


@dataclass(frozen=True)
class Evaluation:
    """Everything `csvi evaluate` finds."""

    benchmark: str
    layout: str
    fold: int
    """Fold of the dataset."""
    root: str
    fingerprint: str
    """Fingerprint of the test images: metrics on different ones are not compared."""
    synthetic: bool
    """Whether the images were rendered: nothing follows from these metrics for photographs."""
    model: str
    """Run folder or file that the embeddings come from."""
    key: str
    """Digest of its sources, see `evaluation_key`; empty where they are not known."""
    protocols: list[Result]
    camera_pairs: list[CameraPair]
    """Under the first of the protocols; empty where there is a single pair, and with refinements."""
    masks: dict[str, MaskResult]
    """`visible` and `infrared`; empty if the method predicts no masks, or without masks to compare with."""
    seconds: dict[str, float]
    """`embedding`, flipping included, and `ranking`, refinements included, on this machine; 0 for what was kept."""
    cameras: dict[str, str] = field(default_factory=dict)
    """Number of a camera → its name, where cameras have names."""
    weights: str = ""
    """Fingerprint of the network's weights; empty where they are not known."""
    unfinished: str = ""
    """How much of the network's training was done, as in `33 of 300 steps`, where that had not ended."""
    settings: dict[str, str] = field(default_factory=dict)
    """Settings that repetitions of the run have too, see `csvi.config.shared_by_repetitions`; empty where not known."""
    version: str = csvi.__version__

    def name_of_camera(self, camera: int) -> str:
        """Name of a camera as the dataset has it, or its number."""
        return self.cameras.get(str(camera), str(camera))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Evaluation":
        """Load what `csvi evaluate` saved, or printed as JSON.

        Args:
            path: of a run, whose evaluation.json it is, or of such a file.

        Raises:
            CsviError: the file does not exist, is not an evaluation, holds several, or is of another version or of
                other weights than the run has now.
        """
        path = expanded(path)
        file = path / EVALUATION if path.is_dir() else path
        if not file.is_file():
            run = path.parent if path.suffix == ".json" else path
            raise CsviError(f"no {file}: evaluate it first, csvi evaluate {as_argument(run)}")
        try:
            plain = json.loads(file.read_text())
        except OSError as error:
            raise CsviError(f"cannot read {file}: {error.strerror}") from error
        except (ValueError, RecursionError):
            plain = None
        several = plain.get("evaluations") if isinstance(plain, dict) else None
        if isinstance(several, list):
            if len(several) != 1:
                count = len(several)
                raise CsviError(f"{file} holds {count} evaluations: give a file with one, csvi evaluate --json RUN")
            plain = several[0]
        try:
            evaluation: Evaluation = from_plain(cls, plain)
            evaluation.check()
        except ValueError as error:
            raise CsviError(
                f"{file} is no evaluation of csvi {csvi.__version__} ({error}): give a run folder, or the "
                "evaluation.json of one, and evaluate it again if another version wrote it"
            ) from error
        run = file.parent
        if evaluation.weights and (run / MODEL).is_file() and fingerprint_of(run) != evaluation.weights:
            again = f"evaluate it again, csvi evaluate {as_argument(run)}"
            raise CsviError(f"{file} is of other weights than the run has now: {again}")
        return evaluation

    def check(self) -> None:
        """Raises `ValueError` if what it says of each identity does not fit together."""
        damaged = not self.protocols
        for of, metrics in ((result.by_identity, result.metrics) for result in self.protocols):
            lengths = {len(of.queries), *map(len, of.sums.values())}
            damaged |= lengths != {len(of.identity)} or not {*metrics} <= {*of.sums} or min(of.queries, default=0) < 1
        if damaged:
            raise ValueError("what it says of each identity is damaged")

    def result(self, protocol: str | None = None) -> Result:
        """Pick the result under a protocol, by default the first; raises `CsviError` if it was not evaluated."""
        results = {result.protocol: result for result in self.protocols}
        protocol = protocol or next(iter(results))
        if protocol not in results:
            raise CsviError(f"not evaluated under {protocol!r}: choose one of {', '.join(results)}")
        return results[protocol]

    def save(self, file: str | os.PathLike[str]) -> Path:
        """Write it as JSON, completely or not at all; returns the file."""
        file = expanded(file)
        with replacing(file) as partial:
            partial.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n")
        return file


def evaluate_run(run: Run) -> Evaluation:
    """Evaluate a run on the test split of a dataset, as its options say.

    Embeddings of an earlier evaluation are used again if weights, images and settings are the same; afterwards
    `run.embeddings` are the ones that were evaluated.

    Raises:
        CsviError: the dataset lacks something that its protocols need, a gallery is too small for the options, or an
            image or a mask cannot be read.
    """
    benchmark, options = run.benchmark, run.options
    protocols = _protocols(benchmark, options)  # what cannot be asked is found before embedding
    true = _true_masks(run)  # and so are masks that are none
    embeddings, seconds = run.kept_embeddings(), 0.0
    run.fabric.broadcast(embeddings is None)  # to the processes that embed a share
    if embeddings is None:
        start = time.perf_counter()
        embeddings = run.embed()
        seconds = time.perf_counter() - start
    run.embeddings = embeddings
    masks = {} if true is None else _evaluate_masks(run, true)
    key = evaluation_key(run)
    evaluation = _evaluation(embeddings, protocols, benchmark, options, run.path, key, seconds, masks)
    return dataclasses.replace(
        evaluation,
        weights=fingerprint_of(run.folder) if run.folder else "",
        unfinished=noted(run.folder).get("unfinished", "") if run.folder else "",
        settings=shared_by_repetitions(run.config) if run.config else {},
    )


def embed_share(run: Run) -> None:
    """Embed this process's share of the test images, if the first process, which evaluates the run, asks for it."""
    if run.fabric.broadcast(None):
        run.embed()


def save_evaluation(evaluation: Evaluation, run: Run) -> Path | None:
    """Save an evaluation, RUN/evaluation.json, and its embeddings; returns its file, None for a model of the Hub."""
    file, embeddings = evaluation_file(run), run.embeddings_file
    if file is None or embeddings is None:
        return None
    with contextlib.suppress(CsviError):  # there is none, or it is damaged
        before = Evaluation.load(file)
        if before.root != evaluation.root and before.fingerprint != evaluation.fingerprint:
            log.warning("%s was of %s: the evaluation on %s replaces it", file, before.root, evaluation.root)
    evaluation.save(file)
    if run.kept_embeddings() is None:
        write_embeddings(embeddings, run.embeddings, [record.path for record in run.benchmark.test], run.key)
    return file


def evaluation_file(run: Run) -> Path | None:
    """Name the file that keeps the evaluation of a run under its options."""
    return run.file_of(EVALUATION, *_words(run.options))


def evaluation_file_of_features(file: Path, options: Options) -> Path:
    """Name the file that keeps the evaluation of embeddings from elsewhere: F.evaluation.json beside F.npz."""
    return file.with_suffix(f".{named(EVALUATION, *fold_words(options.fold), *_words(options))}")


def _words(options: Options) -> list[str]:
    """Words for galleries, flipping and refinements in the name of a file; none for the defaults."""
    words = ["official"] if options.gallery == "official" else []
    words += [FLIP] if options.flip else []
    return [word.replace(" ", "-") for word in [*words, *options.refinement.short_names()]]


def evaluation_key(run: Run) -> str:
    """Say what an evaluation depends on: embeddings, protocols, who is on the images, masks and what predicts them."""
    if not run.key:
        return ""
    benchmark, options = run.benchmark, run.options
    files = [record.mask for record in benchmark.test if record.mask] if run.has_method else []
    changed = [(str(file), file.stat().st_mtime_ns if file.is_file() else 0) for file in files]
    changed.append((METHOD, (Path(run.path) / METHOD).stat().st_mtime_ns if run.has_method else 0))
    labels = [(record.identity, benchmark.name_of_camera(record.camera)) for record in benchmark.test]
    values = run.data.mask_values
    asked = protocols_of(benchmark, "test", options.gallery), labels, changed, values, options.refinement.names()
    return f"{run.key} {hashlib.sha256(repr(asked).encode(errors='surrogateescape')).hexdigest()[:24]}"


def kept_evaluation(run: Run) -> Evaluation | None:
    """Load the evaluation of a run under its options, if it is still of the same weights, images and settings."""
    file = evaluation_file(run)
    if file is None or not file.is_file():
        return None
    try:
        evaluation = Evaluation.load(file)
    except CsviError:
        return None
    return evaluation if evaluation.key == evaluation_key(run) else None


def evaluated(run: Run) -> Evaluation:
    """Load the evaluation that is kept in the run folder, or evaluate the run now and keep that."""
    evaluation = kept_evaluation(run)
    if evaluation is None:
        evaluation = evaluate_run(run)
        save_evaluation(evaluation, run)
    return evaluation


def evaluate_features(file: str | os.PathLike[str], options: Options) -> Evaluation:
    """Evaluate embeddings from elsewhere: those of all test images from a file as `read_embeddings` reads it.

    Raises:
        CsviError: the options name no root, or ask for flipping; or as `read_embeddings` does; or bad data.
    """
    if not options.root:
        raise CsviError("features need the dataset whose images they describe: give its folder with --data.root")
    if options.flip:
        raise CsviError("--flip averages while embedding and these are embeddings already: leave it out")
    benchmark = read_benchmark(options.applied_to(DataConfig()))
    embeddings = read_embeddings(expanded(file), [record.path for record in benchmark.test])
    protocols = _protocols(benchmark, options)
    return _evaluation(embeddings, protocols, benchmark, options, str(file), "", 0.0, {})


def _protocols(benchmark: Benchmark, options: Options) -> list[Protocol]:
    """The protocols on the test images; raises `CsviError` if queries are expanded by more images than there are."""
    protocols = protocols_of(benchmark, "test", options.gallery)
    expand, sizes = options.refinement.expand, [len(trial.gallery) for p in protocols for trial in p.trials]
    smallest = min(filter(None, sizes), default=expand)
    if expand > smallest:
        raise CsviError(f"--expand {expand}: the gallery holds {smallest:,} images")
    return protocols


def _evaluation(
    embeddings: Tensor,
    protocols: Sequence[Protocol],
    benchmark: Benchmark,
    options: Options,
    model: str,
    key: str,
    seconds: float,
    masks: dict[str, MaskResult],
) -> Evaluation:
    start = time.perf_counter()
    results = evaluate_protocols(protocols, embeddings, benchmark.test, options.refinement)
    ranking = time.perf_counter() - start
    if torch.equal(*embeddings.aminmax(dim=0)):
        log.warning("all embeddings are equal: every ranking is a tie, and the metrics say nothing (%s)", model)
    pairs = []
    if options.refinement == NO_REFINEMENT:  # which looks at the whole gallery, and not at one camera of it
        first = next(protocol for protocol in protocols if protocol.name == results[0].protocol)  # some are left out
        pairs = evaluate_camera_pairs(first, embeddings, benchmark.test)
    if options.flip:
        results = [dataclasses.replace(result, refinements=[FLIP, *result.refinements]) for result in results]
    return Evaluation(
        benchmark=benchmark.name,
        layout=benchmark.layout,
        fold=benchmark.fold,
        root=str(benchmark.root),
        fingerprint=fingerprint(benchmark.root, benchmark.test),
        synthetic=benchmark.synthetic,
        model=model,
        key=key,
        protocols=results,
        camera_pairs=pairs,
        masks=masks,
        seconds={"embedding": seconds, "ranking": ranking},  # with all that was asked for
        cameras={str(camera): name for camera, name in benchmark.cameras.items()},
    )


def _true_masks(run: Run) -> CachedPixels | None:
    """Open the masks of the test images, if all have one and the run predicts any; raises as `cached_masks`."""
    benchmark = run.benchmark
    missing = [record for record in benchmark.test if not record.mask]
    if len(missing) == len(benchmark.test) or not (run.has_method and run.method.predicts_masks):
        return None
    if missing:
        count, of, example = len(missing), len(benchmark.test), missing[0].path
        log.warning(
            "%d of %d test images have no mask, such as %s: predicted ones are not evaluated", count, of, example
        )
        return None
    return cached_masks(benchmark.root, benchmark.test, run.data)


def _evaluate_masks(run: Run, masks: CachedPixels) -> dict[str, MaskResult]:
    """Compare predicted masks with the true ones, at the size of the images, for each modality that shows a person."""
    test = run.benchmark.test
    iou, marked = torch.zeros(len(test)), torch.zeros(len(test))
    for index, predicted in run.masks_by_identity():
        true = torch.from_numpy(np.stack([masks[i] > 127 for i in index]))
        iou[index] = mask_iou(predicted > 0.5, true)
        marked[index] = (predicted > 0.5).float().mean((1, 2))
    results = {}
    for modality in Modality:
        of_modality = [i for i, record in enumerate(test) if record.modality == modality]
        index = [i for i in of_modality if not iou[i].isnan()]
        without = [i for i in of_modality if iou[i].isnan()]
        name = modality.word
        if not index:
            log.warning("no mask of the %s test images shows a person: predicted ones are compared with none", name)
            continue
        true = torch.from_numpy(np.stack([masks[i] > 127 for i in index]))
        nobody = float(marked[without].mean()) if without else 0.0
        results[name] = MaskResult(
            len(index), float(iou[index].mean()), best_constant_mask(true)[1], len(without), nobody
        )
    return results
