"""A trained run, or anybody's embeddings, on the test split of a dataset: retrieval under the dataset's protocols, and
the masks that a run's auxiliary predicts."""

import dataclasses
import json
import re
import time
from pathlib import Path

import torch
from torch import Tensor

import csvi
from csvi.config import Config, DataConfig, load_config
from csvi.data import LAYOUTS, Benchmark, read_benchmark, recognise
from csvi.data.files import fingerprint
from csvi.data.loader import evaluation_loader, loader_errors
from csvi.errors import CsviError
from csvi.evaluate.compare import load_evaluation
from csvi.evaluate.embed import embed
from csvi.evaluate.features import read_features
from csvi.evaluate.predicted_masks import MaskResult, compare_masks, predict_masks
from csvi.evaluate.protocols import Draw, protocols_of
from csvi.evaluate.refine import NO_REFINEMENT, Refinement
from csvi.evaluate.scoring import (
    CameraPair,
    Result,
    evaluate_camera_pairs,
    evaluate_protocols,
)
from csvi.fabric import make_fabric
from csvi.model import TrainingNetwork, VIReIDNet
from csvi.model.saved import has_auxiliary, load_net, load_training_network
from csvi.paths import expanded
from csvi.writing import replacing

FLIP = "flip averaging"
MOST_SIDE = 1024
"""Pixels of an image, of a model without settings: larger ones would fill memory and the cache."""


@dataclasses.dataclass(frozen=True)
class EvaluationOptions:
    """On what, and how, to evaluate; None leaves it to the run, or to the dataset."""

    root: str | None = None
    """Folder of the dataset."""
    dataset: str | None = None
    """Its layout, a key of `LAYOUTS`; by default that of the run or, of another folder, the one it looks like."""
    trial: int | None = None
    """Which split of it (RegDB)."""
    masks: str | None = None
    """Folder of person masks; by default that of the run, or of another root its own."""
    cache: str | None = None
    """Folder of decoded images."""
    gallery: Draw | None = None
    """How galleries are drawn, see `protocols_of`."""
    flip: bool = False
    """Average the embedding of each image with that of its mirror image."""
    refinement: Refinement = NO_REFINEMENT
    """Re-ranking and query expansion."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Everything `csvi evaluate` finds."""

    benchmark: str
    dataset: str
    """Its layout."""
    trial: int
    """Which split of it."""
    root: str
    fingerprint: str
    """Of the test images: figures of different ones are not compared."""
    synthetic: bool
    """Whether the images were rendered: nothing follows from these figures for photographs."""
    model: str
    """Run folder or file that the embeddings come from."""
    protocols: list[Result]
    camera_pairs: list[CameraPair]
    """Under the first of the protocols; empty where there is a single pair, and with refinements."""
    masks: dict[str, MaskResult]
    """`visible` and `infrared`; empty without an auxiliary that predicts masks or without masks to compare with."""
    seconds: dict[str, float]
    """`embedding`, flipping included, and `ranking`, refinements included, on this machine."""
    version: str = csvi.__version__


@dataclasses.dataclass(frozen=True)
class Outcome:
    """An evaluation and what it was computed from."""

    evaluation: Evaluation
    config: Config
    benchmark: Benchmark
    embeddings: Tensor
    """(n, P * C2), in the order of `benchmark.test`."""
    masks: Tensor | None
    """Probability of person of the same images, see `predict_masks`."""
    elsewhere: bool = False
    """Whether the test images are known to be others than those of the dataset that the run was trained on."""


def evaluate_run(run: str | Path, options: EvaluationOptions = EvaluationOptions()) -> Outcome:
    """Evaluate a run on the test split of a dataset.

    Args:
        run: folder of the run, or of a model alone, or one of the Hub, see `load_net`.
        options: by default the dataset that the run was trained on, as its protocols say.

    Raises:
        CsviError: no trained model, or bad data.
    """
    folder = Path(run)
    config, net, trained = _settings(run, options)
    if trained and config.data.dataset == trained.dataset and config.data.trial != trained.trial:
        raise CsviError(
            f"{run} was trained on split {trained.trial}, whose people are tested in split {config.data.trial}: "
            "evaluate it on its own, without --data.trial"
        )
    benchmark = read_benchmark(config.data)
    protocols_of(benchmark, "test", options.gallery)  # what cannot be asked is found before anything is embedded
    fabric = make_fabric(config)
    with_masks = has_auxiliary(folder) and all(record.mask for record in benchmark.test)
    network = load_training_network(folder, config) if with_masks else TrainingNetwork(net or load_net(run))
    network.to(fabric.device).to(memory_format=torch.channels_last)
    loader = evaluation_loader(benchmark.root, benchmark.test, config.data)
    predicted, compared = None, {}
    with loader_errors():
        start = time.perf_counter()
        embeddings = embed(network.net, loader, fabric, options.flip)
        seconds = time.perf_counter() - start
        if with_masks:
            predicted = predict_masks(network, benchmark.root, benchmark.test, config, fabric)
    if predicted is not None:
        compared = compare_masks(predicted, benchmark.root, benchmark.test, config)
    evaluation = evaluate_embeddings(embeddings, benchmark, options, str(run), seconds, compared)
    elsewhere = trained is not None and _fingerprint_of(trained, folder) not in (None, evaluation.fingerprint)
    return Outcome(evaluation, config, benchmark, embeddings, predicted, elsewhere)


