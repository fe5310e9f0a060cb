"""The training loop: set-up, epoch and step."""

import contextlib
import copy
import dataclasses
import json
import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.optim import Optimizer

from csvi.config import Config, TrainConfig, flatten, varying
from csvi.data import Benchmark, protocols_of, read_benchmark
from csvi.data.batch import Batch, prepare
from csvi.data.depth import with_measured_ranges
from csvi.data.findings import UNPAIRED, before_training
from csvi.data.loader import evaluation_loader, loader_errors
from csvi.data.records import paired_images
from csvi.data.sampler import CrossModalitySampler
from csvi.data.training_set import TrainingSet, check_masks, digest_of, training_records
from csvi.errors import CsviError, StoppedError
from csvi.evaluate.protocols import answerable
from csvi.evaluate.scoring import evaluate_protocol
from csvi.fabric import (
    check_compiler,
    choose_precision,
    compiled_graphs,
    first_alone,
    keep_freed_memory,
    make_fabric,
    of_processes,
)
from csvi.losses.loss import part_of_batch
from csvi.methods import Method, build_method, find_method
from csvi.methods.contract import checked_terms
from csvi.model.net import EmbeddingNet
from csvi.paths import expanded
from csvi.progress import console_on_stderr
from csvi.runs.embeddings import embed_together
from csvi.runs.folder import (
    CHECKPOINT,
    PREVIOUS,
    SKIPPED,
    WITHOUT_MASK,
    check_room,
    locked,
    with_ranges_of,
)
from csvi.runs.metrics_log import FLUSH_EVERY, MetricsLog
from csvi.runs.network_files import save_method
from csvi.runs.settings import load_config, save_config
from csvi.train.average import MovingAverage
from csvi.train.checkpoint import (
    Position,
    check_resumable,
    checkpoints_to_resume,
    load_checkpoint,
    save_checkpoint,
    settings_of,
)
from csvi.train.nonfinite import NonFinite, check_weights, gradients_are_finite
from csvi.train.optimizer import build_optimizer, set_learning_rate
from csvi.train.pace import Pace
from csvi.train.processes import launched, synchronize_norms
from csvi.train.recompute import checkpoint_activations
from csvi.train.stopping import TimeLimit, any_process, stop_signal, works_ahead
from csvi.writing import replacing

log = logging.getLogger(__name__)


def train(
    config: Config,
    run: str | os.PathLike[str],
    resume: str | os.PathLike[str] | None = None,
    until: float = math.inf,
) -> bool:
    """Train a method and leave it in a run folder.

    The folder gets `config.yaml`, `metrics.jsonl`, TensorBoard events, `last.ckpt`, the checkpoint before that as
    `previous.ckpt` until the end, and the network's files. SIGINT, SIGTERM, SIGHUP and the like (`csvi.signals`) and a
    time limit finish the step, save a checkpoint and end the run with a StoppedError that says how to resume it.

    Args:
        config: all settings.
        run: folder to write; it may hold a run only if that one is resumed or has done no step, and nothing else.
        resume: `auto` resumes from the checkpoints in RUN where there are any; otherwise the path of a checkpoint.
        until: `time.monotonic()` at which it must be over, as far as can be told from how long steps take.

    Returns:
        Whether this is the process that writes, the first of those that train together.

    Raises:
        StoppedError: a signal or the time limit came before the end.
        CsviError: bad data or settings, losses that are not finite, a folder that cannot be written, or one in which
            another process trains; or another process of this run is lost.
    """
    run, resume = expanded(run), None if resume is None else os.fspath(resume)
    checkpoints = checkpoints_to_resume(run, resume)  # what is wrong with them is said before anything else is done
    check_room(run)
    if checkpoints:
        file = checkpoints[0].with_name("config.yaml")
        theirs = flatten(load_config(file)) if file.exists() else settings_of(checkpoints)
        check_resumable(config, theirs, file.parent)
        config = with_ranges_of(config, theirs)
    fabric = make_fabric(config.precision, config.devices, config.nodes, config.tf32)
    with launched(fabric):
        _train(fabric, config, run, resume, checkpoints, until)
    return fabric.is_global_zero


