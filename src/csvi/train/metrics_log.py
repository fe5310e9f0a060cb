"""`metrics.jsonl` and TensorBoard events: the same figures under the same names."""

import json
import math
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from csvi.errors import CsviError

FLUSH_EVERY = 10
"""Steps between two transfers of losses from the device: a transfer every step would wait for the device every step."""


class MetricsLog:
    """Figures of a run by step; a resumed run overwrites what came after its checkpoint.

    Args:
        run: its folder; None keeps nothing, as in all processes but the first.
        step: number of steps done.
        batch_size: images a step.
    """

    def __init__(self, run: Path | None, step: int, batch_size: int):
        self.file = None if run is None else run / "metrics.jsonl"
        self.board = None if run is None else SummaryWriter(str(run), purge_step=step + 1)
        if self.file and self.file.exists():
            # A run that was killed may have left half a line at the end, which has no line end.
            lines = self.file.read_text().splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
            self.file.write_text("".join(kept))
        self.batch_size = batch_size
        self.pending: list[tuple[int, float, dict[str, Tensor]]] = []
        self.started = time.perf_counter()
        self.speed = 0.0
        """Images a second, of the last steps."""

    def losses(self, step: int, lr: float, terms: dict[str, Tensor]) -> dict[str, float] | None:
        """Keep the loss terms of a step, counted from 1; every `FLUSH_EVERY`-th step write them and return the last."""
        self.pending.append((step, lr, {name: term.detach() for name, term in terms.items()}))
        return self.flush() if step % FLUSH_EVERY == 0 else None

    def flush(self) -> dict[str, float] | None:
        """Write what is kept; returns the terms of the last step.

        Raises:
            CsviError: a loss is not a finite number.
        """
        if not self.pending:
            return None
        pending, self.pending = self.pending, []
        names = list(pending[0][2])
        values = torch.stack([torch.stack([terms[name] for name in names]) for _, _, terms in pending]).tolist()
        now = time.perf_counter()
        self.speed = len(pending) * self.batch_size / (now - self.started)
        self.started = now
        for (step, lr, _), row in zip(pending, values, strict=True):
            terms = dict(zip(names, row, strict=True))
            figures = {"loss": sum(row)} | terms | {"lr": lr, "images_per_second": self.speed}
            self.write(step, {f"train/{name}": value for name, value in figures.items()})
            bad = [name for name, value in terms.items() if not math.isfinite(value)]
            if bad:
                raise CsviError(
                    f"the {' and '.join(bad)} loss of step {step} is not finite: lower --train.lr, "
                    "raise --train.warmup or train with --precision 32-true"
                )
        return terms

    def write(self, step: int, figures: dict[str, float]) -> None:
        """Append one line and one point a figure."""
        if self.file is None or self.board is None:
            return
        with self.file.open("a") as file:
            file.write(json.dumps({"step": step} | figures) + "\n")
        for name, value in figures.items():
            self.board.add_scalar(name, value, step)

    def restart_clock(self) -> None:
        """Do not count the time since the last flush: it went into something else than training."""
        self.started = time.perf_counter()

    def close(self) -> None:
        """Write what is kept and close the files."""
        self.flush()
        if self.board is not None:
            self.board.close()
