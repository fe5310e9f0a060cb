"""Losses, gradients and weights that are not finite numbers."""

import json
import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from csvi.errors import CsviError
from csvi.writing import replacing

log = logging.getLogger(__name__)

FILE = "nonfinite.json"
AT_MOST, OF_LAST = 10, 100
"""Stop the run once more than 10 of the last 100 steps were skipped."""


def gradients_are_finite(network: nn.Module) -> Tensor:
    """Whether all gradients are finite: () bool on the device, without synchronising."""
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    return torch.nn.utils.get_total_norm(gradients, float("inf")).isfinite()


def check_weights(network: nn.Module, optimizer: Optimizer, step: int) -> None:
    """Raises `CsviError` if a weight, a running statistic or a moment of one is not finite: it must not be saved."""
    moments = {
        f"{name} of {n}": value for n, state in optimizer.state_dict()["state"].items() for name, value in state.items()
    }
    for name, value in (network.state_dict() | moments).items():
        if isinstance(value, Tensor) and not value.isfinite().all():
            raise CsviError(f"after step {step} {name} is not finite: {_advice()}")


class NonFinite:
    """Decides about steps with a loss or a gradient that is not finite: the run stops, or continues without the step.

    Args:
        run: its folder, for nonfinite.json; None writes nothing.
        skip: such steps were skipped, and the run continues unless there are many.
        scaled: the loss is scaled (float16), whose gradients now and then are infinite; the scaler skips the step.
        images: gives the paths of the images of a step.
        skipped: which of the last steps were skipped, in a run that is resumed.
    """

    def __init__(
        self,
        run: Path | None = None,
        skip: bool = False,
        scaled: bool = False,
        images: Callable[[int], list[str]] = lambda step: [],
        skipped: Sequence[bool] = (),
    ):
        self.file = None if run is None else run / FILE
        self.skip, self.scaled, self.images = skip, scaled, images
        self.skipped = deque(skipped, maxlen=OF_LAST)

    def check(self, step: int, terms: dict[str, float], gradient: bool, processes: Sequence[int] = ()) -> bool:
        """Decide whether a step, counted from 1, was skipped; called once for every step, in their order.

        The loss terms are those of this process. `processes` are all that have a loss that is not finite, so that each
        of them decides alike; the gradient is the same in all.

        Raises:
            CsviError: the run must stop.
        """
        bad = [name for name, value in terms.items() if not math.isfinite(value)]
        whose = ["the " + " and ".join(bad)] if bad else [f"process {rank}'s" for rank in processes]
        self.skipped.append(bool(whose) or not gradient)
        if not self.skipped[-1]:
            return False
        looks_for_scale = self.scaled and not whose
        often = sum(self.skipped) > AT_MOST
        if looks_for_scale and not often:
            return True
        what = f"{' and '.join(whose)} loss" if whose else "the gradient"
        where = self._write(step, terms, gradient, processes)
        if often:
            where += f", nor were {sum(self.skipped) - 1} of the {len(self.skipped) - 1} steps before"
        if often or not self.skip:
            raise CsviError(f"{what} of step {step} is not finite{where}: {_advice(may_skip=not self.skip)}")
        log.warning("%s of step %d is not finite%s: skipped", what, step, where)
        return True

    def _write(self, step: int, terms: dict[str, float], gradient: bool, processes: Sequence[int]) -> str:
        if self.file is None:
            return ""
        found = {
            "step": step,
            "losses": {name: value if math.isfinite(value) else str(value) for name, value in terms.items()},
            "processes": list(processes),
            "gradient": "finite" if gradient else "not finite",
            "images": self.images(step),
        }
        try:
            with replacing(self.file, alone=True) as partial:
                partial.write_text(json.dumps(found, indent=1) + "\n")
        except CsviError as error:
            return f" ({error})"
        return f" (its images are in {self.file})"


def _advice(may_skip: bool = True) -> str:
    skip = "--train.on_nonfinite skip or " if may_skip else ""
    return (
        "start a new run with a lower --train.lr or more --train.warmup, or resume from the last checkpoint by "
        f"--resume auto with {skip}full precision (--precision 32-true)"
    )