def _train(
    fabric: Fabric, config: Config, run: Path, resume: str | None, checkpoints: Sequence[Path], until: float
) -> None:
    """Train in one of the processes of `fabric`, which all do the same; the first one writes."""
    method = find_method(config.method.name)
    if config.train.compile:
        check_compiler(fabric.device)
    benchmark = read_benchmark(config.data)
    config = _with_absolute_paths(config)
    config.data = with_measured_ranges(benchmark, config.data)
    if not benchmark.val:  # RegDB and LLCM have no identities to validate on
        config.train.validate_every = 0
    elif config.data.train_on == "train+val" and config.train.validate_every:
        log.info("no validation: the val identities are trained on (--data.train_on train leaves them out)")
    if fabric.is_global_zero:
        for sentence in before_training(benchmark):
            log.warning("%s", sentence)
        for name in method.unused(config.data):
            log.warning("%s augments images in its own way: data.%s has no effect", config.method.name, name)
    if not paired_images(training_records(benchmark, config.data)):
        raise CsviError(f"nobody to train on in {benchmark.root} {UNPAIRED}")
    if method.needs_masks:
        check_masks(benchmark, config.data)
    pretrained = None if checkpoints else method.pretrained(config.method)
    with locked(run) if fabric.is_global_zero else contextlib.nullcontext(), loader_errors():
        checkpoints = checkpoints_to_resume(run, resume)  # again, now that nobody else writes there
        _Training(fabric, config, run, checkpoints, benchmark, pretrained, until).to_the_end()


