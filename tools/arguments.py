"""The command line of tools/extract.py, made fit for Hydra.

Hydra reads values by a grammar of its own, in which most characters that a path can have are no
part of a word, ``a,b`` is a sweep and ``2024.10`` a number. A path is taken as it is typed here.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from typing import Any

from extract_config import PATHS
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Quote, QuotedString, Sweep
from hydra.errors import HydraException
from plain_command import at_home

from vmb_d2.errors import ConfigError

# The options in the place of the flags of MMF's extract_features_vmb.py.
MMF_FLAGS = {
    "--model_name": "model",
    "--model_file": "model.weights",
    "--config_file": "model.config_file",
    "--start_index": "input.start_index",
    "--end_index": "input.end_index",
    "--batch_size": "extract.batch_size",
    "--num_features": "extract.num_features",
    "--output_folder": "output.dir",
    "--image_dir": "input.dir",
    "--feature_name": "extract.feature_name",
    "--exclude_list": "input.exclude_list",
    "--confidence_threshold": "extract.confidence_threshold",
    "--background": "extract.background",
}
HYDRA_FLAGS = (
    *("--help", "--hydra-help", "--version", "--cfg", "--resolve", "--package", "--run"),
    *("--multirun", "--shell-completion", "--config-path", "--config-name", "--config-dir"),
    *("--experimental-rerun", "--info"),
)
SEVERAL = "input.list"  # takes a list of paths too

_parser = OverridesParser.create()


def for_hydra(arguments: Sequence[str]) -> list[str]:
    """The arguments as Hydra has to be given them.

    A path of the options ``PATHS`` that Hydra would not read as it is gets quotes, and ``~`` in it
    becomes the home folder. Where it exists, it means that file or folder and nothing else.

    Raises:
        ConfigError: a flag that is not Hydra's, or a word that is no option.
    """
    _check_flags(arguments)
    _check_words(arguments)
    if _is_sweep(arguments):
        return [_with_paths(argument, True) for argument in arguments]
    found = [_with_paths(argument, False) for argument in arguments]
    _check_values(found)
    return found


def option(key: str, value: str) -> str:
    """``key=value`` for Hydra, whatever characters the string ``value`` has."""
    return f"{key}={_literal(value)}"


def spelled(override: str) -> str | None:
    """How a shell has to be given ``key=value`` for the value to be taken as it is."""
    key, equals, value = override.partition("=")
    if not equals or value[:1] in ("[", "{"):
        return None
    return shlex.quote(option(key, value))


def _check_flags(arguments: Sequence[str]) -> None:
    flags = [word.partition("=")[0] for word in arguments if word.startswith("--")]
    wrong = [flag for flag in flags if not any(f.startswith(flag) for f in HYDRA_FLAGS)]
    if wrong:
        known = [f"{MMF_FLAGS[flag]}=" for flag in wrong if flag in MMF_FLAGS]
        instead = f", these are {' '.join(known)}" if known else ""
        raise ConfigError(
            f"{' '.join(wrong)}: options are key=value here{instead}; "
            "MMF's own command line is that of tools/extract_features_vmb.py"
        )


def _check_words(arguments: Sequence[str]) -> None:
    """Raise ConfigError for words that are neither options nor flags nor a flag's value."""
    before = ""
    for number, word in enumerate(arguments):
        if _is_stray(word) and (not before.startswith("-") or before in ("-m", "--multirun")):
            words = [word]
            for following in arguments[number + 1 :]:
                if not _is_stray(following):
                    break
                words.append(following)
            hint = "an option is key=value, as in input.dir=photos"
            if "=" in before:
                whole = " ".join([before, *words])
                hint = f"if the spaces belong to the value, type {shlex.quote(whole)}"
            raise ConfigError(f"{' '.join(words)}: is no option; {hint}")
        before = word


def _check_values(arguments: Sequence[str]) -> None:
    """Raise ConfigError for several values of one option, as only a sweep has them."""
    for argument in arguments:
        try:
            read = _parser.parse_override(argument).value()
        except HydraException:
            continue  # a flag, or what Hydra says itself
        if isinstance(read, Sweep):
            key, _, value = argument.partition("=")
            is_list = isinstance(read, ChoiceSweep) and read.simple_form
            instead = f", a list is {shlex.quote(f'{key}=[{value}]')}" if is_list else ""
            raise ConfigError(f"{argument}: is a job for each value, with -m{instead}")


def _is_sweep(arguments: Sequence[str]) -> bool:
    return any(
        word == "-m"
        or (len(word) > 2 and "--multirun".startswith(word))
        or word.startswith("hydra.mode=")
        for word in arguments
    )


def _is_stray(word: str) -> bool:
    return "=" not in word and not word.startswith(("-", "~"))


def _with_paths(argument: str, sweeping: bool) -> str:
    name, equals, value = argument.partition("=")
    key = name.lstrip("+")
    if not equals or key not in PATHS:
        return argument
    is_open = sweeping and key != SEVERAL and "," in value and not _is_readable(value)
    if is_open and not os.path.lexists(at_home(value)):
        one, each = spelled(argument), shlex.quote(f"{name}={_each(value, False)}")
        raise ConfigError(f"{argument}: one path is {one}, a job for each of several {each}")
    return f"{name}={_path(value, sweeping, key == SEVERAL)}"


def _path(value: str, sweeping: bool, several: bool) -> str:
    """What Hydra has to be given for a path, or for several where these may be meant."""
    path = at_home(value)
    if os.path.lexists(path):
        return _literal(path)
    if not _is_readable(value):
        if several and value[0] + value[-1] == "[]" and not re.search(r"\]\s*,\s*\[", value):
            return f"[{_each(value[1:-1], False)}]"
        return _each(value, True) if several and sweeping else _quoted(path)
    read = _read(value)
    choices = (list, Sweep) if several else Sweep if sweeping else ()
    is_quoted = isinstance(read, str) and read != value.strip()
    if read is None or isinstance(read, choices) or is_quoted:
        return _respelled(read) if "~" in value else value
    return _quoted(path)


def _each(values: str, several: bool) -> str:
    """The same for paths with commas between, or lists in brackets of them."""
    found = re.findall(r"\[[^\]]*\]|[^,]+", values)
    return ",".join(_path(value.strip(), False, several) for value in found)


def _read(value: str) -> Any:
    """What Hydra's grammar makes of it. Raises HydraException."""
    return _parser.parse_override(f"path={value}").value()


def _is_readable(value: str) -> bool:
    try:
        _read(value)
    except HydraException:
        return False
    return True


def _respelled(read: Any) -> str:
    """What Hydra reads as the same, but with the home folder in the place of ``~``."""
    if isinstance(read, list):
        return f"[{','.join(map(_respelled, read))}]"
    if isinstance(read, ChoiceSweep):
        return ",".join(map(_respelled, read.list))
    return _quoted(at_home(read.text if isinstance(read, QuotedString) else str(read)))


def _literal(text: str) -> str:
    """What Hydra reads as ``text``, without interpolations."""
    return _quoted(re.sub(r"(\\*)\$\{", r"\1\1\\${", text))


def _quoted(text: str) -> str:
    """What Hydra's grammar reads as ``text``."""
    if _is_readable(text) and _read(text) == text:
        return text
    return QuotedString(text, Quote.double).with_quotes()
