"""Whole configurations: reading, writing, and changing them setting by setting."""

import dataclasses
import functools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser

from csvi.config import Config, MethodSettings, check_nulls, flatten, read_settings
from csvi.errors import CsviError, in_one_line
from csvi.methods import find_method
from csvi.paths import expanded
from csvi.writing import replacing

DEFAULT_METHOD = "coseg"


def add_settings(parser: ArgumentParser, method: str) -> None:
    """Let a parser take every setting of a run of this method."""
    _add_settings_of(parser, find_method(method).Settings, method)


def save_config(config: Config, file: str | os.PathLike[str]) -> None:
    """Write a configuration as YAML, readable by `load_config` and by `csvi train --config`.

    Raises:
        CsviError: the file cannot be written.
    """
    plain = json.loads(json.dumps(dataclasses.asdict(config)))  # tuples as lists
    with replacing(expanded(file)) as partial:
        partial.write_text(yaml.safe_dump(plain, sort_keys=False))


def load_config(file: str | os.PathLike[str]) -> Config:
    """Read a configuration; a setting that the file leaves out has its default.

    Raises:
        CsviError: there is no such file or method, or it holds an unknown setting or a value of the wrong type.
    """
    file = expanded(file)
    return _of_file(file, read_settings(file))


def method_settings(file: Path, section: Mapping[str, Any]) -> MethodSettings:
    """Make the settings of a method from the section `method` that a file holds; raises as `load_config`."""
    return _of_file(file, {"method": section}).method


def with_settings(config: Config, settings: Mapping[str, str]) -> Config:
    """Copy a configuration with other values: name such as `data.height` → text, as on the command line.

    Another method takes over what it has too, but for defaults of the first where its own are others.

    Raises:
        CsviError: there is no such method or setting, or a value of the wrong type.
    """
    config = dataclasses.replace(
        config, method=as_method(config.method, settings.get("method.name", config.method.name))
    )
    plain = dataclasses.asdict(config)
    for name in settings:
        if name not in flatten(config):
            raise CsviError(f"unknown setting {name!r}: see csvi train --method {config.method.name} --help")
    try:
        for name, text in settings.items():
            section, _, key = name.rpartition(".")
            (plain[section] if section else plain)[key] = yaml.safe_load(text)
        return _parsed(plain)
    except CsviError:
        raise
    except Exception as error:
        raise CsviError(f"{dict(settings)} are no settings of csvi: {in_one_line(error, 500)}") from error


def as_method(settings: MethodSettings, name: str) -> MethodSettings:
    """Give a method what it takes over from the settings of another."""
    return find_method(name).Settings(**taken_over(settings, name) | {"name": name})


def taken_over(settings: MethodSettings, name: str) -> dict[str, Any]:
    """List what another method takes over: what it has too, but for a default of these where its own is another."""
    default, own = vars(type(settings)()), vars(find_method(name).Settings())
    shared = {key: value for key, value in vars(settings).items() if key in own and key != "name"}
    return {key: value for key, value in shared.items() if value != default[key] or own[key] == default[key]}


def _of_file(file: Path, plain: Mapping[str, Any]) -> Config:
    try:
        return _parsed(plain)
    except Exception as error:  # jsonargparse raises several of its own
        raise CsviError(f"{file} is not a configuration of csvi: {in_one_line(error, 500)}") from error


def _parsed(plain: Mapping[str, Any]) -> Config:
    method = str(plain.get("method", {}).get("name") or DEFAULT_METHOD)
    parser = _parser_of(find_method(method).Settings, method)  # type: ignore[arg-type]  # a class has a hash
    parsed = parser.parse_object(dict(plain))
    check_nulls(parser, parsed)
    return Config(**vars(parser.instantiate(parsed)))


@functools.cache  # to build one takes as long as to parse with it
def _parser_of(settings: type[MethodSettings], method: str) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    _add_settings_of(parser, settings, method)
    return parser


def _add_settings_of(parser: ArgumentParser, settings: type[MethodSettings], method: str) -> None:
    parser.add_class_arguments(settings, "method")
    parser.set_defaults({"method.name": method})
    parser.add_class_arguments(Config, skip={"method"})
