"""Trains the embedded segmenter on randomised synthetic people; run as `csvi masks train`."""

import copy
import dataclasses
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from csvi.config import DataConfig
from csvi.data.batch import Batch, prepare
from csvi.data.cache import cached_images, cached_masks
from csvi.data.layout import read_benchmark
from csvi.data.loader import batch_loader, loader_errors
from csvi.data.records import Modality
from csvi.errors import CsviError, StoppedError
from csvi.masks.embedded import HEIGHT, WIDTH, Embedded, save_segmenter
from csvi.masks.network import SegmenterNet
from csvi.masks.quality import GOOD, iou, predict
from csvi.masks.scenes import People, draw_sample, made_up
from csvi.masks.segmenter import Segmenter
from csvi.masks.settings import FitConfig
from csvi.model.weights import initial_weights
from csvi.progress import progress
from csvi.synth import SynthConfig, write_benchmark
from csvi.train.stopping import stop_signal
from csvi.writing import replacing, save_torch

log = logging.getLogger(__name__)

SOURCE = (256, 128)
"""Height and width in pixels of the rendered people, larger than any sample."""
HARD = 400
"""Randomised samples of held-out people that a segmenter is tested on."""
EVERY = 200
"""Steps between two checkpoints."""


def fit_segmenter(out: Path, people: Path, config: FitConfig) -> dict[str, Any]:
    """Train a segmenter and write its weights; returns the facts that are written beside them.

    People are rendered into a folder, or read from it if they are there. What is done is kept beside the weights
    (`OUT.ckpt`) every few steps and when a signal stops it: the same command resumes, with the same result.

    Args:
        out: file of weights to write (.safetensors).
        people: folder of the rendered people; about 700 MB.
        config: all settings.

    Raises:
        StoppedError: a signal stopped it.
        CsviError: `out` is no .safetensors, the people cannot be rendered, or initial weights are missing.
    """
    if out.suffix != ".safetensors":
        raise CsviError(f"{out} is no .safetensors, as which the weights are written: name such a file")
    state = initial_weights("mobilenet_v2", config.weights)
    write_benchmark(people / "train", SynthConfig("folder", "study", config.seed, *SOURCE))
    write_benchmark(people / "test", SynthConfig("folder", "tiny", config.seed + 1, *SOURCE))
    seen, held_out = people_of(people / "train"), people_of(people / "test")
    with stop_signal() as stop, loader_errors():
        training = _Fit(out.with_suffix(".ckpt"), seen, state, config)
        for _ in progress(training.steps(), "Training", config.steps - training.done):
            if stop.requested:
                training.save()
                raise StoppedError(
                    f"stopped after {training.done} of {config.steps} steps: the same command resumes it"
                )
    facts: dict[str, Any] = {"settings": training.settings(), "sureness": 0.0, "sureness_rendered": 0.0}
    with replacing(out) as partial:  # never without its sureness
        save_segmenter(training.average, facts, partial)
        facts |= measure(Embedded(partial), held_out, config.seed)
        save_segmenter(training.average, facts, partial)
    training.file.unlink(missing_ok=True)
    return facts


def measure(segmenter: Segmenter, people: People, seed: int) -> dict[str, Any]:
    """Measure a segmenter on people whom it never saw: as rendered, and as hard randomised samples of fixed seeds.

    Returns IoU and sureness by name; `sureness` is the least that a used mask must have, the 2 % quantile over the hard
    samples, and `nobody_used` the share of backgrounds without anybody whose mask would be used all the same.
    """
    drawn = [draw_sample(people, np.random.default_rng((seed, HARD, i)), HEIGHT, WIDTH) for i in range(HARD)]
    empty = [made_up(np.random.default_rng((seed, HARD + 1, i)), HEIGHT, WIDTH) for i in range(HARD)]
    hard, truth = zip(*drawn, strict=True)
    rendered = predict(segmenter, [people.images[i] for i in range(len(people))])
    on_hard = predict(segmenter, hard)
    ious = np.array([iou(p.probability > 0.5, people.masks[i] > 127) for i, p in enumerate(rendered)])
    ious_hard = np.array([iou(p.probability > 0.5, mask > 127) for p, mask in zip(on_hard, truth, strict=True)])
    infrared = np.array(people.infrared)
    least = float(np.quantile([p.scores.sureness for p in on_hard], 0.02))
    on_empty = predict(segmenter, [(255 * picture).astype(np.uint8) for picture in empty])
    return {
        "iou_visible": float(ious[~infrared].mean()),
        "iou_infrared": float(ious[infrared].mean()),
        "iou_hard": float(ious_hard.mean()),
        "iou_hard_below_half": float((ious_hard < 0.5).mean()),
        "sureness": least,
        "sureness_rendered": float(np.median([p.scores.sureness for p in rendered])),
        "nobody_used": float(np.mean([p.verdict == GOOD and p.scores.sureness >= least for p in on_empty])),
    }


