"""The argument parser of all commands."""

import contextlib
import itertools
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import yaml
from jsonargparse import SUPPRESS, ActionConfigFile, ArgumentParser, set_parsing_settings

from csvi.config import Config, read_settings, settings_file
from csvi.errors import CsviError

set_parsing_settings(docstring_parse_attribute_docstrings=True)

METHOD = "one of csvi methods, or module:Class"
"""Help of `--method`."""
CONFIG = "YAML file of settings, or one of csvi's by its name (sysu, methods/agw)"
"""Help of `--config`."""


class Parser(ArgumentParser):
    """An argument parser that says what is wrong in one sentence."""

    arguments: Sequence[str] = ()
    """What is to be parsed: which options a command has may depend on it."""
    method: str | None = None
    """Name of the method that a command trains, once it is known."""

    def add_argument(self, *names: Any, **options: Any) -> Any:
        """Add an option, of type str if nothing else is said: jsonargparse would take any type from a --config."""
        if not options.keys() & {"action", "choices", "type"}:
            options["type"] = str
        return super().add_argument(*names, **options)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print one sentence, not pages of usage, and exit with status 2."""
        command = self.prog.replace("[options] ", "")
        options = f"{command} --method {self.method} --help" if self.method else f"{command} --help"
        print(f"{command}: {' '.join(message.split())[:500]} (see {options})", file=sys.stderr)
        sys.exit(2)


@contextlib.contextmanager
def refusing(parser: ArgumentParser) -> Iterator[None]:
    """Turn any failure of jsonargparse into the exit of wrong arguments."""
    try:
        yield
    except (CsviError, OSError):  # the latter of what --print_config writes
        raise
    except Exception as error:
        parser.error(f"cannot make out the arguments: {error}")


class _ConfigFile(ActionConfigFile):
    def __call__(self, parser: Any, settings: Any, file: Any, option: str | None = None) -> None:
        """Apply a file of settings; errors name the file, which those of jsonargparse do not."""
        path = settings_file(file)
        found = read_settings(path)
        section = found.get("method", {})
        if parser.method is not None and (section.get("name") or parser.method) != parser.method:
            from csvi.runs.settings import method_settings, taken_over

            taken = taken_over(method_settings(path, section), parser.method)
            found["method"] = {key: value for key, value in section.items() if key in taken}
        if found:
            super().__call__(parser, settings, yaml.safe_dump(found), option)


def add_run_settings(parser: Parser) -> None:
    """Add --config and every setting of a run, those of its method among them.

    The method is the one that `--method NAME` names, or else the `--config` file. Help for no method in particular
    imports none, and so no torch.
    """
    parser.add_argument("--config", action=_ConfigFile, help=f"{CONFIG}; give it first, options after it override it")
    parser.arguments = [_spelled_out(argument) for argument in parser.arguments]
    parser.method = _named_method(parser.arguments)
    if parser.method is None and {"--help", "-h"} & set(parser.arguments):
        parser.add_argument("--method", help=f"{METHOD}; --method NAME --help: its settings")
        parser.add_class_arguments(Config, skip={"method"})
        return
    from csvi.runs.settings import DEFAULT_METHOD, add_settings

    parser.method = parser.method or DEFAULT_METHOD
    add_settings(parser, parser.method)
    for action in parser._actions:
        if "--method" in action.option_strings:
            action.metavar, action.help = "NAME", METHOD
        elif "--method.name" in action.option_strings:
            action.help = SUPPRESS


def _spelled_out(argument: str) -> str:
    """Write `--method` as `--method.name`, which it is in the settings."""
    name, equals, value = argument.partition("=")
    return f"--method.name{equals}{value}" if name == "--method" else argument


def _named_method(arguments: Sequence[str]) -> str | None:
    """Tell the last `--method.name`, or else the method of the last --config file that names one."""
    sections = [read_settings(settings_file(file)).get("method", {}) for file in _values(arguments, "--config")]
    named = [section["name"] for section in sections if section.get("name")] + _values(arguments, "--method.name")
    return str(named[-1]) if named else None


def _values(arguments: Sequence[str], option: str) -> list[str]:
    """List what is given of an option, in either form."""
    found = []
    for argument, following in itertools.zip_longest(arguments, arguments[1:]):
        if argument == option and following is not None:
            found.append(following)
        elif argument.startswith(f"{option}="):
            found.append(argument.partition("=")[2])
    return found
