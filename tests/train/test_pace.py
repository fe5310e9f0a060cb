"""Steps that become slow are told once, with what helps."""

import pytest

from csvi.train.pace import SLOWER, STEPS, WAITING, WAITS, Pace


def told(caplog, seconds):
    """The warnings about steps that take so long."""
    pace = Pace()
    for duration in seconds:
        pace.took(duration)
    return [record.message for record in caplog.records]


def test_much_slower_steps_are_told_once_with_what_helps(caplog):
    (message,) = told(caplog, [0.5] * STEPS + [2.0] * 5 * STEPS)
    assert message.startswith("a step takes 2.00 s, and took 0.50 s at first:")
    assert "OMP_NUM_THREADS=1" in message
    assert "GOMP_SPINCOUNT" in message


@pytest.mark.parametrize(
    "seconds",
    [
        [0.5] * 5 * STEPS,
        [0.5] * STEPS + [0.99 * SLOWER * 0.5] * 5 * STEPS,
        [2.0] * STEPS + [0.5] * 5 * STEPS,  # faster
        ([0.5] * (STEPS - 1) + [60.0]) * 5,  # a single one, as with a checkpoint before it
        [0.5] * STEPS + [60.0] * (STEPS // 2 - 1),  # a few
        [60.0] * (STEPS - 1),  # before it is known how long one takes
        [],
    ],
)
def test_otherwise_nothing_is_said(caplog, seconds):
    assert told(caplog, seconds) == []


def test_it_takes_as_many_steps_as_are_looked_at_together(caplog):
    assert told(caplog, [0.5] * STEPS + [60.0] * (STEPS - 1)) == []
    assert len(told(caplog, [0.5] * STEPS + [60.0] * STEPS)) == 1


def waiting(caplog, waits):
    """The warnings about steps of half a second that wait so long for images."""
    pace = Pace(workers=2)
    for waited in waits:
        pace.waited(waited, 0.5)
    return [record.message for record in caplog.records]


def test_waiting_for_images_is_told_once_with_what_helps(caplog):
    (message,) = waiting(caplog, [0.0, 0.4] * 2 * WAITS)  # two loader processes bring a batch each
    assert message.startswith("steps wait for images 40 % of their time: more loader processes help (--data.workers,")
    assert "now 2" in message


@pytest.mark.parametrize("waits", [[0.99 * WAITING * 0.5] * 2 * WAITS, [0.5] * (WAITS - 1), [0.0] * WAITS + [0.5], []])
def test_little_waiting_is_not_told(caplog, waits):
    assert waiting(caplog, waits) == []