class _Training:
    """One training run, in a folder that the first process has locked."""

    def __init__(
        self,
        fabric: Fabric,
        config: Config,
        run: Path,
        checkpoints: Sequence[Path],
        benchmark: Benchmark,
        pretrained: dict[str, Tensor] | None,
        until: float,
    ):
        self.fabric, self.config, self.run, self.benchmark = fabric, config, run, benchmark
        self.ours = run if fabric.is_global_zero else None  # the one process that writes
        self.averaged: MovingAverage | None = None
        self.training_set = self._open_images()
        self._check_processes(checkpoints)
        self.method, self.wrapped, self.optimizer = self._build_method(pretrained)
        self.loader, self.sampler = self.training_set.loader(
            self.method.views(config.data), config.seed, fabric.global_rank, fabric.world_size
        )
        self.steps = self.sampler.batches
        self.identities = config.identities_each * fabric.world_size  # of a step
        batch_size = 2 * self.identities * config.data.images
        self.limit, self.pace = TimeLimit(until, len(benchmark.val) / batch_size), Pace(config.data.workers)
        self.graphs = compiled_graphs()
        self.position = self._begin_or_resume(checkpoints)
        precision, skip = choose_precision(config.precision), config.train.on_nonfinite == "skip"
        images, identities = len(self.training_set.used), len(self.training_set.identities)
        log.info("%d images of %d identities, %s on %s", images, identities, precision, fabric.device)
        if fabric.world_size > 1 or config.train.accumulate > 1:
            log.info("%s", self._batch_in_words())
        images_of = partial(_images_of, self.training_set, self.sampler)  # not of self: a cycle would keep the loader
        self.nonfinite = NonFinite(self.ours, skip, precision == "16-mixed", images_of, self.position.skipped)
        unvalidated = self.position.step == self.steps
        self.metrics = MetricsLog(
            self.ours, self.done, batch_size, self.nonfinite.check, not unvalidated, partial(of_processes, fabric)
        )

    def _open_images(self) -> TrainingSet:
        """Decode all images that are needed, so that what is broken is found now; the first process does it."""
        config, benchmark = self.config, self.benchmark
        method = find_method(config.method.name)
        with first_alone(self.fabric):
            data = dataclasses.replace(config.data, identities=config.identities_each)
            training_set = TrainingSet(benchmark, data, method.needs_masks)
            if validates(config, config.train.epochs):
                _check_searchable(benchmark)
                masks = method.tests_with_masks(config.method)
                evaluation_loader(benchmark.root, benchmark.val, config.data, masks=masks)
        if self.ours:
            _list_images(training_set, training_set.skipped, self.ours / SKIPPED, "are skipped")
            without = "have no usable mask and train without the mask loss"
            _list_images(training_set, training_set.without_mask, self.ours / WITHOUT_MASK, without)
        return training_set

    def _check_processes(self, checkpoints: Sequence[Path]) -> None:
        """Raises `CsviError` in all processes if they differ in images, settings or what they resume from.

        Images are the same if they have the same paths, identities and modalities.
        """
        if self.fabric.world_size == 1:
            return
        of_machine, training_set = varying(self.config, "machine"), self.training_set
        found = {
            "training images": training_set.digest,
            "validation images": digest_of(self.benchmark.val),
            "checkpoints in the run folder": [file.name for file in checkpoints],
            "images without a mask": [training_set.records[index].path for index in training_set.without_mask],
        } | {name: value for name, value in flatten(self.config).items() if name not in of_machine}
        first, *others = of_processes(self.fabric, found)
        for rank, other in enumerate(others, 1):
            if differing := [name for name in first | other if other.get(name) != first.get(name)]:
                raise CsviError(
                    f"process {rank} has other {', '.join(differing)} than the first one: "
                    "dataset and settings must be the same on all machines"
                )

    def _batch_in_words(self) -> str:
        """Say what a step of all processes is, and what becomes of its losses and of the learning rate."""
        train, world_size = self.config.train, self.fabric.world_size
        words = [f"batch: {self.identities} identities"]
        if world_size > 1:
            words += [f"{self.config.identities_each} in each of {world_size} processes"]
            words += ["losses of all images together" if train.gather else "losses of each process by itself"]
            words += ["batch norms of all processes" if train.sync_batchnorm else "batch norms of each process"]
        if train.accumulate > 1:
            words += [f"{train.accumulate} micro-batches in each process"]
        return ", ".join([*words, f"learning rate {train.lr:g} as it is set"])

    def _build_method(self, pretrained: dict[str, Tensor] | None) -> tuple[Method, nn.Module, Optimizer]:
        """Build the method with its initial weights: as it is, and as Fabric wraps it, with its optimiser."""
        config = self.config
        self.fabric.seed_everything(config.seed, verbose=False)
        method = build_method(config, len(self.training_set.identities))
        if pretrained is not None:
            method.load_pretrained(pretrained)
        method.to(memory_format=torch.channels_last)
        if config.train.sync_batchnorm and self.fabric.world_size > 1:
            synchronize_norms(method, self.fabric.device)
        if keep := config.train.ema:
            self.averaged = MovingAverage(method, self.fabric.device, keep)
        return method, *set_up(self.fabric, method, config.train)

    def _begin_or_resume(self, checkpoints: Sequence[Path]) -> Position:
        """Restore the newest checkpoint, if there is any, and write what the folder must hold from the start."""
        self.position, source = Position.start(self.config, self.training_set), None
        if checkpoints:
            self.position, source = load_checkpoint(
                self.fabric, checkpoints, self.wrapped, self.optimizer, self.position, self.config, self.averaged
            )
        file = self.run / "config.yaml"
        if self.ours and (self.position.epoch < self.config.train.epochs or not file.exists()):
            save_config(self.config, file)  # where nothing is left to train, it says what was trained
        self.saved = time.monotonic()
        if source is None or source != self.run / CHECKPOINT:
            # What cannot be saved is found now, and the folder always holds a checkpoint to resume from.
            self._write(with_network=source is not None)
        return self.position

    @property
    def kept(self) -> Method:
        """What is validated and saved: the method, or its moving average."""
        return self.method if self.averaged is None else cast(Method, self.averaged.module)

    @property
    def done(self) -> int:
        """Number of steps done so far."""
        return self.position.epoch * self.steps + self.position.step

    def to_the_end(self) -> None:
        """Train until all epochs are done; a StoppedError says that a signal or the time limit came before."""
        epochs = self.config.train.epochs
        with stop_signal() as self.stop, contextlib.closing(self.metrics):
            while self.position.epoch < epochs:
                if self._must_stop():
                    raise StoppedError(
                        f"stopped after {self.done} of {epochs * self.steps} steps, all of it saved in {self.run}: "
                        "the same command resumes it (csvi train with --resume auto)"
                    )
                stopped = self._train_epoch()
                # A validation that would outlast what stops the run is left to the one that resumes it.
                if self.position.step == self.steps and not (stopped and self._validates()):
                    self._end_epoch()
                self._save(with_network=True)
        if self.ours:
            (self.ours / PREVIOUS).unlink(missing_ok=True)

    def _train_epoch(self) -> bool:
        """Train to the end of the epoch, or until the run must stop; returns whether it must."""
        config, position, stopped = self.config, self.position, False
        self.sampler.start(position.epoch, position.step)
        self.method.begin_epoch(position.epoch)
        self.wrapped.train()
        self.metrics.restart_clock()
        with _progress_bar(shown=self.ours is not None) as bar:
            title = f"epoch {position.epoch + 1}/{config.train.epochs}"
            task = bar.add_task(title, total=self.steps, completed=position.step, note="")
            begun = time.monotonic()
            for batch in self.loader:
                waited = time.monotonic() - begun
                step = self.done
                lr = set_learning_rate(self.optimizer, step, self.steps, config.train)
                keep_freed_memory(self.fabric.device)  # from the first batch on, when loader processes are there
                seed_step(config.seed, step, self.fabric.global_rank)
                terms, finite = train_step(
                    self.fabric, self.method, self.wrapped, self.optimizer, batch, step,
                    config.train.on_nonfinite == "skip", config.train.accumulate, config.train.gather,
                )  # fmt: skip
                if self.averaged is not None:
                    self.averaged.update(self.method, first=step == 0)
                position.step += 1
                latest = self.metrics.losses(self.done, lr, terms, finite)
                bar.update(task, advance=1)
                if latest:
                    bar.update(task, note=f"loss {_short(sum(latest.values()))}  {self.metrics.speed:.0f} images/s")
                    if self.ours and (advice := self.method.advise(latest, self.done)):
                        log.warning("step %d: %s", self.done, advice)
                self._took_a_step(time.monotonic() - begun, waited)
                if self.fabric.world_size == 1 or latest or position.step == self.steps:  # else nobody waits for others
                    due = 0 < 60 * config.train.checkpoint_every <= time.monotonic() - self.saved
                    due = position.step < self.steps and any_process(self.fabric, due)
                    if stopped := self._must_stop(save_first=due):
                        break
                    if due:
                        self._save()
                begun = time.monotonic()
        self.metrics.flush()
        return stopped

    def _end_epoch(self) -> None:
        position, validates = self.position, self._validates()
        if validates:
            self._save()  # a kill during the validation costs no more than at any other time
        position.epoch, position.step = position.epoch + 1, 0
        if self.metrics.latest:
            log.info("epoch %d/%d: %s", position.epoch, self.config.train.epochs, _summary(self.metrics.latest))
        if validates:
            with self.limit.timed("validation"):
                metrics = validate(self.kept.net, self.benchmark, self.config, self.fabric)
            self.metrics.write(self.done, metrics)

    def _validates(self) -> bool:
        return validates(self.config, self.position.epoch + 1)

    def _must_stop(self, save_first: bool = False) -> bool:
        """Whether a signal says so, or what comes before the run can next be stopped would take too long."""
        at_once = 1 if self.fabric.world_size == 1 else FLUSH_EVERY
        ahead = works_ahead(self.steps - self.position.step, at_once, self._validates(), save_first)
        return any_process(self.fabric, self.stop.requested or not self.limit.fits(*ahead))

    def _took_a_step(self, seconds: float, waited: float) -> None:
        graphs, self.graphs = self.graphs, compiled_graphs()
        if self.graphs > graphs:
            log.info("compiled in step %d, which took %.0f s", self.done, seconds)
            seconds = 0.0
        elif self.ours:
            self.pace.took(seconds)
            if self.fabric.device.type != "cpu" and self.position.step > 1:  # with its loaders an epoch begins
                self.pace.waited(waited, seconds)
        self.limit.took("step", seconds)

    def _save(self, with_network: bool = False) -> None:
        self.metrics.force_to_disk()
        self.position.skipped = list(self.nonfinite.skipped)
        self._write(with_network)

    def _write(self, with_network: bool) -> None:
        """Write the network first, so that what the last checkpoint of a run says is done is there."""
        check_weights(self.method, self.optimizer, self.done)
        with self.limit.timed("saving"):
            if with_network and self.ours:
                total = self.config.train.epochs * self.steps
                unfinished = f"{self.done} of {total} steps" if self.done < total else ""
                save_method(self.kept, self.training_set.identities, self.ours, unfinished)
            save_checkpoint(self.fabric, self.run, self.wrapped, self.optimizer, self.position, self.averaged)
        self.saved = time.monotonic()


