"""Stopping with nothing lost: before a limit, at a signal, and in all processes at once."""

import io
import logging
import math
import signal
import threading
import time
from types import SimpleNamespace

import pytest
import torch

from csvi.cli import main
from csvi.errors import CsviError, StoppedError, TerminatedError
from csvi.signals import ENDING, handled, terminate
from csvi.train import loop
from csvi.train.loop import train
from csvi.train.stopping import TimeLimit, any_process, seconds, stop_signal, works_ahead


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", 90),
        ("30m", 1800),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1h0m5s", 3605),
        ("36h", 129600),
        (f"1{400 * '0'}h", math.inf),
    ],
)
def test_durations(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "90", "2 h", "h", "30m1h", "1.5h", "-1h", "0s", "2hours", "1h30", "٣h"])
def test_what_is_no_duration(text, capsys):
    with pytest.raises(CsviError, match="no duration: write it as 90s, 30m, 2h or 1h30m"):
        seconds(text)
    assert main(["train", f"--max_time={text}", "--data.root=nowhere"]) == 1
    message = capsys.readouterr().err
    assert ("no duration" if text else "--max_time is empty") in message
    assert message.count("\n") == 1


def test_what_comes_next_must_fit(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    limit = TimeLimit(until=1100.0, validation=3)
    assert limit.fits("step", "validation", "saving")  # nothing is known yet
    for duration in (10.0, 20.0, 1.0):
        limit.took("step", duration)
    limit.took("saving", 20.0)
    assert limit.fits("step", "saving")  # 1.5 x 40 s
    assert not limit.fits("step", "validation", "saving")  # three steps more
    limit.took("validation", 5.0)
    assert limit.fits("step", "validation", "saving")
    now = 1050.0
    assert not limit.fits("step", "saving")
    assert TimeLimit().fits("step")
    assert not TimeLimit(now).fits()


@pytest.fixture
def ticking(config, monkeypatch):
    """Every step takes ten seconds, every validation fifty; from 1000 on."""
    config.data.identities, config.train.epochs, config.train.validate_every = 4, 2, 1
    clock = [1000.0]
    step, validate = loop.train_step, loop.validate

    def lasts(duration, work):
        def patched(*arguments):
            clock[0] += duration
            return work(*arguments)

        return patched

    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(loop, "train_step", lasts(10, step))
    monkeypatch.setattr(loop, "validate", lasts(50, validate))
    return clock


@pytest.mark.slow
@pytest.mark.parametrize(
    ("until", "steps", "ends"),
    [
        (1005, 1, 1010),  # there must be a first step to know how long one takes
        (1020, 1, 1010),
        (1035, 2, 1020),  # a third step would be over in time, but not with the margin
        (1060, 3, 1030),  # a fourth and the validation would not
        (1150, 7, 1120),  # here they fit once
    ],
)
def test_a_run_stops_before_its_limit_and_is_resumed(ticking, config, tmp_path, until, steps, ends):
    with pytest.raises(StoppedError, match=rf"stopped after {steps} of 8 steps, all of it saved in"):
        train(config, tmp_path / "run", until=until)
    assert ticking[0] == ends
    train(config, tmp_path / "run", resume="auto", until=math.inf)
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert text.count("train/loss") == 8
    assert text.count("val/R1") == 2


@pytest.mark.parametrize(
    ("left", "at_once", "validates", "save_first", "expected"),
    [
        (4, 1, True, False, "step saving"),
        (4, 1, True, True, "saving step saving"),
        (1, 1, True, False, "step saving validation saving"),
        (1, 1, False, False, "step saving"),
        (0, 1, True, False, "saving validation saving"),
        (12, 3, True, False, "step step step saving"),
        (2, 3, True, False, "step step saving validation saving"),
    ],
)
def test_what_comes_before_the_next_occasion_to_stop(left, at_once, validates, save_first, expected):
    assert works_ahead(left, at_once, validates, save_first) == expected.split()


def test_checkpoints_are_written_as_often_as_is_wished(ticking, config, tmp_path, monkeypatch):
    config.train.checkpoint_every = 0.4  # every 24 s, which is at least every third step
    config.train.validate_every = 0
    saved = []
    monkeypatch.setattr(loop, "save_checkpoint", lambda *arguments: saved.append(ticking[0] - 1000))
    train(config, tmp_path / "run")
    assert saved == [0, 30, 40, 70, 80]  # at the ends of epochs as well


def test_a_limit_that_is_over_already(ticking, config, tmp_path):
    with pytest.raises(StoppedError, match="stopped after 0 of 8 steps"):
        train(config, tmp_path / "run", until=999)
    assert not (tmp_path / "run" / "model.safetensors").exists()


@pytest.fixture
def in_front():
    """As a process in front of a terminal: those that a script puts behind do not hear SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("in_front")
def test_a_second_ctrl_c_interrupts_at_once():
    with stop_signal() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_mean_what_they_meant_when_the_run_is_over(number, caplog):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with stop_signal() as stop:
        assert not stop.requested
        signal.raise_signal(number)
        assert stop.requested
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    assert "stopping when this step, or this validation, is over" in caplog.text


@pytest.mark.parametrize("number", [*ENDING, signal.SIGINT])
def test_every_signal_that_ends_a_command_requests_a_stop(number, caplog):
    with stop_signal() as stop:
        signal.raise_signal(number)
        assert stop.requested
    assert caplog.text.count("stopping when this step") == 1


def test_a_second_sigterm_ends_at_once_if_it_is_another_one(monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with handled(terminate, signal.SIGTERM), stop_signal() as stop:
        for number, at in (
            (signal.SIGUSR1, 0.0),  # of SLURM, minutes before it sends
            (signal.SIGTERM, 60.0),
            (signal.SIGTERM, 60.5),  # to the group, after the process
            (signal.SIGHUP, 70.0),
            (signal.SIGUSR1, 70.0),
        ):
            clock[0] = 1000 + at
            signal.raise_signal(number)
        assert stop.requested
        clock[0] = 1070
        with pytest.raises(TerminatedError, match="SIGTERM"):
            signal.raise_signal(signal.SIGTERM)


def test_a_signal_in_the_middle_of_writing():
    """As of the bar of progress: Python lets nobody write who is interrupted as he writes."""

    class Interrupted(io.RawIOBase):
        def writable(self):
            return True

        def write(self, text):
            written.append(bytes(text))
            if len(written) == 1:
                signal.raise_signal(signal.SIGTERM)
            return len(text)

    written = []
    stream = io.TextIOWrapper(io.BufferedWriter(Interrupted()), write_through=True)
    handler = logging.StreamHandler(stream)
    logging.getLogger("csvi").addHandler(handler)
    try:
        with stop_signal() as stop:
            stream.write("bar\n")
            stream.flush()
            assert stop.requested
        assert b"".join(written).startswith(b"bar\nstopping when")
    finally:
        logging.getLogger("csvi").removeHandler(handler)


def test_a_run_in_a_thread_leaves_signals_alone():
    """Python lets only the main thread handle them."""
    handlers = []

    def run():
        with stop_signal() as stop:
            handlers.append((signal.getsignal(signal.SIGTERM), stop.requested))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert handlers == [(signal.getsignal(signal.SIGTERM), False)]


@pytest.mark.parametrize("condition", [True, False, torch.tensor(True), torch.tensor(False)])
def test_one_of_several_processes_is_enough(condition):
    alone = SimpleNamespace(world_size=1)
    assert any_process(alone, condition) == bool(condition)
    for others in (True, False):

        def all_reduce(value, reduce_op, others=others):
            assert reduce_op == "max"
            return torch.maximum(value, torch.tensor(float(others)))

        fabric = SimpleNamespace(world_size=2, device=torch.device("cpu"), all_reduce=all_reduce)
        assert any_process(fabric, condition) == (bool(condition) or others)
