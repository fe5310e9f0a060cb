"""The training loop."""

import contextlib
import copy
import dataclasses
import json
import logging
import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar
from torch import Tensor, nn
from torch.optim import Optimizer

from csvi.config import Config, LossConfig, flatten, load_config, save_config
from csvi.data import Benchmark, ImageRecord, read_benchmark
from csvi.data.loader import evaluation_loader, loader_errors, training_loader
from csvi.errors import CsviError, StoppedError
from csvi.evaluate.embed import embed
from csvi.evaluate.protocols import protocols_of
from csvi.evaluate.scoring import evaluate_protocol
from csvi.fabric import check_compiler, choose_precision, keep_freed_memory, make_fabric, on_device
from csvi.model import TrainingNetwork, VIReIDNet, build_network
from csvi.model.saved import save_network
from csvi.model.weights import initial_weights
from csvi.train.checkpoint import Progress, load_checkpoint, save_checkpoint
from csvi.train.metrics_log import FLUSH_EVERY, MetricsLog
from csvi.train.nonfinite import NonFinite, check_weights, gradients_are_finite
from csvi.train.optimizer import build_optimizer, set_learning_rate
from csvi.train.run_folder import CHECKPOINT, PREVIOUS, check_same_settings, checkpoints_to_resume, locked
from csvi.train.time_limit import TimeLimit
from csvi.writing import replacing

log = logging.getLogger(__name__)

SKIPPED = "skipped.json"


def train(config: Config, run: Path, resume: str | None = None, until: float = math.inf) -> None:
    """Train a network and leave it in a run folder.

    The folder gets `config.yaml`, `metrics.jsonl`, TensorBoard events, `last.ckpt`, the checkpoint before that as
    `previous.ckpt` until the end, and the network's files. SIGINT, SIGTERM and a time limit finish the step, save a
    checkpoint and end the run with a StoppedError that says how to go on.

    Args:
        config: all settings.
        run: folder to write; it may hold a run already only if that one is resumed.
        resume: `auto` goes on from the checkpoints in RUN where there are any; otherwise the path of a checkpoint.
        until: `time.monotonic()` at which it must be over, as far as can be told from how long steps take.

    Raises:
        StoppedError: a signal or the time limit came before the end.
        CsviError: bad data or settings, losses that are not finite, a folder that cannot be written, or one in which
            another process trains.
    """
    checkpoints = checkpoints_to_resume(run, resume)  # what is wrong with them is said before anything else is done
    if checkpoints and (settings := checkpoints[0].with_name("config.yaml")).exists():
        check_same_settings(config, flatten(load_config(settings)), settings.parent)
    fabric = make_fabric(config, config.devices, config.nodes)
    fabric.launch()
    if config.train.compile:
        check_compiler(fabric.device)

    benchmark = read_benchmark(config.data)
    config = _with_absolute_paths(config)
    if not benchmark.val:  # RegDB and LLCM have no identities to validate on
        config.train.validate_every = 0
    records = _training_records(benchmark, config)
    weights = initial_weights(config.model.backbone, config.model.weights)
    with locked(run) if fabric.is_global_zero else contextlib.nullcontext():
        checkpoints = checkpoints_to_resume(run, resume)  # again, now that nobody else writes there
        with loader_errors():
            _Training(fabric, config, run, checkpoints, benchmark, records, weights, until).to_the_end()


