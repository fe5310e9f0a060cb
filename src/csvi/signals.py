"""The signals that ask a command to end with nothing lost, and what becomes of them in its other processes."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

from csvi.errors import TerminatedError

Handler = Callable[[int, FrameType | None], object] | signal.Handlers

ENDING = tuple(
    number
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)
    if signal.getsignal(number) is not signal.SIG_IGN
)
"""SIGTERM; SIGHUP of a terminal that is gone; and what schedulers send before they kill: SIGUSR1 (SLURM's --signal),
SIGUSR2 (Grid Engine, LSF), SIGXCPU (limits on time). One that was ignored from the start (SIGHUP by nohup) stays so."""

_CAN_WAIT = hasattr(signal, "sigtimedwait")


def handle(handler: Handler, *numbers: int) -> dict[int, Any]:
    """Let a handler have these signals; returns those before. Does nothing in a thread, where Python allows none."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, handler) for number in numbers}


def terminate(number: int, frame: object) -> NoReturn:
    """A handler that ends the command: raises `TerminatedError` with the name of the signal."""
    raise TerminatedError(signal.Signals(number).name)


@contextlib.contextmanager
def handled(handler: Handler, *numbers: int) -> Iterator[dict[int, Any]]:
    """Let a handler have these signals for a while, see `handle`."""
    before = handle(handler, *numbers)
    try:
        yield before
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Hold signals back while processes are started: they are born so, and none ends one of them."""
    if not _CAN_WAIT:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *ENDING})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_to_the_main_process(*_: object) -> None:
    """Let the main process decide what a signal to all processes means: it may want what this one is making.

    Called in the other process. It then ends when the main one sends it SIGTERM, or is gone.
    """
    for number in (signal.SIGINT, *ENDING):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    main = multiprocessing.parent_process()
    if main is not None and _CAN_WAIT:  # elsewhere any SIGTERM ends it
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with, args=(main.pid, os.getppid()), daemon=True).start()


def _end_with(main: int | None, started_by: int) -> None:
    while os.getppid() == started_by:
        received = signal.sigtimedwait({signal.SIGTERM}, 5)
        if received is not None and received.si_pid == main:
            break
    os._exit(0)
