"""The training loop."""

import contextlib
import copy
import dataclasses
import logging
import math
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from lightning_fabric import Fabric
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.optim import Optimizer

from csvi.config import Config, LossConfig, flatten, load_config, save_config
from csvi.data import Benchmark, ImageRecord, read_benchmark
from csvi.data.loader import evaluation_loader, training_loader
from csvi.errors import CsviError
from csvi.evaluate.embed import embed
from csvi.evaluate.protocols import protocols_of
from csvi.evaluate.scoring import evaluate_protocol
from csvi.fabric import check_compiler, choose_precision, make_fabric, on_device
from csvi.model import TrainingNetwork, VIReIDNet, build_network
from csvi.model.saved import save_network
from csvi.model.weights import initial_weights
from csvi.train.checkpoint import load_checkpoint, save_checkpoint
from csvi.train.metrics_log import MetricsLog
from csvi.train.optimizer import build_optimizer, set_learning_rate

log = logging.getLogger(__name__)

CHECKPOINT = "last.ckpt"
MAY_CHANGE = {
    "data.root", "data.masks", "data.workers", "data.cache", "train.validate_every", "train.compile", "precision",
}  # fmt: skip
"""Settings that a resumed run may have anew; all others say which batches and which losses it has."""


def train(config: Config, run: Path, resume: str | None = None) -> None:
    """Train a network and leave it in a run folder.

    The folder gets `config.yaml`, `metrics.jsonl`, TensorBoard events, `last.ckpt` and the network's files. SIGINT and
    SIGTERM finish the step, save a checkpoint and end the run with a CsviError that says how to go on.

    Args:
        config: all settings.
        run: folder to write; it may hold a run already only if that one is resumed.
        resume: `auto` goes on from RUN/last.ckpt where there is one; otherwise the path of a checkpoint.

    Raises:
        CsviError: bad data or settings, losses that are not finite, or a signal to stop.
    """
    checkpoint = _checkpoint(run, resume)
    if checkpoint is not None:
        _check_same_settings(config, checkpoint.parent / "config.yaml")
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
    if fabric.is_global_zero:
        _make_folder(run)
    with fabric.rank_zero_first(local=True):  # the others find the images decoded
        loader, sampler, identities = training_loader(
            benchmark.root, records, config.data, config.seed, fabric.global_rank, fabric.world_size
        )
        if validates(config, config.train.epochs):
            _check_searchable(benchmark)
            evaluation_loader(benchmark.root, benchmark.val, config.data)  # decodes: what cannot be read is found now
    fabric.seed_everything(config.seed, verbose=False)
    network = build_network(config, len(identities))
    if weights is not None:
        network.net.backbone.load_pretrained(weights)
    network.to(memory_format=torch.channels_last)
    if compiling := config.train.compile:
        network.compile()  # in place: names in checkpoints are the same, and `network.net` validates as it is
    wrapped, optimizer = fabric.setup(network, build_optimizer(network, config.train, weights is not None))
    epoch, step = 0, 0
    if checkpoint is not None:
        epoch, step = load_checkpoint(fabric, checkpoint, wrapped, optimizer, identities)
        log.info("going on at epoch %d, step %d, from %s", epoch + 1, step + 1, checkpoint)

    if fabric.is_global_zero:
        save_config(config, run / "config.yaml")
    precision = choose_precision(config.precision)
    log.info("%d images of %d identities, %s on %s", len(records), len(identities), precision, fabric.device)
    steps = sampler.batches
    batch_size = 2 * config.data.identities * config.data.images * fabric.world_size
    metrics = MetricsLog(run if fabric.is_global_zero else None, epoch * steps + step, batch_size)
    stopping = False
    with stop_signal() as stop, contextlib.closing(metrics):
        while epoch < config.train.epochs:
            sampler.start(epoch, step)
            wrapped.train()
            metrics.restart_clock()
            with _progress_bar(not fabric.is_global_zero) as progress:
                task = progress.add_task(
                    f"epoch {epoch + 1}/{config.train.epochs}", total=steps, completed=step, note=""
                )
                for batch in loader:
                    done = epoch * steps + step
                    lr = set_learning_rate(optimizer, done, steps, config.train)
                    started = time.perf_counter()
                    terms = train_step(fabric, network, wrapped, optimizer, batch, loss_settings(config.loss, done))
                    if compiling:
                        log.info("compiled in the first step, which took %.0f s", time.perf_counter() - started)
                        compiling = False
                    step += 1
                    latest = metrics.losses(done + 1, lr, terms)
                    progress.update(task, advance=1)
                    if latest:
                        progress.update(task, note=f"loss {sum(latest.values()):.1f}  {metrics.speed:.0f} images/s")
                        warn_of_center_loss(latest, done + 1, len(identities), config)
                    if stopping := _any_process(stop.is_set(), fabric):
                        break
            metrics.flush()
            if step >= steps:
                epoch, step = epoch + 1, 0
                log.info("epoch %d/%d: %s", epoch, config.train.epochs, _summary(terms))
                if validates(config, epoch):
                    metrics.write(epoch * steps, validate(network.net, benchmark, config, fabric))
            save_checkpoint(fabric, run / CHECKPOINT, wrapped, optimizer, epoch, step, identities)
            if fabric.is_global_zero:
                save_network(network, run)
            if stopping and epoch < config.train.epochs:
                raise CsviError(
                    f"stopped at epoch {epoch + 1}, step {step + 1}, all of it saved in {run}: "
                    "the same command goes on there (csvi train with --resume auto)"
                )