class _Training:
    """A run that is being trained, in a folder that is ours. Arguments as of `train`."""

    def __init__(
        self,
        fabric: Fabric,
        config: Config,
        run: Path,
        checkpoints: list[Path],
        benchmark: Benchmark,
        records: list[ImageRecord],
        weights: dict[str, Tensor] | None,
        until: float,
    ):
        self.fabric, self.config, self.run, self.benchmark = fabric, config, run, benchmark
        with fabric.rank_zero_first(local=True):  # the others find the images decoded
            masks = config.model.auxiliary != "none"
            self.loader, self.sampler, identities = training_loader(
                benchmark.root, records, config.data, config.seed, masks, fabric.global_rank, fabric.world_size
            )
            if validates(config, config.train.epochs):
                _check_searchable(benchmark)
                evaluation_loader(benchmark.root, benchmark.val, config.data)  # decodes: what is broken is found now
        skipped = self.sampler.skipped
        if skipped and fabric.is_global_zero:
            _list_skipped(run / SKIPPED, records, skipped)
        fabric.seed_everything(config.seed, verbose=False)
        self.network = build_network(config, len(identities))
        if weights is not None:
            self.network.net.backbone.load_pretrained(weights)
        self.network.to(memory_format=torch.channels_last)
        if config.train.compile:
            self.network.compile()  # in place: names in checkpoints are the same, and `network.net` validates as it is
        self.wrapped, self.optimizer = fabric.setup(
            self.network, build_optimizer(self.network, config.train, weights is not None)
        )
        self.steps = self.sampler.batches
        batch_size = 2 * config.data.identities * config.data.images * fabric.world_size
        self.limit = TimeLimit(until, validation=len(benchmark.val) / batch_size)
        self.saved = time.monotonic()
        used = [record for i, record in enumerate(records) if i not in skipped]
        self.progress = Progress.start(config, used, identities)
        source = None
        if checkpoints:
            self.progress, source = load_checkpoint(
                fabric, checkpoints, self.wrapped, self.optimizer, self.progress, config
            )
        if fabric.is_global_zero:
            save_config(config, run / "config.yaml")
        if source is None or source != run / CHECKPOINT:
            # What cannot be saved is found now, and the folder always holds something to go on from.
            self._write(with_network=source is not None)
        precision = choose_precision(config.precision)
        log.info("%d images of %d identities, %s on %s", len(used), len(identities), precision, fabric.device)
        ours = run if fabric.is_global_zero else None
        nonfinite = NonFinite(
            ours,
            config.train.on_nonfinite == "skip",
            precision == "16-mixed",
            lambda number: [records[i].path for i in self.sampler.images_of(*divmod(number - 1, self.steps))],
            self.progress.left_out,
        )
        self.metrics = MetricsLog(ours, self.done, batch_size, nonfinite, validated=self.progress.step < self.steps)

    @property
    def done(self) -> int:
        """Steps done so far."""
        return self.progress.epoch * self.steps + self.progress.step

    def to_the_end(self) -> None:
        """Train until all epochs are done.

        Raises:
            StoppedError: a signal or the time limit came before; all is saved.
        """
        epochs = self.config.train.epochs
        with stop_signal() as self.stop, contextlib.closing(self.metrics):
            while self.progress.epoch < epochs:
                if self._must_stop():
                    raise StoppedError(
                        f"stopped after {self.done} of {epochs * self.steps} steps, all of it saved in {self.run}: "
                        "the same command goes on there (csvi train with --resume auto)"
                    )
                stopped = self._train_epoch()
                # A validation that would outlast what stops the run is left to the one that goes on.
                if self.progress.step == self.steps and not (stopped and self._validates()):
                    self._end_epoch()
                self._save(with_network=True)
        if self.fabric.is_global_zero:
            (self.run / PREVIOUS).unlink(missing_ok=True)

    def _train_epoch(self) -> bool:
        """Train to the end of the epoch, or until the run must stop; returns whether it must."""
        config, progress, stopped = self.config, self.progress, False
        self.sampler.start(progress.epoch, progress.step)
        self.wrapped.train()
        self.metrics.restart_clock()
        with _progress_bar() as bar:
            task = bar.add_task(
                f"epoch {progress.epoch + 1}/{config.train.epochs}", total=self.steps, completed=progress.step, note=""
            )
            begun = time.monotonic()
            for batch in self.loader:
                lr = set_learning_rate(self.optimizer, self.done, self.steps, config.train)
                keep_freed_memory(self.fabric.device)  # from the first batch on, when loader processes are there
                seed_step(config.seed, self.done, self.fabric.global_rank)
                terms, finite = train_step(
                    self.fabric, self.network, self.wrapped, self.optimizer, batch,
                    loss_settings(config.loss, self.done), config.train.on_nonfinite == "skip",
                )  # fmt: skip
                progress.step += 1
                latest = self.metrics.losses(self.done, lr, terms, finite)
                bar.update(task, advance=1)
                if latest:
                    bar.update(task, note=f"loss {sum(latest.values()):.1f}  {self.metrics.speed:.0f} images/s")
                    warn_of_center_loss(latest, self.done, len(progress.identities), config)
                self._took_a_step(time.monotonic() - begun)
                if self.fabric.world_size == 1 or latest or progress.step == self.steps:  # else nobody waits for others
                    due = 0 < 60 * config.train.checkpoint_every <= time.monotonic() - self.saved
                    due = progress.step < self.steps and _any_process(self.fabric, due)
                    if stopped := self._must_stop(save_first=due):
                        break
                    if due:
                        self._save()
                begun = time.monotonic()
        self.metrics.flush()
        return stopped

    def _end_epoch(self) -> None:
        progress, validates = self.progress, self._validates()
        if validates:
            self._save()  # a kill during the validation costs no more than at any other time
        progress.epoch, progress.step = progress.epoch + 1, 0
        if self.metrics.latest:
            log.info("epoch %d/%d: %s", progress.epoch, self.config.train.epochs, _summary(self.metrics.latest))
        if validates:
            with self.limit.timed("validation"):
                figures = validate(self.network.net, self.benchmark, self.config, self.fabric)
            self.metrics.write(self.done, figures)

    def _validates(self) -> bool:
        """Whether there is a validation at the end of this epoch."""
        return validates(self.config, self.progress.epoch + 1)

    def _must_stop(self, save_first: bool = False) -> bool:
        """Whether a signal says so, or what comes before the run can next be stopped would take too long."""
        at_once = 1 if self.fabric.world_size == 1 else FLUSH_EVERY
        ahead = _ahead(self.steps - self.progress.step, at_once, self._validates(), save_first)
        return _any_process(self.fabric, self.stop.requested or not self.limit.fits(*ahead))

    def _took_a_step(self, seconds: float) -> None:
        if self.config.train.compile and "step" not in self.limit.longest:
            log.info("compiled in the first step, which took %.0f s", seconds)
            self.limit.took("step", 0.0)
        else:
            self.limit.took("step", seconds)

    def _save(self, with_network: bool = False) -> None:
        self.metrics.force_to_disk()
        self.progress.left_out = list(self.metrics.nonfinite.left_out)
        self._write(with_network)

    def _write(self, with_network: bool) -> None:
        """Network first, so that what the last checkpoint of a run says is done is there."""
        check_weights(self.network, self.optimizer, self.done)
        with self.limit.timed("saving"):
            if with_network and self.fabric.is_global_zero:
                save_network(self.network, self.run)
            save_checkpoint(self.fabric, self.run, self.wrapped, self.optimizer, self.progress)
        self.saved = time.monotonic()