def set_up(fabric: Fabric, method: Method, train: TrainConfig) -> tuple[nn.Module, Optimizer]:
    """Set a method up for training as the settings say: as Fabric wraps it, and its optimiser."""
    if train.checkpoint_activations:
        checkpoint_activations(method)
    if train.compile:
        method.compile()  # in place: names in checkpoints are the same, and `method.net` validates as it is
    wrapped, optimizer = fabric.setup(method, build_optimizer(method.groups(train), train))
    return wrapped, optimizer


def train_step(
    fabric: Fabric,
    method: Method,
    wrapped: nn.Module,
    optimizer: Optimizer,
    batch: Batch,
    step: int,
    skip: bool = False,
    parts: int = 1,
    gather: bool = False,
) -> tuple[dict[str, Tensor], Tensor]:
    """Train one step, counted from 0, on one batch as a loader gives it.

    With `skip`, weights, running statistics and optimiser stay as they were if a loss or a gradient is not finite; it
    takes waiting for the device. The gradient is the mean of those of so many micro-batches (`in_parts`). With `gather`
    losses are computed on the rows of all processes (`csvi.losses.loss.part_of_batch`).

    Returns:
        The weighted loss terms by name (Eq. 19 is their sum), and whether the gradient is finite, () bool.

    Raises:
        CsviError: the method returned something else than terms.
    """
    before = [buffer.clone() for buffer in method.buffers()] if skip else []
    optimizer.zero_grad(set_to_none=True)
    found = []
    for number, some in enumerate(in_parts(batch, parts), 1):
        last = number == parts
        with (
            part_of_batch(parts, gather and fabric.world_size > 1),
            contextlib.nullcontext() if last else fabric.no_backward_sync(cast(_FabricModule, wrapped)),
        ):
            terms = checked_terms(wrapped(prepare(some, fabric.device), step), method)
            fabric.backward(torch.stack(list(terms.values())).sum() / parts)
        found.append(terms)
    if parts > 1:
        terms = {name: torch.stack([part[name].detach() for part in found]).mean(0) for name in terms}
    total = torch.stack(list(terms.values())).sum()
    finite = gradients_are_finite(method)
    if skip and any_process(fabric, not (finite & total.isfinite())):
        for buffer, value in zip(method.buffers(), before, strict=True):
            buffer.copy_(value)
        if fabric.strategy.precision.state_dict() == {}:  # no scaler of float16's losses
            return terms, finite
    optimizer.step()  # which skips by itself what overflowed, and scales the loss by less
    return terms, finite