def people_of(folder: Path) -> People:
    """Open the people of a synthetic benchmark in the layout of a folder, see `csvi synth`."""
    height, width = SOURCE
    data = DataConfig(str(folder), "folder", height=height, width=width, cache=str(folder / "decoded"))
    benchmark = read_benchmark(data)
    records = [record for split in benchmark.splits.values() for record in split]
    images, masks = (open_(benchmark.root, records, data) for open_ in (cached_images, cached_masks))
    return People(images, masks, [record.modality == Modality.INFRARED for record in records])


class _Samples(Dataset[Batch]):
    """Batches of randomised samples; the index of one is its seeds, and the size of its pictures."""

    def __init__(self, people: People):
        self.people = people

    def __getitem__(self, index: tuple[Sequence[tuple[int, ...]], int, int]) -> Batch:
        seeds, height, width = index
        drawn = [draw_sample(self.people, np.random.default_rng(seed), height, width) for seed in seeds]
        pictures, masks = (torch.from_numpy(np.stack(pixels)) for pixels in zip(*drawn, strict=True))
        nobody = torch.zeros(len(drawn), dtype=torch.int64)
        return Batch(pictures.permute(0, 3, 1, 2), nobody, nobody, masks[:, None])


class _Fit:
    """The training: network, its running average, optimiser and position; resumed from its file if there is one."""

    def __init__(self, file: Path, people: People, state: dict[str, Tensor] | None, config: FitConfig):
        self.file, self.people, self.config, self.done = file, people, config, 0
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(config.seed)
        net = SegmenterNet()
        if state is not None:
            net.load_pretrained(state)
        self.net = net.to(self.device).to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.net)
        encoder = list(self.net.encoder.parameters())
        others = [p for name, p in self.net.named_parameters() if not name.startswith("encoder.")]
        groups = [{"params": encoder, "factor": config.lr_encoder}, {"params": others, "factor": 1.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay)
        if file.is_file():
            self._resume()

    def steps(self) -> Iterator[float]:
        """Take all steps that are left; yields the loss of each."""
        indices = [self._index(step) for step in range(self.done, self.config.steps)]
        loader = batch_loader(_Samples(self.people), indices, self.config.workers, persistent=False)
        losses: list[float] = []
        for batch in loader:
            losses.append(self._step(prepare(batch, self.device)))
            self.done += 1
            if self.done % EVERY == 0:
                self.save()
                log.info("step %d of %d: loss %.3f", self.done, self.config.steps, np.mean(losses[-EVERY:]))
            yield losses[-1]

    def _index(self, step: int) -> tuple[list[tuple[int, ...]], int, int]:
        size = (160, 80) if step < self.config.coarse * self.config.steps else (HEIGHT, WIDTH)
        seeds: list[tuple[int, ...]] = [(self.config.seed, step, number) for number in range(self.config.batch)]
        return seeds, *size

    def _step(self, batch: Batch) -> float:
        config, step = self.config, self.done
        rate = min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / config.steps))
        for group in self.optimizer.param_groups:
            group["lr"] = config.lr * group["factor"] * rate
        self.net.train()
        self.net.encoder.eval()  # statistics of ImageNet, while the weights learn
        for number, block in enumerate(self.net.encoder):
            block.requires_grad_(number >= 7 or step >= config.frozen * config.steps)
        assert batch.mask is not None
        loss = _loss(self.net(batch.image), batch.mask)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 5)
        self.optimizer.step()
        self._average(min(0.99, (step + 1) / (step + 11)))
        return float(loss.detach())

    @torch.no_grad()
    def _average(self, keep: float) -> None:
        for mean, value in zip(self.average.state_dict().values(), self.net.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - keep)

    def save(self) -> None:
        """Write all that is needed to resume."""
        state = {
            "net": self.net.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "done": self.done,
            "settings": self.settings(),
        }
        with replacing(self.file) as partial:
            save_torch(state, partial)

    def _resume(self) -> None:
        try:
            state = torch.load(self.file, map_location="cpu", weights_only=True)
            if state["settings"] != self.settings():
                raise CsviError(f"{self.file} is of other settings: remove it, or give the same ones")
            self.net.load_state_dict(state["net"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.done = state["done"]
        except CsviError:
            raise
        except Exception as error:  # a file that is something else fails in every way there is
            raise CsviError(f"{self.file} cannot be resumed from: remove it to begin anew") from error

    def settings(self) -> dict[str, Any]:
        """All settings that decide the weights."""
        return {name: value for name, value in dataclasses.asdict(self.config).items() if name != "workers"}


def _loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Sum of the binary cross-entropy and the Dice loss, of logits and masks (B, 1, H, W)."""
    probability = logits.sigmoid()
    both, sizes = (probability * mask).sum((1, 2, 3)), (probability + mask).sum((1, 2, 3))
    dice = 1 - ((2 * both + 1) / (sizes + 1)).mean()
    return F.binary_cross_entropy_with_logits(logits, mask) + dice
