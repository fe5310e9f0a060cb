"""The moving average of what is trained."""

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


class MovingAverage(AveragedModel):
    """Exponential moving average of a module's weights and running statistics; counters are those of the module.

    PyTorch's own averages alike, but asks the device at every step whether it is the first one, and so waits for it.

    Args:
        module: of which a copy is made.
        device: of the copy.
        keep: share of the average so far, against that of the present values.
    """

    def __init__(self, module: nn.Module, device: torch.device, keep: float):
        super().__init__(module, device, use_buffers=True)
        self.keep = keep

    @torch.no_grad()
    def update(self, module: nn.Module, first: bool) -> None:
        """Take in the present values; those of the first step are the average."""
        averages = [*self.module.parameters(), *self.module.buffers()]
        values = [*module.parameters(), *module.buffers()]
        pairs = [(old, new.detach()) for old, new in zip(averages, values, strict=True)]
        floats, counters = ([pair for pair in pairs if pair[0].is_floating_point() == of] for of in (True, False))
        torch._foreach_lerp_([old for old, _ in floats], [new for _, new in floats], 1.0 if first else 1 - self.keep)
        for old, new in counters:
            old.copy_(new)
        self.n_averaged += 1