def in_parts(batch: Batch, parts: int) -> list[Batch]:
    """Divide a batch, as a loader gives it, into parts of equally many identities with all their images."""
    if parts == 1:
        return [batch]
    some = [batch.subset(torch.isin(batch.identity, some)) for some in batch.identity.unique().chunk(parts)]
    if batch.image.is_pinned():  # from where a GPU takes them while it computes
        some = [Batch(*(rows if rows is None else rows.pin_memory() for rows in part[:-1])) for part in some]  # type: ignore[arg-type]
    return some


def seed_step(seed: int, step: int, rank: int) -> None:
    """Make all that a step draws (a dropout, say) follow from its number, so that nothing of it need be saved."""
    torch.manual_seed(int(np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0] >> 1))


def validates(config: Config, epoch: int) -> bool:
    """Whether to validate after so many epochs: never on identities that are trained on."""
    every = config.train.validate_every
    return config.data.train_on == "train" and every > 0 and (epoch % every == 0 or epoch == config.train.epochs)


def validate(net: EmbeddingNet, benchmark: Benchmark, config: Config, fabric: Fabric) -> dict[str, float]:
    """Compute R1, mAP and mINP on the val identities, under the first of the dataset's protocols.

    All processes embed; the first one ranks, and the others return nothing.
    """
    load = partial(evaluation_loader, benchmark.root, benchmark.val, config.data, masks=net.takes_masks)
    embeddings = embed_together(net, len(benchmark.val), load, fabric)
    if not fabric.is_global_zero:
        return {}
    result = evaluate_protocol(protocols_of(benchmark, "val")[0], embeddings, benchmark.val)
    metrics = {f"val/{name}": result.metrics[name].mean for name in ("R1", "mAP", "mINP")}
    log.info("val: %s", ", ".join(f"{name.removeprefix('val/')} {100 * value:.1f}" for name, value in metrics.items()))
    return metrics