def train_step(
    fabric: Fabric,
    network: TrainingNetwork,
    wrapped: nn.Module,
    optimizer: Optimizer,
    batch: dict[str, Tensor],
    settings: LossConfig,
    skip: bool = False,
) -> tuple[dict[str, Tensor], Tensor]:
    """One step on one batch.

    Args:
        skip: leave weights, running statistics and optimiser as they were if a loss or a gradient is not finite; it
            takes waiting for the device.

    Returns:
        The weighted loss terms by name (Eq. 19 is their sum), and whether the gradient is finite, () bool.
    """
    batch = on_device(batch, fabric)
    before = [buffer.clone() for buffer in network.buffers()] if skip else []
    terms = network.losses(wrapped(batch), batch, settings)
    total = torch.stack(list(terms.values())).sum()
    optimizer.zero_grad(set_to_none=True)
    fabric.backward(total)
    finite = gradients_are_finite(network)
    if skip and _any_process(fabric, not (finite & total.isfinite())):
        for buffer, value in zip(network.buffers(), before, strict=True):
            buffer.copy_(value)
        if fabric.strategy.precision.state_dict() == {}:  # no scaler of float16's losses
            return terms, finite
    optimizer.step()  # which leaves out by itself what overflowed, and scales the loss by less
    return terms, finite


def seed_step(seed: int, step: int, rank: int) -> None:
    """Make all that a step draws (a dropout, say) follow from its number, so that nothing of it need be saved."""
    torch.manual_seed(int(np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0] >> 1))


def loss_settings(settings: LossConfig, step: int) -> LossConfig:
    """The settings at a step, counted from 0: the weight of the hetero-center losses may still be growing."""
    if step >= settings.center_ramp:
        return settings
    return dataclasses.replace(settings, center=settings.center * step / settings.center_ramp)


def validates(config: Config, epoch: int) -> bool:
    """Whether to validate after so many epochs: never on identities that are trained on."""
    every = config.train.validate_every
    return config.data.train_on == "train" and every > 0 and (epoch % every == 0 or epoch == config.train.epochs)


def validate(net: VIReIDNet, benchmark: Benchmark, config: Config, fabric: Fabric) -> dict[str, float]:
    """R1, mAP and mINP on the val identities, under the first of the dataset's protocols."""
    loader = evaluation_loader(benchmark.root, benchmark.val, config.data)
    embeddings = embed(net, loader, fabric)
    result = evaluate_protocol(protocols_of(benchmark, "val")[0], embeddings, benchmark.val)
    figures = {f"val/{name}": result.figures[name].mean for name in ("R1", "mAP", "mINP")}
    log.info("val: %s", ", ".join(f"{name.removeprefix('val/')} {100 * value:.1f}" for name, value in figures.items()))
    return figures