def train_step(
    fabric: Fabric,
    network: TrainingNetwork,
    wrapped: nn.Module,
    optimizer: Optimizer,
    batch: dict[str, Tensor],
    settings: LossConfig,
) -> dict[str, Tensor]:
    """One step on one batch; returns the weighted loss terms by name (Eq. 19 is their sum)."""
    batch = on_device(batch, fabric)
    terms = network.losses(wrapped(batch), batch, settings)
    optimizer.zero_grad(set_to_none=True)
    fabric.backward(torch.stack(list(terms.values())).sum())
    optimizer.step()
    return terms


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


@contextlib.contextmanager
def stop_signal() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; a second SIGINT interrupts at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def request(number: int, frame: object) -> None:
        log.warning("stopping after this step (press again to stop at once)")
        stop.set()
        signal.signal(signal.SIGINT, before[signal.SIGINT])

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _checkpoint(run: Path, resume: str | None) -> Path | None:
    """The checkpoint to go on from, if any; a run that is in the folder and not gone on with must not be lost."""
    ours = run / CHECKPOINT
    file = ours if resume in (None, "auto") else Path(str(resume))
    if file != ours and not file.is_file():
        raise CsviError(f"no checkpoint {file}: --resume takes auto or the path of one")
    goes_on = resume is not None and file.exists() and file.parent.resolve() == run.resolve()
    if not goes_on and (ours.exists() or (run / "model.safetensors").exists()):
        raise CsviError(f"{run} holds a run already: go on with it by --resume auto, or name another with --run")
    return file if resume is not None and file.exists() else None


def _make_folder(run: Path) -> None:
    try:
        run.mkdir(parents=True, exist_ok=True)
        (run / ".writable").touch()
        (run / ".writable").unlink()
    except OSError as error:
        raise CsviError(f"cannot write the run to {run}: {error.strerror}") from error


def _with_absolute_paths(config: Config) -> Config:
    """So that the run can be evaluated from any folder."""

    def absolute(path: str) -> str:
        return str(Path(path).expanduser().absolute())

    masks = config.data.masks and absolute(config.data.masks)
    config = copy.deepcopy(config)
    config.data.root, config.data.masks = absolute(config.data.root), masks
    return config


def _check_same_settings(config: Config, file: Path) -> None:
    if not file.exists():
        return
    ours, theirs = flatten(config), flatten(load_config(file))
    may_change = set(MAY_CHANGE)
    if config.train.schedule == "step":  # a cosine depends on where it ends
        may_change.add("train.epochs")
    changed = [f"{name} was {theirs[name]}" for name in ours if name not in may_change and ours[name] != theirs[name]]
    if changed:
        raise CsviError(f"cannot go on with {file.parent} under other settings ({'; '.join(changed)}): start a new run")


def _any_process(condition: bool, fabric: Fabric) -> bool:
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
    if config.model.auxiliary != "none" and missing:
        raise CsviError(
            f"{missing} of {len(records)} training images have no mask, which the auxiliary {config.model.auxiliary!r} "
            "learns from: give their folder with --data.masks, or train with --model.auxiliary none"
        )
    return records


def _progress_bar(disable: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, TextColumn("{task.fields[note]}"), disable=disable)


def _summary(terms: dict[str, Tensor]) -> str:
    values = {name: term.item() for name, term in terms.items()}
    return f"loss {sum(values.values()):.1f} = " + " + ".join(f"{value:.1f} {name}" for name, value in values.items())