def _images_of(training_set: TrainingSet, sampler: CrossModalitySampler, number: int) -> list[str]:
    """Paths of the images of a step, counted from 1."""
    drawn = sampler.images_of(*divmod(number - 1, sampler.batches))
    return [training_set.records[i].path for i in drawn]


def _list_images(training_set: TrainingSet, reasons: Mapping[int, str], file: Path, what: str) -> None:
    """List images, index -> why, and say how many they are; without any there is no list."""
    if not reasons:
        file.unlink(missing_ok=True)
        return
    records = training_set.records
    with replacing(file, alone=True) as partial:
        partial.write_text(json.dumps({records[i].path: why for i, why in reasons.items()}, indent=1) + "\n")
    log.warning("%s of %s training images %s, listed in %s", f"{len(reasons):,}", f"{len(records):,}", what, file)


def _with_absolute_paths(config: Config) -> Config:
    """Copy the settings with paths that hold in any folder."""

    def absolute(path: str) -> str:
        return str(expanded(path).absolute())

    config = copy.deepcopy(config)
    data = config.data
    data.root, data.masks = absolute(data.root), data.masks and absolute(data.masks)
    data.cache = data.cache if data.cache.startswith("~") else absolute(data.cache)  # ~ is right on any machine
    return config


def _check_searchable(benchmark: Benchmark) -> None:
    """Raises `CsviError` if validation would find nothing to search for: now, and not after two epochs."""
    try:
        protocol = protocols_of(benchmark, "val", trials=1)[0]
        if not answerable(protocol, benchmark.val)[1]:
            raise CsviError("no query has an image of its identity in the gallery")
    except CsviError as error:
        raise CsviError(f"cannot validate on the val identities ({error}): set --train.validate_every 0") from error


def _progress_bar(shown: bool) -> Progress:
    """Make a bar on stderr, and only where someone looks at it: a pipe may be gone when all is to be saved."""
    console = console_on_stderr()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    note = TextColumn("{task.fields[note]}")
    return Progress(*columns, note, console=console, disable=not (shown and console.is_terminal))


def _summary(terms: dict[str, float]) -> str:
    each = " + ".join(f"{_short(value)} {name}" for name, value in terms.items())
    return f"loss {_short(sum(terms.values()))} = {each}"


def _short(loss: float) -> str:
    return f"{loss:.1f}" if abs(loss) < 1e5 else f"{loss:.4g}"
