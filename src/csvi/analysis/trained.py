"""A run as the figures need it: network and auxiliary, data, and batches of chosen images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from lightning_fabric import Fabric
from torch import Tensor

from csvi.config import Config, load_config
from csvi.data import Benchmark, ImageRecord, read_benchmark
from csvi.data.cache import read_image
from csvi.data.transforms import evaluation_transform
from csvi.errors import CsviError
from csvi.fabric import make_fabric, on_device
from csvi.model import TrainingNetwork
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
        items = []
        for record in records:
            image = torch.tensor(read_image(self.benchmark.file(record), *size, "RGB")).permute(2, 0, 1)
            mask = torch.tensor(read_image(record.mask, *size, "L"))[None] if record.mask else None
            items.append(evaluation_transform(image, mask, record.modality))
        batch = {
            "image": torch.stack([image for image, _ in items]),
            "modality": torch.tensor([int(record.modality) for record in records]),
            "identity": torch.tensor([record.identity for record in records]),
        }
        masks = [mask for _, mask in items if mask is not None]
        if len(masks) == len(items):
            batch["mask"] = torch.stack(masks)
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
