"""The moving average of a module: the recurrence by hand, and nobody waits for a device."""

import torch
from torch import nn

from csvi.train.average import MovingAverage

CPU = torch.device("cpu")


def with_values(module, value):
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.fill_(value)
    return module


def test_weights_and_statistics_are_averaged_and_counters_followed():
    module = with_values(nn.BatchNorm1d(2), 100)
    average = MovingAverage(module, CPU, keep=0.75)
    for step, value in enumerate([4, 8, 20]):
        average.update(with_values(module, value), first=step == 0)
    expected = 0.75 * (0.75 * 4 + 0.25 * 8) + 0.25 * 20
    state = average.module.state_dict()
    for name in ("weight", "bias", "running_mean", "running_var"):
        assert state[name].tolist() == [expected] * 2
    assert (state["num_batches_tracked"], average.n_averaged) == (20, 3)
    assert module.weight.tolist() == [20, 20]


def test_nothing_is_asked_of_the_device():
    """Tensors on `meta` have no values: whatever asks for one fails."""
    module = nn.BatchNorm1d(2, device="meta")
    MovingAverage(module, torch.device("meta"), keep=0.9).update(module, first=True)
