"""`metrics.jsonl` and TensorBoard events: the same metrics under the same names."""

import contextlib
import json
import logging
import math
import os
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import Tensor

from csvi.errors import CsviError
from csvi.runs.folder import METRICS
from csvi.writing import replacing

log = logging.getLogger(__name__)

FLUSH_EVERY = 10
"""Steps between two transfers of losses from the device: a transfer every step would wait for the device every step."""


class MetricsLog:
    """The metrics of a run by step; a resumed run overwrites what came after its checkpoint.

    Args:
        run: its folder; None keeps nothing, as in all processes but the first.
        step: number of steps done.
        validated: the validation after that step, if there is one, is done as well.
        batch_size: images a step.
        check: called with the number, the loss terms and the finiteness of the gradient of every step, in their order,
            and the ranks of the processes with a loss that is not finite; says whether the step was skipped, or raises
            if the run must stop.
        of_processes: gives what each process says, in the order of their ranks.

    Raises:
        CsviError: the file cannot be read or written, or is not one of csvi.
    """

    def __init__(
        self,
        run: Path | None,
        step: int,
        batch_size: int,
        check: Callable[[int, dict[str, float], bool, Sequence[int]], bool] = lambda step, terms, finite, ranks: False,
        validated: bool = True,
        of_processes: Callable[[list[bool]], list[list[bool]]] = lambda own: [own],
    ):
        self.file = None if run is None else run / METRICS
        if self.file and self.file.exists():
            kept = "".join(_lines_up_to(step, validated, self.file))
            with replacing(self.file, alone=True) as partial:
                partial.write_text(kept)
        self.board = None if run is None else _open_board(run, step + 1)
        self.batch_size = batch_size
        self.check, self.of_processes = check, of_processes
        self.pending: list[tuple[int, float, dict[str, Tensor], Tensor]] = []
        self.latest: dict[str, float] = {}
        """The terms of the last step that was written."""
        self.started = time.perf_counter()
        self.speed = 0.0
        """Images a second, of the last steps."""

    def losses(self, step: int, lr: float, terms: dict[str, Tensor], finite: Tensor) -> dict[str, float] | None:
        """Keep the loss terms of a step, counted from 1; every `FLUSH_EVERY`-th step write them and return the last."""
        self.pending.append((step, lr, {name: term.detach() for name, term in terms.items()}, finite))
        return self.flush() if step % FLUSH_EVERY == 0 else None

    def flush(self, together: bool = True) -> dict[str, float] | None:
        """Write what is kept; returns the terms of the last step. Call it before weights are saved.

        All processes call it after the same steps, and tell each other whose losses are not finite; not `together`,
        where the others may be lost.
        """
        if not self.pending:
            return None
        scalars = [value for _, _, terms, finite in self.pending for value in (*terms.values(), finite.float())]
        values = iter(torch.stack(scalars).tolist())
        fetched = [(n, lr, {name: next(values) for name in terms}, next(values)) for n, lr, terms, _ in self.pending]
        own = [not all(map(math.isfinite, terms.values())) for _, _, terms, _ in fetched]
        bad = self.of_processes(own) if together else []
        self.pending = []
        now = time.perf_counter()
        self.speed = len(fetched) * self.batch_size / (now - self.started)
        self.started = now
        for number, (step, lr, terms, finite) in enumerate(fetched):
            self.latest = terms
            skipped = self.check(step, terms, bool(finite), [rank for rank, of in enumerate(bad) if of[number]])
            loss = sum(self.latest.values())
            metrics = {"loss": loss} | self.latest | {"lr": lr, "images_per_second": self.speed}
            if skipped:
                metrics = {name: value for name, value in metrics.items() if math.isfinite(value)} | {"skipped": 1}
            self.write(step, {f"train/{name}": value for name, value in metrics.items()})
        return self.latest

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Append one line, and one point for each metric."""
        if self.file is None:
            return
        try:
            with self.file.open("a") as file:
                file.write(json.dumps({"step": step} | metrics) + "\n")
        except OSError as error:
            raise CsviError(f"cannot write {self.file}: {error.strerror}") from error
        if self.board is not None:
            values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
            try:
                self.board.add(step, summary=Summary(value=values))
            except OSError as error:
                log.warning("no more TensorBoard events: %s", error.strerror)
                with contextlib.suppress(OSError):
                    self.board.records.close()
                self.board = None

    def restart_clock(self) -> None:
        """Do not count the time since the last flush, which was not training."""
        self.started = time.perf_counter()

    def force_to_disk(self) -> None:
        """Write what is kept, to survive a power cut: before a checkpoint that says these steps are done."""
        self.flush()
        if self.file is not None and self.file.exists():
            with self.file.open("a") as file:
                os.fsync(file.fileno())

    def close(self) -> None:
        """Write what is kept and close the files."""
        try:
            self.flush(together=False)
        finally:
            if self.board is not None:
                self.board.records.close()


def _lines_up_to(step: int, validated: bool, file: Path) -> list[str]:
    """The lines of these steps; what a kill or a power cut left behind them may be anything.

    Raises:
        CsviError: they are not all there.
    """
    kept, last = [], 0
    try:
        for line in file.read_text(errors="replace").splitlines(keepends=True):
            found: Any = json.loads(line) if line.endswith("\n") else None
            if found["step"] > step:
                break
            last = found["step"]
            if validated or last < step or not any(name.startswith("val/") for name in found):
                kept.append(line)
    except OSError as error:
        raise CsviError(f"cannot read {file}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    if last < step:
        raise CsviError(f"{file} is damaged or not of csvi: step {step} is missing, move it away to resume the run")
    return kept


class _Board:
    """TensorBoard's events, written without the thread that its own writer has, which fails where nobody can see it."""

    def __init__(self, run: Path, purge_step: int):
        name = f"events.out.tfevents.{time.time():010.0f}.{socket.gethostname()}.{os.getpid()}"
        self.records = RecordWriter((run / name).open("ab", buffering=0))
        self.add(purge_step, file_version="brain.Event:2")
        self.add(purge_step, session_log=SessionLog(status=SessionLog.START))  # later steps of earlier files are void

    def add(self, step: int, **content: Any) -> None:
        self.records.write(Event(wall_time=time.time(), step=step, **content).SerializeToString())


def _open_board(run: Path, purge_step: int) -> _Board | None:
    try:
        return _Board(run, purge_step)
    except OSError as error:
        log.warning("no TensorBoard events: %s", error.strerror)
        return None


def read_metrics(run: Path, name: str) -> tuple[list[int], list[float]]:
    """Read steps and values of one metric of RUN/metrics.jsonl, such as `train/loss`.

    Raises:
        CsviError: the file cannot be read, or is damaged.
    """
    found = [(step, metrics[name]) for step, metrics in read_lines(run) if name in metrics]
    return [step for step, _ in found], [value for _, value in found]


def read_lines(run: Path) -> list[tuple[int, dict[str, float]]]:
    """Read step and metrics of every line of RUN/metrics.jsonl, but for one at the end that a kill broke off."""
    file = run / METRICS
    try:
        whole, _, _ = file.read_bytes().rpartition(b"\n")
        lines = [json.loads(line) for line in whole.split(b"\n")] if whole else []
        return [(int(line.pop("step")), {name: float(value) for name, value in line.items()}) for line in lines]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CsviError(f"cannot read {file}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise CsviError(f"{file} is damaged or not of csvi: move it away to do without it") from error
