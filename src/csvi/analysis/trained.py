"""A run as the figures need it: network and auxiliary, its test images, their masks, and masks that it predicts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from csvi.config import Config, load_config
from csvi.data import Benchmark, ImageRecord, read_benchmark
from csvi.data.images import read_image
from csvi.errors import CsviError
from csvi.evaluate.masks import full_size
from csvi.fabric import make_fabric, on_device
from csvi.model import TrainingNetwork
from csvi.model.auxiliary import Auxiliary, Features
from csvi.model.saved import has_auxiliary, load_net, load_training_network


@dataclass(frozen=True)
class Trained:
    """A run folder, opened."""

    run: Path
    config: Config
    benchmark: Benchmark
    network: TrainingNetwork
    """On the device of `fabric`, in evaluation mode; without its auxiliary if the folder does not hold it any more."""
    fabric: Fabric

    @property
    def name(self) -> str:
        """Of the run, as figures show it."""
        return "/".join(self.run.resolve().parts[-2:])

    @property
    def training_records(self) -> list[ImageRecord]:
        """The images that it was trained on."""
        extra = self.benchmark.val if self.config.data.train_on == "train+val" else []
        return [*self.benchmark.train, *extra]

    def labels(self) -> dict[int, int]:
        """Training identity -> its class, as training numbered them."""
        both: dict[int, set[int]] = {}
        for record in self.training_records:
            both.setdefault(record.identity, set()).add(int(record.modality))
        return {i: label for label, i in enumerate(sorted(i for i, seen in both.items() if len(seen) == 2))}

    def batch(self, records: Sequence[ImageRecord]) -> dict[str, Tensor]:
        """These images as one batch on the device, not augmented.

        Returns:
            `image` (B, 3, H, W), `modality` and `identity` (B,), the dataset's numbers, and `mask` (B, 1, H, W) if all
            have one.
        """
        size = (self.config.data.height, self.config.data.width)
        images = np.stack([read_image(self.benchmark.file(record), *size, "RGB") for record in records])
        batch = {
            "image": torch.from_numpy(images).permute(0, 3, 1, 2),
            "modality": torch.tensor([int(record.modality) for record in records]),
            "identity": torch.tensor([record.identity for record in records]),
        }
        masks = [read_image(record.mask, *size, "L") for record in records if record.mask]
        if len(masks) == len(records):
            batch["mask"] = torch.from_numpy(np.stack(masks))[:, None]
        return on_device(batch, self.fabric)


def load_trained(run: Path, root: str | None = None, auxiliary: Literal["needed", "if there"] = "if there") -> Trained:
    """Open a run folder.

    Args:
        run: the folder.
        root: of the dataset, if it is elsewhere now.
        auxiliary: whether the figure is about what training added.

    Raises:
        CsviError: it is no run, its data are gone, or it has no auxiliary and one is needed.
    """
    if not (run / "config.yaml").is_file():
        raise CsviError(f"{run} is not the folder of a run: it has no config.yaml, which csvi train leaves there")
    config = load_config(run / "config.yaml")
    if root is not None:
        config.data.root, config.data.masks = root, None
    config.data.workers = 0  # batches are few
    if auxiliary == "needed" and not has_auxiliary(run):
        raise CsviError(f"{run} has no auxiliary (auxiliary.safetensors), which this figure is about")
    benchmark = read_benchmark(config.data)
    fabric = make_fabric(config)
    network = load_training_network(run, config) if has_auxiliary(run) else TrainingNetwork(load_net(run))
    network.to(fabric.device).to(memory_format=torch.channels_last)
    return Trained(run, config, benchmark, network.eval(), fabric)


def same_test_images(runs: Sequence[Trained]) -> list[ImageRecord]:
    """The test images of all runs.

    Raises:
        CsviError: there is no run, or two of them differ in their test images.
    """
    if not runs:
        raise CsviError("no run was given: give one run folder or more")
    first, *others = [
        (run.benchmark.root.resolve(), [(record.path, record.identity) for record in run.benchmark.test])
        for run in runs
    ]
    for run, other in zip(runs[1:], others, strict=True):
        if other != first:
            raise CsviError(
                f"{runs[0].run} and {run.run} have different test images (of {first[0]} and of {other[0]}): this "
                "figure compares runs on the same ones, the same split of one dataset in one folder"
            )
    return runs[0].benchmark.test


def both_modalities(records: Sequence[ImageRecord]) -> dict[int, tuple[list[int], list[int]]]:
    """Identity -> indices of its visible and of its infrared images, of the identities that have both."""
    members: dict[int, tuple[list[int], list[int]]] = {}
    for i, record in enumerate(records):
        members.setdefault(record.identity, ([], []))[record.modality].append(i)
    return {identity: both for identity, both in sorted(members.items()) if all(both)}


def display_image(trained: Trained, record: ImageRecord) -> np.ndarray:
    """An image as it is shown, (H, W, 3) uint8, at the size that the network sees."""
    size = trained.config.data
    return read_image(trained.benchmark.file(record), size.height, size.width, "RGB")


def check_masks(trained: Trained) -> None:
    """Raise CsviError unless every test image has a true mask."""
    if not all(record.mask for record in trained.benchmark.test):
        raise CsviError(
            f"not all test images of {trained.benchmark.root} have a mask, with which this figure compares what is "
            "predicted"
        )


def true_masks(trained: Trained, records: Sequence[ImageRecord]) -> Tensor:
    """Of images that have one, (n, H, W) bool, at the size that the network sees."""
    size = trained.config.data
    masks = [read_image(record.mask, size.height, size.width, "L") for record in records if record.mask]
    return torch.from_numpy(np.stack(masks)) > 127


def predicts_masks(trained: Trained) -> bool:
    """Whether a run has an auxiliary that can be asked for masks."""
    auxiliary = trained.network.auxiliary
    return auxiliary is not None and type(auxiliary).predict_masks is not Auxiliary.predict_masks


def predict_sets(trained: Trained, records: Sequence[ImageRecord], sets: Sequence[Sequence[int]]) -> list[Tensor]:
    """Masks that a run predicts for sets of images, each set given as one identity, whoever is in it.

    Args:
        trained: a run that predicts masks.
        records: the images.
        sets: each some of them, by index.

    Returns:
        Of each set the probability of person, (images, H, W) float32 on the CPU, at the size of the images.

    Raises:
        CsviError: the run predicts no masks.
    """
    network, fabric, size = trained.network, trained.fabric, trained.config.data
    if not predicts_masks(trained):
        name = trained.config.model.auxiliary
        reason = (
            "its auxiliary.safetensors is gone" if name not in ("none", "select") else f"it was trained with {name}"
        )
        raise CsviError(f"{trained.run} predicts no masks, as {reason}: this figure needs coseg, or decode or segment")
    batch = trained.batch(records)
    masks = []
    with torch.inference_mode(), fabric.autocast():
        features = network.net.features(batch["image"], batch["modality"])
        for members in sets:
            index = torch.tensor(list(members), device=batch["modality"].device)
            of_set = Features(*(None if feature is None else feature[index] for feature in features))  # type: ignore[arg-type]
            assert network.auxiliary is not None
            predicted = network.auxiliary.predict_masks(of_set, torch.zeros_like(index), batch["modality"][index])
            assert predicted is not None
            masks.append(full_size(predicted, size.height, size.width).cpu())
    return masks
