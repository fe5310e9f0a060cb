"""The argument parser of all commands."""

import contextlib
import dataclasses
import difflib
import itertools
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NoReturn, TypeVar, get_args, get_origin

import yaml
from jsonargparse import SUPPRESS, ActionConfigFile, ArgumentParser, set_parsing_settings

from csvi.config import Config, read_settings, settings_file
from csvi.errors import CsviError

set_parsing_settings(docstring_parse_attribute_docstrings=True)

T = TypeVar("T")
METHOD = "one of csvi methods, or module:Class"
"""Help of `--method`."""
CONFIG = "YAML file of settings, or one of csvi's by its name (sysu, methods/agw)"
"""Help of `--config`."""

_KINDS = {
    "<class 'float'>": "a finite number", "<class 'int'>": "a whole number", "<class 'bool'>": "true or false",
    "<class 'dict'>": "a mapping, as {NAME: VALUE}", "<class 'list'>": "a list, as [VALUE, VALUE]",
}  # fmt: skip
"""Types as jsonargparse writes them, and in plain words."""


class Parser(ArgumentParser):
    """An argument parser that says what is wrong in one sentence."""

    arguments: Sequence[str] = ()
    """What is to be parsed: which options a command has may depend on it."""
    method: str | None = None
    """Name of the method that a command trains, once it is known."""

    def __init__(self, **options: Any):
        super().__init__(allow_abbrev=False, **options)  # of what `_values` looks for, say, the parser alone would know

    def add_argument(self, *names: Any, **options: Any) -> Any:
        """Add an option, of type str if nothing else is said: jsonargparse would take any type from a --config."""
        if not options.keys() & {"action", "choices", "type"}:
            options["type"] = str
        return super().add_argument(*names, **options)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print one sentence, not pages of usage, and exit with status 2."""
        command = self.prog.replace("[options] ", "")
        word = next(iter(self.arguments), "") if "word" in (action.dest for action in self._actions) else ""
        of_method = f"--method {self.method}" if self.method else ""
        options = " ".join(filter(None, (command, word, of_method, "--help")))
        said = _in_plain_words(" ".join(message.split()), self)
        print(f"{command}: {said[:500]} (see {options})", file=sys.stderr)
        sys.exit(2)


def _in_plain_words(message: str, parser: ArgumentParser) -> str:
    """Put what jsonargparse says without types of Python, and with the option that was meant."""
    names = {action.dest: action.option_strings[-1] for action in parser._actions if action.option_strings}
    types = {action.dest: getattr(action, "_typehint", None) for action in parser._actions}
    for pattern in (
        r'Parser key "(\S+)": Expected a (.+?)\. Got value: (.*)',
        r'Parser key "(\S+)": Does not .*? Errors: - Expected a (.+?) - Expected a <.*NoneType.* Given value: (.*)',
    ):
        if found := re.fullmatch(pattern, message):
            key, kind, value = found.groups()
            choices = get_args(types.get(key)) if get_origin(types.get(key)) is Literal else ()
            kind = f"one of {', '.join(map(str, choices))}" if choices else _KINDS.get(kind)
            return f"{key} is {value}: it must be {kind}" if kind else message
    if found := re.fullmatch(r"the following arguments are required: (.*)", message):
        needed = ", ".join(names.get(name, name) for name in found[1].split(", "))
        return f"the following arguments are required: {needed}"
    if found := re.match(r"unrecognized arguments: --([^\s=]+)", message):
        known = [option.removeprefix("--") for option in names.values()]
        within = [name for name in known if name.endswith(f".{found[1]}")]  # as --lr of --train.lr
        if close := within or difflib.get_close_matches(found[1], known, 1):
            return f"{message}, did you mean --{close[0]}?"
    return message


def check_empty(parser: ArgumentParser, settings: Any) -> None:
    """Raises `CsviError` if a text is empty, as an unset variable of a shell: as a path it means this folder."""
    for action in parser._actions:
        value = settings.get(action.dest)
        if "" in (value if isinstance(value, list) else [value]) and action.default != "":
            name = next(reversed(action.option_strings), action.dest)
            raise CsviError(f"{name} is empty: give it a value, or leave it out")


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


def picked(kind: type[T], settings: Any) -> T:
    """Pick the settings of a dataclass from those of a command."""
    return kind(**{field.name: settings[field.name] for field in dataclasses.fields(kind)})  # type: ignore[arg-type]


def add_run_settings(parser: Parser) -> None:
    """Add --config and every setting of a run, those of its method among them.

    The method is the one that `--method NAME` names, or else the `--config` file. Help for no method in particular
    imports none, and so no torch.
    """
    parser.add_argument(
        "--config", action=_ConfigFile, help=f"{CONFIG}; options override it, and a later file an earlier one"
    )
    parser.arguments = _files_first([_spelled_out(argument) for argument in parser.arguments])
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


def _files_first(arguments: Sequence[str]) -> list[str]:
    """Put each --config before all other options: jsonargparse lets the last word win, a file over an option too."""
    files, others, words = list[str](), list[str](), iter(arguments)
    for word in words:
        if word == "--config" and (file := next(words, None)) is not None:
            files += [word, file]
        else:
            (files if word.startswith("--config=") else others).append(word)
    return [*files, *others]


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
