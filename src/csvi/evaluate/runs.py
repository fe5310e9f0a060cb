"""A trained run on the test split: retrieval under the dataset's protocols, and the masks its auxiliary predicts."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from lightning_fabric import Fabric
from rich.progress import track
from torch import Tensor

import csvi
from csvi.config import Config, load_config
from csvi.data import Benchmark, ImageRecord, Modality, read_benchmark
from csvi.data.cache import cached_images
from csvi.data.loader import evaluation_loader
from csvi.errors import CsviError
from csvi.evaluate.embed import embed
from csvi.evaluate.masks import best_constant_mask, full_size, mask_iou
from csvi.evaluate.protocols import protocols_of
from csvi.evaluate.scoring import Result, evaluate_protocols
from csvi.fabric import make_fabric, on_device
from csvi.model import TrainingNetwork
from csvi.model.saved import has_auxiliary, load_net, load_training_network


@dataclasses.dataclass(frozen=True)
class MaskResult:
    """Predicted masks against the true ones, for the images of one modality; means of the intersection over union."""

    images: int
    iou: float
    constant_iou: float
    """Of the best mask that is the same for all these images."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Everything `csvi evaluate` finds."""

    benchmark: str
    root: str
    synthetic: bool
    """Whether the images were rendered: nothing follows from these figures for photographs."""
    protocols: list[Result]
    masks: dict[str, MaskResult]
    """`visible` and `infrared`; empty without an auxiliary that predicts masks or without masks to compare with."""
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


def evaluate_run(
    run: Path, root: str | None = None, masks: str | None = None, draw: Literal["seeded", "official"] = "seeded"
) -> Outcome:
    """Evaluate a run on the test split of a dataset.

    Args:
        run: folder of the run.
        root: of the dataset; by default the one it was trained on.
        masks: folder of masks, as in the settings; by default that of the run, or of another root its own.
        draw: how galleries are drawn, see `protocols_of`.

    Raises:
        CsviError: no trained model, or bad data.
    """
    if not (run / "config.yaml").is_file():
        raise CsviError(f"{run} is not the folder of a run: it has no config.yaml, which csvi train leaves there")
    config = load_config(run / "config.yaml")
    if root is not None:
        config.data.root, config.data.masks = root, None
    if masks is not None:
        config.data.masks = masks
    benchmark = read_benchmark(config.data)
    protocols = protocols_of(benchmark, "test", draw)
    fabric = make_fabric(config)

    with_masks = has_auxiliary(run) and all(record.mask for record in benchmark.test)
    network = load_training_network(run, config) if with_masks else TrainingNetwork(load_net(run))
    network.to(fabric.device).to(memory_format=torch.channels_last)
    embeddings = embed(network.net, evaluation_loader(benchmark.root, benchmark.test, config.data), fabric)
    results = evaluate_protocols(protocols, embeddings, benchmark.test)
    predicted, compared = None, {}
    if with_masks:
        predicted = predict_masks(network, benchmark.root, benchmark.test, config, fabric)
        if predicted is not None:
            compared = compare_masks(predicted, benchmark.root, benchmark.test, config)
    evaluation = Evaluation(benchmark.name, str(benchmark.root), benchmark.synthetic, results, compared)
    return Outcome(evaluation, config, benchmark, embeddings, predicted)


def save_evaluation(evaluation: Evaluation, run: Path) -> Path:
    """Write RUN/evaluation.json or, of official galleries, RUN/evaluation-official.json; returns the file."""
    gallery = evaluation.protocols[0].gallery
    file = run / ("evaluation.json" if gallery == "seeded" else f"evaluation-{gallery}.json")
    file.write_text(json.dumps(dataclasses.asdict(evaluation), indent=2) + "\n")
    return file


def predict_masks(
    network: TrainingNetwork, root: Path, records: Sequence[ImageRecord], config: Config, fabric: Fabric
) -> Tensor | None:
    """Probability of person, (n, 1, H/4, W/4) float16, in the order of the records; None if the auxiliary has no masks.

    Co-segmentation looks at all images of an identity together, so that each batch is one identity.

    Args:
        network: on the device of `fabric`; left in evaluation mode.
        root, records: the images.
        config: of the run.
        fabric: device and precision.
    """
    assert network.auxiliary is not None
    by_identity: dict[int, list[int]] = {}
    for i, record in enumerate(records):
        by_identity.setdefault(record.identity, []).append(i)
    batches = list(by_identity.values())
    loader = evaluation_loader(root, records, config.data, batches)
    network.eval()
    masks = []
    with torch.inference_mode(), fabric.autocast():
        for batch in track(loader, description="Predicting masks", transient=True):
            batch = on_device(batch, fabric)
            features = network.net.backbone(batch["image"], batch["modality"])
            predicted = network.auxiliary.predict_masks(features, batch["identity"], batch["modality"])
            if predicted is None:
                return None
            masks.append(predicted.half().cpu())
    back = torch.tensor([i for batch in batches for i in batch]).argsort()
    return torch.cat(masks)[back]


def compare_masks(
    predicted: Tensor, root: Path, records: Sequence[ImageRecord], config: Config
) -> dict[str, MaskResult]:
    """Predicted masks against the true ones, at the size of the images, for each modality.

    Args:
        predicted: (n, 1, h, w), probability of person.
        root, records: the images, all with a mask.
    """
    size = (config.data.height, config.data.width)
    cache = cached_images(root, records, *size, Path(config.data.cache))
    assert cache.masks is not None
    results = {}
    for modality in Modality:
        index = [i for i, record in enumerate(records) if record.modality == modality]
        true = torch.from_numpy(cache.masks[index] > 127)
        iou = torch.cat(
            [
                mask_iou(full_size(p, *size) > 0.5, t)
                for p, t in zip(predicted[index].split(256), true.split(256), strict=True)
            ]
        )
        _, constant = best_constant_mask(true)
        results[modality.name.lower()] = MaskResult(len(index), float(iou.mean()), constant)
    return results
