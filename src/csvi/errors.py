"""The exceptions that users are meant to read, and the words of others in them."""


class CsviError(Exception):
    """What is wrong and what to do about it, in one sentence; the command line prints it and exits with status 1."""


class NothingToScoreError(CsviError):
    """No query has an image of its identity in the gallery."""


class TerminatedError(KeyboardInterrupt):
    """A signal of `csvi.signals.ENDING` ended the command; like Ctrl-C it ends child processes, too."""


class StoppedError(CsviError):
    """Stopped before the end with nothing lost: the same command goes on. Exit status 75, "try again" of sysexits.h."""


def leave_unsaid(error: BaseException) -> None:
    """Let the command line end with an error's exit status and without a word: another process says it."""
    error.unsaid = True  # type: ignore[attr-defined]


def in_one_line(error: BaseException, most: int = 300) -> str:
    """Put what an exception says on one line of so many characters at most."""
    return " ".join(str(error).split())[:most]