def warn_of_center_loss(terms: dict[str, float], step: int, identities: int, config: Config) -> None:
    """Say so when identities are at chance because the hetero-center loss rules.

    Either it has pulled all features to one point, or it outweighs the identity loss by far.
    """
    if step % 100 or step <= config.loss.center_ramp:
        return
    chance = 2 * config.model.parts * math.log(identities) * config.loss.identity
    if terms["identity"] < 0.95 * chance:
        return
    if 0 < terms["center"] < 0.02 * terms["identity"]:
        what = "features have collapsed to one point"
    elif terms["center"] > 2 * terms["identity"]:
        what = "the center loss leaves nothing to the identity loss"
    else:
        return
    log.warning(
        "step %d: %s (identity loss %.1f at chance %.1f, center loss %.3f): lower --loss.center, raise "
        "--loss.center_ramp, or take the mean over identities with --loss.center_reduction mean",
        step, what, terms["identity"], chance, terms["center"],
    )  # fmt: skip


@dataclass
class Stop:
    """Plain, as a signal handler may interrupt another, and locks are not for that."""

    requested: bool = False


@contextlib.contextmanager
def stop_signal() -> Iterator["Stop"]:
    """What SIGINT and SIGTERM request; a second SIGINT interrupts at once."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def request(number: int, frame: object) -> None:
        stop.requested = True
        signal.signal(signal.SIGINT, before[signal.SIGINT])
        log.warning("stopping when this step, or this validation, is over (press again to stop at once)")

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _with_absolute_paths(config: Config) -> Config:
    """So that the run can be evaluated from any folder."""

    def absolute(path: str) -> str:
        return str(Path(path).expanduser().absolute())

    masks = config.data.masks and absolute(config.data.masks)
    config = copy.deepcopy(config)
    config.data.root, config.data.masks = absolute(config.data.root), masks
    return config


def _ahead(left: int, at_once: int, validates: bool, save_first: bool) -> list[str]:
    """What there must be time for before the run can next be stopped.

    Args:
        left: steps of the epoch.
        at_once: steps between two occasions to stop.
        validates: at the end of the epoch; it saves before that, too.
        save_first: a checkpoint is due now.
    """
    steps = min(left, at_once)
    last = ["saving", "validation"] if validates and steps == left else []
    return [*(["saving"] if save_first else []), *(["step"] * steps), *last, "saving"]


def _any_process(fabric: Fabric, condition: bool) -> bool:
    """Whether it holds in any of them, so that all leave the loop at the same step."""
    if fabric.world_size == 1:
        return condition
    return bool(fabric.all_reduce(torch.tensor(float(condition), device=fabric.device), reduce_op="max"))


def _check_searchable(benchmark: Benchmark) -> None:
    """Raises `CsviError` if validation would find nothing to search for: now, and not after two epochs."""
    try:
        evaluate_protocol(
            protocols_of(benchmark, "val", trials=1)[0], torch.zeros(len(benchmark.val), 1), benchmark.val
        )
    except CsviError as error:
        raise CsviError(f"cannot validate on the val identities ({error}): set --train.validate_every 0") from error


def _training_records(benchmark: Benchmark, config: Config) -> list[ImageRecord]:
    records = list(benchmark.train)
    if config.data.train_on == "train+val":
        records += benchmark.val
        if config.train.validate_every and benchmark.val:
            log.info("no validation: the val identities are trained on (--data.train_on train leaves them out)")
    missing = sum(record.mask is None for record in records)
    if config.model.auxiliary != "none" and missing and (config.data.on_error == "stop" or missing == len(records)):
        raise CsviError(
            f"{missing} of {len(records)} training images have no mask, which the auxiliary {config.model.auxiliary!r} "
            "learns from: give their folder with --data.masks, or train with --model.auxiliary none"
        )
    return records


def _list_skipped(file: Path, records: list[ImageRecord], skipped: Mapping[int, str]) -> None:
    """Write which images are not trained on, and why: (path -> reason) as JSON."""
    with replacing(file) as partial:
        partial.write_text(json.dumps({records[i].path: why for i, why in skipped.items()}, indent=1) + "\n")
    log.warning("%d of %d training images are left out, listed in %s", len(skipped), len(records), file)


def _progress_bar() -> ProgressBar:
    """On stderr, and only where someone looks at it: a pipe may be gone when all is to be saved."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    note = TextColumn("{task.fields[note]}")
    return ProgressBar(*columns, note, console=console, disable=not console.is_terminal)


def _summary(terms: dict[str, float]) -> str:
    return f"loss {sum(terms.values()):.1f} = " + " + ".join(f"{value:.1f} {name}" for name, value in terms.items())