def evaluate_features(file: Path, options: EvaluationOptions) -> Evaluation:
    """Evaluate embeddings from elsewhere.

    Args:
        file: .npz with the arrays `embedding` (n, d) and `path` (n,), relative to the dataset's root, in any order;
            every image of the test split must be there, others are left out.
        options: with a root; `flip` is the matter of whoever made the embeddings.

    Raises:
        CsviError: the file is none such, lacks a test image, names one twice or a path outside the root; or bad data.
    """
    if not options.root:
        raise CsviError("features need the dataset whose images they describe: give its folder with --data.root")
    if options.flip:
        raise CsviError("--flip averages while embedding and these are embeddings already: leave it away")
    benchmark = read_benchmark(_data(DataConfig(), options))
    embeddings = read_features(file, [record.path for record in benchmark.test])
    return evaluate_embeddings(embeddings, benchmark, options, str(file))


def evaluate_embeddings(
    embeddings: Tensor,
    benchmark: Benchmark,
    options: EvaluationOptions,
    model: str,
    seconds: float = 0.0,
    masks: dict[str, MaskResult] | None = None,
) -> Evaluation:
    """Embeddings of a benchmark's test images, in their order, under its protocols.

    Args:
        embeddings: (n, d).
        benchmark: the dataset.
        options: `gallery`, `flip` (whether it was done) and `refinement` count.
        model: whose embeddings they are.
        seconds: that embedding took.
        masks: what else was found.

    Raises:
        CsviError: embeddings of another shape or not finite, or nothing to search.
    """
    protocols = protocols_of(benchmark, "test", options.gallery)
    start = time.perf_counter()
    results = evaluate_protocols(protocols, embeddings, benchmark.test, options.refinement)
    ranking = time.perf_counter() - start
    pairs = []
    if options.refinement == NO_REFINEMENT:  # which looks at the whole gallery, and not at one camera of it
        pairs = evaluate_camera_pairs(protocols[0], embeddings, benchmark.test)
    if options.flip:
        results = [dataclasses.replace(result, refinements=[FLIP, *result.refinements]) for result in results]
    return Evaluation(
        benchmark=benchmark.name,
        dataset=benchmark.layout,
        trial=benchmark.trial,
        root=str(benchmark.root),
        fingerprint=fingerprint(benchmark.root, benchmark.test),
        synthetic=benchmark.synthetic,
        model=model,
        protocols=results,
        camera_pairs=pairs,
        masks=masks or {},
        seconds={"embedding": seconds, "ranking": ranking},  # with all that was asked for
    )


def save_evaluation(evaluation: Evaluation, run: Path, elsewhere: bool = False) -> Path:
    """Write it into a run folder: RUN/evaluation.json, or a name that says what is not as by default.

    Args:
        evaluation: of the run.
        run: its folder.
        elsewhere: the test images are others than those of the dataset that it was trained on.
    """
    result = evaluation.protocols[0]
    words = ["evaluation"]
    if elsewhere:
        words += ["on", Path(evaluation.root).name]
    if result.gallery == "official":
        words.append("official")
    words += [refinement.split(" (")[0].replace(" ", "-") for refinement in result.refinements]
    return write_evaluation(evaluation, run / f"{'-'.join(words)}.json")


def write_evaluation(evaluation: Evaluation, file: Path) -> Path:
    """Write it as JSON, completely or not at all; returns the file."""
    with replacing(file) as partial:
        partial.write_text(json.dumps(dataclasses.asdict(evaluation), indent=1) + "\n")
    return file


def _settings(run: str | Path, options: EvaluationOptions) -> tuple[Config, VIReIDNet | None, DataConfig | None]:
    """Settings to test a run with; its network, if that had to be loaded to know them; and what it was trained on."""
    file = Path(run) / "config.yaml"
    if file.is_file():
        config = load_config(file)
        trained = config.data
        config.data = _data(trained, options)
        return config, None, trained
    if not Path(run).is_dir() and not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", str(run)):
        raise CsviError(f"{run} is not the folder of a run: there is no such folder")
    if not options.root:
        raise CsviError(
            f"{run} is not the folder of a run, it has no config.yaml: of a model alone, say what to test it on "
            "with --data.root"
        )
    net = load_net(run)
    for side in (net.height, net.width):  # as strangers may have written them
        if type(side) is not int or not 16 <= side <= MOST_SIDE:
            raise CsviError(
                f"config.json of {run}: height and width are {net.height!r:.40} and {net.width!r:.40}, "
                f"they must be whole numbers from 16 to {MOST_SIDE}"
            )
    return Config(data=_data(DataConfig(height=net.height, width=net.width), options)), net, None


def _fingerprint_of(trained: DataConfig, run: Path) -> str | None:
    """Of the test images that belong to what the run was trained on; of its last evaluation, if those are gone."""
    try:
        benchmark = read_benchmark(trained)
        return fingerprint(benchmark.root, benchmark.test)
    except CsviError:
        try:
            return load_evaluation(run).get("fingerprint")
        except CsviError:
            return None


def _data(config: DataConfig, options: EvaluationOptions) -> DataConfig:
    """Where the options say nothing, another root is what it looks like, and the same root what it was."""
    config = dataclasses.replace(config)
    if options.root is not None:
        config.root, config.masks = options.root, None
        root = expanded(options.root)
        if options.dataset is None and not LAYOUTS[config.dataset].recognise(root):
            config.dataset = recognise(root) or config.dataset  # type: ignore[assignment]
    if options.dataset is not None:
        config.dataset = options.dataset  # type: ignore[assignment]
    if options.trial is not None:
        config.trial = options.trial
    elif config.trial > LAYOUTS[config.dataset].trials:
        config.trial = 1
    if options.masks is not None:
        config.masks = options.masks
    if options.cache is not None:
        config.cache = options.cache
    return config
