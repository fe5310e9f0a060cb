"""A trained network with what is known about it, to export it or to embed with."""

import logging
from dataclasses import dataclass
from pathlib import Path

import csvi
from csvi.catalogue import METHODS
from csvi.config import RANGES, Config, DataConfig
from csvi.model.net import EmbeddingNet
from csvi.model.weights import fingerprint_of, noted
from csvi.paths import name_of_folder
from csvi.runs.network_files import data_of, located, read_net
from csvi.runs.settings import load_config

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """The network of a run, or a model alone."""

    name: str
    """Name of the run or model, for people to read."""
    folder: Path
    net: EmbeddingNet
    """The network, on the CPU."""
    fingerprint: str
    """16 hexadecimal digits of its weights."""
    data: DataConfig
    """Settings of its images: their size, and what is black and white in those of more than 8 bits."""
    config: Config | None
    """Settings of the run; None for a model alone."""

    @classmethod
    def open(cls, model: str) -> "Trained":
        """Open a run folder, the folder of a model alone, or a model of the Hub; raises `CsviError` if it is none."""
        folder, ours = located(model)
        net = read_net(folder, ours, model)
        file = folder / "config.yaml"
        config = load_config(file) if ours and file.is_file() else None
        if unfinished := noted(folder).get("unfinished"):
            log.warning("the training of %s has not ended: %s", model, unfinished)
        data = config.data if config else data_of(net, folder, model)
        return cls(name_of_folder(folder) if ours else model, folder, net, fingerprint_of(folder), data, config)

    @property
    def module(self) -> str:
        """Module outside of csvi that its network is built by; empty if its method is one of csvi's."""
        return "" if self.net.method in METHODS else self.net.method.partition(":")[0]

    @property
    def ranges(self) -> dict[str, str]:
        """Values that become black and white in images of more than 8 bits, by the names of `RANGES`."""
        return {name: str(getattr(self.data, name)) for name in RANGES}

    def facts(self, dim: int, weights: str, reduction: str = "") -> dict[str, object]:
        """Say what an exported file is, as plain values.

        Args:
            dim: length of an embedding.
            weights: what they are stored in.
            reduction: name of the `csvi.export.reduction.Reduction` of the embeddings, if any.
        """
        return {
            "fingerprint": self.fingerprint + (f"-{reduction}" if reduction else ""),
            "name": self.name,
            "method": self.net.method,
            "height": self.net.height,
            "width": self.net.width,
            "dim": dim,
            **self.ranges,
            "weights": weights,
            "version": csvi.__version__,
        }
