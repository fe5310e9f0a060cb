"""The command line: finds the command and runs it. Heavy imports wait until a command runs."""

import contextlib
import importlib
import io
import logging
import os
import re
import select
import signal
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import TextIO

from csvi import __version__
from csvi.completion import add_completers, completes, words_to_complete
from csvi.errors import CsviError, StoppedError, TerminatedError, in_one_line
from csvi.signals import ENDING, handle, terminate
from csvi.threads import let_threads_sleep

COMMANDS = (
    "synth", "check", "train", "evaluate", "compare", "report", "figure", "methods", "masks", "embed", "index",
    "search", "app", "export", "ablate", "reproduce", "demo", "doctor",
)  # fmt: skip
"""Each a module of `csvi.commands` with `SUMMARY`, `add_arguments(parser)` and `run(settings)`."""
UNREAD = 128 + signal.SIGPIPE
"""Exit status where nobody reads standard output any more: 141, a shell's word for a program that SIGPIPE has ended."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status.

    0 for success; 1 for a CsviError, or problems that a check finds; 2 for wrong arguments; 75 for a command that was
    stopped, by itself or a signal such as SIGTERM, and can be resumed; 130 for one that was interrupted; 141, without a
    word, for one whose standard output nobody reads any more (`csvi doctor | head -1`), as of a program that SIGPIPE
    ends.
    """
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("csvi").setLevel(logging.INFO)
    handle(terminate, *ENDING)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a character that its encoding lacks becomes a question mark
    let_threads_sleep()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if completes():
        arguments = words_to_complete(COMMANDS)
    name = "csvi"
    try:
        command = _command(arguments)
        name = f"csvi {arguments[0]}"
        status = _run(command, name, arguments[1:]) or 0
        print(end="", flush=True)  # what cannot be written is an error like others
        return status
    except (CsviError, OSError) as error:  # an OSError is a full disk or a folder that cannot be written
        if isinstance(error, BrokenPipeError) and _nobody_reads(sys.stdout):
            return UNREAD
        _say(f"{name}: {error}", error)
        if isinstance(error, StoppedError):
            handle(signal.SIG_IGN, *ENDING)  # all is saved: a second one changes nothing
            return 75
        return 1
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # rich exits in its place
            return UNREAD
        raise
    except (MemoryError, RuntimeError) as error:  # PyTorch's are RuntimeErrors, and known by their words alone
        if not (isinstance(error, MemoryError) or re.search(r"(out of|not enough|allocate) memory", str(error))):
            raise
        less = "smaller batches (--data.identities, --data.images) or images (--data.height, --data.width)"
        _say(f"{name}: not enough memory ({in_one_line(error)}); training takes less with {less}", error)
        return 1
    except TerminatedError as signalled:
        handle(signal.SIG_IGN, *ENDING)  # srun sends SIGTERM to those that end a moment later than the first
        _say(f"{name}: ended by {signalled}, the same command resumes or begins anew", signalled)
        return 75
    except KeyboardInterrupt as error:
        _say(f"{name}: interrupted", error)
        return 130
    finally:
        _let_go_of_broken_pipes()


def _command(arguments: Sequence[str]) -> ModuleType:
    """Import the command that the arguments begin with; without one, print help or the error, and exit."""
    if arguments and arguments[0] in COMMANDS:
        return importlib.import_module(f"csvi.commands.{arguments[0]}")
    from csvi.commands.parser import Parser

    parser = Parser(prog="csvi", description="Visible-infrared person re-identification with co-segmentation.")
    parser.add_argument("--version", action="version", version=f"csvi {__version__}")
    subcommands = parser.add_subcommands(dest="command")
    for name in COMMANDS:
        summary = importlib.import_module(f"csvi.commands.{name}").SUMMARY
        subcommands.add_subcommand(name, Parser(prog=f"csvi {name}"), help=summary)
    parser.parse_args(arguments)
    raise AssertionError(f"{arguments} name no command")


def _run(command: ModuleType, name: str, arguments: list[str]) -> int | None:
    from csvi.commands.parser import Parser, check_empty, refusing
    from csvi.config import check_nulls

    parser = Parser(prog=name, description=command.SUMMARY)
    with refusing(parser):
        parser.arguments = arguments
        command.add_arguments(parser)
        if completes():
            add_completers(parser)
        parsed = parser.parse_args(parser.arguments)
        check_nulls(parser, parsed)
        check_empty(parser, parsed)
        settings = parser.instantiate(parsed)
    status: int | None = command.run(settings)
    return status


def _nobody_reads(stream: TextIO | None) -> bool:
    """Whether a stream is a pipe that nobody reads any more."""
    poll = select.poll()
    try:
        poll.register(stream, 0)  # type: ignore[arg-type]
    except (TypeError, ValueError):  # there is none, or it is no file
        return False
    return bool(poll.poll(0))


def _let_go_of_broken_pipes() -> None:
    """Flush both streams and drop broken ones: Python would write to them as it exits, and end with status 120."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _say(message: str, error: BaseException) -> None:
    """Say what an error means, but where another process does (`csvi.errors.leave_unsaid`)."""
    if getattr(error, "unsaid", False):
        return
    with contextlib.suppress(OSError):  # stderr may be a pipe that nobody reads any more
        print(message, file=sys.stderr, flush=True)
