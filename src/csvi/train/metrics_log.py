"""`metrics.jsonl` and TensorBoard events: the same figures under the same names."""

import json
import math
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from csvi.errors import CsviError
from csvi.train.nonfinite import NonFinite
from csvi.writing import replacing

FLUSH_EVERY = 10
"""Steps between two transfers of losses from the device: a transfer every step would wait for the device every step."""


class MetricsLog:
    """Figures of a run by step; a resumed run overwrites what came after its checkpoint.

    Args:
        run: its folder; None keeps nothing, as in all processes but the first.
        step: number of steps done.
        batch_size: images a step.
        nonfinite: what comes of steps with losses that are not finite.

    Raises:
        CsviError: the file cannot be read or written, or is not one of csvi.
    """

    def __init__(self, run: Path | None, step: int, batch_size: int, nonfinite: NonFinite | None = None):
        self.file = None if run is None else run / "metrics.jsonl"
        self.board = None if run is None else SummaryWriter(str(run), purge_step=step + 1)
        if self.file and self.file.exists():
            kept = "".join(_lines_up_to(step, self.file))
            with replacing(self.file) as partial:
                partial.write_text(kept)
        self.batch_size = batch_size
        self.nonfinite = nonfinite or NonFinite()
        self.pending: list[tuple[int, float, dict[str, Tensor], Tensor]] = []
        self.latest: dict[str, float] = {}
        """The terms of the last step that was written."""
        self.started = time.perf_counter()
        self.speed = 0.0
        """Images a second, of the last steps."""

    def losses(self, step: int, lr: float, terms: dict[str, Tensor], finite: Tensor) -> dict[str, float] | None:
        """Keep the loss terms of a step, counted from 1; every `FLUSH_EVERY`-th step write them and return the last.

        Args:
            step, lr: number and learning rate.
            terms: () each.
            finite: () bool, whether the gradient is.
        """
        self.pending.append((step, lr, {name: term.detach() for name, term in terms.items()}, finite))
        return self.flush() if step % FLUSH_EVERY == 0 else None

    def flush(self) -> dict[str, float] | None:
        """Write what is kept; returns the terms of the last step. Whoever saves weights calls this first.

        Raises:
            CsviError: a loss or gradient was not finite and the run must stop, or the file cannot be written.
        """
        if not self.pending:
            return None
        pending, self.pending = self.pending, []
        names = list(pending[0][2])
        values = torch.stack(
            [torch.stack([*(terms[name] for name in names), finite.float()]) for _, _, terms, finite in pending]
        ).tolist()
        now = time.perf_counter()
        self.speed = len(pending) * self.batch_size / (now - self.started)
        self.started = now
        for (step, lr, _, _), (*row, finite) in zip(pending, values, strict=True):
            self.latest = dict(zip(names, row, strict=True))
            skipped = self.nonfinite.check(step, self.latest, bool(finite))
            figures = {"loss": sum(row)} | self.latest | {"lr": lr, "images_per_second": self.speed}
            if skipped:
                figures = {name: value for name, value in figures.items() if math.isfinite(value)} | {"skipped": 1}
            self.write(step, {f"train/{name}": value for name, value in figures.items()})
        return self.latest

    def write(self, step: int, figures: dict[str, float]) -> None:
        """Append one line and one point a figure.

        Raises:
            CsviError: the file cannot be written.
        """
        if self.file is None or self.board is None:
            return
        try:
            with self.file.open("a") as file:
                file.write(json.dumps({"step": step} | figures) + "\n")
            for name, value in figures.items():
                self.board.add_scalar(name, value, step)
        except OSError as error:
            raise CsviError(f"cannot write {self.file}: {error.strerror}") from error

    def restart_clock(self) -> None:
        """Do not count the time since the last flush: it went into something else than training."""
        self.started = time.perf_counter()

    def close(self) -> None:
        """Write what is kept and close the files."""
        self.flush()
        if self.board is not None:
            self.board.close()


def _lines_up_to(step: int, file: Path) -> list[str]:
    """The lines of these steps; a run that was killed may have left half a line at the end, which has no line end."""
    try:
        lines = [line for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]
        return [line for line in lines if json.loads(line)["step"] <= step]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CsviError(f"{file} is damaged or not of csvi ({error}): move it away to go on with the run") from error
